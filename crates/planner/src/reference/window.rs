//! Convolutions: a window slides over the spatial axes of `[n, c, spatial…]`, as it does in [pools](super::pool).
//!
//! For each element (tap) of the window we precompute where its runs lie: `len` outputs from `output` on meet inputs from `input` on, one
//! stride apart along the last axis. Taps in the padding have no run. Every loop over an image is then a loop over runs.

use super::EvalError;
use super::element::{floats, from_floats};
use super::error::Args;
use super::transposed;
use crate::op::{Padding, Window};
use crate::shape;
use crate::tensor::Tensor;
use crate::window::Fit;
use std::ops::Range;

/// One tap over one row of outputs.
pub(super) struct Run {
    pub(super) tap: usize,
    pub(super) output: usize,
    pub(super) input: usize,
    pub(super) len: usize,
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
pub(super) fn lay(
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

/// The third input of a convolution, one for each channel of its outputs; zeros where there is none.
pub(super) fn bias(args: Args<'_>, channels: usize) -> Result<Vec<f64>, EvalError> {
    match args.opt(2) {
        Some(bias) if bias.dims() != [channels] => Err(args.misfit("there is not one bias per channel")),
        Some(bias) => floats(args, bias),
        None => Ok(vec![0.0; channels]),
    }
}

pub(super) fn conv(window: &Window, groups: usize, args: Args<'_>) -> Result<Tensor, EvalError> {
    if let Padding::Transposed(spread) = &window.padding {
        let (window, x) = transposed::spread_out(window, spread, args)?;
        let inputs = [&[Some(&x)], args.inputs.get(1..).unwrap_or_default()].concat();
        return conv(&window, groups, Args { inputs: &inputs, ..args });
    }
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
    let bias = bias(args, out_channels)?;
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
