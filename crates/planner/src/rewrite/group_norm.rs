//! GroupNormalization as it was written before it was an operator: `Reshape ▸ InstanceNormalization ▸ Reshape`.
//!
//! Seen as `[n, groups, rest]`, a group of channels is one channel. Undoing the reshapes lets the step read the image as it lies, channels last.

use crate::graph::ValueId;
use crate::net::{Kind, Net};
use crate::op::Op;

pub(super) fn apply(net: &mut Net, at: usize) -> bool {
    let reshaped = |value: ValueId| match net.made_by(value) {
        Some((Op::Reshape { .. }, inputs)) => Some(inputs[0]),
        _ => None,
    };
    let (Kind::Op(Op::Reshape { .. }), Some(made)) = (&net.nodes[at].kind, net.nodes[at].outputs[0]) else {
        return false;
    };
    let Some(before) = net.nodes[at].inputs[0].and_then(|normal| net.sole_maker(normal)) else {
        return false;
    };
    let node = &net.nodes[before];
    let (Kind::Op(Op::GroupNorm { groups: None, epsilon }), &[Some(flat), scale, bias]) =
        (&node.kind, node.inputs.as_slice())
    else {
        return false;
    };
    let Some(x) = reshaped(flat) else { return false };
    let (epsilon, dims, flat) = (*epsilon, net.dims(x), net.dims(flat));
    // The same images, whose channels are cut into whole groups.
    let fits =
        dims.len() > 2 && dims == net.dims(made) && dims[0] == flat[0] && dims[1].is_multiple_of(flat[1]);
    if !fits {
        return false;
    }
    let groups = Some(flat[1]);
    net.nodes[at].kind = Kind::Op(Op::GroupNorm { groups, epsilon });
    net.nodes[at].inputs = vec![Some(x), scale, bias];
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::Role;
    use crate::tensor::Tensor;

    fn written_out(back: [usize; 4]) -> Net {
        let mut net = Net::default();
        let x = net.input(&[1, 6, 4, 5]);
        let [scale, bias] = [0, 1].map(|index| net.weight(index, Role::Plain, &[2]));
        let to = net.known(Tensor::from_elements(&[3], &[0i64, 2, -1]));
        let flat = net.op(Op::Reshape { allow_zero: false }, &[x, to], &[1, 2, 60]);
        let normal = net.op(Op::GroupNorm { groups: None, epsilon: 0.5 }, &[flat, scale, bias], &[1, 2, 60]);
        let dims = back.map(|dim| dim as i64);
        let to = net.known(Tensor::from_elements(&[4], &dims));
        let made = net.op(Op::Reshape { allow_zero: false }, &[normal, to], &back);
        net.output(made);
        net
    }

    #[test]
    fn channels_normalised_under_another_shape_are_groups() {
        let mut net = written_out([1, 6, 4, 5]);
        assert!(apply(&mut net, 2));
        net.sweep();
        assert_eq!(
            net.to_string(),
            "%7 f32[1, 6, 4, 5] = GroupNorm { groups: Some(2), epsilon: 0.5 }(%0, w0, w1)\n→ %7"
        );
    }

    #[test]
    fn a_shape_that_is_not_undone_stays() {
        assert!(!apply(&mut written_out([1, 6, 5, 4]), 2));
    }
}
