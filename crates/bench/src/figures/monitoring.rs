//! Monitoring: what it costs to watch launches and to time their steps.
//!
//! **The claim** (the paper, §4: "monitoring inference latencies per-kernel" is what lets it reallocate; ours: that can be left on). A server that watches every launch and times the
//! steps of some answers within 1 % of what it answers unwatched.
//!
//! **The expected shape.** Watched as by default, no difference beyond the rounds' noise. With the steps of every launch timed: little on a card, where kernels tell by themselves when they
//! began, and most on cores for a network of tiny steps, each of which then costs a look at the clock.
//!
//! **What would refute it.** More than 1 % fewer answers a second as watched by default, by the median over rounds, on any network.
//!
//! Closed loop, as many tenants as there are, some requests of each on their way: the engine and the device are both busy, so whatever either does more is seen. In every round each way
//! runs once, the order turned round every time, and a way is compared with the unwatched run of its own round.

use super::ask::Ask;
use super::made::{Claim, Figure, Verdict};
use super::ways;
use crate::spread::Spread;
use crate::tenants::{Crowd, Options};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;
use std::num::NonZeroU32;
use tessera_core::Policy;
use tessera_device::StepTiming;

/// Requests of each tenant on their way, as many as keep a card busy.
const IN_FLIGHT: usize = 3;

/// What monitoring may cost.
const MOST: f64 = 0.01;

/// Unwatched, as by default, and with the steps of every launch timed.
const WAYS: [StepTiming; 3] = [StepTiming::Off, StepTiming::Auto, StepTiming::OneIn(NonZeroU32::MIN)];

/// What was measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// What it ran on.
    pub device: String,
    /// How numbers were held.
    pub precision: &'static str,
    /// By network, then by way.
    pub rows: Vec<WatchedRow>,
}

/// One network, watched in one way.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct WatchedRow {
    /// The network.
    pub model: &'static str,
    /// Tenants that ask.
    pub tenants: usize,
    /// Of how many launches the steps of one are timed; `off` where none is watched.
    pub monitor: String,
    /// Of each round.
    pub inferences_per_s: Spread,
    /// The part of the unwatched run's answers that is missing, of each round; `null` of the unwatched run itself.
    pub costs: Option<Spread>,
}

/// Measures.
pub fn run(ask: &Ask, heard: &mut dyn FnMut(&str)) -> Result<Report> {
    // A network of a size that is served, and one of steps as small as they get.
    let (models, many) = match (ask.quick, ask.is_card()) {
        (true, _) => (["mobilenet-v2", "mlp"], 2),
        (false, true) => (["resnet-50", "mobilenet-v2"], 32),
        (false, false) => (["mobilenet-v2", "mlp"], 8),
    };
    let many = many.min(ask.tenants);
    let rounds = ask.rounds.max(3);
    let length = ask.run_length(0.6, models.len() * WAYS.len() * rounds);
    let mut report = Report { device: String::new(), precision: ask.precision.name(), rows: Vec::new() };
    for name in models {
        let options = ways::tenants(ask, name, ask.precision, many, &[Policy::SpaceTime])?;
        let options = Options { in_flight: IN_FLIGHT, ..options };
        let crowd = Crowd::gather(&options, many, heard)?;
        report.device = crowd.device();
        let measured = ways::in_rounds(&WAYS, rounds, &mut |monitor| {
            crowd.watch(Policy::SpaceTime, monitor);
            Ok(crowd.closed_by(Policy::SpaceTime, many, IN_FLIGHT, length)?.inferences_per_s)
        })?;
        crowd.leave();
        let model = options.model.architecture.name;
        let rows = rows((model, many), measured)?;
        rows.iter().for_each(|row| heard(&row.to_string()));
        report.rows.extend(rows);
    }
    Ok(report)
}

/// Ways with their answers a second by round, the unwatched one first.
fn rows(
    (model, tenants): (&'static str, usize),
    measured: Vec<(StepTiming, Vec<f64>)>,
) -> Result<Vec<WatchedRow>> {
    let mut rows: Vec<WatchedRow> = Vec::with_capacity(measured.len());
    for (monitor, rounds) in measured {
        let inferences_per_s = Spread::of(rounds).context("every way runs at least once")?;
        let part = rows.first().and_then(|unwatched| inferences_per_s.over(&unwatched.inferences_per_s));
        let costs =
            part.and_then(|part| Spread::of(part.rounds.into_iter().map(|part| 1.0 - part).collect()));
        rows.push(WatchedRow { model, tenants, monitor: monitor.to_string(), inferences_per_s, costs });
    }
    Ok(rows)
}

impl fmt::Display for WatchedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WatchedRow { model, tenants, monitor, inferences_per_s, costs } = self;
        write!(f, "{model:<14} {tenants:>7}  {monitor:<9} {inferences_per_s:>24}")?;
        match costs {
            Some(Spread { median, min, max, .. }) => {
                write!(f, "  {:+.2} ({:+.2} to {:+.2})", 100.0 * median, 100.0 * min, 100.0 * max)
            }
            None => write!(f, "  –"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Monitoring in {} on {}; medians of rounds, with the ends\n",
            self.precision, self.device
        )?;
        writeln!(f, "{:<14} {:>7}  {:<9} {:>24}  costs %", "model", "tenants", "monitor", "inferences/s")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

impl Figure for Report {
    const CLAIM: Claim = Claim {
        title: "Monitoring: what watching launches costs",
        source: "ours; the paper's §4 builds on latencies monitored per kernel",
        says: "a server that watches every launch and times the steps of some answers within 1 % of what it answers unwatched",
        refuted: "more than 1 % fewer answers a second as watched by default, by the median over rounds, on any network",
    };

    fn verdict(&self) -> Verdict {
        let auto = StepTiming::Auto.to_string();
        let costs = self.rows.iter().filter(|row| row.monitor == auto);
        let costs: Vec<(&str, f64)> =
            costs.filter_map(|row| Some((row.model, row.costs.as_ref()?.median))).collect();
        let said = costs.iter().map(|(model, cost)| format!("{model} {:+.2} %", 100.0 * cost));
        let because = format!("monitoring costs {}", said.collect::<Vec<_>>().join(", "));
        // Nobody becomes faster by being watched.
        if costs.iter().any(|(_, cost)| *cost < -MOST) {
            return Verdict::Undecided(format!("{because}: rounds are further apart than what is judged"));
        }
        Verdict::of(costs.iter().all(|(_, cost)| *cost <= MOST), because)
    }

    fn pictures(&self) -> Vec<String> {
        // Three bars of one height say less than the numbers.
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(auto: [f64; 3]) -> Report {
        let measured =
            vec![(StepTiming::Off, vec![1000.0, 500.0, 1000.0]), (StepTiming::Auto, auto.to_vec())];
        Report { device: "a device".to_owned(), precision: "fp32", rows: rows(("mlp", 8), measured).unwrap() }
    }

    #[test]
    fn a_way_is_held_against_the_unwatched_run_of_its_own_round() {
        let report = report([998.0, 499.0, 997.0]);
        let costs = report.rows[1].costs.as_ref().unwrap();
        assert!((costs.median - 0.002).abs() < 1e-9 && (costs.max - 0.003).abs() < 1e-9, "{costs:?}");
        assert_eq!(report.rows[0].costs, None);
        assert!(matches!(report.verdict(), Verdict::Reproduced(_)), "{report}");
    }

    #[test]
    fn more_than_a_hundredth_refutes_it_with_the_network_and_the_number() {
        let verdict = report([980.0, 490.0, 980.0]).verdict();
        assert_eq!(verdict, Verdict::NotReproduced("monitoring costs mlp +2.00 %".to_owned()));
    }

    #[test]
    fn a_gain_by_being_watched_decides_nothing() {
        let verdict = report([1100.0, 550.0, 1100.0]).verdict();
        assert!(matches!(verdict, Verdict::Undecided(why) if why.contains("further apart")));
    }

    #[test]
    fn it_runs_on_the_cpu() {
        let report = run(&super::super::ask::quick("cpu"), &mut |_| ()).unwrap();
        let ways: Vec<&str> = report.rows.iter().map(|row| row.monitor.as_str()).collect();
        assert_eq!(ways, ["off", "auto", "one in 1", "off", "auto", "one in 1"]);
        assert!(report.rows.iter().all(|row| row.inferences_per_s.min > 0.0), "{report}");
    }
}
