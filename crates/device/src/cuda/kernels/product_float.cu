// Linear layers and convolutions in strict fp32: every product and every sum a float. See product.cuh for the formula and the tiles.
//
//   slot     [BM/64 panels of 64 outputs]  --bulk copy-->  stage: weights [BM/64][DEPTH][64]
//   inputs   [BN rows]                     --chunks----->  stage: inputs  [BN][DEPTH + 4]       the pad keeps banks apart
//   a thread: OUTPUTS outputs x ROWS rows in registers, one fused multiply-add per product
//
// A warp covers one panel: 64 / OUTPUTS threads along the outputs by the rest along the rows. With many rows a thread has 8 outputs by 7 or
// 8 rows, and each float read from shared memory feeds 7 products; the bound is the 67 TFLOP/s of the float units. With a few rows it has
// 2 outputs, and the kernel streams the weights: STAGES * DEPTH * 256 bytes are always under way per block, and the bound is the memory.
//
// k is summed as the plan says: in runs of 256 from zero, the runs added in order, each by one thread. No tile changes a bit.
// Twin on the CPU: cpu/steps/gemm.rs, conv.rs.
//
//   -DOUTPUTS=8|2, -DROWS      of a thread         -DDEPTH      of a stage         -DSTAGES, -DMIN_BLOCKS of a multiprocessor
#include "product.cuh"

constexpr int PANEL = 64, RUN = 256;
constexpr int ALONG = PANEL / OUTPUTS, ACROSS = 32 / ALONG;  // threads of a warp along outputs and rows
constexpr int WARPS_M = BM / PANEL, WARPS_N = BN / (ACROSS * ROWS), THREADS = 32 * WARPS_M * WARPS_N;
constexpr int INPUT_PITCH = DEPTH + 4;  // floats
constexpr u32 PANEL_BYTES = DEPTH * PANEL * 4, WEIGHT_BYTES = WARPS_M * PANEL_BYTES, STAGE_BYTES = WEIGHT_BYTES + BN * INPUT_PITCH * 4;
constexpr int AHEAD = STAGES - 1;
constexpr int UNROLL = OUTPUTS == 8 ? 4 : DEPTH / 4;  // fours of k in one piece: a thousand products of a wide thread, 16 KB of code
static_assert(WARPS_N * ACROSS * ROWS == BN && ACROSS * ALONG == 32, "warps cover the tile");
static_assert(RUN % DEPTH == 0 && DEPTH % 4 == 0 && STAGE_BYTES % 16 == 0, "runs end with stages");

struct Padded {
    static __device__ __forceinline__ u32 at(u32 row, u32 chunk) { return row * (INPUT_PITCH * 4) + chunk * 16; }
};

// A thread's outputs of one panel: 4 here and 4 in the other half, or 2 side by side, so that a warp reads 128 bytes or more at once.
__device__ __forceinline__ u32 output_of(u32 along, u32 i) {
    return OUTPUTS == 8 ? i / 4 * 32 + along * 4 + i % 4 : along * OUTPUTS + i;
}

// sums[r][o] += inputs[r][k] * weights[k][o] for one k.
__device__ __forceinline__ void multiply(float (&sums)[ROWS][OUTPUTS], const float (&x)[ROWS], const float* weights, u32 along) {
    float w[OUTPUTS];
    if constexpr (OUTPUTS == 8) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float4 four = *reinterpret_cast<const float4*>(weights + half * 32 + along * 4);
            w[half * 4] = four.x, w[half * 4 + 1] = four.y, w[half * 4 + 2] = four.z, w[half * 4 + 3] = four.w;
        }
    } else {
        const float2 two = *reinterpret_cast<const float2*>(weights + along * 2);
        w[0] = two.x, w[1] = two.y;
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++) sums[r][o] = __fmaf_rn(x[r], w[o], sums[r][o]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) kernel(const __grid_constant__ Params p) {
    extern __shared__ __align__(16) unsigned char dynamic[];
    __shared__ u64 filled[STAGES];
#if LOADER >= 2
    __shared__ Source table[BN];
#else
    Source* table = nullptr;
#endif
    const u32 thread = threadIdx.x, shared = shared_address(dynamic);
    const u32 tile = p.m_tiles.quotient(blockIdx.x), m = blockIdx.x - tile * p.m_tiles.value;
    const u32 group = p.group_tiles.quotient(m), m0 = (m - group * p.group_tiles.value) * BM;
    const Rows rows = find_rows(p, tile);
    if (!rows.any) {
        dependency_wait();
        return;
    }
    const u64 slot = p.launch.weights[rows.lane];
    const u32 present = min(u32(WARPS_M), p.blocks - m0 / PANEL);  // panels of this tile that there are
    const u64 weights = slot + p.weights + u64(group * p.blocks + m0 / PANEL) * p.k * (PANEL * 4);
    auto load_weights = [&](u32 step, u32 stage) {
        const u32 bytes = min(u32(DEPTH), p.k - step * DEPTH) * (PANEL * 4);
        barrier_expect(&filled[stage], present * bytes);
#pragma unroll
        for (u32 panel = 0; panel < WARPS_M; panel++) {
            if (panel >= present) break;
            const u64 from = weights + (u64(panel) * p.k + step * DEPTH) * (PANEL * 4);
            copy_bulk(shared + stage * STAGE_BYTES + panel * PANEL_BYTES, from, bytes, &filled[stage]);
        }
    };
    if (thread == 0) {
#pragma unroll
        for (int stage = 0; stage < STAGES; stage++) barrier_init(&filled[stage], 1);
        barriers_are_ready();
#pragma unroll 1
        for (u32 step = 0; step < min(u32(AHEAD), p.steps); step++) load_weights(step, step);
    }
    Loader<THREADS, DEPTH / 4, Padded> loader(p, rows, slot, group, 0, table);
    __syncthreads();

    dependency_wait();
#pragma unroll 1
    for (u32 step = 0; step < AHEAD; step++) {
        if (step < p.steps) loader.load(p, shared + step * STAGE_BYTES + WEIGHT_BYTES);
        chunks_commit();
    }
    dependents_may_start();

    const u32 warp = thread / 32, panel = warp % WARPS_M, along = thread % 32 % ALONG;
    const u32 row0 = warp / WARPS_M * (ACROSS * ROWS) + thread % 32 / ALONG;  // then every ACROSS-th
    float totals[ROWS][OUTPUTS], run[ROWS][OUTPUTS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++) totals[r][o] = run[r][o] = 0.0f;
    }
    u32 stage = 0, parity = 0, next = AHEAD;
#pragma unroll 1
    for (u32 step = 0; step < p.steps; step++) {
        chunks_wait<AHEAD - 1>();
        __syncthreads();
        barrier_wait(&filled[stage], parity);
        if (step + AHEAD < p.steps) {
            if (thread == 0) load_weights(step + AHEAD, next);
            loader.load(p, shared + next * STAGE_BYTES + WEIGHT_BYTES);
        }
        chunks_commit();
        const float* w = reinterpret_cast<const float*>(dynamic + stage * STAGE_BYTES) + panel * (DEPTH * PANEL);
        const float* x = reinterpret_cast<const float*>(dynamic + stage * STAGE_BYTES + WEIGHT_BYTES) + row0 * INPUT_PITCH;
        const u32 count = min(u32(DEPTH), p.k - step * DEPTH);
        if (count == DEPTH) {
#pragma unroll UNROLL
            for (int k = 0; k < DEPTH; k += 4) {
                float4 four[ROWS];
#pragma unroll
                for (int r = 0; r < ROWS; r++) four[r] = *reinterpret_cast<const float4*>(x + r * (ACROSS * INPUT_PITCH) + k);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float one[ROWS];
#pragma unroll
                    for (int r = 0; r < ROWS; r++) one[r] = i == 0 ? four[r].x : i == 1 ? four[r].y : i == 2 ? four[r].z : four[r].w;
                    multiply(run, one, w + (k + i) * PANEL, along);
                }
            }
        } else {
#pragma unroll 1
            for (u32 k = 0; k < count; k++) {
                float one[ROWS];
#pragma unroll
                for (int r = 0; r < ROWS; r++) one[r] = x[r * (ACROSS * INPUT_PITCH) + k];
                multiply(run, one, w + k * PANEL, along);
            }
        }
        if ((step + 1) % (RUN / DEPTH) == 0 || step + 1 == p.steps) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
#pragma unroll
                for (int o = 0; o < OUTPUTS; o++) {
                    totals[r][o] += run[r][o];
                    run[r][o] = 0.0f;
                }
            }
        }
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
        if (++next == STAGES) next = 0;
    }

    // Side by side in the output: four, or two.
    constexpr int COUNT = OUTPUTS == 8 ? 4 : OUTPUTS;
#pragma unroll
    for (int part = 0; part < OUTPUTS / COUNT; part++) {
        const u32 output = m0 + panel * PANEL + output_of(along, part * COUNT);
        if (output >= p.n) break;
        const u32 left = p.n - output;
        float bias[COUNT] = {};
#if BIAS
        const float* biases = global<const float>(slot + p.bias) + group * p.n + output;
#pragma unroll
        for (int i = 0; i < COUNT; i++) bias[i] = i < left ? biases[i] : 0.0f;
#endif
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const u32 row = rows.first + row0 + r * ACROSS;
            if (row >= rows.end) break;
            float values[COUNT];
#if RESIDUAL
            float residual[COUNT];
            load_residual<COUNT>(p, residual_address(p, rows, slot, group, row, output), left, residual);
#endif
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                values[i] = totals[r][part * COUNT + i] + bias[i];
#if RESIDUAL
                values[i] += residual[i];
#endif
                values[i] = activate(values[i], p.low, p.high);
            }
            store<COUNT>(p, out_element(p, rows, group, row, output), left, values);
        }
    }
}
