// What the kernels of the matrix unit share: its factors in shared memory, its sums in registers, and how they become outputs.
//
// A warp group of 128 threads has sums of 64 outputs by some rows. A thread holds pairs of rows of two outputs, and memory wants runs of
// outputs. There are two ways from one to the other through shared memory, which give the same bits:
//
//   finish        sums, as floats, [row][BM outputs]; a thread takes CHUNK outputs of a few rows                          parts of k, other residuals
//   finish_held   outputs, finished in registers, as they are stored, [row][64 outputs of a group]; whole lines leave    no residual, or one of halves
#pragma once
#include "product.cuh"
#include "generated.cuh"
#include "mma.cuh"

// Whether residuals wait where outputs will, until sums meet them in registers: halves, an item's own.
#define HELD_RESIDUAL (RESIDUAL == 1 && REAL != 0 && RESIDUAL_TYPE == REAL)

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

// Finished outputs wait in shared memory until they leave in whole lines: of each warp group [rows][64 outputs], the chunks of a row in an order in which no
// bank is hit twice.
constexpr u32 OUT_LINE_BYTES = 64 * sizeof(real), OUT_LINE_CHUNKS = OUT_LINE_BYTES / 16;
__device__ __forceinline__ u32 out_line_at(u32 row, u32 chunk) { return row * OUT_LINE_BYTES + ((chunk ^ (row & 7)) << 4); }

#if HELD_RESIDUAL
// Asks for the residuals of `present` rows of a group's outputs, the first of which is `first`, to where they will wait: ROWS of them at `staged`. A warp
// group's threads call it, each for one chunk of every 16th row.
template <int ROWS>
__device__ __forceinline__ void bring_residual(const Params& p, const Rows& rows, u32 group, u32 first, u32 thread, u32 present, u32 staged) {
    const u32 chunk = thread % OUT_LINE_CHUNKS, output = first + chunk * CHUNK;
#pragma unroll
    for (u32 row = thread / OUT_LINE_CHUNKS; row < ROWS; row += 128 / OUT_LINE_CHUNKS) {
        const bool there = row < present && output < p.n;
        const u64 from = residual_address(p, rows, 0, group, rows.first + (there ? row : 0), output);
        const u32 to = staged + out_line_at(row, chunk);
        if (p.vector) {
            copy_chunk(to, from, there);
        } else {
            for (u32 i = 0; there && i < min(u32(CHUNK), p.n - output); i++)
                asm volatile("st.shared.b16 [%0], %1;" ::"r"(to + i * u32(sizeof(real))), "h"(global<const u16>(from)[i]) : "memory");
        }
    }
}
#endif

// Finishes the sums of a warp group and puts them where they wait, rows in order from `staged` on; a residual that waits there is added before. A warp reads
// and writes its own 16 outputs alone. `thread` is of the group.
template <int COUNT>
__device__ __forceinline__ void stage_lines(const Params& p, u32 staged, u32 thread, const float* sums, const float (&bias)[2]) {
    const auto finished = [&](int i, float residual = 0.0f) {
        const float sum = sums[i] + bias[i / 2 % 2];
        return to_buffer<float>(activate(HELD_RESIDUAL ? sum + residual : sum, p.low, p.high));
    };
    const u32 lane = thread % 32, warp = thread / 32;
#if REAL == 0
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        const u32 output = warp * 16 + lane / 4 + i / 2 % 2 * 8;
        const u32 at = out_line_at(lane % 4 * 2 + i % 2, output / 4) + output % 4 * 4 + i / 4 * 8 * OUT_LINE_BYTES;
        asm volatile("st.shared.f32 [%0], %1;" ::"r"(staged + at), "f"(finished(i)) : "memory");
    }
#else
    const u32 named = staged + out_line_at(lane % 8, warp * 2 + lane / 8 % 2);
#pragma unroll
    for (int i = 0; i < COUNT; i += 4) {
        const u32 rows = named + i / 4 * 8 * OUT_LINE_BYTES;
        u32 words[2] = {};
#if HELD_RESIDUAL
        load_matrices_transposed(words, rows);
#endif
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const real pair[2] = {{u16(words[j])}, {u16(words[j] >> 16)}};
            words[j] = word_of(finished(i + j * 2, to_float(pair[0])), finished(i + j * 2 + 1, to_float(pair[1])));
        }
        store_matrices_transposed(rows, words);
    }
#endif
}

// Writes a chunk of finished outputs, of which `left` are there.
__device__ __forceinline__ void store_finished(const Params& p, u64 address, u32 left, const Chunk& c) {
    typedef typename Bits<sizeof(real)>::type bits;
    if (p.vector) {
        store_chunk(address, c);
        return;
    }
#pragma unroll
    for (u32 i = 0; i < CHUNK; i++)
        if (i < left) global<bits>(address)[i] = bits(c.words[i * sizeof(real) / 4] >> (i * sizeof(real) % 4 * 8));
}

// Writes what waits of `present` rows to `out`, the group's first output of the first row; rows are `pitch` bytes apart, and `left` outputs are there.
template <int ROWS>
__device__ __forceinline__ void write_lines(const Params& p, u32 staged, u32 thread, u64 out, u64 pitch, u32 present, u32 left) {
    constexpr u32 SWEEP = 128 / OUT_LINE_CHUNKS, SWEEPS = (ROWS + SWEEP - 1) / SWEEP, AT_ONCE = SWEEPS < 4 ? SWEEPS : 4;
    const u32 row = thread / OUT_LINE_CHUNKS, output = thread % OUT_LINE_CHUNKS * CHUNK;
    if (output >= left) return;
    const u32 from = staged + out_line_at(row, thread % OUT_LINE_CHUNKS);
    const u64 to = out + row * pitch + output * sizeof(real);
#pragma unroll
    for (u32 start = 0; start < SWEEPS; start += AT_ONCE) {
        Chunk chunks[AT_ONCE];
#pragma unroll
        for (u32 i = 0; i < AT_ONCE; i++) {
            const u32 below = (start + i) * SWEEP;
            if (row + below < present) chunks[i] = load_staged(from + below * OUT_LINE_BYTES);
        }
#pragma unroll
        for (u32 i = 0; i < AT_ONCE; i++) {
            const u32 below = (start + i) * SWEEP;
            if (row + below < present) store_finished(p, to + below * pitch, left - output, chunks[i]);
        }
    }
}

// Finishes and writes the sums of `present` rows from the tile's first on. `thread` counts from the first output of the tile; all that have some of it call
// this, and `sync` is their barrier. At `staged` is room for the outputs of ROOM rows; nobody else is there once all have come. Where there is a residual, that
// is all rows, and what each thread brought of it has arrived.
template <int ROOM, int COUNT, typename Sync>
__device__ __forceinline__ void finish_held(const Params& p, const Rows& rows, u32 group, u32 m0, u32 thread, u32 present, const float (&sums)[COUNT],
                                            const float (&bias)[2], u32 staged, Sync sync) {
    // Said to be none where there is one, the warp group is the same for all threads, and the compiler sees it.
    const u32 of_tile = BM == 64 ? 0 : thread / 128 * 64, output = m0 + of_tile;
    const u64 pitch = u64(p.groups) * p.n * sizeof(real);
    const u64 out = p.out.base + out_element(p, rows, group, rows.first, output) * sizeof(real);
    constexpr int ROWS = COUNT * 2, AT_ONCE = ROWS < ROOM ? ROWS : ROOM;
    const u32 own = staged + of_tile * AT_ONCE * sizeof(real);
#pragma unroll
    for (int first = 0; first < ROWS; first += AT_ONCE) {
        constexpr int LAST = (ROWS - 1) % AT_ONCE + 1;
        sync();
        if (first + AT_ONCE < ROWS) {
            stage_lines<AT_ONCE / 2>(p, own, thread % 128, sums + first / 2, bias);
        } else {
            stage_lines<LAST / 2>(p, own, thread % 128, sums + first / 2, bias);
        }
        sync();
        if (output < p.n && first < present)
            write_lines<AT_ONCE>(p, own, thread % 128, out + first * pitch, pitch, min(u32(AT_ONCE), present - first), p.n - output);
        // Lanes may have had less to write than others, and what follows is done by whole warps.
        __syncwarp();
    }
}
