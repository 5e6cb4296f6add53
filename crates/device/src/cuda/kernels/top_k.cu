// TopK: the first k elements of every line in order, and their numbers.
//
// Every round finds the first of those that come after the last one found: the order of elements and numbers is total, so nothing is marked
// or moved, and what is found does not depend on how many threads look. THREADS of a block share a line, each scanning every THREADS-th
// element, then halving. A line is read k times, from the caches after the first; for the k of a classifier this is one read of memory.
//
//   -DTYPE=n of x, -DOUT=n of values, -DLARGEST=0|1, -DLAST=0|1, -DVALUES=0|1 -DINDICES=0|1 what is wanted, -DTHREADS=n a power of two
//   twin on the CPU: cpu/steps/lines.rs
#include "lines.cuh"
#include "numbers.cuh"

typedef TypeOf<TYPE>::type T;
typedef TypeOf<OUT>::type Out;
typedef Widened<T>::type Value;

struct Params {
    Launch launch;
    Operand x;
    Operand values;
    Operand indices;
    Lines lines;
    u32 k;
    u32 unused;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/lines.rs");

constexpr u32 NONE = 0xffffffff;

__shared__ Value values[256];
__shared__ u32 numbers[256];

__device__ __forceinline__ bool before(Value x, u32 i, Value y, u32 j) { return number::before<LARGEST, LAST>(x, i, y, j); }

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u32 item = blockIdx.y, thread = threadIdx.x % THREADS;
    if (!has_item(p.launch, item)) return;
    const u32 line = blockIdx.x * (256 / THREADS) + threadIdx.x / THREADS;
    const bool active = line < p.lines.count;
    const T* x = at<const T>(p.launch, p.x, item) + first_of(p.lines, active ? line : 0, p.lines.length);
    const u64 out = first_of(p.lines, active ? line : 0, p.k);
    dependency_wait(p.launch);
    dependents_may_start();
    Value last = 0;
    u32 last_number = NONE;
    for (u32 rank = 0; rank < p.k; rank++) {
        Value best = 0;
        u32 best_number = NONE;
        for (u32 i = thread; active && i < p.lines.length; i += THREADS) {
            const Value candidate = widen(x[u64(i) * p.lines.inner]);
            if (last_number != NONE && !before(last, last_number, candidate, i)) continue;
            if (best_number != NONE && !before(candidate, i, best, best_number)) continue;
            best = candidate;
            best_number = i;
        }
        values[threadIdx.x] = best;
        numbers[threadIdx.x] = best_number;
        for (u32 half = THREADS / 2; half > 0; half /= 2) {
            __syncthreads();
            const u32 other = threadIdx.x + half;
            if (thread < half && numbers[other] != NONE &&
                (numbers[threadIdx.x] == NONE || before(values[other], numbers[other], values[threadIdx.x], numbers[threadIdx.x]))) {
                values[threadIdx.x] = values[other];
                numbers[threadIdx.x] = numbers[other];
            }
        }
        __syncthreads();
        last = values[threadIdx.x - thread];
        last_number = numbers[threadIdx.x - thread];
        __syncthreads();
        if (!active || thread > 0) continue;
        const u64 to = out + u64(rank) * p.lines.inner;
#if VALUES
        at<Out>(p.launch, p.values, item)[to] = Narrow<Out, Value>::of(last);
#endif
#if INDICES
        at<i64>(p.launch, p.indices, item)[to] = last_number;
#endif
    }
}
