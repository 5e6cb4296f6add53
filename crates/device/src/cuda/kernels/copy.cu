// Copy: moves elements. out[out_offset + i * out_strides...] = x[offset + i * strides...] for every index of `dims`, every item.
//
// A unit is what both sides hold in one piece and aligned, up to 16 bytes: lowering makes the innermost axis one of units where its
// strides are 1. Units are moved as bits, so a NaN keeps its own; only a constant's f32 becomes the type that the plan's floats are held
// in, and what a product reads is rounded for it.
// A thread moves UNROLL units, a block apart, all loads first; blockIdx.y is the item. Bound by memory. Walks that turn the innermost axis
// into another are transpose.cu's.
//
//   -DFROM=n -DTO=n  types of the elements of a unit, -DWIDTH=n  how many      twin on the CPU: cpu/steps/walk.rs
#include "vector.cuh"

typedef TypeOf<FROM>::type From;
typedef TypeOf<TO>::type To;
typedef Pack<From, WIDTH> UnitFrom;
typedef Pack<To, WIDTH> UnitTo;

constexpr int UNROLL = 4;

struct Params {
    Launch launch;
    Walk x;  // in units
    Operand out;
    i64 out_offset;
    i64 out_strides[MAX_AXES];
    u32 dims[MAX_AXES];  // 1 beyond the walk's axes
    u32 units;           // their product
    u32 axes;            // at least 1
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/copy.rs");

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u32 item = blockIdx.y;
    if (!has_item(p.launch, item)) return;
    const UnitFrom* x = at<const UnitFrom>(p.launch, p.x.operand, item) + p.x.offset;
    UnitTo* out = at<UnitTo>(p.launch, p.out, item) + p.out_offset;
    dependency_wait(p.launch);
    dependents_may_start();
    const u32 first = blockIdx.x * (256 * UNROLL) + threadIdx.x;
    UnitFrom loaded[UNROLL];
    i64 to[UNROLL];
#pragma unroll
    for (int i = 0; i < UNROLL; i++) {
        const u32 unit = first + i * 256;
        if (unit >= p.units) break;
        u32 rest = unit;
        i64 from = 0;
        to[i] = 0;
#pragma unroll 1
        for (u32 axis = p.axes - 1; axis > 0; axis--) {
            const u32 index = rest % p.dims[axis];
            rest /= p.dims[axis];
            from += index * p.x.strides[axis];
            to[i] += index * p.out_strides[axis];
        }
        loaded[i] = x[from + rest * p.x.strides[0]];
        to[i] += rest * p.out_strides[0];
    }
#pragma unroll
    for (int i = 0; i < UNROLL; i++) {
        if (first + i * 256 >= p.units) break;
        out[to[i]] = As<To, From>::of(loaded[i]);
    }
}
