//! `x·sigmoid(x)` is SiLU.

use super::{binary, gated};
use crate::net::{Kind, Net};
use crate::op::{Binary, Op, Unary};

pub(super) fn apply(net: &mut Net, at: usize) -> bool {
    let Some(factors) = binary(net, at, Binary::Mul) else { return false };
    let is_gate = |gate, x| match net.made_by(gate) {
        Some((Op::Unary(Unary::Sigmoid), inputs)) => inputs[0] == x,
        _ => false,
    };
    let Some(x) = gated(factors, is_gate) else { return false };
    net.nodes[at].kind = Kind::Op(Op::Unary(Unary::Silu));
    net.nodes[at].inputs = vec![Some(x)];
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_times_its_sigmoid_is_silu() {
        let mut net = Net::default();
        let x = net.input(&[4]);
        let sigmoid = net.op(Op::Unary(Unary::Sigmoid), &[x], &[4]);
        let product = net.op(Op::Binary(Binary::Mul), &[sigmoid, x], &[4]);
        net.output(product);
        assert_eq!(net.to_string(), "%1 f32[4] = Unary(Sigmoid)(%0)\n%2 f32[4] = Binary(Mul)(%1, %0)\n→ %2");
        assert!(apply(&mut net, 1));
        net.sweep();
        assert_eq!(net.to_string(), "%2 f32[4] = Unary(Silu)(%0)\n→ %2");
    }
}
