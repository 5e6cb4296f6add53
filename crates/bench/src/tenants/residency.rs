//! `tessera bench residency`: many tenants on one device, and some more that come while it serves.
//!
//! ```text
//!   load R tenants ─▶ serve ──────── serve, while tenants are loaded ──────── serve ─▶ unload all ─▶ what is left?
//!                     p50, p99       p50, p99, time of each load              p50, p99
//! ```
//! Refuted, if the others' p99 moves while weights are uploaded, or if memory does not come back. The load is closed: every tenant has so many
//! requests on their way, so launches are always full and a pause of the device shows in every latency.

use super::stage::{Request, Stage};
use super::{Limits, Options, settings};
use crate::latency::Latencies;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tessera_core::Policy;
use tessera_device::MemoryUse;
use tessera_server::devices;
use tokio::task::JoinSet;

/// Lanes of a launch at most: with hundreds of tenants a launch of all would be long, and gains nothing.
const LANES: usize = 32;

/// What was measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Residency {
    /// `residency`.
    pub bench: &'static str,
    /// The architecture.
    pub model: &'static str,
    /// Tenants that are served.
    pub tenants: usize,
    /// How numbers are held.
    pub precision: &'static str,
    /// What the device is.
    pub device: String,
    /// Time to make, import, pack and upload all tenants.
    pub loading_s: f64,
    /// Held by weights, in bytes.
    pub weights_bytes: u64,
    /// Held by programs, in bytes.
    pub arenas_bytes: u64,
    /// Nobody comes, tenants come, nobody comes.
    pub phases: Vec<Phase>,
    /// Time to make, import, pack and upload each tenant that came.
    pub loads_ms: Vec<f64>,
    /// Bytes of weights that the device still holds when all are gone.
    pub left_weights_bytes: u64,
    /// Bytes of everything; what cores of a CPU work in stays theirs.
    pub left_bytes: u64,
}

/// A while of serving.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Phase {
    /// Which.
    pub name: &'static str,
    /// Answers per second.
    pub inferences_per_s: f64,
    /// Latencies of all tenants, in milliseconds.
    pub p50_ms: f64,
    /// As `p50_ms`.
    pub p99_ms: f64,
    /// As `p50_ms`.
    pub most_ms: f64,
}

/// Serves under `space-time` for the options' length three times, loading tenants one after the other during the second.
pub fn run(options: &Options, heard: &mut dyn FnMut(&str)) -> Result<Residency> {
    let limits = Limits { lanes: LANES.min(options.tenants), ..Limits::of_all(options) };
    let settings = settings(options, Policy::SpaceTime, limits)?;
    let stage = Stage::set(options, &settings, &devices::open, heard)?;
    let held = stage.memory();
    stage.play(Policy::SpaceTime);
    serve(&stage, options.length)?;
    let before = serve(&stage, options.length)?.phase("before");
    heard("loading more tenants while these are served");
    let (during, loads) = while_loading(&stage, options)?;
    let after = serve(&stage, options.length)?.phase("after");
    let report = Residency {
        bench: "residency",
        model: options.model.architecture.name,
        tenants: options.tenants,
        precision: options.precision.name(),
        device: stage.device.description.clone(),
        loading_s: stage.loading.as_secs_f64(),
        weights_bytes: held.weights.0,
        arenas_bytes: held.arenas.0,
        phases: vec![before, during.phase("while tenants load"), after],
        loads_ms: loads.iter().map(|load| load.as_secs_f64() * 1e3).collect(),
        left_weights_bytes: 0,
        left_bytes: 0,
    };
    let MemoryUse { weights, weights_free, arenas, .. } = stage.unload_all()?;
    Ok(Residency {
        left_weights_bytes: weights.0 + weights_free.0,
        left_bytes: weights.0 + weights_free.0 + arenas.0,
        ..report
    })
}

/// Serves, and loads one tenant after the other meanwhile. Each is gone again at once: its memory must be used anew.
fn while_loading(stage: &Stage, options: &Options) -> Result<(Served, Vec<Duration>)> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = || {
            let _inside = stage.runtime.enter();
            let mut took = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                stage.load_another(options, options.tenants + took.len())?;
                took.push(start.elapsed());
            }
            anyhow::Ok(took)
        };
        let loader = std::thread::Builder::new().spawn_scoped(scope, load)?;
        let served = serve(stage, options.length);
        over.store(true, Ordering::Relaxed);
        let loads = loader.join().expect("loading does not panic")?;
        Ok((served?, loads))
    })
}

/// Every latency of a while.
struct Served {
    latencies: Vec<Duration>,
    took: Duration,
}

impl Served {
    fn phase(self, name: &'static str) -> Phase {
        let inferences_per_s = self.latencies.len() as f64 / self.took.as_secs_f64();
        let latencies: Latencies = self.latencies.into_iter().collect();
        let ms = |percent| latencies.percentile(percent).as_secs_f64() * 1e3;
        Phase { name, inferences_per_s, p50_ms: ms(50.0), p99_ms: ms(99.0), most_ms: ms(100.0) }
    }
}

fn serve(stage: &Stage, length: Duration) -> Result<Served> {
    let start = Instant::now();
    let ask = |request: Request| {
        let desk = stage.desk.clone();
        async move {
            let mut latencies = Vec::new();
            loop {
                let asked = Instant::now();
                desk.ask(&request).await?;
                latencies.push(asked.elapsed());
                if start.elapsed() >= length {
                    return anyhow::Ok(latencies);
                }
            }
        }
    };
    stage.runtime.block_on(async {
        let mut asking: JoinSet<_> = stage.cast(Policy::SpaceTime).into_iter().map(ask).collect();
        let mut latencies = Vec::new();
        while let Some(asked) = asking.join_next().await {
            latencies.extend(asked?.context("a tenant was not answered")?);
        }
        Ok(Served { latencies, took: start.elapsed() })
    })
}

impl fmt::Display for Residency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: f64 = 1_048_576.0;
        let Residency { model, tenants, precision, device, loading_s, .. } = self;
        writeln!(f, "{tenants} tenants of {model} in {precision} on {device}, loaded in {loading_s:.1} s")?;
        let (weights, arenas) = (self.weights_bytes as f64 / MIB, self.arenas_bytes as f64 / MIB);
        writeln!(f, "{weights:.1} MiB of weights, {arenas:.1} MiB of arenas\n")?;
        writeln!(f, "{:<20}{:>14}{:>10}{:>10}{:>10}", "", "inferences/s", "p50 ms", "p99 ms", "most ms")?;
        for Phase { name, inferences_per_s, p50_ms, p99_ms, most_ms } in &self.phases {
            writeln!(f, "{name:<20}{inferences_per_s:>14.1}{p50_ms:>10.2}{p99_ms:>10.2}{most_ms:>10.2}")?;
        }
        let loads: Vec<String> = self.loads_ms.iter().map(|ms| format!("{ms:.0}")).collect();
        writeln!(f, "\nloaded meanwhile: {} tenants, in ms: {}", loads.len(), loads.join(", "))?;
        let (weights, all) = (self.left_weights_bytes as f64 / MIB, self.left_bytes as f64 / MIB);
        writeln!(f, "left on the device when all are gone: {all:.1} MiB, {weights:.1} of it weights")
    }
}
