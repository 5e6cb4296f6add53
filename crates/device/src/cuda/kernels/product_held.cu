// Convolutions with several taps and stride 1 on the matrix unit, bf16 and fp16, whose weights fit beside their window: a block brings both once
// and multiplies tile after tile.
//
//   bringers   weights, all k | places of tile 0 | of tile 1 | of tile 2 | ...               from the first on, none is ever brought again
//   group 0    .............. | products of 0 | outputs 0 | products of 2 | outputs 2 ...
//   group 1    ......................... | products of 1 | outputs 1 | products of 3 ...
//
// product_window.cu has a block for each tile. Where there are few outputs a tile is soon multiplied: with 64 of them its weights, its window and its
// outputs took longer than its products, and every tile brought the lane's weights anew. Here a tile's window follows the one before, of which it
// shares the lines of taps; one group writes outputs while the other multiplies, which comes of itself as they start a tile apart.
//
//   shared memory   weights  [steps][64 outputs][128 B]                 as they lie in the slot
//                   window   [channels / CHUNK][plane][CHUNK]           places of all of the block's tiles, see product_window.cu
//                   staged   [2 groups][BN][64 outputs + 8]             a tile's residuals, then its outputs: see product_staged.cuh
//
// k walks the taps, then channels, in the steps of product_tensor.cu and by the same instruction, and sums are finished in the same order: which of the
// kernels computes a layer changes no bit. Bound by the matrix unit, and by the first places of a window on their way.
// Not by where its factors lie: an instruction takes half a cycle a row, from 64 rows on, wherever a window's rows begin. 56x56 of 64 channels, 32 lanes, in a chain:
// 17.0 us, 10.9 without products, whose own cycles are 8: little of one is hidden by the other (H200, 2026-11-27).
//
//   -DBN                     positions of a tile, a multiple of 8; `turns` of the parameters are the tiles of a block
//   generated.cuh            multiply(), see steps/product/instruction.rs
#include "product_staged.cuh"
#include "product_window.cuh"

constexpr int WORKERS = 2 * GROUP, BRINGERS = 128, THREADS = WORKERS + BRINGERS;
constexpr int MOST_STEPS = 24, MOST_TURNS = 16;  // as in steps/product/held.rs
static_assert(sizeof(x_type) == 2, "a window of halves");

extern "C" __global__ void __launch_bounds__(THREADS, 1) kernel(const __grid_constant__ Params p) {
    extern __shared__ unsigned char dynamic[];
    __shared__ u64 weighed[MOST_STEPS], filled[MOST_TURNS];
    const u32 thread = threadIdx.x, weights = (shared_address(dynamic) + 1023) & ~1023u, window = weights + p.steps * BLOCK_BYTES;
    const u32 place = p.m_tiles.quotient(blockIdx.x), m0 = (blockIdx.x - place * p.m_tiles.value) * BM;
    const u32 item = p.item_tiles.quotient(place), q0 = (place - item * p.item_tiles.value) * p.turns * BN;
    if (!has_item(p.launch, item)) return;
    const u32 lane = p.launch.lane_of[item];
    const u64 slot = p.launch.weights[lane];
    // Of the block's tiles, those that begin before the item's last output.
    const u32 positions = p.out_width.quotient(p.rows.value) * p.line.value - (p.kernel_width - 1);
    const u32 turns = min(p.turns, (positions - q0 + BN - 1) / BN);
    const u32 all_weighed = shared_address(weighed), all_filled = shared_address(filled);
    if (thread == 0) {
        for (u32 step = 0; step < p.steps; step++) barrier_init(&weighed[step], 1);
        for (u32 turn = 0; turn < turns; turn++) barrier_init(&filled[turn], BRINGERS);
        barriers_are_ready();
    }
    __syncthreads();

    if (thread >= WORKERS) {
        if (thread == WORKERS) {
            const u64 from = slot + p.weights + u64(m0 / 64) * p.steps * BLOCK_BYTES;
#pragma unroll 1
            for (u32 step = 0; step < p.steps; step++) {
                barrier_expect(all_weighed + step * 8, BLOCK_BYTES);
                copy_bulk(weights + step * BLOCK_BYTES, from + step * BLOCK_BYTES, BLOCK_BYTES, all_weighed + step * 8);
            }
        }
        dependency_wait(p.launch);
        auto told = [&](u32 turn) {
            publish_shared();
            barrier_arrive(all_filled + turn * 8);
        };
        u32 brought = 0;
#pragma unroll 1
        for (u32 turn = 0; turn < turns; turn++) {
            const u32 upto = (turn + 1) * BN + beyond(p);
            bring_places<BRINGERS, 2>(p, slot, item, window, q0, brought, upto, thread - WORKERS);
            chunks_commit();
            brought = upto;
            // A tile further on, no more: the first must not wait until all have been asked for.
            if (turn == 0) continue;
            chunks_wait<1>();
            told(turn - 1);
        }
        dependents_may_start();
        chunks_wait<0>();
        told(turns - 1);
        return;
    }

    const u32 group = thread / GROUP, own = thread % GROUP;
    const u32 staged = window + p.in_per_group.value / CHUNK * p.plane * 16 + group * STAGED_BYTES;
    const u32 named = named_row(staged, own);
    float bias[2];
    load_held_bias(p, slot, 0, m0, own, bias);
    dependency_wait(p.launch);
    const Rows rows = {true, lane, item, 0, p.rows.value};

    float sums[BN / 2];
#pragma unroll 1
    for (u32 turn = group; turn < turns; turn += 2) {
        const u32 first = q0 + turn * BN;
        group_sync(group);  // what was staged is written
#if RESIDUAL
        const u32 chunk = own % 8;
        const bool moves = m0 + chunk * CHUNK < p.n;
#pragma unroll 1
        for (u32 row = own / 8; row < BN; row += GROUP / 8) {
            const u32 at = row_at(p, first + row);
            const bool there = moves && at != NO_ROW;
            const u64 from = residual_address(p, rows, slot, 0, there ? at : 0, m0 + chunk * CHUNK);
            copy_chunk(staged + row * STAGED_PITCH + chunk * 16, from, there);
        }
        chunks_commit();
#endif
        clear(sums);
        barrier_wait(all_filled + turn * 8, 0);
        Taps taps(planar(window + turn * BN * 16, p.plane));
        const u64 held = swizzled(weights);
#pragma unroll 1
        for (u32 step = 0;;) {
            barrier_wait(all_weighed + step * 8, 0);
            products_begin();
            multiply_step(p, sums, further_on(held, step * (BLOCK_BYTES / 16)), taps.factor);
            products_commit();
            products_wait<1>();
            taps.advance(p);
            // There is at least one step: said so, the sums stay where they are between products.
            if (++step >= p.steps) break;
        }
        products_wait<0>();

#if RESIDUAL
        chunks_wait<0>();
        group_sync(group);
#endif
        finish_staged(p, named, sums, bias);
        group_sync(group);

        store_staged<BN>(p, rows, staged, m0, own, [&](u32 row) { return row_at(p, first + row); });
    }
}
