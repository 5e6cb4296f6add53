//! Recurrent layers.

use crate::cuda::call::KernelCall;
use crate::cuda::site::Site;
use tessera_planner::plan::StepKind;

pub(super) fn calls(_site: &Site<'_>, _kind: &StepKind) -> Result<Vec<KernelCall>, String> {
    Err("there is none yet".to_owned())
}
