//! How many axes every value has, which unlike their lengths never depends on a request.
//!
//! Folding needs ranks to know that a weight falls on the channel axis. Shapes that exporters compute (`Concat` of `Gather` of `Shape`, into a
//! `Reshape`) have a known *length* even where their elements are not known, and that length is the rank of what they shape.

use super::fixed::slice_length;
use crate::graph::{Graph, Node, ParamData, ValueId};
use crate::op::Op;

/// What is known of a value's axes.
#[derive(Clone, Copy, Default, Debug)]
struct Axes {
    /// Their number.
    rank: Option<usize>,
    /// The number of elements, of a vector.
    length: Option<usize>,
}

/// The rank of every value of a graph, where it is known without shapes.
#[derive(Debug)]
pub(super) struct Ranks(Vec<Axes>);

impl Ranks {
    pub(super) fn of(graph: &Graph) -> Ranks {
        let mut all = vec![Axes::default(); graph.values.len()];
        for input in &graph.inputs {
            all[input.value.0 as usize].rank = Some(input.dims.len());
        }
        for param in &graph.params {
            let length = (param.dims.len() == 1).then(|| param.dims[0]);
            all[param.value.0 as usize] = Axes { rank: Some(param.dims.len()), length };
        }
        for node in &graph.nodes {
            let inputs: Vec<Axes> = node
                .inputs
                .iter()
                .map(|input| input.map_or(Axes::default(), |id| all[id.0 as usize]))
                .collect();
            let made = axes(graph, node, &inputs);
            for (index, output) in node.outputs.iter().enumerate() {
                if let Some(output) = output {
                    // An LSTM's states have one axis less than its sequence; everything else makes equals.
                    let less = usize::from(matches!(node.op, Op::Lstm(_)) && index > 0);
                    all[output.0 as usize] = Axes { rank: made.rank.map(|rank| rank - less), ..made };
                }
            }
        }
        Ranks(all)
    }

    /// The number of axes of a value of the class graph.
    pub(super) fn rank(&self, value: ValueId) -> Option<usize> {
        self.0.get(value.0 as usize)?.rank
    }
}

/// The axes of what a node makes.
fn axes(graph: &Graph, node: &Node, inputs: &[Axes]) -> Axes {
    let input = |index: usize| inputs.get(index).copied().unwrap_or_default();
    let of = |rank: Option<usize>| Axes { rank, length: None };
    let vector = |length: Option<usize>| Axes { rank: Some(1), length };
    let present = |index: usize| node.inputs.get(index).is_some_and(Option::is_some);
    let x = input(0);
    match &node.op {
        Op::Unary(_) | Op::Cast(_) | Op::Clip => x,
        Op::Binary(_) | Op::Where => {
            let ranks: Option<Vec<usize>> = inputs.iter().map(|input| input.rank).collect();
            let rank = ranks.and_then(|ranks| ranks.into_iter().max());
            // Of two vectors the one that is not a single element gives the length.
            let lengths: Option<Vec<usize>> = inputs
                .iter()
                .map(|input| if input.rank == Some(0) { Some(1) } else { input.length })
                .collect();
            let length = lengths.filter(|_| rank == Some(1)).and_then(|lengths| lengths.into_iter().max());
            Axes { rank, length }
        }
        Op::Gemm { .. } => of(Some(2)),
        Op::Flatten { .. } => of(Some(2)),
        Op::MatMul => of(match (x.rank, input(1).rank) {
            (Some(1), Some(1)) => Some(0),
            (Some(1), Some(rank)) | (Some(rank), Some(1)) => Some(rank - 1),
            (Some(a), Some(b)) => Some(a.max(b)),
            _ => None,
        }),
        Op::Conv(..) => of(x.rank.or(input(1).rank)),
        Op::MaxPool(_)
        | Op::AveragePool(..)
        | Op::BatchNorm { .. }
        | Op::LayerNorm { .. }
        | Op::Softmax { .. }
        | Op::Transpose { .. }
        | Op::Split { .. }
        | Op::Pad(_) => of(x.rank),
        Op::Slice => Axes { rank: x.rank, length: slice_of_vector(graph, node, x) },
        Op::Lstm(_) => of(Some(4)),
        Op::Reduce { keep_dims: true, .. } => of(x.rank),
        Op::Reduce { noop_with_empty_axes, .. } => match (present(1), x.rank, input(1).length) {
            (true, Some(rank), Some(axes)) if axes > 0 => of(rank.checked_sub(axes)),
            (false, rank, _) => of(if *noop_with_empty_axes { rank } else { Some(0) }),
            _ => of(None),
        },
        Op::Shape { start, end } => vector(x.rank.and_then(|rank| {
            let rank = i64::try_from(rank).ok()?;
            let resolve = |axis: i64| (if axis < 0 { axis + rank } else { axis }).clamp(0, rank);
            usize::try_from((resolve(end.unwrap_or(rank)) - resolve(*start)).max(0)).ok()
        })),
        Op::Reshape { .. } => {
            let one = node.inputs.get(1).copied().flatten().and_then(|shape| single_dim(graph, shape));
            Axes { rank: input(1).length, length: one.filter(|_| input(1).length == Some(1)) }
        }
        Op::Expand => match (x.rank, input(1).length) {
            (Some(rank), Some(length)) => of(Some(rank.max(length))),
            _ => of(None),
        },
        Op::Squeeze => of(match (x.rank, input(1).length) {
            (Some(rank), Some(axes)) if present(1) => rank.checked_sub(axes),
            _ => None,
        }),
        Op::Unsqueeze => match (x.rank, input(1).length) {
            (Some(0), Some(1)) => vector(Some(1)),
            (Some(rank), Some(axes)) => of(Some(rank + axes)),
            _ => of(None),
        },
        Op::Concat { .. } => {
            let lengths: Option<Vec<usize>> = inputs.iter().map(|input| input.length).collect();
            let rank = inputs.iter().find_map(|input| input.rank);
            Axes { rank, length: lengths.filter(|_| rank == Some(1)).map(|lengths| lengths.iter().sum()) }
        }
        Op::Gather { .. } => match (x.rank, input(1).rank) {
            (Some(1), Some(1)) => vector(input(1).length),
            (Some(rank), Some(rows)) => of((rank + rows).checked_sub(1)),
            _ => of(None),
        },
        Op::GatherElements { .. } => input(1),
        Op::ConstantOfShape { .. } => of(x.length),
        Op::Range => vector(None),
    }
}

/// The one element of a literal shape, when a vector of a known length is made.
fn single_dim(graph: &Graph, shape: ValueId) -> Option<usize> {
    usize::try_from(first(graph, shape)?).ok().filter(|&dim| dim > 0)
}

/// The length of a vector's slice by literals: how exporters take the last few dimensions of a shape.
fn slice_of_vector(graph: &Graph, node: &Node, x: Axes) -> Option<usize> {
    let number = |index: usize| first(graph, node.inputs.get(index).copied().flatten()?);
    let step = if node.inputs.get(4).copied().flatten().is_some() { number(4)? } else { 1 };
    slice_length(x.length.filter(|_| x.rank == Some(1))?, number(1)?, number(2)?, step)
}

/// The first element of an integer literal.
fn first(graph: &Graph, value: ValueId) -> Option<i64> {
    match &graph.param(value)?.data {
        ParamData::Literal(tensor) => tensor.elements::<i64>()?.first().copied(),
        ParamData::Weight(_) => None,
    }
}
