//! Reality: what the simulator says, beside what a device does.
//!
//! **The claim.** None of the paper's. Ours: with costs measured on a device beforehand (`simulate::measure`), the simulator's goodput is within 5 % of a
//! real run's and its 99th percentile within 10 %, under three kinds of arrivals: by Poisson, in bursts, and with most requests for few tenants.
//! Clockwork (OSDI '20, §6) rests on the same claim, that inference is predictable, and measures it so.
//!
//! **How.** Costs first, under the engine. Then the same arrivals, with the same seed, to the server's engine on the device, to the simulator, and to the engine
//! once more. Nothing is changed between workloads, and nothing is fitted to them. The simulator is compared with the mean of the two real runs; how far those are
//! from each other is printed beside it, since what reality does not repeat no simulator can foretell: that is the host's part of the gap.
//!
//! A 99th percentile is known no better than its parts agree: its interval is that of the mean of the ten tenths of the run (Student, 95 %). Most of that is the
//! arrivals', which all three runs have in common: a tenth with a long queue has it in all of them. So what is asked, how far the simulator is off, is known by how well
//! the ten tenths agree on it, each simulated over each real. A row is judged where that interval is narrower than the bar; else it says so, and wants a longer run or
//! a quieter machine.
//!
//! **What would refute it.** A row that is judged and not within both. Where a machine is shared with others its latencies are theirs: the figure wants a quiet one,
//! and on a CPU a core for whoever sends.

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

/// Answers in a part of a run without which its 99th percentile is that of nobody: two are beyond it.
const LEAST: u64 = 200;

/// Student's 97.5th percentile with nine degrees of freedom: a mean of ten parts lies within so many of its standard errors in 95 of 100 runs.
const STUDENT: f64 = 2.262;

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
    /// The same once more, with the same arrivals.
    pub again: Seen,
    /// What the simulator said.
    pub simulated: Seen,
    /// Simulated over real goodput, less one; real is the mean of both runs.
    pub goodput_off: f64,
    /// Simulated over real 99th percentile, less one.
    pub p99_off: f64,
    /// How far to both sides the interval of `p99_off` reaches, by how tenths of the runs agree on it: infinite where a run is too short to say.
    pub p99_known_to: f64,
    /// The second real 99th percentile over the first, less one: the host's part.
    pub p99_of_itself_off: f64,
    /// What of it.
    pub verdict: Verdict,
}

/// What a row shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Both are as near as they should be.
    Within,
    /// One of them is not.
    NotWithin,
    /// Goodput is near enough, and the percentile is not known well enough to judge it.
    NotJudged,
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
    /// How far to both sides its interval reaches, as part of it; infinite where the parts of the run are too short to say.
    pub p99_known_to: f64,
    /// The same percentile of each tenth of the run; empty where the run is too short for them.
    pub p99_ms_by_part: Vec<f64>,
    /// The part that was not let in.
    pub refused: f64,
}

impl Seen {
    fn of(row: &Row) -> Seen {
        let parts = &row.p99_ms_by_part;
        let enough = row.answered >= LEAST * parts.len() as u64;
        let parts = if enough { parts.clone() } else { Vec::new() };
        Seen {
            goodput: row.goodput,
            p50_ms: row.latency_ms.p50,
            p99_ms: row.latency_ms.p99,
            p99_known_to: half_interval(&parts) * parts.len().max(1) as f64
                / parts.iter().sum::<f64>().max(1e-9),
            p99_ms_by_part: parts,
            refused: (row.refused + row.expired) as f64 / row.sent.max(1) as f64,
        }
    }
}

/// Half the interval of the mean of what parts of a run say; infinite where there are none.
fn half_interval(parts: &[f64]) -> f64 {
    let count = parts.len() as f64;
    if parts.len() < 2 {
        return f64::INFINITY;
    }
    let mean = parts.iter().sum::<f64>() / count;
    let squares: f64 = parts.iter().map(|part| (part - mean).powi(2)).sum();
    STUDENT * (squares / (count - 1.0) / count).sqrt()
}

impl Workload {
    fn of(name: &'static str, [real, again]: [Seen; 2], simulated: Seen) -> Workload {
        let off = |of: fn(&Seen) -> f64| 2.0 * of(&simulated) / (of(&real) + of(&again)).max(1e-9) - 1.0;
        let (goodput_off, p99_off) = (off(|seen| seen.goodput), off(|seen| seen.p99_ms));
        let reals = real.p99_ms_by_part.iter().zip(&again.p99_ms_by_part);
        let parts = simulated.p99_ms_by_part.iter().zip(reals);
        let parts: Vec<f64> =
            parts.map(|(simulated, (real, again))| 2.0 * simulated / (real + again)).collect();
        let p99_known_to = half_interval(&parts);
        let verdict = match (goodput_off.abs() <= WITHIN.0, p99_off.abs() <= WITHIN.1) {
            (false, _) => Verdict::NotWithin,
            (true, _) if p99_known_to > WITHIN.1 => Verdict::NotJudged,
            (true, true) => Verdict::Within,
            (true, false) => Verdict::NotWithin,
        };
        let p99_of_itself_off = again.p99_ms / real.p99_ms.max(1e-9) - 1.0;
        Workload {
            name,
            real,
            again,
            simulated,
            goodput_off,
            p99_off,
            p99_known_to,
            p99_of_itself_off,
            verdict,
        }
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
        let (first, simulated) = (row(&mut real)?, row(&mut simulated)?);
        workloads.push(Workload::of(name, [first, row(&mut real)?], simulated));
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
            "{:<9} {:<10} {:>11} {:>9} {:>9} {:>8} {:>9}",
            "arrivals", "", "goodput/s", "p50 ms", "p99 ms", "±", "refused"
        )?;
        for workload in &self.workloads {
            let Workload { name, real, again, simulated, goodput_off, p99_off, .. } = workload;
            for (name, place, seen) in
                [(*name, "real", real), ("", "again", again), ("", "simulated", simulated)]
            {
                let Seen { goodput, p50_ms, p99_ms, p99_known_to, refused, .. } = seen;
                let (known, refused) =
                    (format!("{:.1}%", 100.0 * p99_known_to), format!("{:.1}%", 100.0 * refused));
                writeln!(
                    f,
                    "{name:<9} {place:<10} {goodput:>11.1} {p50_ms:>9.2} {p99_ms:>9.2} {known:>8} {refused:>9}"
                )?;
            }
            let verdict = match workload.verdict {
                Verdict::Within => "within 5 % and 10 %",
                Verdict::NotWithin => "NOT within 5 % and 10 %",
                Verdict::NotJudged => {
                    "not judged: the p99 is not known to 10 %, run longer or on a quieter machine"
                }
            };
            let (goodput, p99, known) = (100.0 * goodput_off, 100.0 * p99_off, 100.0 * workload.p99_known_to);
            writeln!(
                f,
                "{:<9} {:<10} {goodput:>+10.1}% {:>9} {p99:>+8.1}% {known:>7.1}%  {verdict}",
                "", "off by", ""
            )?;
            let itself = 100.0 * workload.p99_of_itself_off;
            writeln!(
                f,
                "{:<9} {:<10} {:>11} {:>9} {itself:>+8.1}%           the host: reality against itself",
                "", "", "", ""
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Ended, Level, Sample, Tally, Tenant, Times};

    /// A run whose tenths are a part more or less than the whole, in turn.
    fn seen(goodput: f64, p99_ms: f64, differ: f64) -> Seen {
        let part = |part: usize| p99_ms * if part.is_multiple_of(2) { 1.0 + differ } else { 1.0 - differ };
        let p99_ms_by_part: Vec<f64> = (0..10).map(part).collect();
        Seen { goodput, p50_ms: 1.0, p99_ms, p99_known_to: 0.0, p99_ms_by_part, refused: 0.0 }
    }

    #[test]
    fn a_row_is_within_where_goodput_and_the_percentile_are() {
        let real = || [seen(99.0, 9.0, 0.02), seen(101.0, 11.0, 0.02)];
        let verdict = |goodput, p99| Workload::of("w", real(), seen(goodput, p99, 0.02)).verdict;
        assert_eq!([verdict(96.0, 10.9), verdict(104.0, 9.1)], [Verdict::Within; 2]);
        assert_eq!([verdict(94.0, 10.0), verdict(100.0, 11.2), verdict(100.0, 8.8)], [Verdict::NotWithin; 3]);
        let itself = Workload::of("w", real(), seen(100.0, 10.0, 0.02)).p99_of_itself_off;
        assert!((itself - 2.0 / 9.0).abs() < 1e-12, "{itself}");
    }

    #[test]
    fn what_all_runs_have_in_common_is_no_doubt_and_what_they_have_not_is() {
        let of = |differ: f64, simulated: f64| {
            let real = || seen(100.0, 10.0, differ);
            Workload::of("w", [real(), real()], seen(100.0, 14.0, simulated))
        };
        let same = of(0.5, 0.5);
        assert!(same.p99_known_to < 1e-9, "{same:?}");
        assert_eq!(same.verdict, Verdict::NotWithin);
        // Tenths that say 1.4 times 0.8 and 1.2 in turn: a deviation of 0.295, over the root of ten.
        let other = of(0.0, 0.2);
        assert!((other.p99_known_to / (STUDENT * 0.2951 / 10f64.sqrt()) - 1.0).abs() < 0.01, "{other:?}");
        assert_eq!(other.verdict, Verdict::NotJudged);
        let short = Seen { p99_ms_by_part: Vec::new(), ..seen(90.0, 10.0, 0.0) };
        let short = Workload::of("w", [seen(100.0, 10.0, 0.0), seen(100.0, 10.0, 0.0)], short);
        assert_eq!(
            (short.p99_known_to, short.verdict),
            (f64::INFINITY, Verdict::NotWithin),
            "by its goodput"
        );
    }

    #[test]
    fn a_percentile_is_known_as_well_as_its_parts_agree() {
        let times = Times { warmup: Duration::ZERO, length: Duration::from_secs(10), grace: Duration::ZERO };
        let known = |each: u64, slower: u64| {
            let tenants = vec![Tenant { name: "t".into(), slo: None }];
            let mut tally = Tally::new(tenants, times, 1);
            for (second, sample) in (0..10).flat_map(|second| (0..each).map(move |sample| (second, sample))) {
                let latency = Duration::from_millis(10 + slower * (second % 2) + sample % 3);
                let (due, lag) = (Duration::from_secs(second), Duration::ZERO);
                tally.count(&Sample { tenant: 0, due, lag, latency, ended: Ended::Answered });
            }
            Seen::of(&tally.row(Level::Trace)).p99_known_to
        };
        assert!(known(300, 0) < 0.001);
        // Parts of 12 and of 16 ms: a deviation of 2.1 from 14, over the root of ten.
        assert!(
            (known(300, 4) / (STUDENT * 2.108 / 10f64.sqrt() / 14.0) - 1.0).abs() < 0.02,
            "{}",
            known(300, 4)
        );
        assert_eq!(known(100, 0), f64::INFINITY);
    }
}
