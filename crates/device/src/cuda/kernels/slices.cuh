// Slices of matrices in shared memory, for products by plain multiply-adds: 64 lines (rows of the left side, columns of the right) by
// DEPTH steps of k, with k first, so that a thread reads four neighbouring lines as one vector.
//
//   slice[k][line]   f32, whatever the operand is held in; zero beyond the operand's end
//
// The operand is walked with any strides: a warp takes 32 neighbouring lines, or 8 steps of k of 4 lines, whichever lie together in
// memory. Blocks have 256 threads.
#pragma once
#include "types.cuh"

constexpr u32 LINES = 64;
// Neighbours in k are four banks apart: both ways in which a warp stores touch 32 different banks.
constexpr u32 PITCH = LINES + 4;

// Element (k, line) of an operand is from[k * k_stride + line * line_stride], for k < k_end and line < lines.
template <typename T> struct Lines {
    const T* from;
    i64 k_stride, line_stride;
    u32 lines, k_end;
};

// Which element of a slice the thread's load number `i` is.
template <u32 DEPTH, typename T> __device__ __forceinline__ void place(const Lines<T>& of, u32 i, u32& k, u32& line) {
    const u32 lane = threadIdx.x % 32, part = i * 8 + threadIdx.x / 32;
    if (of.line_stride == 1) {
        k = part / 2;
        line = part % 2 * 32 + lane;
    } else {
        k = part % (DEPTH / 8) * 8 + lane % 8;
        line = part / (DEPTH / 8) * 4 + lane / 8;
    }
}

// Begins to read the slice that starts at k = `first`.
template <u32 DEPTH, typename T>
__device__ __forceinline__ void fetch(const Lines<T>& of, u32 first, float (&held)[DEPTH / 4]) {
#pragma unroll
    for (u32 i = 0; i < DEPTH / 4; i++) {
        u32 k, line;
        place<DEPTH>(of, i, k, line);
        k += first;
        const bool inside = k < of.k_end && line < of.lines;
        held[i] = inside ? to_float(of.from[k * of.k_stride + line * of.line_stride]) : 0.0f;
    }
}

template <u32 DEPTH, typename T>
__device__ __forceinline__ void store(const Lines<T>& of, const float (&held)[DEPTH / 4], float (*slice)[PITCH]) {
#pragma unroll
    for (u32 i = 0; i < DEPTH / 4; i++) {
        u32 k, line;
        place<DEPTH>(of, i, k, line);
        slice[k][line] = held[i];
    }
}

// sums[i][j] += sum over k of left[k][row + i] * right[k][column + j], k in order.
template <u32 DEPTH>
__device__ __forceinline__ void multiply(const float (*left)[PITCH], u32 row, const float (*right)[PITCH], u32 column,
                                         float (&sums)[4][4]) {
#pragma unroll
    for (u32 k = 0; k < DEPTH; k++) {
        const float4 l = *reinterpret_cast<const float4*>(&left[k][row]);
        const float4 r = *reinterpret_cast<const float4*>(&right[k][column]);
        const float rows[4] = {l.x, l.y, l.z, l.w};
        const float columns[4] = {r.x, r.y, r.z, r.w};
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) sums[i][j] = fmaf(rows[i], columns[j], sums[i][j]);
    }
}

// A run of k is summed: it is added to those before it, and the next one begins from zero.
__device__ __forceinline__ void end_run(float (&total)[4][4], float (&run)[4][4]) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            total[i][j] += run[i][j];
            run[i][j] = 0.0f;
        }
}
