// Linear layers and convolutions on the matrix unit: bf16, fp16 and tf32. See product.cuh for the formula and the tiles.
//
//   slot     [BM/64 blocks of 8 KB]  --bulk copy-->  stage: weights [BM][128 B]  --\
//                                                                                   wgmma m64 nBN, f32 sums in registers
//   inputs   [BN rows of 128 B]      --chunks----->  stage: inputs  [BN][128 B]  --/
//   sums --> shared memory, transposed --> + bias + residual --> activation --> out, 16 bytes at a time
//
// M is the outputs, which come in whole blocks of 64, and N the rows, of which there may be any number: so a 7x7 image of 49 pixels wastes
// an eighth of a tile of 56, and one row a tile of 8. Weights lie in the slot as the matrix unit reads them (the 128-byte swizzle), so one
// thread brings them; inputs are swizzled as they are copied. A stage is 128 bytes of k; STAGES are in flight, and with LAG=1 one
// group of products is always running while the next is being fed.
//
// Weights do not depend on the kernels before, so the first stages of them are asked for before this kernel waits for its turn.
//
// An element's products are summed by k in steps of 32 bytes, always by the same instruction: no tile changes a bit.
// Bound by bytes for small images and few rows (weights once per lane), by the matrix unit and the feeding of it for large ones.
//
//   -DSTAGES, -DLAG=0|1, -DMIN_BLOCKS      of a multiprocessor         generated.cuh: multiply(), steps/product/instruction.rs
#include "product.cuh"
#include "generated.cuh"

constexpr int THREADS = BM * 2;
constexpr int ROW_BYTES = 128;
constexpr u32 WEIGHT_BYTES = BM * ROW_BYTES, STAGE_BYTES = WEIGHT_BYTES + BN * ROW_BYTES, BLOCK_BYTES = 64 * ROW_BYTES;
constexpr int AHEAD = STAGES - 1 - LAG;  // stages between loading and use
// Rows that a thread finishes at once; the functions of an activation are long enough as one.
constexpr int BATCH = RESIDUAL == 0 ? 1 : ACTIVATION == 2 ? 2 : 4;
constexpr int PITCH = BM + 4;            // floats between rows of the transposed sums: no bank is hit twice
static_assert(AHEAD >= 1, "a stage is loaded while another is used");
static_assert(BN * PITCH * 4 <= STAGES * STAGE_BYTES, "the sums fit where the stages were");

struct Swizzled {
    static __device__ __forceinline__ u32 at(u32 row, u32 chunk) { return row * ROW_BYTES + ((chunk ^ (row & 7)) << 4); }
};

// Describes rows of 128 swizzled bytes at `address`, eight rows every 1024 bytes.
__device__ __forceinline__ u64 descriptor(u32 address) {
    return 1ull << 62 | u64(1024 >> 4) << 32 | 1ull << 16 | (address & 0x3ffff) >> 4;
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) kernel(const __grid_constant__ Params p) {
    extern __shared__ unsigned char dynamic[];
    __shared__ u64 filled[STAGES];
    __shared__ float bias[BM];
#if LOADER >= 2
    __shared__ Source table[BN];
#else
    Source* table = nullptr;
#endif
    const u32 thread = threadIdx.x, shared = (shared_address(dynamic) + 1023) & ~1023u;
    const u32 tile = p.m_tiles.quotient(blockIdx.x), m = blockIdx.x - tile * p.m_tiles.value;
    const u32 group = p.group_tiles.quotient(m), m0 = (m - group * p.group_tiles.value) * BM;
    const Rows rows = find_rows(p, tile);
    if (!rows.any) {
        dependency_wait();
        return;
    }
    const u64 slot = p.launch.weights[rows.lane];
    const u32 present = min(u32(BM / 64), p.blocks - m0 / 64);  // blocks of this tile that there are
    const u64 weights = slot + p.weights + u64(group * p.blocks + m0 / 64) * p.steps * BLOCK_BYTES;
    auto load_weights = [&](u32 step, u32 stage) {
        barrier_expect(&filled[stage], present * BLOCK_BYTES);
#pragma unroll
        for (u32 block = 0; block < BM / 64; block++) {
            if (block >= present) break;
            const u64 from = weights + (u64(block) * p.steps + step) * BLOCK_BYTES;
            copy_bulk(shared + stage * STAGE_BYTES + block * BLOCK_BYTES, from, BLOCK_BYTES, &filled[stage]);
        }
    };
    if (thread == 0) {
#pragma unroll
        for (int stage = 0; stage < STAGES; stage++) barrier_init(&filled[stage], 1);
        barriers_are_ready();
#pragma unroll 1
        for (u32 step = 0; step < min(u32(AHEAD), p.steps); step++) load_weights(step, step);
    }
    float own_bias = 0.0f;
#if BIAS
    if (thread < BM && m0 + thread < p.n) own_bias = reinterpret_cast<const float*>(slot + p.bias)[group * p.n + m0 + thread];
#endif
    Loader<THREADS, ROW_BYTES / 16, Swizzled> loader(p, rows, slot, group, table);
    __syncthreads();

    dependency_wait();
#pragma unroll 1
    for (u32 step = 0; step < AHEAD; step++) {
        if (step < p.steps) loader.load(p, shared + step * STAGE_BYTES + WEIGHT_BYTES);
        chunks_commit();
    }
    dependents_may_start();
#if RESIDUAL == 1
    // The residual is read last; ask for its lines now.
    constexpr int LINES = BM * int(sizeof(residual_type)) / 128;
    for (u32 i = thread; i < BN * LINES; i += THREADS) {
        const u32 row = rows.first + i / LINES, output = m0 + i % LINES * (128 / int(sizeof(residual_type)));
        if (row < rows.end && output < p.n) prefetch_line(residual_address(p, rows, slot, group, row, output));
    }
#endif
    if (thread < BM) bias[thread] = own_bias;

    float sums[BN / 2];
#pragma unroll
    for (int i = 0; i < BN / 2; i++) sums[i] = 0.0f;
    u32 stage = 0, parity = 0, next = AHEAD % STAGES;
#pragma unroll 1
    for (u32 step = 0; step < p.steps; step++) {
        chunks_wait<AHEAD - 1>();
        publish_shared();
        __syncthreads();
        barrier_wait(&filled[stage], parity);
        const u32 at = shared + stage * STAGE_BYTES;
        const u64 a = descriptor(at + thread / 128 * BLOCK_BYTES), b = descriptor(at + WEIGHT_BYTES);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int part = 0; part < 4; part++) multiply(sums, a + part * 2, b + part * 2);
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        if (step + AHEAD < p.steps) {
            if (thread == 0) load_weights(step + AHEAD, next);
            loader.load(p, shared + next * STAGE_BYTES + WEIGHT_BYTES);
        }
        chunks_commit();
        asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LAG) : "memory");
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
        if (++next == STAGES) next = 0;
    }
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    __syncthreads();

    // A thread's sums: outputs `o` and `o + 8`, pairs of rows.
    const u32 o = thread / 32 * 16 + thread % 32 / 4;
    float* transposed = reinterpret_cast<float*>(dynamic + (shared - shared_address(dynamic)));
#pragma unroll
    for (int i = 0; i < BN / 2; i++) {
        const u32 row = i / 4 * 8 + thread % 4 * 2 + i % 2;
        transposed[row * PITCH + o + i / 2 % 2 * 8] = sums[i];
    }
    __syncthreads();

    // A thread finishes CHUNK outputs of every STRIDE-th row.
    constexpr int CHUNKS = BM / CHUNK, STRIDE = THREADS / CHUNKS;
    const u32 at = thread % CHUNKS * CHUNK, output = m0 + at;
    if (output >= p.n) return;
    const u32 left = p.n - output, count = min(u32(BN), rows.end - rows.first);
    for (u32 start = thread / CHUNKS; start < count; start += STRIDE * BATCH) {
#if RESIDUAL
        // All of a batch's loads are under way before the first is used.
        float residual[BATCH][CHUNK];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            const u32 row = rows.first + min(start + i * STRIDE, count - 1);
            load_residual<CHUNK>(p, residual_address(p, rows, slot, group, row, output), left, residual[i]);
        }
#endif
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            const u32 row = start + i * STRIDE;
            if (row >= count) break;
            float values[CHUNK];
#pragma unroll
            for (int j = 0; j < CHUNK; j += 4) {
                const float4 four = *reinterpret_cast<const float4*>(transposed + row * PITCH + at + j);
                values[j] = four.x;
                values[j + 1] = four.y;
                values[j + 2] = four.z;
                values[j + 3] = four.w;
            }
#pragma unroll
            for (int j = 0; j < CHUNK; j++) {
                values[j] += bias[at + j];
#if RESIDUAL
                values[j] += residual[i][j];
#endif
                values[j] = activate(values[j], p.low, p.high);
            }
            store<CHUNK>(p, out_element(p, rows, group, rows.first + row, output), left, values);
        }
    }
}
