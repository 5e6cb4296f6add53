//! An operator and its attributes in words: for reports, and for the hash that names a class.
//!
//! Every field of every operator is named here, without `..`, so that a new one does not compile until it is
//! described; a field that the hash forgot would let two architectures be taken for one.

use crate::op::{
    Binary, Cell, CellKind, Cut, Direction, Op, PadMode, Padding, Recurrent, Reduction, Resize, Transposed,
    Unary, Window,
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
    let with = |name, attributes| Description { name, attributes };
    let plain = |name| with(name, Vec::new());
    match op {
        Op::Unary(op) => unary(*op),
        Op::Binary(op) => binary(*op),
        Op::Where => plain("Where"),
        Op::Clip => plain("Clip"),
        Op::Cast(to) => with("Cast", vec![("to", to.to_string())]),
        Op::Gemm { alpha, beta, trans_a, trans_b } => with(
            "Gemm",
            vec![
                ("alpha", float(*alpha)),
                ("beta", float(*beta)),
                ("transA", trans_a.to_string()),
                ("transB", trans_b.to_string()),
            ],
        ),
        Op::MatMul => plain("MatMul"),
        Op::Einsum(equation) => with("Einsum", vec![("equation", format!("{equation:?}"))]),
        Op::Conv(window, groups) => {
            with("Conv", [self::window(window), vec![("group", groups.to_string())]].concat())
        }
        Op::ConvTranspose(window, groups) => {
            with("ConvTranspose", [self::window(window), vec![("group", groups.to_string())]].concat())
        }
        Op::MaxPool(window) => with("MaxPool", self::window(window)),
        Op::MaxPoolIndices(window, column_major) => with(
            "MaxPool",
            [self::window(window), vec![("indices, storage_order", u8::from(*column_major).to_string())]]
                .concat(),
        ),
        Op::SumPool(window) => with("LpPool", self::window(window)),
        Op::AveragePool(window, count_padding) => with(
            "AveragePool",
            [self::window(window), vec![("count_include_pad", count_padding.to_string())]].concat(),
        ),
        Op::BatchNorm { epsilon } => with("BatchNormalization", vec![("epsilon", float(*epsilon))]),
        Op::GroupNorm { groups, epsilon } => with(
            op.name(),
            vec![
                ("num_groups", groups.map_or("channels".to_owned(), |groups| groups.to_string())),
                ("epsilon", float(*epsilon)),
            ],
        ),
        Op::Lrn { size, alpha, beta, bias } => with(
            "LRN",
            vec![
                ("size", size.to_string()),
                ("alpha", float(*alpha)),
                ("beta", float(*beta)),
                ("bias", float(*bias)),
            ],
        ),
        Op::LayerNorm { axis, epsilon } => {
            with("LayerNormalization", vec![("axis", axis.to_string()), ("epsilon", float(*epsilon))])
        }
        Op::Softmax { axis, log } => {
            with(if *log { "LogSoftmax" } else { "Softmax" }, vec![("axis", axis.to_string())])
        }
        Op::Recurrent(layer) => recurrent(layer),
        Op::Reduce { kind, keep_dims, noop_with_empty_axes } => with(
            reduction(*kind),
            vec![
                ("keepdims", keep_dims.to_string()),
                ("noop_with_empty_axes", noop_with_empty_axes.to_string()),
            ],
        ),
        Op::Shape { start, end } => {
            let end = end.map_or("rank".to_owned(), |end| end.to_string());
            with("Shape", vec![("start", start.to_string()), ("end", end)])
        }
        Op::Reshape { allow_zero } => with("Reshape", vec![("allowzero", allow_zero.to_string())]),
        Op::Flatten { axis } => with("Flatten", vec![("axis", axis.to_string())]),
        Op::Squeeze => plain("Squeeze"),
        Op::Unsqueeze => plain("Unsqueeze"),
        Op::Transpose { perm } => with("Transpose", vec![("perm", format!("{perm:?}"))]),
        Op::Concat { axis } => with("Concat", vec![("axis", axis.to_string())]),
        Op::Split { axis } => with("Split", vec![("axis", axis.to_string())]),
        Op::Slice => plain("Slice"),
        Op::Gather { axis } => with("Gather", vec![("axis", axis.to_string())]),
        Op::GatherElements { axis } => with("GatherElements", vec![("axis", axis.to_string())]),
        Op::Expand => plain("Expand"),
        Op::ConstantOfShape { value } => with("ConstantOfShape", vec![("value", exact(value))]),
        Op::Range => plain("Range"),
        Op::Pad(mode) => {
            let mode = match mode {
                PadMode::Constant => "constant",
                PadMode::Reflect => "reflect",
                PadMode::Edge => "edge",
                PadMode::Wrap => "wrap",
            };
            with("Pad", vec![("mode", mode.into())])
        }
        Op::Tile => plain("Tile"),
        Op::DepthToSpace { block, depth_first } | Op::SpaceToDepth { block, depth_first } => {
            let mode = if *depth_first { "DCR" } else { "CRD" };
            with(op.name(), vec![("blocksize", block.to_string()), ("mode", mode.into())])
        }
        Op::Trilu { upper } => with("Trilu", vec![("upper", upper.to_string())]),
        Op::Resize(resize) => with("Resize", self::resize(resize)),
        Op::GatherNd { batch_dims } => with("GatherND", vec![("batch_dims", batch_dims.to_string())]),
        Op::ScatterElements { axis, how } => {
            with("ScatterElements", vec![("axis", axis.to_string()), ("reduction", how.word().into())])
        }
        Op::ScatterNd(how) => with("ScatterND", vec![("reduction", how.word().into())]),
        Op::OneHot { axis } => with("OneHot", vec![("axis", axis.to_string())]),
        Op::CumSum { exclusive, reverse } => {
            with("CumSum", vec![("exclusive", exclusive.to_string()), ("reverse", reverse.to_string())])
        }
        Op::TopK { axis, largest } => {
            with("TopK", vec![("axis", axis.to_string()), ("largest", largest.to_string())])
        }
        Op::Arg { largest, axis, keep_dims, last } => with(
            if *largest { "ArgMax" } else { "ArgMin" },
            vec![
                ("axis", axis.to_string()),
                ("keepdims", keep_dims.to_string()),
                ("select_last_index", last.to_string()),
            ],
        ),
        Op::NonZero => plain("NonZero"),
    }
}

/// What input `index` of an operator is called, where that says more than its number.
pub fn input_name(op: &Op, index: usize) -> String {
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
    let Description { name, attributes } = unary(function);
    let values: Vec<String> =
        attributes.into_iter().map(|(_, value)| value).filter(|value| value != "none").collect();
    let values = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
    format!("{}{values}", name.to_lowercase())
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

fn recurrent(Recurrent { hidden, direction, cell }: &Recurrent) -> Description {
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
    Description { name: kind.name(), attributes }
}

fn unary(op: Unary) -> Description {
    let mut attributes = Vec::new();
    let mut alpha = |alpha: f32| attributes.push(("alpha", float(alpha)));
    let name = match op {
        Unary::Abs => "Abs",
        Unary::Affine { alpha: value, beta } => {
            alpha(value);
            attributes.push(("beta", float(beta)));
            "Affine"
        }
        Unary::Ceil => "Ceil",
        Unary::Cos => "Cos",
        Unary::Erf => "Erf",
        Unary::Exp => "Exp",
        Unary::Floor => "Floor",
        Unary::Gelu { tanh } => {
            attributes.push(("approximate", if tanh { "tanh" } else { "none" }.into()));
            "Gelu"
        }
        Unary::Elu { alpha: value } => {
            alpha(value);
            "Elu"
        }
        Unary::HardSigmoid { alpha: value, beta } => {
            alpha(value);
            attributes.push(("beta", float(beta)));
            "HardSigmoid"
        }
        Unary::HardSwish => "HardSwish",
        Unary::LeakyRelu { alpha: value } => {
            alpha(value);
            "LeakyRelu"
        }
        Unary::Log => "Log",
        Unary::Mish => "Mish",
        Unary::Neg => "Neg",
        Unary::Not => "Not",
        Unary::Reciprocal => "Reciprocal",
        Unary::Relu => "Relu",
        Unary::Round => "Round",
        Unary::ScaledTanh { alpha: value, beta } => {
            alpha(value);
            attributes.push(("beta", float(beta)));
            "ScaledTanh"
        }
        Unary::Selu { alpha: value, gamma } => {
            alpha(value);
            attributes.push(("gamma", float(gamma)));
            "Selu"
        }
        Unary::Sigmoid => "Sigmoid",
        Unary::Sign => "Sign",
        Unary::Sin => "Sin",
        Unary::Silu => "Swish",
        Unary::Softplus => "Softplus",
        Unary::Softsign => "Softsign",
        Unary::Sqrt => "Sqrt",
        Unary::Tanh => "Tanh",
        Unary::ThresholdedRelu { alpha: value } => {
            alpha(value);
            "ThresholdedRelu"
        }
    };
    Description { name, attributes }
}

fn binary(op: Binary) -> Description {
    let name = match op {
        Binary::Add => "Add",
        Binary::Sub => "Sub",
        Binary::Mul => "Mul",
        Binary::Div => "Div",
        Binary::Pow => "Pow",
        Binary::Min => "Min",
        Binary::Max => "Max",
        Binary::Mod { fmod } => {
            return Description { name: "Mod", attributes: vec![("fmod", fmod.to_string())] };
        }
        Binary::PRelu => "PRelu",
        Binary::And => "And",
        Binary::Or => "Or",
        Binary::Xor => "Xor",
        Binary::Equal => "Equal",
        Binary::Greater => "Greater",
        Binary::GreaterOrEqual => "GreaterOrEqual",
        Binary::Less => "Less",
        Binary::LessOrEqual => "LessOrEqual",
    };
    Description { name, attributes: Vec::new() }
}

fn reduction(kind: Reduction) -> &'static str {
    match kind {
        Reduction::Sum => "ReduceSum",
        Reduction::Mean => "ReduceMean",
        Reduction::Max => "ReduceMax",
        Reduction::Min => "ReduceMin",
        Reduction::Prod => "ReduceProd",
        Reduction::L1 => "ReduceL1",
        Reduction::L2 => "ReduceL2",
        Reduction::SumSquare => "ReduceSumSquare",
        Reduction::LogSum => "ReduceLogSum",
        Reduction::LogSumExp => "ReduceLogSumExp",
    }
}
