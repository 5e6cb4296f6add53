//! Layer normalisation and softmax, row by row.

use super::Bench;
use super::functions::exp;
use crate::cpu::fence::{Kernel, dispatch};
use tessera_planner::plan::StepKind;

/// Sums run in this many strands, added in order at the end: fixed, so that a row's sum is the same on every machine with any
/// vectors.
const STRANDS: usize = 16;

/// Multiply-adds of a product that take as long as an element does here.
const AS_LONG: usize = 64;

/// The sum of `value(x)` over a row.
#[inline(always)]
fn sum(row: &[f32], value: impl Fn(f32) -> f32) -> f32 {
    let mut strands = [0.0f32; STRANDS];
    let chunks = row.chunks_exact(STRANDS);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (strand, x) in strands.iter_mut().zip(chunk) {
            *strand += value(*x);
        }
    }
    for (strand, x) in strands.iter_mut().zip(rest) {
        *strand += value(*x);
    }
    strands.iter().sum()
}

pub(super) fn layer_norm(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::LayerNorm { x, rows, cols, centred, epsilon, scale, bias, out } = kind else { return };
    let (items, rows, cols, centred, epsilon) = (bench.items, *rows, *cols, *centred, *epsilon);
    let crew = bench.crew.for_work(rows * cols * AS_LONG);
    let (reads, [out], scratch, _) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let source = reads.source::<f32>(*x);
    for item in 0..items {
        let x = &source.at(item)[..rows * cols];
        let out = &mut out[item * rows * cols..(item + 1) * rows * cols];
        let scale = &reads.source::<f32>(*scale).at(item)[..cols];
        let bias = bias.map(|bias| &reads.source::<f32>(bias).at(item)[..cols]);
        let some = crew.share(rows) * cols.max(1);
        crew.each(scratch, x.chunks(some).zip(out.chunks_mut(some)), |(x, out), _| {
            dispatch(LayerNorm { x, cols, centred, epsilon, scale, bias, out });
        });
    }
}

struct LayerNorm<'a> {
    x: &'a [f32],
    cols: usize,
    centred: bool,
    epsilon: f32,
    scale: &'a [f32],
    bias: Option<&'a [f32]>,
    out: &'a mut [f32],
}

impl Kernel for LayerNorm<'_> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let count = self.cols as f32;
        let cols = self.cols.max(1);
        for (x, out) in self.x.chunks_exact(cols).zip(self.out.chunks_exact_mut(cols)) {
            // Nothing changes when zero is taken off.
            let mean = if self.centred { sum(x, |x| x) / count } else { 0.0 };
            let variance = sum(x, |x| (x - mean) * (x - mean)) / count;
            let factor = 1.0 / (variance + self.epsilon).sqrt();
            for ((out, x), scale) in out.iter_mut().zip(x).zip(self.scale) {
                *out = (x - mean) * factor * scale;
            }
            if let Some(bias) = self.bias {
                out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
            }
        }
    }
}

pub(super) fn softmax(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Softmax { x, rows, cols, log, out } = kind else { return };
    let (items, rows, cols) = (bench.items, *rows, *cols);
    let crew = bench.crew.for_work(rows * cols * AS_LONG);
    let (reads, [out], scratch, _) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let source = reads.source::<f32>(*x);
    for item in 0..items {
        let out = &mut out[item * rows * cols..(item + 1) * rows * cols];
        let x = &source.at(item)[..rows * cols];
        let some = crew.share(rows) * cols.max(1);
        crew.each(scratch, x.chunks(some).zip(out.chunks_mut(some)), |(x, rows), _| {
            rows.copy_from_slice(x);
            dispatch(Softmax { rows, cols, log: *log });
        });
    }
}

struct Softmax<'a> {
    rows: &'a mut [f32],
    cols: usize,
    log: bool,
}

impl Kernel for Softmax<'_> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        for row in self.rows.chunks_exact_mut(self.cols.max(1)) {
            softmax_row::<FUSED>(row, self.log);
        }
    }
}

/// The largest element; NaN where there is one. Strands change no bit of a maximum.
#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let larger = |most: f32, x: f32| if x > most || x.is_nan() { x } else { most };
    let mut strands = [f32::NEG_INFINITY; STRANDS];
    let chunks = row.chunks_exact(STRANDS);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (strand, x) in strands.iter_mut().zip(chunk) {
            *strand = larger(*strand, *x);
        }
    }
    for (strand, x) in strands.iter_mut().zip(rest) {
        *strand = larger(*strand, *x);
    }
    strands.into_iter().fold(f32::NEG_INFINITY, larger)
}

/// Softmax of a row in place, or its logarithm. A row of −∞ alone gives NaN.
#[inline(always)]
pub(super) fn softmax_row<const FUSED: bool>(row: &mut [f32], log: bool) {
    let largest = largest(row);
    if log {
        let total = sum(row, |x| exp::<FUSED>(x - largest)).ln();
        row.iter_mut().for_each(|x| *x = *x - largest - total);
        return;
    }
    row.iter_mut().for_each(|x| *x = exp::<FUSED>(*x - largest));
    let total = sum(row, |x| x);
    row.iter_mut().for_each(|x| *x /= total);
}
