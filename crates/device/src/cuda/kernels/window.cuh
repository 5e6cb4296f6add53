// The sizes of a window that moves over an image [height][width][channels]: the twin of `Window` in steps/window.rs.
#pragma once
#include "abi.cuh"

// Along height, then width. What an architecture chooses is defined besides: -DKERNEL_H -DKERNEL_W -DSTRIDE_W -DDILATION_W.
struct Window {
    u32 input[2];
    u32 output[2];
    u32 stride_h, dilation_h;
    i32 before[2];  // zeros above and to the left
    u32 after[2];   // and below and to the right, as the file says
    u32 packs;      // of channels
    u32 unused;
};
static_assert(sizeof(Window) == 48, "twin of steps/window.rs");
