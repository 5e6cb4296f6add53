//! What the caller hears when it cannot have its answer: every reason, its words, and one table of codes.
//!
//! A refusal is made where the rule lives (admission, registry, protocol) and travels here unchanged; no protocol
//! chooses codes by itself. Under overload we say 429 rather than Triton's 503: many clients and balancers retry what is unavailable by themselves, which would
//! triple the load at the worst time.

use std::time::Duration;
use thiserror::Error;

/// Why a request has no answer. The text is for the person who sent it.
#[derive(Clone, PartialEq, Debug, Error)]
pub enum Rejection {
    /// No tenant has this name.
    #[error(
        "Request for unknown model: `{model}` is not found; POST /v2/repository/index lists what is there"
    )]
    UnknownModel {
        /// The name asked for.
        model: String,
    },
    /// The tenant exists, this version of it does not.
    #[error("Request for unknown model: `{model}` version {version} is not found; served are {served:?}")]
    UnknownVersion {
        /// The tenant.
        model: String,
        /// The version asked for, as it was written.
        version: String,
        /// The versions that are served.
        served: Vec<u64>,
    },
    /// What stands where a version should is no number.
    #[error(
        "Request for unknown model: `{model}` version `{version}` is not found; versions are numbers from 1 on, and a request without one goes to the greatest"
    )]
    NoVersion {
        /// The tenant.
        model: String,
        /// What was written.
        version: String,
    },
    /// The tenant is known and cannot answer (yet): loading, unloading, or failed to load.
    #[error("model `{model}` is not ready: {why}")]
    NotReady {
        /// The tenant.
        model: String,
        /// What it waits for, or what went wrong.
        why: String,
    },
    /// The request contradicts itself or the model: names, datatypes, shapes, counts, indices.
    #[error("{0}")]
    Invalid(String),
    /// The body is larger than the server takes.
    #[error("request body is larger than {limit} bytes; send less, or raise `max_body_bytes`")]
    TooLarge {
        /// The limit, from the settings.
        limit: u64,
    },
    /// Nothing more of the body came for too long.
    #[error(
        "nothing more of the request body came for {waited:?}; send it without such pauses, or raise `idle_timeout_s`"
    )]
    Stalled {
        /// The limit, from the settings.
        waited: Duration,
    },
    /// The body is encoded in a way that we do not read.
    #[error("Content-Encoding `{encoding}` is not supported; send the body as it is")]
    UnsupportedEncoding {
        /// The encoding named by the request.
        encoding: String,
    },
    /// Understood, and not offered.
    #[error("{0}")]
    Unsupported(String),
    /// A bounded queue is full.
    #[error("Exceeds maximum queue size: {queue} holds {queued} of {limit} requests; retry later")]
    QueueFull {
        /// Whose queue: a tenant's, or the server's.
        queue: String,
        /// How many requests it holds.
        queued: u64,
        /// Its bound.
        limit: u64,
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// Another bound of the tenant is reached.
    #[error("model `{model}`: {why}")]
    Overloaded {
        /// The tenant.
        model: String,
        /// Which bound.
        why: String,
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// Its owner's quota is used up.
    #[error("model `{model}` of `{owner}`: {why}")]
    OverQuota {
        /// The tenant.
        model: String,
        /// Who pays for it.
        owner: String,
        /// Which quota, what is used of it, and the way out.
        why: String,
        /// When it is worth trying again; `None` is never.
        retry_after: Option<Duration>,
    },
    /// Predicted too late on arrival, and refused before any work.
    #[error(
        "model `{model}` would answer in about {predicted:.2?}, {}; retry later, or raise `timeout` or the tenant's `slo_ms`",
        too_late(*allowed)
    )]
    TooLate {
        /// The tenant.
        model: String,
        /// When the answer would have come.
        predicted: Duration,
        /// What was left of the time that it was allowed to take.
        allowed: Duration,
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// Admitted, and its time ran out in the queue.
    #[error("Request timeout expired: `{model}` did not start it within {allowed:?}")]
    Expired {
        /// The tenant.
        model: String,
        /// How long it was allowed to take.
        allowed: Duration,
    },
    /// Cancelled by someone other than the caller: the tenant was unloaded while the request waited.
    #[error("request was cancelled: {0}")]
    Cancelled(String),
    /// The server is going down and takes nothing new.
    #[error("server is shutting down; send the request elsewhere")]
    ShuttingDown,
    /// Our fault. The text names what failed; details are in the log.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Of a time that was over before anybody could look at the request its zero tells nothing.
fn too_late(allowed: Duration) -> String {
    match allowed {
        Duration::ZERO => "and the time allowed was over when the request had come".to_owned(),
        allowed => format!("later than the {allowed:.2?} allowed"),
    }
}

/// How a refusal travels: one row of the table below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wire {
    /// HTTP status.
    pub http: u16,
    /// What the failure is called in metrics: a small closed set.
    pub outcome: &'static str,
    /// `Retry-After`, when trying again makes sense.
    pub retry_after: Option<Duration>,
}

impl Rejection {
    /// Every outcome that the table can name.
    pub const OUTCOMES: [&'static str; 14] = [
        "not_found",
        "not_ready",
        "invalid",
        "too_large",
        "stalled",
        "unsupported",
        "queue_full",
        "overloaded",
        "over_quota",
        "too_late",
        "expired",
        "cancelled",
        "shutting_down",
        "internal",
    ];

    /// The one table of refusals.
    pub fn wire(&self) -> Wire {
        let soon = Some(Duration::from_secs(1));
        let (http, outcome, retry_after) = match self {
            Rejection::UnknownModel { .. }
            | Rejection::UnknownVersion { .. }
            | Rejection::NoVersion { .. } => (404, "not_found", None),
            Rejection::NotReady { .. } => (503, "not_ready", soon),
            Rejection::Invalid(_) => (400, "invalid", None),
            Rejection::TooLarge { .. } => (413, "too_large", None),
            Rejection::Stalled { .. } => (408, "stalled", None),
            Rejection::UnsupportedEncoding { .. } => (400, "invalid", None),
            Rejection::Unsupported(_) => (501, "unsupported", None),
            Rejection::QueueFull { retry_after, .. } => (429, "queue_full", Some(*retry_after)),
            Rejection::Overloaded { retry_after, .. } => (429, "overloaded", Some(*retry_after)),
            Rejection::OverQuota { retry_after, .. } => (429, "over_quota", *retry_after),
            Rejection::TooLate { retry_after, .. } => (504, "too_late", Some(*retry_after)),
            Rejection::Expired { .. } => (504, "expired", None),
            Rejection::Cancelled(_) => (503, "cancelled", soon),
            Rejection::ShuttingDown => (503, "shutting_down", soon),
            Rejection::Internal(_) => (500, "internal", None),
        };
        Wire { http, outcome, retry_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_an_error_status_and_an_outcome_that_metrics_can_take_away_again() {
        let (model, text) = (|| String::from("m"), || String::from("t"));
        let time = Duration::from_millis(5);
        let all = [
            Rejection::UnknownModel { model: model() },
            Rejection::UnknownVersion { model: model(), version: text(), served: vec![1] },
            Rejection::NoVersion { model: model(), version: text() },
            Rejection::NotReady { model: model(), why: text() },
            Rejection::Invalid(text()),
            Rejection::TooLarge { limit: 1 },
            Rejection::Stalled { waited: time },
            Rejection::UnsupportedEncoding { encoding: text() },
            Rejection::Unsupported(text()),
            Rejection::QueueFull { queue: text(), queued: 1, limit: 1, retry_after: time },
            Rejection::Overloaded { model: model(), why: text(), retry_after: time },
            Rejection::OverQuota { model: model(), owner: text(), why: text(), retry_after: None },
            Rejection::TooLate { model: model(), predicted: time, allowed: time, retry_after: time },
            Rejection::Expired { model: model(), allowed: time },
            Rejection::Cancelled(text()),
            Rejection::ShuttingDown,
            Rejection::Internal(text()),
        ];
        for rejection in &all {
            let wire = rejection.wire();
            assert!((400..600).contains(&wire.http), "{rejection}");
            assert!(Rejection::OUTCOMES.contains(&wire.outcome), "{rejection}");
        }
        let named = |outcome| all.iter().any(|rejection| rejection.wire().outcome == outcome);
        assert!(Rejection::OUTCOMES.into_iter().all(named));
    }

    #[test]
    fn a_time_that_was_over_on_arrival_is_said_in_words() {
        let late = |allowed| {
            let (model, time) = ("m".into(), Duration::from_millis(5));
            Rejection::TooLate { model, predicted: time, allowed, retry_after: time }.to_string()
        };
        assert!(late(Duration::from_nanos(1_987_654)).contains("later than the 1.99ms allowed; retry"));
        assert!(late(Duration::ZERO).contains("the time allowed was over"));
    }

    #[test]
    fn overload_is_never_unavailable_which_clients_retry_by_themselves() {
        let retry_after = Duration::from_secs(1);
        let full = Rejection::QueueFull { queue: "q".into(), queued: 8, limit: 8, retry_after };
        assert_eq!((full.wire().http, full.wire().retry_after), (429, Some(retry_after)));
    }
}
