//! A model, planned and packed for the interpreter.

use tessera_core::{PlanKey, Precision};
use tessera_planner::class::Model;
use tessera_planner::graph::ParamId;
use tessera_planner::infer::DimValue;
use tessera_planner::pack::{Matrices, PackTarget, pack};
use tessera_planner::{Packed, Plan, SlotLayout};

const TARGET: PackTarget =
    PackTarget { device: "definition", precision: Precision::Fp32, matrices: Matrices::Panels(16) };

pub(crate) struct Ready {
    pub(crate) model: Model,
    pub(crate) plan: Plan,
    pub(crate) layout: SlotLayout,
    pub(crate) packed: Packed,
}

/// `dims` is the value of every free dimension, the batch first.
pub(crate) fn ready(model: Model, dims: &[DimValue]) -> Ready {
    let class = &model.class;
    let layout = SlotLayout::of(class.folded(), TARGET).unwrap();
    let key = PlanKey { class: class.id, dims: [].into(), precision: Precision::Fp32 };
    let plan = tessera_planner::plan(key, class.folded(), &layout, dims).unwrap();
    let mut source = |id: ParamId| Ok(model.weights[id.0 as usize].clone());
    let packed = pack(&class.graph, class.folded(), &layout, &mut source).unwrap();
    Ready { model, plan, layout, packed }
}
