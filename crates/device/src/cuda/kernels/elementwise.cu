// Element-wise: a chain of operators in one pass. out[i, j, ...] = chain(inputs[0][i, j, ...], inputs[1][...], ...).
//
// The chain is text: steps/elementwise.rs writes generated.cuh, straight-line code with one variable an instruction, in the types that
// planner's element.rs gives. Every value is a register, so the cost is what is loaded and stored. A thread computes WIDTH neighbours along the
// innermost axis: inputs with stride 1 there bring a pack of 16 bytes, those with stride 0 one element for all. Walks whose innermost
// axis has other strides, or a length that no width divides, go one by one. blockIdx.y is the item. Bound by memory.
//
//   -DWIDTH=n -DAXES=n  axes of the joined walk      twin on the CPU: cpu/steps/elementwise.rs
#include "functions.cuh"
#include "vector.cuh"

struct Shape {
    Launch launch;
    Operand out;
    u32 dims[MAX_AXES];  // the last one in packs
    u32 packs;           // their product
    u32 unused;
};
static_assert(sizeof(Shape) == 112, "twin of steps/elementwise.rs");

// Where the pack of a multi-index begins in an input.
template <typename T>
__device__ __forceinline__ const T* find_input(const Launch& launch, const Walk& walk, u32 item, const u32 (&index)[AXES]) {
    i64 from = walk.offset;
#pragma unroll
    for (int axis = 0; axis < AXES; axis++) from += index[axis] * walk.strides[axis];
    return at<const T>(launch, walk.operand, item) + from;
}

// A register's value of what an input holds: floats are f32 whatever they lie in, a byte that is not 0 is true.
template <typename Register, typename T> __device__ __forceinline__ Register value_of(T x) { return x; }
template <> __device__ __forceinline__ float value_of<float, bf16>(bf16 x) { return to_float(x); }
template <> __device__ __forceinline__ float value_of<float, half>(half x) { return to_float(x); }
template <> __device__ __forceinline__ bool value_of<bool, u8>(u8 x) { return x != 0; }

template <typename T, typename Register> __device__ __forceinline__ T stored(Register x) { return T(x); }
template <> __device__ __forceinline__ float stored<float, float>(float x) { return to_buffer<float>(x); }
template <> __device__ __forceinline__ bf16 stored<bf16, float>(float x) { return to_buffer<bf16>(x); }
template <> __device__ __forceinline__ half stored<half, float>(float x) { return to_buffer<half>(x); }

// INPUTS, Out (as it is stored), and
//   struct Inputs { find(launch, walks, item, index) }      where every input's pack is
//   struct Loaded { load(inputs) }                          the packs
//   chain(loaded, e)                                        element e of the packs
#include "generated.cuh"

struct Params {
    Shape shape;
    Walk inputs[INPUTS];
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/elementwise.rs");

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u32 item = blockIdx.y, pack = blockIdx.x * 256 + threadIdx.x;
    if (!has_item(p.shape.launch, item)) return;
    u32 index[AXES], rest = pack;
#pragma unroll
    for (int axis = AXES - 1; axis > 0; axis--) {
        index[axis] = rest % p.shape.dims[axis];
        rest /= p.shape.dims[axis];
    }
    index[0] = rest;
    index[AXES - 1] *= WIDTH;
    Inputs inputs;
    inputs.find(p.shape.launch, p.inputs, item, index);
    dependency_wait(p.shape.launch);
    dependents_may_start();
    if (pack >= p.shape.packs) return;
    Loaded loaded;
    loaded.load(inputs);
    Pack<Out, WIDTH> out;
#pragma unroll
    for (int e = 0; e < WIDTH; e++) out.at[e] = stored<Out>(chain(loaded, e));
    store_pack<Out, WIDTH>(at<Out>(p.shape.launch, p.shape.out, item) + u64(pack) * WIDTH, out);
}
