//! The values of weight expressions, each parameter read once and kept no longer than something still needs it.

use super::PackError;
use super::identity::{Hashing, WeightsHash};
use crate::fold::{Folded, FoldedWeight, WeightExpr};
use crate::graph::{Graph, ParamData, ParamId};
use crate::op::Op;
use crate::reference::{EvalError, eval};
use crate::source::SourceError;
use crate::tensor::Tensor;
use std::collections::HashMap;

/// One tenant's weights on their way into a slot.
pub(super) struct Evaluation<'a> {
    class: &'a Graph,
    read: &'a mut dyn FnMut(ParamId) -> Result<Tensor, SourceError>,
    /// How often each parameter is still needed.
    uses: HashMap<ParamId, usize>,
    /// Parameters that were read and are needed again.
    kept: HashMap<ParamId, Tensor>,
    hashing: Hashing,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(
        class: &'a Graph,
        folded: &Folded,
        read: &'a mut dyn FnMut(ParamId) -> Result<Tensor, SourceError>,
    ) -> Self {
        let mut uses = HashMap::new();
        folded.weights.iter().for_each(|weight| count(&weight.expr, &mut uses));
        Evaluation { class, read, uses, kept: HashMap::new(), hashing: Hashing::default() }
    }

    /// The value of a weight, in single precision and of the dimensions that its layout was made for.
    pub(super) fn weight(&mut self, weight: &FoldedWeight) -> Result<Tensor, PackError> {
        let tensor = self.value(&weight.expr, &weight.name)?;
        if tensor.dtype() == tessera_core::DType::F32 && tensor.dims() == weight.dims {
            return Ok(tensor);
        }
        Err(PackError::Mismatch {
            name: weight.name.clone(),
            got: format!("{}{:?}", tensor.dtype(), tensor.dims()),
            want: format!("f32{:?}", weight.dims),
        })
    }

    /// The identity of all that was read.
    pub(super) fn finish(self) -> WeightsHash {
        self.hashing.finish()
    }

    fn value(&mut self, expr: &WeightExpr, name: &str) -> Result<Tensor, PackError> {
        match expr {
            WeightExpr::Literal(tensor) => Ok(tensor.clone()),
            WeightExpr::Param(id) => self.param(*id),
            WeightExpr::Apply { op, inputs, output } => {
                let inputs: Vec<Option<Tensor>> = inputs
                    .iter()
                    .map(|input| input.as_ref().map(|input| self.value(input, name)).transpose())
                    .collect::<Result<_, _>>()?;
                let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
                apply(op, &inputs, *output)
                    .map_err(|source| PackError::Evaluate { name: name.into(), source })
            }
        }
    }

    fn param(&mut self, id: ParamId) -> Result<Tensor, PackError> {
        let uses = self.uses.get_mut(&id).expect("every use was counted");
        *uses -= 1;
        let last = *uses == 0;
        if let Some(tensor) = self.kept.get(&id).cloned() {
            if last {
                self.kept.remove(&id);
            }
            return Ok(tensor);
        }
        let tensor = read_param(self.class, id, self.read)?;
        self.hashing.add(id, &tensor);
        let tensor = converted(self.class, id, tensor)?;
        if !last {
            self.kept.insert(id, tensor.clone());
        }
        Ok(tensor)
    }
}

/// The output number `output` of an operator.
fn apply(op: &Op, inputs: &[Option<&Tensor>], output: usize) -> Result<Tensor, EvalError> {
    let mut made = eval(op, inputs, output + 1)?;
    Ok(made.swap_remove(output))
}

/// Reads a parameter and checks that it is what the class asks for, but for its float type.
pub(super) fn read_param(
    class: &Graph,
    id: ParamId,
    read: &mut dyn FnMut(ParamId) -> Result<Tensor, SourceError>,
) -> Result<Tensor, PackError> {
    let param = &class.params[id.0 as usize];
    let tensor = match &param.data {
        ParamData::Literal(tensor) => tensor.clone(),
        ParamData::Weight(_) => {
            read(id).map_err(|source| PackError::Read { name: param.name.clone(), source })?
        }
    };
    let same_type = tensor.dtype() == param.dtype || (tensor.dtype().is_float() && param.dtype.is_float());
    if same_type && tensor.dims() == param.dims {
        return Ok(tensor);
    }
    Err(PackError::Mismatch {
        name: param.name.clone(),
        got: format!("{}{:?}", tensor.dtype(), tensor.dims()),
        want: format!("{}{:?}", param.dtype, param.dims),
    })
}

/// A tenant may bring its weights in another float type than its base has.
fn converted(class: &Graph, id: ParamId, tensor: Tensor) -> Result<Tensor, PackError> {
    let param = &class.params[id.0 as usize];
    if tensor.dtype() == param.dtype {
        return Ok(tensor);
    }
    let converted = apply(&Op::Cast(param.dtype), &[Some(&tensor)], 0);
    converted.map_err(|source| PackError::Evaluate { name: param.name.clone(), source })
}

/// Counts how often an expression reads each parameter.
pub(super) fn count(expr: &WeightExpr, uses: &mut HashMap<ParamId, usize>) {
    match expr {
        WeightExpr::Param(id) => *uses.entry(*id).or_default() += 1,
        WeightExpr::Literal(_) => {}
        WeightExpr::Apply { inputs, .. } => inputs.iter().flatten().for_each(|input| count(input, uses)),
    }
}
