//! Named rules that make fewer, larger nodes.
//!
//! ```text
//!   spelled    OneHot ▸ Where·Equal   Trilu ▸ Where
//!   patterns   Mul·Sigmoid ▸ SiLU   erf… ▸ GELU   ReduceMean… ▸ LayerNorm, RmsNorm   Reshape·InstanceNorm·Reshape ▸ GroupNorm   MatMul·Softmax·MatMul ▸ Attention
//!   epilogues  residual, activation into the product or convolution before them
//!   chains     what is left of element-wise operators, one pass each
//! ```
//! A rule looks at operators, shapes and known values; never at weights' values. It changes results by rounding at most.
//! Each rule is a function that tries to end a match at node `at`.

mod activation;
mod attention;
mod chain;
mod gelu;
mod group_norm;
mod hard_swish;
mod layer_norm;
mod residual;
mod rms_norm;
mod silu;
mod spelled;

use crate::graph::ValueId;
use crate::net::{Kind, Net};
use crate::op::{Binary, Op};
use half::{bf16, f16};

/// A rule: whether it matched with node `at` as its last, and has then replaced that node.
struct Rule {
    name: &'static str,
    apply: fn(&mut Net, usize) -> bool,
}

/// Tried in this order until none applies; each list once the one before has nothing to do, for chains hide the operators that patterns look
/// for.
const STAGES: [&[Rule]; 3] = [
    &[Rule { name: "triangle", apply: spelled::triangle }, Rule { name: "one-hot", apply: spelled::one_hot }],
    &[
        Rule { name: "silu", apply: silu::apply },
        Rule { name: "hard-swish", apply: hard_swish::apply },
        Rule { name: "gelu", apply: gelu::apply },
        Rule { name: "layer-norm", apply: layer_norm::apply },
        Rule { name: "rms-norm", apply: rms_norm::apply },
        Rule { name: "group-norm", apply: group_norm::apply },
        Rule { name: "attention", apply: attention::apply },
        Rule { name: "residual", apply: residual::apply },
        Rule { name: "activation", apply: activation::apply },
    ],
    &[Rule { name: "chain", apply: chain::start }, Rule { name: "longer chain", apply: chain::extend }],
];

/// Applies every rule until none applies. The names of those that did, in order, for tests and logs.
pub(crate) fn rewrite(net: &mut Net) -> Vec<&'static str> {
    let mut applied = Vec::new();
    for stage in STAGES {
        loop {
            let before = applied.len();
            for rule in stage {
                let mut at = 0;
                while at < net.nodes.len() {
                    if (rule.apply)(net, at) {
                        applied.push(rule.name);
                        net.sweep();
                    } else {
                        at += 1;
                    }
                }
            }
            if applied.len() == before {
                break;
            }
        }
    }
    applied
}

/// The two inputs of a binary operator of the graph at node `at`.
fn binary(net: &Net, at: usize, which: Binary) -> Option<[ValueId; 2]> {
    match (&net.nodes[at].kind, net.nodes[at].inputs.as_slice()) {
        (Kind::Op(Op::Binary(function)), &[Some(a), Some(b)]) if *function == which => Some([a, b]),
        _ => None,
    }
}

/// Of two factors the one whose gate the other is.
fn gated([a, b]: [ValueId; 2], is_gate: impl Fn(ValueId, ValueId) -> bool) -> Option<ValueId> {
    if is_gate(b, a) {
        Some(a)
    } else if is_gate(a, b) {
        Some(b)
    } else {
        None
    }
}

/// The factors of a product: the two inputs of the `Mul` at node `at`, and the factors of those that are products
/// which nobody else reads. Known scalars are multiplied into one (1 when there are none).
fn factors(net: &Net, at: usize) -> Option<(f32, Vec<ValueId>)> {
    let mut scalar = 1.0;
    let mut others = Vec::new();
    let mut open = Vec::from(binary(net, at, Binary::Mul)?);
    while let Some(value) = open.pop() {
        if let Some(factor) = net.scalar(value) {
            scalar *= factor;
        } else if let Some(inner) = net.sole_maker(value).and_then(|at| binary(net, at, Binary::Mul)) {
            open.extend(inner);
        } else {
            others.push(value);
        }
    }
    Some((scalar, others))
}

/// Whether `a` is the number `b`, as exporters round it: to some decimals, or to a half of either kind.
fn close(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-4 * b.abs() || a == f16::from_f32(b).to_f32() || a == bf16::from_f32(b).to_f32()
}

/// Whether axes, which may be negative, are the last `axes.len()` of `rank`, in any order.
fn are_trailing(axes: &[i64], rank: usize) -> bool {
    let mut found: Vec<i64> =
        axes.iter().map(|&axis| if axis < 0 { axis + rank as i64 } else { axis }).collect();
    found.sort_unstable();
    !found.is_empty()
        && found.iter().rev().enumerate().all(|(back, &axis)| axis == rank as i64 - 1 - back as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::SQRT_2;

    #[test]
    fn a_number_that_was_rounded_to_a_half_is_still_that_number() {
        for rounded in
            [SQRT_2, SQRT_2 - 1e-5, f16::from_f32(SQRT_2).to_f32(), bf16::from_f32(SQRT_2).to_f32()]
        {
            assert!(close(rounded, SQRT_2), "{rounded}");
        }
        assert!(!close(1.4145, SQRT_2));
        assert!(close(bf16::from_f32(0.044_715).to_f32(), 0.044_715));
    }
}
