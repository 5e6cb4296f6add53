// Transpose: a copy whose neighbours in x (axis a) are not its neighbours in out (axis b), as at the borders of images, [C, H·W] <-> [H·W, C].
//
//   x[... a + b * x_b]  ->  tile in shared memory  ->  out[... a * out_a + b]
//
// A block moves one tile of TILE_A by TILE_B elements of one item: read along a, written along b, so that both sides are whole sectors.
// Narrow axes have tiles of their own: where a tile is as wide as its axis, neighbouring rows of it lie together and are walked as
// one piece (three channels of an image are 3 x 1024 elements). An odd pitch keeps both walks of the tile free of bank conflicts. Bound by memory.
//
//   -DFROM=n -DTO=n  the element's types, -DTILE_A=n -DTILE_B=n      twin on the CPU: cpu/steps/walk.rs
#include "vector.cuh"

typedef TypeOf<FROM>::type From;
typedef TypeOf<TO>::type To;

constexpr int PITCH = TILE_A | 1;
constexpr int EACH = TILE_A * TILE_B / 256;
static_assert(TILE_A * TILE_B % 256 == 0, "every thread moves as much");
constexpr int MAX_OUTER = MAX_AXES - 2;

struct Params {
    Launch launch;
    Operand x;
    Operand out;
    i64 x_offset;
    i64 out_offset;
    i64 x_b;    // elements of x between neighbours along b; 1 along a
    i64 out_a;  // elements of out between neighbours along a; 1 along b
    i64 x_outer[MAX_OUTER];
    i64 out_outer[MAX_OUTER];
    u32 outer[MAX_OUTER];  // lengths of the other axes, first to last
    u32 outer_axes;
    u32 a, b;  // lengths
    u32 tiles_a, tiles_b;
    u32 unused;
};
static_assert(sizeof(Params) == PARAMS_BYTES, "twin of steps/copy.rs");

extern "C" __global__ void __launch_bounds__(256) kernel(const __grid_constant__ Params p) {
    // A struct of our own has no constructor to run, as shared memory asks.
    __shared__ From tile[TILE_B * PITCH];
    const u32 item = blockIdx.y;
    if (!has_item(p.launch, item)) return;
    u32 rest = blockIdx.x;
    const u32 first_a = rest % p.tiles_a * TILE_A;
    rest /= p.tiles_a;
    const u32 first_b = rest % p.tiles_b * TILE_B;
    rest /= p.tiles_b;
    const From* x = at<const From>(p.launch, p.x, item) + p.x_offset + first_a + first_b * p.x_b;
    To* out = at<To>(p.launch, p.out, item) + p.out_offset + first_a * p.out_a + first_b;
#pragma unroll 1
    for (u32 axis = p.outer_axes; axis-- > 0;) {
        const u32 index = rest % p.outer[axis];
        rest /= p.outer[axis];
        x += index * p.x_outer[axis];
        out += index * p.out_outer[axis];
    }
    const u32 left_a = p.a - first_a, left_b = p.b - first_b;
    dependency_wait(p.launch);
    dependents_may_start();
    From loaded[EACH];
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        const u32 element = threadIdx.x + e * 256, a = element % TILE_A, b = element / TILE_A;
        if (a < left_a && b < left_b) loaded[e] = x[a + b * p.x_b];
    }
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        const u32 element = threadIdx.x + e * 256, a = element % TILE_A, b = element / TILE_A;
        if (a < left_a && b < left_b) tile[b * PITCH + a] = loaded[e];
    }
    __syncthreads();
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        const u32 element = threadIdx.x + e * 256, b = element % TILE_B, a = element / TILE_B;
        if (a < left_a && b < left_b) out[a * p.out_a + b] = As<To, From>::of(tile[b * PITCH + a]);
    }
}
