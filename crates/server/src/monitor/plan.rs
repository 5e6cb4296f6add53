//! One plan on one device: what its launches take over what was predicted, and which steps take it.
//!
//! ```text
//!   launch  took 900 µs, predicted 1000        ▏conv 1 ▏conv 2      ▏ … ▏head ▏   timed step by step, one launch in some dozens
//!                                                9 %     14 %                     a step's share of all sampled launches' time
//! ```
//! A step's time is its part of its launches' time, so it means the same on a device that runs lanes one after the other, each on a core, and on one that merges
//! them. A step was predicted to take its usual share of what its launch was predicted to take: where a launch is slow, the step that is to blame stands out.

use crate::monitor::sketch::Recent;
use crate::monitor::{Done, quantiles};
use serde_json::{Value, json};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tessera_core::PlanKey;
use tessera_device::Rates;
use tessera_planner::{Plan, SlotLayout, Traffic};
use tessera_scheduler::{Size, Timed};

/// A launch that is over.
#[derive(Clone, Copy, Debug)]
pub struct Launched<'a> {
    /// When it was heard of.
    pub at: Instant,
    /// Its lanes and items.
    pub size: Size,
    /// What it took, with what its host does for it, beside what was predicted.
    pub timed: Timed,
    /// What the device computed for it.
    pub computed: Duration,
    /// The part of the device that it had, from 0 to 1.
    pub part: f64,
    /// Where steps were timed: per lane, or for all of them together, what each took.
    pub steps: Option<&'a [Vec<Duration>]>,
}

/// A plan that is watched.
#[derive(Debug)]
pub struct Watch {
    /// Which plan.
    pub key: PlanKey,
    steps: Vec<Step>,
    /// Operations of one item, and bytes, of all steps.
    flops: u64,
    traffic: Traffic,
    seen: Mutex<Seen>,
}

/// What is known of a step before it runs.
#[derive(Debug)]
struct Step {
    name: String,
    kind: &'static str,
    flops: u64,
    traffic: Traffic,
}

#[derive(Debug, Default)]
struct Seen {
    launches: u64,
    took: Recent,
    over_predicted: Recent,
    sampled: Sampled,
}

/// The launches whose steps were timed, all together.
#[derive(Debug, Default)]
struct Sampled {
    launches: u64,
    lanes: u64,
    items: u64,
    seconds: f64,
    /// One for each step.
    steps: Vec<StepSeen>,
}

#[derive(Debug, Default)]
struct StepSeen {
    seconds: f64,
    /// The same, each launch by the part of the device that it had: in what all of the device would have done as much arithmetic.
    of_whole: f64,
    took: Recent,
    over_predicted: Recent,
}

/// A step's share of the sampled launches' time, from 0 to 1.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct StepShare {
    pub(super) step: usize,
    pub(super) name: String,
    pub(super) share: f64,
}

impl Watch {
    /// Of a plan with weights laid out like this, of which nothing was seen yet.
    pub fn new(plan: &Plan, layout: &SlotLayout) -> Watch {
        let step = |step: &tessera_planner::plan::Step| Step {
            name: step.name.clone(),
            kind: step.kind.name(),
            flops: step.flops,
            traffic: plan.traffic(layout, step),
        };
        let steps: Vec<Step> = plan.steps.iter().map(step).collect();
        let traffic = steps.iter().map(|step| step.traffic).sum();
        Watch { key: plan.key.clone(), steps, flops: plan.flops_per_item(), traffic, seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a launch of this size does.
    pub fn work(&self, size: Size) -> Done {
        Done {
            flops: self.flops as f64 * f64::from(size.items),
            bytes: self.traffic.of_launch(size.lanes, size.items),
        }
    }

    /// A launch of the plan is over.
    pub fn launched(&self, launch: Launched<'_>) {
        let mut seen = self.seen();
        seen.launches += 1;
        seen.took.record(launch.at, launch.computed.as_secs_f64());
        let Timed { took, predicted, .. } = launch.timed;
        if let Some(predicted) = predicted.filter(|predicted| !predicted.is_zero()) {
            seen.over_predicted.record(launch.at, took.as_secs_f64() / predicted.as_secs_f64());
        }
        if let Some(rows) = launch.steps {
            seen.sampled.add(self.steps.len(), launch, rows);
        }
    }

    /// Launches, and quantiles of what they took in seconds and of that over what was predicted.
    pub(super) fn summary(&self, at: Instant) -> (u64, super::Sketch, super::Sketch) {
        let seen = self.seen();
        (seen.launches, seen.took.read(at), seen.over_predicted.read(at))
    }

    /// The steps that take most, and their shares.
    pub(super) fn longest(&self, count: usize) -> Vec<StepShare> {
        let seen = self.seen();
        let mut order: Vec<usize> = (0..seen.sampled.steps.len()).collect();
        order.sort_by(|&a, &b| seen.sampled.steps[b].seconds.total_cmp(&seen.sampled.steps[a].seconds));
        order.truncate(count);
        let share = |index: usize| StepShare {
            step: index,
            name: self.steps[index].name.clone(),
            share: seen.sampled.steps[index].seconds / seen.sampled.seconds,
        };
        order.into_iter().map(share).collect()
    }

    /// As readers get it: steps in the order of the plan.
    pub(super) fn json(&self, at: Instant, device: &str, peak: Option<Rates>) -> Value {
        let seen = self.seen();
        let Sampled { launches, lanes, items, seconds, ref steps } = seen.sampled;
        let step = |(index, (step, seen)): (usize, (&Step, &StepSeen))| {
            let bytes = step.traffic.per_item.0 as f64 * items as f64
                + step.traffic.per_lane.0 as f64 * lanes as f64
                + step.traffic.per_launch.0 as f64 * launches as f64;
            let rates = Rates {
                flops_per_s: step.flops as f64 * items as f64 / seen.seconds.max(1e-9),
                bytes_per_s: bytes / seen.seconds.max(1e-9),
            };
            // A part of the device has its part of the arithmetic, and the way to memory with the others.
            let whole = seen.of_whole / seen.seconds.max(1e-9);
            let of_peak = |peak: Rates| {
                let flops = rates.flops_per_s / (peak.flops_per_s * whole.max(1e-9));
                100.0 * flops.max(rates.bytes_per_s / peak.bytes_per_s)
            };
            json!({
                "step": index,
                "name": step.name,
                "kind": step.kind,
                "share_percent": 100.0 * seen.seconds / seconds,
                "ms": quantiles(&seen.took.read(at), 1e3),
                "over_predicted": quantiles(&seen.over_predicted.read(at), 1.0),
                "gflops_per_s": rates.flops_per_s / 1e9,
                "gbytes_per_s": rates.bytes_per_s / 1e9,
                "of_peak_percent": peak.map(of_peak),
            })
        };
        json!({
            "device": device,
            "class": self.key.class.to_string(),
            "dims": *self.key.dims,
            "precision": self.key.precision.name(),
            "launches": seen.launches,
            "ms": quantiles(&seen.took.read(at), 1e3),
            "over_predicted": quantiles(&seen.over_predicted.read(at), 1.0),
            "sampled": launches,
            "steps": self.steps.iter().zip(steps).enumerate().map(step).collect::<Vec<_>>(),
        })
    }
}

impl Sampled {
    fn add(&mut self, steps: usize, launch: Launched<'_>, rows: &[Vec<Duration>]) {
        let all: Duration = rows.iter().flatten().sum();
        if all.is_zero() || rows.iter().any(|row| row.len() != steps) {
            return;
        }
        self.steps.resize_with(steps, StepSeen::default);
        let whole = launch.computed.as_secs_f64();
        let before = self.seconds;
        for (index, step) in self.steps.iter_mut().enumerate() {
            let mine: Duration = rows.iter().map(|row| row[index]).sum();
            let took = whole * mine.as_secs_f64() / all.as_secs_f64();
            step.took.record(launch.at, took);
            let usual = step.seconds / before.max(1e-9);
            if let Some(predicted) = launch.timed.predicted.filter(|_| usual > 0.0) {
                let predicted = predicted.as_secs_f64() * usual;
                step.over_predicted.record(launch.at, took / predicted.max(1e-9));
            }
            step.seconds += took;
            step.of_whole += took * launch.part;
        }
        self.seconds += whole;
        self.launches += 1;
        self.lanes += u64::from(launch.size.lanes);
        self.items += u64::from(launch.size.items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_core::{Bytes, ClassId, Precision};

    const ONE: Size = Size { lanes: 1, items: 1 };

    fn watch() -> Watch {
        let traffic = Traffic { per_item: Bytes(1000), per_lane: Bytes(9000), per_launch: Bytes(0) };
        let step = |name: &str, flops| Step { name: name.to_owned(), kind: "gemm", flops, traffic };
        Watch {
            key: PlanKey { class: ClassId([7; 16]), dims: [3].into(), precision: Precision::Fp32 },
            steps: vec![step("first", 1000), step("second", 3000)],
            flops: 4000,
            traffic: Traffic { per_item: Bytes(2000), per_lane: Bytes(18000), per_launch: Bytes(0) },
            seen: Mutex::default(),
        }
    }

    fn run(watch: &Watch, rows: &[Vec<Duration>]) {
        run_on(1.0, watch, rows);
    }

    fn run_on(part: f64, watch: &Watch, rows: &[Vec<Duration>]) {
        let micros = Duration::from_micros;
        let computed = rows.iter().flatten().sum();
        let timed = Timed { took: computed, predicted: Some(micros(100)), stood_back: Duration::ZERO };
        let at = Instant::now();
        watch.launched(Launched { at, size: ONE, timed, computed, part, steps: Some(rows) });
    }

    fn near(value: &Value, wanted: f64) -> bool {
        value.as_f64().is_some_and(|value| (value / wanted - 1.0).abs() < 0.021)
    }

    #[test]
    fn the_step_that_made_a_launch_slow_stands_out_over_its_prediction() {
        let (watch, micros) = (watch(), Duration::from_micros);
        (0..9).for_each(|_| run(&watch, &[vec![micros(25), micros(75)]]));
        run(&watch, &[vec![micros(25), micros(750)]]);
        let shown = watch.json(Instant::now(), "cpu:0", None);
        assert_eq!((&shown["launches"], &shown["sampled"]), (&json!(10), &json!(10)));
        let [first, second] = [&shown["steps"][0], &shown["steps"][1]];
        assert!(near(&first["over_predicted"]["max"], 1.0), "{shown}");
        assert!(near(&second["over_predicted"]["max"], 10.0) && near(&second["ms"]["p50"], 0.075), "{shown}");
        assert!(near(&second["share_percent"], 100.0 * (9.0 * 75.0 + 750.0) / (900.0 + 775.0)), "{shown}");
        assert!(near(&shown["over_predicted"]["p50"], 1.0), "{shown}");
        assert_eq!(watch.longest(1)[0].name, "second");
    }

    #[test]
    fn a_steps_time_is_its_part_of_the_launch_whether_lanes_ran_side_by_side_or_merged() {
        let micros = Duration::from_micros;
        let [apart, merged] = [watch(), watch()];
        let timed = Timed { took: micros(100), predicted: None, stood_back: Duration::ZERO };
        let (at, part, computed) = (Instant::now(), 1.0, micros(100));
        let launch = Launched { at, size: ONE, timed, computed, part, steps: None };
        // Two cores worked a hundred microseconds each.
        let lanes = [vec![micros(20), micros(80)], vec![micros(40), micros(60)]];
        apart.launched(Launched { steps: Some(&lanes), ..launch });
        merged.launched(Launched { steps: Some(&[vec![micros(30), micros(70)]]), ..launch });
        for watch in [apart, merged] {
            let shown = watch.json(Instant::now(), "cpu:0", None);
            assert!(near(&shown["steps"][1]["ms"]["p50"], 0.07), "{shown}");
            assert_eq!(shown["over_predicted"]["count"], 0, "nothing was predicted");
        }
    }

    #[test]
    fn what_a_step_does_in_a_second_is_held_against_the_devices_peak() {
        let watch = watch();
        run(&watch, &[vec![Duration::from_micros(10), Duration::from_micros(10)]]);
        let peak = Rates { flops_per_s: 1e9, bytes_per_s: 4e9 };
        let shown = watch.json(Instant::now(), "cpu:0", Some(peak));
        let [first, second] = [&shown["steps"][0], &shown["steps"][1]];
        assert!(near(&first["gflops_per_s"], 0.1) && near(&first["gbytes_per_s"], 1.0), "{shown}");
        assert!(near(&first["of_peak_percent"], 25.0), "it is bound by memory: {shown}");
        assert!(near(&second["of_peak_percent"], 30.0), "and the second by arithmetic: {shown}");
        assert_eq!(watch.work(Size { lanes: 2, items: 3 }), Done { flops: 12000.0, bytes: 42000.0 });
    }

    #[test]
    fn on_half_of_the_device_arithmetic_is_held_against_half_of_the_peak_and_bytes_against_all() {
        let watch = watch();
        run_on(0.5, &watch, &[vec![Duration::from_micros(10), Duration::from_micros(10)]]);
        let peak = Rates { flops_per_s: 1e9, bytes_per_s: 4e9 };
        let shown = watch.json(Instant::now(), "cpu:0", Some(peak));
        let [first, second] = [&shown["steps"][0], &shown["steps"][1]];
        assert!(near(&first["of_peak_percent"], 25.0), "it is bound by memory: {shown}");
        assert!(near(&second["of_peak_percent"], 60.0), "and the second by half of the arithmetic: {shown}");
    }

    #[test]
    fn a_launch_that_told_of_no_time_adds_no_sample() {
        let watch = watch();
        run(&watch, &[vec![Duration::ZERO; 2]]);
        let shown = watch.json(Instant::now(), "cpu:0", None);
        assert_eq!((&shown["sampled"], &shown["steps"]), (&json!(0), &json!([])));
    }
}
