//! Recurrent layers: see `kernels/recurrent_state.cu`.
//!
//! ```text
//!   x ─▶ recurrent_input ─▶ gates, f32 in the workspace ─▶ recurrent_state ─▶ y, h, c      on matrix units
//!        recurrent_input_strict                            recurrent_state_strict           in strict f32
//!                                                          recurrent_reset                  a GRU whose reset comes before its product
//! ```
//! How a layer is spread over multiprocessors, and how much of it stays on chip, follows from its sizes and the precision alone: see [`Spread`].

use crate::Room;
use crate::cuda::abi::{LaunchParams, OperandParams, WalkParams};
use crate::cuda::call::{KernelCall, KernelSpec, params};
use crate::cuda::site::{Site, type_number};
use crate::cuda::steps::functions;
use bytemuck::{Pod, Zeroable};
use tessera_core::{DType, Precision};
use tessera_planner::op::{Cell, CellKind, Unary};
use tessera_planner::pack::{BLOCK_ROW_BYTES, WeightId};
use tessera_planner::plan::{BufferId, Operand, RecurrentShape, StepKind};

/// Shared memory that a block can have: 227 KiB.
const SHARED_BYTES: usize = 227 << 10;
/// Rows of a part of the input's product.
const ROWS: u64 = 32;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct InputParams {
    launch: LaunchParams,
    x: WalkParams,
    w: OperandParams,
    bias: OperandParams,
    gates: u64,
    time: u32,
    input: u32,
    k_blocks: u32,
    unused: u32,
}
params!(InputParams);

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct StateParams {
    launch: LaunchParams,
    r: OperandParams,
    candidate: OperandParams,
    bias: OperandParams,
    peephole: OperandParams,
    length: OperandParams,
    h0: OperandParams,
    c0: OperandParams,
    y: OperandParams,
    h: OperandParams,
    c: OperandParams,
    gates: u64,
    y_offset: u64,
    y_stride: u64,
    time: u32,
    clip: f32,
}
params!(StateParams);

/// Bytes of what the input gives to the gates: f32, for every time of every item; three gates take the room of four.
pub(super) fn workspace_bytes(shape: &RecurrentShape, kind: CellKind, capacity: Room) -> u64 {
    let slots = kind.gates().next_power_of_two();
    u64::from(capacity.items) * (shape.time * shape.hidden * slots * size_of::<f32>()) as u64
}

/// How the states of some items of one lane are spread over a cluster of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Spread {
    /// Blocks of a cluster.
    cluster: usize,
    /// Items of a part.
    items: usize,
    /// Groups of units of a warp.
    per_warp: usize,
    /// Blocks of weights that a warp keeps in registers.
    held: usize,
    /// Blocks of weights that a warp (strict: rows that a block; of a reset: blocks of k that a block) keeps in shared memory.
    kept: usize,
    /// Dynamic shared memory of a block.
    shared_bytes: usize,
}

impl Spread {
    /// On matrix units: a warp sums groups of 8 units, and a block of 8 warps has 8 KiB of each block of k for each gate. `keeps_state` says
    /// whether a state may have to stay as it is.
    fn on_matrix_units(
        hidden: usize,
        element_bytes: usize,
        gates: usize,
        keeps_state: bool,
    ) -> Option<Spread> {
        const WARPS: usize = 8;
        let kept_bytes = WARPS * gates * 1024;
        let k_blocks = (hidden * element_bytes).div_ceil(BLOCK_ROW_BYTES);
        let groups = hidden.div_ceil(8);
        let cluster = groups.div_ceil(WARPS).next_power_of_two().min(8);
        let per_warp = groups.div_ceil(WARPS * cluster);
        let state_bytes = |items: usize| 2 * items * (k_blocks * BLOCK_ROW_BYTES + 16);
        let items = [8, 4, 2, 1].into_iter().find(|&items| state_bytes(items) <= SHARED_BYTES / 2)?;
        // Cells, and where a warp has several groups, states too.
        let own_bytes = if per_warp > 1 || keeps_state { per_warp * 4096 } else { 2048 };
        let fixed = state_bytes(items) + own_bytes;
        let (blocks, room) = (per_warp * k_blocks, SHARED_BYTES.checked_sub(fixed)? / kept_bytes);
        // Four blocks are half of a thread's registers. Where weights also come from L2, those on their way need registers too.
        let held = if blocks <= 4 + room { 4 } else { 2 }.min(k_blocks);
        let kept = (blocks - held).min(room);
        Some(Spread { cluster, items, per_warp, held, kept, shared_bytes: fixed + kept * kept_bytes })
    }

    /// In strict f32: a block takes 64 units at a time, in eight slices of k.
    fn strict(hidden: usize, gates: usize) -> Option<Spread> {
        const PASS: usize = 64;
        const SLICES: usize = 8;
        let cluster = hidden.div_ceil(PASS).next_power_of_two().min(8);
        let units = hidden.div_ceil(cluster);
        let per_item = 2 * hidden + SLICES * gates * PASS + 2 * units.next_multiple_of(PASS);
        let fixed = |items: usize| per_item * items * size_of::<f32>();
        let items = [4, 2, 1].into_iter().find(|&items| fixed(items) <= SHARED_BYTES / 2)?;
        let row_bytes = gates * units * size_of::<f32>();
        let kept = ((SHARED_BYTES - fixed(items)) / row_bytes).min(hidden);
        let shared_bytes = fixed(items) + kept * row_bytes;
        Some(Spread { cluster, items, per_warp: 1, held: 0, kept, shared_bytes })
    }

    /// Of a GRU whose reset comes first: as in strict f32, with k in blocks of 128 bytes.
    fn reset_first(hidden: usize, element_bytes: usize) -> Option<Spread> {
        const PASS: usize = 64;
        const SLICES: usize = 8;
        const THREADS: usize = 512;
        let cluster = hidden.div_ceil(PASS).next_power_of_two().min(8);
        let passes = hidden.div_ceil(cluster).div_ceil(PASS);
        let depth = BLOCK_ROW_BYTES / element_bytes;
        let k_blocks = hidden.div_ceil(depth);
        let per_item = 2 * k_blocks * depth + 2 * SLICES * PASS + 2 * passes * PASS;
        let fixed = |items: usize| per_item * items * size_of::<f32>();
        let items = [4, 2, 1].into_iter().find(|&items| fixed(items) <= SHARED_BYTES / 2)?;
        // A chunk of 16 bytes for each thread and gate.
        let block_bytes = passes * 3 * THREADS * 16;
        let kept = ((SHARED_BYTES - fixed(items)) / block_bytes).min(k_blocks);
        let shared_bytes = fixed(items) + kept * block_bytes;
        Some(Spread { cluster, items, per_warp: 1, held: 0, kept, shared_bytes })
    }
}

/// A recurrent layer of a site.
struct Layer<'a> {
    site: &'a Site<'a>,
    shape: RecurrentShape,
    cell: &'a Cell,
    strict: bool,
}

pub(super) fn calls(site: &Site<'_>, kind: &StepKind) -> Result<Vec<KernelCall>, String> {
    let StepKind::Recurrent { shape, cell, y, h, c, .. } = kind else {
        unreachable!("called for its own kind")
    };
    if shape.time == 0 || shape.input == 0 || shape.hidden == 0 {
        return Err(format!("{shape:?} has nothing to compute"));
    }
    if y.is_none() && h.is_none() && c.is_none() {
        return Ok(Vec::new());
    }
    let layer = Layer { site, shape: *shape, cell, strict: site.precision() == Precision::Fp32 };
    Ok(vec![layer.input(kind)?, layer.state(kind)?])
}

impl Layer<'_> {
    fn input(&self, kind: &StepKind) -> Result<KernelCall, String> {
        let StepKind::Recurrent { x, weights, .. } = kind else { unreachable!("called for its own kind") };
        let (site, shape) = (self.site, self.shape);
        let params = InputParams {
            launch: site.launch,
            x: site.walk(x),
            w: site.operand(Operand::Weight(weights.w)),
            bias: self.vector(weights.bias)?,
            gates: site.workspace,
            time: length(shape.time)?,
            input: length(shape.input)?,
            k_blocks: (shape.input * self.element_bytes()).div_ceil(BLOCK_ROW_BYTES) as u32,
            unused: 0,
        };
        let rows = u64::from(site.capacity.items) * shape.time as u64;
        if u32::try_from(rows).is_err() {
            return Err(format!("{} times of {} items are too many rows", shape.time, site.capacity.items));
        }
        // Each lane's last part may be cut short.
        let parts = ((rows + (ROWS - 1) * u64::from(site.capacity.lanes)) / ROWS) as u32;
        let source = if self.strict { "recurrent_input_strict.cu" } else { "recurrent_input.cu" };
        let mut spec = self.spec(source).define("BIAS", u32::from(weights.bias.is_some()));
        let stored = held(site, x.operand)?;
        if self.strict {
            let panels = (self.cell.kind.gates() * shape.hidden).div_ceil(64) as u32;
            return Ok(KernelCall::new(spec, &params, [parts, panels, 1], 128));
        }
        let bytes = stored.size();
        let aligned = |elements: usize| (elements * bytes).is_multiple_of(16);
        let chunks = matches!(x.operand, Operand::Buffer(id) if site.item_bytes(id).is_multiple_of(16))
            && stored == site.precision().stored(DType::F32)
            && aligned(x.offset)
            && aligned(x.strides[0].unsigned_abs())
            && aligned(shape.input);
        spec = spec.define("X_TYPE", type_number(stored)).define("X_CHUNKS", u32::from(chunks));
        let blocks = shape.hidden.div_ceil(64) as u32;
        Ok(KernelCall::new(spec, &params, [parts, blocks, 1], 256))
    }

    fn state(&self, kind: &StepKind) -> Result<KernelCall, String> {
        let StepKind::Recurrent { weights, length: count, h0, c0, y, y_offset, y_stride, h, c, .. } = kind
        else {
            unreachable!("called for its own kind")
        };
        let (site, shape) = (self.site, self.shape);
        let gates = self.cell.kind.gates();
        let (source, threads, spread) = match (weights.candidate, self.strict) {
            (Some(_), _) => {
                ("recurrent_reset.cu", 512, Spread::reset_first(shape.hidden, self.element_bytes()))
            }
            (None, true) => ("recurrent_state_strict.cu", 512, Spread::strict(shape.hidden, gates)),
            (None, false) => {
                let keeps_state = count.is_some();
                let spread = Spread::on_matrix_units(shape.hidden, self.element_bytes(), gates, keeps_state);
                ("recurrent_state.cu", 256, spread)
            }
        };
        let spread =
            spread.ok_or_else(|| format!("a state of {} units does not fit shared memory", shape.hidden))?;
        let operand = |of: Option<Operand>| of.map_or_else(OperandParams::zeroed, |of| site.operand(of));
        let buffer = |of: Option<BufferId>| operand(of.map(Operand::Buffer));
        let params = StateParams {
            launch: site.launch,
            r: site.operand(Operand::Weight(weights.r)),
            candidate: operand(weights.candidate.map(Operand::Weight)),
            bias: self.vector(weights.bias)?,
            peephole: self.vector(weights.peephole)?,
            length: operand(*count),
            h0: operand(*h0),
            c0: operand(*c0),
            y: buffer(*y),
            h: buffer(*h),
            c: buffer(*c),
            gates: site.workspace,
            y_offset: *y_offset as u64,
            y_stride: *y_stride as u64,
            time: length(shape.time)?,
            clip: self.cell.clip.unwrap_or(f32::INFINITY),
        };
        let mut spec = self
            .functions(self.spec(source))
            .define("BIAS", u32::from(weights.bias.is_some()))
            .define("PEEPHOLE", u32::from(weights.peephole.is_some()))
            .define("LENGTHS", u32::from(count.is_some()))
            .define("CLIP", u32::from(self.cell.clip.is_some()))
            .define("CLUSTER", spread.cluster)
            .define("ITEMS", spread.items)
            .define("KEPT", spread.kept)
            .define("REVERSE", u32::from(shape.reverse))
            .define("WITH_Y", u32::from(y.is_some()))
            .define("WITH_H", u32::from(h.is_some()))
            .define("WITH_C", u32::from(c.is_some()));
        if weights.candidate.is_some() {
            spec = spec.define("R_BLOCKS", u32::from(!self.strict));
        } else if !self.strict {
            spec = spec.define("PER_WARP", spread.per_warp).define("HELD", spread.held);
        }
        for (name, state) in [("H0_TYPE", h0), ("C0_TYPE", c0)] {
            if let Some(state) = state {
                spec = spec.define(name, type_number(held(site, *state)?));
            }
        }
        let (items, lanes) = (site.capacity.items as usize, site.capacity.lanes as usize);
        let parts = (items + (spread.items - 1) * lanes) / spread.items;
        let grid = [(parts * spread.cluster) as u32, 1, 1];
        let call = KernelCall::new(spec, &params, grid, threads).shared(spread.shared_bytes);
        Ok(call.clusters_of(spread.cluster))
    }

    /// A kernel's source with what all kernels of a layer know.
    fn spec(&self, source: &'static str) -> KernelSpec {
        let cell = match self.cell.kind {
            CellKind::Lstm { .. } => 0,
            CellKind::Gru { .. } => 1,
            CellKind::Rnn => 2,
        };
        self.site.spec(source).define("CELL", cell).define("HIDDEN", self.shape.hidden)
    }

    /// The cell's functions, as expressions of `x`; the usual ones have their own forms for each precision.
    fn functions(&self, mut spec: KernelSpec) -> KernelSpec {
        for (name, function) in
            ["FUNCTION_F", "FUNCTION_G", "FUNCTION_H"].into_iter().zip(&self.cell.functions)
        {
            let expression = match function {
                Unary::Sigmoid => "sigmoid(x)".to_owned(),
                Unary::Tanh => "hyperbolic_tangent(x)".to_owned(),
                other => functions::unary(*other, "x"),
            };
            spec = spec.define(name, expression);
        }
        let coupled = self.cell.kind == CellKind::Lstm { input_forget: true };
        spec.define("COUPLED", u32::from(coupled))
    }

    /// Bytes of an element of a matrix.
    fn element_bytes(&self) -> usize {
        self.site.precision().stored(DType::F32).size()
    }

    /// A packed vector, which kernels read as f32; zeroed when there is none.
    fn vector(&self, id: Option<WeightId>) -> Result<OperandParams, String> {
        let Some(id) = id else { return Ok(OperandParams::zeroed()) };
        match self.site.stored(Operand::Weight(id)) {
            DType::F32 => Ok(self.site.operand(Operand::Weight(id))),
            other => Err(format!("its bias is held as {other}")),
        }
    }
}

/// How floats are held.
fn held(site: &Site<'_>, operand: Operand) -> Result<DType, String> {
    match site.stored(operand) {
        float @ (DType::F32 | DType::BF16 | DType::F16) => Ok(float),
        other => Err(format!("it reads {other}, and recurrent layers are of floats")),
    }
}

fn length(length: usize) -> Result<u32, String> {
    u32::try_from(length).map_err(|_| format!("{length} is too long an axis"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_of_512_stays_on_chip_in_halves_and_in_part_in_f32() {
        let halves = Spread::on_matrix_units(512, 2, 4, false).unwrap();
        assert_eq!((halves.cluster, halves.held + halves.kept), (8, 8));
        let floats = Spread::on_matrix_units(512, 4, 4, false).unwrap();
        assert_eq!((floats.held, floats.kept), (2, 6));
        assert_eq!(Spread::strict(512, 4).unwrap().kept, 177);
        // Three gates leave room for more of them.
        assert!(Spread::on_matrix_units(512, 4, 3, false).unwrap().kept > floats.kept);
    }

    #[test]
    fn a_layer_of_512_whose_reset_comes_first_stays_on_chip_in_halves() {
        let halves = Spread::reset_first(512, 2).unwrap();
        assert_eq!((halves.cluster, halves.items, halves.kept), (8, 4, 8));
        assert_eq!(Spread::reset_first(512, 4).unwrap().kept, 8);
    }

    #[test]
    fn every_size_fits_or_is_refused() {
        for hidden in (1..70).chain((70..40_000).step_by(97)) {
            for spread in [
                Spread::on_matrix_units(hidden, 2, 4, false),
                Spread::on_matrix_units(hidden, 4, 4, true),
                Spread::on_matrix_units(hidden, 2, 3, true),
                Spread::on_matrix_units(hidden, 4, 1, false),
                Spread::strict(hidden, 4),
                Spread::strict(hidden, 1),
                Spread::reset_first(hidden, 2),
                Spread::reset_first(hidden, 4),
            ] {
                let Some(spread) = spread else {
                    assert!(hidden > 10_000, "{hidden} units are refused");
                    continue;
                };
                assert!(spread.shared_bytes <= SHARED_BYTES, "{hidden}: {spread:?}");
            }
            let Some(spread) = Spread::on_matrix_units(hidden, 2, 4, false) else { continue };
            assert!(spread.per_warp * spread.cluster * 64 >= hidden, "{hidden}: every unit has a warp");
        }
    }
}
