//! The end of an epilogue, for every kernel that has one: see `activate` in `kernels/functions.cuh`.
//!
//! ```text
//!   Activation ─▶ defines   which function: of the architecture, so a kernel is compiled for it
//!              └▶ limits    of a clip: two floats of the kernel's parameters, so ReLU and ReLU6 are one kernel
//! ```

use super::functions::unary;
use crate::cuda::call::KernelSpec;
use tessera_planner::plan::Activation;

/// A specialisation whose `activate` is this one.
pub(super) fn activated(spec: KernelSpec, activation: Activation) -> KernelSpec {
    match activation {
        Activation::Identity => spec.define("ACTIVATION", 0),
        Activation::Clip { .. } => spec.define("ACTIVATION", 1),
        Activation::Unary(function) => {
            spec.define("ACTIVATION", 2).define("ACTIVATION_FUNCTION", unary(function, "x"))
        }
    }
}

/// What the kernel's parameters `low` and `high` are.
pub(super) fn limits(activation: Activation) -> [f32; 2] {
    match activation {
        Activation::Clip { low, high } => [low, high],
        Activation::Identity | Activation::Unary(_) => [f32::NEG_INFINITY, f32::INFINITY],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_planner::op::Unary;

    #[test]
    fn clips_of_all_limits_are_one_specialisation() {
        let spec = |high| activated(KernelSpec::new("x.cu"), Activation::Clip { low: 0.0, high });
        assert_eq!(spec(6.0), spec(f32::INFINITY));
        assert_eq!(limits(Activation::Clip { low: 0.0, high: 6.0 }), [0.0, 6.0]);
    }

    #[test]
    fn a_functions_constants_are_in_its_expression() {
        let elu = activated(KernelSpec::new("x.cu"), Activation::Unary(Unary::Elu { alpha: 1.5 }));
        assert_eq!(
            elu.defines[1],
            ("ACTIVATION_FUNCTION", "op::elu(x,__uint_as_float(0x3fc00000u))".to_owned())
        );
    }
}
