//! Goodput: the highest rate at which 99 of 100 requests are answered in time, by policy.
//!
//! **The claim** (paper, §4 and §5: a scheduler that merges tenants' kernels "can meet SLOs" at loads where the others cannot; measured as Clockwork,
//! OSDI '20, and AlpaServe, OSDI '23, do). Tenants of one architecture, popularity by Zipf's law, requests in an open loop, one SLO for all.
//!
//! **The expected shape.** At low rates every policy is in time. Each bends down at its own rate: tenants in turn where single requests fill the
//! device's time, side by side somewhat later, and shared launches last. `exclusive` batches each tenant alone: with many tenants it is little better than
//! turns, as most have one request waiting.
//!
//! **What would refute it.** Another policy whose rate at 99 % is half of space-time's or more, on a device that one request leaves
//! idle. On a CPU, which one request keeps busy, no large difference is expected, and the figure says so.

use super::plot::Plot;
use crate::load::Row;
use anyhow::{Result, ensure};
use serde::Serialize;
use std::fmt;
use tessera_core::Policy;

/// The part of requests that must be in time.
pub const WANTED: f64 = 0.99;

/// Rates are found to this part of themselves.
const CLOSE: f64 = 0.05;

/// Rates grow by this factor until one is too high.
const GROWTH: f64 = 2.0;

/// No machine of ours answers more than this.
const MOST: f64 = 1e7;

/// The figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// `goodput`.
    pub bench: &'static str,
    /// What was measured, in words.
    pub about: String,
    /// What counts as in time, in milliseconds.
    pub slo_ms: f64,
    /// A policy each.
    pub policies: Vec<Found>,
}

/// One policy.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Found {
    /// Which.
    pub policy: &'static str,
    /// The highest rate that kept [`WANTED`] in time, in requests per second; zero when even the lowest did not.
    pub rate: f64,
    /// Every rate that was tried, in the order of trying.
    pub tried: Vec<Tried>,
}

/// One rate.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Tried {
    /// Requests per second, as asked.
    pub rate: f64,
    /// The part that was answered in time.
    pub in_time: f64,
    /// Requests in time per second.
    pub goodput: f64,
    /// Of answered requests, in milliseconds.
    pub p99_ms: f64,
}

impl Tried {
    fn of(rate: f64, row: &Row) -> Tried {
        Tried { rate, in_time: row.in_slo.unwrap_or(0.0), goodput: row.goodput, p99_ms: row.latency_ms.p99 }
    }
}

/// Finds every policy's rate, from `lowest` up. `measure` runs a policy at a rate; the tenants have an SLO.
pub fn run(
    about: String,
    slo_ms: f64,
    policies: &[Policy],
    lowest: f64,
    measure: &mut dyn FnMut(Policy, f64) -> Result<Row>,
) -> Result<Report> {
    ensure!(lowest > 0.0 && lowest.is_finite(), "the lowest rate is above zero");
    let mut found = Vec::with_capacity(policies.len());
    for &policy in policies {
        let mut tried = Vec::new();
        let rate = highest(lowest, &mut |rate| {
            let one = Tried::of(rate, &measure(policy, rate)?);
            let in_time = one.in_time;
            tried.push(one);
            Ok(in_time >= WANTED)
        })?;
        found.push(Found { policy: policy.name(), rate, tried });
    }
    Ok(Report { bench: "goodput", about, slo_ms, policies: found })
}

/// The highest rate that is good, to [`CLOSE`]: doubled from `lowest` until one is not, then halved between the two; zero when `lowest` is not.
pub(super) fn highest(lowest: f64, is_good: &mut dyn FnMut(f64) -> Result<bool>) -> Result<f64> {
    let (mut good, mut bad) = (0.0, lowest);
    while is_good(bad)? {
        good = bad;
        bad *= GROWTH;
        ensure!(
            bad <= MOST,
            "every rate up to {good:.0} a second is in time; the SLO is too loose to find a limit"
        );
    }
    while good > 0.0 && bad > good * (1.0 + CLOSE) {
        let between = (good + bad) / 2.0;
        if is_good(between)? {
            good = between;
        } else {
            bad = between;
        }
    }
    Ok(good)
}

impl Report {
    /// In time against rate, a line for each policy.
    pub fn plot(&self) -> Plot {
        let line = |found: &Found| {
            let points = found.tried.iter().map(|tried| (tried.rate, 100.0 * tried.in_time)).collect();
            (format!("{} ({:.0}/s)", found.policy, found.rate), points)
        };
        Plot {
            title: format!("Requests in time, SLO {} ms: {}", self.slo_ms, self.about),
            x: "requests per second".to_owned(),
            y: "in time, %".to_owned(),
            mark: Some((100.0 * WANTED, "99 %".to_owned())),
            lines: self.policies.iter().map(line).collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "goodput: {}; the highest rate with {:.0} % in {} ms",
            self.about,
            100.0 * WANTED,
            self.slo_ms
        )?;
        writeln!(f, "{:<11} {:>12} {:>12} {:>10}", "policy", "requests/s", "ours/this", "p99 ms")?;
        let ours = self.policies.iter().find(|found| found.policy == Policy::SpaceTime.name());
        for Found { policy, rate, tried } in &self.policies {
            let over = ours
                .filter(|_| *rate > 0.0)
                .map_or("–".to_owned(), |ours| format!("{:.2}x", ours.rate / rate));
            let p99 = tried.iter().find(|tried| tried.rate == *rate);
            let p99 = p99.map_or("–".to_owned(), |tried| format!("{:.2}", tried.p99_ms));
            writeln!(f, "{policy:<11} {rate:>12.0} {over:>12} {p99:>10}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_found_to_a_part_of_itself_wherever_the_search_begins() {
        for lowest in [1.0, 10.0, 900.0] {
            let mut tries = 0;
            let found = highest(lowest, &mut |rate| {
                tries += 1;
                Ok(rate <= 1000.0)
            });
            let found = found.unwrap();
            assert!((1000.0 / (1.0 + CLOSE)..=1000.0).contains(&found), "{found} from {lowest}");
            assert!(tries < 20, "{tries}");
        }
        assert_eq!(highest(10.0, &mut |_| Ok(false)).unwrap(), 0.0);
        let loose = highest(10.0, &mut |_| Ok(true)).unwrap_err().to_string();
        assert!(loose.contains("too loose"), "{loose}");
    }
}
