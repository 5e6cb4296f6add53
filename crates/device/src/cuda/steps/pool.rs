//! Pools: see `kernels/pool.cu`.

use super::blocks;
use super::vector::{widest, width};
use super::window::Window;
use crate::cuda::abi::{LaunchParams, OperandParams};
use crate::cuda::call::{KernelCall, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_planner::plan::{PoolKind, StepKind};

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct PoolParams {
    launch: LaunchParams,
    x: OperandParams,
    out: OperandParams,
    window: Window,
}
params!(PoolParams);

pub(super) fn calls(site: &Site<'_>, kind: &StepKind) -> Result<Vec<KernelCall>, String> {
    let StepKind::Pool { kind, x, shape, out } = kind else { unreachable!("called for its own kind") };
    let stored = site.stored(*x);
    let width = width(widest(stored.size()), [shape.groups]);
    let params = PoolParams {
        launch: site.launch,
        x: site.operand(*x),
        out: site.buffer(*out),
        window: Window::of(shape, width)?,
    };
    let spec = site
        .spec("pool.cu")
        .define("TYPE", type_number(stored))
        .define("KIND", number(*kind))
        .define("WIDTH", width);
    let packs = shape.output[0] * shape.output[1] * (shape.groups / width);
    let grid = [blocks(packs as u32, 256), site.capacity.items, 1];
    Ok(vec![KernelCall::new(Window::define(spec, shape), &params, grid, 256)])
}

/// As the kernel numbers them.
fn number(kind: PoolKind) -> u32 {
    match kind {
        PoolKind::Max => 0,
        PoolKind::Average { count_padding: true } => 1,
        PoolKind::Average { count_padding: false } => 2,
        PoolKind::Sum => 3,
    }
}
