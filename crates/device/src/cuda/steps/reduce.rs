//! Reductions: see `kernels/reduce.cu`.
//!
//! What is decided here of the order of a sum, its number of strands, comes from the step alone.

use super::vector::{placement, width};
use super::{Dims, blocks};
use crate::cuda::abi::{LaunchParams, MAX_AXES, OperandParams};
use crate::cuda::call::{KernelCall, KernelSpec, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_core::DType;
use tessera_planner::op::Reduction;
use tessera_planner::plan::StepKind;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ReduceParams {
    launch: LaunchParams,
    x: OperandParams,
    out: OperandParams,
    offset: i64,
    kept_strides: [i64; MAX_AXES],
    reduced_strides: [i64; MAX_AXES],
    kept: [u32; MAX_AXES],
    reduced: [u32; MAX_AXES],
    packs: u32,
    length: u32,
    strands: u32,
    strands_apart: u32,
}
params!(ReduceParams);

/// Threads of a block.
const THREADS: u32 = 256;

pub(super) fn calls(site: &Site<'_>, kind: &StepKind) -> Result<Vec<KernelCall>, String> {
    let StepKind::Reduce { kind, x, kept, reduced, out } = kind else {
        unreachable!("called for its own kind")
    };
    let (kept_strides, reduced_strides) = x.strides.split_at(kept.len());
    let mut dense = vec![1isize; kept.len()];
    for axis in (1..kept.len()).rev() {
        dense[axis - 1] = dense[axis] * kept[axis] as isize;
    }
    let kept = Dims::joined(kept, &[kept_strides, &dense])?;
    let reduced = Dims::joined(reduced, &[reduced_strides])?;
    let stored = site.stored(x.operand);
    let side_by_side = kept.strides[0].last() == Some(&1);
    let operand = site.operand(x.operand);
    let width = if side_by_side {
        let outer = kept.strides[0].split_last().map_or(&[][..], |(_, outer)| outer);
        let strides = outer.iter().chain(&reduced.strides[0]).map(|stride| stride.unsigned_abs());
        let rest = [x.offset, placement(&operand, stored.size())];
        width((16 / stored.size()).min(8), strides.chain(kept.dims.last().copied()).chain(rest))
    } else {
        1
    };
    let axes = kept.dims.len().max(1);
    let mut packs = kept.padded_dims();
    packs[axes - 1] /= width as u32;
    let strands = strands(reduced.elements(), side_by_side);
    let params = ReduceParams {
        launch: site.launch,
        x: operand,
        out: site.buffer(*out),
        offset: x.offset as i64,
        kept_strides: kept.padded_strides(0),
        reduced_strides: reduced.padded_strides(0),
        kept: packs,
        reduced: reduced.padded_dims(),
        packs: kept.elements() / width as u32,
        length: reduced.elements(),
        strands,
        strands_apart: u32::from(side_by_side),
    };
    let written = site.precision().stored(site.plan.buffer(*out).dtype);
    if (stored == DType::I64) != (written == DType::I64) {
        return Err(format!("it reduces {stored} to {written}"));
    }
    let spec = KernelSpec::new("reduce.cu")
        .define("TYPE", type_number(stored))
        .define("OUT", type_number(written))
        .define("KIND", number(*kind))
        .define("WIDTH", width)
        .define("KEPT_AXES", axes)
        .define("REDUCED_AXES", reduced.dims.len().max(1));
    let grid = [blocks(params.packs, THREADS / strands), site.capacity.items, 1];
    Ok(vec![KernelCall::new(spec, &params, grid, THREADS)])
}

/// Into how many strands a reduction of so many elements is cut: of four elements, which a thread asks for together, so that a small image is
/// on its way at once. Where outputs are neighbours, their threads must leave room for a sector of outputs; where elements are, more threads
/// only read together.
fn strands(length: u32, side_by_side: bool) -> u32 {
    length.div_ceil(4).next_power_of_two().clamp(1, if side_by_side { 64 } else { THREADS })
}

/// As the kernel numbers them.
fn number(kind: Reduction) -> u32 {
    match kind {
        Reduction::Sum => 0,
        Reduction::Mean => 1,
        Reduction::Max => 2,
        Reduction::Min => 3,
        Reduction::Prod => 4,
        Reduction::L1 => 5,
        Reduction::L2 => 6,
        Reduction::SumSquare => 7,
        Reduction::LogSum => 8,
        Reduction::LogSumExp => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strands_are_a_power_of_two_that_divides_a_block() {
        for length in [0, 1, 7, 49, 768, 12544, u32::MAX / 2] {
            for side_by_side in [false, true] {
                assert_eq!(THREADS % strands(length, side_by_side), 0);
            }
        }
        assert_eq!((strands(49, true), strands(49, false), strands(3, false)), (16, 16, 1));
    }
}
