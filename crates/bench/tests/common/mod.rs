//! A zoo model on its way from bytes to answers, by the definition and on the CPU device.

#![allow(clippy::unwrap_used)] // the lint spares tests, but not the functions that they share
#![allow(dead_code, unreachable_pub)] // each test file uses its part

pub mod double;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::time::Duration;
use tessera_bench::zoo::{self, Sizes};
use tessera_core::{DType, LaunchId, PartitionId, PlanKey, Precision};
use tessera_device::conformance::bell;
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::{Device, Lane, LaneRequest, Launch, Room};
use tessera_planner::class::{self, Model};
use tessera_planner::graph::ParamId;
use tessera_planner::infer::DimValue;
use tessera_planner::{PackTarget, Packed, Plan, SlotLayout, Tensor, pack, plan, reference, source};

/// One tenant of an architecture, imported and planned.
pub struct Tenant {
    pub zoo: zoo::Model,
    pub model: Model,
    pub layout: Arc<SlotLayout>,
    pub plan: Arc<Plan>,
}

impl Tenant {
    pub fn new(name: &str, sizes: &Sizes, seed: u64, target: PackTarget) -> Tenant {
        let zoo = zoo::find(name).unwrap().model(sizes).unwrap();
        let model =
            class::load_bytes(zoo.bytes(seed), None).unwrap_or_else(|error| panic!("{name}: {error}"));
        let layout = Arc::new(SlotLayout::of(model.class.folded(), target).unwrap());
        let key = PlanKey { class: model.class.id, dims: Arc::from([]), precision: Precision::Fp32 };
        let plan = plan(key, model.class.folded(), &layout, &[DimValue::Items]);
        let plan = Arc::new(plan.unwrap_or_else(|error| panic!("{name}: {error}")));
        Tenant { zoo, model, layout, plan }
    }

    /// One item for every input.
    pub fn inputs(&self, seed: u64) -> Vec<Tensor> {
        let mut random = StdRng::seed_from_u64(seed);
        let of = |(index, port): (usize, &tessera_planner::plan::Port)| {
            let elements: usize = port.dims.iter().product();
            match self.zoo.ids_below(index) {
                Some(below) => {
                    let ids: Vec<i64> = (0..elements).map(|_| random.random_range(0..below)).collect();
                    Tensor::from_elements(&port.dims, &ids)
                }
                None => {
                    let bound = 3f32.sqrt();
                    let floats: Vec<f32> =
                        (0..elements).map(|_| random.random_range(-bound..bound)).collect();
                    Tensor::from_elements(&port.dims, &floats)
                }
            }
        };
        self.plan.inputs.iter().enumerate().map(of).collect()
    }

    fn weight(&self, id: ParamId) -> Result<Tensor, source::SourceError> {
        let param = &self.model.class.graph.params[id.0 as usize];
        source::read_weight(&self.model.weights[id.0 as usize], param.dtype, &param.dims)
    }

    /// The answer by the definition of every operator, on the graph as it was imported.
    pub fn by_definition(&self, inputs: &[Tensor]) -> Vec<Vec<f32>> {
        let made = reference::run(&self.model.class.graph, &|id| Ok(self.weight(id)?), inputs).unwrap();
        made.iter().map(|tensor| tensor.elements::<f32>().unwrap()).collect()
    }

    pub fn packed(&self) -> Packed {
        let class = &self.model.class;
        let mut source = |id: ParamId| Ok(self.model.weights[id.0 as usize].clone());
        pack::pack(&class.graph, class.folded(), &self.layout, &mut source).unwrap()
    }
}

/// The CPU device, its answers awaited.
pub struct Cpu {
    pub device: CpuDevice,
    bell: std::sync::mpsc::Receiver<()>,
}

impl Cpu {
    pub fn open() -> Cpu {
        let (wake, bell) = bell();
        let options = CpuOptions { cores: Cores::All, partitions: None, memory_limit: None };
        Cpu { device: CpuDevice::open(&options, wake).unwrap(), bell }
    }

    pub fn target(&self) -> PackTarget {
        self.device.pack_target(Precision::Fp32).unwrap()
    }

    /// A tenant's answer to one item.
    pub fn answer(&self, tenant: &Tenant, inputs: &[Tensor]) -> Vec<Vec<f32>> {
        let room = Room { lanes: 1, items: 1 };
        let program = self.device.compile(&tenant.plan, &tenant.layout, room, PartitionId(0)).unwrap();
        let slot = self.device.upload(tenant.model.class.id, &tenant.layout, tenant.packed()).unwrap();
        let inputs = inputs.iter().map(|input| Bytes::copy_from_slice(input.bytes())).collect();
        let lanes = vec![Lane { slot, requests: vec![LaneRequest { items: 1, inputs }] }];
        self.device.submit(Launch { id: LaunchId(0), program, lanes, urgent: false }).unwrap();
        let mut finished = Vec::new();
        while finished.is_empty() {
            self.bell.recv_timeout(Duration::from_secs(120)).expect("the device wakes us");
            finished = self.device.poll();
        }
        self.device.discard(program);
        let answer = finished.remove(0).answers.remove(0).remove(0).unwrap();
        assert!(tenant.plan.outputs.iter().all(|port| port.dtype == DType::F32));
        answer.iter().map(|bytes| tessera_device::conformance::floats(bytes)).collect()
    }
}
