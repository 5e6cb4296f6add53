// Rows: layer and root-mean-square normalisation, softmax and its logarithm, over the `cols` elements of each row.
//
//   layer norm   (x - mean) / sqrt(variance + epsilon) * scale + bias      two passes: the mean, then the squares of what differs from it
//   rms norm     x / sqrt(mean of squares + epsilon) * scale               the second pass alone
//   softmax      e^(x - max) / sum e^(x - max)
//   logarithm    x - max - ln(sum e^(x - max))                             a NaN, and a row of -inf alone, give NaN
//
// THREADS threads have a row: a warp, or a block of 256. Thread t sums packs t, t + THREADS, ... of WIDTH elements in order; a butterfly adds
// the sums of a warp, and the warps' sums are added first to last. Lowering takes all of this from the length of the row alone. A
// thread keeps its packs in registers (PACKS of them), so memory is read once; of rows too long for that (PACKS = 0) it reads them
// again for each pass. Bound by memory.
//
// Tried: scale and bias asked for before the kernels before have ended. BERT's norms take 7.4 for 8.0 us one by one, and its graph as long as before (16 lanes,
// bf16; H100, 2026-11-27).
//
//   -DTYPE=n x's type, -DREAL=n out's, -DKIND=0 layer norm, 1 softmax, 2 its logarithm, 3 rms norm; -DSCALE=n -DBIAS=n types, no BIAS without one
//   twin on the CPU: cpu/steps/norm.rs
#include "vector.cuh"

#define NORM (KIND == 0 || KIND == 3)

typedef TypeOf<TYPE>::type T;

struct Params {
    Launch launch;
    Operand x;
    Operand out;
    Operand scale;
    Operand bias;
    u32 rows;  // of an item
    u32 cols;
    float epsilon;
    u32 unused;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/norm.rs");

struct Add {
    static __device__ __forceinline__ float both(float a, float b) { return __fadd_rn(a, b); }
};
// NaN wins over everything.
struct Largest {
    static __device__ __forceinline__ float both(float a, float b) { return b > a || b != b ? b : a; }
};

#if THREADS > 32
__shared__ float of_warps[THREADS / 32];
#endif

// Combines one value of every thread of a row; all of them get the result.
template <typename How> __device__ __forceinline__ float across(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x = How::both(x, __shfl_xor_sync(0xffffffff, x, distance));
#if THREADS > 32
    __syncthreads();  // what an earlier call left has been read
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = x;
    __syncthreads();
    x = of_warps[0];
#pragma unroll
    for (int warp = 1; warp < THREADS / 32; warp++) x = How::both(x, of_warps[warp]);
#endif
    return x;
}

// The packs of a row that belong to a thread.
struct Mine {
    const T* row;
    u32 packs;  // of the row
    u32 first;
#if PACKS > 0
    Pack<T, WIDTH> held[PACKS];
#endif

    // f(pack, its number) for each, in order.
    template <typename F> __device__ __forceinline__ void each_pack(F f) const {
#if PACKS > 0
#pragma unroll
        for (int i = 0; i < PACKS; i++)
            if (first + i * THREADS < packs) f(held[i], first + i * THREADS);
#else
        for (u32 pack = first; pack < packs; pack += THREADS) f(load_pack<T, WIDTH>(row + u64(pack) * WIDTH), pack);
#endif
    }

    template <typename F> __device__ __forceinline__ void each(F f) const {
        each_pack([&](const Pack<T, WIDTH>& pack, u32) {
#pragma unroll
            for (int e = 0; e < WIDTH; e++) f(to_float(pack.at[e]));
        });
    }
};

// -inf: where a maximum starts.
__device__ __forceinline__ float lowest() { return __uint_as_float(0xff800000); }

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u32 item = blockIdx.y, row = blockIdx.x * (256 / THREADS) + threadIdx.x / THREADS;
    if (!has_item(p.launch, item)) return;
    const u64 start = u64(row) * p.cols;
    Mine mine;
    mine.row = at<const T>(p.launch, p.x, item) + start;
    mine.packs = p.cols / WIDTH;
    mine.first = threadIdx.x % THREADS;
    real* out = at<real>(p.launch, p.out, item) + start;
#if NORM
    const TypeOf<SCALE>::type* scale = at<const TypeOf<SCALE>::type>(p.launch, p.scale, item);
#ifdef BIAS
    const TypeOf<BIAS>::type* bias = at<const TypeOf<BIAS>::type>(p.launch, p.bias, item);
#endif
#endif
    dependency_wait(p.launch);
    dependents_may_start();
    // A warp leaves, or the block, as one.
    if (row >= p.rows) return;
#if PACKS > 0
#pragma unroll
    for (int i = 0; i < PACKS; i++)
        if (mine.first + i * THREADS < mine.packs)
            mine.held[i] = load_pack<T, WIDTH>(mine.row + (mine.first + i * THREADS) * WIDTH);
#endif

#if NORM
#if KIND == 0
    float sum = 0.0f;
    mine.each([&](float x) { sum = __fadd_rn(sum, x); });
    const float mean = __fdiv_rn(across<Add>(sum), float(p.cols));
#else
    const float mean = 0.0f;  // nothing changes when it is taken off
#endif
    float squares = 0.0f;
    mine.each([&](float x) { squares = __fmaf_rn(__fsub_rn(x, mean), __fsub_rn(x, mean), squares); });
    const float variance = __fdiv_rn(across<Add>(squares), float(p.cols));
    const float factor = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(variance, p.epsilon)));
    mine.each_pack([&](const Pack<T, WIDTH>& x, u32 pack) {
        const auto scales = load_pack<TypeOf<SCALE>::type, WIDTH>(scale + pack * WIDTH);
#ifdef BIAS
        const auto biases = load_pack<TypeOf<BIAS>::type, WIDTH>(bias + pack * WIDTH);
#endif
        Pack<real, WIDTH> y;
#pragma unroll
        for (int e = 0; e < WIDTH; e++) {
            float value = __fmul_rn(__fmul_rn(__fsub_rn(to_float(x.at[e]), mean), factor), to_float(scales.at[e]));
#ifdef BIAS
            value = __fadd_rn(value, to_float(biases.at[e]));
#endif
            y.at[e] = to_buffer<real>(value);
        }
        store_pack<real, WIDTH>(out + pack * WIDTH, y);
    });
#else
    float largest = lowest();
    mine.each([&](float x) { largest = Largest::both(largest, x); });
    largest = across<Largest>(largest);
    float sum = 0.0f;
    mine.each([&](float x) { sum = __fadd_rn(sum, expf(__fsub_rn(x, largest))); });
    sum = across<Add>(sum);
    const float total = KIND == 2 ? logf(sum) : sum;
    mine.each_pack([&](const Pack<T, WIDTH>& x, u32 pack) {
        Pack<real, WIDTH> y;
#pragma unroll
        for (int e = 0; e < WIDTH; e++) {
            const float below = __fsub_rn(to_float(x.at[e]), largest);
            y.at[e] = to_buffer<real>(KIND == 2 ? __fsub_rn(below, total) : __fdiv_rn(expf(below), total));
        }
        store_pack<real, WIDTH>(out + pack * WIDTH, y);
    });
#endif
}
