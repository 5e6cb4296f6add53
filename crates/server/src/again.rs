//! When what failed is tried again: after a second, then after twice as long each time, after a minute at most.
//!
//! What failed for memory or a file that was not there yet works soon or late, and nobody says when; what fails for good is not to keep a server busy.

use std::time::{Duration, Instant};

/// First and longest wait.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// The next try of something that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Again {
    at: Instant,
    wait: Duration,
}

impl Again {
    /// After a failure that has just been, and the one before it, if there was one.
    pub(crate) fn after(before: Option<Again>, now: Instant) -> Again {
        let wait = before.map_or(FIRST, |before| (2 * before.wait).min(LONGEST));
        Again { at: now + wait, wait }
    }

    /// Whether it is time.
    pub(crate) fn is_due(self, now: Instant) -> bool {
        self.at <= now
    }

    /// How long it is until then.
    pub(crate) fn left(self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_twice_the_one_before_up_to_a_minute() {
        let mut now = Instant::now();
        let mut again = None;
        let waits: Vec<u64> = (0..8)
            .map(|_| {
                let next = Again::after(again, now);
                assert!(!next.is_due(now) && next.is_due(now + next.left(now)));
                now += next.left(now);
                again = Some(next);
                next.wait.as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
