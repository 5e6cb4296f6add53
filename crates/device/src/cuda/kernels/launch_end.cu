// The last kernel of every launch: tells the host what it has to tell, and that the launch is over.
//
//   errors[item], of sampled launches when kernels began  ──▶  beside the outputs        signal.ended = now
//
// The host watches `signal.ended`: it is not zero once everything that the launch wrote, on the host too, can be seen there. An event would say the same
// for a call of the driver more and, to somebody asleep, 30 µs later (H100, 2026-11-26).
//
// Twin on the host: frame.rs.
#include "abi.cuh"

struct Params {
    Launch launch;
    const u64* began;  // by kernel
    u32 kernels;       // that tell when they began
    u32 fails;         // whether a step of the plan can fail
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of frame.rs");

constexpr u32 THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS) kernel(const __grid_constant__ Params p) {
    const Ends& ends = ends_of(p.launch);
    const u32 items = p.fails ? items_of(p.launch) : 0;
    kernels_before_have_ended();
    for (u32 i = threadIdx.x; i < items; i += THREADS) ends.errors[i] = p.launch.errors[i];
    if (ends.began != nullptr) {
        for (u32 i = threadIdx.x; i < p.kernels; i += THREADS) ends.began[i] = p.began[i];
    }
    const u64 ended = card_time();
    __syncthreads();
    if (threadIdx.x != 0) return;
    // The barrier puts what the block wrote, and the wait above what the kernels before did, before this thread's fence, and the fence all that is before it
    // before the word, for everybody, the host included. A fence of each thread ahead of the barrier would order that thread's own writes with a word that
    // it does not write.
    __threadfence_system();
    *static_cast<volatile u64*>(&ends.signal->ended) = ended;
}
