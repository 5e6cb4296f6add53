// A recurrent layer's states, time by time: gates[t] += h[t - 1] * r, then the cell's equations (recurrent_cell.cuh).
//
//   part       up to ITEMS items of one lane, on one cluster of CLUSTER blocks, from the first time to the last in one go
//   warp       PER_WARP groups of eight units, all gates of which it sums (recurrent_fragments.cuh); 256 threads
//   r          stays on chip as far as it fits: HELD blocks of k of a warp's first group in registers, KEPT more blocks of a warp in
//              shared memory, each lane's 16 bytes where that lane alone reads them; what is left is read again each time, from L2
//   h          a copy in every block's shared memory, two of them: one is read while the next one is written, by all blocks into all
//              blocks; one barrier of the cluster per time
//
// Of one item a time needs 512 x 2048 products, nothing for matrix instructions: what bounds it is bringing weights to them. A cluster of
// eight holds 2 MB of bf16, half in registers and half in shared memory, whose 128 bytes a clock make 1024 clocks a time; the columns of
// the instruction that one item leaves empty are free for seven more. Registers and shared memory are filled before the wait for the
// kernel before, so that this hides behind the input's product.
//
// The recurrence reads h as the plan's type, which is what `y` gives the next layer too; c and gates stay f32.
//
//   -DHIDDEN=n -DCLUSTER -DITEMS -DPER_WARP -DHELD -DKEPT           chosen in steps/recurrent.rs, by the layer's sizes alone
//   -DREVERSE=1 -DLENGTHS=1 -DH0_TYPE -DC0_TYPE (not where the state is zero) -DWITH_Y -DWITH_H -DWITH_C
//   and those of recurrent_cell.cuh
#include "cluster.cuh"
#include "recurrent_fragments.cuh"
#include "recurrent_state.cuh"

constexpr u32 THREADS = 256, WARPS = THREADS / 32;
constexpr u32 K_BLOCKS = (HIDDEN * sizeof(real) + BLOCK_ROW_BYTES - 1) / BLOCK_ROW_BYTES;
// Bytes of one item's h.
constexpr u32 PITCH = K_BLOCKS * BLOCK_ROW_BYTES + RIGHT_PADDING;
// Whether the state is kept beside the cell: where a warp has several groups, and where a state may have to stay.
constexpr bool KEEPS_H = PER_WARP > 1 || LENGTHS;

// In front of uint4 kept[KEPT][CHUNKS][THREADS].
struct Shared {
    char h[2][ITEMS][PITCH];
    // Of the thread's units and its two items: what a cell keeps of each group, then h of each where that is kept too.
    float2 own[KEEPS_H ? 2 * PER_WARP : PER_WARP][THREADS];
};

// Writes the h of eight units into every block: h[i] is item 2t + i of unit r. A lane writes one word of one block.
__device__ __forceinline__ void publish(char (*to)[PITCH], u32 group, u32 items, const float (&h)[2]) {
    const u32 lane = threadIdx.x % 32, block = lane / 4, word = lane % 4;
    constexpr u32 GROUP_WORDS = GROUP / PER_WORD;
    for (u32 item = 0; item < items; item++) {
        const float mine = item % 2 ? h[1] : h[0];
#pragma unroll
        for (u32 half = 0; half < GROUP_WORDS; half += 4) {
            const u32 unit = (half + word) * PER_WORD;
            const float first = __shfl_sync(~0u, mine, unit * 4 + item / 2);
            const float second = PER_WORD == 2 ? __shfl_sync(~0u, mine, (unit + 1) * 4 + item / 2) : 0.0f;
            char* at = &to[item][right_place(group * GROUP_WORDS + half + word) * 4];
            if (block < CLUSTER) store_remote<CLUSTER>(at, block, word_of(first, second));
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) kernel(const __grid_constant__ Params p) {
    extern __shared__ __align__(128) char memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    auto* kept = reinterpret_cast<uint4(*)[CHUNKS][THREADS]>(memory + sizeof(Shared));
    const u32 warp = threadIdx.x / 32, r = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const u32 rank = blockIdx.x % CLUSTER;
    const Part part = part_of(p.launch, blockIdx.x / CLUSTER, 1, ITEMS);
    if (part.rows == 0) {
        dependency_wait(p.launch);
        return;
    }
    const auto group_of = [&](u32 index) { return (index * WARPS + warp) * CLUSTER + rank; };
    const u64 slot = p.launch.weights[part.lane], matrix = slot + p.r.base;

    // Weights, as far as there is room: block `number` of a warp is block number % K_BLOCKS of its group number / K_BLOCKS.
#pragma unroll 2
    for (int number = 0; number < KEPT; number++) {
        const Columns columns = columns_of(matrix, group_of((number + HELD) / K_BLOCKS), K_BLOCKS);
        const Fragments fragments = fragments_of(columns, (number + HELD) % K_BLOCKS);
#pragma unroll
        for (u32 chunk = 0; chunk < CHUNKS; chunk++) kept[number][chunk][threadIdx.x] = packed(fragments, chunk);
    }
    Fragments held[HELD > 0 ? HELD : 1];
    {
        const Columns columns = columns_of(matrix, group_of(0), K_BLOCKS);
#pragma unroll
        for (u32 k_block = 0; k_block < HELD; k_block++) held[k_block] = fragments_of(columns, k_block);
    }
    for (u32 byte = threadIdx.x * 16; byte < sizeof(shared.h); byte += THREADS * 16)
        *reinterpret_cast<uint4*>(&shared.h[0][0][0] + byte) = make_uint4(0, 0, 0, 0);
    dependency_wait(p.launch);

#ifdef H0_TYPE
    __syncthreads();
    for (u32 item = 0; item < part.rows; item++) {
        const auto* h0 = at<const TypeOf<H0_TYPE>::type>(p.launch, p.h0, part.first + item);
        for (u32 word = threadIdx.x; word < (HIDDEN + PER_WORD - 1) / PER_WORD; word += THREADS) {
            const u32 unit = word * PER_WORD;
            const float second = PER_WORD == 2 && unit + 1 < HIDDEN ? to_float(h0[unit + 1]) : 0.0f;
            *reinterpret_cast<u32*>(&shared.h[0][item][right_place(word) * 4]) = word_of(to_float(h0[unit]), second);
        }
    }
#endif
    for (u32 index = 0; index < PER_WARP; index++) {
        float c[2] = {}, h[2] = {};
        const u32 unit = group_of(index) * GROUP + r;
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            if (unit >= HIDDEN || 2 * t + i >= part.rows) continue;
#ifdef C0_TYPE
            c[i] = to_float(at<const TypeOf<C0_TYPE>::type>(p.launch, p.c0, part.first + 2 * t + i)[unit]);
#endif
#ifdef H0_TYPE
            h[i] = to_float(at<const TypeOf<H0_TYPE>::type>(p.launch, p.h0, part.first + 2 * t + i)[unit]);
#endif
        }
        shared.own[index][threadIdx.x] = CELL == 0 ? make_float2(c[0], c[1]) : make_float2(h[0], h[1]);
        if (KEEPS_H) shared.own[PER_WARP + index][threadIdx.x] = make_float2(h[0], h[1]);
    }
    cluster_arrive<CLUSTER>();
    cluster_wait<CLUSTER>();

    const Gates* gates = reinterpret_cast<const Gates*>(p.gates);
    u32 counts[2] = {p.time, p.time};
#if LENGTHS
#pragma unroll
    for (u32 i = 0; i < 2; i++)
        if (2 * t + i < part.rows) counts[i] = length_of(p, part.first + 2 * t + i);
#endif
    for (u32 step = 0; step < p.time; step++) {
        const char(*now)[PITCH] = shared.h[step % 2];
        float2 last = {};
#pragma unroll 1
        for (u32 index = 0; index < PER_WARP; index++) {
            const u32 group = group_of(index), unit = group * GROUP + r;
            if (group >= GROUPS) break;
            Gates from_input[2] = {};
#pragma unroll
            for (u32 i = 0; i < 2; i++)
                if (unit < HIDDEN && 2 * t + i < part.rows)
                    from_input[i] = gates[(u64(part.first + 2 * t + i) * p.time + time_of(step, counts[i])) * HIDDEN + unit];

            float sums[2][TILES][4] = {};
            const auto multiply = [&](const Fragments& fragments, u32 k_block) {
                uint4 right[2] = {};
                if (r < part.rows) {
                    const auto* h = reinterpret_cast<const uint4*>(&now[r % ITEMS][k_block * BLOCK_ROW_BYTES + t * 32]);
                    right[0] = h[0];
                    right[1] = h[1];
                }
                multiply_block(sums, fragments, right);
            };
            u32 k_block = 0;
            if (index == 0) {
#pragma unroll
                for (; k_block < HELD; k_block++) multiply(held[k_block], k_block);
            }
            const u32 number = index * K_BLOCKS;
            const u32 kept_end = min(K_BLOCKS, number < HELD + KEPT ? HELD + KEPT - number : 0);
#pragma unroll 2
            for (; k_block < kept_end; k_block++) {
                Fragments fragments;
#pragma unroll
                for (u32 chunk = 0; chunk < CHUNKS; chunk++)
                    unpack(fragments, chunk, kept[number + k_block - HELD][chunk][threadIdx.x]);
                multiply(fragments, k_block);
            }
            // What has no room comes from L2, one block ahead.
            if (PER_WARP * K_BLOCKS > HELD + KEPT && k_block < K_BLOCKS) {
                const Columns columns = columns_of(matrix, group, K_BLOCKS);
                Fragments next = fragments_of(columns, k_block);
#pragma unroll 2
                for (; k_block < K_BLOCKS; k_block++) {
                    const Fragments fragments = next;
                    if (k_block + 1 < K_BLOCKS) next = fragments_of(columns, k_block + 1);
                    multiply(fragments, k_block);
                }
            }

            const float2 before = shared.own[index][threadIdx.x];
            const OfUnit own = of_unit(slot, p.bias, p.peephole, min(unit, HIDDEN - 1));
            float inner[2] = {before.x, before.y}, h[2];
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                float state[GATES];
#pragma unroll
                for (u32 gate = 0; gate < GATES; gate++) {
                    const u32 sum = gate % 2 * 2 + i;
                    state[gate] = sums[0][gate / 2][sum] + sums[1][gate / 2][sum];
                }
                float next = inner[i];
                h[i] = new_state(from_input[i], state, next, own, p.clip);
                if (LENGTHS && step >= counts[i]) {
                    const float2 stays = shared.own[PER_WARP + index][threadIdx.x];
                    h[i] = i ? stays.y : stays.x;
                } else {
                    inner[i] = next;
                }
                if (unit >= HIDDEN) h[i] = 0.0f;
            }
            shared.own[index][threadIdx.x] = make_float2(inner[0], inner[1]);
            last = make_float2(h[0], h[1]);
            if (KEEPS_H) shared.own[PER_WARP + index][threadIdx.x] = last;
            if (step + 1 < p.time) publish(shared.h[(step + 1) % 2], group, part.rows, h);
        }
        cluster_arrive<CLUSTER>();
        // While the others arrive, what nobody of the cluster waits for.
#pragma unroll 1
        for (u32 index = 0; index < PER_WARP; index++) {
            const u32 unit = group_of(index) * GROUP + r;
            const float2 h = KEEPS_H ? shared.own[PER_WARP + index][threadIdx.x] : last, c = shared.own[index][threadIdx.x];
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                const u32 item = part.first + 2 * t + i;
                if (unit >= HIDDEN || 2 * t + i >= part.rows) continue;
#if WITH_Y
                const float shown = step < counts[i] ? (i ? h.y : h.x) : 0.0f;
                item_of<real>(p.y, item)[p.y_offset + time_of(step, counts[i]) * p.y_stride + unit] = to_buffer<real>(shown);
#endif
#if WITH_H
                if (step + 1 == p.time) item_of<real>(p.h, item)[unit] = to_buffer<real>(i ? h.y : h.x);
#endif
#if WITH_C
                if (step + 1 == p.time) item_of<real>(p.c, item)[unit] = to_buffer<real>(i ? c.y : c.x);
#endif
            }
        }
        cluster_wait<CLUSTER>();
    }
}
