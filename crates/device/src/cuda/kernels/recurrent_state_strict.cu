// A recurrent layer's states in strict f32, time by time; what recurrent_state.cu says of parts, clusters and h is so here too.
//
//   block    UNITS units of a part's lane, all gates of each; 512 threads
//   pass     64 of the units: two tiles of 32 neighbouring units, one unit a lane, times SLICES slices of k, one of each a warp.
//            Slice s has every k = s, s + SLICES, ...; the slices' sums meet in shared memory and are added in order
//   r        panels of 64 columns (pack.rs, Layout::Panels); rows of k below KEPT stay in shared memory, the others come from L2 each
//            time, a coalesced line per gate
//
// Plain multiply-adds. One item's time is 512 x 2048 of them on eight multiprocessors, 1024 clocks; bringing the rows that are not kept
// from L2 takes longer. More items of a lane share what is brought.
//
//   -DHIDDEN=n -DCLUSTER -DITEMS=1, 2 or 4 -DKEPT           chosen in steps/recurrent.rs, by the layer's sizes alone
//   -DREVERSE=1 -DLENGTHS=1 -DH0_TYPE -DC0_TYPE (not where the state is zero) -DWITH_Y -DWITH_H -DWITH_C
//   and those of recurrent_cell.cuh
#include "cluster.cuh"
#define STRICT 1
#include "recurrent_state.cuh"

constexpr u32 THREADS = 512, SLICES = 8, PASS = 64, PANEL = 64;
constexpr u32 UNITS = (HIDDEN + CLUSTER - 1) / CLUSTER;
constexpr u32 PASSES = (UNITS + PASS - 1) / PASS;

// In front of float kept[KEPT][GATES][UNITS].
struct Shared {
    float h[2][HIDDEN][ITEMS];
    float parts[SLICES][GATES][ITEMS][PASS];
    float inner[PASSES][ITEMS][PASS];  // what a cell keeps
    float last[PASSES][ITEMS][PASS];
};

// Sums this thread's slice of k for N items of one unit, all gates.
template <u32 N>
__device__ __forceinline__ void sum_slice(float (*parts)[ITEMS][PASS], u32 place, const float (*h)[ITEMS],
                                          const float (*kept)[GATES][UNITS], u32 kept_unit, const float* (&columns)[GATES],
                                          u32 slice) {
    float sums[GATES][N] = {};
    const auto add = [&](u32 k, const float (&weights)[GATES]) {
        float state[N];
#pragma unroll
        for (u32 i = 0; i < N; i++) state[i] = h[k][i];
#pragma unroll
        for (u32 gate = 0; gate < GATES; gate++)
#pragma unroll
            for (u32 i = 0; i < N; i++) sums[gate][i] = fmaf(weights[gate], state[i], sums[gate][i]);
    };
    u32 k = slice;
#pragma unroll 4
    for (; k < KEPT; k += SLICES) {
        float weights[GATES];
#pragma unroll
        for (u32 gate = 0; gate < GATES; gate++) weights[gate] = kept[k][gate][kept_unit];
        add(k, weights);
    }
    constexpr u32 AHEAD = 4;
    for (; k + (AHEAD - 1) * SLICES < HIDDEN; k += AHEAD * SLICES) {
        float weights[AHEAD][GATES];
#pragma unroll
        for (u32 ahead = 0; ahead < AHEAD; ahead++)
#pragma unroll
            for (u32 gate = 0; gate < GATES; gate++) weights[ahead][gate] = __ldg(columns[gate] + (k + ahead * SLICES) * PANEL);
#pragma unroll
        for (u32 ahead = 0; ahead < AHEAD; ahead++) add(k + ahead * SLICES, weights[ahead]);
    }
    for (; k < HIDDEN; k += SLICES) {
        float weights[GATES];
#pragma unroll
        for (u32 gate = 0; gate < GATES; gate++) weights[gate] = __ldg(columns[gate] + k * PANEL);
        add(k, weights);
    }
#pragma unroll
    for (u32 gate = 0; gate < GATES; gate++)
#pragma unroll
        for (u32 i = 0; i < N; i++) parts[gate][i][place] = sums[gate][i];
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) kernel(const __grid_constant__ Params p) {
    extern __shared__ __align__(128) char memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    auto* kept = reinterpret_cast<float(*)[GATES][UNITS]>(memory + sizeof(Shared));
    const u32 lane = threadIdx.x % 32, tile = threadIdx.x / 32 % 2, slice = threadIdx.x / 64;
    const u32 rank = blockIdx.x % CLUSTER;
    const Part part = part_of(p.launch, blockIdx.x / CLUSTER, 1, ITEMS);
    if (part.rows == 0) {
        dependency_wait(p.launch);
        return;
    }
    const u64 slot = p.launch.weights[part.lane];
    const float* matrix = global<const float>(slot + p.r.base);
    const auto column_of = [&](u32 gate, u32 unit) {
        const u32 column = gate * HIDDEN + min(rank * UNITS + unit, HIDDEN - 1);
        return matrix + u64(column / PANEL) * HIDDEN * PANEL + column % PANEL;
    };
    for (u32 index = threadIdx.x; index < KEPT * GATES * UNITS; index += THREADS) {
        const u32 unit = index % UNITS, gate = index / UNITS % GATES, k = index / (UNITS * GATES);
        kept[k][gate][unit] = __ldg(column_of(gate, unit) + k * PANEL);
    }
    dependency_wait(p.launch);

    for (u32 index = threadIdx.x; index < HIDDEN * ITEMS; index += THREADS) {
        float value = 0.0f;
#ifdef H0_TYPE
        const u32 item = index % ITEMS;
        if (item < part.rows) value = at<const float>(p.launch, p.h0, part.first + item)[index / ITEMS];
#endif
        shared.h[0][index / ITEMS][index % ITEMS] = value;
    }
    // In the passes' second half a thread has one unit of one item, the same ones each time.
    const u32 my_unit = threadIdx.x % PASS, my_item = threadIdx.x / PASS;
    for (u32 pass = 0; pass < PASSES; pass++) {
        if (my_item >= ITEMS) continue;
        float c = 0.0f, h = 0.0f;
        const u32 unit = rank * UNITS + pass * PASS + my_unit;
        if (unit < HIDDEN && my_item < part.rows) {
#ifdef C0_TYPE
            c = at<const float>(p.launch, p.c0, part.first + my_item)[unit];
#endif
#ifdef H0_TYPE
            h = at<const float>(p.launch, p.h0, part.first + my_item)[unit];
#endif
        }
        shared.inner[pass][my_item][my_unit] = CELL == 0 ? c : h;
        shared.last[pass][my_item][my_unit] = h;
    }
    cluster_arrive<CLUSTER>();
    cluster_wait<CLUSTER>();

    const u32 count = LENGTHS && my_item < part.rows ? length_of(p, part.first + my_item) : p.time;
    for (u32 step = 0; step < p.time; step++) {
        const u32 time = time_of(step, count);
        const float(*now)[ITEMS] = shared.h[step % 2];
        float(*next)[ITEMS] = shared.h[(step + 1) % 2];
#pragma unroll 1
        for (u32 pass = 0; pass < PASSES; pass++) {
            const u32 unit = pass * PASS + my_unit, number = rank * UNITS + unit;
            const bool mine = my_item < part.rows && unit < UNITS && number < HIDDEN;
            const u64 row = u64(part.first + my_item) * p.time + time;
            Gates from_input = {};
            if (mine) from_input = reinterpret_cast<const Gates*>(p.gates)[row * HIDDEN + number];

            const u32 summed = pass * PASS + tile * 32 + lane;
            const u32 kept_unit = min(summed, UNITS - 1);
            const float* columns[GATES];
#pragma unroll
            for (u32 gate = 0; gate < GATES; gate++) columns[gate] = column_of(gate, kept_unit);
            const u32 place = tile * 32 + lane;
            if (ITEMS >= 4 && part.rows > 2)
                sum_slice<ITEMS >= 4 ? 4 : 1>(shared.parts[slice], place, now, kept, kept_unit, columns, slice);
            else if (ITEMS >= 2 && part.rows == 2)
                sum_slice<ITEMS >= 2 ? 2 : 1>(shared.parts[slice], place, now, kept, kept_unit, columns, slice);
            else
                sum_slice<1>(shared.parts[slice], place, now, kept, kept_unit, columns, slice);
            __syncthreads();
            if (mine) {
                float state[GATES];
#pragma unroll
                for (u32 gate = 0; gate < GATES; gate++) {
                    float total = 0.0f;
#pragma unroll
                    for (u32 part_slice = 0; part_slice < SLICES; part_slice++) total += shared.parts[part_slice][gate][my_item][my_unit];
                    state[gate] = total;
                }
                float inner = shared.inner[pass][my_item][my_unit], h = shared.last[pass][my_item][my_unit];
                if (!LENGTHS || step < count) {
                    h = new_state(from_input, state, inner, of_unit(slot, p.bias, p.peephole, number), p.clip);
                    shared.inner[pass][my_item][my_unit] = inner;
                    shared.last[pass][my_item][my_unit] = h;
                }
                if (step + 1 < p.time) {
#pragma unroll
                    for (u32 block = 0; block < CLUSTER; block++)
                        store_remote<CLUSTER>(&next[number][my_item], block, __float_as_uint(h));
                }
            }
            if (pass + 1 < PASSES) __syncthreads();
        }
        cluster_arrive<CLUSTER>();
        // While the others arrive, what nobody of the cluster waits for.
#pragma unroll 1
        for (u32 pass = 0; pass < PASSES; pass++) {
            const u32 unit = pass * PASS + my_unit, number = rank * UNITS + unit, item = part.first + my_item;
            if (my_item >= part.rows || unit >= UNITS || number >= HIDDEN) continue;
            const float h = shared.last[pass][my_item][my_unit], c = shared.inner[pass][my_item][my_unit];
#if WITH_Y
            item_of<float>(p.y, item)[p.y_offset + time * p.y_stride + number] = step < count ? h : 0.0f;
#endif
#if WITH_H
            if (step + 1 == p.time) item_of<float>(p.h, item)[number] = h;
#endif
#if WITH_C
            if (step + 1 == p.time) item_of<float>(p.c, item)[number] = c;
#endif
        }
        cluster_wait<CLUSTER>();
    }
}
