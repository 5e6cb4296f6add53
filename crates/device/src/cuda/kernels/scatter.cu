// Scatter: out[place(p) ..] = how(out[place(p) ..], updates[p, :]) in a buffer that an earlier kernel wrote. See points.cuh.
//
//   points are [before][serial][after]: along `serial` they may meet, and one thread applies them in order;
//   those of other indices never meet, nor do the elements of a row, so each has a thread of its own
//
// No two threads write one element, and each adds in the plan's order: the bits are the step's own, where atomics would leave them to chance.
// Updates whose numbers name nothing are left out. blockIdx.y is the item, whose first block also looks for the error. Bound by the latency of
// the serial points.
//
//   -DTYPE=n of out, -DFROM=n of updates, -DIDS=n, -DHOW=n as steps/points.rs numbers them      twin on the CPU: cpu/steps/points.rs
#include "numbers.cuh"
#include "points.cuh"

typedef TypeOf<TYPE>::type T;
typedef TypeOf<FROM>::type From;
typedef TypeOf<IDS>::type Id;
typedef Widened<T>::type Value;

struct Params {
    Launch launch;
    Operand ids;
    Operand updates;
    Operand out;
    Places places;  // of the points that never meet
    u64 threads;    // of an item: before * after * row
    u32 serial;
    u32 after;
    u32 row;
    u32 unused;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/points.rs");

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u32 item = blockIdx.y;
    if (!has_item(p.launch, item)) return;
    const Id* ids = at<const Id>(p.launch, p.ids, item);
    const From* updates = at<const From>(p.launch, p.updates, item);
    T* out = at<T>(p.launch, p.out, item);
    dependency_wait(p.launch);
    dependents_may_start();
    if (blockIdx.x == 0) report(p.launch, p.places, ids, item);
    for (u64 thread = u64(blockIdx.x) * 256 + threadIdx.x; thread < p.threads; thread += u64(gridDim.x) * 256) {
        const u32 apart = u32(thread / p.row), within = u32(thread - u64(apart) * p.row);
        const u32 before = apart / p.after, after = apart - before * p.after;
        T* to = out + spot(p.places, apart) + within;
#pragma unroll 1
        for (u32 serial = 0; serial < p.serial; serial++) {
            const u64 point = (u64(before) * p.serial + serial) * p.after + after;
            const i64 number = named(p.places, ids + point * p.places.depth);
            if (number < 0) continue;
            const Value update = widen(updates[point * p.row + within]);
            to[number] = HOW == number::REPLACE
                ? Narrow<T, Value>::of(update)
                : Narrow<T, Value>::of(number::updated<HOW, Value>(widen(to[number]), update));
        }
    }
}
