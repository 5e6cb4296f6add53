//! Figure 3: latency against the number of replicas, under every way of sharing.
//!
//! **The claim** (paper, Figure 3 and §3.2; V100, fp32). Beside exclusive access, which batches all requests for one model, time-only multiplexing is 4.6 times slower by geometric
//! mean over MobileNetV2 and ResNet-50, and space-only (MPS) 2.2 times. Super-kernels are to come close to exclusive access.
//!
//! **The expected shape.** Exclusive grows least: a batch fills the device, and reads the weights once. Ours reads each tenant's weights, and is little slower where computing
//! takes longer than reading. Streams pay for launches and for kernels that share badly; turns grow in proportion to replicas. On two cores, which one request keeps busy, all
//! grow alike and the slowdowns are near one.
//!
//! **What would refute it.** Space-only as slow as time-only; time-only within 10 % of exclusive; ours slower than space-only.
//!
//! Closed loop, one request of each tenant on its way; a latency is the mean of all tenants. Slowdowns are taken round by round, with 2 replicas and more. Processes
//! (`time-slicing`, `mps`) are set beside our exclusive access in the same precision.

use super::ask::Ask;
use super::made::{Claim, Figure, Verdict, drawn};
use super::plot::{Plot, lines};
use super::ways::{self, PROCESSES};
use crate::spread::{Spread, geomean};
use crate::tenants::processes::{Processes, Sharing};
use crate::tenants::{Closed, Crowd};
use crate::zoo;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;
use tessera_core::{Policy, Precision};

/// The architectures.
const MODELS: [&str; 2] = ["mobilenet-v2", "resnet-50"];
/// The paper's slowdowns, by the policy that stands for each.
const PAPER: [(&str, f64); 4] = [("time", 4.6), ("time-slicing", 4.6), ("space", 2.2), ("mps", 2.2)];

/// The figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// What it ran on.
    pub device: String,
    /// By precision, architecture, number of replicas and way.
    pub rows: Vec<LatencyRow>,
    /// By precision and way: the geometric mean of slowdowns over both architectures and all numbers of replicas from 2 up.
    pub slowdowns: Vec<Slowdown>,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

/// One way, at one number of replicas.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LatencyRow {
    /// How numbers were held.
    pub precision: &'static str,
    /// The architecture.
    pub model: &'static str,
    /// How many.
    pub replicas: usize,
    /// The policy, or how processes share.
    pub way: String,
    /// The mean of all tenants, of each round, in milliseconds.
    pub latency_ms: Spread,
    /// Of all tenants together.
    pub inferences_per_s: f64,
    /// Its latency over that of exclusive access, round by round.
    pub slowdown: Option<f64>,
}

/// A geometric mean.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Slowdown {
    /// How numbers were held.
    pub precision: &'static str,
    /// The policy, or how processes share.
    pub way: String,
    /// Latency over that of exclusive access.
    pub geomean: f64,
    /// How many ratios it is of.
    pub of: usize,
    /// The paper's.
    pub paper: Option<f64>,
}

/// Measures the figure. Policies come first; processes have the time that is left.
pub fn run(ask: &Ask, heard: &mut dyn FnMut(&str)) -> Result<Report> {
    let mut precisions = vec![ask.precision];
    if ask.is_card() && ask.precision == Precision::Fp32 {
        precisions.push(Precision::Bf16);
    }
    let most = ask.or_quick(if ask.is_card() { 16 } else { 8 }, 2).min(ask.tenants);
    let replicas: Vec<usize> = [1, 2, 4, 8, 16].into_iter().filter(|many| *many <= most).collect();
    let mut report = Report { device: String::new(), rows: vec![], slowdowns: vec![], left_out: vec![] };
    let groups: Vec<(Precision, &str)> =
        precisions.iter().flat_map(|precision| MODELS.map(|model| (*precision, model))).collect();
    // A third of the time is for processes, where there are any.
    let ours = ask.budget.part(if ask.is_card() { 0.65 } else { 1.0 });
    for (number, &(precision, model)) in groups.iter().enumerate() {
        if ours.is_over() {
            report.left_out.push(format!("{model} in {precision}: the time was over"));
            continue;
        }
        let budget = ours.part(1.0 / (groups.len() - number) as f64);
        let ask = Ask { budget, ..ask.clone() };
        policies(&ask, precision, model, &replicas, &mut report, heard)
            .with_context(|| format!("{model} in {precision}"))?;
    }
    processes(ask, &groups, &replicas, &mut report, heard);
    report.slowdowns = slowdowns(&report.rows);
    Ok(report)
}

fn policies(
    ask: &Ask,
    precision: Precision,
    model: &str,
    replicas: &[usize],
    report: &mut Report,
    heard: &mut dyn FnMut(&str),
) -> Result<()> {
    let most = replicas.iter().copied().max().unwrap_or(1);
    let options = ways::tenants(ask, model, precision, most, &Policy::ALL)?;
    let crowd = Crowd::gather(&options, most, heard)?;
    report.device = crowd.device();
    let length = ask.run_length(0.6, replicas.len() * Policy::ALL.len() * ask.rounds);
    for &many in replicas {
        if ask.budget.is_over() {
            report
                .left_out
                .push(format!("{model} in {precision}, {many} and more replicas: the time was over"));
            break;
        }
        let rounds =
            ways::in_rounds(&Policy::ALL, ask.rounds, &mut |policy| crowd.closed(policy, many, length))?;
        let latencies = |rounds: &[Closed]| Spread::of(rounds.iter().map(Closed::mean_ms).collect());
        let exclusive = rounds.iter().find(|(policy, _)| *policy == Policy::Exclusive);
        let exclusive =
            exclusive.and_then(|(_, rounds)| latencies(rounds)).context("exclusive has rounds")?;
        for (policy, rounds) in rounds {
            let latency_ms = latencies(&rounds).context("there is a round")?;
            let row = LatencyRow {
                precision: precision.name(),
                model: options.model.architecture.name,
                replicas: many,
                way: policy.name().to_owned(),
                slowdown: latency_ms.over(&exclusive).map(|over| over.median),
                latency_ms,
                inferences_per_s: rounds.iter().map(|round| round.inferences_per_s).sum::<f64>()
                    / rounds.len() as f64,
            };
            heard(&row.to_string());
            report.rows.push(row);
        }
    }
    crowd.leave();
    Ok(())
}

fn processes(
    ask: &Ask,
    groups: &[(Precision, &str)],
    replicas: &[usize],
    report: &mut Report,
    heard: &mut dyn FnMut(&str),
) {
    for how in PROCESSES {
        if let Some(why) = ways::absent(ask, how) {
            report.left_out.push(why);
        }
    }
    let here: Vec<Sharing> = PROCESSES.into_iter().filter(|how| ways::absent(ask, *how).is_none()).collect();
    for &(precision, model) in groups {
        for &many in replicas.iter().filter(|many| **many > 1) {
            for &how in &here {
                let name = format!("{how}, {many} replicas of {model} in {precision}");
                if ask.budget.is_over() {
                    report.left_out.push(format!("{name}: the time was over"));
                    continue;
                }
                let ran = ways::workers(ask, model, precision, how, many);
                match ran.and_then(|ran| beside(report, precision, model, many, &ran)) {
                    Ok(row) => {
                        heard(&row.to_string());
                        report.rows.push(row);
                    }
                    Err(why) => report.left_out.push(format!("{name}: {why:#}")),
                }
            }
        }
    }
}

/// What processes did, beside our exclusive access.
fn beside(
    report: &Report,
    precision: Precision,
    model: &str,
    many: usize,
    ran: &Processes,
) -> Result<LatencyRow> {
    let exclusive = report.rows.iter().find(|row| {
        (row.precision, row.model, row.replicas, &*row.way)
            == (precision.name(), model, many, Policy::Exclusive.name())
    });
    let latency = ran.mean_ms();
    Ok(LatencyRow {
        precision: precision.name(),
        model: zoo::find(model)?.name,
        replicas: many,
        way: ran.how.to_string(),
        latency_ms: Spread::of(vec![latency]).context("one is some")?,
        inferences_per_s: ran.inferences_per_s,
        slowdown: exclusive.map(|row| latency / row.latency_ms.median),
    })
}

fn slowdowns(rows: &[LatencyRow]) -> Vec<Slowdown> {
    let mut found: Vec<Slowdown> = Vec::new();
    for row in rows {
        if found.iter().any(|of| (of.precision, &of.way) == (row.precision, &row.way)) {
            continue;
        }
        let alike = rows.iter().filter(|other| (other.precision, &other.way) == (row.precision, &row.way));
        let ratios: Vec<f64> = alike.filter(|row| row.replicas > 1).filter_map(|row| row.slowdown).collect();
        let paper = PAPER.into_iter().find(|(way, _)| *way == row.way).map(|(_, paper)| paper);
        if let Some(geomean) = geomean(&ratios) {
            found.push(Slowdown {
                precision: row.precision,
                way: row.way.clone(),
                geomean,
                of: ratios.len(),
                paper,
            });
        }
    }
    found
}

impl Figure for Report {
    const CLAIM: Claim = Claim {
        title: "Figure 3: latency by number of replicas",
        source: "paper, Figure 3 and §3.2; V100, fp32",
        says: "beside exclusive access (one model, batched) time-only multiplexing is 4.6x slower by geometric mean over MobileNetV2 and ResNet-50, space-only 2.2x; merging across tenants is to close \
               the gap",
        refuted: "space-only as slow as time-only; time-only within 10 % of exclusive; ours slower than space-only",
    };

    fn verdict(&self) -> Verdict {
        let first = self.slowdowns.first().map(|slowdown| slowdown.precision);
        let of = |way: &str| {
            let found =
                self.slowdowns.iter().find(|found| Some(found.precision) == first && found.way == way);
            found.map(|found| found.geomean)
        };
        // The paper's own ways where they could be measured, our engine's policies where not.
        let (time, space) = (of("time-slicing").or(of("time")), of("mps").or(of("space")));
        let Some(((time, space), ours)) = time.zip(space).zip(of(Policy::SpaceTime.name())) else {
            return Verdict::Undecided("too few replicas were measured".to_owned());
        };
        let told = self.slowdowns.iter().filter(|found| found.way != Policy::Exclusive.name()).map(|found| {
            let paper = found.paper.map_or(String::new(), |paper| format!(" (paper {paper}x)"));
            format!("{} {} {:.2}x{paper}", found.precision, found.way, found.geomean)
        });
        let because = format!("Slowdown beside exclusive access: {}.", told.collect::<Vec<_>>().join(", "));
        Verdict::of(time > 1.05 * space && time > 1.1 && ours < space, because)
    }

    fn pictures(&self) -> Vec<String> {
        let mut groups: Vec<(&str, &str)> = Vec::new();
        for row in &self.rows {
            if !groups.contains(&(row.precision, row.model)) {
                groups.push((row.precision, row.model));
            }
        }
        drawn(groups.into_iter().map(|(precision, model)| {
            let rows = self.rows.iter().filter(|row| (row.precision, row.model) == (precision, model));
            Plot {
                title: format!("Latency of {model} in {precision}"),
                x: "replicas".to_owned(),
                y: "ms".to_owned(),
                mark: None,
                lines: lines(rows.map(|row| (&*row.way, (row.replicas as f64, row.latency_ms.median)))),
            }
        }))
    }
}

impl fmt::Display for LatencyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LatencyRow { precision, model, replicas, way, latency_ms, inferences_per_s, slowdown } = self;
        let latency = format!("{latency_ms:.2}");
        let slowdown = slowdown.map_or("–".to_owned(), |slowdown| format!("{slowdown:.2}x"));
        write!(
            f,
            "{precision:<5} {model:<13} {replicas:>8} {way:<13} {latency:>26} {inferences_per_s:>13.1} {slowdown:>9}"
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "figure 3: one request of each replica on its way, on {}", self.device)?;
        writeln!(
            f,
            "{:<5} {:<13} {:>8} {:<13} {:>26} {:>13} {:>9}",
            "", "model", "replicas", "way", "ms", "inferences/s", "slowdown"
        )?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        writeln!(f, "\nslowdown beside exclusive access, geometric mean of 2 replicas and more")?;
        for Slowdown { precision, way, geomean, of, paper } in &self.slowdowns {
            let paper = paper.map_or(String::new(), |paper| format!("  (paper {paper}x)"));
            writeln!(f, "{precision:<5} {way:<13} {geomean:>6.2}x of {of}{paper}")?;
        }
        self.left_out.iter().try_for_each(|why| writeln!(f, "left out: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(replicas: usize, way: &str, slowdown: f64) -> LatencyRow {
        LatencyRow {
            precision: "fp32",
            model: "m",
            replicas,
            way: way.into(),
            latency_ms: Spread::of(vec![slowdown]).unwrap(),
            inferences_per_s: 1.0,
            slowdown: Some(slowdown),
        }
    }

    fn report(rows: Vec<LatencyRow>) -> Report {
        Report { device: "d".into(), slowdowns: slowdowns(&rows), rows, left_out: vec![] }
    }

    #[test]
    fn slowdowns_are_geometric_means_of_two_replicas_and_more() {
        let found = slowdowns(&[row(1, "time", 99.0), row(2, "time", 2.0), row(4, "time", 8.0)]);
        assert_eq!((found.len(), found[0].of, found[0].paper), (1, 2, Some(4.6)));
        assert!((found[0].geomean - 4.0).abs() < 1e-9);
    }

    #[test]
    fn the_papers_own_ways_decide_where_they_were_measured() {
        let rows = vec![row(2, "space-time", 1.2), row(2, "time", 4.0), row(2, "space", 2.0)];
        assert!(matches!(report(rows.clone()).verdict(), Verdict::Reproduced(_)));
        let alike = rows.into_iter().chain([row(2, "mps", 3.0), row(2, "time-slicing", 3.0)]).collect();
        assert!(matches!(report(alike).verdict(), Verdict::NotReproduced(_)));
    }

    #[test]
    fn both_architectures_are_measured_on_the_cores() {
        let report = run(&super::super::ask::quick("cpu"), &mut |_| ()).unwrap();
        assert_eq!(report.rows.len(), MODELS.len() * 2 * Policy::ALL.len(), "{report}");
        assert_eq!(report.slowdowns.len(), Policy::ALL.len());
        assert_eq!(report.pictures().len(), 2);
    }
}
