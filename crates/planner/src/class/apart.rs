//! Layers that an exporter made one, apart again.
//!
//! ```text
//!   x ─ norm ─┬─ + ─        becomes   x ┬ norm ─ + ─       each with the weights of the one
//!             └─ − ─                    └ norm ─ − ─
//! ```
//! An exporter that optimises computes once what is written twice. Two normalisations of one value are the same as long as nobody trained them (all
//! scales are one and all shifts zero), so a network as it was initialised and the same one after training come in two graphs, as the branches of a
//! FastViT do. Every use of a weight is a parameter here, and so every use of such a normalisation is one.
//!
//! Only where it costs nothing: where all uses are sums and differences, into which a scale and a shift are fused, and where somebody else reads what is
//! normalised, so that no layer before it could take it in.

use crate::graph::{Graph, Node, ValueId};
use crate::op::{Binary, Op};
use std::collections::HashMap;

/// Gives every sum and difference that reads such a normalisation one of its own.
pub(super) fn take_apart(graph: &mut Graph) {
    let mut uses: HashMap<ValueId, Uses> = HashMap::new();
    for node in &graph.nodes {
        let sum = matches!(node.op, Op::Binary(Binary::Add | Binary::Sub));
        for value in node.inputs.iter().flatten() {
            let uses = uses.entry(*value).or_default();
            uses.all += 1;
            uses.sums += usize::from(sum);
        }
    }
    for output in &graph.outputs {
        uses.entry(output.value).or_default().all += 1;
    }
    let merged = |node: &Node| {
        let (&[Some(y)], Some(&Some(x))) = (&node.outputs[..], node.inputs.first()) else { return None };
        let (before, after) = (uses.get(&x)?, uses.get(&y)?);
        let apart = before.all > 1 && after.all > 1 && after.sums == after.all;
        (apart && matches!(node.op, Op::BatchNorm { .. })).then_some(y)
    };
    let merged: HashMap<ValueId, Node> =
        graph.nodes.iter().filter_map(|node| Some((merged(node)?, node.clone()))).collect();
    if merged.is_empty() {
        return;
    }
    let nodes = std::mem::take(&mut graph.nodes);
    for mut node in nodes {
        if node.outputs.iter().flatten().any(|value| merged.contains_key(value)) {
            continue;
        }
        for input in node.inputs.iter_mut().flatten() {
            let Some(norm) = merged.get(input) else { continue };
            let value = ValueId(u32::try_from(graph.values.len()).expect("limits keep values few"));
            graph.values.push(graph.name(*input).to_owned());
            graph.nodes.push(Node { outputs: vec![Some(value)], ..norm.clone() });
            *input = value;
        }
        graph.nodes.push(node);
    }
}

/// How often a value is read, and how often by a sum or a difference.
#[derive(Default)]
struct Uses {
    all: usize,
    sums: usize,
}
