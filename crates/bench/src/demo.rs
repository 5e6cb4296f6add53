//! The demo: tenants of several classes, one of them bursting, served over real HTTP under each policy.
//!
//! ```text
//!   first:            server on a free port ─▶ clients that ask without a pause ─▶ what this machine can answer
//!   for each policy:  server on a free port ─▶ the same seeded arrivals from every tenant's clients ─▶ a row
//! ```
//! The load is the same for every policy, to the arrival, and a part of what the machine can answer: with too little, requests
//! meet nobody to share a launch with, and with too much, all that is seen is the queue. What differs is who shares a launch.
//! On a CPU sharing gains little: a core is busy with one request, so a fused launch saves queueing and weights
//! read twice, not idle hardware. The demo says so.

mod report;

use self::report::Report;
use crate::arrivals::{Gaps, Merged, Popularity, Rate, Stream};
use crate::load::{self, Http, Inputs, Level, Progress, Source, Tally, Tenant, Times};
use crate::page::sample;
use crate::zoo::tiny::{Tiny, VOCABULARY};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tessera_core::Policy;
use tessera_server::Settings;
use tessera_server::server::{Ended, Server};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What to show.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many tenants, spread over the zoo's small models.
    pub tenants: usize,
    /// How long each policy is under load.
    pub length: Duration,
    /// Requests per second of all tenants together, the burst not counted. `None` measures what the machine answers, and
    /// takes [`LOAD`] of it.
    pub rate: Option<f64>,
    /// Decides weights, arrivals and inputs.
    pub seed: u64,
}

/// How a piece of text reaches whoever watches, at once and as it is. An error, that nobody reads any more say, ends the demo.
pub type Print = fn(&dyn Display) -> Result<()>;

/// Times its own rate at which the first tenant sends in the middle third of a run.
const BURST: f64 = 10.0;

/// The part of what a machine can answer that makes a load in which requests meet each other, and deadlines can be kept.
pub const LOAD: f64 = 0.8;

/// Clients that ask without a pause while capacity is measured: enough to keep every core busy, few enough that their queue
/// breaks no deadline.
const CALIBRATION_CLIENTS: usize = 16;

/// How long they ask.
const CALIBRATION: Times =
    Times { warmup: Duration::from_secs(1), length: Duration::from_secs(3), grace: GRACE };

/// How long the last answers are waited for.
const GRACE: Duration = Duration::from_secs(60);

/// Connections of all clients together: a burst in an overload has as many requests on their way.
const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(512).expect("512 is not zero");

/// One policy's row.
struct Row {
    policy: Policy,
    load: load::Row,
    lanes_per_launch: f64,
}

impl Row {
    /// The part of the requests with an SLO that were answered within it.
    fn in_slo(&self) -> f64 {
        self.load.in_slo.unwrap_or(1.0)
    }
}

/// Runs the demo and prints it. Errors when the server cannot start, a request fails in a way that no load explains, or
/// `print` does.
pub async fn run(options: &Options, print: Print) -> Result<()> {
    let repository = tempfile::tempdir().context("no folder can be made; TMPDIR names where")?;
    write_tenants(options, repository.path())?;
    let stage = Stage { options, repository: repository.path(), tenants: tenants(options), print };
    print(&format_args!(
        "{} tenants of {} classes, each with weights of its own, over HTTP; half of them want answers in 25 or 100 ms.\n",
        options.tenants,
        Tiny::ALL.len()
    ))?;
    let rate = match options.rate {
        Some(rate) => rate,
        None => stage.calibrated().await?,
    };
    print(&format_args!(
        "The load: {rate:.0} requests per second, with the same arrivals for every policy; tenant {} sends {BURST} times its\n\
         share in the middle third.\n\n",
        stage.tenants[0].name
    ))?;
    let mut rows = Vec::new();
    for policy in Policy::ALL {
        rows.push(stage.under(policy, rate).await?);
    }
    print(&Report { rows: &rows, length: options.length })
}

/// What stays the same while policies change.
struct Stage<'a> {
    options: &'a Options,
    repository: &'a Path,
    tenants: Vec<Tenant>,
    print: Print,
}

impl Stage<'_> {
    /// A rate in requests per second that is [`LOAD`] of what the machine answers, server and clients on the same cores.
    async fn calibrated(&self) -> Result<f64> {
        let server = Running::start(Policy::SpaceTime, self.repository).await?;
        let target = self.clients(server.http).await?;
        let tally = Tally::new(self.tenants.clone(), CALIBRATION, 1);
        let all_alike = (Popularity::Uniform, self.options.seed);
        let asked =
            load::closed(&target, CALIBRATION_CLIENTS, all_alike, CALIBRATION, tally, &Arc::default()).await;
        let capacity = asked.row(Level::Concurrency(CALIBRATION_CLIENTS)).throughput;
        drop(target);
        server.stop().await?;
        (self.print)(&format_args!(
            "This machine answers about {capacity:.0} of their requests per second.\n"
        ))?;
        Ok((LOAD * capacity).max(1.0))
    }

    /// One policy under the load of so many requests per second. Errors when one fails or is not answered.
    async fn under(&self, policy: Policy, rate: f64) -> Result<Row> {
        let server = Running::start(policy, self.repository).await?;
        let target = self.clients(server.http).await?;
        let load = self.load(policy, &target, rate).await?;
        let page = crate::client::Connection::open(server.metrics).await?.get("/metrics").await?;
        let page = String::from_utf8_lossy(&page.body).into_owned();
        drop(target);
        server.stop().await?;
        if let Some(why) = &load.first_failure {
            bail!("{} requests failed under {policy}; the first: {why}", load.failed);
        }
        if load.unanswered > 0 {
            bail!(
                "{} requests were not answered within {} s under {policy}",
                load.unanswered,
                GRACE.as_secs()
            );
        }
        let lanes =
            sample(&page, "tessera_launch_lanes_sum").zip(sample(&page, "tessera_launch_lanes_count"));
        let lanes_per_launch = lanes.map_or(0.0, |(sum, count)| sum / count.max(1.0));
        Ok(Row { policy, load, lanes_per_launch })
    }

    /// Puts the load on, and shows how far it is: in a line that is written over every half second, or once for the whole
    /// run where lines cannot be written over.
    async fn load(&self, policy: Policy, target: &Arc<Http>, rate: f64) -> Result<load::Row> {
        let Stage { options, print, .. } = *self;
        let times = Times { warmup: Duration::ZERO, length: options.length, grace: GRACE };
        let tally = Tally::new(self.tenants.clone(), times, 1);
        let progress = Arc::new(Progress::default());
        let shown = if std::io::stdout().is_terminal() {
            Some(tokio::spawn(show(policy, progress.clone(), options.length, print)))
        } else {
            print(&format_args!("{policy}: under load for {} s\n", options.length.as_secs()))?;
            None
        };
        let load = load::open(target, arrivals(options, rate), times, tally, &progress).await?;
        if let Some(shown) = shown {
            shown.abort();
            print(&format_args!("\r{:60}\r", ""))?;
        }
        Ok(load.row(Level::Trace))
    }

    /// Clients of all tenants, with their requests made.
    async fn clients(&self, http: SocketAddr) -> Result<Arc<Http>> {
        let inputs = Inputs {
            source: Source::Random,
            shapes: BTreeMap::new(),
            batch: 1,
            ids_below: VOCABULARY,
            seed: self.options.seed,
        };
        Ok(Arc::new(Http::connect(http, &self.tenants, &inputs, CONNECTIONS, false).await?))
    }
}

fn write_tenants(options: &Options, folder: &Path) -> Result<()> {
    for number in 0..options.tenants {
        let (arch, name) = who(number);
        let tenant = folder.join(&name);
        fs::create_dir_all(&tenant)?;
        fs::write(tenant.join("model.onnx"), arch.onnx(options.seed.wrapping_mul(1000) + number as u64))?;
        if let Some(slo) = slo(number) {
            fs::write(tenant.join("tenant.toml"), format!("slo_ms = {:.1}\n", slo.as_secs_f64() * 1e3))?;
        }
    }
    Ok(())
}

fn who(number: usize) -> (Tiny, String) {
    let arch = Tiny::ALL[number % Tiny::ALL.len()];
    (arch, format!("{}-{}", arch.name(), number / Tiny::ALL.len()))
}

/// Two of four tenants of each class have an SLO.
fn slo(number: usize) -> Option<Duration> {
    match number / Tiny::ALL.len() % 4 {
        0 => Some(Duration::from_millis(25)),
        1 => Some(Duration::from_millis(100)),
        _ => None,
    }
}

fn tenants(options: &Options) -> Vec<Tenant> {
    (0..options.tenants).map(|number| Tenant { name: who(number).1, slo: slo(number) }).collect()
}

/// Poisson arrivals of all tenants, the first of which bursts in the middle third.
fn arrivals(options: &Options, rate: f64) -> Merged {
    let rate = rate / options.tenants as f64;
    let third = options.length / 3;
    let stream = |number: usize| {
        let burst = if number == 0 { BURST } else { 1.0 };
        let rates = vec![(Duration::ZERO, rate), (third, rate * burst), (2 * third, rate)];
        Stream::new(Gaps::Poisson, Rate::Steps(rates), options.seed ^ (number as u64) << 20)
    };
    (0..options.tenants).map(stream).collect()
}

/// A server in this process.
struct Running {
    http: SocketAddr,
    metrics: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Ended>,
}

impl Running {
    /// Starts it on free ports and waits until every model is loaded.
    async fn start(policy: Policy, repository: &Path) -> Result<Running> {
        let mut settings = Settings::for_repository(repository);
        (settings.policy, settings.http_port, settings.metrics_port) = (policy, 0, 0);
        settings.pack_cache = None;
        let server = Server::start(settings).await.context("the demo's server does not start")?;
        let (http, metrics) = (server.http_address(), server.metrics_address());
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move {
            let _ = stopped.await;
        };
        let task = tokio::spawn(server.run(stopped, std::future::pending()));
        wait_until_ready(http).await?;
        Ok(Running { http, metrics, stop, task })
    }

    async fn stop(self) -> Result<()> {
        let _ = self.stop.send(());
        self.task.await?;
        Ok(())
    }
}

async fn wait_until_ready(http: SocketAddr) -> Result<()> {
    let give_up = Instant::now() + Duration::from_secs(60);
    let mut connection = crate::client::Connection::open(http).await?;
    while Instant::now() < give_up {
        if connection.get("/v2/health/ready").await?.status == 200 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the models were not loaded within a minute")
}

/// Writes the same line over and over, until it is called off or nobody reads it.
async fn show(policy: Policy, progress: Arc<Progress>, length: Duration, print: Print) -> Result<()> {
    let started = Instant::now();
    loop {
        let (sent, ended) = (progress.sent.load(Ordering::Relaxed), progress.ended.load(Ordering::Relaxed));
        let at = started.elapsed().as_secs_f64();
        let length = length.as_secs();
        print(&format_args!("\r{policy}: {at:.0} of {length} s, {sent} sent, {ended} ended "))?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
