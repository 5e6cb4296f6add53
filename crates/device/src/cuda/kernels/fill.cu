// Fill: every element of a buffer is one value, as bits of its type (floats are given as f32).
//
// The items of a buffer are one piece, walked as one axis of packs of 16 bytes. Bound by memory.
//
//   -DTYPE=n  the element's type      twin on the CPU: cpu/steps/walk.rs
#include "vector.cuh"

typedef TypeOf<TYPE>::type T;

constexpr int WIDTH = 16 / sizeof(T);

struct Params {
    Launch launch;
    Operand out;
    u64 elements;  // of one item
    u64 value;     // its bits, the low ones
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/fill.rs");

__device__ __forceinline__ u8 element(u64 bits, u8) { return u8(bits); }
__device__ __forceinline__ u16 element(u64 bits, u16) { return u16(bits); }
__device__ __forceinline__ u32 element(u64 bits, u32) { return u32(bits); }
__device__ __forceinline__ u64 element(u64 bits, u64) { return bits; }
__device__ __forceinline__ float element(u64 bits, float) { return to_buffer<float>(__uint_as_float(u32(bits))); }
__device__ __forceinline__ bf16 element(u64 bits, bf16) { return to_buffer<bf16>(__uint_as_float(u32(bits))); }
__device__ __forceinline__ half element(u64 bits, half) { return to_buffer<half>(__uint_as_float(u32(bits))); }

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u64 count = items_of(p.launch) * p.elements;
    T* out = at<T>(p.launch, p.out, 0);
    const T value = element(p.value, T());
    Pack<T, WIDTH> pack;
#pragma unroll
    for (int i = 0; i < WIDTH; i++) pack.at[i] = value;
    const u64 thread = u64(blockIdx.x) * blockDim.x + threadIdx.x, threads = u64(gridDim.x) * blockDim.x;
    const u64 packs = count / WIDTH;
    dependency_wait(p.launch);
    dependents_may_start();
    for (u64 i = thread; i < packs; i += threads) store_pack<T, WIDTH>(out + i * WIDTH, pack);
    for (u64 i = packs * WIDTH + thread; i < count; i += threads) out[i] = value;
}
