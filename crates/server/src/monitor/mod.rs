//! What is watched while it runs: how long the launches of each plan take, beside what was predicted, which of their steps take it, and how much of the
//! device that uses.
//!
//! ```text
//!   engine ─ a launch begins, is over: took, predicted, sometimes by step ─▶ Monitor ┬▶ GET /v2/models/M/steps     every step of the model's plans
//!   classes ─ a plan and its steps ─▶ Watch ─────────────────────────────────▲        ├▶ GET /v2                    how far each device is used
//!   device ─ its peak ───────────────────────────────────────────────────────▲        └▶ /metrics                   classes, their longest steps, devices
//! ```
//! One [`Monitor`] for each device, which its engine alone writes. Quantiles are of the last minutes and in bounded memory ([`Recent`]); the page of metrics has
//! a bounded number of series, however many tenants, plans and steps there are.

mod collect;
mod plan;
mod sketch;
mod usage;

pub(crate) use collect::Devices;
pub use plan::{Launched, Watch};
pub use sketch::{Recent, Sketch};
pub use usage::{Done, Share};

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tessera_core::{ClassId, PartitionId, PlanKey, Precision};
use tessera_device::Rates;
use tessera_scheduler::{Partition, PredictionError};
use usage::Usage;

/// What is watched of one device.
#[derive(Debug, Default)]
pub struct Monitor {
    watched: Mutex<Watched>,
    /// Launches are not looked at.
    off: AtomicBool,
}

#[derive(Debug, Default)]
struct Watched {
    plans: BTreeMap<PlanKey, Arc<Watch>>,
    usage: Usage,
    peaks: BTreeMap<Precision, Rates>,
    predictions: PredictionError,
}

impl Monitor {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether launches are looked at from now on. How far the device is used is told all the same.
    pub fn watch(&self, on: bool) {
        self.off.store(!on, Ordering::Relaxed);
    }

    /// Whether they are.
    pub fn is_on(&self) -> bool {
        !self.off.load(Ordering::Relaxed)
    }

    /// The device is cut like this, in one way or another.
    pub fn cut(&self, layouts: &[Vec<Partition>]) {
        self.watched().usage.cut(layouts);
    }

    /// What the device can do in a precision. The first that is told is what its use is held against.
    pub fn peak(&self, precision: Precision, peak: Rates) {
        let mut watched = self.watched();
        watched.usage.peak(peak);
        watched.peaks.insert(precision, peak);
    }

    /// A plan can run. One that is made anew before it was dropped goes on being watched where it was: that is the answer.
    pub fn plan_ready(&self, watch: Arc<Watch>) -> Arc<Watch> {
        self.watched().plans.entry(watch.key.clone()).or_insert(watch).clone()
    }

    /// A plan is dropped: what was seen of it is forgotten.
    pub fn plan_dropped(&self, plan: &PlanKey) {
        self.watched().plans.remove(plan);
    }

    /// A partition has a launch more.
    pub fn began(&self, at: Instant, partition: PartitionId) {
        self.watched().usage.began(at, partition);
    }

    /// A partition has a launch less, which did so much.
    pub fn ended(&self, at: Instant, partition: PartitionId, done: Done) {
        self.watched().usage.ended(at, partition, done);
    }

    /// The part of the device that a partition has, from 0 to 1.
    pub fn part(&self, partition: PartitionId) -> f64 {
        self.watched().usage.part(partition)
    }

    /// How far launches of late were from what was predicted of them.
    pub fn predicted(&self, error: PredictionError) {
        self.watched().predictions = error;
    }

    /// The same, as it was last told: about once a second.
    pub fn predictions(&self) -> PredictionError {
        self.watched().predictions
    }

    /// How far the device is used.
    pub fn share(&self, at: Instant) -> Share {
        self.watched().usage.share(at)
    }

    /// What was seen of the plans of a class in a precision, as of this moment.
    pub fn steps_of(&self, at: Instant, device: &str, class: ClassId, precision: Precision) -> Vec<Value> {
        let watched = self.watched();
        let peak = watched.peaks.get(&precision).copied();
        let plans = watched.plans.values().filter(|watch| watch.key.class == class);
        let plans: Vec<Arc<Watch>> =
            plans.filter(|watch| watch.key.precision == precision).cloned().collect();
        drop(watched);
        plans.iter().map(|watch| watch.json(at, device, peak)).collect()
    }

    /// All plans.
    fn plans(&self) -> Vec<Arc<Watch>> {
        self.watched().plans.values().cloned().collect()
    }
}

/// Quantiles as readers get them, each times `unit`; no quantiles of nothing.
pub(crate) fn quantiles(sketch: &Sketch, unit: f64) -> Value {
    let at = |part| sketch.quantile(part).map(|value| value * unit);
    let most = (sketch.count() > 0).then(|| sketch.most() * unit);
    json!({ "count": sketch.count(), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": most })
}
