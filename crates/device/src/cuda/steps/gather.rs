//! Rows by number: see `kernels/gather.cu`.

use super::convert::as_moved;
use super::vector::{placement, widest, width};
use crate::cuda::abi::{LaunchParams, OperandParams};
use crate::cuda::call::{KernelCall, KernelSpec, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_core::DType;
use tessera_planner::plan::StepKind;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct GatherParams {
    launch: LaunchParams,
    table: OperandParams,
    ids: OperandParams,
    out: OperandParams,
    packs: u64,
    rows: u32,
    row: u32,
    count: u32,
    step: u32,
}
params!(GatherParams);

/// Most blocks of one item; each walks on from there.
const MAX_BLOCKS: u64 = 1 << 16;

pub(super) fn calls(site: &Site<'_>, index: usize) -> Result<Vec<KernelCall>, String> {
    let StepKind::Gather { table, ids, outer, rows, row, count, what: _, out } = &site.plan.steps[index].kind
    else {
        unreachable!("called for its own kind")
    };
    let (from, to) = (site.stored(*table), site.precision().stored(site.plan.buffer(*out).dtype));
    if from != to && !(from == DType::F32 && to.is_float()) {
        return Err(format!("it gathers {from} into {to}"));
    }
    let (source, ids_at, target) = (site.operand(*table), site.operand(*ids), site.buffer(*out));
    let places = [placement(&source, from.size()), placement(&target, to.size())];
    let width = width(widest(from.size()), places.into_iter().chain([*row]));
    let counted = |count: usize| {
        u32::try_from(count).map_err(|_| format!("{count} is more than kernels number in 32 bits"))
    };
    let params = GatherParams {
        launch: site.launch,
        table: source,
        ids: ids_at,
        out: target,
        packs: (outer * count * (row / width)) as u64,
        rows: counted(*rows)?,
        row: counted(row / width)?,
        count: counted(*count)?,
        step: counted(index + 1)?,
    };
    let ids = site.stored(*ids);
    let (from, to) = as_moved(from, to, site.is_factor(*out));
    let spec = KernelSpec::new("gather.cu")
        .define("FROM", type_number(from))
        .define("TO", type_number(to))
        .define("IDS", type_number(ids))
        .define("WIDTH", width);
    let blocks = params.packs.div_ceil(256).clamp(1, MAX_BLOCKS) as u32;
    Ok(vec![KernelCall::new(spec, &params, [blocks, site.capacity.items, 1], 256)])
}
