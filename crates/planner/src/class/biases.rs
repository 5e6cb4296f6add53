//! Biases that a file leaves out, spelled out.
//!
//! ```text
//!   Conv(x, w)    becomes   Conv(x, w, 0)     the zeros are a weight that no file holds: WeightSource::Zeros
//! ```
//! An exporter that optimises takes a bias out where it is all zeros, so a network as it was initialised and the same one after training come
//! in two spellings, and nothing in the file tells "trained without a bias" from "not trained yet". One class must not depend on values, so
//! every linear layer has a bias here. It costs a vector per layer in a slot, and no step: a product adds its bias while it writes.
//!
//! A product by a computed matrix stays as it is: no exporter has a bias to take out of it, and there it would be a step of its own.

use crate::graph::{Graph, Node, Param, ParamData, ValueId, WeightSource};
use crate::onnx::import::Imported;
use crate::op::Op;
use std::collections::HashMap;

/// Gives every convolution and every Gemm by a weight the bias that it lacks. The new parameters follow the others; no initializer holds them.
pub(super) fn spell_out(imported: &mut Imported) {
    let Imported { graph, origins, .. } = imported;
    let params: HashMap<ValueId, usize> =
        graph.params.iter().enumerate().map(|(index, param)| (param.value, index)).collect();
    for node in 0..graph.nodes.len() {
        let Some((weight, channels)) = lacking(graph, &params, &graph.nodes[node]) else { continue };
        let weight = &graph.params[weight];
        let (dtype, name) = (weight.dtype, name(&weight.name));
        let value = ValueId(u32::try_from(graph.values.len()).expect("limits keep values few"));
        graph.values.push(name.clone());
        graph.params.push(Param {
            value,
            name,
            dtype,
            dims: vec![channels],
            data: ParamData::Weight(WeightSource::Zeros),
        });
        origins.push(None);
        let inputs = &mut graph.nodes[node].inputs;
        inputs.truncate(2);
        inputs.push(Some(value));
    }
}

/// The weight of a linear layer that has no bias, and how many channels it makes.
fn lacking(graph: &Graph, params: &HashMap<ValueId, usize>, node: &Node) -> Option<(usize, usize)> {
    if node.inputs.get(2).copied().flatten().is_some() {
        return None;
    }
    let weight = *params.get(&node.inputs.get(1).copied().flatten()?)?;
    let param = &graph.params[weight];
    let channels = match (&node.op, &param.dims[..]) {
        (Op::Gemm { trans_b: false, .. }, &[_, columns]) => columns,
        (Op::Gemm { trans_b: true, .. }, &[columns, _]) => columns,
        (Op::Conv(..), &[channels, _, _, ..]) => channels,
        (Op::ConvTranspose(_, groups), &[inputs, channels, _, ..]) if inputs.is_multiple_of(*groups) => {
            channels.checked_mul(*groups)?
        }
        _ => return None,
    };
    // A weight with elements has one for each channel, so that what a file says cannot make a bias larger than what it brings.
    let fits = param.dtype.is_float() && !param.dims.contains(&0);
    (fits && matches!(param.data, ParamData::Weight(_))).then_some((weight, channels))
}

/// What a state dict would call the bias beside this weight.
fn name(weight: &str) -> String {
    match weight.strip_suffix("weight") {
        Some(module) => format!("{module}bias"),
        None => format!("no bias of {weight}"),
    }
}
