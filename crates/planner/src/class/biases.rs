//! Biases that a file leaves out, spelled out.
//!
//! ```text
//!   Conv(x, w)    becomes   Conv(x, w, 0)     the zeros are a weight that no file holds: WeightSource::Zeros
//! ```
//! An exporter that optimises takes a bias out where it is all zeros, so a network as it was initialised and the same one after training come
//! in two spellings, and nothing in the file tells "trained without a bias" from "not trained yet". One class must not depend on values, so
//! every linear layer has a bias here. It costs a vector per layer in a slot, and no step: a product adds its bias while it writes.
//!
//! A kernel that its architecture standardises is a weight too, seen through what standardises it. A product by any other computed matrix stays
//! as it is: no exporter has a bias to take out of it, and there it would be a step of its own.

use crate::graph::{Graph, Node, Param, ParamData, ValueId, WeightSource};
use crate::onnx::import::Imported;
use crate::op::Op;
use crate::shape;
use std::collections::HashMap;

/// Gives every convolution and every Gemm by a weight the bias that it lacks. The new parameters follow the others; no initializer holds them.
pub(super) fn spell_out(imported: &mut Imported) {
    let Imported { graph, origins, .. } = imported;
    let params: HashMap<ValueId, usize> =
        graph.params.iter().enumerate().map(|(index, param)| (param.value, index)).collect();
    let standardised = standardised(graph, &params);
    for node in 0..graph.nodes.len() {
        let lacking = lacking(graph, &params, &standardised, &graph.nodes[node]);
        let Some((weight, channels)) = lacking else { continue };
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

/// Kernels that are a normalised weight in the shape that a literal says: the weight, and the channels.
fn standardised(graph: &Graph, params: &HashMap<ValueId, usize>) -> HashMap<ValueId, (usize, usize)> {
    let first = |node: &Node| node.inputs.first().copied().flatten();
    let mut normed: HashMap<ValueId, usize> = HashMap::new();
    let mut kernels = HashMap::new();
    for node in &graph.nodes {
        let (Some(x), Some(made)) = (first(node), node.outputs.first().copied().flatten()) else { continue };
        match node.op {
            // As rows on the way in, as a kernel on the way out.
            Op::Reshape { .. } | Op::BatchNorm { .. } => {
                let Some(&weight) = params.get(&x).or(normed.get(&x)) else { continue };
                normed.insert(made, weight);
                if let Some(channels) = channels_of_shape(graph, params, node) {
                    kernels.insert(made, (weight, channels));
                }
            }
            _ => {}
        }
    }
    kernels
}

/// The first dimension that a Reshape's literal says.
fn channels_of_shape(graph: &Graph, params: &HashMap<ValueId, usize>, node: &Node) -> Option<usize> {
    let shape = node.inputs.get(1).copied().flatten().filter(|_| matches!(node.op, Op::Reshape { .. }))?;
    match &graph.params[*params.get(&shape)?].data {
        ParamData::Literal(tensor) => usize::try_from(*tensor.elements::<i64>()?.first()?).ok(),
        ParamData::Weight(_) => None,
    }
}

/// The weight of a linear layer that has no bias, and how many channels it makes.
fn lacking(
    graph: &Graph,
    params: &HashMap<ValueId, usize>,
    standardised: &HashMap<ValueId, (usize, usize)>,
    node: &Node,
) -> Option<(usize, usize)> {
    if node.inputs.get(2).copied().flatten().is_some() {
        return None;
    }
    let weight = node.inputs.get(1).copied().flatten()?;
    let fits = |param: &Param| {
        // A weight with elements has one for each channel, so that what a file says cannot make a bias larger than what it brings.
        let fits = param.dtype.is_float() && !param.dims.contains(&0);
        fits && matches!(param.data, ParamData::Weight(_))
    };
    if let (Some(&(weight, channels)), Op::Conv(..)) = (standardised.get(&weight), &node.op) {
        let param = &graph.params[weight];
        let brought = shape::count(&param.dims)?;
        return (fits(param) && (1..=brought).contains(&channels)).then_some((weight, channels));
    }
    let weight = *params.get(&weight)?;
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
    fits(param).then_some((weight, channels))
}

/// What a state dict would call the bias beside this weight.
fn name(weight: &str) -> String {
    match weight.strip_suffix("weight") {
        Some(module) => format!("{module}bias"),
        None => format!("no bias of {weight}"),
    }
}
