// Local response normalisation: out[c] = x[c] / (bias + alpha / size * sum x^2)^beta, over channels c - (size - 1) / 2 .. of `size`, per pixel.
//
// A thread has one element; its neighbours come from the caches, where the warp's own loads put them. The sum runs from the first channel to
// the last. Channels lie last. blockIdx.y is the item. Bound by memory.
//
//   -DREAL=n, -DTYPE=n  x's type
//   twin on the CPU: cpu/steps/channels.rs
#include "types.cuh"

typedef TypeOf<TYPE>::type T;

struct Params {
    Launch launch;
    Operand x;
    Operand out;
    u32 elements;  // of an item
    u32 channels;
    u32 size;
    float factor;  // alpha / size
    float beta;
    float bias;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/channels.rs");

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u32 item = blockIdx.y, index = blockIdx.x * 256 + threadIdx.x;
    if (!has_item(p.launch, item)) return;
    const u32 channel = index % p.channels, before = (p.size - 1) / 2;
    const u32 first = channel < before ? 0 : channel - before;
    const u32 end = min(p.channels, channel + p.size - before);
    const T* x = at<const T>(p.launch, p.x, item) + (index - channel);
    dependency_wait(p.launch);
    dependents_may_start();
    if (index >= p.elements) return;
    float sum = 0.0f;
    for (u32 c = first; c < end; c++) {
        const float other = to_float(x[c]);
        sum = __fmaf_rn(other, other, sum);
    }
    const float base = __fmaf_rn(p.factor, sum, p.bias);
    // Three quarters, the exponent that everybody uses, are two roots.
    const float root = __fsqrt_rn(base);
    const float power = p.beta == 0.75f ? __fmul_rn(root, __fsqrt_rn(root)) : powf(base, p.beta);
    at<real>(p.launch, p.out, item)[index] = to_buffer<real>(__fdiv_rn(to_float(x[channel]), power));
}
