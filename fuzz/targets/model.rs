//! The model road, from a file's bytes to the answer of its plan.

use tessera_core::{PlanKey, Precision};
use tessera_planner::class::{Bound, Class, Model, load_bytes};
use tessera_planner::graph::{Dim, ParamId};
use tessera_planner::infer::DimValue;
use tessera_planner::pack::{Matrices, PackTarget, pack};
use tessera_planner::{Packed, SlotLayout, interpret, plan};

/// More than this is too slow to be tried often: the interpreter is plain loops.
const MOST_BYTES: u64 = 1 << 20;
const MOST_FLOPS: u64 = 1 << 20;
const MOST_STEPS: usize = 200;

pub(super) fn run(bytes: &[u8]) {
    if let Ok(model) = load_bytes(bytes.to_vec(), None) {
        walk(&model);
    }
}

/// Packs, plans and interprets a model, as far as it is small enough.
pub(super) fn walk(model: &Model) {
    let Some((layout, packed)) = packed(model) else { return };
    for size in [1, 3] {
        let Some(bound) = bound(&model.class, size) else { continue };
        for item_dim in [bound.item_dim, None] {
            answer(&model.class, &layout, &packed, &bound, item_dim);
        }
    }
}

/// The slot of a model that is not too large.
pub(super) fn packed(model: &Model) -> Option<(SlotLayout, Packed)> {
    let class = &model.class;
    let target = PackTarget { device: "fuzz", precision: Precision::Fp32, matrices: Matrices::Panels(16) };
    let layout = SlotLayout::of(class.folded(), target).ok().filter(|layout| layout.bytes.0 <= MOST_BYTES)?;
    let mut source = |id: ParamId| Ok(model.weights[id.0 as usize].clone());
    let packed = pack(&class.graph, class.folded(), &layout, &mut source).ok()?;
    Some((layout, packed))
}

/// A request with every free dimension of this size.
fn bound(class: &Class, size: u64) -> Option<Bound> {
    let shapes = class.graph.inputs.iter().map(|input| {
        let dim = |dim: &Dim| match dim {
            Dim::Fixed(fixed) => *fixed,
            Dim::Free(_) => size,
        };
        input.dims.iter().map(dim).collect::<Vec<u64>>()
    });
    let shapes: Vec<Vec<u64>> = shapes.collect();
    class.bind(&shapes.iter().map(Vec::as_slice).collect::<Vec<_>>()).ok()
}

fn answer(class: &Class, layout: &SlotLayout, packed: &Packed, bound: &Bound, item_dim: Option<usize>) {
    let value = |(index, &size): (usize, &u64)| match item_dim {
        Some(item) if item == index => DimValue::Items,
        _ => DimValue::Fixed(size),
    };
    let dims: Vec<DimValue> = bound.dims.iter().enumerate().map(value).collect();
    let key = PlanKey { class: class.id, dims: bound.dims.clone().into(), precision: Precision::Fp32 };
    let Ok(plan) = plan(key, class.folded(), layout, &dims) else { return };
    let inputs = plan.inputs.iter().map(|port| port.bytes_per_item() as u64).sum::<u64>();
    let small = plan.arena_per_item.0 <= MOST_BYTES && plan.flops_per_item() <= MOST_FLOPS;
    if !small || inputs > MOST_BYTES || plan.steps.len() > MOST_STEPS {
        return;
    }
    // Small integers for ids, and as floats tiny numbers: both are things that requests bring.
    let inputs: Vec<Vec<u8>> = plan.inputs.iter().map(|port| vec![1; port.bytes_per_item()]).collect();
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    if let Ok(outputs) = interpret::run(&plan, layout, packed, &inputs) {
        let declared = plan.outputs.iter().map(|port| port.bytes_per_item());
        assert!(outputs.iter().map(Vec::len).eq(declared), "an answer is as long as its port");
    }
}
