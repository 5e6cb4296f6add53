//! What every operator means: plain loops over whole tensors.
//!
//! ```text
//!   run(graph, weights, inputs) ─▶ eval(op, inputs) per node, in order ─▶ outputs
//! ```
//! This is the definition that plans and devices are compared with (within a tolerance, since they sum in another order). Floats of any width
//! are computed in f64 and rounded once per operator, so the reference is more exact than what it judges; transcendental functions come
//! from `libm`, the same on every platform. Integers are computed exactly and wrap to their width, as NumPy's do. Sources: the ONNX operator
//! specification; where it leaves a case open we follow onnxruntime and say so.

mod contract;
mod einsum;
mod element;
mod elementwise;
mod error;
mod moves;
mod normal;
mod pixels;
mod pool;
mod recurrent;
mod reduce;
mod run;
mod select;
mod shapes;
mod transposed;
mod window;

pub use error::{EvalError, RunError};
pub(crate) use moves::{expand_to, take};
pub(crate) use pixels::{resize_along, tile_to};
pub use run::run;

use crate::op::Op;
use crate::tensor::Tensor;
use tessera_core::DType;

/// One number as a scalar of any type, as a cast makes it.
pub(crate) fn number(value: f64, dtype: DType) -> Tensor {
    element::from_floats(dtype, &[], &[value])
}

/// A tensor in another type, as a cast makes it.
pub(crate) fn cast(tensor: &Tensor, to: DType) -> Tensor {
    element::Elements::of(tensor).tensor(to, tensor.dims())
}

/// Computes the `outputs` outputs of one operator. `inputs` are in ONNX's order, `None` for one that is left out.
///
/// Errors when inputs do not fit the operator, an index is out of range, an integer is divided by zero, or the result would be larger than
/// memory can address; never panics. The result of `Recurrent` may have fewer outputs than the operator defines, as asked for.
pub fn eval(op: &Op, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>, EvalError> {
    let args = error::Args { op: op.name(), inputs };
    let one = |tensor: Result<Tensor, EvalError>| tensor.map(|tensor| vec![tensor]);
    let mut made = match op {
        Op::Unary(function) => one(elementwise::unary(*function, args)),
        Op::Binary(function) => one(elementwise::binary(*function, args)),
        Op::Where => one(elementwise::choose(args)),
        Op::Clip => one(elementwise::clip(args)),
        Op::Cast(to) => one(elementwise::cast(*to, args)),
        Op::Gemm { alpha, beta, trans_a, trans_b } => {
            one(contract::gemm(*alpha, *beta, *trans_a, *trans_b, args))
        }
        Op::MatMul => one(contract::matmul(args)),
        Op::Einsum(equation) => one(einsum::einsum(equation, args)),
        Op::Conv(window, groups) => one(window::conv(window, *groups, args)),
        Op::ConvTranspose(window, groups) => one(transposed::conv_transpose(window, *groups, args)),
        Op::MaxPool(window) => one(pool::max_pool(window, args)),
        Op::MaxPoolIndices(window, column_major) => one(pool::max_pool_indices(window, *column_major, args)),
        Op::SumPool(window) => one(pool::sum_pool(window, args)),
        Op::AveragePool(window, count_padding) => one(pool::average_pool(window, *count_padding, args)),
        Op::BatchNorm { epsilon } => one(normal::batch_norm(*epsilon, args)),
        Op::GroupNorm { groups, epsilon } => one(normal::group_norm(*groups, *epsilon, args)),
        &Op::Lrn { size, alpha, beta, bias } => one(normal::lrn(size, [alpha, beta, bias], args)),
        Op::LayerNorm { axis, epsilon } => one(normal::layer_norm(*axis, *epsilon, args)),
        Op::Softmax { axis, log } => one(normal::softmax(*axis, *log, args)),
        Op::Recurrent(layer) => recurrent::recurrent(layer, args),
        Op::Reduce { kind, keep_dims, noop_with_empty_axes } => {
            one(reduce::reduce(*kind, *keep_dims, *noop_with_empty_axes, args))
        }
        Op::Shape { start, end } => one(shapes::shape(*start, *end, args)),
        Op::Reshape { allow_zero } => one(shapes::reshape(*allow_zero, args)),
        Op::Flatten { axis } => one(shapes::flatten(*axis, args)),
        Op::Squeeze => one(shapes::squeeze(args)),
        Op::Unsqueeze => one(shapes::unsqueeze(args)),
        Op::Expand => one(shapes::expand(args)),
        Op::ConstantOfShape { value } => one(shapes::constant_of_shape(value, args)),
        Op::Range => one(shapes::range(args)),
        Op::Transpose { perm } => one(moves::transpose(perm, args)),
        Op::Concat { axis } => one(moves::concat(*axis, args)),
        Op::Split { axis } => moves::split(*axis, outputs, args),
        Op::Slice => one(moves::slice(args)),
        Op::Gather { axis } => one(moves::gather(*axis, args)),
        Op::GatherElements { axis } => one(moves::gather_elements(*axis, args)),
        Op::Pad(mode) => one(moves::pad(*mode, args)),
        Op::Tile => one(pixels::tile(args)),
        Op::DepthToSpace { block, depth_first } => one(pixels::depth_to_space(*block, *depth_first, args)),
        Op::SpaceToDepth { block, depth_first } => one(pixels::space_to_depth(*block, *depth_first, args)),
        Op::Trilu { upper } => one(pixels::trilu(*upper, args)),
        Op::Resize(resize) => one(pixels::resize(resize, args)),
        Op::GatherNd { batch_dims } => one(select::gather_nd(*batch_dims, args)),
        Op::ScatterElements { axis, how } => one(select::scatter_elements(*axis, *how, args)),
        Op::ScatterNd(how) => one(select::scatter_nd(*how, args)),
        Op::OneHot { axis } => one(select::one_hot(*axis, args)),
        Op::CumSum { exclusive, reverse } => one(select::cum_sum(*exclusive, *reverse, args)),
        Op::TopK { axis, largest } => select::top_k(*axis, *largest, args),
        Op::Arg { largest, axis, keep_dims, last } => {
            one(select::arg(*largest, *axis, *keep_dims, *last, args))
        }
        Op::NonZero => one(select::non_zero(args)),
    }?;
    if made.len() < outputs {
        return Err(args.misfit(format!("{outputs} outputs are wanted, it has {}", made.len())));
    }
    made.truncate(outputs.max(1));
    Ok(made)
}
