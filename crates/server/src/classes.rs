//! Classes in use and their plans: what tenants of one architecture share.
//!
//! A class lives as long as a tenant of it is loaded. Its plans are made when a request first brings their free dimensions (a
//! sentence length, an image side), off the serving path, once (`make`), and a bounded number is kept (`kept`).

mod kept;
mod make;

use self::kept::{Asker, Made, Plans};
use self::make::{Wish, dims_of, fill, interrupted};
use crate::engine::{EngineHandle, Programs};
use crate::events::Events;
use crate::profile::Profiler;
use crate::routing::Pace;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use tessera_core::{Bytes, ClassId, DType, PlanKey, Precision};
use tessera_device::{Device, DeviceError, Room, Slot, Tuned};
use tessera_planner::class::{Bound, Class};
use tessera_planner::pack::PackError;
use tessera_planner::{Plan, SlotLayout};
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
}
