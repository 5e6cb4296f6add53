//! Element by element: shapes broadcast, and items stay apart where every input has them on the same axis or shares them.

use super::fact::{Args, Fact, shared};
use super::{Reason, Rule};
use crate::op::{Binary, Unary};
use tessera_core::DType;

/// What `facts` broadcast to, of this type: the dimensions of one item, and where and how the items lie.
pub(super) fn broadcast(dtype: DType, facts: &[&Fact]) -> Result<Fact, Reason> {
    let rank = facts.iter().map(|fact| fact.rank()).max().unwrap_or(0);
    let mut dims = vec![1; rank];
    let (mut items, mut rounds) = (None, 1);
    for fact in facts {
        let Some(axis) = fact.items else { continue };
        let (to, rows) = (axis + rank - fact.rank(), fact.dims[axis]);
        match items {
            Some(other) if other != to => {
                return Err(Reason::Mixes("items would meet on two different axes".into()));
            }
            Some(_) if dims[to] != rows => {
                return Err(Reason::Mixes(format!("{} and {rows} rows per item do not broadcast", dims[to])));
            }
            Some(_) if rounds != fact.rounds => {
                return Err(Reason::Mixes(format!(
                    "items come round {rounds} times on an axis of one input and {} times on that of another",
                    fact.rounds
                )));
            }
            _ => (items, dims[to], rounds) = (Some(to), rows, fact.rounds),
        }
    }
    for fact in facts {
        for (axis, &dim) in fact.dims.iter().enumerate() {
            let to = axis + rank - fact.rank();
            match (items == Some(to), dims[to], dim) {
                (true, _, _) if fact.items == Some(axis) => {}
                // One shared row stands for any number of them; several would fix the number of items.
                (true, _, 1) => {}
                (true, _, _) => {
                    return Err(Reason::Mixes(format!(
                        "{fact} has a fixed dimension where others have items"
                    )));
                }
                (false, have, dim) if have == dim || dim == 1 => {}
                (false, 1, dim) => dims[to] = dim,
                (false, have, dim) => {
                    return Err(Reason::Invalid(format!("dimensions {have} and {dim} do not broadcast")));
                }
            }
        }
    }
    Ok(Fact { dtype, dims, items, rounds, known: None })
}

/// An input with its elements unknown: what most operators make of the shape they are given.
pub(super) fn like(fact: &Fact) -> Fact {
    Fact { known: None, ..fact.clone() }
}

pub(super) fn unary(function: Unary, args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    let fits = match function {
        Unary::Not => x.dtype == DType::Bool,
        Unary::Abs | Unary::Neg | Unary::Sign | Unary::Relu => x.dtype != DType::Bool,
        _ => x.dtype.is_float(),
    };
    if !fits {
        return Err(Reason::Invalid(format!("it is not defined on {}", x.dtype)));
    }
    Ok(like(x).into())
}

pub(super) fn binary(function: Binary, args: Args<'_>) -> Rule {
    let (a, b) = (args.get(0)?, args.get(1)?);
    if a.dtype != b.dtype && function != Binary::Pow {
        return Err(Reason::Invalid(format!(
            "its inputs are {} and {}, which must be one type",
            a.dtype, b.dtype
        )));
    }
    let logical = matches!(function, Binary::And | Binary::Or | Binary::Xor);
    let booleans = a.dtype == DType::Bool || b.dtype == DType::Bool;
    if logical != booleans && function != Binary::Equal {
        return Err(Reason::Invalid(format!("it is not defined on {}", a.dtype)));
    }
    let dtype = if function.is_comparison() { DType::Bool } else { a.dtype };
    Ok(broadcast(dtype, &[a, b])?.into())
}

pub(super) fn choose(args: Args<'_>) -> Rule {
    let (condition, a, b) = (args.get(0)?, args.get(1)?, args.get(2)?);
    if condition.dtype != DType::Bool || a.dtype != b.dtype {
        return Err(Reason::Invalid("it takes a boolean and two values of one type".into()));
    }
    Ok(broadcast(a.dtype, &[condition, a, b])?.into())
}

pub(super) fn clip(args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    for bound in [args.opt(1), args.opt(2)].into_iter().flatten() {
        shared(bound, "the limit")?;
        if bound.count() != 1 || bound.dtype != x.dtype {
            return Err(Reason::Invalid(format!("its limit {bound} is not one {}", x.dtype)));
        }
    }
    if x.dtype == DType::Bool {
        return Err(Reason::Invalid("it is not defined on bool".into()));
    }
    Ok(like(x).into())
}

pub(super) fn cast(to: DType, args: Args<'_>) -> Rule {
    Ok(Fact { dtype: to, ..like(args.get(0)?) }.into())
}
