//! Layer normalisation and softmax: see `kernels/rows.cu`.
//!
//! How a row's sum is divided among threads comes from its length and type alone.

use super::blocks;
use super::vector::{widest, width};
use crate::cuda::abi::{LaunchParams, OperandParams};
use crate::cuda::call::{KernelCall, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_core::DType;
use tessera_planner::plan::{BufferId, Operand, StepKind};

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct RowsParams {
    launch: LaunchParams,
    x: OperandParams,
    out: OperandParams,
    scale: OperandParams,
    bias: OperandParams,
    rows: u32,
    cols: u32,
    epsilon: f32,
    unused: u32,
}
params!(RowsParams);

/// Threads of a block.
const THREADS: usize = 256;
/// Longest row of a warp: 32 elements a thread.
const WARP_COLS: usize = 1024;
/// Elements that a thread keeps in registers.
const HELD: usize = 32;

/// What the steps have in common.
struct Rows {
    x: Operand,
    out: BufferId,
    rows: usize,
    cols: usize,
}

pub(super) fn calls(site: &Site<'_>, kind: &StepKind) -> Result<Vec<KernelCall>, String> {
    match kind {
        StepKind::LayerNorm { x, rows, cols, centred, epsilon, scale, bias, out } => {
            let rows = Rows { x: *x, out: *out, rows: *rows, cols: *cols };
            rows.calls(site, if *centred { 0 } else { 3 }, Some((*scale, *bias)), *epsilon)
        }
        StepKind::Softmax { x, rows, cols, log, out } => {
            let rows = Rows { x: *x, out: *out, rows: *rows, cols: *cols };
            rows.calls(site, if *log { 2 } else { 1 }, None, 0.0)
        }
        _ => unreachable!("called for its own kinds"),
    }
}

impl Rows {
    fn calls(
        &self,
        site: &Site<'_>,
        kind: u32,
        affine: Option<(Operand, Option<Operand>)>,
        epsilon: f32,
    ) -> Result<Vec<KernelCall>, String> {
        let counted = |count: usize| u32::try_from(count).map_err(|_| format!("a row of {count} elements"));
        let (rows, cols) = (counted(self.rows)?, counted(self.cols)?);
        let stored = site.stored(self.x);
        let shape = RowShape::of(self.cols, stored);
        let absent = OperandParams { base: 0, item_bytes: 0, kind: 1, unused: 0 };
        let (scale, bias) = affine.map_or((None, None), |(scale, bias)| (Some(scale), bias));
        let params = RowsParams {
            launch: site.launch,
            x: site.operand(self.x),
            out: site.buffer(self.out),
            scale: scale.map_or(absent, |scale| site.operand(scale)),
            bias: bias.map_or(absent, |bias| site.operand(bias)),
            rows,
            cols,
            epsilon,
            unused: 0,
        };
        let mut spec = site
            .spec("rows.cu")
            .define("TYPE", type_number(stored))
            .define("KIND", kind)
            .define("THREADS", shape.threads)
            .define("WIDTH", shape.width)
            .define("PACKS", shape.packs);
        if let Some(scale) = scale {
            spec = spec.define("SCALE", type_number(site.stored(scale)));
        }
        if let Some(bias) = bias {
            spec = spec.define("BIAS", type_number(site.stored(bias)));
        }
        let grid = [blocks(rows, (THREADS / shape.threads) as u32), site.capacity.items, 1];
        Ok(vec![KernelCall::new(spec, &params, grid, THREADS as u32)])
    }
}

/// How a row is divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct RowShape {
    /// Of one row.
    threads: usize,
    /// Neighbours that a thread takes at once.
    width: usize,
    /// What a thread keeps: a power of two, so that few kernels serve all lengths; 0 when it keeps none.
    packs: usize,
}

impl RowShape {
    fn of(cols: usize, stored: DType) -> RowShape {
        let threads = if cols <= WARP_COLS { 32 } else { THREADS };
        let width = width(widest(stored.size()), [cols]);
        let packs = cols.div_ceil(width).div_ceil(threads).next_power_of_two();
        RowShape { threads, width, packs: if packs * width <= HELD { packs } else { 0 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_divided_by_its_length() {
        let shape = |cols, dtype| {
            let RowShape { threads, width, packs } = RowShape::of(cols, dtype);
            (threads, width, packs)
        };
        assert_eq!(shape(768, DType::BF16), (32, 8, 4));
        assert_eq!(shape(1024, DType::F32), (32, 4, 8));
        assert_eq!(shape(37, DType::F32), (32, 1, 2));
        assert_eq!(shape(1025, DType::BF16), (256, 1, 8));
        assert_eq!(shape(8192, DType::BF16), (256, 8, 4));
        assert_eq!(shape(50257, DType::F32), (256, 1, 0));
    }
}
