//! How long will it take.
//!
//! ```text
//!   finished(took) ─▶ [plan: (lanes step, items step) → last few of took ÷ shape] ─▶ high percentile × shape ─▶ surface ─▶ predict
//!   a profile at load ─▶┘                                shape(lanes, items) ◀─ the plan's FLOP and bytes
//! ```
//! A launch's *shape* is its roofline time at rates we guess: overhead + FLOP/rate + bytes/rate. Measurements are
//! kept as ratios to it, so a step serves every size in it, a size never run borrows the ratio of the nearest
//! one, and a plan never run is bounded by its kin, or borrows the ratio of the other plans (`guess`). The percentile is of the last few launches
//! only: a slow morning is forgotten. (Clockwork, OSDI '20, keeps p99 of the last 10 per model and batch, which is the slowest of them; we take the fourth slowest of
//! 32, as the slowest of 16 is as often exceeded by much, and after each rare slow launch promised too much for the next 15: on an H200 at a fifth of its load the 99th
//! percentile of errors was 22 % by it, and is 10 %.)
//!
//! What is measured makes one surface for each plan and size of partition (`surface`), which never falls as lanes or items grow: what is promised rests on
//! that. On a partition where a plan never ran it is taken to need as much longer as the partition is smaller than one where it did: a share of the
//! device does at least its share of the work, and what it really takes is learnt with the first launch. Where partitions share the device's units, a launch beside
//! others takes up to twice as long as one that has the device to itself, so the two have surfaces of their own, and so have launches beside others that are kept to some of the
//! units: a launch is predicted by what is so when it goes, and plans are made with those beside others while such are seen.

mod error;
mod guess;
mod places;
mod steps;
mod surface;
mod table;
mod work;

pub use error::{Foretold, PredictionError};
pub(crate) use guess::Kin;
pub(crate) use places::Company;
pub use table::CostTable;
pub(crate) use work::ONE;
pub use work::{PlanWork, Size};

use crate::plans::PlanIx;
use error::Errors;
use places::{Certain, PlanCost, shape};
use std::num::NonZeroU32;
use std::time::Duration;
pub(crate) use steps::{between, corner, half_octave};
use surface::Step;
use tessera_core::{IdMap, Moment};

/// How costs are learnt.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CostSettings {
    /// Which percentile of the last launches counts, from 0 to 1. Of few launches a high one is their maximum.
    pub percentile: f64,
    /// How many launches of each bucket are remembered.
    pub window: usize,
    /// Time of a launch that does nothing, for plans never measured.
    pub overhead: Duration,
    /// Guessed arithmetic rate, for plans never measured. Only ratios of the three guesses matter for long.
    pub flops_per_second: f64,
    /// Guessed memory rate, for plans never measured.
    pub bytes_per_second: f64,
}

impl Default for CostSettings {
    /// p90 of the last 32; rates of about two CPU cores, corrected by the first launches.
    fn default() -> CostSettings {
        CostSettings {
            percentile: 0.9,
            window: 32,
            overhead: Duration::from_micros(20),
            flops_per_second: 4e10,
            bytes_per_second: 1e10,
        }
    }
}

/// What a tenant's SLO is judged by, of the launches of one item that are remembered. It says what may be kept, so rare slow ones count, which would mislead whoever
/// plans the next launch.
pub(crate) const ALONE_PERCENTILE: f64 = 99.0;

/// How much one launch moves the ratio that plans never measured borrow.
const COMMON_RATIO_STEP: f64 = 0.1;

/// How much one launch moves what is taken to lie between launches.
const BETWEEN_STEP: f64 = 1.0 / 16.0;

/// The learnt costs of every plan.
#[derive(Debug)]
pub(crate) struct Costs {
    settings: CostSettings,
    plans: IdMap<PlanIx, PlanCost>,
    /// Measured over shape, averaged over the launches of every plan whose work is known.
    common_ratio: Option<f64>,
    errors: Errors,
    /// How large launches get.
    most: Size,
    /// Units of the largest partition.
    whole: NonZeroU32,
    /// Units that launches beside others leave to those, in the layout in force.
    others: NonZeroU32,
    /// Launches learnt from: what was measured later has the larger number.
    clock: u64,
}

impl Costs {
    /// `whole` is how many units the largest partition has.
    pub(crate) fn new(settings: CostSettings, most: Size, whole: NonZeroU32) -> Costs {
        Costs {
            settings,
            plans: IdMap::default(),
            common_ratio: None,
            errors: Errors::default(),
            most,
            whole,
            others: whole,
            clock: 0,
        }
    }

    pub(crate) fn plan_known(&mut self, plan: PlanIx, kin: Kin, work: PlanWork) {
        let known = self.plans.entry(plan).or_default();
        if known.work != Some(work) {
            // Ratios to another shape mean nothing.
            *known = PlanCost::of(kin, work);
        }
    }

    pub(crate) fn forget(&mut self, plan: PlanIx) {
        self.plans.remove(&plan);
    }

    /// A plan is taken to cost so many times what another does, until its own launches tell.
    pub(crate) fn known_by(&mut self, plan: PlanIx, other: PlanIx, factor: f64) {
        let Some(mut known) = self.plans.get(&other).cloned() else { return };
        known.scale(factor, self.settings, self.most);
        self.plans.insert(plan, known);
    }

    /// A plan is to run on partitions of so many units from now on. Where it never did, what it takes there is an upper bound, and it counts as not measured.
    pub(crate) fn moved(&mut self, plan: PlanIx, units: NonZeroU32) {
        let known = self.plans.get_mut(&plan);
        if let Some(known) = known.filter(|known| known.places.iter().all(|place| place.units != units)) {
            known.measured_at = None;
        }
    }

    /// From now on what runs beside others leaves so many units to those.
    pub(crate) fn leave_to_others(&mut self, units: NonZeroU32) {
        self.others = units;
    }

    /// When the plan was last measured.
    pub(crate) fn measured_at(&self, plan: PlanIx) -> Option<Moment> {
        self.plans.get(&plan)?.measured_at
    }

    /// The high percentile for a launch of this size on a partition of so many units, or an estimate, or nothing for a plan of unknown work that
    /// was never measured.
    pub(crate) fn predict(&self, plan: PlanIx, size: Size, units: NonZeroU32) -> Option<Duration> {
        self.predict_in(self.plans.get(&plan)?.company(), plan, size, units)
    }

    /// The same of a launch that goes in this company.
    pub(crate) fn predict_in(
        &self,
        company: Company,
        plan: PlanIx,
        size: Size,
        units: NonZeroU32,
    ) -> Option<Duration> {
        self.cost(Certain::Likely, company, plan, size, units)
    }

    /// What a launch of this size is promised by: what is predicted, and what so few launches as it rests on may not have shown.
    pub(crate) fn bound(&self, plan: PlanIx, size: Size, units: NonZeroU32) -> Option<Duration> {
        self.cost(Certain::Bound, self.plans.get(&plan)?.company(), plan, size, units)
    }

    fn cost(
        &self,
        certain: Certain,
        company: Company,
        plan: PlanIx,
        size: Size,
        units: NonZeroU32,
    ) -> Option<Duration> {
        let known = self.plans.get(&plan)?;
        let seconds = match known.nearest(units, company, self.others) {
            Some(place) => {
                known.at_least_alone(place, certain, size) * stretch(place.units, units) + known.pause()
            }
            None => self.guess(known, company, size, units)?,
        };
        Some(Duration::from_secs_f64(seconds.min(MOST_SECONDS)))
    }

    /// What a launch of one item takes on the largest partition with the device to itself, at [`ALONE_PERCENTILE`]; where it never ran, what is predicted.
    pub(crate) fn alone(&self, plan: PlanIx) -> Option<Duration> {
        let known = self.plans.get(&plan)?;
        let measured = known.nearest(self.whole, Company::Alone, self.others).and_then(|place| {
            let ratio = place.cells.get(&Step::of(ONE))?.percentile(ALONE_PERCENTILE / 100.0);
            let ratio = ratio * stretch(place.units, self.whole);
            Some(ratio * shape(self.settings, known.work, ONE) + known.pause())
        });
        let measured = measured.map(|seconds| Duration::from_secs_f64(seconds.min(MOST_SECONDS)));
        measured.or_else(|| self.predict_in(Company::Alone, plan, ONE, self.whole))
    }

    /// What lies between launches of the plan that follow each other, and is part of what is predicted.
    pub(crate) fn pause(&self, plan: PlanIx) -> Duration {
        Duration::from_secs_f64(self.plans.get(&plan).map_or(0.0, PlanCost::pause).min(MOST_SECONDS))
    }

    /// Takes in that a launch of the plan that computed so long was over so long after the one before.
    pub(crate) fn between(&mut self, plan: PlanIx, over: Duration, computed: Duration) {
        let known = self.plans.entry(plan).or_default();
        let more = over.as_secs_f64() - computed.as_secs_f64();
        known.between += BETWEEN_STEP * (more - known.between);
    }

    /// Takes in that a launch of this size took so long.
    pub(crate) fn learn(&mut self, plan: PlanIx, size: Size, launch: Measured) {
        self.clock += 1;
        let known = self.plans.entry(plan).or_default();
        let ratio = launch.took.as_secs_f64() / shape(self.settings, known.work, size);
        let known_by = known.learn(Step::of(size), ratio, &launch, self.clock, (self.settings, self.most));
        let is_told_work = known.work.is_some();
        let Measured { units, company, .. } = launch;
        // What the others borrow is a ratio on the whole device.
        if is_told_work && units == self.whole {
            let before = self.common_ratio.unwrap_or(ratio);
            self.common_ratio = Some(before + COMMON_RATIO_STEP * (ratio - before));
        }
        if let Some(predicted) = launch.predicted {
            self.errors.note(Foretold {
                at: launch.at,
                size,
                units,
                beside: company == Company::Beside,
                first: launch.first,
                known_by,
                predicted,
                took: launch.took + self.pause(plan),
                plan,
            });
        }
    }

    /// Whether a launch spends more time on reading and writing than on arithmetic, by the guessed rates; `None` for plans of unknown work.
    pub(crate) fn reads_more(&self, plan: PlanIx, size: Size) -> Option<bool> {
        let work = self.plans.get(&plan)?.work?;
        Some(
            work.flops(size) / self.settings.flops_per_second
                < work.bytes(size) / self.settings.bytes_per_second,
        )
    }

    pub(crate) fn prediction_error(&self) -> PredictionError {
        self.errors.so_far()
    }

    /// Of launches that were over at a moment or later, and so many of the furthest off.
    pub(crate) fn predictions_since(
        &self,
        moment: Moment,
        furthest: usize,
    ) -> (PredictionError, Vec<Foretold>) {
        self.errors.since(moment, furthest)
    }
}

/// How much longer a launch takes on a partition of fewer units than one where it was measured, at most; on a larger one it gains nothing for certain.
fn stretch(measured_on: NonZeroU32, on: NonZeroU32) -> f64 {
    (f64::from(measured_on.get()) / f64::from(on.get())).max(1.0)
}

/// A launch that has ended, for [`Costs::learn`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) at: Moment,
    /// Of the partition that it ran on.
    pub(crate) units: NonZeroU32,
    pub(crate) company: Company,
    /// Units that those beside it may have had.
    pub(crate) others: NonZeroU32,
    pub(crate) took: Duration,
    pub(crate) predicted: Option<Duration>,
    /// Whether nothing ran on its partition when it was handed over.
    pub(crate) first: bool,
}

/// No launch takes a week: keeps `Duration` arithmetic away from its panics whatever a plan claims to cost.
const MOST_SECONDS: f64 = 7.0 * 24.0 * 3600.0;

/// The nearest-rank percentile, rounding up: of few values a high one is their maximum. Zero of none. Their order is lost.
fn percentile(values: &mut [f64], p: f64) -> f64 {
    let rank = (p.clamp(0.0, 1.0) * values.len() as f64).ceil() as usize;
    match values.len() {
        0 => 0.0,
        _ => *values.select_nth_unstable_by(rank.saturating_sub(1), f64::total_cmp).1,
    }
}

#[cfg(test)]
mod tests;
