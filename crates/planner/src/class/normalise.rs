//! One spelling for all models of an architecture.
//!
//! Nodes stand in depth-first order from the outputs, which depends neither on their names nor on their order in the file; what no
//! output needs is gone (Identity, Dropout and Constant are gone since the import). Exporters merge equal tensors of a
//! freshly initialised model and keep those of a trained one apart, so every *use* of a parameter becomes a parameter.

use crate::graph::{Dim, Graph, Input, Node, Output, Param, ParamData, ValueId, WeightSource};
use crate::onnx::import::Imported;
use std::collections::HashMap;

/// A normalised graph and what it was parted from.
pub(super) struct Normal {
    /// Weights first among its parameters, all of them forgotten.
    pub(super) graph: Graph,
    /// Where they are.
    pub(super) weights: Vec<WeightSource>,
    /// The initializer that holds each weight; `None` for what a Constant node holds.
    pub(super) origins: Vec<Option<String>>,
}

pub(super) fn normalise(imported: &Imported) -> Normal {
    let from = &imported.graph;
    let order = depth_first(from);
    let params: HashMap<ValueId, usize> =
        from.params.iter().enumerate().map(|(index, param)| (param.value, index)).collect();

    // Parameters in the order of their uses, weights before literals.
    let read = order.iter().flat_map(|&node| from.nodes[node].inputs.iter().flatten());
    let uses =
        read.chain(from.outputs.iter().map(|output| &output.value)).filter_map(|value| params.get(value));
    let (weights, literals): (Vec<usize>, Vec<usize>) =
        uses.partition(|&&index| matches!(from.params[index].data, ParamData::Weight(_)));

    let mut to = Graph::default();
    let mut new = |name: &str| {
        to.values.push(name.to_owned());
        ValueId(u32::try_from(to.values.len() - 1).expect("limits keep values few"))
    };
    let mut values: HashMap<ValueId, ValueId> = HashMap::new();
    for input in &from.inputs {
        let value = new(&input.name);
        values.insert(input.value, value);
    }
    let param_values: Vec<ValueId> =
        weights.iter().chain(&literals).map(|&index| new(&from.params[index].name)).collect();
    for &node in &order {
        for output in from.nodes[node].outputs.iter().flatten() {
            let value = new(from.name(*output));
            values.insert(*output, value);
        }
    }

    // A dimension's number is its place of first appearance; the import counts the same way.
    to.free_dims = from.free_dims.clone();
    to.inputs =
        from.inputs.iter().map(|input| Input { value: values[&input.value], ..input.clone() }).collect();
    let forgotten = |index: &usize, value: &ValueId| Param { value: *value, ..from.params[*index].clone() };
    to.params = weights
        .iter()
        .chain(&literals)
        .zip(&param_values)
        .map(|(index, value)| forgotten(index, value))
        .collect();
    for param in &mut to.params[..weights.len()] {
        param.data = ParamData::Weight(WeightSource::Forgotten);
    }

    let mut next_weight = param_values[..weights.len()].iter();
    let mut next_literal = param_values[weights.len()..].iter();
    let mut reading = |value: ValueId| match params.get(&value) {
        None => values[&value],
        Some(&index) => {
            let uses = match from.params[index].data {
                ParamData::Weight(_) => &mut next_weight,
                ParamData::Literal(_) => &mut next_literal,
            };
            *uses.next().expect("uses were counted in this order")
        }
    };
    let wanted = readers(from, &order);
    for &index in &order {
        let node = &from.nodes[index];
        let inputs = node.inputs.iter().map(|value| value.map(&mut reading)).collect();
        let outputs = node.outputs.iter().map(|value| value.filter(|value| wanted[value.0 as usize]));
        let outputs = outputs.map(|value| value.map(|value| values[&value])).collect();
        to.nodes.push(Node { name: node.name.clone(), op: node.op.clone(), inputs, outputs });
    }
    let outputs = from.outputs.iter();
    to.outputs =
        outputs.map(|output| Output { name: output.name.clone(), value: reading(output.value) }).collect();
    debug_assert!(to.inputs.iter().flat_map(|input| &input.dims).all(|dim| match dim {
        Dim::Free(index) => *index < to.free_dims.len(),
        Dim::Fixed(_) => true,
    }));

    let source = |&index: &usize| match &from.params[index].data {
        ParamData::Weight(source) => source.clone(),
        ParamData::Literal(_) => unreachable!("literals were parted from weights"),
    };
    Normal {
        graph: to,
        origins: weights.iter().map(|&index| imported.origins[index].clone()).collect(),
        weights: weights.iter().map(source).collect(),
    }
}

/// Which values a live node or the answer reads.
fn readers(graph: &Graph, order: &[usize]) -> Vec<bool> {
    let mut wanted = vec![false; graph.values.len()];
    let read = order.iter().flat_map(|&node| graph.nodes[node].inputs.iter().flatten());
    let read = read.chain(graph.outputs.iter().map(|output| &output.value));
    read.for_each(|value| wanted[value.0 as usize] = true);
    wanted
}

/// The nodes that outputs need, each after what it reads. The graph is known to have no cycles.
fn depth_first(graph: &Graph) -> Vec<usize> {
    let mut makers: HashMap<ValueId, usize> = HashMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        node.outputs.iter().flatten().for_each(|value| _ = makers.insert(*value, index));
    }
    let mut seen = vec![false; graph.nodes.len()];
    let mut order = Vec::with_capacity(graph.nodes.len());
    for output in &graph.outputs {
        let mut path: Vec<(usize, usize)> = Vec::new();
        let mut enter = |value: ValueId, path: &mut Vec<(usize, usize)>| {
            if let Some(&maker) = makers.get(&value).filter(|&&maker| !seen[maker]) {
                seen[maker] = true;
                path.push((maker, 0));
            }
        };
        enter(output.value, &mut path);
        while let Some((node, done)) = path.last_mut() {
            match graph.nodes[*node].inputs.get(*done) {
                None => {
                    order.push(*node);
                    path.pop();
                }
                Some(input) => {
                    *done += 1;
                    if let Some(value) = input {
                        enter(*value, &mut path);
                    }
                }
            }
        }
    }
    order
}
