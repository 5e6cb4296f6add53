//! Where a launch's time goes: every step of the plan, beside what the hardware would need for it.
//!
//! The floor of a step is the longer of two times: its operations at the card's rate, and the bytes that it must move at the card's bandwidth
//! (each lane's weights and every item's inputs and outputs, each once). Lost is what a step took beyond its floor; the table is sorted by it.
//! On a CPU all lanes run on one core, one after the other, and the rates are those that the core showed at that moment; a step whose numbers
//! are still in a cache can be quicker than its floor.

use serde::Serialize;
use std::fmt;
use tessera_core::Precision;
use tessera_device::{Rates, StepTime};
use tessera_planner::{Plan, SlotLayout};

/// What a card, or a core, can do.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Peak {
    /// Dense operations per second in one precision, in units of 10¹².
    pub tflops: f64,
    /// Bytes per second to and from its memory, in units of 10⁹.
    pub gbytes_per_s: f64,
}

impl Peak {
    /// What was measured on a card like the one described; `None` for a device that nobody measured.
    pub fn of(description: &str, precision: Precision) -> Option<Peak> {
        Rates::of_card(description, precision).map(Peak::measured)
    }

    /// What a device measured of itself.
    pub fn measured(rates: Rates) -> Peak {
        Peak { tflops: rates.flops_per_s / 1e12, gbytes_per_s: rates.bytes_per_s / 1e9 }
    }
}

/// One step of a launch.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StepReport {
    /// The step's name in the plan.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// What it took; next to nothing where another step's kernel does it, which then has the time of both.
    pub us: f64,
    /// Operations per second, in units of 10¹².
    pub tflops: f64,
    /// Bytes that it must move per second, in units of 10⁹.
    pub gbytes_per_s: f64,
    /// What the hardware would need; `null` where its rates are not known.
    pub floor_us: Option<f64>,
}

impl StepReport {
    fn lost_us(&self) -> f64 {
        self.us - self.floor_us.unwrap_or(0.0)
    }
}

/// All steps of a launch of `lanes` lanes with `items` items in all, the one that loses most first.
pub(super) fn report(
    plan: &Plan,
    layout: &SlotLayout,
    (lanes, items): (u32, u32),
    times: &[StepTime],
    peak: Option<Peak>,
) -> Vec<StepReport> {
    let mut steps: Vec<StepReport> = times
        .iter()
        .map(|time| {
            let step = &plan.steps[time.step];
            let us = time.took.as_secs_f64() * 1e6;
            let flops = (step.flops * u64::from(items)) as f64;
            let bytes = plan.traffic(layout, step).of_launch(lanes, items);
            let floor = |peak: Peak| (flops / peak.tflops / 1e6).max(bytes / peak.gbytes_per_s / 1e3);
            StepReport {
                name: step.name.clone(),
                kind: step.kind.name(),
                us,
                tflops: flops / us / 1e6,
                gbytes_per_s: bytes / us / 1e3,
                floor_us: peak.map(floor),
            }
        })
        .collect();
    steps.sort_by(|a, b| b.lost_us().total_cmp(&a.lost_us()));
    steps
}

/// The table.
pub(super) struct Table<'a>(pub(super) &'a [StepReport]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: f64 = self.0.iter().map(|step| step.us).sum();
        let floor: f64 = self.0.iter().filter_map(|step| step.floor_us).sum();
        writeln!(f, "{} steps one after the other: {total:.0} µs, floor {floor:.0} µs", self.0.len())?;
        let flops: f64 = self.0.iter().map(|step| step.tflops * step.us).sum();
        writeln!(f, "on the whole {:.3} TFLOP/s", flops / total)?;
        let heads = ["µs", "floor µs", "lost µs", "of floor", "TFLOP/s", "GB/s"];
        writeln!(
            f,
            "{:>9} {:>9} {:>9} {:>9} {:>9} {:>9}  step",
            heads[0], heads[1], heads[2], heads[3], heads[4], heads[5]
        )?;
        for step in self.0 {
            let floor = step.floor_us.unwrap_or(0.0);
            writeln!(
                f,
                "{:>9.1} {:>9.1} {:>9.1} {:>8.0}% {:>9.3} {:>9.1}  {} ({})",
                step.us,
                floor,
                step.lost_us(),
                100.0 * floor / step.us,
                step.tflops,
                step.gbytes_per_s,
                step.name,
                step.kind
            )?;
        }
        Ok(())
    }
}
