//! `tessera bench tenants`: whole models, many tenants with weights of their own, one request after another from each.
//!
//! ```text
//!   zoo ─▶ R tenants ─▶ engine and scheduler of the server, in process ─▶ device
//!              ▲ closed loop: each tenant has so many requests on their way, always
//!   check:  every tenant alone, then all together ─ equal to the bit, or no figure is printed
//!   rounds: space-time, space, time, exclusive; exclusive, time, space, space-time; …      paired, so that a drift meets all alike
//! ```
//! What is compared is who shares a launch: engine, kernels and weights are the same for every policy. Requests of one tenant never
//! share its lane, but under `exclusive`, which here means what the paper means by it: one model that all requests are for, in batches
//! as large as there are tenants. Inputs are made before the clock starts and used again and again; answers are dropped.

mod check;
mod closed_loop;
mod counted;
mod crowd;
pub mod processes;
mod report;
pub mod residency;
mod stage;
mod steps;

pub use crowd::{Closed, Crowd};
pub use report::{PolicyReport, Report};
pub use steps::{Peak, StepReport};

use crate::{load, zoo};
use anyhow::{Result, ensure};
use report::Round;
use stage::Stage;
use std::sync::Arc;
use std::time::Duration;
use tessera_core::{Policy, Precision};
use tessera_device::{Device, Wake};
use tessera_server::Settings;
use tessera_server::devices;
use tessera_server::server::StartError;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose tenants.
    pub model: zoo::Model,
    /// How many, each with weights of its own.
    pub tenants: usize,
    /// Under which policies, in the order of the first round.
    pub policies: Vec<Policy>,
    /// Where, in the words of `tessera serve --device`.
    pub device: String,
    /// How numbers are held.
    pub precision: Precision,
    /// Items that a request brings.
    pub items: u32,
    /// How long each policy runs in each round.
    pub length: Duration,
    /// How often each policy runs.
    pub rounds: usize,
    /// Requests that each tenant has on their way at a time. With three, one launch computes, one has its inputs copied, and one gathers.
    pub in_flight: usize,
    /// Whether each step of a launch is measured too, where the device can.
    pub steps: bool,
    /// How long a card may time kernels for before it serves, [`TUNE`] as a server does; without it they are chosen by rule.
    pub tune: Option<Duration>,
    /// Decides weights and inputs.
    pub seed: u64,
}

/// Measures on the device that the options name. `heard` is told what goes on, a line at a time.
pub fn run(options: &Options, heard: &mut dyn FnMut(&str)) -> Result<Report> {
    run_on(options, &devices::open, heard)
}

/// Opens a device, as [`devices::open`] does.
pub type Open<'a> = &'a dyn Fn(&Settings, Wake) -> Result<Arc<dyn Device>, StartError>;

/// As [`run`], on devices that `open` opens.
pub fn run_on(options: &Options, open: Open<'_>, heard: &mut dyn FnMut(&str)) -> Result<Report> {
    let counts = [options.tenants, options.rounds, options.in_flight, options.items as usize];
    ensure!(!counts.contains(&0), "tenants, items, requests in flight and rounds are at least 1 each");
    ensure!(!options.policies.is_empty(), "name at least one policy");
    let stages = Stages::set(options, Limits::of_all(options), open, heard)?;
    heard("checking that every tenant answers alone as among all others, to the bit");
    check::all(&stages, &options.policies)?;
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); options.policies.len()];
    for number in 0..options.rounds {
        let mut order: Vec<usize> = (0..options.policies.len()).collect();
        if number % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let policy = options.policies[index];
            let round = closed_loop::round(stages.of(policy), policy, options.length)?;
            let (nth, of) = (number + 1, options.rounds);
            heard(&format!("round {nth} of {of}, {policy}: {:.1} inferences/s", round.inferences_per_s()));
            rounds[index].push(round);
        }
    }
    let stage = stages.of(options.policies[0]);
    let steps = if options.steps {
        let steps = stage.steps()?;
        steps.inspect_err(|why| heard(&format!("steps are not timed: {why}"))).ok()
    } else {
        None
    };
    let report = Report::new(options, stage, &rounds, steps);
    stages.clear();
    Ok(report)
}

/// A device that is opened for `space` may be divided as no other policy wants it, so `space` has a device, an engine and copies
/// of all weights of its own; the other policies share.
#[derive(Debug)]
struct Stages {
    space: Option<Stage>,
    others: Option<Stage>,
}

impl Stages {
    fn set(options: &Options, limits: Limits, open: Open<'_>, heard: &mut dyn FnMut(&str)) -> Result<Stages> {
        let is_space = |policy: &Policy| *policy == Policy::Space;
        let mut set = |policy: Option<&Policy>| {
            policy
                .map(|policy| Stage::set(options, &settings(options, *policy, limits)?, open, heard))
                .transpose()
        };
        Ok(Stages {
            others: set(options.policies.iter().find(|policy| !is_space(policy)))?,
            space: set(options.policies.iter().find(|policy| is_space(policy)))?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &Stage> {
        self.others.iter().chain(&self.space)
    }

    fn of(&self, policy: Policy) -> &Stage {
        let stage = if policy == Policy::Space { &self.space } else { &self.others };
        stage.as_ref().expect("a stage was set for every policy")
    }

    fn clear(self) {
        self.others.into_iter().chain(self.space).for_each(Stage::clear);
    }
}

/// How much there is room for.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// In one launch.
    lanes: usize,
    /// Requests that wait.
    queued: usize,
}

impl Limits {
    /// All tenants in one launch, and queues that refuse nobody in a closed loop.
    fn of_all(options: &Options) -> Limits {
        Limits { lanes: options.tenants, queued: options.tenants * options.in_flight }
    }
}

/// How long a server has a card time kernels for, unless it is told otherwise.
pub const TUNE: Duration = Duration::from_secs(1);

/// The server's settings for a bench. Nothing is cached.
fn settings(options: &Options, policy: Policy, limits: Limits) -> Result<Settings> {
    let items = limits.lanes as u64 * u64::from(options.items);
    load::settings([
        ("device", options.device.clone()),
        ("policy", policy.to_string()),
        ("precision", options.precision.to_string()),
        ("max_lanes", limits.lanes.to_string()),
        ("max_items", items.to_string()),
        ("queue_requests", limits.queued.to_string()),
        ("queue_bytes", format!("{}GiB", 1 << 20)),
        ("tune_ms", options.tune.map_or("off".to_owned(), |tune| tune.as_millis().to_string())),
    ])
}
