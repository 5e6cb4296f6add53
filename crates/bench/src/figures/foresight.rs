//! How far the launches of a run were from what was predicted of them.
//!
//! ```text
//!   requests begin ─▶ [ settling: costs are learnt, queues find their length ][ measured ]
//!                     └──────── the furthest off, and their 99th percentile ────────────┘
//!                                                                            └ the figure ┘
//! ```
//! The figure is of the time that counts in every other respect, too. What was furthest off in the whole run stands beside it, so that nothing hides in the settling.

use serde::Serialize;
use std::fmt;
use std::time::Duration;
use tessera_server::engine::{self, Predictions};

/// Launches that are shown.
pub(super) const SHOWN: usize = 12;

/// See the module's text.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Foresight {
    /// Launches that had a prediction, settling apart.
    pub launches: u64,
    /// |measured ÷ predicted − 1| of them: the median.
    pub median: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The same with settling.
    pub p99_with_settling: f64,
    /// The launches of the whole run that were furthest off, the worst first.
    pub furthest: Vec<FarOff>,
}

/// A launch that was far from its prediction.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FarOff {
    /// How long after the run's begin it was over.
    pub after_s: f64,
    /// What it ran: a class, dimensions and a precision.
    pub plan: Option<String>,
    /// How large it was.
    pub lanes: u32,
    /// Of all lanes.
    pub items: u32,
    /// Multiprocessors or cores of its partition.
    pub units: u32,
    /// Whether launches of other partitions ran meanwhile, on the same units.
    pub beside: bool,
    /// Whether its partition was idle when it was handed over.
    pub first: bool,
    /// Launches of about its size that the prediction rested on.
    pub known_by: usize,
    /// In milliseconds.
    pub predicted_ms: f64,
    /// In milliseconds.
    pub took_ms: f64,
}

impl FarOff {
    fn of(engine::FarOff { after, plan, launch }: &engine::FarOff) -> FarOff {
        let ms = |time: Duration| 1e3 * time.as_secs_f64();
        FarOff {
            after_s: after.as_secs_f64(),
            plan: plan.as_ref().map(ToString::to_string),
            lanes: launch.size.lanes,
            items: launch.size.items,
            units: launch.units.get(),
            beside: launch.beside,
            first: launch.first,
            known_by: launch.known_by,
            predicted_ms: ms(launch.predicted),
            took_ms: ms(launch.took),
        }
    }
}

impl Foresight {
    /// Of a run: since its begin, and since it had settled.
    pub(super) fn of(whole: &Predictions, settled: &Predictions) -> Foresight {
        Foresight {
            launches: settled.error.launches,
            median: settled.error.median,
            p99: settled.error.p99,
            p99_with_settling: whole.error.p99,
            furthest: whole.furthest.iter().map(FarOff::of).collect(),
        }
    }
}

impl fmt::Display for FarOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FarOff { lanes, items, predicted_ms, took_ms, after_s, known_by, .. } = self;
        write!(
            f,
            "{took_ms:.3} ms, {predicted_ms:.3} predicted by {known_by}: {lanes} lanes of {items} items"
        )?;
        let company = if self.beside { ", beside others" } else { "" };
        let behind = if self.first { "on an idle partition" } else { "behind others" };
        write!(f, ", {behind}{company}, {after_s:.3} s after the begin")
    }
}
