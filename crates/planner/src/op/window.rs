//! How a window moves over an image, and how a transposed convolution spreads its input.

/// How a window moves over the spatial axes of a convolution or a pool.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Window {
    /// Extent of the window, per spatial axis.
    pub kernel: Vec<usize>,
    /// Steps between windows.
    pub strides: Vec<usize>,
    /// Steps between elements of one window.
    pub dilations: Vec<usize>,
    /// What is added around the input.
    pub padding: Padding,
    /// Whether a last, partial window counts (pools only).
    pub ceil_mode: bool,
}

/// What is added around the input of a window.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Padding {
    /// So many elements before and after, per spatial axis.
    Explicit(Vec<(usize, usize)>),
    /// So that the output has `ceil(input / stride)` elements, the odd one after.
    SameUpper,
    /// The same, the odd one before.
    SameLower,
    /// Zeros between the elements, and around them so many that the window undoes a convolution. The window's own strides are one.
    Transposed(Transposed),
}

/// How a transposed convolution spreads its input.
///
/// Input element `i` meets tap `k` of the kernel (in the order in which ONNX writes it) in element `i·stride + k·dilation` of the full result, from which
/// the padding is then cut off.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Transposed {
    /// Steps between neighbouring input elements, per spatial axis.
    pub strides: Vec<usize>,
    /// Elements added after the full result.
    pub output_padding: Vec<usize>,
    /// What is cut off.
    pub cut: Cut,
}

/// What is cut off the full result of a transposed convolution.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Cut {
    /// So many elements before and after, per spatial axis.
    Explicit(Vec<(usize, usize)>),
    /// So that `input · stride` elements stay, or those that are given.
    Same {
        /// The extents that stay, per spatial axis.
        output: Option<Vec<usize>>,
        /// Whether the odd element is cut after (SAME_UPPER), not before.
        upper: bool,
    },
}
