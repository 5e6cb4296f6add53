//! `x·hardsigmoid(x)` with a slope of 1/6, and `x·clip(x + 3, 0, 6) / 6`, are HardSwish.

use super::{binary, close, gated};
use crate::graph::ValueId;
use crate::net::{Kind, Net};
use crate::op::{Binary, Op, Unary};

pub(super) fn apply(net: &mut Net, at: usize) -> bool {
    let Some(x) = through_hard_sigmoid(net, at).or_else(|| through_clip(net, at)) else { return false };
    net.nodes[at].kind = Kind::Op(Op::Unary(Unary::HardSwish));
    net.nodes[at].inputs = vec![Some(x)];
    true
}

fn through_hard_sigmoid(net: &Net, at: usize) -> Option<ValueId> {
    let factors = binary(net, at, Binary::Mul)?;
    let is_gate = |gate, x| match net.made_by(gate) {
        Some((Op::Unary(Unary::HardSigmoid { alpha, beta }), inputs)) => {
            inputs[0] == x && close(*alpha, 1.0 / 6.0) && close(*beta, 0.5)
        }
        _ => false,
    };
    gated(factors, is_gate)
}

fn through_clip(net: &Net, at: usize) -> Option<ValueId> {
    let (product, sixth) = match (binary(net, at, Binary::Div), binary(net, at, Binary::Mul)) {
        (Some([product, six]), _) => (product, 1.0 / net.scalar(six)?),
        (_, Some(inputs)) => net.scalar_and_other(&inputs).map(|(scalar, other)| (other, scalar))?,
        _ => return None,
    };
    if !close(sixth, 1.0 / 6.0) {
        return None;
    }
    let factors = binary(net, net.maker(product)?, Binary::Mul)?;
    let is_gate = |gate, x| {
        let Some((Op::Clip, clip)) = net.made_by(gate) else { return false };
        let limits = clip.get(1..).unwrap_or_default();
        let [Some(low), Some(high)] = [0, 1].map(|at| limits.get(at).and_then(|&id| net.scalar(id))) else {
            return false;
        };
        let Some((Op::Binary(Binary::Add), sum)) = net.made_by(clip[0]) else { return false };
        low == 0.0 && high == 6.0 && net.scalar_and_other(&sum) == Some((3.0, x))
    };
    gated(factors, is_gate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torchs_old_spelling_is_hard_swish() {
        let mut net = Net::default();
        let x = net.input(&[4]);
        let [three, zero, six] = [3.0, 0.0, 6.0].map(|x| net.float(x));
        let sum = net.op(Op::Binary(Binary::Add), &[x, three], &[4]);
        let clip = net.op(Op::Clip, &[sum, zero, six], &[4]);
        let product = net.op(Op::Binary(Binary::Mul), &[x, clip], &[4]);
        let last = net.op(Op::Binary(Binary::Div), &[product, six], &[4]);
        net.output(last);
        assert!(apply(&mut net, 3));
        net.sweep();
        assert_eq!(net.to_string(), "%7 f32[4] = Unary(HardSwish)(%0)\n→ %7");
    }

    #[test]
    fn another_slope_is_left_alone() {
        let mut net = Net::default();
        let x = net.input(&[4]);
        let gate = net.op(Op::Unary(Unary::HardSigmoid { alpha: 0.2, beta: 0.5 }), &[x], &[4]);
        let product = net.op(Op::Binary(Binary::Mul), &[x, gate], &[4]);
        net.output(product);
        assert!(!apply(&mut net, 1));
    }
}
