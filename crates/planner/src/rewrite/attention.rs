//! `softmax(q·kᵀ·scale + mask)·v` is one step.
//!
//! Exporters write the scale after the product or, as torch does for its fused attention, its square root before it on
//! both sides. The transposes and splits that feed q, k and v are walks (see `lower::view`), so they need no rule.

use super::binary;
use crate::graph::ValueId;
use crate::net::{Kind, Net, Node};
use crate::op::{Binary, Op};
use tessera_core::DType;

pub(super) fn apply(net: &mut Net, at: usize) -> bool {
    let Some((scale, inputs)) = matched(net, at) else { return false };
    let node = &mut net.nodes[at];
    *node = Node { kind: Kind::Attention { scale }, inputs, ..node.clone() };
    true
}

fn matched(net: &Net, at: usize) -> Option<(f32, Vec<Option<ValueId>>)> {
    let (weights, v) = product(net, at)?;
    let softmax = &net.nodes[net.sole_maker(weights)?];
    let Kind::Op(Op::Softmax { axis, log: false }) = softmax.kind else { return None };
    let mut scores = softmax.inputs[0]?;
    let rank = net.dims(scores).len();
    if axis != -1 && axis != rank as i64 - 1 {
        return None;
    }
    let shape = net.dims(scores).to_vec();

    let mut mask = None;
    if let Some([a, b]) = net.sole_maker(scores).and_then(|at| binary(net, at, Binary::Add)) {
        // The scores are the side that is a product; a mask may be computed by anything.
        (scores, mask) = if is_scores(net, a) { (a, Some(b)) } else { (b, Some(a)) };
    }
    let mut scale = 1.0;
    scores = unscaled(net, scores, &mut scale);
    let (q, k) = product(net, net.sole_maker(scores)?)?;
    if net.dims(scores) != shape {
        return None; // the mask had more dimensions than the scores
    }
    let [q, k] = [unscaled(net, q, &mut scale), unscaled(net, k, &mut scale)];
    let float = |id: ValueId| net.get(id).dtype == DType::F32;
    let matrices = [q, k, v].iter().all(|&id| float(id) && net.dims(id).len() >= 2);
    (matrices && mask.is_none_or(float)).then(|| (scale, vec![Some(q), Some(k), Some(v), mask]))
}

/// The two operands of a `MatMul`.
fn product(net: &Net, at: usize) -> Option<(ValueId, ValueId)> {
    match (&net.nodes[at].kind, net.nodes[at].inputs.as_slice()) {
        (Kind::Op(Op::MatMul), &[Some(a), Some(b)]) => Some((a, b)),
        _ => None,
    }
}

fn is_scores(net: &Net, value: ValueId) -> bool {
    let mut ignored = 1.0;
    let value = unscaled(net, value, &mut ignored);
    net.sole_maker(value).is_some_and(|at| product(net, at).is_some())
}

/// Takes a factor that is a known scalar off a value that nobody else reads.
fn unscaled(net: &Net, value: ValueId, scale: &mut f32) -> ValueId {
    let Some(at) = net.sole_maker(value) else { return value };
    let found = match (binary(net, at, Binary::Mul), binary(net, at, Binary::Div)) {
        (Some(inputs), _) => net.scalar_and_other(&inputs),
        (_, Some([x, by])) => net.scalar(by).map(|by| (1.0 / by, x)),
        _ => None,
    };
    match found {
        // A scalar of higher rank would change the value's rank too.
        Some((factor, inner)) if net.dims(inner) == net.dims(value) => {
            *scale *= factor;
            inner
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_and_mask_between_the_products_are_absorbed() {
        let mut net = Net::default();
        let q = net.input(&[1, 2, 5, 4]);
        let k = net.input(&[1, 2, 4, 6]);
        let v = net.input(&[1, 2, 6, 3]);
        let mask = net.input(&[1, 1, 1, 6]);
        let two = net.float(2.0);
        let scores = net.op(Op::MatMul, &[q, k], &[1, 2, 5, 6]);
        let scaled = net.op(Op::Binary(Binary::Div), &[scores, two], &[1, 2, 5, 6]);
        let masked = net.op(Op::Binary(Binary::Add), &[mask, scaled], &[1, 2, 5, 6]);
        let weights = net.op(Op::Softmax { axis: -1, log: false }, &[masked], &[1, 2, 5, 6]);
        let mixed = net.op(Op::MatMul, &[weights, v], &[1, 2, 5, 3]);
        net.output(mixed);
        assert!(apply(&mut net, 4));
        net.sweep();
        assert_eq!(net.to_string(), "%9 f32[1, 2, 5, 3] = Attention·0.5(%0, %1, %2, %3)\n→ %9");
    }

    #[test]
    fn torchs_scaling_of_both_sides_is_absorbed() {
        let mut net = Net::default();
        let q = net.input(&[2, 5, 4]);
        let k = net.input(&[2, 4, 6]);
        let v = net.input(&[2, 6, 3]);
        let half = net.float(0.5);
        let q_scaled = net.op(Op::Binary(Binary::Mul), &[q, half], &[2, 5, 4]);
        let k_scaled = net.op(Op::Binary(Binary::Mul), &[k, half], &[2, 4, 6]);
        let scores = net.op(Op::MatMul, &[q_scaled, k_scaled], &[2, 5, 6]);
        let weights = net.op(Op::Softmax { axis: 2, log: false }, &[scores], &[2, 5, 6]);
        let mixed = net.op(Op::MatMul, &[weights, v], &[2, 5, 3]);
        net.output(mixed);
        assert!(apply(&mut net, 4));
        net.sweep();
        assert_eq!(net.to_string(), "%8 f32[2, 5, 3] = Attention·0.25(%0, %1, %2, -)\n→ %8");
    }

    #[test]
    fn weights_that_somebody_else_reads_stay() {
        let mut net = Net::default();
        let q = net.input(&[2, 5, 4]);
        let k = net.input(&[2, 4, 6]);
        let v = net.input(&[2, 6, 3]);
        let scores = net.op(Op::MatMul, &[q, k], &[2, 5, 6]);
        let weights = net.op(Op::Softmax { axis: -1, log: false }, &[scores], &[2, 5, 6]);
        let mixed = net.op(Op::MatMul, &[weights, v], &[2, 5, 3]);
        net.outputs.push(weights);
        net.output(mixed);
        assert!(!apply(&mut net, 2));
    }
}
