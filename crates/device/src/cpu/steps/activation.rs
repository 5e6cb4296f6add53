//! Functions of one element, as kernels and epilogues use them.
//!
//! One definition for all steps, so that an activation gives the same bits fused into a product or on its own.

use super::functions;
use crate::cpu::fence::{Kernel, dispatch};
use tessera_planner::op::Unary;
use tessera_planner::plan::Activation;

/// Applies an epilogue's activation in place.
pub(crate) fn apply(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::Identity => {}
        // Comparisons, not `f32::clamp`: a NaN falls through both and stays NaN.
        Activation::Clip { low, high } => values.iter_mut().for_each(|x| {
            let above = if *x < low { low } else { *x };
            *x = if above > high { high } else { above };
        }),
        Activation::Unary(function) => unary(function, values),
    }
}

/// Applies a function to every element, in place.
pub(crate) fn unary(function: Unary, values: &mut [f32]) {
    dispatch(Each { function, values });
}

struct Each<'a> {
    function: Unary,
    values: &'a mut [f32],
}

impl Kernel for Each<'_> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        each::<FUSED>(self.function, self.values);
    }
}

#[inline(always)]
fn each<const FUSED: bool>(function: Unary, values: &mut [f32]) {
    // The match is outside the loop: one function per call.
    macro_rules! each {
        (|$x:ident| $value:expr) => {
            for value in values {
                let $x = *value;
                *value = $value;
            }
        };
    }
    match function {
        Unary::Abs => each!(|x| x.abs()),
        Unary::Affine { alpha, beta } => each!(|x| alpha * x + beta),
        Unary::Ceil => each!(|x| x.ceil()),
        Unary::Cos => each!(|x| x.cos()),
        Unary::Erf => each!(|x| functions::erf::<FUSED>(x)),
        Unary::Exp => each!(|x| functions::exp::<FUSED>(x)),
        Unary::Floor => each!(|x| x.floor()),
        Unary::Gelu { tanh: false } => {
            each!(|x| 0.5 * x * (1.0 + functions::erf::<FUSED>(x * std::f32::consts::FRAC_1_SQRT_2)));
        }
        Unary::Gelu { tanh: true } => each!(|x| {
            let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x); // sqrt(2 / π)
            0.5 * x * (1.0 + functions::tanh::<FUSED>(inner))
        }),
        Unary::Elu { alpha } => each!(|x| if x < 0.0 { alpha * x.exp_m1() } else { x }),
        Unary::HardSigmoid { alpha, beta } => each!(|x| hard(alpha * x + beta)),
        Unary::HardSwish => each!(|x| x * hard(x / 6.0 + 0.5)),
        Unary::LeakyRelu { alpha } => each!(|x| if x < 0.0 { alpha * x } else { x }),
        Unary::Log => each!(|x| x.ln()),
        Unary::Mish => each!(|x| x * softplus(x).tanh()),
        Unary::Neg => each!(|x| -x),
        // Booleans have their own `Not`; of a float the planner makes none.
        Unary::Not => each!(|x| f32::from(x == 0.0)),
        Unary::Reciprocal => each!(|x| 1.0 / x),
        Unary::Relu => each!(|x| if x < 0.0 { 0.0 } else { x }),
        Unary::Round => each!(|x| x.round_ties_even()),
        Unary::ScaledTanh { alpha, beta } => each!(|x| alpha * (beta * x).tanh()),
        Unary::Selu { alpha, gamma } => {
            each!(|x| if x < 0.0 { gamma * (alpha * x.exp_m1()) } else { gamma * x });
        }
        Unary::Sigmoid => each!(|x| functions::sigmoid::<FUSED>(x)),
        Unary::Sign => each!(|x| if x > 0.0 {
            1.0
        } else if x < 0.0 {
            -1.0
        } else {
            x
        }),
        Unary::Sin => each!(|x| x.sin()),
        Unary::Silu => each!(|x| x * functions::sigmoid::<FUSED>(x)),
        Unary::Softplus => each!(|x| softplus(x)),
        Unary::Softsign => each!(|x| x / (1.0 + x.abs())),
        Unary::Sqrt => each!(|x| x.sqrt()),
        Unary::Tanh => each!(|x| functions::tanh::<FUSED>(x)),
        Unary::ThresholdedRelu { alpha } => each!(|x| if x <= alpha { 0.0 } else { x }),
    }
}

/// Between 0 and 1; NaN stays NaN.
fn hard(x: f32) -> f32 {
    x.clamp(0.0, 1.0)
}

/// ln(1 + eˣ) without overflow.
fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}
