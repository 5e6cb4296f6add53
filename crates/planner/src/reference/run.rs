//! A whole graph, node by node.

use super::{EvalError, RunError, eval};
use crate::graph::{Dim, Graph, Node, ParamData, ParamId, ValueId};
use crate::tensor::Tensor;
use std::error::Error;

/// Computes the outputs of `graph`, whole batches at once, in its order of outputs.
///
/// `weight` reads a parameter that is a weight; `inputs` are in the graph's order. Errors when either is not what the graph declares, and
/// where [`eval`] does. Costs a tensor for every value until its last reader is done.
pub fn run(
    graph: &Graph,
    weight: &dyn Fn(ParamId) -> Result<Tensor, Box<dyn Error + Send + Sync>>,
    inputs: &[Tensor],
) -> Result<Vec<Tensor>, RunError> {
    if inputs.len() != graph.inputs.len() {
        return Err(RunError::InputCount { want: graph.inputs.len(), got: inputs.len() });
    }
    let mut given = Vec::with_capacity(inputs.len() + graph.params.len());
    for (input, tensor) in graph.inputs.iter().zip(inputs) {
        let fits = |(dim, &got): (&Dim, &usize)| match dim {
            Dim::Fixed(want) => *want == got as u64,
            Dim::Free(_) => true,
        };
        let same_rank = tensor.dims().len() == input.dims.len();
        if tensor.dtype() != input.dtype || !same_rank || !input.dims.iter().zip(tensor.dims()).all(fits) {
            return Err(RunError::Declared {
                name: input.name.clone(),
                want: declared(graph, input),
                got: format!("{}{:?}", tensor.dtype(), tensor.dims()),
            });
        }
        given.push((input.value, tensor.clone()));
    }
    for (index, param) in graph.params.iter().enumerate() {
        let ParamData::Weight(_) = &param.data else { continue };
        let tensor = weight(ParamId(index as u32))
            .map_err(|source| RunError::Weight { name: param.name.clone(), source })?;
        if (tensor.dtype(), tensor.dims()) != (param.dtype, &param.dims[..]) {
            return Err(RunError::Declared {
                name: param.name.clone(),
                want: format!("{}{:?}", param.dtype, param.dims),
                got: format!("{}{:?}", tensor.dtype(), tensor.dims()),
            });
        }
        given.push((param.value, tensor));
    }
    run_values(graph, given)
}

fn declared(graph: &Graph, input: &crate::graph::Input) -> String {
    let dim = |dim: &Dim| match dim {
        Dim::Fixed(extent) => extent.to_string(),
        Dim::Free(free) => graph.free_dims.get(*free).cloned().unwrap_or_else(|| "?".into()),
    };
    format!("{}[{}]", input.dtype, input.dims.iter().map(dim).collect::<Vec<_>>().join(", "))
}

/// Computes the outputs of `graph` from the values of its inputs and weights; literals are taken from the graph. Errors where something
/// is missing, and where [`eval`] does.
fn run_values(graph: &Graph, given: Vec<(ValueId, Tensor)>) -> Result<Vec<Tensor>, RunError> {
    let mut values: Vec<Option<Tensor>> = vec![None; graph.values.len()];
    for param in &graph.params {
        if let ParamData::Literal(tensor) = &param.data {
            values[param.value.0 as usize] = Some(tensor.clone());
        }
    }
    for (value, tensor) in given {
        values[value.0 as usize] = Some(tensor);
    }
    let last_reader = last_readers(graph);
    for (index, node) in graph.nodes.iter().enumerate() {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for input in &node.inputs {
            inputs.push(input.map(|value| values[value.0 as usize].as_ref().ok_or(value)).transpose());
        }
        let inputs = inputs.into_iter().collect::<Result<Vec<_>, _>>();
        let inputs = inputs.map_err(|value| undefined(graph, name(graph, node), value))?;
        let made = eval(&node.op, &inputs, wanted(node)).map_err(|source| node_error(graph, node, source))?;
        for (output, tensor) in node.outputs.iter().zip(made) {
            if let Some(value) = output {
                values[value.0 as usize] = Some(tensor);
            }
        }
        for value in node.inputs.iter().flatten() {
            if last_reader[value.0 as usize] == Some(index) {
                values[value.0 as usize] = None;
            }
        }
    }
    let output = |output: &crate::graph::Output| {
        let tensor = values.get(output.value.0 as usize).cloned().flatten();
        tensor.ok_or_else(|| undefined(graph, "(outputs)", output.value))
    };
    graph.outputs.iter().map(output).collect()
}

/// The number of outputs to ask for: a split counts those that nobody reads, others need only reach the last one wanted.
fn wanted(node: &Node) -> usize {
    match node.op {
        crate::op::Op::Split { .. } => node.outputs.len(),
        _ => node.outputs.iter().rposition(Option::is_some).map_or(0, |last| last + 1),
    }
}

/// The node after which each value is no longer needed; `None` for outputs, which stay.
fn last_readers(graph: &Graph) -> Vec<Option<usize>> {
    let mut last = vec![None; graph.values.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().flatten().for_each(|value| last[value.0 as usize] = Some(index));
    }
    graph.outputs.iter().for_each(|output| last[output.value.0 as usize] = None);
    last
}

fn name<'a>(graph: &'a Graph, node: &'a Node) -> &'a str {
    let first = node.outputs.iter().flatten().next();
    if node.name.is_empty() { first.map_or("?", |&value| graph.name(value)) } else { &node.name }
}

fn node_error(graph: &Graph, node: &Node, source: EvalError) -> RunError {
    RunError::Node { node: name(graph, node).to_owned(), source }
}

fn undefined(graph: &Graph, node: &str, value: ValueId) -> RunError {
    RunError::Undefined { node: node.to_owned(), value: graph.name(value).to_owned() }
}
