// Gather: rows by number. out[o, i, :] = table[o, ids[i], :] for every item.
//
// A number below 0 counts from the end. One that names no row is never followed: its row of out is zeros, and the item's error
// says which id it was, the first one of the first step that met one. Threads walk [outer, count, row] in packs of WIDTH
// elements; blockIdx.y is the item, whose first block also looks for the error. Bound by memory.
//
//   -DFROM=n -DTO=n  types of table and out, -DIDS=n, -DWIDTH=n      twin on the CPU: cpu/steps/gather.rs
#include "vector.cuh"

typedef TypeOf<FROM>::type From;
typedef TypeOf<TO>::type To;
typedef TypeOf<IDS>::type Id;

struct Params {
    Launch launch;
    Operand table;
    Operand ids;
    Operand out;
    u64 packs;  // of an item: outer * count * row
    u32 rows;
    u32 row;  // packs of a row
    u32 count;
    u32 step;  // the step's index, plus one
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/gather.rs");

// The row that an id means, or `rows`.
__device__ __forceinline__ u32 row_of(i64 id, u32 rows) {
    const i64 counted = id < 0 ? id + i64(rows) : id;
    return counted >= 0 && counted < i64(rows) ? u32(counted) : rows;
}

// The smallest position of an id that names no row becomes the item's error, unless an earlier step left one.
__device__ __forceinline__ void report(const Params& p, const Id* ids, u32 item) {
    __shared__ u32 first;
    if (threadIdx.x == 0) first = p.count;
    __syncthreads();
    for (u32 position = threadIdx.x; position < p.count; position += 256) {
        if (row_of(ids[position], p.rows) < p.rows) continue;
        atomicMin(&first, position);
        break;
    }
    __syncthreads();
    ItemError& error = p.launch.errors[item];
    if (threadIdx.x > 0 || first == p.count || error.step != 0) return;
    error.step = p.step;
    error.position = first;
    error.id = ids[first];
}

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    const u32 item = blockIdx.y;
    if (!has_item(p.launch, item)) return;
    const Id* ids = at<const Id>(p.launch, p.ids, item);
    const From* table = at<const From>(p.launch, p.table, item);
    To* out = at<To>(p.launch, p.out, item);
    dependency_wait(p.launch);
    dependents_may_start();
    if (blockIdx.x == 0) report(p, ids, item);
    for (u64 pack = u64(blockIdx.x) * 256 + threadIdx.x; pack < p.packs; pack += u64(gridDim.x) * 256) {
        const u64 taken = pack / p.row;  // o * count + position
        const u32 within = u32(pack - taken * p.row);
        const u64 outer = taken / p.count;
        const u32 row = row_of(ids[u32(taken - outer * p.count)], p.rows);
        Pack<From, WIDTH> elements{};
        if (row < p.rows) elements = load_pack<From, WIDTH>(table + ((outer * p.rows + row) * p.row + within) * WIDTH);
        store_pack<To, WIDTH>(out + pack * WIDTH, As<To, From>::of(elements));
    }
}
