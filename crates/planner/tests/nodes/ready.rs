//! A case's model, planned and packed for some device.

use super::suite::Case;
use std::sync::Arc;
use tessera_core::{PlanKey, Precision};
use tessera_planner::class::{self, Model};
use tessera_planner::graph::{Dim, ParamId};
use tessera_planner::infer::{DimValue, InferError};
use tessera_planner::pack::pack;
use tessera_planner::{PackTarget, Packed, Plan, PlanError, SlotLayout, Tensor};

/// What a device needs to answer a case.
pub struct Ready {
    /// The architecture and where its weights are.
    pub model: Model,
    /// The plan, of one item or of the whole request.
    pub plan: Arc<Plan>,
    /// How the weights lie.
    pub layout: Arc<SlotLayout>,
    /// The weights.
    pub packed: Packed,
    /// Items of the case's request.
    pub items: usize,
    /// Bytes of every input, all items.
    pub inputs: Vec<Vec<u8>>,
}

/// The inputs that a model asks for, from the case.
pub fn inputs(case: &Case, names: &[String]) -> Result<Vec<Tensor>, String> {
    let find = |name: &String| {
        let (_, tensor) = case.inputs.iter().find(|(given, _)| given == name).expect("the model's inputs");
        tensor.clone().ok_or_else(|| format!("`{name}` is of a type we have not"))
    };
    names.iter().map(find).collect()
}

/// The case's model as exporters write it, planned as one whole request.
pub fn whole(case: &Case, model: &[u8], target: PackTarget, precision: Precision) -> Result<Ready, String> {
    let model = class::load_bytes(model.to_vec(), None).map_err(|error| error.to_string())?;
    ready(case, model, target, precision, &[], 1).map_err(|error| error.to_string())
}

/// The case's model planned item by item, where it can be: axis 0 is free, and the planner proves that items are independent.
pub fn batched(case: &Case, target: PackTarget, precision: Precision) -> Option<Result<Ready, String>> {
    let model = class::load_bytes(case.batched.clone()?, None).ok()?;
    let axis_0 = model.class.graph.inputs.first()?.dims.first()?;
    let Dim::Free(_) = axis_0 else { return None };
    let items = inputs(case, &model.input_names[..1]).ok()?[0].dims()[0];
    match ready(case, model, target, precision, &[DimValue::Items], items) {
        Ok(ready) => Some(Ok(ready)),
        Err(Failure::Plan(PlanError::Infer(InferError::MixesItems { .. }))) => None,
        Err(error) => Some(Err(error.to_string())),
    }
}

/// Why a case cannot be made ready.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Plan(PlanError),
    #[error("{0}")]
    Other(String),
}

fn ready(
    case: &Case,
    model: Model,
    target: PackTarget,
    precision: Precision,
    dims: &[DimValue],
    items: usize,
) -> Result<Ready, Failure> {
    let other = |error: &dyn std::fmt::Display| Failure::Other(error.to_string());
    let class = &model.class;
    let layout = SlotLayout::of(class.folded(), target).map_err(|error| other(&error))?;
    let layout = Arc::new(layout);
    let key = PlanKey { class: class.id, dims: [].into(), precision };
    let plan = tessera_planner::plan(key, class.folded(), &layout, dims).map_err(Failure::Plan)?;
    let mut source = |id: ParamId| Ok(model.weights[id.0 as usize].clone());
    let packed = pack(&class.graph, class.folded(), &layout, &mut source).map_err(|error| other(&error))?;
    let inputs = inputs(case, &model.input_names).map_err(Failure::Other)?;
    let inputs = inputs.iter().map(|tensor| tensor.bytes().to_vec()).collect();
    Ok(Ready { plan: Arc::new(plan), layout, packed, items, inputs, model })
}

impl Ready {
    /// Answers' bytes, all items, as tensors.
    pub fn tensors(&self, answers: &[impl AsRef<[u8]>]) -> Result<Vec<Tensor>, String> {
        let tensor = |(port, bytes): (&tessera_planner::plan::Port, &dyn AsRef<[u8]>)| {
            let mut dims = port.dims.clone();
            if let (true, Some(first)) = (self.plan.batched, dims.first_mut()) {
                *first *= self.items;
            }
            Tensor::new(port.dtype, dims, bytes.as_ref().to_vec()).map_err(|error| error.to_string())
        };
        let bytes = answers.iter().map(|bytes| bytes as &dyn AsRef<[u8]>);
        self.plan.outputs.iter().zip(bytes).map(tensor).collect()
    }

    /// The inputs of one item.
    pub fn item(&self, item: usize) -> Vec<&[u8]> {
        let one = |input: &'_ Vec<u8>| -> std::ops::Range<usize> {
            let len = input.len() / self.items;
            item * len..(item + 1) * len
        };
        self.inputs.iter().map(|input| &input[one(input)]).collect()
    }
}
