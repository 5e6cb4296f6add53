//! Which parameters the planner may read, and which are weights.
//!
//! Integers and booleans are always literals. A float is a literal only as a single element in a place where its value
//! decides how the plan looks: a clip bound, an exponent, a scale; the few floats that say how Resize changes each axis decide shapes, and are
//! literals too. A tensor that is used both ways becomes two parameters.

use crate::graph::{Graph, Node, Param, ParamData, ParamId, ValueId};
use crate::onnx::error::ImportError;
use crate::op::{Binary, Op};
use crate::source::read_weight;
use crate::tensor::Tensor;
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// Turns floats in literal positions into literals.
pub(crate) fn split(graph: &mut Graph, origins: &mut Vec<Option<String>>) -> Result<(), ImportError> {
    let weights = graph.params.iter().enumerate().filter_map(|(i, param)| {
        let weight =
            matches!(param.data, ParamData::Weight(_)) && (1..=MOST_LITERAL).contains(&elements(param));
        weight.then_some((param.value, ParamId(i as u32)))
    });
    let weights = weights.collect::<HashMap<_, _>>();
    let mut as_weight: HashSet<ValueId> = graph.outputs.iter().map(|output| output.value).collect();
    let mut as_literal = Vec::new();
    for node in &graph.nodes {
        for (i, value) in node.inputs.iter().enumerate().filter_map(|(i, value)| Some((i, (*value)?))) {
            let Some(param) = weights.get(&value) else { continue };
            match is_literal_position(node, i, &graph.params[param.0 as usize]) {
                true => as_literal.push((value, *param)),
                false => _ = as_weight.insert(value),
            }
        }
    }
    as_literal.sort_unstable();
    as_literal.dedup();
    let mut instead: HashMap<ValueId, ValueId> = HashMap::new();
    for (value, param) in as_literal {
        let literal = ParamData::Literal(read(&graph.params[param.0 as usize])?);
        if !as_weight.contains(&value) {
            graph.params[param.0 as usize].data = literal;
            continue;
        }
        let twin = ValueId(graph.values.len() as u32);
        graph.values.push(graph.values[value.0 as usize].clone());
        graph.params.push(Param { value: twin, data: literal, ..graph.params[param.0 as usize].clone() });
        origins.push(origins[param.0 as usize].clone());
        instead.insert(value, twin);
    }
    for node in &mut graph.nodes {
        for i in 0..node.inputs.len() {
            let Some(twin) = node.inputs[i].and_then(|value| instead.get(&value)) else { continue };
            let param = &graph.params[weights[&node.inputs[i].expect("it has a twin")].0 as usize];
            if is_literal_position(node, i, param) {
                node.inputs[i] = Some(*twin);
            }
        }
    }
    Ok(())
}

/// No list of floats that the planner reads is longer: a region of interest has two for each axis.
const MOST_LITERAL: usize = 16;

/// Whether the planner may read the floats that `node` takes as input `index`: one element, but for the scales and regions of Resize.
fn is_literal_position(node: &Node, index: usize, param: &Param) -> bool {
    let scalar = param.dims.is_empty();
    match (&node.op, index) {
        (Op::Resize(_), 1 | 2) => true,
        _ if elements(param) != 1 => false,
        (Op::OneHot { .. }, 1) => true,
        (Op::Clip, 1 | 2) | (Op::Binary(Binary::Pow), 1) | (Op::Pad(_), 2) | (Op::Range, _) => true,
        // The one of `1 / sqrt(d)`, which exporters write as a vector.
        (Op::Binary(Binary::Div), 0) => true,
        // A constant that is first cast, or whose root is taken, is still a constant of the architecture.
        (Op::Binary(_) | Op::Unary(_) | Op::Cast(_), _) | (Op::Where, 1 | 2) => scalar,
        _ => false,
    }
}

fn elements(param: &Param) -> usize {
    if param.dims.contains(&0) { 0 } else { param.dims.iter().product() }
}

fn read(param: &Param) -> Result<Tensor, ImportError> {
    let ParamData::Weight(source) = &param.data else { unreachable!("only weights are asked for") };
    let tensor = read_weight(source, param.dtype, &param.dims)
        .map_err(|source| ImportError::External { name: param.name.clone(), source })?;
    // In memory of its own: a literal must not keep the whole file's buffer alive.
    let own = Bytes::copy_from_slice(tensor.bytes());
    Ok(Tensor::new(param.dtype, param.dims.clone(), own).expect("the length that it had"))
}
