// What every kernel is handed, and how it finds its operands. The twin of abi.rs: sizes are asserted on both sides.
//
//   launch   counts, the slot of every lane, the lane of every item      written by the host for each launch of the graph, fetched by launch_begin.cu
//   operand  buffer    base + item * item_bytes
//            constant  base
//            weight    weights[lane_of[item]] + base
//            wire      *base + item * item_bytes              where this launch's inputs and outputs are staged
//
// A program is launched for up to its capacity of lanes and items; `counts` says how many there are this time. Grids are
// made for the capacity, so every kernel first leaves out what is not there.
//
// Rules of a kernel, which keep the promise of bits and let kernels overlap:
//   - it calls `dependency_wait(launch)` before it reads or writes any buffer (weights, constants and the launch's table may be read before),
//     in every thread that does so and at least once in every block, also in blocks that have nothing to do;
//   - it touches the workspace and words (site.rs) behind that wait alone, as if they were buffers; a word that it set is zero again when it ends;
//   - a block waits for blocks of its own cluster, or for such as come before it in its grid and wait for nobody: a grid need not be resident as a whole;
//   - it calls `dependents_may_start()` when its own loads are under way (or at once, or never: its end counts);
//   - it does not fetch what a later kernel reads: asking for the next product's weights, 8 to 48 MiB of them, into the second-level cache changed nothing
//     (BERT-base bf16, 16 lanes: 1286 us with and without; H200, 2026-11-26);
//   - what it computes for an item depends on that item and its lane's weights alone.
#pragma once

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef short i16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;

// The first failure of an item: all zero when there is none.
struct ItemError {
    u32 step;      // index of the step in the plan, plus one
    u32 position;  // of the id among the ids of the item
    i64 id;
};
static_assert(sizeof(ItemError) == 16, "twin of abi.rs");

struct Launch {
    const u32* counts;   // [0] lanes, [1] items, [2] items of every lane when all carry the same number, else 0, [3] whether kernels tell `began`
    const u64* weights;  // [lane] address of the lane's slot
    const u32* first;    // [lane] first item of the lane; [lanes] is the number of items
    const u32* lane_of;  // [item]
    ItemError* errors;   // [item]
    u64* began;          // this kernel's own: when all kernels before it had ended, in nanoseconds
};
static_assert(sizeof(Launch) == 48, "twin of abi.rs");

enum OperandKind : u32 { BUFFER = 0, CONSTANT = 1, WEIGHT = 2, WIRE = 3 };

struct Operand {
    u64 base;        // address of item 0; of a weight its offset in the slot, of the wire the place in the table that holds the address
    u64 item_bytes;  // between items; 0 for constants and weights
    u32 kind;
    u32 unused;
};
static_assert(sizeof(Operand) == 24, "twin of abi.rs");

constexpr int MAX_AXES = 8;

// How a step walks an operand: element (i, j, ...) at offset + i * strides[0] + j * strides[1] + ..., in elements.
struct Walk {
    Operand operand;
    i64 offset;
    i64 strides[MAX_AXES];
};
static_assert(sizeof(Walk) == 96, "twin of abi.rs");

// What a launch tells the host: zero until it is so, then the card's time in nanoseconds.
struct Signal {
    u64 began;
    u64 ended;
    u64 copied;  // told by the driver, not by a kernel
};
static_assert(sizeof(Signal) == 24, "twin of abi.rs");

// Where this launch has to tell what; behind the counts in its table.
struct Ends {
    Signal* signal;
    ItemError* errors;  // [item]
    u64* began;         // [kernel]; null where kernels do not tell
};
static_assert(sizeof(Ends) == 24, "twin of abi.rs");

__device__ __forceinline__ const Ends& ends_of(const Launch& launch) { return *reinterpret_cast<const Ends*>(launch.counts + 4); }
__device__ __forceinline__ u32 lanes_of(const Launch& launch) { return launch.counts[0]; }
__device__ __forceinline__ u32 items_of(const Launch& launch) { return launch.counts[1]; }

// The elements of an operand that an item sees.
template <typename T>
__device__ __forceinline__ T* at(const Launch& launch, const Operand& operand, u32 item) {
    u64 address = operand.base;
    if (operand.kind == WEIGHT) address += launch.weights[launch.lane_of[item]];
    if (operand.kind == WIRE) address = *static_cast<const u64*>(__cvta_global_to_generic(address));
    address += operand.item_bytes * item;
    // Global memory, which the compiler cannot see: it would use the slower loads that find out.
    return static_cast<T*>(__cvta_global_to_generic(address));
}

// The card's clock, in nanoseconds.
__device__ __forceinline__ u64 card_time() {
    u64 now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    return now;
}

// Waits until the kernels before this one have finished and their writes can be seen (programmatic dependent launch).
__device__ __forceinline__ void kernels_before_have_ended() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// The same, for the kernels of steps and ports. Of sampled launches the first thread tells when that was: from one kernel's word to the next one's is
// what a step adds to a launch, overlap left in.
__device__ __forceinline__ void dependency_wait(const Launch& launch) {
    const bool first = (threadIdx.x | blockIdx.x | blockIdx.y | blockIdx.z) == 0;
    const bool tells = first && launch.counts[3] != 0;  // asked before the wait, which hides it
    kernels_before_have_ended();
    if (tells) *launch.began = card_time();
}

// Whether a block has its item. One that has none waits, as every block must, and leaves.
__device__ __forceinline__ bool has_item(const Launch& launch, u32 item) {
    if (item < items_of(launch)) return true;
    dependency_wait(launch);
    return false;
}

// Lets the next kernel begin its prologue.
__device__ __forceinline__ void dependents_may_start() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
