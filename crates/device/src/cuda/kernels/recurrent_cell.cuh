// What a cell makes of its sums: planner's interpret/recurrent.rs, for one unit of one item at one time.
//
//   -DCELL=0  LSTM   i, o, f, candidate     -DCOUPLED=1  f is 1 - i     -DPEEPHOLE=1  gates see the cell
//   -DCELL=1  GRU    z, r, candidate; the reset comes after the product, and the candidate's bias of the state is a fourth one
//   -DCELL=2  RNN
//   -DFUNCTION_F -DFUNCTION_G -DFUNCTION_H   expressions of `x`, as many as the cell has; written by steps/recurrent.rs
//   -DCLIP=1  the arguments of F and G are kept between minus and plus `clip`
//   -DSTRICT=1  sigmoid and hyperbolic tangent are good to a few units in the last place, else to the sums of matrix units
#pragma once
#include "functions.cuh"
#include "recurrent.cuh"

#if STRICT
__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float hyperbolic_tangent(float x) { return tanhf(x); }
#else
__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }
__device__ __forceinline__ float hyperbolic_tangent(float x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }
#endif

// A unit's own weights.
struct OfUnit {
    float peephole[3];  // i, o, f
    float state_bias;
};

// `slot` is where the lane's weights begin; `bias` and `peephole` are plain vectors in it.
__device__ __forceinline__ OfUnit of_unit(u64 slot, const Operand& bias, const Operand& peephole, u32 unit) {
    OfUnit own = {};
#if PEEPHOLE
#pragma unroll
    for (u32 gate = 0; gate < 3; gate++) own.peephole[gate] = __ldg(global<const float>(slot + peephole.base) + gate * HIDDEN + unit);
#endif
#if CELL == 1 && BIAS
    own.state_bias = __ldg(global<const float>(slot + bias.base) + GATES * HIDDEN + unit);
#endif
    return own;
}

__device__ __forceinline__ float clipped(float x, float clip) {
#if CLIP
    return op::clip(x, -clip, clip);
#else
    return x;
#endif
}
__device__ __forceinline__ float function_f(float x) { return FUNCTION_F; }
#ifdef FUNCTION_G
__device__ __forceinline__ float function_g(float x) { return FUNCTION_G; }
#endif
#ifdef FUNCTION_H
__device__ __forceinline__ float function_h(float x) { return FUNCTION_H; }
#endif

// The new state. `input` and `state` are the products' shares of the gates; `inner` is the cell of an LSTM, and else the state itself.
__device__ __forceinline__ float new_state(const Gates& input, const float (&state)[GATES], float& inner, const OfUnit& own, float clip) {
#if CELL == 0
    float gates[GATES];
#pragma unroll
    for (u32 gate = 0; gate < GATES; gate++) gates[gate] = state[gate] + input.of[gate];
#if PEEPHOLE
    gates[0] += own.peephole[0] * inner;
    gates[2] += own.peephole[2] * inner;
#endif
    const float in = function_f(clipped(gates[0], clip));
#if COUPLED
    const float forget = 1.0f - in;
#else
    const float forget = function_f(clipped(gates[2], clip));
#endif
    inner = forget * inner + in * function_g(clipped(gates[3], clip));
#if PEEPHOLE
    gates[1] += own.peephole[1] * inner;
#endif
    return function_f(clipped(gates[1], clip)) * function_h(inner);
#elif CELL == 1
    const float update = function_f(clipped(state[0] + input.of[0], clip));
    const float reset = function_f(clipped(state[1] + input.of[1], clip));
    const float candidate = function_g(clipped(input.of[2] + reset * (state[2] + own.state_bias), clip));
    return inner = (1.0f - update) * candidate + update * inner;
#else
    return inner = function_f(clipped(state[0] + input.of[0], clip));
#endif
}
