// A GRU's states when the reset comes before the candidate's product, time by time; what recurrent_state.cu says of parts and clusters is so
// here too.
//
//   z, r = F(gates + h · R[z, r])           each unit's, then r ∘ h to every block of the cluster; its first barrier of a time
//   n    = G(gates + (r ∘ h) · R[n])        each unit's, then h = (1 − z) ∘ n + z ∘ h to every block; its second
//
//   block    UNITS units of a part's lane; 512 threads
//   pass     64 of the units: two tiles of 32 neighbouring units, one unit a lane, times SLICES slices of k, one of each a warp
//   k        in blocks of DEPTH, 128 bytes of a column; slice s has chunk s of each, 16 bytes. The slices' sums meet in shared memory and
//            are added in order
//   R        blocks (pack.rs, Layout::Blocks), where a chunk is one load; in strict f32 panels of 64 columns, where it is a few coalesced ones.
//            The first KEPT blocks of k stay in shared memory, each thread's chunks where that thread alone reads them; the others come from L2
//
// Plain multiply-adds of f32 in every precision: the second product waits for the first, so a time is bound by its two barriers and by bringing
// weights, not by arithmetic. bf16 of 512 units stays on chip. What is exchanged of h is f32.
//
//   -DHIDDEN=n -DCLUSTER -DITEMS=1, 2 or 4 -DKEPT -DR_BLOCKS=1      chosen in steps/recurrent.rs, by the layer's sizes and precision alone
//   -DREVERSE=1 -DLENGTHS=1 -DH0_TYPE (not where the state is zero) -DWITH_Y -DWITH_H
//   and those of recurrent_cell.cuh
#include "cluster.cuh"
#include "vector.cuh"
#define STRICT 1
#include "recurrent_state.cuh"

constexpr u32 THREADS = 512, SLICES = 8, PASS = 64, COLUMNS = 64;
constexpr u32 UNITS = (HIDDEN + CLUSTER - 1) / CLUSTER;
constexpr u32 PASSES = (UNITS + PASS - 1) / PASS;
constexpr u32 CHUNK = 16 / sizeof(real), DEPTH = SLICES * CHUNK;
constexpr u32 K_BLOCKS = (HIDDEN + DEPTH - 1) / DEPTH;

typedef Pack<real, CHUNK> Weights;
// One k of all items.
typedef Pack<float, ITEMS> Row;

// In front of Weights kept[KEPT][PASSES][GATES][THREADS]. Rows beyond HIDDEN stay zero.
struct Shared {
    Row h[K_BLOCKS * DEPTH];
    Row scaled[K_BLOCKS * DEPTH];  // what the reset leaves of h
    float parts[SLICES][2][ITEMS][PASS];
    float update[PASSES][ITEMS][PASS];
    float last[PASSES][ITEMS][PASS];
};

// Chunk `slice` of a column's block of k.
__device__ __forceinline__ Weights chunk_of(const real* matrix, u32 column, u32 block, u32 slice) {
#if R_BLOCKS
    const u32 row = (column / COLUMNS * K_BLOCKS + block) * COLUMNS + column % COLUMNS;
    return load_pack<real, CHUNK>(matrix + u64(row) * DEPTH + (slice ^ (column % 8)) * CHUNK);
#else
    const real* first = matrix + u64(column / COLUMNS) * HIDDEN * COLUMNS + column % COLUMNS;
    Weights chunk;
#pragma unroll
    for (u32 i = 0; i < CHUNK; i++) {
        const u32 k = block * DEPTH + slice * CHUNK + i;
        chunk.at[i] = k < HIDDEN ? __ldg(first + k * COLUMNS) : real(0);
    }
    return chunk;
#endif
}

// Sums this thread's slice of k for N items and TAKEN columns, HIDDEN apart. `kept` holds the thread's chunks of the first column.
template <u32 TAKEN, u32 N>
__device__ __forceinline__ void sum_slice(Shared& shared, const Row* rows, const Weights* kept, const real* matrix, u32 unit) {
    const u32 place = threadIdx.x % PASS, slice = threadIdx.x / PASS;
    float sums[TAKEN][N] = {};
    const auto add = [&](u32 block, const Weights (&weights)[TAKEN]) {
#pragma unroll
        for (u32 i = 0; i < CHUNK; i++) {
            const Row row = rows[block * DEPTH + slice * CHUNK + i];
#pragma unroll
            for (u32 taken = 0; taken < TAKEN; taken++)
#pragma unroll
                for (u32 item = 0; item < N; item++)
                    sums[taken][item] = fmaf(to_float(weights[taken].at[i]), row.at[item], sums[taken][item]);
        }
    };
#pragma unroll 2
    for (int block = 0; block < KEPT; block++) {
        Weights weights[TAKEN];
#pragma unroll
        for (u32 taken = 0; taken < TAKEN; taken++) weights[taken] = kept[(block * PASSES * GATES + taken) * THREADS];
        add(block, weights);
    }
#pragma unroll 2
    for (u32 block = KEPT; block < K_BLOCKS; block++) {
        Weights weights[TAKEN];
#pragma unroll
        for (u32 taken = 0; taken < TAKEN; taken++) weights[taken] = chunk_of(matrix, taken * HIDDEN + unit, block, slice);
        add(block, weights);
    }
#pragma unroll
    for (u32 taken = 0; taken < TAKEN; taken++)
#pragma unroll
        for (u32 item = 0; item < N; item++) shared.parts[slice][taken][item][place] = sums[taken][item];
}

// As many sums as there are items. Which, changes no bit: an item's sums see no other's.
template <u32 TAKEN>
__device__ __forceinline__ void sum_slices(Shared& shared, u32 items, const Row* rows, const Weights* kept, const real* matrix, u32 unit) {
    if (ITEMS >= 4 && items > 2)
        sum_slice<TAKEN, ITEMS >= 4 ? 4 : 1>(shared, rows, kept, matrix, unit);
    else if (ITEMS >= 2 && items == 2)
        sum_slice<TAKEN, ITEMS >= 2 ? 2 : 1>(shared, rows, kept, matrix, unit);
    else
        sum_slice<TAKEN, 1>(shared, rows, kept, matrix, unit);
    __syncthreads();
}

__device__ __forceinline__ float total_of(const Shared& shared, u32 taken, u32 item, u32 unit) {
    float total = 0.0f;
#pragma unroll
    for (u32 slice = 0; slice < SLICES; slice++) total += shared.parts[slice][taken][item][unit];
    return total;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) kernel(const __grid_constant__ Params p) {
    extern __shared__ __align__(128) char memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    Weights* kept = reinterpret_cast<Weights*>(memory + sizeof(Shared)) + threadIdx.x;
    const u32 rank = blockIdx.x % CLUSTER;
    const Part part = part_of(p.launch, blockIdx.x / CLUSTER, 1, ITEMS);
    if (part.rows == 0) {
        dependency_wait(p.launch);
        return;
    }
    const u64 slot = p.launch.weights[part.lane];
    const real* gates = global<const real>(slot + p.r.base);
    const real* candidate = global<const real>(slot + p.candidate.base);
    // A thread sums one unit of a pass, and computes one unit of one item, the same ones each time.
    const u32 my_unit = threadIdx.x % PASS, my_item = threadIdx.x / PASS;
    const auto number_of = [&](u32 pass) { return rank * UNITS + pass * PASS + my_unit; };
    const auto summed = [&](u32 pass) { return min(number_of(pass), HIDDEN - 1); };
    const auto mine = [&](u32 pass) { return my_item < part.rows && pass * PASS + my_unit < UNITS && number_of(pass) < HIDDEN; };

    for (int block = 0; block < KEPT; block++)
        for (u32 pass = 0; pass < PASSES; pass++)
#pragma unroll
            for (u32 gate = 0; gate < GATES; gate++)
                kept[((block * PASSES + pass) * GATES + gate) * THREADS] =
                    gate < 2 ? chunk_of(gates, gate * HIDDEN + summed(pass), block, threadIdx.x / PASS)
                             : chunk_of(candidate, summed(pass), block, threadIdx.x / PASS);
    dependency_wait(p.launch);

    for (u32 index = threadIdx.x; index < K_BLOCKS * DEPTH * ITEMS; index += THREADS) {
        const u32 k = index / ITEMS, item = index % ITEMS;
        float h = 0.0f;
#ifdef H0_TYPE
        if (k < HIDDEN && item < part.rows) h = to_float(at<const TypeOf<H0_TYPE>::type>(p.launch, p.h0, part.first + item)[k]);
#endif
        shared.h[k].at[item] = h;
        shared.scaled[k].at[item] = 0.0f;
    }
    __syncthreads();
    for (u32 pass = 0; pass < PASSES; pass++)
        if (mine(pass)) shared.last[pass][my_item][my_unit] = shared.h[number_of(pass)].at[my_item];
    cluster_arrive<CLUSTER>();
    cluster_wait<CLUSTER>();

    const u32 count = LENGTHS && my_item < part.rows ? length_of(p, part.first + my_item) : p.time;
    for (u32 step = 0; step < p.time; step++) {
        const u32 time = time_of(step, count);
        const auto from_input = [&](u32 pass) {
            const u64 row = u64(part.first + my_item) * p.time + time;
            return reinterpret_cast<const Gates*>(p.gates)[row * HIDDEN + number_of(pass)];
        };
#pragma unroll 1
        for (u32 pass = 0; pass < PASSES; pass++) {
            sum_slices<2>(shared, part.rows, shared.h, kept + pass * GATES * THREADS, gates, summed(pass));
            if (mine(pass)) {
                const Gates input = from_input(pass);
                shared.update[pass][my_item][my_unit] = function_f(clipped(total_of(shared, 0, my_item, my_unit) + input.of[0], p.clip));
                const float reset = function_f(clipped(total_of(shared, 1, my_item, my_unit) + input.of[1], p.clip));
                const float left = reset * shared.last[pass][my_item][my_unit];
#pragma unroll
                for (u32 block = 0; block < CLUSTER; block++)
                    store_remote<CLUSTER>(&shared.scaled[number_of(pass)].at[my_item], block, __float_as_uint(left));
            }
            if (pass + 1 < PASSES) __syncthreads();
        }
        // Whoever has passed it has read h, which may be written from here on.
        cluster_arrive<CLUSTER>();
        cluster_wait<CLUSTER>();
        const bool more = step + 1 < p.time;
#pragma unroll 1
        for (u32 pass = 0; pass < PASSES; pass++) {
            sum_slices<1>(shared, part.rows, shared.scaled, kept + (pass * GATES + 2) * THREADS, candidate, summed(pass));
            if (mine(pass) && step < count) {
                const float sum = total_of(shared, 0, my_item, my_unit) + from_input(pass).of[2];
                const float update = shared.update[pass][my_item][my_unit], last = shared.last[pass][my_item][my_unit];
                const float h = (1.0f - update) * function_g(clipped(sum, p.clip)) + update * last;
                shared.last[pass][my_item][my_unit] = h;
                if (more) {
#pragma unroll
                    for (u32 block = 0; block < CLUSTER; block++)
                        store_remote<CLUSTER>(&shared.h[number_of(pass)].at[my_item], block, __float_as_uint(h));
                }
            }
            if (pass + 1 < PASSES) __syncthreads();
        }
        if (more) cluster_arrive<CLUSTER>();
        // While the others arrive, what nobody of the cluster waits for.
#pragma unroll 1
        for (u32 pass = 0; pass < PASSES; pass++) {
            if (!mine(pass)) continue;
            const u32 number = number_of(pass), item = part.first + my_item;
            const float h = shared.last[pass][my_item][my_unit];
#if WITH_Y
            item_of<real>(p.y, item)[p.y_offset + time * p.y_stride + number] = to_buffer<real>(step < count ? h : 0.0f);
#endif
#if WITH_H
            if (!more) item_of<real>(p.h, item)[number] = to_buffer<real>(h);
#endif
        }
        if (more) cluster_wait<CLUSTER>();
    }
}
