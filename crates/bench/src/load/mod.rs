//! The load generator: requests that leave when the schedule says, or as many on their way as one wants, and what became of each.
//!
//! ```text
//!   open loop    arrivals ─ a thread that sleeps until each ─▶ ask ─▶ Target     HTTP, or an engine in this process
//!   closed loop  so many clients, each ─▶ ask ─▶ hear ─▶ ask ─▶ …
//!                                           └─ Sample: intended moment, latency, end ─▶ Tally ─▶ Row
//! ```
//! Latency counts from the *intended* send time: a server that falls behind is charged for the queue that it causes, and so are we if we
//! send late, which is reported beside it (`send lag`). Every request that was due leaves a sample, whatever happens: one that has no answer when
//! the time is over is *unanswered*, and none is dropped.

mod drive;
mod http;
mod in_process;
mod inputs;
mod report;
mod tally;

pub use drive::{Progress, closed, open};
pub use http::Http;
pub use in_process::{Guest, House, InProcess};
pub use inputs::{Inputs, Source, TensorSpec};
pub use report::{Level, Milliseconds, Report, Row, TenantRow};
pub use tally::Tally;

pub(crate) use in_process::{ended, inputs, settings};
pub(crate) use report::Header;

use std::future::Future;
use std::time::Duration;

/// Who answers.
pub trait Target: Send + Sync + 'static {
    /// Asks for one tenant, by number. `number` counts requests; what is asked may depend on it.
    fn ask(&self, tenant: usize, number: u64) -> impl Future<Output = Ended> + Send;
}

/// How a request ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// With outputs.
    Answered,
    /// Not let in.
    Refused,
    /// Its time ran out while it waited.
    Expired,
    /// Otherwise, with the reason: never, in a healthy run.
    Failed(String),
    /// Not at all, until nobody waited any more.
    Unanswered,
}

/// What became of one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Whose.
    pub tenant: usize,
    /// When it was to leave, from the start.
    pub due: Duration,
    /// How much later it left: the load generator's own fault.
    pub lag: Duration,
    /// From `due` to the whole answer.
    pub latency: Duration,
    /// How it ended.
    pub ended: Ended,
}

/// How long a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// Requests that are due before are sent and not counted.
    pub warmup: Duration,
    /// What is measured, after the warm-up.
    pub length: Duration,
    /// How long the last answers are waited for.
    pub grace: Duration,
}

impl Times {
    /// When sending ends, from the start.
    pub fn end(&self) -> Duration {
        self.warmup + self.length
    }
}

/// One tenant, to its callers.
#[derive(Clone, PartialEq, Debug)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Answers are wanted within this long; `None` is best effort.
    pub slo: Option<Duration>,
}
