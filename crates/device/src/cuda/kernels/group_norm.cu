// Group normalisation: (x - mean) / sqrt(variance + epsilon) * scale + bias, per group of neighbouring channels of an image
// [pixels][channels].
//
//   a block has whole groups of one image:   COLUMNS threads side by side have channels, 256 / COLUMNS strands have pixels
//
//   strand s of column t sums pixels s, s + S, s + 2S, … and of each the block's channels t, t + COLUMNS, …; then strands are halved until one
//   is left; then the columns of each group are added first to last (of one group alone: halved too)
//
// Three passes over x: the mean, the squares of what differs from it, the result; an image's groups usually stay in the caches between them.
// COLUMNS and the groups of a block come from the channels and groups alone, so the bits are the step's own. blockIdx.y is the item,
// blockIdx.z the image. Bound by memory.
//
//   -DREAL=n, -DTYPE=n  x's type, -DSCALE=n -DBIAS=n  types, -DCOLUMNS=n a power of two up to 256
//   twin on the CPU: cpu/steps/channels.rs
#include "types.cuh"

typedef TypeOf<TYPE>::type T;

struct Params {
    Launch launch;
    Operand x;
    Operand out;
    Operand scale;
    Operand bias;
    u32 pixels;
    u32 channels;
    u32 group;      // channels of a group
    u32 groups;     // of a block; with more than one, all their channels are COLUMNS or fewer
    u32 per_vector; // channels that share an element of scale and bias
    float epsilon;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/channels.rs");

constexpr u32 THREADS = 256, STRANDS = THREADS / COLUMNS;

__shared__ float partial[THREADS];

// The sum of every thread's value over this thread's group.
__device__ __forceinline__ float across(const Params& p, float mine, u32 column) {
    __syncthreads();  // what an earlier call left has been read
    partial[threadIdx.x] = mine;
#pragma unroll
    for (u32 half = THREADS / 2; half >= COLUMNS; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) partial[threadIdx.x] = __fadd_rn(partial[threadIdx.x], partial[threadIdx.x + half]);
    }
    float sum = 0.0f;
    if (p.groups == 1) {
#pragma unroll
        for (u32 half = COLUMNS / 2; half > 0; half /= 2) {
            __syncthreads();
            if (threadIdx.x < half) partial[threadIdx.x] = __fadd_rn(partial[threadIdx.x], partial[threadIdx.x + half]);
        }
        __syncthreads();
        sum = partial[0];
    } else {
        __syncthreads();
        // A column beyond the groups of the block has none, and reads the first one's.
        const u32 first = column < p.groups * p.group ? column / p.group * p.group : 0;
        for (u32 c = 0; c < p.group; c++) sum = __fadd_rn(sum, partial[first + c]);
    }
    return sum;
}

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u32 item = blockIdx.y, image = blockIdx.z;
    const u32 column = threadIdx.x % COLUMNS, strand = threadIdx.x / COLUMNS;
    if (!has_item(p.launch, item)) return;
    // The block's channels; the last block may have fewer groups.
    const u32 first = blockIdx.x * p.groups * p.group;
    const u32 columns = min(p.groups * p.group, p.channels - first);
    const u64 start = u64(image) * p.pixels * p.channels + first;
    const T* x = at<const T>(p.launch, p.x, item) + start;
    real* out = at<real>(p.launch, p.out, item) + start;
    const TypeOf<SCALE>::type* scale = at<const TypeOf<SCALE>::type>(p.launch, p.scale, item);
    const TypeOf<BIAS>::type* bias = at<const TypeOf<BIAS>::type>(p.launch, p.bias, item);
    dependency_wait(p.launch);
    dependents_may_start();
    const float count = float(p.pixels * p.group);
    float sum = 0.0f;
    for (u32 pixel = strand; pixel < p.pixels; pixel += STRANDS)
        for (u32 c = column; c < columns; c += COLUMNS) sum = __fadd_rn(sum, to_float(x[u64(pixel) * p.channels + c]));
    const float mean = __fdiv_rn(across(p, sum, column), count);
    float squares = 0.0f;
    for (u32 pixel = strand; pixel < p.pixels; pixel += STRANDS)
        for (u32 c = column; c < columns; c += COLUMNS) {
            const float away = __fsub_rn(to_float(x[u64(pixel) * p.channels + c]), mean);
            squares = __fmaf_rn(away, away, squares);
        }
    const float variance = __fdiv_rn(across(p, squares, column), count);
    const float factor = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(variance, p.epsilon)));
    for (u32 c = column; c < columns; c += COLUMNS) {
        const u32 vector = (first + c) / p.per_vector;
        const float scaled = __fmul_rn(factor, to_float(scale[vector])), shift = to_float(bias[vector]);
        for (u32 pixel = strand; pixel < p.pixels; pixel += STRANDS) {
            const u64 place = u64(pixel) * p.channels + c;
            out[place] = to_buffer<real>(__fmaf_rn(__fsub_rn(to_float(x[place]), mean), scaled, shift));
        }
    }
}
