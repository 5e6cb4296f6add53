// Convert: one port between the wire and the arena. out[item][i] = x[item][i], floats in the type of either side.
//
// Both sides are dense, so a buffer's items are one piece and the kernel walks items * elements as one axis; a constant or a weight is
// seen anew by every item (`per_item`). A thread moves UNROLL packs of the width that makes 16 bytes of the narrower type, all
// loads before the first store. Bound by memory. Addresses that are not aligned to 16 bytes are moved element by element.
//
//   -DFROM=n -DTO=n  the element's types      twin on the CPU: none, its arena holds what the wire brings
#include "vector.cuh"

typedef TypeOf<FROM>::type From;
typedef TypeOf<TO>::type To;

constexpr int WIDTH = 16 / (sizeof(From) < sizeof(To) ? sizeof(From) : sizeof(To));
constexpr int UNROLL = 4;

struct Params {
    Launch launch;
    Operand x;
    Operand out;
    u64 elements;  // of one item
    u64 per_item;  // whether items are moved one by one, blockIdx.y each
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/convert.rs");

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u32 items = items_of(p.launch), item = blockIdx.y;
    if (!has_item(p.launch, item)) return;
    const From* x = at<const From>(p.launch, p.x, item);
    To* out = at<To>(p.launch, p.out, item);
    const u64 count = p.per_item ? p.elements : items * p.elements;
    const u64 thread = u64(blockIdx.x) * blockDim.x + threadIdx.x, threads = u64(gridDim.x) * blockDim.x;
    const bool aligned = ((reinterpret_cast<u64>(x) | reinterpret_cast<u64>(out)) & 15) == 0;
    dependency_wait(p.launch);
    dependents_may_start();
    const u64 packs = aligned ? count / WIDTH : 0;
    for (u64 first = thread; first < packs; first += threads * UNROLL) {
        Pack<From, WIDTH> loaded[UNROLL];
#pragma unroll
        for (int i = 0; i < UNROLL; i++)
            if (first + i * threads < packs) loaded[i] = load_pack<From, WIDTH>(x + (first + i * threads) * WIDTH);
#pragma unroll
        for (int i = 0; i < UNROLL; i++) {
            const u64 at = (first + i * threads) * WIDTH;
            if (first + i * threads < packs) store_pack<To, WIDTH>(out + at, As<To, From>::of(loaded[i]));
        }
    }
    for (u64 i = packs * WIDTH + thread; i < count; i += threads) out[i] = As<To, From>::of(x[i]);
}
