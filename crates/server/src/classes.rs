//! Classes in use and their plans: what tenants of one architecture share.
//!
//! A class lives as long as a tenant of it is loaded. Its plans are made when a request first brings their free dimensions (a
//! sentence length, an image side), off the serving path, once, and a bounded number is kept (`kept`).

mod kept;

use self::kept::{Asker, Failure, Made, PlanCell, Plans};
use crate::engine::{EngineHandle, Programs};
use crate::events::{Events, News, by_name};
use crate::monitor::Watch;
use crate::profile::Profiler;
use crate::routing::Pace;
use serde_json::json;
use std::borrow::Cow;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use tessera_core::{Bytes, ClassId, DType, PartitionId, PlanKey, Precision};
use tessera_device::{Device, DeviceError, Room, Slot, Tuned};
use tessera_planner::class::{Bound, Class};
use tessera_planner::infer::{DimValue, InferError};
use tessera_planner::pack::PackError;
use tessera_planner::{Plan, PlanError, SlotLayout};
use tessera_scheduler::PlanWork;
use tokio::runtime::Handle;

/// Why a class has no plan for some free dimensions.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoPlan {
    /// The class cannot run with them.
    #[error("this model cannot run with {dims}: {why}")]
    Unplannable {
        /// The free dimensions, by name.
        dims: String,
        /// The planner's reason.
        why: String,
    },
    /// The device refused.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device refused, and is not asked again yet.
    #[error("{why}; it is tried again in {:.1} s", again.as_secs_f64())]
    NotNow {
        /// What it said.
        why: DeviceError,
        /// How long it is until then.
        again: Duration,
    },
    /// The planning task was lost.
    #[error("planning was interrupted; try again")]
    Interrupted,
}

impl NoPlan {
    /// What a device said, where asking it again may bring another answer: memory comes free, cards recover. Which kernels there are stays.
    fn passes(&self) -> bool {
        matches!(self, NoPlan::Device(error) if !matches!(error, DeviceError::NoKernel { .. }))
    }
}

/// Why a class cannot be served here.
#[derive(Debug, thiserror::Error)]
pub enum NoClass {
    /// The device refused.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Its weights have no layout.
    #[error(transparent)]
    Layout(#[from] PackError),
}

/// What all plans of all classes are made with.
#[derive(Clone, Debug)]
pub struct Workshop {
    /// Compiles programs.
    pub device: Arc<dyn Device>,
    /// Is told of them.
    pub engine: EngineHandle,
    /// Where it is told that one cannot be made.
    pub events: Arc<Events>,
    /// How much one launch may carry.
    pub room: Room,
    /// Plans that one class keeps.
    pub plans_per_class: NonZeroU32,
    /// Most working memory that one item may take: lengths that need more are refused, as a device keeps what it once took.
    pub most_item_memory: Bytes,
    /// Measures what their launches take.
    pub profiler: Profiler,
    /// Where plans are made, also those that a loader asks for.
    pub runtime: Handle,
}

/// Every class in use.
#[derive(Debug)]
pub struct Classes {
    workshop: Workshop,
    entries: Mutex<HashMap<(ClassId, Precision), Weak<ClassEntry>>>,
}

impl Classes {
    /// No classes yet.
    pub fn new(workshop: Workshop) -> Classes {
        Classes { workshop, entries: Mutex::default() }
    }

    /// The entry of a class in a precision, made on first use.
    pub fn enter(&self, class: &Arc<Class>, precision: Precision) -> Result<Arc<ClassEntry>, NoClass> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.strong_count() > 0);
        if let Some(entry) = entries.get(&(class.id, precision)).and_then(Weak::upgrade) {
            return Ok(entry);
        }
        let target = self.workshop.device.pack_target(precision)?;
        let entry = Arc::new(ClassEntry {
            class: class.clone(),
            precision,
            layout: Arc::new(SlotLayout::of(class.folded(), target)?),
            workshop: self.workshop.clone(),
            plans: Mutex::default(),
            checked: OnceLock::new(),
        });
        entries.insert((class.id, precision), Arc::downgrade(&entry));
        Ok(entry)
    }

    /// How many classes are in use.
    pub fn len(&self) -> usize {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.values().filter(|entry| entry.strong_count() > 0).count()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One class in one precision.
#[derive(Debug)]
pub struct ClassEntry {
    /// The architecture.
    pub class: Arc<Class>,
    /// How its numbers are held.
    pub precision: Precision,
    /// What lies where in its slots.
    pub layout: Arc<SlotLayout>,
    workshop: Workshop,
    plans: Mutex<Plans>,
    checked: OnceLock<Result<(), DeviceError>>,
}

/// What stands for every free dimension when kernels are asked for before the first request: the first of these that the class can be planned
/// with. Of a text it is a length, of an image a side that networks can halve a few times.
const LIKELY: [u64; 3] = [32, 224, 1];

/// What a plan is asked for.
#[derive(Clone, Debug)]
struct Wish {
    bound: Bound,
    /// The dimension that is left open.
    item_dim: Option<usize>,
    asker: Asker,
}

/// The values of the dimensions that are not open. With and without an open one the length differs.
fn dims_of(bound: &Bound, item_dim: Option<usize>) -> Cow<'_, [u64]> {
    item_dim.map_or_else(|| Cow::Borrowed(&bound.dims[..]), |_| Cow::Owned(bound.batched_dims()))
}

/// A plan whose programs the engine has, for as long as somebody holds this.
#[derive(Debug)]
pub struct Planned {
    /// Its name in requests.
    pub key: PlanKey,
    /// The plan.
    pub plan: Arc<Plan>,
    /// Most items of one launch, and so of one offer.
    pub most_items: NonZeroU32,
    /// What it costs on its device.
    pub pace: Arc<Pace>,
    /// What tuning its kernels came to, where its device was tuned for it.
    pub tuned: Option<Tuned>,
    programs: Programs,
    engine: EngineHandle,
}

impl Drop for Planned {
    /// Whoever held it has sent its offers before, so the engine hears of them first.
    fn drop(&mut self) {
        self.engine.plan_dropped(self.key.clone(), std::mem::take(&mut self.programs));
    }
}

impl ClassEntry {
    /// The plan for a request's free dimensions; made now, on a blocking thread, if nobody asked before. Requests that
    /// ask meanwhile wait for the same plan. That there is none is kept like a plan, so that asking again costs nothing; where that may
    /// pass, the first to ask when it is time has it tried again. A plan that was begun is finished and kept even if all who asked hang up.
    ///
    /// Items are batched if the planner proves them independent; if not, the item count is one more fixed dimension.
    pub async fn planned(self: &Arc<Self>, bound: &Bound) -> Result<Arc<Planned>, NoPlan> {
        self.planned_for(bound, Asker::Request).await
    }

    async fn planned_for(self: &Arc<Self>, bound: &Bound, asker: Asker) -> Result<Arc<Planned>, NoPlan> {
        for item_dim in [bound.item_dim, None] {
            let most = self.workshop.plans_per_class;
            let cell = self.plans().cell(&dims_of(bound, item_dim), asker, most, Instant::now());
            let made = match cell.get() {
                Some(made) => made.clone(),
                // A task of its own, which outlives the caller: half a making would leave programs that nobody owns.
                None => {
                    let wish = Wish { bound: bound.clone(), item_dim, asker };
                    tokio::spawn(fill(cell, self.clone(), wish)).await.unwrap_or_else(|_| Err(interrupted()))
                }
            };
            match made {
                Ok(Made::Plan(planned)) => return Ok(planned),
                Ok(Made::ItemsMix) => {}
                // A loader has a way of its own to try again.
                Err(failure) if asker == Asker::Loader => return Err(failure.why),
                Err(failure) => return Err(failure.told(Instant::now())),
            }
        }
        Err(NoPlan::Interrupted)
    }

    /// Whether the device has a kernel for every step of the class, found out once. Free dimensions get likely lengths; of a class that cannot be
    /// planned with any of them its first request will tell.
    pub fn check(&self) -> Result<(), DeviceError> {
        let check = || {
            let plan = LIKELY.into_iter().find_map(|length| self.likely_plan(length));
            plan.map_or(Ok(()), |plan| self.workshop.device.check(&plan, &self.layout, self.room_of(&plan)))
        };
        self.checked.get_or_init(check).clone()
    }

    fn likely_plan(&self, length: u64) -> Option<Plan> {
        let shape = |(_, dims): (DType, Vec<i64>)| -> Vec<u64> {
            dims.into_iter().map(|dim| u64::try_from(dim).unwrap_or(length)).collect()
        };
        let shapes: Vec<Vec<u64>> = self.class.input_shapes().map(shape).collect();
        let bound = self.class.bind(&shapes.iter().map(Vec::as_slice).collect::<Vec<_>>()).ok()?;
        let wish = |item_dim| Wish { bound: bound.clone(), item_dim, asker: Asker::Loader };
        let wishes = [bound.item_dim, None].map(wish);
        wishes.iter().find_map(|wish| self.plan(wish).ok())
    }

    /// As [`ClassEntry::planned`], for threads that may wait: loaders. A device that can be tuned is, before it makes programs.
    pub fn planned_now(self: &Arc<Self>, bound: &Bound) -> Result<(), NoPlan> {
        self.workshop.runtime.block_on(self.planned_for(bound, Asker::Loader)).map(drop)
    }

    /// Has a plan that was made measured with the weights of one tenant, for loaders: before anybody of the class is served, where that can be.
    pub fn measured_now(&self, bound: &Bound, slot: Slot) {
        if let Some(planned) = self.planned_before(bound) {
            let Workshop { profiler, engine, .. } = &self.workshop;
            profiler.measure(engine, &planned, slot, self.room_of(&planned.plan));
        }
    }

    /// The plan of every request, where the class has but one and it was made.
    pub fn only_plan(&self) -> Option<PlanKey> {
        let bound = self.class.bind_without_free_dims()?;
        self.planned_before(&bound).map(|planned| planned.key.clone())
    }

    /// The plan, if it was made and is kept: for those who only want to know what it costs.
    pub fn planned_before(&self, bound: &Bound) -> Option<Arc<Planned>> {
        let plans = self.plans();
        [bound.item_dim, None].into_iter().find_map(|item_dim| match plans.get(&dims_of(bound, item_dim)) {
            Some(Ok(Made::Plan(planned))) => Some(planned.clone()),
            _ => None,
        })
    }

    fn plans(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in that there is no plan: whoever runs the server hears what a device refused, and where that may pass it is tried again.
    fn failed(&self, wish: &Wish, why: NoPlan) -> Failure {
        let NoPlan::Device(error) = &why else { return Failure { why, again: None } };
        let now = Instant::now();
        let mut plans = self.plans();
        let again = why.passes().then(|| plans.failed(&dims_of(&wish.bound, wish.item_dim), now));
        // Of a tenant that cannot be loaded it is told by name.
        let tell = if wish.asker == Asker::Request { plans.count_failure(now) } else { None };
        drop(plans);
        if let Some(failures) = tell {
            let (class, dims) = (self.class.id.to_string(), self.describe(&wish.bound));
            let next = again.map_or_else(
                || "requests for it are refused".to_owned(),
                |again| {
                    format!(
                        "requests for it are refused, and it is tried again in {:.0} s",
                        again.left(now).as_secs_f64()
                    )
                },
            );
            let numbers = json!({ "class": class, "precision": self.precision.name(), "failures": failures });
            self.workshop.events.tell(News {
                kind: "no_plan",
                device: Some(self.workshop.device.info().name),
                who: None,
                text: format!("architecture {class} has no programs for {dims}: {error}; {next}"),
                numbers: by_name(numbers),
            });
        }
        Failure { why, again }
    }

    fn make(&self, wish: &Wish) -> Result<Made, NoPlan> {
        let plan = match self.plan(wish) {
            Err(PlanError::Infer(InferError::MixesItems { .. })) if wish.item_dim.is_some() => {
                return Ok(Made::ItemsMix);
            }
            Err(error) => {
                return Err(NoPlan::Unplannable { dims: self.describe(&wish.bound), why: error.to_string() });
            }
            Ok(plan) => Arc::new(plan),
        };
        let most = self.workshop.most_item_memory;
        if plan.arena_per_item > most {
            let why = format!(
                "one item needs {} of working memory, and {most} is allowed; bring less, or raise `max_item_memory_bytes`",
                plan.arena_per_item
            );
            return Err(NoPlan::Unplannable { dims: self.describe(&wish.bound), why });
        }
        let room = self.room_of(&plan);
        let tuned = if wish.asker == Asker::Loader { self.tuned(&plan, room) } else { None };
        let mut compiled = Compiled { device: &*self.workshop.device, programs: Vec::new() };
        self.compile(&plan, room, &mut compiled)?;
        let work = PlanWork {
            flops_per_item: plan.flops_per_item(),
            bytes_per_item: plan.arena_per_item,
            weight_bytes: self.layout.bytes,
        };
        let watch = Watch::new(&plan, &self.layout);
        let programs = std::mem::take(&mut compiled.programs);
        let pace = self.workshop.engine.plan_ready(work, programs.clone(), watch);
        let most_items =
            NonZeroU32::new(if plan.batched { room.items } else { 1 }).expect("a room has items");
        Ok(Made::Plan(Arc::new(Planned {
            key: plan.key.clone(),
            plan,
            most_items,
            pace,
            tuned,
            programs,
            engine: self.workshop.engine.clone(),
        })))
    }

    /// Makes a plan's program for every partition. The first has the kernels compiled; the others find them, and have their memory pinned side by side, which is
    /// most of what they take.
    fn compile(&self, plan: &Arc<Plan>, room: Room, compiled: &mut Compiled<'_>) -> Result<(), DeviceError> {
        let Compiled { device, programs } = compiled;
        let make = |partition: PartitionId| {
            device.compile(plan, &self.layout, room, partition).map(|program| (partition, program))
        };
        let partitions = device.partitions();
        let Some((first, others)) = partitions.split_first() else { return Ok(()) };
        programs.push(make(first.id)?);
        std::thread::scope(|scope| {
            let making: Vec<_> = others.iter().map(|other| scope.spawn(|| make(other.id))).collect();
            let mut failed = None;
            // All that were made are owned before anything else, so that they are discarded where one could not be.
            for made in making {
                match made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                    Ok(program) => programs.push(program),
                    Err(why) => failed = failed.or(Some(why)),
                }
            }
            failed.map_or(Ok(()), Err)
        })
    }

    /// Has the device time kernels of a plan. Without that its rules choose, so that an error is no more than a word in the log.
    fn tuned(&self, plan: &Plan, room: Room) -> Option<Tuned> {
        let Workshop { device, profiler, .. } = &self.workshop;
        // What is measured meanwhile would be measured beside it.
        let _turn = profiler.turn();
        match device.tune(plan, &self.layout, room) {
            Ok(tuned) => {
                if let Some(tuned) = &tuned {
                    tracing::info!(class = %self.class.id, precision = %self.precision, %tuned, "kernels were timed");
                    tuned
                        .remarks
                        .iter()
                        .for_each(|remark| tracing::warn!(class = %self.class.id, remark, "tuning"));
                }
                tuned
            }
            Err(why) => {
                tracing::warn!(class = %self.class.id, %why, "kernels could not be timed and are chosen by rule");
                None
            }
        }
    }

    /// Of a launch. Where a whole request is one item, each lane carries one.
    fn room_of(&self, plan: &Plan) -> Room {
        let most = self.workshop.room;
        if plan.batched { most } else { Room { items: most.lanes, ..most } }
    }

    fn plan(&self, wish: &Wish) -> Result<Plan, PlanError> {
        let value = |(index, &size): (usize, &u64)| match wish.item_dim {
            Some(item) if item == index => DimValue::Items,
            _ => DimValue::Fixed(size),
        };
        let values: Vec<DimValue> = wish.bound.dims.iter().enumerate().map(value).collect();
        let key = PlanKey {
            class: self.class.id,
            dims: dims_of(&wish.bound, wish.item_dim).into(),
            precision: self.precision,
        };
        tessera_planner::plan(key, self.class.folded(), &self.layout, &values)
    }

    fn describe(&self, bound: &Bound) -> String {
        let named = self.class.free_dims.iter().zip(&bound.dims);
        let named: Vec<String> = named.map(|(name, value)| format!("{name} = {value}")).collect();
        if named.is_empty() { "its shapes".to_owned() } else { named.join(", ") }
    }
}

/// Programs that nobody owns yet. Those that are in here when it is dropped are discarded: a later partition had no room, or something panicked.
struct Compiled<'a> {
    device: &'a dyn Device,
    programs: Programs,
}

impl Drop for Compiled<'_> {
    fn drop(&mut self) {
        self.programs.iter().for_each(|(_, program)| self.device.discard(*program));
    }
}

/// Makes what a cell is for, once, whoever asks first. Where the making itself was lost the cell goes with it.
async fn fill(cell: PlanCell, entry: Arc<ClassEntry>, wish: Wish) -> Result<Made, Failure> {
    let dims = dims_of(&wish.bound, wish.item_dim).into_owned();
    let make = || async {
        let entry = entry.clone();
        let make = move || entry.make(&wish).map_err(|why| entry.failed(&wish, why));
        tokio::task::spawn_blocking(make).await.unwrap_or_else(|_| Err(interrupted()))
    };
    let made = cell.get_or_init(make).await.clone();
    if let Err(Failure { why: NoPlan::Interrupted, .. }) = made {
        entry.plans().forget(&dims, &cell);
    }
    made
}

fn interrupted() -> Failure {
    Failure { why: NoPlan::Interrupted, again: None }
}
