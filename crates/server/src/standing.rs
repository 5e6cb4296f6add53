//! How tenants fare: what became of their requests, and whether what was agreed is kept.
//!
//! ```text
//!   engine of each device ─ launches, verdict, waiting and computing ───────▶ Standing ─┐
//!   service ─ answered, failed, time from arrival to answer, deadlines kept ──▶ Tally ─┴▶ GET /v2/models/M/stats
//! ```
//! One [`Standing`] for each tenant version and device, which its engine alone writes; one [`Tally`] for each version, whatever device answers.

mod attainment;
mod times;

pub(crate) use attainment::Fate;

use crate::monitor::quantiles;
use attainment::Attainment;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tessera_scheduler::Verdict;
use times::{Count, Times, all_of};

/// A tenant on one device, as its engine last said.
#[derive(Debug, Default)]
pub struct Standing {
    lanes: AtomicU64,
    verdict: Mutex<Option<Verdict>>,
    queue: Times,
    compute: Times,
}

impl Standing {
    /// Requests of it were answered: each waited for so long, its way to the device and back included, and was in a launch that computed for so long.
    pub fn took(&self, at: Instant, requests: impl Iterator<Item = (Duration, Duration)>) {
        for (queue, compute) in requests {
            self.queue.add(at, queue);
            self.compute.add(at, compute);
        }
    }

    /// A launch has a lane of it.
    pub fn launched(&self) {
        self.lanes.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether its SLO can be met.
    pub fn judged(&self, verdict: Verdict) {
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
    }

    /// Lanes it had, and the verdict.
    pub fn now(&self) -> (u64, Option<Verdict>) {
        let verdict = *self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        (self.lanes.load(Ordering::Relaxed), verdict)
    }
}

/// What became of a version's requests.
#[derive(Debug, Default)]
pub struct Tally {
    answered: Times,
    failed: Count,
    /// Items answered.
    items: AtomicU64,
    attained: Attainment,
    /// When the last was answered, in milliseconds since 1970.
    last_ms: AtomicU64,
}

impl Tally {
    /// A request of so many items was answered, so long after it came.
    pub fn answered(&self, items: u64, took: Duration) {
        self.answered.add(Instant::now(), took);
        self.items.fetch_add(items, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_ms.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What became of a request's deadline.
    pub fn attained(&self, fate: Fate) {
        self.attained.count(fate);
    }

    /// One was refused or failed.
    pub fn failed(&self, took: Duration) {
        self.failed.add(took);
    }
}

/// What was agreed with a tenant.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Agreed {
    /// Answers are due in this.
    pub slo: Option<Duration>,
    /// For so many of them, in percent.
    pub percentile: f64,
}

/// A version's statistics as Triton shows them: copies to a device and back lie within `queue`, so `compute_input` and `compute_output` take no time of their own;
/// nothing is answered from a cache. Triton's `batch_stats`, `response_stats` and `memory_usage` are left out. With our own beside: under `recent_ms` where the time of requests went in the last minutes, by quantile in
/// milliseconds; under `slo` what was agreed, what was kept, and on each device whether it can be.
pub(crate) fn statistics(
    (name, version): (&str, u64),
    tally: &Tally,
    agreed: Agreed,
    standings: &[(&str, &Standing)],
) -> Value {
    let mut lanes = 0;
    let mut verdicts = Vec::new();
    for (device, standing) in standings {
        let (had, verdict) = standing.now();
        lanes += had;
        verdicts.extend(verdict.map(|verdict| {
            json!({ "device": device, "can_be_met": verdict.can_be_met(), "text": verdict.to_string(),
                    "alone_ms": verdict.alone.as_secs_f64() * 1e3 })
        }));
    }
    let attained = &tally.attained;
    let (kept, refused) = (attained.kept_percent(), attained.of(Fate::Refused));
    let deadlines: u64 = Fate::ALL.into_iter().map(|fate| attained.of(fate)).sum();
    let text = match agreed.slo {
        None if deadlines == 0 => "no SLO: best effort".to_owned(),
        _ => format!("{} % asked, {kept:.4} % kept of those let in, {refused} refused", agreed.percentile),
    };
    let at = Instant::now();
    let queue = || standings.iter().map(|(_, standing)| &standing.queue);
    let compute = || standings.iter().map(|(_, standing)| &standing.compute);
    let computed = all_of(compute().map(|times| &times.ever));
    let none = json!({ "count": computed["count"], "ns": 0 });
    let never = json!({ "count": 0, "ns": 0 });
    json!({
        "name": name,
        "version": version.to_string(),
        "last_inference": tally.last_ms.load(Ordering::Relaxed),
        "inference_count": tally.items.load(Ordering::Relaxed),
        "execution_count": lanes,
        "inference_stats": {
            "success": tally.answered.ever.json(),
            "fail": tally.failed.json(),
            "queue": all_of(queue().map(|times| &times.ever)),
            "compute_input": none,
            "compute_infer": computed,
            "compute_output": none,
            "cache_hit": never,
            "cache_miss": never,
        },
        "recent_ms": {
            "queue": quantiles(&Times::read(queue(), at), 1e3),
            "compute": quantiles(&Times::read(compute(), at), 1e3),
            "total": quantiles(&Times::read([&tally.answered], at), 1e3),
        },
        "slo": {
            "ms": agreed.slo.map(|slo| slo.as_secs_f64() * 1e3),
            "percentile": agreed.percentile,
            "kept_percent": kept,
            "kept": attained.keeps(agreed.percentile),
            "text": text,
            "in_time": attained.of(Fate::InTime),
            "late": attained.of(Fate::Late),
            "expired": attained.of(Fate::Expired),
            "refused": refused,
            "verdicts": verdicts,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_add_devices_up_and_keep_their_verdicts_apart() {
        let (first, second, tally) = (Standing::default(), Standing::default(), Tally::default());
        first.launched();
        second.launched();
        let ms = Duration::from_millis;
        second.judged(Verdict {
            alone: ms(31),
            alone_percentile: 99.0,
            slo: ms(25),
            percentile: 99.0,
            margin: Duration::ZERO,
        });
        first.took(Instant::now(), [(ms(1), ms(2)), (ms(3), ms(2))].into_iter());
        second.took(Instant::now(), std::iter::once((ms(9), ms(4))));
        tally.answered(4, ms(3));
        tally.failed(ms(1));
        for (fate, times) in Fate::ALL.into_iter().zip([198, 1, 1, 5]) {
            (0..times).for_each(|_| tally.attained(fate));
        }
        let agreed = Agreed { slo: Some(ms(25)), percentile: 99.0 };
        let devices = [("cpu:0", &first), ("cpu:1", &second)];
        let shown = statistics(("a", 2), &tally, agreed, &devices);
        assert_eq!((&shown["inference_count"], &shown["execution_count"]), (&json!(4), &json!(2)));
        assert_eq!(shown["inference_stats"]["success"], json!({ "count": 1, "ns": 3_000_000 }));
        assert_eq!(shown["inference_stats"]["queue"], json!({ "count": 3, "ns": 13_000_000 }));
        assert_eq!(shown["inference_stats"]["compute_infer"]["ns"], 8_000_000);
        // Clients of the extension read every field, and expect these counts to be alike.
        for part in ["compute_input", "compute_infer", "compute_output"] {
            assert_eq!(shown["inference_stats"][part]["count"], 3, "{part}");
        }
        assert_eq!(shown["inference_stats"]["cache_hit"], json!({ "count": 0, "ns": 0 }));
        let near = |of: &str, quantile: &str, ms: f64| {
            shown["recent_ms"][of][quantile].as_f64().is_some_and(|seen| (1.0..1.051).contains(&(seen / ms)))
        };
        assert!(near("queue", "p50", 3.0) && near("queue", "p99", 9.0), "{shown}");
        assert!(near("compute", "p95", 4.0) && near("total", "p50", 3.0), "{shown}");
        let slo = &shown["slo"];
        assert_eq!(
            (&slo["kept_percent"], &slo["kept"], &slo["refused"]),
            (&json!(99.0), &json!(true), &json!(5))
        );
        assert_eq!(slo["text"], "99 % asked, 99.0000 % kept of those let in, 5 refused");
        assert_eq!(slo["verdicts"].as_array().unwrap().len(), 1);
        let no_slo = Agreed { slo: None, percentile: 99.0 };
        let shown = statistics(("a", 2), &Tally::default(), no_slo, &[("cpu:0", &Standing::default())]);
        assert_eq!(shown["slo"]["text"], "no SLO: best effort");
        let text = slo["verdicts"][0]["text"].as_str().unwrap();
        assert!(text.starts_with("alone p99 31.00ms: cannot meet 25ms"), "{text}");
    }
}
