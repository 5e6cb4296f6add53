//! Linear layers and convolutions: everything that ends in [`Product`].
//!
//! A convolution gathers the taps of some output pixels into rows of `kernel · channels` and multiplies them like any other
//! rows; one with a 1×1 kernel and no steps is a product as it lies. Depthwise convolutions have one product per channel
//! and tap, so they walk channels instead.

use super::gemm::{Finish, Product, WIDTH};
use super::{Bench, activation};
use crate::cpu::fence::{Kernel, dispatch, multiply_add};
use tessera_planner::plan::{ConvShape, StepKind};

/// Output pixels whose taps are gathered at once: enough to use a panel well, few enough to stay in the cache.
const PIXELS: usize = 64;

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
    for item in 0..items {
        let x = source.at(item);
        let out = &mut out[item * pixels * channels..(item + 1) * pixels * channels];
        let finish = reads.finish(epilogue, item);
        for group in 0..shape.groups {
            let panels = &weights[group * group_weights..(group + 1) * group_weights];
            let (n, out_stride, out_first) = (shape.out_per_group, channels, group * shape.out_per_group);
            if is_pointwise(shape) {
                let x_stride = shape.in_per_group;
                Product {
                    x,
                    x_stride,
                    rows: pixels,
                    k,
                    panels,
                    n,
                    out: &mut *out,
                    out_stride,
                    out_first,
                    finish,
                }
                .run();
                continue;
            }
            for first in (0..pixels).step_by(PIXELS) {
                let rows = PIXELS.min(pixels - first);
                taps(shape, x, group, first..first + rows, &mut scratch.a);
                let finish = Finish {
                    residual: finish.residual.map(|residual| &residual[first * channels..]),
                    ..finish
                };
                let out = &mut out[first * channels..(first + rows) * channels];
                Product {
                    x: &scratch.a,
                    x_stride: k,
                    rows,
                    k,
                    panels,
                    n,
                    out,
                    out_stride,
                    out_first,
                    finish,
                }
                .run();
            }
        }
    }
}

/// Whether the image is its own matrix of taps.
fn is_pointwise(shape: &ConvShape) -> bool {
    shape.groups == 1
        && shape.kernel == [1, 1]
        && shape.strides == [1, 1]
        && shape.before == [0, 0]
        && shape.input == shape.output
}

/// Rows of taps for some output pixels of one group: `[pixel][ky][kx][channel]`, zeros outside the image.
fn taps(shape: &ConvShape, x: &[f32], group: usize, pixels: std::ops::Range<usize>, rows: &mut Vec<f32>) {
    let channels = shape.groups * shape.in_per_group;
    rows.clear();
    for pixel in pixels {
        let (oy, ox) = (pixel / shape.output[1], pixel % shape.output[1]);
        for ky in 0..shape.kernel[0] {
            let y = under(shape, 0, oy, ky);
            for kx in 0..shape.kernel[1] {
                match y.zip(under(shape, 1, ox, kx)) {
                    Some((y, x_at)) => {
                        let at = (y * shape.input[1] + x_at) * channels + group * shape.in_per_group;
                        rows.extend_from_slice(&x[at..at + shape.in_per_group]);
                    }
                    None => rows.resize(rows.len() + shape.in_per_group, 0.0),
                }
            }
        }
    }
}

pub(super) fn depthwise(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Depthwise { x, w, shape, epilogue, out } = kind else { return };
    let items = bench.items;
    let (reads, [out], ..) = bench.open([*out]);
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    let per_item = shape.output[0] * shape.output[1] * shape.groups;
    let source = reads.source::<f32>(*x);
    for item in 0..items {
        let finish = reads.finish(epilogue, item);
        let out = &mut out[item * per_item..(item + 1) * per_item];
        dispatch(Depthwise { x: source.at(item), weights: reads.weight(*w), shape, out, finish });
    }
}

struct Depthwise<'a> {
    x: &'a [f32],
    /// `[tap][channel]`.
    weights: &'a [f32],
    shape: &'a ConvShape,
    out: &'a mut [f32],
    finish: Finish<'a>,
}

impl Kernel for Depthwise<'_> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Depthwise { x, weights, shape, out, finish } = self;
        let channels = shape.groups;
        for (pixel, out) in out.chunks_exact_mut(channels).enumerate() {
            let (oy, ox) = (pixel / shape.output[1], pixel % shape.output[1]);
            out.fill(0.0);
            for ky in 0..shape.kernel[0] {
                let Some(y) = under(shape, 0, oy, ky) else { continue };
                for kx in 0..shape.kernel[1] {
                    let Some(x_at) = under(shape, 1, ox, kx) else { continue };
                    let x = &x[(y * shape.input[1] + x_at) * channels..][..channels];
                    let weights = &weights[(ky * shape.kernel[1] + kx) * channels..][..channels];
                    for ((out, x), weight) in out.iter_mut().zip(x).zip(weights) {
                        *out = multiply_add::<FUSED>(*x, *weight, *out);
                    }
                }
            }
            if let Some(bias) = finish.bias {
                out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
            }
            if let Some(residual) = finish.residual {
                let residual = &residual[pixel * channels..][..channels];
                out.iter_mut().zip(residual).for_each(|(out, residual)| *out += residual);
            }
            activation::apply(finish.activation, out);
        }
    }
}

/// The input pixel under a tap of an output pixel, `None` in the padding.
#[inline(always)]
pub(super) fn under(shape: &ConvShape, axis: usize, output: usize, tap: usize) -> Option<usize> {
    let at = output * shape.strides[axis] + tap * shape.dilations[axis];
    at.checked_sub(shape.before[axis]).filter(|&at| at < shape.input[axis])
}
