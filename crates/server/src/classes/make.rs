//! A plan made for a request's free dimensions, with its programs on every partition.
//!
//! ```text
//!   fill, once ─▶ plan ─▶ tuned, for a loader ─▶ compiled for each partition ─▶ the engine ─▶ Planned
//!                  └─ items are not independent: the count is one more fixed dimension
//!                  └─ no kernel, no memory ─▶ told, kept, and where it may pass tried again (`kept`)
//! ```

use super::kept::{Asker, Failure, Made, PlanCell};
use super::{ClassEntry, NoPlan, Planned, Workshop};
use crate::engine::Programs;
use crate::events::{News, by_name};
use crate::monitor::Watch;
use serde_json::json;
use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread;
use std::time::Instant;
use tessera_core::{PartitionId, PlanKey};
use tessera_device::{Device, DeviceError, Room, Tuned};
use tessera_planner::class::Bound;
use tessera_planner::infer::{DimValue, InferError};
use tessera_planner::{Plan, PlanError};
use tessera_scheduler::PlanWork;

/// What a plan is asked for.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) bound: Bound,
    /// The dimension that is left open.
    pub(super) item_dim: Option<usize>,
    pub(super) asker: Asker,
}

/// The values of the dimensions that are not open. With and without an open one the length differs.
pub(super) fn dims_of(bound: &Bound, item_dim: Option<usize>) -> Cow<'_, [u64]> {
    item_dim.map_or_else(|| Cow::Borrowed(&bound.dims[..]), |_| Cow::Owned(bound.batched_dims()))
}

/// Makes what a cell is for, once, whoever asks first. Where the making itself was lost the cell goes with it.
pub(super) async fn fill(cell: PlanCell, entry: Arc<ClassEntry>, wish: Wish) -> Result<Made, Failure> {
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

/// The making of a plan was lost: something panicked, or the server ends.
pub(super) fn interrupted() -> Failure {
    Failure { why: NoPlan::Interrupted, again: None }
}

impl ClassEntry {
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
        thread::scope(|scope| {
            let begin = |id| (id, thread::Builder::new().spawn_scoped(scope, move || make(id)));
            let making: Vec<_> = others.iter().map(|other| begin(other.id)).collect();
            let mut failed = None;
            // All that were made are owned before anything else, so that they are discarded where one could not be.
            for (id, making) in making {
                let made = match making {
                    Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                    // Where the system refuses a thread, by this one.
                    Err(_) => make(id),
                };
                match made {
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

    pub(super) fn plan(&self, wish: &Wish) -> Result<Plan, PlanError> {
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

    /// Of a launch. Where a whole request is one item, each lane carries one.
    pub(super) fn room_of(&self, plan: &Plan) -> Room {
        let most = self.workshop.room;
        if plan.batched { most } else { Room { items: most.lanes, ..most } }
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
