//! RMSNorm, spelled out: `x / √(mean(x²) + ε) · scale`, or times the reciprocal of that root.

use super::binary;
use super::layer_norm::{is_vector, mean_square_of};
use crate::graph::ValueId;
use crate::net::{Kind, Net};
use crate::op::{Binary, Op, Unary};

/// Comes after [`super::layer_norm`], which knows the same of what has its mean taken off.
pub(super) fn apply(net: &mut Net, at: usize) -> bool {
    let Some([a, b]) = binary(net, at, Binary::Mul) else { return false };
    let found = [(a, b), (b, a)].into_iter().find_map(|(normal, scale)| {
        let (x, axis, epsilon) = normalised(net, normal)?;
        is_vector(net, scale, x, axis).then_some((x, axis, epsilon, scale))
    });
    let Some((x, axis, epsilon, scale)) = found else { return false };
    net.nodes[at].kind = Kind::RmsNorm { axis, epsilon };
    net.nodes[at].inputs = vec![Some(x), Some(scale)];
    true
}

/// What is normalised, from which axis on, and what is added to the mean of its squares.
fn normalised(net: &Net, normal: ValueId) -> Option<(ValueId, usize, f32)> {
    let maker = net.maker(normal)?;
    if let Some([x, root]) = binary(net, maker, Binary::Div) {
        return by_root(net, x, root);
    }
    let [a, b] = binary(net, maker, Binary::Mul)?;
    [(a, b), (b, a)].into_iter().find_map(|(x, factor)| {
        let root = match net.made_by(factor)? {
            (Op::Unary(Unary::Reciprocal), inputs) => inputs[0],
            (Op::Binary(Binary::Div), inputs) if net.scalar(inputs[0]) == Some(1.0) => inputs[1],
            _ => return None,
        };
        by_root(net, x, root)
    })
}

/// `Sqrt(Add(ReduceMean(x²), ε))`, over the last axes of x.
fn by_root(net: &Net, x: ValueId, root: ValueId) -> Option<(ValueId, usize, f32)> {
    let (Op::Unary(Unary::Sqrt), inputs) = net.made_by(root)? else { return None };
    let (epsilon, mean_square) = net.scalar_and_other(&binary(net, net.maker(inputs[0])?, Binary::Add)?)?;
    let (squared, axis) = mean_square_of(net, mean_square)?;
    (squared == x).then_some((x, axis, epsilon))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::Role;
    use crate::op::Reduction;
    use crate::tensor::Tensor;

    /// `x · 1/√(mean(x²) + ε) · scale`, the factor as `spelled` makes it of the root.
    fn rewritten(spelled: impl Fn(&mut Net, ValueId, ValueId) -> ValueId) -> String {
        let mut net = Net::default();
        let x = net.input(&[1, 3, 8]);
        let scale = net.weight(0, Role::Plain, &[8]);
        let axes = net.known(Tensor::from_elements(&[1], &[-1i64]));
        let [two, epsilon] = [2.0, 1e-6].map(|x| net.float(x));
        let square = net.op(Op::Binary(Binary::Pow), &[x, two], &[1, 3, 8]);
        let reduce = Op::Reduce { kind: Reduction::Mean, keep_dims: true, noop_with_empty_axes: false };
        let mean = net.op(reduce, &[square, axes], &[1, 3, 1]);
        let shifted = net.op(Op::Binary(Binary::Add), &[mean, epsilon], &[1, 3, 1]);
        let root = net.op(Op::Unary(Unary::Sqrt), &[shifted], &[1, 3, 1]);
        let normal = spelled(&mut net, x, root);
        let last = net.op(Op::Binary(Binary::Mul), &[scale, normal], &[1, 3, 8]);
        net.output(last);
        assert_eq!(crate::rewrite::rewrite(&mut net), ["rms-norm"]);
        let text = net.to_string();
        text.split_once(" = ").unwrap().1.lines().next().unwrap().to_owned()
    }

    #[test]
    fn each_spelling_becomes_one_node() {
        let one = "RmsNorm·2·1e-6(%0, w0)";
        let times = |net: &mut Net, x, factor| net.op(Op::Binary(Binary::Mul), &[x, factor], &[1, 3, 8]);
        let reciprocal = |net: &mut Net, x, root| {
            let factor = net.op(Op::Unary(Unary::Reciprocal), &[root], &[1, 3, 1]);
            times(net, x, factor)
        };
        assert_eq!(rewritten(reciprocal), one);
        let quotient = |net: &mut Net, x, root| {
            let unit = net.float(1.0);
            let factor = net.op(Op::Binary(Binary::Div), &[unit, root], &[1, 3, 1]);
            times(net, x, factor)
        };
        assert_eq!(rewritten(quotient), one);
        assert_eq!(rewritten(|net, x, root| net.op(Op::Binary(Binary::Div), &[x, root], &[1, 3, 8])), one);
    }
}
