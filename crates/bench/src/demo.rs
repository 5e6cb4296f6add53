//! The demo: tenants of several classes, one of them bursting, served over real HTTP under each policy.
//!
//! ```text
//!   for each policy:  server on a free port ─▶ the same seeded arrivals from every tenant's clients ─▶ a row
//! ```
//! The load is the same for every policy, to the arrival. What differs is who shares a launch. On a CPU sharing gains little:
//! a core is busy with one request, so a fused launch saves queueing and weights read twice, not idle hardware. The
//! demo says so.

use crate::load::{self, Outcome, Progress, Traffic};
use crate::page::sample;
use crate::zoo::tiny::Tiny;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tessera_core::Policy;
use tessera_server::Settings;
use tessera_server::server::Server;
use tokio::sync::oneshot;

/// What to show.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many tenants, spread over the zoo's small models.
    pub tenants: usize,
    /// How long each policy is under load.
    pub length: Duration,
    /// Requests per second of all tenants together, the burst not counted.
    pub rate: f64,
    /// Decides weights, arrivals and inputs.
    pub seed: u64,
}

/// Times its own rate at which the first tenant sends in the middle third of a run.
const BURST: f64 = 10.0;

/// One policy's row.
struct Row {
    policy: Policy,
    outcome: Outcome,
    sent: u64,
    with_slo: u64,
    lanes_per_launch: f64,
}

/// Runs the demo and prints it. Errors when the server cannot start, or a request fails in a way that no load explains.
pub async fn run(options: &Options) -> Result<()> {
    let repository = TempFolder::new()?;
    write_tenants(options, &repository.0)?;
    let traffic = traffic(options);
    println!(
        "{} tenants of {} classes, each with weights of its own, over HTTP; the same arrivals for every policy.\n\
         {} requests per second; tenant {} sends {BURST} times its share in the middle third. Half of the tenants\n\
         want their answer in 25 or 100 ms.\n",
        options.tenants,
        Tiny::ALL.len(),
        options.rate,
        traffic[0].tenant
    );
    let mut rows = Vec::new();
    for policy in Policy::ALL {
        rows.push(under(policy, &repository.0, &traffic, options.length).await?);
    }
    print_table(&rows, options.length);
    Ok(())
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

fn traffic(options: &Options) -> Vec<Traffic> {
    let rate = options.rate / options.tenants as f64;
    let third = options.length / 3;
    (0..options.tenants)
        .map(|number| {
            let (arch, tenant) = who(number);
            let burst = if number == 0 { BURST } else { 1.0 };
            let rates = vec![(Duration::ZERO, rate), (third, rate * burst), (2 * third, rate)];
            Traffic { tenant, arch, slo: slo(number), rates, seed: options.seed ^ (number as u64) << 20 }
        })
        .collect()
}

async fn under(policy: Policy, repository: &Path, traffic: &[Traffic], length: Duration) -> Result<Row> {
    let mut settings = Settings::for_repository(repository);
    (settings.policy, settings.http_port, settings.metrics_port) = (policy, 0, 0);
    settings.pack_cache = None;
    let server = Server::start(settings).await.context("the demo's server does not start")?;
    let (http, metrics) = (server.http_address(), server.metrics_address());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async move {
        let _ = stopped.await;
    }));
    wait_until_ready(http).await?;
    let progress = Arc::new(Progress::default());
    let shown = tokio::spawn(show(policy, progress.clone(), length));
    let outcome = load::run(http, traffic, length, progress.clone()).await?;
    shown.abort();
    clear_line();
    let page = crate::client::Connection::open(metrics).await?.get("/metrics").await?;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    let _ = stop.send(());
    running.await?;
    if let Some((count, why)) = &outcome.failed {
        bail!("{count} requests failed under {policy}; the first: {why}");
    }
    let with_slo =
        traffic.iter().filter(|one| one.slo.is_some()).map(|one| load::arrivals(one, length).len() as u64);
    let lanes = sample(&page, "tessera_launch_lanes_sum").zip(sample(&page, "tessera_launch_lanes_count"));
    Ok(Row {
        policy,
        outcome,
        sent: progress.sent.load(Ordering::Relaxed),
        with_slo: with_slo.sum(),
        lanes_per_launch: lanes.map_or(0.0, |(sum, count)| sum / count.max(1.0)),
    })
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

/// A line that is written over every half second, on terminals only.
async fn show(policy: Policy, progress: Arc<Progress>, length: Duration) {
    let started = Instant::now();
    loop {
        if std::io::stdout().is_terminal() {
            let (sent, answered) =
                (progress.sent.load(Ordering::Relaxed), progress.answered.load(Ordering::Relaxed));
            let at = started.elapsed().as_secs_f64();
            print!("\r{policy}: {at:.0} of {} s, {sent} sent, {answered} answered ", length.as_secs());
            let _ = std::io::stdout().flush();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn clear_line() {
    if std::io::stdout().is_terminal() {
        print!("\r{:60}\r", "");
    }
}

fn print_table(rows: &[Row], length: Duration) {
    println!(
        "{:<11} {:>10} {:>9} {:>9} {:>9} {:>8} {:>13}",
        "policy", "answered/s", "p50 ms", "p99 ms", "in SLO", "refused", "lanes/launch"
    );
    for row in rows {
        let latencies = row.outcome.latencies();
        let ms = |percent| latencies.percentile(percent).as_secs_f64() * 1e3;
        println!(
            "{:<11} {:>10.0} {:>9.2} {:>9.2} {:>8.1}% {:>8} {:>13.2}",
            row.policy.name(),
            latencies.count() as f64 / length.as_secs_f64(),
            ms(50.0),
            ms(99.0),
            100.0 * row.outcome.attained() as f64 / row.with_slo.max(1) as f64,
            row.outcome.refused,
            row.lanes_per_launch
        );
    }
    let sent = rows.first().map_or(0, |row| row.sent);
    println!(
        "\n{sent} requests were sent to each policy. Latency counts from the moment a request was due to leave. `in SLO` is the\n\
         part of all requests with an SLO that were answered within it; refused ones count as misses.\n\n\
         When sharing pays: lanes/launch above 1 means that tenants with different weights shared launches. On a CPU every\n\
         core is busy with one request at a time, so a fused launch saves little, and the policies answer about as many;\n\
         what differs is who waits. On a GPU one request leaves most of the card idle, and filling it is the point.\n\n\
         Next: `tessera demo --rate 3000` (overload), `tessera serve --model-repository DIR` (your models), README.md."
    );
}

/// A folder that is removed at the end.
struct TempFolder(std::path::PathBuf);

impl TempFolder {
    fn new() -> Result<TempFolder> {
        let path = std::env::temp_dir().join(format!("tessera-demo-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(TempFolder(path))
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        // Left behind it does no harm: it is in the system's own folder for that.
        let _ = fs::remove_dir_all(&self.0);
    }
}
