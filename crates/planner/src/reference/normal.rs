//! Normalisations.

use super::EvalError;
use super::element::{floats, from_floats};
use super::error::Args;
use super::moves::expand_to;
use crate::shape;
use crate::tensor::Tensor;

pub(super) fn batch_norm(epsilon: f32, args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let Some(&channels) = x.dims().get(1) else { return Err(args.misfit("the input has no channels")) };
    let per_channel = |index: usize| match args.get(index)? {
        list if list.dims() == [channels] => floats(args, list),
        _ => Err(args.misfit(format!("input {index} is not one of {channels} channels"))),
    };
    let (scale, bias, mean, variance) = (per_channel(1)?, per_channel(2)?, per_channel(3)?, per_channel(4)?);
    let mut list = floats(args, x)?;
    let pixels: usize = x.dims()[2..].iter().product();
    for (at, plane) in list.chunks_exact_mut(pixels.max(1)).enumerate() {
        let c = at % channels.max(1);
        let factor = scale[c] / (variance[c] + f64::from(epsilon)).sqrt();
        plane.iter_mut().for_each(|x| *x = (*x - mean[c]) * factor + bias[c]);
    }
    Ok(from_floats(x.dtype(), x.dims(), &list))
}

/// Each group of channels of each image by its own mean and variance; `scale` and `bias` have one element per channel or per group.
pub(super) fn group_norm(groups: Option<usize>, epsilon: f32, args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let Some(&channels) = x.dims().get(1) else { return Err(args.misfit("the input has no channels")) };
    let groups = groups.unwrap_or(channels);
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(args.misfit(format!("{channels} channels do not make {groups} groups")));
    }
    let vector = |index: usize| match args.get(index)? {
        list if list.dims() == [channels] || list.dims() == [groups] => floats(args, list),
        _ => Err(args.misfit(format!("input {index} is not one of {channels} channels or {groups} groups"))),
    };
    let (scale, bias) = (vector(1)?, vector(2)?);
    let mut list = floats(args, x)?;
    let pixels: usize = x.dims()[2..].iter().product();
    let group = channels / groups;
    for (at, planes) in list.chunks_exact_mut((group * pixels).max(1)).enumerate() {
        let count = planes.len() as f64;
        let mean = planes.iter().sum::<f64>() / count;
        let variance = planes.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
        let divisor = (variance + f64::from(epsilon)).sqrt();
        for (i, x) in planes.iter_mut().enumerate() {
            let channel = at % groups * group + i / pixels;
            let of = |vector: &[f64]| vector[channel * vector.len() / channels];
            *x = (*x - mean) / divisor * of(&scale) + of(&bias);
        }
    }
    Ok(from_floats(x.dtype(), x.dims(), &list))
}

/// `x / (bias + alpha/size · Σ x²)^beta` over `size` neighbouring channels.
pub(super) fn lrn(size: usize, [alpha, beta, bias]: [f32; 3], args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let Some(&channels) = x.dims().get(1) else { return Err(args.misfit("the input has no channels")) };
    let list = floats(args, x)?;
    let pixels: usize = x.dims()[2..].iter().product();
    let before = size.saturating_sub(1) / 2;
    let one = |(at, &x): (usize, &f64)| {
        let (image, channel) = (at / pixels / channels, at / pixels % channels);
        let neighbours = channel.saturating_sub(before)..channels.min(channel + (size - before));
        let square = |other: usize| {
            let x = list[(image * channels + other) * pixels + at % pixels];
            x * x
        };
        let sum: f64 = neighbours.map(square).sum();
        x / libm::pow(f64::from(bias) + f64::from(alpha) / size as f64 * sum, f64::from(beta))
    };
    let made: Vec<f64> = list.iter().enumerate().map(one).collect();
    Ok(from_floats(x.dtype(), x.dims(), &made))
}

pub(super) fn layer_norm(axis: i64, epsilon: f32, args: Args<'_>) -> Result<Tensor, EvalError> {
    let (x, scale) = (args.get(0)?, args.get(1)?);
    let first = args.axis(axis, x.dims().len())?;
    let normalised = &x.dims()[first..];
    let spread = |tensor: &Tensor| match shape::broadcast(tensor.dims(), normalised) {
        Some(dims) if dims == normalised => floats(args, &expand_to(tensor, normalised)),
        _ => Err(args.misfit(format!("scale or bias does not fit the axes from {first} on"))),
    };
    let scale = spread(scale)?;
    let bias = args.opt(2).map(spread).transpose()?;
    let mut list = floats(args, x)?;
    let cols = shape::count(normalised).unwrap_or(0);
    for row in list.chunks_exact_mut(cols.max(1)) {
        let mean = row.iter().sum::<f64>() / cols as f64;
        let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / cols as f64;
        let divisor = (variance + f64::from(epsilon)).sqrt();
        for (i, x) in row.iter_mut().enumerate() {
            *x = (*x - mean) / divisor * scale[i] + bias.as_ref().map_or(0.0, |bias| bias[i]);
        }
    }
    Ok(from_floats(x.dtype(), x.dims(), &list))
}

/// `exp(x − max) / Σ exp(x − max)`: the largest element is taken off first, so that nothing overflows. A row of −∞ alone gives NaN.
pub(super) fn softmax(axis: i64, log: bool, args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let axis = args.axis(axis, x.dims().len())?;
    let mut list = floats(args, x)?;
    let (cols, inner) = (x.dims()[axis], shape::count(&x.dims()[axis + 1..]).unwrap_or(0));
    if list.is_empty() {
        return Ok(x.clone());
    }
    for block in list.chunks_exact_mut(cols * inner) {
        for i in 0..inner {
            let row = || (0..cols).map(|col| col * inner + i);
            let largest = row()
                .map(|at| block[at])
                .fold(f64::NEG_INFINITY, |a, b| if b > a || b.is_nan() { b } else { a });
            let sum: f64 = row().map(|at| libm::exp(block[at] - largest)).sum();
            for at in row() {
                let shifted = block[at] - largest;
                block[at] = if log { shifted - libm::log(sum) } else { libm::exp(shifted) / sum };
            }
        }
    }
    Ok(from_floats(x.dtype(), x.dims(), &list))
}
