// What recurrent_state.cu and recurrent_state_strict.cu are called with.
#pragma once
#include "recurrent_cell.cuh"

struct Params {
    Launch launch;
    Operand r;
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
