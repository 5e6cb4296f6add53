//! Einsum: items are one letter, which stands once in every input that has it and in the output.

use super::fact::{Args, Fact};
use super::{Reason, Rule};
use crate::op::Equation;

pub(super) fn einsum(equation: &Equation, args: Args<'_>) -> Rule {
    let mut facts = Vec::with_capacity(equation.inputs.len());
    for index in 0..equation.inputs.len() {
        facts.push(args.get(index)?);
    }
    let dtype = facts.first().ok_or_else(|| Reason::Invalid("it has no inputs".into()))?.dtype;
    if facts.iter().any(|fact| fact.dtype != dtype) {
        return Err(Reason::Invalid("its inputs are not of one type".into()));
    }
    let shapes: Vec<&[usize]> = facts.iter().map(|fact| &fact.dims[..]).collect();
    let lengths = equation
        .lengths(&shapes)
        .ok_or_else(|| Reason::Invalid(format!("its inputs do not fit {equation}")))?;
    let mut items = None;
    for (fact, labels) in facts.iter().zip(&equation.inputs) {
        let Some(axis) = fact.items else { continue };
        let label = labels[axis];
        if labels.iter().filter(|other| **other == label).count() > 1 {
            return Err(Reason::Mixes(format!("it takes the diagonal of the items of {fact}")));
        }
        if items.is_some_and(|other| other != label) {
            return Err(Reason::Mixes(format!("the items of {fact} meet those of another input")));
        }
        items = Some(label);
    }
    if let Some(label) = items {
        for (fact, labels) in facts.iter().zip(&equation.inputs) {
            let axis = labels.iter().position(|other| *other == label);
            let apart = match axis {
                None => true,
                Some(axis) if fact.items == Some(axis) => fact.dims[axis] == lengths[usize::from(label)],
                // One element that all items share.
                Some(axis) => fact.items.is_none() && fact.dims[axis] == 1,
            };
            if !apart {
                return Err(Reason::Mixes(format!(
                    "{fact} does not have its items where the others have them"
                )));
            }
        }
    }
    let place = |label: u8| equation.output.iter().position(|other| *other == label);
    let items = match items {
        None => None,
        Some(label) => Some(place(label).ok_or_else(|| Reason::Mixes("it sums over the items".into()))?),
    };
    let dims = equation.output.iter().map(|&label| lengths[usize::from(label)]).collect();
    Ok(Fact { dtype, dims, items, rounds: 1, known: None }.into())
}
