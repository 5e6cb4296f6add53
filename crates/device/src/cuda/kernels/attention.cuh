// What the kernels of attention are called with: the twin of steps/attention.rs.
#pragma once
#include "types.cuh"

struct Params {
    Launch launch;
    Walk q;     // [heads, queries, head_dim]
    Walk k;     // [heads, keys, head_dim]
    Walk v;     // [heads, keys, value_dim]
    Walk mask;  // [heads, queries, keys]
    Operand out;
    i64 out_head, out_query;
    u32 queries, keys, head_dim, value_dim;
    u32 query_tiles, value_tiles;
    float scale;
    u32 unused;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/attention.rs");

__device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000); }
