// Functions of one and two elements: what chains and epilogues are made of. One definition for all kernels, so that an activation gives
// the same bits fused into a product or on its own.
//
// Meaning: planner's interpret/element.rs, operation by operation. Sums and products are written with the `_rn` intrinsics, which are
// never contracted into one instruction with their neighbours: what a function gives does not depend on what the compiler sees
// around it. Floats are good to a few units in the last place; a NaN stays one. Integers wrap, and division by zero gives zero.
//
//   -DACTIVATION=0      activate(x) is x
//   -DACTIVATION=1      clip: between the parameters `low` and `high`
//   -DACTIVATION=2      the expression -DACTIVATION_FUNCTION, of `x`            written by steps/activation.rs
#pragma once
#include "types.cuh"

namespace op {

// ---- one float

// 1 / x within one unit in the last place, in one instruction.
__device__ __forceinline__ float fast_reciprocal(float x) {
    float y;
    asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// One instruction each, which keep a NaN.
__device__ __forceinline__ float at_least(float x, float low) {
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(x) : "f"(x), "f"(low));
    return x;
}
__device__ __forceinline__ float at_most(float x, float high) {
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(x) : "f"(x), "f"(high));
    return x;
}
__device__ __forceinline__ float clip(float x, float low, float high) { return at_most(at_least(x, low), high); }

__device__ __forceinline__ float abs(float x) { return ::fabsf(x); }
__device__ __forceinline__ float ceil(float x) { return ::ceilf(x); }
__device__ __forceinline__ float erf(float x) { return ::erff(x); }
__device__ __forceinline__ float exp(float x) { return ::expf(x); }
__device__ __forceinline__ float floor(float x) { return ::floorf(x); }
__device__ __forceinline__ float log(float x) { return ::logf(x); }
__device__ __forceinline__ float neg(float x) { return -x; }
__device__ __forceinline__ float logical_not(float x) { return x == 0.0f ? 1.0f : 0.0f; }
__device__ __forceinline__ bool logical_not(bool x) { return !x; }
__device__ __forceinline__ float reciprocal(float x) { return __fdiv_rn(1.0f, x); }
__device__ __forceinline__ float relu(float x) { return at_least(x, 0.0f); }
__device__ __forceinline__ float round(float x) { return ::rintf(x); }
__device__ __forceinline__ float sign(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : __fmul_rn(x, 0.0f); }
__device__ __forceinline__ float sqrt(float x) { return __fsqrt_rn(x); }
__device__ __forceinline__ float tanh(float x) { return ::tanhf(x); }

// The exponential's overflow makes an exact 0 of the reciprocal, its underflow an exact 1.
__device__ __forceinline__ float sigmoid(float x) { return fast_reciprocal(__fadd_rn(1.0f, ::expf(-x))); }
__device__ __forceinline__ float silu(float x) { return __fmul_rn(x, sigmoid(x)); }
__device__ __forceinline__ float softsign(float x) { return __fdiv_rn(x, __fadd_rn(1.0f, ::fabsf(x))); }

// ln(1 + e^x), without overflow for large x.
__device__ __forceinline__ float softplus(float x) { return __fadd_rn(x > 0.0f ? x : 0.0f, ::log1pf(::expf(-::fabsf(x)))); }
__device__ __forceinline__ float mish(float x) { return __fmul_rn(x, ::tanhf(softplus(x))); }

__device__ __forceinline__ float gelu(float x) {
    return __fmul_rn(__fmul_rn(0.5f, x), __fadd_rn(1.0f, ::erff(__fmul_rn(x, 0.70710678f))));
}
__device__ __forceinline__ float gelu_tanh(float x) {
    const float cube = __fmul_rn(__fmul_rn(__fmul_rn(0.044715f, x), x), x);
    const float inner = __fmul_rn(0.7978846f, __fadd_rn(x, cube));  // sqrt(2 / pi)
    return __fmul_rn(__fmul_rn(0.5f, x), __fadd_rn(1.0f, ::tanhf(inner)));
}

__device__ __forceinline__ float affine(float x, float alpha, float beta) { return __fadd_rn(__fmul_rn(alpha, x), beta); }
__device__ __forceinline__ float scaled_tanh(float x, float alpha, float beta) { return __fmul_rn(alpha, ::tanhf(__fmul_rn(beta, x))); }
__device__ __forceinline__ float elu(float x, float alpha) { return x < 0.0f ? __fmul_rn(alpha, ::expm1f(x)) : x; }
__device__ __forceinline__ float leaky_relu(float x, float alpha) { return x < 0.0f ? __fmul_rn(alpha, x) : x; }
__device__ __forceinline__ float selu(float x, float alpha, float gamma) {
    return __fmul_rn(gamma, x < 0.0f ? __fmul_rn(alpha, ::expm1f(x)) : x);
}
__device__ __forceinline__ float thresholded_relu(float x, float alpha) { return x <= alpha ? 0.0f : x; }
__device__ __forceinline__ float hard_sigmoid(float x, float alpha, float beta) {
    return clip(__fadd_rn(__fmul_rn(alpha, x), beta), 0.0f, 1.0f);
}
__device__ __forceinline__ float hard_swish(float x) {
    return __fmul_rn(x, clip(__fadd_rn(__fmul_rn(x, 0.16666667f), 0.5f), 0.0f, 1.0f));
}

// Bits of 2 / pi, from its second bit below the binary point on.
static __constant__ u32 TWO_OVER_PI[7] = {0x28be60db, 0x9391054a, 0x7f09d5f4, 0x7d4d3770, 0x36d8a566, 0x4f10e410, 0x7f9458ea};

// x - quadrant * pi / 2, between -pi/4 and pi/4, for finite x. The library's own reduction of large arguments keeps an array in
// memory; this one multiplies the 24 bits of x by the 96 bits of 2 / pi that matter at its exponent.
__device__ __forceinline__ float reduce_angle(float x, i32& quadrant) {
    if (::fabsf(x) < 1048576.0f) {
        const double turns = ::rint(double(x) * 0.63661977236758134);
        quadrant = i32(turns);
        return float(__fma_rn(turns, -6.123233995736766e-17, __fma_rn(turns, -1.5707963267948966, double(x))));
    }
    const u32 bits = __float_as_uint(x);
    const u64 mantissa = (bits << 8) | 0x80000000u;
    const u32 exponent = ((bits >> 23) & 255) - 126;
    const u32 word = exponent >> 5, shift = exponent & 31;
    const u32 w0 = word ? TWO_OVER_PI[word - 1] : 0, w1 = TWO_OVER_PI[word], w2 = TWO_OVER_PI[word + 1], w3 = TWO_OVER_PI[word + 2];
    const u64 high = __funnelshift_l(w1, w0, shift), middle = __funnelshift_l(w2, w1, shift), low = __funnelshift_l(w3, w2, shift);
    u64 turns = (mantissa * high << 32) + mantissa * middle + (mantissa * low >> 32);
    i32 whole = i32(turns >> 62);
    turns &= 0x3fffffffffffffffull;
    if (turns >> 61) {
        turns -= 0x4000000000000000ull;
        whole++;
    }
    const float angle = float(double(i64(turns)) * 3.4061215800304716e-19);  // pi / 2 * 2^-62
    quadrant = x < 0.0f ? -whole : whole;
    return x < 0.0f ? -angle : angle;
}

// Taylor's polynomials, cut where an eighth of a turn no longer sees it.
__device__ __forceinline__ float sine_of(float x, i32 quadrant) {
    const float square = __fmul_rn(x, x);
    float even = __fmaf_rn(2.4433157e-5f, square, -1.3887316e-3f);
    even = __fmaf_rn(__fmaf_rn(even, square, 4.1666646e-2f), square, -0.5f);
    even = __fmaf_rn(even, square, 1.0f);
    float odd = __fmaf_rn(-1.9515296e-4f, square, 8.3321609e-3f);
    odd = __fmaf_rn(odd, square, -1.6666655e-1f);
    odd = __fmaf_rn(__fmul_rn(odd, square), x, x);
    const float value = quadrant & 1 ? even : odd;
    return quadrant & 2 ? -value : value;
}
__device__ __forceinline__ float sin(float x) {
    if (!(::fabsf(x) <= 3.4028235e38f)) return __fadd_rn(x, -x);
    i32 quadrant;
    const float angle = reduce_angle(x, quadrant);
    return sine_of(angle, quadrant);
}
__device__ __forceinline__ float cos(float x) {
    if (!(::fabsf(x) <= 3.4028235e38f)) return __fadd_rn(x, -x);
    i32 quadrant;
    const float angle = reduce_angle(x, quadrant);
    return sine_of(angle, quadrant + 1);
}

// ---- two floats

__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float sub(float a, float b) { return __fsub_rn(a, b); }
__device__ __forceinline__ float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float div(float a, float b) { return __fdiv_rn(a, b); }
__device__ __forceinline__ float pow(float a, float b) { return ::powf(a, b); }
// The minimum and maximum of anything and NaN is NaN.
__device__ __forceinline__ float min(float a, float b) { return a != a || a < b ? a : b; }
__device__ __forceinline__ float max(float a, float b) { return a != a || a > b ? a : b; }
__device__ __forceinline__ float prelu(float x, float slope) { return x < 0.0f ? __fmul_rn(x, slope) : x; }
// With the sign of the dividend, and of the divisor.
__device__ __forceinline__ float rem(float a, float b) { return ::fmodf(a, b); }
__device__ __forceinline__ float mod(float a, float b) {
    const float rest = ::fmodf(a, b);
    return rest != 0.0f && (rest < 0.0f) != (b < 0.0f) ? __fadd_rn(rest, b) : rest;
}

// ---- integers: wrapping, through an unsigned type that is wide enough not to be promoted to a signed one

template <typename T> struct Unsigned { typedef u32 type; };
template <> struct Unsigned<i64> { typedef u64 type; };
template <> struct Unsigned<u64> { typedef u64 type; };

#define WHOLE(T)                                                                                                                 \
    __device__ __forceinline__ T neg(T x) { return T(0 - Unsigned<T>::type(x)); }                                                \
    __device__ __forceinline__ T add(T a, T b) { return T(Unsigned<T>::type(a) + Unsigned<T>::type(b)); }                        \
    __device__ __forceinline__ T sub(T a, T b) { return T(Unsigned<T>::type(a) - Unsigned<T>::type(b)); }                        \
    __device__ __forceinline__ T mul(T a, T b) { return T(Unsigned<T>::type(a) * Unsigned<T>::type(b)); }                        \
    __device__ __forceinline__ T min(T a, T b) { return a < b ? a : b; }                                                         \
    __device__ __forceinline__ T max(T a, T b) { return a > b ? a : b; }                                                         \
    /* By squaring, for an exponent that is not negative. */                                                                     \
    __device__ __forceinline__ T raised(T base, T exponent) {                                                                    \
        T result = 1;                                                                                                            \
        for (T square = base; exponent > 0; exponent >>= 1, square = mul(square, square))                                        \
            if (exponent & 1) result = mul(result, square);                                                                      \
        return result;                                                                                                           \
    }
#define SIGNED(T)                                                                                                                \
    WHOLE(T)                                                                                                                     \
    __device__ __forceinline__ T abs(T x) { return x < 0 ? neg(x) : x; }                                                         \
    __device__ __forceinline__ T sign(T x) { return T((x > 0) - (x < 0)); }                                                      \
    __device__ __forceinline__ T relu(T x) { return x < 0 ? T(0) : x; }                                                          \
    __device__ __forceinline__ T prelu(T x, T slope) { return x < 0 ? mul(x, slope) : x; }                                       \
    /* The machine's division of the least integer by -1 is undefined; here it wraps. */                                         \
    __device__ __forceinline__ T div(T a, T b) { return b == 0 ? T(0) : b == -1 ? neg(a) : T(a / b); }                           \
    __device__ __forceinline__ T rem(T a, T b) { return b == 0 || b == -1 ? T(0) : T(a % b); }                                   \
    __device__ __forceinline__ T mod(T a, T b) {                                                                                 \
        const T rest = rem(a, b);                                                                                                \
        return rest != 0 && (rest < 0) != (b < 0) ? T(rest + b) : rest;                                                          \
    }                                                                                                                            \
    /* A negative exponent gives the integer part of the fraction. */                                                            \
    __device__ __forceinline__ T pow(T base, T exponent) {                                                                       \
        if (exponent < 0) return base == 1 ? T(1) : base == -1 ? T(exponent & 1 ? -1 : 1) : T(0);                                \
        return raised(base, exponent);                                                                                           \
    }
#define UNSIGNED(T)                                                                                                              \
    WHOLE(T)                                                                                                                     \
    __device__ __forceinline__ T abs(T x) { return x; }                                                                          \
    __device__ __forceinline__ T sign(T x) { return T(x != 0); }                                                                 \
    __device__ __forceinline__ T relu(T x) { return x; }                                                                         \
    __device__ __forceinline__ T prelu(T x, T) { return x; }                                                                     \
    __device__ __forceinline__ T div(T a, T b) { return b == 0 ? T(0) : T(a / b); }                                              \
    __device__ __forceinline__ T rem(T a, T b) { return b == 0 ? T(0) : T(a % b); }                                              \
    __device__ __forceinline__ T mod(T a, T b) { return rem(a, b); }                                                             \
    __device__ __forceinline__ T pow(T base, T exponent) { return raised(base, exponent); }
SIGNED(i8)
SIGNED(i16)
SIGNED(i32)
SIGNED(i64)
UNSIGNED(u8)
UNSIGNED(u16)
UNSIGNED(u32)
UNSIGNED(u64)
#undef SIGNED
#undef UNSIGNED
#undef WHOLE

// ---- casts: floats truncate toward zero and saturate, NaN gives 0; integers wrap

// The narrow types, whose bounds a 32-bit integer holds.
template <typename To> struct Cast {
    template <typename From> static __device__ __forceinline__ To of(From x) { return To(x); }
    static __device__ __forceinline__ To of(float x) {
        const i32 bits = 8 * sizeof(To), sign = To(-1) < To(0);
        const i32 low = sign ? -(1 << (bits - 1)) : 0, high = (1 << (bits - sign)) - 1;
        // No 32-bit integer is beyond what the saturated conversion gives.
        const i32 whole = x != x ? 0 : __float2int_rz(x);
        return To(whole < low ? low : whole > high ? high : whole);
    }
};
template <> struct Cast<bool> {
    template <typename From> static __device__ __forceinline__ bool of(From x) { return x != From(0); }
};
template <> struct Cast<float> {
    template <typename From> static __device__ __forceinline__ float of(From x) { return float(x); }
};
template <> struct Cast<i32> {
    template <typename From> static __device__ __forceinline__ i32 of(From x) { return i32(x); }
    static __device__ __forceinline__ i32 of(float x) {
        if (x != x) return 0;
        return x >= 2147483648.0f ? 0x7fffffff : x <= -2147483648.0f ? i32(0x80000000u) : __float2int_rz(x);
    }
};
template <> struct Cast<u32> {
    template <typename From> static __device__ __forceinline__ u32 of(From x) { return u32(x); }
    static __device__ __forceinline__ u32 of(float x) {
        return !(x > 0.0f) ? 0 : x >= 4294967296.0f ? 0xffffffffu : __float2uint_rz(x);
    }
};
template <> struct Cast<i64> {
    template <typename From> static __device__ __forceinline__ i64 of(From x) { return i64(x); }
    static __device__ __forceinline__ i64 of(float x) {
        if (x != x) return 0;
        return x >= 9223372036854775808.0f    ? i64(0x7fffffffffffffffull)
               : x <= -9223372036854775808.0f ? i64(0x8000000000000000ull)
                                              : __float2ll_rz(x);
    }
};
template <> struct Cast<u64> {
    template <typename From> static __device__ __forceinline__ u64 of(From x) { return u64(x); }
    static __device__ __forceinline__ u64 of(float x) {
        return !(x > 0.0f) ? 0 : x >= 18446744073709551616.0f ? 0xffffffffffffffffull : __float2ull_rz(x);
    }
};

}  // namespace op

#ifdef ACTIVATION
// What ends an epilogue. `low` and `high` are the kernel's parameters, read by a clip only.
__device__ __forceinline__ float activate(float x, float low, float high) {
#if ACTIVATION == 0
    return x;
#elif ACTIVATION == 1
    return op::clip(x, low, high);
#else
    return ACTIVATION_FUNCTION;
#endif
}
#endif
