//! Fused attention: see `kernels/attention.cu`.

use crate::cuda::abi::{LaunchParams, OperandParams, WalkParams};
use crate::cuda::call::{KernelCall, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_core::DType;
use tessera_planner::plan::{Access, StepKind};

/// Queries of a block, and keys of a tile.
const TILE: usize = 64;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct AttentionParams {
    launch: LaunchParams,
    q: WalkParams,
    k: WalkParams,
    v: WalkParams,
    mask: WalkParams,
    out: OperandParams,
    out_head: i64,
    out_query: i64,
    queries: u32,
    keys: u32,
    head_dim: u32,
    value_dim: u32,
    query_tiles: u32,
    value_tiles: u32,
    scale: f32,
    unused: u32,
}
params!(AttentionParams);

pub(super) fn calls(site: &Site<'_>, kind: &StepKind) -> Result<Vec<KernelCall>, String> {
    let StepKind::Attention { shape, q, k, v, mask, out, out_strides } = kind else {
        unreachable!("called for its own kind")
    };
    if shape.keys == 0 {
        return Err("it attends to no keys".to_owned());
    }
    let size = |length: usize| u32::try_from(length).map_err(|_| format!("{length} is too long an axis"));
    let held = |access: &Access| match site.stored(access.operand) {
        float @ (DType::F32 | DType::BF16 | DType::F16) => Ok(type_number(float)),
        other => Err(format!("it reads {other}, and attention is over floats")),
    };
    let values = if shape.value_dim <= 64 { 64 } else { 128 };
    let (query_tiles, value_tiles) = (shape.queries.div_ceil(TILE), shape.value_dim.div_ceil(values));
    let blocks = shape.heads.saturating_mul(query_tiles).saturating_mul(value_tiles);
    let blocks = i32::try_from(blocks).map_err(|_| format!("{} heads are too many", shape.heads))?;
    if blocks == 0 {
        return Ok(Vec::new());
    }
    let params = AttentionParams {
        launch: site.launch,
        q: site.walk(q),
        k: site.walk(k),
        v: site.walk(v),
        // Without a mask nothing reads this.
        mask: mask.as_ref().map_or_else(WalkParams::zeroed, |mask| site.walk(mask)),
        out: site.buffer(*out),
        out_head: out_strides[0] as i64,
        out_query: out_strides[1] as i64,
        queries: size(shape.queries)?,
        keys: size(shape.keys)?,
        head_dim: size(shape.head_dim)?,
        value_dim: size(shape.value_dim)?,
        query_tiles: query_tiles as u32,
        value_tiles: value_tiles as u32,
        scale: shape.scale,
        unused: 0,
    };
    let mut spec = site
        .spec("attention.cu")
        .define("Q_TYPE", held(q)?)
        .define("K_TYPE", held(k)?)
        .define("V_TYPE", held(v)?)
        .define("VALUES", values);
    if let Some(mask) = mask {
        spec = spec.define("MASK_TYPE", held(mask)?);
    }
    Ok(vec![KernelCall::new(spec, &params, [blocks as u32, site.capacity.items, 1], 256)])
}
