// What the kernels of a recurrent layer's states are called with, and which time they are at.
#pragma once
#include "recurrent_cell.cuh"

struct Params {
    Launch launch;
    Operand r;
    Operand candidate;  // of a GRU whose reset comes before the product
    Operand bias;
    Operand peephole;
    Operand length;  // i32
    Operand h0;
    Operand c0;
    Operand y;
    Operand h;
    Operand c;
    u64 gates;  // Gates [rows][HIDDEN]: what the input gives
    u64 y_offset, y_stride;
    u32 time;
    float clip;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/recurrent.rs");

// How many elements of an item's sequence count. After them its state stays, and y is zero.
__device__ __forceinline__ u32 length_of(const Params& p, u32 item) {
#if LENGTHS
    return at<const i32>(p.launch, p.length, item)[0];
#else
    return p.time;
#endif
}

// Which time an item has at a step, that of its zeros included.
__device__ __forceinline__ u32 time_of(u32 step, u32 count) { return REVERSE && step < count ? count - 1 - step : step; }
