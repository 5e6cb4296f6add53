// CumSum: sums of every line from its first element on, or from its last back, added in that order.
//
// One thread walks one line: the order of a sum is the plan's. Lines lie side by side where the axis has something inside it, and then a warp
// reads whole sectors. Bound by the latency of a line.
//
//   -DTYPE=n of x, -DOUT=n of out, -DEXCLUSIVE=0|1, -DREVERSE=0|1      twin on the CPU: cpu/steps/lines.rs
#include "lines.cuh"
#include "numbers.cuh"

typedef TypeOf<TYPE>::type T;
typedef TypeOf<OUT>::type Out;
typedef Widened<T>::type Value;

struct Params {
    Launch launch;
    Operand x;
    Operand out;
    Lines lines;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/lines.rs");

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u32 item = blockIdx.y, line = blockIdx.x * 256 + threadIdx.x;
    if (!has_item(p.launch, item)) return;
    dependency_wait(p.launch);
    dependents_may_start();
    if (line >= p.lines.count) return;
    const u64 first = first_of(p.lines, line, p.lines.length);
    const T* x = at<const T>(p.launch, p.x, item) + first;
    Out* out = at<Out>(p.launch, p.out, item) + first;
    Value sum = 0;
#pragma unroll 4
    for (u32 i = 0; i < p.lines.length; i++) {
        const u64 place = u64(REVERSE ? p.lines.length - 1 - i : i) * p.lines.inner;
        const Value with = number::add<Value>(sum, widen(x[place]));
        out[place] = Narrow<Out, Value>::of(EXCLUSIVE ? sum : with);
        sum = with;
    }
}
