//! The CUDA device: every step of a plan is one super-kernel, run for all lanes of a launch at once.

mod abi;
mod call;
mod compile;
mod fence;
mod site;
mod steps;

use tessera_core::Precision;
use tessera_planner::PackTarget;
use tessera_planner::pack::Matrices;

/// Columns of a panel of a matrix in fp32: what the strict kernels read at once.
pub(crate) const PANEL_WIDTH: usize = 64;

/// What packed weights must look like. Matrix units want blocks; strict fp32 has none and wants panels.
pub(crate) fn target(precision: Precision) -> PackTarget {
    let matrices = match precision {
        Precision::Fp32 => Matrices::Panels(PANEL_WIDTH),
        Precision::Tf32 | Precision::Bf16 | Precision::Fp16 => Matrices::Blocks,
    };
    PackTarget { device: "cuda", precision, matrices }
}
