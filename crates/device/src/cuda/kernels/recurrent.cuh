// What the kernels of a recurrent layer share: how a launch's items are cut into parts, and how a warp reads packed weights.
#pragma once
#include "types.cuh"

// Memory at an address, which the compiler then knows to be global. Not for an address that is a kernel's parameter itself: NVRTC 13.0
// does not come to an end of recurrent_input.cu with it.
template <typename T> __device__ __forceinline__ T* global(u64 address) { return static_cast<T*>(__cvta_global_to_generic(address)); }

// An item's elements of a buffer; `at` would first ask what the operand is.
template <typename T> __device__ __forceinline__ T* item_of(const Operand& buffer, u32 item) {
    return global<T>(buffer.base + buffer.item_bytes * item);
}

// Some neighbouring rows of one lane. A lane has `per_item` rows for each of its items, numbered through the launch.
struct Part {
    u32 lane, first, rows;
};

// Part `number` of a launch whose lanes are cut into parts of at most `size` rows; no rows when there are not so many parts.
__device__ __forceinline__ Part part_of(const Launch& launch, u32 number, u32 per_item, u32 size) {
    const u32 lanes = lanes_of(launch), uniform = launch.counts[2] * per_item;
    if (uniform > 0) {
        const u32 parts = (uniform + size - 1) / size, lane = number / parts, start = number % parts * size;
        if (lane >= lanes) return {0, 0, 0};
        return {lane, lane * uniform + start, min(size, uniform - start)};
    }
    for (u32 lane = 0; lane < lanes; lane++) {
        const u32 first = launch.first[lane] * per_item, end = launch.first[lane + 1] * per_item;
        const u32 parts = (end - first + size - 1) / size;
        if (number < parts) {
            const u32 start = first + number * size;
            return {lane, start, min(size, end - start)};
        }
        number -= parts;
    }
    return {0, 0, 0};
}

// Gates of a unit are columns unit, HIDDEN + unit, ... of the packed matrices, in ONNX's order.
constexpr u32 GATES = CELL == 0 ? 4 : CELL == 1 ? 3 : 1;

// What the input gives to the gates of a unit, in one load.
constexpr u32 SLOTS = GATES == 1 ? 1 : 4;
struct alignas(SLOTS * sizeof(float)) Gates {
    float of[SLOTS];
};
