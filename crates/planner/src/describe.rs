//! An operator and its attributes in words: for reports, and for the hash that names a class.
//!
//! Every field of every operator is named here, without `..`, so that a new one does not compile until it is
//! described; a field that the hash forgot would let two architectures be taken for one. A field that the operator's name tells is
//! `_` here.

use crate::op::{
    Binary, Cell, CellKind, Cut, Direction, Op, PadMode, Padding, Recurrent, Resize, Transposed, Unary,
    Window,
};
use crate::tensor::Tensor;

/// An operator in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// What ONNX calls it.
    pub name: &'static str,
    /// Its attributes, by ONNX's names where ONNX has one. Equal descriptions are equal operators.
    pub attributes: Vec<(&'static str, String)>,
}

/// `op` in words.
pub fn describe(op: &Op) -> Description {
    Description { name: op.name(), attributes: attributes(op) }
}

/// What of an operator its name does not tell.
fn attributes(op: &Op) -> Vec<(&'static str, String)> {
    match op {
        Op::Unary(op) => of_unary(*op),
        Op::Binary(op) => of_binary(*op),
        Op::Cast(to) => vec![("to", to.to_string())],
        Op::Gemm { alpha, beta, trans_a, trans_b } => vec![
            ("alpha", float(*alpha)),
            ("beta", float(*beta)),
            ("transA", trans_a.to_string()),
            ("transB", trans_b.to_string()),
        ],
        Op::Einsum(equation) => vec![("equation", format!("{equation:?}"))],
        Op::Conv(window, groups) | Op::ConvTranspose(window, groups) => {
            [self::window(window), vec![("group", groups.to_string())]].concat()
        }
        Op::MaxPool(window) | Op::SumPool(window) => self::window(window),
        Op::MaxPoolIndices(window, column_major) => {
            [self::window(window), vec![("indices, storage_order", u8::from(*column_major).to_string())]]
                .concat()
        }
        Op::AveragePool(window, count_padding) => {
            [self::window(window), vec![("count_include_pad", count_padding.to_string())]].concat()
        }
        Op::BatchNorm { epsilon } => vec![("epsilon", float(*epsilon))],
        Op::GroupNorm { groups, epsilon } => vec![
            ("num_groups", groups.map_or("channels".to_owned(), |groups| groups.to_string())),
            ("epsilon", float(*epsilon)),
        ],
        Op::Lrn { size, alpha, beta, bias } => vec![
            ("size", size.to_string()),
            ("alpha", float(*alpha)),
            ("beta", float(*beta)),
            ("bias", float(*bias)),
        ],
        Op::LayerNorm { axis, epsilon } => vec![("axis", axis.to_string()), ("epsilon", float(*epsilon))],
        Op::Softmax { axis, log: _ } => vec![("axis", axis.to_string())],
        Op::Recurrent(layer) => recurrent(layer),
        Op::Reduce { kind: _, keep_dims, noop_with_empty_axes } => vec![
            ("keepdims", keep_dims.to_string()),
            ("noop_with_empty_axes", noop_with_empty_axes.to_string()),
        ],
        Op::Shape { start, end } => {
            let end = end.map_or("rank".to_owned(), |end| end.to_string());
            vec![("start", start.to_string()), ("end", end)]
        }
        Op::Reshape { allow_zero } => vec![("allowzero", allow_zero.to_string())],
        Op::Transpose { perm } => vec![("perm", format!("{perm:?}"))],
        Op::Flatten { axis }
        | Op::Concat { axis }
        | Op::Split { axis }
        | Op::Gather { axis }
        | Op::GatherElements { axis }
        | Op::OneHot { axis } => vec![("axis", axis.to_string())],
        Op::ConstantOfShape { value } => vec![("value", exact(value))],
        Op::Pad(mode) => {
            let mode = match mode {
                PadMode::Constant => "constant",
                PadMode::Reflect => "reflect",
                PadMode::Edge => "edge",
                PadMode::Wrap => "wrap",
            };
            vec![("mode", mode.into())]
        }
        Op::DepthToSpace { block, depth_first } | Op::SpaceToDepth { block, depth_first } => {
            let mode = if *depth_first { "DCR" } else { "CRD" };
            vec![("blocksize", block.to_string()), ("mode", mode.into())]
        }
        Op::Trilu { upper } => vec![("upper", upper.to_string())],
        Op::Resize(resize) => self::resize(resize),
        Op::GatherNd { batch_dims } => vec![("batch_dims", batch_dims.to_string())],
        Op::ScatterElements { axis, how } => {
            vec![("axis", axis.to_string()), ("reduction", how.word().into())]
        }
        Op::ScatterNd(how) => vec![("reduction", how.word().into())],
        Op::CumSum { exclusive, reverse } => {
            vec![("exclusive", exclusive.to_string()), ("reverse", reverse.to_string())]
        }
        Op::TopK { axis, largest } => vec![("axis", axis.to_string()), ("largest", largest.to_string())],
        Op::Arg { largest: _, axis, keep_dims, last } => vec![
            ("axis", axis.to_string()),
            ("keepdims", keep_dims.to_string()),
            ("select_last_index", last.to_string()),
        ],
        Op::Where
        | Op::Clip
        | Op::MatMul
        | Op::Squeeze
        | Op::Unsqueeze
        | Op::Slice
        | Op::Expand
        | Op::Range
        | Op::Tile
        | Op::NonZero => Vec::new(),
    }
}

/// What input `index` of an operator is called, where that says more than its number.
pub(crate) fn input_name(op: &Op, index: usize) -> String {
    let names: &[&str] = match op {
        Op::Clip => &["input", "low bound", "high bound"],
        Op::Binary(Binary::Pow) => &["base", "exponent"],
        Op::Binary(Binary::PRelu) => &["input", "slope"],
        Op::Where => &["condition", "then", "else"],
        Op::Gemm { .. } => &["a", "b", "c"],
        Op::Conv(..) | Op::ConvTranspose(..) => &["input", "weight", "bias"],
        Op::BatchNorm { .. } => &["input", "scale", "bias", "mean", "variance"],
        Op::LayerNorm { .. } | Op::GroupNorm { .. } => &["input", "scale", "bias"],
        Op::Recurrent(_) => &["input", "w", "r", "bias", "lengths", "h0", "c0", "peephole"],
        Op::Reduce { .. } | Op::Squeeze | Op::Unsqueeze => &["input", "axes"],
        Op::Reshape { .. } | Op::Expand => &["input", "shape"],
        Op::Split { .. } => &["input", "sizes"],
        Op::Slice => &["input", "starts", "ends", "axes", "steps"],
        Op::Gather { .. } | Op::GatherElements { .. } => &["input", "indices"],
        Op::ConstantOfShape { .. } => &["shape"],
        Op::Range => &["start", "limit", "step"],
        Op::Pad(_) => &["input", "pads", "value", "axes"],
        Op::Tile => &["input", "repeats"],
        Op::Trilu { .. } => &["input", "diagonal"],
        Op::Resize(_) => &["input", "region of interest", "scales", "sizes"],
        Op::GatherNd { .. } => &["input", "indices"],
        Op::ScatterElements { .. } | Op::ScatterNd(_) => &["input", "indices", "updates"],
        Op::OneHot { .. } => &["indices", "depth", "values"],
        Op::CumSum { .. } => &["input", "axis"],
        Op::TopK { .. } => &["input", "k"],
        _ => &[],
    };
    names.get(index).map_or_else(|| format!("input {index}"), |name| (*name).to_owned())
}

/// A function of one element in a word: `relu`, `gelu`, `gelu(tanh)`, `leakyrelu(0.01)`.
pub(crate) fn function_text(function: Unary) -> String {
    let values: Vec<String> =
        of_unary(function).into_iter().map(|(_, value)| value).filter(|value| value != "none").collect();
    let values = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
    format!("{}{values}", function.name().to_lowercase())
}

/// The shortest digits that lead back to the same number, so distinct numbers are distinct words.
fn float(value: f32) -> String {
    format!("{value:?}")
}

/// Type, shape and every byte.
fn exact(tensor: &Tensor) -> String {
    let bytes: String = tensor.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}{:?} 0x{bytes}", tensor.dtype(), tensor.dims())
}

fn window(window: &Window) -> Vec<(&'static str, String)> {
    let Window { kernel, strides, dilations, padding, ceil_mode } = window;
    let padding = match padding {
        Padding::Explicit(pads) => format!("{pads:?}"),
        Padding::SameUpper => "SAME_UPPER".into(),
        Padding::SameLower => "SAME_LOWER".into(),
        Padding::Transposed(Transposed { strides, output_padding, cut }) => {
            let cut = match cut {
                Cut::Explicit(pads) => format!("{pads:?}"),
                Cut::Same { output, upper } => {
                    let output = output.as_ref().map_or("SAME".to_owned(), |output| format!("to {output:?}"));
                    format!("{output}_{}", if *upper { "UPPER" } else { "LOWER" })
                }
            };
            format!("{cut}, transposed, strides {strides:?}, output_padding {output_padding:?}")
        }
    };
    vec![
        ("kernel_shape", format!("{kernel:?}")),
        ("strides", format!("{strides:?}")),
        ("dilations", format!("{dilations:?}")),
        ("pads", padding),
        ("ceil_mode", ceil_mode.to_string()),
    ]
}

fn resize(resize: &Resize) -> Vec<(&'static str, String)> {
    let Resize { interpolation, coordinates, antialias, exclude_outside, aspect, axes } = resize;
    let mut attributes = interpolation.words();
    attributes.extend([
        ("coordinate_transformation_mode", coordinates.words()),
        ("antialias", antialias.to_string()),
        ("exclude_outside", exclude_outside.to_string()),
        ("keep_aspect_ratio_policy", aspect.word().into()),
        ("axes", format!("{axes:?}")),
    ]);
    attributes
}

fn recurrent(Recurrent { hidden, direction, cell }: &Recurrent) -> Vec<(&'static str, String)> {
    let direction = match direction {
        Direction::Forward => "forward",
        Direction::Reverse => "reverse",
        Direction::Bidirectional => "bidirectional",
    };
    let Cell { kind, functions, clip } = cell;
    let mut attributes = vec![("hidden_size", hidden.to_string()), ("direction", direction.to_owned())];
    match kind {
        CellKind::Lstm { input_forget } => attributes.push(("input_forget", input_forget.to_string())),
        CellKind::Gru { linear_before_reset } => {
            attributes.push(("linear_before_reset", linear_before_reset.to_string()));
        }
        CellKind::Rnn => {}
    }
    let functions: Vec<String> = functions.iter().map(|&function| function_text(function)).collect();
    attributes.push(("activations", functions.join(", ")));
    attributes.extend(clip.map(|clip| ("clip", float(clip))));
    attributes
}

fn of_unary(op: Unary) -> Vec<(&'static str, String)> {
    match op {
        Unary::Affine { alpha, beta }
        | Unary::HardSigmoid { alpha, beta }
        | Unary::ScaledTanh { alpha, beta } => {
            vec![("alpha", float(alpha)), ("beta", float(beta))]
        }
        Unary::Elu { alpha } | Unary::LeakyRelu { alpha } | Unary::ThresholdedRelu { alpha } => {
            vec![("alpha", float(alpha))]
        }
        Unary::Selu { alpha, gamma } => vec![("alpha", float(alpha)), ("gamma", float(gamma))],
        Unary::Gelu { tanh } => vec![("approximate", if tanh { "tanh" } else { "none" }.into())],
        Unary::Abs
        | Unary::Ceil
        | Unary::Cos
        | Unary::Erf
        | Unary::Exp
        | Unary::Floor
        | Unary::HardSwish
        | Unary::Log
        | Unary::Mish
        | Unary::Neg
        | Unary::Not
        | Unary::Reciprocal
        | Unary::Relu
        | Unary::Round
        | Unary::Sigmoid
        | Unary::Sign
        | Unary::Sin
        | Unary::Silu
        | Unary::Softplus
        | Unary::Softsign
        | Unary::Sqrt
        | Unary::Tanh => Vec::new(),
    }
}

fn of_binary(op: Binary) -> Vec<(&'static str, String)> {
    match op {
        Binary::Mod { fmod } => vec![("fmod", fmod.to_string())],
        Binary::Add
        | Binary::Sub
        | Binary::Mul
        | Binary::Div
        | Binary::Pow
        | Binary::Min
        | Binary::Max
        | Binary::PRelu
        | Binary::And
        | Binary::Or
        | Binary::Xor
        | Binary::Equal
        | Binary::Greater
        | Binary::GreaterOrEqual
        | Binary::Less
        | Binary::LessOrEqual => Vec::new(),
    }
}
