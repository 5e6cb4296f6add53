//! Where one tenant's weights are: looked up once for all that a slot is computed from, and checked against the class.

use super::PackError;
use crate::fold::{Folded, WeightExpr};
use crate::graph::{Graph, Param, ParamData, ParamId, WeightSource};
use crate::source::{SourceError, read_weight};
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use tessera_core::DType;

/// The parameters that a slot is computed from, and where each is.
#[derive(Debug)]
pub struct Sources<'a> {
    class: &'a Graph,
    of: BTreeMap<ParamId, WeightSource>,
}

impl<'a> Sources<'a> {
    /// Asks `source` once for every parameter of `class` that `folded` needs. Reads nothing. Errors with what `source` says, and when
    /// what is at hand already is not what the class asks for, but for its float type.
    pub fn of(
        class: &'a Graph,
        folded: &Folded,
        source: &mut dyn FnMut(ParamId) -> Result<WeightSource, SourceError>,
    ) -> Result<Sources<'a>, PackError> {
        let mut needed = BTreeSet::new();
        folded.weights.iter().for_each(|weight| params(&weight.expr, &mut needed));
        let mut sources = Sources { class, of: BTreeMap::new() };
        for id in needed {
            let param = sources.param(id);
            let found = match &param.data {
                ParamData::Literal(tensor) => WeightSource::Inline(tensor.clone()),
                ParamData::Weight(_) => {
                    source(id).map_err(|source| PackError::Read { name: param.name.clone(), source })?
                }
            };
            if let WeightSource::Inline(tensor) = &found {
                check(param, tensor)?;
            }
            sources.of.insert(id, found);
        }
        Ok(sources)
    }

    pub(super) fn param(&self, id: ParamId) -> &'a Param {
        &self.class.params[id.0 as usize]
    }

    pub(super) fn get(&self, id: ParamId) -> &WeightSource {
        &self.of[&id]
    }

    /// Every parameter and where it is, in the order of parameters.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Param, &WeightSource)> {
        self.of.iter().map(|(id, source)| (self.param(*id), source))
    }

    /// A whole parameter.
    pub(super) fn read(&self, id: ParamId) -> Result<Tensor, PackError> {
        let param = self.param(id);
        if let WeightSource::Inline(tensor) = self.get(id) {
            return Ok(tensor.clone());
        }
        let tensor = read_weight(self.get(id), param.dtype, &param.dims)
            .map_err(|source| PackError::Read { name: param.name.clone(), source })?;
        check(param, &tensor)?;
        Ok(tensor)
    }
}

/// Whether a tensor is what the class asks for, but for its float type.
fn check(param: &Param, tensor: &Tensor) -> Result<(), PackError> {
    let floats = |one: DType, other: DType| one.is_float() && other.is_float();
    let same_type = tensor.dtype() == param.dtype || floats(tensor.dtype(), param.dtype);
    if same_type && tensor.dims() == param.dims {
        return Ok(());
    }
    Err(PackError::Mismatch {
        name: param.name.clone(),
        got: format!("{}{:?}", tensor.dtype(), tensor.dims()),
        want: format!("{}{:?}", param.dtype, param.dims),
    })
}

/// The parameters that an expression reads.
fn params(expr: &WeightExpr, of: &mut BTreeSet<ParamId>) {
    match expr {
        WeightExpr::Param(id) => _ = of.insert(*id),
        WeightExpr::Literal(_) => {}
        WeightExpr::Apply { inputs, .. } => inputs.iter().flatten().for_each(|input| params(input, of)),
    }
}
