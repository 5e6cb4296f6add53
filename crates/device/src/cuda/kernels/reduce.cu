// Reduce: out[kept...] = combine over `reduced` of x[kept..., reduced...], per item.
//
//   strand s of an output combines elements s, s + S, s + 2S, ... in order; the S strands are then halved until one is left:
//   strand s and strand s + S/2, then S/4, ...
//
// S is a power of two that lowering takes from the shape and the strides alone, so an output's bits are the step's own. A block has
// 256 threads for 256 / S outputs of an item (or as many packs of WIDTH neighbours). Where x's neighbours are outputs (the mean of an image over
// its pixels) the outputs lie side by side in a warp, and the strands do where x's neighbours are summed: loads are whole sectors
// either way. Bound by memory.
//
//   -DTYPE=n -DOUT=n  types of x and out, -DKIND=n as steps/reduce.rs numbers them, -DWIDTH=n, -DREDUCED_AXES=n, -DKEPT_AXES=n
//   twin on the CPU: cpu/steps/reduce.rs
#include "functions.cuh"
#include "vector.cuh"

typedef TypeOf<TYPE>::type T;
typedef TypeOf<OUT>::type Out;

enum { SUM, MEAN, MAX, MIN, PROD, L1, L2, SUM_SQUARE, LOG_SUM, LOG_SUM_EXP };

struct Params {
    Launch launch;
    Operand x;
    Operand out;
    i64 offset;
    i64 kept_strides[MAX_AXES];
    i64 reduced_strides[MAX_AXES];
    u32 kept[MAX_AXES];  // the last one in packs
    u32 reduced[MAX_AXES];
    u32 packs;   // of an item
    u32 length;  // elements of one output
    u32 strands;
    u32 strands_apart;  // 0 when the strands of an output are neighbours in the block, 1 when outputs are
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/reduce.rs");

// What is computed in: f32, or i64 for integers.
template <typename X> struct Sum { typedef float type; };
template <> struct Sum<i64> { typedef i64 type; };
typedef Sum<T>::type Value;

__device__ __forceinline__ float infinity(float) { return __uint_as_float(0x7f800000); }
__device__ __forceinline__ float lowest(float x) { return -infinity(x); }
__device__ __forceinline__ i64 infinity(i64) { return 0x7fffffffffffffffll; }
__device__ __forceinline__ i64 lowest(i64) { return i64(0x8000000000000000ull); }
__device__ __forceinline__ float value(float x) { return x; }
__device__ __forceinline__ float value(bf16 x) { return to_float(x); }
__device__ __forceinline__ float value(half x) { return to_float(x); }
__device__ __forceinline__ i64 value(i64 x) { return x; }

// One way of combining: where it starts, what becomes of an element, two into one.
struct Largest {
    static __device__ __forceinline__ Value start() { return lowest(Value()); }
    static __device__ __forceinline__ Value map(Value x, Value) { return x; }
    static __device__ __forceinline__ Value both(Value a, Value b) { return b > a || b != b ? b : a; }
};
struct Smallest {
    static __device__ __forceinline__ Value start() { return infinity(Value()); }
    static __device__ __forceinline__ Value map(Value x, Value) { return x; }
    static __device__ __forceinline__ Value both(Value a, Value b) { return b < a || b != b ? b : a; }
};
struct Product {
    static __device__ __forceinline__ Value start() { return 1; }
    static __device__ __forceinline__ Value map(Value x, Value) { return x; }
    static __device__ __forceinline__ Value both(Value a, Value b) { return op::mul(a, b); }
};
struct Total {
    static __device__ __forceinline__ Value start() { return 0; }
    static __device__ __forceinline__ Value both(Value a, Value b) { return op::add(a, b); }
    static __device__ __forceinline__ Value map(Value x, Value largest) {
#if KIND == 5
        return op::abs(x);
#elif KIND == 6 || KIND == 7
        return op::mul(x, x);
#elif KIND == 9
        return op::exp(op::sub(x, largest));
#else
        return x;
#endif
    }
};

// Elements of a strand that are on their way at once.
constexpr int TOGETHER = 4;

__shared__ Value partial[WIDTH][256];

// Combines the elements of this thread's strand, then the strands: in every thread the value of its outputs.
template <typename How>
__device__ __forceinline__ void combine(const Params& p, const T* x, u32 strand, u32 apart, bool active, Value (&result)[WIDTH]) {
    Value mine[WIDTH];
#pragma unroll
    for (int e = 0; e < WIDTH; e++) mine[e] = How::start();
    if (active) {
#pragma unroll 1
        for (u32 k = strand; k < p.length; k += p.strands * TOGETHER) {
            // Asked for together, then combined in order.
            Pack<T, WIDTH> packs[TOGETHER];
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) {
                if (k + i * p.strands >= p.length) break;
                u32 rest = k + i * p.strands;
                i64 from = 0;
#pragma unroll
                for (int axis = REDUCED_AXES - 1; axis > 0; axis--) {
                    from += rest % p.reduced[axis] * p.reduced_strides[axis];
                    rest /= p.reduced[axis];
                }
                from += rest * p.reduced_strides[0];
                packs[i] = load_pack<T, WIDTH>(x + from);
            }
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) {
                if (k + i * p.strands >= p.length) break;
#pragma unroll
                for (int e = 0; e < WIDTH; e++) mine[e] = How::both(mine[e], How::map(value(packs[i].at[e]), result[e]));
            }
        }
    }
    __syncthreads();  // what an earlier combination left has been read
#pragma unroll
    for (int e = 0; e < WIDTH; e++) partial[e][threadIdx.x] = mine[e];
    for (u32 half = p.strands / 2; half > 0; half /= 2) {
        __syncthreads();
        if (strand < half) {
#pragma unroll
            for (int e = 0; e < WIDTH; e++)
                partial[e][threadIdx.x] = How::both(partial[e][threadIdx.x], partial[e][threadIdx.x + half * apart]);
        }
    }
    __syncthreads();
#pragma unroll
    for (int e = 0; e < WIDTH; e++) result[e] = partial[e][threadIdx.x - strand * apart];
}

template <typename To> __device__ __forceinline__ To stored(Value x) { return to_buffer<To>(x); }
template <> __device__ __forceinline__ i64 stored<i64>(Value x) { return x; }

__device__ __forceinline__ float finish(float x, float largest, u32 length) {
    switch (KIND) {
        case MEAN: return op::div(x, float(length));
        case L2: return op::sqrt(x);
        case LOG_SUM: return op::log(x);
        // An infinite maximum is the answer itself; subtracting it made a NaN.
        case LOG_SUM_EXP: return op::abs(largest) == infinity(x) ? largest : op::add(largest, op::log(x));
        default: return x;
    }
}
__device__ __forceinline__ i64 finish(i64 x, i64, u32 length) { return KIND == MEAN ? op::div(x, i64(length)) : x; }

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u32 item = blockIdx.y, outputs = 256 / p.strands;
    const u32 strand = p.strands_apart ? threadIdx.x / outputs : threadIdx.x % p.strands;
    const u32 column = p.strands_apart ? threadIdx.x % outputs : threadIdx.x / p.strands;
    const u32 apart = p.strands_apart ? outputs : 1;
    if (!has_item(p.launch, item)) return;
    const u32 pack = blockIdx.x * outputs + column;
    const bool active = pack < p.packs;
    i64 from = p.offset;
    u32 rest = pack;
#pragma unroll
    for (int axis = KEPT_AXES - 1; axis >= 0; axis--) {
        u32 index = rest;
        if (axis > 0) {
            index = rest % p.kept[axis];
            rest /= p.kept[axis];
        }
        from += index * p.kept_strides[axis] * (axis == KEPT_AXES - 1 ? WIDTH : 1);
    }
    const T* x = at<const T>(p.launch, p.x, item) + from;
    dependency_wait(p.launch);
    dependents_may_start();
    Value result[WIDTH], largest[WIDTH];
#pragma unroll
    for (int e = 0; e < WIDTH; e++) result[e] = largest[e] = 0;
#if KIND == 2
    combine<Largest>(p, x, strand, apart, active, result);
#elif KIND == 3
    combine<Smallest>(p, x, strand, apart, active, result);
#elif KIND == 4
    combine<Product>(p, x, strand, apart, active, result);
#else
#if KIND == 9
    combine<Largest>(p, x, strand, apart, active, result);
#pragma unroll
    for (int e = 0; e < WIDTH; e++) largest[e] = result[e];
#endif
    combine<Total>(p, x, strand, apart, active, result);
#endif
    if (!active || strand > 0) return;
    Pack<Out, WIDTH> out;
#pragma unroll
    for (int e = 0; e < WIDTH; e++) out.at[e] = stored<Out>(finish(result[e], largest[e], p.length));
    store_pack<Out, WIDTH>(at<Out>(p.launch, p.out, item) + u64(pack) * WIDTH, out);
}
