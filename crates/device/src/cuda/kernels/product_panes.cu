// Convolutions with several taps and stride 1 on the matrix unit, bf16 and fp16, by blocks that stay: the next tile's window comes while this one's taps walk.
//
//   weigher    weights of tile 0, all k | of tile 1 | of tile 2 ...       as far ahead as the ring has places, over the ends of tiles
//   bringers   window of 0 | window of 1 | ............ window of 2       into the pane that is free
//   groups     ........... | products of 0 | outputs 0 | products of 1 | outputs 1 ...
//
// product_window.cu has a block for each tile, and a tile's window has a multiprocessor's shared memory for itself: nobody multiplies while it comes, or while
// outputs leave. Of 18 us of a layer of 28x28 and 128 channels, 32 lanes, 5 went with waiting for windows and 3 with outputs (H200, 2026-11-26).
//
//   shared memory   ring     [STAGES][128 outputs][128 B]                    weights, as they lie in the slot
//                   panes    PANES of [channels / CHUNK][plane][CHUNK]       a tile's window, see product_window.cu; then
//                                  or [2 groups][BN][64 outputs + 8]         its outputs: see product_staged.cuh
//
// A tile is 128 outputs, 64 of each group and none too many, of BN positions. Block b takes the tiles b, b + gridDim.x and so on, outputs first: neighbours at the
// same time read the same window, or the same weights.
//
// k walks the taps, then channels, in the steps of product_tensor.cu and by the same instruction, and sums are finished in the same order: which of the
// kernels computes a layer changes no bit. Bound by the matrix unit, and by outputs, during which it rests.
//
//   -DSTAGES, -DPANES        one pane where two leave too few stages
//   generated.cuh            multiply(), see steps/product/instruction.rs
#include "product_staged.cuh"
#include "product_window.cuh"

constexpr int WORKERS = BM * 2, BRINGERS = 96, THREADS = WORKERS + BRINGERS + 32;
constexpr u32 STAGE_BYTES = BM * ROW_BYTES;
static_assert(BM == 2 * 64 && RESIDUAL == 0, "two groups, each with 64 outputs");

// Of all who multiply; groups have barriers of their own.
__device__ __forceinline__ void workers_sync() { asm volatile("bar.sync 3, %0;" ::"n"(WORKERS) : "memory"); }

// Which place of a ring is next, and how often it was.
template <int PLACES> struct Seat {
    u32 at = 0, parity = 0;
    __device__ __forceinline__ void advance() {
        if (++at == PLACES) {
            at = 0;
            parity ^= 1;
        }
    }
};

struct Tile {
    u32 m0, item, q0;
    u64 slot;
    __device__ __forceinline__ Tile(const Params& p, u32 number) {
        const u32 place = p.m_tiles.quotient(number);
        m0 = (number - place * p.m_tiles.value) * BM;
        item = p.item_tiles.quotient(place);
        q0 = (place - item * p.item_tiles.value) * BN;
        slot = p.launch.weights[p.launch.lane_of[item]];
    }
};

// Where everything is in shared memory: rings, and of each of their places the barrier that tells it is full, and the one that tells it is free.
struct Block {
    u32 ring, panes, pane_bytes;
    u32 weights, weighed;  // of stages
    u32 brought, left;     // of panes: its window is there; its outputs are written
    u32 tiles;             // of the launch
};

// Weights do not depend on the kernels before: nothing is waited for but places.
__device__ __forceinline__ void weigh(const Params& p, const Block& block) {
    Seat<STAGES> stage;
#pragma unroll 1
    for (u32 number = blockIdx.x; number < block.tiles; number += gridDim.x) {
        const Tile tile(p, number);
        const u64 from = tile.slot + p.weights + u64(tile.m0 / 64) * p.steps * BLOCK_BYTES;
#pragma unroll 1
        for (u32 step = 0; step < p.steps; step++) {
            // The first time round nobody has to leave.
            barrier_wait(block.weighed + stage.at * 8, stage.parity ^ 1);
            load_weights<1>(p, from, BM / 64, step, block.ring + stage.at * STAGE_BYTES, STAGE_BYTES, block.weights + stage.at * 8);
            stage.advance();
        }
    }
}

__device__ __forceinline__ void bring(const Params& p, const Block& block, u32 thread) {
    Seat<PANES> pane;
    dependency_wait(p.launch);
#pragma unroll 1
    for (u32 number = blockIdx.x; number < block.tiles; number += gridDim.x) {
        const Tile tile(p, number);
        barrier_wait(block.left + pane.at * 8, pane.parity ^ 1);
        const u32 window = block.panes + pane.at * block.pane_bytes;
        bring_places<BRINGERS, 4>(p, tile.slot, tile.item, window, tile.q0, 0, BN + beyond(p), thread);
        chunks_arrive(block.brought + pane.at * 8);
        pane.advance();
    }
    dependents_may_start();
    // No thread leaves before its chunks are there.
    chunks_commit();
    chunks_wait<0>();
}

__device__ __forceinline__ void multiply_all(const Params& p, const Block& block, u32 group, u32 thread) {
    const u64 ring = swizzled(block.ring + group * BLOCK_BYTES);
    const bool tells = thread % 32 == 0;
    Seat<STAGES> stage;
    Seat<PANES> pane;
    dependency_wait(p.launch);
#pragma unroll 1
    for (u32 number = blockIdx.x; number < block.tiles; number += gridDim.x) {
        const Tile tile(p, number);
        const u32 window = block.panes + pane.at * block.pane_bytes, m0 = tile.m0 + group * 64;
        float bias[2];
        load_held_bias(p, tile.slot, 0, m0, thread, bias);
        float sums[BN / 2];
        clear(sums);
        Taps taps(planar(window, p.plane));
        barrier_wait(block.brought + pane.at * 8, pane.parity);
        // Chunks were written as threads write; the matrix unit reads otherwise.
        publish_shared();
        u32 step = 0, weighed = 0;
#pragma unroll 1
        for (;;) {
            barrier_wait(block.weights + stage.at * 8, stage.parity);
            products_begin();
            multiply_step(p, sums, further_on(ring, stage.at * (STAGE_BYTES / 16)), taps.factor);
            products_commit();
            products_wait<1>();
            if (step != 0 && tells) barrier_arrive(weighed);
            weighed = block.weighed + stage.at * 8;
            stage.advance();
            taps.advance(p);
            // There is at least one step: said so, the sums stay where they are between products.
            if (++step >= p.steps) break;
        }
        products_wait<0>();
        if (tells) barrier_arrive(weighed);
        // The other group reads the same window.
        workers_sync();

        const u32 staged = window + group * STAGED_BYTES;
        const Rows rows = {true, 0, tile.item, 0, p.rows.value};
        const auto row_of = [&](u32 row) { return row_at(p, tile.q0 + row); };
        finish_staged(p, named_row(staged, thread), sums, bias);
        group_sync(group);
        store_staged<BN>(p, rows, staged, m0, thread, row_of);
        // Each for itself: racecheck follows no lane that says so for its warp.
        barrier_arrive(block.left + pane.at * 8);
        pane.advance();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) kernel(const __grid_constant__ Params p) {
    extern __shared__ unsigned char dynamic[];
    __shared__ u64 weights[STAGES], weighed[STAGES], brought[PANES], left[PANES];
    const u32 thread = threadIdx.x;
    if (thread == 0) {
#pragma unroll 1
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&weights[i], 1);
            barrier_init(&weighed[i], WORKERS / 32);
        }
#pragma unroll 1
        for (int i = 0; i < PANES; i++) {
            barrier_init(&brought[i], BRINGERS);
            barrier_init(&left[i], WORKERS);
        }
        barriers_are_ready();
    }
    __syncthreads();
    Block block;
    block.ring = (shared_address(dynamic) + 1023) & ~1023u;
    block.panes = block.ring + STAGES * STAGE_BYTES;
    block.pane_bytes = max(p.in_per_group.value / CHUNK * p.plane * 16, 2 * STAGED_BYTES);
    block.weights = shared_address(weights);
    block.weighed = shared_address(weighed);
    block.brought = shared_address(brought);
    block.left = shared_address(left);
    block.tiles = items_of(p.launch) * p.item_tiles.value * p.m_tiles.value;
    if (thread < WORKERS) {
        multiply_all(p, block, thread / GROUP, thread % GROUP);
    } else if (thread < WORKERS + BRINGERS) {
        bring(p, block, thread - WORKERS);
    } else if (thread == WORKERS + BRINGERS) {
        weigh(p, block);
    }
}
