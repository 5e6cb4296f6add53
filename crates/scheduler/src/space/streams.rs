//! How many partitions are open where each of them has the whole device, as streams of a card have.
//!
//! ```text
//!   classes asked for   1                    2                    4
//!   partitions          [ a a a a ]          [ a a a ]            [ a a ][ c ]
//!                                            [ b b b ]            [ b b ][ d d d ]      of four
//! ```
//! Launches of one class gain nothing side by side: merged they read their weights once and fill the device. Those of different classes cannot be merged; one
//! after the other each leaves a part of the device idle, and waits for the others. So as many partitions are open as there are classes that are asked for.
//!
//! A class that hardly ever comes does not count, since what is open is open to all, and the launches of the others would be split for it; unless it takes long: one request in
//! a hundred that takes a hundred times as long is half of what the device does, and the other half would wait behind it.
//!
//! What is promised on a partition that closes runs there to its end: a line that nothing more is booked on keeps its promises as any other.

use crate::plans::PlanIx;
use std::time::Duration;
use tessera_core::{IdMap, Moment};

/// A class counts when it is at least so great a part of what is asked, by number or by what it takes.
const COUNTS: u64 = 50;
/// After so many requests classes are counted anew within a window.
const COUNTED: u64 = 32;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Of the window, by plan.
    asked: IdMap<PlanIx, Asked>,
    total: Asked,
    ends: Moment,
    /// Classes of the last window, and of this one so far.
    before: usize,
    now: usize,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    requests: u64,
    /// What they take one by one, by prediction.
    takes: Duration,
}

impl Asked {
    fn add(&mut self, takes: Duration) {
        self.requests += 1;
        self.takes = self.takes.saturating_add(takes);
    }

    fn counts(&self, total: &Asked) -> bool {
        let takes = |asked: &Asked| asked.takes.as_nanos();
        self.requests * COUNTS >= total.requests || takes(self) * u128::from(COUNTS) >= takes(total)
    }
}

impl Streams {
    /// One request more, which alone takes so long by prediction. Windows are so long.
    pub(super) fn note(&mut self, now: Moment, plan: PlanIx, takes: Duration, window: Duration) {
        if now >= self.ends {
            self.count();
            (self.before, self.now) = (self.now, 0);
            (self.total, self.ends) = (Asked::default(), now + window);
            self.asked.clear();
        }
        self.asked.entry(plan).or_default().add(takes);
        self.total.add(takes);
        if self.total.requests.is_multiple_of(COUNTED) {
            self.count();
        }
    }

    fn count(&mut self) {
        self.now = self.asked.values().filter(|asked| asked.counts(&self.total)).count();
    }

    /// Classes that are asked for, at least one.
    pub(super) fn classes(&self) -> usize {
        self.before.max(self.now).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_count_while_they_are_asked_for_and_a_window_longer() {
        let (second, ms) = (Duration::from_secs(1), |ms| Moment::at(Duration::from_millis(ms)));
        let mut streams = Streams::default();
        assert_eq!(streams.classes(), 1);
        // Of three classes one is a hundredth of what is asked.
        let ask = |streams: &mut Streams, at: u64, classes: u64| {
            for request in 0..200 {
                let plan = if request % 100 == 99 { 2 } else { request % classes };
                let plan = PlanIx(u32::try_from(plan).expect("small"));
                streams.note(ms(at + request), plan, Duration::from_millis(1), second);
            }
        };
        ask(&mut streams, 0, 2);
        assert_eq!(streams.classes(), 2);
        ask(&mut streams, 1000, 1);
        assert_eq!(streams.classes(), 2, "the last window still counts");
        ask(&mut streams, 2000, 1);
        ask(&mut streams, 3000, 1);
        assert_eq!(streams.classes(), 1);
    }

    #[test]
    fn a_class_that_comes_seldom_and_takes_long_counts_and_so_does_one_that_comes_often_and_takes_nothing() {
        let (second, us) = (Duration::from_secs(1), Duration::from_micros);
        let classes = |seldom: Duration| {
            let mut streams = Streams::default();
            for request in 0..800 {
                let (plan, takes) = if request % 100 == 99 { (1, seldom) } else { (0, us(300)) };
                streams.note(Moment::at(us(1000 * request)), PlanIx(plan), takes, second);
            }
            streams.classes()
        };
        assert_eq!((classes(us(300)), classes(us(30_000))), (1, 2));
        assert_eq!(classes(Duration::MAX), 2, "the other is nearly all that is asked for");
    }
}
