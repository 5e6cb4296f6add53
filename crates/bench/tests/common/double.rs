//! A device that answers at once, and not with what the model says: for the loop around devices, and for what it must notice.

use bytes::Bytes;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tessera_core::{ClassId, PartitionId, Precision, ProgramId, SlotId};
use tessera_device::{
    Device, DeviceError, DeviceInfo, Finished, Launch, MemoryUse, PartitionInfo, Room, Slot, StepTime, Wake,
};
use tessera_planner::plan::Port;
use tessera_planner::{PackTarget, Packed, Plan, SlotLayout};

/// What the double answers with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answers {
    /// What the weights hash to: as a device should, the same alone and among others, whichever slot they came to.
    ByWeights,
    /// The same, and how many lanes there are: neighbours show.
    ByWeightsAndLanes,
    /// The same for everybody: as if all had the same weights.
    Alike,
}

/// See the module's text.
pub struct Double {
    answers: Answers,
    target: PackTarget,
    wake: Wake,
    numbers: AtomicU64,
    programs: Mutex<HashMap<ProgramId, Arc<Plan>>>,
    finished: Mutex<Vec<Finished>>,
}

impl std::fmt::Debug for Double {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Double").field("answers", &self.answers).finish_non_exhaustive()
    }
}

impl Double {
    /// Packs as `target` says.
    pub fn open(answers: Answers, target: PackTarget, wake: Wake) -> Arc<dyn Device> {
        Arc::new(Double {
            answers,
            target,
            wake,
            numbers: AtomicU64::new(0),
            programs: Mutex::default(),
            finished: Mutex::default(),
        })
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

impl Device for Double {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            name: "double".into(),
            description: "answers at once".into(),
            memory_limit: None,
            default_precision: Precision::Fp32,
        }
    }

    fn pack_target(&self, _: Precision) -> Result<PackTarget, DeviceError> {
        Ok(self.target)
    }

    fn upload(&self, _: ClassId, _: &Arc<SlotLayout>, packed: Packed) -> Result<Slot, DeviceError> {
        let mut hasher = DefaultHasher::new();
        packed.bytes().hash(&mut hasher);
        // The generation of a use goes where its slot goes, and nobody else reads it here.
        Ok(Slot::new(SlotId(self.number()), hasher.finish(), Arc::new(())))
    }

    fn compile(
        &self,
        plan: &Arc<Plan>,
        _: &Arc<SlotLayout>,
        _: Room,
        _: PartitionId,
    ) -> Result<ProgramId, DeviceError> {
        let program = ProgramId(self.number());
        self.programs.lock().unwrap().insert(program, plan.clone());
        Ok(program)
    }

    fn discard(&self, program: ProgramId) {
        self.programs.lock().unwrap().remove(&program);
    }

    fn partitions(&self) -> Vec<PartitionInfo> {
        vec![PartitionInfo { id: PartitionId(0), units: 1, ahead: 1, lead: Duration::ZERO, aside: false }]
    }

    fn layouts(&self) -> Vec<Vec<PartitionId>> {
        vec![vec![PartitionId(0)]]
    }

    fn submit(&self, launch: Launch) -> Result<(), DeviceError> {
        let lanes = launch.lanes.len() as u64;
        let plan = self.programs.lock().unwrap()[&launch.program].clone();
        let answers = launch.lanes.iter().map(|lane| {
            let number = match self.answers {
                Answers::ByWeights => lane.slot.generation(),
                Answers::ByWeightsAndLanes => lane.slot.generation().wrapping_add(lanes),
                Answers::Alike => 1,
            };
            let answer = |items: u32| {
                // Whole numbers, so that no float among them is none; two tenants of a few dozen hardly share all of 2²⁴.
                let float = ((number % (1 << 24)) as f32).to_le_bytes();
                let of = |port: &Port| float.repeat(port.bytes_per_item() * items as usize / float.len());
                Ok(plan.outputs.iter().map(|port| Bytes::from(of(port))).collect())
            };
            lane.requests.iter().map(|request| answer(request.items)).collect()
        });
        let finished = Finished {
            id: launch.id,
            answers: answers.collect(),
            took: Duration::from_micros(1),
            lanes: Vec::new(),
            longest_segment: None,
            steps: None,
        };
        self.finished.lock().unwrap().push(finished);
        (self.wake)();
        Ok(())
    }

    fn poll(&self) -> Vec<Finished> {
        std::mem::take(&mut self.finished.lock().unwrap())
    }

    /// Every step takes as many microseconds as there are lanes.
    fn profile(&self, launch: &Launch, _: NonZeroUsize) -> Result<Vec<StepTime>, DeviceError> {
        let took = Duration::from_micros(launch.lanes.len() as u64);
        let steps = self.programs.lock().unwrap()[&launch.program].steps.len();
        Ok((0..steps).map(|step| StepTime { step, took }).collect())
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse::default()
    }
}
