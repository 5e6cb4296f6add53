// Resample: lines made longer or shorter. out[o, position, i] = sum over taps of weights[position, tap] * x[o, at[position, tap], i].
//
// A thread makes WIDTH neighbours inside the axis (channels, where images lie channels last), so loads are wide and the two tables, the same
// for all of them, come from the caches. Taps are added from the first to the last in f32. Bound by memory.
//
//   -DTYPE=n of x, -DOUT=n of out, -DWIDTH=n      twin on the CPU: cpu/steps/lines.rs
#include "vector.cuh"

typedef TypeOf<TYPE>::type T;
typedef TypeOf<OUT>::type Out;

struct Params {
    Launch launch;
    Operand x;
    Operand out;
    Operand at;
    Operand weights;
    u64 packs;   // of an item: outer * count * inner
    u32 length;  // of a line of x
    u32 count;   // of a line of out
    u32 inner;   // in packs
    u32 taps;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/lines.rs");

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u32 item = blockIdx.y;
    if (!has_item(p.launch, item)) return;
    const i32* table = at<const i32>(p.launch, p.at, item);
    const float* weights = at<const float>(p.launch, p.weights, item);
    const T* x = at<const T>(p.launch, p.x, item);
    Out* out = at<Out>(p.launch, p.out, item);
    dependency_wait(p.launch);
    dependents_may_start();
    for (u64 pack = u64(blockIdx.x) * 256 + threadIdx.x; pack < p.packs; pack += u64(gridDim.x) * 256) {
        const u64 row = pack / p.inner;  // o * count + position
        const u32 i = u32(pack - row * p.inner);
        const u64 o = row / p.count;
        const u32 position = u32(row - o * p.count);
        float sums[WIDTH];
#pragma unroll
        for (int e = 0; e < WIDTH; e++) sums[e] = 0;
#pragma unroll 2
        for (u32 tap = position * p.taps; tap < (position + 1) * p.taps; tap++) {
            const Pack<T, WIDTH> from = load_pack<T, WIDTH>(x + ((o * p.length + table[tap]) * p.inner + i) * WIDTH);
            const float weight = weights[tap];
#pragma unroll
            for (int e = 0; e < WIDTH; e++) sums[e] = __fmaf_rn(weight, to_float(from.at[e]), sums[e]);
        }
        Pack<Out, WIDTH> made;
#pragma unroll
        for (int e = 0; e < WIDTH; e++) made.at[e] = to_buffer<Out>(sums[e]);
        store_pack<Out, WIDTH>(out + pack * WIDTH, made);
    }
}
