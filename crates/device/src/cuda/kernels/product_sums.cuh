// What the kernels of the matrix unit share: its factors in shared memory, its sums in registers, and how they become outputs.
//
// A warp group of 128 threads has sums of 64 outputs by some rows. A thread holds pairs of rows of two outputs, and memory wants runs of
// outputs, so sums pass through shared memory as floats, [row][BM outputs]; each thread then finishes CHUNK outputs of a few rows.
#pragma once
#include "product.cuh"
#include "generated.cuh"

constexpr int ROW_BYTES = 128;                // of k, a stage
constexpr u32 BLOCK_BYTES = 64 * ROW_BYTES;   // of weights, 64 outputs
constexpr int SUMS_PITCH = BM + 4;            // floats between rows: no bank is hit twice
// Rows that a thread finishes at once, so that their residuals are loaded together; the functions of an activation are long enough as one.
constexpr int BATCH = RESIDUAL == 0 ? 1 : ACTIVATION == 2 ? 2 : 4;

// Rows of 128 swizzled bytes, eight of them every 1024 bytes.
__device__ __forceinline__ u64 swizzled(u32 address) {
    return 1ull << 62 | u64(1024 >> 4) << 32 | 1ull << 16 | (address & 0x3ffff) >> 4;
}
// Rows of 16 bytes side by side, and the next 16 bytes of k after `plane` rows.
__device__ __forceinline__ u64 planar(u32 address, u32 plane) {
    return u64(128 >> 4) << 32 | u64(plane) << 16 | (address & 0x3ffff) >> 4;
}
// The same so many times 16 bytes further on. Addresses end before their bits do, so only the low word changes.
__device__ __forceinline__ u64 further_on(u64 factor, u32 chunks) { return factor & ~0xffffffffull | u32(u32(factor) + chunks); }

// Before products, between products and what waits for them, and until at most PENDING groups of them are running.
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING> __device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

template <int COUNT> __device__ __forceinline__ void clear(float (&sums)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) sums[i] = 0.0f;
}

// A warp group's sums to [row][output]; `thread` counts from the first output of the tile, `row0` is the group's first row.
template <int COUNT>
__device__ __forceinline__ void transpose(float* transposed, const float (&sums)[COUNT], u32 thread, u32 row0) {
    const u32 output = thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        const u32 row = row0 + i / 4 * 8 + thread % 4 * 2 + i % 2;
        transposed[row * SUMS_PITCH + output + i / 2 % 2 * 8] = sums[i];
    }
}

// Rows of the lane that a tile's row may be none of.
constexpr u32 NO_ROW = ~0u;

// The residual is read last; asks for its lines early. `row_of` gives a row of the lane, or NO_ROW.
template <int THREADS, typename RowOf>
__device__ __forceinline__ void prefetch_residual(const Params& p, const Rows& rows, u64 slot, u32 group, u32 m0, u32 thread, u32 count,
                                                  RowOf row_of) {
#if RESIDUAL == 1
    constexpr int LINES = BM * int(sizeof(residual_type)) / 128;
    for (u32 i = thread; i < count * LINES; i += THREADS) {
        const u32 row = row_of(i / LINES), output = m0 + i % LINES * (128 / int(sizeof(residual_type)));
        if (row != NO_ROW && output < p.n) prefetch_line(residual_address(p, rows, slot, group, row, output));
    }
#endif
}

// CHUNK sums. Of eight threads that read together, four take the second half of their eight first, so that no bank is hit twice.
__device__ __forceinline__ void take(const float* from, u32 thread, float (&values)[CHUNK]) {
    const bool swapped = CHUNK == 8 && (thread & 4);
    float4 parts[CHUNK / 4];
#pragma unroll
    for (int i = 0; i < CHUNK / 4; i++) parts[i] = *reinterpret_cast<const float4*>(from + (swapped ? 4 - i * 4 : i * 4));
#pragma unroll
    for (int i = 0; i < CHUNK / 4; i++) {
        const float4 part = swapped ? parts[CHUNK / 4 - 1 - i] : parts[i];
        values[i * 4] = part.x;
        values[i * 4 + 1] = part.y;
        values[i * 4 + 2] = part.z;
        values[i * 4 + 3] = part.w;
    }
}

// Finishes `count` rows of transposed sums. A thread has CHUNK outputs of every `stride`-th row; where the tile has outputs that the group
// has not, threads that would have had them take more rows instead.
template <int THREADS, typename RowOf>
__device__ __forceinline__ void finish(const Params& p, const Rows& rows, u64 slot, u32 group, u32 m0, u32 thread, const float* transposed,
                                       const float* bias, u32 count, RowOf row_of) {
    const u32 chunks = min(u32(BM / CHUNK), (p.n - m0 + CHUNK - 1) / CHUNK), stride = THREADS / chunks;
    const u32 at = thread % chunks * CHUNK, output = m0 + at, left = p.n - output;
    if (thread >= stride * chunks) return;
    // Read once: the stores below keep the compiler from seeing that it stays the same.
    float own_bias[CHUNK];
#pragma unroll
    for (int j = 0; j < CHUNK; j++) own_bias[j] = bias[at + j];
    for (u32 start = thread / chunks; start < count; start += stride * BATCH) {
        u32 row[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++) row[i] = start + i * stride < count ? row_of(start + i * stride) : NO_ROW;
#if RESIDUAL
        float residual[BATCH][CHUNK];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            if (row[i] == NO_ROW) continue;
            load_residual<CHUNK>(p, residual_address(p, rows, slot, group, row[i], output), left, residual[i]);
        }
#endif
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            if (row[i] == NO_ROW) continue;
            float values[CHUNK];
            take(transposed + (start + i * stride) * SUMS_PITCH + at, thread, values);
#pragma unroll
            for (int j = 0; j < CHUNK; j++) {
                values[j] += own_bias[j];
#if RESIDUAL
                values[j] += residual[i][j];
#endif
                values[j] = activate(values[j], p.low, p.high);
            }
            store<CHUNK>(p, out_element(p, rows, group, row[i], output), left, values);
        }
    }
}
