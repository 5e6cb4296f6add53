//! LayerNorm, spelled out: `(x − mean(x)) / √(mean((x − mean(x))²) + ε) · scale`, and then its bias.

use super::{are_trailing, binary};
use crate::graph::ValueId;
use crate::net::{Kind, Net};
use crate::op::{Binary, Op, Reduction, Unary};

pub(super) fn apply(net: &mut Net, at: usize) -> bool {
    scaled(net, at) || biased(net, at)
}

/// The part up to the scale becomes a LayerNorm without bias.
fn scaled(net: &mut Net, at: usize) -> bool {
    let Some([a, b]) = binary(net, at, Binary::Mul) else { return false };
    let found = [(a, b), (b, a)].into_iter().find_map(|(quotient, scale)| {
        let found = normalised(net, quotient)?;
        is_vector(net, scale, found.x, found.axis).then_some((found, scale))
    });
    let Some((found, scale)) = found else { return false };
    let axis = found.axis as i64;
    net.nodes[at].kind = Kind::Op(Op::LayerNorm { axis, epsilon: found.epsilon });
    net.nodes[at].inputs = vec![Some(found.x), Some(scale), None];
    true
}

/// An addition after a LayerNorm without bias becomes its bias.
fn biased(net: &mut Net, at: usize) -> bool {
    let Some([a, b]) = binary(net, at, Binary::Add) else { return false };
    for (sum, bias) in [(a, b), (b, a)] {
        let Some(before) = net.sole_maker(sum) else { continue };
        let node = &net.nodes[before];
        let Kind::Op(Op::LayerNorm { axis, .. }) = node.kind else { continue };
        let (Some(x), None) = (node.inputs[0], node.inputs.get(2).copied().flatten()) else { continue };
        let rank = net.dims(x).len();
        let axis = if axis < 0 { rank - axis.unsigned_abs() as usize } else { axis as usize };
        if is_vector(net, bias, x, axis) {
            let (kind, mut inputs) = (node.kind.clone(), node.inputs.clone());
            inputs.resize(3, None);
            inputs[2] = Some(bias);
            net.nodes[at].kind = kind;
            net.nodes[at].inputs = inputs;
            return true;
        }
    }
    false
}

struct Normalised {
    x: ValueId,
    axis: usize,
    epsilon: f32,
}

/// `Div(d, Sqrt(Add(ReduceMean(d²), ε)))` with `d = Sub(x, ReduceMean(x))`, over the last axes of x.
fn normalised(net: &Net, quotient: ValueId) -> Option<Normalised> {
    let [centred, deviation] = binary(net, net.maker(quotient)?, Binary::Div)?;
    let (Op::Unary(Unary::Sqrt), variance) = net.made_by(deviation)? else { return None };
    let (epsilon, mean_square) = net.scalar_and_other(&binary(net, net.maker(variance[0])?, Binary::Add)?)?;
    let (squared, axis) = mean_square_of(net, mean_square)?;
    let difference = |value: ValueId| binary(net, net.maker(value)?, Binary::Sub);
    let [x, average] = difference(centred)?;
    // Some exporters write the difference twice.
    if squared != centred && difference(squared) != Some([x, average]) {
        return None;
    }
    let (averaged, same_axis) = mean(net, average)?;
    (averaged == x && same_axis == axis).then_some(Normalised { x, axis, epsilon })
}

/// What a value is the mean of the squares of, likewise.
pub(super) fn mean_square_of(net: &Net, value: ValueId) -> Option<(ValueId, usize)> {
    let (square, axis) = mean(net, value)?;
    match net.made_by(square)? {
        (Op::Binary(Binary::Pow), inputs) if net.scalar(inputs[1]) == Some(2.0) => Some((inputs[0], axis)),
        (Op::Binary(Binary::Mul), inputs) if inputs[0] == inputs[1] => Some((inputs[0], axis)),
        _ => None,
    }
}

/// What a value is the mean of, over the axes from which one on; reduced axes kept.
fn mean(net: &Net, value: ValueId) -> Option<(ValueId, usize)> {
    let node = &net.nodes[net.maker(value)?];
    let Kind::Op(Op::Reduce { kind: Reduction::Mean, keep_dims: true, .. }) = node.kind else { return None };
    let (x, axes) = (node.inputs[0]?, net.integers(node.inputs.get(1).copied().flatten()?)?);
    let rank = net.dims(x).len();
    are_trailing(&axes, rank).then(|| (x, rank - axes.len()))
}

/// Whether a value holds one element per element of x's axes from `axis` on.
pub(super) fn is_vector(net: &Net, value: ValueId, x: ValueId, axis: usize) -> bool {
    let columns = &net.dims(x)[axis..];
    let dims = net.dims(value);
    let lead = dims.len().saturating_sub(columns.len());
    dims[lead..] == *columns && dims[..lead].iter().all(|&dim| dim == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::Role;
    use crate::tensor::Tensor;

    #[test]
    fn the_decomposed_form_becomes_one_node() {
        let mut net = Net::default();
        let x = net.input(&[1, 3, 8]);
        let scale = net.weight(0, Role::Plain, &[8]);
        let bias = net.weight(1, Role::Plain, &[8]);
        let axes = net.known(Tensor::from_elements(&[1], &[-1i64]));
        let [two, epsilon] = [2.0, 1e-5].map(|x| net.float(x));
        let reduce = || Op::Reduce { kind: Reduction::Mean, keep_dims: true, noop_with_empty_axes: false };
        let mean = net.op(reduce(), &[x, axes], &[1, 3, 1]);
        let centred = net.op(Op::Binary(Binary::Sub), &[x, mean], &[1, 3, 8]);
        let square = net.op(Op::Binary(Binary::Pow), &[centred, two], &[1, 3, 8]);
        let variance = net.op(reduce(), &[square, axes], &[1, 3, 1]);
        let sum = net.op(Op::Binary(Binary::Add), &[variance, epsilon], &[1, 3, 1]);
        let deviation = net.op(Op::Unary(Unary::Sqrt), &[sum], &[1, 3, 1]);
        let quotient = net.op(Op::Binary(Binary::Div), &[centred, deviation], &[1, 3, 8]);
        let scaled = net.op(Op::Binary(Binary::Mul), &[quotient, scale], &[1, 3, 8]);
        let last = net.op(Op::Binary(Binary::Add), &[scaled, bias], &[1, 3, 8]);
        net.output(last);
        assert_eq!(net.nodes.len(), 9);
        assert_eq!(crate::rewrite::rewrite(&mut net), ["layer-norm", "layer-norm"]);
        assert_eq!(
            net.to_string(),
            "%14 f32[1, 3, 8] = LayerNorm { axis: 2, epsilon: 1e-5 }(%0, w0, w1)\n→ %14"
        );
    }
}
