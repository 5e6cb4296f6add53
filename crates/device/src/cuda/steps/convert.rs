//! Between the wire and the arena.

use crate::cuda::call::KernelCall;
use crate::cuda::site::Site;
use tessera_planner::plan::Port;

pub(crate) fn ingest(_site: &Site<'_>, _port: &Port, _wire: u64) -> Result<Vec<KernelCall>, String> {
    Err("none yet".to_owned())
}

pub(crate) fn egress(_site: &Site<'_>, _port: &Port, _wire: u64) -> Result<Vec<KernelCall>, String> {
    Err("none yet".to_owned())
}
