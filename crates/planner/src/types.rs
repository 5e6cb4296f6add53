//! The element type of what each operator makes, which never depends on a request.
//!
//! Import needs it to write literals beside a value (`IsInf`, `Mean`, …), and folding to know where a model leaves the plan's own float.

use crate::op::{Op, Unary};
use tessera_core::DType;

/// The type of output number `output` of `op`, `None` when it follows from an input whose type is not known.
pub(crate) fn output(op: &Op, inputs: &[Option<DType>], output: usize) -> Option<DType> {
    let input = |index: usize| inputs.get(index).copied().flatten();
    match op {
        Op::Binary(function) if function.is_comparison() => Some(DType::Bool),
        Op::Unary(Unary::Not) => Some(DType::Bool),
        Op::Cast(to) => Some(*to),
        Op::Where => input(1).or(input(2)),
        Op::OneHot { .. } => input(2),
        Op::MaxPoolIndices(..) | Op::Shape { .. } | Op::Arg { .. } | Op::NonZero => Some(DType::I64),
        Op::TopK { .. } if output == 1 => Some(DType::I64),
        Op::ConstantOfShape { value } => Some(value.dtype()),
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Clip
        | Op::Gemm { .. }
        | Op::MatMul
        | Op::Einsum(_)
        | Op::Conv(..)
        | Op::ConvTranspose(..)
        | Op::MaxPool(_)
        | Op::SumPool(_)
        | Op::GroupNorm { .. }
        | Op::Lrn { .. }
        | Op::AveragePool(..)
        | Op::BatchNorm { .. }
        | Op::LayerNorm { .. }
        | Op::Softmax { .. }
        | Op::Recurrent(_)
        | Op::Reduce { .. }
        | Op::Reshape { .. }
        | Op::Flatten { .. }
        | Op::Squeeze
        | Op::Unsqueeze
        | Op::Transpose { .. }
        | Op::Concat { .. }
        | Op::Split { .. }
        | Op::Slice
        | Op::Gather { .. }
        | Op::GatherElements { .. }
        | Op::Expand
        | Op::Range
        | Op::Pad(_)
        | Op::Tile
        | Op::DepthToSpace { .. }
        | Op::SpaceToDepth { .. }
        | Op::Trilu { .. }
        | Op::Resize(_)
        | Op::GatherNd { .. }
        | Op::ScatterElements { .. }
        | Op::ScatterNd(_)
        | Op::CumSum { .. }
        | Op::TopK { .. } => input(0),
    }
}
