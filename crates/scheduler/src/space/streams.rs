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
//! What is promised on a partition that closes runs there to its end: a line that nothing more is booked on keeps its promises as any other.

use crate::plans::PlanIx;
use std::time::Duration;
use tessera_core::{IdMap, Moment};

/// A class counts when it is at least so great a part of what is asked.
const COUNTS: u64 = 50;
/// After so many requests classes are counted anew within a window.
const COUNTED: u64 = 32;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Requests of the window by plan.
    asked: IdMap<PlanIx, u64>,
    total: u64,
    ends: Moment,
    /// Classes of the last window, and of this one so far.
    before: usize,
    now: usize,
}

impl Streams {
    /// One request more. Windows are so long.
    pub(super) fn note(&mut self, now: Moment, plan: PlanIx, window: Duration) {
        if now >= self.ends {
            self.count();
            (self.before, self.now) = (self.now, 0);
            (self.total, self.ends) = (0, now + window);
            self.asked.clear();
        }
        *self.asked.entry(plan).or_default() += 1;
        self.total += 1;
        if self.total.is_multiple_of(COUNTED) {
            self.count();
        }
    }

    fn count(&mut self) {
        self.now = self.asked.values().filter(|asked| **asked * COUNTS >= self.total).count();
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
                streams.note(ms(at + request), PlanIx(u32::try_from(plan).expect("small")), second);
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
}
