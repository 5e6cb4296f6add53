//! Normalisations of images by their channels, which lie last: neighbours in memory are summed side by side.

use super::{Bench, Scratch};
use crate::cpu::fence::{Kernel, dispatch};
use tessera_planner::plan::{GroupShape, K_SEGMENT, LrnShape, StepKind};

pub(super) fn group_norm(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::GroupNorm { x, shape, epsilon, scale, bias, out } = kind else { return };
    let items = bench.items;
    let (reads, [out], scratch, _) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let (source, image) = (reads.source::<f32>(*x), shape.pixels * shape.channels);
    for item in 0..items {
        let [scale, bias] =
            [scale, bias].map(|vector| &reads.source::<f32>(*vector).at(item)[..shape.vectors]);
        let x = &source.at(item)[..shape.elements()];
        let out = &mut out[item * shape.elements()..(item + 1) * shape.elements()];
        for (x, out) in x.chunks_exact(image.max(1)).zip(out.chunks_exact_mut(image.max(1))) {
            dispatch(GroupNorm { x, shape, epsilon: *epsilon, scale, bias, out, scratch: &mut *scratch });
        }
    }
}

/// One image.
struct GroupNorm<'a> {
    x: &'a [f32],
    shape: &'a GroupShape,
    epsilon: f32,
    scale: &'a [f32],
    bias: &'a [f32],
    out: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl Kernel for GroupNorm<'_> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let GroupNorm { x, shape, epsilon, scale, bias, out, scratch } = self;
        let &GroupShape { pixels, channels, groups, vectors, .. } = shape;
        let group = channels / groups;
        let count = (pixels * group) as f32;
        let Scratch { a: total, b: run, c: mean } = scratch;
        // Each channel's sum, pixel by pixel in runs, then the channels of a group in order: in every channel that of its group.
        let mut averages = |averages: &mut Vec<f32>, value: &dyn Fn(&[f32], &mut [f32])| {
            total.clear();
            total.resize(channels, 0.0);
            for pixels in x.chunks(K_SEGMENT * channels) {
                run.clear();
                run.resize(channels, 0.0);
                pixels.chunks_exact(channels).for_each(|pixel| value(pixel, run));
                total.iter_mut().zip(&*run).for_each(|(total, run)| *total += run);
            }
            averages.clear();
            for sums in total.chunks_exact(group) {
                let average = sums.iter().fold(0.0, |sum, channel| sum + channel) / count;
                averages.resize(averages.len() + group, average);
            }
        };
        averages(mean, &|pixel, run| run.iter_mut().zip(pixel).for_each(|(run, x)| *run += x));
        let mut factor = Vec::with_capacity(channels);
        averages(&mut factor, &|pixel, run| {
            for ((run, x), mean) in run.iter_mut().zip(pixel).zip(&*mean) {
                *run += (x - mean) * (x - mean);
            }
        });
        let per_vector = channels / vectors;
        for (channel, factor) in factor.iter_mut().enumerate() {
            *factor = scale[channel / per_vector] / (*factor + epsilon).sqrt();
        }
        let shift: Vec<f32> = (0..channels).map(|channel| bias[channel / per_vector]).collect();
        for (x, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
            for ((((out, x), mean), factor), shift) in
                out.iter_mut().zip(x).zip(&*mean).zip(&factor).zip(&shift)
            {
                *out = (x - mean) * factor + shift;
            }
        }
    }
}

pub(super) fn lrn(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Lrn { x, pixels, channels, shape, out } = kind else { return };
    let (items, per_item) = (bench.items, pixels * channels);
    let (reads, [out], scratch, _) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let source = reads.source::<f32>(*x);
    for item in 0..items {
        let x = &source.at(item)[..per_item];
        let out = &mut out[item * per_item..(item + 1) * per_item];
        dispatch(Lrn { x, channels: *channels, shape, out, squares: &mut scratch.a });
    }
}

struct Lrn<'a> {
    x: &'a [f32],
    channels: usize,
    shape: &'a LrnShape,
    out: &'a mut [f32],
    squares: &'a mut Vec<f32>,
}

impl Kernel for Lrn<'_> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Lrn { x, channels, shape, out, squares } = self;
        let &LrnShape { size, alpha, beta, bias } = shape;
        let (before, factor) = ((size - 1) / 2, alpha / size as f32);
        // A row of squares between zeros, so that every channel has as many neighbours.
        squares.clear();
        squares.resize(channels + size - 1, 0.0);
        for (x, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
            squares[before..before + channels].iter_mut().zip(x).for_each(|(square, x)| *square = x * x);
            out.fill(0.0);
            for first in 0..size {
                out.iter_mut()
                    .zip(&squares[first..first + channels])
                    .for_each(|(sum, square)| *sum += square);
            }
            // Three quarters, the exponent that everybody uses, are two roots.
            if beta == 0.75 {
                for (out, x) in out.iter_mut().zip(x) {
                    let root = (bias + factor * *out).sqrt();
                    *out = x / (root * root.sqrt());
                }
            } else {
                out.iter_mut().zip(x).for_each(|(out, x)| *out = x / (bias + factor * *out).powf(beta));
            }
        }
    }
}
