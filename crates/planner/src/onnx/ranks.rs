//! How many dimensions values have, and of what type they are, as far as operators alone tell.
//!
//! Some spellings can only be modernised when a rank is known ("all axes from 2 on", a softmax over a matrix) or a type (a literal beside a
//! half). Real shapes are [`crate::infer`]'s business; this is the little that import needs, and it may say "unknown".

use crate::op::Op;
use crate::types;
use tessera_core::DType;

/// What is known of a value's shape.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    /// Its number of dimensions.
    pub(crate) rank: Option<usize>,
    /// The length of its only dimension, for values that are shapes or axes.
    pub(crate) length: Option<usize>,
    /// Its element type.
    pub(crate) dtype: Option<DType>,
}

impl Known {
    pub(crate) fn rank(rank: usize) -> Known {
        Known { rank: Some(rank), ..Known::default() }
    }

    pub(crate) fn vector(length: Option<usize>) -> Known {
        Known { rank: Some(1), length, dtype: None }
    }

    pub(crate) fn dims(dims: &[usize]) -> Known {
        match dims {
            [length] => Known::vector(Some(*length)),
            _ => Known::rank(dims.len()),
        }
    }

    /// The same, of that type.
    pub(crate) fn of(self, dtype: DType) -> Known {
        Known { dtype: Some(dtype), ..self }
    }
}

/// What is known of the outputs of `op`.
pub(crate) fn infer(op: &Op, inputs: &[Option<Known>], outputs: usize) -> Vec<Known> {
    let types: Vec<Option<DType>> = inputs.iter().map(|known| known.and_then(|known| known.dtype)).collect();
    let mut made = ranks(op, inputs, outputs);
    made.iter_mut().enumerate().for_each(|(index, known)| known.dtype = types::output(op, &types, index));
    made
}

fn ranks(op: &Op, inputs: &[Option<Known>], outputs: usize) -> Vec<Known> {
    let input = |i: usize| inputs.get(i).copied().flatten();
    let x = input(0).unwrap_or_default();
    let of_rank = |rank: Option<usize>| Known { rank, ..Known::default() };
    let same_rank = of_rank(x.rank);
    let first = match op {
        Op::Unary(_) | Op::Clip | Op::Cast(_) => x,
        Op::Binary(_) | Op::Where => {
            let ranks: Option<Vec<usize>> = inputs.iter().flatten().map(|known| known.rank).collect();
            let rank = ranks.and_then(|ranks| ranks.into_iter().max());
            // Of equal or broadcast vectors, one that is not of length 1 gives the length.
            let lengths =
                inputs.iter().flatten().filter(|known| known.rank == Some(1)).map(|known| known.length);
            let length = lengths.collect::<Option<Vec<_>>>().and_then(|lengths| lengths.into_iter().max());
            Known { length: length.filter(|_| rank == Some(1)), ..of_rank(rank) }
        }
        Op::Conv(..)
        | Op::ConvTranspose(..)
        | Op::MaxPool(_)
        | Op::MaxPoolIndices(..)
        | Op::SumPool(_)
        | Op::AveragePool(..)
        | Op::BatchNorm { .. }
        | Op::GroupNorm { .. }
        | Op::Lrn { .. }
        | Op::LayerNorm { .. }
        | Op::Softmax { .. }
        | Op::Transpose { .. }
        | Op::Split { .. }
        | Op::Slice
        | Op::Pad(_)
        | Op::Tile
        | Op::DepthToSpace { .. }
        | Op::SpaceToDepth { .. }
        | Op::Trilu { .. }
        | Op::Resize(_)
        | Op::TopK { .. } => same_rank,
        Op::ScatterElements { .. } | Op::ScatterNd(_) | Op::CumSum { .. } => x,
        Op::Gemm { .. } | Op::Flatten { .. } => Known::rank(2),
        Op::MatMul => of_rank(match (x.rank, input(1).and_then(|b| b.rank)) {
            (Some(1), Some(1)) => Some(0),
            (Some(1), Some(b)) => b.checked_sub(1),
            (Some(a), Some(1)) => a.checked_sub(1),
            (Some(a), Some(b)) => Some(a.max(b)),
            _ => None,
        }),
        Op::Einsum(equation) => Known::rank(equation.output.len()),
        Op::Recurrent(_) => return [4, 3, 3].map(Known::rank)[..outputs.min(3)].to_vec(),
        Op::Reduce { keep_dims: true, .. } => same_rank,
        Op::Reduce { noop_with_empty_axes, .. } => of_rank(match input(1) {
            None if *noop_with_empty_axes => x.rank,
            None => Some(0),
            Some(axes) => x.rank.zip(axes.length).and_then(|(rank, axes)| match axes {
                // An empty list of axes means what the attribute says.
                0 => noop_with_empty_axes.then_some(rank),
                axes => rank.checked_sub(axes),
            }),
        }),
        Op::Shape { start, end } => {
            let clamp = |at: i64, rank: usize| {
                let at = if at < 0 { at.saturating_add(rank as i64) } else { at };
                at.clamp(0, rank as i64) as usize
            };
            Known::vector(
                x.rank
                    .map(|rank| clamp(end.unwrap_or(rank as i64), rank).saturating_sub(clamp(*start, rank))),
            )
        }
        Op::Reshape { .. } => of_rank(input(1).and_then(|shape| shape.length)),
        Op::Expand => {
            of_rank(x.rank.zip(input(1).and_then(|shape| shape.length)).map(|(rank, shape)| rank.max(shape)))
        }
        Op::ConstantOfShape { .. } => of_rank(x.length),
        Op::Squeeze => of_rank(
            x.rank.zip(input(1).and_then(|axes| axes.length)).and_then(|(rank, axes)| rank.checked_sub(axes)),
        ),
        Op::Unsqueeze => {
            let rank = x.rank.zip(input(1).and_then(|axes| axes.length)).map(|(rank, axes)| rank + axes);
            Known { length: (x.rank == Some(0) && rank == Some(1)).then_some(1), ..of_rank(rank) }
        }
        Op::Concat { .. } => {
            let lengths: Option<usize> =
                inputs.iter().map(|known| known.and_then(|known| known.length)).sum();
            Known { length: lengths.filter(|_| x.rank == Some(1)), ..same_rank }
        }
        Op::Gather { .. } => {
            let ids = input(1).unwrap_or_default();
            let rank = x.rank.zip(ids.rank).map(|(x, ids)| (x + ids).saturating_sub(1));
            Known { length: ids.length.filter(|_| rank == Some(1)), ..of_rank(rank) }
        }
        Op::GatherElements { .. } => input(1).unwrap_or_default(),
        Op::GatherNd { .. } => of_rank(None),
        Op::OneHot { .. } => of_rank(x.rank.map(|rank| rank + 1)),
        Op::Arg { keep_dims: true, .. } => same_rank,
        Op::Arg { .. } => of_rank(x.rank.and_then(|rank| rank.checked_sub(1))),
        Op::NonZero => Known::rank(2),
        Op::Range => Known::vector(None),
    };
    vec![first; outputs]
}
