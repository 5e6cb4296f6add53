//! Fixtures, and ONNX models made by hand.
#![allow(dead_code)] // each test file uses some of it
#![allow(clippy::unwrap_used)] // the lint spares tests, but not the functions that they share

pub(crate) mod ready;

use prost::Message;
use std::path::PathBuf;
use tessera_core::DType;
use tessera_planner::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto, type_proto,
};

pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(name)
}

/// The message in a fixture, to be changed.
pub(crate) fn proto(name: &str) -> ModelProto {
    let bytes = std::fs::read(fixture(name)).unwrap();
    ModelProto::decode(&bytes[..]).unwrap()
}

/// A model of `opset` around a graph.
pub(crate) fn model(opset: i64, graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(opset) }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// A graph of one node from f32 inputs of these shapes (0 is a free dimension) to one output.
pub(crate) fn one_node(
    inputs: &[(&str, &[i64])],
    initializers: Vec<TensorProto>,
    node: NodeProto,
) -> GraphProto {
    GraphProto {
        input: inputs.iter().map(|(name, dims)| info(name, dims)).collect(),
        output: node.output.iter().filter(|name| !name.is_empty()).map(|name| untyped(name)).collect(),
        initializer: initializers,
        node: vec![node],
        ..GraphProto::default()
    }
}

pub(crate) fn node(
    op: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: Vec<AttributeProto>,
) -> NodeProto {
    NodeProto {
        op_type: Some(op.into()),
        name: Some(format!("the_{op}")),
        input: inputs.iter().map(|&name| name.into()).collect(),
        output: outputs.iter().map(|&name| name.into()).collect(),
        attribute: attributes,
        ..NodeProto::default()
    }
}

pub(crate) fn untyped(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.into()), ..ValueInfoProto::default() }
}

/// ONNX's number of a type.
fn number(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::I8 => 3,
        DType::U16 => 4,
        DType::I16 => 5,
        DType::I32 => 6,
        DType::I64 => 7,
        DType::Bool => 9,
        DType::F16 => 10,
        DType::F64 => 11,
        DType::U32 => 12,
        DType::U64 => 13,
        DType::BF16 => 16,
    }
}

/// An f32 input; 0 is a free dimension with a name of its own.
pub(crate) fn info(name: &str, dims: &[i64]) -> ValueInfoProto {
    typed_info(name, DType::F32, dims)
}

/// An input of any type; 0 is a free dimension with a name of its own.
pub(crate) fn typed_info(name: &str, dtype: DType, dims: &[i64]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |(axis, &size): (usize, &i64)| Dimension {
        value: Some(if size == 0 { Value::DimParam(format!("d{axis}")) } else { Value::DimValue(size) }),
        denotation: None,
    };
    let shape = TensorShapeProto { dim: dims.iter().enumerate().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(number(dtype)), shape: Some(shape) };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto { r#type: Some(TypeProto { value, denotation: None }), ..untyped(name) }
}

pub(crate) fn floats(name: &str, dims: &[i64], elements: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(1),
        float_data: elements.to_vec(),
        ..TensorProto::default()
    }
}

pub(crate) fn ints(name: &str, elements: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: vec![elements.len() as i64],
        data_type: Some(7),
        int64_data: elements.to_vec(),
        ..TensorProto::default()
    }
}

pub(crate) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(i),
        ..AttributeProto::default()
    }
}

pub(crate) fn int_list(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Ints as i32),
        ints: ints.to_vec(),
        ..AttributeProto::default()
    }
}

pub(crate) fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Float as i32),
        f: Some(f),
        ..AttributeProto::default()
    }
}

pub(crate) fn string(name: &str, s: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::String as i32),
        s: Some(s.to_owned().into()),
        ..AttributeProto::default()
    }
}
