// What the kernels of the matrix unit share: its factors in shared memory, its sums in registers, and how they become outputs.
//
// A warp group of 128 threads has sums of 64 outputs by some rows. A thread holds pairs of rows of two outputs, and memory wants runs of
// outputs. There are two ways from one to the other, which give the same bits:
//
//   finish        sums pass through shared memory as floats, [row][BM outputs]; a thread takes CHUNK outputs of a few rows  residuals, parts of k
//   finish_held   a thread finishes what it holds; halves change places within the warp, floats are written as they lie     no shared memory, no barrier
#pragma once
#include "product.cuh"
#include "generated.cuh"

constexpr int ROW_BYTES = 128;                // of k, a stage
constexpr u32 BLOCK_BYTES = 64 * ROW_BYTES;   // of weights, 64 outputs
constexpr int SUMS_PITCH = BM + 4;            // floats between rows: no bank is hit twice
// Rows that a thread finishes at once, so that their residuals are loaded together; the functions of an activation are long enough as one.
constexpr int BATCH = RESIDUAL == 0 ? 1 : ACTIVATION == 2 ? 2 : 4;

// Where chunks of k lie in a stage of rows that are swizzled.
struct Swizzled {
    static __device__ __forceinline__ u32 at(u32 row, u32 chunk) { return row * ROW_BYTES + ((chunk ^ (row & 7)) << 4); }
};

// Asks for the weights of a stage, COUNT steps of k from step `step` on: of the `present` blocks of 64 outputs that a tile has, the first of which has its k
// at `weights`. They arrive in `stage`, a step every `step_bytes`, and are counted at its barrier. One thread calls it.
template <int COUNT>
__device__ __forceinline__ void load_weights(const Params& p, u64 weights, u32 present, u32 step, u32 stage, u32 step_bytes, u32 barrier) {
    barrier_expect(barrier, COUNT * present * BLOCK_BYTES);
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) {
#pragma unroll
        for (u32 block = 0; block < BM / 64; block++) {
            if (block >= present) break;
            const u64 from = weights + (u64(block) * p.steps + step + i) * BLOCK_BYTES;
            copy_bulk(stage + i * step_bytes + block * BLOCK_BYTES, from, BLOCK_BYTES, barrier);
        }
    }
}

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

// ---- sums that are finished where they are

// The biases of a thread's two outputs, of which there may be none.
__device__ __forceinline__ void load_held_bias(const Params& p, u64 slot, u32 group, u32 m0, u32 thread, float (&bias)[2]) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        bias[i] = 0.0f;
#if BIAS
        const u32 output = m0 + thread / 32 * 16 + thread % 32 / 4 + i * 8;
        if (output < p.n) bias[i] = global<const float>(slot + p.bias)[group * p.n + output];
#endif
    }
}

#if REAL != 0
// Rows become columns of 8 x 8 halves, of which lane 4r + t has two neighbours of row r.
__device__ __forceinline__ u32 turned(u32 word) {
    u32 result;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(word));
    return result;
}

// Of four neighbouring lanes, lane t gets the words number t of all four, in their order.
__device__ __forceinline__ void gather_words(u32 (&words)[4], u32 lane) {
    const bool odd = lane & 1, high = lane & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const u32 other = __shfl_xor_sync(~0u, odd ? words[i] : words[i + 1], 1);
        words[i] = odd ? other : words[i];
        words[i + 1] = odd ? words[i + 1] : other;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const u32 other = __shfl_xor_sync(~0u, high ? words[i] : words[i + 2], 2);
        words[i] = high ? other : words[i];
        words[i + 2] = high ? words[i + 2] : other;
    }
}
#endif

// Finishes and writes the sums of `present` rows from the tile's first on, without a residual; whole warps call it. `thread` counts from the first
// output of the tile. Halves leave as 16 bytes of one row, floats as 32 bytes of four rows each.
template <int COUNT>
__device__ __forceinline__ void finish_held(const Params& p, const Rows& rows, u32 group, u32 m0, u32 thread, u32 present,
                                            const float (&sums)[COUNT], const float (&bias)[2]) {
    const u32 lane = thread % 32, output = m0 + thread / 32 * 16;
    if (output >= p.n) return;
    const u64 pitch = u64(p.groups) * p.n * sizeof(real);
    const u64 out = p.out.base + out_element(p, rows, group, rows.first, output) * sizeof(real);
    const auto finished = [&](int i) { return to_buffer<float>(activate(sums[i] + bias[i / 2 % 2], p.low, p.high)); };
#if REAL == 0
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        const u32 row = i / 4 * 8 + lane % 4 * 2 + i % 2, at = lane / 4 + i / 2 % 2 * 8;
        const float value = finished(i);
        if (row < present && output + at < p.n) *global<float>(out + row * pitch + at * sizeof(real)) = value;
    }
#else
    // Two times eight rows at once; the last eight may be alone.
#pragma unroll
    for (int start = 0; start < COUNT; start += 8) {
        Chunk c;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int pair = start + i * 2;
            c.words[i] = 0;
            if (pair < COUNT)
                c.words[i] = turned(u32(from_float<real>(finished(pair)).bits) | u32(from_float<real>(finished(pair + 1)).bits) << 16);
        }
        gather_words(c.words, lane);
        const u32 row = start * 2 + lane / 2 % 2 * 8 + lane / 4, at = lane % 2 * 8;
        if (row >= present || output + at >= p.n) continue;
        const u64 address = out + row * pitch + at * sizeof(real);
        if (p.vector) {
            store_chunk(address, c);
            continue;
        }
#pragma unroll
        for (u32 i = 0; i < CHUNK; i++)
            if (output + at + i < p.n) global<u16>(address)[i] = u16(c.words[i / 2] >> (i % 2 * 16));
    }
#endif
}
