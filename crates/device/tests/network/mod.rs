//! A network on the CPU device, for tests of its crate: those from outside, and those that look at its launches from within, which name the types
//! that both see in their own ways.
#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

use super::cpu::CpuDevice;
use super::{Device, Lane, LaneRequest, Slot};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::path::Path;
use std::sync::Arc;
use tessera_core::{PlanKey, Precision};
use tessera_planner::class;
use tessera_planner::graph::ParamId;
use tessera_planner::infer::DimValue;
use tessera_planner::pack::pack;
use tessera_planner::plan::Port;
use tessera_planner::{Plan, SlotLayout, plan};

/// A network of the fixtures that has its weights in a slot.
pub(crate) struct Network {
    pub(crate) plan: Arc<Plan>,
    pub(crate) layout: Arc<SlotLayout>,
    slot: Slot,
}

impl Network {
    /// Every step is a segment, so that there are as many boundaries as can be.
    pub(crate) fn load(device: &CpuDevice, name: &str) -> Network {
        let path = format!("{}/../../fixtures/{name}.onnx", env!("CARGO_MANIFEST_DIR"));
        let model = class::load(Path::new(&path)).unwrap();
        let class = &model.class;
        let target = device.pack_target(Precision::Fp32).unwrap();
        let layout = Arc::new(SlotLayout::of(class.folded(), target).unwrap());
        let key = PlanKey { class: class.id, dims: [].into(), precision: Precision::Fp32 };
        let mut plan = plan(key, class.folded(), &layout, &[DimValue::Items]).unwrap();
        plan.segments = (0..plan.steps.len()).map(|step| step..step + 1).collect();
        let mut source = |id: ParamId| Ok(model.weights[id.0 as usize].clone());
        let packed = pack(&class.graph, class.folded(), &layout, &mut source).unwrap();
        let slot = device.upload(class.id, &layout, packed).unwrap();
        Network { plan: Arc::new(plan), layout, slot }
    }

    /// One lane of one request with so many random items.
    pub(crate) fn lane(&self, items: u32, seed: u64) -> Lane {
        let mut random = StdRng::seed_from_u64(seed);
        let mut input = |port: &Port| {
            let floats = items as usize * port.dims.iter().product::<usize>();
            (0..floats)
                .flat_map(|_| random.random_range(-1.0f32..1.0).to_le_bytes())
                .collect::<Vec<u8>>()
                .into()
        };
        let inputs = self.plan.inputs.iter().map(&mut input).collect();
        Lane { slot: self.slot.clone(), requests: vec![LaneRequest { items, inputs }] }
    }
}
