//! Reality: what the simulator says, beside what a device does.
//!
//! **The claim.** None of the paper's. Ours: with costs measured on a device beforehand (`simulate::measure`), the simulator's goodput is within 5 % of a
//! real run's and its 99th percentile within 10 %, under three kinds of arrivals: by Poisson, in bursts, and with most requests for few tenants.
//! Clockwork (OSDI '20, §6) rests on the same claim, that inference is predictable, and measures it so.
//!
//! **How.** Costs first, under the engine. Then, in every round, the same arrivals, with the same seed, to the server's engine on the device, to the simulator, and to
//! the engine once more. Nothing is changed between workloads, and nothing is fitted to them. The simulator is compared with the mean of the two real runs; how far those
//! are from each other is printed beside it, since what reality does not repeat no simulator can foretell: that is the host's part of the gap.
//!
//! A 99th percentile is known no better than its parts agree: its interval is that of the mean of the ten tenths of each run (Student, 95 %). Most of that is the
//! arrivals', which all three runs have in common: a tenth with a long queue has it in all of them. So what is asked, how far the simulator is off, is known by how well
//! the tenths agree on it, each simulated over each real. The percentile of a bursty load is made by its two or three worst bursts: rounds have arrivals of their own, and the mean of
//! them is judged. A row is judged where that interval is narrower than the bar; else it says so, and wants a longer run, more rounds or a quieter machine.
//!
//! **Where a gap comes from.** Launches of real runs are written down, and a thread that naps beside them tells when the host stood still (`still`). What launches took
//! over what the table says of their sizes is printed; of both runs, what their slowest requests waited for, beside all (`waits`), and how many were on their way
//! while the host stood still. The simulator is run once more with launches as slow as those of the first run were at each moment, and a host that stands still when
//! that one did (*replayed*). What is off then is neither the costs' nor that: it is what lies around launches, or requests that were sent late (printed too).
//!
//! **What is known to be off.** The ways of requests and launches are measured on a device that has just been idle, and are one typical length each. At load threads are
//! awake, and ways shorter and less alike: on an H200, at a rate that keeps it at work, simulated medians lay 0.1 ms above and below real ones of 0.9 to
//! 1.2 ms, with 99th percentiles 6 to 8 % below.
//!
//! **What would refute it.** A row that is judged and not within both. Where a machine is shared with others its latencies are theirs: the figure wants a quiet one,
//! and on a CPU a core for whoever sends.

mod known;
mod waits;
mod workload;

pub use known::Known;
pub use waits::{Waits, Watched};
pub use workload::{Round, Seen, Verdict, Workload};

use self::waits::Run;
use super::place::{Place, Setting, Wrapped, Written};
use crate::arrivals::{Gaps, Popularity};
use crate::simulate::{self, AsRan, Measuring};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::{PlanKey, Policy};
use tessera_scheduler::{CostTable, Size};

/// How far goodput may be off, and the 99th percentile.
const WITHIN: (f64, f64) = (0.05, 0.10);

/// Answers in a part of a run without which its 99th percentile is that of nobody: two are beyond it.
const LEAST: u64 = 200;

/// Part of the device's time that requests would take if each ran alone, where no rate is given.
const LOAD: f64 = 0.6;

/// How long each point of the costs is measured.
const POINT: Duration = Duration::from_millis(400);

/// Fewer tenants of a model than this are not loaded to measure its costs: launches carry items too.
const FEWEST: u32 = 8;

/// What is asked.
pub const WORKLOADS: [(&str, Gaps, Popularity); 3] = [
    ("poisson", Gaps::Poisson, Popularity::Uniform),
    ("bursts", Gaps::Gamma { cv: 3.0 }, Popularity::Uniform),
    ("zipf", Gaps::Poisson, Popularity::Zipf(1.0)),
];

/// How it is asked.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Asked {
    /// Under which policy.
    pub policy: Policy,
    /// Requests per second; what the costs suggest, where there is none.
    pub rate: Option<f64>,
    /// How often each kind of arrivals comes, with other moments each time.
    pub rounds: NonZeroU32,
}

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

/// Measures costs on the setting's device, then every workload on it and in the simulator. `heard` is told what goes on.
pub fn run(
    setting: Setting,
    Asked { policy, rate, rounds }: Asked,
    workloads: &[(&'static str, Gaps, Popularity)],
    heard: &mut dyn FnMut(&str),
) -> Result<Report> {
    let costs = simulate::measure(&measuring(&setting), heard)?;
    let plans = setting.models.iter().map(|model| costs.plan(model.architecture.name));
    let plans = plans.collect::<Result<Vec<PlanKey>>>()?;
    let alone = |plan| costs.cost(plan, Size { lanes: 1, items: 1 }).context("every model was measured");
    let alone = plans.iter().map(alone).collect::<Result<Vec<Duration>>>()?;
    let mean = alone.iter().sum::<Duration>().as_secs_f64() / alone.len() as f64;
    let rate = rate.unwrap_or(LOAD / mean);
    let mut simulated = Place::simulated(setting.clone(), costs.clone())?;
    let seed = setting.seed;
    let mut real = Place::new(Setting { partitions: "1".to_owned(), around: Wrapped::Recorded, ..setting })?;
    let about = format!("{} tenants, {}", real.setting().tenants.len(), real.about(policy, heard)?);
    let mut seen = Vec::with_capacity(workloads.len());
    for &(name, gaps, popularity) in workloads {
        heard(name);
        let mut done = Vec::with_capacity(rounds.get() as usize);
        for seed in (0..rounds.get()).map(|round| seed.wrapping_add(round.into())) {
            let mut row = |place: &mut Place| -> Result<Seen> {
                place.ask(gaps, popularity, seed);
                let row = place.row(policy, rate, heard)?;
                Ok(Seen::of(&row, place.written().launches.items))
            };
            let first = row(&mut real)?;
            let Written { launches, still, .. } = real.written();
            let launches_off = launches.over(&costs, &plans);
            let as_ran = AsRan { slowness: launches.slowness(&costs, &plans), still: still.moments() };
            let first_watched = watched(&real);
            let as_measured = row(&mut simulated)?;
            simulated.replay(as_ran);
            let replayed = row(&mut simulated)?;
            simulated.replay(AsRan::default());
            let again = row(&mut real)?;
            let watched = [first_watched, watched(&real)];
            done.push(Round {
                seed,
                real: first,
                again,
                simulated: as_measured,
                replayed,
                launches_off,
                watched,
            });
        }
        seen.push(Workload::of(name, done));
    }
    real.close();
    Ok(Report { bench: "reality", about, policy: policy.name(), rate, workloads: seen })
}

/// What was seen of the last run beside its latencies.
fn watched(real: &Place) -> Watched {
    let Written { launches, samples, still, warmup } = real.written();
    Watched::of(&Run { samples, launches, seats: real.seats(), still, warmup: *warmup })
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
        let rounds = self.workloads.iter().map(|workload| workload.rounds.len()).max().unwrap_or(0);
        let rounds = if rounds == 1 { "one round".to_owned() } else { format!("mean of {rounds} rounds") };
        writeln!(f, "reality: {about}; {policy}, {rate:.0} requests a second, {rounds}\n")?;
        writeln!(f, "{}", Workload::HEADER)?;
        self.workloads.iter().try_for_each(|workload| write!(f, "{workload}"))
    }
}
