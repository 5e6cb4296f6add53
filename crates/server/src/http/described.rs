//! What a model takes and gives, in the words of the protocol and in those of Triton's model configuration.

use crate::frontend::{ModelInfo, Placement, TensorInfo};
use serde_json::{Value, json};

/// The protocol's word for models that were ONNX files.
const PLATFORM: &str = "onnx_onnxv1";

/// The protocol's metadata, and beside it the devices that answer.
pub(super) fn metadata(info: &ModelInfo) -> Value {
    let tensors = |all: &[TensorInfo]| -> Vec<Value> {
        let one = |tensor: &TensorInfo| json!({ "name": tensor.name, "datatype": tensor.dtype.protocol_name(), "shape": tensor.dims });
        all.iter().map(one).collect()
    };
    let versions: Vec<String> = info.versions.iter().map(u64::to_string).collect();
    let placements = info.placements.iter().map(|Placement { device, precision, because }| {
        let mut placed = json!({ "name": device, "precision": precision.name() });
        if let Some(why) = because {
            placed["because"] = json!(why);
        }
        placed
    });
    json!({
        "name": info.name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": tensors(&info.inputs),
        "outputs": tensors(&info.outputs),
        "devices": placements.collect::<Vec<_>>(),
    })
}

/// What Triton's clients ask for before they send a load. The batch is an axis of each shape like any other, which a `max_batch_size` of 0 says: nobody
/// has to know whether the first axis counts items, and a request may bring any number of them.
pub(super) fn configuration(info: &ModelInfo) -> Value {
    let tensors = |all: &[TensorInfo]| -> Vec<Value> {
        let one = |tensor: &TensorInfo| {
            let kind = format!("TYPE_{}", tensor.dtype.protocol_name());
            json!({ "name": tensor.name, "data_type": kind, "dims": tensor.dims })
        };
        all.iter().map(one).collect()
    };
    json!({
        "name": info.name,
        "platform": PLATFORM,
        "backend": "tessera",
        "max_batch_size": 0,
        "input": tensors(&info.inputs),
        "output": tensors(&info.outputs),
    })
}
