// MatMul: products between intermediate values. out[b, i, j] = alpha * sum over k of a[b, i, k] * b[b, k, j], every item.
//
//   block   one tile of 64 x 64 sums of one matrix of one item; 256 threads, each 4 x 4 of them
//   k       in slices of DEPTH through shared memory, the next slice on its way in registers meanwhile
//
// Both sides are walked with whatever strides they have, so that transposes and slices cost no copy. Factors become f32 on the way
// in and sums are f32 in every precision: these products are small beside a layer's, and where they are not, they have been
// fused into attention.
//
// Order: k from first to last in runs of SEGMENT from zero, the runs added in order (plan.rs), whatever the tile.
// Bound by FFMA: 16 multiply-adds per two vector loads of shared memory, about two thirds of the peak at best.
//
//   -DA_TYPE, -DB_TYPE  how the factors are held      -DREAL  how the result is      twin on the CPU: cpu/steps/matmul.rs
#include "slices.cuh"

struct Params {
    Launch launch;
    Walk a;  // strides of the batch axes
    Walk b;
    Operand out;  // dense [batch...][m][n]
    i64 a_row, a_k, b_k, b_column;
    u32 dims[MAX_AXES];  // of the batch, 1 beyond its axes
    u32 axes;
    u32 m, n, k;
    u32 row_tiles, column_tiles;
    float alpha;
    u32 unused;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/matmul.rs");

constexpr u32 DEPTH = 16, SEGMENT = 256;

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    __shared__ __align__(16) float a_slice[DEPTH][PITCH];
    __shared__ __align__(16) float b_slice[DEPTH][PITCH];
    const u32 item = blockIdx.y;
    if (!has_item(p.launch, item)) return;
    u32 rest = blockIdx.x;
    const u32 column = rest % p.column_tiles * LINES;
    rest /= p.column_tiles;
    const u32 row = rest % p.row_tiles * LINES;
    const u32 matrix = rest / p.row_tiles;
    rest = matrix;
    i64 a_at = p.a.offset + row * p.a_row, b_at = p.b.offset + column * p.b_column;
#pragma unroll
    for (int axis = MAX_AXES - 1; axis >= 0; axis--) {
        if (axis >= p.axes) continue;
        const u32 index = rest % p.dims[axis];
        rest /= p.dims[axis];
        a_at += index * p.a.strides[axis];
        b_at += index * p.b.strides[axis];
    }
    const auto* a_from = at<const TypeOf<A_TYPE>::type>(p.launch, p.a.operand, item);
    const auto* b_from = at<const TypeOf<B_TYPE>::type>(p.launch, p.b.operand, item);
    const Lines<TypeOf<A_TYPE>::type> a = {a_from + a_at, p.a_k, p.a_row, p.m - row, p.k};
    const Lines<TypeOf<B_TYPE>::type> b = {b_from + b_at, p.b_k, p.b_column, p.n - column, p.k};

    dependency_wait(p.launch);
    const u32 my_row = threadIdx.x / 16 * 4, my_column = threadIdx.x % 16 * 4;
    float total[4][4] = {}, run[4][4] = {};
    float a_held[DEPTH / 4], b_held[DEPTH / 4];
    fetch<DEPTH>(a, 0, a_held);
    fetch<DEPTH>(b, 0, b_held);
    for (u32 first = 0; first < p.k; first += DEPTH) {
        __syncthreads();
        store<DEPTH>(a, a_held, a_slice);
        store<DEPTH>(b, b_held, b_slice);
        __syncthreads();
        fetch<DEPTH>(a, first + DEPTH, a_held);
        fetch<DEPTH>(b, first + DEPTH, b_held);
        multiply<DEPTH>(a_slice, my_row, b_slice, my_column, run);
        if ((first + DEPTH) % SEGMENT == 0 || first + DEPTH >= p.k) end_run(total, run);
    }
    dependents_may_start();

    real* out = at<real>(p.launch, p.out, item) + (u64(matrix) * p.m + row) * p.n + column;
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 j = 0; j < 4; j++)
            if (my_row + i < a.lines && my_column + j < b.lines)
                out[u64(my_row + i) * p.n + my_column + j] = to_buffer<real>(p.alpha * total[i][j]);
}
