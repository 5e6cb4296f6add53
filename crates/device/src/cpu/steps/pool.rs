//! Maximum, sum and mean under a window, channels last; and where the maximum lies.

use super::Bench;
use super::conv::under;
use crate::cpu::fence::{Kernel, dispatch};
use tessera_planner::plan::{ConvShape, PlaneShape, PoolKind, StepKind};

/// Multiply-adds of a product that take as long as an element under a window does here.
const AS_LONG: usize = 16;

pub(super) fn pool(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Pool { kind, x, shape, out } = kind else { return };
    let items = bench.items;
    let (channels, line) = (shape.groups, shape.output[1] * shape.groups);
    let per_item = shape.output[0] * line;
    let crew = bench.crew.for_work(per_item * shape.kernel[0] * shape.kernel[1] * AS_LONG);
    let (reads, [out], scratch, _) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let source = reads.source::<f32>(*x);
    let share = crew.share(shape.output[0]);
    for item in 0..items {
        let x = source.at(item);
        let lines = out[item * per_item..(item + 1) * per_item].chunks_mut((share * line).max(1));
        crew.each(scratch, lines.enumerate(), |(number, out), _| {
            dispatch(Windows { kind: *kind, shape, x, first: number * share, out, channels });
        });
    }
}

struct Windows<'a> {
    kind: PoolKind,
    shape: &'a ConvShape,
    x: &'a [f32],
    /// The first line of the output that is computed here.
    first: usize,
    out: &'a mut [f32],
    channels: usize,
}

impl Kernel for Windows<'_> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Windows { kind, shape, x, first, out, channels } = self;
        for (pixel, out) in out.chunks_exact_mut(channels).enumerate() {
            let (oy, ox) = (first + pixel / shape.output[1], pixel % shape.output[1]);
            window(kind, shape, x, [oy, ox], out);
        }
    }
}

#[inline(always)]
fn window(kind: PoolKind, shape: &ConvShape, x: &[f32], [oy, ox]: [usize; 2], out: &mut [f32]) {
    let channels = out.len();
    out.fill(if kind == PoolKind::Max { f32::NEG_INFINITY } else { 0.0 });
    let mut taps = 0;
    for ky in 0..shape.kernel[0] {
        let Some(y) = under(shape, 0, oy, ky) else { continue };
        for kx in 0..shape.kernel[1] {
            let Some(x_at) = under(shape, 1, ox, kx) else { continue };
            taps += 1;
            let x = &x[(y * shape.input[1] + x_at) * channels..][..channels];
            match kind {
                PoolKind::Max => out.iter_mut().zip(x).for_each(|(out, &x)| {
                    // A NaN under the window is the answer, wherever it is.
                    *out = if x > *out || x.is_nan() { x } else { *out };
                }),
                PoolKind::Sum | PoolKind::Average { .. } => {
                    out.iter_mut().zip(x).for_each(|(out, x)| *out += x);
                }
            }
        }
    }
    if let PoolKind::Average { count_padding } = kind {
        let count = if count_padding { padded(shape, 0, oy) * padded(shape, 1, ox) } else { taps };
        out.iter_mut().for_each(|out| *out /= count as f32);
    }
}

/// How many taps of a window lie in the image or its padding: one that ceil mode lets run over counts only what is there.
fn padded(shape: &ConvShape, axis: usize, output: usize) -> usize {
    let end = shape.before[axis] + shape.input[axis] + shape.after[axis];
    let at = |tap: usize| output * shape.strides[axis] + tap * shape.dilations[axis];
    (0..shape.kernel[axis]).filter(|&tap| at(tap) < end).count()
}

pub(super) fn pool_indices(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::PoolIndices { x, shape, out } = kind else { return };
    let items = bench.items;
    let (reads, [out], ..) = bench.open([*out]);
    let out: &mut [i64] = bytemuck::cast_slice_mut(out);
    let source = reads.source::<f32>(*x);
    let [pixels, places] = [shape.input, shape.output].map(|extents| extents.iter().product::<usize>());
    for (at, out) in out[..items * shape.planes * places].iter_mut().enumerate() {
        let (item, plane) = (at / places / shape.planes, at / places % shape.planes);
        let x = &source.at(item)[plane * pixels..][..pixels];
        *out = largest(shape, x, at % places).map_or(-1, |counted| (plane * pixels + counted) as i64);
    }
}

/// The place of the first largest element under a window, `None` when there is nothing but padding.
fn largest(shape: &PlaneShape, x: &[f32], place: usize) -> Option<usize> {
    let [_, height, width] = shape.output;
    let output = [place / width / height, place / width % height, place % width];
    let at = |axis: usize, tap: usize| {
        let at = output[axis] * shape.strides[axis] + tap * shape.dilations[axis];
        at.checked_sub(shape.before[axis]).filter(|&at| at < shape.input[axis])
    };
    let mut best: Option<(f32, usize)> = None;
    for d in (0..shape.kernel[0]).filter_map(|tap| at(0, tap)) {
        for row in (0..shape.kernel[1]).filter_map(|tap| at(1, tap)) {
            for column in (0..shape.kernel[2]).filter_map(|tap| at(2, tap)) {
                let here = x[(d * shape.input[1] + row) * shape.input[2] + column];
                // A NaN under the window is the largest; the first one counts.
                if best.is_none_or(|(best, _)| here > best || (here.is_nan() && !best.is_nan())) {
                    best = Some((here, d * shape.steps[0] + row * shape.steps[1] + column * shape.steps[2]));
                }
            }
        }
    }
    best.map(|(_, counted)| counted)
}
