// Linear layers of few rows on the matrix unit: bf16, fp16 and tf32, without shared memory between the weights and their products.
//
//   a warp: 16 outputs x 8 rows x its part of k
//   slot    16 columns of a block of 128 bytes of k  --16 bytes a thread-->  registers, RING steps of them  --\
//                                                                                         mma m16n8, f32 sums in registers
//   inputs  8 rows                                   --16 bytes a thread-->  registers, RING steps of them  --/
//   parts of k --> shared memory --> added in order --> + bias + residual --> activation --> out
//
// For a few rows the weights are everything: each byte is used once by a warp, so the way through shared memory, its barriers and the 64
// outputs that wgmma takes at least only cost time. Here a lane alone makes n/16 times SPLIT warps, all of whose first steps are asked for
// before the kernel waits for its turn; what is left then is to read x, a few products and one exchange.
//
// A thread's 16 bytes of a column and the same 16 bytes of a row are four words of each; which k a word of the instruction stands for is
// free as long as both sides agree (mma.cuh), so nothing has to be rearranged: words 0 and 1 are one product, 2 and 3 another.
//
// SPLIT and the steps of each part follow from k alone, so the order of a sum is the plan's. A lane of more rows takes more blocks.
// Twin on the CPU: cpu/steps/gemm.rs. Bound: the weights' bytes. Only for rows that come in whole chunks (LOADER=0).
//
//   -DSPLIT=1|2|4    warps that share a sum; a block has four, and so BM = 64 / SPLIT outputs
#include "mma.cuh"
#include "product.cuh"

constexpr int THREADS = 128, RING = 4, BLOCKS = 4;
constexpr int ROW_BYTES = 128, BLOCK_BYTES = 64 * ROW_BYTES;  // of k, a step; of 64 outputs
constexpr int PITCH = BM + 4;                                 // floats between rows of sums: no bank is written twice
constexpr u32 FINISHERS = THREADS / BM, OWN = BN / FINISHERS;  // threads that finish an output, and rows of each
static_assert(LINEAR == 1 && LOADER == 0, "rows of a linear layer, in whole chunks");
static_assert(BN == 8 && BM * SPLIT == 64, "four warps of 16 x 8");

// 16 bytes of weights, which no other thread of the multiprocessor reads.
__device__ __forceinline__ Chunk load_weights(u64 address) {
    Chunk c;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(c.words[0]), "=r"(c.words[1]), "=r"(c.words[2]), "=r"(c.words[3])
                 : "l"(address));
    return c;
}

// Chunks t and t + 4 of a step, of columns r and r + 8, and of row r.
struct Weights { Chunk of[2][2]; };
struct Inputs { Chunk of[2]; };

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) kernel(const __grid_constant__ Params p) {
    __shared__ float sums[SPLIT][BN * PITCH];
    const u32 tile = p.m_tiles.quotient(blockIdx.x), m0 = (blockIdx.x - tile * p.m_tiles.value) * BM;
    const Rows rows = find_rows(p, tile);
    if (!rows.any) {
        dependency_wait(p.launch);
        return;
    }
    const u32 thread = threadIdx.x, warp = thread / 32, r = thread % 32 / 4, t = thread % 4;
    const u32 part = warp % SPLIT, column = warp / SPLIT * 16 + r;  // of the block
    const u32 steps = (p.steps + SPLIT - 1) / SPLIT, begin = min(part * steps, p.steps), end = min(begin + steps, p.steps);
    const u64 slot = p.launch.weights[rows.lane];

    // Column c lies at row c of its block, chunk q of it at q ^ (c & 7); columns r and r + 8 are swizzled alike.
    const u32 in_block = m0 % 64 + column;
    const u64 block = slot + p.weights + u64(m0 / 64) * p.steps * BLOCK_BYTES + in_block * ROW_BYTES;
    const u32 swizzled = (t ^ (in_block & 7)) * 16;
    auto weights_of = [&](u32 step) {
        const u64 from = block + u64(step) * BLOCK_BYTES;
        Weights w;
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            w.of[i][0] = load_weights(from + (swizzled ^ i * 64));
            w.of[i][1] = load_weights(from + (swizzled ^ i * 64) + 8 * ROW_BYTES);
        }
        return w;
    };
    const u32 output = m0 + thread % BM;  // that this thread finishes, of every FINISHERS-th row
    float own_bias = 0.0f;
#if BIAS
    if (output < p.n) own_bias = global<const float>(slot + p.bias)[output];
#endif
    const bool there = rows.first + r < rows.end;
    const u64 row = inputs_of(p, rows, slot) + source_of(p, rows.first + r, 0).element * sizeof(real);
    auto inputs_at = [&](u32 step) {
        Inputs x = {};
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            const u32 chunk = step * (ROW_BYTES / 16) + t + i * 4;
            if (there && chunk * CHUNK < p.k) x.of[i] = load_chunk(row + chunk * 16);
        }
        return x;
    };

    Weights w[RING] = {};
    Inputs x[RING] = {};
#pragma unroll
    for (u32 i = 0; i < RING; i++) {
        if (begin + i < end) w[i] = weights_of(begin + i);
    }
    // A hint may come before the wait, a read may not.
    if (there) {
        for (u32 line = begin + t; line < end; line += 4) prefetch_line(row + line * ROW_BYTES);
    }
    dependents_may_start();

    dependency_wait(p.launch);
#pragma unroll
    for (u32 i = 0; i < RING; i++) {
        if (begin + i < end) x[i] = inputs_at(begin + i);
    }
#if RESIDUAL
#pragma unroll
    for (u32 i = 0; i < OWN; i++) {
        const u32 at = rows.first + thread / BM + i * FINISHERS;
        if (at < rows.end && output < p.n) prefetch_line(residual_address(p, rows, slot, 0, at, output));
    }
#endif
    float d[2][4] = {};
#pragma unroll 1
    for (u32 step = begin; step < end; step += RING) {
#pragma unroll
        for (u32 i = 0; i < RING; i++) {
            if (step + i >= end) break;
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const Chunk &low = w[i].of[j][0], &high = w[i].of[j][1], &right = x[i].of[j];
                multiply_add(d[j], low.words[0], high.words[0], low.words[1], high.words[1], right.words[0], right.words[1]);
                multiply_add(d[j], low.words[2], high.words[2], low.words[3], high.words[3], right.words[2], right.words[3]);
            }
            if (step + i + RING < end) {
                w[i] = weights_of(step + i + RING);
                x[i] = inputs_at(step + i + RING);
            }
        }
    }

    // d0, d1: column r of rows 2t and 2t + 1; d2, d3: column r + 8.
#pragma unroll
    for (u32 i = 0; i < 4; i++) sums[part][(t * 2 + i % 2) * PITCH + column + i / 2 * 8] = d[0][i] + d[1][i];
    __syncthreads();
    if (output >= p.n) return;
#pragma unroll
    for (u32 i = 0; i < OWN; i++) {
        const u32 at = thread / BM + i * FINISHERS, place = at * PITCH + thread % BM;
        if (rows.first + at >= rows.end) break;
        float total[1] = {sums[0][place]};
#pragma unroll
        for (int other = 1; other < SPLIT; other++) total[0] += sums[other][place];
        total[0] += own_bias;
#if RESIDUAL
        float residual[1];
        load_residual<1>(p, residual_address(p, rows, slot, 0, rows.first + at, output), 1, residual);
        total[0] += residual[0];
#endif
        total[0] = activate(total[0], p.low, p.high);
        store<1>(p, out_element(p, rows, 0, rows.first + at, output), 1, total);
    }
}
