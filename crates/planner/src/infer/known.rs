//! The values that follow from shapes and literals alone.
//!
//! Tensors that are the same for every item are evaluated by the reference, so there is one meaning of each operator. Numbers that
//! mention items know sums, products and comparisons; where an operator only moves elements, the reference moves their *positions*
//! and the numbers follow.

use super::elementwise::broadcast;
use super::fact::{Args, Fact};
use super::{Known, Note, Number, Outcome, Reason};
use crate::op::{Binary, Op, Reduction, Scatter, Unary};
use crate::reference;
use crate::shape;
use crate::tensor::Tensor;
use tessera_core::DType;

/// Values of more elements are not evaluated here but when they are needed.
pub(super) const LIMIT: usize = 1 << 20;

/// Whether an input is only read by the rule for shapes: it needs no evaluation of its own.
fn read_by_rule(op: &Op, index: usize, note: Option<&Note>) -> bool {
    match op {
        Op::Shape { .. } | Op::ConstantOfShape { .. } | Op::Range => true,
        Op::Reshape { .. }
        | Op::Expand
        | Op::Squeeze
        | Op::Unsqueeze
        | Op::Split { .. }
        | Op::Reduce { .. } => index == 1,
        Op::Slice | Op::Resize(_) => index >= 1,
        Op::Tile | Op::Trilu { .. } | Op::CumSum { .. } | Op::TopK { .. } | Op::OneHot { .. } => index == 1,
        Op::Pad(_) => index == 1 || index == 3,
        Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherNd { .. } | Op::ScatterNd(_) => {
            index == 1 && matches!(note, Some(Note::WithinItem { .. }))
        }
        _ => false,
    }
}

/// Evaluates the outputs where every input is known; refuses operators that compute with the item count in a way that is not linear.
pub(super) fn evaluate(op: &Op, args: Args<'_>, outcome: &mut Outcome) -> Result<(), Reason> {
    let data: Vec<&Fact> = (0..args.0.len())
        .filter(|&index| !read_by_rule(op, index, outcome.note.as_ref()))
        .filter_map(|index| args.opt(index))
        .collect();
    if data.is_empty() {
        return Ok(());
    }
    let varies = data.iter().find(|fact| matches!(fact.known, Some(Known::Numbers(_))));
    let small = outcome.outputs.iter().all(|fact| fact.count() <= LIMIT);
    let known = data.iter().all(|fact| fact.known.is_some());
    match varies {
        None if !known || !small => Ok(()),
        None => evaluate_tensors(op, args, outcome),
        Some(fact) if !known || !small => Err(depends(fact)),
        Some(fact) => match op {
            Op::Binary(function) => binary(*function, args, &mut outcome.outputs[0]),
            Op::Unary(Unary::Neg) => map(args, &mut outcome.outputs[0], |number| Number::of(0).sub(number)),
            Op::Cast(DType::I32 | DType::I64) => map(args, &mut outcome.outputs[0], Ok),
            Op::Cast(DType::Bool) => {
                let truth = |number: Number| number.equal(Number::of(0)).map(|zero| zero.map(|zero| !zero));
                map(args, &mut outcome.outputs[0], |number| decided(truth(number)?, number))
            }
            Op::Reduce { kind, .. } => reduce(*kind, args, outcome),
            _ => moved(op, args, outcome, fact),
        },
    }
}

fn depends(fact: &Fact) -> Reason {
    Reason::Mixes(format!(
        "it computes with {fact}, which depends on the item count or on the item's place among the others"
    ))
}

/// A truth that must be the same for all items and counts.
fn decided(truth: Option<bool>, of: Number) -> Result<Number, Reason> {
    let truth =
        truth.ok_or_else(|| Reason::Mixes(format!("whether it holds for {of} depends on the items")))?;
    Ok(Number::of(i64::from(truth)))
}

fn evaluate_tensors(op: &Op, args: Args<'_>, outcome: &mut Outcome) -> Result<(), Reason> {
    let tensors: Vec<Option<&Tensor>> = args
        .0
        .iter()
        .map(|fact| match fact.and_then(|fact| fact.known.as_ref()) {
            Some(Known::Tensor(tensor)) => Some(tensor),
            _ => None,
        })
        .collect();
    let made = per_item(op, &tensors, outcome.note.as_ref(), &outcome.outputs)?;
    for (fact, tensor) in outcome.outputs.iter_mut().zip(made) {
        if (tensor.dtype(), tensor.dims()) != (fact.dtype, &fact.dims[..]) {
            let (dtype, dims) = (tensor.dtype(), tensor.dims());
            return Err(Reason::Invalid(format!("it was inferred to be {fact} but is {dtype}{dims:?}")));
        }
        fact.known = Some(Known::Tensor(tensor));
    }
    Ok(())
}

/// The operator on one item: inputs that speak of whole shapes are replaced by what they come to for one item.
fn per_item(
    op: &Op,
    inputs: &[Option<&Tensor>],
    note: Option<&Note>,
    outputs: &[Fact],
) -> Result<Vec<Tensor>, Reason> {
    let invalid = |why: String| Reason::Invalid(why);
    let x = inputs.first().copied().flatten();
    match (op, note, x) {
        (Op::Reshape { .. } | Op::Flatten { .. } | Op::Squeeze | Op::Unsqueeze, _, Some(x)) => {
            Ok(vec![x.reshaped(outputs[0].dims.clone()).map_err(|error| invalid(error.to_string()))?])
        }
        (Op::Expand, _, Some(x)) => Ok(vec![reference::expand_to(x, &outputs[0].dims)]),
        (Op::Slice, Some(Note::Slice { starts, steps }), Some(x)) => {
            Ok(vec![reference::take(x, starts, steps, &outputs[0].dims)])
        }
        (_, Some(Note::WithinItem { indices }), _) => {
            let inputs = [&[x, Some(indices)], inputs.get(2..).unwrap_or_default()].concat();
            reference::eval(op, &inputs, 1).map_err(|error| invalid(error.to_string()))
        }
        (Op::Resize(resize), Some(Note::Resize { axes }), Some(x)) => {
            Ok(vec![reference::resize_along(resize, axes, x).map_err(|error| invalid(error.to_string()))?])
        }
        (Op::Tile, _, Some(x)) => Ok(vec![reference::tile_to(x, &outputs[0].dims)]),
        _ => reference::eval(op, inputs, outputs.len()).map_err(|error| invalid(error.to_string())),
    }
}

/// Moves positions as the operator moves elements, then puts the numbers at their new places.
fn moved(op: &Op, args: Args<'_>, outcome: &mut Outcome, varying: &Fact) -> Result<(), Reason> {
    let moves = |index: usize| match op {
        Op::Where => index > 0,
        Op::Concat { .. } => true,
        Op::ScatterElements { how: Scatter::Replace, .. } | Op::ScatterNd(Scatter::Replace) => index != 1,
        Op::Pad(_) => index == 0 || index == 2,
        Op::Gather { .. }
        | Op::GatherElements { .. }
        | Op::Slice
        | Op::GatherNd { .. }
        | Op::Split { .. }
        | Op::Tile
        | Op::DepthToSpace { .. }
        | Op::SpaceToDepth { .. }
        | Op::Trilu { .. }
        | Op::Transpose { .. }
        | Op::Reshape { .. }
        | Op::Flatten { .. }
        | Op::Squeeze
        | Op::Unsqueeze
        | Op::Expand => index == 0,
        _ => false,
    };
    // Position 0 is a plain zero, for what a pad adds.
    let mut numbers = vec![Number::of(0)];
    let mut tensors = Vec::with_capacity(args.0.len());
    for index in 0..args.0.len() {
        let Some(fact) = args.opt(index) else {
            tensors.push(None);
            continue;
        };
        tensors.push(match &fact.known {
            Some(_) if moves(index) => {
                let own = fact.numbers().ok_or_else(|| depends(varying))?;
                let positions: Vec<i64> =
                    (numbers.len()..numbers.len() + own.len()).map(|at| at as i64).collect();
                numbers.extend(own);
                Some(Tensor::from_elements(&fact.dims, &positions))
            }
            Some(Known::Tensor(tensor)) => Some(tensor.clone()),
            Some(Known::Numbers(_)) if read_by_rule(op, index, outcome.note.as_ref()) => None,
            _ => return Err(depends(fact)),
        });
    }
    let tensors: Vec<Option<&Tensor>> = tensors.iter().map(Option::as_ref).collect();
    let moved = per_item(op, &tensors, outcome.note.as_ref(), &outcome.outputs)?;
    for (fact, positions) in outcome.outputs.iter_mut().zip(moved) {
        let positions = positions.elements::<i64>().ok_or_else(|| depends(varying))?;
        fact.set_numbers(positions.into_iter().map(|at| numbers[at as usize]).collect())?;
    }
    Ok(())
}

fn map(
    args: Args<'_>,
    out: &mut Fact,
    with: impl Fn(Number) -> Result<Number, Reason>,
) -> Result<(), Reason> {
    let x = args.get(0)?;
    let numbers = x.numbers().ok_or_else(|| depends(x))?;
    out.set_numbers(numbers.into_iter().map(with).collect::<Result<Vec<_>, _>>()?)
}

/// The numbers of an input, walked as `dims`.
fn walked(fact: &Fact, dims: &[usize]) -> Result<Vec<Number>, Reason> {
    let numbers = fact.numbers().ok_or_else(|| depends(fact))?;
    let positions: Vec<i64> = (0..numbers.len() as i64).collect();
    let positions = reference::expand_to(&Tensor::from_elements(&fact.dims, &positions), dims);
    let positions = positions.elements::<i64>().expect("positions are i64");
    Ok(positions.into_iter().map(|at| numbers[at as usize]).collect())
}

fn binary(function: Binary, args: Args<'_>, out: &mut Fact) -> Result<(), Reason> {
    let (a, b) = (args.get(0)?, args.get(1)?);
    let dims = broadcast(a.dtype, &[a, b])?.dims;
    let pairs = walked(a, &dims)?.into_iter().zip(walked(b, &dims)?);
    let numbers = pairs.map(|(a, b)| {
        let negated = |truth: Option<bool>| truth.map(|truth| !truth);
        match function {
            Binary::Add => a.add(b),
            Binary::Sub => a.sub(b),
            Binary::Mul => a.mul(b),
            Binary::Div => a.div(b),
            Binary::Mod { fmod: false } => a.modulo(b),
            Binary::Min | Binary::Max => match a.less(b)? {
                Some(less) => Ok(if less == (function == Binary::Min) { a } else { b }),
                None => Err(Reason::Mixes(format!("whether {a} is less than {b} depends on the items"))),
            },
            Binary::Equal => decided(a.equal(b)?, a),
            Binary::Less => decided(a.less(b)?, a),
            Binary::GreaterOrEqual => decided(negated(a.less(b)?), a),
            Binary::Greater => decided(b.less(a)?, a),
            Binary::LessOrEqual => decided(negated(b.less(a)?), a),
            Binary::Pow
            | Binary::PRelu
            | Binary::Mod { fmod: true }
            | Binary::And
            | Binary::Or
            | Binary::Xor => {
                Err(Reason::Mixes(format!("{} of {a} and {b} depends on the items", function.name())))
            }
        }
    });
    out.set_numbers(numbers.collect::<Result<Vec<_>, _>>()?)
}

fn reduce(kind: Reduction, args: Args<'_>, outcome: &mut Outcome) -> Result<(), Reason> {
    let x = args.get(0)?;
    let Some(Note::Reduce { axes }) = &outcome.note else { return Err(depends(x)) };
    let numbers = x.numbers().ok_or_else(|| depends(x))?;
    let start = match kind {
        Reduction::Sum => Number::of(0),
        Reduction::Prod => Number::of(1),
        _ => return Err(depends(x)),
    };
    let out = &mut outcome.outputs[0];
    let mut sums = vec![start; out.count()];
    // Where an element of x goes: its place among the axes that stay.
    let mut kept = x.dims.clone();
    axes.iter().for_each(|&axis| kept[axis] = 1);
    let places: Vec<i64> = (0..sums.len() as i64).collect();
    let places = reference::expand_to(&Tensor::from_elements(&kept, &places), &x.dims);
    for (number, place) in numbers.into_iter().zip(places.elements::<i64>().expect("places are i64")) {
        let sum = &mut sums[place as usize];
        *sum = if kind == Reduction::Sum { sum.add(number)? } else { sum.mul(number)? };
    }
    debug_assert_eq!(shape::count(&kept), Some(out.count()));
    out.set_numbers(sums)
}
