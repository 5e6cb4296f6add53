// What kernels of strict products share: a thread's place in a panel of outputs, the products of one k, and what becomes of its sums.
//
//   slot     [panels of 64 outputs][k][64]
//   a warp   ALONG threads along a panel's outputs by ACROSS along the rows; a thread has OUTPUTS outputs by ROWS rows in registers
//
// A multiply-add has three operands, and a cycle brings one from each of two banks of registers, which are the even and the odd ones. What was just read from the
// same place of the instruction, marked `.reuse` by the compiler, need not be read again. One that reads two registers of a bank keeps that bank for two cycles, and
// the next waits only if it reads from there too (written instruction by instruction and timed: H200, 2026-11-27). Which register is of which bank is the
// compiler's to say, but:
//
//   weights and inputs      that lie k by k are read by fours and so are of both banks in turn: it finds sums of the others', and loses 0.01 to 0.03 cycles a
//                           multiply-add. Inputs row by row are all of one bank at a k.
//   a thread's sums         that are written side by side lie side by side, as its weights do: each would be of its weight's bank. See `other` in product_float.cu.
//   rows there, and back    is the order of a k's products with the fewest conflicts: of 44, by its code
#pragma once
#include "product.cuh"

constexpr int PANEL = 64, RUN = 256;
constexpr int OF_WARP = BM < PANEL ? BM : PANEL;  // outputs that a warp covers
constexpr int ALONG = OF_WARP / OUTPUTS, ACROSS = 32 / ALONG;
constexpr int COUNT = OUTPUTS == 2 ? 2 : 4, PIECES = OUTPUTS / COUNT;  // outputs of a thread side by side, and how often
constexpr int SUMS = ROWS * PIECES;                                    // such pieces of a thread
static_assert(ACROSS * ALONG == 32, "a warp is full");

// COUNT sums as they wait in shared memory, or weights as they lie there: those of all threads side by side.
struct __align__(COUNT * 4) Piece { float of[COUNT]; };

// A thread's place in its warp. Reads of 16 bytes are served half a warp at a time if of any two neighbours, or of any two that are two apart,
// both read the same: so neighbours share their outputs, and those two apart their row. Anything else takes twice as long.
__device__ __forceinline__ u32 along_of(u32 lane) { return ACROSS == 1 ? lane : lane / 2 % ALONG; }
__device__ __forceinline__ u32 across_of(u32 lane) { return ACROSS == 1 ? 0 : lane % 2 + lane / (ALONG * 2) * 2; }

// A thread's outputs of one panel, from piece to piece: half of what its warp covers apart.
__device__ __forceinline__ u32 output_of(u32 along, u32 piece) { return piece * (OF_WARP / PIECES) + along * COUNT; }

// A thread's weights of one k, of which `weights` is the first.
__device__ __forceinline__ void read_weights(Piece (&w)[PIECES], const float* weights) {
#pragma unroll
    for (int piece = 0; piece < PIECES; piece++) w[piece] = *reinterpret_cast<const Piece*>(weights + piece * (OF_WARP / PIECES));
}

// sums[r][o] += inputs[r][k] * weights[k][o] for one k. BACK: every other row backwards. What one row multiplied last the next one multiplies first then, and
// need not be read from its bank of registers again.
template <bool BACK>
__device__ __forceinline__ void multiply(float (&sums)[ROWS][OUTPUTS], const float (&x)[ROWS], const Piece (&w)[PIECES]) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int i = 0; i < OUTPUTS; i++) {
            const int o = BACK && r % 2 ? OUTPUTS - 1 - i : i;
            sums[r][o] = __fmaf_rn(x[r], w[o / COUNT].of[o % COUNT], sums[r][o]);
        }
    }
}

// Where inputs lie k by k and threads read eight at once, a thread's rows are those of two fours of places, HALF rows of the tile apart, of which the second may have a
// place without a row.
constexpr int HALF = BN / ROWS * 4, SECOND = ROWS - 4;
// The row of a thread, `across` of all along the rows; of a stem's line, the column.
__device__ __forceinline__ u32 row_of(u32 across, u32 r) { return r < 4 ? across * 4 + r : HALF + across * SECOND + r - 4; }
// The first row of a four of places.
__device__ __forceinline__ u32 row_of_four(u32 four) { return four < HALF / 4 ? four * 4 : HALF + (four - HALF / 4) * SECOND; }

// The same of K k, of which a thread has ROWS of eight inputs, four where `inputs(k, half)` says for each half. What a k reads is read before the k ahead of it is
// multiplied.
template <int K, typename Inputs>
__device__ __forceinline__ void multiply_ahead(float (&sums)[ROWS][OUTPUTS], const float* weights, Inputs inputs) {
    Piece of_weights[2][PIECES];
    float4 of_inputs[2][2];
    auto read = [&](int k) {
        read_weights(of_weights[k % 2], weights + k * PANEL);
#pragma unroll
        for (int half = 0; half < 2; half++) of_inputs[k % 2][half] = *reinterpret_cast<const float4*>(inputs(k, half));
    };
    read(0);
#pragma unroll
    for (int k = 0; k < K; k++) {
        if (k + 1 < K) read(k + 1);
        const float4 a = of_inputs[k % 2][0], b = of_inputs[k % 2][1];
        const float eight[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
        float one[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) one[r] = eight[r];
        multiply<true>(sums, one, of_weights[k % 2]);
    }
}

// What is known before the sums and asked for after them. It waits in shared memory, as the sums want all registers.
struct Kept {
    Rows rows;
    u64 slot;
    u32 group, m0;
    u32 present;  // panels of this tile that there are
};

// The biases of a piece of outputs from `output` on, which is one of the group's.
__device__ __forceinline__ void load_biases(const Params& p, const Kept& known, u32 output, float (&bias)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) bias[i] = 0.0f;
#if BIAS
    const float* biases = global<const float>(known.slot + p.bias) + known.group * p.n + output;
#pragma unroll
    for (int i = 0; i < COUNT; i++) bias[i] = i < p.n - output ? biases[i] : 0.0f;
#endif
}

// Rows whose residuals a thread asks for before it uses one: it waits for memory once for them, not for each row after the other. There are registers for four.
constexpr int TOGETHER_ROWS = 4;

// The residual of a piece of outputs from `output` on, of row `row` of the tile, if there is that row.
__device__ __forceinline__ Piece residual_of(const Params& p, const Kept& known, u32 output, u32 row) {
    Piece residual = {};
#if RESIDUAL
    const u32 of_lane = known.rows.first + row;
    if (of_lane < known.rows.end)
        load_residual<COUNT>(p, residual_address(p, known.rows, known.slot, known.group, of_lane, output), p.n - output, residual.of);
#endif
    return residual;
}

// From what all k add up to to what is written: a piece of outputs from `output` on, of row `row` of the tile, if there is that row.
__device__ __forceinline__ void finish(const Params& p, const Kept& known, u32 output, u32 row, const float (&bias)[COUNT], const Piece& residual, const Piece& total) {
    const u32 left = p.n - output, of_lane = known.rows.first + row;
    if (of_lane >= known.rows.end) return;
    float values[COUNT];
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        values[i] = total.of[i] + bias[i];
#if RESIDUAL
        values[i] += residual.of[i];
#endif
        values[i] = activate(values[i], p.low, p.high);
    }
    store<COUNT>(p, out_element(p, known.rows, known.group, of_lane, output), left, values);
}
