//! `tessera bench launches`: what a launch costs the host, beside what it takes on the device.
//!
//! ```text
//!   this thread   submit ─▶ … ─▶ poll          each call timed: the engine's share of a launch
//!                 asks                         its time on a core, with all that lies between: waiting, and making requests
//!   the device's  feed, stage, reap, …         time on a core, by thread, over the launches
//! ```
//! **Refuted**, if starting a launch (`submit`, `poll` and the threads that feed and reap) takes the host more than 10 µs a segment where inputs are
//! small: then a card that computes for a hundred microseconds waits for its host.
//!
//! There is no engine here and no scheduler: launches are handed to the device as the engine does, as many ahead as it asks for. Copying
//! inputs is part of a launch, so a model of large images shows what that costs, and one of small rows what all the rest does.

use crate::latency::Latencies;
use crate::yard::Yard;
use crate::{thread_time, zoo};
use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::{Duration, Instant};
use tessera_core::{Precision, ProgramId};
use tessera_device::{Lane, Room};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose launches.
    pub model: zoo::Model,
    /// Lanes of a launch, each with a slot and one request of one item; a row each.
    pub tenants: Vec<NonZeroU32>,
    /// Where, in the words of `tessera serve --device`.
    pub device: String,
    /// How numbers are held.
    pub precision: Precision,
    /// How many launches of each row are measured.
    pub launches: NonZeroU64,
    /// Decides weights and inputs.
    pub seed: u64,
}

/// The thread that submits and polls, and waits in between, among the threads of a row.
const ASKS: &str = "asks";

/// Launches that come before the clock starts.
const WARM_UP: u64 = 50;

/// What was measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// `launches`.
    pub bench: &'static str,
    /// The architecture.
    pub model: &'static str,
    /// How numbers were held.
    pub precision: &'static str,
    /// As on the command line.
    pub device: String,
    /// What it is.
    pub device_description: String,
    /// Bytes that each item brings.
    pub input_bytes: usize,
    /// Bytes of its answer.
    pub output_bytes: usize,
    /// Segments of a launch.
    pub segments: usize,
    /// By lanes of a launch.
    pub rows: Vec<Row>,
}

/// Launches of so many lanes.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// Lanes of a launch.
    pub tenants: u32,
    /// That were measured.
    pub launches: u64,
    /// Of one call of `submit`.
    pub submit_us: Percentiles,
    /// Of one call of `poll` that found a launch, divided by the launches that it found.
    pub poll_us: Percentiles,
    /// Time on a core per launch, by the device's threads, and by the one that `asks`; `null` where the system does not say. Numbers at the end of names are left out.
    pub threads_us: Option<BTreeMap<String, f64>>,
    /// From a launch's first instruction to its last.
    pub device_us: Percentiles,
    /// Of the whole run, by launches: where it is not the device's time, the device waited.
    pub wall_us: f64,
}

/// In microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// The 99th of 100.
    pub p99: f64,
}

impl From<&Latencies> for Percentiles {
    fn from(of: &Latencies) -> Percentiles {
        let us = |percent| of.percentile(percent).as_secs_f64() * 1e6;
        Percentiles { p50: us(50.0), p99: us(99.0) }
    }
}

/// Measures. `heard` is told what goes on, a line at a time.
pub fn run(options: &Options, heard: &mut dyn FnMut(&str)) -> Result<Report> {
    let most = options.tenants.iter().max().context("name at least one number of tenants")?.get();
    heard(&format!("loading {most} slots of {} on {}", options.model.architecture.name, options.device));
    let yard = Yard::open(&options.device, &options.model, options.precision, most as usize, options.seed)?;
    let info = yard.device.info();
    let program = yard.compile(Room { lanes: most, items: most })?;
    let mut random = StdRng::seed_from_u64(options.seed);
    let lane = |tenant| Ok(yard.lane(tenant as usize, &[yard.item(&mut random)?]));
    let lanes = (0..most).map(lane).collect::<Result<_>>()?;
    let bench = Bench { yard, program, lanes };
    let mut rows = Vec::new();
    for &tenants in &options.tenants {
        let row = bench.row(tenants.get(), options.launches.get())?;
        heard(&format!(
            "{tenants} tenants: submit {:.1} µs, poll {:.1} µs",
            row.submit_us.p50, row.poll_us.p50
        ));
        rows.push(row);
    }
    let bytes = |ports: &[tessera_planner::plan::Port]| ports.iter().map(|port| port.bytes_per_item()).sum();
    let report = Report {
        bench: "launches",
        model: options.model.architecture.name,
        precision: options.precision.name(),
        device: info.name,
        device_description: info.description,
        input_bytes: bytes(&bench.yard.stock.plan.inputs),
        output_bytes: bytes(&bench.yard.stock.plan.outputs),
        segments: bench.yard.stock.plan.segments.len(),
        rows,
    };
    bench.yard.device.discard(bench.program);
    Ok(report)
}

/// A program, and lanes for it.
struct Bench {
    yard: Yard,
    program: ProgramId,
    lanes: Vec<Lane>,
}

impl Bench {
    fn row(&self, tenants: u32, launches: u64) -> Result<Row> {
        self.launch(tenants, WARM_UP.min(launches))?;
        let before = thread_time::all();
        let start = Instant::now();
        let calls = self.launch(tenants, launches)?;
        let wall = start.elapsed();
        let threads =
            before.zip(thread_time::all()).map(|(before, after)| by_kind(&before, &after, launches));
        Ok(Row {
            tenants,
            launches,
            submit_us: (&calls.submit).into(),
            poll_us: (&calls.poll).into(),
            threads_us: threads,
            device_us: (&calls.device).into(),
            wall_us: wall.as_secs_f64() * 1e6 / launches as f64,
        })
    }

    fn launch(&self, tenants: u32, launches: u64) -> Result<Calls> {
        let mut calls = Calls::default();
        let (mut submitted, mut finished) = (0, 0);
        let ahead = u64::from(self.yard.partition.ahead);
        while finished < launches {
            while submitted < launches && submitted - finished < ahead {
                let lanes = self.lanes[..tenants as usize].to_vec();
                let start = Instant::now();
                self.yard.submit(submitted, self.program, lanes)?;
                calls.submit.record(start.elapsed());
                submitted += 1;
            }
            self.yard.wait()?;
            let start = Instant::now();
            let done = self.yard.device.poll();
            let took = start.elapsed();
            for launch in &done {
                calls.poll.record(took / done.len() as u32);
                calls.device.record(launch.took);
                let failed = launch.answers.iter().flatten().find_map(|answer| answer.as_ref().err());
                ensure!(failed.is_none(), "a request failed: {failed:?}");
            }
            finished += done.len() as u64;
        }
        Ok(calls)
    }
}

/// What calls took.
#[derive(Default)]
struct Calls {
    submit: Latencies,
    poll: Latencies,
    device: Latencies,
}

/// What threads of each kind took per launch, this one as [`ASKS`]. Those that did nothing are left out.
fn by_kind(
    before: &BTreeMap<String, Duration>,
    after: &BTreeMap<String, Duration>,
    launches: u64,
) -> BTreeMap<String, f64> {
    let own = std::fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
    let mut kinds = BTreeMap::new();
    for (name, time) in after {
        let took = time.saturating_sub(before.get(name).copied().unwrap_or_default());
        let kind = match name {
            name if *name == own.trim_end() => ASKS,
            name => name.trim_end_matches(|letter: char| letter.is_ascii_digit()).trim_end_matches('-'),
        };
        *kinds.entry(kind.to_owned()).or_insert(0.0) += took.as_secs_f64() * 1e6 / launches as f64;
    }
    kinds.retain(|_, us| *us >= 0.05);
    kinds
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { model, precision, device, device_description, input_bytes, output_bytes, .. } = self;
        writeln!(
            f,
            "launches of {model} in {precision} on {device} ({device_description}); an item brings {input_bytes} bytes and takes \
             {output_bytes}; {} segment(s)\n",
            self.segments
        )?;
        let heads = ["submit p50", "p99 µs", "poll p50", "p99 µs", "device p50", "p99 µs"];
        write!(f, "{:>7}", "tenants")?;
        heads.iter().try_for_each(|head| write!(f, " {head:>10}"))?;
        writeln!(f, " {:>10}  threads, µs a launch", "wall µs")?;
        for row in &self.rows {
            write!(f, "{:>7}", row.tenants)?;
            for Percentiles { p50, p99 } in [row.submit_us, row.poll_us, row.device_us] {
                write!(f, " {p50:>10.1} {p99:>10.1}")?;
            }
            let threads = row.threads_us.iter().flatten().map(|(kind, us)| format!("{kind} {us:.1}"));
            writeln!(f, " {:>10.1}  {}", row.wall_us, threads.collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_one_kind_are_counted_together_and_idle_ones_left_out() {
        let us = Duration::from_micros;
        let before = [("feed-0", 10), ("feed-1", 0), ("idle", 7)].map(|(name, at)| (name.to_owned(), us(at)));
        let after = [("feed-0", 30), ("feed-1", 40), ("idle", 7), ("reap", 5)]
            .map(|(name, at)| (name.to_owned(), us(at)));
        let kinds = by_kind(&BTreeMap::from(before), &BTreeMap::from(after), 10);
        assert_eq!(kinds, BTreeMap::from([("feed".to_owned(), 6.0), ("reap".to_owned(), 0.5)]));
    }

    #[test]
    fn every_row_is_measured_on_the_cpu() {
        let options = Options {
            model: zoo::find("mlp").unwrap().model(&zoo::Sizes::default()).unwrap(),
            tenants: [1, 3].map(|tenants| NonZeroU32::new(tenants).unwrap()).to_vec(),
            device: "cpu".to_owned(),
            precision: Precision::Fp32,
            launches: NonZeroU64::new(5).unwrap(),
            seed: 1,
        };
        let report = run(&options, &mut |_| ()).unwrap();
        assert_eq!(
            report.rows.iter().map(|row| (row.tenants, row.launches)).collect::<Vec<_>>(),
            [(1, 5), (3, 5)]
        );
        assert!(report.rows.iter().all(|row| row.submit_us.p50 > 0.0 && row.device_us.p99 > 0.0), "{report}");
        let asked = |row: &Row| row.threads_us.as_ref().is_none_or(|threads| threads[ASKS] > 0.0);
        assert!(report.rows.iter().all(asked), "{report}");
    }
}
