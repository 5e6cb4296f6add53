// Numbers of any type: what steps that order, add or change them compute in, and how. Twin on the CPU: the planner's interpret/number.rs.
//
// Floats are f32 whatever holds them. Integers wrap. A NaN comes before every number, and is the larger and the smaller of both.
#pragma once
#include "vector.cuh"

template <typename T> struct Widened { typedef T type; };
template <> struct Widened<bf16> { typedef float type; };
template <> struct Widened<half> { typedef float type; };

template <typename T> __device__ __forceinline__ T widen(T x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return to_float(x); }
__device__ __forceinline__ float widen(half x) { return to_float(x); }

template <typename To, typename T> struct Narrow {
    static __device__ __forceinline__ To of(T x) { return To(x); }
};
template <> struct Narrow<float, float> {
    static __device__ __forceinline__ float of(float x) { return to_buffer<float>(x); }
};
template <> struct Narrow<bf16, float> {
    static __device__ __forceinline__ bf16 of(float x) { return to_buffer<bf16>(x); }
};
template <> struct Narrow<half, float> {
    static __device__ __forceinline__ half of(float x) { return to_buffer<half>(x); }
};

namespace number {

template <typename T> __device__ __forceinline__ bool is_nan(T x) { return x != x; }

template <typename T> __device__ __forceinline__ T add(T a, T b) { return T(u64(a) + u64(b)); }
template <> __device__ __forceinline__ float add<float>(float a, float b) { return __fadd_rn(a, b); }
template <> __device__ __forceinline__ double add<double>(double a, double b) { return __dadd_rn(a, b); }
template <typename T> __device__ __forceinline__ T mul(T a, T b) { return T(u64(a) * u64(b)); }
template <> __device__ __forceinline__ float mul<float>(float a, float b) { return __fmul_rn(a, b); }
template <> __device__ __forceinline__ double mul<double>(double a, double b) { return __dmul_rn(a, b); }

// As steps/points.rs numbers them.
enum How { REPLACE, ADD, MUL, MAX, MIN };

template <int CHANGE, typename T> __device__ __forceinline__ T updated(T x, T update) {
    switch (CHANGE) {
        case ADD: return add(x, update);
        case MUL: return mul(x, update);
        case MAX: return is_nan(x) || x > update ? x : update;
        case MIN: return is_nan(x) || x < update ? x : update;
        default: return update;
    }
}

// Whether element number `i`, x, comes before element number `j`, y.
template <bool DOWN, bool LATER, typename T> __device__ __forceinline__ bool before(T x, u32 i, T y, u32 j) {
    if (is_nan(x) != is_nan(y)) return is_nan(x);
    if (!is_nan(x) && x != y) return DOWN ? x > y : x < y;
    return LATER ? i > j : i < j;
}

}  // namespace number
