// The first convolution of a network: few channels, every second place of a large image; and the max-pool behind it, on the matrix unit.
//
//   a line of the image in shared memory, a pixel is four channels, 8 bytes      |...0|...0|...0|rgb0|rgb0|rgb0|rgb0|rgb0|rgb0|rgb0|
//   what sum 0 sees of it, and sum 1, 16 bytes further                            ^-- 8 taps -----------------------------^
//                                                                                           ^-- 8 taps -----------------------------^
//
// With a stride of two, neighbours' inputs start 16 bytes apart, which is how the matrix unit takes rows that are not swizzled: the lines
// of the image are its factor as they lie, overlaps and all, and nothing is gathered. In product_tensor.cu every input is read once per
// tap, element by element; here once per strip of lines.
//
// In tf32 a pixel is 16 bytes by itself, and neighbours' inputs would start 32 apart. There the even pixels of a line lie before the odd ones
//
//   |rgb0|rgb0|rgb0|rgb0|...|rgb0|rgb0|rgb0|rgb0|...
//    0    2    4    6        1    3    5    7
//
// and start 16 apart again. An instruction takes 32 bytes of k, two groups of 16, which may lie anywhere: two pixels each of halves, so that a line of taps is padded to
// 4 or 8; one of floats, so that 49 taps are 25 instructions.
//
//   M   outputs, 64       their weights stay in registers: with three channels they are few, and all tiles use all of them
//   N   columns, BN       of one line of sums of one item
//   k   lines of taps, taps of a line (of halves padded to 4 or 8), channels (padded to 4); 32 bytes of them to an instruction
//
//   shared memory   staged  [BN][64 outputs + 16 bytes]     a line of outputs, on its way out
//                   lines   [lines of the strip][PIXELS][4] zeros beside the image, above and below it
//                   (first of all the weights lie there, as blocks, until they are in registers)
//
// A block has a strip of lines of outputs of one item, and the inputs of the next line come while this one is multiplied; all that the strip will see is
// asked into the cache before the first. Pads of k have weights of zero; an infinity in the image is then a NaN one column further than it should be, where
// a line of taps is padded, or in place of an infinity, where taps of floats are an odd number.
//
// The image is what a step before left, channels last; or what the request brought, floats in planes, which are rounded here and never lie in the arena.
//
// Where a pool follows, the lines of its windows are compared as they are finished, in registers and as they are stored; what is left of a window's lines is staged, and
// its columns are compared on their way out, clipped last. Rounding and a clip keep order, so those are the bits of one step after the other, a NaN
// too; and the largest image of the network, four times the size of what is pooled, is never written. Strips compute the line that they share twice.
//
// An element's products are summed in the order of k above, always by the same instruction: neither strip nor tile changes a bit. Other kernels
// sum them in another order, so it is the step's shape that decides who does.
// Bound by the bytes of the outputs; where it pools, by neither those nor the matrix unit: ResNet-50's of 32 lanes takes 33 us (H100 and H200), of which the
// products are 13. In tf32 the weights of 7x7 are 100 registers of a thread, so a usual line of sums is two tiles where it pools: 62 us, of which the products
// are 26. A quarter of the time is what lies before a block's first line: weights, from blocks to registers, and the first inputs.
//
// Tried (H100, 2026-11-27, 32 lanes, the kernel alone): lines brought and written by 128 threads more, which lend the others registers, 29.3 us where it pools and 52.5
// in tf32, but 23.8 for the 22.2 of MobileNetV2's 3x3, whose four blocks become two; with that, the second block of a multiprocessor half a line behind the
// first changed nothing. Two tiles of 64 columns and three blocks: 38 us. Inputs put before products are waited for, and one barrier less a line: no change.
//
//   -DBN                           columns of a tile, a multiple of 16
//   -DCHANNELS, -DKERNEL_HEIGHT, -DKERNEL_WIDTH          -DMIN_BLOCKS of a multiprocessor
//   -DPLANES=0|1                   whether the image is floats in planes
//   -DPOOL=0|1                     whether a pool follows, with -DPOOL_HEIGHT, -DPOOL_WIDTH, -DPOOL_DOWN and -DPOOL_ACROSS, its strides, -DPOOL_TOP and
//                                  -DPOOL_LEFT. Its windows share one line or none, each sees some of the image, and no two end with the same line.
//   generated.cuh                  multiply(), see steps/product/instruction.rs
// Of the parameters, `rows` and `out_width` are those of the outputs, `sums` of what is multiplied, which is the same but for a pool; `plane` is the lines of
// a strip, `line` the tiles of a line, `turns` the columns of outputs of a tile, `item_tiles` the tiles of all an item's strips.
#include "product_sums.cuh"
#include "mma.cuh"

constexpr int THREADS = 128;
constexpr bool FLOATS = PER_WORD == 1;
constexpr int GROUP = FLOATS ? 1 : 2;                                     // taps whose pixels fill 16 bytes
constexpr int TAPS = FLOATS ? KERNEL_WIDTH : KERNEL_WIDTH <= 4 ? 4 : 8;   // of a line, with padding
constexpr int LINE_GROUPS = TAPS / GROUP, GROUPS = KERNEL_HEIGHT * LINE_GROUPS;
constexpr int STEPS = (GROUPS + 1) / 2;                                   // instructions, of two groups each
constexpr int PIXELS = 2 * (BN - 1) + (TAPS + 1) / 2 * 2;                 // of a line of inputs
constexpr u32 PIXEL_BYTES = 4 * sizeof(real), LINE_BYTES = PIXELS * PIXEL_BYTES;
constexpr u32 ODD_PIXELS = FLOATS ? LINE_BYTES / 2 : PIXEL_BYTES;         // from an even pixel to the odd one after it
constexpr u32 STAGED_PITCH = BM * sizeof(real) + 16, STAGED_BYTES = BN * STAGED_PITCH;
constexpr u32 STAGED_CHUNKS = BM / CHUNK, SWEEP = THREADS / STAGED_CHUNKS;  // of a column; columns that all threads write at once
constexpr int HELD = 8 / PER_WORD;                                        // words of a thread's elements of 16 columns
constexpr int PAIRS = PIXELS / 2 + 1;                       // pairs of pixels that a line of inputs can touch
constexpr int FIRST = (KERNEL_HEIGHT * PAIRS + THREADS - 1) / THREADS;  // pairs of the first line of outputs, of one thread
constexpr int AHEAD = (2 * PAIRS + THREADS - 1) / THREADS;              // and of the two lines that the next sees more
constexpr int WORDS = CHANNELS * int(sizeof(x_type)) / 2;               // of a pair of pixels, as they are read
constexpr bool POOLS = POOL_HEIGHT * POOL_WIDTH > 1, SHARES_LINE = POOL_HEIGHT > POOL_DOWN;
constexpr u32 MOST_COLUMNS = (BN - 1 + POOL_LEFT) / POOL_ACROSS + 1;    // of outputs of a tile
constexpr u32 TOGETHER = POOLS ? 2 : 4;                                 // chunks of outputs that a thread moves at once
constexpr u32 NONE = ~0u;
static_assert(BM == 64 && BN % 16 == 0 && LINE_BYTES % 16 == 0 && STAGED_BYTES % 16 == 0, "chunks");
static_assert(sizeof(x_type) == (PLANES ? 4 : sizeof(real)) && CHANNELS <= 4 && KERNEL_WIDTH <= 8, "a pixel is four channels");
static_assert(POOL_HEIGHT - POOL_DOWN <= 1 && (!POOLS || (POOL_HEIGHT >= POOL_DOWN && ACTIVATION == 1 && RESIDUAL == 0)), "what is pooled");

// Where a pixel lies in its line.
__device__ __forceinline__ constexpr u32 pixel_at(u32 pixel) { return pixel / 2 * 16 + pixel % 2 * ODD_PIXELS; }
// Where column 0 sees a group of taps, from the first line on. Behind the last is the last once more, whose weights are zero there.
__device__ __forceinline__ constexpr u32 group_at(int group) {
    const int there = group < GROUPS ? group : GROUPS - 1;
    return there / LINE_GROUPS * LINE_BYTES + pixel_at(there % LINE_GROUPS * GROUP);
}
// The groups of an instruction, the one that lies first before the other.
__device__ __forceinline__ constexpr int group_of(int step, int half_step) {
    const bool swapped = group_at(step * 2) > group_at(step * 2 + 1);
    return step * 2 + (half_step ^ int(swapped));
}

__device__ __forceinline__ u32 load_element(u32 shared) {
    if (FLOATS) {
        u32 bits;
        asm volatile("ld.shared.u32 %0, [%1];" : "=r"(bits) : "r"(shared) : "memory");
        return bits;
    }
    u16 bits;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(bits) : "r"(shared) : "memory");
    return bits;
}
__device__ __forceinline__ void store_word(u32 shared, u32 word) { asm volatile("st.shared.u32 [%0], %1;" ::"r"(shared), "r"(word) : "memory"); }
__device__ __forceinline__ void store_zeros(u32 shared) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(shared), "r"(0) : "memory");
}
// Four channels, as factors.
struct Pixel {
    u32 words[4 / PER_WORD];
};
__device__ __forceinline__ void store_pixel(u32 shared, const Pixel& pixel) {
    const u32* words = pixel.words;
    if (FLOATS) {
        asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(shared), "r"(words[0]), "r"(words[1]), "r"(words[FLOATS ? 2 : 0]),
                     "r"(words[FLOATS ? 3 : 0])
                     : "memory");
    } else {
        asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(shared), "r"(words[0]), "r"(words[1]) : "memory");
    }
}
// This thread's weights: those of outputs `thread / 32 * 16 + thread % 32 / 4` and of the eighth after it, at word t = thread % 4 of both groups of every
// instruction. They come from blocks at `blocks`, where k walks taps and channels without padding.
__device__ __forceinline__ void take_weights(u32 blocks, u32 thread, u32 (&weights)[STEPS][4]) {
    constexpr u32 SPAN = ROW_BYTES / sizeof(real);  // k of a block
    const u32 output = thread / 32 * 16 + thread % 32 / 4, element = thread % 4 * PER_WORD, tap = element / 4, channel = element % 4;
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
#pragma unroll
        for (int half_step = 0; half_step < 2; half_step++) {
            const int group = group_of(step, half_step);
            const u32 kx = group % LINE_GROUPS * GROUP + tap;
            u32 words[2] = {0, 0};
#pragma unroll
            for (u32 i = 0; i < PER_WORD; i++) {
                // Pads read a weight like all others, which is dropped: so no load waits for another.
                const bool there = group < GROUPS & kx < KERNEL_WIDTH & channel + i < CHANNELS;
                const u32 k = there ? (group / LINE_GROUPS * KERNEL_WIDTH + kx) * CHANNELS + channel + i : 0;
                const u32 in_row = ((k % SPAN / CHUNK ^ output % 8) << 4) + k % CHUNK * sizeof(real);
                const u32 at = blocks + k / SPAN * BLOCK_BYTES + output * ROW_BYTES + in_row;
                const u32 loaded[2] = {load_element(at), load_element(at + 8 * ROW_BYTES)};
                words[0] |= there ? loaded[0] << (i * 16) : 0;
                words[1] |= there ? loaded[1] << (i * 16) : 0;
            }
            weights[step][half_step * 2] = words[0];
            weights[step][half_step * 2 + 1] = words[1];
        }
    }
}

// The larger and the smaller of each element of two words, or NaN.
#if REAL == 0
#define TESSERA_ELEMENTS "f32"
#elif REAL == 1
#define TESSERA_ELEMENTS "bf16x2"
#else
#define TESSERA_ELEMENTS "f16x2"
#endif
__device__ __forceinline__ u32 larger(u32 a, u32 b) {
    asm("max.NaN." TESSERA_ELEMENTS " %0, %0, %1;" : "+r"(a) : "r"(b));
    return a;
}
__device__ __forceinline__ u32 smaller(u32 a, u32 b) {
    asm("min.NaN." TESSERA_ELEMENTS " %0, %0, %1;" : "+r"(a) : "r"(b));
    return a;
}
#undef TESSERA_ELEMENTS

// Pairs of pixels on their way: how many pixels of each there are.
template <int COUNT> struct Pairs {
    i32 present[COUNT];
    u32 words[COUNT][WORDS];
};

// The lines of inputs that a tile sees, in pairs of pixels, which start at an even pixel of the image.
struct Lines {
    u64 image;       // of the item
    u32 lines;       // in shared memory
    i32 top, left;   // the place in the image of line 0's first pixel
    i32 first;       // pair of a line that the tile sees first
    i32 pairs;       // that it sees
    i32 height, width;

#if PLANES
    __device__ __forceinline__ u64 plane_bytes() const { return u64(height) * width * sizeof(float); }

    // A pair is two floats of every plane.
    __device__ __forceinline__ void load_pair(u32 (&words)[WORDS], i32 present, i32 y, i32 pixel) const {
        const u64 at = image + (i64(y) * width + pixel) * sizeof(float);
        if (present == 2 && (at | plane_bytes()) % 8 == 0) {
#pragma unroll
            for (int channel = 0; channel < CHANNELS; channel++) {
                const uint2 two = *global<const uint2>(at + channel * plane_bytes());
                words[channel * 2] = two.x;
                words[channel * 2 + 1] = two.y;
            }
        } else if (present > 0) {
#pragma unroll
            for (int channel = 0; channel < CHANNELS; channel++) {
                const u32* two = global<const u32>(at + channel * plane_bytes());
                words[channel * 2] = two[0];
                words[channel * 2 + 1] = present == 2 ? two[1] : 0;
            }
        }
    }
    // A pixel of a pair that was read, rounded.
    static __device__ __forceinline__ Pixel pixel_of(const u32 (&words)[WORDS], int which) {
        float channels[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int channel = 0; channel < CHANNELS; channel++) channels[channel] = __uint_as_float(words[channel * 2 + which]);
        Pixel pixel;
#pragma unroll
        for (int i = 0; i < 4 / PER_WORD; i++) pixel.words[i] = word_of(channels[i * PER_WORD], channels[(i + 1) * PER_WORD - 1]);
        return pixel;
    }
#else
    // A pair is WORDS words that lie together.
    __device__ __forceinline__ void load_pair(u32 (&words)[WORDS], i32 present, i32 y, i32 pixel) const {
        const u64 at = image + (i64(y) * width + pixel) * i64(CHANNELS * sizeof(x_type));
        if (present == 2 && at % 4 == 0) {
#pragma unroll
            for (int j = 0; j < WORDS; j++) words[j] = global<const u32>(at)[j];
        } else if (FLOATS) {
#pragma unroll
            for (int j = 0; j < CHANNELS; j++) words[j] = present > 0 ? global<const u32>(at)[j] : 0;
        } else if (present > 0) {
#pragma unroll
            for (int j = 0; j < CHANNELS; j++) {
                words[j] = global<const u16>(at)[j * 2 < present * CHANNELS ? j * 2 : 0];
                if (j * 2 + 1 < present * CHANNELS) words[j] |= u32(global<const u16>(at)[j * 2 + 1]) << 16;
            }
        }
    }
    // A pixel of a pair that was read.
    static __device__ __forceinline__ Pixel pixel_of(const u32 (&words)[WORDS], int which) {
        u32 channels[4] = {0, 0, 0, 0};
#pragma unroll
        for (int channel = 0; channel < CHANNELS; channel++) {
            const int at = which * CHANNELS + channel;
            channels[channel] = FLOATS ? words[at % WORDS] : at % 2 ? words[at / 2] >> 16 : words[at / 2] & 0xffff;
        }
        Pixel pixel;
#pragma unroll
        for (int i = 0; i < 4 / PER_WORD; i++)
            pixel.words[i] = FLOATS ? channels[i] : channels[i * PER_WORD] | channels[(i + 1) * PER_WORD - 1] << 16;
        return pixel;
    }
#endif

    // Asks for pairs `from` + thread, + THREADS, ..., which are counted over all lines, as far as they come before `end`.
    template <int COUNT> __device__ __forceinline__ void load(Pairs<COUNT>& held, u32 from, u32 end) const {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const u32 pair = from + threadIdx.x + i * THREADS;
            const i32 y = top + i32(pair / PAIRS), of_line = pair % PAIRS, pixel = (first + of_line) * 2;
            const bool there = pair < end & of_line < pairs & y >= 0 & y < height;
            held.present[i] = there ? min(2, width - pixel) : 0;
            load_pair(held.words[i], held.present[i], y, pixel);
        }
    }
    // Spreads what was asked for from `from` on to four channels a pixel.
    template <int COUNT> __device__ __forceinline__ void put(const Pairs<COUNT>& held, u32 from) const {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const u32 pair = from + threadIdx.x + i * THREADS;
            const i32 pixel = (first + i32(pair % PAIRS)) * 2 - left;
            const u32 to = lines + pair / PAIRS * LINE_BYTES;
#pragma unroll
            for (int j = 0; j < 2; j++) {
                if (j < held.present[i] && u32(pixel + j) < PIXELS) store_pixel(to + pixel_at(pixel + j), pixel_of(held.words[i], j));
            }
        }
    }
    // Asks the cache for lines `from` to `end`, as far as they are in the image.
    __device__ __forceinline__ void prefetch(u32 from, u32 end) const {
        constexpr u32 PIXEL = PLANES ? sizeof(float) : CHANNELS * sizeof(x_type), OF_LINE = PLANES ? CHANNELS : 1;
        for (u32 index = from * OF_LINE + threadIdx.x; index < end * OF_LINE; index += THREADS) {
            const i32 y = top + i32(index / OF_LINE), last = min((first + pairs) * 2, width);
            if (y < 0 | y >= height) continue;
            const u64 line = image + index % OF_LINE * (u64(height) * width * PIXEL) + u64(y) * width * PIXEL;
            prefetch_bulk(line + u64(first) * 2 * PIXEL, line + u64(last) * PIXEL);
        }
    }
};

// The line of sums that a line of outputs sees last.
__device__ __forceinline__ u32 last_seen(const Params& p, u32 line) {
    return min(line * POOL_DOWN + POOL_HEIGHT - POOL_TOP, p.sum_height) - 1;
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) kernel(const __grid_constant__ Params p) {
    extern __shared__ __align__(128) unsigned char dynamic[];
    __shared__ u64 filled;
    const u32 thread = threadIdx.x, staged = shared_address(dynamic), lines = staged + STAGED_BYTES;
    const u32 tile = p.m_tiles.quotient(blockIdx.x), m0 = (blockIdx.x - tile * p.m_tiles.value) * BM;
    const u32 item = p.item_tiles.quotient(tile), of_item = tile - item * p.item_tiles.value;
    const u32 strip = p.line.quotient(of_item), first_column = (of_item - strip * p.line.value) * p.turns;
    if (!has_item(p.launch, item)) return;
    const u32 lane = p.launch.lane_of[item];
    const u64 slot = p.launch.weights[lane];
    const Rows rows = {true, lane, item, 0, p.rows.value};
    const u32 out_width = p.out_width.value, out_height = p.out_width.quotient(p.rows.value);
    const u32 first_line = strip * p.plane, end_line = min(first_line + p.plane, out_height);  // of outputs
    const u32 y0 = max(i32(first_line * POOL_DOWN) - POOL_TOP, 0), count = last_seen(p, end_line - 1) + 1 - y0;  // lines of sums
    const u32 column0 = max(i32(first_column * POOL_ACROSS) - POOL_LEFT, 0);  // of sums

    if (thread == 0) {
        barrier_init(&filled, 1);
        barriers_are_ready();
        barrier_expect(&filled, p.steps * BLOCK_BYTES);
        copy_bulk(staged, slot + p.weights + u64(m0 / 64) * p.steps * BLOCK_BYTES, p.steps * BLOCK_BYTES, &filled);
    }
    [[maybe_unused]] const u32 own = thread / 32 * 16 + thread % 32 / 4;  // this thread's first output, the other is 8 further
    float bias[2] = {0.0f, 0.0f};
#if BIAS
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (m0 + own + i * 8 < p.n) bias[i] = global<const float>(slot + p.bias)[m0 + own + i * 8];
    }
#endif
    __syncthreads();
    barrier_wait(&filled, 0);
    u32 weights[STEPS][4];
    take_weights(staged, thread, weights);
    __syncthreads();
    for (u32 byte = thread * 16; byte < ((count - 1) * 2 + KERNEL_HEIGHT) * LINE_BYTES; byte += THREADS * 16) store_zeros(lines + byte);
    __syncthreads();

    dependency_wait(p.launch);
    Lines input;
    input.image = __cvta_generic_to_global(at<const x_type>(p.launch, p.x, item));
    input.lines = lines;
    input.top = i32(y0 * 2) - i32(p.top);
    input.left = i32(column0 * 2) - i32(p.left);
    input.height = p.height;
    input.width = p.width;
    input.first = max(input.left, 0) / 2;
    input.pairs = (min(input.left + PIXELS, input.width) + 1) / 2 - input.first;
    {
        Pairs<FIRST> held;
        input.load(held, 0, KERNEL_HEIGHT * PAIRS);
        input.prefetch(KERNEL_HEIGHT, (count - 1) * 2 + KERNEL_HEIGHT);
        input.put(held, 0);
    }
    publish_shared();
    dependents_may_start();
    __syncthreads();

    const u32 outputs = min(u32(BM), p.n - m0), columns = min(p.turns, out_width - first_column);
    [[maybe_unused]] const u32 low = FLOATS ? __float_as_uint(p.low) : word_of(p.low, p.low);
    [[maybe_unused]] const u32 high = FLOATS ? __float_as_uint(p.high) : word_of(p.high, p.high);
    // A word as it is written. Rounding keeps order, so a clip may come last.
    auto finished = [&](u32 word) {
        const u32 clipped = ACTIVATION == 1 ? smaller(larger(word, low), high) : word;
        return FLOATS ? __float_as_uint(to_buffer<float>(__uint_as_float(clipped))) : clipped;
    };
    // Where the columns that a column of outputs sees are staged: those beside the image are its first or last.
    auto seen_by = [&](u32 column, int tap) {
        if (!POOLS) return staged + column * STAGED_PITCH;
        const i32 at = i32((first_column + column) * POOL_ACROSS + tap) - POOL_LEFT;
        return staged + (min(u32(max(at, i32(column0))), p.sum_width - 1) - column0) * STAGED_PITCH;
    };
    // The line of outputs whose lines of sums are staged.
    auto write = [&](u32 line) {
        const u64 to = p.out.base + out_element(p, rows, 0, line * out_width + first_column, m0) * sizeof(real);
        if (p.vector) {
            const u32 chunk = thread % STAGED_CHUNKS;
            if (chunk * CHUNK >= outputs) return;
#pragma unroll
            for (u32 start = 0; start < MOST_COLUMNS; start += SWEEP * TOGETHER) {
                Chunk chunks[TOGETHER][POOL_WIDTH];
#pragma unroll
                for (u32 i = 0; i < TOGETHER; i++) {
#pragma unroll
                    for (int tap = 0; tap < POOL_WIDTH; tap++) {
                        const u32 column = start + thread / STAGED_CHUNKS + i * SWEEP;
                        if (start + i * SWEEP < MOST_COLUMNS) chunks[i][tap] = load_staged(seen_by(column, tap) + chunk * 16);
                    }
                }
#pragma unroll
                for (u32 i = 0; i < TOGETHER; i++) {
                    const u32 column = start + thread / STAGED_CHUNKS + i * SWEEP;
                    if (start + i * SWEEP >= MOST_COLUMNS || column >= columns) continue;
                    Chunk& chosen = chunks[i][0];
#pragma unroll
                    for (int word = 0; word < 4; word++) {
#pragma unroll
                        for (int tap = 1; tap < POOL_WIDTH; tap++) chosen.words[word] = larger(chosen.words[word], chunks[i][tap].words[word]);
                        chosen.words[word] = finished(chosen.words[word]);
                    }
                    store_chunk(to + (column * p.n + chunk * CHUNK) * sizeof(real), chosen);
                }
            }
            return;
        }
        const u32 output = thread % BM;
        if (output >= outputs) return;
#pragma unroll 1
        for (u32 column = thread / BM; column < columns; column += THREADS / BM) {
            u32 chosen = load_element(seen_by(column, 0) + output * sizeof(real));
#pragma unroll
            for (int tap = 1; tap < POOL_WIDTH; tap++) chosen = larger(chosen, load_element(seen_by(column, tap) + output * sizeof(real)));
            typedef typename Bits<sizeof(real)>::type bits;
            global<bits>(to)[column * p.n + output] = bits(finished(chosen));
        }
    };

    // Puts this thread's elements of 16 columns where they wait to be written.
    auto stage = [&](u32 n, const u32 (&words)[HELD]) {
#if REAL == 0
#pragma unroll
        for (u32 i = 0; i < HELD; i++) {
            const u32 column = n * 16 + i / 4 * 8 + thread % 4 * 2 + i % 2;
            store_word(staged + column * STAGED_PITCH + (own + i / 2 % 2 * 8) * sizeof(real), words[i]);
        }
#else
        const u32 column = n * 16 + thread % 32 / 16 * 8 + thread % 8, output = thread / 32 * 16 + thread % 16 / 8 * 8;
        store_matrices_transposed(staged + column * STAGED_PITCH + output * sizeof(real), words);
#endif
    };

    float sums[BN / 2];
    // The largest so far of the lines that the next line of outputs sees.
    [[maybe_unused]] const u32 lowest = word_of(__uint_as_float(0xff800000), __uint_as_float(0xff800000));
    [[maybe_unused]] u32 largest[POOLS ? BN / 16 * HELD : 1];
    if (POOLS) {
#pragma unroll
        for (int i = 0; i < BN / 16 * HELD; i++) largest[i] = lowest;
    }
    u32 line = first_line, ready = NONE;  // of outputs: the next, and the one that is staged
#pragma unroll 1
    for (u32 y = 0; y < count; y++) {
        clear(sums);
        products_begin();
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            const u32 at = group_at(group_of(step, 0)), apart = group_at(group_of(step, 1)) - at;
            multiply(sums, weights[step], planar(lines + y * 2 * LINE_BYTES + at, apart / 16));
        }
        products_commit();
        // The next line of sums sees two lines more.
        const u32 next = (KERNEL_HEIGHT + y * 2) * PAIRS;
        Pairs<AHEAD> held;
        input.load(held, next, y + 1 < count ? next + 2 * PAIRS : 0);
        if (ready != NONE) write(ready);
        products_wait<0>();
        input.put(held, next);
        const bool ends = !POOLS || y0 + y == last_seen(p, line);  // the line of outputs
        __syncthreads();  // what was staged is written

        // Finishes this thread's elements: of 16 columns 8 each of two outputs.
        if (thread / 32 * 16 < outputs) {
#pragma unroll
            for (int n = 0; n < BN / 16; n++) {
                u32 words[HELD];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float pair[2];
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        pair[j] = sums[n * 8 + i * 2 + j] + bias[i % 2];
#if RESIDUAL
                        const u32 column = column0 + n * 16 + i / 2 * 8 + thread % 4 * 2 + j, output = m0 + own + i % 2 * 8;
                        if (column < out_width && output < p.n) {
                            const u32 row = (y0 + y) * out_width + column;
                            pair[j] += to_float(*global<const residual_type>(residual_address(p, rows, slot, 0, row, output)));
                        }
#endif
                        if (ACTIVATION != 1) pair[j] = activate(pair[j], p.low, p.high);
                    }
                    if (FLOATS) {
                        for (int j = 0; j < 2; j++) words[(i * 2 + j) % HELD] = __float_as_uint(pair[j]);
                    } else {
                        words[i] = word_of(pair[0], pair[1]);
                    }
                }
                if (POOLS) {
#pragma unroll
                    for (int i = 0; i < HELD; i++) {
                        const u32 own_line = words[i];
                        words[i] = larger(own_line, largest[n * HELD + i]);
                        largest[n * HELD + i] = !ends ? words[i] : SHARES_LINE ? own_line : lowest;
                    }
                }
                if (ends) stage(n, words);
            }
        }
        publish_shared();
        __syncthreads();
        ready = ends ? line++ : NONE;
    }
    write(ready);
}
