//! How many axes every value has and of what type it is, which unlike their lengths never depends on a request.
//!
//! Folding needs ranks to know that a weight falls on the channel axis. The rules are the import's ([`infer`]); here are the two cases in which a
//! literal's elements tell more.

use super::fixed::slice_length;
use crate::graph::{Graph, Node, ParamData, ValueId};
use crate::onnx::ranks::{Known, infer};
use crate::op::Op;
use tessera_core::DType;

/// The rank of every value of a graph, where it is known without shapes.
#[derive(Debug)]
pub(crate) struct Ranks(Vec<Known>);

impl Ranks {
    pub(crate) fn of(graph: &Graph) -> Ranks {
        let mut all = vec![Known::default(); graph.values.len()];
        for input in &graph.inputs {
            all[input.value.0 as usize] = Known::rank(input.dims.len()).of(input.dtype);
        }
        for param in &graph.params {
            all[param.value.0 as usize] = Known::dims(&param.dims).of(param.dtype);
        }
        for node in &graph.nodes {
            let inputs: Vec<Option<Known>> =
                node.inputs.iter().map(|input| input.map(|value| all[value.0 as usize])).collect();
            let mut made = infer(&node.op, &inputs, node.outputs.len());
            let vector = made.first().is_some_and(|first| first.rank == Some(1));
            if let (true, Some(length)) = (vector, length(graph, node, &inputs)) {
                made[0].length = Some(length);
            }
            for (output, known) in node.outputs.iter().zip(made) {
                if let Some(output) = output {
                    all[output.0 as usize] = known;
                }
            }
        }
        Ranks(all)
    }

    /// The number of axes of a value of the class graph.
    pub(crate) fn rank(&self, value: ValueId) -> Option<usize> {
        self.0.get(value.0 as usize)?.rank
    }

    /// The element type of a value of the class graph.
    pub(crate) fn dtype(&self, value: ValueId) -> Option<DType> {
        self.0.get(value.0 as usize)?.dtype
    }
}

/// The length of a vector that literals slice or shape: how exporters take the last few dimensions of a shape.
fn length(graph: &Graph, node: &Node, inputs: &[Option<Known>]) -> Option<usize> {
    let present = |index: usize| node.inputs.get(index).copied().flatten();
    let number = |index: usize| first(graph, present(index)?);
    match node.op {
        Op::Reshape { .. } => usize::try_from(number(1)?).ok().filter(|&dim| dim > 0),
        Op::Slice => {
            let step = if present(4).is_some() { number(4)? } else { 1 };
            slice_length(inputs.first().copied()??.length?, number(1)?, number(2)?, step)
        }
        _ => None,
    }
}

/// The first element of an integer literal.
fn first(graph: &Graph, value: ValueId) -> Option<i64> {
    match &graph.param(value)?.data {
        ParamData::Literal(tensor) => tensor.elements::<i64>()?.first().copied(),
        ParamData::Weight(_) => None,
    }
}
