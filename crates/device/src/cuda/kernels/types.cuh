// Element types by number, as `type_number` in site.rs numbers them, and `real`: the type in which the plan's floats are held
// at this precision (-DREAL=0 float for fp32 and tf32, 1 bf16, 2 half for fp16). Arithmetic on floats is always f32.
//
// The two halves are structs of our own: conversions are one instruction each, and no header of the toolkit is needed to compile.
#pragma once
#include "abi.cuh"

struct __align__(2) bf16 { u16 bits; };
struct __align__(2) half { u16 bits; };

// 16 bytes, as they are moved.
struct __align__(16) Chunk { u32 words[4]; };

template <int NUMBER> struct TypeOf;
template <> struct TypeOf<0> { typedef float type; };
template <> struct TypeOf<1> { typedef bf16 type; };
template <> struct TypeOf<2> { typedef half type; };
template <> struct TypeOf<3> { typedef bool type; };
template <> struct TypeOf<4> { typedef u8 type; };
template <> struct TypeOf<5> { typedef i8 type; };
template <> struct TypeOf<6> { typedef i32 type; };
template <> struct TypeOf<7> { typedef i64 type; };
template <> struct TypeOf<8> { typedef u16 type; };
template <> struct TypeOf<9> { typedef i16 type; };
template <> struct TypeOf<10> { typedef u32 type; };
template <> struct TypeOf<11> { typedef u64 type; };
template <> struct TypeOf<12> { typedef double type; };

#ifdef REAL
typedef TypeOf<REAL>::type real;
#endif

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }
__device__ __forceinline__ float to_float(half x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

// To nearest, ties to even; a half beyond its largest is infinity. NaN stays NaN.
template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
template <> __device__ __forceinline__ half from_float<half>(float x) {
    half y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// A step's result as its buffer holds it. In tf32 the matrix unit reads ten bits of a factor's fraction and cuts the rest, which would make every
// product a little smaller; what a product reads (-DFACTOR, see `is_factor` in site.rs) is rounded where it is written, so that errors
// have no direction and do not add up over layers.
template <typename T> __device__ __forceinline__ T to_buffer(float x) { return from_float<T>(x); }
#ifdef FACTOR
template <> __device__ __forceinline__ float to_buffer<float>(float x) {
    u32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __uint_as_float(bits);
}
#endif
