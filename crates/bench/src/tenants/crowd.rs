//! Tenants that are loaded and checked, to be asked again and again: under this policy or that, all of them or a few.
//!
//! ```text
//!   gather   load ─▶ every answer alone as among all others, to the bit
//!   closed   each of the first so many has one request on its way, always        latencies by client
//!   open     requests come when they come, to the first so many in equal parts   latencies by tenant, waiting included
//! ```

use super::check;
use super::stage::{Desk, Request, Stage};
use super::{Limits, Open, Options, Stages};
use crate::arrivals::{Gaps, Pattern, Popularity, Rate};
use crate::latency::Latencies;
use crate::load::{self, Ended, Level, Row, Tally, Target, Tenant, Times};
use anyhow::{Context, Result, ensure};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tessera_core::Policy;
use tessera_device::{MemoryUse, StepTiming};
use tessera_server::devices;
use tokio::task::JoinSet;

/// Requests of one tenant that may wait: an open loop has bursts.
const QUEUE: usize = 10_000;
/// How long the last answers of an open loop are waited for.
const GRACE: Duration = Duration::from_secs(10);
/// This part of a run comes before the clock starts: costs are learnt in it.
const WARM_UP: u32 = 5;

/// Tenants, loaded and checked.
#[derive(Debug)]
pub struct Crowd {
    stages: Stages,
    options: Options,
}

/// What clients of a closed loop saw.
#[derive(Clone, PartialEq, Debug)]
pub struct Closed {
    /// By client.
    pub clients: Vec<Latencies>,
    /// Of all of them.
    pub inferences_per_s: f64,
}

impl Closed {
    /// The mean latency of each client, in milliseconds.
    pub fn means_ms(&self) -> Vec<f64> {
        self.clients.iter().map(|client| client.mean().as_secs_f64() * 1e3).collect()
    }

    /// The mean of the clients' means, in milliseconds.
    pub fn mean_ms(&self) -> f64 {
        self.means_ms().iter().sum::<f64>() / self.clients.len().max(1) as f64
    }
}

impl Crowd {
    /// Loads the options' tenants, and checks every answer under every policy. A launch has at most `lanes` lanes.
    pub fn gather(options: &Options, lanes: usize, heard: &mut dyn FnMut(&str)) -> Result<Crowd> {
        Crowd::gather_on(options, lanes, &devices::open, heard)
    }

    fn gather_on(
        options: &Options,
        lanes: usize,
        open: Open<'_>,
        heard: &mut dyn FnMut(&str),
    ) -> Result<Crowd> {
        let limits = Limits { lanes: lanes.min(options.tenants), queued: QUEUE };
        let stages = Stages::set(options, limits, open, heard)?;
        check::all(&stages, &options.policies)?;
        Ok(Crowd { stages, options: options.clone() })
    }

    /// What the device is, in words.
    pub fn device(&self) -> String {
        let info = &self.of(self.options.policies[0]).device;
        format!("{} ({})", info.name, info.description)
    }

    /// What is held on the device for a policy.
    pub fn memory(&self, policy: Policy) -> MemoryUse {
        self.of(policy).memory()
    }

    /// From now on launches of a policy's device are watched so closely.
    pub fn watch(&self, policy: Policy, timing: StepTiming) {
        self.of(policy).watch(timing);
    }

    fn of(&self, policy: Policy) -> &Stage {
        self.stages.of(policy)
    }

    /// A closed loop of the first `tenants`, each with one request on its way. Under `exclusive` all requests are for one.
    pub fn closed(&self, policy: Policy, tenants: usize, length: Duration) -> Result<Closed> {
        self.closed_by(policy, tenants, 1, length)
    }

    /// The same with so many requests of each on their way, so that a device is never short of them.
    pub fn closed_by(
        &self,
        policy: Policy,
        tenants: usize,
        in_flight: usize,
        length: Duration,
    ) -> Result<Closed> {
        let stage = self.of(policy);
        stage.play(policy);
        let clients: Vec<Request> = stage.cast_of(policy, tenants, in_flight);
        let counted_from = Instant::now() + length / WARM_UP;
        let end = counted_from + length;
        let ask = |(number, request): (usize, Request)| {
            let desk = stage.desk.clone();
            async move {
                let mut latencies = Latencies::default();
                loop {
                    let asked = Instant::now();
                    desk.ask(&request).await?;
                    if asked >= counted_from {
                        latencies.record(asked.elapsed());
                    }
                    // Slow as it may be, everybody is heard of once.
                    if Instant::now() >= end && latencies.count() > 0 {
                        return anyhow::Ok((number, latencies));
                    }
                }
            }
        };
        stage.runtime.block_on(async {
            let mut asking: JoinSet<_> = clients.into_iter().enumerate().map(ask).collect();
            let mut clients = vec![Latencies::default(); asking.len()];
            while let Some(asked) = asking.join_next().await {
                let (number, latencies) = asked?.with_context(|| format!("policy {policy}"))?;
                clients[number] = latencies;
            }
            let answered: usize = clients.iter().map(Latencies::count).sum();
            let took = counted_from.elapsed();
            let items = stage.desk.items() as f64;
            Ok(Closed { clients, inferences_per_s: answered as f64 * items / took.as_secs_f64() })
        })
    }

    /// An open loop by Poisson of `rate` requests per second, divided evenly among the first `tenants`. Errors when a request fails.
    pub fn open(&self, policy: Policy, tenants: usize, rate: f64, length: Duration) -> Result<Row> {
        let stage = self.of(policy);
        ensure!(tenants <= stage.requests.len(), "{tenants} tenants of {}", stage.requests.len());
        stage.play(policy);
        let pattern = Pattern {
            gaps: Gaps::Poisson,
            rate: Rate::Steady(rate),
            popularity: Popularity::Uniform,
            tenants,
            seed: self.options.seed,
        };
        let times = Times { warmup: length / WARM_UP, length, grace: GRACE };
        let names = (0..tenants).map(|number| Tenant { name: format!("tenant-{number}"), slo: None });
        let tally = Tally::new(names.collect(), times, self.options.items);
        let doors =
            Arc::new(Doors { desk: stage.desk.clone(), requests: stage.cast_of(Policy::Time, tenants, 1) });
        let progress = Arc::default();
        let run = load::open(&doors, pattern.arrivals(), times, tally, &progress);
        let row = stage.runtime.block_on(run)?.row(Level::RequestRate(rate));
        if let Some(why) = &row.first_failure {
            anyhow::bail!("{} requests failed under {policy}; the first: {why}", row.failed);
        }
        Ok(row)
    }

    /// Ends it.
    pub fn leave(self) {
        self.stages.clear();
    }
}

/// Where an open loop asks.
struct Doors {
    desk: Arc<Desk>,
    requests: Vec<Request>,
}

impl Target for Doors {
    async fn ask(&self, tenant: usize, _: u64) -> Ended {
        load::ended(self.desk.ask(&self.requests[tenant]).await)
    }
}
