//! Operators that choose or change elements by number or by value. Along the item axis every item may only meet its own elements.

use super::elementwise::like;
use super::fact::{Args, Fact, shared};
use super::moves::index_type;
use super::normal::no_axis;
use super::number::Extent;
use super::{Known, Note, Number, Outcome, Reason, Rule};
use crate::shape;
use crate::tensor::Tensor;
use tessera_core::DType;

/// An axis whose elements meet, so that it cannot be the one of items.
fn line(axis: i64, x: &Fact) -> Result<usize, Reason> {
    let at = shape::axis(axis, x.rank()).ok_or_else(|| no_axis(axis, x))?;
    match x.items {
        Some(items) if items == at => Err(Reason::Mixes(format!("it compares or adds the items of {x}"))),
        _ => Ok(at),
    }
}

/// What has an order: everything but truths.
fn ordered(x: &Fact) -> Result<(), Reason> {
    match x.dtype {
        DType::Bool => Err(Reason::Invalid("it is not defined on bool".into())),
        _ => Ok(()),
    }
}

pub(super) fn arg(axis: i64, keep_dims: bool, args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    ordered(x)?;
    let axis = line(axis, x)?;
    if x.dims[axis] == 0 {
        return Err(Reason::Invalid(format!("axis {axis} of {x} has no elements to choose from")));
    }
    let mut out = Fact { dtype: DType::I64, ..like(x) };
    if keep_dims {
        out.dims[axis] = 1;
    } else {
        out.dims.remove(axis);
        out.items = out.items.map(|items| if items > axis { items - 1 } else { items });
    }
    Ok(out.into())
}

pub(super) fn top_k(axis: i64, args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    ordered(x)?;
    let axis = line(axis, x)?;
    let count = match args.integers(1, "the number k")?[..] {
        [k] => usize::try_from(k).ok().filter(|&k| k <= x.dims[axis]),
        _ => None,
    };
    let count =
        count.ok_or_else(|| Reason::Invalid(format!("k is no number of elements of axis {axis} of {x}")))?;
    let mut values = like(x);
    values.dims[axis] = count;
    let indices = Fact { dtype: DType::I64, ..values.clone() };
    Ok(Outcome { outputs: vec![values, indices], note: None })
}

pub(super) fn cum_sum(args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    ordered(x)?;
    let [axis] = args.integers(1, "the axis")?[..] else {
        return Err(Reason::Invalid("it sums along one axis".into()));
    };
    line(axis, x)?;
    Ok(like(x).into())
}

pub(super) fn one_hot(axis: i64, args: Args<'_>) -> Rule {
    let (indices, depth, values) = (args.get(0)?, args.get(1)?, args.get(2)?);
    ordered(indices)?;
    let depth = match &depth.known {
        Some(Known::Tensor(depth)) if depth.len() == 1 => whole(depth),
        Some(Known::Numbers(_)) => return Err(Reason::Mixes("its depth depends on the items".into())),
        Some(Known::Tensor(_)) => None,
        None => return Err(Reason::DataDependent("its depth is not known".into())),
    };
    let depth = depth.ok_or_else(|| Reason::Invalid("its depth is no number of elements".into()))?;
    shared(values, "the values")?;
    if values.count() != 2 {
        return Err(Reason::Invalid(format!("its values {values} are not two")));
    }
    let at = shape::axis(axis, indices.rank() + 1).ok_or_else(|| no_axis(axis, indices))?;
    let mut out = Fact { dtype: values.dtype, ..like(indices) };
    out.dims.insert(at, depth);
    out.items = out.items.map(|items| if items >= at { items + 1 } else { items });
    Ok(out.into())
}

/// A length that may be written in any type of number.
fn whole(tensor: &Tensor) -> Option<usize> {
    let wide = crate::reference::eval(&crate::op::Op::Cast(DType::I64), &[Some(tensor)], 1).ok()?;
    usize::try_from(*wide.first()?.elements::<i64>()?.first()?).ok()
}

pub(super) fn non_zero(args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    match &x.known {
        Some(Known::Tensor(tensor)) => {
            let made = crate::reference::eval(&crate::op::Op::NonZero, &[Some(tensor)], 1);
            let made = made.map_err(|error| Reason::Invalid(error.to_string()))?.pop();
            Ok(Fact::literal(made.ok_or_else(|| Reason::Invalid("it has an output".into()))?).into())
        }
        Some(Known::Numbers(_)) => {
            Err(Reason::Mixes(format!("what is not zero of {x} depends on the items")))
        }
        None => Err(Reason::DataDependent("how many elements are not zero is not known".into())),
    }
}

/// Where the indices of `depth` axes are, and what is left of a value behind them.
struct Points<'a> {
    indices: &'a Fact,
    depth: usize,
}

impl<'a> Points<'a> {
    fn of(indices: &'a Fact, most: usize) -> Result<Points<'a>, Reason> {
        index_type(indices)?;
        let depth = indices.dims.last().copied().filter(|_| indices.items != indices.rank().checked_sub(1));
        match depth {
            Some(depth) if (1..=most).contains(&depth) => Ok(Points { indices, depth }),
            _ => Err(Reason::Invalid(format!("the last axis of {indices} does not name 1 to {most} axes"))),
        }
    }

    /// Extents of the points.
    fn extents(&self) -> Vec<Extent> {
        (0..self.indices.rank() - 1).map(|axis| self.indices.extent(axis)).collect()
    }

    /// Indices that stay inside their item of `x`, whose items are on the named axis number `component`: constant indices of one item.
    fn within(&self, x: &Fact, first: usize, component: usize) -> Result<Tensor, Reason> {
        let leaves = || {
            Reason::Mixes(format!("its indices {} may lead from one item of {x} to another", self.indices))
        };
        let numbers = self.indices.numbers().filter(|_| self.indices.items.is_some()).ok_or_else(leaves)?;
        let rows = x.dims[first + component] as i64;
        let one = |(at, number): (usize, Number)| match at % self.depth == component {
            true => {
                let own =
                    number.per_count == 0 && number.per_item == rows && (0..rows).contains(&number.constant);
                own.then_some(number.constant).ok_or_else(leaves)
            }
            false => number.fixed().ok_or_else(leaves),
        };
        let numbers = numbers.into_iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::from_elements(&self.indices.dims, &numbers))
    }
}

pub(super) fn gather_nd(batch_dims: usize, args: Args<'_>) -> Rule {
    let (x, indices) = (args.get(0)?, args.get(1)?);
    if batch_dims >= x.rank().min(indices.rank()) {
        return Err(Reason::Invalid(format!("{batch_dims} shared axes leave nothing of {x} and {indices}")));
    }
    let points = Points::of(indices, x.rank() - batch_dims)?;
    for axis in 0..batch_dims {
        match (x.extent(axis), indices.extent(axis)) {
            (a, b) if a == b => {}
            (Extent::Fixed(_), Extent::Fixed(_)) => {
                return Err(Reason::Invalid(format!("{x} and {indices} do not share axis {axis}")));
            }
            _ => {
                return Err(Reason::Mixes(format!("{x} and {indices} do not have their items side by side")));
            }
        }
    }
    let named = batch_dims..batch_dims + points.depth;
    let mut note = None;
    let mut row: Vec<Extent> = (named.end..x.rank()).map(|axis| x.extent(axis)).collect();
    if let Some(items) = x.items.filter(|items| named.contains(items)) {
        let indices = points.within(x, batch_dims, items - batch_dims)?;
        note = Some(Note::WithinItem { indices });
    }
    let mut extents = points.extents();
    extents.append(&mut row);
    Ok(Outcome { outputs: vec![Fact::of_extents(x.dtype, &extents)?], note })
}

fn same_type(x: &Fact, updates: &Fact) -> Result<(), Reason> {
    match x.dtype == updates.dtype {
        true => Ok(()),
        false => Err(Reason::Invalid(format!("updates {updates} are not of the type of {x}"))),
    }
}

pub(super) fn scatter_elements(axis: i64, args: Args<'_>) -> Rule {
    let (x, indices, updates) = (args.get(0)?, args.get(1)?, args.get(2)?);
    index_type(indices)?;
    same_type(x, updates)?;
    let axis = shape::axis(axis, x.rank()).ok_or_else(|| no_axis(axis, x))?;
    let fits = |at: usize| at == axis || indices.dims[at] <= x.dims[at];
    if indices.rank() != x.rank() || indices.dims != updates.dims || !(0..x.rank()).all(fits) {
        return Err(Reason::Invalid(format!(
            "indices {indices} and updates {updates} do not fit {x} but for axis {axis}"
        )));
    }
    let apart = match (x.items, indices.items, updates.items) {
        (None, None, None) => true,
        // Off the axis that is scattered along, every update meets the row of x of its own number.
        (Some(at), Some(of_indices), Some(of_updates)) => {
            at != axis && (at, at) == (of_indices, of_updates) && x.dims[at] == indices.dims[at]
        }
        _ => false,
    };
    if !apart {
        return Err(Reason::Mixes(
            "elements, indices and updates do not have their items side by side".into(),
        ));
    }
    Ok(like(x).into())
}

pub(super) fn scatter_nd(args: Args<'_>) -> Rule {
    let (x, indices, updates) = (args.get(0)?, args.get(1)?, args.get(2)?);
    same_type(x, updates)?;
    let points = Points::of(indices, x.rank())?;
    let mut extents = points.extents();
    extents.extend((points.depth..x.rank()).map(|axis| x.extent(axis)));
    let plain = |extents: &[Extent]| -> Vec<usize> {
        let length = |extent: &Extent| match *extent {
            Extent::Fixed(length) | Extent::PerItem(length) => length,
        };
        extents.iter().map(length).collect()
    };
    let mut note = None;
    match x.items {
        None if indices.items.is_some() => {
            return Err(Reason::Mixes(format!("every item would change {x}, which all share")));
        }
        None => {}
        Some(items) if items < points.depth => {
            note = Some(Note::WithinItem { indices: points.within(x, 0, items)? });
        }
        Some(_) if indices.items.is_some() => {
            return Err(Reason::Mixes(format!("{x} and {indices} do not have their items side by side")));
        }
        Some(_) => {}
    }
    if updates.dims != plain(&extents) {
        return Err(Reason::Invalid(format!("updates {updates} do not fit {x} at {indices}")));
    }
    if updates.extents() != extents {
        return Err(Reason::Mixes(format!("updates {updates} do not have their items beside those of {x}")));
    }
    Ok(Outcome { outputs: vec![like(x)], note })
}
