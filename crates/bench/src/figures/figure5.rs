//! Figure 5: how many models fit on a device, by way of sharing, and what each then takes.
//!
//! **The claim** (paper, Figure 5 and §4; V100). A process per model, with or without MPS, gives up at tens of models: each brings a context and a copy of everything. "The only way
//! to schedule hundreds of models on GPU is to use single process utilizing one CUDA stream per thread."
//!
//! **The expected shape.** Processes end where memory does, or at the 48 clients of MPS. In one process memory is the weights and a little more, and hundreds of models fit. Latency in a closed
//! loop grows in proportion to models once the device is full; ours grows least, since a launch carries many.
//!
//! **What would refute it.** Processes that reach as many models as one process; one process that gives up below a hundred; ours slower than streams with the
//! most models.
//!
//! One request of each model on its way; a launch of ours carries at most 32 models. Memory of one process is what the device accounts for, exactly; of a card also what its
//! driver says is used beyond what was before, which is all there is for processes.

use super::ask::Ask;
use super::machine::said;
use super::made::{Claim, Figure, Verdict, drawn};
use super::plot::{Plot, lines};
use super::ways::{self, PROCESSES};
use crate::tenants::Crowd;
use crate::tenants::processes::Sharing;
use crate::zoo;
use anyhow::Result;
use serde::Serialize;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tessera_core::Policy;

/// The architecture: small, since hundreds are to fit.
const MODEL: &str = "mobilenet-v2";
/// Models of a launch at most.
const LANES: usize = 32;
/// Numbers of models.
const MODELS: [usize; 9] = [1, 2, 5, 10, 20, 50, 100, 200, 500];
/// In one process. Streams last: their device is divided as no other's.
const POLICIES: [Policy; 2] = [Policy::SpaceTime, Policy::Space];
/// How often the driver is asked while processes run.
const LOOK: Duration = Duration::from_millis(250);

/// The figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// The architecture.
    pub model: &'static str,
    /// How numbers were held.
    pub precision: &'static str,
    /// As on the command line.
    pub device: String,
    /// By way, then by number of models.
    pub rows: Vec<ModelsRow>,
    /// Where each way ended, and why.
    pub ended: Vec<Ended>,
}

/// One number of models.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ModelsRow {
    /// The policy, or how processes share.
    pub way: String,
    /// How many.
    pub models: usize,
    /// The mean of all models in a closed loop, in milliseconds.
    pub latency_ms: f64,
    /// Of all models together.
    pub inferences_per_s: f64,
    /// Weights and arenas as the device accounts for them, in MiB; `null` for processes.
    pub accounted_mib: Option<f64>,
    /// What the card's driver says beyond what was used before, in MiB; `null` without a card.
    pub driver_mib: Option<f64>,
}

/// Where a way ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Ended {
    /// Which.
    pub way: String,
    /// The most models that ran.
    pub models: usize,
    /// Why there are no more.
    pub why: String,
    /// Whether the way itself gave up, rather than the time, or what was asked for.
    pub gave_up: bool,
}

/// Measures the figure: one process first, then processes.
pub fn run(ask: &Ask, heard: &mut dyn FnMut(&str)) -> Result<Report> {
    // Without a card weights lie in the machine's own memory, which others need too.
    let most = if ask.is_card() { ask.tenants } else { ask.or_quick(100, 3).min(ask.tenants) };
    let counts: Vec<usize> = MODELS.into_iter().filter(|models| *models <= most).collect();
    let mut report = Report {
        model: zoo::find(MODEL)?.name,
        precision: ask.precision.name(),
        device: ask.device.clone(),
        rows: Vec::new(),
        ended: Vec::new(),
    };
    let here: Vec<Sharing> = PROCESSES.into_iter().filter(|how| ways::absent(ask, *how).is_none()).collect();
    let mut left = POLICIES.len() + here.len();
    let mut share = || {
        left -= 1;
        ask.budget.part(1.0 / (left + 1) as f64)
    };
    for policy in POLICIES {
        let ask = Ask { budget: share(), ..ask.clone() };
        let way = policy.name().to_owned();
        climb(&ask, way, &counts, &mut report, heard, &mut |models| in_process(&ask, policy, models));
    }
    for how in here {
        let ask = Ask { budget: share(), ..ask.clone() };
        let counts: Vec<usize> = counts.iter().copied().filter(|models| *models <= ask.processes).collect();
        climb(&ask, how.to_string(), &counts, &mut report, heard, &mut |models| {
            by_processes(&ask, how, models)
        });
    }
    for why in PROCESSES.into_iter().filter_map(|how| Some((how, ways::absent(ask, how)?))) {
        report.ended.push(Ended { way: why.0.to_string(), models: 0, why: why.1, gave_up: false });
    }
    Ok(report)
}

/// More and more models, until a number fails, the time is over, or all were done.
fn climb(
    ask: &Ask,
    way: String,
    counts: &[usize],
    report: &mut Report,
    heard: &mut dyn FnMut(&str),
    measure: &mut dyn FnMut(usize) -> Result<ModelsRow>,
) {
    let mut end = Ended { way, models: 0, why: "no more were asked for".to_owned(), gave_up: false };
    for &models in counts {
        if ask.budget.is_over() {
            end.why = format!("{models} models: the time was over");
            break;
        }
        match measure(models) {
            Ok(row) => {
                heard(&row.to_string());
                end.models = models;
                report.rows.push(row);
            }
            Err(why) => {
                end.why = format!("{models} models: {why:#}");
                end.gave_up = true;
                break;
            }
        }
    }
    report.ended.push(end);
}

fn in_process(ask: &Ask, policy: Policy, models: usize) -> Result<ModelsRow> {
    const MIB: f64 = 1_048_576.0;
    let before = driver_mib(ask);
    let options = ways::tenants(ask, MODEL, ask.precision, models, &[policy])?;
    let crowd = Crowd::gather(&options, LANES, &mut |_| ())?;
    let held = crowd.memory(policy);
    let driver_mib = driver_mib(ask).zip(before).map(|(now, before)| now - before);
    let closed = crowd.closed(policy, models, ask.run_length(0.2, MODELS.len()))?;
    crowd.leave();
    Ok(ModelsRow {
        way: policy.name().to_owned(),
        models,
        latency_ms: closed.mean_ms(),
        inferences_per_s: closed.inferences_per_s,
        accounted_mib: Some((held.weights.0 + held.arenas.0) as f64 / MIB),
        driver_mib,
    })
}

fn by_processes(ask: &Ask, how: Sharing, models: usize) -> Result<ModelsRow> {
    let before = driver_mib(ask);
    let over = AtomicBool::new(false);
    let (ran, most) = std::thread::scope(|scope| {
        let look = || {
            let mut most = None::<f64>;
            while !over.load(Ordering::Relaxed) {
                most = driver_mib(ask).into_iter().chain(most).reduce(f64::max);
                std::thread::sleep(LOOK);
            }
            most
        };
        let looking = std::thread::Builder::new().spawn_scoped(scope, look)?;
        let ran = ways::workers(ask, MODEL, ask.precision, how, models);
        over.store(true, Ordering::Relaxed);
        anyhow::Ok((ran?, looking.join().expect("looking does not panic")))
    })?;
    Ok(ModelsRow {
        way: how.to_string(),
        models,
        latency_ms: ran.mean_ms(),
        inferences_per_s: ran.inferences_per_s,
        accounted_mib: None,
        driver_mib: most.zip(before).map(|(most, before)| most - before),
    })
}

/// What a card's driver says is used, by everybody.
fn driver_mib(ask: &Ask) -> Option<f64> {
    let ordinal = ask.device.strip_prefix("cuda:")?;
    said("nvidia-smi", &["--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", ordinal])?
        .parse()
        .ok()
}

impl Report {
    fn reached(&self, way: &str) -> Option<&Ended> {
        self.ended.iter().find(|ended| ended.way == way && ended.models > 0)
    }

    fn latency(&self, way: &str, models: usize) -> Option<f64> {
        self.rows.iter().find(|row| row.way == way && row.models == models).map(|row| row.latency_ms)
    }
}

impl Figure for Report {
    const CLAIM: Claim = Claim {
        title: "Figure 5: from 1 to 500 models on a device",
        source: "paper, Figure 5 and §4; V100",
        says: "a process per model gives up at tens of models, with MPS or without; the only way to schedule hundreds is one process with a stream per model",
        refuted: "processes reaching as many models as one process, one process giving up below a hundred, or ours slower than streams with the most models",
    };

    fn verdict(&self) -> Verdict {
        let (ours, streams) = (Policy::SpaceTime.name(), Policy::Space.name());
        let most = self.rows.iter().filter(|row| row.way == streams).map(|row| row.models).max().unwrap_or(0);
        let both = self.latency(ours, most).zip(self.latency(streams, most));
        let Some((one, (ms, streams_ms))) = self.reached(ours).zip(both) else {
            return Verdict::Undecided("too few models were measured".to_owned());
        };
        let others: Vec<&Ended> = PROCESSES.iter().filter_map(|how| self.reached(&how.to_string())).collect();
        let told = others.iter().map(|ended| {
            let ended_by = if ended.gave_up { "gave up" } else { "was stopped" };
            format!("{} {ended_by} at {}", ended.way, ended.models)
        });
        let told = std::iter::once(format!("one process holds {}", one.models)).chain(told);
        let because = format!(
            "{}; with {most} models ours answers in {ms:.1} ms, streams in {streams_ms:.1} ms.",
            told.collect::<Vec<_>>().join(", ")
        );
        let undecided = others.is_empty() || others.iter().any(|ended| !ended.gave_up && ended.models < 40);
        if (one.models < 100 && !one.gave_up) || undecided {
            return Verdict::Undecided(because);
        }
        let tens = others.iter().all(|ended| ended.models < one.models);
        Verdict::of(tens && one.models >= 100 && ms <= streams_ms, because)
    }

    fn pictures(&self) -> Vec<String> {
        let plot = |title: &str, y: &str, what: &dyn Fn(&ModelsRow) -> Option<f64>| Plot {
            title: format!("{title}: {} in {}", self.model, self.precision),
            x: "models".to_owned(),
            y: y.to_owned(),
            mark: None,
            lines: lines(
                self.rows.iter().filter_map(|row| Some((&*row.way, (row.models as f64, what(row)?)))),
            ),
        };
        drawn([
            plot("Latency", "ms", &|row| Some(row.latency_ms)),
            plot("Memory", "MiB", &|row| row.driver_mib.or(row.accounted_mib)),
        ])
    }
}

impl fmt::Display for ModelsRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ModelsRow { way, models, latency_ms, inferences_per_s, accounted_mib, driver_mib } = self;
        let mib = |mib: &Option<f64>| mib.map_or("–".to_owned(), |mib| format!("{mib:.0}"));
        write!(
            f,
            "{way:<13} {models:>7} {latency_ms:>12.2} {inferences_per_s:>13.1} {:>14} {:>12}",
            mib(accounted_mib),
            mib(driver_mib)
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "figure 5: {} in {} on {}, one request of each model on its way",
            self.model, self.precision, self.device
        )?;
        writeln!(
            f,
            "{:<13} {:>7} {:>12} {:>13} {:>14} {:>12}",
            "way", "models", "ms", "inferences/s", "accounted MiB", "driver MiB"
        )?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        self.ended.iter().try_for_each(|Ended { way, models, why, gave_up }| {
            let word = if *gave_up { "gave up" } else { "ended" };
            writeln!(f, "{way} {word} after {models}: {why}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows: &[(&str, usize, f64)], ended: &[(&str, usize, bool)]) -> Report {
        let row = |&(way, models, latency_ms): &(&str, usize, f64)| ModelsRow {
            way: way.into(),
            models,
            latency_ms,
            inferences_per_s: 1.0,
            accounted_mib: None,
            driver_mib: None,
        };
        let end = |&(way, models, gave_up): &(&str, usize, bool)| Ended {
            way: way.into(),
            models,
            why: "why".into(),
            gave_up,
        };
        Report {
            model: "m",
            precision: "fp32",
            device: "d".into(),
            rows: rows.iter().map(row).collect(),
            ended: ended.iter().map(end).collect(),
        }
    }

    #[test]
    fn the_claim_needs_processes_that_give_up_and_one_that_holds_hundreds() {
        let rows = [("space-time", 500, 10.0), ("space", 500, 30.0)];
        let verdict = |processes: usize, gave_up| {
            let ended = [("space-time", 500, false), ("space", 500, false), ("mps", processes, gave_up)];
            report(&rows, &ended).verdict()
        };
        assert!(matches!(verdict(20, true), Verdict::Reproduced(_)));
        assert!(matches!(verdict(500, true), Verdict::NotReproduced(_)));
        assert!(matches!(verdict(20, false), Verdict::Undecided(_)), "only the time was over");
    }

    #[test]
    fn a_way_ends_at_the_first_number_that_fails_and_says_why() {
        let mut made = report(&[], &[]);
        let ask = super::super::ask::quick("cpu");
        climb(&ask, "a way".into(), &[1, 2, 5], &mut made, &mut |_| (), &mut |models| {
            anyhow::ensure!(models < 2, "no memory");
            Ok(report(&[("a way", models, 1.0)], &[]).rows.remove(0))
        });
        let why = "2 models: no memory".to_owned();
        assert_eq!(made.ended, [Ended { way: "a way".into(), models: 1, why, gave_up: true }]);
        assert_eq!(made.rows.len(), 1);
    }
}
