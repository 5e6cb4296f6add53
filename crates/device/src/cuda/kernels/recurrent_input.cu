// The input's share of a recurrent layer's gates, for all times at once: gates[row][unit][gate] = bias + x[row] * w, in f32.
//
//   row     one time of one item; the rows of a lane are one list, cut into parts of ROWS
//   block   64 units (a warp has eight) x one part: blockIdx.y, blockIdx.x; 256 threads
//   w       goes from global memory straight into the registers of its only reader, one block of k ahead (recurrent_fragments.cuh)
//   x       in shared memory, DEPTH blocks of k at a time, for all warps
//
// The weights are the smaller side of the product only when a lane has many rows: with 32 of them (one item of 32 times) this is bound by
// reading w once, 64 MB for 32 lanes of 512 units in bf16, 15 us.
//
//   -DCELL  -DHIDDEN=n  -DX_TYPE  how x is held   -DX_CHUNKS=1  x can be read 16 bytes at a time   -DBIAS=1  there is one
#include "recurrent_fragments.cuh"

struct Params {
    Launch launch;
    Walk x;  // [time, input]
    Operand w;
    Operand bias;
    u64 gates;  // Gates [rows][HIDDEN]
    u32 time, input;
    u32 k_blocks, unused;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/recurrent.rs");

constexpr u32 ROWS = 32, ROW_TILES = ROWS / 8, DEPTH = 4;
constexpr u32 SLICE_WORDS = DEPTH * BLOCK_ROW_BYTES / 4;
constexpr u32 PITCH = SLICE_WORDS + RIGHT_PADDING / 4;

// Words `first` to `first + SLICE_WORDS` of the part's rows of x.
__device__ __forceinline__ void stage(const Params& p, const Part& part, u32 first, u32 (*slice)[PITCH]) {
    typedef TypeOf<X_TYPE>::type X;
#if X_CHUNKS
    constexpr u32 STEP = 4;
#else
    constexpr u32 STEP = 1;
#endif
    for (u32 index = threadIdx.x; index < ROWS * SLICE_WORDS / STEP; index += 256) {
        const u32 row = index / (SLICE_WORDS / STEP), word = index % (SLICE_WORDS / STEP) * STEP;
        const u32 k = (first + word) * PER_WORD;
        const bool inside = row < part.rows && k < p.input;
        const u32 number = part.first + row;
        const X* x = at<const X>(p.launch, p.x.operand, number / p.time) + p.x.offset + i64(number % p.time) * p.x.strides[0] + k;
#if X_CHUNKS
        const uint4 chunk = inside ? *reinterpret_cast<const uint4*>(x) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (u32 i = 0; i < STEP; i++) {
            const u32 held = word_at(chunk, i);
            slice[row][right_place(word + i)] = REAL == 0 ? word_of(__uint_as_float(held), 0.0f) : held;
        }
#else
        const bool second = inside && PER_WORD == 2 && k + 1 < p.input;
        slice[row][right_place(word)] = word_of(inside ? to_float(x[0]) : 0.0f, second ? to_float(x[1]) : 0.0f);
#endif
    }
}

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    __shared__ __align__(16) u32 slice[ROWS][PITCH];
    const u32 group = blockIdx.y * 8 + threadIdx.x / 32;
    const u32 r = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const Part part = part_of(p.launch, blockIdx.x, p.time, ROWS);
    if (part.rows == 0) {
        dependency_wait(p.launch);
        return;
    }
    const u64 slot = p.launch.weights[part.lane];
    const Columns columns = columns_of(slot + p.w.base, group, p.k_blocks);
    Fragments next = fragments_of(columns, 0);
    dependency_wait(p.launch);
    dependents_may_start();

    float sums[ROW_TILES][2][TILES][4] = {};
    for (u32 first = 0; first < p.k_blocks; first += DEPTH) {
        __syncthreads();
        stage(p, part, first * (BLOCK_ROW_BYTES / 4), slice);
        __syncthreads();
        const u32 end = min(first + DEPTH, p.k_blocks);
        for (u32 k_block = first; k_block < end; k_block++) {
            const Fragments now = next;
            if (k_block + 1 < p.k_blocks) next = fragments_of(columns, k_block + 1);
#pragma unroll
            for (u32 tile = 0; tile < ROW_TILES; tile++) {
                const auto* x = reinterpret_cast<const uint4*>(&slice[tile * 8 + r][(k_block - first) * (BLOCK_ROW_BYTES / 4) + t * 8]);
                multiply_block(sums[tile], now, {x[0], x[1]});
            }
        }
    }

    const u32 unit = group * GROUP + r;
    if (unit >= HIDDEN) return;
    float bias[GATES] = {};
#if BIAS
#pragma unroll
    for (u32 gate = 0; gate < GATES; gate++) bias[gate] = global<const float>(slot + p.bias.base)[gate * HIDDEN + unit];
#endif
    Gates* gates = reinterpret_cast<Gates*>(p.gates);
#pragma unroll
    for (u32 tile = 0; tile < ROW_TILES; tile++)
#pragma unroll
        for (u32 column = 0; column < 2; column++) {
            const u32 row = tile * 8 + 2 * t + column;
            if (row >= part.rows) continue;
            const auto gate_of = [&](u32 gate) {
                const u32 sum = gate % 2 * 2 + column;
                return sums[tile][0][gate / 2][sum] + sums[tile][1][gate / 2][sum] + bias[gate];
            };
            Gates all = {};
#pragma unroll
            for (u32 gate = 0; gate < GATES; gate++) all.of[gate] = gate_of(gate);
            gates[u64(part.first + row) * HIDDEN + unit] = all;
        }
}
