//! How long will it take.
//!
//!   finished(took) ─▶ [plan: (lanes bucket, items bucket) → last few of took ÷ shape] ─▶ high percentile × shape
//!                                                              shape(lanes, items) ◀─ the plan's FLOP and bytes
//!
//! A launch's *shape* is its roofline time at rates we guess: overhead + FLOP/rate + bytes/rate. Measurements are
//! kept as ratios to it, so a bucket serves every size in it, a size never run borrows the ratio of the nearest
//! one, and a plan never run borrows the ratio of the other plans. The percentile is of the last few launches
//! only: a slow morning is forgotten. (Clockwork, OSDI '20, keeps p99 of the last 10 per model and batch.)

use crate::plans::PlanIx;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::{Bytes, Moment, PlanKey};

/// What one launch of a plan has to do, as the planner counts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PlanWork {
    /// Floating point operations for one item.
    pub flops_per_item: u64,
    /// Activations read and written for one item.
    pub bytes_per_item: Bytes,
    /// Weights read once by every lane.
    pub weight_bytes: Bytes,
}

/// Lanes and items of a launch, all that its cost depends on besides its plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Size {
    /// Lanes, at least one.
    pub lanes: u32,
    /// Items of all lanes.
    pub items: u32,
}

impl Size {
    /// One lane with `items` items.
    pub fn one_lane(items: NonZeroU32) -> Size {
        Size { lanes: 1, items: items.get() }
    }
}

/// Costs known from elsewhere: a profile, a simulated device. Costs should not fall as lanes or items grow; where
/// they do, growing a launch counts as free.
pub trait CostTable: fmt::Debug + Send + Sync {
    /// How long a launch takes, `None` where the table cannot say. Must answer the same for the same question.
    fn cost(&self, plan: &PlanKey, size: Size) -> Option<Duration>;
}

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
    /// p99 of the last 16; rates of about two CPU cores, corrected by the first launches.
    fn default() -> CostSettings {
        CostSettings {
            percentile: 0.99,
            window: 16,
            overhead: Duration::from_micros(20),
            flops_per_second: 4e10,
            bytes_per_second: 1e10,
        }
    }
}

/// How far launches were from their predictions: |measured ÷ predicted − 1| of the last few hundred.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct PredictionError {
    /// Launches that had a prediction, since the start.
    pub launches: u64,
    /// Those of them that took longer than predicted.
    pub slower: u64,
    /// The median error.
    pub median: f64,
    /// The 99th percentile.
    pub p99: f64,
}

/// Launches whose errors are remembered. 256 give a p99 of two or three samples: enough for a gauge.
const ERRORS_KEPT: usize = 256;
/// How much one launch moves the ratio that plans never measured borrow.
const COMMON_RATIO_STEP: f64 = 0.1;

/// The learnt costs of every plan.
#[derive(Debug)]
pub(crate) struct Costs {
    settings: CostSettings,
    plans: BTreeMap<PlanIx, PlanCost>,
    /// Measured over shape, averaged over the launches of every plan whose work is known.
    common_ratio: Option<f64>,
    errors: VecDeque<f64>,
    launches: u64,
    slower: u64,
}

#[derive(Debug, Default)]
struct PlanCost {
    work: Option<PlanWork>,
    cells: BTreeMap<Bucket, Cell>,
    measured_at: Option<Moment>,
}

/// Sizes that share measurements: lanes and items, each to half an octave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Bucket {
    lanes: u32,
    items: u32,
}

#[derive(Debug, Default)]
struct Cell {
    ratios: VecDeque<f64>,
    high: f64,
}

impl Costs {
    pub(crate) fn new(settings: CostSettings) -> Costs {
        Costs {
            settings,
            plans: BTreeMap::new(),
            common_ratio: None,
            errors: VecDeque::new(),
            launches: 0,
            slower: 0,
        }
    }

    pub(crate) fn plan_known(&mut self, plan: PlanIx, work: PlanWork) {
        let known = self.plans.entry(plan).or_default();
        if known.work != Some(work) {
            // Ratios to another shape mean nothing.
            *known = PlanCost { work: Some(work), ..PlanCost::default() };
        }
    }

    pub(crate) fn forget(&mut self, plan: PlanIx) {
        self.plans.remove(&plan);
    }

    /// When the plan was last measured.
    pub(crate) fn measured_at(&self, plan: PlanIx) -> Option<Moment> {
        self.plans.get(&plan)?.measured_at
    }

    /// The high percentile for a launch of this size, or an estimate, or nothing for a plan of unknown work that
    /// was never measured.
    pub(crate) fn predict(&self, plan: PlanIx, size: Size) -> Option<Duration> {
        let known = self.plans.get(&plan)?;
        let ratio = known.ratio_near(Bucket::of(size)).or_else(|| {
            // Without its work a plan's shape is invented, and the ratio of others says nothing of it.
            known.work.map(|_| self.common_ratio.unwrap_or(1.0))
        })?;
        Some(Duration::from_secs_f64((self.shape(known.work, size) * ratio).min(MOST_SECONDS)))
    }

    /// Takes in that a launch of this size took so long.
    pub(crate) fn learn(&mut self, plan: PlanIx, size: Size, launch: Measured) {
        let shape = self.shape(self.plans.get(&plan).and_then(|known| known.work), size);
        let ratio = launch.took.as_secs_f64() / shape;
        let settings = self.settings;
        let known = self.plans.entry(plan).or_default();
        known.measured_at = Some(launch.at);
        known.cells.entry(Bucket::of(size)).or_default().push(ratio, settings);
        if known.work.is_some() {
            let before = self.common_ratio.unwrap_or(ratio);
            self.common_ratio = Some(before + COMMON_RATIO_STEP * (ratio - before));
        }
        if let Some(predicted) = launch.predicted {
            self.note_error(predicted, launch.took);
        }
    }

    fn note_error(&mut self, predicted: Duration, took: Duration) {
        self.launches += 1;
        self.slower += u64::from(took > predicted);
        if self.errors.len() == ERRORS_KEPT {
            self.errors.pop_front();
        }
        // A prediction of zero is possible from a given table; a nanosecond keeps the ratio finite.
        let predicted = predicted.as_secs_f64().max(1e-9);
        self.errors.push_back((took.as_secs_f64() / predicted - 1.0).abs());
    }

    pub(crate) fn prediction_error(&self) -> PredictionError {
        let errors: Vec<f64> = self.errors.iter().copied().collect();
        PredictionError {
            launches: self.launches,
            slower: self.slower,
            median: percentile(errors.clone(), 0.5),
            p99: percentile(errors, 0.99),
        }
    }

    /// Seconds by roofline arithmetic at guessed rates; never zero.
    fn shape(&self, work: Option<PlanWork>, size: Size) -> f64 {
        let CostSettings { overhead, flops_per_second, bytes_per_second, .. } = self.settings;
        let overhead = overhead.as_secs_f64().max(1e-9);
        let (lanes, items) = (f64::from(size.lanes), f64::from(size.items));
        match work {
            Some(work) => {
                let flops = work.flops_per_item as f64 * items;
                let bytes = work.weight_bytes.0 as f64 * lanes + work.bytes_per_item.0 as f64 * items;
                overhead + flops / flops_per_second + bytes / bytes_per_second
            }
            // Unknown work: time in proportion to lanes and items beyond a launch's overhead, half each.
            None => overhead * (1.0 + 0.5 * lanes + 0.5 * items),
        }
    }
}

/// A launch that has ended, for [`Costs::learn`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) at: Moment,
    pub(crate) took: Duration,
    pub(crate) predicted: Option<Duration>,
}

/// No launch takes a week: keeps `Duration` arithmetic away from its panics whatever a plan claims to cost.
const MOST_SECONDS: f64 = 7.0 * 24.0 * 3600.0;

impl PlanCost {
    /// The ratio of this bucket, else of the nearest measured one; ties go to the smaller.
    fn ratio_near(&self, bucket: Bucket) -> Option<f64> {
        if let Some(cell) = self.cells.get(&bucket) {
            return Some(cell.high);
        }
        let nearest = self.cells.iter().min_by_key(|(other, _)| other.distance(bucket))?;
        Some(nearest.1.high)
    }
}

impl Bucket {
    fn of(size: Size) -> Bucket {
        Bucket { lanes: half_octave(size.lanes), items: half_octave(size.items) }
    }

    fn distance(self, other: Bucket) -> u32 {
        self.lanes.abs_diff(other.lanes) + self.items.abs_diff(other.items)
    }
}

/// 1, 2, 3, 4–5, 6–7, 8–11, 12–15, 16–23, …: where twice the logarithm of n falls.
fn half_octave(n: u32) -> u32 {
    let log = n.max(1).ilog2();
    let upper_half = log > 0 && n & (1 << (log - 1)) != 0;
    2 * log + u32::from(upper_half)
}

impl Cell {
    fn push(&mut self, ratio: f64, settings: CostSettings) {
        while self.ratios.len() >= settings.window.max(1) {
            self.ratios.pop_front();
        }
        self.ratios.push_back(ratio);
        self.high = percentile(self.ratios.iter().copied().collect(), settings.percentile);
    }
}

/// The nearest-rank percentile, rounding up: of few values a high one is their maximum. Zero of none.
fn percentile(mut values: Vec<f64>, p: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (p.clamp(0.0, 1.0) * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: PlanIx = PlanIx(0);
    const WORK: PlanWork =
        PlanWork { flops_per_item: 40_000_000, bytes_per_item: Bytes(0), weight_bytes: Bytes(10_000_000) };

    fn size(lanes: u32, items: u32) -> Size {
        Size { lanes, items }
    }

    fn took(micros: u64) -> Measured {
        Measured { at: Moment::START, took: Duration::from_micros(micros), predicted: None }
    }

    #[test]
    fn a_plan_of_unknown_work_has_no_cost_until_it_is_measured() {
        let mut costs = Costs::new(CostSettings::default());
        assert_eq!(costs.predict(PLAN, size(1, 1)), None);
        costs.learn(PLAN, size(1, 1), took(500));
        assert_eq!(costs.predict(PLAN, size(1, 1)), Some(Duration::from_micros(500)));
    }

    #[test]
    fn before_any_launch_the_cost_is_the_roofline_at_guessed_rates() {
        let mut costs = Costs::new(CostSettings::default());
        costs.plan_known(PLAN, WORK);
        // 20 µs + 4 × 1 ms of arithmetic + 2 × 1 ms of weights.
        assert_eq!(costs.predict(PLAN, size(2, 4)), Some(Duration::from_micros(6020)));
    }

    #[test]
    fn the_slowest_of_the_last_launches_counts_and_is_forgotten_after_a_window() {
        let mut costs = Costs::new(CostSettings { window: 4, ..CostSettings::default() });
        costs.learn(PLAN, size(1, 1), took(9000));
        for _ in 0..3 {
            costs.learn(PLAN, size(1, 1), took(500));
        }
        assert_eq!(costs.predict(PLAN, size(1, 1)), Some(Duration::from_micros(9000)));
        costs.learn(PLAN, size(1, 1), took(500));
        assert_eq!(costs.predict(PLAN, size(1, 1)), Some(Duration::from_micros(500)));
    }

    #[test]
    fn a_size_never_run_borrows_the_ratio_of_the_nearest() {
        let mut costs = Costs::new(CostSettings::default());
        costs.plan_known(PLAN, WORK);
        let guessed = costs.predict(PLAN, size(1, 1)).expect("an estimate");
        costs.learn(PLAN, size(1, 1), Measured { took: guessed * 3, ..took(0) });
        let ratio = |lanes, items| {
            let now = costs.predict(PLAN, size(lanes, items)).expect("measured").as_secs_f64();
            now / costs.shape(Some(WORK), size(lanes, items))
        };
        assert!((ratio(8, 8) - 3.0).abs() < 1e-6);
    }

    #[test]
    fn a_plan_never_run_borrows_the_ratio_of_the_others() {
        let mut costs = Costs::new(CostSettings::default());
        costs.plan_known(PLAN, WORK);
        costs.plan_known(PlanIx(1), WORK);
        let guessed = costs.predict(PLAN, size(1, 1)).expect("an estimate");
        costs.learn(PLAN, size(1, 1), Measured { took: guessed / 2, ..took(0) });
        let borrowed = costs.predict(PlanIx(1), size(1, 1)).expect("an estimate");
        assert!(borrowed.abs_diff(guessed / 2) < Duration::from_nanos(10));
        assert_eq!(costs.measured_at(PlanIx(1)), None);
    }

    #[test]
    fn buckets_are_half_octaves() {
        let firsts: Vec<u32> = (1..70).filter(|&n| n == 1 || half_octave(n) != half_octave(n - 1)).collect();
        assert_eq!(firsts, [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]);
        assert_eq!(half_octave(u32::MAX), 63);
    }

    #[test]
    fn the_prediction_error_is_measured_over_predicted() {
        let mut costs = Costs::new(CostSettings::default());
        for micros in [100, 100, 150] {
            let predicted = Some(Duration::from_micros(100));
            costs.learn(PLAN, size(1, 1), Measured { predicted, ..took(micros) });
        }
        let error = costs.prediction_error();
        assert_eq!((error.launches, error.slower), (3, 1));
        assert!(error.median < 1e-9 && (error.p99 - 0.5).abs() < 1e-9);
    }
}
