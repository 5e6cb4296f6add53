//! A plan: a class at given free dimensions, as a list of fused steps with every buffer placed.
//!
//! Everything here is **per item**. A launch of R lanes and N items runs each step once, for all of them:
//!
//! ```text
//!   arena   [buffer][item of the launch][item shape…]     address = arena + capacity·buffer.offset + item·buffer.bytes
//!   weights [slot][packed tensor]                          address = slab  + slot·layout.bytes + tensor.offset
//!   constants, shared by all lanes
//! ```
//! Buffers are dense and row-major. Images are `[height][width][channels]` wherever a step says so: lowering inserts
//! the copies at the borders. Where a step reads or writes something other than a whole dense buffer, it carries an
//! [`Access`] with strides, so that transposes, slices and splits need no step of their own when their reader can walk.
//!
//! **Order of arithmetic.** A sum over K runs from K's first element to its last in segments of [`K_SEGMENT`]; segments are added in
//! order. Tiles, threads, lanes and item counts change who computes an element, never how. That is the bitwise promise.

mod lines;
mod shapes;

pub use lines::{CumSum, Lines, Pick, Points, Resample, Scatter, TopK};
pub use shapes::{
    AttentionShape, ConvShape, GroupShape, LrnShape, PlaneShape, PoolKind, RecurrentShape, RecurrentWeights,
};

use crate::op::{Binary, Cell, CellKind, Unary};
use crate::pack::WeightId;
use crate::tensor::Tensor;
use std::ops::Range;
use tessera_core::{Bytes, DType, PlanKey};

/// K is summed in runs of this many products, each from zero, and the runs are added in order (a property of the
/// plan, not of a device: see the module's text). 256 keeps a run's panel in the first-level cache.
pub const K_SEGMENT: usize = 256;

/// A class at given free dimensions and precision, ready to be compiled for a device.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it is a plan of.
    pub key: PlanKey,
    /// Whether several items of a request, and several requests of a tenant, may share a lane. When not, one
    /// request is one item.
    pub batched: bool,
    /// What a request brings, in the class's order.
    pub inputs: Vec<Port>,
    /// What an answer holds, in the class's order.
    pub outputs: Vec<Port>,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// Every intermediate value, placed.
    pub buffers: Vec<Buffer>,
    /// The arena that one item needs.
    pub arena_per_item: Bytes,
    /// Values that are the same for every tenant of the class.
    pub constants: Vec<Tensor>,
    /// Runs of steps that are launched as a unit, covering `steps` in order.
    pub segments: Vec<Range<usize>>,
}

/// An input or output. The whole tensor of `n` items has the shape `[n·dims[0], dims[1..]…]`, row-major, so items
/// lie one after the other. A whole-request plan (`!batched`) has one item and its shape is `dims` itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Port {
    /// Element type on the wire and in the buffer. Halves and doubles stand here alone: steps between inputs and outputs compute in f32.
    pub dtype: DType,
    /// Dimensions of one item.
    pub dims: Vec<usize>,
    /// Where it lies. Two outputs may name one buffer; an output may be an input's buffer or a constant.
    pub at: Operand,
}

impl Port {
    /// Bytes of one item.
    pub fn bytes_per_item(&self) -> usize {
        self.dims.iter().product::<usize>() * self.dtype.size()
    }
}

/// Index into [`Plan::buffers`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BufferId(pub u32);

/// Index into [`Plan::constants`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConstantId(pub u32);

/// A dense intermediate value of one item.
#[derive(Clone, PartialEq, Debug)]
pub struct Buffer {
    /// Element type; floats may be held in another ([`tessera_core::Precision::stored`]).
    pub dtype: DType,
    /// Number of elements of one item.
    pub elements: usize,
    /// Offset in the arena of one item; buffers whose lifetimes do not meet share bytes. A multiple of 64.
    pub offset: usize,
    /// Steps during which the bytes are this buffer's: from the one that first writes to after the last that reads.
    pub live: Range<usize>,
}

/// Something a step reads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operand {
    /// An intermediate value of the same item.
    Buffer(BufferId),
    /// A packed tensor of the lane's slot.
    Weight(WeightId),
    /// A value of the class, the same for all lanes.
    Constant(ConstantId),
}

/// How a step walks an operand: element `(i, j, …)` is at `offset + i·strides[0] + j·strides[1] + …` elements from the
/// operand's start (of this item, or of this slot's tensor). Stride 0 broadcasts; strides may be negative.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Access {
    /// What is walked.
    pub operand: Operand,
    /// Elements before the first one.
    pub offset: usize,
    /// Elements between neighbours, one per dimension of the walk.
    pub strides: Vec<isize>,
}

/// One super-kernel: what it does and where it writes.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    /// Where it comes from, for people: `conv1+bn1+relu`, or the op and the output's name.
    pub name: String,
    /// What it does and reads.
    pub kind: StepKind,
    /// Floating-point operations per item (a multiply-add is two).
    pub flops: u64,
}

/// What a step does. All sizes are per item. `out` buffers are dense unless an access says otherwise.
#[derive(Clone, PartialEq, Debug)]
pub enum StepKind {
    /// `out[r, n] = epilogue(Σₖ x[r, k] · w[k, n])` for `rows` rows: linear layers and 1×1 convolutions.
    Gemm {
        /// `[rows, k]` f32; the stride of k is 1, that of rows is not negative.
        x: Access,
        /// Packed as a matrix ([`crate::pack::Layout`]).
        w: WeightId,
        /// Rows of one item.
        rows: usize,
        /// Length of the sums.
        k: usize,
        /// Columns.
        n: usize,
        /// Applied to each sum.
        epilogue: Epilogue,
        /// `[rows, n]` f32, dense.
        out: BufferId,
    },
    /// `out[oy, ox, g·co + c] = epilogue(Σ x[oy·sy − top + ky·dy, ox·sx − left + kx·dx, g·ci + i] · w[g][ky, kx, i][c])`, zero outside the image.
    /// The sum runs over ky, then kx, then i; taps outside the image are products with zero, so every sum has the same length.
    Conv {
        /// `[height, width, groups·in_per_group]` f32, dense.
        x: Operand,
        /// Packed as `groups` matrices ([`crate::pack::Layout`]) of `kernel·in_per_group × out_per_group`.
        w: WeightId,
        /// Sizes and steps.
        shape: ConvShape,
        /// Applied to each sum.
        epilogue: Epilogue,
        /// `[out height, out width, groups·out_per_group]` f32, dense.
        out: BufferId,
    },
    /// As [`StepKind::Conv`] with one input and one output channel per group.
    Depthwise {
        /// `[height, width, channels]` f32, dense.
        x: Operand,
        /// Plain `[kernel height·kernel width][channels]`.
        w: WeightId,
        /// Sizes and steps; `in_per_group` and `out_per_group` are 1.
        shape: ConvShape,
        /// Applied to each sum.
        epilogue: Epilogue,
        /// `[out height, out width, channels]` f32, dense.
        out: BufferId,
    },
    /// Maximum, sum or mean under a window, channels last.
    Pool {
        /// Which.
        kind: PoolKind,
        /// `[height, width, channels]` f32, dense.
        x: Operand,
        /// Sizes and steps; `groups` is the number of channels, `*_per_group` are 1.
        shape: ConvShape,
        /// `[out height, out width, channels]` f32, dense.
        out: BufferId,
    },
    /// Where the largest element under a window lies (the first of equals): its place among all of x, counted from 0, or -1 where the
    /// window sees only padding.
    PoolIndices {
        /// `[planes, depth, height, width]` f32, dense.
        x: Operand,
        /// Sizes and steps.
        shape: PlaneShape,
        /// `[planes, out depth, out height, out width]` i64, dense.
        out: BufferId,
    },
    /// `out[b…, i, j] = alpha · Σₖ a[b…, i, k] · b[b…, k, j]` between intermediate values.
    MatMul {
        /// Batch dimensions, then rows, columns and length of the sums.
        batch: Vec<usize>,
        /// Rows.
        m: usize,
        /// Columns.
        n: usize,
        /// Length of the sums.
        k: usize,
        /// Walked as `[batch…, m, k]`.
        a: Access,
        /// Walked as `[batch…, k, n]`.
        b: Access,
        /// Factor of each sum.
        alpha: f32,
        /// `[batch…, m, n]` f32, dense.
        out: BufferId,
    },
    /// `out[h, i, :] = Σⱼ softmaxⱼ(scale · q[h, i, :]·k[h, j, :] + mask[h, i, j]) · v[h, j, :]`.
    /// A row that is masked everywhere (all −∞) gives NaN, as the unfused operators do.
    Attention {
        /// Sizes and scale.
        shape: AttentionShape,
        /// Walked as `[heads, queries, head_dim]`.
        q: Access,
        /// Walked as `[heads, keys, head_dim]`.
        k: Access,
        /// Walked as `[heads, keys, value_dim]`.
        v: Access,
        /// Walked as `[heads, queries, keys]`, f32, added to the scaled scores.
        mask: Option<Access>,
        /// Element `(h, i, c)` is written at `h·out_strides[0] + i·out_strides[1] + c`.
        out: BufferId,
        /// Strides of head and query in `out`; covers `out` exactly once.
        out_strides: [usize; 2],
    },
    /// `(x − mean) / sqrt(variance + epsilon) · scale + bias` per row; or, where it is not centred, `x / sqrt(mean of squares + epsilon) · scale`.
    LayerNorm {
        /// `[rows, cols]` f32, dense.
        x: Operand,
        /// Rows of one item.
        rows: usize,
        /// Elements that are normalised together.
        cols: usize,
        /// Whether the mean is taken off; an RMSNorm leaves it.
        centred: bool,
        /// Added to the variance.
        epsilon: f32,
        /// Plain `[cols]`.
        scale: Operand,
        /// Plain `[cols]`.
        bias: Option<Operand>,
        /// `[rows, cols]` f32, dense.
        out: BufferId,
    },
    /// `(x − mean) / sqrt(variance + epsilon) · scale + bias` per group of channels of each image, channels last.
    GroupNorm {
        /// `[images, pixels, channels]` f32, dense.
        x: Operand,
        /// Sizes.
        shape: GroupShape,
        /// Added to the variance.
        epsilon: f32,
        /// Plain `[shape.vectors]`: channel `c` has element `c · vectors / channels`.
        scale: Operand,
        /// Likewise.
        bias: Operand,
        /// `[images, pixels, channels]` f32, dense.
        out: BufferId,
    },
    /// `x[c] / (bias + alpha/size · Σ x²)^beta` per pixel, the sum over channels `c − (size − 1)/2 ..` of `size` neighbours.
    Lrn {
        /// `[pixels, channels]` f32, dense.
        x: Operand,
        /// Rows of one item.
        pixels: usize,
        /// Channels.
        channels: usize,
        /// Sizes and factors.
        shape: LrnShape,
        /// `[pixels, channels]` f32, dense.
        out: BufferId,
    },
    /// Softmax (or its logarithm) of each row.
    Softmax {
        /// `[rows, cols]` f32, dense.
        x: Operand,
        /// Rows of one item.
        rows: usize,
        /// Elements that are normalised together.
        cols: usize,
        /// Whether the logarithm is taken.
        log: bool,
        /// `[rows, cols]` f32, dense.
        out: BufferId,
    },
    /// One direction of one recurrent layer, with the equations of [`crate::reference`]. Time runs over `length` of `time` elements, after which
    /// the state stays and `y` is zero; backwards it runs from the last of them to the first.
    Recurrent {
        /// Sizes and direction.
        shape: RecurrentShape,
        /// Equations, functions and clip.
        cell: Cell,
        /// Walked as `[time, input]` f32; the stride of input is 1, that of time is not negative.
        x: Access,
        /// What the tenant brings.
        weights: RecurrentWeights,
        /// One i32 in `0..=time`: the planner sees to it. All of `time` when left out.
        length: Option<Operand>,
        /// Plain `[hidden]` each; zeros when left out.
        h0: Option<Operand>,
        /// Plain `[hidden]`; zeros when left out. LSTM only.
        c0: Option<Operand>,
        /// Every hidden state: `(t, c)` at `y_offset + t·y_stride + c` of the buffer (two directions share one buffer).
        y: Option<BufferId>,
        /// Where this direction's first state starts in `y`.
        y_offset: usize,
        /// Elements between the states of neighbouring times in `y`.
        y_stride: usize,
        /// The last hidden state `[hidden]`, dense.
        h: Option<BufferId>,
        /// The last cell state `[hidden]`, dense. LSTM only.
        c: Option<BufferId>,
    },
    /// `out[o, i, …] = table[o, ids[i], …]`: rows by number. A number outside `-rows..rows` fails the request that it
    /// came from, and only that one; negative numbers count from the end.
    Gather {
        /// Dense `[outer, rows, row]`, any element type.
        table: Operand,
        /// Dense `[count]`, i32 or i64.
        ids: Operand,
        /// Repetitions of the table before the gathered axis.
        outer: usize,
        /// Length of the gathered axis.
        rows: usize,
        /// Elements of one row.
        row: usize,
        /// How many rows are taken.
        count: usize,
        /// The gathered axis's name for the error: the input that the ids come from.
        what: String,
        /// Dense `[outer, count, row]`.
        out: BufferId,
    },
    /// Reduces the second walk of `x` for every element of the first.
    Reduce {
        /// How.
        kind: crate::op::Reduction,
        /// Walked as `[kept…, reduced…]`, f32 (or i64 where the operator allows it).
        x: Access,
        /// Lengths of the kept dimensions: the shape of `out`.
        kept: Vec<usize>,
        /// Lengths of the reduced dimensions, in order; combined first to last.
        reduced: Vec<usize>,
        /// `[kept…]`, dense, of x's element type.
        out: BufferId,
    },
    /// A chain of element-wise operators in one pass.
    Elementwise {
        /// The elements that are computed.
        dims: Vec<usize>,
        /// What is read, walked as `dims`.
        inputs: Vec<Access>,
        /// What is computed, one register per instruction; the last one is written.
        program: Vec<ElementOp>,
        /// `dims`, dense, of the last register's type; a float may be rounded to a half or widened to a double here.
        out: BufferId,
    },
    /// Moves elements: transposes, slices, concatenations, expansions.
    Copy {
        /// The elements that are moved.
        dims: Vec<usize>,
        /// Walked as `dims`; any element type.
        x: Access,
        /// Element `(i, j, …)` is written at `out_offset + Σ i·out_strides[…]`.
        out: BufferId,
        /// Elements before the first one written.
        out_offset: usize,
        /// Elements between neighbours in `out`.
        out_strides: Vec<usize>,
    },
    /// Fills a buffer with one element, for what copies then leave out (padding).
    Fill {
        /// One element of the buffer's type.
        value: Tensor,
        /// The buffer.
        out: BufferId,
    },
    /// Elements in order.
    TopK(TopK),
    /// Sums from the first element on.
    CumSum(CumSum),
    /// Lines made longer or shorter.
    Resample(Resample),
    /// Elements by number, several numbers each.
    Pick(Pick),
    /// Elements changed by number.
    Scatter(Scatter),
}

/// What is done to each sum of a matrix product or convolution before it is written:
/// `activation(sum + bias[n] + residual[r, n])`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Epilogue {
    /// Plain `[n]`.
    pub bias: Option<WeightId>,
    /// As `out`, dense, f32: never `out`'s own bytes.
    pub residual: Option<Operand>,
    /// Last.
    pub activation: Activation,
}

/// The function that ends an epilogue.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Activation {
    /// None.
    #[default]
    Identity,
    /// Between two bounds: ReLU is `0..∞`, ReLU6 `0..6`. NaN stays NaN.
    Clip {
        /// Least value.
        low: f32,
        /// Greatest value.
        high: f32,
    },
    /// Any other function of one element.
    Unary(Unary),
}

/// An instruction of an element-wise chain. Registers are numbered by instruction; operands come before.
///
/// A register holds bool, an integer of any width, or f32; [`crate::element`] has the rules, and [`crate::element::types`] the type of every
/// register. Integers wrap to their width; division by zero gives zero.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ElementOp {
    /// An element of `inputs[i]`, in that operand's type; halves and doubles are widened or rounded to f32.
    Load(usize),
    /// A float literal, f32.
    Float(f32),
    /// An integer literal, i64.
    Int(i64),
    /// A boolean literal.
    Bool(bool),
    /// A function of one register.
    Unary(Unary, usize),
    /// A function of two registers of one type.
    Binary(Binary, usize, usize),
    /// The second register where the first (boolean) holds, else the third.
    Select(usize, usize, usize),
    /// The register as another type.
    Cast(DType, usize),
}

impl StepKind {
    /// The kind in a word, for reports.
    pub const fn name(&self) -> &'static str {
        match self {
            StepKind::Gemm { .. } => "gemm",
            StepKind::Conv { .. } => "conv",
            StepKind::Depthwise { .. } => "depthwise",
            StepKind::Pool { .. } => "pool",
            StepKind::PoolIndices { .. } => "pool_indices",
            StepKind::MatMul { .. } => "matmul",
            StepKind::Attention { .. } => "attention",
            StepKind::LayerNorm { .. } => "layer_norm",
            StepKind::GroupNorm { .. } => "group_norm",
            StepKind::Lrn { .. } => "lrn",
            StepKind::Softmax { .. } => "softmax",
            StepKind::Recurrent { cell, .. } => match cell.kind {
                CellKind::Lstm { .. } => "lstm",
                CellKind::Gru { .. } => "gru",
                CellKind::Rnn => "rnn",
            },
            StepKind::Gather { .. } => "gather",
            StepKind::Reduce { .. } => "reduce",
            StepKind::Elementwise { .. } => "elementwise",
            StepKind::Copy { .. } => "copy",
            StepKind::Fill { .. } => "fill",
            StepKind::TopK(_) => "top_k",
            StepKind::CumSum(_) => "cum_sum",
            StepKind::Resample(_) => "resample",
            StepKind::Pick(_) => "pick",
            StepKind::Scatter(_) => "scatter",
        }
    }
}

impl Plan {
    /// Floating-point operations of one item.
    pub fn flops_per_item(&self) -> u64 {
        self.steps.iter().map(|step| step.flops).sum()
    }

    /// The buffer of an id.
    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0 as usize]
    }
}
