//! Loads and runs programs: one trait with CUDA's verbs, the CPU and CUDA devices behind it, and the suite that every device passes.
//!
//! ```text
//!   open ─▶ Device ─ upload(class, packed) ─▶ Slot          weights in, once per tenant version
//!                  ─ compile(plan, room)   ─▶ ProgramId     architecture in, once per plan and partition
//!                  ─ adopt(input)          ─▶ input         each when it arrives, to where launches fetch it fastest
//!                  ─ submit(Launch)        ─▶ LaunchId      lanes and their inputs; returns at once
//!                  ─ poll()                ─▶ [Finished]    answers, errors of single requests, times
//! ```
//! The caller owns time and order: a device runs what it is handed, in the order in which a partition was handed it, and says when
//! it is done by calling the [`Wake`] it was opened with, or leaves it to the caller to look, and when ([`Device::due`]). It never decides who runs.
//!
//! ```text
//!   launch         [segment ][segment ]             [segment ][segment ]      goes on where it stood back, in memory of its own
//!   urgent launch        ↑ submit      [urgent     ]                          one level deep: nothing interrupts it
//! ```
//! A device that *yields* lets an urgent launch go before all others of its partition, what runs there included, at the next boundary between two of
//! the plan's segments ([`Launch::urgent`]). The CPU device does. The CUDA device does not: a launch takes it about a millisecond, and streams of
//! other partitions run beside it. By default a device does not, and an urgent launch waits for its turn like any other.
//!
//! What every device promises, and the conformance suite checks: an answer depends on the request and its tenant's
//! weights alone, to the last bit, whatever else is in the launch; a request that fails (an id out of range) fails
//! alone; memory is accounted to the byte.

pub mod around;
pub mod conformance;
pub mod cpu;
#[cfg(any(target_os = "linux", windows))]
pub mod cuda;
#[cfg(test)]
#[path = "../tests/network/mod.rs"]
mod network;
mod rates;
pub mod sgemm;
pub mod slowed;
mod timing;
mod tuned;

pub use rates::Rates;
pub use timing::StepTiming;
pub use tuned::Tuned;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tessera_core::{Bytes, ClassId, LaneSpec, LaunchId, PartitionId, Precision, ProgramId, SlotId};
use tessera_planner::{PackTarget, Packed, Plan, SlotLayout};

/// Called by a device, from any thread, when [`Device::poll`] may have something. Must not block.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Something that loads and runs programs.
///
/// [`Device::submit`], [`Device::poll`], [`Device::due`], [`Device::reopen`], and [`Device::discard`] of programs that ran, are the engine thread's alone. All others may be called from any
/// thread while launches run, but for [`Device::tune`], [`Device::profile`] and [`Device::rates`], which want the device to themselves: loaders upload, check and compile,
/// and give back what they compiled in vain; askers adopt; monitors read. But for those three none waits for a launch.
pub trait Device: Send + Sync + fmt::Debug {
    /// What it is.
    fn info(&self) -> DeviceInfo;

    /// What packed weights must look like here. Errors when the device cannot compute in this precision.
    fn pack_target(&self, precision: Precision) -> Result<PackTarget, DeviceError>;

    /// Copies one tenant version's weights into a slot of its class's slab. Costs one copy; disturbs no launch.
    /// Errors when the bytes are not the layout's, or do not fit [`DeviceInfo::memory_limit`].
    /// The slot is given back when the last clone of the answer is dropped, launches in flight holding theirs.
    fn upload(&self, class: ClassId, layout: &Arc<SlotLayout>, packed: Packed) -> Result<Slot, DeviceError>;

    /// Whether there is a kernel for every step of a plan: [`DeviceError::NoKernel`] with the step's name when not. Compiles nothing and takes no memory.
    /// A device that says nothing here says it when it compiles.
    fn check(&self, plan: &Plan, layout: &SlotLayout, room: Room) -> Result<(), DeviceError> {
        let _ = (plan, layout, room);
        Ok(())
    }

    /// Has the device time kernels that would do for a plan, and take the fastest in programs that are compiled later; those that are there stay as they
    /// are, and no answer changes. Takes seconds at most, and only while nothing else runs: for loaders, never on the serving path. `None` where
    /// the device has nothing to choose, or was told not to.
    fn tune(&self, plan: &Plan, layout: &SlotLayout, room: Room) -> Result<Option<Tuned>, DeviceError> {
        let _ = (plan, layout, room);
        Ok(None)
    }

    /// Makes a program of a plan for one partition, with room for so many lanes and items. May take long (CUDA compiles
    /// and captures): never on the serving path. The layout is the one that the plan's weights refer to.
    fn compile(
        &self,
        plan: &Arc<Plan>,
        layout: &Arc<SlotLayout>,
        room: Room,
        partition: PartitionId,
    ) -> Result<ProgramId, DeviceError>;

    /// Forgets a program and gives its arena back. Launches in flight finish first.
    fn discard(&self, program: ProgramId);

    /// The shares of the device in space, at least one. Launches of partitions that do not overlap run at once.
    fn partitions(&self) -> Vec<PartitionInfo>;

    /// The ways of cutting the device: every partition is in at least one of them, those of one do not overlap (but see [`Device::overlap`]), and the first is for who wants only one.
    /// Launches of different layouts must not be in flight at once, or each takes the other's time. Programs are compiled for all partitions, so
    /// going from one layout to another costs nothing.
    fn layouts(&self) -> Vec<Vec<PartitionId>>;

    /// Whether every partition has all of the device, as streams of a card have, rather than a share that no other has. One that is aside
    /// ([`PartitionInfo::aside`]) has some of it.
    fn overlap(&self) -> bool {
        false
    }

    /// Takes an input to where launches fetch it fastest, on this thread: to be called when a request arrives, by whoever brings it. The answer has the
    /// same bytes, and may be used in any launch here, or none. Costs a copy where it helps, and nothing elsewhere or a second time; never waits.
    fn adopt(&self, input: bytes::Bytes) -> bytes::Bytes {
        input
    }

    /// Whether [`Device::reopen`] does anything.
    fn can_reopen(&self) -> bool {
        false
    }

    /// Opens a partition anew: other threads or streams on the same share of the device. Programs, layouts and what is known of the partition stay. To be called while
    /// no launch is in flight there; returns at once. Errors when the device cannot; then the partition is as it was.
    fn reopen(&self, partition: PartitionId) -> Result<(), DeviceError> {
        Err(DeviceError::Failed {
            device: self.info().name,
            why: format!("it does not open {partition} anew"),
        })
    }

    /// Hands a launch to its program's partition and returns at once. Errors when it does not fit the program's room, names
    /// no item, or its inputs have the wrong size; nothing has run then.
    fn submit(&self, launch: Launch) -> Result<(), DeviceError>;

    /// The launches that finished since the last call, in order of completion per partition.
    fn poll(&self) -> Vec<Finished>;

    /// How long until a look at what runs is worth it, by [`Device::poll`]: of a launch that is over sooner than one thread wakes another nobody hears but who looks. So whoever
    /// waits for a wake waits no longer than this, polls, and asks again; its thread sleeps no longer than it asks for from then on. `None` where a wake tells of all that runs.
    fn due(&self) -> Option<Duration> {
        None
    }

    /// From now on the steps of so many launches are timed ([`Finished::steps`]). Changes nothing on a device that does not time steps.
    fn time_steps(&self, timing: StepTiming) {
        let _ = timing;
    }

    /// Bytes in use, exactly.
    fn memory(&self) -> MemoryUse;

    /// Runs a launch several times, alone and step by step, and says what each step took (the median): for benches. Nothing else may run in its
    /// partition meanwhile. Errors where the device does not measure steps, or the launch does not fit.
    fn profile(&self, launch: &Launch, rounds: NonZeroUsize) -> Result<Vec<StepTime>, DeviceError> {
        let _ = (launch, rounds);
        Err(DeviceError::Failed {
            device: self.info().name,
            why: "it does not measure single steps".to_owned(),
        })
    }

    /// What the hardware behind [`Device::profile`] can do, measured now; `None` where the device does not measure it.
    fn rates(&self) -> Option<Rates> {
        None
    }

    /// What all of the device can do in a precision, as far as that is known. Where it is measured it takes some tenths of a second, the first time.
    fn peak(&self, precision: Precision) -> Option<Rates> {
        let _ = precision;
        None
    }

    /// Why the device is lost, if it is: requests in flight have been answered with it, and nothing will run any more.
    fn failure(&self) -> Option<String> {
        None
    }
}

/// What a device is.
#[derive(Clone, PartialEq, Debug)]
pub struct DeviceInfo {
    /// As on the command line: `cpu:0`, `cuda:0`.
    pub name: String,
    /// For people: the processor's model and its vector instructions, or the card's name.
    pub description: String,
    /// What weights and arenas may take together; `None` when only the machine limits it.
    pub memory_limit: Option<Bytes>,
    /// What tenants get that ask for no precision: the fastest that answers about as fp32 does.
    pub default_precision: Precision,
}

/// One share of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionInfo {
    /// Its name in launches.
    pub id: PartitionId,
    /// Cores, or SMs.
    pub units: usize,
    /// Launches that it takes at once to keep computing: those beyond the first are copied in and out meanwhile.
    pub ahead: u32,
    /// How long before its turn a launch should be handed over for that.
    pub lead: Duration,
    /// Whether it is there for launches that nobody should wait for: few units, and behind the others' where they want the same. It is the last of its layout.
    pub aside: bool,
}

/// How much one launch of a program may carry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Room {
    /// Lanes.
    pub lanes: u32,
    /// Items of all lanes together.
    pub items: u32,
}

/// Weights on a device. Clones share one slot; the last one dropped gives it back.
#[derive(Clone)]
pub struct Slot {
    spec: (SlotId, u64),
    /// Held, not read: whoever it tells of its end gives the slot back.
    _lease: Arc<dyn Send + Sync>,
}

impl Slot {
    /// A slot whose bytes live as long as `lease`; for devices. `generation` tells uses of one slot apart.
    pub fn new(id: SlotId, generation: u64, lease: Arc<dyn Send + Sync>) -> Slot {
        Slot { spec: (id, generation), _lease: lease }
    }

    /// Which slot of the class.
    pub fn id(&self) -> SlotId {
        self.spec.0
    }

    /// Which use of the slot.
    pub fn generation(&self) -> u64 {
        self.spec.1
    }

    /// This slot's place in a launch that carries `items` items.
    pub fn lane(&self, items: u32) -> LaneSpec {
        LaneSpec { slot: self.spec.0, generation: self.spec.1, items }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.spec.0, self.spec.1)
    }
}

/// One launch: lanes of one program.
#[derive(Debug)]
pub struct Launch {
    /// The caller's name for it.
    pub id: LaunchId,
    /// What runs.
    pub program: ProgramId,
    /// One per tenant place; at most the program's room.
    pub lanes: Vec<Lane>,
    /// On a device that yields, whether it goes before every launch of its partition that is not urgent. It has all of the partition from the moment
    /// when the last core has come to the end of its segment until it is over, so what runs there is delayed by no more than a segment and the time
    /// that the urgent launch takes. Urgent launches keep their order among themselves.
    pub urgent: bool,
}

/// One tenant's place in a launch.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Its weights, leased until the launch has finished.
    pub slot: Slot,
    /// The requests it carries, each with its own answer.
    pub requests: Vec<LaneRequest>,
}

/// One request's part of a lane.
#[derive(Clone, Debug)]
pub struct LaneRequest {
    /// Items it brings, at least one.
    pub items: u32,
    /// One per input of the plan: its items' bytes, dense, row-major, little-endian.
    pub inputs: Vec<bytes::Bytes>,
}

/// A launch that is over.
#[derive(Debug)]
pub struct Finished {
    /// Which one.
    pub id: LaunchId,
    /// Per lane, per request: one byte string per output of the plan, or why this request failed.
    pub answers: Vec<Vec<Result<Vec<bytes::Bytes>, RequestError>>>,
    /// From its first instruction to its last, urgent launches between them included.
    pub took: Duration,
    /// What the device's units (cores, multiprocessors) worked for each lane, summed over the units: neighbours compare by it, per item, while only their sum
    /// compares with `took`. Empty where the device does not measure it.
    pub lanes: Vec<Duration>,
    /// The longest that a core spent between two places at which it would have stood back for an urgent launch, time that it did stand back apart: what an urgent
    /// launch may have to wait for one of this plan and size. `None` of a device that does not yield.
    pub longest_segment: Option<Duration>,
    /// Of some launches, since it costs a look at the clock per step: per lane, what each step of the plan took of the lane's time. One row for all of
    /// them, of the launch's time, where lanes run merged and none has a time of its own; `lanes` is empty then.
    pub steps: Option<Vec<Vec<Duration>>>,
}

impl Finished {
    /// Whether it was lost with its device: it has no answer, and its times say nothing.
    pub fn is_lost(&self) -> bool {
        let is_lost = |answer: &Result<_, RequestError>| matches!(answer, Err(RequestError::DeviceFailed(_)));
        !self.answers.is_empty() && self.answers.iter().flatten().all(is_lost)
    }
}

/// What one step of a launch took.
#[derive(Clone, PartialEq, Debug)]
pub struct StepTime {
    /// Index of the step in the plan.
    pub step: usize,
    /// From the end of the step before it to its own end, without the overlap that steps of a whole launch have.
    pub took: Duration,
}

/// Why one request of a launch failed while others did not.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    /// An index that the request brought points outside its table.
    #[error("`{input}` holds {id} at position {position}, but the model has {rows} rows there; send ids from 0 to {}", rows - 1)]
    IdOutOfRange {
        /// The input that the ids come from.
        input: String,
        /// The id.
        id: i64,
        /// Its place among the ids of the request's item.
        position: usize,
        /// Rows of the table, at least one.
        rows: usize,
    },
    /// The launch was lost with its device.
    #[error("the device failed while the request was running: {0}")]
    DeviceFailed(String),
}

/// Bytes in use on a device, and of the host for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryUse {
    /// Slots that hold weights.
    pub weights: Bytes,
    /// Slab space that no tenant uses now.
    pub weights_free: Bytes,
    /// Arenas of programs, constants included.
    pub arenas: Bytes,
    /// Of the host's memory: pinned, so that the device copies inputs and outputs by itself. Not the device's own, nor under its limit.
    pub pinned: Bytes,
}

/// Why a device refused.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum DeviceError {
    /// The device cannot compute like this.
    #[error("{device} has no {precision}; choose {available}")]
    NoSuchPrecision {
        /// The device.
        device: String,
        /// What was asked for.
        precision: Precision,
        /// What there is.
        available: String,
    },
    /// Memory is short.
    #[error("{what} needs {need}, {free} is free on {device}; unload tenants or raise `memory_limit_bytes`")]
    OutOfMemory {
        /// What needed it.
        what: String,
        /// How much.
        need: Bytes,
        /// How much there is.
        free: Bytes,
        /// The device.
        device: String,
    },
    /// No such device on this machine, or it cannot be opened.
    #[error("{device} cannot be opened: {why}")]
    CannotOpen {
        /// As on the command line.
        device: String,
        /// Why not, and what to do.
        why: String,
    },
    /// The driver, the compiler of kernels or the card said no.
    #[error("{device}: {why}")]
    Failed {
        /// The device.
        device: String,
        /// What was said.
        why: String,
    },
    /// A launch that does not fit its program. The engine's mistake, not a user's.
    #[error("{launch} does not fit {program}: {why}")]
    Misfit {
        /// The launch.
        launch: LaunchId,
        /// The program.
        program: ProgramId,
        /// In what.
        why: String,
    },
    /// A step this device has no kernel for.
    #[error("{device} has no kernel for step `{step}`: {why}")]
    NoKernel {
        /// The device.
        device: String,
        /// The step's name in the plan.
        step: String,
        /// What is missing.
        why: String,
    },
}

/// Why lanes do not fit a program of `plan` with `room`: the same for every device.
pub(crate) fn misfit(plan: &Plan, room: Room, lanes: &[Lane]) -> Result<(), String> {
    let Room { lanes: most_lanes, items: most_items } = room;
    if lanes.is_empty() || lanes.len() > most_lanes as usize {
        return Err(format!("it has {} lanes, the program has room for 1 to {most_lanes}", lanes.len()));
    }
    let items: u64 =
        lanes.iter().flat_map(|lane| &lane.requests).map(|request| u64::from(request.items)).sum();
    if items > u64::from(most_items) {
        return Err(format!("it carries {items} items, the program has room for {most_items}"));
    }
    for request in lanes.iter().flat_map(|lane| &lane.requests) {
        if request.items == 0 || request.inputs.len() != plan.inputs.len() {
            return Err(format!(
                "a request brings {} items and {} inputs",
                request.items,
                request.inputs.len()
            ));
        }
        for (port, bytes) in plan.inputs.iter().zip(&request.inputs) {
            let want = port.bytes_per_item() * request.items as usize;
            if bytes.len() != want {
                return Err(format!("an input has {} bytes, its items take {want}", bytes.len()));
            }
        }
    }
    if lanes.iter().any(|lane| lane.requests.is_empty()) {
        return Err("a lane carries nothing".to_owned());
    }
    Ok(())
}
