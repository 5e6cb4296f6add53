// The lines of a dense value along one of its axes: the twin of `Lines` in steps/lines.rs.
#pragma once
#include "abi.cuh"

// Element `at` of line `line` lies at (line / inner * length + at) * inner + line % inner.
struct Lines {
    u32 count;   // of an item
    u32 length;  // elements of a line
    u32 inner;   // between neighbours of a line
    u32 unused;
};
static_assert(sizeof(Lines) == 16, "twin of steps/lines.rs");

__device__ __forceinline__ u64 first_of(const Lines& lines, u32 line, u32 length) {
    const u32 outer = line / lines.inner;
    return u64(outer) * length * lines.inner + (line - outer * lines.inner);
}
