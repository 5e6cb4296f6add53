// Packed weights of a recurrent layer as fragments of matrix instructions, for a group of eight units.
//
//   matrix      blocks of 64 columns x 128 bytes of k (pack.rs, Layout::Blocks); a column is a gate of a unit
//   fragment    tiles of 16 rows: rows 0-7 of the first are the first gates of the eight units, rows 8-15 their second gates; the
//               next one holds the third and, where there are four, the fourth. A thread's sums are then all gates of one unit, for two
//               columns of the right side: gates, cell and state are computed where the sums are
//   chunk       16 bytes of a column's 128. Lane 4r + t reads chunks t and t + 4 of unit r, and word w of both is its part of
//               instruction w: the order in which an instruction meets k does not matter, as both sides have the same
//
// So a warp reads whole 64-byte halves of columns, 16 bytes a lane, and four instructions a tile take all of it. An instruction wants its
// words in neighbouring registers, so both sides are put in that order when they come: a tile's four words, and the right side's
// pairs, see `right_place`.
#pragma once
#include "recurrent.cuh"
#include "mma.cuh"

constexpr u32 GROUP = 8;
constexpr u32 GROUPS = (HIDDEN + GROUP - 1) / GROUP;
constexpr u32 BLOCK_COLUMNS = 64, BLOCK_ROW_BYTES = 128;
constexpr u32 TILES = (GATES + 1) / 2;

// A group's fragments of one block of k: what each tile's instruction number `word` takes.
struct Fragments {
    uint4 left[TILES][4];
};

// Where the lane's parts of a group begin.
struct Columns {
    const char* base;
    u32 at[GATES];
};

// Units beyond HIDDEN read a unit that exists; nobody reads their sums.
__device__ __forceinline__ Columns columns_of(u64 matrix, u32 group, u32 k_blocks) {
    const u32 lane = threadIdx.x % 32;
    const u32 unit = min(group * GROUP + lane / 4, HIDDEN - 1);
    Columns columns = {global<const char>(matrix), {}};
#pragma unroll
    for (u32 gate = 0; gate < GATES; gate++) {
        const u32 column = gate * HIDDEN + unit;
        const u32 row = column / BLOCK_COLUMNS * k_blocks * BLOCK_COLUMNS + column % BLOCK_COLUMNS;
        columns.at[gate] = row * BLOCK_ROW_BYTES + ((lane % 4) ^ (column % 8)) * 16;
    }
    return columns;
}

// Address of a lane's chunk; the second one is 4 chunks away under the swizzle.
__device__ __forceinline__ const uint4* chunk_of(const Columns& columns, u32 k_block, u32 gate, u32 second) {
    const u32 at = (columns.at[gate] ^ (second * 64)) + k_block * (BLOCK_COLUMNS * BLOCK_ROW_BYTES);
    return reinterpret_cast<const uint4*>(columns.base + at);
}

__device__ __forceinline__ u32 word_at(const uint4& chunk, int word) {
    return word == 0 ? chunk.x : word == 1 ? chunk.y : word == 2 ? chunk.z : chunk.w;
}

__device__ __forceinline__ Fragments fragments_of(const Columns& columns, u32 k_block) {
    uint4 chunk[GATES][2];
#pragma unroll
    for (u32 gate = 0; gate < GATES; gate++)
#pragma unroll
        for (u32 second = 0; second < 2; second++) chunk[gate][second] = __ldg(chunk_of(columns, k_block, gate, second));
    Fragments fragments;
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
#pragma unroll
        for (int word = 0; word < 4; word++) {
            // Where there is no second gate, its rows are zeros.
            const bool both = 2 * tile + 1 < GATES;
            const int second = both ? 2 * tile + 1 : 2 * tile;
            fragments.left[tile][word] = make_uint4(word_at(chunk[2 * tile][0], word), both ? word_at(chunk[second][0], word) : 0,
                                                    word_at(chunk[2 * tile][1], word), both ? word_at(chunk[second][1], word) : 0);
        }
    return fragments;
}

// Fragments as they are kept in shared memory, in 16 bytes a time: without the rows that are zeros.
constexpr u32 CHUNKS = GATES * 2;

__device__ __forceinline__ uint4 packed(const Fragments& fragments, u32 chunk) {
    const u32 tile = chunk / 4, word = chunk % 4;
    if (2 * tile + 1 < GATES) return fragments.left[tile][word];
    const uint4 first = fragments.left[tile][word * 2 % 4], second = fragments.left[tile][(word * 2 + 1) % 4];
    return make_uint4(first.x, first.z, second.x, second.z);
}
__device__ __forceinline__ void unpack(Fragments& fragments, u32 chunk, uint4 held) {
    const u32 tile = chunk / 4, word = chunk % 4;
    if (2 * tile + 1 < GATES) {
        fragments.left[tile][word] = held;
    } else {
        fragments.left[tile][word * 2 % 4] = make_uint4(held.x, 0, held.y, 0);
        fragments.left[tile][(word * 2 + 1) % 4] = make_uint4(held.z, 0, held.w, 0);
    }
}

// Where word `word` of a column of the right side is kept, in words: in each block of 32 words, what lane t of a column needs lies
// together, and in it the two words of each instruction.
__device__ __forceinline__ u32 right_place(u32 word) {
    const u32 chunk = word % 32 / 4;
    return word / 32 * 32 + chunk % 4 * 8 + word % 4 * 2 + chunk / 4;
}
// A column of the right side is kept so many bytes longer, so that eight lanes (two columns of four) touch all banks.
constexpr u32 RIGHT_PADDING = 16;

// One block of k for eight columns of the right side; `right` are the lane's eight words of its column. The even and the odd
// instructions have sums of their own, as each instruction waits for the one before it on the same sums.
__device__ __forceinline__ void multiply_block(float (&sums)[2][TILES][4], const Fragments& fragments, const uint4 (&right)[2]) {
#pragma unroll
    for (int word = 0; word < 4; word++) {
        const uint4 pairs = right[word / 2];
        const u32 b0 = word % 2 ? pairs.z : pairs.x, b1 = word % 2 ? pairs.w : pairs.y;
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            const uint4 left = fragments.left[tile][word];
            multiply_add(sums[word % 2][tile], left.x, left.y, left.z, left.w, b0, b1);
        }
    }
}
