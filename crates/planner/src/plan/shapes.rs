//! Sizes of steps, all of them of one item.

use crate::pack::WeightId;

/// Sizes of a convolution or a pool over two spatial axes (a 1-D one has height 1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConvShape {
    /// Input height and width.
    pub input: [usize; 2],
    /// Output height and width.
    pub output: [usize; 2],
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Steps between windows.
    pub strides: [usize; 2],
    /// Steps between taps.
    pub dilations: [usize; 2],
    /// Zeros above and to the left (what is needed below and right follows from the output size).
    pub before: [usize; 2],
    /// Zeros below and to the right as the file says (pools count them in the divisor if asked to).
    pub after: [usize; 2],
    /// Groups.
    pub groups: usize,
    /// Input channels of one group.
    pub in_per_group: usize,
    /// Output channels of one group.
    pub out_per_group: usize,
}

/// Sizes of windows over planes of three spatial axes: depth, height, width.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PlaneShape {
    /// Images times channels.
    pub planes: usize,
    /// Extents of a plane.
    pub input: [usize; 3],
    /// Places of the window.
    pub output: [usize; 3],
    /// Extents of the window.
    pub kernel: [usize; 3],
    /// Steps between windows.
    pub strides: [usize; 3],
    /// Steps between taps.
    pub dilations: [usize; 3],
    /// Padding before a plane.
    pub before: [usize; 3],
    /// What a step along each axis adds to a place: `[height·width, width, 1]`, or the other way around (ONNX's `storage_order`).
    pub steps: [usize; 3],
}

/// Sizes of a group normalisation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GroupShape {
    /// Images of one item.
    pub images: usize,
    /// Pixels of one image.
    pub pixels: usize,
    /// Channels.
    pub channels: usize,
    /// Groups of neighbouring channels.
    pub groups: usize,
    /// Elements of scale and bias: one per channel, or one per group.
    pub vectors: usize,
}

impl GroupShape {
    /// Elements of one item.
    pub const fn elements(&self) -> usize {
        self.images * self.pixels * self.channels
    }
}

/// Size and factors of a local response normalisation.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LrnShape {
    /// Channels of one sum.
    pub size: usize,
    /// Factor of the sum, times `size`.
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
    /// Added to the sum.
    pub bias: f32,
}

/// Which pool.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PoolKind {
    /// The largest element; padding never wins.
    Max,
    /// The sum.
    Sum,
    /// The mean; padding counts in the divisor or not.
    Average {
        /// Whether padding counts.
        count_padding: bool,
    },
}

/// Sizes of a fused attention.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AttentionShape {
    /// Independent heads (batch dimensions inside the item included).
    pub heads: usize,
    /// Rows of q.
    pub queries: usize,
    /// Rows of k and v.
    pub keys: usize,
    /// Columns of q and k.
    pub head_dim: usize,
    /// Columns of v.
    pub value_dim: usize,
    /// Factor of the scores.
    pub scale: f32,
}

/// Sizes of one direction of a recurrent layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RecurrentShape {
    /// Steps of time.
    pub time: usize,
    /// Size of the input.
    pub input: usize,
    /// Size of the state.
    pub hidden: usize,
    /// Whether time runs from the last element to the first.
    pub reverse: bool,
}

/// The weights of one direction of a recurrent layer; gates in ONNX's order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RecurrentWeights {
    /// Packed as a matrix: `input × gates·hidden`.
    pub w: WeightId,
    /// Packed as a matrix: `hidden × gates·hidden`, or `hidden × 2·hidden` with `candidate` apart.
    pub r: WeightId,
    /// Plain `[gates·hidden]`: the sum of ONNX's two biases. For a GRU that resets after its product, plain `[4·hidden]`: the candidate's
    /// bias of the input is the third part, its bias of the state the fourth.
    pub bias: Option<WeightId>,
    /// Plain `[3·hidden]`: what the gates i, o and f of an LSTM take of the cell.
    pub peephole: Option<WeightId>,
    /// Packed as a matrix: `hidden × hidden`, for the candidate of a GRU that resets the state before its product, and only for it.
    pub candidate: Option<WeightId>,
}
