// Linear layers and convolutions in strict fp32, of many rows: some warps of a block bring inputs and weights, and the others do nothing but multiply. See
// product.cuh for the formula and the tiles, product_float.cuh for how a thread multiplies.
//
//   slot      [BM/64 panels]  --bulk copy----------------------->  stage: weights [BM/64][DEPTH][64]
//   inputs    [BN rows]       --chunks--> FEEDERS --words------->  stage: inputs  [DEPTH][PITCH]
//   crews     two of a block, each with stages and feeders of its own, wait for a stage, multiply it, and say that it is free
//
// A multiprocessor has one block, which stays. Its share of all tiles' k is as large as any other's, give or take a few steps:
//
//   steps of all tiles, one behind the other    tile 0 |........|  tile 1 |....:...|  tile 2 |.......:|  tile 3 |........|
//   shares                                      block 0 ────────────────────>  block 1 ──────────────>  block 2 ─────────>
//
// k is summed as the plan says: in runs of 256 from zero, the runs added in order (LONG=1). A block's runs lie in a row and its crews take them in turns, so both
// multiply the same tile where there is one for each block; what runs add up to waits in shared memory. A tile that is cut begins in one block, which does that
// first, and ends in the next one, which does that last: its sums, also those of a run that the cut is in, go through memory. No share and no tile changes a bit.
// Where whole tiles keep blocks busy to a twentieth, or there is no more than one for each, none is cut.
//
// A block waits for one other, the one before it, for what that one does first and without waiting for any. So a grid need not be resident as a whole, whatever runs
// beside it: it is enough that blocks begin in the order of their numbers. CUDA promises no order; cards keep this one (which is not documented), and CUB's decoupled
// look-back stands on it too (NVIDIA/cub#245).
//
// Tiles of a single run (LONG=0) are not cut: a sum that may begin elsewhere takes the loops registers, and 5 % of their time.
//
// Inputs lie k by k, which only registers can turn rows into. Where multiplying threads do that themselves (product_float.cu), the compiler moves each read of
// global memory to right before what stores it, a thread waits for it in every stage, and what works out its address comes between multiply-adds.
//
//   µs on an H200                       256x128x1152: 20 lanes   32     64     96     120     256x256x256: 20 lanes   32     64     120
//   this kernel, tiles of 128 by 64                   53.6       54.5   104.0  154.8  191.0                24.2       25.4   47.9   92.5
//   blocks of one crew, a tile each, the best of them 58.3       58.5   101.9  158.8  201.7                25.4       26.8   52.6   95.2
//   cuBLAS, the best of two ways                      71.1       68.2   106.7  194.3  195.8                24.4       28.9   49.7   96.0
//   3x3 convolutions of 32 lanes: 7x7 225 -> 181, 14x14 188 -> 181, 28x28 191 -> 166, 56x56 180 -> 174
//
// Where its time goes (H200, 2026-11-27). Two warps of a scheduler that only read stages and multiply take 1.226 cycles a multiply-add, four 1.213, threads of 8 by 16
// sums 1.18, multiply-adds alone 1.02: reads of 16 bytes cost two cycles beyond the one that they are issued in, however they are spread, and reads of 8 bytes, which
// cost none, are twice as many. Banks of registers cost 1 to 3 % (see product_float.cuh). Feeders and what lies between stages bring it to 1.3.
// What was tried and was no faster: crews that have a share each; the k ahead read across stages; stages of 16 k; asking for more than the first step's inputs, or for
// more than the first step's weights before the inputs (at 32 lanes of 256x256x256 0.6 µs: they come first then, from memory).
//
// Twin on the CPU: cpu/steps/gemm.rs, conv.rs.
//
//   -DOUTPUTS=8, -DROWS=8|7   of a thread               -DDEPTH=32     of a stage, which divides k      -DSTAGES        of a crew
//   -DLONG=0|1                whether k is several runs -DFEEDERS      threads, of a crew
#include "product_shares.cuh"

constexpr int WARPS_M = BM / PANEL, WARPS_N = BN / (ACROSS * ROWS);
// Multiplying threads: of a crew, and all.
constexpr int CREW = 32 * WARPS_M * WARPS_N, MULTIPLIERS = CREWS * CREW;
// So many k are multiplied at once: 16 KB of code. Loops of more than 32 KB wait for their instructions.
constexpr int BODY = 16;
// Places of one k. Fours of them change places from four k to four k, as `turned` says: feeders write fours of eight such k at once, to different banks.
constexpr int PITCH = HALF * 2 + 4;
constexpr u32 SHEET_BYTES = BM * BN * 4;
constexpr u32 PANEL_BYTES = DEPTH * PANEL * 4, WEIGHT_BYTES = WARPS_M * PANEL_BYTES, STAGE_BYTES = WEIGHT_BYTES + DEPTH * PITCH * 4;
static_assert(OUTPUTS == 8 && (ROWS == 8 || ROWS == 7) && WARPS_N * ACROSS * ROWS == BN, "warps cover the tile, and threads read eight places");
static_assert(RUN % DEPTH == 0 && DEPTH == 2 * BODY, "runs end with stages, of two bodies each");

// Where four places are at a k of these four.
__device__ __forceinline__ u32 turned(u32 four, u32 of_k) { return four ^ of_k / 2 % 4; }

#if LOADER == 1
// What a tap outside the image brings.
__device__ const Chunk NOTHING = {};
#endif

// A crew's inputs on their way through registers, where what four rows have of four k is turned: four rows of one k are then one write.
struct Feeder {
    static constexpr int CHUNKS = DEPTH / 4, PASS = FEEDERS / CHUNKS, FOURS = HALF / 2, EACH = FOURS / PASS;
    static_assert(FEEDERS % CHUNKS == 0 && FOURS % PASS == 0, "every feeder has as many fours of rows: where some have none, all wait");
    u64 inputs;
    i32 offset[EACH * 4];  // chunks from `inputs` to a row's first tap
#if LOADER == 1
    u32 taps[EACH * 2];  // that lie inside the image, a bit each: 16 of each of two rows
#endif
    Chunk held[EACH * 4];

    // Neighbours read one row's chunks, 128 bytes that lie together.
    static __device__ __forceinline__ u32 chunk() { return (threadIdx.x - MULTIPLIERS) % CHUNKS; }
    static __device__ __forceinline__ u32 four(u32 each) { return (threadIdx.x - MULTIPLIERS) % FEEDERS / CHUNKS + each * PASS; }

    // To the rows of a tile. Where it has none, to its last: nothing is made of what they bring.
    __device__ __forceinline__ void turn_to(const Params& p, const Kept& tile) {
        inputs = inputs_of(p, tile.rows, tile.slot);
        [[maybe_unused]] Source sources[EACH * 4];
#pragma unroll
        for (u32 i = 0; i < EACH * 4; i++) {
            const u32 in_tile = row_of_four(four(i / 4)) + i % 4;
            sources[i] = source_of(p, min(tile.rows.first + in_tile, tile.rows.end - 1), tile.group);
            offset[i] = i32(sources[i].element / 4);
        }
#if LOADER == 1
        u32 columns[EACH * 4] = {};
#pragma unroll 1
        for (u32 kx = 0; kx < p.kernel_width; kx++) {
#pragma unroll
            for (u32 i = 0; i < EACH * 4; i++) columns[i] |= u32(u32(sources[i].x + i32(kx * p.dilation_x)) < p.width) << kx;
        }
#pragma unroll
        for (u32 i = 0; i < EACH * 2; i++) taps[i] = 0;
#pragma unroll 1
        for (u32 ky = 0; ky < p.kernel_height; ky++) {
#pragma unroll
            for (u32 i = 0; i < EACH * 4; i++) {
                if (u32(sources[i].y + i32(ky * p.dilation_y)) < p.height) taps[i / 2] |= columns[i] << ky * p.kernel_width << i % 2 * 16;
            }
        }
#endif
    }
    // Asks for the lines of a step's rows, which may be far away.
    __device__ __forceinline__ void ask(u32 step) const {
#if LOADER != 1
        if (chunk() != 0) return;
#pragma unroll
        for (u32 i = 0; i < EACH * 4; i++) prefetch_line(inputs + i64(offset[i] + i32(step * CHUNKS)) * 16);
#endif
    }
    // A step, on its way to registers.
    __device__ __forceinline__ void fetch(const Params& p, u32 step) {
        const u32 k = step * DEPTH + chunk() * 4;
#if LOADER == 1
        const u32 tap = p.in_per_group.quotient(k), channel = k - tap * p.in_per_group.value;
        const u32 ky = p.run.quotient(k), kx = tap - ky * p.kernel_width;
        const i32 ahead = i32((ky * p.dilation_y * p.width + kx * p.dilation_x) * (p.groups * p.in_per_group.value) + channel) / 4;
#else
        const i32 ahead = k / 4;
#endif
#pragma unroll
        for (u32 i = 0; i < EACH * 4; i++) {
            u64 from = inputs + i64(offset[i] + ahead) * 16;
#if LOADER == 1
            if (!(taps[i / 2] >> tap >> i % 2 * 16 & 1)) from = __cvta_generic_to_global(&NOTHING);
#endif
            held[i] = load_chunk(from);
        }
    }
    // From there to a stage's inputs.
    __device__ __forceinline__ void put(u32* stage) const {
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            u32* to = stage + chunk() * 4 * PITCH + turned(four(i), chunk()) * 4;
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                const Chunk* rows = held + i * 4;
                *reinterpret_cast<Chunk*>(to + j * PITCH) = {{rows[0].words[j], rows[1].words[j], rows[2].words[j], rows[3].words[j]}};
            }
        }
    }
};

// A tile's weights on their way to stages.
struct Weights {
    u64 from, panel_bytes;
    u32 present;
    __device__ __forceinline__ Weights(const Params& p, const Kept& tile) : panel_bytes(u64(p.k) * (PANEL * 4)), present(tile.present) {
        from = tile.slot + p.weights + (tile.group * p.blocks + tile.m0 / PANEL) * panel_bytes;
    }
    // Those of a step.
    __device__ __forceinline__ void load(u32 step, u32 stage, u32 barrier) const {
        barrier_expect(barrier, present * PANEL_BYTES);
#pragma unroll
        for (u32 panel = 0; panel < WARPS_M; panel++) {
            if (panel < present) copy_bulk(stage + panel * PANEL_BYTES, from + panel * panel_bytes + u64(step) * PANEL_BYTES, PANEL_BYTES, barrier);
        }
    }
};

// What its crew is told of it.
struct Unit {
    Stretch stretch;
    Kept tile;
};
// One more than stages: the feeders describe a stretch when they have filled the last stage of the one before, and their crew is at most so many behind.
constexpr int PLACES = STAGES + 1;

// A tile's sums on their way through memory to the block behind, in two parts. A word for each warp of a crew says that they are there.
constexpr u32 OF_RUN_CUT = 0, OF_RUNS_BEFORE = 1;
static_assert(CREW == 4 * 32, "four words of a block: twin of site.rs");
struct Handed {
    u64 sums, word;
    static constexpr u32 PART_BYTES = SUMS * CREW * sizeof(Piece);
    __device__ __forceinline__ Handed(const Params& p, u32 block, u32 thread)
        : sums(p.handed + (block * 2 * u64(SUMS * CREW) + thread) * sizeof(Piece)), word(p.words + (block * (CREW / 32) + thread / 32) * 4) {}

    __device__ __forceinline__ void put(u32 part, u32 piece, const Piece& sum) const {
        const Chunk c = {{__float_as_uint(sum.of[0]), __float_as_uint(sum.of[1]), __float_as_uint(sum.of[2]), __float_as_uint(sum.of[3])}};
        store_chunk(sums + part * PART_BYTES + piece * CREW * sizeof(Piece), c);
    }
    __device__ __forceinline__ Piece get(u32 part, u32 piece) const {
        const Chunk c = load_chunk(sums + part * PART_BYTES + piece * CREW * sizeof(Piece));
        return {__uint_as_float(c.words[0]), __uint_as_float(c.words[1]), __uint_as_float(c.words[2]), __uint_as_float(c.words[3])};
    }
    __device__ __forceinline__ void tell() const {
        __syncwarp();
        if (threadIdx.x % 32 == 0) asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(word), "r"(1) : "memory");
    }
    // Until they are there. The word is as it was then.
    __device__ __forceinline__ void await() const {
        if (threadIdx.x % 32 == 0) {
            u32 told;
            do {
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(told) : "l"(word) : "memory");
            } while (!told);
            asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(word), "r"(0) : "memory");
        }
        __syncwarp();
    }
};

// A thread's sums of a run, and where those of the runs before wait.
typedef float Sums[ROWS][OUTPUTS];

__device__ __forceinline__ Piece piece_of(const Sums& run, int number) {
    Piece piece;
#pragma unroll
    for (int o = 0; o < COUNT; o++) piece.of[o] = run[number / PIECES][number % PIECES * COUNT + o];
    return piece;
}

// What the block ahead has summed of a run, once it has.
__device__ __forceinline__ void take_run(const Params& p, const Stretch& of, u32 thread, Sums& run) {
    const Handed from(p, blockIdx.x - 1, thread);
    from.await();
    if (!CARRIES || !of.carries) return;
#pragma unroll
    for (int i = 0; i < SUMS; i++) {
        const Piece sum = from.get(OF_RUN_CUT, i);
#pragma unroll
        for (int o = 0; o < COUNT; o++) run[i / PIECES][i % PIECES * COUNT + o] = sum.of[o];
    }
}

// And of the runs before it. The other crew no longer needs the place where they wait.
__device__ __forceinline__ void take_runs_before(const Params& p, u32 thread, Piece* waiting) {
    const Handed from(p, blockIdx.x - 1, thread);
#pragma unroll
    for (int i = 0; i < SUMS; i++) waiting[i * CREW] = from.get(OF_RUNS_BEFORE, i);
}

// Adds a run to those before.
__device__ __forceinline__ void add(const Stretch& of, const Sums& run, Piece* waiting) {
#pragma unroll
    for (int i = 0; i < SUMS; i++) {
        Piece total = {};
        if (!of.begins) total = waiting[i * CREW];
        const Piece sum = piece_of(run, i);
#pragma unroll
        for (int o = 0; o < COUNT; o++) total.of[o] += sum.of[o];
        waiting[i * CREW] = total;
    }
}

// What this block has summed of a tile, for the one behind.
__device__ __forceinline__ void hand(const Params& p, const Stretch& of, u32 thread, const Sums& run, const Piece* waiting) {
    const Handed to(p, blockIdx.x, thread);
#pragma unroll
    for (int i = 0; i < SUMS; i++) {
        if (CARRIES && of.halves) to.put(OF_RUN_CUT, i, piece_of(run, i));
        Piece total = {};
        if (!of.begins || !of.halves) total = waiting[i * CREW];
        to.put(OF_RUNS_BEFORE, i, total);
    }
    to.tell();
}

extern "C" __global__ void __launch_bounds__(MULTIPLIERS + CREWS * FEEDERS, 1) kernel(const __grid_constant__ Params p) {
    extern __shared__ __align__(16) unsigned char dynamic[];
    __shared__ u64 filled[CREWS][STAGES], freed[CREWS][STAGES], added[CREWS];
    __shared__ Unit units[CREWS][PLACES];
    const u32 thread = threadIdx.x;
    const Share share(p, count_row_tiles(p) * p.m_tiles.value);
    const u32 count = share.count();
    const bool feeds = thread >= MULTIPLIERS;
    const u32 crew = feeds ? (thread - MULTIPLIERS) / FEEDERS : thread / CREW;
    const u32 all_filled = shared_address(filled[crew]), all_freed = shared_address(freed[crew]);
    unsigned char* stages = dynamic + (LONG ? SHEETS * SHEET_BYTES : 0) + crew * STAGES * STAGE_BYTES;
    if (thread == 0) {
#pragma unroll
        for (int crew = 0; crew < CREWS; crew++) {
            barrier_init(&added[crew], CREW);
#pragma unroll
            for (int stage = 0; stage < STAGES; stage++) {
                barrier_init(&filled[crew][stage], FEEDERS + 1);  // every feeder, and who asks for the weights
                barrier_init(&freed[crew][stage], CREW);  // each for itself, as racecheck follows
            }
        }
        barriers_are_ready();
    }
    Unit unit;
    if (feeds && crew < count) {
        unit.stretch = share.stretch(crew);
        unit.tile = share.tile_of(p, unit.stretch);
    }
    __syncthreads();
    if (crew >= count) {
        dependency_wait(p.launch);
        return;
    }

    if (feeds) {
        Stretch stretch = unit.stretch;
        const bool first = (thread - MULTIPLIERS) % FEEDERS == 0;
        if (first) units[crew][0] = unit;
        Feeder feeder;
        Weights weights(p, unit.tile);
        auto load_weights = [&](u32 at, u32 stage) { weights.load(at, shared_address(stages) + stage * STAGE_BYTES, all_filled + stage * 8); };
        if (first) load_weights(stretch.first, 0);
        feeder.turn_to(p, unit.tile);
        feeder.ask(stretch.first);
        dependency_wait(p.launch);
        u32 step = 0;  // of all stretches
#pragma unroll 1
        for (u32 number = 0;;) {
            feeder.fetch(p, stretch.first);
#pragma unroll 1
            for (u32 at = stretch.first; at < stretch.end; at++, step++) {
                const u32 stage = step % STAGES;
                if (step >= STAGES) barrier_wait(all_freed + stage * 8, (step / STAGES - 1) % 2);
                if (first && step > 0) load_weights(at, stage);
                feeder.put(reinterpret_cast<u32*>(stages + stage * STAGE_BYTES + WEIGHT_BYTES));
                barrier_arrive(all_filled + stage * 8);
                if (at + 1 < stretch.end) feeder.fetch(p, at + 1);
            }
            if (stretch.last) break;
            Unit& before = units[crew][number % PLACES];
            number++;
            Unit& next = units[crew][number % PLACES];
            if (share.follow(stretch, number * CREWS + crew)) {
                if (first) next = {stretch, before.tile};
                continue;
            }
            stretch = share.stretch(number * CREWS + crew);
            const Kept tile = share.tile_of(p, stretch);
            if (first) next = {stretch, tile};
            feeder.turn_to(p, tile);
            weights = Weights(p, tile);
        }
        return;
    }

    dependency_wait(p.launch);
    dependents_may_start();
    const u32 of_crew = thread % CREW, warp = of_crew / 32, panel = warp % WARPS_M, along = along_of(thread % 32);
    const u32 across = warp / WARPS_M * ACROSS + across_of(thread % 32);
    const i32 to_next = BODY * PITCH + (i32(turned(across, BODY / 4)) - i32(across)) * 4;
    u32 step = 0;  // of all stretches
#pragma unroll 1
    for (u32 number = 0;; number++) {
        barrier_wait(all_filled + step % STAGES * 8, step / STAGES % 2);
        const Unit& unit = units[crew][number % PLACES];
        const Stretch& now = unit.stretch;
        const u32 end = step + now.end - now.first;
        [[maybe_unused]] Piece* waiting = nullptr;
        if constexpr (LONG) waiting = reinterpret_cast<Piece*>(dynamic + now.sheet * SHEET_BYTES) + of_crew;
        Sums run;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
#pragma unroll
            for (int o = 0; o < OUTPUTS; o++) run[r][o] = 0.0f;
        }
        if (LONG && now.takes) take_run(p, now, of_crew, run);
#pragma unroll 1
        for (; step < end; step++) {
            const u32 stage = step % STAGES;
            barrier_wait(all_filled + stage * 8, step / STAGES % 2);
            const float* w = reinterpret_cast<const float*>(stages + stage * STAGE_BYTES + panel * PANEL_BYTES) + along * COUNT;
            const float* x[2];  // of the first eight k and of the others
#pragma unroll
            for (int eight = 0; eight < 2; eight++) {
                x[eight] = reinterpret_cast<const float*>(stages + stage * STAGE_BYTES + WEIGHT_BYTES) + turned(across, eight * 2) * 4;
            }
#pragma unroll 1
            for (int body = 0; body < DEPTH / BODY; body++) {
                multiply_ahead<BODY>(run, w, [&](int k, int half) { return x[k / 8] + k * PITCH + half * HALF; });
                w += BODY * PANEL;
                x[0] += to_next;
                x[1] += to_next;
            }
            if (step + 1 < end) barrier_arrive(all_freed + stage * 8);
        }
        // What follows may take this one's place when its last stage is free.
        const bool begins = now.begins, ends = now.ends, last = now.last;
        if constexpr (LONG) {
            // The other crew has added what comes before, and has nothing left in this place. (Where crews took turns by named barriers racecheck told of hazards.)
            if (number + crew > 0) barrier_wait(&added[1 - crew], (number + 1 - crew) % 2);
            if (now.takes) take_runs_before(p, of_crew, waiting);
            if (!ends && !(CARRIES && now.halves)) add(now, run, waiting);
            if (now.hands) hand(p, now, of_crew, run, waiting);
            barrier_arrive(&added[crew]);
        }
        const Kept known = unit.tile;
        barrier_arrive(all_freed + (step - 1) % STAGES * 8);
        if (ends) {
#pragma unroll
            for (int piece = 0; piece < PIECES; piece++) {
                const u32 output = known.m0 + panel * PANEL + output_of(along, piece);
                if (output >= p.n) break;
                float bias[COUNT];
                load_biases(p, known, output, bias);
                Piece residuals[ROWS];
#pragma unroll
                for (u32 r = 0; r < ROWS; r++) {
                    if (r % TOGETHER_ROWS == 0) {
#pragma unroll
                        for (u32 i = r; i < min(r + TOGETHER_ROWS, u32(ROWS)); i++) residuals[i] = residual_of(p, known, output, row_of(across, i));
                    }
                    Piece total = {};
                    if constexpr (LONG) {
                        if (!begins) total = waiting[(r * PIECES + piece) * CREW];
                    }
#pragma unroll
                    for (int i = 0; i < COUNT; i++) total.of[i] += run[r][piece * COUNT + i];
                    finish(p, known, output, row_of(across, r), bias, residuals[r], total);
                }
            }
        }
        if (last) break;
    }
}
