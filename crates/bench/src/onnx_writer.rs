//! Writes ordinary ONNX files: the inverse of the planner's import, for models with seeded weights.

use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tessera_planner::onnx::proto::attribute_proto::AttributeType;
use tessera_planner::onnx::proto::tensor_proto::DataType;
use tessera_planner::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use tessera_planner::onnx::proto::type_proto;
use tessera_planner::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
};

/// An ONNX graph in the making. Values are named by the writer; weights are drawn from one seeded generator, in the order
/// in which they are asked for.
#[derive(Debug)]
pub struct OnnxWriter {
    graph: GraphProto,
    weights: StdRng,
}

/// A dimension of an input or output.
#[derive(Clone, Copy, Debug)]
pub enum Axis {
    /// Fixed.
    Of(usize),
    /// Chosen by the request, by name.
    Free(&'static str),
}

impl OnnxWriter {
    /// An empty graph; `seed` decides every weight.
    pub fn new(name: &str, seed: u64) -> OnnxWriter {
        let graph = GraphProto { name: Some(name.to_owned()), ..GraphProto::default() };
        OnnxWriter { graph, weights: StdRng::seed_from_u64(seed) }
    }

    /// Declares a float input.
    pub fn input(&mut self, name: &str, dims: &[Axis]) -> String {
        self.graph.input.push(declaration(name, DataType::Float, dims));
        name.to_owned()
    }

    /// Declares an input of token ids.
    pub fn ids(&mut self, name: &str, dims: &[Axis]) -> String {
        self.graph.input.push(declaration(name, DataType::Int64, dims));
        name.to_owned()
    }

    /// Adds a node with one output and returns the output's name.
    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute<'_>)]) -> String {
        let name = format!("{}_{}", op.to_lowercase(), self.graph.node.len());
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![name.clone()],
            name: Some(name.clone()),
            op_type: Some(op.to_owned()),
            attribute: attributes.iter().map(|(name, value)| value.named(name)).collect(),
            ..NodeProto::default()
        });
        name
    }

    /// A weight drawn evenly from ±`bound` around `centre`.
    pub fn weight(&mut self, name: &str, dims: &[usize], centre: f32, bound: f32) -> String {
        let count = dims.iter().product();
        let data: Vec<u8> = (0..count)
            .flat_map(|_| (centre + self.weights.random_range(-bound..=bound)).to_le_bytes())
            .collect();
        self.initializer(name, DataType::Float, dims, data)
    }

    /// A weight of a layer that sums `fan_in` products: He's scale, so that activations keep their size.
    pub fn he(&mut self, name: &str, dims: &[usize], fan_in: usize) -> String {
        self.weight(name, dims, 0.0, (6.0 / fan_in as f32).sqrt())
    }

    /// An integer constant, a shape say.
    pub fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, DataType::Int64, &[values.len()], data)
    }

    /// A float constant of rank 0.
    pub fn scalar(&mut self, name: &str, value: f32) -> String {
        self.initializer(name, DataType::Float, &[], value.to_le_bytes().to_vec())
    }

    fn initializer(&mut self, name: &str, dtype: DataType, dims: &[usize], data: Vec<u8>) -> String {
        self.graph.initializer.push(TensorProto {
            name: Some(name.to_owned()),
            data_type: Some(dtype as i32),
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            raw_data: Some(data.into()),
            ..TensorProto::default()
        });
        name.to_owned()
    }

    /// Declares `value` as the float output `output` and returns the file's bytes.
    pub fn finish(mut self, value: &str, dims: &[Axis]) -> Vec<u8> {
        let last = self.node("Identity", &[value], &[]);
        let node = self.graph.node.last_mut().expect("just added");
        node.output = vec!["output".to_owned()];
        drop(last);
        self.graph.output.push(declaration("output", DataType::Float, dims));
        let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
        let model = ModelProto {
            ir_version: Some(8),
            producer_name: Some("tessera-zoo".to_owned()),
            opset_import: vec![opset],
            graph: Some(self.graph),
            ..ModelProto::default()
        };
        model.encode_to_vec()
    }
}

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
