// Linear layers and convolutions on the matrix unit: bf16, fp16 and tf32. See product.cuh for the formula and the tiles.
//
//   slot     [BM/64 blocks of 8 KB]  --bulk copy-->  stage: weights [BM][128 B]  --\
//                                                                                   wgmma m64 nBN, f32 sums in registers
//   inputs   [BN rows of 128 B]      --chunks----->  stage: inputs  [BN][128 B]  --/
//   sums --> + bias --> activation --> shared memory, where the stages were --> out, in whole lines                     of all of k; a residual waits there
//   sums --> shared memory, likewise, transposed --> + bias + residual --> activation --> out, 16 bytes at a time       all others
//
// M is the outputs, which come in whole blocks of 64, and N the rows, of which there may be any number: so a 7x7 image of 49 pixels wastes
// an eighth of a tile of 56, and one row a tile of 8. Weights lie in the slot as the matrix unit reads them (the 128-byte swizzle), so one
// thread brings them; inputs are swizzled as they are copied. A step is 128 bytes of k, and a stage one or two of them; STAGES are in flight, and
// with LAG=1 one group of products is always running while the next is being fed.
//
// Weights do not depend on the kernels before, so the first stages of them are asked for before this kernel waits for its turn.
//
// Where few rows of few outputs meet a long k, it is cut in parts: each is summed from zero, and the parts are added in order. Where tiles are too few for
// all multiprocessors, the PARTS blocks of a cluster share a tile. Each sums its part, and each finishes its share of the rows:
//
//   block 0   steps 0 .. 36    sums of all rows --\ /--> rows 0 .. 25    part 0 + part 1 --> + bias + residual --> out
//   block 1   steps 36 .. 72   sums of all rows --/ \--> rows 25 .. 49   likewise
//
// Where there are many, a block sums TURNS parts one after the other, and what they add up to waits in its registers.
//
// Wide tiles that leave multiprocessors idle let the next kernel begin EARLY, at once: its blocks ask for their weights there, see TensorTile::begins_next.
//
// Tried: asking for the lines of a tile's first inputs before this kernel's turn. Where they come from memory that helps (256 outputs and rows, k of 256, bf16: 32 lanes
// 5.2 for 5.6 µs, 64 8.6 for 8.8; H200, 2026-11-27). In networks they are in the cache: BERT-base takes 0.5 % longer, with later weights too 2 %, ResNet-50 0 and 3 %.
//
// An element's products are summed by k in steps of 32 bytes, always by the same instruction, and parts follow from the step's shape: no
// tile changes a bit.
// Bound by bytes for small images and few rows (weights once per lane), by the matrix unit and the feeding of it for large ones.
//
//   -DSTAGES, -DLAG=0|1, -DMIN_BLOCKS of a multiprocessor
//   -DSTEPS      of a stage, a divisor of those of k
//   -DPARTS      of k, and blocks of a cluster       -DTURNS      parts of k that a block sums, one after the other
//   -DEARLY=0|1  whether the next kernel may begin before this one's inputs are under way
//   -DAHEAD      stages between loading and use: all where k has no more of them, else STAGES - 1 - LAG
//   generated.cuh      multiply(), see steps/product/instruction.rs
#include "cluster.cuh"
#include "product_sums.cuh"

constexpr int THREADS = BM * 2;
constexpr u32 WEIGHT_BYTES = BM * ROW_BYTES, STEP_BYTES = WEIGHT_BYTES + BN * ROW_BYTES, STAGE_BYTES = STEPS * STEP_BYTES;
static_assert(AHEAD >= 1 && AHEAD <= STAGES, "stages are loaded ahead");
// Whether sums are finished where they are.
constexpr bool HELD = PARTS == 1 && (RESIDUAL == 0 || HELD_RESIDUAL);
// Whether a residual comes while the last stages multiply, in the place that is free when nothing more is asked for, and finished outputs wait there; or when
// all have multiplied, in the first.
constexpr bool RESIDUAL_EARLY = HELD_RESIDUAL && HELD && AHEAD < STAGES;
static_assert(BM * BN * sizeof(real) <= STAGE_BYTES || !RESIDUAL_EARLY, "a stage has room for a tile's outputs");
static_assert(STEPS <= 2 && (PARTS == 1 || TURNS == 1), "parts begin with stages, and are summed in one of two ways");

// The first step of a part of k; of the one behind the last, the end.
__device__ __forceinline__ u32 cut(u32 steps, u32 part, u32 parts) { return part == parts ? steps : steps * part / parts & ~1u; }

// Adds the parts of `count` rows from `first` on, in order of k, where this block's own part is. A thread takes four outputs of every
// eighth row.
__device__ __forceinline__ void add_parts(float* transposed, u32 first, u32 count, u32 thread) {
    constexpr u32 QUADS = BM / 4, PASS = THREADS / QUADS, LOADS = ((BN + PARTS - 1) / PARTS + PASS - 1) / PASS;
    float* own = transposed + (first + thread / QUADS) * SUMS_PITCH + thread % QUADS * 4;
    float4 sums[LOADS];
#pragma unroll
    for (u32 i = 0; i < LOADS; i++)
        if (thread / QUADS + i * PASS < count) sums[i] = load_remote(own + i * PASS * SUMS_PITCH, 0);
#pragma unroll
    for (u32 part = 1; part < PARTS; part++) {
#pragma unroll
        for (u32 i = 0; i < LOADS; i++) {
            if (thread / QUADS + i * PASS >= count) continue;
            const float4 next = load_remote(own + i * PASS * SUMS_PITCH, part);
            sums[i] = make_float4(sums[i].x + next.x, sums[i].y + next.y, sums[i].z + next.z, sums[i].w + next.w);
        }
    }
#pragma unroll
    for (u32 i = 0; i < LOADS; i++)
        if (thread / QUADS + i * PASS < count) *reinterpret_cast<float4*>(own + i * PASS * SUMS_PITCH) = sums[i];
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) kernel(const __grid_constant__ Params p) {
    extern __shared__ unsigned char dynamic[];
    __shared__ u64 filled[STAGES];
    __shared__ float bias[BM];
#if LOADER >= 2
    __shared__ Source table[BN];
#else
    Source* table = nullptr;
#endif
    if constexpr (EARLY) dependents_may_start();
    const u32 thread = threadIdx.x, shared = (shared_address(dynamic) + 1023) & ~1023u;
    const u32 part = blockIdx.x % PARTS, place = blockIdx.x / PARTS;
    const u32 tile = p.m_tiles.quotient(place), m = place - tile * p.m_tiles.value;
    const u32 group = p.group_tiles.quotient(m), m0 = (m - group * p.group_tiles.value) * BM;
    const Rows rows = find_rows(p, tile);
    // The blocks of a cluster leave together or not at all.
    if (!rows.any) {
        dependency_wait(p.launch);
        return;
    }
    const u32 first_step = cut(p.steps, part, PARTS), steps = cut(p.steps, part + 1, PARTS) - first_step;
    const u64 slot = p.launch.weights[rows.lane];
    const u32 present = min(u32(BM / 64), p.blocks - m0 / 64);  // blocks of this tile that there are
    const u64 weights = slot + p.weights + (u64(group * p.blocks + m0 / 64) * p.steps + first_step) * BLOCK_BYTES;
    const u32 all_filled = shared_address(filled);
    auto load_stage = [&](u32 step, u32 stage) {
        load_weights<STEPS>(p, weights, present, step, shared + stage * STAGE_BYTES, STEP_BYTES, all_filled + stage * 8);
    };
    if (thread == 0) {
#pragma unroll
        for (int stage = 0; stage < STAGES; stage++) barrier_init(&filled[stage], 1);
        barriers_are_ready();
#pragma unroll 1
        for (u32 stage = 0; stage < AHEAD && stage * STEPS < steps; stage++) load_stage(stage * STEPS, stage);
    }
    [[maybe_unused]] float held_bias[2];
    if constexpr (HELD) load_held_bias(p, slot, group, m0, thread, held_bias);
    float own_bias = 0.0f;
#if BIAS
    if (!HELD && thread < BM && m0 + thread < p.n) own_bias = global<const float>(slot + p.bias)[group * p.n + m0 + thread];
#endif
    Loader<THREADS, ROW_BYTES / 16, Swizzled> loader(p, rows, slot, group, first_step, table);
    auto load_inputs = [&](u32 stage) {
#pragma unroll
        for (u32 i = 0; i < STEPS; i++) loader.load(p, shared + stage * STAGE_BYTES + i * STEP_BYTES + WEIGHT_BYTES);
    };
    __syncthreads();

    dependency_wait(p.launch);
#pragma unroll 1
    for (u32 stage = 0; stage < AHEAD; stage++) {
        if (stage * STEPS < steps) load_inputs(stage);
        chunks_commit();
    }
    if constexpr (!EARLY) dependents_may_start();
    // Rows of the tile, and those of them that this block finishes.
    const u32 present_rows = min(u32(BN), rows.end - rows.first), share = (present_rows + PARTS - 1) / PARTS;
    const u32 first = min(part * share, present_rows), count = min(share, present_rows - first);
    const auto row_of = [&](u32 row) { return rows.first + first + row; };
    if constexpr (!RESIDUAL_EARLY) prefetch_residual<THREADS>(p, rows, slot, group, m0, thread, count, row_of);
    if (!HELD && thread < BM) bias[thread] = own_bias;

    // Said to be none where there is one, the warp group is the same for all threads, and the compiler sees it.
    const u32 warps = THREADS == 128 ? 0 : thread / 128;
    const u64 ring_weights = swizzled(shared + warps * BLOCK_BYTES), ring_inputs = swizzled(shared + WEIGHT_BYTES);
    float sums[BN / 2];
    [[maybe_unused]] float totals[BN / 2];  // of earlier parts
    clear(sums);
    clear(totals);
    u32 step = 0, stage = 0, parity = 0, next = AHEAD % STAGES, waiting = shared;
    const auto load_residual_to = [&](u32 place) {
#if HELD_RESIDUAL
        waiting = place;
        const u32 of_tile = thread / 128 * 64;
        bring_residual<BN>(p, rows, group, m0 + of_tile, thread % 128, present_rows, place + of_tile * BN * sizeof(real));
#endif
    };
    [[maybe_unused]] const u32 resting = steps - min(steps, u32(AHEAD * STEPS));  // the first step at which nothing more is asked for
#pragma unroll 1
    for (u32 turn = 1;; turn++) {
        const u32 end = cut(steps, turn, TURNS);
#pragma unroll 1
        for (;;) {
            chunks_wait<AHEAD - 1>();
            publish_shared();
            __syncthreads();
            barrier_wait(all_filled + stage * 8, parity);
            products_begin();
#pragma unroll
            for (u32 i = 0; i < STEPS; i++) {
                const u32 at = (stage * STAGE_BYTES + i * STEP_BYTES) / 16;
#pragma unroll
                for (u32 slice = 0; slice < 4; slice++)
                    multiply(sums, further_on(ring_weights, at + slice * 2), further_on(ring_inputs, at + slice * 2));
            }
            products_commit();
            if (step + AHEAD * STEPS < steps) {
                if (thread == 0) load_stage(step + AHEAD * STEPS, next);
                load_inputs(next);
            } else if (RESIDUAL_EARLY && step == resting) {
                load_residual_to(shared + next * STAGE_BYTES);
            }
            chunks_commit();
            products_wait<LAG>();
            if (++stage == STAGES) {
                stage = 0;
                parity ^= 1;
            }
            if (++next == STAGES) next = 0;
            // There is at least one step: said so, the sums stay where they are between products.
            step += STEPS;
            if (step >= end) break;
        }
        products_wait<0>();
        if constexpr (TURNS > 1) {
#pragma unroll
            for (int i = 0; i < BN / 2; i++) {
                totals[i] += sums[i];
                sums[i] = 0.0f;
            }
        }
        if (TURNS == 1 || turn == TURNS) break;
    }
    if constexpr (HELD) {
        if constexpr (HELD_RESIDUAL && !RESIDUAL_EARLY) {
            __syncthreads();
            load_residual_to(shared);
            chunks_commit();
        }
        if constexpr (HELD_RESIDUAL) chunks_wait<0>();
        finish_held<BN>(p, rows, group, m0, thread, present_rows, TURNS == 1 ? sums : totals, held_bias, waiting, [] { __syncthreads(); });
        return;
    }
    __syncthreads();

    float* transposed = reinterpret_cast<float*>(dynamic + (shared - shared_address(dynamic)));
    // A warp has 16 outputs, of which there may be none.
    if (m0 + thread / 32 * 16 < p.n) transpose(transposed, TURNS == 1 ? sums : totals, thread, 0);
    cluster_arrive<PARTS>();
    cluster_wait<PARTS>();
    if constexpr (PARTS > 1) {
        add_parts(transposed, first, count, thread);
        // That others have read this block's sums is waited for at the end.
        cluster_arrive_read<PARTS>();
        __syncthreads();
    }
    finish<THREADS>(p, rows, slot, group, m0, thread, transposed + first * SUMS_PITCH, bias, count, row_of);
    if constexpr (PARTS > 1) cluster_wait<PARTS>();
}
