//! Transposed convolutions: every element of the input spreads over the window that would see it.

use super::EvalError;
use super::element::{Elements, floats, from_floats};
use super::error::Args;
use super::window::bias;
use crate::op::{Padding, Transposed, Window};
use crate::shape;
use crate::tensor::Tensor;
use crate::window::Kept;

/// All places of a box, row-major.
fn places(dims: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    let strides = shape::strides(dims);
    (0..dims.iter().product::<usize>())
        .map(move |at| strides.iter().zip(dims).map(|(stride, dim)| at / stride % dim).collect())
}

/// `w [c, out/groups, kernel…]`: output element `i·stride + k·dilation − first` gets `x[i]·w[k]`.
pub(super) fn conv_transpose(window: &Window, groups: usize, args: Args<'_>) -> Result<Tensor, EvalError> {
    let (x, w) = (args.get(0)?, args.get(1)?);
    let Padding::Transposed(spread) = &window.padding else {
        return Err(args.misfit("its window is not a transposed one"));
    };
    let fits = w.dims().len() == x.dims().len() && w.dims().len() > 2 && w.dims()[2..] == window.kernel[..];
    let channels = x.dims().get(1).copied().unwrap_or(0);
    if !fits
        || groups == 0
        || w.dims()[0] != channels
        || !channels.is_multiple_of(groups)
        || x.dtype() != w.dtype()
    {
        return Err(args.misfit(format!("the kernel is not one of {groups} groups and {:?}", window.kernel)));
    }
    let (image, group_out) = (&x.dims()[2..], w.dims()[1]);
    let kept = window.cut(spread, image).map_err(|why| args.misfit(why))?;
    let out_channels =
        group_out.checked_mul(groups).ok_or_else(|| args.misfit("it makes too many channels"))?;
    let dims = [&[x.dims()[0], out_channels], &kept.output[..]].concat();
    let count = args.count(x.dtype(), &dims)?;
    let bias = bias(args, out_channels)?;
    let (images, kernels) = (floats(args, x)?, floats(args, w)?);
    let meetings = meetings(window, spread, image, &kept);
    let [pixels, taps, out_pixels] =
        [image, &window.kernel, &kept.output].map(|dims| dims.iter().product::<usize>());
    let mut out = vec![0.0; count];
    for (plane, sums) in out.chunks_exact_mut(out_pixels.max(1)).enumerate() {
        let (n, channel) = (plane / out_channels, plane % out_channels);
        let group = channel / group_out;
        for i in group * channels / groups..(group + 1) * channels / groups {
            let plane = &images[(n * channels + i) * pixels..][..pixels];
            let kernel = &kernels[(i * group_out + channel % group_out) * taps..][..taps];
            for &(pixel, tap, at) in &meetings {
                sums[at] += plane[pixel] * kernel[tap];
            }
        }
        sums.iter_mut().for_each(|sum| *sum += bias[channel]);
    }
    Ok(from_floats(x.dtype(), &dims, &out))
}

/// Which input pixel meets which tap in which output pixel.
fn meetings(
    window: &Window,
    spread: &Transposed,
    image: &[usize],
    kept: &Kept,
) -> Vec<(usize, usize, usize)> {
    let strides = shape::strides(&kept.output);
    let mut all = Vec::new();
    for (pixel, place) in places(image).enumerate() {
        for (tap, taps) in places(&window.kernel).enumerate() {
            let at = (0..image.len()).try_fold(0, |sum, axis| {
                let full = place[axis] * spread.strides[axis] + taps[axis] * window.dilations[axis];
                let at = full.checked_sub(kept.first[axis]).filter(|&at| at < kept.output[axis])?;
                Some(sum + at * strides[axis])
            });
            all.extend(at.map(|at| (pixel, tap, at)));
        }
    }
    all
}

/// The input of a convolution that is a transposed one: zeros between and around the elements of the first input, and the window that slides
/// over them. Its kernel has the taps of the transposed one in opposite order.
pub(super) fn spread_out(
    window: &Window,
    spread: &Transposed,
    args: Args<'_>,
) -> Result<(Window, Tensor), EvalError> {
    let x = args.get(0)?;
    let Some((outer, image)) = x.dims().split_at_checked(2).filter(|(_, image)| !image.is_empty()) else {
        return Err(args.misfit("the input is not an image [n, c, …]"));
    };
    let kept = window.cut(spread, image).map_err(|why| args.misfit(why))?;
    let reach = |axis: usize| (window.kernel[axis] - 1) * window.dilations[axis];
    let inner: Vec<usize> = (0..image.len()).map(|axis| kept.output[axis] + reach(axis)).collect();
    let dims = [outer, &inner].concat();
    let mut list = vec![0.0; args.count(x.dtype(), &dims)?];
    let strides = shape::strides(&inner);
    let [pixels, spread_pixels] = [image, &inner].map(|dims| dims.iter().product::<usize>());
    let from = floats(args, x)?;
    for (pixel, place) in places(image).enumerate() {
        let at = (0..image.len()).try_fold(0, |sum, axis| {
            let at = (place[axis] * spread.strides[axis] + reach(axis)).checked_sub(kept.first[axis])?;
            (at < inner[axis]).then(|| sum + at * strides[axis])
        });
        let Some(at) = at else { continue };
        for plane in 0..outer.iter().product() {
            list[plane * spread_pixels + at] = from[plane * pixels + pixel];
        }
    }
    let window = Window { padding: Padding::Explicit(vec![(0, 0); image.len()]), ..window.clone() };
    Ok((window, Elements::Floats(list).tensor(x.dtype(), &dims)))
}
