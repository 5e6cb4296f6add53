// The first kernel of every launch: brings the launch's table from the host, and begins its account.
//
//   host   tables [launch % places][table]  ──▶  the table on the card        errors[item] = 0        signal.began = now
//
// A graph is the same in all its launches, so it cannot say where this launch's table waits. Both sides count instead: the host takes the places in turn,
// and `launched` is how many were begun here. So starting a launch is one call of the driver; a copy ahead of the graph would be a second one, and
// the copy engine's turn with it. Bound by the bus: a table is about a kilobyte, and is asked for at once.
//
// Those who read the table need not wait for anybody (abi.cuh), so the kernel behind this one must not overlap it.
//
// Twin on the host: frame.rs.
#include "types.cuh"

struct Params {
    Launch launch;
    u64 tables;    // on the host, of places of `place_bytes` each
    u64* launched;
    u32 table_bytes;  // a multiple of 16
    u32 place_bytes;
    u32 places;
    u32 errors;  // that there are; 0 where no step of the plan can fail
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of frame.rs");

constexpr u32 THREADS = 256;

// From the host's memory, anew each time: its bytes are others in every launch.
__device__ __forceinline__ Chunk load_anew(u64 address) {
    Chunk c;
    asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(c.words[0]), "=r"(c.words[1]), "=r"(c.words[2]), "=r"(c.words[3])
                 : "l"(address)
                 : "memory");
    return c;
}

extern "C" __global__ void __launch_bounds__(THREADS) kernel(const __grid_constant__ Params p) {
    const u64 began = card_time();
    const u64 launch = *static_cast<volatile u64*>(p.launched);
    const u64 from = p.tables + launch % p.places * p.place_bytes;
    Chunk* table = reinterpret_cast<Chunk*>(const_cast<u32*>(p.launch.counts));
    for (u32 i = threadIdx.x; i < p.table_bytes / 16; i += THREADS) table[i] = load_anew(from + i * 16);
    for (u32 i = threadIdx.x; i < p.errors; i += THREADS) p.launch.errors[i] = ItemError{};
    // All have read where they are, and the table is there.
    __syncthreads();
    if (threadIdx.x == 0) {
        *static_cast<volatile u64*>(p.launched) = launch + 1;
        *static_cast<volatile u64*>(&ends_of(p.launch).signal->began) = began;
    }
}
