//! The name of an architecture: a hash over everything that plans and packs are made from, and nothing else.
//!
//! The stream that is hashed is prefix-free: counts come before lists and lengths before bytes, so that two different
//! graphs never write one stream.

use crate::describe::describe;
use crate::graph::{Dim, Graph, ParamData, ValueId};
use tessera_core::{ClassId, DType};

/// Changes whenever the stream does: ids of different versions never meet, in file names for instance.
const VERSION: &[u8] = b"tessera class 1";

/// The id of a normalised graph.
pub(super) fn id(graph: &Graph) -> ClassId {
    let mut stream = Stream(blake3::Hasher::new());
    stream.bytes(VERSION);
    stream.number(graph.inputs.len());
    for input in &graph.inputs {
        stream.value(input.value);
        stream.dtype(input.dtype);
        stream.number(input.dims.len());
        for dim in &input.dims {
            match dim {
                Dim::Fixed(size) => stream.pair(0, *size),
                Dim::Free(index) => stream.pair(1, *index as u64),
            }
        }
    }
    stream.number(graph.params.len());
    for param in &graph.params {
        stream.value(param.value);
        stream.dtype(param.dtype);
        stream.number(param.dims.len());
        param.dims.iter().for_each(|&dim| stream.number(dim));
        match &param.data {
            ParamData::Weight(_) => stream.number(0),
            ParamData::Literal(tensor) => {
                stream.number(1);
                stream.bytes(tensor.bytes());
            }
        }
    }
    stream.number(graph.nodes.len());
    for node in &graph.nodes {
        let description = describe(&node.op);
        stream.bytes(description.name.as_bytes());
        stream.number(description.attributes.len());
        for (name, value) in &description.attributes {
            stream.bytes(name.as_bytes());
            stream.bytes(value.as_bytes());
        }
        for values in [&node.inputs, &node.outputs] {
            stream.number(values.len());
            values.iter().for_each(|value| match value {
                None => stream.number(0),
                Some(value) => stream.pair(1, u64::from(value.0)),
            });
        }
    }
    stream.number(graph.outputs.len());
    graph.outputs.iter().for_each(|output| stream.value(output.value));
    let digest = stream.0.finalize();
    ClassId(digest.as_bytes()[..16].try_into().expect("a digest has 32 bytes"))
}

struct Stream(blake3::Hasher);

impl Stream {
    fn number(&mut self, number: usize) {
        self.0.update(&(number as u64).to_le_bytes());
    }

    fn pair(&mut self, tag: u8, number: u64) {
        self.0.update(&u64::from(tag).to_le_bytes());
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        self.0.update(bytes);
    }

    fn value(&mut self, value: ValueId) {
        self.number(value.0 as usize);
    }

    fn dtype(&mut self, dtype: DType) {
        self.bytes(dtype.protocol_name().as_bytes());
    }
}
