//! Operators that move elements: along the item axis they may only keep each item whole.

use super::elementwise::like;
use super::fact::{Args, Fact, shared};
use super::normal::no_axis;
use super::{Note, Number, Outcome, Reason, Rule};
use crate::op::PadMode;
use crate::shape::{self, Taken};
use crate::tensor::Tensor;
use tessera_core::DType;

fn axis_of(axis: i64, x: &Fact) -> Result<usize, Reason> {
    shape::axis(axis, x.rank()).ok_or_else(|| no_axis(axis, x))
}

pub(super) fn transpose(perm: &[usize], args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    let perm = shape::permutation(perm, x.rank())
        .ok_or_else(|| Reason::Invalid(format!("{perm:?} does not permute the axes of {x}")))?;
    let mut out = like(x);
    out.dims = perm.iter().map(|&axis| x.dims[axis]).collect();
    out.items = x.items.and_then(|items| perm.iter().position(|&axis| axis == items));
    Ok(out.into())
}

pub(super) fn concat(axis: i64, args: Args<'_>) -> Rule {
    let first = args.get(0)?;
    let axis = axis_of(axis, first)?;
    let facts = (0..args.0.len()).map(|index| args.get(index)).collect::<Result<Vec<_>, _>>()?;
    let mut out = like(first);
    for (index, fact) in facts.iter().enumerate().skip(1) {
        let fits = |at: usize| at == axis || fact.dims[at] == out.dims[at];
        if fact.dtype != out.dtype || fact.rank() != out.rank() || !(0..out.rank()).all(fits) {
            return Err(Reason::Invalid(format!(
                "input {index} does not fit the others but for axis {axis}"
            )));
        }
        if fact.items != out.items || fact.items == Some(axis) {
            return Err(Reason::Mixes(format!(
                "{fact} does not have its items where {first} has them, beside axis {axis}"
            )));
        }
        out.dims[axis] = out.dims[axis]
            .checked_add(fact.dims[axis])
            .ok_or_else(|| Reason::Invalid("the joined axis overflows".into()))?;
    }
    Ok(out.into())
}

pub(super) fn split(axis: i64, args: Args<'_>, outputs: usize) -> Rule {
    let x = args.get(0)?;
    let axis = axis_of(axis, x)?;
    if x.items == Some(axis) && outputs != 1 {
        return Err(Reason::Mixes("it splits the items".into()));
    }
    let length = x.dims[axis];
    let uneven = || {
        Reason::Invalid(format!("axis {axis} of {x} does not split into {outputs} parts of the given sizes"))
    };
    let sizes = match args.opt(1) {
        given if x.items == Some(axis) => {
            if given.is_some() {
                must_be_one_part(args, x.length(axis)?)?;
            }
            vec![length]
        }
        None => shape::even_parts(length, outputs).ok_or_else(uneven)?,
        Some(_) => {
            let sizes = args.integers(1, "the sizes")?;
            sizes.into_iter().map(usize::try_from).collect::<Result<Vec<_>, _>>().map_err(|_| uneven())?
        }
    };
    let sum = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size));
    if sizes.len() != outputs || sum != Some(length) {
        return Err(uneven());
    }
    let part = |&size: &usize| {
        let mut part = like(x);
        part.dims[axis] = size;
        part
    };
    Ok(Outcome { outputs: sizes.iter().map(part).collect(), note: None })
}

/// The sizes of a split along the item axis may only be one, and that of all items.
fn must_be_one_part(args: Args<'_>, length: Number) -> Result<(), Reason> {
    match &args.numbers(1, "the sizes")?[..] {
        [size] if *size == length => Ok(()),
        [size] => Err(Reason::Mixes(format!("the one part of its item axis is {size} long"))),
        sizes => Err(Reason::Mixes(format!("it splits the items into parts of {} sizes", sizes.len()))),
    }
}

pub(super) fn slice(args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    let (first, last) = (args.numbers(1, "the starts")?, args.numbers(2, "the ends")?);
    let axes = match args.opt(3) {
        Some(_) => args.integers(3, "the axes")?,
        None => (0..first.len() as i64).collect(),
    };
    let by = match args.opt(4) {
        Some(_) => args.integers(4, "the steps")?,
        None => vec![1; first.len()],
    };
    if [last.len(), axes.len(), by.len()] != [first.len(); 3] || shape::axes(&axes, x.rank()).is_none() {
        return Err(Reason::Invalid(format!("starts, ends, axes {axes:?} and steps do not belong together")));
    }
    let mut out = like(x);
    let (mut starts, mut steps) = (vec![0; x.rank()], vec![1; x.rank()]);
    for (index, &axis) in axes.iter().enumerate() {
        let axis = axis_of(axis, x)?;
        if x.items == Some(axis) {
            must_take_all(x, axis, first[index], last[index], by[index])?;
            continue;
        }
        let fixed = |bound: Number| {
            bound.fixed().ok_or_else(|| Reason::Mixes(format!("a bound of the slice is {bound}")))
        };
        let taken = shape::slice(fixed(first[index])?, fixed(last[index])?, by[index], x.dims[axis]);
        let Taken { first, step, count } = taken.ok_or_else(|| Reason::Invalid("the step is zero".into()))?;
        (starts[axis], steps[axis], out.dims[axis]) = (first, step, count);
    }
    Ok(Outcome { outputs: vec![out], note: Some(Note::Slice { starts, steps }) })
}

/// A slice along the item axis may only take every item: from 0, or from before it, to the end or beyond.
fn must_take_all(x: &Fact, axis: usize, start: Number, end: Number, step: i64) -> Result<(), Reason> {
    let length = x.length(axis)?;
    let (zero, one) = (Number::of(0), Number::of(1));
    let from_front = start == zero || start.add(length).is_ok_and(|start| start.less(one) == Ok(Some(true)));
    let to_end = end.less(length)? == Some(false);
    match from_front && to_end && step == 1 {
        true => Ok(()),
        false => Err(Reason::Mixes(format!("it takes {start} to {end} by {step} of the item axis"))),
    }
}

/// Indices that stay inside their item: `i·rows + j` with `0 ≤ j < rows`, given as the constant `j`.
fn within_item(x: &Fact, axis: usize, indices: &Fact) -> Result<Tensor, Reason> {
    let rows = x.dims[axis] as i64;
    let leaves = || Reason::Mixes(format!("its indices {indices} may lead from one item of {x} to another"));
    if indices.items.is_none() {
        return Err(leaves());
    }
    let row = |number: Number| {
        let inside = number.per_count == 0 && number.per_item == rows && (0..rows).contains(&number.constant);
        inside.then_some(number.constant).ok_or_else(leaves)
    };
    let numbers = indices.numbers().ok_or_else(leaves)?;
    let rows = numbers.into_iter().map(row).collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::from_elements(&indices.dims, &rows))
}

pub(super) fn index_type(indices: &Fact) -> Result<(), Reason> {
    match indices.dtype {
        DType::I32 | DType::I64 => Ok(()),
        other => Err(Reason::Invalid(format!("indices are {other}, not i32 or i64"))),
    }
}

pub(super) fn gather(axis: i64, args: Args<'_>) -> Rule {
    let (x, indices) = (args.get(0)?, args.get(1)?);
    index_type(indices)?;
    let axis = axis_of(axis, x)?;
    let mut out = like(x);
    out.dims.splice(axis..=axis, indices.dims.iter().copied());
    let mut note = None;
    out.items = match (x.items, indices.items) {
        (Some(items), of_indices) if items == axis => {
            note = Some(Note::WithinItem { indices: within_item(x, axis, indices)? });
            of_indices.map(|at| at + axis)
        }
        (None, of_indices) => of_indices.map(|at| at + axis),
        (Some(items), None) => Some(if items < axis { items } else { items - 1 + indices.rank() }),
        (Some(_), Some(_)) => return Err(Reason::Mixes("both the rows and their indices have items".into())),
    };
    Ok(Outcome { outputs: vec![out], note })
}

pub(super) fn gather_elements(axis: i64, args: Args<'_>) -> Rule {
    let (x, indices) = (args.get(0)?, args.get(1)?);
    index_type(indices)?;
    let axis = axis_of(axis, x)?;
    let fits = |at: usize| at == axis || indices.dims[at] <= x.dims[at];
    if indices.rank() != x.rank() || !(0..x.rank()).all(fits) {
        return Err(Reason::Invalid(format!("the indices {indices} do not fit {x} but for axis {axis}")));
    }
    let mut note = None;
    match (x.items, indices.items) {
        (None, of_indices) if of_indices.is_none_or(|at| at == axis) => {}
        (Some(at), Some(of_indices)) if at == axis && of_indices == axis => {
            note = Some(Note::WithinItem { indices: within_item(x, axis, indices)? });
        }
        // Off the gathered axis every index row meets the x row of its own number.
        (Some(at), Some(of_indices)) if at == of_indices && x.dims[at] == indices.dims[at] => {}
        _ => return Err(Reason::Mixes("indices and elements do not have their items side by side".into())),
    }
    let out = Fact { dtype: x.dtype, ..like(indices) };
    Ok(Outcome { outputs: vec![out], note })
}

pub(super) fn pad(mode: PadMode, args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    let pads = args.integers(1, "the pads")?;
    let axes = match args.opt(3) {
        Some(_) => args.integers(3, "the axes")?,
        None => (0..x.rank() as i64).collect(),
    };
    if pads.len() != 2 * axes.len() || shape::axes(&axes, x.rank()).is_none() {
        return Err(Reason::Invalid(format!("pads {pads:?} do not belong to the axes {axes:?}")));
    }
    if let Some(value) = args.opt(2) {
        shared(value, "the padding")?;
        if value.count() != 1 || value.dtype != x.dtype {
            return Err(Reason::Invalid(format!("the padding {value} is not one {}", x.dtype)));
        }
    }
    let mut out = like(x);
    let (mut before, mut after) = (vec![0; x.rank()], vec![0; x.rank()]);
    for (index, &axis) in axes.iter().enumerate() {
        let axis = axis_of(axis, x)?;
        (before[axis], after[axis]) = (pads[index], pads[index + axes.len()]);
        if x.items == Some(axis) && (before[axis], after[axis]) != (0, 0) {
            return Err(Reason::Mixes("it pads the item axis".into()));
        }
        out.dims[axis] =
            shape::padded(mode, x.dims[axis], before[axis], after[axis]).map_err(Reason::Invalid)?;
    }
    Ok(Outcome { outputs: vec![out], note: Some(Note::Pad { before, after }) })
}
