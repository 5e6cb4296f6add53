//! Elements in order, running sums, lines made longer or shorter: see `kernels/{top_k,cum_sum,resample}.cu`.

use super::blocks;
use super::vector::{placement, widest, width};
use crate::cuda::abi::{LaunchParams, OperandParams};
use crate::cuda::call::{KernelCall, KernelSpec, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_core::DType;
use tessera_planner::plan::{CumSum, Operand, Resample, TopK};

/// The lines of a dense value along one of its axes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Lines {
    count: u32,
    length: u32,
    inner: u32,
    unused: u32,
}
const _: () = assert!(size_of::<Lines>() == 16);

impl Lines {
    fn of(lines: tessera_planner::plan::Lines) -> Result<Lines, String> {
        Ok(Lines {
            count: counted(lines.outer * lines.inner)?,
            length: counted(lines.length)?,
            inner: counted(lines.inner)?,
            unused: 0,
        })
    }
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct TopKParams {
    launch: LaunchParams,
    x: OperandParams,
    values: OperandParams,
    indices: OperandParams,
    lines: Lines,
    k: u32,
    unused: u32,
}
params!(TopKParams);

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct CumSumParams {
    launch: LaunchParams,
    x: OperandParams,
    out: OperandParams,
    lines: Lines,
}
params!(CumSumParams);

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ResampleParams {
    launch: LaunchParams,
    x: OperandParams,
    out: OperandParams,
    at: OperandParams,
    weights: OperandParams,
    packs: u64,
    length: u32,
    count: u32,
    inner: u32,
    taps: u32,
}
params!(ResampleParams);

/// Threads of a block.
const THREADS: u32 = 256;
/// Most blocks of one item; each walks on from there.
const MAX_BLOCKS: u64 = 1 << 16;

fn counted(count: usize) -> Result<u32, String> {
    let fits = i32::try_from(count).map_err(|_| format!("{count} is more than kernels number in 31 bits"));
    fits.map(|count| count as u32)
}

/// Numbers are compared and added as what they are, or as f32.
fn number(site: &Site<'_>, operand: Operand) -> Result<DType, String> {
    match site.stored(operand) {
        DType::Bool => Err("truths are neither compared nor added".to_owned()),
        dtype => Ok(dtype),
    }
}

pub(super) fn top_k(site: &Site<'_>, step: &TopK) -> Result<Vec<KernelCall>, String> {
    let stored = number(site, step.x)?;
    let lines = Lines::of(step.lines)?;
    let nowhere = OperandParams { base: 0, item_bytes: 0, kind: 0, unused: 0 };
    let params = TopKParams {
        launch: site.launch,
        x: site.operand(step.x),
        values: step.values.map_or(nowhere, |id| site.buffer(id)),
        indices: step.indices.map_or(nowhere, |id| site.buffer(id)),
        lines,
        k: counted(step.k)?,
        unused: 0,
    };
    let written = step.values.map_or(stored, |id| site.stored(Operand::Buffer(id)));
    // As many for a line as have four elements each to look at.
    let threads = lines.length.div_ceil(4).next_power_of_two().clamp(1, THREADS);
    let spec = KernelSpec::new("top_k.cu")
        .define("TYPE", type_number(stored))
        .define("OUT", type_number(written))
        .define("LARGEST", u32::from(step.largest))
        .define("LAST", u32::from(step.last))
        .define("VALUES", u32::from(step.values.is_some()))
        .define("INDICES", u32::from(step.indices.is_some()))
        .define("THREADS", threads);
    let grid = [blocks(lines.count, THREADS / threads), site.capacity.items, 1];
    Ok(vec![KernelCall::new(spec, &params, grid, THREADS)])
}

pub(super) fn cum_sum(site: &Site<'_>, step: &CumSum) -> Result<Vec<KernelCall>, String> {
    let lines = Lines::of(step.lines)?;
    let params =
        CumSumParams { launch: site.launch, x: site.operand(step.x), out: site.buffer(step.out), lines };
    let spec = KernelSpec::new("cum_sum.cu")
        .define("TYPE", type_number(number(site, step.x)?))
        .define("OUT", type_number(site.stored(Operand::Buffer(step.out))))
        .define("EXCLUSIVE", u32::from(step.exclusive))
        .define("REVERSE", u32::from(step.reverse));
    Ok(vec![KernelCall::new(spec, &params, [blocks(lines.count, THREADS), site.capacity.items, 1], THREADS)])
}

pub(super) fn resample(site: &Site<'_>, step: &Resample) -> Result<Vec<KernelCall>, String> {
    let (x, out) = (site.operand(step.x), site.buffer(step.out));
    let (from, to) = (site.stored(step.x), site.stored(Operand::Buffer(step.out)));
    let places = [placement(&x, from.size()), placement(&out, to.size()), step.lines.inner];
    let width = width(widest(from.size().max(to.size())), places);
    let made = step.lines.with_length(step.count);
    let params = ResampleParams {
        launch: site.launch,
        x,
        out,
        at: site.operand(Operand::Constant(step.at)),
        weights: site.operand(Operand::Constant(step.weights)),
        packs: (made.elements() / width) as u64,
        length: counted(step.lines.length)?,
        count: counted(step.count)?,
        inner: counted(step.lines.inner / width)?,
        taps: counted(step.taps)?,
    };
    let spec = KernelSpec::new("resample.cu")
        .define("TYPE", type_number(from))
        .define("OUT", type_number(to))
        .define("WIDTH", width);
    let blocks = params.packs.div_ceil(u64::from(THREADS)).clamp(1, MAX_BLOCKS) as u32;
    Ok(vec![KernelCall::new(spec, &params, [blocks, site.capacity.items, 1], THREADS)])
}
