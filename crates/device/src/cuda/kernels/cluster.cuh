// Blocks that run at the same time on neighbouring multiprocessors and reach each other's shared memory. A cluster's blocks are
// neighbours along x; BLOCKS is how many.
#pragma once
#include "types.cuh"

// Until every thread of the cluster is here; what they wrote to shared memory before can be seen after.
template <u32 BLOCKS> __device__ __forceinline__ void cluster_sync() {
    if constexpr (BLOCKS == 1)
        __syncthreads();
    else
        asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Writes a word where `mine` is in the shared memory of block `rank`.
template <u32 BLOCKS> __device__ __forceinline__ void store_remote(void* mine, u32 rank, u32 word) {
    if constexpr (BLOCKS == 1) {
        *reinterpret_cast<u32*>(mine) = word;
        return;
    }
    const u32 address = static_cast<u32>(__cvta_generic_to_shared(mine));
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\nst.shared::cluster.u32 [there], %2;\n}" ::"r"(address),
                 "r"(rank), "r"(word)
                 : "memory");
}
