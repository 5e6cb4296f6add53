//! Normalisations and reductions: items stay apart unless their axis is combined.

use super::elementwise::like;
use super::fact::{Args, Fact, shared};
use super::{Note, Outcome, Reason, Rule};
use crate::shape;
use tessera_core::DType;

fn float(x: &Fact) -> Result<(), Reason> {
    match x.dtype.is_float() {
        true => Ok(()),
        false => Err(Reason::Invalid(format!("it is not defined on {}", x.dtype))),
    }
}

pub(super) fn no_axis(axis: i64, x: &Fact) -> Reason {
    Reason::Invalid(format!("{x} has no axis {axis}"))
}

pub(super) fn batch_norm(args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    channels(x)?;
    for (index, what) in [(1, "the scale"), (2, "the bias"), (3, "the mean"), (4, "the variance")] {
        let fact = args.shared(index, what)?;
        if fact.dims != [x.dims[1]] || !fact.dtype.is_float() {
            return Err(Reason::Invalid(format!("{what} {fact} is not one of {} channels", x.dims[1])));
        }
    }
    Ok(like(x).into())
}

/// Scale and bias have one element per channel, or one per group.
pub(super) fn group_norm(groups: Option<usize>, args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    channels(x)?;
    if x.items.is_some_and(|axis| axis != 0) {
        return Err(Reason::Mixes("it normalises over the items".into()));
    }
    let groups = groups.unwrap_or(x.dims[1]);
    if groups == 0 || !x.dims[1].is_multiple_of(groups) {
        return Err(Reason::Invalid(format!("{} channels do not make {groups} groups", x.dims[1])));
    }
    for (index, what) in [(1, "the scale"), (2, "the bias")] {
        let fact = args.shared(index, what)?;
        if (fact.dims != [x.dims[1]] && fact.dims != [groups]) || fact.dtype != x.dtype {
            return Err(Reason::Invalid(format!(
                "{what} {fact} is not one of {} channels or {groups} groups",
                x.dims[1]
            )));
        }
    }
    Ok(like(x).into())
}

/// Sums over neighbouring channels.
pub(super) fn lrn(args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    channels(x)?;
    Ok(like(x).into())
}

/// That `x` is floats with channels on its second axis, which are not items.
fn channels(x: &Fact) -> Result<(), Reason> {
    float(x)?;
    if x.rank() < 2 {
        return Err(Reason::Invalid(format!("{x} has no channels")));
    }
    if x.items == Some(1) {
        return Err(Reason::Mixes("items are on the channel axis".into()));
    }
    Ok(())
}

pub(super) fn layer_norm(axis: i64, args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    float(x)?;
    let first = shape::axis(axis, x.rank()).ok_or_else(|| no_axis(axis, x))?;
    if x.items.is_some_and(|items| items >= first) {
        return Err(Reason::Mixes("it normalises over the items".into()));
    }
    let scale = args.get(1)?;
    for (fact, what) in [(Some(scale), "the scale"), (args.opt(2), "the bias")] {
        let Some(fact) = fact else { continue };
        shared(fact, what)?;
        let fits = shape::broadcast(&fact.dims, &x.dims[first..]).is_some_and(|dims| dims == x.dims[first..]);
        if !fits || fact.dtype != x.dtype {
            return Err(Reason::Invalid(format!("{what} {fact} does not fit the axes from {first} on")));
        }
    }
    Ok(like(x).into())
}

pub(super) fn softmax(axis: i64, args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    float(x)?;
    let axis = shape::axis(axis, x.rank()).ok_or_else(|| no_axis(axis, x))?;
    if x.items == Some(axis) {
        return Err(Reason::Mixes("it normalises over the items".into()));
    }
    Ok(like(x).into())
}

pub(super) fn reduce(keep_dims: bool, noop: bool, args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    // The largest and least of booleans are reductions of integers since folding.
    if x.dtype == DType::Bool {
        return Err(Reason::Invalid("it is not defined on bool".into()));
    }
    let wanted = match args.opt(1) {
        Some(_) => args.integers(1, "the axes")?,
        None => vec![],
    };
    let axes = match (wanted.is_empty(), noop) {
        (true, true) => vec![],
        (true, false) => (0..x.rank()).collect(),
        _ => shape::axes(&wanted, x.rank())
            .ok_or_else(|| Reason::Invalid(format!("{x} has no axes {wanted:?}")))?,
    };
    if x.items.is_some_and(|items| axes.contains(&items)) {
        return Err(Reason::Mixes("it combines the items".into()));
    }
    let mut out = like(x);
    for &axis in axes.iter().rev() {
        match keep_dims {
            true => out.dims[axis] = 1,
            false => {
                out.dims.remove(axis);
                out.items = out.items.map(|items| if items > axis { items - 1 } else { items });
            }
        }
    }
    Ok(Outcome { outputs: vec![out], note: Some(Note::Reduce { axes }) })
}
