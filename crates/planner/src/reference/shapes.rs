//! Operators that read shapes, or change them without moving elements.

use super::EvalError;
use super::element::{Elements, from_floats, from_integers};
use super::error::Args;
use super::moves::expand_to;
use crate::shape as arithmetic;
use crate::tensor::Tensor;

pub(super) fn shape(start: i64, end: Option<i64>, args: Args<'_>) -> Result<Tensor, EvalError> {
    let dims = args.get(0)?.dims();
    let rank = dims.len() as i64;
    let clamp = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
    let part = dims.get(clamp(start)..clamp(end.unwrap_or(rank))).unwrap_or(&[]);
    Ok(Tensor::from_elements(&[part.len()], &part.iter().map(|&dim| dim as i64).collect::<Vec<_>>()))
}

fn with_dims(args: Args<'_>, x: &Tensor, dims: Vec<usize>) -> Result<Tensor, EvalError> {
    x.reshaped(dims).map_err(|error| args.misfit(error.to_string()))
}

pub(super) fn reshape(allow_zero: bool, args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let wanted = args.integers(1)?;
    let mut dims = Vec::with_capacity(wanted.len());
    let mut rest = None;
    for (axis, &dim) in wanted.iter().enumerate() {
        dims.push(match dim {
            0 if !allow_zero => match x.dims().get(axis) {
                Some(&dim) => dim,
                None => return Err(args.misfit(format!("the shape {wanted:?} copies axis {axis}"))),
            },
            -1 if rest.is_none() => {
                rest = Some(axis);
                1
            }
            _ => usize::try_from(dim).map_err(|_| args.misfit(format!("{wanted:?} is not a shape")))?,
        });
    }
    if let Some(axis) = rest {
        let others = args.count(x.dtype(), &dims)?;
        match x.len().checked_rem(others) {
            Some(0) => dims[axis] = x.len() / others,
            _ => return Err(args.misfit(format!("{} elements do not fill the shape {wanted:?}", x.len()))),
        }
    }
    with_dims(args, x, dims)
}

pub(super) fn flatten(axis: i64, args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let rank = x.dims().len();
    let at = if axis == rank as i64 { rank } else { args.axis(axis, rank)? };
    let part = |dims: &[usize]| args.count(x.dtype(), dims);
    with_dims(args, x, vec![part(&x.dims()[..at])?, part(&x.dims()[at..])?])
}

pub(super) fn squeeze(args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let axes = match args.opt(1) {
        Some(_) => args.axes(&args.integers(1)?, x.dims().len())?,
        None => (0..x.dims().len()).filter(|&axis| x.dims()[axis] == 1).collect(),
    };
    if let Some(axis) = axes.iter().find(|&&axis| x.dims()[axis] != 1) {
        return Err(args.misfit(format!("axis {axis} is not 1")));
    }
    let kept = (0..x.dims().len()).filter(|axis| !axes.contains(axis));
    with_dims(args, x, kept.map(|axis| x.dims()[axis]).collect())
}

pub(super) fn unsqueeze(args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let wanted = args.integers(1)?;
    let mut dims = x.dims().to_vec();
    for axis in args.axes(&wanted, dims.len() + wanted.len())? {
        dims.insert(axis, 1);
    }
    with_dims(args, x, dims)
}

/// A shape given as data.
fn dims(args: Args<'_>, index: usize) -> Result<Vec<usize>, EvalError> {
    let wanted = args.integers(index)?;
    let dims = wanted.iter().map(|&dim| usize::try_from(dim)).collect::<Result<_, _>>();
    dims.map_err(|_| args.misfit(format!("{wanted:?} is not a shape")))
}

pub(super) fn expand(args: Args<'_>) -> Result<Tensor, EvalError> {
    let (x, wanted) = (args.get(0)?, dims(args, 1)?);
    let dims = arithmetic::broadcast(x.dims(), &wanted);
    let dims = dims.ok_or_else(|| args.misfit(format!("it does not broadcast with {wanted:?}")))?;
    args.count(x.dtype(), &dims)?;
    Ok(expand_to(x, &dims))
}

pub(super) fn constant_of_shape(value: &Tensor, args: Args<'_>) -> Result<Tensor, EvalError> {
    let dims = dims(args, 0)?;
    let count = args.count(value.dtype(), &dims)?;
    if value.len() != 1 {
        return Err(args.misfit(format!("it repeats one element, not {}", value.len())));
    }
    Ok(Tensor::new(value.dtype(), dims, value.bytes().repeat(count)).expect("one element was repeated"))
}

/// `start, start + step, …` before `limit`: `max(0, ⌈(limit − start) / step⌉)` elements.
pub(super) fn range(args: Args<'_>) -> Result<Tensor, EvalError> {
    let (start, limit, step) = (args.get(0)?, args.get(1)?, args.get(2)?);
    let dtype = start.dtype();
    if [start, limit, step].iter().any(|tensor| tensor.len() != 1 || tensor.dtype() != dtype) {
        return Err(args.misfit("it takes three scalars of one type"));
    }
    let sized = |count: Option<usize>| match count {
        // 2^32 elements are more than any model means.
        Some(count) if count <= u32::MAX as usize => args.count(dtype, &[count]),
        _ => Err(args.misfit("the range is too long")),
    };
    match (Elements::of(start), Elements::of(limit), Elements::of(step)) {
        (Elements::Floats(start), Elements::Floats(limit), Elements::Floats(step)) => {
            let exact = ((limit[0] - start[0]) / step[0]).ceil();
            if !exact.is_finite() || step[0] == 0.0 {
                return Err(args.misfit("the range does not end"));
            }
            let count = sized(Some(exact.max(0.0) as usize))?;
            let list: Vec<f64> = (0..count).map(|i| start[0] + i as f64 * step[0]).collect();
            Ok(from_floats(dtype, &[count], &list))
        }
        (Elements::Integers(start), Elements::Integers(limit), Elements::Integers(step)) => {
            let (span, step, start) = (limit[0] - start[0], step[0], start[0]);
            if step == 0 {
                return Err(args.misfit("the range does not end"));
            }
            let exact = if (span < 0) != (step < 0) { 0 } else { (span.abs() + step.abs() - 1) / step.abs() };
            let count = sized(usize::try_from(exact).ok())?;
            let list: Vec<i128> = (0..count as i128).map(|i| start + i * step).collect();
            Ok(from_integers(dtype, &[count], &list))
        }
        _ => Err(args.undefined_on(dtype)),
    }
}
