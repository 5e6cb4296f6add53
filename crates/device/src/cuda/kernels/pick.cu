// Pick: out[p, :] = x[place(p) ..], a row for every point. See points.cuh.
//
// Threads walk [points][row] in packs of WIDTH elements; blockIdx.y is the item, whose first block also looks for the error. A row whose
// numbers name nothing is zeros. Bound by memory.
//
//   -DFROM=n -DTO=n  types of x and out, -DIDS=n, -DWIDTH=n      twin on the CPU: cpu/steps/points.rs
#include "points.cuh"
#include "vector.cuh"

typedef TypeOf<FROM>::type From;
typedef TypeOf<TO>::type To;
typedef TypeOf<IDS>::type Id;

struct Params {
    Launch launch;
    Operand x;
    Operand ids;
    Operand out;
    Places places;
    u64 packs;  // of an item: points * row
    u32 row;    // packs of a row
    u32 unused;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/points.rs");

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u32 item = blockIdx.y;
    if (!has_item(p.launch, item)) return;
    const Id* ids = at<const Id>(p.launch, p.ids, item);
    const From* x = at<const From>(p.launch, p.x, item);
    To* out = at<To>(p.launch, p.out, item);
    dependency_wait(p.launch);
    dependents_may_start();
    if (blockIdx.x == 0) report(p.launch, p.places, ids, item);
    for (u64 pack = u64(blockIdx.x) * 256 + threadIdx.x; pack < p.packs; pack += u64(gridDim.x) * 256) {
        const u32 point = u32(pack / p.row), within = u32(pack - u64(point) * p.row);
        const i64 number = named(p.places, ids + u64(point) * p.places.depth);
        Pack<From, WIDTH> elements{};
        if (number >= 0) elements = load_pack<From, WIDTH>(x + spot(p.places, point) + number + u64(within) * WIDTH);
        store_pack<To, WIDTH>(out + pack * WIDTH, As<To, From>::of(elements));
    }
}
