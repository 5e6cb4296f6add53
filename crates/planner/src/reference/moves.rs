//! Operators that move elements and compute nothing; they work on bytes, whatever the type.

use super::EvalError;
use super::error::Args;
use crate::op::PadMode;
use crate::shape::{self, Taken};
use crate::tensor::Tensor;

/// The elements at `first + Σ i·strides` for every `(i, j, …)` within `dims`, row-major.
pub(super) fn walk(x: &Tensor, dims: &[usize], first: usize, strides: &[isize]) -> Tensor {
    let size = x.dtype().size();
    let mut bytes = Vec::with_capacity(shape::count(dims).unwrap_or(0) * size);
    let Some((&inner, outer)) = dims.split_last() else {
        bytes.extend_from_slice(&x.bytes()[first * size..][..size]);
        return Tensor::new(x.dtype(), vec![], bytes).expect("one element was taken");
    };
    let (step, steps) = strides.split_last().expect("as many strides as dimensions");
    if !dims.contains(&0) {
        let mut index = vec![0; outer.len()];
        let mut at = first as isize;
        loop {
            if *step == 1 {
                bytes.extend_from_slice(&x.bytes()[at as usize * size..][..inner * size]);
            } else {
                for i in 0..inner as isize {
                    bytes.extend_from_slice(&x.bytes()[(at + i * step) as usize * size..][..size]);
                }
            }
            // The next row, as an odometer counts.
            let Some(axis) = (0..outer.len()).rev().find(|&axis| index[axis] + 1 < outer[axis]) else {
                break;
            };
            index[axis] += 1;
            at += steps[axis];
            for later in axis + 1..outer.len() {
                at -= index[later] as isize * steps[later];
                index[later] = 0;
            }
        }
    }
    Tensor::new(x.dtype(), dims.to_vec(), bytes).expect("every element of the shape was taken")
}

fn signed(strides: Vec<usize>) -> Vec<isize> {
    strides.into_iter().map(|stride| stride as isize).collect()
}

/// `x` broadcast to `dims`, which the caller knows it broadcasts to and to fit into memory.
pub(crate) fn expand_to(x: &Tensor, dims: &[usize]) -> Tensor {
    if x.dims() == dims {
        return x.clone();
    }
    walk(x, dims, 0, &signed(shape::broadcast_strides(x.dims(), dims)))
}

/// Along every axis `dims[axis]` elements from `starts[axis]` on, `steps[axis]` apart; all inside `x`.
pub(crate) fn take(x: &Tensor, starts: &[usize], steps: &[i64], dims: &[usize]) -> Tensor {
    if dims.contains(&0) {
        return Tensor::new(x.dtype(), dims.to_vec(), vec![]).expect("an empty tensor has no bytes");
    }
    let strides = shape::strides(x.dims());
    let first = starts.iter().zip(&strides).map(|(start, stride)| start * stride).sum();
    // A single element is taken with any step, also one that would overflow.
    let along = |axis: usize| if dims[axis] == 1 { 0 } else { strides[axis] as isize * steps[axis] as isize };
    walk(x, dims, first, &(0..dims.len()).map(along).collect::<Vec<_>>())
}

pub(super) fn transpose(perm: &[usize], args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let perm = shape::permutation(perm, x.dims().len())
        .ok_or_else(|| args.misfit(format!("{perm:?} is no permutation of its axes")))?;
    let strides = signed(shape::strides(x.dims()));
    let dims: Vec<usize> = perm.iter().map(|&axis| x.dims()[axis]).collect();
    Ok(walk(x, &dims, 0, &perm.iter().map(|&axis| strides[axis]).collect::<Vec<_>>()))
}

/// Elements before an axis, and bytes of what lies inside one step of it.
fn around(x: &Tensor, axis: usize) -> (usize, usize) {
    let outer = shape::count(&x.dims()[..axis]).unwrap_or(0);
    let inner = shape::count(&x.dims()[axis + 1..]).unwrap_or(0);
    (outer, inner * x.dtype().size())
}

pub(super) fn concat(axis: i64, args: Args<'_>) -> Result<Tensor, EvalError> {
    let first = args.get(0)?;
    let axis = args.axis(axis, first.dims().len())?;
    let mut dims = first.dims().to_vec();
    let mut parts = vec![first];
    for index in 1..args.inputs.len() {
        let part = args.get(index)?;
        let fits = |at: usize| at == axis || part.dims()[at] == dims[at];
        if part.dtype() != first.dtype() || part.dims().len() != dims.len() || !(0..dims.len()).all(fits) {
            return Err(args.misfit(format!("input {index} does not fit the others but for axis {axis}")));
        }
        dims[axis] = dims[axis].saturating_add(part.dims()[axis]);
        parts.push(part);
    }
    let count = args.count(first.dtype(), &dims)?;
    let mut bytes = Vec::with_capacity(count * first.dtype().size());
    if count > 0 {
        for row in 0..around(first, axis).0 {
            for part in &parts {
                let len = around(part, axis).1 * part.dims()[axis];
                bytes.extend_from_slice(&part.bytes()[row * len..][..len]);
            }
        }
    }
    Ok(Tensor::new(first.dtype(), dims, bytes).expect("every row of every part was taken"))
}

pub(super) fn split(axis: i64, outputs: usize, args: Args<'_>) -> Result<Vec<Tensor>, EvalError> {
    let x = args.get(0)?;
    let axis = args.axis(axis, x.dims().len())?;
    let length = x.dims()[axis];
    let uneven =
        || args.misfit(format!("axis {axis} does not split into {outputs} parts of the given sizes"));
    let sizes = match args.opt(1) {
        None => shape::even_parts(length, outputs).ok_or_else(uneven)?,
        Some(_) => {
            let sizes = args.integers(1)?.into_iter().map(usize::try_from);
            sizes.collect::<Result<Vec<_>, _>>().map_err(|_| uneven())?
        }
    };
    let sum = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size));
    if sizes.len() != outputs || sum != Some(length) {
        return Err(uneven());
    }
    let mut starts = vec![0; x.dims().len()];
    let part = |size: usize| {
        let mut dims = x.dims().to_vec();
        dims[axis] = size;
        let part = take(x, &starts, &vec![1; x.dims().len()], &dims);
        starts[axis] += size;
        part
    };
    Ok(sizes.into_iter().map(part).collect())
}

pub(super) fn slice(args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let rank = x.dims().len();
    let (first, last) = (args.integers(1)?, args.integers(2)?);
    let axes = match args.opt(3) {
        Some(_) => args.integers(3)?,
        None => (0..first.len() as i64).collect(),
    };
    let by = match args.opt(4) {
        Some(_) => args.integers(4)?,
        None => vec![1; first.len()],
    };
    args.axes(&axes, rank)?;
    if [last.len(), axes.len(), by.len()] != [first.len(); 3] {
        return Err(args.misfit("starts, ends, axes and steps are not of one length"));
    }
    let (mut starts, mut steps, mut dims) = (vec![0; rank], vec![1; rank], x.dims().to_vec());
    for (index, &axis) in axes.iter().enumerate() {
        let axis = args.axis(axis, rank)?;
        let taken = shape::slice(first[index], last[index], by[index], dims[axis]);
        let Taken { first, step, count } = taken.ok_or_else(|| args.misfit("a step is zero"))?;
        (starts[axis], steps[axis], dims[axis]) = (first, step, count);
    }
    Ok(take(x, &starts, &steps, &dims))
}

/// Indices of either type, number `at` made to count from the front of `rows(at)` rows.
pub(super) fn indices(
    args: Args<'_>,
    index: usize,
    rows: impl Fn(usize) -> usize,
) -> Result<Vec<usize>, EvalError> {
    let tensor = args.get(index)?;
    let list: Option<Vec<i64>> = match tensor.dtype() {
        tessera_core::DType::I64 => tensor.elements::<i64>(),
        tessera_core::DType::I32 => {
            tensor.elements::<i32>().map(|list| list.into_iter().map(i64::from).collect())
        }
        _ => None,
    };
    let list = list.ok_or_else(|| args.misfit("indices are neither i32 nor i64"))?;
    let one = |(at, index): (usize, i64)| {
        let rows = rows(at);
        let from_front = if index < 0 { i128::from(index) + rows as i128 } else { i128::from(index) };
        let inside = (0..rows as i128).contains(&from_front);
        inside.then_some(from_front as usize).ok_or(EvalError::IndexOutOfRange { op: args.op, index, rows })
    };
    list.into_iter().enumerate().map(one).collect()
}

pub(super) fn gather(axis: i64, args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let axis = args.axis(axis, x.dims().len())?;
    let rows = x.dims()[axis];
    let list = indices(args, 1, |_| rows)?;
    let mut dims = x.dims().to_vec();
    dims.splice(axis..=axis, args.get(1)?.dims().iter().copied());
    let count = args.count(x.dtype(), &dims)?;
    let mut bytes = Vec::with_capacity(count * x.dtype().size());
    if count > 0 {
        let (outer, row) = around(x, axis);
        for before in 0..outer {
            for &index in &list {
                bytes.extend_from_slice(&x.bytes()[(before * rows + index) * row..][..row]);
            }
        }
    }
    Ok(Tensor::new(x.dtype(), dims, bytes).expect("one row was taken per index"))
}

pub(super) fn gather_elements(axis: i64, args: Args<'_>) -> Result<Tensor, EvalError> {
    let (x, at) = (args.get(0)?, args.get(1)?);
    let axis = args.axis(axis, x.dims().len())?;
    let fits = |dim: usize| dim == axis || at.dims()[dim] <= x.dims()[dim];
    if at.dims().len() != x.dims().len() || !(0..x.dims().len()).all(fits) {
        return Err(args.misfit(format!("the indices do not fit but for axis {axis}")));
    }
    let list = indices(args, 1, |_| x.dims()[axis])?;
    let (strides, places, size) = (shape::strides(x.dims()), shape::strides(at.dims()), x.dtype().size());
    let mut bytes = Vec::with_capacity(args.count(x.dtype(), at.dims())? * size);
    for (place, index) in list.into_iter().enumerate() {
        let along = |dim: usize| match dim == axis {
            true => index * strides[dim],
            false => place / places[dim] % at.dims()[dim] * strides[dim],
        };
        let from: usize = (0..strides.len()).map(along).sum();
        bytes.extend_from_slice(&x.bytes()[from * size..][..size]);
    }
    Ok(Tensor::new(x.dtype(), at.dims().to_vec(), bytes).expect("one element was taken per index"))
}

/// Where element `at` of a padded axis comes from; `None` is padding.
fn source(mode: PadMode, length: usize, before: i64, at: usize) -> Option<usize> {
    let place = at as i128 - i128::from(before);
    let length = length as i128;
    let from = match mode {
        PadMode::Constant => return (0..length).contains(&place).then_some(place as usize),
        PadMode::Edge => place.clamp(0, length - 1),
        PadMode::Wrap => place.rem_euclid(length),
        // Mirrored at the border elements, which are not repeated.
        PadMode::Reflect if place < 0 => -place,
        PadMode::Reflect if place >= length => 2 * (length - 1) - place,
        PadMode::Reflect => place,
    };
    Some(from as usize)
}

pub(super) fn pad(mode: PadMode, args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let (rank, pads) = (x.dims().len(), args.integers(1)?);
    let axes = match args.opt(3) {
        Some(_) => args.integers(3)?,
        None => (0..rank as i64).collect(),
    };
    args.axes(&axes, rank)?;
    if pads.len() != 2 * axes.len() {
        return Err(args.misfit(format!("{} pads are given for {} axes", pads.len(), axes.len())));
    }
    let zero = vec![0; x.dtype().size()];
    let value = match args.opt(2) {
        None => &zero[..],
        Some(value) if value.len() == 1 && value.dtype() == x.dtype() => value.bytes(),
        Some(_) => return Err(args.misfit(format!("the padding is not one {}", x.dtype()))),
    };
    let mut padding = vec![(0, 0); rank];
    for (index, &axis) in axes.iter().enumerate() {
        padding[args.axis(axis, rank)?] = (pads[index], pads[index + axes.len()]);
    }
    let mut dims = x.dims().to_vec();
    for (dim, &(before, after)) in dims.iter_mut().zip(&padding) {
        *dim = shape::padded(mode, *dim, before, after).map_err(|why| args.misfit(why))?;
    }
    let count = args.count(x.dtype(), &dims)?;
    let (strides, places, size) = (shape::strides(x.dims()), shape::strides(&dims), x.dtype().size());
    let mut bytes = Vec::with_capacity(count * size);
    for place in 0..count {
        let along = |axis: usize| {
            let at = place / places[axis] % dims[axis];
            source(mode, x.dims()[axis], padding[axis].0, at).map(|from| from * strides[axis])
        };
        match (0..rank).map(along).sum::<Option<usize>>() {
            Some(from) => bytes.extend_from_slice(&x.bytes()[from * size..][..size]),
            None => bytes.extend_from_slice(value),
        }
    }
    Ok(Tensor::new(x.dtype(), dims, bytes).expect("every place was filled"))
}
