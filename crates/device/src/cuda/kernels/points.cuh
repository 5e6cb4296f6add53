// Places in a dense value that numbers lead to: the twin of `Places` in steps/points.rs.
//
// Point p is at sum(p * strides) + sum(number * along). A number below 0 counts from the end. One that names nothing is never followed, and
// the item's error says which it was, the first one of the first step that met one.
#pragma once
#include "abi.cuh"

struct Places {
    i64 strides[MAX_AXES];  // of the axes of points that stand apart
    i64 along[MAX_AXES];
    u32 dims[MAX_AXES];
    u32 sizes[MAX_AXES];
    u32 axes;   // at least 1
    u32 depth;  // numbers of a point
    u32 ids;    // numbers in all
    u32 step;   // the step's index, plus one
};
static_assert(sizeof(Places) == 208, "twin of steps/points.rs");

// What a number chooses, or `rows`.
__device__ __forceinline__ u32 chosen(i64 id, u32 rows) {
    const i64 counted = id < 0 ? id + i64(rows) : id;
    return counted >= 0 && counted < i64(rows) ? u32(counted) : rows;
}

// The place of a point by its axes alone.
__device__ __forceinline__ i64 spot(const Places& places, u32 point) {
    i64 place = 0;
#pragma unroll 1
    for (u32 axis = places.axes - 1; axis > 0; axis--) {
        place += point % places.dims[axis] * places.strides[axis];
        point /= places.dims[axis];
    }
    return place + point * places.strides[0];
}

// What the numbers of a point add to its place, or -1.
template <typename Id> __device__ __forceinline__ i64 named(const Places& places, const Id* numbers) {
    i64 place = 0;
#pragma unroll 1
    for (u32 c = 0; c < places.depth; c++) {
        const u32 number = chosen(numbers[c], places.sizes[c]);
        if (number == places.sizes[c]) return -1;
        place += number * places.along[c];
    }
    return place;
}

// The smallest position of a number that names nothing becomes the item's error, unless an earlier step left one. For one whole block.
template <typename Id> __device__ __forceinline__ void report(const Launch& launch, const Places& places, const Id* ids, u32 item) {
    __shared__ u32 first;
    if (threadIdx.x == 0) first = places.ids;
    __syncthreads();
    for (u32 position = threadIdx.x; position < places.ids; position += 256) {
        const u32 rows = places.sizes[position % places.depth];
        if (chosen(ids[position], rows) < rows) continue;
        atomicMin(&first, position);
        break;
    }
    __syncthreads();
    ItemError& error = launch.errors[item];
    if (threadIdx.x > 0 || first == places.ids || error.step != 0) return;
    error.step = places.step;
    error.position = first;
    error.id = ids[first];
}
