//! The operators of a graph, in one spelling: ONNX's newest semantics with every attribute resolved.
//!
//! The import maps each ONNX operator of each opset to one of these, or gives the reason why not
//! (`onnx::table`). Where ONNX moved an attribute to an input over the years (`axes`, `pads`, clip bounds), the
//! value is an *input* here, as in the newest opset. Meaning: [`crate::reference`]; shapes: [`crate::infer`].

mod equation;
mod functions;
mod recurrent;
mod resize;
mod window;

pub use equation::Equation;
pub use functions::{Binary, Reduction, Unary};
pub use recurrent::{Cell, CellKind, Direction, Recurrent};
pub use resize::{Aspect, Coordinates, Interpolation, Nearest, Resize};
pub use window::{Cut, Padding, Transposed, Window};

use crate::tensor::Tensor;
use tessera_core::DType;

/// What a node does. Inputs and outputs are in ONNX's order unless a variant says otherwise.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// Element by element, one input.
    Unary(Unary),
    /// Element by element, two inputs, broadcast as NumPy does.
    Binary(Binary),
    /// `(condition, then, else)`, broadcast.
    Where,
    /// `(x, low?, high?)`: limits that are scalars.
    Clip,
    /// To another element type; float to integer truncates toward zero.
    Cast(DType),

    /// `(a, b, c?)`: `alpha·a·b + beta·c` with optional transposes of matrices.
    Gemm {
        /// Factor of the product.
        alpha: f32,
        /// Factor of `c`.
        beta: f32,
        /// Whether `a` is used transposed.
        trans_a: bool,
        /// Whether `b` is used transposed.
        trans_b: bool,
    },
    /// `(a, b)` with NumPy's rules for vectors and batches.
    MatMul,
    /// Sums of products over letters, as many inputs as the equation has terms.
    Einsum(Equation),
    /// `(x [n, c, spatial…], w [out, c/groups, kernel…], bias?)`.
    Conv(Window, /** Groups. */ usize),
    /// `(x [n, c, spatial…], w [c, out/groups, kernel…], bias?)`; the window's padding is [`Padding::Transposed`].
    ConvTranspose(Window, /** Groups. */ usize),
    /// `(x [n, c, spatial…])`: the largest element under the window.
    MaxPool(Window),
    /// `(x [n, c, spatial…])`: where the largest element lies, the first of equals, as its place in all of x (i64): ONNX's second
    /// output of MaxPool. -1 where the window sees only padding.
    MaxPoolIndices(Window, /** Whether places are counted with the first spatial axis fastest. */ bool),
    /// `(x [n, c, spatial…])`: the sum under the window. LpPool is made of it.
    SumPool(Window),
    /// `(x [n, c, spatial…])`: the mean under the window.
    AveragePool(Window, /** Whether padding counts in the divisor. */ bool),
    /// `(x, scale, bias, mean, variance)`, inference mode.
    BatchNorm {
        /// Added to the variance.
        epsilon: f32,
    },
    /// `(x [n, c, …], scale, bias)`: each image's groups of channels are normalised by their own mean and variance. `scale` and `bias` have
    /// one element per channel, or one per group.
    GroupNorm {
        /// Groups of neighbouring channels; `None`: every channel is one (InstanceNormalization).
        groups: Option<usize>,
        /// Added to the variance.
        epsilon: f32,
    },
    /// `(x [n, c, …])`: `x / (bias + alpha/size · Σ x²)^beta`, the sum over `size` neighbouring channels, of which `(size − 1) / 2` come before.
    Lrn {
        /// Channels of one sum.
        size: usize,
        /// Factor of the sum, times `size`.
        alpha: f32,
        /// Exponent.
        beta: f32,
        /// Added to the sum.
        bias: f32,
    },
    /// `(x, scale, bias?)` over the axes from `axis` on: the first of ONNX's outputs. The others are imported as reductions.
    LayerNorm {
        /// First normalised axis; may be negative.
        axis: i64,
        /// Added to the variance.
        epsilon: f32,
    },
    /// Along one axis (the semantics of opset 13 and later; older ones are imported as Reshape–Softmax–Reshape).
    Softmax {
        /// The axis; may be negative.
        axis: i64,
        /// Whether the logarithm is taken: LogSoftmax.
        log: bool,
    },
    /// `(x [time, batch, in], w, r, bias?, lengths?, h0?, c0?, peephole?)` → `(y [time, dirs, batch, hidden], h, c)`; only an
    /// LSTM has the last two inputs and the last output.
    Recurrent(Recurrent),
    /// `(x, axes?)`.
    Reduce {
        /// How elements are combined.
        kind: Reduction,
        /// Whether reduced axes stay, with length 1.
        keep_dims: bool,
        /// Whether no axes means "reduce nothing" (else: everything).
        noop_with_empty_axes: bool,
    },

    /// The shape of the input as i64, from axis `start` to before `end`.
    Shape {
        /// First axis; may be negative.
        start: i64,
        /// Axis to stop before; `None` is the rank.
        end: Option<i64>,
    },
    /// `(x, shape)`; -1 takes what is left; 0 copies unless `allow_zero`.
    Reshape {
        /// Whether a 0 in the shape means a dimension of length 0.
        allow_zero: bool,
    },
    /// To a matrix, the axes before `axis` being its rows.
    Flatten {
        /// First axis of the columns; may be negative.
        axis: i64,
    },
    /// `(x, axes?)`.
    Squeeze,
    /// `(x, axes)`.
    Unsqueeze,
    /// Axes reordered: output axis `i` is input axis `perm[i]`. Empty: all axes reversed.
    Transpose {
        /// The permutation.
        perm: Vec<usize>,
    },
    /// Inputs one after the other along `axis`.
    Concat {
        /// The axis; may be negative.
        axis: i64,
    },
    /// `(x, sizes?)` → parts. Without sizes: as many equal parts as there are outputs, the last one smaller.
    Split {
        /// The axis; may be negative.
        axis: i64,
    },
    /// `(x, starts, ends, axes?, steps?)`.
    Slice,
    /// `(x, indices)`: rows of `x` along `axis`; negative indices count from the end.
    Gather {
        /// The axis; may be negative.
        axis: i64,
    },
    /// `(x, indices)`: one element per index.
    GatherElements {
        /// The axis; may be negative.
        axis: i64,
    },
    /// `(x, shape)`: broadcast both ways.
    Expand,
    /// `(shape)`: a tensor filled with the one element of `value`.
    ConstantOfShape {
        /// One element.
        value: Tensor,
    },
    /// `(start, limit, step)`.
    Range,
    /// `(x, pads, value?, axes?)`.
    Pad(PadMode),
    /// `(x, repeats)`: the whole of every axis so many times.
    Tile,
    /// `(x [n, c, h, w])`: every pixel becomes a square of `block²` pixels of fewer channels.
    DepthToSpace {
        /// Length of the square's sides.
        block: usize,
        /// Whether the channels of one output pixel lie together in the input (ONNX's `DCR`), or those of one square do (`CRD`).
        depth_first: bool,
    },
    /// `(x [n, c, h, w])`: every square of `block²` pixels becomes one pixel of more channels.
    SpaceToDepth {
        /// Length of the square's sides.
        block: usize,
        /// Whether the channels of one input pixel lie together in the output (ONNX's `DCR`), or those of one square do (`CRD`).
        depth_first: bool,
    },
    /// `(x, k?)`: zeros on one side of the `k`-th diagonal of the last two axes.
    Trilu {
        /// Whether what is above it stays (else what is below).
        upper: bool,
    },
    /// `(x, roi?, scales?, sizes?)`.
    Resize(Resize),
    /// `(x, indices […, depth])`: what lies at each index of `depth` axes, after `batch_dims` axes that both share.
    GatherNd {
        /// How many axes both share.
        batch_dims: usize,
    },
    /// `(x, indices, updates)`: `x` with one element changed per index along the axis.
    ScatterElements {
        /// The axis; may be negative.
        axis: i64,
        /// What becomes of the element that was there.
        how: Scatter,
    },
    /// `(x, indices […, depth], updates)`: `x` with what lies at each index of `depth` axes changed.
    ScatterNd(Scatter),
    /// `(indices, depth, values)`: `values[1]` where the new axis counts to the index, `values[0]` elsewhere.
    OneHot {
        /// Where the new axis stands in the output; may be negative.
        axis: i64,
    },
    /// `(x, axis)`: sums from the first element on.
    CumSum {
        /// Whether an element's own value is left out of its sum.
        exclusive: bool,
        /// Whether sums run from the last element back.
        reverse: bool,
    },
    /// `(x, k)` → `(values, indices i64)`, in order. Of equal elements the first comes first; a NaN comes before every number.
    TopK {
        /// The axis; may be negative.
        axis: i64,
        /// Whether the largest are wanted (else the smallest).
        largest: bool,
    },
    /// The place of the largest or smallest element, as i64. A NaN comes before every number.
    Arg {
        /// Whether the largest is wanted (else the smallest).
        largest: bool,
        /// The axis; may be negative.
        axis: i64,
        /// Whether the axis stays, with length 1.
        keep_dims: bool,
        /// Whether of equal elements the last one counts.
        last: bool,
    },
    /// The places of what is not zero, as i64 `[rank, count]`: only of values that follow from shapes and literals.
    NonZero,
}

/// What padding is made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PadMode {
    /// A constant.
    Constant,
    /// The input mirrored, without its border element.
    Reflect,
    /// The border element.
    Edge,
    /// The input from its other end.
    Wrap,
}

/// What becomes of an element that a scatter meets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scatter {
    /// It is replaced; where several meet, by the last.
    Replace,
    /// The update is added.
    Add,
    /// It is multiplied by the update.
    Mul,
    /// The larger stays.
    Max,
    /// The smaller stays.
    Min,
}

impl Scatter {
    /// ONNX's word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Scatter::Replace => "none",
            Scatter::Add => "add",
            Scatter::Mul => "mul",
            Scatter::Max => "max",
            Scatter::Min => "min",
        }
    }
}

impl Op {
    /// The ONNX operator's name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Unary(unary) => unary.name(),
            Op::Binary(binary) => binary.name(),
            Op::Where => "Where",
            Op::Clip => "Clip",
            Op::Cast(_) => "Cast",
            Op::Gemm { .. } => "Gemm",
            Op::MatMul => "MatMul",
            Op::Einsum(_) => "Einsum",
            Op::Conv(..) => "Conv",
            Op::ConvTranspose(..) => "ConvTranspose",
            Op::MaxPool(_) | Op::MaxPoolIndices(..) => "MaxPool",
            Op::SumPool(_) => "LpPool",
            Op::AveragePool(..) => "AveragePool",
            Op::BatchNorm { .. } => "BatchNormalization",
            Op::GroupNorm { groups: None, .. } => "InstanceNormalization",
            Op::GroupNorm { .. } => "GroupNormalization",
            Op::Lrn { .. } => "LRN",
            Op::LayerNorm { .. } => "LayerNormalization",
            Op::Softmax { log: false, .. } => "Softmax",
            Op::Softmax { log: true, .. } => "LogSoftmax",
            Op::Recurrent(layer) => layer.cell.kind.name(),
            Op::Reduce { kind, .. } => kind.name(),
            Op::Shape { .. } => "Shape",
            Op::Reshape { .. } => "Reshape",
            Op::Flatten { .. } => "Flatten",
            Op::Squeeze => "Squeeze",
            Op::Unsqueeze => "Unsqueeze",
            Op::Transpose { .. } => "Transpose",
            Op::Concat { .. } => "Concat",
            Op::Split { .. } => "Split",
            Op::Slice => "Slice",
            Op::Gather { .. } => "Gather",
            Op::GatherElements { .. } => "GatherElements",
            Op::Expand => "Expand",
            Op::ConstantOfShape { .. } => "ConstantOfShape",
            Op::Range => "Range",
            Op::Pad(_) => "Pad",
            Op::Tile => "Tile",
            Op::DepthToSpace { .. } => "DepthToSpace",
            Op::SpaceToDepth { .. } => "SpaceToDepth",
            Op::Trilu { .. } => "Trilu",
            Op::Resize(_) => "Resize",
            Op::GatherNd { .. } => "GatherND",
            Op::ScatterElements { .. } => "ScatterElements",
            Op::ScatterNd(_) => "ScatterND",
            Op::OneHot { .. } => "OneHot",
            Op::CumSum { .. } => "CumSum",
            Op::TopK { .. } => "TopK",
            Op::Arg { largest: true, .. } => "ArgMax",
            Op::Arg { largest: false, .. } => "ArgMin",
            Op::NonZero => "NonZero",
        }
    }
}
