//! A function of one element after a product or convolution ends its epilogue.

use crate::net::{Kind, Net, Node, activation_text};
use crate::op::{Op, Unary};
use crate::plan::Activation;

pub(super) fn apply(net: &mut Net, at: usize) -> bool {
    let Some(activation) = activation(net, at) else { return false };
    let Some(before) = net.nodes[at].inputs[0].and_then(|x| net.sole_maker(x)) else { return false };
    let Node { kind, inputs, name, .. } = net.nodes[before].clone();
    let kind = match kind {
        Kind::Linear(Activation::Identity) => Kind::Linear(activation),
        Kind::Conv(window, groups, Activation::Identity) => Kind::Conv(window, groups, activation),
        _ => return false,
    };
    let last = &mut net.nodes[at];
    (last.kind, last.inputs, last.name) = (kind, inputs, name + &activation_text(activation));
    true
}

/// The activation that a node of the graph is.
fn activation(net: &Net, at: usize) -> Option<Activation> {
    let node = &net.nodes[at];
    match node.kind {
        Kind::Op(Op::Unary(Unary::Not)) => None,
        Kind::Op(Op::Unary(Unary::Relu)) => Some(Activation::Clip { low: 0.0, high: f32::INFINITY }),
        Kind::Op(Op::Unary(function)) => Some(Activation::Unary(function)),
        Kind::Op(Op::Clip) => {
            let bound = |index: usize, without: f32| match node.inputs.get(index).copied().flatten() {
                None => Some(without),
                Some(id) => net.scalar(id),
            };
            let (low, high) = (bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?);
            Some(Activation::Clip { low, high })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::Role;
    use crate::net::build::GEMM;
    use crate::op::{Padding, Window};

    #[test]
    fn relu6_ends_a_convolution() {
        let mut net = Net::default();
        let window = Window {
            kernel: vec![3, 3],
            strides: vec![1, 1],
            dilations: vec![1, 1],
            padding: Padding::Explicit(vec![(1, 1), (1, 1)]),
            ceil_mode: false,
        };
        let x = net.input(&[1, 2, 5, 5]);
        let w = net.weight(0, Role::Conv { groups: 1 }, &[4, 2, 3, 3]);
        let [low, high] = [0.0, 6.0].map(|x| net.float(x));
        let conv = net.op(Op::Conv(window, 1), &[x, w], &[1, 4, 5, 5]);
        let clip = net.op(Op::Clip, &[conv, low, high], &[1, 4, 5, 5]);
        net.output(clip);
        assert!(apply(&mut net, 1));
        net.sweep();
        assert_eq!(net.to_string(), "%5 f32[1, 4, 5, 5] = Conv[3, 3]×1+clip(0, 6)(%0, w0, -, -)\n→ %5");
    }

    #[test]
    fn a_second_activation_stays_outside() {
        let mut net = Net::default();
        let x = net.input(&[1, 4]);
        let w = net.weight(0, Role::Matrix, &[4, 4]);
        let product = net.op(GEMM, &[x, w], &[1, 4]);
        let relu = net.op(Op::Unary(Unary::Relu), &[product], &[1, 4]);
        let tanh = net.op(Op::Unary(Unary::Tanh), &[relu], &[1, 4]);
        net.output(tanh);
        assert_eq!(crate::rewrite::rewrite(&mut net), ["activation", "chain"]);
        assert_eq!(
            net.to_string(),
            "%3 f32[1, 4] = Linear+relu(%0, w0, -, -)\n%4 f32[1, 4] = Chain[Load(0), Unary(Tanh, 0)](%3)\n→ %4"
        );
    }
}
