// Halves that are finished where a tile is staged in shared memory: a group's 64 outputs find their residuals there, take their place, and they
// leave in whole lines.
//
//   staged   [BN rows][64 outputs, and 16 bytes so that no bank is hit twice]
#pragma once
#include "product_sums.cuh"
#include "mma.cuh"

constexpr int GROUP = 128;  // threads that multiply and finish a tile
constexpr u32 STAGED_PITCH = 64 * 2 + 16, STAGED_BYTES = BN * STAGED_PITCH;
static_assert(sizeof(real) == 2 && RESIDUAL <= 1, "halves");

// A named barrier of each group.
__device__ __forceinline__ void group_sync(u32 group) { asm volatile("bar.sync %0, %1;" ::"r"(1 + group), "n"(GROUP) : "memory"); }

// The row of matrices that a thread of the group names, of the first 8 rows: a warp has 16 outputs.
__device__ __forceinline__ u32 named_row(u32 staged, u32 thread) {
    return staged + thread % 8 * STAGED_PITCH + (thread / 32 * 16 + thread / 8 % 2 * 8) * 2;
}

// Adds bias and residual to a group's sums, and leaves what comes of them where the residual was: a warp reads and writes its own 16 outputs alone.
template <int COUNT>
__device__ __forceinline__ void finish_staged(const Params& p, u32 named, const float (&sums)[COUNT], const float (&bias)[2]) {
#pragma unroll
    for (int n = 0; n < COUNT / 4; n++) {
        u32 halves[2];
#if RESIDUAL
        load_matrices_transposed(halves, named + n * 8 * STAGED_PITCH);
#endif
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float pair[2];
#pragma unroll
            for (int j = 0; j < 2; j++) {
                pair[j] = sums[n * 4 + i * 2 + j] + bias[i];
#if RESIDUAL
                pair[j] += to_float(residual_type{u16(halves[i] >> (j * 16))});
#endif
                pair[j] = activate(pair[j], p.low, p.high);
            }
            halves[i] = word_of(pair[0], pair[1]);
        }
        store_matrices_transposed(named + n * 8 * STAGED_PITCH, halves);
    }
}

// Writes a group's staged rows; `row_of` says which row of the lane each is, or NO_ROW. A thread moves one chunk of every 16th row, a few at once.
template <int ROWS, typename RowOf>
__device__ __forceinline__ void store_staged(const Params& p, const Rows& rows, u32 staged, u32 m0, u32 thread, RowOf row_of) {
    constexpr u32 TOGETHER = 4;
    const u32 chunk = thread % 8, moved = staged + thread / 8 * STAGED_PITCH + chunk * 16;
    if (m0 + chunk * CHUNK >= p.n) return;
#pragma unroll
    for (u32 start = 0; start < ROWS; start += 16 * TOGETHER) {
        Chunk chunks[TOGETHER];
        u32 at[TOGETHER];
#pragma unroll
        for (u32 i = 0; i < TOGETHER; i++) {
            const u32 row = start + i * 16 + thread / 8;
            at[i] = row < ROWS ? row_of(row) : NO_ROW;
            if (at[i] != NO_ROW) chunks[i] = load_staged(moved + (start + i * 16) * STAGED_PITCH);
        }
#pragma unroll
        for (u32 i = 0; i < TOGETHER; i++) {
            const u64 element = out_element(p, rows, 0, at[i], m0 + chunk * CHUNK);
            if (at[i] != NO_ROW) store_chunk(p.out.base + element * sizeof(real), chunks[i]);
        }
    }
}
