// Pool: out[oy, ox, c] = the largest, the mean or the sum of x[oy * sy - top + ky * dy, ox * sx - left + kx * dx, c] over the taps inside the image.
//
// A thread computes WIDTH neighbouring channels of one pixel: 16 bytes a load, and a warp reads whole rows of channels. Taps are combined
// in order, ky then kx. Padding never wins a maximum, and counts in a mean's divisor if asked to (as far as the file's own padding goes:
// a window that hangs over it is cut). NaN wins a maximum. blockIdx.y is the item. Bound by memory; taps are read from the caches.
//
//   -DREAL=n, -DTYPE=n  x's type, -DKIND=0 largest, 1 mean with padding, 2 mean without, 3 sum, -DWIDTH=n; sizes as in window.cuh
//   twin on the CPU: cpu/steps/pool.rs
#include "vector.cuh"
#include "window.cuh"

typedef TypeOf<TYPE>::type T;

struct Params {
    Launch launch;
    Operand x;
    Operand out;
    Window window;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/pool.rs");

// Windows of a few taps are unrolled, so that their loads are under way together.
constexpr int UNROLL = KERNEL_H * KERNEL_W <= 32 ? KERNEL_W : 1;

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u32 item = blockIdx.y, index = blockIdx.x * 256 + threadIdx.x;
    const Window& w = p.window;
    if (!has_item(p.launch, item)) return;
    const u32 pixel = index / w.packs, pack = index % w.packs;
    const i32 top = i32(pixel / w.output[1] * w.stride_h) - w.before[0];
    const i32 left = i32(pixel % w.output[1] * STRIDE_W) - w.before[1];
    const T* x = at<const T>(p.launch, p.x, item) + pack * WIDTH;
    dependency_wait(p.launch);
    dependents_may_start();
    if (index >= w.output[0] * w.output[1] * w.packs) return;
    float combined[WIDTH];
#pragma unroll
    for (int e = 0; e < WIDTH; e++) combined[e] = KIND == 0 ? __uint_as_float(0xff800000) : 0.0f;  // -inf
    u32 inside = 0, padded = 0;
#pragma unroll 1
    for (int ky = 0; ky < KERNEL_H; ky++) {
        const i32 row = top + ky * i32(w.dilation_h);
        const bool row_inside = u32(row) < w.input[0];
        const bool row_padded = row < i32(w.input[0] + w.after[0]);
#pragma unroll UNROLL
        for (int kx = 0; kx < KERNEL_W; kx++) {
            const i32 column = left + kx * DILATION_W;
            padded += row_padded && column < i32(w.input[1] + w.after[1]);
            if (!row_inside || u32(column) >= w.input[1]) continue;
            inside++;
            const Pack<T, WIDTH> taps = load_pack<T, WIDTH>(x + (u64(row) * w.input[1] + column) * (w.packs * WIDTH));
#pragma unroll
            for (int e = 0; e < WIDTH; e++) {
                const float tap = to_float(taps.at[e]);
                combined[e] = KIND != 0 ? __fadd_rn(combined[e], tap) : tap > combined[e] || tap != tap ? tap : combined[e];
            }
        }
    }
    const float divisor = float(KIND == 1 ? padded : inside);
    Pack<real, WIDTH> out;
#pragma unroll
    for (int e = 0; e < WIDTH; e++) out.at[e] = to_buffer<real>(KIND == 0 || KIND == 3 ? combined[e] : __fdiv_rn(combined[e], divisor));
    store_pack<real, WIDTH>(at<real>(p.launch, p.out, item) + u64(index) * WIDTH, out);
}
