//! Writes ordinary ONNX files: the inverse of the planner's import, for models with seeded weights.
//!
//! ```text
//!   nodes, inputs, outputs ─┐
//!   weights: shape and range ┴▶ OnnxWriter ─ write(seed) ─▶ file      one graph, as many tenants as there are seeds
//! ```
//! The graph holds no weight, only how each is drawn, so a model of any size is counted and compared for nothing, and a
//! file is streamed: gigabytes of tenants are written through a buffer of some kilobytes.

mod draw;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use std::io::{self, Write};
use tessera_planner::onnx::proto::attribute_proto::AttributeType;
use tessera_planner::onnx::proto::tensor_proto::DataType;
use tessera_planner::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use tessera_planner::onnx::proto::type_proto;
use tessera_planner::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
};

/// An ONNX graph in the making.
#[derive(Clone, Debug)]
pub struct OnnxWriter {
    graph: GraphProto,
    tensors: Vec<Initializer>,
}

/// A dimension of an input or output.
#[derive(Clone, Copy, Debug)]
pub enum Axis {
    /// Fixed.
    Of(usize),
    /// Chosen by the request, by name.
    Free(&'static str),
}

/// How a weight's elements are drawn: evenly between `centre - bound` and `centre + bound`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Range {
    /// The mean.
    pub centre: f32,
    /// Half the width.
    pub bound: f32,
}

impl Range {
    /// Around zero, with this variance.
    pub fn of_variance(variance: f32) -> Range {
        Range { centre: 0.0, bound: (3.0 * variance).sqrt() }
    }
}

#[derive(Clone, Debug)]
struct Initializer {
    /// Everything but the elements.
    header: TensorProto,
    elements: Elements,
}

#[derive(Clone, Debug)]
enum Elements {
    /// Drawn; `learnt` ones count as parameters, statistics do not. Of each row of `row.0` elements `row.1` of its mean is taken off.
    Drawn { count: usize, range: Range, learnt: bool, row: Option<(usize, f32)> },
    /// The same for every seed.
    Given(Vec<u8>),
}

impl Elements {
    fn bytes(&self) -> usize {
        match self {
            Elements::Drawn { count, .. } => count * size_of::<f32>(),
            Elements::Given(bytes) => bytes.len(),
        }
    }
}

impl OnnxWriter {
    /// An empty graph.
    pub fn new(name: &str) -> OnnxWriter {
        let graph = GraphProto { name: Some(name.to_owned()), ..GraphProto::default() };
        OnnxWriter { graph, tensors: Vec::new() }
    }

    /// Declares a float input.
    pub fn input(&mut self, name: &str, dims: &[Axis]) -> String {
        self.graph.input.push(declaration(name, DataType::Float, dims));
        name.to_owned()
    }

    /// Declares an input of ids.
    pub fn ids(&mut self, name: &str, dims: &[Axis]) -> String {
        self.graph.input.push(declaration(name, DataType::Int64, dims));
        name.to_owned()
    }

    /// Adds a node with one output, named after the operator, and returns the output's name.
    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute<'_>)]) -> String {
        let name = format!("{}_{}", op.to_lowercase(), self.graph.node.len());
        self.named(&name, op, inputs, attributes)
    }

    /// Adds a node with one output that is called as the node is, and returns that name. It must be new.
    pub fn named(
        &mut self,
        name: &str,
        op: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute<'_>)],
    ) -> String {
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![name.to_owned()],
            name: Some(name.to_owned()),
            op_type: Some(op.to_owned()),
            attribute: attributes.iter().map(|(name, value)| value.named(name)).collect(),
            ..NodeProto::default()
        });
        name.to_owned()
    }

    /// A learnt weight.
    pub fn weight(&mut self, name: &str, dims: &[usize], range: Range) -> String {
        let count = dims.iter().product();
        self.tensor(name, DataType::Float, dims, Elements::Drawn { count, range, learnt: true, row: None })
    }

    /// A learnt weight of which `part` of the mean over everything but the first axis is taken off. Taken off whole, an output's
    /// products with one and the same number cancel, so that what all inputs share does not drown what tells them apart.
    pub fn centred_weight(&mut self, name: &str, dims: &[usize], range: Range, part: f32) -> String {
        let count = dims.iter().product();
        let row = Some((dims[1..].iter().product(), part));
        self.tensor(name, DataType::Float, dims, Elements::Drawn { count, range, learnt: true, row })
    }

    /// A weight that training measures rather than learns, as the mean that a normalisation takes off: no parameter.
    pub fn statistic(&mut self, name: &str, dims: &[usize], range: Range) -> String {
        let count = dims.iter().product();
        self.tensor(name, DataType::Float, dims, Elements::Drawn { count, range, learnt: false, row: None })
    }

    /// Integer constants: a shape, ids.
    pub fn integers(&mut self, name: &str, dims: &[usize], values: &[i64]) -> String {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, DataType::Int64, dims, Elements::Given(data))
    }

    /// A float constant of rank 0.
    pub fn scalar(&mut self, name: &str, value: f32) -> String {
        self.tensor(name, DataType::Float, &[], Elements::Given(value.to_le_bytes().to_vec()))
    }

    fn tensor(&mut self, name: &str, dtype: DataType, dims: &[usize], elements: Elements) -> String {
        let header = TensorProto {
            name: Some(name.to_owned()),
            data_type: Some(dtype as i32),
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            ..TensorProto::default()
        };
        self.tensors.push(Initializer { header, elements });
        name.to_owned()
    }

    /// Whether a constant or weight of this name is there.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.iter().any(|tensor| tensor.header.name() == name)
    }

    /// Declares `value` as a float output under the name `output`.
    pub fn output(&mut self, output: &str, value: &str, dims: &[Axis]) {
        self.named(output, "Identity", &[value], &[]);
        self.graph.output.push(declaration(output, DataType::Float, dims));
    }

    /// How many numbers are learnt.
    pub fn parameters(&self) -> u64 {
        let learnt = self.tensors.iter().map(|tensor| match tensor.elements {
            Elements::Drawn { count, learnt: true, .. } => count as u64,
            _ => 0,
        });
        learnt.sum()
    }

    /// How many bytes the file has, whatever the seed.
    pub fn file_bytes(&self) -> u64 {
        let graph = self.graph_bytes();
        let head = self.head();
        (head.len() + key_len(GRAPH) + encoded_len_varint(graph)) as u64 + graph
    }

    /// Writes the file; `seed` decides every weight. Equal seeds give equal bytes. Costs about a second per gigabyte.
    pub fn write(&self, seed: u64, out: &mut impl Write) -> io::Result<()> {
        let mut start = self.head();
        encode_key(GRAPH, WireType::LengthDelimited, &mut start);
        encode_varint(self.graph_bytes(), &mut start);
        self.graph.encode_raw(&mut start);
        out.write_all(&start)?;
        for (index, tensor) in self.tensors.iter().enumerate() {
            let mut start = Vec::new();
            encode_key(INITIALIZER, WireType::LengthDelimited, &mut start);
            encode_varint(tensor.bytes() as u64, &mut start);
            tensor.header.encode_raw(&mut start);
            encode_key(RAW_DATA, WireType::LengthDelimited, &mut start);
            encode_varint(tensor.elements.bytes() as u64, &mut start);
            out.write_all(&start)?;
            match &tensor.elements {
                Elements::Given(bytes) => out.write_all(bytes)?,
                Elements::Drawn { count, range, row, .. } => {
                    let stream = draw::Stream::of(seed, index as u64);
                    match row {
                        None => draw::write(stream, *range, *count, out)?,
                        Some((row, part)) => draw::write_rows(stream, *range, *count, *row, *part, out)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// The file in memory.
    pub fn to_bytes(&self, seed: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.file_bytes() as usize);
        self.write(seed, &mut bytes).expect("memory takes what is written to it");
        bytes
    }

    /// Everything of the file before its graph.
    fn head(&self) -> Vec<u8> {
        let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
        let model = ModelProto {
            ir_version: Some(8),
            producer_name: Some("tessera-zoo".to_owned()),
            opset_import: vec![opset],
            ..ModelProto::default()
        };
        model.encode_to_vec()
    }

    fn graph_bytes(&self) -> u64 {
        let tensors = self.tensors.iter().map(|tensor| {
            let bytes = tensor.bytes();
            (key_len(INITIALIZER) + encoded_len_varint(bytes as u64) + bytes) as u64
        });
        self.graph.encoded_len() as u64 + tensors.sum::<u64>()
    }
}

impl Initializer {
    fn bytes(&self) -> usize {
        let elements = self.elements.bytes();
        self.header.encoded_len() + key_len(RAW_DATA) + encoded_len_varint(elements as u64) + elements
    }
}

/// `ModelProto.graph`, `GraphProto.initializer` and `TensorProto.raw_data` in `onnx.proto`. Fields of a message may come in any
/// order, which lets the large ones come last, streamed.
const GRAPH: u32 = 7;
const INITIALIZER: u32 = 5;
const RAW_DATA: u32 = 9;

/// The value of an attribute.
#[derive(Clone, Copy, Debug)]
pub enum Attribute<'a> {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f32),
    /// Integers.
    Ints(&'a [i64]),
}

impl Attribute<'_> {
    fn named(&self, name: &str) -> AttributeProto {
        let attribute = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
        match self {
            Attribute::Int(i) => {
                AttributeProto { r#type: Some(AttributeType::Int as i32), i: Some(*i), ..attribute }
            }
            Attribute::Float(f) => {
                AttributeProto { r#type: Some(AttributeType::Float as i32), f: Some(*f), ..attribute }
            }
            Attribute::Ints(ints) => {
                AttributeProto { r#type: Some(AttributeType::Ints as i32), ints: ints.to_vec(), ..attribute }
            }
        }
    }
}

fn declaration(name: &str, dtype: DataType, dims: &[Axis]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|dim| {
            let value = match dim {
                Axis::Of(length) => dimension::Value::DimValue(*length as i64),
                Axis::Free(name) => dimension::Value::DimParam((*name).to_owned()),
            };
            Dimension { value: Some(value), ..Dimension::default() }
        })
        .collect();
    let tensor = type_proto::Tensor { elem_type: Some(dtype as i32), shape: Some(TensorShapeProto { dim }) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(r#type), ..ValueInfoProto::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> OnnxWriter {
        let mut writer = OnnxWriter::new("small");
        let x = writer.input("x", &[Axis::Free("batch"), Axis::Of(3)]);
        let w = writer.weight("w", &[3, 300], Range { centre: 1.0, bound: 0.5 });
        let y = writer.node("MatMul", &[&x, &w], &[]);
        let mean = writer.statistic("mean", &[300], Range::of_variance(1.0));
        let y = writer.node("Sub", &[&y, &mean], &[]);
        writer.output("y", &y, &[Axis::Free("batch"), Axis::Of(300)]);
        writer
    }

    #[test]
    fn a_streamed_file_is_the_message_that_protobuf_reads() {
        let bytes = small().to_bytes(1);
        assert_eq!(bytes.len() as u64, small().file_bytes());
        let model = ModelProto::decode(&bytes[..]).unwrap();
        let graph = model.graph.unwrap();
        assert_eq!(graph.node.len(), 3);
        assert_eq!(graph.initializer[0].raw_data().len(), 4 * 900);
        // As protobuf itself would write it, but for the order of fields.
        assert_eq!(small().file_bytes() as usize, ModelProto::decode(&bytes[..]).unwrap().encoded_len());
    }

    #[test]
    fn a_seed_decides_every_weight_and_only_weights() {
        let initializers = |seed| {
            let bytes = small().to_bytes(seed);
            ModelProto::decode(&bytes[..]).unwrap().graph.unwrap().initializer
        };
        assert_eq!(small().to_bytes(7), small().to_bytes(7));
        let (one, other) = (initializers(7), initializers(8));
        for (a, b) in one.iter().zip(&other) {
            assert_ne!(a.raw_data(), b.raw_data(), "{}", a.name());
            assert_eq!((a.name(), &a.dims), (b.name(), &b.dims));
        }
    }

    #[test]
    fn what_is_measured_is_no_parameter() {
        assert_eq!(small().parameters(), 900);
    }
}
