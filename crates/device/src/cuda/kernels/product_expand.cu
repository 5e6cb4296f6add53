// Layers of one tap on the matrix unit, bf16 and fp16, bound by memory: a block keeps the inputs of a tile of rows on chip while it walks over all of their
// outputs, and what it will need is always under way. See product.cuh for the formula.
//
//   feeders    inputs of rows 0 | residual 0, 1, 2 …         | inputs of rows 1 | residual …     as far ahead as there are places
//   weigher    weights of outputs 0 | 1 | 2 …                                                    likewise
//   group 0    ..... | products 0 | outputs 0 | products 2 | outputs 2 …
//   group 1    ........ | products 1 | outputs 1 | products 3 …
//
// Layers that have many more outputs than inputs are made of little but their residuals and outputs. In product_tensor.cu a block has one tile: its residual
// is waited for when its sums are there, nothing is asked for meanwhile, and every 64 or 128 outputs read the same inputs again. Here residuals come while
// tiles before them multiply; one group writes outputs while the other multiplies, which comes of itself as they start a tile apart.
//
//   shared memory   planes   PLANES of [BN rows][128 B of k]            the inputs of a tile of rows take as many as there are steps of k
//                   ring     STAGES of [64 outputs][128 B of k]         weights, as they lie in the slot
//                   slots    SLOTS of [BN rows][64 outputs + 8]         a tile's residuals, then its outputs: see product_staged.cuh
//
// A tile is 64 outputs of BN rows. Of a row of tiles a block has `turns`, every so many-th; `item_tiles` blocks share the row, neighbours at the same time. Block b
// takes the shares b, b + gridDim.x and so on: so what all blocks read and write at a time lies together, and memory opens few of its pages (128 lanes of 784
// rows and 512 outputs, k of 128: 92.9 us, where blocks that each had a piece of the launch took 117; H100, 2026-11-26).
//
// k walks in the steps of product_tensor.cu and by the same instruction, and sums are finished in the same order: which of the kernels computes a layer changes
// no bit. Bound by memory, or by the second-level cache, which sends weights once for each tile of rows.
//
//   -DPLANES, -DSTAGES, -DSLOTS
//   generated.cuh               multiply(), see steps/product/instruction.rs
#include "product_staged.cuh"

constexpr int FEEDERS = 96, GROUPS = 2, THREADS = FEEDERS + 32 + GROUPS * GROUP;
constexpr u32 PLANE_BYTES = BN * ROW_BYTES;
static_assert(LOADER == 0 && sizeof(x_type) == 2, "a row's inputs are whole chunks");

// What a group is told of a tile.
struct Tile {
    u64 out;      // address of its first row's first output
    u64 slot;     // the lane's
    u32 m0;       // its first output
    u32 present;  // rows that there are; none behind the last tile
    u32 planes;   // that were filled before its inputs
    bool last;    // of those that this group has of these rows
};

// Where everything is in shared memory: rings, and of each of their places the barrier that tells it is full, and the one that tells it is free.
struct Block {
    u32 planes, ring, slots;
    u32 inputs, read;       // of planes
    u32 weights, weighed;   // of stages
    u32 told, brought, left;  // of slots: which tile, its residual; its outputs are written
    u32 turn;               // of each group: the other has all that its tile multiplies
    Tile* tiles;            // of each slot
};

// A place in a ring of COUNT, when so many were taken before it.
template <u32 COUNT> struct Seat {
    u32 at, parity;
    __device__ __forceinline__ Seat(u32 taken) : at(taken % COUNT), parity(taken / COUNT % 2) {}
    __device__ __forceinline__ void advance() {
        if (++at == COUNT) {
            at = 0;
            parity ^= 1;
        }
    }
};

// What a block takes at a time: of a row of tiles, tile `first` and every `item_tiles`-th behind it.
struct Share {
    u32 of_rows, first;
    __device__ __forceinline__ Share(const Params& p, u32 number)
        : of_rows(p.item_tiles.quotient(number)), first(number - of_rows * p.item_tiles.value) {}
    // The first output of its tile number `tile`.
    __device__ __forceinline__ u32 m0(const Params& p, u32 tile) const { return (tile * p.item_tiles.value + first) * BM; }
};
__device__ __forceinline__ u32 count_shares(const Params& p) { return count_row_tiles(p) * p.item_tiles.value; }

__device__ __forceinline__ void feed(const Params& p, const Block& block, u32 thread) {
    const u32 shares = count_shares(p);
    Seat<PLANES> plane(0);
    Seat<SLOTS> slot(0);
    u32 planes = 0;
    dependency_wait(p.launch);
#pragma unroll 1
    for (u32 number = blockIdx.x; number < shares; number += gridDim.x) {
        const Share share(p, number);
        const Rows rows = find_rows(p, share.of_rows);
        const u64 weights = p.launch.weights[rows.lane];
        const u32 present = min(u32(BN), rows.end - rows.first);
        Loader<FEEDERS, ROW_BYTES / 16, Swizzled> loader(p, rows, weights, 0, 0, nullptr);
#pragma unroll 1
        for (u32 step = 0; step < p.steps; step++) {
            // The first time round nobody has to leave.
            barrier_wait(block.read + plane.at * 8, plane.parity ^ 1);
            // A single tile is one group's: the other's four warps have read these rows.
            if (p.turns == 1 && thread < GROUP / 32) barrier_arrive(block.read + plane.at * 8);
            loader.load(p, block.planes + plane.at * PLANE_BYTES);
            chunks_arrive(block.inputs + plane.at * 8);
            plane.advance();
        }
#pragma unroll 1
        for (u32 i = 0; i < p.turns; i++) {
            const u32 m0 = share.m0(p, i);
            const u64 first = out_element(p, rows, 0, rows.first, m0);
            // Only who has something to bring: another would be left behind, and take a later round of the slot for this one.
            if (RESIDUAL || thread == 0) barrier_wait(block.left + slot.at * 8, slot.parity ^ 1);
            if (thread == 0) {
                block.tiles[slot.at] = {p.out.base + first * sizeof(real), weights, m0, present, planes, i + GROUPS >= p.turns};
                barrier_arrive(block.told + slot.at * 8);
            }
#if RESIDUAL
            const u32 chunk = thread % 8 * CHUNK;
            const u64 from = p.residual.base + (first + chunk) * sizeof(residual_type);
            const u32 to = block.slots + slot.at * STAGED_BYTES + chunk * sizeof(real);
#pragma unroll
            for (u32 row = thread / 8; row < BN; row += FEEDERS / 8) {
                const bool there = row < present && m0 + chunk < p.n;
                copy_chunk(to + row * STAGED_PITCH, from + u64(there ? row : 0) * p.n * sizeof(residual_type), there);
            }
            chunks_arrive(block.brought + slot.at * 8);
#endif
            slot.advance();
        }
        planes += p.steps;
        dependents_may_start();
    }
    // Each group is told that nothing comes any more.
#pragma unroll 1
    for (int group = 0; group < GROUPS; group++) {
        if (thread == 0) {
            barrier_wait(block.left + slot.at * 8, slot.parity ^ 1);
            block.tiles[slot.at].present = 0;
            barrier_arrive(block.told + slot.at * 8);
        }
        slot.advance();
    }
    // No thread leaves before its chunks are there.
    chunks_commit();
    chunks_wait<0>();
}

// Weights do not depend on the kernels before: nothing is waited for but places.
__device__ __forceinline__ void weigh(const Params& p, const Block& block, u32 thread) {
    const u32 shares = count_shares(p);
    Seat<STAGES> stage(0);
#pragma unroll 1
    for (u32 number = blockIdx.x; number < shares; number += gridDim.x) {
        const Share share(p, number);
        const u64 weights = p.launch.weights[find_rows(p, share.of_rows).lane] + p.weights;
        if (thread != 0) continue;
#pragma unroll 1
        for (u32 i = 0; i < p.turns; i++) {
            const u64 from = weights + u64(share.m0(p, i) / BM) * p.steps * BLOCK_BYTES;
#pragma unroll 1
            for (u32 step = 0; step < p.steps; step++) {
                barrier_wait(block.weighed + stage.at * 8, stage.parity ^ 1);
                load_weights<1>(p, from, 1, step, block.ring + stage.at * BLOCK_BYTES, BLOCK_BYTES, block.weights + stage.at * 8);
                stage.advance();
            }
        }
    }
}

__device__ __forceinline__ void multiply_all(const Params& p, const Block& block, u32 group, u32 thread) {
    const u64 ring = swizzled(block.ring), planes = swizzled(block.planes);
    const u64 pitch = u64(p.n) * sizeof(real);
    const u32 chunk = thread % 8 * CHUNK;
    dependency_wait(p.launch);
    // Tiles come to the groups in turn.
#pragma unroll 1
    for (u32 turn = group;; turn += GROUPS) {
        const Seat<SLOTS> slot(turn);
        barrier_wait(block.told + slot.at * 8, slot.parity);
        const Tile& tile = block.tiles[slot.at];
        const u32 m0 = tile.m0, present = tile.present;
        if (present == 0) break;
        const bool last = tile.last;
        const u64 out = tile.out;
        float bias[2];
        load_held_bias(p, tile.slot, 0, m0, thread, bias);
        Seat<STAGES> stage(turn * p.steps);
        Seat<PLANES> plane(tile.planes);
        float sums[BN / 2];
        clear(sums);
        u32 step = 0, weighed = 0, read = 0;
        // A barrier tells two rounds of a ring apart, not three: what comes for the tile before has come.
        if (turn != 0) barrier_wait(block.turn + group * 8, (turn - 1) / GROUPS % 2);
#pragma unroll 1
        for (;;) {
            barrier_wait(block.weights + stage.at * 8, stage.parity);
            barrier_wait(block.inputs + plane.at * 8, plane.parity);
            // Chunks were written as threads write; the matrix unit reads otherwise.
            publish_shared();
            products_begin();
#pragma unroll
            for (u32 slice = 0; slice < 4; slice++)
                multiply(sums, further_on(ring, stage.at * (BLOCK_BYTES / 16) + slice * 2),
                         further_on(planes, plane.at * (PLANE_BYTES / 16) + slice * 2));
            products_commit();
            products_wait<1>();
            if (step != 0 && thread % 32 == 0) {
                barrier_arrive(weighed);
                if (last) barrier_arrive(read);
            }
            weighed = block.weighed + stage.at * 8;
            read = block.read + plane.at * 8;
            stage.advance();
            plane.advance();
            // There is at least one step: said so, the sums stay where they are between products.
            if (++step >= p.steps) break;
        }
        if (thread % 32 == 0) barrier_arrive(block.turn + (group ^ 1) * 8);
        products_wait<0>();
        if (thread % 32 == 0) {
            barrier_arrive(weighed);
            if (last) barrier_arrive(read);
        }

        const u32 staged = block.slots + slot.at * STAGED_BYTES;
#if RESIDUAL
        barrier_wait(block.brought + slot.at * 8, slot.parity);
#endif
        finish_staged(p, named_row(staged, thread), sums, bias);
        group_sync(group);
        // A thread moves one chunk of every 16th row.
        if (m0 + chunk < p.n) {
            const u32 from = staged + chunk * sizeof(real);
            const u64 to = out + chunk * sizeof(real);
#pragma unroll
            for (u32 row = thread / 8; row < BN; row += GROUP / 8)
                if (row < present) store_chunk(to + row * pitch, load_staged(from + row * STAGED_PITCH));
        }
        // Each thread for itself has read all that it reads of the slot and of its tile.
        barrier_arrive(block.left + slot.at * 8);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) kernel(const __grid_constant__ Params p) {
    extern __shared__ unsigned char dynamic[];
    __shared__ u64 inputs[PLANES], read[PLANES], weights[STAGES], weighed[STAGES], told[SLOTS], brought[SLOTS], left[SLOTS], turn[GROUPS];
    __shared__ Tile tiles[SLOTS];
    const u32 thread = threadIdx.x;
    if (thread == 0) {
#pragma unroll 1
        for (int i = 0; i < PLANES; i++) {
            barrier_init(&inputs[i], FEEDERS);
            barrier_init(&read[i], GROUPS * GROUP / 32);
        }
#pragma unroll 1
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&weights[i], 1);
            barrier_init(&weighed[i], GROUP / 32);
        }
#pragma unroll 1
        for (int i = 0; i < SLOTS; i++) {
            barrier_init(&told[i], 1);
            barrier_init(&brought[i], FEEDERS);
            barrier_init(&left[i], GROUP);
        }
        for (int group = 0; group < GROUPS; group++) barrier_init(&turn[group], GROUP / 32);
        barriers_are_ready();
    }
    __syncthreads();
    Block block;
    block.planes = (shared_address(dynamic) + 1023) & ~1023u;
    block.ring = block.planes + PLANES * PLANE_BYTES;
    block.slots = block.ring + STAGES * BLOCK_BYTES;
    block.inputs = shared_address(inputs);
    block.read = shared_address(read);
    block.weights = shared_address(weights);
    block.weighed = shared_address(weighed);
    block.told = shared_address(told);
    block.brought = shared_address(brought);
    block.left = shared_address(left);
    block.turn = shared_address(turn);
    block.tiles = tiles;
    if (thread < FEEDERS) {
        feed(p, block, thread);
    } else if (thread < FEEDERS + 32) {
        weigh(p, block, thread % 32);
    } else {
        multiply_all(p, block, thread / GROUP - 1, thread % GROUP);
    }
}
