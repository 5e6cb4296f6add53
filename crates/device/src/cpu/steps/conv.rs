//! Linear layers and convolutions: everything that ends in [`Product`].
//!
//! ```text
//!   frame  · · · · ·      the image with its padding, copied once where there is any
//!          · a b c ·      output pixels of a line are rows of a product at one distance (stride · channels), and the taps of a
//!          · d e f ·      window lie equally far from each pixel: the product walks them where they are, nothing is gathered
//! ```
//! Depthwise convolutions walk the same frame with a factor per channel and tap.

use super::gemm::{Finish, Lines, Product, Taps, WIDTH, between_rows, lines_at_once};
use super::panels::aligned;
use super::{Bench, Scratch, activation};
use crate::cpu::fence::{Ending, Factors, Piece, Rows, Strip};
use std::ops::Range;
use tessera_planner::plan::{ConvShape, StepKind};

/// Multiply-adds of a product that take as long as one of a depthwise convolution does.
const AS_LONG: usize = 8;

pub(super) fn gemm(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Gemm { x, w, rows, k, n, epilogue, out } = kind else { return };
    let (items, crew, rows, k, n) = (bench.items, bench.crew, *rows, *k, *n);
    let (reads, [out], ..) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let panels = reads.weight(*w);
    let source = reads.source::<f32>(x.operand);
    let x_stride = if rows == 1 { source.per_item() } else { between_rows(x) };
    let residual_follows =
        epilogue.residual.is_none_or(|operand| reads.source::<f32>(operand).per_item() == rows * n);
    // Rows of all items at one distance are one product; the arithmetic of a row is the same either way.
    if x_stride * rows == source.per_item() && residual_follows {
        let x = &source.whole()[x.offset..];
        let (out, finish) = (Rows::new(out, n, rows * items, n), reads.finish(epilogue, 0));
        return Product { x, x_stride, k, panels, out, finish }.run(crew);
    }
    for item in 0..items {
        let x = &source.at(item)[x.offset..];
        let out = Rows::new(&mut out[item * rows * n..], n, rows, n);
        let finish = reads.finish(epilogue, item);
        Product { x, x_stride, k, panels, out, finish }.run(crew);
    }
}

pub(super) fn conv(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Conv { x, w, shape, epilogue, out } = kind else { return };
    let items = bench.items;
    let ([height, width], channels) = (shape.output, shape.groups * shape.out_per_group);
    let k = shape.kernel[0] * shape.kernel[1] * shape.in_per_group;
    let (line, per_item) = (width * channels, height * width * channels);
    let crew = bench.crew.for_work(per_item * k);
    let (reads, [out], scratch, _) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let (weights, source) = (reads.weight(*w), reads.source::<f32>(*x));
    let frame = Frame::of(shape);
    let taps = Taps::new(frame.taps(shape, true));
    let groups = Groups { shape, frame, k, taps: &taps, weights };
    let in_channels = shape.groups * shape.in_per_group;
    let panels_of_group = shape.out_per_group.div_ceil(WIDTH);
    // A crew shares lines, each core with the frame around its own, while the weights fit beside them; else it shares channels.
    let by_channels = shape.groups * panels_of_group > 1
        && (k * channels > frame.size[0] * frame.size[1] * in_channels || height == 1);
    // An image without a frame is cut into such lines later, if at all.
    let x_line = shape.strides[0] * frame.size[1] * in_channels;
    let at_once = if frame.is_padded { lines_at_once(x_line, width, height) } else { height };
    let share = crew.share(height).min(at_once.max(1));
    for item in 0..items {
        let (x, out) = (source.at(item), &mut out[item * per_item..(item + 1) * per_item]);
        let finish = reads.finish(epilogue, item);
        if by_channels && !crew.is_alone() {
            let x = frame.around(shape, x, 0..height, &mut scratch.a);
            let (mut parts, mut rest) = (Vec::new(), Rows::new(out, channels, height * width, channels));
            for group in 0..shape.groups {
                let (out, later) = rest.split_columns(shape.out_per_group);
                let lines = groups.lines(group, x, height, out, finish);
                parts.extend(lines.cut_columns(crew.parts().div_ceil(shape.groups)));
                rest = later;
            }
            crew.each(&mut Scratch::default(), parts.into_iter(), |lines, _| lines.run());
            continue;
        }
        crew.each(scratch, out.chunks_mut((share * line).max(1)).enumerate(), |(number, out), scratch| {
            let (first, lines) = (number * share, out.len() / line);
            let x = frame.around(shape, x, first..first + lines, &mut scratch.a);
            let mut out = Rows::dense(out, channels);
            for group in 0..shape.groups {
                let columns = (group * shape.out_per_group, shape.out_per_group);
                let out = out.part(0, lines * width, columns.0, columns.1);
                groups.lines(group, x, lines, out, finish.from(first * line, 0)).run();
            }
        });
    }
}

/// A convolution's groups of channels, each a product of its own.
struct Groups<'a> {
    shape: &'a ConvShape,
    frame: Frame,
    /// Rows of a group's matrix.
    k: usize,
    taps: &'a Taps,
    weights: &'a [f32],
}

impl<'a> Groups<'a> {
    /// The product of so many lines of a group: `x` is the frame around them, `out` the group's columns of them. `finish` is all groups'.
    fn lines<'b>(
        &self,
        group: usize,
        x: &'b [f32],
        lines: usize,
        out: Rows<'b>,
        finish: Finish<'b>,
    ) -> Lines<'b>
    where
        'a: 'b,
    {
        let Groups { shape, frame, k, taps, weights } = *self;
        let panels = shape.out_per_group.div_ceil(WIDTH) * k * WIDTH;
        let in_channels = shape.groups * shape.in_per_group;
        // An image without padding whose every pixel is one of the output's is one long line.
        let is_one_line = shape.strides == [1, 1] && frame.size[1] == shape.output[1];
        Lines {
            x: &x[group * shape.in_per_group..],
            lines: if is_one_line { 1 } else { lines },
            x_line: shape.strides[0] * frame.size[1] * in_channels,
            x_stride: shape.strides[1] * in_channels,
            taps,
            panels: &weights[group * panels..(group + 1) * panels],
            out,
            finish: finish.from(0, group * shape.out_per_group),
        }
    }
}

/// The image that windows walk: the input, with zeros around it where windows reach beyond.
#[derive(Clone, Copy)]
struct Frame {
    /// Height and width.
    size: [usize; 2],
    /// Whether it is more than the input itself.
    is_padded: bool,
}

impl Frame {
    fn of(shape: &ConvShape) -> Frame {
        let reach = |axis: usize| {
            let last = shape.output[axis].saturating_sub(1) * shape.strides[axis];
            last + (shape.kernel[axis] - 1) * shape.dilations[axis] + 1
        };
        let is_padded = (0..2).any(|axis| shape.before[axis] > 0 || reach(axis) > shape.input[axis]);
        let size = [0, 1].map(|axis| if is_padded { reach(axis) } else { shape.input[axis] });
        Frame { size, is_padded }
    }

    /// Where the taps of a window lie from its first one: `[ky][kx][channel]`, neighbours that touch as one piece if they may.
    fn taps(self, shape: &ConvShape, may_touch: bool) -> impl Iterator<Item = Piece> + use<> {
        let ConvShape { kernel, dilations, in_per_group, groups, .. } = *shape;
        let channels = groups * in_per_group;
        let touch = may_touch && groups == 1 && dilations[1] == 1;
        let (columns, length) = if touch { (1, kernel[1] * in_per_group) } else { (kernel[1], in_per_group) };
        let at =
            move |ky: usize, kx: usize| (ky * dilations[0] * self.size[1] + kx * dilations[1]) * channels;
        (0..kernel[0]).flat_map(move |ky| (0..columns).map(move |kx| Piece { offset: at(ky, kx), length }))
    }

    /// What windows of some lines of the output see of the frame with an item's image in it: of the image itself if nothing is around it.
    fn around<'a>(
        self,
        shape: &ConvShape,
        x: &'a [f32],
        lines: Range<usize>,
        frame: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let channels = shape.groups * shape.in_per_group;
        let [height, width] = self.size;
        let first = lines.start * shape.strides[0];
        if !self.is_padded {
            return &x[first * width * channels..];
        }
        let reach = (shape.kernel[0] - 1) * shape.dilations[0] + 1;
        let end = height.min(lines.end.saturating_sub(1) * shape.strides[0] + reach);
        let length = shape.input[1].min(width.saturating_sub(shape.before[1])) * channels;
        let left = shape.before[1].min(width) * channels;
        let start = aligned(frame, (end - first) * width * channels);
        for y in first..end {
            let end = start + (y + 1 - first) * width * channels;
            if let Some(y) = y.checked_sub(shape.before[0]).filter(|&y| y < shape.input[0]) {
                frame.resize(frame.len() + left, 0.0);
                frame.extend_from_slice(&x[y * shape.input[1] * channels..][..length]);
            }
            frame.resize(end, 0.0);
        }
        &frame[start..]
    }
}

pub(super) fn depthwise(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Depthwise { x, w, shape, epilogue, out } = kind else { return };
    let items = bench.items;
    let ([height, width], channels) = (shape.output, shape.groups);
    let (line, per_item) = (width * channels, height * width * channels);
    let crew = bench.crew.for_work(per_item * shape.kernel[0] * shape.kernel[1] * AS_LONG);
    let (reads, [out], scratch, _) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let source = reads.source::<f32>(*x);
    let factors = Factors::Channels { weights: reads.weight(*w), stride: channels };
    let frame = Frame::of(shape);
    let pieces: Vec<Piece> = frame.taps(shape, false).collect();
    let x_line = shape.strides[0] * frame.size[1] * channels;
    // Some lines at a time, so that their frame is still in the cache when it is read.
    let share = crew.share(height).min(lines_at_once(x_line, width, height));
    for item in 0..items {
        let (x, finish) = (source.at(item), reads.finish(epilogue, item));
        let (clip, after) = finish.split();
        let parts = out[item * per_item..(item + 1) * per_item].chunks_mut((share * line).max(1));
        crew.each(scratch, parts.enumerate(), |(number, out), scratch| {
            let first = number * share;
            let x = frame.around(shape, x, first..first + out.len() / line, &mut scratch.a);
            for (y, out) in out.chunks_exact_mut(line).enumerate() {
                let Finish { bias, residual, .. } = finish.from((first + y) * line, 0);
                let strip = Strip {
                    x: &x[y * x_line..],
                    x_stride: shape.strides[1] * channels,
                    pieces: &pieces,
                    factors,
                    next: &[],
                    out: Rows::dense(&mut *out, channels),
                    adds: false,
                    ending: Some(Ending { bias, residual, clip }),
                };
                strip.run();
                activation::apply(after, out);
            }
        });
    }
}

/// The input pixel under a tap of an output pixel, `None` in the padding.
#[inline(always)]
pub(super) fn under(shape: &ConvShape, axis: usize, output: usize, tap: usize) -> Option<usize> {
    let at = output * shape.strides[axis] + tap * shape.dilations[axis];
    at.checked_sub(shape.before[axis]).filter(|&at| at < shape.input[axis])
}
