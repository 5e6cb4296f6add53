// The first convolution of a network in strict fp32: few channels, every second place of a large image. See product.cuh for the formula, product_float.cuh for how
// a thread multiplies.
//
//   slot      [k][64 outputs]        --bulk copy-->  weights, all of them, for as long as the block lives
//   image     a line at a time       --FEEDERS---->  ring of lines, each as the taps of a line of the kernel see it: [taps across][channels][places]
//   all other threads have OUTPUTS outputs of ROWS columns of a line of outputs, and go through the lines of the kernel
//
// A line of outputs is a product of a k whose inputs lie in KERNEL_HEIGHT lines of the image, k by k as product_fed.cu has them. One warp spreads a line of the image
// over the places of its columns, KERNEL_WIDTH times; two lines of outputs later it is no longer seen. Nothing is gathered between multiply-adds, an input is
// read from the image once per strip of lines, and weights once per block.
//
//   line 2y of the image    ky = 0 of line y        free behind it, and filled with what line y + 1 sees last
//   line 2y + 1             ky = 1                  likewise
//   lines 2y + 2 ...        ky = 2 ...              seen again by line y + 1
//
// The image is what a step before left, channels last; or what the request brought, in planes, which then never lies in the arena.
//
// k is one run, and summed from zero in its order: no tile changes a bit.
//
// Bound by the float units: of 32 lanes, alone, ResNet-50's 7x7 takes 176 us, of which the products are 113, and 283 by product_float.cu; MobileNetV2's 3x3 35 us, and
// 78. In their networks 179 for 272, 42 for 76, and no copy before them, which took 17 (H200, 2026-11-27). A line of k has 1176 multiply-adds, 112 other
// instructions and 126 conflicts. With 8 columns of a thread it has 222 conflicts and takes 201 us.
// Outputs of a row always in one order, with 315 conflicts, and reads of a k right before it are multiplied as fast, within 1 %.
//
// Twin on the CPU: cpu/steps/conv.rs.
//
//   -DBM=64|32, -DBN, -DOUTPUTS=8, -DROWS=8|7            a line of the tile, and what a thread has of it          -DMIN_BLOCKS of a multiprocessor
//   -DCHANNELS, -DKERNEL_HEIGHT, -DKERNEL_WIDTH          whose product is 256 at most
//   -DPLANES=0|1                                         whether the image is in planes
// Of the parameters, `plane` is the lines of a strip, `line` the tiles of a line, `turns` the columns of a tile, `item_tiles` the tiles of all an item's strips.
#include "product_float.cuh"

constexpr int STRIDE = 2;
constexpr int WARPS_N = BN / (ACROSS * ROWS), MULTIPLIERS = 32 * WARPS_N, FEEDERS = 32;
constexpr int LINE_K = KERNEL_WIDTH * CHANNELS, K = KERNEL_HEIGHT * LINE_K;
constexpr int RING = KERNEL_HEIGHT;
constexpr int PLACES = HALF * 2;
constexpr int SEEN = 3 * STRIDE + KERNEL_WIDTH;  // pixels of a line that four neighbouring columns see
constexpr u32 WEIGHT_BYTES = K * PANEL * 4, LINE_FLOATS = LINE_K * PLACES;
static_assert(OUTPUTS == 8 && (ROWS == 8 || ROWS == 7) && WARPS_N * ACROSS * ROWS == BN, "warps cover a line, and threads read eight places");
static_assert(PLACES == FEEDERS * 4, "a feeder has a four of places");
static_assert(K <= RUN && BM <= PANEL && RESIDUAL == 0, "one run of one panel, and nothing to add");

// What a feeder's four of columns sees of the lines of the image that a strip does.
struct Feeder {
    u64 first;    // the address of its first pixel in line 0 of the image, wherever that is
    u32 present;  // bit i: whether pixel i is in the image, if the line is
    float seen[CHANNELS][SEEN];

    __device__ __forceinline__ Feeder(const Params& p, u32 item, u32 first_column) {
        const u32 column = first_column + row_of_four(threadIdx.x % FEEDERS);
        const i32 x = i32(column * STRIDE) - i32(p.left);
        first = __cvta_generic_to_global(at<const float>(p.launch, p.x, item)) + i64(x) * (PLANES ? 4 : CHANNELS * 4);
        present = 0;
#pragma unroll
        for (int i = 0; i < SEEN; i++) present |= u32(u32(x + i) < p.width) << i;
    }
    // Line `y` of the image, on its way through registers; zeros beside, above and below it.
    __device__ __forceinline__ void fetch(const Params& p, i32 y) {
        const u32 there = u32(y) < p.height ? present : 0;
        const u64 line = first + i64(y) * p.width * (PLANES ? 4 : CHANNELS * 4);
#pragma unroll
        for (int channel = 0; channel < CHANNELS; channel++) {
            const u64 from = line + (PLANES ? u64(channel) * p.height * p.width * 4 : channel * 4);
#pragma unroll
            for (int i = 0; i < SEEN; i++) {
                seen[channel][i] = 0.0f;
                if (there >> i & 1) seen[channel][i] = global<const float>(from)[i * (PLANES ? 1 : CHANNELS)];
            }
        }
    }
    // From there to a line of the ring.
    __device__ __forceinline__ void put(float* line) const {
#pragma unroll
        for (int k = 0; k < LINE_K; k++) {
            const float* s = seen[k % CHANNELS] + k / CHANNELS;
            reinterpret_cast<float4*>(line + k * PLACES)[threadIdx.x % FEEDERS] = make_float4(s[0], s[STRIDE], s[2 * STRIDE], s[3 * STRIDE]);
        }
    }
};

extern "C" __global__ void __launch_bounds__(MULTIPLIERS + FEEDERS, MIN_BLOCKS) kernel(const __grid_constant__ Params p) {
    extern __shared__ __align__(16) unsigned char dynamic[];
    __shared__ u64 weights_filled, filled[RING], freed[RING];
    __shared__ Kept kept;
    const u32 thread = threadIdx.x;
    const float* weights = reinterpret_cast<const float*>(dynamic);
    float* ring = reinterpret_cast<float*>(dynamic + WEIGHT_BYTES);
    const u32 tile = p.m_tiles.quotient(blockIdx.x), m0 = (blockIdx.x - tile * p.m_tiles.value) * BM;
    const u32 item = p.item_tiles.quotient(tile), of_item = tile - item * p.item_tiles.value;
    const u32 strip = p.line.quotient(of_item), first_column = (of_item - strip * p.line.value) * p.turns;
    if (!has_item(p.launch, item)) return;
    const u32 out_width = p.out_width.value, first_line = strip * p.plane;
    const u32 lines = min(p.plane, p.out_width.quotient(p.rows.value) - first_line);
    const u32 all_filled = shared_address(filled), all_freed = shared_address(freed);
    if (thread == 0) {
        barrier_init(&weights_filled, 1);
#pragma unroll
        for (int line = 0; line < RING; line++) {
            barrier_init(&filled[line], FEEDERS);
            barrier_init(&freed[line], MULTIPLIERS);
        }
        barriers_are_ready();
        const u32 lane = p.launch.lane_of[item];
        const u64 slot = p.launch.weights[lane];
        kept = {{true, lane, item, 0, p.rows.value}, slot, 0, m0, 1};
        barrier_expect(&weights_filled, WEIGHT_BYTES);
        copy_bulk(shared_address(weights), slot + p.weights + u64(m0 / PANEL) * WEIGHT_BYTES, WEIGHT_BYTES, &weights_filled);
    }
    __syncthreads();

    if (thread >= MULTIPLIERS) {
        dependency_wait(p.launch);
        Feeder feeder(p, item, first_column);
        const i32 top = i32(first_line * STRIDE) - i32(p.top);
#pragma unroll 1
        for (u32 line = 0; line < (lines - 1) * STRIDE + KERNEL_HEIGHT; line++) {
            const u32 place = line % RING;
            feeder.fetch(p, top + i32(line));
            if (line >= RING) barrier_wait(all_freed + place * 8, (line / RING - 1) % 2);
            feeder.put(ring + place * LINE_FLOATS);
            barrier_arrive(all_filled + place * 8);
        }
        return;
    }

    dependency_wait(p.launch);
    dependents_may_start();
    const u32 lane = thread % 32, along = along_of(lane), across = thread / 32 * ACROSS + across_of(lane);
    barrier_wait(&weights_filled, 0);
#pragma unroll 1
    for (u32 y = 0; y < lines; y++) {
        float run[ROWS][OUTPUTS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
#pragma unroll
            for (int o = 0; o < OUTPUTS; o++) run[r][o] = 0.0f;
        }
        const float* w = weights + along * COUNT;
#pragma unroll 1
        for (u32 ky = 0; ky < KERNEL_HEIGHT; ky++) {
            const u32 line = y * STRIDE + ky, place = line % RING;
            barrier_wait(all_filled + place * 8, line / RING % 2);
            const float* x = ring + place * LINE_FLOATS + across * 4;
            multiply_ahead<LINE_K>(run, w, [&](int k, int half) { return x + k * PLACES + half * HALF; });
            if (ky < STRIDE) barrier_arrive(all_freed + place * 8);
            w += LINE_K * PANEL;
        }

        const Kept known = kept;
        const u32 columns = min(p.turns, out_width - first_column), row = (first_line + y) * out_width + first_column;
#pragma unroll
        for (int piece = 0; piece < PIECES; piece++) {
            const u32 output = known.m0 + output_of(along, piece);
            if (output >= p.n) break;
            float bias[COUNT];
            load_biases(p, known, output, bias);
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) {
                const u32 column = row_of(across, r);
                if (column >= columns) continue;
                Piece total = {};
#pragma unroll
                for (int i = 0; i < COUNT; i++) total.of[i] += run[r][piece * COUNT + i];
                finish(p, known, output, row + column, bias, {}, total);
            }
        }
    }
}
