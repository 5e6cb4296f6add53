//! The attributes of Resize (and of Upsample, its old spelling).

/// How an image is made larger or smaller: which elements meet in one of the output, and with what weights. See [`crate::resample`].
#[derive(Clone, PartialEq, Debug)]
pub struct Resize {
    /// The weights.
    pub interpolation: Interpolation,
    /// Where an output element lies in the input.
    pub coordinates: Coordinates,
    /// Whether the weights reach further when the output is smaller.
    pub antialias: bool,
    /// Whether elements outside the input weigh nothing (else the border is repeated).
    pub exclude_outside: bool,
    /// What becomes of sizes that do not keep the shape.
    pub aspect: Aspect,
    /// The axes that `roi`, `scales` and `sizes` speak of; empty: all of them. They may be negative.
    pub axes: Vec<i64>,
}

/// The weights of the elements around a place.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Interpolation {
    /// One element.
    Nearest(Nearest),
    /// The two around it.
    Linear,
    /// The four around it.
    Cubic {
        /// The coefficient `a` of the polynomial: -0.75 in most frameworks.
        coefficient: f32,
    },
}

/// Which of the two elements around a place is the nearest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nearest {
    /// The closer one, of two the first.
    RoundPreferFloor,
    /// The closer one, of two the second.
    RoundPreferCeil,
    /// The first.
    Floor,
    /// The second.
    Ceil,
    /// The first of an output that is larger, the second of one that is smaller: the rule of opset 10, which left it open, in onnxruntime.
    Simple,
}

/// Where the output element number `x` lies in the input.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Coordinates {
    /// `(x + ½) / scale − ½`.
    HalfPixel,
    /// The same about the middle of the output, where the scale does not give whole elements.
    HalfPixelSymmetric,
    /// The same, but for an output of one element.
    PytorchHalfPixel,
    /// First on first, last on last.
    AlignCorners,
    /// `x / scale`.
    Asymmetric,
    /// First and last on those of the region of interest.
    CropAndResize {
        /// What elements outside the input are.
        extrapolation: f32,
    },
}

/// What becomes of sizes that do not keep the shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aspect {
    /// They are the output's.
    Stretch,
    /// The shape is kept, and no side is longer than its size.
    NotLarger,
    /// The shape is kept, and no side is shorter than its size.
    NotSmaller,
}

impl Interpolation {
    /// ONNX's words: the mode, and the attribute that it reads if it reads one.
    pub(crate) fn words(self) -> Vec<(&'static str, String)> {
        match self {
            Interpolation::Nearest(nearest) => {
                let which = match nearest {
                    Nearest::RoundPreferFloor => "round_prefer_floor",
                    Nearest::RoundPreferCeil => "round_prefer_ceil",
                    Nearest::Floor => "floor",
                    Nearest::Ceil => "ceil",
                    Nearest::Simple => "simple",
                };
                vec![("mode", "nearest".into()), ("nearest_mode", which.into())]
            }
            Interpolation::Linear => vec![("mode", "linear".into())],
            Interpolation::Cubic { coefficient } => {
                vec![("mode", "cubic".into()), ("cubic_coeff_a", format!("{coefficient:?}"))]
            }
        }
    }
}

impl Coordinates {
    /// ONNX's word, and the value for elements outside where it has one.
    pub(crate) fn words(self) -> String {
        match self {
            Coordinates::HalfPixel => "half_pixel".into(),
            Coordinates::HalfPixelSymmetric => "half_pixel_symmetric".into(),
            Coordinates::PytorchHalfPixel => "pytorch_half_pixel".into(),
            Coordinates::AlignCorners => "align_corners".into(),
            Coordinates::Asymmetric => "asymmetric".into(),
            Coordinates::CropAndResize { extrapolation } => format!("tf_crop_and_resize({extrapolation:?})"),
        }
    }
}

impl Aspect {
    /// ONNX's word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Aspect::Stretch => "stretch",
            Aspect::NotLarger => "not_larger",
            Aspect::NotSmaller => "not_smaller",
        }
    }
}
