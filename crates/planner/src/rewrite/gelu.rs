//! GELU, spelled out as exporters do: `x·½·(1 + erf(x/√2))`, or with the tanh that approximates it.

use super::{binary, close, factors};
use crate::graph::ValueId;
use crate::net::{Kind, Net};
use crate::op::{Binary, Op, Unary};
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

pub(super) fn apply(net: &mut Net, at: usize) -> bool {
    let Some((half, parts)) = factors(net, at) else { return false };
    let [a, b] = parts[..] else { return false };
    if !close(half, 0.5) {
        return false;
    }
    let Some((x, tanh)) =
        [(a, b), (b, a)].into_iter().find_map(|(x, gate)| Some((x, gate_of(net, gate, x)?)))
    else {
        return false;
    };
    net.nodes[at].kind = Kind::Op(Op::Unary(Unary::Gelu { tanh }));
    net.nodes[at].inputs = vec![Some(x)];
    true
}

/// Whether `gate` is `1 + erf(x/√2)` (`false`) or `1 + tanh(√(2/π)·(x + 0.044715·x³))` (`true`).
fn gate_of(net: &Net, gate: ValueId, x: ValueId) -> Option<bool> {
    let (one, function) = net.scalar_and_other(&binary(net, net.maker(gate)?, Binary::Add)?)?;
    if one != 1.0 {
        return None;
    }
    match net.made_by(function)? {
        (Op::Unary(Unary::Erf), inner) => is_over_sqrt_2(net, inner[0], x).then_some(false),
        (Op::Unary(Unary::Tanh), inner) => is_cubic(net, inner[0], x).then_some(true),
        _ => None,
    }
}

fn is_over_sqrt_2(net: &Net, value: ValueId, x: ValueId) -> bool {
    let Some(at) = net.maker(value) else { return false };
    if let Some([a, b]) = binary(net, at, Binary::Div) {
        return a == x && net.scalar(b).is_some_and(|b| close(b, std::f32::consts::SQRT_2));
    }
    let Some(inputs) = binary(net, at, Binary::Mul) else { return false };
    net.scalar_and_other(&inputs).is_some_and(|(scalar, other)| other == x && close(scalar, FRAC_1_SQRT_2))
}

/// `√(2/π)·(x + 0.044715·x³)` or `√(2/π)·x·(1 + 0.044715·x²)`.
fn is_cubic(net: &Net, value: ValueId, x: ValueId) -> bool {
    let Some((scale, parts)) = net.maker(value).and_then(|at| factors(net, at)) else { return false };
    if !close(scale, FRAC_2_SQRT_PI * FRAC_1_SQRT_2) {
        return false;
    }
    let sum = |value| net.maker(value).and_then(|at| binary(net, at, Binary::Add));
    match parts[..] {
        [inner] => sum(inner)
            .is_some_and(|[a, b]| a == x && is_power(net, b, x, 3) || b == x && is_power(net, a, x, 3)),
        [a, b] => [(a, b), (b, a)].into_iter().any(|(first, inner)| {
            first == x
                && sum(inner)
                    .and_then(|inputs| net.scalar_and_other(&inputs))
                    .is_some_and(|(one, rest)| one == 1.0 && is_power(net, rest, x, 2))
        }),
        _ => false,
    }
}

/// Whether `value` is `0.044715·x^power`.
fn is_power(net: &Net, value: ValueId, x: ValueId, power: usize) -> bool {
    let Some((scalar, parts)) = net.maker(value).and_then(|at| factors(net, at)) else { return false };
    let exponent: Option<usize> = parts
        .iter()
        .map(|&part| match net.made_by(part) {
            _ if part == x => Some(1),
            Some((Op::Binary(Binary::Pow), inputs)) if inputs[0] == x => {
                net.scalar(inputs[1]).filter(|&e| e == 2.0 || e == 3.0).map(|e| e as usize)
            }
            Some((Op::Binary(Binary::Mul), inputs)) if inputs == [x, x] => Some(2),
            _ => None,
        })
        .sum();
    close(scalar, 0.044_715) && exponent == Some(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUL: Op = Op::Binary(Binary::Mul);
    const ADD: Op = Op::Binary(Binary::Add);

    fn erf_net(half_first: bool) -> Net {
        let mut net = Net::default();
        let x = net.input(&[4]);
        let [sqrt_2, one, half] = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|x| net.float(x));
        let quotient = net.op(Op::Binary(Binary::Div), &[x, sqrt_2], &[4]);
        let erf = net.op(Op::Unary(Unary::Erf), &[quotient], &[4]);
        let sum = net.op(ADD, &[erf, one], &[4]);
        let last = if half_first {
            let halved = net.op(MUL, &[x, half], &[4]);
            net.op(MUL, &[halved, sum], &[4])
        } else {
            let product = net.op(MUL, &[x, sum], &[4]);
            net.op(MUL, &[product, half], &[4])
        };
        net.output(last);
        net
    }

    #[test]
    fn both_orders_of_the_erf_form_are_gelu() {
        for half_first in [false, true] {
            let mut net = erf_net(half_first);
            assert_eq!(net.nodes.len(), 5);
            assert!(apply(&mut net, 4));
            net.sweep();
            assert_eq!(net.to_string(), "%8 f32[4] = Unary(Gelu { tanh: false })(%0)\n→ %8");
        }
    }

    #[test]
    fn the_cubic_form_is_the_tanh_gelu() {
        let mut net = Net::default();
        let x = net.input(&[4]);
        let [three, small, scale, one, half] = [3.0, 0.044_715, 0.797_884_6, 1.0, 0.5].map(|x| net.float(x));
        let cube = net.op(Op::Binary(Binary::Pow), &[x, three], &[4]);
        let small = net.op(MUL, &[cube, small], &[4]);
        let sum = net.op(ADD, &[x, small], &[4]);
        let scaled = net.op(MUL, &[sum, scale], &[4]);
        let tanh = net.op(Op::Unary(Unary::Tanh), &[scaled], &[4]);
        let gate = net.op(ADD, &[tanh, one], &[4]);
        let halved = net.op(MUL, &[x, half], &[4]);
        let last = net.op(MUL, &[halved, gate], &[4]);
        net.output(last);
        assert!(apply(&mut net, 7));
        net.sweep();
        assert_eq!(net.to_string(), "%13 f32[4] = Unary(Gelu { tanh: true })(%0)\n→ %13");
    }

    #[test]
    fn a_gate_on_another_value_is_left_alone() {
        let mut net = erf_net(false);
        let other = net.input(&[4]);
        net.nodes[3].inputs[0] = Some(other);
        net.sweep();
        assert!(!apply(&mut net, 4));
    }
}
