//! The values of weight expressions, whole tensors at a time, by the reference: for whatever [`super::stream`] does not know.

use super::PackError;
use super::sources::Sources;
use crate::fold::{FoldedWeight, WeightExpr};
use crate::graph::ParamId;
use crate::op::Op;
use crate::reference::{EvalError, eval};
use crate::tensor::Tensor;
use tessera_core::DType;

/// The value of a weight, in single precision and of the dimensions that its layout was made for.
pub(super) fn weight(weight: &FoldedWeight, sources: &Sources<'_>) -> Result<Tensor, PackError> {
    let tensor = value(&weight.expr, &weight.name, sources)?;
    if tensor.dtype() == DType::F32 && tensor.dims() == weight.dims {
        return Ok(tensor);
    }
    Err(PackError::Mismatch {
        name: weight.name.clone(),
        got: format!("{}{:?}", tensor.dtype(), tensor.dims()),
        want: format!("f32{:?}", weight.dims),
    })
}

/// The value of an expression in the weight called `name`.
pub(super) fn value(expr: &WeightExpr, name: &str, sources: &Sources<'_>) -> Result<Tensor, PackError> {
    match expr {
        WeightExpr::Literal(tensor) => Ok(tensor.clone()),
        WeightExpr::Param(id) => converted(*id, sources),
        WeightExpr::Apply { op, inputs, output } => {
            let inputs: Vec<Option<Tensor>> = inputs
                .iter()
                .map(|input| input.as_ref().map(|input| value(input, name, sources)).transpose())
                .collect::<Result<_, _>>()?;
            let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
            apply(op, &inputs, *output).map_err(|source| PackError::Evaluate { name: name.into(), source })
        }
    }
}

/// A tenant may bring its weights in another float type than its base has.
fn converted(id: ParamId, sources: &Sources<'_>) -> Result<Tensor, PackError> {
    let tensor = sources.read(id)?;
    let param = sources.param(id);
    if tensor.dtype() == param.dtype {
        return Ok(tensor);
    }
    let converted = apply(&Op::Cast(param.dtype), &[Some(&tensor)], 0);
    converted.map_err(|source| PackError::Evaluate { name: param.name.clone(), source })
}

/// The output number `output` of an operator.
fn apply(op: &Op, inputs: &[Option<&Tensor>], output: usize) -> Result<Tensor, EvalError> {
    let mut made = eval(op, inputs, output + 1)?;
    Ok(made.swap_remove(output))
}
