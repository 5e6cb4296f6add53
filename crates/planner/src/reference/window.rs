//! Convolutions and pools: a window slides over the spatial axes of `[n, c, spatial…]`.
//!
//! For each element (tap) of the window we precompute where its runs lie: `len` outputs from `output` on meet inputs from `input` on, one
//! stride apart along the last axis. Taps in the padding have no run. Every loop over an image is then a loop over runs.

use super::EvalError;
use super::element::Elements::{self, Floats, Integers};
use super::element::{floats, from_floats, from_integers};
use super::error::Args;
use super::reduce::least;
use crate::op::Window;
use crate::shape;
use crate::tensor::Tensor;
use crate::window::Fit;
use std::ops::Range;

/// One tap over one row of outputs.
struct Run {
    tap: usize,
    output: usize,
    input: usize,
    len: usize,
}

/// The outputs of one axis for which tap `tap` falls on the image.
fn inside(window: &Window, fit: &Fit, axis: usize, image: usize, tap: usize) -> Range<usize> {
    let (stride, before) = (window.strides[axis], fit.before[axis]);
    let reach = tap * window.dilations[axis];
    // output·stride + reach − before must be in 0..image.
    let first = before.saturating_sub(reach).div_ceil(stride);
    let end = (image + before).saturating_sub(reach).div_ceil(stride);
    first.min(fit.output[axis])..end.min(fit.output[axis])
}

/// The runs of every tap, tap by tap.
fn runs(window: &Window, fit: &Fit, image: &[usize]) -> Vec<Run> {
    let rank = image.len();
    let (in_strides, out_strides) = (shape::strides(image), shape::strides(&fit.output));
    let mut runs = Vec::new();
    for tap in 0..window.kernel.iter().product() {
        let mut rows = vec![(0usize, 0usize)];
        let mut rest = tap;
        let mut taps = vec![0; rank];
        for axis in (0..rank).rev() {
            taps[axis] = rest % window.kernel[axis];
            rest /= window.kernel[axis];
        }
        for axis in 0..rank {
            let places = inside(window, fit, axis, image[axis], taps[axis]);
            let input = |output: usize| {
                output * window.strides[axis] + taps[axis] * window.dilations[axis] - fit.before[axis]
            };
            if axis + 1 < rank {
                let one = |&(output, at): &(usize, usize)| {
                    let places = places.clone();
                    let (out_stride, in_stride) = (out_strides[axis], in_strides[axis]);
                    places
                        .map(move |place| (output + place * out_stride, at + input(place) * in_stride))
                        .collect::<Vec<_>>()
                };
                rows = rows.iter().flat_map(one).collect();
            } else if !places.is_empty() {
                runs.extend(rows.iter().map(|&(output, at)| Run {
                    tap,
                    output: output + places.start,
                    input: at + input(places.start),
                    len: places.len(),
                }));
            }
        }
    }
    runs
}

/// A window laid over the images of `x`, and the dimensions of the result with `channels` channels.
fn lay(
    window: &Window,
    args: Args<'_>,
    x: &Tensor,
    channels: usize,
) -> Result<(Fit, Vec<Run>, Vec<usize>), EvalError> {
    let Some(image) = x.dims().get(2..).filter(|image| !image.is_empty()) else {
        return Err(args.misfit("the input is not an image [n, c, …]"));
    };
    let fit = window.fit(image).map_err(|why| args.misfit(why))?;
    let dims = [&[x.dims()[0], channels], &fit.output[..]].concat();
    args.count(x.dtype(), &dims)?;
    let runs = if x.is_empty() || dims.contains(&0) { vec![] } else { runs(window, &fit, image) };
    Ok((fit, runs, dims))
}

pub(super) fn conv(window: &Window, groups: usize, args: Args<'_>) -> Result<Tensor, EvalError> {
    let (x, w) = (args.get(0)?, args.get(1)?);
    let kernel_fits =
        w.dims().len() == x.dims().len() && w.dims().len() > 2 && w.dims()[2..] == window.kernel[..];
    if !kernel_fits || x.dtype() != w.dtype() {
        return Err(args.misfit(format!("the kernel is not one of {:?}", window.kernel)));
    }
    let (out_channels, group_in) = (w.dims()[0], w.dims()[1]);
    let in_channels = x.dims()[1];
    if groups == 0
        || !out_channels.is_multiple_of(groups)
        || group_in.checked_mul(groups) != Some(in_channels)
    {
        return Err(args.misfit(format!("{groups} groups of {group_in} channels do not make {in_channels}")));
    }
    let (_, runs, dims) = lay(window, args, x, out_channels)?;
    let bias = match args.opt(2) {
        Some(bias) if bias.dims() != [out_channels] => {
            return Err(args.misfit("there is not one bias per channel"));
        }
        Some(bias) => floats(args, bias)?,
        None => vec![0.0; out_channels],
    };
    let (images, kernels) = (floats(args, x)?, floats(args, w)?);
    let (pixels, places): (usize, usize) = (x.dims()[2..].iter().product(), dims[2..].iter().product());
    let taps: usize = window.kernel.iter().product();
    let step = *window.strides.last().expect("an image has a spatial axis");
    let mut out = vec![0.0; x.dims()[0] * out_channels * places];
    for (at, sums) in out.chunks_exact_mut(places.max(1)).enumerate() {
        let (image, channel) = (at / out_channels, at % out_channels);
        let group = channel / (out_channels / groups);
        for i in 0..group_in {
            let plane = &images[(image * in_channels + group * group_in + i) * pixels..][..pixels];
            let kernel = &kernels[(channel * group_in + i) * taps..][..taps];
            for run in &runs {
                let factor = kernel[run.tap];
                let sums = &mut sums[run.output..][..run.len];
                let inputs = &plane[run.input..];
                if step == 1 {
                    sums.iter_mut().zip(inputs).for_each(|(sum, x)| *sum += factor * x);
                } else {
                    sums.iter_mut().zip(inputs.iter().step_by(step)).for_each(|(sum, x)| *sum += factor * x);
                }
            }
        }
        sums.iter_mut().for_each(|sum| *sum += bias[channel]);
    }
    Ok(from_floats(x.dtype(), &dims, &out))
}

/// Combines what each window sees, image by image; `with` is called once per tap on the image.
fn pooled<T: Copy>(
    window: &Window,
    x: &[T],
    pixels: usize,
    runs: &[Run],
    out: &mut [T],
    places: usize,
    with: impl Fn(T, T) -> T,
) {
    let step = *window.strides.last().expect("an image has a spatial axis");
    for (plane, out) in x.chunks_exact(pixels.max(1)).zip(out.chunks_exact_mut(places.max(1))) {
        for run in runs {
            let inputs = plane[run.input..].iter().step_by(step);
            out[run.output..][..run.len].iter_mut().zip(inputs).for_each(|(out, &x)| *out = with(*out, x));
        }
    }
}

/// The largest element; NaN is larger than all. A window that sees only padding gives the type's least value.
pub(super) fn max_pool(window: &Window, args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let (_, runs, dims) = lay(window, args, x, x.dims().get(1).copied().unwrap_or(0))?;
    let (pixels, places) = (x.dims()[2..].iter().product(), dims[2..].iter().product());
    let count = dims.iter().product();
    match Elements::of(x) {
        Floats(list) => {
            let mut out = vec![f64::NEG_INFINITY; count];
            let larger = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
            pooled(window, &list, pixels, &runs, &mut out, places, larger);
            Ok(from_floats(x.dtype(), &dims, &out))
        }
        Integers(list) => {
            let mut out = vec![least(x.dtype()); count];
            pooled(window, &list, pixels, &runs, &mut out, places, i128::max);
            Ok(from_integers(x.dtype(), &dims, &out))
        }
        Elements::Booleans(_) => Err(args.undefined_on(x.dtype())),
    }
}

/// The mean. Padding counts in the divisor if asked to, but never what `ceil_mode` reaches beyond it.
pub(super) fn average_pool(
    window: &Window,
    count_padding: bool,
    args: Args<'_>,
) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let (fit, runs, dims) = lay(window, args, x, x.dims().get(1).copied().unwrap_or(0))?;
    let image = &x.dims()[2..];
    let (pixels, places) = (image.iter().product(), dims[2..].iter().product::<usize>());
    let mut out = vec![0.0; dims.iter().product()];
    pooled(window, &floats(args, x)?, pixels, &runs, &mut out, places, |sum, x| sum + x);
    let mut divisors = vec![0usize; places];
    if count_padding {
        let strides = shape::strides(&fit.output);
        for (place, divisor) in divisors.iter_mut().enumerate() {
            let along = |axis: usize| {
                let start = place / strides[axis] % fit.output[axis] * window.strides[axis];
                let room = (image[axis] + fit.before[axis] + fit.after[axis]).saturating_sub(start);
                room.div_ceil(window.dilations[axis]).min(window.kernel[axis])
            };
            *divisor = (0..image.len()).map(along).product();
        }
    } else {
        runs.iter()
            .for_each(|run| divisors[run.output..][..run.len].iter_mut().for_each(|divisor| *divisor += 1));
    }
    for out in out.chunks_exact_mut(places.max(1)) {
        out.iter_mut().zip(&divisors).for_each(|(sum, &divisor)| *sum /= divisor as f64);
    }
    Ok(from_floats(x.dtype(), &dims, &out))
}
