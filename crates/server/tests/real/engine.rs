//! The engine by itself: plans that come and go between its queue's two ends.

use crate::fixture;
use bytes::Bytes;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;
use tessera_core::{OwnerId, PartitionId, PlanKey, Policy, Precision, ProgramId, RequestId, TenantId};
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::{Device, Room};
use tessera_planner::graph::ParamId;
use tessera_planner::infer::DimValue;
use tessera_planner::{Plan, SlotLayout, class, pack};
use tessera_scheduler::{Config, PlanWork, Terms};
use tessera_server::Events;
use tessera_server::engine::{Answer, EngineHandle, Home, Inbox, NotAnswered, Running};
use tessera_server::monitor::Watch;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

const TENANT: TenantId = TenantId(0);

/// An engine with mlp-0 in it, and what programs of mlp-0 are made from.
struct Alone {
    engine: EngineHandle,
    running: Running,
    /// Hands out answers.
    _runtime: Runtime,
    device: Arc<dyn Device>,
    plan: Arc<Plan>,
    layout: Arc<SlotLayout>,
}

impl Alone {
    fn start() -> Alone {
        let inbox = Inbox::default();
        let options = CpuOptions { cores: Cores::All, partitions: None, memory_limit: None };
        let device: Arc<dyn Device> = Arc::new(CpuDevice::open(&options, inbox.wake()).unwrap());
        let model = class::load(&fixture::path("mlp-0.onnx")).unwrap();
        let class = &model.class;
        let target = device.pack_target(Precision::Fp32).unwrap();
        let layout = Arc::new(SlotLayout::of(class.folded(), target).unwrap());
        let mut source = |id: ParamId| Ok(model.weights[id.0 as usize].clone());
        let packed = pack::pack(&class.graph, class.folded(), &layout, &mut source).unwrap();
        let slot = device.upload(class.id, &layout, packed).unwrap();
        let key = PlanKey { class: class.id, dims: [].into(), precision: Precision::Fp32 };
        let plan = Arc::new(tessera_planner::plan(key, class.folded(), &layout, &[DimValue::Items]).unwrap());
        let engine = inbox.handle();
        let config = Config::new(Policy::SpaceTime, vec![PartitionId(0)]);
        let events = Arc::new(Events::default());
        let queue = events.metrics().tenant_loaded("mlp-0");
        let runtime = Runtime::new().unwrap();
        let running = inbox.start(config, device.clone(), events, runtime.handle().clone()).unwrap();
        engine.tenant_added(TENANT, Terms::best_effort(OwnerId(0)), Home::new(slot, queue, Arc::default()));
        Alone { engine, running, device, plan, layout, _runtime: runtime }
    }

    /// Makes the plan's programs and announces them.
    fn ready(&self) -> Vec<(PartitionId, ProgramId)> {
        let room = Room { lanes: 4, items: 16 };
        let program = self.device.compile(&self.plan, &self.layout, room, PartitionId(0)).unwrap();
        let programs = vec![(PartitionId(0), program)];
        let work = PlanWork {
            flops_per_item: self.plan.flops_per_item(),
            bytes_per_item: self.plan.arena_per_item,
            weight_bytes: self.layout.bytes,
        };
        self.engine.plan_ready(work, programs.clone(), Watch::new(&self.plan, &self.layout));
        programs
    }

    fn ask(&self, request: u64) -> Answer {
        let (reply, answer) = oneshot::channel();
        let incoming = tessera_server::engine::Incoming {
            request: RequestId(request),
            tenant: TENANT,
            plan: self.plan.key.clone(),
            items: NonZeroU32::MIN,
            batchable: true,
            inputs: vec![Bytes::from(vec![0; 64 * 4])],
            arrived: Instant::now(),
            timeout: None,
            reply,
        };
        drop(self.engine.offer(incoming));
        answer.blocking_recv().unwrap()
    }
}

#[test]
fn a_plan_that_is_dropped_late_takes_no_later_making_of_it_along() {
    let alone = Alone::start();
    // The last tenant of a class goes while another comes: the new making may be announced before the old one is dropped.
    let (old, new) = (alone.ready(), alone.ready());
    alone.engine.plan_dropped(alone.plan.key.clone(), old);
    assert_eq!(alone.ask(0).unwrap().len(), 1);
    alone.engine.plan_dropped(alone.plan.key.clone(), new);
    assert_eq!(alone.ask(1), Err(NotAnswered::PlanGone));
    alone.ready();
    assert_eq!(alone.ask(2).unwrap().len(), 1);
    alone.running.stop();
}
