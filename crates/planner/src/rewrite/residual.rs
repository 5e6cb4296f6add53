//! A value of the same shape added to a product or convolution is its residual.
//!
//! The fused node stands where the addition stood, so the other operand is there whoever made it. Where both sides could take the other one in,
//! the later one does: it is still in the cache.

use super::binary;
use crate::net::{Kind, Net, Node};
use crate::op::Binary;
use crate::plan::Activation;
use tessera_core::DType;

pub(super) fn apply(net: &mut Net, at: usize) -> bool {
    let Some([a, b]) = binary(net, at, Binary::Add) else { return false };
    let Some(out) = net.nodes[at].outputs[0] else { return false };
    let takes = |sum, residual| {
        let before = net.sole_maker(sum)?;
        let node = &net.nodes[before];
        let open =
            matches!(node.kind, Kind::Linear(Activation::Identity) | Kind::Conv(_, _, Activation::Identity));
        let alike = net.dims(sum) == net.dims(out)
            && net.dims(residual) == net.dims(out)
            && net.get(residual).dtype == DType::F32;
        (open && alike && node.inputs[3].is_none()).then_some((before, residual))
    };
    let Some((before, residual)) = takes(a, b).max(takes(b, a)) else { return false };
    let Node { kind, mut inputs, name, .. } = net.nodes[before].clone();
    inputs[3] = Some(residual);
    let last = &mut net.nodes[at];
    (last.kind, last.inputs, last.name) = (kind, inputs, format!("{name}+residual"));
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::Role;
    use crate::net::build::GEMM;
    use crate::op::Op;

    #[test]
    fn the_later_of_two_products_takes_the_other_in() {
        let mut net = Net::default();
        let x = net.input(&[1, 4]);
        let [w, v] = [0, 1].map(|index| net.weight(index, Role::Matrix, &[4, 4]));
        let first = net.op(GEMM, &[x, w], &[1, 4]);
        let second = net.op(GEMM, &[x, v], &[1, 4]);
        let sum = net.op(Op::Binary(Binary::Add), &[second, first], &[1, 4]);
        net.output(sum);
        assert!(apply(&mut net, 2));
        net.sweep();
        assert_eq!(
            net.to_string(),
            "%3 f32[1, 4] = Linear(%0, w0, -, -)\n%5 f32[1, 4] = Linear(%0, w1, -, %3)\n→ %5"
        );
    }

    #[test]
    fn a_product_that_somebody_else_reads_stays() {
        let mut net = Net::default();
        let x = net.input(&[1, 4]);
        let w = net.weight(0, Role::Matrix, &[4, 4]);
        let product = net.op(GEMM, &[x, w], &[1, 4]);
        let sum = net.op(Op::Binary(Binary::Add), &[product, x], &[1, 4]);
        net.outputs.push(product);
        net.output(sum);
        assert!(!apply(&mut net, 1));
    }
}
