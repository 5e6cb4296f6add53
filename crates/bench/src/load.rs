//! An open-loop load over HTTP: requests leave when the schedule says, whether or not earlier ones are answered.
//!
//! Latency counts from the *intended* send time, so that a server which falls behind is charged for the queue that it
//! causes. Every tenant has connections of its own; when all of them are busy a request waits, and that wait counts too.

use crate::client::Connection;
use crate::latency::Latencies;
use crate::zoo::tiny::{Tiny, VOCABULARY};
use anyhow::{Context, Result};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// One tenant's part of a load.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Its name on the server.
    pub tenant: String,
    /// What it is.
    pub arch: Tiny,
    /// Answers are wanted within this long; `None` is best effort.
    pub slo: Option<Duration>,
    /// Requests per second over the run's time: `(from, rate)` pieces, in order; a burst is a piece of its own.
    pub rates: Vec<(Duration, f64)>,
    /// Decides arrivals and inputs.
    pub seed: u64,
}

/// What became of a load.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// One per request that was answered with outputs.
    pub answered: Vec<Answered>,
    /// Requests that the server refused (429, 503, 504).
    pub refused: u64,
    /// Requests that failed in any other way: none, in a healthy run. The first reason is kept.
    pub failed: Option<(u64, String)>,
}

/// One answered request.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// From the intended send time to the whole answer.
    pub latency: Duration,
    /// What was wanted.
    pub slo: Option<Duration>,
}

impl Outcome {
    /// All latencies.
    pub fn latencies(&self) -> Latencies {
        self.answered.iter().map(|answered| answered.latency).collect()
    }

    /// The part of requests with an SLO that were answered within it, refusals counting as misses only through `sent`.
    pub fn attained(&self) -> u64 {
        self.answered.iter().filter(|a| a.slo.is_some_and(|slo| a.latency <= slo)).count() as u64
    }

    fn merge(&mut self, other: Outcome) {
        self.answered.extend(other.answered);
        self.refused += other.refused;
        match (&mut self.failed, other.failed) {
            (Some((count, _)), Some((more, _))) => *count += more,
            (mine @ None, theirs) => *mine = theirs,
            (Some(_), None) => {}
        }
    }
}

/// Live figures of a running load.
#[derive(Debug, Default)]
pub struct Progress {
    /// Requests sent so far.
    pub sent: AtomicU64,
    /// Answers so far.
    pub answered: AtomicU64,
}

/// Runs a load for `length` and waits for its last answer. Errors when the server cannot be reached at all.
pub async fn run(
    to: SocketAddr,
    traffic: &[Traffic],
    length: Duration,
    progress: Arc<Progress>,
) -> Result<Outcome> {
    // A little ahead, so that every tenant's first connection is open when the clock starts.
    let start = Instant::now() + Duration::from_millis(200);
    let mut tenants = JoinSet::new();
    for one in traffic {
        tenants.spawn(run_tenant(to, one.clone(), start, length, progress.clone()));
    }
    let mut all = Outcome::default();
    while let Some(outcome) = tenants.join_next().await {
        all.merge(outcome.context("a client was lost")??);
    }
    Ok(all)
}

/// Requests per second that the server answers when `clients` connections ask for tenants at random without a pause, after a quarter of
/// `length` to warm up. What it refuses does not count.
pub async fn capacity(to: SocketAddr, traffic: &[Traffic], clients: usize, length: Duration) -> Result<f64> {
    let tenants: Vec<(String, Vec<(usize, Bytes)>)> =
        traffic.iter().map(|one| (path(one), bodies(one, 4))).collect();
    let tenants = Arc::new(tenants);
    let (from, until) = (Instant::now() + length / 4, Instant::now() + length);
    let mut running = JoinSet::new();
    for client in 0..clients {
        let tenants = tenants.clone();
        running.spawn(async move {
            let mut random = StdRng::seed_from_u64(client as u64);
            let mut connection = Connection::open(to).await?;
            let mut answered = 0u64;
            while Instant::now() < until {
                let (path, bodies) = &tenants[random.random_range(0..tenants.len())];
                let (json_bytes, body) = &bodies[random.random_range(0..bodies.len())];
                let reply = connection.post(path, Some(*json_bytes), body.clone()).await?;
                answered += u64::from(reply.status == 200 && Instant::now() >= from);
            }
            anyhow::Ok(answered)
        });
    }
    let mut answered = 0;
    while let Some(client) = running.join_next().await {
        answered += client.context("a client was lost")??;
    }
    Ok(answered as f64 / (length - length / 4).as_secs_f64())
}

fn path(traffic: &Traffic) -> String {
    format!("/v2/models/{}/infer", traffic.tenant)
}

/// Poisson arrivals at the tenant's rates, as times from the start.
pub fn arrivals(traffic: &Traffic, length: Duration) -> Vec<Duration> {
    let mut random = StdRng::seed_from_u64(traffic.seed);
    let mut times = Vec::new();
    for (piece, &(from, rate)) in traffic.rates.iter().enumerate() {
        let until = traffic.rates.get(piece + 1).map_or(length, |next| next.0).min(length);
        let mut at = from;
        if rate <= 0.0 {
            continue;
        }
        loop {
            at += Duration::from_secs_f64(-(1.0 - random.random::<f64>()).ln() / rate);
            if at >= until {
                break;
            }
            times.push(at);
        }
    }
    times
}

async fn run_tenant(
    to: SocketAddr,
    traffic: Traffic,
    start: Instant,
    length: Duration,
    progress: Arc<Progress>,
) -> Result<Outcome> {
    let times = arrivals(&traffic, length);
    let path = path(&traffic);
    let bodies = Arc::new(bodies(&traffic, 16));
    let idle = Arc::new(Mutex::new(vec![Connection::open(to).await?]));
    let mut requests = JoinSet::new();
    for (number, at) in times.into_iter().enumerate() {
        let due = start + at;
        tokio::time::sleep_until(due.into()).await;
        progress.sent.fetch_add(1, Ordering::Relaxed);
        let (idle, bodies, path) = (idle.clone(), bodies.clone(), path.clone());
        let progress = progress.clone();
        requests.spawn(async move {
            let (json_bytes, body) = &bodies[number % bodies.len()];
            let mut connection = match idle.lock().await.pop() {
                Some(connection) => connection,
                None => Connection::open(to).await?,
            };
            let reply = connection.post(&path, Some(*json_bytes), body.clone()).await?;
            let latency = due.elapsed();
            idle.lock().await.push(connection);
            progress.answered.fetch_add(1, Ordering::Relaxed);
            anyhow::Ok((reply.status.as_u16(), latency, reply.body))
        });
    }
    let mut outcome = Outcome::default();
    while let Some(request) = requests.join_next().await {
        let failure = match request.context("a request was lost")? {
            Ok((200, latency, _)) => {
                outcome.answered.push(Answered { latency, slo: traffic.slo });
                continue;
            }
            Ok((429 | 503 | 504, ..)) => {
                outcome.refused += 1;
                continue;
            }
            Ok((status, _, body)) => format!("{status}: {}", String::from_utf8_lossy(&body)),
            Err(error) => format!("{error:#}"),
        };
        outcome.failed.get_or_insert((0, failure)).0 += 1;
    }
    Ok(outcome)
}

/// Some requests with random inputs, as JSON header and binary tensor.
fn bodies(traffic: &Traffic, count: usize) -> Vec<(usize, Bytes)> {
    let mut random = StdRng::seed_from_u64(traffic.seed ^ 0x5eed);
    (0..count).map(|_| body(traffic.arch, &mut random)).collect()
}

/// One request of one item for a model of the zoo: how many bytes of it are JSON, and the bytes.
pub fn body(arch: Tiny, random: &mut StdRng) -> (usize, Bytes) {
    let (name, dims, is_ids) = arch.input();
    let elements = dims.iter().product();
    let tensor: Vec<u8> = if is_ids {
        (0..elements).flat_map(|_| random.random_range(0..VOCABULARY).to_le_bytes()).collect()
    } else {
        (0..elements).flat_map(|_| random.random_range(-1.0f32..1.0).to_le_bytes()).collect()
    };
    let shape: Vec<usize> = std::iter::once(1).chain(dims.iter().copied()).collect();
    let header = json!({
        "inputs": [{
            "name": name,
            "shape": shape,
            "datatype": if is_ids { "INT64" } else { "FP32" },
            "parameters": { "binary_data_size": tensor.len() },
        }],
        "parameters": { "binary_data_output": true },
    });
    let mut bytes = header.to_string().into_bytes();
    let json_bytes = bytes.len();
    bytes.extend(tensor);
    (json_bytes, bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_follow_the_rates_and_the_seed() {
        let traffic = Traffic {
            tenant: "t".to_owned(),
            arch: Tiny::Mlp,
            slo: None,
            rates: vec![
                (Duration::ZERO, 100.0),
                (Duration::from_secs(10), 1000.0),
                (Duration::from_secs(12), 0.0),
            ],
            seed: 7,
        };
        let times = arrivals(&traffic, Duration::from_secs(20));
        let calm = times.iter().filter(|at| **at < Duration::from_secs(10)).count();
        let burst = times.len() - calm;
        assert!((850..1150).contains(&calm), "{calm} arrivals in 10 s at 100 per second");
        assert!((1850..2150).contains(&burst), "{burst} arrivals in 2 s at 1000 per second");
        assert!(times.is_sorted());
        assert_eq!(times, arrivals(&traffic, Duration::from_secs(20)));
    }
}
