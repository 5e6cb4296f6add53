// Attention in halves on matrix units; attention.cu says what it is, and how the softmax is kept up to date as keys pass.
//
//   block    64 queries of one head of one item, 16 a warp; 128 threads
//   keys     in tiles of 64, two of them on their way or in use, so that 128 keys are all asked for at once
//   scores   q from registers, k from shared memory; the sums of two neighbouring tiles of eight keys are, rounded, the left side of
//            the product with v: weights never leave their thread
//
// Dimensions are padded with zeros to a multiple of 16 (HEAD, VALUE), up to 128 of each. In shared memory a row is 16 bytes longer than
// its elements, an odd number of 16-byte chunks, so that the eight rows a matrix is read from touch all banks.
//
// The exponential is a power of two, one instruction; log2(e) comes in after the largest score is taken off, as the least of floats, a
// usual mask, would become -infinity by it. Weights are rounded to the plan's type; sums, softmax and mixture are f32.
//
// BERT-base, 128 tokens, 16 items: 384 blocks, three on a multiprocessor, all at once; 0.8 GFLOP and 12.6 MB, so bound by memory: 4 us.
//
//   -DQ_TYPE, -DK_TYPE, -DV_TYPE, -DMASK_TYPE  how operands are held; no MASK_TYPE without a mask
//   -DQ_CHUNKS=1, -DK_CHUNKS, -DV_CHUNKS       rows can be read 16 bytes at a time      -DOUT_PAIRS=1  written 4 bytes at a time
//   -DMASK_ROWS=1                              the mask differs from query to query     -DHEAD, -DVALUE   padded dimensions
#include "async.cuh"
#include "attention.cuh"
#include "mma.cuh"

constexpr u32 THREADS = 128, ROWS = 64, STAGES = 2;
constexpr u32 HEAD_PITCH = HEAD + 8, VALUE_PITCH = VALUE + 8;
// Blocks that a multiprocessor should have room for. Without a number the compiler spills rather than pass 128 registers.
constexpr u32 BLOCKS = HEAD + VALUE <= 128 ? 3 : 2;
constexpr float LOG2_E = 1.44269504f;

struct Shared {
    real q[ROWS][HEAD_PITCH];
    real k[STAGES][ROWS][HEAD_PITCH];
    real v[STAGES][ROWS][VALUE_PITCH];
    float mask[STAGES][ROWS];
};

// 2^x within two units in the last place.
__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Begins to copy 64 rows of `dim` elements, padded with zeros to COLUMNS; rows that are not there are zeros.
template <u32 COLUMNS, bool CHUNKS, typename T>
__device__ __forceinline__ void stage(real (*to)[COLUMNS + 8], const T* from, i64 row_stride, i64 stride, u32 rows, u32 dim) {
    if constexpr (CHUNKS) {
        constexpr u32 IN_ROW = COLUMNS / 8;
#pragma unroll
        for (u32 i = 0; i < ROWS * IN_ROW / THREADS; i++) {
            const u32 index = i * THREADS + threadIdx.x, row = index / IN_ROW, column = index % IN_ROW * 8;
            copy_chunk(shared_address(&to[row][column]), u64(from + row * row_stride + column), row < rows && column < dim);
        }
    } else {
        for (u32 index = threadIdx.x; index < ROWS * COLUMNS; index += THREADS) {
            const u32 row = index / COLUMNS, column = index % COLUMNS;
            const bool inside = row < rows && column < dim;
            to[row][column] = from_float<real>(inside ? to_float(from[row * row_stride + column * stride]) : 0.0f);
        }
    }
}

// The greatest, or the sum, of the four threads that share a query.
__device__ __forceinline__ float greatest_of_row(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ __forceinline__ float sum_of_row(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) kernel(const __grid_constant__ Params p) {
    extern __shared__ __align__(128) char memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    const u32 item = blockIdx.y;
    if (!has_item(p.launch, item)) return;
    const u32 query = blockIdx.x % p.query_tiles * ROWS, head = blockIdx.x / p.query_tiles;
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, r = lane / 4, t = lane % 4;

    const auto* q = at<const TypeOf<Q_TYPE>::type>(p.launch, p.q.operand, item) + p.q.offset + head * p.q.strides[0];
    const auto* k = at<const TypeOf<K_TYPE>::type>(p.launch, p.k.operand, item) + p.k.offset + head * p.k.strides[0];
    const auto* v = at<const TypeOf<V_TYPE>::type>(p.launch, p.v.operand, item) + p.v.offset + head * p.v.strides[0];
#ifdef MASK_TYPE
    const auto* mask = at<const TypeOf<MASK_TYPE>::type>(p.launch, p.mask.operand, item) + p.mask.offset + head * p.mask.strides[0];
#endif
    const auto stage_keys = [&](u32 tile) {
        const u32 key = tile * ROWS;
        if (key < p.keys) {
            stage<HEAD, K_CHUNKS>(shared.k[tile % STAGES], k + key * p.k.strides[1], p.k.strides[1], p.k.strides[2], p.keys - key,
                                  p.head_dim);
            stage<VALUE, V_CHUNKS>(shared.v[tile % STAGES], v + key * p.v.strides[1], p.v.strides[1], p.v.strides[2], p.keys - key,
                                   p.value_dim);
#if defined(MASK_TYPE) && !MASK_ROWS
            if (threadIdx.x < ROWS) {
                const u32 mine = key + threadIdx.x;
                shared.mask[tile % STAGES][threadIdx.x] = mine < p.keys ? to_float(mask[mine * p.mask.strides[2]]) : 0.0f;
            }
#endif
        }
        chunks_commit();
    };
    dependency_wait(p.launch);
    stage<HEAD, Q_CHUNKS>(shared.q, q + query * p.q.strides[1], p.q.strides[1], p.q.strides[2], p.queries - query, p.head_dim);
    stage_keys(0);
    stage_keys(1);
    dependents_may_start();

    u32 q_words[HEAD / 16][4];
    float mixture[VALUE / 8][4] = {};
    float greatest[2] = {-infinity(), -infinity()}, sum[2] = {};
    const u32 tiles = (p.keys + ROWS - 1) / ROWS;
    for (u32 tile = 0; tile < tiles; tile++) {
        chunks_wait<STAGES - 1>();
        __syncthreads();
        if (tile == 0) {
#pragma unroll
            for (u32 step = 0; step < HEAD / 16; step++)
                load_matrices(q_words[step], &shared.q[warp * 16 + lane % 16][step * 16 + lane / 16 * 8]);
        }

        float scores[ROWS / 8][4] = {};
#pragma unroll
        for (u32 step = 0; step < HEAD / 16; step++)
#pragma unroll
            for (u32 pair = 0; pair < ROWS / 16; pair++) {
                u32 words[4];
                load_matrices(words, &shared.k[tile % STAGES][pair * 16 + lane / 16 * 8 + lane % 8][step * 16 + lane / 8 % 2 * 8]);
                const u32* a = q_words[step];
                multiply_add(scores[2 * pair], a[0], a[1], a[2], a[3], words[0], words[1]);
                multiply_add(scores[2 * pair + 1], a[0], a[1], a[2], a[3], words[2], words[3]);
            }

        const u32 keys = p.keys - tile * ROWS;
        const bool cut = keys < ROWS;
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            float tile_greatest = -infinity();
#if defined(MASK_TYPE) && MASK_ROWS
            const u32 row = min(query + warp * 16 + half * 8 + r, p.queries - 1);
            const auto* mask_row = mask + row * p.mask.strides[1] + tile * ROWS * p.mask.strides[2];
#endif
#pragma unroll
            for (u32 part = 0; part < ROWS / 8; part++)
#pragma unroll
                for (u32 i = 0; i < 2; i++) {
                    float& score = scores[part][2 * half + i];
                    const u32 key = part * 8 + 2 * t + i;
#if defined(MASK_TYPE) && MASK_ROWS
                    score = fmaf(p.scale, score, key < keys ? to_float(mask_row[key * p.mask.strides[2]]) : 0.0f);
#elif defined(MASK_TYPE)
                    score = fmaf(p.scale, score, shared.mask[tile % STAGES][key]);
#else
                    score *= p.scale;
#endif
                    if (cut && key >= keys) score = -infinity();
                    tile_greatest = fmaxf(tile_greatest, score);
                }
            const float now = fmaxf(greatest[half], greatest_of_row(tile_greatest));
            const float from = now == -infinity() ? 0.0f : now;
            const float shrink = power_of_two(LOG2_E * (greatest[half] - from));
            greatest[half] = now;
            sum[half] *= shrink;
#pragma unroll
            for (u32 part = 0; part < ROWS / 8; part++)
#pragma unroll
                for (u32 i = 0; i < 2; i++) {
                    float& score = scores[part][2 * half + i];
                    score = power_of_two(LOG2_E * (score - from));
                    sum[half] += score;
                }
#pragma unroll
            for (u32 part = 0; part < VALUE / 8; part++)
#pragma unroll
                for (u32 i = 0; i < 2; i++) mixture[part][2 * half + i] *= shrink;
        }

#pragma unroll
        for (u32 step = 0; step < ROWS / 16; step++) {
            const float(*w)[4] = &scores[2 * step];
            const u32 a0 = word_of(w[0][0], w[0][1]), a1 = word_of(w[0][2], w[0][3]);
            const u32 a2 = word_of(w[1][0], w[1][1]), a3 = word_of(w[1][2], w[1][3]);
#pragma unroll
            for (u32 pair = 0; pair < VALUE / 16; pair++) {
                u32 words[4];
                load_matrices_transposed(words, &shared.v[tile % STAGES][step * 16 + lane % 16][pair * 16 + lane / 16 * 8]);
                multiply_add(mixture[2 * pair], a0, a1, a2, a3, words[0], words[1]);
                multiply_add(mixture[2 * pair + 1], a0, a1, a2, a3, words[2], words[3]);
            }
        }
        __syncthreads();
        stage_keys(tile + STAGES);
    }

    real* out = at<real>(p.launch, p.out, item) + head * p.out_head;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const float whole = 1.0f / sum_of_row(sum[half]);
        const u32 row = query + warp * 16 + half * 8 + r;
        if (row >= p.queries) continue;
        real* out_row = out + row * p.out_query;
#pragma unroll
        for (u32 part = 0; part < VALUE / 8; part++) {
            const u32 column = part * 8 + 2 * t;
            const float first = mixture[part][2 * half] * whole, second = mixture[part][2 * half + 1] * whole;
#if OUT_PAIRS
            if (column < p.value_dim) *reinterpret_cast<u32*>(out_row + column) = word_of(first, second);
#else
            if (column < p.value_dim) out_row[column] = to_buffer<real>(first);
            if (column + 1 < p.value_dim) out_row[column + 1] = to_buffer<real>(second);
#endif
        }
    }
}
