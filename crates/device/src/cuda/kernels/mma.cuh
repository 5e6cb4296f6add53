// One matrix instruction of a warp for the plan's precision, in words of four bytes: sums[16][8] += left[16][8 words] * right[8 words][8].
//
// A word is two halves, or one float of which the instruction reads the first 19 bits (tf32). In words the three instructions look alike;
// lane = 4 * r + t:
//
//   left    a0 (row r, word t)   a1 (row r + 8, word t)   a2 (row r, word t + 4)   a3 (row r + 8, word t + 4)
//   right   b0 (word t, column r)                         b1 (word t + 4, column r)
//   sums    d0, d1 (row r, columns 2t and 2t + 1)         d2, d3 (row r + 8, likewise)
//
// Which k a word stands for is up to the caller, as long as both sides agree.
#pragma once
#include "types.cuh"

__device__ __forceinline__ void multiply_add(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
#if REAL == 0
#define TESSERA_MMA "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
#elif REAL == 1
#define TESSERA_MMA "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
#else
#define TESSERA_MMA "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
#endif
    asm(TESSERA_MMA " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#undef TESSERA_MMA
}

// Elements of one word.
constexpr u32 PER_WORD = 4 / sizeof(real);

// A word of two neighbours in k (the second is not used where a word is one float), rounded as factors are.
__device__ __forceinline__ u32 word_of(float first, float second) {
    u32 word;
#if REAL == 0
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(first));
#elif REAL == 1
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
#endif
    return word;
}

#if REAL != 0
// Four matrices of 8 x 8 halves from shared memory. Lane 8m + i names row i of matrix m, 16 aligned bytes; lane 4r + t gets the word
// t of row r of each.
__device__ __forceinline__ void load_matrices(u32 (&words)[4], const void* row) {
    const u32 address = static_cast<u32>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(address)
                 : "memory");
}

// The same, transposed: lane 4r + t gets elements r of rows 2t and 2t + 1.
__device__ __forceinline__ void load_matrices_transposed(u32 (&words)[4], const void* row) {
    const u32 address = static_cast<u32>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(address)
                 : "memory");
}
// Two of them: lane 8m + i names row i of matrix m, of lanes below 16.
__device__ __forceinline__ void load_matrices_transposed(u32 (&words)[2], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(words[0]), "=r"(words[1]) : "r"(row) : "memory");
}

// The way back, of four matrices and of two: lane 4r + t has elements 2t and 2t + 1 of row r of each, which become elements r of the rows 2t and
// 2t + 1; lane 8m + i names row i of matrix m as it will lie, 16 aligned bytes.
__device__ __forceinline__ void store_matrices_transposed(u32 row, const u32 (&words)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(words[0]), "r"(words[1]),
                 "r"(words[2]), "r"(words[3])
                 : "memory");
}
__device__ __forceinline__ void store_matrices_transposed(u32 row, const u32 (&words)[2]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(row), "r"(words[0]), "r"(words[1]) : "memory");
}
#endif
