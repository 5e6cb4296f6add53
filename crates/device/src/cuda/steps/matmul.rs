//! Products of intermediate values: see `kernels/matmul.cu`.

use super::Dims;
use crate::cuda::abi::{LaunchParams, MAX_AXES, OperandParams, WalkParams};
use crate::cuda::call::{KernelCall, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_core::DType;
use tessera_planner::plan::{Access, Operand, StepKind};

/// Rows and columns of a block's tile.
const TILE: usize = 64;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct MatMulParams {
    launch: LaunchParams,
    a: WalkParams,
    b: WalkParams,
    out: OperandParams,
    a_row: i64,
    a_k: i64,
    b_k: i64,
    b_column: i64,
    dims: [u32; MAX_AXES],
    axes: u32,
    m: u32,
    n: u32,
    k: u32,
    row_tiles: u32,
    column_tiles: u32,
    alpha: f32,
    unused: u32,
}
params!(MatMulParams);

pub(super) fn calls(site: &Site<'_>, kind: &StepKind) -> Result<Vec<KernelCall>, String> {
    let StepKind::MatMul { batch, m, n, k, a, b, alpha, out } = kind else {
        unreachable!("called for its own kind")
    };
    let rank = batch.len();
    let walk = Dims::joined(batch, &[&a.strides[..rank], &b.strides[..rank]])?;
    let batches =
        |access: &Access, side: usize| Access { strides: walk.strides[side].clone(), ..access.clone() };
    let (row_tiles, column_tiles) = (m.div_ceil(TILE), n.div_ceil(TILE));
    let blocks = (batch.iter().product::<usize>()).saturating_mul(row_tiles).saturating_mul(column_tiles);
    let blocks =
        i32::try_from(blocks).map_err(|_| format!("{batch:?} products of {m} × {n} are too many"))?;
    if blocks == 0 {
        return Ok(Vec::new());
    }
    let size = |length: usize| u32::try_from(length).map_err(|_| format!("{length} is too long an axis"));
    let params = MatMulParams {
        launch: site.launch,
        a: site.walk(&batches(a, 0)),
        b: site.walk(&batches(b, 1)),
        out: site.buffer(*out),
        a_row: a.strides[rank] as i64,
        a_k: a.strides[rank + 1] as i64,
        b_k: b.strides[rank] as i64,
        b_column: b.strides[rank + 1] as i64,
        dims: walk.padded_dims(),
        axes: walk.dims.len() as u32,
        m: size(*m)?,
        n: size(*n)?,
        k: size(*k)?,
        row_tiles: row_tiles as u32,
        column_tiles: column_tiles as u32,
        alpha: *alpha,
        unused: 0,
    };
    let held = |operand: Operand| match site.stored(operand) {
        float @ (DType::F32 | DType::BF16 | DType::F16) => Ok(type_number(float)),
        other => Err(format!("it multiplies {other}, and products are of floats")),
    };
    let spec = site.spec("matmul.cu").define("A_TYPE", held(a.operand)?).define("B_TYPE", held(b.operand)?);
    Ok(vec![KernelCall::new(spec, &params, [blocks as u32, site.capacity.items, 1], 256)])
}
