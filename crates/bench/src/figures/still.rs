//! When the host stood still: a thread that naps, again and again, and writes down by how much it overslept.
//!
//! ```text
//!   nap ▪ nap ▪ nap ▪ nap ▪▪▪▪▪▪▪▪▪▪ nap ▪           whoever was to be woken meanwhile, the engine too, was woken as late
//! ```
//! It wakes as the engine's thread does, and does nothing else: what keeps it from waking is the host, or whoever else wants its cores.

use crate::latency::Latencies;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tessera_core::Moment;

/// Short beside what is looked for, and long enough that the thread takes a hundredth of a core.
const NAP: Duration = Duration::from_micros(250);

/// Whoever oversleeps by less was woken as threads are.
const LEAST: Duration = Duration::from_micros(300);

/// A thread that naps.
#[derive(Debug)]
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Napped>,
}

/// What it saw.
#[derive(Debug)]
struct Napped {
    began: Instant,
    overslept: Latencies,
    still: Vec<(Instant, Duration)>,
}

/// How often a host stood still, when, and for how long.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Still {
    /// By when it was, from the begin of the load.
    spans: Vec<(Duration, Duration)>,
    /// How long the thread napped in all.
    whole: Duration,
    /// By how much it overslept each time.
    pub(crate) overslept: Latencies,
}

impl Watch {
    /// Starts it.
    pub(crate) fn begin() -> Result<Watch> {
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let began = Instant::now();
        let nap = move || {
            let mut napped = Napped { began, overslept: Latencies::default(), still: vec![] };
            while !told.load(Ordering::Relaxed) {
                let due = Instant::now() + NAP;
                std::thread::sleep(NAP);
                let overslept = due.elapsed();
                napped.overslept.record(overslept);
                if overslept >= LEAST {
                    napped.still.push((due, overslept));
                }
            }
            napped
        };
        let thread = std::thread::Builder::new().name("napper".to_owned()).spawn(nap);
        Ok(Watch { over, thread: thread.context("no thread to watch the host with")? })
    }

    /// Ends it. The load's clock started at `began`.
    pub(crate) fn end(self, began: Instant) -> Still {
        self.over.store(true, Ordering::Relaxed);
        // A thread that only naps does not panic; if it did, nothing is known of the host.
        let Ok(Napped { began: first, overslept, still }) = self.thread.join() else {
            return Still::default();
        };
        let spans = still.into_iter().map(|(at, long)| (at.saturating_duration_since(began), long));
        Still { spans: spans.collect(), whole: first.elapsed(), overslept }
    }
}

impl Still {
    /// When it stood still, as the simulator takes it.
    pub(crate) fn moments(&self) -> Arc<[(Moment, Duration)]> {
        self.spans.iter().map(|(at, long)| (Moment::at(*at), *long)).collect()
    }

    /// Whether it did between two moments.
    pub(crate) fn met(&self, from: Duration, to: Duration) -> bool {
        let before = self.spans.partition_point(|(at, _)| *at < to);
        self.spans[..before].last().is_some_and(|(at, long)| *at + *long > from)
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.spans.len() as f64 / self.whole.as_secs_f64().max(1e-9)
    }

    #[cfg(test)]
    pub(crate) fn of(spans: Vec<(Duration, Duration)>, whole: Duration) -> Still {
        Still { spans, whole, overslept: Latencies::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_stood_still_where_its_time_and_another_meet() {
        let ms = Duration::from_millis;
        let still = Still::of(vec![(ms(10), ms(2)), (ms(20), ms(5))], ms(500));
        let met = |from, to| still.met(ms(from), ms(to));
        assert_eq!(
            [met(0, 10), met(0, 11), met(11, 15), met(12, 20), met(24, 90), met(25, 90)],
            [false, true, true, false, true, false]
        );
        assert_eq!(still.per_second(), 4.0);
        assert_eq!(still.moments()[1], (Moment::at(ms(20)), ms(5)));
    }

    #[test]
    fn a_watch_sees_every_nap_and_moments_from_the_begin_of_the_load_on() {
        let began = Instant::now();
        let watch = Watch::begin().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let still = watch.end(began);
        let naps = still.overslept.count();
        let most = still.whole.as_secs_f64() / NAP.as_secs_f64();
        assert!(naps > 0 && naps as f64 <= most, "{naps} naps where there is time for {most}");
        assert!(still.spans.is_sorted() && still.spans.iter().all(|(_, long)| *long >= LEAST), "{still:?}");
        assert!(still.overslept.most() > Duration::ZERO && still.whole >= Duration::from_millis(50));
    }
}
