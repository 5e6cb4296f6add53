// Elements that lie together, moved at once: a load or store of 16 bytes is one instruction, and what keeps memory busy.
//
// A pack of N elements is aligned to its size (16 bytes at most): lowering chooses N so that offsets, strides and bytes of an item are
// multiples of it, see steps/vector.rs.
#pragma once
#include "types.cuh"

template <typename T, int N> struct __align__(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack { T at[N]; };

template <typename T, int N> __device__ __forceinline__ Pack<T, N> load_pack(const T* from) {
    return *reinterpret_cast<const Pack<T, N>*>(from);
}
template <typename T, int N> __device__ __forceinline__ void store_pack(T* to, const Pack<T, N>& pack) {
    *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// Elements as another buffer holds them: floats are rounded to it, everything else is the same bits.
template <typename To, typename From> struct As {
    static __device__ __forceinline__ To of(From x) { return to_buffer<To>(to_float(x)); }
    template <int N> static __device__ __forceinline__ Pack<To, N> of(const Pack<From, N>& x) {
        Pack<To, N> y;
#pragma unroll
        for (int i = 0; i < N; i++) y.at[i] = of(x.at[i]);
        return y;
    }
};
template <typename T> struct As<T, T> {
    template <typename Anything> static __device__ __forceinline__ Anything of(const Anything& x) { return x; }
};
#ifdef FACTOR
template <> struct As<float, float> {
    static __device__ __forceinline__ float of(float x) { return to_buffer<float>(x); }
    template <int N> static __device__ __forceinline__ Pack<float, N> of(const Pack<float, N>& x) {
        Pack<float, N> y;
#pragma unroll
        for (int i = 0; i < N; i++) y.at[i] = of(x.at[i]);
        return y;
    }
};
#endif
