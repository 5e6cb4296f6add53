// Linear layers and convolutions in strict fp32, of many rows: some warps of a block bring inputs and weights, and the others do nothing but multiply. See
// product.cuh for the formula and the tiles, product_float.cuh for how a thread multiplies.
//
//   slot      [BM/64 panels]  --bulk copy----------------------->  stage: weights [BM/64][DEPTH][64]
//   inputs    [BN rows]       --chunks--> FEEDERS --words------->  stage: inputs  [DEPTH][PITCH]
//   all other threads wait for a stage, multiply it, and say that it is free
//
// k is summed as the plan says: in runs of 256 from zero, the runs added in order (LONG=1). What they add up to waits in shared memory. No tile changes a bit.
//
// Inputs lie k by k, which only registers can turn rows into. Where multiplying threads do that themselves (product_float.cu), the compiler moves each read of
// global memory to right before what stores it, a thread waits for it in every stage, and what works out its address comes between multiply-adds and spoils their
// banks. Feeders hold the next stage while they wait for a free one. Loops of 1024 multiply-adds then have 72 other instructions and 74 conflicts.
//
//   µs on an H100           256x128x1152: 32 lanes   64     96     120     256x256x256: 32 lanes   96     120
//   this kernel                           59         102    158    202                  27.1       72     95
//   threads that do both, the best tiles  61         111    162    210                  29.1       75     95
//   cuBLAS, the best of four ways         68         107    194    199                  30.1       90     97
//
// What was tried and was no faster (2026-11-27): 128 feeders for 64, or registers that feeders give to the others (setmaxnreg), with the earlier runs' sums in them:
// the same to 1 %. Feeders that read a stage when it is free, not one ahead, 3 %, and at 32 lanes 25 % slower. Loops of 2, 4 or 8 k whose reads are a k ahead 2 to
// 4 % slower, stages of 16 k 20 %. 32 feeders are 2 to 3 % slower than 64, but leave room for a third block.
// Tried and not finished: as many blocks as find room, each with an even share of all tiles' k, which hands the sums of a tile that its share cuts on to the next
// block. Bits are the same. 3x3 convolutions of 32 lanes, µs on an H200: 56x56 195 -> 176, 28x28 190 -> 172, 14x14 187 -> 185, 7x7 223 -> 214. 256x128x1152 of 120 lanes
// takes as long (201), of 64 and 32 4 and 12 % longer, 256x256x256 3 to 8 %: even shares, but slower loops.
//
// Twin on the CPU: cpu/steps/gemm.rs, conv.rs.
//
//   -DOUTPUTS=8, -DROWS=8|7   of a thread               -DDEPTH        of a stage, which divides k      -DSTAGES
//   -DLONG=0|1                whether k is several runs -DMIN_BLOCKS   of a multiprocessor              -DFEEDERS   threads
#include "product_float.cuh"

constexpr int WARPS_M = BM / PANEL, WARPS_N = BN / (ACROSS * ROWS), MULTIPLIERS = 32 * WARPS_M * WARPS_N;
// So many k are multiplied at once: 16 KB of code. Loops of more than 32 KB wait for their instructions.
constexpr int BODY = 16;
// A thread's rows are those of two pieces of four places, of which the second may have a place without a row.
constexpr int HALF = WARPS_N * ACROSS * 4, SECOND = ROWS - 4;
// Places of one k, and four for which nothing is: neighbouring fours of k begin in different banks.
constexpr int PITCH = HALF * 2 + 4;
constexpr u32 PANEL_BYTES = DEPTH * PANEL * 4, WEIGHT_BYTES = WARPS_M * PANEL_BYTES, STAGE_BYTES = WEIGHT_BYTES + DEPTH * PITCH * 4;
static_assert(OUTPUTS == 8 && (ROWS == 8 || ROWS == 7) && WARPS_N * ACROSS * ROWS == BN, "warps cover the tile, and threads read eight places");
static_assert(RUN % DEPTH == 0 && DEPTH % BODY == 0, "runs end with stages");

// The place of a row in the tile, and the row of a thread, `across` of all along the rows.
__device__ __forceinline__ u32 place_of(u32 row) {
    return row < HALF ? row : HALF + (row - HALF) / SECOND * 4 + (row - HALF) % SECOND;
}
__device__ __forceinline__ u32 row_of(u32 across, u32 r) { return r < 4 ? across * 4 + r : HALF + across * SECOND + r - 4; }

__device__ __forceinline__ void feeders_sync() { asm volatile("bar.sync 1, %0;" ::"n"(FEEDERS) : "memory"); }

// A stage's inputs, on their way through registers.
struct Feeder : Chunks<MULTIPLIERS, FEEDERS, BODY, BN> {
    using Chunks::Chunks;
    static_assert(BN % PASS == 0, "every feeder has as many chunks: where some have none, all wait, for 1.5 to 3 times as long");
    Chunk held[DEPTH / BODY][LOADS];

    // The next stage, on its way to registers.
    __device__ __forceinline__ void fetch(const Params& p) {
#pragma unroll
        for (int body = 0; body < DEPTH / BODY; body++) {
            each(p, [&](int i, u32, u64 from, bool inside) {
                held[body][i] = {};
                if (inside) held[body][i] = load_chunk(from);
            });
        }
    }
    // From there to a stage's inputs.
    __device__ __forceinline__ void put(u32* inputs) const {
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const u32 at = row() + i * PASS;
            u32* to = inputs + chunk() * 4 * PITCH + place_of(at);
#pragma unroll
            for (int body = 0; body < DEPTH / BODY; body++) {
#pragma unroll
                for (int j = 0; j < 4; j++) to[(body * BODY + j) * PITCH] = held[body][i].words[j];
            }
        }
    }
};

extern "C" __global__ void __launch_bounds__(MULTIPLIERS + FEEDERS, MIN_BLOCKS) kernel(const __grid_constant__ Params p) {
    extern __shared__ __align__(16) unsigned char dynamic[];
    __shared__ u64 filled[STAGES], freed[STAGES];
    __shared__ Kept kept;
    __shared__ Spot spots[BN];
    constexpr u32 WAITING_BYTES = LONG ? SUMS * MULTIPLIERS * sizeof(Piece) : 0;
    const u32 thread = threadIdx.x;
    unsigned char* stages = dynamic + WAITING_BYTES;
    const u32 tile = p.m_tiles.quotient(blockIdx.x), m = blockIdx.x - tile * p.m_tiles.value;
    const u32 group = p.group_tiles.quotient(m), m0 = (m - group * p.group_tiles.value) * BM;
    const Rows rows = find_rows(p, tile);
    if (!rows.any) {
        dependency_wait(p.launch);
        return;
    }
    const u32 steps = p.k / DEPTH;
    const u64 slot = p.launch.weights[rows.lane];
    const u32 all_filled = shared_address(filled), all_freed = shared_address(freed);
    if (thread == 0) {
#pragma unroll
        for (int stage = 0; stage < STAGES; stage++) {
            barrier_init(&filled[stage], FEEDERS + 1);  // every feeder, and who asks for the weights
            barrier_init(&freed[stage], MULTIPLIERS);  // each for itself, as racecheck follows
        }
        barriers_are_ready();
        kept = {rows, slot, group, m0, min(u32(WARPS_M), p.blocks - m0 / PANEL)};
    }
    __syncthreads();

    if (thread >= MULTIPLIERS) {
        const u32 present = kept.present;
        const u64 weights = slot + p.weights + u64(group * p.blocks + m0 / PANEL) * p.k * (PANEL * 4);
        auto load_weights = [&](u32 step) {
            const u32 stage = step % STAGES, barrier = all_filled + stage * 8;
            barrier_expect(barrier, present * PANEL_BYTES);
#pragma unroll
            for (u32 panel = 0; panel < WARPS_M; panel++) {
                if (panel >= present) break;
                const u64 from = weights + (u64(panel) * p.k + step * DEPTH) * (PANEL * 4);
                copy_bulk(shared_address(stages) + stage * STAGE_BYTES + panel * PANEL_BYTES, from, PANEL_BYTES, barrier);
            }
        };
        const bool first = thread == MULTIPLIERS;
        if (first) {
#pragma unroll 1
            for (u32 step = 0; step < min(u32(STAGES), steps); step++) load_weights(step);
        }
        Feeder feeder(p, rows, slot, group, 0, spots);
        feeders_sync();
        dependency_wait(p.launch);
        feeder.fetch(p);
#pragma unroll 1
        for (u32 step = 0; step < steps; step++) {
            const u32 stage = step % STAGES;
            if (step >= STAGES) {
                barrier_wait(all_freed + stage * 8, (step / STAGES - 1) % 2);
                if (first) load_weights(step);
            }
            feeder.put(reinterpret_cast<u32*>(stages + stage * STAGE_BYTES + WEIGHT_BYTES));
            barrier_arrive(all_filled + stage * 8);
            feeder.fetch(p);  // behind the last there is nothing to read
        }
        return;
    }

    dependency_wait(p.launch);
    dependents_may_start();
    const u32 warp = thread / 32, panel = warp % WARPS_M, along = along_of(thread % 32);
    const u32 across = warp / WARPS_M * ACROSS + across_of(thread % 32);
    float run[ROWS][OUTPUTS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++) run[r][o] = 0.0f;
    }
    [[maybe_unused]] Piece* waiting = reinterpret_cast<Piece*>(dynamic) + thread;
    if constexpr (LONG) {
#pragma unroll
        for (int i = 0; i < SUMS; i++) waiting[i * MULTIPLIERS] = Piece{};
    }
#pragma unroll 1
    for (u32 step = 0; step < steps; step++) {
        const u32 stage = step % STAGES;
        barrier_wait(all_filled + stage * 8, step / STAGES % 2);
        const float* w = reinterpret_cast<const float*>(stages + stage * STAGE_BYTES + panel * PANEL_BYTES) + along * COUNT;
        const float* x = reinterpret_cast<const float*>(stages + stage * STAGE_BYTES + WEIGHT_BYTES) + across * 4;
#pragma unroll 1
        for (int body = 0; body < DEPTH / BODY; body++) {
            // What a k reads is read before the k ahead of it is multiplied. Inputs by an index, weights by a pointer that moves on: of four ways the one of
            // the fewest conflicts.
            Piece of_weights[2][PIECES];
            float4 of_inputs[2][2];
            auto read = [&](int k) {
                read_weights(of_weights[k % 2], w + k * PANEL);
#pragma unroll
                for (int half = 0; half < 2; half++) of_inputs[k % 2][half] = *reinterpret_cast<const float4*>(x + (body * BODY + k) * PITCH + half * HALF);
            };
            read(0);
#pragma unroll
            for (int k = 0; k < BODY; k++) {
                if (k + 1 < BODY) read(k + 1);
                const float4 a = of_inputs[k % 2][0], b = of_inputs[k % 2][1];
                const float eight[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
                float one[ROWS];
#pragma unroll
                for (int r = 0; r < ROWS; r++) one[r] = eight[r];
                multiply<true>(run, one, of_weights[k % 2]);
            }
            w += BODY * PANEL;
        }
        barrier_arrive(all_freed + stage * 8);
        if constexpr (LONG) {
            if ((step + 1) % (RUN / DEPTH) == 0 && step + 1 < steps) {
#pragma unroll
                for (int i = 0; i < SUMS; i++) {
                    Piece total = waiting[i * MULTIPLIERS];
#pragma unroll
                    for (int o = 0; o < COUNT; o++) {
                        float& sum = run[i / PIECES][i % PIECES * COUNT + o];
                        total.of[o] += sum;
                        sum = 0.0f;
                    }
                    waiting[i * MULTIPLIERS] = total;
                }
            }
        }
    }

    const Kept known = kept;
#pragma unroll
    for (int piece = 0; piece < PIECES; piece++) {
        const u32 output = known.m0 + panel * PANEL + output_of(along, piece);
        if (output >= p.n) break;
        float bias[COUNT];
        load_biases(p, known, output, bias);
        Piece residuals[ROWS];
#pragma unroll
        for (u32 r = 0; r < ROWS; r++) {
            if (r % TOGETHER_ROWS == 0) {
#pragma unroll
                for (u32 i = r; i < min(r + TOGETHER_ROWS, u32(ROWS)); i++) residuals[i] = residual_of(p, known, output, row_of(across, i));
            }
            Piece total = {};
            if constexpr (LONG) total = waiting[(r * PIECES + piece) * MULTIPLIERS];
#pragma unroll
            for (int i = 0; i < COUNT; i++) total.of[i] += run[r][piece * COUNT + i];
            finish(p, known, output, row_of(across, r), bias, residuals[r], total);
        }
    }
}
