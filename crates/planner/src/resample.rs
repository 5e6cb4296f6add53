//! Resize, one axis at a time: which input elements meet in an output element, and with what weights.
//!
//! ```text
//!   place of output element o in the input     x = place(o)          `Coordinates`
//!   elements around it                         base = ⌈x⌉ − 1, ratio = x − base, in (0, 1]
//!   output[o] = Σ weight(ratio, j) · input[base + 1 − n/2 + j]       the border repeated outside
//! ```
//! All of Resize is separable: interpolating along one axis after the other is interpolating in the plane. The reference, inference and
//! lowering read the same tables, which are computed in f64. Source: ONNX's operator specification and its reference implementation; the
//! length of an axis that is scaled is the f32 product rounded down, as in ONNX's shape inference and in onnxruntime.

use crate::op::{Aspect, Coordinates, Interpolation, Nearest, Resize};
use std::ops::Range;

/// An axis that is resized.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Axis {
    /// Which.
    pub axis: usize,
    /// Its length before.
    pub input: usize,
    /// Its length after.
    pub output: usize,
    /// Output over input, not rounded to whole elements.
    pub scale: f64,
    /// Where the region of interest starts and ends, the whole axis being 0 to 1.
    pub roi: [f64; 2],
}

/// Where the elements of a resized axis come from.
#[derive(Clone, PartialEq, Debug)]
pub struct Taps {
    /// The output elements that the tables are of; those before and after are [`Coordinates::CropAndResize`]'s extrapolation.
    pub inside: Range<usize>,
    /// How many input elements meet in one of the output.
    pub count: usize,
    /// Their numbers, `count` per output element inside.
    pub at: Vec<usize>,
    /// Their weights.
    pub weights: Vec<f64>,
}

/// No axis has a larger table: images of thousands of pixels take some ten thousand weights.
const MOST_TAPS: f64 = (1u64 << 22) as f64;

/// How many elements meet in one, at most.
fn reach(resize: &Resize, scale: f64) -> f64 {
    let reach = match resize.interpolation {
        Interpolation::Nearest(_) | Interpolation::Linear => 1.0,
        Interpolation::Cubic { .. } => 2.0,
    };
    2.0 + 2.0 * reach / if resize.antialias { scale.min(1.0) } else { 1.0 }
}

/// What Resize does to a value of `dims`: the axes that change, in increasing order. `roi`, `scales` and `sizes` are the operator's inputs.
/// The error says what does not fit.
pub fn axes(
    resize: &Resize,
    dims: &[usize],
    roi: Option<&[f64]>,
    scales: Option<&[f32]>,
    sizes: Option<&[i64]>,
) -> Result<Vec<Axis>, String> {
    let rank = dims.len();
    let named: Vec<usize> = match resize.axes.is_empty() {
        true => (0..rank).collect(),
        false => {
            let named = resize.axes.iter().map(|&axis| crate::shape::axis(axis, rank)).collect();
            crate::shape::axes(&resize.axes, rank)
                .and(named)
                .ok_or_else(|| format!("there are no axes {:?} among {rank}", resize.axes))?
        }
    };
    let given = scales.map(<[f32]>::len).or(sizes.map(<[i64]>::len));
    if scales.is_some() && sizes.is_some() || given != Some(named.len()) {
        return Err(format!("it takes either a scale or a size for each of the axes {named:?}"));
    }
    let crops = matches!(resize.coordinates, Coordinates::CropAndResize { .. });
    if crops && roi.map(<[f64]>::len) != Some(2 * named.len()) {
        return Err(format!(
            "its region of interest is not a start and an end for each of the axes {named:?}"
        ));
    }
    let lengths = lengths(resize.aspect, &named, dims, scales, sizes)?;
    let mut axes = Vec::new();
    for (index, (&axis, (output, scale))) in named.iter().zip(lengths).enumerate() {
        let roi = match roi.filter(|_| crops) {
            Some(roi) => [roi[index], roi[index + named.len()]],
            None => [0.0, 1.0],
        };
        let axis = Axis { axis, input: dims[axis], output, scale, roi };
        let same = axis.input == output && scale == 1.0 && roi == [0.0, 1.0];
        if same {
            continue;
        }
        if axis.input == 0 && output > 0 {
            return Err(format!("axis {} has no elements to be resized", axis.axis));
        }
        let table = output as f64 * reach(resize, scale);
        if table > MOST_TAPS {
            return Err(format!(
                "resizing {} elements to {output} takes a table of {table} weights",
                axis.input
            ));
        }
        axes.push(axis);
    }
    axes.sort_by_key(|axis| axis.axis);
    Ok(axes)
}

/// Length and scale of every axis that is spoken of.
fn lengths(
    aspect: Aspect,
    named: &[usize],
    dims: &[usize],
    scales: Option<&[f32]>,
    sizes: Option<&[i64]>,
) -> Result<Vec<(usize, f64)>, String> {
    if let Some(scales) = scales {
        let one = |(&axis, &scale): (&usize, &f32)| {
            let length = (dims[axis] as f32 * scale).floor();
            let fits = scale > 0.0 && length < u32::MAX as f32;
            fits.then_some((length as usize, f64::from(scale)))
                .ok_or_else(|| format!("a scale of {scale} for an axis of {}", dims[axis]))
        };
        return named.iter().zip(scales).map(one).collect();
    }
    let sizes = sizes.unwrap_or_default();
    let mut wanted = Vec::with_capacity(named.len());
    for (&axis, &size) in named.iter().zip(sizes) {
        let size = usize::try_from(size).map_err(|_| format!("a size of {size}"))?;
        if dims[axis] == 0 && size > 0 {
            return Err(format!("axis {axis} has no elements to be resized"));
        }
        let scale = if size == dims[axis] { 1.0 } else { size as f64 / dims[axis] as f64 };
        wanted.push((size, scale));
    }
    let scales = wanted.iter().map(|&(_, scale)| scale);
    let scale = match aspect {
        Aspect::Stretch => return Ok(wanted),
        Aspect::NotLarger => scales.fold(f64::INFINITY, f64::min),
        Aspect::NotSmaller => scales.fold(0.0, f64::max),
    };
    Ok(named.iter().map(|&axis| ((scale * dims[axis] as f64 + 0.5) as usize, scale)).collect())
}

impl Taps {
    /// The tables of an axis that has elements.
    pub fn of(resize: &Resize, axis: &Axis) -> Taps {
        let places: Vec<f64> =
            (0..axis.output).map(|at| place(resize.coordinates, axis, at as f64)).collect();
        let within = |place: &f64| (0.0..=axis.input as f64 - 1.0).contains(place);
        let inside = match resize.coordinates {
            // Places rise or fall evenly, so those inside are neighbours.
            Coordinates::CropAndResize { .. } => match places.iter().position(within) {
                Some(first) => first..places.iter().rposition(within).map_or(first, |last| last + 1),
                None => 0..0,
            },
            _ => 0..axis.output,
        };
        let mut taps = Taps { count: 0, at: Vec::new(), weights: Vec::new(), inside };
        for &place in &places[taps.inside.clone()] {
            let base = place.ceil() - 1.0;
            let mut weights = weights(resize, place - base, axis.scale);
            taps.count = weights.len();
            let first = base as i64 + 1 - (taps.count / 2) as i64;
            let last = axis.input as i64 - 1;
            let numbers = (0..taps.count as i64).map(|tap| first + tap);
            if resize.exclude_outside {
                for (weight, number) in weights.iter_mut().zip(numbers.clone()) {
                    *weight = if (0..=last).contains(&number) { *weight } else { 0.0 };
                }
                let sum: f64 = weights.iter().sum();
                if sum != 0.0 {
                    weights.iter_mut().for_each(|weight| *weight /= sum);
                }
            }
            taps.at.extend(numbers.map(|number| number.clamp(0, last) as usize));
            taps.weights.extend(weights);
        }
        taps
    }

    /// The one element that each output element is, where no two meet.
    pub fn single(&self) -> Option<Vec<usize>> {
        let one = |(at, weights): (&[usize], &[f64])| {
            let mut heavy = at.iter().zip(weights).filter(|(_, weight)| **weight != 0.0);
            match (heavy.next(), heavy.next()) {
                (Some((&at, &1.0)), None) => Some(at),
                _ => None,
            }
        };
        self.at.chunks(self.count.max(1)).zip(self.weights.chunks(self.count.max(1))).map(one).collect()
    }
}

/// Where an output element lies in the input.
fn place(coordinates: Coordinates, axis: &Axis, at: f64) -> f64 {
    let &Axis { input, output, scale, roi: [start, end], .. } = axis;
    let last = input as f64 - 1.0;
    let exact = scale * input as f64;
    let half_pixel = (at + 0.5) / scale - 0.5;
    match coordinates {
        Coordinates::HalfPixel => half_pixel,
        Coordinates::HalfPixelSymmetric => input as f64 / 2.0 * (1.0 - output as f64 / exact) + half_pixel,
        Coordinates::PytorchHalfPixel if exact == 1.0 => -0.5,
        Coordinates::PytorchHalfPixel => half_pixel,
        Coordinates::AlignCorners if exact == 1.0 => 0.0,
        Coordinates::AlignCorners => at * last / (exact - 1.0),
        Coordinates::Asymmetric => at / scale,
        Coordinates::CropAndResize { .. } if exact == 1.0 => (end - start) * last / 2.0 + start * last,
        Coordinates::CropAndResize { .. } => at * (end - start) * last / (exact - 1.0) + start * last,
    }
}

/// The weights of the elements around a place that lies `ratio` after the one before it.
fn weights(resize: &Resize, ratio: f64, scale: f64) -> Vec<f64> {
    match resize.interpolation {
        Interpolation::Nearest(nearest) => {
            let second = ratio == 1.0
                || match nearest {
                    Nearest::RoundPreferFloor => ratio > 0.5,
                    Nearest::RoundPreferCeil => ratio >= 0.5,
                    Nearest::Floor => false,
                    Nearest::Ceil => true,
                    Nearest::Simple => scale < 1.0,
                };
            if second { vec![0.0, 1.0] } else { vec![1.0, 0.0] }
        }
        Interpolation::Linear => spread(1.0, ratio, if resize.antialias { scale } else { 1.0 }, |x| 1.0 - x),
        Interpolation::Cubic { coefficient } => {
            let a = f64::from(coefficient);
            let polynomial = |x: f64| match x <= 1.0 {
                true => (a + 2.0) * x * x * x - (a + 3.0) * x * x + 1.0,
                false => a * x * x * x - 5.0 * a * x * x + 8.0 * a * x - 4.0 * a,
            };
            spread(2.0, ratio, if resize.antialias { scale } else { 1.0 }, polynomial)
        }
    }
}

/// The weights `of` distances up to `reach`, all distances shrunk by a scale below one; their sum is one.
fn spread(reach: f64, ratio: f64, scale: f64, of: impl Fn(f64) -> f64) -> Vec<f64> {
    let scale = scale.min(1.0);
    let start = (-reach / scale).floor() + 1.0;
    let count = 2 - 2 * start as i64;
    let weight = |tap: i64| {
        let distance = ((start + tap as f64 - ratio) * scale).abs();
        if distance < reach { of(distance) } else { 0.0 }
    };
    let weights: Vec<f64> = (0..count).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resize(interpolation: Interpolation, coordinates: Coordinates) -> Resize {
        Resize {
            interpolation,
            coordinates,
            antialias: false,
            exclude_outside: false,
            aspect: Aspect::Stretch,
            axes: vec![],
        }
    }

    #[test]
    fn twice_as_many_nearest_elements_are_each_element_twice() {
        let nearest = Interpolation::Nearest(Nearest::RoundPreferFloor);
        let resize = resize(nearest, Coordinates::HalfPixel);
        let axes = axes(&resize, &[3], None, Some(&[2.0]), None).unwrap();
        assert_eq!(Taps::of(&resize, &axes[0]).single(), Some(vec![0, 0, 1, 1, 2, 2]));
    }

    #[test]
    fn linear_weights_are_those_of_the_distance_and_the_border_repeats() {
        let resize = resize(Interpolation::Linear, Coordinates::HalfPixel);
        let axes = axes(&resize, &[2], None, None, Some(&[4])).unwrap();
        let taps = Taps::of(&resize, &axes[0]);
        assert_eq!(taps.at, [0, 0, 0, 1, 0, 1, 1, 1]);
        assert_eq!(taps.weights, [0.25, 0.75, 0.75, 0.25, 0.25, 0.75, 0.75, 0.25]);
        assert_eq!(taps.single(), None);
    }

    #[test]
    fn an_antialiased_half_reaches_twice_as_far() {
        let resize = Resize { antialias: true, ..resize(Interpolation::Linear, Coordinates::HalfPixel) };
        let axes = axes(&resize, &[8], None, Some(&[0.5]), None).unwrap();
        let taps = Taps::of(&resize, &axes[0]);
        assert_eq!(taps.count, 4);
        assert_eq!(taps.weights[..4], [0.125, 0.375, 0.375, 0.125]);
    }

    #[test]
    fn a_crop_that_leaves_the_input_has_tables_only_inside() {
        let coordinates = Coordinates::CropAndResize { extrapolation: 7.0 };
        let resize = resize(Interpolation::Linear, coordinates);
        let axes = axes(&resize, &[5], Some(&[-0.5, 1.5]), None, Some(&[5])).unwrap();
        // Places -2, 0, 2, 4, 6.
        assert_eq!(Taps::of(&resize, &axes[0]).inside, 1..4);
    }

    #[test]
    fn a_kept_shape_scales_all_sides_alike() {
        let resize = Resize {
            aspect: Aspect::NotLarger,
            axes: vec![-1, -2],
            ..resize(Interpolation::Linear, Coordinates::HalfPixel)
        };
        let axes = axes(&resize, &[1, 3, 10, 20], None, None, Some(&[10, 8])).unwrap();
        let lengths: Vec<_> = axes.iter().map(|axis| (axis.axis, axis.output)).collect();
        assert_eq!(lengths, [(2, 5), (3, 10)]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let resize = resize(Interpolation::Linear, Coordinates::HalfPixel);
        let nothing: Result<Vec<Axis>, String> = axes(&resize, &[2, 3], None, None, None);
        assert!(nothing.unwrap_err().contains("either a scale or a size"));
        assert!(axes(&resize, &[2, 3], None, Some(&[1.0]), None).is_err());
        assert!(axes(&resize, &[2, 3], None, Some(&[1.0, f32::NAN]), None).is_err());
        assert!(axes(&resize, &[2, 3], None, Some(&[1.0, 1e30]), None).is_err());
        assert!(axes(&resize, &[0, 3], None, None, Some(&[1, 3])).is_err());
        assert!(axes(&resize, &[2, 3], None, None, Some(&[-1, 3])).is_err());
        assert!(axes(&resize, &[2, 3], None, None, Some(&[1 << 40, 3])).is_err());
        let smooth = Resize { antialias: true, ..resize };
        assert!(axes(&smooth, &[1 << 30], None, None, Some(&[16])).unwrap_err().contains("weights"));
    }
}
