// Linear layers of few rows and few lanes in strict fp32: a matrix-vector product that one lane alone spreads over many multiprocessors.
//
//   slot    BM = 16 columns of a panel, all of k  --16-byte chunks, all at once-->  weights [k][16]
//   inputs  BN rows                               --16-byte chunks-------------->   x [BN][k]
//   a thread: one column, one run of 256 of k, BN rows  -->  runs added in order  -->  + bias + residual --> activation --> out
//
// With few lanes nothing is bound by a rate: what counts is how long one lane's answer takes. So a block has few columns, asks for all of its
// weights before it waits for its turn, lets the next kernel do the same, and is left with one load of x and the longest chain of the sum,
// which is one run. With many lanes product_float.cu streams the same weights in longer pieces.
//
// The sum is the plan's: each run from zero in order of k, runs added in order. Both kernels give the same bits.
// Runs are BM columns (of weights) and 4 floats (of x) apart from where they would lie dense, so that a warp's runs meet different banks.
// Twin on the CPU: cpu/steps/gemm.rs. Only for rows that come in whole chunks (LOADER=0).
#include "product.cuh"

constexpr int PANEL = 64, RUN = 256, THREADS = 128, BLOCKS = 6;
constexpr int UNROLL = BN <= 2 ? 8 : 2;  // what is read ahead of the chain
constexpr u32 COLUMN_CHUNKS = BM / 4;
static_assert(LINEAR == 1 && LOADER == 0, "rows of a linear layer, in whole chunks");
static_assert(PANEL % BM == 0 && BM % 4 == 0, "columns of one panel, in whole chunks");

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) kernel(const __grid_constant__ Params p) {
    extern __shared__ __align__(16) unsigned char dynamic[];
    const u32 thread = threadIdx.x, shared = shared_address(dynamic);
    const u32 tile = p.m_tiles.quotient(blockIdx.x), m0 = (blockIdx.x - tile * p.m_tiles.value) * BM;
    const Rows rows = find_rows(p, tile);
    if (!rows.any) {
        dependency_wait(p.launch);
        return;
    }
    const u32 runs = (p.k + RUN - 1) / RUN, x_pitch = p.k + runs * 4;
    const u32 x_start = (p.k + runs) * BM, sums_start = x_start + BN * x_pitch;  // floats

    const u64 slot = p.launch.weights[rows.lane];
    const u64 weights = slot + p.weights + (u64(m0 / PANEL) * p.k * PANEL + m0 % PANEL) * 4;
    for (u32 i = thread; i < p.k * COLUMN_CHUNKS; i += THREADS) {
        const u32 k = i / COLUMN_CHUNKS, column = i % COLUMN_CHUNKS * 4;
        copy_chunk(shared + ((k + k / RUN) * BM + column) * 4, weights + (u64(k) * PANEL + column) * 4, true);
    }
    const u32 own_column = thread % BM, own_row = thread / BM, output = m0 + own_column;  // that this thread finishes
    float own_bias = 0.0f;
#if BIAS
    if (output < p.n) own_bias = global<const float>(slot + p.bias)[output];
#endif
    // Rows that there are; a hint may come before the wait, a read may not.
    const u32 present = min(u32(BN), rows.end - rows.first), row_chunks = p.k / 4;
    const u64 inputs = inputs_of(p, rows, slot);
#pragma unroll 1
    for (u32 row = 0; row < present; row++) {
        const u64 from = inputs + source_of(p, rows.first + row, 0).element * 4;
        for (u32 chunk = thread * 8; chunk < row_chunks; chunk += THREADS * 8) prefetch_line(from + chunk * 16);
    }
    dependents_may_start();

    dependency_wait(p.launch);
#pragma unroll 1
    for (u32 row = 0; row < BN; row++) {
        const u64 from = inputs + source_of(p, rows.first + row, 0).element * 4;
        for (u32 chunk = thread; chunk < row_chunks; chunk += THREADS)
            copy_chunk(shared + (x_start + row * x_pitch + chunk * 4 + chunk * 4 / RUN * 4) * 4, from + chunk * 16, row < present);
    }
    chunks_commit();
    static_assert(BM * BN <= THREADS, "an output to a thread");
    const bool finishes = own_row < present && output < p.n;
#if RESIDUAL
    float own_residual[1] = {0.0f};
    if (finishes) load_residual<1>(p, residual_address(p, rows, slot, 0, rows.first + own_row, output), 1, own_residual);
#endif
    chunks_wait<0>();
    __syncthreads();

    const float* staged = reinterpret_cast<const float*>(dynamic);
    float* sums = reinterpret_cast<float*>(dynamic) + sums_start;  // [run][row][column]
    if (thread < BM * runs) {
        const u32 column = thread % BM, run = thread / BM, first = run * RUN;
        const float* w = staged + (first + run) * BM + column;
        const float* x = staged + x_start + first + run * 4;
        const u32 count = min(u32(RUN), p.k - first);
        float sum[BN];
#pragma unroll
        for (int r = 0; r < BN; r++) sum[r] = 0.0f;
#pragma unroll UNROLL
        for (u32 k = 0; k < count; k += 4) {
            float one[4];
#pragma unroll
            for (int i = 0; i < 4; i++) one[i] = w[(k + i) * BM];
#pragma unroll
            for (int r = 0; r < BN; r++) {
                const float4 four = *reinterpret_cast<const float4*>(x + r * x_pitch + k);
                sum[r] = __fmaf_rn(four.x, one[0], sum[r]);
                sum[r] = __fmaf_rn(four.y, one[1], sum[r]);
                sum[r] = __fmaf_rn(four.z, one[2], sum[r]);
                sum[r] = __fmaf_rn(four.w, one[3], sum[r]);
            }
        }
#pragma unroll
        for (int r = 0; r < BN; r++) sums[(run * BN + r) * BM + column] = sum[r];
    }
    __syncthreads();

    if (!finishes) return;
    float total[1] = {0.0f};
    for (u32 run = 0; run < runs; run++) total[0] += sums[(run * BN + own_row) * BM + own_column];
    total[0] += own_bias;
#if RESIDUAL
    total[0] += own_residual[0];
#endif
    total[0] = activate(total[0], p.low, p.high);
    store<1>(p, out_element(p, rows, 0, rows.first + own_row, output), 1, total);
}
