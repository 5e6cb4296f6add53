// Linear layers and convolutions on the matrix unit: bf16, fp16 and tf32. See product.cuh for the formula and the tiles.
//
//   slot     [BM/64 blocks of 8 KB]  --bulk copy-->  stage: weights [BM][128 B]  --\
//                                                                                   wgmma m64 nBN, f32 sums in registers
//   inputs   [BN rows of 128 B]      --chunks----->  stage: inputs  [BN][128 B]  --/
//   sums --> shared memory, where the stages were, transposed --> + bias + residual --> activation --> out, 16 bytes at a time
//
// M is the outputs, which come in whole blocks of 64, and N the rows, of which there may be any number: so a 7x7 image of 49 pixels wastes
// an eighth of a tile of 56, and one row a tile of 8. Weights lie in the slot as the matrix unit reads them (the 128-byte swizzle), so one
// thread brings them; inputs are swizzled as they are copied. A stage is 128 bytes of k; STAGES are in flight, and with LAG=1 one
// group of products is always running while the next is being fed.
//
// Weights do not depend on the kernels before, so the first stages of them are asked for before this kernel waits for its turn.
//
// An element's products are summed by k in steps of 32 bytes, always by the same instruction: no tile changes a bit.
// Bound by bytes for small images and few rows (weights once per lane), by the matrix unit and the feeding of it for large ones.
//
//   -DSTAGES, -DLAG=0|1, -DMIN_BLOCKS of a multiprocessor
//   -DAHEAD      stages between loading and use: all where k has no more of them, else STAGES - 1 - LAG
//   generated.cuh      multiply(), see steps/product/instruction.rs
#include "product_sums.cuh"

constexpr int THREADS = BM * 2;
constexpr u32 WEIGHT_BYTES = BM * ROW_BYTES, STAGE_BYTES = WEIGHT_BYTES + BN * ROW_BYTES;
static_assert(AHEAD >= 1 && AHEAD <= STAGES, "stages are loaded ahead");

struct Swizzled {
    static __device__ __forceinline__ u32 at(u32 row, u32 chunk) { return row * ROW_BYTES + ((chunk ^ (row & 7)) << 4); }
};

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) kernel(const __grid_constant__ Params p) {
    extern __shared__ unsigned char dynamic[];
    __shared__ u64 filled[STAGES];
    __shared__ float bias[BM];
#if LOADER >= 2
    __shared__ Source table[BN];
#else
    Source* table = nullptr;
#endif
    const u32 thread = threadIdx.x, shared = (shared_address(dynamic) + 1023) & ~1023u;
    const u32 tile = p.m_tiles.quotient(blockIdx.x), m = blockIdx.x - tile * p.m_tiles.value;
    const u32 group = p.group_tiles.quotient(m), m0 = (m - group * p.group_tiles.value) * BM;
    const Rows rows = find_rows(p, tile);
    if (!rows.any) {
        dependency_wait();
        return;
    }
    const u64 slot = p.launch.weights[rows.lane];
    const u32 present = min(u32(BM / 64), p.blocks - m0 / 64);  // blocks of this tile that there are
    const u64 weights = slot + p.weights + u64(group * p.blocks + m0 / 64) * p.steps * BLOCK_BYTES;
    auto load_weights = [&](u32 step, u32 stage) {
        barrier_expect(&filled[stage], present * BLOCK_BYTES);
#pragma unroll
        for (u32 block = 0; block < BM / 64; block++) {
            if (block >= present) break;
            const u64 from = weights + (u64(block) * p.steps + step) * BLOCK_BYTES;
            copy_bulk(shared + stage * STAGE_BYTES + block * BLOCK_BYTES, from, BLOCK_BYTES, &filled[stage]);
        }
    };
    if (thread == 0) {
#pragma unroll
        for (int stage = 0; stage < STAGES; stage++) barrier_init(&filled[stage], 1);
        barriers_are_ready();
#pragma unroll 1
        for (u32 step = 0; step < min(u32(AHEAD), p.steps); step++) load_weights(step, step);
    }
    float own_bias = 0.0f;
#if BIAS
    if (thread < BM && m0 + thread < p.n) own_bias = global<const float>(slot + p.bias)[group * p.n + m0 + thread];
#endif
    Loader<THREADS, ROW_BYTES / 16, Swizzled> loader(p, rows, slot, group, table);
    __syncthreads();

    dependency_wait();
#pragma unroll 1
    for (u32 step = 0; step < AHEAD; step++) {
        if (step < p.steps) loader.load(p, shared + step * STAGE_BYTES + WEIGHT_BYTES);
        chunks_commit();
    }
    dependents_may_start();
    const u32 count = min(u32(BN), rows.end - rows.first);
    prefetch_residual<THREADS>(p, rows, slot, group, m0, thread, count, [&](u32 row) { return rows.first + row; });
    if (thread < BM) bias[thread] = own_bias;

    float sums[BN / 2];
    clear(sums);
    u32 stage = 0, parity = 0, next = AHEAD % STAGES;
#pragma unroll 1
    for (u32 step = 0;;) {
        chunks_wait<AHEAD - 1>();
        publish_shared();
        __syncthreads();
        barrier_wait(&filled[stage], parity);
        const u32 at = shared + stage * STAGE_BYTES;
        const u64 a = swizzled(at + thread / 128 * BLOCK_BYTES), b = swizzled(at + WEIGHT_BYTES);
        products_begin();
#pragma unroll
        for (int part = 0; part < 4; part++) multiply(sums, a + part * 2, b + part * 2);
        products_commit();
        if (step + AHEAD < p.steps) {
            if (thread == 0) load_weights(step + AHEAD, next);
            loader.load(p, shared + next * STAGE_BYTES + WEIGHT_BYTES);
        }
        chunks_commit();
        products_wait<LAG>();
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
        if (++next == STAGES) next = 0;
        // There is at least one step: said so, the sums stay where they are between products.
        if (++step >= p.steps) break;
    }
    products_wait<0>();
    __syncthreads();

    float* transposed = reinterpret_cast<float*>(dynamic + (shared - shared_address(dynamic)));
    // A warp has 16 outputs, of which there may be none.
    if (m0 + thread / 32 * 16 < p.n) transpose(transposed, sums, thread, 0);
    __syncthreads();
    finish<THREADS>(p, rows, slot, group, m0, thread, transposed, bias, count, [&](u32 row) { return rows.first + row; });
}
