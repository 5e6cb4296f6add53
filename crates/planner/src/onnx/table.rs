//! One table: ONNX operator → how it becomes ours, or the reason why it does not.

use crate::graph::ValueId;
use crate::onnx::attention::{attention, rms_norm, rotary_embedding};
use crate::onnx::attributes::Attributes;
use crate::onnx::convert::*;
use crate::onnx::einsum::einsum;
use crate::onnx::elements::*;
use crate::onnx::error::ImportError;
use crate::onnx::import::Importer;
use crate::onnx::proto::NodeProto;
use crate::onnx::recurrent::{gru, lstm, rnn};
use crate::op::{Binary as B, Reduction as R, Unary as U};
use std::ops::RangeInclusive;

/// Where a node is converted: what it reads, and the graph that it goes to.
pub(crate) struct Site<'a, 'm> {
    pub(crate) importer: &'a mut Importer<'m>,
    pub(crate) node: &'m NodeProto,
    pub(crate) attributes: &'a Attributes<'m>,
    pub(crate) inputs: &'a [Option<ValueId>],
}

/// Why a node was not converted.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It is right, but we lack it: goes on the list.
    Unsupported(String),
    /// It is wrong.
    Invalid(String),
    /// Something it brings is.
    Import(Box<ImportError>),
}

impl From<String> for Refusal {
    fn from(problem: String) -> Refusal {
        Refusal::Invalid(problem)
    }
}

impl From<ImportError> for Refusal {
    fn from(error: ImportError) -> Refusal {
        Refusal::Import(Box::new(error))
    }
}

/// One operator that we have.
pub(crate) struct Row {
    name: &'static str,
    /// The opset that brought it, where that is younger than the oldest that we read.
    since: i64,
    /// How many inputs it takes; the first ones, up to the lower bound, must be there.
    inputs: RangeInclusive<usize>,
    /// How many outputs it may have.
    outputs: usize,
    pub(crate) make: fn(&mut Site<'_, '_>) -> Made,
}

/// Whether a converter did its work.
pub(crate) type Made = Result<(), Refusal>;

const fn row(
    name: &'static str,
    since: i64,
    inputs: RangeInclusive<usize>,
    outputs: usize,
    make: fn(&mut Site<'_, '_>) -> Made,
) -> Row {
    Row { name, since, inputs, outputs, make }
}

const MANY: usize = usize::MAX;

#[rustfmt::skip] // one operator a line
static ROWS: &[Row] = &[
    row("Abs",         9, 1..=1, 1, |site| unary(site, U::Abs)),
    row("Ceil",        9, 1..=1, 1, |site| unary(site, U::Ceil)),
    row("Celu",       12, 1..=1, 1, celu),
    row("Cos",         9, 1..=1, 1, |site| unary(site, U::Cos)),
    row("Elu",         9, 1..=1, 1, |site| { let alpha = float(site, "alpha", 1.0)?; unary(site, U::Elu { alpha }) }),
    row("Erf",         9, 1..=1, 1, |site| unary(site, U::Erf)),
    row("Exp",         9, 1..=1, 1, |site| unary(site, U::Exp)),
    row("Floor",       9, 1..=1, 1, |site| unary(site, U::Floor)),
    row("Gelu",       20, 1..=1, 1, gelu),
    row("HardSigmoid", 9, 1..=1, 1, hard_sigmoid),
    row("HardSwish",  14, 1..=1, 1, |site| unary(site, U::HardSwish)),
    row("LeakyRelu",   9, 1..=1, 1, |site| { let alpha = float(site, "alpha", 0.01)?; unary(site, U::LeakyRelu { alpha }) }),
    row("IsInf",      10, 1..=1, 1, is_inf),
    row("IsNaN",       9, 1..=1, 1, is_nan),
    row("Log",         9, 1..=1, 1, |site| unary(site, U::Log)),
    row("Mish",       18, 1..=1, 1, |site| unary(site, U::Mish)),
    row("Neg",         9, 1..=1, 1, |site| unary(site, U::Neg)),
    row("Not",         9, 1..=1, 1, |site| unary(site, U::Not)),
    row("Reciprocal",  9, 1..=1, 1, |site| unary(site, U::Reciprocal)),
    row("Relu",        9, 1..=1, 1, |site| unary(site, U::Relu)),
    row("Round",      11, 1..=1, 1, |site| unary(site, U::Round)),
    row("Selu",        9, 1..=1, 1, selu),
    row("Sigmoid",     9, 1..=1, 1, |site| unary(site, U::Sigmoid)),
    row("Sign",        9, 1..=1, 1, |site| unary(site, U::Sign)),
    row("Sin",         9, 1..=1, 1, |site| unary(site, U::Sin)),
    row("Softplus",    9, 1..=1, 1, |site| unary(site, U::Softplus)),
    row("Softsign",    9, 1..=1, 1, |site| unary(site, U::Softsign)),
    row("Sqrt",        9, 1..=1, 1, |site| unary(site, U::Sqrt)),
    row("Swish",      24, 1..=1, 1, swish),
    row("Tan",         9, 1..=1, 1, tan),
    row("Tanh",        9, 1..=1, 1, |site| unary(site, U::Tanh)),
    row("ThresholdedRelu", 10, 1..=1, 1, thresholded_relu),

    row("Add",            9, 2..=2, 1, |site| binary(site, B::Add)),
    row("And",            9, 2..=2, 1, |site| binary(site, B::And)),
    row("Div",            9, 2..=2, 1, |site| binary(site, B::Div)),
    row("Equal",          9, 2..=2, 1, |site| binary(site, B::Equal)),
    row("Greater",        9, 2..=2, 1, |site| binary(site, B::Greater)),
    row("GreaterOrEqual", 12, 2..=2, 1, |site| binary(site, B::GreaterOrEqual)),
    row("Less",           9, 2..=2, 1, |site| binary(site, B::Less)),
    row("LessOrEqual",    12, 2..=2, 1, |site| binary(site, B::LessOrEqual)),
    row("Max",            9, 1..=MANY, 1, |site| chain(site, B::Max)),
    row("Mean",           9, 1..=MANY, 1, mean),
    row("Min",            9, 1..=MANY, 1, |site| chain(site, B::Min)),
    row("Mod",            10, 2..=2, 1, |site| { let fmod = site.attributes.flag("fmod", false)?; binary(site, B::Mod { fmod }) }),
    row("Mul",            9, 2..=2, 1, |site| binary(site, B::Mul)),
    row("Or",             9, 2..=2, 1, |site| binary(site, B::Or)),
    row("PRelu",          9, 2..=2, 1, |site| binary(site, B::PRelu)),
    row("Pow",            9, 2..=2, 1, |site| binary(site, B::Pow)),
    row("Sub",            9, 2..=2, 1, |site| binary(site, B::Sub)),
    row("Sum",            9, 1..=MANY, 1, |site| chain(site, B::Add)),
    row("Xor",            9, 2..=2, 1, |site| binary(site, B::Xor)),

    row("Cast",  9, 1..=1, 1, cast),
    row("CastLike", 15, 2..=2, 1, cast_like),
    row("Clip",  9, 1..=3, 1, clip),
    row("Where", 9, 3..=3, 1, where_),

    row("Attention",         23, 3..=7, 4, attention),
    row("AveragePool",        9, 1..=1, 1, average_pool),
    row("BatchNormalization", 9, 5..=5, 5, batch_norm),
    row("Conv",               9, 2..=3, 1, conv),
    row("ConvTranspose",      9, 2..=3, 1, conv_transpose),
    row("Gemm",               9, 2..=3, 1, gemm),
    row("GlobalAveragePool",  9, 1..=1, 1, |site| global_pool(site, R::Mean)),
    row("GlobalLpPool",       9, 1..=1, 1, global_lp_pool),
    row("GlobalMaxPool",      9, 1..=1, 1, |site| global_pool(site, R::Max)),
    row("Einsum",            12, 1..=MANY, 1, einsum),
    row("GRU",                9, 3..=6, 2, gru),
    row("GroupNormalization", 18, 3..=3, 1, group_norm),
    row("InstanceNormalization", 9, 3..=3, 1, instance_norm),
    row("LRN",                9, 1..=1, 1, lrn),
    row("LSTM",               9, 3..=8, 3, lstm),
    row("LayerNormalization", 17, 2..=3, 3, layer_norm),
    row("LogSoftmax",         9, 1..=1, 1, |site| softmax(site, true)),
    row("LpNormalization",    9, 1..=1, 1, lp_norm),
    row("LpPool",             9, 1..=1, 1, lp_pool),
    row("MatMul",             9, 2..=2, 1, mat_mul),
    row("MaxPool",            9, 1..=1, 2, max_pool),
    row("RMSNormalization",  23, 2..=2, 1, rms_norm),
    row("RNN",                9, 3..=6, 2, rnn),
    row("RotaryEmbedding",   23, 3..=4, 1, rotary_embedding),
    row("Softmax",            9, 1..=1, 1, |site| softmax(site, false)),

    row("ReduceL1",        9, 1..=2, 1, |site| reduce(site, R::L1, 18)),
    row("ReduceL2",        9, 1..=2, 1, |site| reduce(site, R::L2, 18)),
    row("ReduceLogSum",    9, 1..=2, 1, |site| reduce(site, R::LogSum, 18)),
    row("ReduceLogSumExp", 9, 1..=2, 1, |site| reduce(site, R::LogSumExp, 18)),
    row("ReduceMax",       9, 1..=2, 1, |site| reduce(site, R::Max, 18)),
    row("ReduceMean",      9, 1..=2, 1, |site| reduce(site, R::Mean, 18)),
    row("ReduceMin",       9, 1..=2, 1, |site| reduce(site, R::Min, 18)),
    row("ReduceProd",      9, 1..=2, 1, |site| reduce(site, R::Prod, 18)),
    row("ReduceSum",       9, 1..=2, 1, |site| reduce(site, R::Sum, 13)),
    row("ReduceSumSquare", 9, 1..=2, 1, |site| reduce(site, R::SumSquare, 18)),

    row("ArgMax",          9, 1..=1, 1, |site| arg(site, true)),
    row("ArgMin",          9, 1..=1, 1, |site| arg(site, false)),
    row("Concat",          9, 1..=MANY, 1, concat),
    row("Constant",        9, 0..=0, 1, constant),
    row("ConstantOfShape", 9, 1..=1, 1, constant_of_shape),
    row("CumSum",         11, 2..=2, 1, cum_sum),
    row("DepthToSpace",    9, 1..=1, 1, depth_to_space),
    row("Dropout",         9, 1..=3, 2, dropout),
    row("Expand",          9, 2..=2, 1, |site| plain(site, crate::Op::Expand)),
    row("Flatten",         9, 1..=1, 1, flatten),
    row("Gather",          9, 2..=2, 1, gather),
    row("GatherElements", 11, 2..=2, 1, gather_elements),
    row("GatherND",       11, 2..=2, 1, gather_nd),
    row("Identity",        9, 1..=1, 1, identity),
    row("NonZero",         9, 1..=1, 1, |site| plain(site, crate::Op::NonZero)),
    row("OneHot",          9, 3..=3, 1, one_hot),
    row("Pad",             9, 1..=4, 1, pad),
    row("Range",          11, 3..=3, 1, range),
    row("Reshape",         9, 2..=2, 1, reshape),
    row("Resize",         10, 1..=4, 1, resize),
    row("Scatter",         9, 3..=3, 1, scatter),
    row("ScatterElements", 11, 3..=3, 1, scatter_elements),
    row("ScatterND",      11, 3..=3, 1, scatter_nd),
    row("Shape",           9, 1..=1, 1, shape),
    row("Size",            9, 1..=1, 1, size),
    row("Slice",           9, 1..=5, 1, slice),
    row("SpaceToDepth",    9, 1..=1, 1, space_to_depth),
    row("Split",           9, 1..=2, MANY, split),
    row("Squeeze",         9, 1..=2, 1, |site| axes(site, crate::Op::Squeeze)),
    row("Tile",            9, 2..=2, 1, |site| plain(site, crate::Op::Tile)),
    row("TopK",            9, 1..=2, 2, top_k),
    row("Transpose",       9, 1..=1, 1, transpose),
    row("Trilu",          14, 1..=2, 1, trilu),
    row("Unsqueeze",       9, 1..=2, 1, |site| axes(site, crate::Op::Unsqueeze)),
    row("Upsample",        9, 2..=2, 1, upsample),
];

#[rustfmt::skip] // one reason a line
static REFUSED: &[(&str, &[&str])] = &[
    ("control flow is not served; export the model traced for inference, without branches and loops",
     &["If", "Loop", "Scan"]),
    ("quantised models are not served; deploy the model as it was before quantisation",
     &["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"]),
    ("sequences and optionals are not served; export tensors",
     &["SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap",
       "SplitToSequence", "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement"]),
    ("strings are not served; tokenise and normalise before the request",
     &["StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "TfIdfVectorizer", "ImageDecoder"]),
    ("the shape of its answer depends on data; do this step after the request",
     &["NonMaxSuppression", "Unique", "Compress"]),
    ("random numbers are not served; pass them as an input",
     &["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"]),
    ("it is for training; export the model for inference",
     &["SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"]),
];

/// The row of a node's operator, or why there is none.
pub(crate) fn find(node: &NodeProto, opset: i64) -> Result<&'static Row, Refusal> {
    let unsupported = |reason: &str| Err(Refusal::Unsupported(reason.to_owned()));
    match node.domain() {
        "" | "ai.onnx" => {}
        "com.microsoft" => {
            return unsupported(
                "an operator of onnxruntime's own; deploy the model as it was before its optimiser",
            );
        }
        "ai.onnx.ml" => return unsupported("classical machine learning is not served"),
        _ => return unsupported("an operator of another domain; export the model with ONNX's own operators"),
    }
    let name = node.op_type();
    match ROWS.iter().find(|row| row.name == name) {
        Some(row) if row.since > opset => Err(Refusal::Invalid(format!(
            "is of opset {}, but the model says that it is written in opset {opset}",
            row.since
        ))),
        Some(row) => Ok(row),
        None => match REFUSED.iter().find(|(_, names)| names.contains(&name)) {
            Some((reason, _)) => unsupported(reason),
            None => unsupported("no such operator here yet; open an issue with the model's name"),
        },
    }
}

/// Counts inputs and outputs.
pub(crate) fn check(row: &Row, inputs: &[Option<ValueId>], node: &NodeProto) -> Result<(), Refusal> {
    if !row.inputs.contains(&inputs.len()) {
        let (least, most) = row.inputs.clone().into_inner();
        let wanted = match most {
            MANY => format!("at least {least}"),
            most if most == least => least.to_string(),
            most => format!("{least} to {most}"),
        };
        return Err(Refusal::Invalid(format!("has {} inputs, but {wanted} are wanted", inputs.len())));
    }
    let required = if *row.inputs.end() == MANY { inputs.len() } else { *row.inputs.start() };
    if let Some(missing) = inputs[..required].iter().position(Option::is_none) {
        return Err(Refusal::Invalid(format!("leaves out input {missing}, which it cannot do without")));
    }
    if node.output.len() > row.outputs || node.output.is_empty() {
        return Err(Refusal::Invalid(format!("has {} outputs", node.output.len())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_operator_stands_in_the_table_twice() {
        let refused = REFUSED.iter().flat_map(|(_, names)| names.iter().copied());
        let mut names: Vec<&str> = ROWS.iter().map(|row| row.name).chain(refused).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
