// Convolutions with several taps and stride 1 on the matrix unit, whose input stays in shared memory while the taps walk over it.
//
//   lines of the padded image, one after the other:      . . . . . . .      a tile is BN positions in a row, from any start
//                                                        . x x x x x .      a tap is the same memory, read from (ky, kx) further on
//                                                        . x x x x x .      what lies between lines gives sums that nobody asked for
//
// product_tensor.cu reads each input once per tap; here once per tile, and no thread works out addresses in the main loop. A padded line
// has `kernel_width - 1` positions that are no outputs: an eighth at 14 columns, little at 56.
//
//   shared memory   ring     [STAGES][BM/64 blocks of 8 KB]            weights, brought by a warp of their own
//                   window   [channels / CHUNK][plane][CHUNK]          positions q0 .. q0 + BN + lines of taps, zeros outside the image
// The matrix unit takes 8 positions of 16 bytes as one piece, wherever it starts; the next CHUNK channels are a plane further. A plane is one
// place more than a multiple of 8, so that the chunks of a position fall on different banks.
//
// k walks the taps, then channels, in the steps of product_tensor.cu and by the same instruction: which of the two computes a layer changes
// no bit. Bound by the matrix unit where there are 128 outputs; by the weights that each tile reads anew where there are 64.
//
// Outputs leave through shared memory, where the ring was: as halves, see product_staged.cuh, or, where those cannot, as floats.
//
//   -DBM, -DBN   the tile          -DACROSS=1|2   warp groups side by side along positions          -DSTAGES, -DMIN_BLOCKS
//   -DSTAGED=1   elements are halves, outputs whole chunks, and there is no residual
#include "product_window.cuh"
#if STAGED
#include "product_staged.cuh"
#endif

constexpr int COLUMNS = BN / ACROSS;       // positions of a warp group
constexpr int WORKERS = BM * 2 * ACROSS;   // threads that multiply
constexpr int THREADS = WORKERS + 32;      // and the warp that brings weights
constexpr u32 STAGE_BYTES = BM * ROW_BYTES;
static_assert(!STAGED || WORKERS <= 256, "the third barrier is that of all");

// Of all who multiply; two groups may have barriers of their own, 1 and 2.
__device__ __forceinline__ void workers_sync() { asm volatile("bar.sync 3, %0;" ::"n"(WORKERS) : "memory"); }

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) kernel(const __grid_constant__ Params p) {
    extern __shared__ unsigned char dynamic[];
    __shared__ u64 filled[STAGES], emptied[STAGES];
    __shared__ float bias[BM];
    const u32 thread = threadIdx.x, shared = (shared_address(dynamic) + 1023) & ~1023u, window = shared + STAGES * STAGE_BYTES;
    const u32 tile = p.m_tiles.quotient(blockIdx.x), m0 = (blockIdx.x - tile * p.m_tiles.value) * BM;
    const u32 item = p.item_tiles.quotient(tile), q0 = (tile - item * p.item_tiles.value) * BN;
    if (item >= items_of(p.launch)) {
        dependency_wait(p.launch);
        return;
    }
    const u32 lane = p.launch.lane_of[item];
    const u64 slot = p.launch.weights[lane];
    const u32 all_filled = shared_address(filled), all_emptied = shared_address(emptied);
    if (thread == 0) {
#pragma unroll
        for (int stage = 0; stage < STAGES; stage++) {
            barrier_init(&filled[stage], 1);
            barrier_init(&emptied[stage], WORKERS / 32);
        }
        barriers_are_ready();
    }
    __syncthreads();

    if (thread >= WORKERS) {
        if (thread == WORKERS) {
            const u32 present = min(u32(BM / 64), p.blocks - m0 / 64);  // blocks of this tile that there are
            const u64 weights = slot + p.weights + u64(m0 / 64) * p.steps * BLOCK_BYTES;
            u32 stage = 0, parity = 1;
#pragma unroll 1
            for (u32 step = 0; step < p.steps; step++) {
                barrier_wait(all_emptied + stage * 8, parity);
                load_weights<1>(p, weights, present, step, shared + stage * STAGE_BYTES, STAGE_BYTES, all_filled + stage * 8);
                if (++stage == STAGES) {
                    stage = 0;
                    parity ^= 1;
                }
            }
        }
        return;
    }

    float own_bias = 0.0f;
#if BIAS
    if (thread < BM && m0 + thread < p.n) own_bias = global<const float>(slot + p.bias)[m0 + thread];
#endif
    dependency_wait(p.launch);
    bring_places<WORKERS, 4>(p, slot, item, window, q0, 0, BN + beyond(p), thread);
    chunks_commit();
    dependents_may_start();
    const Rows rows = {true, lane, item, 0, p.rows.value};
    auto row_of = [&](u32 place) { return row_at(p, q0 + place); };
    prefetch_residual<WORKERS>(p, rows, slot, 0, m0, thread, BN, row_of);
    if (thread < BM) bias[thread] = own_bias;
    chunks_wait<0>();
    publish_shared();
    workers_sync();

    // Said to be none where there is one, what follows is the same for all threads, and the compiler sees it.
    const u32 warps = WORKERS == 128 ? 0 : thread / 128, along = warps % (BM / 64), across = warps / (BM / 64);
    float sums[COLUMNS / 2];
    clear(sums);
    const u64 ring = swizzled(shared + along * BLOCK_BYTES);
    Taps taps(planar(window + across * COLUMNS * 16, p.plane));
    const bool tells = thread % 32 == 0;
    u32 stage = 0, parity = 0;
#pragma unroll 1
    for (u32 step = 0;;) {
        barrier_wait(all_filled + stage * 8, parity);
        products_begin();
        multiply_step(p, sums, further_on(ring, stage * (STAGE_BYTES / 16)), taps.factor);
        products_commit();
        products_wait<1>();
        if (step > 0 && tells) barrier_arrive(all_emptied + (stage == 0 ? STAGES - 1 : stage - 1) * 8);
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
        taps.advance(p);
        // There is at least one step: said so, the sums stay where they are between products.
        if (++step >= p.steps) break;
    }
    products_wait<0>();
    workers_sync();

#if STAGED
    const u32 group = thread / GROUP, own = thread % GROUP, staged = shared + group * COLUMNS * STAGED_PITCH;
    const auto row_of_group = [&](u32 place) { return row_of(across * COLUMNS + place); };
    float held_bias[2];
    load_held_bias(p, slot, 0, m0 + along * 64, own, held_bias);
    finish_staged(p, named_row(staged, own), sums, held_bias);
    group_sync(group);
    store_staged<COLUMNS>(p, rows, staged, m0 + along * 64, own, row_of_group);
#else
    float* transposed = reinterpret_cast<float*>(dynamic + (shared - shared_address(dynamic)));
    transpose(transposed, sums, thread % (BM * 2), across * COLUMNS);
    workers_sync();
    finish<WORKERS>(p, rows, slot, 0, m0, thread, transposed, bias, BN, row_of);
#endif
}
