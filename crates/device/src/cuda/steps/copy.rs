//! Copies: see `kernels/copy.cu`.

use super::{Dims, blocks};
use crate::cuda::abi::{LaunchParams, MAX_AXES, OperandParams, WalkParams};
use crate::cuda::call::{KernelCall, KernelSpec, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_planner::plan::StepKind;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct CopyParams {
    launch: LaunchParams,
    x: WalkParams,
    out: OperandParams,
    out_offset: i64,
    out_strides: [i64; MAX_AXES],
    dims: [u32; MAX_AXES],
    elements: u32,
    axes: u32,
}
params!(CopyParams);

pub(super) fn calls(site: &Site<'_>, kind: &StepKind) -> Result<Vec<KernelCall>, String> {
    let StepKind::Copy { dims, x, out, out_offset, out_strides } = kind else {
        unreachable!("called for its own kind")
    };
    let stored = site.stored(x.operand);
    if stored != site.precision().stored(site.plan.buffer(*out).dtype) {
        return Err(format!("it copies {stored} into another type"));
    }
    let to: Vec<isize> = out_strides.iter().map(|&stride| stride as isize).collect();
    let walk = Dims::joined(dims, &[&x.strides, &to])?;
    let mut from = x.clone();
    from.strides.clone_from(&walk.strides[0]);
    let params = CopyParams {
        launch: site.launch,
        x: site.walk(&from),
        out: site.buffer(*out),
        out_offset: *out_offset as i64,
        out_strides: walk.padded_strides(1),
        dims: walk.padded_dims(),
        elements: walk.elements(),
        axes: walk.dims.len() as u32,
    };
    let spec = KernelSpec::new("copy.cu").define("TYPE", type_number(stored));
    Ok(vec![KernelCall::new(spec, &params, [blocks(walk.elements(), 256), site.capacity.items, 1], 256)])
}
