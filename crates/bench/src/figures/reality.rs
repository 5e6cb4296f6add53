//! Reality: what the simulator says, beside what a device does.
//!
//! **The claim.** None of the paper's. Ours: with costs measured on a device beforehand (`simulate::measure`), the simulator's goodput is within 5 % of a
//! real run's and its 99th percentile within 10 %, under three kinds of arrivals: by Poisson, in bursts, and with most requests for few tenants.
//! Clockwork (OSDI '20, §6) rests on the same claim, that inference is predictable, and measures it so.
//!
//! **How.** Costs first, under the engine. Then the same arrivals, with the same seed, to the server's engine on the device and to the simulator. Nothing is
//! changed between workloads, and nothing is fitted to them.
//!
//! **What would refute it.** A row that is not within both. Where a machine is shared with others its latencies are theirs: the figure wants a quiet one.

use super::place::{Place, Setting};
use crate::arrivals::{Gaps, Popularity};
use crate::load::Row;
use crate::simulate::{self, Measuring};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::Policy;
use tessera_scheduler::{CostTable, Size};

/// How far goodput may be off, and the 99th percentile.
const WITHIN: (f64, f64) = (0.05, 0.10);

/// Part of the device's time that requests would take if each ran alone, where no rate is given.
const LOAD: f64 = 0.6;

/// How long each point of the costs is measured.
const POINT: Duration = Duration::from_millis(400);

/// Fewer tenants of a model than this are not loaded to measure its costs: launches carry items too.
const FEWEST: u32 = 8;

/// What is asked.
const WORKLOADS: [(&str, Gaps, Popularity); 3] = [
    ("poisson", Gaps::Poisson, Popularity::Uniform),
    ("bursts", Gaps::Gamma { cv: 3.0 }, Popularity::Uniform),
    ("zipf", Gaps::Poisson, Popularity::Zipf(1.0)),
];

/// The figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// `reality`.
    pub bench: &'static str,
    /// What was measured, in words.
    pub about: String,
    /// Under which policy.
    pub policy: &'static str,
    /// Requests per second, as asked.
    pub rate: f64,
    /// A workload each.
    pub workloads: Vec<Workload>,
}

/// One kind of arrivals.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Workload {
    /// Which.
    pub name: &'static str,
    /// What the device did.
    pub real: Seen,
    /// What the simulator said.
    pub simulated: Seen,
    /// Simulated over real goodput, less one.
    pub goodput_off: f64,
    /// Simulated over real 99th percentile, less one.
    pub p99_off: f64,
    /// Whether both are as near as they should be.
    pub within: bool,
}

/// What callers saw.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Seen {
    /// Requests in time per second.
    pub goodput: f64,
    /// Of answered requests, in milliseconds.
    pub p50_ms: f64,
    /// The 99th of 100.
    pub p99_ms: f64,
    /// The part that was not let in.
    pub refused: f64,
}

impl Seen {
    fn of(row: &Row) -> Seen {
        Seen {
            goodput: row.goodput,
            p50_ms: row.latency_ms.p50,
            p99_ms: row.latency_ms.p99,
            refused: (row.refused + row.expired) as f64 / row.sent.max(1) as f64,
        }
    }
}

impl Workload {
    fn of(name: &'static str, real: Seen, simulated: Seen) -> Workload {
        let off = |of: fn(&Seen) -> f64| of(&simulated) / of(&real).max(1e-9) - 1.0;
        let (goodput_off, p99_off) = (off(|seen| seen.goodput), off(|seen| seen.p99_ms));
        let within = goodput_off.abs() <= WITHIN.0 && p99_off.abs() <= WITHIN.1;
        Workload { name, real, simulated, goodput_off, p99_off, within }
    }
}

/// Measures costs on the setting's device, then every workload on it and in the simulator; at `rate`, or at one that the costs suggest.
/// `heard` is told what goes on.
pub fn run(
    setting: Setting,
    policy: Policy,
    rate: Option<f64>,
    heard: &mut dyn FnMut(&str),
) -> Result<Report> {
    let costs = simulate::measure(&measuring(&setting), heard)?;
    let plans = setting.models.iter().map(|model| costs.plan(model.architecture.name));
    let alone =
        plans.map(|plan| costs.cost(&plan?, Size { lanes: 1, items: 1 }).context("every model was measured"));
    let alone = alone.collect::<Result<Vec<Duration>>>()?;
    let mean = alone.iter().sum::<Duration>().as_secs_f64() / alone.len() as f64;
    let rate = rate.unwrap_or(LOAD / mean);
    let mut simulated = Place::simulated(setting.clone(), costs)?;
    let mut real = Place::new(Setting { partitions: "1".to_owned(), ..setting })?;
    let about = format!("{} tenants, {}", real.setting().tenants.len(), real.about(policy, heard)?);
    let mut workloads = Vec::with_capacity(WORKLOADS.len());
    for (name, gaps, popularity) in WORKLOADS {
        heard(name);
        let mut row = |place: &mut Place| -> Result<Seen> {
            place.ask(gaps, popularity);
            Ok(Seen::of(&place.row(policy, rate, heard)?))
        };
        workloads.push(Workload::of(name, row(&mut real)?, row(&mut simulated)?));
    }
    real.close();
    Ok(Report { bench: "reality", about, policy: policy.name(), rate, workloads })
}

/// How the costs of a setting's device are measured: with as many tenants of a model as the setting has, so that launches grow as large.
pub fn measuring(setting: &Setting) -> Measuring {
    let of_each = setting.tenants.len().div_ceil(setting.models.len().max(1));
    let most = u32::try_from(of_each).unwrap_or(u32::MAX).clamp(FEWEST, 32);
    Measuring {
        models: setting.models.clone(),
        most: NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN),
        device: setting.device.clone(),
        precision: setting.precision.clone(),
        length: POINT,
        seed: setting.seed,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { about, policy, rate, .. } = self;
        writeln!(f, "reality: {about}; {policy}, {rate:.0} requests a second\n")?;
        writeln!(
            f,
            "{:<9} {:<10} {:>11} {:>9} {:>9} {:>9}",
            "arrivals", "", "goodput/s", "p50 ms", "p99 ms", "refused"
        )?;
        for Workload { name, real, simulated, goodput_off, p99_off, within } in &self.workloads {
            for (name, place, Seen { goodput, p50_ms, p99_ms, refused }) in
                [(*name, "real", real), ("", "simulated", simulated)]
            {
                let refused = format!("{:.1}%", 100.0 * refused);
                writeln!(
                    f,
                    "{name:<9} {place:<10} {goodput:>11.1} {p50_ms:>9.2} {p99_ms:>9.2} {refused:>9}"
                )?;
            }
            let (goodput, p99) = (100.0 * goodput_off, 100.0 * p99_off);
            let verdict = if *within { "within 5 % and 10 %" } else { "NOT within 5 % and 10 %" };
            writeln!(f, "{:<9} {:<10} {goodput:>+10.1}% {:>9} {p99:>+8.1}%  {verdict}", "", "off by", "")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_within_where_goodput_and_the_percentile_are() {
        let seen = |goodput, p99_ms| Seen { goodput, p50_ms: 1.0, p99_ms, refused: 0.0 };
        let within = |goodput, p99| Workload::of("w", seen(100.0, 10.0), seen(goodput, p99)).within;
        assert!(within(96.0, 10.9) && within(104.0, 9.1));
        assert!(!within(94.0, 10.0) && !within(100.0, 11.2) && !within(100.0, 8.8));
    }
}
