//! Fused attention: see `kernels/attention.cu`, and `kernels/attention_halves.cu` for what has a kernel on matrix units.

use crate::cuda::abi::{LaunchParams, OperandParams, WalkParams};
use crate::cuda::call::{KernelCall, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_core::DType;
use tessera_planner::plan::{Access, AttentionShape, BufferId, Operand, StepKind};

/// Queries of a block, and keys of a tile.
const TILE: usize = 64;
/// Widest head, in q and in v, whose fragments fit registers.
const WIDEST: usize = 128;

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
    let halves = site.precision().stored(DType::F32).size() == 2
        && (1..=WIDEST).contains(&shape.head_dim)
        && (1..=WIDEST).contains(&shape.value_dim);
    // On matrix units a block has all of v, which is padded; else its columns are cut over blocks.
    let values = match (halves, shape.value_dim) {
        (true, dim) => dim.next_multiple_of(16),
        (false, ..=64) => 64,
        (false, _) => 128,
    };
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
        .spec(if halves { "attention_halves.cu" } else { "attention.cu" })
        .define("Q_TYPE", held(q)?)
        .define("K_TYPE", held(k)?)
        .define("V_TYPE", held(v)?);
    if let Some(mask) = mask {
        spec = spec.define("MASK_TYPE", held(mask)?);
    }
    let grid = [blocks as u32, site.capacity.items, 1];
    if !halves {
        return Ok(vec![KernelCall::new(spec.define("VALUES", values), &params, grid, 256)]);
    }
    let head = shape.head_dim.next_multiple_of(16);
    let by_query = mask.as_ref().is_some_and(|mask| mask.strides[1] != 0 && shape.queries > 1);
    let spec = spec
        .define("HEAD", head)
        .define("VALUE", values)
        .define("Q_CHUNKS", u32::from(in_chunks(site, q, shape.head_dim)))
        .define("K_CHUNKS", u32::from(in_chunks(site, k, shape.head_dim)))
        .define("V_CHUNKS", u32::from(in_chunks(site, v, shape.value_dim)))
        .define("OUT_PAIRS", u32::from(in_pairs(site, *out, *out_strides, shape)))
        .define("MASK_ROWS", u32::from(by_query));
    // q, then two tiles of k and v with two rows of the mask. A row is 8 elements longer than its dimension.
    let shared = TILE * 2 * ((head + 8) + 2 * (head + 8) + 2 * (values + 8)) + 2 * TILE * size_of::<f32>();
    Ok(vec![KernelCall::new(spec, &params, grid, 128).shared(shared)])
}

/// Whether rows of `dim` halves can be read 16 bytes at a time.
fn in_chunks(site: &Site<'_>, access: &Access, dim: usize) -> bool {
    let eighths = |elements: usize| elements.is_multiple_of(8);
    let halves = site.stored(access.operand) == site.precision().stored(DType::F32);
    let buffer = matches!(access.operand, Operand::Buffer(id) if site.item_bytes(id).is_multiple_of(16));
    let [head, row, column] = access.strides[..] else { unreachable!("attention walks three axes") };
    halves
        && buffer
        && column == 1
        && [access.offset, dim, head.unsigned_abs(), row.unsigned_abs()].into_iter().all(eighths)
}

/// Whether the result can be written two halves at a time.
fn in_pairs(site: &Site<'_>, out: BufferId, strides: [usize; 2], shape: &AttentionShape) -> bool {
    site.item_bytes(out).is_multiple_of(4)
        && [strides[0], strides[1], shape.value_dim].into_iter().all(|elements| elements.is_multiple_of(2))
}
