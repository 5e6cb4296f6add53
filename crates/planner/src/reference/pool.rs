//! Pools: what a window sees becomes its largest element, where that lies, its mean or its sum.

use super::EvalError;
use super::element::Elements::{self, Floats, Integers};
use super::element::{floats, from_floats, from_integers};
use super::error::Args;
use super::reduce::least;
use super::window::{Run, lay};
use crate::op::Window;
use crate::shape;
use crate::tensor::Tensor;

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

/// The sum.
pub(super) fn sum_pool(window: &Window, args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let (_, runs, dims) = lay(window, args, x, x.dims().get(1).copied().unwrap_or(0))?;
    let (pixels, places) = (x.dims()[2..].iter().product(), dims[2..].iter().product());
    let mut out = vec![0.0; dims.iter().product()];
    pooled(window, &floats(args, x)?, pixels, &runs, &mut out, places, |sum, x| sum + x);
    Ok(from_floats(x.dtype(), &dims, &out))
}

/// Where the largest element lies among all of x: the first of equals, the first NaN if there is one; -1 where a window sees only padding.
pub(super) fn max_pool_indices(
    window: &Window,
    column_major: bool,
    args: Args<'_>,
) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let (_, runs, dims) = lay(window, args, x, x.dims().get(1).copied().unwrap_or(0))?;
    let image = &x.dims()[2..];
    let (pixels, places): (usize, usize) = (image.iter().product(), dims[2..].iter().product());
    // Comparing i128 as f64 would not tell neighbours of large integers apart.
    let larger: Box<dyn Fn(usize, usize) -> bool> = match Elements::of(x) {
        Floats(list) => Box::new(move |a, b| list[a] > list[b] || (list[a].is_nan() && !list[b].is_nan())),
        Integers(list) => Box::new(move |a, b| list[a] > list[b]),
        Elements::Booleans(_) => return Err(args.undefined_on(x.dtype())),
    };
    let step = *window.strides.last().expect("an image has a spatial axis");
    let strides = shape::strides(image);
    let counted = |pixel: usize| match column_major {
        false => pixel,
        true => (0..image.len())
            .rev()
            .fold(0, |sum, axis| sum * image[axis] + pixel / strides[axis] % image[axis]),
    };
    let mut out = vec![-1i64; dims.iter().product()];
    for (plane, out) in out.chunks_exact_mut(places.max(1)).enumerate() {
        let mut best: Vec<Option<usize>> = vec![None; places];
        for run in &runs {
            for (at, best) in best[run.output..][..run.len].iter_mut().enumerate() {
                let here = plane * pixels + run.input + at * step;
                if best.is_none_or(|best| larger(here, best)) {
                    *best = Some(here);
                }
            }
        }
        for (out, best) in out.iter_mut().zip(best) {
            *out = best.map_or(-1, |at| (plane * pixels + counted(at - plane * pixels)) as i64);
        }
    }
    Ok(Tensor::from_elements(&dims, &out))
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
