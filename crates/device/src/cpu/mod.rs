//! The CPU device: the embedded default.
//!
//! A launch is cut into runs of a few items of one lane; workers, one per core, take runs and carry them through every step
//! of the plan in an arena of their own, so there is nothing to wait for inside a launch, and what an item computes cannot depend
//! on who runs beside it. Workers that find no run help with the heavy steps of others. Partitions are sets of cores with workers
//! of their own; those of different layouts (`layouts`) overlap and take turns. Between segments of a plan they yield to urgent launches
//! (`queue`), which have an arena of their own on each core that has run one. A layout costs sleeping threads, and an arena a core
//! once it has run.
//!
//! Denormal numbers are computed as IEEE says: flushing them would change answers to save time on inputs that hardly occur.

mod arena;
mod cores;
mod crew;
mod fence;
mod layouts;
mod partition;
mod profile;
mod program;
mod queue;
mod running;
mod slab;
mod steps;
mod workers;

pub use cores::{Cores, CoresError};

use crate::timing::Timing;
use crate::{
    Device, DeviceError, DeviceInfo, Finished, Launch, MemoryUse, PartitionInfo, Rates, Room, Slot, StepTime,
    StepTiming, Wake,
};
use core_affinity::CoreId;
use fence::Isa;
use layouts::Layouts;
use partition::Partition;
use program::Program;
use queue::Sharing;
use running::Running;
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use steps::gemm::WIDTH;
use tessera_core::{Bytes, ClassId, PartitionId, Precision, ProgramId};
use tessera_planner::pack::Matrices;
use tessera_planner::{PackTarget, Packed, Plan, SlotLayout};
use workers::Outbox;

/// How weights are packed for any CPU: the device need not be open to know.
pub const PACK_TARGET: PackTarget =
    PackTarget { device: "cpu", precision: Precision::Fp32, matrices: Matrices::Panels(WIDTH) };

/// Launches that a partition takes at once: a worker that finds no run left in the first begins the second, so that no core idles while
/// another ends a launch.
const AHEAD: u32 = 2;

/// Some cores of this machine as a device.
pub struct CpuDevice {
    name: String,
    limit: Option<Bytes>,
    partitions: Vec<Partition>,
    layouts: Vec<Vec<PartitionId>>,
    cores: usize,
    programs: RwLock<HashMap<ProgramId, (Arc<Program>, PartitionId)>>,
    programs_ever: AtomicU64,
    /// Launches so far.
    launches: AtomicU64,
    /// Which of them have their steps timed.
    timing: Timing,
    outbox: Outbox,
}

/// What to open.
#[derive(Clone, Debug)]
pub struct CpuOptions {
    /// Which cores.
    pub cores: Cores,
    /// In how many partitions, at most one per core, for good; `None` offers layouts of one partition and of two.
    pub partitions: Option<NonZeroUsize>,
    /// What weights may take.
    pub memory_limit: Option<Bytes>,
}

impl CpuDevice {
    /// Starts the workers. Errors when a core does not exist, there are fewer cores than partitions, or threads cannot be started.
    pub fn open(options: &CpuOptions, wake: Wake) -> Result<CpuDevice, DeviceError> {
        let device = options.cores.to_string();
        let cores = options.cores.resolve();
        let cores = cores.map_err(|error| DeviceError::CannotOpen { device, why: error.to_string() })?;
        CpuDevice::on(&cores, options, Sharing::WORTHWHILE, wake)
    }

    /// With a worker for each of these cores.
    fn on(
        cores: &[Option<CoreId>],
        options: &CpuOptions,
        sharing: Sharing,
        wake: Wake,
    ) -> Result<CpuDevice, DeviceError> {
        let name = options.cores.to_string();
        let cannot = |why: String| DeviceError::CannotOpen { device: name.clone(), why };
        Isa::limit().map_err(cannot)?;
        let Layouts { partitions: cut, layouts } = match options.partitions {
            Some(partitions) if cores.len() < partitions.get() => {
                let why = format!("{} cores cannot make {partitions} partitions; ask for fewer", cores.len());
                return Err(cannot(why));
            }
            Some(partitions) => Layouts::fixed(cores.len(), partitions.get()),
            None => Layouts::of(cores.len()),
        };
        fence::give_back_large_blocks();
        let outbox = Outbox { finished: Arc::default(), wake, ledger: Arc::default() };
        let mut partitions = Vec::new();
        for (number, mine) in cut.into_iter().enumerate() {
            let mine: Vec<_> = mine.into_iter().map(|core| cores[core]).collect();
            let id = PartitionId(number as u64);
            let info =
                PartitionInfo { id, units: mine.len(), ahead: AHEAD, lead: Duration::ZERO, aside: false };
            let partition = Partition::open(info, mine, sharing, &outbox);
            partitions
                .push(partition.map_err(|error| cannot(format!("a worker cannot be started: {error}")))?);
        }
        let limit = options.memory_limit;
        Ok(CpuDevice {
            name,
            limit,
            partitions,
            layouts: layouts
                .into_iter()
                .map(|layout| layout.map(|number| PartitionId(number as u64)).collect())
                .collect(),
            cores: cores.len(),
            programs: RwLock::default(),
            programs_ever: AtomicU64::new(0),
            launches: AtomicU64::new(0),
            timing: Timing::new(running::SAMPLED),
            outbox,
        })
    }

    /// The launch with its program and the weights that it reads, and where it runs; an error if it does not fit.
    fn running(&self, launch: Launch, sampled: bool) -> Result<(Running, &Partition), DeviceError> {
        let Launch { id, program: program_id, lanes, urgent } = launch;
        let misfit = |why: String| DeviceError::Misfit { launch: id, program: program_id, why };
        let programs = self.programs.read().unwrap_or_else(PoisonError::into_inner);
        let (program, partition) =
            programs.get(&program_id).ok_or_else(|| misfit("there is no such program".to_owned()))?;
        crate::misfit(&program.plan, program.room, &lanes).map_err(misfit)?;
        let mut leased = Vec::with_capacity(lanes.len());
        for lane in lanes {
            let weights = self.outbox.ledger.weights_of(program.plan.key.class, &lane.slot);
            let weights =
                weights.ok_or_else(|| misfit(format!("{:?} holds no weights of its class", lane.slot)))?;
            leased.push((lane, weights));
        }
        let partition =
            self.partition(*partition).ok_or_else(|| misfit(format!("there is no {partition}")))?;
        Ok((Running::new((id, urgent), program.clone(), leased, sampled), partition))
    }

    fn partition(&self, id: PartitionId) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.info.id == id)
    }
}

impl Drop for CpuDevice {
    /// Finishes what was submitted.
    fn drop(&mut self) {
        self.partitions.iter().for_each(Partition::close);
        self.partitions.iter_mut().for_each(Partition::join);
    }
}

impl fmt::Debug for CpuDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuDevice").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Device for CpuDevice {
    fn info(&self) -> DeviceInfo {
        let cores = self.cores;
        let plural = if cores == 1 { "" } else { "s" };
        let description = format!("{cores} core{plural}, {}", Isa::best().name());
        DeviceInfo {
            name: self.name.clone(),
            description,
            memory_limit: self.limit,
            default_precision: Precision::Fp32,
        }
    }

    fn pack_target(&self, precision: Precision) -> Result<PackTarget, DeviceError> {
        if precision != PACK_TARGET.precision {
            let available = "fp32".to_owned();
            return Err(DeviceError::NoSuchPrecision { device: self.name.clone(), precision, available });
        }
        Ok(PACK_TARGET)
    }

    fn upload(&self, class: ClassId, layout: &Arc<SlotLayout>, packed: Packed) -> Result<Slot, DeviceError> {
        self.outbox.ledger.upload(&self.name, class, layout, packed, self.limit)
    }

    fn check(&self, plan: &Plan, _: &SlotLayout, _: Room) -> Result<(), DeviceError> {
        Program::check(&self.name, plan)
    }

    fn compile(
        &self,
        plan: &Arc<Plan>,
        layout: &Arc<SlotLayout>,
        room: Room,
        partition: PartitionId,
    ) -> Result<ProgramId, DeviceError> {
        if self.partition(partition).is_none() {
            let why = format!("it has no {partition}");
            return Err(DeviceError::CannotOpen { device: self.name.clone(), why });
        }
        // One plan is the same on any cores: its constants are kept once.
        let same = |(program, _): &&(Arc<Program>, PartitionId)| {
            Arc::ptr_eq(&program.plan, plan) && Arc::ptr_eq(&program.layout, layout) && program.room == room
        };
        let programs = self.programs.read().unwrap_or_else(PoisonError::into_inner);
        let made = programs.values().find(same).map(|(program, _)| program.clone());
        drop(programs);
        let program = match made {
            Some(program) => program,
            None => Arc::new(Program::new(&self.name, plan, layout, room)?),
        };
        let id = ProgramId(self.programs_ever.fetch_add(1, Ordering::Relaxed));
        let mut programs = self.programs.write().unwrap_or_else(PoisonError::into_inner);
        programs.insert(id, (program, partition));
        Ok(id)
    }

    fn discard(&self, program: ProgramId) {
        // Launches in flight hold the program; their workers' arenas stay for the next one.
        self.programs.write().unwrap_or_else(PoisonError::into_inner).remove(&program);
    }

    fn partitions(&self) -> Vec<PartitionInfo> {
        self.partitions.iter().map(|partition| partition.info.clone()).collect()
    }

    fn layouts(&self) -> Vec<Vec<PartitionId>> {
        self.layouts.clone()
    }

    fn submit(&self, launch: Launch) -> Result<(), DeviceError> {
        let sampled = self.timing.includes(self.launches.fetch_add(1, Ordering::Relaxed));
        let (running, partition) = self.running(launch, sampled)?;
        partition.push(running);
        Ok(())
    }

    fn can_reopen(&self) -> bool {
        true
    }

    fn reopen(&self, partition: PartitionId) -> Result<(), DeviceError> {
        let failed = |why: String| DeviceError::Failed { device: self.name.clone(), why };
        let found = self.partition(partition).ok_or_else(|| failed(format!("it has no {partition}")))?;
        found.reopen().map_err(|error| failed(format!("no other workers for {partition}: {error}")))
    }

    fn profile(&self, launch: &Launch, rounds: NonZeroUsize) -> Result<Vec<StepTime>, DeviceError> {
        let launch =
            Launch { id: launch.id, program: launch.program, lanes: launch.lanes.clone(), urgent: false };
        Ok(profile::profile(&self.running(launch, false)?.0, rounds))
    }

    fn rates(&self) -> Option<Rates> {
        Some(profile::rates())
    }

    /// Of one core, once for all of this process's devices, times the cores. Of memory that is more than there is, where cores share what few can use up.
    fn peak(&self, _: Precision) -> Option<Rates> {
        static ONE_CORE: OnceLock<Rates> = OnceLock::new();
        let Rates { flops_per_s, bytes_per_s } = *ONE_CORE.get_or_init(profile::rates);
        let cores = self.cores as f64;
        Some(Rates { flops_per_s: cores * flops_per_s, bytes_per_s: cores * bytes_per_s })
    }

    fn poll(&self) -> Vec<Finished> {
        std::mem::take(&mut self.outbox.finished.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn time_steps(&self, timing: StepTiming) {
        self.timing.set(timing);
    }

    fn memory(&self) -> MemoryUse {
        let ledger = &self.outbox.ledger;
        let arenas = Bytes(ledger.arenas.load(Ordering::Acquire));
        MemoryUse { weights: ledger.weights(), weights_free: Bytes::ZERO, arenas, pinned: Bytes::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Case, Subject, bell, cases, check_all};
    use crate::{Lane, LaneRequest};
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::sync::mpsc::Receiver;
    use tessera_core::LaunchId;

    /// Every step in parts, whether or not anybody comes to help.
    const EAGER: Sharing = Sharing { worth: 0, least: 2 };
    const NEVER: Sharing = Sharing { worth: usize::MAX, least: 0 };

    fn device(workers: usize, sharing: Sharing) -> (CpuDevice, Receiver<()>) {
        let (wake, bell) = bell();
        let options = CpuOptions { cores: Cores::All, partitions: None, memory_limit: None };
        (CpuDevice::on(&vec![None; workers], &options, sharing, wake).unwrap(), bell)
    }

    #[test]
    fn the_device_conforms_when_every_step_is_shared() {
        let (device, bell) = device(4, EAGER);
        let (partition, precision) = (PartitionId(0), Precision::Fp32);
        let subject = Subject { device: &device, wake: &bell, partition, precision };
        assert_eq!(check_all(&subject), HashMap::new());
    }

    #[test]
    fn a_partition_that_was_opened_anew_answers_as_before_and_gives_the_memory_of_the_old_one_back() {
        let opened = device(2, NEVER);
        let (device, case) = (&opened.0, &cases()[0]);
        let before = answers(case, &opened).answers;
        let arenas = device.memory().arenas;
        device.reopen(PartitionId(0)).unwrap();
        assert_eq!(answers(case, &opened).answers, before);
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while device.memory().arenas > arenas && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(device.memory().arenas <= arenas, "{:?} after {arenas:?}", device.memory().arenas);
        let unknown = device.reopen(PartitionId(99)).unwrap_err().to_string();
        assert!(unknown.contains("it has no"), "{unknown}");
    }

    /// What a case answers to three items of one lane.
    fn answers(case: &Case, (device, bell): &(CpuDevice, Receiver<()>)) -> Finished {
        let mut random = StdRng::seed_from_u64(case.seed);
        let layout = case.layout(PACK_TARGET);
        let packed = case.pack(&case.random_weights(&mut random), &layout);
        let slot = device.upload(case.plan.key.class, &layout, packed).unwrap();
        let room = Room { lanes: 1, items: 3 };
        let program = device.compile(&case.plan, &layout, room, PartitionId(0)).unwrap();
        let items: Vec<Vec<Vec<u8>>> = (0..3).map(|_| case.inputs(&mut random)).collect();
        let joined = (0..case.plan.inputs.len()).map(|input| {
            let bytes: Vec<u8> = items.iter().flat_map(|item| item[input].clone()).collect();
            bytes.into()
        });
        let request = LaneRequest { items: 3, inputs: joined.collect() };
        let lanes = vec![Lane { slot, requests: vec![request] }];
        device.submit(Launch { id: LaunchId(0), program, lanes, urgent: false }).unwrap();
        loop {
            if let Some(finished) = device.poll().pop() {
                device.discard(program);
                return finished;
            }
            bell.recv_timeout(Duration::from_secs(60)).expect("an answer within a minute");
        }
    }

    #[test]
    fn a_shared_step_has_the_bits_of_one_that_is_not() {
        let one = device(1, NEVER);
        let shared = [device(1, EAGER), device(2, EAGER), device(4, EAGER)];
        for case in cases() {
            let want = answers(&case, &one).answers;
            for shared in &shared {
                assert_eq!(answers(&case, shared).answers, want, "{}", case.name);
            }
        }
    }
}
