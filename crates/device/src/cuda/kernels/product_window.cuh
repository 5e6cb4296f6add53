// What the kernels share that keep a window of the image in shared memory, see product_window.cu: how it comes there, and how taps walk over it.
#pragma once
#include "product_sums.cuh"

constexpr int SPAN = ROW_BYTES / 16 * CHUNK;  // channels of a step

// Positions beyond a tile's own that its taps see.
__device__ __forceinline__ u32 beyond(const Params& p) { return (p.kernel_height - 1) * p.line.value + p.kernel_width - 1; }

// Asks for the inputs of places `first` .. `end` of a window that begins at position q0 of the item's padded lines; zeros outside the image. A thread has
// TOGETHER places at once: a copy keeps the registers of its addresses until it has left, and the next one with the same registers waits.
template <int THREADS, u32 TOGETHER>
__device__ __forceinline__ void bring_places(const Params& p, u64 slot, u32 item, u32 window, u32 q0, u32 first, u32 end, u32 thread) {
    const u32 chunk = thread % 8, channels = p.in_per_group.value;
    const u64 image = p.x.base + (p.x.kind == WEIGHT ? slot : 0) + p.x.item_bytes * item + chunk * 16;
    constexpr u32 APART = THREADS / 8;  // places from one of a thread to its next
#pragma unroll 1
    for (u32 start = first + thread / 8; start < end; start += TOGETHER * APART) {
        u64 from[TOGETHER];
        bool inside[TOGETHER];
#pragma unroll
        for (u32 i = 0; i < TOGETHER; i++) {
            const u32 position = q0 + start + i * APART, line = p.line.quotient(position);
            const u32 y = line - p.top, x = position - line * p.line.value - p.left;
            inside[i] = (y < p.height) & (x < p.width);
            from[i] = image + (i64(i32(y)) * p.width + i32(x)) * i64(channels * sizeof(real));
        }
        u32 to = window + (chunk * p.plane + start) * 16;
#pragma unroll 2
        for (u32 span = 0; span < channels / SPAN; span++) {
#pragma unroll
            for (u32 i = 0; i < TOGETHER; i++)
                if (start + i * APART < end) copy_chunk(to + i * APART * 16, from[i] + span * ROW_BYTES, inside[i]);
            to += 8 * 16 * p.plane;
        }
    }
}

// The row of the item at a position, or NO_ROW where a line is padded.
__device__ __forceinline__ u32 row_at(const Params& p, u32 position) {
    const u32 y = p.line.quotient(position), x = position - y * p.line.value;
    return x < p.out_width.value && y * p.out_width.value < p.rows.value ? y * p.out_width.value + x : NO_ROW;
}

// The window as a factor, step after step: the channels of a tap, then the next tap, which is the same memory from further on.
struct Taps {
    u64 first, factor;
    u32 span, kx, tap;  // tap: places from the first
    __device__ __forceinline__ Taps(u64 first) : first(first), factor(first), span(0), kx(0), tap(0) {}
    __device__ __forceinline__ void advance(const Params& p) {
        factor = further_on(factor, 8 * p.plane);
        if (++span == p.in_per_group.value / SPAN) {
            span = 0;
            tap++;
            if (++kx == p.kernel_width) {
                kx = 0;
                tap += p.line.value - p.kernel_width;
            }
            factor = further_on(first, tap);
        }
    }
};

// The products of a step.
template <int COUNT> __device__ __forceinline__ void multiply_step(const Params& p, float (&sums)[COUNT], u64 weights, u64 window) {
#pragma unroll
    for (int part = 0; part < 4; part++) multiply(sums, further_on(weights, part * 2), further_on(window, part * 2 * p.plane));
}
