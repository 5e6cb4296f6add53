//! `tessera load-test`: levels of load, one after the other, on any target.

pub use crate::load::Report;

use crate::arrivals::{Arrival, Pattern, Popularity};
use crate::load::{self, Level, Progress, Row, Tally, Target, Tenant, Times};
use anyhow::Result;
use std::sync::Arc;
use tessera_server::Settings;

/// A load test.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who is asked, in the target's order.
    pub tenants: Vec<Tenant>,
    /// When requests leave.
    pub pace: Pace,
    /// How long each level is.
    pub times: Times,
    /// Items that each request brings.
    pub items: u32,
    /// Decides whom a closed loop asks.
    pub seed: u64,
}

/// When requests leave.
#[derive(Clone, Debug)]
pub enum Pace {
    /// At these rates, in requests per second, one level after the other.
    Open(Vec<(f64, Pattern)>),
    /// So many clients at a time, one level after the other.
    Closed {
        /// Clients of each level.
        clients: Vec<usize>,
        /// Whom they ask.
        popularity: Popularity,
    },
    /// As recorded.
    Trace(Arc<[Arrival]>),
}

/// Settings for an engine in this process; see `tessera serve --help`.
pub fn settings(values: impl IntoIterator<Item = (&'static str, String)>) -> Result<Settings> {
    load::settings(values)
}

/// Runs every level on a target, which the report calls `name`. `heard` is told what goes on, a line at a time.
pub async fn run<T: Target>(
    (target, name): (&Arc<T>, &str),
    options: &Options,
    heard: &mut dyn FnMut(&str),
) -> Result<Report> {
    let Options { tenants, times, items, seed, .. } = options;
    let tally = || Tally::new(tenants.clone(), *times, *items);
    let progress = Arc::new(Progress::default());
    let mut rows: Vec<Row> = Vec::new();
    let mut push = |row: Row| {
        heard(&format!("{}: {:.1} infer/sec, p99 {:.2} ms", row.level, row.throughput, row.latency_ms.p99));
        rows.push(row);
    };
    let arrivals = match &options.pace {
        Pace::Open(levels) => {
            for (rate, pattern) in levels {
                let done = load::open(target, pattern.arrivals(), *times, tally(), &progress).await?;
                push(done.row(Level::RequestRate(*rate)));
            }
            levels.first().map_or_else(String::new, |(_, Pattern { gaps, popularity, .. })| {
                format!("open loop, {gaps} arrivals, {popularity} popularity")
            })
        }
        Pace::Closed { clients, popularity } => {
            for &clients in clients {
                let done =
                    load::closed(target, clients, (*popularity, *seed), *times, tally(), &progress).await;
                push(done.row(Level::Concurrency(clients)));
            }
            format!("closed loop, {popularity} popularity")
        }
        Pace::Trace(arrivals) => {
            let arrivals = arrivals.clone();
            let recorded = (0..arrivals.len()).map(move |number| arrivals[number]);
            push(load::open(target, recorded, *times, tally(), &progress).await?.row(Level::Trace));
            "open loop, arrivals from a trace".to_owned()
        }
    };
    Ok(Report { target: name.to_owned(), arrivals, seconds: times.length.as_secs_f64(), items: *items, rows })
}
