// Where the largest element under a window lies: out[plane, od, oy, ox] = its place among all of x, -1 where there is only padding.
//
// A thread has one window and walks its taps in order, depth, height, width: the first of equals stays, and the first NaN is larger than
// all. Planes are dense and row-major, so neighbouring threads read neighbouring elements. blockIdx.y is the item. Bound by memory; taps are
// read from the caches.
//
//   -DREAL=n, -DTYPE=n  x's type
//   twin on the CPU: cpu/steps/pool.rs
#include "types.cuh"

typedef TypeOf<TYPE>::type T;

struct Params {
    Launch launch;
    Operand x;
    Operand out;
    // Along depth, height, width.
    u32 input[3];
    u32 output[3];
    u32 kernel[3];
    u32 strides[3];
    u32 dilations[3];
    i32 before[3];
    u32 steps[3];  // what a step along each axis adds to a place
    u32 planes;    // of an item
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/pool_indices.rs");

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u32 item = blockIdx.y, index = blockIdx.x * 256 + threadIdx.x;
    if (!has_item(p.launch, item)) return;
    u32 rest = index;
    const u32 ox = rest % p.output[2];
    rest /= p.output[2];
    const u32 oy = rest % p.output[1];
    rest /= p.output[1];
    const u32 od = rest % p.output[0], plane = rest / p.output[0];
    const i32 front = i32(od * p.strides[0]) - p.before[0];
    const i32 top = i32(oy * p.strides[1]) - p.before[1];
    const i32 left = i32(ox * p.strides[2]) - p.before[2];
    const u32 size = p.input[0] * p.input[1] * p.input[2];
    const T* x = at<const T>(p.launch, p.x, item) + u64(plane) * size;
    i64* out = at<i64>(p.launch, p.out, item);
    dependency_wait(p.launch);
    dependents_may_start();
    if (plane >= p.planes) return;
    float best = 0.0f;
    i64 place = -1;
#pragma unroll 1
    for (u32 kd = 0; kd < p.kernel[0]; kd++) {
        const u32 d = u32(front + i32(kd * p.dilations[0]));
        if (d >= p.input[0]) continue;
#pragma unroll 1
        for (u32 ky = 0; ky < p.kernel[1]; ky++) {
            const u32 row = u32(top + i32(ky * p.dilations[1]));
            if (row >= p.input[1]) continue;
#pragma unroll 1
            for (u32 kx = 0; kx < p.kernel[2]; kx++) {
                const u32 column = u32(left + i32(kx * p.dilations[2]));
                if (column >= p.input[2]) continue;
                const float here = to_float(x[(u64(d) * p.input[1] + row) * p.input[2] + column]);
                if (place >= 0 && !(here > best || (here != here && best == best))) continue;
                best = here;
                place = i64(plane) * size + i64(d) * p.steps[0] + i64(row) * p.steps[1] + i64(column) * p.steps[2];
            }
        }
    }
    out[index] = place;
}
