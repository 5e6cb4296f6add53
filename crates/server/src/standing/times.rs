//! Where a tenant's time goes: counted for ever, and with quantiles of the last minutes.
//!
//! ```text
//!   arrived ────────── queue ──────────▶ computes ──── compute ────▶ ─ back ─▶ answered
//!   └──────────────────────────────── total ───────────────────────────────────┘
//! ```
//! Memory is for as many tenants as there are: buckets five percent wide, some fifty for a decade, kept twice (`Recent`). A tenant whose times spread over one decade has
//! about a kilobyte and a half for all three, a quiet one none, and none more than twelve ([`LEAST`] to [`MOST`]).

use crate::monitor::{Recent, Sketch};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How exact quantiles are.
const WIDTH: f64 = 1.05;

/// Times outside count as these: it bounds the buckets.
const LEAST: Duration = Duration::from_micros(1);
const MOST: Duration = Duration::from_secs(1000);

/// How often, and how long together.
#[derive(Debug, Default)]
pub(super) struct Count {
    requests: AtomicU64,
    nanos: AtomicU64,
}

impl Count {
    pub(super) fn add(&self, took: Duration) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn so_far(&self) -> (u64, u64) {
        (self.requests.load(Ordering::Relaxed), self.nanos.load(Ordering::Relaxed))
    }

    pub(super) fn json(&self) -> Value {
        all_of([self])
    }
}

/// Several counts as one, as Triton shows it.
pub(super) fn all_of<'a>(counts: impl IntoIterator<Item = &'a Count>) -> Value {
    let all = counts.into_iter().map(Count::so_far);
    let (count, ns) = all.fold((0, 0), |(requests, nanos), (more, longer)| (requests + more, nanos + longer));
    json!({ "count": count, "ns": ns })
}

/// The same, with what was seen of late.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) ever: Count,
    recent: Mutex<Recent>,
}

impl Default for Times {
    fn default() -> Times {
        Times { ever: Count::default(), recent: Mutex::new(Recent::new(WIDTH)) }
    }
}

impl Times {
    /// One request took so long, and was over at this moment.
    pub(super) fn add(&self, at: Instant, took: Duration) {
        self.ever.add(took);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.record(at, took.clamp(LEAST, MOST).as_secs_f64());
    }

    /// What several have seen of late, in seconds.
    pub(super) fn read<'a>(all: impl IntoIterator<Item = &'a Times>, at: Instant) -> Sketch {
        let mut together = Sketch::new(WIDTH);
        for times in all {
            together.merge(&times.recent.lock().unwrap_or_else(PoisonError::into_inner).read(at));
        }
        together
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What all the times of one tenant take beside their counters.
    fn heap_bytes(of: &[Times; 3]) -> usize {
        of.iter().map(|times| times.recent.lock().unwrap().heap_bytes()).sum()
    }

    /// A tenant that has been asked for ten minutes, with times from `least` to `spread` times it.
    fn asked(least: Duration, spread: f64) -> [Times; 3] {
        let start = Instant::now();
        let tenant: [Times; 3] = std::array::from_fn(|_| Times::default());
        for second in 0..600u32 {
            for times in &tenant {
                let part = f64::from(second % 100) / 99.0;
                times.add(start + Duration::from_secs(second.into()), least.mul_f64(spread.powf(part)));
            }
        }
        tenant
    }

    #[test]
    fn ten_thousand_tenants_fit_and_whatever_is_recorded_one_is_bounded() {
        let usual = heap_bytes(&asked(Duration::from_millis(3), 10.0));
        assert!(usual <= 3 * 2 * 64 * size_of::<u32>(), "{usual} bytes");
        let quiet: [Times; 3] = std::array::from_fn(|_| Times::default());
        assert_eq!(heap_bytes(&quiet), 0);
        let worst = heap_bytes(&asked(Duration::from_nanos(1), 1e18));
        assert!(worst <= 12 * 1024, "{worst} bytes");
        println!("{usual} bytes for times within a decade, {worst} at most, beside {}", size_of_val(&quiet));
    }

    #[test]
    fn quantiles_of_two_devices_are_those_of_both_together() {
        let (one, other, at) = (Times::default(), Times::default(), Instant::now());
        (0..98).for_each(|_| one.add(at, Duration::from_millis(2)));
        (0..2).for_each(|_| other.add(at, Duration::from_millis(50)));
        let both = Times::read([&one, &other], at);
        let near = |part: f64, ms: f64| {
            both.quantile(part).is_some_and(|s| (1.0..=WIDTH + 1e-9).contains(&(s * 1e3 / ms)))
        };
        assert!(near(0.5, 2.0) && near(0.99, 50.0), "{both:?}");
        assert_eq!(all_of([&one.ever, &other.ever]), json!({ "count": 100, "ns": 296_000_000 }));
    }
}
