// Linear layers and convolutions on the matrix unit, by blocks that stay: each walks from tile to tile, and what feeds it is always ahead. See
// product.cuh for the formula and the tiles, product_tensor.cu for the factors in shared memory.
//
//   feeders      tile 0: stage 0, 1, 2 …        | tile 1: stage 0, 1 …   as far ahead as there are places, over the ends of tiles
//   multipliers           wgmma 0, 1, 2 …       | + bias, activation, out | wgmma 0, 1 …
//
//   stage    weights [BM][128 B], by bulk copies; inputs [BN][128 B], in chunks; STEPS of both
//   filled   by FEEDERS threads, as their chunks arrive, and by the weights' bytes       ─┐ of each
//   emptied  by every thread that multiplies, or one for its warp: products have read it ─┘ stage
//
// In product_tensor.cu all threads of a block feed it and multiply: at each step they meet at a barrier, and between tiles nothing is under way. Here one
// warp group feeds and BM / 64 others multiply, and they meet at the stages alone. A block has the multiprocessor for itself, with all of its shared memory
// as stages; outputs wait to leave in the last of their tile. Block b takes the tiles b, b + gridDim.x and so on, neighbours at the same time, so they still
// read the same inputs and weights while those are in the cache.
//
// Feeders say which tile a stage begins, beside the stage: multipliers work nothing out.
//
// Tried: clusters of blocks whose tiles lie below each other, their weights brought to all by multicast bulk copies. It takes 1.4 to 9 times as long, whatever the
// tile (256 outputs, 128 rows, k of 1152, 32 lanes, bf16: 21.2 for 10.0 µs; H200, 2026-11-26). cuBLAS multicasts tensor copies.
// Residuals of halves as one more stage of each tile: 768 outputs, 128 rows, k of 3072, 16 lanes, bf16, 32.0 µs for the 31.2 of product_tensor.cu (mean of BERT-base's
// twelve; H200, 2026-11-27).
//
// A sum takes the steps of k in order, by the same instruction as in product_tensor.cu with one part: the bits are the same.
// Bound by bytes, of memory or of the second-level cache.
//
//   -DSTAGES
//   -DSTEPS      of a stage, a divisor of those of k
//   -DEARLY=0|1  whether the next kernel may begin at once, or when a tile has been fed; see WalkTile::begins_next
//   generated.cuh      multiply(), see steps/product/instruction.rs
#include "product_sums.cuh"

constexpr int FEEDERS = 128, MULTIPLIERS = BM * 2, THREADS = FEEDERS + MULTIPLIERS;
constexpr u32 WEIGHT_BYTES = BM * ROW_BYTES, STEP_BYTES = WEIGHT_BYTES + BN * ROW_BYTES, STAGE_BYTES = STEPS * STEP_BYTES;
static_assert(LOADER <= 1, "inputs arrive as chunks");
static_assert(RESIDUAL == 0, "sums are finished where they are");

// Rows whose outputs a stage has room for.
constexpr int ROOM = STAGE_BYTES / (BM * sizeof(real)) / 8 * 8;

__device__ __forceinline__ void multipliers_sync() { asm volatile("bar.sync 1, %0;" ::"n"(MULTIPLIERS) : "memory"); }

struct Tile {
    Rows rows;  // none behind the last tile
    u32 group, m0;
    u64 slot;
};

__device__ __forceinline__ Tile find_tile(const Params& p, u32 place) {
    const u32 of_rows = p.m_tiles.quotient(place), m = place - of_rows * p.m_tiles.value;
    Tile tile;
    tile.rows = find_rows(p, of_rows);
    tile.group = p.group_tiles.quotient(m);
    tile.m0 = (m - tile.group * p.group_tiles.value) * BM;
    tile.slot = tile.rows.any ? p.launch.weights[tile.rows.lane] : 0;
    return tile;
}

// Which stage of the ring is next, and how often it was.
struct Turn {
    u32 stage = 0, parity = 0;
    __device__ __forceinline__ void advance() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

// The block's shared memory.
struct Ring {
    u32 stages;           // the first one's address
    u32 filled, emptied;  // of their barriers
    Tile* tiles;          // which each begins, if it begins one
};

// Asks for the weights of a stage, which begins with step `step` of k.
__device__ __forceinline__ void load_stage(const Params& p, const Tile& tile, const Ring& ring, u32 step, u32 stage) {
    const u32 present = min(u32(BM / 64), p.blocks - tile.m0 / 64);  // blocks of the tile that there are
    const u64 weights = tile.slot + p.weights + u64(tile.group * p.blocks + tile.m0 / 64) * p.steps * BLOCK_BYTES;
    load_weights<STEPS>(p, weights, present, step, ring.stages + stage * STAGE_BYTES, STEP_BYTES, ring.filled + stage * 8);
}

__device__ __forceinline__ void feed(const Params& p, const Ring& ring, u32 thread) {
    Turn turn;
    Tile tile = find_tile(p, blockIdx.x);
    // Weights do not depend on the kernels before: as many as there are places for are asked for before this one waits for its turn.
    u32 asked = 0;
    if (tile.rows.any) {
        asked = min(p.steps, u32(STAGES * STEPS));
        if (thread == 0) {
            ring.tiles[0] = tile;
#pragma unroll 1
            for (u32 step = 0; step < asked; step += STEPS) load_stage(p, tile, ring, step, step / STEPS);
        }
    }
    dependency_wait(p.launch);
#pragma unroll 1
    for (u32 place = blockIdx.x; tile.rows.any; tile = find_tile(p, place += gridDim.x)) {
        Loader<FEEDERS, ROW_BYTES / 16, Swizzled> loader(p, tile.rows, tile.slot, tile.group, 0, nullptr);
#pragma unroll 1
        for (u32 step = 0; step < p.steps; step += STEPS) {
            // The first time round nobody has to leave.
            barrier_wait(ring.emptied + turn.stage * 8, turn.parity ^ 1);
            if (thread == 0 && step >= asked) {
                if (step == 0) ring.tiles[turn.stage] = tile;
                load_stage(p, tile, ring, step, turn.stage);
            }
#pragma unroll
            for (u32 i = 0; i < STEPS; i++) loader.load(p, ring.stages + turn.stage * STAGE_BYTES + i * STEP_BYTES + WEIGHT_BYTES);
            chunks_arrive(ring.filled + turn.stage * 8);
            turn.advance();
        }
        asked = 0;
        if constexpr (!EARLY) dependents_may_start();
    }
    // Nothing comes any more, which is said like a tile.
    barrier_wait(ring.emptied + turn.stage * 8, turn.parity ^ 1);
    if (thread == 0) {
        ring.tiles[turn.stage] = tile;
        barrier_arrive(ring.filled + turn.stage * 8);
    }
    chunks_arrive(ring.filled + turn.stage * 8);
    // No thread leaves before its chunks are there.
    chunks_commit();
    chunks_wait<0>();
}

__device__ __forceinline__ void multiply_all(const Params& p, const Ring& ring, u32 thread) {
    dependency_wait(p.launch);
    // Said to be none where there is one, the warp group is the same for all threads, and the compiler sees it.
    const u32 warps = MULTIPLIERS == 128 ? 0 : thread / 128;
    const u64 ring_weights = swizzled(ring.stages + warps * BLOCK_BYTES), ring_inputs = swizzled(ring.stages + WEIGHT_BYTES);
    Turn turn;
#pragma unroll 1
    for (;;) {
        barrier_wait(ring.filled + turn.stage * 8, turn.parity);
        const Tile tile = ring.tiles[turn.stage];
        if (!tile.rows.any) break;
        float bias[2];
        load_held_bias(p, tile.slot, tile.group, tile.m0, thread, bias);
        float sums[BN / 2];
        clear(sums);
        u32 step = 0, before = turn.stage;
#pragma unroll 1
        for (;;) {
            barrier_wait(ring.filled + turn.stage * 8, turn.parity);
            // Chunks were written as threads write; the matrix unit reads otherwise.
            publish_shared();
            products_begin();
#pragma unroll
            for (u32 i = 0; i < STEPS; i++) {
                const u32 at = (turn.stage * STAGE_BYTES + i * STEP_BYTES) / 16;
#pragma unroll
                for (u32 slice = 0; slice < 4; slice++)
                    multiply(sums, further_on(ring_weights, at + slice * 2), further_on(ring_inputs, at + slice * 2));
            }
            products_commit();
            products_wait<1>();
            if (step != 0 && thread % 32 == 0) barrier_arrive_for(ring.emptied + before * 8, 32);
            before = turn.stage;
            turn.advance();
            // There is at least one step: said so, the sums stay where they are between products.
            step += STEPS;
            if (step >= p.steps) break;
        }
        products_wait<0>();
        finish_held<ROOM>(p, tile.rows, tile.group, tile.m0, thread, min(u32(BN), tile.rows.end - tile.rows.first), sums, bias,
                          ring.stages + before * STAGE_BYTES, multipliers_sync);
        // Threads have read and written the stage, and each says so, which racecheck follows; what comes next is written by bulk copies.
        publish_shared();
        barrier_arrive(ring.emptied + before * 8);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) kernel(const __grid_constant__ Params p) {
    extern __shared__ unsigned char dynamic[];
    __shared__ u64 filled[STAGES], emptied[STAGES];
    __shared__ Tile tiles[STAGES];
    if constexpr (EARLY) dependents_may_start();
    const u32 thread = threadIdx.x;
    if (thread == 0) {
#pragma unroll
        for (int stage = 0; stage < STAGES; stage++) {
            barrier_init(&filled[stage], FEEDERS + 1);
            barrier_init(&emptied[stage], MULTIPLIERS);
        }
        barriers_are_ready();
    }
    __syncthreads();
    const Ring ring = {(shared_address(dynamic) + 1023) & ~1023u, shared_address(filled), shared_address(emptied), tiles};
    if (thread < FEEDERS) {
        feed(p, ring, thread);
    } else {
        multiply_all(p, ring, thread - FEEDERS);
    }
}
