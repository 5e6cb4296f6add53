//! What a launch takes besides computing, on a device that copies beside its kernels.
//!
//! ```text
//!   handed over ─▶ staged, copied in ─▶ [computes: its cost] ─▶ copied out, heard of
//!                  └────── way ─────┘                          └────── way ──────┘
//! ```
//! On an idle device the way comes on top of the cost. Behind another launch it is hidden, if it was handed over so long before its turn. So it is
//! learnt apart: in the costs it would make every small launch look several times as dear as it is, promises would be refused that can be kept, and
//! launches handed over too late, in the belief that those before them take longer.

use std::collections::VecDeque;
use std::time::Duration;

/// Launches on an idle device that count, the last ones. The upper quartile of them is what is planned with: a first launch, which finds everything
/// cold, shall not stand for the others, and what a promise needs beyond is its margin.
const LAST: usize = 32;
const QUARTILE: f64 = 0.75;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Way {
    last: VecDeque<Duration>,
    high: Option<Duration>,
}

impl Way {
    /// A launch on an idle device took so long besides computing.
    pub(crate) fn note(&mut self, took: Duration) {
        self.last.truncate(LAST - 1);
        self.last.push_front(took);
        let mut sorted: Vec<Duration> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (QUARTILE * sorted.len() as f64).ceil() as usize;
        self.high = sorted.get(rank.saturating_sub(1)).copied();
    }

    /// What it is taken for, once there was one.
    pub(crate) fn known(&self) -> Option<Duration> {
        self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cold_start_is_not_the_way_of_the_others_and_the_last_ones_count() {
        let micros = Duration::from_micros;
        let mut way = Way::default();
        assert_eq!(way.known(), None);
        way.note(micros(90_000));
        assert_eq!(way.known(), Some(micros(90_000)));
        (1..=4).for_each(|took| way.note(micros(100 * took)));
        assert_eq!(way.known(), Some(micros(400)));
        (0..LAST).for_each(|_| way.note(micros(50)));
        assert_eq!(way.known(), Some(micros(50)));
    }
}
