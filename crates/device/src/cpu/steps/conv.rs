//! Linear layers and convolutions: everything that ends in [`Product`].
//!
//! ```text
//!   frame  · · · · ·      the image with its padding, copied once where there is any
//!          · a b c ·      output pixels of a line are rows of a product at one distance (stride · channels), and the taps of a
//!          · d e f ·      window lie equally far from each pixel: the product walks them where they are, nothing is gathered
//! ```
//! Depthwise convolutions walk the same frame with a factor per channel and tap.

use super::gemm::{Lines, Product, Taps, WIDTH};
use super::{Bench, activation};
use crate::cpu::fence::{Ending, Factors, Piece, Strip};
use tessera_planner::plan::{ConvShape, StepKind};

pub(super) fn gemm(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Gemm { x, w, rows, k, n, epilogue, out } = kind else { return };
    let (items, rows, k, n) = (bench.items, *rows, *k, *n);
    let (reads, [out], ..) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let panels = reads.weight(*w);
    let source = reads.source::<f32>(x.operand);
    let x_stride = if rows == 1 { source.per_item() } else { x.strides[0].unsigned_abs() };
    let residual_follows =
        epilogue.residual.is_none_or(|operand| reads.source::<f32>(operand).per_item() == rows * n);
    // Rows of all items at one distance are one product; the arithmetic of a row is the same either way.
    if x_stride * rows == source.per_item() && residual_follows {
        let x = &source.whole()[x.offset..];
        let finish = reads.finish(epilogue, 0);
        let product = Product {
            x,
            x_stride,
            rows: rows * items,
            k,
            panels,
            n,
            out,
            out_stride: n,
            out_first: 0,
            finish,
        };
        return product.run();
    }
    for item in 0..items {
        let x = &source.at(item)[x.offset..];
        let out = &mut out[item * rows * n..(item + 1) * rows * n];
        let finish = reads.finish(epilogue, item);
        Product { x, x_stride, rows, k, panels, n, out, out_stride: n, out_first: 0, finish }.run();
    }
}

pub(super) fn conv(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Conv { x, w, shape, epilogue, out } = kind else { return };
    let items = bench.items;
    let (reads, [out], scratch, _) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let (pixels, channels) = (shape.output[0] * shape.output[1], shape.groups * shape.out_per_group);
    let (weights, source) = (reads.weight(*w), reads.source::<f32>(*x));
    let k = shape.kernel[0] * shape.kernel[1] * shape.in_per_group;
    let group_weights = shape.out_per_group.div_ceil(WIDTH) * k * WIDTH;
    let frame = Frame::of(shape);
    let in_channels = shape.groups * shape.in_per_group;
    let taps = Taps::new(frame.taps(shape, true));
    // An image without padding whose every pixel is one of the output's is one long line.
    let is_one_line = shape.strides == [1, 1] && frame.size[1] == shape.output[1];
    let (lines, rows) = if is_one_line { (1, pixels) } else { (shape.output[0], shape.output[1]) };
    for item in 0..items {
        let x = frame.around(shape, source.at(item), &mut scratch.a);
        let out = &mut out[item * pixels * channels..(item + 1) * pixels * channels];
        for group in 0..shape.groups {
            let lines = Lines {
                x: &x[group * shape.in_per_group..],
                lines,
                x_line: shape.strides[0] * frame.size[1] * in_channels,
                rows,
                x_stride: shape.strides[1] * in_channels,
                taps: &taps,
                panels: &weights[group * group_weights..(group + 1) * group_weights],
                n: shape.out_per_group,
                out: &mut *out,
                out_stride: channels,
                out_first: group * shape.out_per_group,
                finish: reads.finish(epilogue, item),
            };
            lines.run();
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

    /// The frame with an item's image in it: the image itself if nothing is around it.
    fn around<'a>(self, shape: &ConvShape, x: &'a [f32], frame: &'a mut Vec<f32>) -> &'a [f32] {
        if !self.is_padded {
            return x;
        }
        let channels = shape.groups * shape.in_per_group;
        let [height, width] = self.size;
        let length = shape.input[1].min(width.saturating_sub(shape.before[1])) * channels;
        let left = shape.before[1].min(width) * channels;
        frame.clear();
        for y in 0..height {
            let end = (y + 1) * width * channels;
            if let Some(y) = y.checked_sub(shape.before[0]).filter(|&y| y < shape.input[0]) {
                frame.resize(frame.len() + left, 0.0);
                frame.extend_from_slice(&x[y * shape.input[1] * channels..][..length]);
            }
            frame.resize(end, 0.0);
        }
        frame
    }
}

pub(super) fn depthwise(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Depthwise { x, w, shape, epilogue, out } = kind else { return };
    let items = bench.items;
    let (reads, [out], scratch, _) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let ([height, width], channels) = (shape.output, shape.groups);
    let (line, per_item) = (width * channels, height * width * channels);
    let source = reads.source::<f32>(*x);
    let factors = Factors::Channels { weights: reads.weight(*w), stride: channels };
    let frame = Frame::of(shape);
    let pieces: Vec<Piece> = frame.taps(shape, false).collect();
    let x_line = shape.strides[0] * frame.size[1] * channels;
    for item in 0..items {
        let x = frame.around(shape, source.at(item), &mut scratch.a);
        let finish = reads.finish(epilogue, item);
        let (clip, after) = finish.split();
        for (y, out) in out[item * per_item..(item + 1) * per_item].chunks_exact_mut(line).enumerate() {
            let residual = finish.residual.map(|residual| &residual[y * line..]);
            let strip = Strip {
                x: &x[y * x_line..],
                x_stride: shape.strides[1] * channels,
                rows: width,
                pieces: &pieces,
                factors,
                next: &[],
                columns: channels,
                out,
                out_stride: channels,
                adds: false,
                ending: Some(Ending { bias: finish.bias, residual, clip }),
            };
            strip.run();
            activation::apply(after, out);
        }
    }
}

/// The input pixel under a tap of an output pixel, `None` in the padding.
#[inline(always)]
pub(super) fn under(shape: &ConvShape, axis: usize, output: usize, tap: usize) -> Option<usize> {
    let at = output * shape.strides[axis] + tap * shape.dilations[axis];
    at.checked_sub(shape.before[axis]).filter(|&at| at < shape.input[axis])
}
