//! The CUDA device: every step of a plan is one super-kernel, run for all lanes of a launch at once.
//!
//! ```text
//!   weights   upload ─▶ slab of the class: [slot][packed model]                                     slab.rs
//!   tiles     tune ─▶ the fastest of the kernels that compute a step alike, for programs compiled later                      tune/
//!   programs  compile ─▶ steps to kernel calls ─▶ cubins ─▶ graphs, one per capacity                steps/, library.rs, program.rs
//!   inputs    adopt ─▶ pinned, when they arrive                                                     landing.rs
//!   launches  submit ─▶ stage ─▶ copy in ─▶ graph ─▶ copy out ─▶ poll                        table.rs, frame.rs, partition.rs
//! ```
//! A super-kernel reads each lane's weights from the slot that the launch's table names, so one captured graph serves any tenants of a class.
//! Kernels are text in `kernels/`, specialised by constants and compiled here, for the card that is here.
//!
//! **Partitions** are streams over all multiprocessors: a class's launches fill them, and what they leave idle goes to another class's. One more may be asked for,
//! *aside*, for tenants whose launches nobody should wait for: a stream of a green context, kept to a few multiprocessors, whose blocks also
//! come last where several wait (`fence/share.rs`). While it computes, the others miss those few, and while it does not, nothing. Cutting the card in two instead would
//! take them for good, and more than them: parts are whole groups of 8 multiprocessors, and what is left over beside them promises no clusters.
//! Measured (ResNet-50 of one lane in bf16 beside another's launches, H200, 2026-11-26): 0.31 ms alone, 0.39 with the other on a stream, 0.37 with it behind only, 0.33
//! with it on 16 multiprocessors, where it takes 0.48 ms itself.
//! Programs are compiled and captured for it as for any partition, when a class is loaded, so putting a tenant aside costs nothing then; it costs the memory of one
//! partition more. It may have several *sizes*, a layout each, for whole classes that can wait: whoever runs launches changes between layouts as it sees fit, and
//! nothing is captured then. Sizes share what they compute in (`partition.rs`): where the first took 550 MiB another took 3.3 KiB beside its graphs (H100, 2026-11-26).
//! Kernels are the same, with grids for as many multiprocessors as the partition has, and none needs all of its blocks to be resident. Recurrent cells and long sums
//! wait within a cluster of at most 8 blocks, which fits in every group. A block of `product_fed.cu` waits for what the block before it does first, and that one waits
//! for nobody: cards begin blocks in the order of their numbers, so it has begun. No bit depends on where a block runs.
//!
//! An error of the card is final: its context is lost with everything in it. Requests in flight are then answered with the reason, and
//! [`Device::failure`] tells the server to stop.

mod abi;
mod call;
mod compile;
mod fence;
mod files;
mod frame;
mod landing;
mod library;
#[cfg(test)]
mod node_tests;
mod partition;
#[cfg(test)]
mod placed;
mod profile;
mod program;
mod ranges;
pub mod sgemm;
mod site;
mod sizes;
mod slab;
mod staging;
mod steps;
mod table;
mod tune;

use crate::timing::Timing;
use crate::{
    Device, DeviceError, DeviceInfo, Finished, Lane, Launch, MemoryUse, PartitionInfo, Rates, RequestError,
    Room, Slot, StepTime, StepTiming, Tuned, Wake, misfit,
};
use fence::{Compiler, Context, CudaError, Share, wake_promptly};
use landing::Landing;
use library::Library;
use partition::{Partition, Place, Running};
use program::{NoKernel, Program, capacities};
use rayon::{ThreadPool, ThreadPoolBuilder};
use sizes::Sizes;
use slab::{SlabKey, Slabs};
use std::collections::HashMap;
use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use table::LaneRow;
use tessera_core::{Bytes, ClassId, LaunchId, PartitionId, Precision, ProgramId};
use tessera_planner::pack::Matrices;
use tessera_planner::{PackTarget, Packed, Plan, SlotLayout};
use tune::{Beside, Tuner};

/// Columns of a panel of a matrix in fp32: what the strict kernels read at once.
pub(crate) const PANEL_WIDTH: usize = 64;

/// Threads that copy inputs into pinned memory: a few fill a bus of 50 GB/s, and more would take cores from the server.
const MOST_STAGERS: usize = 6;

/// A card.
pub struct CudaDevice {
    name: String,
    // Partitions come first, so that their threads end while all they use is there.
    partitions: Vec<Partition>,
    layouts: Vec<Vec<PartitionId>>,
    programs: RwLock<HashMap<ProgramId, (Arc<Program>, PartitionId)>>,
    programs_ever: AtomicU64,
    launches_ever: AtomicU64,
    slabs: Arc<Slabs>,
    library: Library,
    tuner: Option<Tuner>,
    stagers: Arc<ThreadPool>,
    landing: Arc<Landing>,
    outbox: Outbox,
    context: Arc<Context>,
}

/// What to open.
#[derive(Clone, Debug)]
pub struct CudaOptions {
    /// Which card.
    pub ordinal: usize,
    /// In how many partitions: each computes its launches in order, and the card runs partitions side by side.
    pub partitions: NonZeroUsize,
    /// One partition more, kept to so many multiprocessors or a few more, behind whose kernels those of the others never wait long: see the module's text.
    pub aside: Option<NonZeroU32>,
    /// Other sizes of that partition, each in a layout of its own; without `aside` the first layout has none.
    pub behind: Vec<NonZeroU32>,
    /// What weights and arenas may take together; all of the card's memory when there is no limit.
    pub memory_limit: Option<Bytes>,
    /// Where compiled kernels are kept.
    pub kernel_cache: Option<PathBuf>,
    /// How long the kernels of one plan may be timed for when it is tuned; without it kernels are chosen by rule.
    pub tuning: Option<Duration>,
}

/// Whether a card can be used here; the error says why not, for people.
pub fn probe() -> Result<(), String> {
    match Context::count()? {
        0 => Err("the NVIDIA driver finds no card".to_owned()),
        _ => Compiler::find().map(drop),
    }
}

/// What packed weights must look like. Matrix units want blocks; strict fp32 has none and wants panels.
pub(crate) fn target(precision: Precision) -> PackTarget {
    let matrices = match precision {
        Precision::Fp32 => Matrices::Panels(PANEL_WIDTH),
        Precision::Tf32 | Precision::Bf16 | Precision::Fp16 => Matrices::Blocks,
    };
    PackTarget { device: "cuda", precision, matrices }
}

/// Why something could not be had, before it is said in the device's words.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Cuda(#[from] CudaError),
    #[error("a kernel cannot be made: {0}")]
    Compile(String),
    #[error("step {} has no kernel: {}", .0.step, .0.why)]
    NoKernel(NoKernel),
    #[error("{what} needs {need}")]
    Memory { what: &'static str, need: Bytes, free: Bytes },
    #[error("{0} bytes are more than this machine can address")]
    TooLarge(u64),
    #[error("a thread cannot be started: {0}")]
    Thread(String),
}

impl Refused {
    /// In a device's words.
    fn by(self, device: String) -> DeviceError {
        match self {
            Refused::NoKernel(NoKernel { step, why }) => DeviceError::NoKernel { device, step, why },
            Refused::Memory { what, need, free } => {
                DeviceError::OutOfMemory { what: what.to_owned(), need, free, device }
            }
            other => DeviceError::Failed { device, why: other.to_string() },
        }
    }
}

impl From<NoKernel> for Refused {
    fn from(none: NoKernel) -> Refused {
        Refused::NoKernel(none)
    }
}

impl CudaDevice {
    /// Opens a card. Errors say what is missing: the driver, the compiler, a card of the right kind.
    pub fn open(options: &CudaOptions, wake: Wake) -> Result<CudaDevice, DeviceError> {
        let name = format!("cuda:{}", options.ordinal);
        let cannot = |why: String| DeviceError::CannotOpen { device: name.clone(), why };
        let context = Context::open(options.ordinal).map_err(cannot)?;
        let compiler = Compiler::find().map_err(cannot)?;
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let stagers = ThreadPoolBuilder::new()
            .num_threads((cores / 2).clamp(1, MOST_STAGERS))
            .thread_name(|number| format!("cuda-stage-{number}"))
            .build();
        let stagers =
            Arc::new(stagers.map_err(|error| cannot(format!("threads cannot be started: {error}")))?);
        let outbox = Outbox {
            finished: Arc::default(),
            wake,
            lost: Arc::default(),
            under_way: Arc::default(),
            context: context.clone(),
            limit: options.memory_limit,
            timing: Arc::new(Timing::new(partition::SAMPLED)),
        };
        let slabs = Slabs::new(&context).map_err(|error| cannot(error.to_string()))?;
        let landing = Arc::new(Landing::new(&context));
        let sizes = Sizes::of(options, |wanted| Share::granted(&context, wanted));
        let shares = sizes.shares(&context).map_err(|error| cannot(error.to_string()))?;
        let open = |(first, shares, aside): (usize, &[Share], bool)| {
            let place = (PartitionId(first as u64), shares, aside);
            Partition::open(place, &context, &outbox, &landing, &stagers)
        };
        let choices = options.kernel_cache.as_ref().map(|folder| folder.join("tiles"));
        let tuner = options.tuning.map(|budget| Tuner::new(&context, compiler.version(), choices, budget));
        let (streams, aside) = shares.split_at(options.partitions.get());
        let parts = streams.chunks(1).enumerate().map(|(number, share)| (number, share, false));
        let parts = parts.chain((!aside.is_empty()).then_some((streams.len(), aside, true)));
        let partitions: Result<Vec<Partition>, Refused> = parts.map(open).collect();
        Ok(CudaDevice {
            layouts: sizes.layouts(),
            partitions: partitions.map_err(|refused| cannot(refused.to_string()))?,
            programs: RwLock::default(),
            programs_ever: AtomicU64::new(0),
            launches_ever: AtomicU64::new(0),
            slabs: Arc::new(slabs),
            library: Library::new(&context, compiler, options.kernel_cache.clone()),
            tuner,
            stagers,
            landing,
            outbox,
            context,
            name,
        })
    }

    fn place(&self, id: PartitionId) -> Option<Place<'_>> {
        self.partitions.iter().find_map(|partition| partition.place(id))
    }

    /// Checks a launch against its program and finds its slots.
    fn let_in(
        &self,
        id: LaunchId,
        program_id: ProgramId,
        lanes: Vec<Lane>,
    ) -> Result<(Running, Place<'_>), DeviceError> {
        let refuse = |why: String| DeviceError::Misfit { launch: id, program: program_id, why };
        let programs = self.programs.read().unwrap_or_else(PoisonError::into_inner);
        let (program, partition) =
            programs.get(&program_id).ok_or_else(|| refuse("there is no such program".to_owned()))?;
        misfit(&program.plan, program.room, &lanes).map_err(refuse)?;
        let slots = lanes.iter().map(|lane| &lane.slot);
        let addresses = self
            .slabs
            .addresses(program.slab(), slots)
            .map_err(|slot| refuse(format!("{slot:?} holds no weights of its class")))?;
        let row = |(lane, weights): (&Lane, u64)| LaneRow {
            weights,
            items: lane.requests.iter().map(|request| request.items).sum(),
        };
        let rows = lanes.iter().zip(addresses).map(row).collect();
        let place = self.place(*partition).expect("programs are compiled for partitions that exist");
        let number = self.launches_ever.fetch_add(1, Ordering::Relaxed);
        Ok((Running { id, number, program: program.clone(), size: place.size, lanes, rows }, place))
    }

    /// Says a refusal in the device's words.
    fn refuse(&self, refused: Refused) -> DeviceError {
        refused.by(self.name.clone())
    }
}

impl fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaDevice").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Device for CudaDevice {
    fn info(&self) -> DeviceInfo {
        let Context { name, multiprocessors, driver_version, .. } = &*self.context;
        let (major, minor) = (driver_version / 1000, driver_version % 1000 / 10);
        let infos = self.partitions.iter().flat_map(Partition::infos);
        let aside = infos
            .filter(|info| info.aside)
            .map(|info| info.units.to_string())
            .reduce(|sizes, size| sizes + " or " + &size);
        let aside = aside.map(|sizes| format!(" ({sizes} of them aside)"));
        let description = format!(
            "{name}, {multiprocessors} multiprocessors{}, {}, driver for CUDA {major}.{minor}",
            aside.unwrap_or_default(),
            Bytes(self.context.total_bytes)
        );
        DeviceInfo {
            name: self.name.clone(),
            description,
            memory_limit: self.outbox.limit,
            default_precision: Precision::Tf32,
        }
    }

    fn pack_target(&self, precision: Precision) -> Result<PackTarget, DeviceError> {
        Ok(target(precision))
    }

    fn upload(&self, class: ClassId, layout: &Arc<SlotLayout>, packed: Packed) -> Result<Slot, DeviceError> {
        if packed.bytes().len() as u64 != layout.bytes.0 {
            let why = format!(
                "packed weights have {} bytes, their layout has {}",
                packed.bytes().len(),
                layout.bytes.0
            );
            return Err(DeviceError::Failed { device: self.name.clone(), why });
        }
        let key: SlabKey = (class, layout.target.precision);
        let room = |more| self.outbox.room_for("a slot for weights", more);
        self.slabs.upload(key, packed.bytes(), room).map_err(|refused| self.refuse(refused))
    }

    fn check(&self, plan: &Plan, layout: &SlotLayout, room: Room) -> Result<(), DeviceError> {
        let checked = program::check(plan, layout, room, self.context.multiprocessors);
        checked.map_err(|none| self.refuse(none.into()))
    }

    fn tune(&self, plan: &Plan, layout: &SlotLayout, room: Room) -> Result<Option<Tuned>, DeviceError> {
        let Some(tuner) = &self.tuner else { return Ok(None) };
        let beside = Beside {
            idle: &|| self.outbox.under_way.load(Ordering::Relaxed) == 0,
            has_room: &|more| self.outbox.room_for("the timing of kernels", more).is_ok(),
        };
        let capacities: Vec<Room> = capacities(room).collect();
        let tuned = tuner.tune(plan, layout, &capacities, &self.library, &beside);
        tuned.map(Some).map_err(|why| DeviceError::Failed { device: self.name.clone(), why })
    }

    fn compile(
        &self,
        plan: &Arc<Plan>,
        layout: &Arc<SlotLayout>,
        room: Room,
        partition: PartitionId,
    ) -> Result<ProgramId, DeviceError> {
        let Some(place) = self.place(partition) else {
            let why = format!("it has no {partition}");
            return Err(DeviceError::CannotOpen { device: self.name.clone(), why });
        };
        let program = Program::new(plan, layout, room, place, &self.library, self.tuner.as_ref());
        let program = Arc::new(program.map_err(|refused| self.refuse(refused))?);
        let id = ProgramId(self.programs_ever.fetch_add(1, Ordering::Relaxed));
        let mut programs = self.programs.write().unwrap_or_else(PoisonError::into_inner);
        programs.insert(id, (program, partition));
        Ok(id)
    }

    fn discard(&self, program: ProgramId) {
        // Launches in flight hold the program.
        self.programs.write().unwrap_or_else(PoisonError::into_inner).remove(&program);
    }

    fn partitions(&self) -> Vec<PartitionInfo> {
        self.partitions.iter().flat_map(Partition::infos).cloned().collect()
    }

    /// Streams share the multiprocessors, so there is nothing to cut anew but what is aside.
    fn layouts(&self) -> Vec<Vec<PartitionId>> {
        self.layouts.clone()
    }

    fn overlap(&self) -> bool {
        true
    }

    fn adopt(&self, input: bytes::Bytes) -> bytes::Bytes {
        self.landing.adopt(input)
    }

    fn submit(&self, launch: Launch) -> Result<(), DeviceError> {
        let Launch { id, program, lanes, urgent: _ } = launch;
        let (running, place) = self.let_in(id, program, lanes)?;
        self.outbox.under_way.fetch_add(1, Ordering::Relaxed);
        place.partition.push(running);
        Ok(())
    }

    fn due(&self) -> Option<Duration> {
        let due = self.partitions.iter().filter_map(Partition::due).min()?;
        wake_promptly();
        Some(due)
    }

    fn poll(&self) -> Vec<Finished> {
        self.partitions.iter().for_each(Partition::look);
        self.outbox.take()
    }

    fn memory(&self) -> MemoryUse {
        let (weights, weights_free) = self.slabs.memory();
        let rest = Bytes(self.context.used_bytes()).saturating_sub(weights + weights_free);
        MemoryUse { weights, weights_free, arenas: rest, pinned: Bytes(self.context.pinned_bytes()) }
    }

    fn profile(&self, launch: &Launch, rounds: NonZeroUsize) -> Result<Vec<StepTime>, DeviceError> {
        let (running, place) = self.let_in(launch.id, launch.program, launch.lanes.clone())?;
        let profiled = profile::profile(&running, rounds, place, &self.stagers);
        profiled.map_err(|refused| self.refuse(refused))
    }

    /// What a card of its name was measured to do.
    fn peak(&self, precision: Precision) -> Option<Rates> {
        Rates::of_card(&self.context.name, precision)
    }

    fn time_steps(&self, timing: StepTiming) {
        self.outbox.timing.set(timing);
    }

    fn failure(&self) -> Option<String> {
        self.outbox.lost()
    }
}

/// Where launches that are over go, and what all parts of a device know of it.
#[derive(Clone)]
struct Outbox {
    /// By number.
    finished: Arc<Mutex<Vec<(u64, Finished)>>>,
    wake: Wake,
    /// The first error of the card, after which nothing runs.
    lost: Arc<OnceLock<String>>,
    /// Launches that were submitted and have not finished.
    under_way: Arc<AtomicUsize>,
    context: Arc<Context>,
    limit: Option<Bytes>,
    /// Which launches have their steps timed.
    timing: Arc<Timing>,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Outbox {
    /// A launch is over. Wakes nobody.
    fn put(&self, number: u64, finished: Finished) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).push((number, finished));
    }

    /// All that were put, in the order in which they were let in, whoever heard of them first.
    fn take(&self) -> Vec<Finished> {
        let mut finished = std::mem::take(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner));
        finished.sort_by_key(|(number, _)| *number);
        finished.into_iter().map(|(_, finished)| finished).collect()
    }

    fn wake(&self) {
        (self.wake)();
    }

    /// Answers every request of a launch that never ran to its end.
    fn finish_lost(&self, running: Running, why: &str) {
        let lost = |lane: &Lane| {
            lane.requests.iter().map(|_| Err(RequestError::DeviceFailed(why.to_owned()))).collect()
        };
        let answers = running.lanes.iter().map(lost).collect();
        let (id, number) = (running.id, running.number);
        drop(running);
        let took = Duration::ZERO;
        let lost = Finished { id, answers, took, lanes: Vec::new(), longest_segment: None, steps: None };
        self.put(number, lost);
        self.wake();
    }

    fn lose(&self, error: &CudaError) {
        // The first error is the cause; those after it only say that the context is gone.
        let _ = self.lost.set(error.to_string());
    }

    fn lost(&self) -> Option<String> {
        self.lost.get().cloned()
    }

    /// Whether so many more bytes of the card may be taken.
    fn room_for(&self, what: &'static str, more: usize) -> Result<(), Refused> {
        let need = Bytes(more as u64);
        let mut free = Bytes(self.context.free_bytes()?);
        if let Some(limit) = self.limit {
            free = free.min(limit.saturating_sub(Bytes(self.context.used_bytes())));
        }
        if need > free { Err(Refused::Memory { what, need, free }) } else { Ok(()) }
    }
}
