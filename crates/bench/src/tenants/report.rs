//! What was measured, for people and for machines.

use super::Options;
use super::stage::Stage;
use super::steps::{StepReport, Table};
use crate::spread::Spread;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// One policy's run of one round.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Round {
    pub(super) inferences: u64,
    pub(super) took: Duration,
    pub(super) launches: u64,
    pub(super) lanes_per_launch: f64,
    pub(super) items_per_launch: f64,
    pub(super) device_us_per_launch: f64,
    pub(super) engine_us_per_launch: Option<f64>,
}

impl Round {
    pub(super) fn inferences_per_s(&self) -> f64 {
        self.inferences as f64 / self.took.as_secs_f64()
    }
}

/// A bench of one architecture.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// `tenants`.
    pub bench: &'static str,
    /// The architecture.
    pub model: &'static str,
    /// Its learnt numbers, at the width measured.
    pub parameters: u64,
    /// Floating-point operations of one inference.
    pub flops_per_inference: u64,
    /// Its class, in full.
    pub class: String,
    /// How many tenants.
    pub tenants: usize,
    /// How numbers were held.
    pub precision: &'static str,
    /// Items in a request.
    pub items: u32,
    /// Requests of each tenant on their way at a time.
    pub in_flight: usize,
    /// Decided weights and inputs.
    pub seed: u64,
    /// As on the command line.
    pub device: String,
    /// What it is.
    pub device_description: String,
    /// The version of Tessera.
    pub version: &'static str,
    /// How long each policy ran in each round.
    pub seconds: f64,
    /// Time to make, import, pack and upload all tenants.
    pub loading_s: f64,
    /// By policy, in the order asked for.
    pub policies: Vec<PolicyReport>,
    /// What each step of a launch of all tenants takes, if it was asked for and the device measures steps.
    pub steps: Option<Vec<StepReport>>,
}

/// One policy of a bench.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PolicyReport {
    /// Its name.
    pub policy: &'static str,
    /// Inferences (items) per second.
    pub inferences_per_s: Spread,
    /// Its rate over that of the first policy in the same round.
    pub over_first: Spread,
    /// In all rounds.
    pub launches: u64,
    /// Mean of all rounds.
    pub lanes_per_launch: f64,
    /// Mean of all rounds, all lanes together.
    pub items_per_launch: f64,
    /// Mean of all rounds; launches that run side by side count each.
    pub device_us_per_launch: f64,
    /// Time of the engine's thread on a core per launch, mean of all rounds; `null` where the system does not say.
    pub engine_us_per_launch: Option<f64>,
}

impl Report {
    /// `rounds` by policy; there is at least one of each.
    pub(super) fn new(
        options: &Options,
        stage: &Stage,
        rounds: &[Vec<Round>],
        steps: Option<Vec<StepReport>>,
    ) -> Report {
        let rates = |of: &[Round]| {
            Spread::of(of.iter().map(Round::inferences_per_s).collect()).expect("there is a round")
        };
        let first = rates(&rounds[0]);
        let policies = options.policies.iter().zip(rounds).map(|(policy, rounds)| {
            let rates = rates(rounds);
            let launches: u64 = rounds.iter().map(|round| round.launches).sum();
            let mean = |figure: fn(&Round) -> f64| {
                rounds.iter().map(|round| figure(round) * round.launches as f64).sum::<f64>()
                    / launches.max(1) as f64
            };
            let has_time = rounds.iter().all(|round| round.engine_us_per_launch.is_some());
            PolicyReport {
                policy: policy.name(),
                over_first: rates.over(&first).expect("there is a round"),
                inferences_per_s: rates,
                launches,
                lanes_per_launch: mean(|round| round.lanes_per_launch),
                items_per_launch: mean(|round| round.items_per_launch),
                device_us_per_launch: mean(|round| round.device_us_per_launch),
                engine_us_per_launch: has_time
                    .then(|| mean(|round| round.engine_us_per_launch.unwrap_or_default())),
            }
        });
        let plan = &stage.plan.plan;
        Report {
            bench: "tenants",
            model: options.model.architecture.name,
            parameters: options.model.parameters(),
            flops_per_inference: plan.flops_per_item(),
            class: plan.key.class.to_hex(),
            tenants: options.tenants,
            precision: options.precision.name(),
            items: options.items,
            in_flight: options.in_flight,
            seed: options.seed,
            device: stage.device.name.clone(),
            device_description: stage.device.description.clone(),
            version: env!("CARGO_PKG_VERSION"),
            seconds: options.length.as_secs_f64(),
            loading_s: stage.loading.as_secs_f64(),
            policies: policies.collect(),
            steps,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} parameters, {:.2} GFLOP an inference; {} tenants, {}, {} item(s) a request, {} request(s) on their way each\n\
             on {} ({}); {} rounds of {} s; every answer is the same alone and among others, to the bit\n",
            self.model,
            self.parameters,
            self.flops_per_inference as f64 / 1e9,
            self.tenants,
            self.precision,
            self.items,
            self.in_flight,
            self.device,
            self.device_description,
            self.policies.first().map_or(0, |policy| policy.inferences_per_s.rounds.len()),
            self.seconds,
        )?;
        writeln!(
            f,
            "{:<11} {:>12} {:>10} {:>10} {:>10} {:>12} {:>12} {:>16} {:>16} {:>8}",
            "policy",
            "inferences/s",
            "min",
            "max",
            "over first",
            "lanes/launch",
            "items/launch",
            "device µs/launch",
            "engine µs/launch",
            "TFLOP/s"
        )?;
        for row in &self.policies {
            let rate = &row.inferences_per_s;
            let engine = row.engine_us_per_launch.map_or("-".to_owned(), |us| format!("{us:.1}"));
            writeln!(
                f,
                "{:<11} {:>12.1} {:>10.1} {:>10.1} {:>10.3} {:>12.2} {:>12.2} {:>16.1} {:>16} {:>8.3}",
                row.policy,
                rate.median,
                rate.min,
                rate.max,
                row.over_first.median,
                row.lanes_per_launch,
                row.items_per_launch,
                row.device_us_per_launch,
                engine,
                rate.median * self.flops_per_inference as f64 / 1e12,
            )?;
        }
        if self.policies.iter().any(|row| row.policy == "exclusive") {
            writeln!(
                f,
                "\nexclusive: every request is for one tenant, in batches of up to {} items.",
                self.tenants
            )?;
        }
        match &self.steps {
            Some(steps) => write!(f, "\n{}", Table(steps)),
            None => Ok(()),
        }
    }
}
