// Blocks that run at the same time on neighbouring multiprocessors and reach each other's shared memory. A cluster's blocks are
// neighbours along x; BLOCKS is how many.
#pragma once
#include "types.cuh"

// Tells the cluster that this thread's writes to shared memory are done. It waits for the thread's other writes too: those that nobody in
// the cluster reads had better come after it.
template <u32 BLOCKS> __device__ __forceinline__ void cluster_arrive() {
    if constexpr (BLOCKS > 1) {
        __syncwarp();
        asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    }
}

// Tells the cluster that this thread has read what it wanted of others, and uses it already. Nothing that it wrote is promised.
template <u32 BLOCKS> __device__ __forceinline__ void cluster_arrive_read() {
    if constexpr (BLOCKS > 1) {
        __syncwarp();
        asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
    }
}

// Until every thread of the cluster has arrived; what they wrote to shared memory before can then be seen.
template <u32 BLOCKS> __device__ __forceinline__ void cluster_wait() {
    if constexpr (BLOCKS > 1) {
        __syncwarp();
        asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
    } else {
        __syncthreads();
    }
}

// Four floats from where `mine` is in the shared memory of block `rank`: of what was there when the cluster last met, so that the compiler
// may keep several under way.
__device__ __forceinline__ float4 load_remote(const float* mine, u32 rank) {
    const u32 address = static_cast<u32>(__cvta_generic_to_shared(mine));
    float4 four;
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %4, %5;\nld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [there];\n}"
                 : "=f"(four.x), "=f"(four.y), "=f"(four.z), "=f"(four.w)
                 : "r"(address), "r"(rank));
    return four;
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
