//! Where maxima lie: see `kernels/pool_indices.cu`.

use super::blocks;
use crate::cuda::abi::{LaunchParams, OperandParams};
use crate::cuda::call::{KernelCall, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_planner::plan::StepKind;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct PoolIndicesParams {
    launch: LaunchParams,
    x: OperandParams,
    out: OperandParams,
    input: [u32; 3],
    output: [u32; 3],
    kernel: [u32; 3],
    strides: [u32; 3],
    dilations: [u32; 3],
    before: [i32; 3],
    steps: [u32; 3],
    planes: u32,
}
params!(PoolIndicesParams);

pub(super) fn calls(site: &Site<'_>, kind: &StepKind) -> Result<Vec<KernelCall>, String> {
    let StepKind::PoolIndices { x, shape, out } = kind else { unreachable!("called for its own kind") };
    let reach = |axis: usize| {
        let window = (shape.kernel[axis] - 1) * shape.dilations[axis];
        shape.input[axis] + (shape.output[axis] - 1) * shape.strides[axis] + window
    };
    let counts = [shape.input.iter().product(), shape.output.iter().product(), reach(0), reach(1), reach(2)];
    if counts.iter().any(|count: &usize| i32::try_from(count.saturating_mul(shape.planes)).is_err()) {
        return Err(format!(
            "{} planes of {counts:?} elements are more than kernels number in 31 bits",
            shape.planes
        ));
    }
    let three = |extents: [usize; 3]| extents.map(|extent| extent as u32);
    let params = PoolIndicesParams {
        launch: site.launch,
        x: site.operand(*x),
        out: site.buffer(*out),
        input: three(shape.input),
        output: three(shape.output),
        kernel: three(shape.kernel),
        strides: three(shape.strides),
        dilations: three(shape.dilations),
        before: shape.before.map(|padding| padding as i32),
        steps: three(shape.steps),
        planes: shape.planes as u32,
    };
    let places = shape.planes * shape.output.iter().product::<usize>();
    let spec = site.spec("pool_indices.cu").define("TYPE", type_number(site.stored(*x)));
    let grid = [blocks(places as u32, 256), site.capacity.items, 1];
    Ok(vec![KernelCall::new(spec, &params, grid, 256)])
}
