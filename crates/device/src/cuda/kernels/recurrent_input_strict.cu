// The input's share of a recurrent layer's gates in strict f32: gates[row][unit][gate] = bias + x[row] * w.
//
//   row     one time of one item; the rows of a lane are one list, cut into parts of ROWS
//   block   one panel of 64 columns of w x one part: blockIdx.y, blockIdx.x; 128 threads, each 4 rows x 4 columns
//
// Plain multiply-adds, k from first to last in runs of SEGMENT, as plan.rs has it. Bound by FFMA.
//
//   -DCELL  -DHIDDEN=n  -DBIAS=1  there is one      its twin on matrix units: recurrent_input.cu
#include "recurrent.cuh"
#include "slices.cuh"

struct Params {
    Launch launch;
    Walk x;  // [time, input]
    Operand w;
    Operand bias;
    u64 gates;  // f32 [rows][HIDDEN][SLOTS]
    u32 time, input;
    u32 k_blocks, unused;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/recurrent.rs");

constexpr u32 ROWS = 32, DEPTH = 16, SEGMENT = 256, THREADS = 128;
constexpr u32 X_LOADS = ROWS * DEPTH / THREADS, W_LOADS = DEPTH * LINES / 4 / THREADS;

extern "C" __global__ void __launch_bounds__(THREADS) kernel(const __grid_constant__ Params p) {
    __shared__ __align__(16) float x_slice[DEPTH][PITCH];
    __shared__ __align__(16) float w_slice[DEPTH][PITCH];
    const Part part = part_of(p.launch, blockIdx.x, p.time, ROWS);
    dependency_wait(p.launch);
    if (part.rows == 0) return;
    const u64 slot = p.launch.weights[part.lane];
    const float* panel = global<const float>(slot + p.w.base) + u64(blockIdx.y) * p.input * LINES;

    // A warp reads 8 neighbours of k of 4 rows.
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const float* x[X_LOADS];
    u32 x_row[X_LOADS], x_k[X_LOADS];
#pragma unroll
    for (u32 i = 0; i < X_LOADS; i++) {
        const u32 place = i * 4 + warp;
        x_k[i] = place % 2 * 8 + lane % 8;
        x_row[i] = place / 2 * 4 + lane / 8;
        const u32 number = part.first + min(x_row[i], part.rows - 1);
        x[i] = at<const float>(p.launch, p.x.operand, number / p.time) + p.x.offset + i64(number % p.time) * p.x.strides[0];
    }
    float x_held[X_LOADS];
    float4 w_held[W_LOADS];
    const auto read = [&](u32 first) {
#pragma unroll
        for (u32 i = 0; i < X_LOADS; i++) x_held[i] = first + x_k[i] < p.input ? x[i][first + x_k[i]] : 0.0f;
#pragma unroll
        for (u32 i = 0; i < W_LOADS; i++) {
            const u32 k = first + (i * THREADS + threadIdx.x) / 16, column = threadIdx.x % 16 * 4;
            w_held[i] = k < p.input ? __ldg(reinterpret_cast<const float4*>(panel + k * LINES + column)) : make_float4(0, 0, 0, 0);
        }
    };

    const u32 my_row = threadIdx.x / 16 * 4, my_column = threadIdx.x % 16 * 4;
    float total[4][4] = {}, run[4][4] = {};
    read(0);
    for (u32 first = 0; first < p.input; first += DEPTH) {
        __syncthreads();
#pragma unroll
        for (u32 i = 0; i < X_LOADS; i++) x_slice[x_k[i]][x_row[i]] = x_held[i];
#pragma unroll
        for (u32 i = 0; i < W_LOADS; i++)
            *reinterpret_cast<float4*>(&w_slice[(i * THREADS + threadIdx.x) / 16][threadIdx.x % 16 * 4]) = w_held[i];
        __syncthreads();
        read(first + DEPTH);
        multiply<DEPTH>(x_slice, my_row, w_slice, my_column, run);
        if ((first + DEPTH) % SEGMENT == 0 || first + DEPTH >= p.input) end_run(total, run);
    }
    dependents_may_start();

    float* gates = reinterpret_cast<float*>(p.gates);
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        const u32 column = blockIdx.y * LINES + my_column + j;
        if (column >= GATES * HIDDEN) continue;
#if BIAS
        const float bias = global<const float>(slot + p.bias.base)[column];
#else
        const float bias = 0.0f;
#endif
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            if (my_row + i < part.rows)
                gates[(u64(part.first + my_row + i) * HIDDEN + column % HIDDEN) * SLOTS + column / HIDDEN] = total[i][j] + bias;
    }
}
