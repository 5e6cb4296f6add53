//! Which nodes an answer needs, in an order in which every value is made before it is read.

use crate::onnx::error::ImportError;
use crate::onnx::import::describe;
use crate::onnx::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};
use std::collections::{HashMap, HashSet};

/// The nodes that outputs depend on, depth first. Errors when a name is made twice anywhere, or when what is needed is not made or waits
/// for itself. Not recursive: a chain may be as long as the file says.
pub(crate) fn live<'m>(
    graph: &'m GraphProto,
    inputs: &[&str],
    initializers: &HashMap<&str, &TensorProto>,
) -> Result<Vec<&'m NodeProto>, ImportError> {
    let given: HashSet<&str> = inputs.iter().copied().collect();
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        for name in node.output.iter().map(String::as_str).filter(|name| !name.is_empty()) {
            let first = match makers.insert(name, index) {
                Some(first) => describe(&graph.node[first]),
                None if initializers.contains_key(name) => "an initializer".into(),
                None if given.contains(name) => "the inputs".into(),
                None => continue,
            };
            return Err(ImportError::DefinedTwice { value: name.to_owned(), first, second: describe(node) });
        }
    }
    let maker = |name: &str, reader: &dyn Fn() -> String| -> Result<Option<usize>, ImportError> {
        match makers.get(name) {
            Some(&index) => Ok(Some(index)),
            None if name.is_empty() || given.contains(name) || initializers.contains_key(name) => Ok(None),
            None => Err(ImportError::Dangling { value: name.to_owned(), reader: reader() }),
        }
    };

    let mut order = Vec::new();
    let mut state = vec![State::New; graph.node.len()];
    for output in graph.output.iter().map(ValueInfoProto::name) {
        let Some(root) = maker(output, &|| "the answer".into())? else { continue };
        // Nodes on the way from the output, each with the number of its inputs that are done.
        let mut path: Vec<(usize, usize)> = Vec::new();
        if state[root] == State::New {
            state[root] = State::OnPath;
            path.push((root, 0));
        }
        while let Some((index, done)) = path.last_mut() {
            let node = &graph.node[*index];
            let Some(input) = node.input.get(*done) else {
                state[*index] = State::Done;
                order.push(node);
                path.pop();
                continue;
            };
            *done += 1;
            let Some(next) = maker(input, &|| describe(node))? else { continue };
            match state[next] {
                State::Done => {}
                State::New => {
                    state[next] = State::OnPath;
                    path.push((next, 0));
                }
                State::OnPath => {
                    let from = path.iter().position(|&(index, _)| index == next).unwrap_or(0);
                    let cycle =
                        path[from..].iter().rev().map(|&(index, _)| index).chain([path[path.len() - 1].0]);
                    let nodes = cycle.map(|index| describe(&graph.node[index])).collect();
                    return Err(ImportError::Cycle { nodes });
                }
            }
        }
    }
    Ok(order)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    OnPath,
    Done,
}
