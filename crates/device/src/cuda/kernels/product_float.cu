// Linear layers and convolutions in strict fp32: every product and every sum a float. See product.cuh for the formula and the tiles.
//
//   slot     [BM/64 panels of 64 outputs]  --bulk copy-->  stage: weights [BM/64][DEPTH][64]
//   inputs   [BN rows]                     --chunks----->  stage: inputs  [BN][DEPTH]           padded where banks would meet
//   a thread: OUTPUTS outputs x ROWS rows in registers, one fused multiply-add per product
//
// A warp covers one panel: 64 / OUTPUTS threads along the outputs by the rest along the rows. With many rows a thread has 8 outputs by 7 or
// 8 rows, and each float read from shared memory feeds 7 products; the bound is the 67 TFLOP/s of the float units. With a few rows it has
// 2 outputs, and the kernel streams the weights: STAGES * DEPTH * 256 bytes are always under way per block, and the bound is the memory.
//
// k is summed as the plan says: in runs of 256 from zero, the runs added in order. No tile changes a bit.
//
//   one run             (LONG=0)    the sum
//   several             (LONG=1)    one thread's, after each other. What they add up to waits in shared memory, where it is in nobody's way: registers
//                                   are what decides how many warps take turns, and those hide what each waits for.
//                       (LONG=2)    the same, but it waits in registers, of which threads of half as many warps have enough: nothing is moved, and loops
//                                   may be long. The fastest where blocks are many and the last of them come out even.
//   several, few blocks (PARTS>1)   a run to each block of a cluster. All meet in shared memory, and every block adds its share of the rows, in order.
//
// What bounds wide threads is how often registers of one bank meet, see product_float.cuh: loops over inputs row by row lose 0.2 to 0.3 cycles to a multiply-add so,
// and run at 0.7 of the units. Inputs that lie k by k (BY_K=1) come through registers, a stage ahead, which turn chunks of k into rows; a thread reads four rows of
// a k at once. The compiler puts a thread's reads of global memory right before what stores them, so it waits for them in every stage: it takes four blocks to a
// multiprocessor to hide that. Of many rows product_fed.cu leaves it to other threads, and is faster where two or three blocks are enough.
//
// What else was tried of products of 256x128x1152 and 256x256x256 (H100 and H200, 2026-11-26), all of the same bits and none faster than the tiles there are:
//   16 x 8 of a thread, tiles of 128x128, two blocks   of 120 lanes 230 us (219 by 128x64); alone on its multiprocessor a block of 64 lanes takes 131 (110)
//   loops of more than 32 KB of code                   wait for their instructions: the same block takes 205 us for 131, where no other hides it
//   loops of four or eight k row by row                2 to 5 % slower
//   reads pinned ahead by a barrier of the warp a k    by k, sums in registers: 110 us of 64 lanes for 124, which is what row by row takes
//   1.5 registers read for a multiply-add, not 1.9     no difference in loops like that: two weights of different banks stay where what was read last is
//   sums in pairs of registers (mov.b64), or read and  the compiler takes the pairs apart; 8 % faster to 7 % slower with two blocks to a multiprocessor, as it
//   written by fours, swapped                          happens, and never the fastest
//   inputs copied float by float to where they lie     3 to 12 % slower than through registers
//
// Twin on the CPU: cpu/steps/gemm.rs, conv.rs.
//
//   -DOUTPUTS=8|4|2, -DROWS      of a thread         -DDEPTH      of a stage         -DSTAGES, -DMIN_BLOCKS of a multiprocessor
//   -DLONG=0|1|2                 whether a block sums several runs                    -DPARTS      blocks of a cluster
//   -DBY_K=0|1                   whether a stage's inputs lie row by row, [BN][DEPTH], or k by k, [DEPTH][BN], where k is a multiple of DEPTH
#include "cluster.cuh"
#include "product_float.cuh"

constexpr int WARPS_M = BM / PANEL, WARPS_N = BN / (ACROSS * ROWS), THREADS = 32 * WARPS_M * WARPS_N;
// Whether inputs that lie k by k are brought for the next stage before this one is multiplied, and what a k reads is read before the k ahead of it is multiplied. It
// gains 2 to 4 % in clusters, and slows single blocks down by as much (256x128x1152 and 256x256x256, 96 lanes, H200).
[[maybe_unused]] constexpr bool FEEDS_FIRST = PARTS > 1;
constexpr int INPUT_PITCH = DEPTH % 32 == 0 ? DEPTH + 4 : DEPTH;  // floats: a warp's neighbouring rows are in different banks
constexpr u32 PANEL_BYTES = DEPTH * PANEL * 4, WEIGHT_BYTES = WARPS_M * PANEL_BYTES, INPUT_BYTES = BN * (BY_K ? DEPTH : INPUT_PITCH) * 4;
constexpr u32 STAGE_BYTES = WEIGHT_BYTES + (BY_K ? 0 : INPUT_BYTES);  // by k there are two of inputs behind all stages
constexpr int AHEAD = STAGES - 1;
constexpr int PRODUCTS = OUTPUTS * ROWS;  // of a thread, for one k
constexpr bool WIDE = PRODUCTS >= 56;
// Fours of k in one piece: a thousand products of a wide thread, 16 KB of code; of others 256 to 500.
[[maybe_unused]] constexpr int UNROLL = WIDE || (PRODUCTS >= 32 && LONG != 1) ? 4 : 64 / PRODUCTS < DEPTH / 4 ? 64 / PRODUCTS : DEPTH / 4;
static_assert(WARPS_N * ACROSS * ROWS == BN, "warps cover the tile");
static_assert(RUN % DEPTH == 0 && DEPTH % 4 == 0 && STAGE_BYTES % 16 == 0, "runs end with stages");
static_assert(PARTS == 1 || (!LONG && COUNT == 4), "a block of a cluster sums one run, and reads four sums of others at once");

// A thread's rows, from the first on: every ACROSS-th; by k those of two pieces of four.
__device__ __forceinline__ u32 row_of(u32 r) { return BY_K ? r / 4 * (BN / 2) + r % 4 : r * ACROSS; }

// One k of a thread. Back and forth: wide threads are 2 to 7 % faster so on an H200; where many share a multiprocessor and k has one run, up to 8 % slower.
__device__ __forceinline__ void multiply(float (&sums)[ROWS][OUTPUTS], const float (&x)[ROWS], const Piece (&w)[PIECES]) {
    multiply<WIDE && (LONG || PARTS > 1 || MIN_BLOCKS <= 2 || BY_K)>(sums, x, w);
}

// The same, of weights that are yet to be read.
__device__ __forceinline__ void multiply(float (&sums)[ROWS][OUTPUTS], const float (&x)[ROWS], const float* weights) {
    Piece w[PIECES];
    read_weights(w, weights);
    multiply(sums, x, w);
}

// Where sums of a cluster's block lie in a piece: each in its neighbour's place, or every sum and its weight would be of one bank.
__device__ __forceinline__ int other(int o) { return o ^ 1; }

// Where a row lies among those of a four of k, so that neither those who put fours of a row nor those who read fours of rows meet in a bank.
__device__ __forceinline__ u32 turned(u32 row, u32 four) { return row ^ four % 4 * 8; }

#if LOADER < 2 && LONG < 2 || LOADER == 1 && DEPTH > 32
// Where a tile's rows lie. It waits in shared memory too.
struct __align__(16) Spot {
    u64 start;  // the address of the row's first tap; 0 where there is no row
    i32 y, x;
};

constexpr int TOGETHER = BY_K ? BN : LOADER == 1 ? 1 : 2;  // chunks of a thread, each of which takes registers that the sums want

// Loader for rows and taps, see product.cuh, but for where it keeps what it knows of rows: in shared memory, which has room for it. A thread brings the same four k of
// every PASS-th row.
struct Feeder {
    static constexpr int ROW_CHUNKS = DEPTH / 4, PASS = THREADS / ROW_CHUNKS, LOADS = (BN + PASS - 1) / PASS;
    static_assert(THREADS % ROW_CHUNKS == 0, "threads of a row stay together");

    const Spot* spots;
    u32 k;  // of this thread's chunk in the next stage

    static __device__ __forceinline__ u32 row() { return threadIdx.x / ROW_CHUNKS; }  // its first
    static __device__ __forceinline__ u32 chunk() { return threadIdx.x % ROW_CHUNKS; }

    // The first of all k is `first_k`. A barrier of the block comes before the first `each`.
    __device__ __forceinline__ Feeder(const Params& p, const Rows& tile, u64 slot, u32 group, u32 first_k, Spot* table)
        : spots(table), k(first_k + chunk() * 4) {
        for (u32 i = threadIdx.x; i < BN; i += THREADS) {
            const Source source = source_of(p, tile.first + i, group);
            const u64 start = inputs_of(p, tile, slot) + source.element * 4;
            table[i] = {tile.first + i < tile.end ? start : 0, source.y, source.x};
        }
    }

    // Calls `bring` with the number and the row of each of this thread's chunks of the next stage, where it is, and whether it is there at all.
    template <typename Bring> __device__ __forceinline__ void each(const Params& p, const Bring& bring) {
#if LOADER == 1
        const u32 ky = p.run.quotient(k), in_line = k - ky * p.run.value;
        const u32 kx = p.in_per_group.quotient(in_line), channel = in_line - kx * p.in_per_group.value;
        const u32 dy = ky * p.dilation_y, dx = kx * p.dilation_x;
        const i32 ahead = i32((dy * p.width + dx) * (p.groups * p.in_per_group.value) + channel) / 4;
#else
        const i32 ahead = k / 4;
#endif
#pragma unroll TOGETHER
        for (int i = 0; i < LOADS; i++) {
            const u32 at = row() + i * PASS;
            if (BN % PASS != 0 && at >= BN) continue;
            const Spot spot = spots[at];
            bool inside = spot.start != 0 & k < p.k;
#if LOADER == 1
            inside &= (u32(spot.y + i32(dy)) < p.height) & (u32(spot.x + i32(dx)) < p.width);
#endif
            bring(i, at, spot.start + i64(ahead) * 16, inside);
        }
        k += DEPTH;
    }

    // The next stage, to `stage`.
    __device__ __forceinline__ void load(const Params& p, u32 stage) {
        each(p, [&](int, u32 at, u64 from, bool inside) {
            // Where nothing is read the address may be anything.
            copy_chunk(stage + at * (INPUT_PITCH * 4) + chunk() * 16, from, inside);
        });
    }

#if BY_K
    static_assert(ROWS == 8 && DEPTH == 16 && BN % PASS == 0 && PASS % 32 == 0, "a warp puts 4 k of 8 rows each to 32 banks");
    Chunk held[LOADS];

    // Where this thread's chunks begin among a stage's inputs, in bytes.
    static __device__ __forceinline__ u32 own() { return (chunk() * (4 * BN) + turned(row(), chunk())) * 4; }
    // The next stage, on its way to registers.
    __device__ __forceinline__ void fetch(const Params& p) {
        each(p, [&](int i, u32, u64 from, bool inside) {
            held[i] = {};
            if (inside) held[i] = load_chunk(from);
        });
    }
    // From there to `to`, where its `own` begin: [k][row], rows of each four of k in another order, `turned`.
    __device__ __forceinline__ void put(unsigned char* to) const {
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++) reinterpret_cast<u32*>(to)[j * BN + i * PASS] = held[i].words[j];
        }
    }
#endif
};
typedef Spot Known;
#else
struct Dense {
    static __device__ __forceinline__ u32 at(u32 row, u32 chunk) { return row * (INPUT_PITCH * 4) + chunk * 16; }
};
struct Feeder : Loader<THREADS, DEPTH / 4, Dense> {
    __device__ __forceinline__ Feeder(const Params& p, const Rows& tile, u64 slot, u32 group, u32 first_k, Source* table)
        : Loader(p, tile, slot, group, first_k / DEPTH, table) {}
};
typedef Source Known;
#endif

// Gathering takes registers of its own. Those of a multiprocessor are four schedulers', so it is a warp less for each that leaves some.
constexpr int RESIDENT = LOADER >= 2 && MIN_BLOCKS >= 4 ? MIN_BLOCKS * 3 / 4 : MIN_BLOCKS;

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) kernel(const __grid_constant__ Params p) {
    extern __shared__ __align__(16) unsigned char dynamic[];
    __shared__ u64 filled[STAGES];
    __shared__ Kept kept;
    __shared__ Known table[BN];
    constexpr u32 WAITING_BYTES = LONG == 1 ? SUMS * THREADS * sizeof(Piece) : 0;
    const u32 thread = threadIdx.x, shared = shared_address(dynamic) + WAITING_BYTES;
    const unsigned char* stages = dynamic + WAITING_BYTES;
    const u32 place = blockIdx.x / PARTS;
    const u32 tile = p.m_tiles.quotient(place), m = place - tile * p.m_tiles.value;
    const u32 group = p.group_tiles.quotient(m), m0 = (m - group * p.group_tiles.value) * BM;
    const Rows rows = find_rows(p, tile);
    // The blocks of a cluster leave together or not at all.
    if (!rows.any) {
        dependency_wait(p.launch);
        return;
    }
    // A cluster has as many blocks as k has runs.
    const u32 first_k = PARTS == 1 ? 0 : blockIdx.x % PARTS * RUN, own_k = PARTS == 1 ? p.k : min(p.k - first_k, u32(RUN));
    const u32 steps = (own_k + DEPTH - 1) / DEPTH, whole = own_k / DEPTH;  // the last may be short
    const u64 slot = p.launch.weights[rows.lane];
    const u64 weights = slot + p.weights + (u64(group * p.blocks + m0 / PANEL) * p.k + first_k) * (PANEL * 4);
    const u32 all_filled = shared_address(filled);
    auto load_weights = [&](u32 step, u32 stage) {
        const u32 barrier = all_filled + stage * 8, present = kept.present;
        const u32 k = step * DEPTH, bytes = min(u32(DEPTH), own_k - k) * (PANEL * 4);
        barrier_expect(barrier, present * bytes);
#pragma unroll
        for (u32 panel = 0; panel < WARPS_M; panel++) {
            if (panel >= present) break;
            const u64 from = weights + (u64(panel) * p.k + k) * (PANEL * 4);
            copy_bulk(shared + stage * STAGE_BYTES + panel * PANEL_BYTES, from, bytes, barrier);
        }
    };
    if (thread == 0) {
#pragma unroll
        for (int stage = 0; stage < STAGES; stage++) barrier_init(&filled[stage], 1);
        barriers_are_ready();
        kept = {rows, slot, group, m0, min(u32(WARPS_M), p.blocks - m0 / PANEL)};
#pragma unroll 1
        for (u32 step = 0; step < min(u32(AHEAD), steps); step++) load_weights(step, step);
    }
    Feeder feeder(p, rows, slot, group, first_k, table);
    __syncthreads();

    dependency_wait(p.launch);
    [[maybe_unused]] unsigned char* inputs = dynamic + WAITING_BYTES + STAGES * STAGE_BYTES;
#if BY_K
    const u32 own_place = Feeder::own();
    feeder.fetch(p);
    feeder.put(inputs + own_place);
    feeder.fetch(p);
#else
#pragma unroll 1
    for (u32 step = 0; step < AHEAD; step++) {
        if (step < steps) feeder.load(p, shared + step * STAGE_BYTES + WEIGHT_BYTES);
        chunks_commit();
    }
#endif
    dependents_may_start();

    const u32 warp = thread / 32, panel = warp % WARPS_M, along = along_of(thread % 32);
    const u32 row0 = warp / WARPS_M * (ACROSS * (BY_K ? 4 : ROWS)) + across_of(thread % 32) * (BY_K ? 4 : 1);
    float run[ROWS][OUTPUTS];
    [[maybe_unused]] float totals[ROWS][OUTPUTS];  // of earlier runs, where they wait in registers
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++) run[r][o] = totals[r][o] = 0.0f;
    }
    [[maybe_unused]] Piece* waiting = reinterpret_cast<Piece*>(dynamic) + thread;
    if constexpr (LONG == 1) {
#pragma unroll
        for (int i = 0; i < SUMS; i++) waiting[i * THREADS] = Piece{};
    }
    // Where the thread's weights and inputs of a stage are.
    const u32 own_weights = panel * PANEL_BYTES + along * (COUNT * 4), own_inputs = WEIGHT_BYTES + row0 * (INPUT_PITCH * 4);
    auto wait = [&](u32 step) {
        if constexpr (!BY_K) chunks_wait<AHEAD - 1>();
        __syncthreads();
        barrier_wait(all_filled + step % STAGES * 8, step / STAGES % 2);
    };
#pragma unroll 1
    for (u32 step = 0; step < whole; step++) {
        wait(step);
        const u32 stage = step % STAGES, next = (step + AHEAD) % STAGES;
        if (step + AHEAD < steps) {
            if (thread == 0) load_weights(step + AHEAD, next);
            if constexpr (!BY_K) feeder.load(p, shared + next * STAGE_BYTES + WEIGHT_BYTES);
        }
#if BY_K
        const float* w = reinterpret_cast<const float*>(stages + stage * STAGE_BYTES + own_weights);
        const float* x = reinterpret_cast<const float*>(inputs + step % 2 * INPUT_BYTES);
        // Behind the last stage there is nothing to read.
        auto feed = [&] {
            feeder.put(inputs + (step + 1) % 2 * INPUT_BYTES + own_place);
            feeder.fetch(p);
        };
        Piece of_weights[2][PIECES];
        float4 of_inputs[2][ROWS / 4];
        auto read = [&](int k) {
            read_weights(of_weights[k % 2], w + k * PANEL);
#pragma unroll
            for (int r = 0; r < ROWS; r += 4) {
                of_inputs[k % 2][r / 4] = *reinterpret_cast<const float4*>(x + k * BN + turned(row0, k / 4) + row_of(r));
            }
        };
        if constexpr (FEEDS_FIRST) {
            feed();
            read(0);
        }
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            if (!FEEDS_FIRST) read(k);
            else if (k + 1 < DEPTH) read(k + 1);
            float one[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r += 4) {
                const float4 four = of_inputs[k % 2][r / 4];
                one[r] = four.x, one[r + 1] = four.y, one[r + 2] = four.z, one[r + 3] = four.w;
            }
            multiply(run, one, of_weights[k % 2]);
        }
        if constexpr (!FEEDS_FIRST) feed();
#else
        chunks_commit();
        const float* w = reinterpret_cast<const float*>(stages + stage * STAGE_BYTES + own_weights);
        const float* x = reinterpret_cast<const float*>(stages + stage * STAGE_BYTES + own_inputs);
#pragma unroll UNROLL
        for (int k = 0; k < DEPTH; k += 4) {
            float4 four[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r++) four[r] = *reinterpret_cast<const float4*>(x + r * (ACROSS * INPUT_PITCH) + k);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float one[ROWS];
#pragma unroll
                for (int r = 0; r < ROWS; r++) one[r] = i == 0 ? four[r].x : i == 1 ? four[r].y : i == 2 ? four[r].z : four[r].w;
                multiply(run, one, w + (k + i) * PANEL);
            }
        }
#endif
        if constexpr (LONG) {
            if ((step + 1) % (RUN / DEPTH) == 0 && step + 1 < steps) {
#pragma unroll
                for (int i = 0; i < SUMS; i++) {
                    Piece total;
                    if constexpr (LONG == 1) total = waiting[i * THREADS];
#pragma unroll
                    for (int o = 0; o < COUNT; o++) {
                        const int r = i / PIECES, output = i % PIECES * COUNT + o;
                        float& sum = LONG == 1 ? total.of[o] : totals[r][output];
                        sum += run[r][output];
                        run[r][output] = 0.0f;
                    }
                    if constexpr (LONG == 1) waiting[i * THREADS] = total;
                }
            }
        }
    }
    if (!BY_K && whole < steps) {
        wait(whole);
        const u32 stage = whole % STAGES;
        const float* w = reinterpret_cast<const float*>(stages + stage * STAGE_BYTES + own_weights);
        const float* x = reinterpret_cast<const float*>(stages + stage * STAGE_BYTES + own_inputs);
        const u32 left = p.k % DEPTH;
#pragma unroll 1
        for (u32 k = 0; k < left; k++) {
            float one[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r++) one[r] = x[r * (ACROSS * INPUT_PITCH) + k];
            multiply(run, one, w + k * PANEL);
        }
    }

    const Kept known = kept;
    if constexpr (PARTS > 1) {
        __syncthreads();  // nobody reads the stages any more
#pragma unroll
        for (int i = 0; i < SUMS; i++) {
#pragma unroll
            for (int o = 0; o < COUNT; o++) reinterpret_cast<Piece*>(dynamic)[i * THREADS + thread].of[other(o)] = run[i / PIECES][i % PIECES * COUNT + o];
        }
        cluster_arrive<PARTS>();
        cluster_wait<PARTS>();
    }
#pragma unroll
    for (int piece = 0; piece < PIECES; piece++) {
        const u32 output = known.m0 + panel * PANEL + output_of(along, piece);
        if (output >= p.n) break;
        float bias[COUNT];
        load_biases(p, known, output, bias);
        if constexpr (PARTS > 1) {
#pragma unroll 1
            for (u32 r = blockIdx.x % PARTS; r < ROWS; r += PARTS) {
                const Piece residual = residual_of(p, known, output, row0 + row_of(r));
                const float* mine = reinterpret_cast<const Piece*>(dynamic)[(r * PIECES + piece) * THREADS + thread].of;
                float4 runs[PARTS];
#pragma unroll
                for (u32 i = 0; i < PARTS; i++) runs[i] = load_remote(mine, i);
                Piece total = {};
#pragma unroll
                for (u32 i = 0; i < PARTS; i++) {
                    const float four[4] = {runs[i].x, runs[i].y, runs[i].z, runs[i].w};
#pragma unroll
                    for (int o = 0; o < COUNT; o++) total.of[o] += four[other(o)];
                }
                finish(p, known, output, row0 + row_of(r), bias, residual, total);
            }
        } else {
            // As in product_fed.cu, but not by one function: with it the loop above has up to 130 conflicts of registers' banks in 1024 multiply-adds, without it 47.
            Piece residuals[ROWS];
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) {
                if (r % TOGETHER_ROWS == 0) {
#pragma unroll
                    for (u32 i = r; i < min(r + TOGETHER_ROWS, u32(ROWS)); i++) residuals[i] = residual_of(p, known, output, row0 + row_of(i));
                }
                Piece total = {};
                if constexpr (LONG == 1) total = waiting[(r * PIECES + piece) * THREADS];
#pragma unroll
                for (int i = 0; i < COUNT; i++) {
                    if constexpr (LONG == 2) total.of[i] = totals[r][piece * COUNT + i];
                    total.of[i] += run[r][piece * COUNT + i];
                }
                finish(p, known, output, row0 + row_of(r), bias, residuals[r], total);
            }
        }
    }
    if constexpr (PARTS > 1) {
        // Others read this block's sums until they say so.
        cluster_arrive_read<PARTS>();
        cluster_wait<PARTS>();
    }
}
