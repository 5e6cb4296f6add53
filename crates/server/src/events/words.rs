//! The numbers of what a scheduler decided, by name.

use super::by_name;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tessera_scheduler::{Happened, Refusal, Verdict};

/// Every number that the text of an event has, and those that its text rounds. Lengths of time are in milliseconds.
pub(super) fn numbers(what: &Happened) -> Map<String, Value> {
    let numbers = match what {
        Happened::Refused { requests, last, .. } => {
            let mut numbers = of_refusal(last);
            numbers["requests"] = json!(requests);
            numbers["reason"] = json!(last.reason());
            numbers
        }
        Happened::Expired { requests, .. } => json!({ "requests": requests }),
        Happened::Evicted { ratio, bound, .. } | Happened::Returned { ratio, bound, .. } => {
            json!({ "ratio": ratio, "bound": bound })
        }
        Happened::Heard { witness, lanes, longer, .. } => {
            json!({ "witness": witness, "lanes": lanes, "longer": longer })
        }
        Happened::Acquitted { ratio, bound, .. } => json!({ "ratio": ratio, "bound": bound }),
        Happened::Probation { away, .. } => json!({ "away_ms": ms(*away) }),
        Happened::Recycled { partition, ratio, bound, drained } => {
            json!({ "partition": partition.0, "ratio": ratio, "bound": bound, "drained_ms": ms(*drained) })
        }
        Happened::DeviceSlow { partition, ratio, bound } => {
            json!({ "partition": partition.map(|partition| partition.0), "ratio": ratio, "bound": bound })
        }
        Happened::Interrupted { launches, stood_back } => {
            json!({ "launches": launches, "stood_back_ms": ms(*stood_back) })
        }
        Happened::Rearranged { from, to, before, predicted } => {
            json!({ "from": from, "to": to, "in_time_before": before, "in_time_predicted": predicted })
        }
    };
    by_name(numbers)
}

/// What a verdict rests on.
pub(super) fn of_verdict(verdict: &Verdict) -> Map<String, Value> {
    let Verdict { alone, alone_percentile, slo, percentile, margin } = verdict;
    by_name(json!({
        "alone_ms": ms(*alone),
        "alone_percentile": alone_percentile,
        "slo_ms": ms(*slo),
        "slo_percentile": percentile,
        "margin_ms": ms(*margin),
    }))
}

fn of_refusal(refusal: &Refusal) -> Value {
    match refusal {
        Refusal::UnknownTenant(_) | Refusal::KnownRequest(_) => json!({}),
        Refusal::TooManyItems { items, limit } => json!({ "items": items, "limit": limit }),
        Refusal::QueueFull { queued, limit, .. } => json!({ "queued": queued, "limit": limit }),
        Refusal::QueueBytesFull { queued, brings, limit, .. } => {
            json!({ "queued_bytes": queued.0, "brings_bytes": brings.0, "limit_bytes": limit.0 })
        }
        Refusal::OverShare { ahead, predicted, allowed, .. } => {
            json!({ "ahead_ms": ms(*ahead), "predicted_ms": ms(*predicted), "allowed_ms": ms(*allowed) })
        }
        Refusal::OverRate { rate, asks, retry, .. } => {
            json!({
                "per_s": f64::from(rate.milli_per_s.get()) / 1e3, "counted": rate.counted.name(),
                "burst": rate.burst, "asks": asks, "retry_ms": retry.map(ms),
            })
        }
        Refusal::OverConcurrency { inside, limit, .. } => json!({ "inside": inside, "limit": limit }),
        Refusal::TooLate { predicted, allowed } => {
            json!({ "predicted_ms": ms(*predicted), "allowed_ms": ms(*allowed) })
        }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
