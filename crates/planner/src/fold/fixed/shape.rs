//! The shapes that operators make of fixed values, without evaluating anything.

use super::Fixed;
use crate::op::{Binary, Op, Unary};

/// An axis that may count from the end, as an index; `None` outside the rank.
pub(super) fn resolve(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis.checked_add(rank)? } else { axis };
    (0..rank).contains(&axis).then(|| usize::try_from(axis).ok())?
}

/// The shape that `op` makes: for the operators that exporters put between a weight and its use.
pub(super) fn shape(op: &Op, inputs: &[Option<Fixed>]) -> Option<Vec<usize>> {
    let input = |index: usize| inputs.get(index).and_then(Option::as_ref);
    let x = input(0)?;
    match op {
        Op::Unary(Unary::Not) => None,
        Op::Unary(_) | Op::Clip => floats(inputs).then(|| x.dims.clone()),
        Op::Cast(to) => (to.is_float() && x.dtype.is_float()).then(|| x.dims.clone()),
        Op::Binary(how) => {
            (arithmetic(*how) && floats(inputs)).then(|| broadcast(&x.dims, &input(1)?.dims))?
        }
        Op::Where => broadcast(&broadcast(&x.dims, &input(1)?.dims)?, &input(2)?.dims),
        Op::Transpose { perm } if perm.is_empty() => Some(x.dims.iter().rev().copied().collect()),
        Op::Transpose { perm } => {
            let mut seen = perm.clone();
            seen.sort_unstable();
            let valid = seen.into_iter().eq(0..x.dims.len());
            valid.then(|| perm.iter().map(|&axis| x.dims[axis]).collect())
        }
        Op::Reshape { allow_zero } => reshape(x, &input(1)?.as_integers()?, *allow_zero),
        Op::Flatten { axis } => {
            let rank = x.dims.len();
            let axis = if *axis == rank as i64 { rank } else { resolve(*axis, rank)? };
            Some(vec![count(&x.dims[..axis]), count(&x.dims[axis..])])
        }
        Op::Squeeze => {
            let axes = match input(1) {
                Some(axes) => resolve_all(&axes.as_integers()?, x.dims.len())?,
                None => (0..x.dims.len()).filter(|&axis| x.dims[axis] == 1).collect(),
            };
            let kept = x.dims.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
            axes.iter().all(|&axis| x.dims[axis] == 1).then(|| kept.map(|(_, &dim)| dim).collect())
        }
        Op::Unsqueeze => {
            let axes = input(1)?.as_integers()?;
            let rank = x.dims.len() + axes.len();
            let axes = resolve_all(&axes, rank)?;
            let mut dims = x.dims.iter();
            (0..rank).map(|axis| if axes.contains(&axis) { Some(1) } else { dims.next().copied() }).collect()
        }
        Op::Concat { axis } => {
            let axis = resolve(*axis, x.dims.len())?;
            let mut dims = x.dims.clone();
            dims[axis] = 0;
            for part in inputs {
                let part = part.as_ref()?;
                let same = |at: usize| at == axis || part.dims[at] == x.dims[at];
                if part.dims.len() != x.dims.len() || !(0..x.dims.len()).all(same) {
                    return None;
                }
                dims[axis] = dims[axis].checked_add(part.dims[axis])?;
            }
            floats(inputs).then_some(dims)
        }
        Op::Slice => {
            let list = |index: usize| input(index)?.as_integers();
            let (starts, ends) = (list(1)?, list(2)?);
            let axes = match input(3) {
                Some(axes) => resolve_all(&axes.as_integers()?, x.dims.len())?,
                None => (0..starts.len()).collect(),
            };
            let steps = if input(4).is_some() { list(4)? } else { vec![1; starts.len()] };
            if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || axes.len() > x.dims.len() {
                return None;
            }
            let mut dims = x.dims.clone();
            for (index, &axis) in axes.iter().enumerate() {
                dims[axis] = slice_length(x.dims[axis], starts[index], ends[index], steps[index])?;
            }
            Some(dims)
        }
        Op::Gather { axis } => {
            let (axis, rows) = (resolve(*axis, x.dims.len())?, input(1)?);
            let length = i64::try_from(x.dims[axis]).ok()?;
            let inside = rows.as_integers()?.iter().all(|row| (-length..length).contains(row));
            inside.then(|| [&x.dims[..axis], &rows.dims, &x.dims[axis + 1..]].concat())
        }
        Op::Expand => {
            let to = input(1)?.as_integers()?;
            let to: Vec<usize> = to.into_iter().map(usize::try_from).collect::<Result<_, _>>().ok()?;
            broadcast(&x.dims, &to)
        }
        Op::MatMul => match (&x.dims[..], &input(1)?.dims[..]) {
            ([m, k], [l, n]) if k == l => Some(vec![*m, *n]),
            _ => None,
        },
        Op::Reduce { keep_dims, noop_with_empty_axes, .. } => {
            let axes = input(1).map_or(Some(Vec::new()), Fixed::as_integers)?;
            let axes = match axes.is_empty() && !noop_with_empty_axes {
                true => (0..x.dims.len()).collect(),
                false => resolve_all(&axes, x.dims.len())?,
            };
            let dim = |(axis, &dim): (usize, &usize)| match axes.contains(&axis) {
                true => keep_dims.then_some(1),
                false => Some(dim),
            };
            (x.dtype.is_float() && count(&x.dims) > 0)
                .then(|| x.dims.iter().enumerate().filter_map(dim).collect())
        }
        Op::BatchNorm { .. } => {
            let channels = *x.dims.get(1)?;
            let vector = |index: usize| input(index).is_some_and(|vector| vector.dims == [channels]);
            (floats(inputs) && (1..5).all(vector)).then(|| x.dims.clone())
        }
        _ => None,
    }
}

/// Elements of a shape. Saturates, as an empty tensor may have dimensions whose product overflows.
pub(super) fn count(dims: &[usize]) -> usize {
    dims.iter().fold(1, |product: usize, &dim| product.saturating_mul(dim))
}

/// Whether every input is a float tensor.
fn floats(inputs: &[Option<Fixed>]) -> bool {
    inputs.iter().flatten().all(|input| input.dtype.is_float())
}

/// Whether floats make a float.
fn arithmetic(how: Binary) -> bool {
    use Binary::{Add, Div, Max, Min, Mod, Mul, Pow, Sub};
    matches!(how, Add | Sub | Mul | Div | Pow | Min | Max | Mod { .. })
}

/// NumPy's broadcast of two shapes.
fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(1, |axis| dims[axis]);
    let both = |axis: usize| match (at(a, axis), at(b, axis)) {
        (one, other) if one == other || other == 1 => Some(one),
        (1, other) => Some(other),
        _ => None,
    };
    (0..rank).map(both).collect()
}

/// Axes that may count from the end, each at most once.
fn resolve_all(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    let axes: Vec<usize> = axes.iter().map(|&axis| resolve(axis, rank)).collect::<Option<_>>()?;
    let distinct = axes.iter().enumerate().all(|(index, axis)| !axes[..index].contains(axis));
    distinct.then_some(axes)
}

fn reshape(x: &Fixed, to: &[i64], allow_zero: bool) -> Option<Vec<usize>> {
    let mut dims = Vec::with_capacity(to.len());
    let mut left = None;
    for (axis, &dim) in to.iter().enumerate() {
        dims.push(match dim {
            -1 if left.is_none() => {
                left = Some(axis);
                1
            }
            0 if !allow_zero => *x.dims.get(axis)?,
            dim => usize::try_from(dim).ok()?,
        });
    }
    let known = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))?;
    if let Some(axis) = left {
        dims[axis] = x.elements().checked_div(known)?;
        return (dims[axis].checked_mul(known)? == x.elements()).then_some(dims);
    }
    (known == x.elements()).then_some(dims)
}

/// How many elements a slice takes of an axis, by ONNX's rules of clamping.
pub(in crate::fold) fn slice_length(length: usize, start: i64, end: i64, step: i64) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let from_end = |at: i64| if at < 0 { at.saturating_add(length) } else { at };
    if step < 1 {
        return None; // backwards is rare enough to stay a step
    }
    let taken = (from_end(end).clamp(0, length) - from_end(start).clamp(0, length)).max(0);
    usize::try_from(taken).ok()?.div_ceil(usize::try_from(step).ok()?).into()
}
