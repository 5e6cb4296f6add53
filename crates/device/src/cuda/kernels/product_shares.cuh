// Which runs of which tiles a block of product_fed.cu multiplies, in which order, and what of them it takes from the block ahead or hands to the one behind: that kernel's
// head has the picture.
#pragma once
#include "product_float.cuh"

// Of a block.
constexpr int CREWS = 2;
// Where sums of runs that are over wait: tiles that follow each other take turns.
constexpr u32 SHEETS = 2;
constexpr u32 OF_RUN = RUN / DEPTH;  // steps
// Whether a run may be cut. Threads of seven rows would read what they multiply less well spread (7x7 and 14x14 5 µs longer), so their tiles are cut between runs.
constexpr bool CARRIES = LONG && ROWS == 8;

// A run of a tile, or what a cut leaves of it: what a crew multiplies before it adds.
struct Stretch {
    u32 of_all, run;  // the tile among all, and the run in it
    u32 first, end;   // of the tile's steps
    u32 sheet;        // where the sum of the runs before waits
    u32 begins : 1, ends : 1;     // the tile
    u32 takes : 1, hands : 1;     // sums come from the block ahead, or go to the one behind
    u32 carries : 1, halves : 1;  // among them the run's own, which the cut is in
    u32 last : 1;                 // of its crew
};

// A block's share of the steps of all tiles, which lie one behind the other.
struct Share {
    u32 steps;               // of a tile
    u32 tile, step;          // its first
    u32 end_tile, end_step;  // behind its last

    // Cuts closer than this to either end of a tile are made there: handing sums on takes as long as a few steps. Tiles of several runs have more than twice as many.
    static constexpr u32 NEAR = 4;

    __device__ __forceinline__ Share(const Params& p, u32 tiles) : steps(p.k / DEPTH), tile(0), step(0), end_tile(0), end_step(0) {
        const u32 blocks = gridDim.x, most = (tiles + blocks - 1) / blocks;
        if (!LONG || tiles <= blocks || tiles * 20 >= most * blocks * 19) {  // whole tiles keep nearly all blocks as busy
            const u32 each = tiles / blocks, rest = tiles - each * blocks;
            tile = blockIdx.x * each + min(blockIdx.x, rest);
            end_tile = tile + each + (blockIdx.x < rest);
            return;
        }
        const u32 all = tiles * steps, each = all / blocks, rest = all - each * blocks;
        cut(blockIdx.x * each + min(blockIdx.x, rest), tile, step);
        cut((blockIdx.x + 1) * each + min(blockIdx.x + 1, rest), end_tile, end_step);
    }
    __device__ __forceinline__ void cut(u32 at, u32& of_tile, u32& in_tile) const {
        of_tile = at / steps;
        in_tile = at - of_tile * steps;
        if (!CARRIES) in_tile = (in_tile + OF_RUN / 2) / OF_RUN * OF_RUN;
        if (in_tile < NEAR) in_tile = 0;
        if (in_tile + NEAR > steps) {
            in_tile = 0;
            of_tile++;
        }
    }
    // Of so many steps.
    static __device__ __forceinline__ u32 runs_of(u32 steps) { return LONG ? (steps + OF_RUN - 1) / OF_RUN : steps > 0; }
    // The run that a step is in.
    static __device__ __forceinline__ u32 run_at(u32 step) { return LONG ? step / OF_RUN : 0; }
    __device__ __forceinline__ u32 count() const { return (end_tile - tile) * runs_of(steps) + runs_of(end_step) - run_at(step); }

    // Run `run` of its tile, `number` of the block's.
    __device__ __forceinline__ void turn_to(Stretch& to, u32 run, u32 number) const {
        const bool first = to.of_all == tile && run == run_at(step), last = to.of_all == end_tile && run + 1 == runs_of(end_step);
        to.run = run;
        to.first = first ? step : run * OF_RUN;
        to.end = min(last ? end_step : steps, LONG ? (run + 1) * OF_RUN : steps);
        to.begins = run == 0;
        to.ends = !last && run + 1 == runs_of(steps);
        to.takes = first && step > 0;
        to.hands = last;
        to.carries = CARRIES && to.takes && step % OF_RUN != 0;
        to.halves = CARRIES && last && end_step % OF_RUN != 0;
        to.last = number + CREWS >= count();
    }
    // The crew's next run, if it is of the same tile.
    __device__ __forceinline__ bool follow(Stretch& stretch, u32 number) const {
        const u32 next = stretch.run + CREWS;
        if (!LONG || next >= runs_of(stretch.of_all == end_tile ? end_step : steps)) return false;
        turn_to(stretch, next, number);
        return true;
    }
    // In this order: the beginning of the last tile, whose end another block has; whole tiles; the end of the first. What another block waits for comes first,
    // and what waits for another block comes last.
    __device__ __forceinline__ Stretch stretch(u32 number) const {
        const u32 head = runs_of(end_step), runs = runs_of(steps);
        u32 run = number;
        Stretch stretch;
        stretch.sheet = 0;
        stretch.of_all = end_tile;
        if (number >= head) {
            const u32 nth = (number - head) / runs, whole = end_tile - tile - (step > 0);
            run = number - head - nth * runs;
            stretch.of_all = tile + (step > 0) + nth;
            stretch.sheet = (head > 0) + nth;
            if (nth == whole) {
                stretch.of_all = tile;
                run += run_at(step);
            }
        }
        stretch.sheet %= SHEETS;
        turn_to(stretch, run, number);
        return stretch;
    }
    __device__ __forceinline__ Kept tile_of(const Params& p, const Stretch& stretch) const {
        const u32 of_rows = p.m_tiles.quotient(stretch.of_all), m = stretch.of_all - of_rows * p.m_tiles.value;
        Kept tile;
        tile.rows = find_rows(p, of_rows);
        tile.group = p.group_tiles.quotient(m);
        tile.m0 = (m - tile.group * p.group_tiles.value) * BM;
        tile.slot = p.launch.weights[tile.rows.lane];
        tile.present = min(u32(BM / PANEL), p.blocks - tile.m0 / PANEL);
        return tile;
    }
};
