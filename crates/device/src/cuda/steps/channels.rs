//! Normalisations over channels: see `kernels/group_norm.cu` and `kernels/lrn.cu`.
//!
//! How a group's sum is divided among threads comes from the channels and groups alone.

use super::blocks;
use crate::cuda::abi::{LaunchParams, OperandParams};
use crate::cuda::call::{KernelCall, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_planner::plan::StepKind;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct GroupNormParams {
    launch: LaunchParams,
    x: OperandParams,
    out: OperandParams,
    scale: OperandParams,
    bias: OperandParams,
    pixels: u32,
    channels: u32,
    group: u32,
    groups: u32,
    per_vector: u32,
    epsilon: f32,
}
params!(GroupNormParams);

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct LrnParams {
    launch: LaunchParams,
    x: OperandParams,
    out: OperandParams,
    elements: u32,
    channels: u32,
    size: u32,
    factor: f32,
    beta: f32,
    bias: f32,
}
params!(LrnParams);

/// Threads of a block.
const THREADS: u32 = 256;
/// Channels that a warp reads side by side.
const WARP: usize = 32;

pub(super) fn group_norm(site: &Site<'_>, kind: &StepKind) -> Result<Vec<KernelCall>, String> {
    let StepKind::GroupNorm { x, shape, epsilon, scale, bias, out } = kind else {
        unreachable!("called for its own kind")
    };
    let group = shape.channels / shape.groups;
    let images = u16::try_from(shape.images).map_err(|_| format!("{} images of one item", shape.images))?;
    let elements = numbered(shape.pixels * shape.channels)?;
    let division = Division::of(group, shape.groups);
    let params = GroupNormParams {
        launch: site.launch,
        x: site.operand(*x),
        out: site.buffer(*out),
        scale: site.operand(*scale),
        bias: site.operand(*bias),
        pixels: elements / shape.channels as u32,
        channels: shape.channels as u32,
        group: group as u32,
        groups: division.groups as u32,
        per_vector: (shape.channels / shape.vectors) as u32,
        epsilon: *epsilon,
    };
    let spec = site
        .spec("group_norm.cu")
        .define("TYPE", type_number(site.stored(*x)))
        .define("SCALE", type_number(site.stored(*scale)))
        .define("BIAS", type_number(site.stored(*bias)))
        .define("COLUMNS", division.columns);
    let grid = [blocks(shape.groups as u32, division.groups as u32), site.capacity.items, u32::from(images)];
    Ok(vec![KernelCall::new(spec, &params, grid, THREADS)])
}

/// Which channels a block has, and how many of its threads lie side by side over them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Division {
    groups: usize,
    columns: usize,
}

impl Division {
    fn of(group: usize, groups: usize) -> Division {
        // Small groups share a block, so that a warp reads whole sectors.
        let groups = (WARP / group).clamp(1, groups);
        let columns = (groups * group).next_power_of_two().min(THREADS as usize);
        Division { groups, columns }
    }
}

pub(super) fn lrn(site: &Site<'_>, kind: &StepKind) -> Result<Vec<KernelCall>, String> {
    let StepKind::Lrn { x, pixels, channels, shape, out } = kind else {
        unreachable!("called for its own kind")
    };
    let elements = numbered(pixels * channels)?;
    let params = LrnParams {
        launch: site.launch,
        x: site.operand(*x),
        out: site.buffer(*out),
        elements,
        channels: *channels as u32,
        size: shape.size as u32,
        factor: shape.alpha / shape.size as f32,
        beta: shape.beta,
        bias: shape.bias,
    };
    let spec = site.spec("lrn.cu").define("TYPE", type_number(site.stored(*x)));
    let grid = [blocks(elements, THREADS), site.capacity.items, 1];
    Ok(vec![KernelCall::new(spec, &params, grid, THREADS)])
}

fn numbered(elements: usize) -> Result<u32, String> {
    let numbered = i32::try_from(elements).ok().and_then(|elements| u32::try_from(elements).ok());
    numbered.ok_or_else(|| format!("an image of {elements} elements is more than kernels number in 31 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_groups_share_a_block() {
        assert_eq!(Division::of(1, 64), Division { groups: 32, columns: 32 });
        assert_eq!(Division::of(1, 3), Division { groups: 3, columns: 4 });
        assert_eq!(Division::of(10, 32), Division { groups: 3, columns: 32 });
        assert_eq!(Division::of(16, 32), Division { groups: 2, columns: 32 });
        assert_eq!(Division::of(40, 8), Division { groups: 1, columns: 64 });
        assert_eq!(Division::of(1024, 2), Division { groups: 1, columns: 256 });
    }
}
