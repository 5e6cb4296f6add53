// What the kernels of linear layers and convolutions share: parameters, tiles, where a row's inputs lie, and the end of a sum.
//
//   out[q, g * n + o] = activation(sum over k of x(q)[g, k] * w[g][k, o] + bias[g * n + o] + residual[q, g * n + o])
//
// A row q is one output pixel, or one row of a linear layer. A lane's items lie one after the other, and so do its rows: q runs over
// items * rows of one lane. A tile is BM outputs of one group by BN rows of one lane, so it meets one set of weights. Blocks run over
// the tiles of outputs first, then of rows, then lanes: neighbours in time read the same inputs, and a lane's weights while they are in
// the cache.
//
// k walks the taps of the kernel, then a group's channels; a linear layer has one tap and k channels.
//
//   -DBM, -DBN        the tile
//   -DLINEAR=1|0      whether rows are a linear layer's, or pixels
//   -DLOADER=0|1|2|3  rows whose k lies in one piece; taps whose channels do; elements, one by one; runs of odd lengths      see Loader
//   -DBIAS=0|1        whether there is one                                               its elements are f32, in the lane's slot
//   -DRESIDUAL=0|1|2  none; a buffer; the same for every item (a constant, a weight)
//   -DRESIDUAL_TYPE, -DX_TYPE   how those operands are held, see types.cuh
#pragma once
#include "async.cuh"
#include "functions.cuh"

// n / d for n < 2^31, as a product: multiplier = ceil(2^(31 + shift) / d), shift = ceil(log2 d).
struct Divisor {
    u32 value;
    u32 multiplier;
    u32 shift;
    __device__ __forceinline__ u32 quotient(u32 n) const { return u32((u64(n) * multiplier) >> (31 + shift)); }
};

struct Params {
    Launch launch;
    Operand x;
    Operand out;
    Operand residual;
    u64 weights;  // offset in the slot
    u64 bias;     // likewise
    i64 x_offset;  // elements of an item before its first row
    i64 x_row;     // elements between rows of a linear layer
    Divisor rows;        // of one item
    Divisor out_width;   // 1 for a linear layer
    Divisor m_tiles;     // of all groups
    Divisor group_tiles;  // of one group
    Divisor in_per_group;
    Divisor run;  // elements that lie together: a row of the kernel's taps, or k
    u32 k;
    u32 n;       // outputs of one group
    u32 groups;
    u32 blocks;  // of 64 outputs, of one group
    u32 steps;   // over k
    u32 vector;  // whether outputs (and a residual) can be moved 16 bytes at a time
    u32 height, width;  // of x
    u32 kernel_height, kernel_width;
    u32 stride_y, stride_x;
    u32 dilation_y, dilation_x;
    u32 top, left;
    float low, high;
    // Of windows that stay in shared memory, see product_window.cu, of stems, and of product_expand.cu, see there; else 1 and 0.
    Divisor line;        // positions of a padded line
    Divisor item_tiles;  // tiles of rows of one item; blocks that share a tile of rows
    u32 plane;           // places for positions, of 8 or 4 channels
    u32 turns;           // tiles that a block has one after the other, where it holds its weights or its inputs
    u32 sum_height, sum_width;  // of the image of sums, which is that of the outputs but for a stem that pools
    // Of product_fed.cu, see there; else 0.
    u64 handed;  // sums on their way from block to block
    u64 words;   // that say they are there: zero before and after
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/product.rs");

typedef TypeOf<X_TYPE>::type x_type;
#if RESIDUAL
typedef TypeOf<RESIDUAL_TYPE>::type residual_type;
#endif

// Global memory at an address, which the compiler cannot see to be that: it would use the slower loads that find out.
template <typename T> __device__ __forceinline__ T* global(u64 address) { return static_cast<T*>(__cvta_global_to_generic(address)); }

__device__ __forceinline__ Chunk load_chunk(u64 address) {
    Chunk c;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(c.words[0]), "=r"(c.words[1]), "=r"(c.words[2]), "=r"(c.words[3])
                 : "l"(address));
    return c;
}
__device__ __forceinline__ void store_chunk(u64 address, const Chunk& c) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(c.words[0]), "r"(c.words[1]), "r"(c.words[2]),
                 "r"(c.words[3])
                 : "memory");
}
// What `load_chunk` does, from shared memory.
__device__ __forceinline__ Chunk load_staged(u32 shared) {
    Chunk c;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(c.words[0]), "=r"(c.words[1]), "=r"(c.words[2]), "=r"(c.words[3])
                 : "r"(shared)
                 : "memory");
    return c;
}

template <int BYTES> struct Bits;
template <> struct Bits<2> { typedef u16 type; };
template <> struct Bits<4> { typedef u32 type; };

// The elements of a chunk.
template <typename T> struct Chunked;
template <> struct Chunked<float> {
    static constexpr int COUNT = 4;
    static __device__ __forceinline__ float get(const Chunk& c, int i) { return __uint_as_float(c.words[i]); }
    static __device__ __forceinline__ void set(Chunk& c, int i, float x) { c.words[i] = __float_as_uint(x); }
};
template <> struct Chunked<bf16> {
    static constexpr int COUNT = 8;
    static __device__ __forceinline__ float get(const Chunk& c, int i) {
        return to_float(bf16{u16(c.words[i / 2] >> (i % 2 * 16))});
    }
    static __device__ __forceinline__ void set(Chunk& c, int i, float x) {
        const u32 bits = u32(from_float<bf16>(x).bits) << (i % 2 * 16);
        c.words[i / 2] = i % 2 ? c.words[i / 2] | bits : bits;
    }
};
template <> struct Chunked<half> {
    static constexpr int COUNT = 8;
    static __device__ __forceinline__ float get(const Chunk& c, int i) {
        return to_float(half{u16(c.words[i / 2] >> (i % 2 * 16))});
    }
    static __device__ __forceinline__ void set(Chunk& c, int i, float x) {
        const u32 bits = u32(from_float<half>(x).bits) << (i % 2 * 16);
        c.words[i / 2] = i % 2 ? c.words[i / 2] | bits : bits;
    }
};
constexpr int CHUNK = Chunked<real>::COUNT;

// Which rows of which lane a block computes.
struct Rows {
    bool any;
    u32 lane;
    u32 item;   // the lane's first item in the launch
    u32 first;  // row of the lane
    u32 end;    // rows of the lane
};

// The tile of rows number `tile`; whole warps call it.
__device__ __forceinline__ Rows find_rows(const Params& p, u32 tile) {
    const u32 lanes = p.launch.counts[0], uniform = p.launch.counts[2];
    Rows rows = {false, 0, 0, 0, 0};
    if (uniform != 0) {
        rows.end = uniform * p.rows.value;
        const u32 tiles = (rows.end + BN - 1) / BN;
        rows.lane = tile / tiles;
        rows.item = rows.lane * uniform;
        rows.first = (tile - rows.lane * tiles) * BN;
        rows.any = rows.lane < lanes;
        return rows;
    }
    const u32 thread = threadIdx.x & 31;
    u32 before = 0;  // tiles of the lanes before `start`
    for (u32 start = 0; start < lanes; start += 32) {
        const u32 lane = start + thread;
        const u32 item = p.launch.first[min(lane, lanes)], next = p.launch.first[min(lane + 1, lanes)];
        const u32 count = (next - item) * p.rows.value, tiles = (count + BN - 1) / BN;
        u32 upto = before + tiles;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const u32 other = __shfl_up_sync(~0u, upto - before, step);
            if (thread >= step) upto += other;
        }
        const u32 beyond = __ballot_sync(~0u, tile < upto);
        if (beyond != 0) {
            const int owner = __ffs(beyond) - 1;
            rows.any = true;
            rows.lane = start + owner;
            rows.item = __shfl_sync(~0u, item, owner);
            rows.end = __shfl_sync(~0u, count, owner);
            rows.first = (tile - __shfl_sync(~0u, upto - tiles, owner)) * BN;
            return rows;
        }
        before = __shfl_sync(~0u, upto, 31);
    }
    return rows;
}

// Tiles of rows of this launch; whole warps call it.
__device__ __forceinline__ u32 count_row_tiles(const Params& p) {
    const u32 lanes = p.launch.counts[0], uniform = p.launch.counts[2];
    if (uniform != 0) return lanes * ((uniform * p.rows.value + BN - 1) / BN);
    u32 tiles = 0;
    for (u32 lane = threadIdx.x % 32; lane < lanes; lane += 32) {
        tiles += ((p.launch.first[lane + 1] - p.launch.first[lane]) * p.rows.value + BN - 1) / BN;
    }
    return __reduce_add_sync(~0u, tiles);
}

// Where a row's inputs lie: elements from the lane's first item to the row's first tap and channel 0 of the group, and the place of that
// tap in the image, which may be outside.
struct Source {
    i64 element;
    i32 y, x;
};
__device__ __forceinline__ Source source_of(const Params& p, u32 row, u32 group) {
    const u32 item = p.rows.quotient(row), pixel = row - item * p.rows.value;
    Source source;
#if LINEAR
    source.y = source.x = 0;
    const i64 in_item = i64(pixel) * p.x_row;
#else
    const u32 oy = p.out_width.quotient(pixel), ox = pixel - oy * p.out_width.value;
    source.y = i32(oy * p.stride_y) - i32(p.top);
    source.x = i32(ox * p.stride_x) - i32(p.left);
    const u32 channels = p.groups * p.in_per_group.value;
    const i64 in_item = (i64(source.y) * p.width + source.x) * channels + group * p.in_per_group.value;
#endif
    source.element = i64(item) * i64(p.x.item_bytes / sizeof(x_type)) + in_item;
    return source;
}

// The address of the lane's first item's first row.
__device__ __forceinline__ u64 inputs_of(const Params& p, const Rows& rows, u64 slot) {
    const u64 start = p.x.base + (p.x.kind == WEIGHT ? slot : 0) + p.x.item_bytes * rows.item;
    return start + p.x_offset * i64(sizeof(x_type));
}

// Where a thread stands in k: a tap, and a channel of the group.
struct Place {
    u32 channel;
    u32 ky, kx;
    __device__ __forceinline__ Place(const Params& p, u32 k) {
        const u32 tap = p.in_per_group.quotient(k);
        channel = k - tap * p.in_per_group.value;
        ky = tap / p.kernel_width;
        kx = tap - ky * p.kernel_width;
    }
    __device__ __forceinline__ void advance(const Params& p, u32 by) {
        channel += by;
        while (channel >= p.in_per_group.value) {
            channel -= p.in_per_group.value;
            if (++kx == p.kernel_width) {
                kx = 0;
                ky++;
            }
        }
    }
};

// One element of the sum's input: zero outside the image and beyond k.
__device__ __forceinline__ float gathered(const Params& p, u64 inputs, const Source& source, const Place& place) {
    const u32 dy = place.ky * p.dilation_y, dx = place.kx * p.dilation_x;
    const bool there = place.ky < p.kernel_height && u32(source.y + i32(dy)) < p.height && u32(source.x + i32(dx)) < p.width;
    if (!there) return 0.0f;
    const i64 tap = (i64(dy) * p.width + dx) * (p.groups * p.in_per_group.value) + place.channel;
    return to_float(global<const x_type>(inputs)[source.element + tap]);
}

// Brings rows of x into shared memory, a stage of ROW_CHUNKS * CHUNK of k at a time, in order. Every thread has one chunk's place in k and a
// few rows. `Image::at(row, chunk)` is where a chunk lies in a stage.
//
//   rows, taps  chunks that lie in one piece and are aligned are copied by the hardware while the threads go on
//   runs        chunks put together from at most two pieces: all channels of a kernel's row of taps lie together, so a stem with
//               three channels has runs of 21, and a linear layer of any length one run; addresses are worked out once per chunk
//   elements    each on its own: groups, dilations and types that fit nothing else
// The latter two are in place when `load` returns.
template <int THREADS, int ROW_CHUNKS, typename Image> struct Loader {
    static constexpr int PASS = THREADS / ROW_CHUNKS, LOADS = (BN + PASS - 1) / PASS, SPAN = ROW_CHUNKS * CHUNK;
    static_assert(THREADS % ROW_CHUNKS == 0, "threads of a row stay together");

    u64 inputs;
    u32 k;           // of this thread's chunk in the next stage
    u32 row, chunk;  // of its first
#if LOADER == 1 || LOADER == 2
    Place place;  // of k
#endif
#if LOADER >= 2
    const Source* sources;  // of the tile's rows, in shared memory
    u32 rows;               // that there are
#else
    u32 there;          // bit i: whether there is a row i
    i32 offset[LOADS];  // chunks from `inputs`
#if LOADER == 1
    i32 y[LOADS], x[LOADS];
#endif
#endif

    // The first stage begins at stage `first` of k. `table` has room for BN sources when elements are gathered. A barrier of the block comes
    // before the first `load`.
    __device__ __forceinline__ Loader(const Params& p, const Rows& tile, u64 slot, u32 group, u32 first, Source* table)
        : inputs(inputs_of(p, tile, slot)), k(first * SPAN + threadIdx.x % ROW_CHUNKS * CHUNK), row(threadIdx.x / ROW_CHUNKS),
          chunk(threadIdx.x % ROW_CHUNKS)
#if LOADER == 1 || LOADER == 2
          , place(p, k)
#endif
    {
#if LOADER >= 2
        for (u32 i = threadIdx.x; i < BN; i += THREADS) table[i] = source_of(p, tile.first + i, group);
        sources = table;
        rows = tile.end - tile.first;
#else
        there = 0;
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const u32 at = row + i * PASS;
            if (at < BN && tile.first + at < tile.end) there |= 1u << i;
            const Source source = source_of(p, tile.first + at, group);
            offset[i] = i32(source.element / CHUNK);
#if LOADER == 1
            y[i] = source.y;
            x[i] = source.x;
#endif
        }
#endif
    }

    static __device__ __forceinline__ void put(u32 to, const Chunk& c) {
        asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(c.words[0]), "r"(c.words[1]), "r"(c.words[2]), "r"(c.words[3])
                     : "memory");
    }

    // The next stage, to `stage`.
    __device__ __forceinline__ void load(const Params& p, u32 stage) {
#if LOADER == 3
        typedef typename Bits<sizeof(x_type)>::type bits;
        constexpr int WORD = 4 / sizeof(x_type);  // elements of a word
        const u32 ky = p.run.quotient(k), start = k - ky * p.run.value, before = p.run.value - start;  // elements of the first piece
        const u32 channels = p.in_per_group.value, line = p.width * channels;
        const u32 pitch = p.dilation_y * line;  // between runs
        u32 offset[CHUNK], real_ones = 0;
#pragma unroll
        for (u32 i = 0; i < CHUNK; i++) {
            offset[i] = (i < before ? ky * pitch + start + i : (ky + 1) * pitch + i - before) * u32(sizeof(x_type));
            real_ones |= u32(k + i < p.k) << i;
        }
#pragma unroll 2
        for (u32 at = row; at < BN; at += PASS) {
            const Source source = sources[at];
            u32 present = at < rows ? real_ones : 0;
#if !LINEAR
            const bool inside = source.y >= 0 & source.x >= 0 & source.y + (p.kernel_height - 1) * p.dilation_y < p.height &
                                source.x + p.kernel_width <= p.width;
            if (!inside) {
                u32 seen = 0;
#pragma unroll
                for (u32 i = 0; i < CHUNK; i++) {
                    const u32 y = source.y + (i < before ? ky : ky + 1) * p.dilation_y;
                    const u32 element = source.x * i32(channels) + (i < before ? start + i : i - before);
                    seen |= u32(y < p.height & element < line) << i;
                }
                present &= seen;
            }
#endif
            const u64 from = inputs + source.element * i64(sizeof(x_type));
            u32 elements[CHUNK];
#pragma unroll
            for (int i = 0; i < CHUNK; i++) {
                elements[i] = 0;
                if (present >> i & 1) elements[i] = *global<const bits>(from + offset[i]);
            }
            Chunk c;
#pragma unroll
            for (int i = 0; i < 4; i++) c.words[i] = WORD == 1 ? elements[i * WORD] : elements[i * WORD] | elements[(i + 1) * WORD - 1] << 16;
            put(stage + Image::at(at, chunk), c);
        }
#elif LOADER == 2
#pragma unroll 1
        for (u32 at = row; at < BN; at += PASS) {
            Chunk c = {};
            if (at < rows) {
                const Source source = sources[at];
                Place here = place;
#pragma unroll
                for (int i = 0; i < CHUNK; i++) {
                    Chunked<real>::set(c, i, gathered(p, inputs, source, here));
                    here.advance(p, 1);
                }
            }
            put(stage + Image::at(at, chunk), c);
        }
        place.advance(p, SPAN);
#else
        u32 present = k < p.k ? there : 0;
#if LOADER == 1
        const u32 dy = place.ky * p.dilation_y, dx = place.kx * p.dilation_x;
        const i32 ahead = i32((dy * p.width + dx) * (p.groups * p.in_per_group.value) + place.channel) / CHUNK;
        place.advance(p, SPAN);
#else
        const i32 ahead = k / CHUNK;
#endif
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const u32 at = row + i * PASS;
            if (BN % PASS != 0 && at >= BN) continue;
            bool inside = present >> i & 1;
#if LOADER == 1
            inside &= (u32(y[i] + i32(dy)) < p.height) & (u32(x[i] + i32(dx)) < p.width);
#endif
            // Where nothing is read the address may be anything.
            copy_chunk(stage + Image::at(at, chunk), inputs + i64(offset[i] + ahead) * 16, inside);
        }
#endif
        k += SPAN;
    }
};

// ---- the end of a sum

// Elements of `out` before row `row` of the lane, output `output` of the group.
__device__ __forceinline__ u64 out_element(const Params& p, const Rows& rows, u32 group, u32 row, u32 output) {
    return (u64(rows.item) * p.rows.value + row) * (u64(p.groups) * p.n) + group * p.n + output;
}

#if RESIDUAL
__device__ __forceinline__ u64 residual_address(const Params& p, const Rows& rows, u64 slot, u32 group, u32 row, u32 output) {
#if RESIDUAL == 1
    return p.residual.base + out_element(p, rows, group, row, output) * sizeof(residual_type);
#else
    const u32 in_item = row - p.rows.quotient(row) * p.rows.value;
    const u64 element = u64(in_item) * p.groups * p.n + group * p.n + output;
    return p.residual.base + (p.residual.kind == WEIGHT ? slot : 0) + element * sizeof(residual_type);
#endif
}
#endif

#if RESIDUAL
// COUNT elements at `address`, of which `left` are there. They are read as a chunk where chunks are aligned.
template <int COUNT>
__device__ __forceinline__ void load_residual(const Params& p, u64 address, u32 left, float (&values)[COUNT]) {
    if (COUNT == Chunked<residual_type>::COUNT && p.vector) {
        const Chunk c = load_chunk(address);
#pragma unroll
        for (int i = 0; i < COUNT; i++) values[i] = Chunked<residual_type>::get(c, i);
        return;
    }
#pragma unroll
    for (int i = 0; i < COUNT; i++) values[i] = i < left ? to_float(global<const residual_type>(address)[i]) : 0.0f;
}
#endif

// Rounds COUNT finished elements, of which `left` belong to the group, and writes them from element `element` of `out` on.
template <int COUNT>
__device__ __forceinline__ void store(const Params& p, u64 element, u32 left, const float (&values)[COUNT]) {
    const u64 address = p.out.base + element * sizeof(real);
    if (COUNT == CHUNK && p.vector) {
        Chunk c = {};
#pragma unroll
        for (int i = 0; i < COUNT; i++) Chunked<real>::set(c, i, to_buffer<float>(values[i]));  // halves are rounded as they are packed
        store_chunk(address, c);
        return;
    }
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        if (i < left) global<real>(address)[i] = to_buffer<real>(values[i]);
    }
}
