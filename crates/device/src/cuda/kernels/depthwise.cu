// Depthwise convolution: one kernel per channel, channels last.
//
//   out[oy, ox, c] = activation(sum x[oy * sy - top + ky * dy, ox * sx - left + kx * dx, c] * w[ky, kx, c] + bias[c] + residual[oy, ox, c])
//
// The sum runs over ky, then kx, in f32 from 0, one fused multiply-add a tap; taps outside the image are products with zero. That order is all
// there is: width of packs, pixels of a thread and tiles of a block change who computes an element, never how.
//
//   block    tiles of the image, one after the other: p.lines lines of p.runs runs of PIXELS pixels, of p.columns packs of channels
//   thread   WIDTH channels of one run: one load of 16 bytes serves every tap of a row that sees it, and all rows of a
//            common kernel are asked for at once, so that a run waits for memory once
//   shared   the lane's kernels of the block's channels, and their bias as one tap more; copied while the first tile is on its way, before
//            the kernel ahead is done; in planes of four floats, so that a warp's 16-byte reads meet no bank twice
//
// A tile is as square as the image and the block let it be: rows that neighbouring lines share come from the nearest cache, and a small
// image is read from memory once. blockIdx.x is the tile of channels, then the strip of tiles; blockIdx.y the item. Bound by memory: a
// 3 x 3 kernel makes 9 multiply-adds an element.
//
//   -DREAL=n, -DTYPE=n  x's type, -DWIDTH=n -DPIXELS=n, -DBIAS, -DRESIDUAL=n  its type, -DACTIVATION as in functions.cuh; sizes as in window.cuh
//   twin on the CPU: cpu/steps/conv.rs
#include "async.cuh"
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
    u32 columns;        // packs of channels of a block
    u32 channel_tiles;  // blocks side by side along channels
    u32 runs, lines;    // of a tile: runs of PIXELS along a line, and lines
    u32 tiles_across;   // of the image
    u32 tiles;
    u32 strip;  // tiles of a block
    u32 unused;
    float low, high;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/depthwise.rs");

constexpr int TAPS = KERNEL_H * KERNEL_W;
#ifdef BIAS
constexpr int VECTORS = TAPS + 1;
#else
constexpr int VECTORS = TAPS;
#endif
// A plane holds LANE neighbouring floats of every pack.
constexpr int LANE = WIDTH < 4 ? WIDTH : 4;
constexpr int PLANES = WIDTH / LANE;
#if PIXELS > 1
// Columns of x that a thread's pixels see in a row, and rows that it holds at once.
constexpr int REACH = (PIXELS - 1) * STRIDE_W + (KERNEL_W - 1) * DILATION_W + 1;
constexpr int BAND = KERNEL_H * REACH <= 18 ? KERNEL_H : 1;
#endif

// LANE floats of a tap, or of the bias.
__device__ __forceinline__ Pack<float, LANE> read(const float* shared, u32 tap, int plane, u32 columns, u32 column) {
    return load_pack<float, LANE>(shared + ((tap * PLANES + plane) * columns + column) * LANE);
}

// A pack of x as it was read: as words, since as halves every one would take a register.
constexpr int PACK_BYTES = WIDTH * int(sizeof(T)), WORDS = PACK_BYTES < 4 ? 1 : PACK_BYTES / 4;
struct Seen {
    u32 words[WORDS];

    // The pack at `from`, or zeros.
    __device__ __forceinline__ void look(const T* from, bool inside) {
#pragma unroll
        for (int i = 0; i < WORDS; i++) words[i] = 0;
        if (!inside) return;
        if (PACK_BYTES < 4) {
            words[0] = *reinterpret_cast<const u16*>(from);
        } else {
            const Pack<u32, WORDS> read = load_pack<u32, WORDS>(reinterpret_cast<const u32*>(from));
#pragma unroll
            for (int i = 0; i < WORDS; i++) words[i] = read.at[i];
        }
    }
    __device__ __forceinline__ float at(int e) const { return element(e, T{}); }
    __device__ __forceinline__ float element(int e, float) const { return __uint_as_float(words[e]); }
    __device__ __forceinline__ float element(int e, bf16) const { return to_float(bf16{u16(words[e / 2] >> (e % 2 * 16))}); }
    __device__ __forceinline__ float element(int e, half) const { return to_float(half{u16(words[e / 2] >> (e % 2 * 16))}); }
};

// Where a thread's run of pixels is, and what it sees first.
struct Place {
    bool there;
    u32 oy, ox;
    i32 top, left;
};

__device__ __forceinline__ Place place_of(const Params& p, u32 tile, u32 line, u32 run) {
    const u32 down = tile / p.tiles_across, across = tile % p.tiles_across;
    Place place;
    place.oy = down * p.lines + line;
    place.ox = (across * p.runs + run) * PIXELS;
    place.there = place.oy < p.window.output[0] & place.ox < p.window.output[1];
    place.top = i32(place.oy * p.window.stride_h) - p.window.before[0];
    place.left = i32(place.ox * STRIDE_W) - p.window.before[1];
    return place;
}

#if PIXELS > 1
// The packs of BAND rows of x, from row `ky` of the kernel on; zeros outside the image.
__device__ __forceinline__ void look(const Window& w, const T* x, const Place& place, int ky, u32 pitch, Seen (&seen)[BAND][REACH]) {
#pragma unroll
    for (int i = 0; i < BAND; i++) {
        const i32 row = place.top + (ky + i) * i32(w.dilation_h);
        const bool row_inside = place.there & u32(row) < w.input[0];
        const T* x_row = x + (i64(row) * w.input[1] + place.left) * i64(pitch);
#pragma unroll
        for (int near = 0; near < REACH; near++)
            seen[i][near].look(x_row + near * i64(pitch), row_inside & u32(place.left + near) < w.input[1]);
    }
}
#endif

extern "C" __global__ void __launch_bounds__(256, 2) kernel(const __grid_constant__ Params p) {
    extern __shared__ __align__(16) float shared[];
    const u32 item = blockIdx.y;
    const Window& w = p.window;
    if (!has_item(p.launch, item)) return;
    const u32 first_pack = blockIdx.x % p.channel_tiles * p.columns, strip = blockIdx.x / p.channel_tiles;
    const u32 columns = w.packs - first_pack < p.columns ? w.packs - first_pack : p.columns;
    const u32 pitch = w.packs * WIDTH;
    {
        const float* kernels = at<const float>(p.launch, p.w, item) + first_pack * WIDTH;
#ifdef BIAS
        const float* bias = at<const float>(p.launch, p.bias, item) + first_pack * WIDTH;
#endif
        for (u32 index = threadIdx.x; index < VECTORS * PLANES * p.columns; index += blockDim.x) {
            const u32 plane = index % PLANES, column = index / PLANES % p.columns, vector = index / PLANES / p.columns;
            if (column >= columns) continue;
            const float* from = kernels + u64(vector) * pitch;
#ifdef BIAS
            if (vector == TAPS) from = bias;
#endif
            copy_few<LANE * 4>(shared_address(shared + ((vector * PLANES + plane) * p.columns + column) * LANE),
                               __cvta_generic_to_global(from + column * WIDTH + plane * LANE));
        }
        chunks_commit();
    }
    const u32 column = threadIdx.x % p.columns, line = threadIdx.x / p.columns / p.runs, run = threadIdx.x / p.columns % p.runs;
    const u32 channel = (first_pack + column) * WIDTH;
    const bool working = column < columns & line < p.lines;
    const u32 end = (strip + 1) * p.strip < p.tiles ? (strip + 1) * p.strip : p.tiles;
    u32 tile = strip * p.strip;
    Place place = place_of(p, tile, line, run);
    place.there &= working;
    dependency_wait(p.launch);
    const T* x = at<const T>(p.launch, p.x, item) + channel;
    real* out = at<real>(p.launch, p.out, item) + channel;
#ifdef RESIDUAL
    const Residual* residual = at<const Residual>(p.launch, p.residual, item) + channel;
#endif
#if PIXELS > 1
    Seen seen[BAND][REACH];
    look(w, x, place, 0, pitch, seen);
#endif
    dependents_may_start();
    chunks_wait<0>();
    __syncthreads();
#pragma unroll 1
    for (;;) {
        float sums[PIXELS][WIDTH];
#pragma unroll
        for (int pixel = 0; pixel < PIXELS; pixel++)
#pragma unroll
            for (int e = 0; e < WIDTH; e++) sums[pixel][e] = 0.0f;
#if PIXELS > 1
#pragma unroll 1
        for (int ky = 0;;) {
#pragma unroll
            for (int i = 0; i < BAND; i++) {
#pragma unroll
                for (int plane = 0; plane < PLANES; plane++) {
                    Pack<float, LANE> weights[KERNEL_W];
#pragma unroll
                    for (int kx = 0; kx < KERNEL_W; kx++) weights[kx] = read(shared, (ky + i) * KERNEL_W + kx, plane, p.columns, column);
                    // Column by column, which is tap by tap for every pixel, so that each element is widened once and let go.
#pragma unroll
                    for (int near = 0; near < REACH; near++) {
#pragma unroll
                        for (int e = 0; e < LANE; e++) {
                            const float element = seen[i][near].at(plane * LANE + e);
#pragma unroll
                            for (int pixel = 0; pixel < PIXELS; pixel++) {
                                float& sum = sums[pixel][plane * LANE + e];
#pragma unroll
                                for (int kx = 0; kx < KERNEL_W; kx++)
                                    if (pixel * STRIDE_W + kx * DILATION_W == near) sum = __fmaf_rn(element, weights[kx].at[e], sum);
                            }
                        }
                    }
                }
            }
            ky += BAND;
            if (ky >= KERNEL_H) break;
            look(w, x, place, ky, pitch, seen);
        }
#else
#pragma unroll 1
        for (int ky = 0; ky < KERNEL_H; ky++) {
            const i32 row = place.top + ky * i32(w.dilation_h);
            const bool row_inside = place.there & u32(row) < w.input[0];
            const T* x_row = x + (i64(row) * w.input[1] + place.left) * i64(pitch);
#pragma unroll 1
            for (int kx = 0; kx < KERNEL_W; kx++) {
                Seen seen;
                seen.look(x_row + kx * DILATION_W * i64(pitch), row_inside & u32(place.left + kx * DILATION_W) < w.input[1]);
#pragma unroll
                for (int plane = 0; plane < PLANES; plane++) {
                    const Pack<float, LANE> weights = read(shared, ky * KERNEL_W + kx, plane, p.columns, column);
#pragma unroll
                    for (int e = 0; e < LANE; e++) {
                        float& sum = sums[0][plane * LANE + e];
                        sum = __fmaf_rn(seen.at(plane * LANE + e), weights.at[e], sum);
                    }
                }
            }
        }
#endif
        if (place.there) {
#ifdef BIAS
            Pack<float, LANE> bias[PLANES];
#pragma unroll
            for (int plane = 0; plane < PLANES; plane++) bias[plane] = read(shared, TAPS, plane, p.columns, column);
#endif
#pragma unroll
            for (int pixel = 0; pixel < PIXELS; pixel++) {
                if (place.ox + pixel >= w.output[1]) break;
                const u32 to = (place.oy * w.output[1] + place.ox + pixel) * pitch;
#ifdef RESIDUAL
                const Pack<Residual, WIDTH> others = load_pack<Residual, WIDTH>(residual + to);
#endif
                Pack<real, WIDTH> written;
#pragma unroll
                for (int e = 0; e < WIDTH; e++) {
                    float value = sums[pixel][e];
#ifdef BIAS
                    value = __fadd_rn(value, bias[e / LANE].at[e % LANE]);
#endif
#ifdef RESIDUAL
                    value = __fadd_rn(value, to_float(others.at[e]));
#endif
                    written.at[e] = to_buffer<real>(activate(value, p.low, p.high));
                }
                store_pack<real, WIDTH>(out + to, written);
            }
        }
        if (++tile >= end) break;
        place = place_of(p, tile, line, run);
        place.there &= working;
#if PIXELS > 1
        look(w, x, place, 0, pitch, seen);
#endif
    }
}
