// Copy: moves elements. out[out_offset + i * out_strides...] = x[offset + i * strides...] for every index of `dims`, every item.
//
// One thread an element; blockIdx.y is the item. Elements are moved as bits, so a NaN keeps its own. Bound by memory: 2 * SIZE bytes an
// element; a transposed walk reads or writes 32-byte sectors in part, which the cache makes up for on images.
//
//   -DTYPE=n  the element's type      twin on the CPU: cpu/steps/walk.rs
#include "types.cuh"

typedef TypeOf<TYPE>::type T;

struct Params {
    Launch launch;
    Walk x;
    Operand out;
    i64 out_offset;
    i64 out_strides[MAX_AXES];
    u32 dims[MAX_AXES];  // 1 beyond the walk's axes
    u32 elements;        // their product
    u32 axes;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/copy.rs");

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u32 item = blockIdx.y;
    dependency_wait();
    dependents_may_start();
    if (item >= items_of(p.launch)) return;
    const T* x = at<const T>(p.launch, p.x.operand, item) + p.x.offset;
    T* out = at<T>(p.launch, p.out, item) + p.out_offset;
    for (u32 element = blockIdx.x * blockDim.x + threadIdx.x; element < p.elements; element += gridDim.x * blockDim.x) {
        u32 rest = element;
        i64 from = 0, to = 0;
#pragma unroll
        for (int axis = MAX_AXES - 1; axis >= 0; axis--) {
            if (axis >= p.axes) continue;
            const u32 index = rest % p.dims[axis];
            rest /= p.dims[axis];
            from += index * p.x.strides[axis];
            to += index * p.out_strides[axis];
        }
        out[to] = x[from];
    }
}
