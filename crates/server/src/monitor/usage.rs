//! How far a device is used: the share of time in which it had something to do, and what it did over what it could have done.
//!
//! ```text
//!   partition 0  ████████░░░░░░██████      busy: each partition's time with a launch, by its share of the device
//!   partition 1  ░░░░████████████░░░░      done: operations and bytes of the launches that ended, over the peak
//!   marks        |    |    |    |    |     about once a second; what is read is the last ten
//! ```
//! The paper's own motive: a device that serves one small model after the other is busy all the time and does a few percent of what it could. So both
//! are shown, and their distance is what sharing launches may still gain.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use tessera_core::PartitionId;
use tessera_device::Rates;
use tessera_scheduler::Partition;

/// Over how long it is averaged.
const WINDOW: Duration = Duration::from_secs(10);

/// How often a mark is set, at most.
const MARK: Duration = Duration::from_secs(1);

/// What a launch did, as its plan counts it.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Done {
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes that had to be read and written.
    pub bytes: f64,
}

/// How far a device was used lately, and what it did since it was opened.
#[derive(Clone, Copy, PartialEq, Debug, Default, serde::Serialize)]
pub struct Share {
    /// Of the last ten seconds the part in which it had something to do, from 0 to 1: of a device of several partitions their mean, by size.
    pub busy: f64,
    /// Operations over what it could have done; `None` where its peak is not known.
    pub flops: Option<f64>,
    /// Bytes over what it could have moved.
    pub bytes: Option<f64>,
    /// Seconds in which it had something to do, since it was opened.
    pub busy_seconds: f64,
}

#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Totals {
    busy_seconds: f64,
    done: Done,
}

#[derive(Debug, Default)]
struct Part {
    units: f64,
    launches: u32,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Usage {
    parts: BTreeMap<PartitionId, Part>,
    /// Units of the whole device.
    whole: f64,
    /// Units of the partitions that have something to do.
    busy: f64,
    peak: Option<Rates>,
    /// Until when `totals` are counted.
    at: Option<Instant>,
    totals: Totals,
    marks: VecDeque<(Instant, Totals)>,
}

impl Usage {
    pub(super) fn cut(&mut self, layouts: &[Vec<Partition>]) {
        let units = |partition: &Partition| f64::from(partition.units.get());
        self.whole = layouts.iter().map(|layout| layout.iter().map(units).sum()).fold(0.0, f64::max);
        let parts = layouts.iter().flatten();
        self.parts = parts.map(|part| (part.id, Part { units: units(part), launches: 0 })).collect();
    }

    /// The first that is told counts.
    pub(super) fn peak(&mut self, peak: Rates) {
        self.peak.get_or_insert(peak);
    }

    /// The part of the device that a partition has, from 0 to 1.
    pub(super) fn part(&self, partition: PartitionId) -> f64 {
        let units = self.parts.get(&partition).map(|part| part.units).filter(|_| self.whole > 0.0);
        units.map_or(1.0, |units| (units / self.whole).min(1.0))
    }

    pub(super) fn began(&mut self, at: Instant, partition: PartitionId) {
        self.count_until(at);
        let Some(part) = self.parts.get_mut(&partition) else { return };
        part.launches += 1;
        if part.launches == 1 {
            self.busy += part.units;
        }
    }

    pub(super) fn ended(&mut self, at: Instant, partition: PartitionId, done: Done) {
        self.count_until(at);
        self.totals.done.flops += done.flops;
        self.totals.done.bytes += done.bytes;
        let Some(part) = self.parts.get_mut(&partition).filter(|part| part.launches > 0) else { return };
        part.launches -= 1;
        if part.launches == 0 {
            self.busy -= part.units;
        }
    }

    /// Counts the time until now. Once in a while it sets marks, at the last change and now: between two marks all grew evenly.
    fn count_until(&mut self, at: Instant) {
        let since = *self.at.get_or_insert(at);
        let before = self.totals;
        if self.whole > 0.0 {
            let passed = at.saturating_duration_since(since).as_secs_f64();
            self.totals.busy_seconds += passed * (self.busy / self.whole).min(1.0);
        }
        self.at = Some(since.max(at));
        let last = self.marks.back().map(|(last, _)| *last);
        if last.is_some_and(|last| at.saturating_duration_since(last) < MARK) {
            return;
        }
        if last.is_some_and(|last| since >= last) {
            self.marks.push_back((since, before));
        }
        self.marks.push_back((at, self.totals));
        // The one before the window's beginning stays, to measure from.
        while self.marks.get(1).is_some_and(|(second, _)| at.saturating_duration_since(*second) >= WINDOW) {
            self.marks.pop_front();
        }
    }

    pub(super) fn share(&mut self, at: Instant) -> Share {
        self.count_until(at);
        let (then, seconds) = self.at_window(at);
        if seconds <= 0.0 {
            return Share { busy_seconds: self.totals.busy_seconds, ..Share::default() };
        }
        let of = |now: f64, then: f64| (now - then) / seconds;
        let of_peak = |rate: f64, peak: Option<f64>| peak.filter(|peak| *peak > 0.0).map(|peak| rate / peak);
        let Totals { busy_seconds, done } = self.totals;
        Share {
            busy: of(busy_seconds, then.busy_seconds).clamp(0.0, 1.0),
            flops: of_peak(of(done.flops, then.done.flops), self.peak.map(|peak| peak.flops_per_s)),
            bytes: of_peak(of(done.bytes, then.done.bytes), self.peak.map(|peak| peak.bytes_per_s)),
            busy_seconds,
        }
    }

    /// What was counted when the window began, and how many seconds ago that was: of a device opened later, since then.
    fn at_window(&self, at: Instant) -> (Totals, f64) {
        let Some(&(first, totals)) = self.marks.front() else { return (self.totals, 0.0) };
        let age = at.saturating_duration_since(first);
        let Some(&(second, next)) = self.marks.get(1).filter(|_| age > WINDOW) else {
            return (totals, age.as_secs_f64());
        };
        // Between the two it grew evenly.
        let gap = second.saturating_duration_since(first).as_secs_f64();
        let part = ((age - WINDOW).as_secs_f64() / gap.max(1e-9)).min(1.0);
        let between = |from: f64, to: f64| from + (to - from) * part;
        let totals = Totals {
            busy_seconds: between(totals.busy_seconds, next.busy_seconds),
            done: Done {
                flops: between(totals.done.flops, next.done.flops),
                bytes: between(totals.done.bytes, next.done.bytes),
            },
        };
        (totals, WINDOW.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    const WHOLE: PartitionId = PartitionId(0);
    const QUARTER: PartitionId = PartitionId(1);

    fn usage() -> Usage {
        let part = |id, units| Partition::new(id, NonZeroU32::new(units).unwrap());
        let mut usage = Usage::default();
        usage.cut(&[vec![part(WHOLE, 4)], vec![part(QUARTER, 1), part(PartitionId(2), 3)]]);
        usage.peak(Rates { flops_per_s: 1000.0, bytes_per_s: 100.0 });
        usage
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn a_device_that_works_half_of_the_time_is_half_busy_and_does_what_its_launches_do() {
        let (mut usage, start, ms) = (usage(), Instant::now(), Duration::from_millis);
        for launch in 0..200 {
            usage.began(start + launch * ms(100), WHOLE);
            usage.ended(start + launch * ms(100) + ms(50), WHOLE, Done { flops: 20.0, bytes: 5.0 });
        }
        let share = usage.share(start + ms(20_000));
        assert!(close(share.busy, 0.5) && close(share.busy_seconds, 10.0), "{share:?}");
        assert!(close(share.flops.unwrap(), 0.2) && close(share.bytes.unwrap(), 0.5), "{share:?}");
        assert!(usage.marks.len() <= 24, "{}", usage.marks.len());
    }

    #[test]
    fn a_partition_counts_by_its_share_of_the_device_however_many_launches_it_has() {
        let (mut usage, start, second) = (usage(), Instant::now(), Duration::from_secs(1));
        usage.began(start, QUARTER);
        usage.began(start, QUARTER);
        usage.ended(start + second, QUARTER, Done::default());
        assert!(close(usage.share(start + 2 * second).busy, 0.25));
        usage.ended(start + 2 * second, QUARTER, Done::default());
        assert!(close(usage.share(start + 4 * second).busy_seconds, 0.5));
    }

    #[test]
    fn a_device_that_rested_for_long_is_idle_and_a_burst_after_it_counts_at_once() {
        let (mut usage, start, second) = (usage(), Instant::now(), Duration::from_secs(1));
        usage.began(start, WHOLE);
        usage.ended(start + second, WHOLE, Done { flops: 1e6, bytes: 0.0 });
        let idle = usage.share(start + 60 * second);
        assert!(close(idle.busy, 0.0) && close(idle.flops.unwrap(), 0.0), "{idle:?}");
        usage.began(start + 100 * second, WHOLE);
        assert!(close(usage.share(start + 105 * second).busy, 0.5));
    }

    #[test]
    fn without_a_peak_there_is_no_share_of_it() {
        let mut usage = Usage { peak: None, ..usage() };
        let start = Instant::now();
        usage.began(start, WHOLE);
        let share = usage.share(start + WINDOW);
        assert_eq!((share.flops, share.bytes), (None, None));
        assert!(close(share.busy, 1.0));
    }
}
