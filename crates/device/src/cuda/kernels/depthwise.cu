// Depthwise convolution: one kernel per channel, channels last.
//
//   out[oy, ox, c] = activation(sum x[oy * sy - top + ky * dy, ox * sx - left + kx * dx, c] * w[ky, kx, c] + bias[c] + residual[oy, ox, c])
//
// The sum runs over ky, then kx, in f32 from 0, one fused multiply-add a tap; taps outside the image are products with zero. That order is all
// there is: width of packs, pixels of a thread and tiles of a block change who computes an element, never how.
//
//   block    COLUMNS packs of channels by 256 / COLUMNS threads, which walk a strip of the image's pixels
//   thread   WIDTH channels of PIXELS neighbours along a row: one load of 16 bytes serves every tap that sees it
//   shared   the lane's kernels of the block's channels, and their bias as one tap more, loaded once, before the kernel ahead is done;
//            in planes of four floats, so that a warp's 16-byte reads meet no bank twice
//
// blockIdx.x is the tile of channels, then the strip; blockIdx.y the item. Bound by memory where the image streams (a 3 x 3 kernel
// makes 9 multiply-adds an element), by the caches where it is small.
//
//   -DREAL=n, -DTYPE=n  x's type, -DWIDTH=n -DPIXELS=n, -DBIAS, -DRESIDUAL=n  its type, -DACTIVATION as in functions.cuh; sizes as in window.cuh
//   twin on the CPU: cpu/steps/conv.rs
#include "functions.cuh"
#include "vector.cuh"
#include "window.cuh"

typedef TypeOf<TYPE>::type T;
#ifdef RESIDUAL
typedef TypeOf<RESIDUAL>::type Residual;
#endif

struct Params {
    Launch launch;
    Operand x;
    Operand out;
    Operand w;
    Operand bias;
    Operand residual;
    Window window;
    u32 columns;         // packs of channels of a block
    u32 channel_tiles;   // blocks side by side along channels
    u32 groups;          // runs of PIXELS of the whole image
    u32 groups_of_row;
    u32 strip;           // runs of a block
    u32 unused;
    float low, high;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/depthwise.rs");

constexpr int TAPS = KERNEL_H * KERNEL_W;
// A plane holds LANE neighbouring floats of every pack.
constexpr int LANE = WIDTH < 4 ? WIDTH : 4;
constexpr int PLANES = WIDTH / LANE;
#if PIXELS > 1
// Columns of x that a thread's pixels see.
constexpr int REACH = (PIXELS - 1) * STRIDE_W + (KERNEL_W - 1) * DILATION_W + 1;
#endif

// WIDTH floats of a tap.
__device__ __forceinline__ void read(const float* shared, u32 tap, u32 columns, u32 column, float (&to)[WIDTH]) {
#pragma unroll
    for (int plane = 0; plane < PLANES; plane++) {
        const Pack<float, LANE> part = load_pack<float, LANE>(shared + ((tap * PLANES + plane) * columns + column) * LANE);
#pragma unroll
        for (int e = 0; e < LANE; e++) to[plane * LANE + e] = part.at[e];
    }
}

extern "C" __global__ void __launch_bounds__(256, 2) kernel(const __grid_constant__ Params p) {
    extern __shared__ __align__(16) float shared[];
    const u32 item = blockIdx.y;
    const Window& w = p.window;
    if (!has_item(p.launch, item)) return;
    const u32 first_pack = blockIdx.x % p.channel_tiles * p.columns, strip = blockIdx.x / p.channel_tiles;
    const u32 columns = w.packs - first_pack < p.columns ? w.packs - first_pack : p.columns;
    {
        const u32 channels = w.packs * WIDTH, own = columns * WIDTH;
        const float* kernels = at<const float>(p.launch, p.w, item) + first_pack * WIDTH;
#ifdef BIAS
        const float* bias = at<const float>(p.launch, p.bias, item) + first_pack * WIDTH;
#endif
        for (u32 index = threadIdx.x; index < (TAPS + 1) * own; index += 256) {
            const u32 tap = index / own, channel = index % own, column = channel / WIDTH, e = channel % WIDTH;
            float value = 0.0f;
            if (tap < TAPS) value = kernels[tap * channels + channel];
#ifdef BIAS
            else value = bias[channel];
#endif
            shared[((tap * PLANES + e / LANE) * p.columns + column) * LANE + e % LANE] = value;
        }
    }
    dependency_wait();
    dependents_may_start();
    __syncthreads();
    const u32 column = threadIdx.x % p.columns, row_of_threads = threadIdx.x / p.columns, rows_of_threads = 256 / p.columns;
    if (column >= columns || row_of_threads >= rows_of_threads) return;
    const u32 channel = (first_pack + column) * WIDTH, pitch = w.packs * WIDTH;
    const T* x = at<const T>(p.launch, p.x, item) + channel;
    real* out = at<real>(p.launch, p.out, item) + channel;
#ifdef RESIDUAL
    const Residual* residual = at<const Residual>(p.launch, p.residual, item) + channel;
#endif
    const u32 end = (strip + 1) * p.strip < p.groups ? (strip + 1) * p.strip : p.groups;
#pragma unroll 1
    for (u32 group = strip * p.strip + row_of_threads; group < end; group += rows_of_threads) {
        const u32 oy = group / p.groups_of_row, ox = group % p.groups_of_row * PIXELS;
        const i32 top = i32(oy * w.stride_h) - w.before[0], left = i32(ox * STRIDE_W) - w.before[1];
        float sums[PIXELS][WIDTH];
#pragma unroll
        for (int pixel = 0; pixel < PIXELS; pixel++)
#pragma unroll
            for (int e = 0; e < WIDTH; e++) sums[pixel][e] = 0.0f;
#pragma unroll 1
        for (int ky = 0; ky < KERNEL_H; ky++) {
            const i32 row = top + ky * i32(w.dilation_h);
            const bool row_inside = u32(row) < w.input[0];
            const T* x_row = x + (i64(row) * w.input[1] + left) * i64(pitch);
#if PIXELS > 1
            Pack<T, WIDTH> seen[REACH];
#pragma unroll
            for (int near = 0; near < REACH; near++) {
                seen[near] = Pack<T, WIDTH>{};
                if (row_inside && u32(left + near) < w.input[1]) seen[near] = load_pack<T, WIDTH>(x_row + near * i64(pitch));
            }
            float weights[KERNEL_W][WIDTH];
#pragma unroll
            for (int kx = 0; kx < KERNEL_W; kx++) read(shared, ky * KERNEL_W + kx, p.columns, column, weights[kx]);
            // Column by column, which is tap by tap for every pixel, so that each element is widened once and let go.
#pragma unroll
            for (int near = 0; near < REACH; near++) {
#pragma unroll
                for (int e = 0; e < WIDTH; e++) {
                    const float element = to_float(seen[near].at[e]);
#pragma unroll
                    for (int pixel = 0; pixel < PIXELS; pixel++)
#pragma unroll
                        for (int kx = 0; kx < KERNEL_W; kx++)
                            if (pixel * STRIDE_W + kx * DILATION_W == near)
                                sums[pixel][e] = __fmaf_rn(element, weights[kx][e], sums[pixel][e]);
                }
            }
#else
#pragma unroll 1
            for (int kx = 0; kx < KERNEL_W; kx++) {
                float weights[WIDTH];
                read(shared, ky * KERNEL_W + kx, p.columns, column, weights);
                Pack<T, WIDTH> seen{};
                if (row_inside && u32(left + kx * DILATION_W) < w.input[1])
                    seen = load_pack<T, WIDTH>(x_row + kx * DILATION_W * i64(pitch));
#pragma unroll
                for (int e = 0; e < WIDTH; e++) sums[0][e] = __fmaf_rn(to_float(seen.at[e]), weights[e], sums[0][e]);
            }
#endif
        }
        float bias[WIDTH];
        read(shared, TAPS, p.columns, column, bias);
#pragma unroll
        for (int pixel = 0; pixel < PIXELS; pixel++) {
            if (ox + pixel >= w.output[1]) break;
            const u32 to = (oy * w.output[1] + ox + pixel) * pitch;
#ifdef RESIDUAL
            const Pack<Residual, WIDTH> others = load_pack<Residual, WIDTH>(residual + to);
#endif
            Pack<real, WIDTH> written;
#pragma unroll
            for (int e = 0; e < WIDTH; e++) {
                float value = sums[pixel][e];
#ifdef BIAS
                value = __fadd_rn(value, bias[e]);
#endif
#ifdef RESIDUAL
                value = __fadd_rn(value, to_float(others.at[e]));
#endif
                written.at[e] = from_float<real>(activate(value, p.low, p.high));
            }
            store_pack<real, WIDTH>(out + to, written);
        }
    }
}
