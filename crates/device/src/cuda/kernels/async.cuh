// What runs beside the threads: copies into shared memory, and the barriers that tell of their end.
//
//   bulk   one thread asks for kilobytes, which count themselves off on a barrier     weights, which lie as they are used
//   chunk  every thread asks for 16 bytes of its own, or for 16 zeros                 inputs, gathered from images
//
// Addresses in shared memory are 32 bits, as the instructions take them.
#pragma once
#include "abi.cuh"

__device__ __forceinline__ u32 shared_address(const void* pointer) {
    u32 address;
    asm("{ .reg .u64 wide; cvta.to.shared.u64 wide, %1; cvt.u32.u64 %0, wide; }" : "=r"(address) : "l"(pointer));
    return address;
}

// ---- barriers

// Once per barrier, by one thread; then `barriers_are_ready()` by the same thread, then __syncthreads().
__device__ __forceinline__ void barrier_init(u64* barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barriers_are_ready() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// In a loop a barrier is better named by its address: a pointer is turned into one each time.
//
// Arrives, and has the phase wait for so many bytes more.
__device__ __forceinline__ void barrier_expect(u32 address, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_arrive(u32 address) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address) : "memory");
}
// Arrives for so many threads, of which this is one.
__device__ __forceinline__ void barrier_arrive_for(u32 address, u32 threads) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(address), "r"(threads) : "memory");
}
// Until the phase of this parity is over.
__device__ __forceinline__ void barrier_wait(u32 address, u32 parity) {
    u32 over;
    do {
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(over)
                     : "r"(address), "r"(parity)
                     : "memory");
    } while (!over);
}
__device__ __forceinline__ void barrier_expect(u64* barrier, u32 bytes) { barrier_expect(shared_address(barrier), bytes); }
__device__ __forceinline__ void barrier_arrive(u64* barrier) { barrier_arrive(shared_address(barrier)); }
__device__ __forceinline__ void barrier_wait(u64* barrier, u32 parity) { barrier_wait(shared_address(barrier), parity); }

// ---- copies

// `bytes`, a multiple of 16, between addresses that are too; counted off on `barrier`.
__device__ __forceinline__ void copy_bulk(u32 to, u64 from, u32 bytes, u32 barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
                 "r"(bytes), "r"(barrier)
                 : "memory");
}
__device__ __forceinline__ void copy_bulk(u32 to, u64 from, u32 bytes, u64* barrier) {
    copy_bulk(to, from, bytes, shared_address(barrier));
}
// 16 bytes, or 16 zeros where there is nothing: then nothing is read, wherever `from` may point.
__device__ __forceinline__ void copy_chunk(u32 to, u64 from, bool there) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
// 4, 8 or 16 bytes, at a multiple of as many.
template <int BYTES> __device__ __forceinline__ void copy_few(u32 to, u64 from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(from), "n"(BYTES) : "memory");
}
// Arrives at a barrier when the chunks that this thread has asked for so far are there; it is one of those that the barrier counts.
__device__ __forceinline__ void chunks_arrive(u32 barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
// Closes a group of this thread's chunks.
__device__ __forceinline__ void chunks_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most `PENDING` of this thread's groups are under way.
template <int PENDING> __device__ __forceinline__ void chunks_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Makes this thread's writes to shared memory visible to the matrix unit and to bulk copies; a barrier of the block follows.
__device__ __forceinline__ void publish_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// A hint that the line at `address` is read soon.
__device__ __forceinline__ void prefetch_line(u64 address) { asm volatile("prefetch.global.L2 [%0];" ::"l"(address)); }

// The same of all from one address to another, in whole chunks of 16 bytes; by one thread.
__device__ __forceinline__ void prefetch_bulk(u64 from, u64 to) {
    const u64 start = from & ~15ull, bytes = (to - start) & ~15ull;
    if (bytes > 0) asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(start), "r"(u32(bytes)) : "memory");
}
