//! Weights of a fixture as a `.safetensors` file.

use crate::fixture;
use serde_json::{Map, Value, json};
use tessera_planner::graph::ParamData;
use tessera_planner::{Tensor, import, source};

/// Tensors by name, as a state dict has them.
pub(crate) type StateDict = Vec<(String, Tensor)>;

/// The float initializers of a fixture, by name.
pub(crate) fn of(name: &str) -> StateDict {
    let graph = import(&fixture::path(&format!("{name}.onnx"))).unwrap();
    let weights = graph.params.iter().filter_map(|param| match &param.data {
        ParamData::Weight(from) => {
            Some((param.name.clone(), source::read_weight(from, param.dtype, &param.dims).unwrap()))
        }
        _ => None,
    });
    weights.collect()
}

/// The file: a length, a header in JSON, and the tensors end to end.
pub(crate) fn safetensors(tensors: &StateDict) -> Vec<u8> {
    let mut header = Map::new();
    let mut data = Vec::new();
    for (name, tensor) in tensors {
        let start = data.len();
        data.extend_from_slice(tensor.bytes());
        let described =
            json!({ "dtype": "F32", "shape": tensor.dims(), "data_offsets": [start, data.len()] });
        header.insert(name.clone(), described);
    }
    let header = Value::Object(header).to_string().into_bytes();
    [(header.len() as u64).to_le_bytes().to_vec(), header, data].concat()
}
