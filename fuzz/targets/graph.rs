//! A recipe: bytes read as a program that writes an ONNX graph. Nearly every recipe is well-formed protobuf, so the fuzzer spends its
//! time on operators, attributes and shapes rather than on lengths.

use super::model;
use prost::Message;
use tessera_planner::class::load_bytes;
use tessera_planner::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto, type_proto,
};

pub(super) fn run(bytes: &[u8]) {
    let model = Recipe { bytes }.model();
    if let Ok(model) = load_bytes(model.encode_to_vec(), None) {
        model::walk(&model);
    }
}

/// An attribute that an operator knows, and what it may be.
enum Attribute {
    Int(&'static str),
    Ints(&'static str),
    Float(&'static str),
    Word(&'static str, &'static [&'static str]),
}
use Attribute::{Float, Int, Ints, Word};

const PADDING: Attribute = Word("auto_pad", &["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]);
const WAY: Attribute = Word("direction", &["forward", "reverse", "bidirectional"]);
const ACTIVATIONS: [&str; 3] = ["Sigmoid", "Tanh", "Relu"];

/// Operators, and their attributes; those without any are at the end.
const OPERATORS: &[(&str, &[Attribute])] = &[
    (
        "AveragePool",
        &[
            Ints("kernel_shape"),
            Ints("strides"),
            Ints("pads"),
            Int("ceil_mode"),
            Int("count_include_pad"),
            PADDING,
        ],
    ),
    (
        "MaxPool",
        &[Ints("kernel_shape"), Ints("strides"), Ints("pads"), Ints("dilations"), Int("ceil_mode"), PADDING],
    ),
    (
        "Conv",
        &[Ints("kernel_shape"), Ints("strides"), Ints("pads"), Ints("dilations"), Int("group"), PADDING],
    ),
    (
        "ConvTranspose",
        &[
            Ints("kernel_shape"),
            Ints("strides"),
            Ints("pads"),
            Ints("output_padding"),
            Ints("output_shape"),
            Ints("dilations"),
            Int("group"),
            PADDING,
        ],
    ),
    ("Gemm", &[Float("alpha"), Float("beta"), Int("transA"), Int("transB")]),
    ("BatchNormalization", &[Float("epsilon")]),
    ("LayerNormalization", &[Int("axis"), Float("epsilon")]),
    ("RMSNormalization", &[Int("axis"), Float("epsilon")]),
    ("InstanceNormalization", &[Float("epsilon")]),
    ("GroupNormalization", &[Int("num_groups"), Float("epsilon")]),
    ("LpNormalization", &[Int("axis"), Int("p")]),
    ("LRN", &[Int("size"), Float("alpha"), Float("beta"), Float("bias")]),
    ("Softmax", &[Int("axis")]),
    ("LogSoftmax", &[Int("axis")]),
    ("LSTM", &[Int("hidden_size"), WAY, Int("layout"), Word("activations", &ACTIVATIONS)]),
    ("GRU", &[Int("hidden_size"), WAY, Int("linear_before_reset"), Int("layout")]),
    ("RNN", &[Int("hidden_size"), WAY, Int("layout"), Word("activations", &ACTIVATIONS)]),
    ("ReduceMean", &[Ints("axes"), Int("keepdims"), Int("noop_with_empty_axes")]),
    ("ReduceSum", &[Ints("axes"), Int("keepdims"), Int("noop_with_empty_axes")]),
    ("ReduceMax", &[Ints("axes"), Int("keepdims")]),
    ("ReduceLogSumExp", &[Ints("axes"), Int("keepdims")]),
    ("ArgMax", &[Int("axis"), Int("keepdims"), Int("select_last_index")]),
    ("TopK", &[Int("axis"), Int("largest"), Int("sorted")]),
    ("CumSum", &[Int("exclusive"), Int("reverse")]),
    ("Trilu", &[Int("upper")]),
    ("Cast", &[Int("to")]),
    ("Concat", &[Int("axis")]),
    ("Split", &[Int("axis"), Int("num_outputs"), Ints("split")]),
    ("Flatten", &[Int("axis")]),
    ("Gather", &[Int("axis")]),
    ("GatherElements", &[Int("axis")]),
    ("GatherND", &[Int("batch_dims")]),
    ("ScatterElements", &[Int("axis"), Word("reduction", &["none", "add", "mul", "min", "max"])]),
    ("ScatterND", &[Word("reduction", &["none", "add", "mul", "min", "max"])]),
    ("OneHot", &[Int("axis")]),
    ("Shape", &[Int("start"), Int("end")]),
    ("Reshape", &[Int("allowzero")]),
    ("Squeeze", &[Ints("axes")]),
    ("Unsqueeze", &[Ints("axes")]),
    ("Transpose", &[Ints("perm")]),
    ("Pad", &[Word("mode", &["constant", "reflect", "edge", "wrap"]), Ints("pads"), Float("value")]),
    ("Slice", &[Ints("starts"), Ints("ends"), Ints("axes")]),
    ("DepthToSpace", &[Int("blocksize"), Word("mode", &["DCR", "CRD"])]),
    ("SpaceToDepth", &[Int("blocksize")]),
    (
        "Resize",
        &[
            Word("mode", &["nearest", "linear", "cubic"]),
            Word("nearest_mode", &["floor", "ceil", "round_prefer_floor"]),
            Word(
                "coordinate_transformation_mode",
                &["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"],
            ),
            Int("antialias"),
        ],
    ),
    (
        "Einsum",
        &[Word(
            "equation",
            &["ij,jk->ik", "bij,bjk->bik", "ii->i", "...i,i->...", "bhqd,bhkd->bhqk", "i,j->ij", ",->"],
        )],
    ),
    ("Attention", &[Int("q_num_heads"), Int("kv_num_heads"), Int("is_causal"), Float("scale")]),
    ("Elu", &[Float("alpha")]),
    ("LeakyRelu", &[Float("alpha")]),
    ("HardSigmoid", &[Float("alpha"), Float("beta")]),
    ("Selu", &[Float("alpha"), Float("gamma")]),
    ("ThresholdedRelu", &[Float("alpha")]),
    ("Gelu", &[Word("approximate", &["none", "tanh"])]),
    ("Mod", &[Int("fmod")]),
    ("Clip", &[Float("min"), Float("max")]),
    ("Add", &[]),
    ("Sub", &[]),
    ("Mul", &[]),
    ("Div", &[]),
    ("Pow", &[]),
    ("Min", &[]),
    ("Max", &[]),
    ("Mean", &[]),
    ("Sum", &[]),
    ("Equal", &[]),
    ("Greater", &[]),
    ("LessOrEqual", &[]),
    ("And", &[]),
    ("Or", &[]),
    ("Xor", &[]),
    ("Not", &[]),
    ("Where", &[]),
    ("Relu", &[]),
    ("Sigmoid", &[]),
    ("Tanh", &[]),
    ("Erf", &[]),
    ("Exp", &[]),
    ("Log", &[]),
    ("Sqrt", &[]),
    ("Neg", &[]),
    ("Abs", &[]),
    ("Ceil", &[]),
    ("Round", &[]),
    ("Sign", &[]),
    ("Reciprocal", &[]),
    ("Softplus", &[]),
    ("HardSwish", &[]),
    ("Mish", &[]),
    ("PRelu", &[]),
    ("IsNaN", &[]),
    ("IsInf", &[]),
    ("Identity", &[]),
    ("Dropout", &[]),
    ("MatMul", &[]),
    ("GlobalAveragePool", &[]),
    ("GlobalMaxPool", &[]),
    ("Expand", &[]),
    ("Tile", &[]),
    ("Range", &[]),
    ("ConstantOfShape", &[]),
    ("RotaryEmbedding", &[]),
];

const OPSETS: [i64; 8] = [9, 11, 12, 13, 17, 18, 21, 24];
const MOST_NODES: usize = 10;

/// Bytes that are left to decide by; zeros after their end.
struct Recipe<'a> {
    bytes: &'a [u8],
}

impl Recipe<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.bytes.split_first().unwrap_or((&0, &[]));
        self.bytes = rest;
        *first
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    fn one<'c, T>(&mut self, of: &'c [T]) -> &'c T {
        &of[self.below(of.len())]
    }

    /// Mostly what exporters write, seldom what nobody should.
    fn number(&mut self) -> i64 {
        match self.byte() {
            small @ 0..=223 => i64::from(small % 9) - 2,
            224..=239 => 1 << self.below(63),
            240..=247 => i64::MAX - self.below(2) as i64,
            _ => i64::MIN + self.below(2) as i64,
        }
    }

    fn numbers(&mut self) -> Vec<i64> {
        (0..self.below(6)).map(|_| self.number()).collect()
    }

    fn float(&mut self) -> f32 {
        *self.one(&[0.0, 1.0, -1.0, 0.5, 2.0, 1e-5, 1e-42, 3e38, -0.0, f32::INFINITY, f32::NAN, -3.5])
    }

    fn model(mut self) -> ModelProto {
        let version = Some(*self.one(&OPSETS));
        let mut graph = GraphProto::default();
        let mut values: Vec<String> = Vec::new();
        for index in 0..1 + self.below(2) {
            values.push(format!("x{index}"));
            graph.input.push(self.input(format!("x{index}")));
        }
        for index in 0..self.below(6) {
            values.push(format!("w{index}"));
            graph.initializer.push(self.initializer(format!("w{index}")));
        }
        for index in 0..1 + self.below(MOST_NODES) {
            let node = self.node(index, &values);
            values.extend(node.output.iter().cloned());
            graph.node.push(node);
        }
        // The last value and perhaps another are the answer.
        let mut outputs = vec![values.last().expect("a graph has an input").clone()];
        outputs.extend((self.below(4) == 0).then(|| self.one(&values).clone()));
        outputs.dedup();
        let output = |name: String| ValueInfoProto { name: Some(name), ..ValueInfoProto::default() };
        graph.output = outputs.into_iter().map(output).collect();
        ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto { domain: None, version }],
            graph: Some(graph),
            ..ModelProto::default()
        }
    }

    fn input(&mut self, name: String) -> ValueInfoProto {
        use tensor_shape_proto::{Dimension, dimension::Value};
        let dims = (0..self.below(6)).map(|_| match self.below(10) {
            0 => Value::DimParam("batch".into()),
            1 => Value::DimParam("length".into()),
            2 => Value::DimValue(self.number()),
            size => Value::DimValue(size as i64 - 2),
        });
        let dim = dims.map(|value| Dimension { value: Some(value), denotation: None }).collect();
        // Mostly floats; integers and booleans are indices and masks.
        let elem_type = Some(*self.one(&[1, 1, 1, 1, 7, 6, 9, 10, 11]));
        let tensor = type_proto::Tensor { elem_type, shape: Some(TensorShapeProto { dim }) };
        let value = Some(type_proto::Value::TensorType(tensor));
        let r#type = Some(TypeProto { value, denotation: None });
        ValueInfoProto { name: Some(name), r#type, ..ValueInfoProto::default() }
    }

    fn initializer(&mut self, name: String) -> TensorProto {
        let tensor = TensorProto { name: Some(name), ..TensorProto::default() };
        if self.below(2) == 0 {
            let int64_data = self.numbers();
            let dims = if self.below(4) == 0 && int64_data.len() == 1 {
                vec![]
            } else {
                vec![int64_data.len() as i64]
            };
            return TensorProto { data_type: Some(7), dims, int64_data, ..tensor };
        }
        let dims: Vec<i64> = (0..self.below(5)).map(|_| self.below(9) as i64).collect();
        let count = dims.iter().product::<i64>();
        let float_data = (0..count).map(|at| if at < 4 { self.float() } else { at as f32 }).collect();
        TensorProto { data_type: Some(1), dims, float_data, ..tensor }
    }

    fn node(&mut self, index: usize, values: &[String]) -> NodeProto {
        let (name, attributes) = self.one(OPERATORS);
        // The latest values more often than others, so that graphs become deep.
        let input = (0..self.below(6)).map(|place| match self.below(8) {
            0..=2 if place == 0 => values.last().expect("a graph has an input").clone(),
            7 if place > 1 => String::new(),
            _ => self.one(values).clone(),
        });
        let input = input.collect();
        let output = (0..1 + self.below(3) / 2 * self.below(3)).map(|output| format!("v{index}.{output}"));
        let output = output.collect();
        let mut attribute = Vec::new();
        for known in *attributes {
            if self.below(2) == 0 {
                attribute.push(self.attribute(known));
            }
        }
        NodeProto { op_type: Some((*name).into()), input, output, attribute, ..NodeProto::default() }
    }

    fn attribute(&mut self, attribute: &Attribute) -> AttributeProto {
        let made = AttributeProto::default();
        let (name, kind, made) = match attribute {
            Int(name) => (name, AttributeType::Int, AttributeProto { i: Some(self.number()), ..made }),
            Ints(name) => (name, AttributeType::Ints, AttributeProto { ints: self.numbers(), ..made }),
            Float(name) => (name, AttributeType::Float, AttributeProto { f: Some(self.float()), ..made }),
            Word(name @ "activations", words) => {
                let strings =
                    (0..self.below(8)).map(|_| self.one(words).as_bytes().to_vec().into()).collect();
                (name, AttributeType::Strings, AttributeProto { strings, ..made })
            }
            Word(name, words) => {
                let s = Some(self.one(words).as_bytes().to_vec().into());
                (name, AttributeType::String, AttributeProto { s, ..made })
            }
        };
        AttributeProto { name: Some((*name).into()), r#type: Some(kind as i32), ..made }
    }
}
