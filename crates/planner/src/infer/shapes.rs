//! Operators that read shapes or change them without moving elements.
//!
//! A reshape keeps items apart when as many elements lie before one item's first on both sides: row-major order then
//! counts `[before][item][rest]` in both, and each item is reshaped alone. What lies before may be axes, or rounds on the item axis itself:
//!
//! ```text
//!   [17, n, 24] ─ Reshape → [17×n, 24] ─ Gemm → [17×n, 24] ─ Reshape → [17, n, 24]       each item: [17, 24]
//!   [17, n, 24] ─ Reshape → [17, 2·n, 12] ─ Transpose → [2·n, 17, 12]                     each item: [2, 17, 12]
//! ```

use super::elementwise::like;
use super::fact::{Args, Fact};
use super::known::LIMIT;
use super::normal::no_axis;
use super::number::Extent;
use super::{Known, Number, Reason, Rule};
use crate::shape;
use crate::tensor::Tensor;
use tessera_core::DType;

pub(super) fn shape(start: i64, end: Option<i64>, args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    let rank = x.rank() as i64;
    let clamp = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
    let (start, end) = (clamp(start), clamp(end.unwrap_or(rank)));
    let dims = (start..end).map(|axis| x.length(axis)).collect::<Result<Vec<_>, _>>()?;
    let mut out = Fact::shared(DType::I64, vec![dims.len()]);
    out.set_numbers(dims)?;
    Ok(out.into())
}

fn overflow() -> Reason {
    Reason::Invalid("the number of elements overflows".into())
}

/// How many elements a shape has: so many, or so many per item. `None` for more than one item axis, and on overflow.
fn total(extents: &[Extent]) -> Result<Extent, Reason> {
    let mut dims = Vec::new();
    let mut per_item = 0;
    for extent in extents {
        match *extent {
            Extent::Fixed(dim) => dims.push(dim),
            Extent::PerItem(dim) => {
                per_item += 1;
                dims.push(dim);
            }
        }
    }
    let count = shape::count(&dims).ok_or_else(overflow)?;
    match per_item {
        0 => Ok(Extent::Fixed(count)),
        1 => Ok(Extent::PerItem(count)),
        _ => Err(Reason::Mixes("two axes of the result would run over items".into())),
    }
}

/// `x` under new extents that have as many elements.
fn reshaped(x: &Fact, extents: &[Extent]) -> Rule {
    let mut out = Fact::of_extents(x.dtype, extents)?;
    match (total(&x.extents())?, total(extents)?) {
        (have, want) if have == want => {}
        (Extent::PerItem(_), Extent::Fixed(_)) => {
            return Err(Reason::Mixes(format!("{x} becomes {out}, which fixes the number of items")));
        }
        _ => return Err(Reason::Invalid(format!("{x} does not have as many elements as {out}"))),
    }
    if let (Some(from), Some(to)) = (x.items, out.items) {
        let before = shape::count(&x.dims[..from]).and_then(|axes| axes.checked_mul(x.rounds));
        let axes = shape::count(&out.dims[..to]);
        let rounds = match (before, axes) {
            // Nothing moves where there is nothing.
            _ if out.count() == 0 => Some(1),
            (Some(before), Some(axes)) if before.is_multiple_of(axes) => Some(before / axes),
            _ => None,
        };
        let Some(rounds) = rounds.filter(|&rounds| out.dims[to].is_multiple_of(rounds)) else {
            return Err(Reason::Mixes(format!("reshaping {x} to {out} moves elements between items")));
        };
        out.rounds = rounds;
    }
    Ok(out.into())
}

pub(super) fn reshape(allow_zero: bool, args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    let wanted = args.numbers(1, "the shape")?;
    let mut extents = Vec::with_capacity(wanted.len());
    let mut rest = None;
    for (axis, number) in wanted.iter().enumerate() {
        extents.push(match number.fixed() {
            Some(0) if !allow_zero => {
                if axis >= x.rank() {
                    return Err(Reason::Invalid(format!("the shape copies axis {axis} of {x}")));
                }
                x.extent(axis)
            }
            Some(-1) if rest.is_none() => {
                rest = Some(axis);
                Extent::Fixed(1)
            }
            Some(-1) => return Err(Reason::Invalid("the shape holds -1 twice".into())),
            _ => number.extent()?,
        });
    }
    if let Some(axis) = rest {
        extents[axis] = remaining(total(&x.extents())?, total(&extents)?)?;
    }
    reshaped(x, &extents)
}

/// What a -1 stands for.
fn remaining(have: Extent, others: Extent) -> Result<Extent, Reason> {
    let divide = |have: usize, others: usize| match have.checked_rem(others) {
        Some(0) => Ok(have / others),
        _ => Err(Reason::Invalid(format!(
            "{have} elements do not fill the shape, which holds {others} but for the -1"
        ))),
    };
    match (have, others) {
        (Extent::Fixed(have), Extent::Fixed(others)) | (Extent::PerItem(have), Extent::PerItem(others)) => {
            divide(have, others).map(Extent::Fixed)
        }
        (Extent::PerItem(have), Extent::Fixed(others)) => match divide(have, others) {
            Ok(dim) => Ok(Extent::PerItem(dim)),
            // One item alone does not fill it, though several together may.
            Err(Reason::Invalid(why)) => Err(Reason::Mixes(why)),
            Err(other) => Err(other),
        },
        (Extent::Fixed(_), Extent::PerItem(_)) => {
            Err(Reason::Invalid("a value that all items share is reshaped to one with items".into()))
        }
    }
}

pub(super) fn flatten(axis: i64, args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    // The axis may be the rank: everything becomes rows.
    let at = if axis == x.rank() as i64 { Some(x.rank()) } else { shape::axis(axis, x.rank()) };
    let at = at.ok_or_else(|| no_axis(axis, x))?;
    let extents = x.extents();
    reshaped(x, &[total(&extents[..at])?, total(&extents[at..])?])
}

pub(super) fn squeeze(args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    let axes = match args.opt(1) {
        Some(_) => {
            let wanted = args.integers(1, "the axes")?;
            shape::axes(&wanted, x.rank())
                .ok_or_else(|| Reason::Invalid(format!("{x} has no axes {wanted:?}")))?
        }
        None => (0..x.rank()).filter(|&axis| x.dims[axis] == 1).collect(),
    };
    let mut out = like(x);
    for &axis in axes.iter().rev() {
        if x.items == Some(axis) {
            return Err(Reason::Mixes("it removes the item axis".into()));
        }
        if x.dims[axis] != 1 {
            return Err(Reason::Invalid(format!("axis {axis} of {x} is not 1")));
        }
        out.dims.remove(axis);
        out.items = out.items.map(|items| if items > axis { items - 1 } else { items });
    }
    Ok(out.into())
}

pub(super) fn unsqueeze(args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    let wanted = args.integers(1, "the axes")?;
    let axes = shape::axes(&wanted, x.rank() + wanted.len());
    let axes = axes.ok_or_else(|| Reason::Invalid(format!("axes {wanted:?} cannot be added to {x}")))?;
    let mut out = like(x);
    for axis in axes {
        out.dims.insert(axis, 1);
        out.items = out.items.map(|items| if items >= axis { items + 1 } else { items });
    }
    Ok(out.into())
}

pub(super) fn expand(args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    let wanted = args.numbers(1, "the shape")?;
    let wanted = wanted.into_iter().map(Number::extent).collect::<Result<Vec<_>, _>>()?;
    let rank = x.rank().max(wanted.len());
    let mut extents = Vec::with_capacity(rank);
    for axis in 0..rank {
        let have = axis.checked_sub(rank - x.rank()).map_or(Extent::Fixed(1), |axis| x.extent(axis));
        let want = axis.checked_sub(rank - wanted.len()).map_or(Extent::Fixed(1), |axis| wanted[axis]);
        extents.push(match (have, want) {
            (have, want) if have == want => have,
            (have, Extent::Fixed(1)) => have,
            (Extent::Fixed(1), want) => want,
            (Extent::Fixed(have), Extent::Fixed(want)) => {
                return Err(Reason::Invalid(format!("dimensions {have} and {want} do not broadcast")));
            }
            _ => {
                return Err(Reason::Mixes(format!(
                    "axis {axis} of {x} is expanded to another number of items"
                )));
            }
        });
    }
    Ok(Fact::of_extents(x.dtype, &extents)?.into())
}

pub(super) fn constant_of_shape(value: &Tensor, args: Args<'_>) -> Rule {
    let wanted = args.numbers(0, "the shape")?;
    let extents = wanted.into_iter().map(Number::extent).collect::<Result<Vec<_>, _>>()?;
    let mut out = Fact::of_extents(value.dtype(), &extents)?;
    let count = shape::count(&out.dims).ok_or_else(overflow)?;
    if value.len() != 1 {
        return Err(Reason::Invalid(format!("it repeats one element, not {}", value.len())));
    }
    if count <= LIMIT {
        let filled = Tensor::new(value.dtype(), out.dims.clone(), value.bytes().repeat(count));
        out.known = Some(Known::Tensor(filled.expect("one element was repeated")));
    }
    Ok(out.into())
}

/// `start, start + step, …` before `limit`. Where the length is a multiple of the item count, each item owns a run of it.
pub(super) fn range(args: Args<'_>) -> Rule {
    let dtype = args.get(0)?.dtype;
    if args.get(1)?.dtype != dtype || args.get(2)?.dtype != dtype {
        return Err(Reason::Invalid("start, limit and step must be of one type".into()));
    }
    if dtype.is_float() {
        return float_range(args);
    }
    let scalar = |index, what| match args.numbers(index, what)?[..] {
        [number] => Ok(number),
        _ => Err(Reason::Invalid(format!("{what} is not one integer"))),
    };
    let (start, limit, step) = (scalar(0, "the start")?, scalar(1, "the limit")?, scalar(2, "the step")?);
    let step = step.fixed().ok_or_else(|| Reason::Mixes(format!("the step is {step}")))?;
    let span = limit.sub(start)?;
    let extent = match span.fixed() {
        _ if step == 0 => return Err(Reason::Invalid("the step is zero".into())),
        Some(span) => {
            let (span, step) = (i128::from(span), i128::from(step));
            let count = if (span < 0) != (step < 0) { 0 } else { (span.abs() + step.abs() - 1) / step.abs() };
            Extent::Fixed(usize::try_from(count).map_err(|_| overflow())?)
        }
        None => span.div(Number::of(step))?.extent()?,
    };
    let mut out = Fact::of_extents(dtype, &[extent])?;
    let length = out.dims[0];
    if length > LIMIT {
        return match extent {
            Extent::Fixed(_) => Err(Reason::Invalid(format!("a range of {length} elements is too long"))),
            Extent::PerItem(_) => {
                Err(Reason::Mixes(format!("a range of {length} elements per item is too long")))
            }
        };
    }
    let stride = match extent {
        Extent::Fixed(_) => 0,
        Extent::PerItem(rows) => step.checked_mul(rows as i64).ok_or_else(overflow)?,
    };
    let numbers = (0..length as i64).map(|row| {
        let offset =
            Number { constant: step.checked_mul(row).ok_or_else(overflow)?, per_count: 0, per_item: stride };
        start.add(offset)
    });
    out.set_numbers(numbers.collect::<Result<Vec<_>, _>>()?)?;
    Ok(out.into())
}

fn float_range(args: Args<'_>) -> Rule {
    let mut tensors = Vec::new();
    for index in 0..3 {
        match &args.get(index)?.known {
            Some(Known::Tensor(tensor)) => tensors.push(Some(tensor)),
            _ => return Err(Reason::DataDependent("the limits of a range are not known".into())),
        }
    }
    let mut made = crate::reference::eval(&crate::op::Op::Range, &tensors, 1)
        .map_err(|error| Reason::Invalid(error.to_string()))?;
    let made = made.pop().ok_or_else(|| Reason::Invalid("a range has an output".into()))?;
    Ok(Fact::literal(made).into())
}
