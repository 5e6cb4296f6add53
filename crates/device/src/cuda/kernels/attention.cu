// Attention: out[h, i, :] = sum over j of softmax_j(scale * q[h, i, :].k[h, j, :] + mask[h, i, j]) * v[h, j, :], every item.
//
//   block   64 queries of one head of one item, VALUES columns of v; 256 threads
//   keys    in tiles of 64, once: the softmax is kept up to date as they pass (largest score, sum and mixture so far), so that no
//           score is ever stored and any number of keys will do
//   thread  4 queries x 4 keys of the scores, then the same 4 queries x 4 columns of each 64 of v
//
// By plain multiply-adds in f32, for every size, stride and precision: what fp32 and tf32 run, and what halves run where
// attention_halves.cu has no fragment for a size. A head of v wider than VALUES is cut over blocks, which then repeat the scores.
//
// A masked key has the score -infinity and the weight 0. While all keys so far are masked the largest score is -infinity too: zero
// takes its place, as -inf - -inf is no number, and the weights are still 0. A row masked everywhere ends as 0 / 0, NaN.
// Bound by FFMA, at about half of the peak: the scores are 16 multiply-adds per two vector loads of shared memory.
//
//   -DQ_TYPE, -DK_TYPE, -DV_TYPE, -DMASK_TYPE  how operands are held; no MASK_TYPE without a mask      -DREAL  how the result is
//   -DVALUES=64 or 128                         twin on the CPU: cpu/steps/attention.rs
#include "attention.cuh"
#include "slices.cuh"

// Steps of the head's dimension, and keys of v, that are in shared memory at once.
constexpr u32 DEPTH = 32;

// The greatest, or the sum, of the 16 threads that share four queries.
__device__ __forceinline__ float greatest_of_row(float x) {
#pragma unroll
    for (int step = 8; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
    return x;
}
__device__ __forceinline__ float sum_of_row(float x) {
#pragma unroll
    for (int step = 8; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    return x;
}

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    // The weights of 64 keys lie where the slices of q and k were.
    __shared__ __align__(16) float weights[2 * DEPTH][PITCH];
    __shared__ __align__(16) float v_slice[VALUES / LINES][DEPTH][PITCH];
    float(*q_slice)[PITCH] = weights;
    float(*k_slice)[PITCH] = weights + DEPTH;

    const u32 item = blockIdx.y;
    if (!has_item(p.launch, item)) return;
    u32 rest = blockIdx.x;
    const u32 column = rest % p.value_tiles * VALUES;
    rest /= p.value_tiles;
    const u32 query = rest % p.query_tiles * LINES;
    const u32 head = rest / p.query_tiles;

    typedef TypeOf<Q_TYPE>::type Q;
    typedef TypeOf<K_TYPE>::type K;
    typedef TypeOf<V_TYPE>::type V;
    const Q* q_from = at<const Q>(p.launch, p.q.operand, item) + p.q.offset + head * p.q.strides[0] + query * p.q.strides[1];
    const K* k_from = at<const K>(p.launch, p.k.operand, item) + p.k.offset + head * p.k.strides[0];
    const V* v_from = at<const V>(p.launch, p.v.operand, item) + p.v.offset + head * p.v.strides[0] + column * p.v.strides[2];
    const Lines<Q> q = {q_from, p.q.strides[2], p.q.strides[1], p.queries - query, p.head_dim};

    const u32 my_query = threadIdx.x / 16 * 4, my_key = threadIdx.x % 16 * 4;
#ifdef MASK_TYPE
    const auto* mask = at<const TypeOf<MASK_TYPE>::type>(p.launch, p.mask.operand, item) + p.mask.offset + head * p.mask.strides[0];
#endif
    dependency_wait(p.launch);
    float mixture[VALUES / LINES][4][4] = {};
    float greatest[4], sum[4] = {};
#pragma unroll
    for (int i = 0; i < 4; i++) greatest[i] = -infinity();

    for (u32 key = 0; key < p.keys; key += LINES) {
        const Lines<K> k = {k_from + key * p.k.strides[1], p.k.strides[2], p.k.strides[1], p.keys - key, p.head_dim};
        float scores[4][4] = {};
        for (u32 first = 0; first < p.head_dim; first += DEPTH) {
            float q_held[DEPTH / 4], k_held[DEPTH / 4];
            fetch<DEPTH>(q, first, q_held);
            fetch<DEPTH>(k, first, k_held);
            __syncthreads();
            store<DEPTH>(q, q_held, q_slice);
            store<DEPTH>(k, k_held, k_slice);
            __syncthreads();
            multiply<DEPTH>(q_slice, my_query, k_slice, my_key, scores);
        }

#pragma unroll
        for (int i = 0; i < 4; i++) {
            float tile_greatest = -infinity();
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float score = p.scale * scores[i][j];
                const bool inside = my_key + j < k.lines;
#ifdef MASK_TYPE
                if (inside && my_query + i < q.lines)
                    score += to_float(mask[(query + my_query + i) * p.mask.strides[1] + (key + my_key + j) * p.mask.strides[2]]);
#endif
                scores[i][j] = inside ? score : -infinity();
                tile_greatest = fmaxf(tile_greatest, scores[i][j]);
            }
            const float now = fmaxf(greatest[i], greatest_of_row(tile_greatest));
            const float from = now == -infinity() ? 0.0f : now;
            const float shrink = expf(greatest[i] - from);
            greatest[i] = now;
            sum[i] *= shrink;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                scores[i][j] = expf(scores[i][j] - from);
                sum[i] += scores[i][j];
            }
#pragma unroll
            for (int part = 0; part < VALUES / LINES; part++)
#pragma unroll
                for (int j = 0; j < 4; j++) mixture[part][i][j] *= shrink;
        }
        __syncthreads();
#pragma unroll
        for (int j = 0; j < 4; j++)
            *reinterpret_cast<float4*>(&weights[my_key + j][my_query]) =
                make_float4(scores[0][j], scores[1][j], scores[2][j], scores[3][j]);

        for (u32 first = 0; first < LINES && key + first < p.keys; first += DEPTH) {
            float v_held[VALUES / LINES][DEPTH / 4];
            Lines<V> v[VALUES / LINES];
#pragma unroll
            for (u32 part = 0; part < VALUES / LINES; part++) {
                const u32 start = column + part * LINES;
                const u32 lines = p.value_dim > start ? p.value_dim - start : 0;
                v[part] = {v_from + part * LINES * p.v.strides[2], p.v.strides[1], p.v.strides[2], lines, p.keys};
                fetch<DEPTH>(v[part], key + first, v_held[part]);
            }
            __syncthreads();
#pragma unroll
            for (u32 part = 0; part < VALUES / LINES; part++) store<DEPTH>(v[part], v_held[part], v_slice[part]);
            __syncthreads();
#pragma unroll
            for (u32 part = 0; part < VALUES / LINES; part++)
                multiply<DEPTH>(weights + first, my_query, v_slice[part], my_key, mixture[part]);
        }
    }
    dependents_may_start();

    real* out = at<real>(p.launch, p.out, item) + head * p.out_head + column;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float whole = sum_of_row(sum[i]);
        if (my_query + i >= q.lines) continue;
#pragma unroll
        for (u32 part = 0; part < VALUES / LINES; part++)
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                const u32 c = part * LINES + my_key + j;
                if (column + c < p.value_dim)
                    out[(query + my_query + i) * p.out_query + c] = to_buffer<real>(mixture[part][i][j] / whole);
            }
    }
}
