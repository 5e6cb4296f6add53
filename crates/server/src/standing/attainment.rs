//! How many deadlines were kept.
//!
//! ```text
//!   answered ─▶ within what was allowed: in_time, else late
//!   missed   ─▶ waited for longer than that: expired; no time for it: refused; called off, failed, unloaded: nowhere
//! ```
//! A request counts once, when it is over: in however many parts it went, and however many devices were asked before one took it.

use crate::engine::NotAnswered;
use std::sync::atomic::{AtomicU64, Ordering};
use tessera_scheduler::Refusal;

/// What became of a deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Answered before it.
    InTime,
    /// Answered after it.
    Late,
    /// It passed while the request waited.
    Expired,
    /// Not let in: the answer would have been late, or others had a right to the time.
    Refused,
}

impl Fate {
    /// All of them.
    pub const ALL: [Fate; 4] = [Fate::InTime, Fate::Late, Fate::Expired, Fate::Refused];

    /// Of a request that was not answered; `None` where that says nothing of its deadline.
    pub fn of(why: &NotAnswered) -> Option<Fate> {
        match why {
            NotAnswered::Expired => Some(Fate::Expired),
            NotAnswered::Refused(Refusal::TooLate { .. } | Refusal::OverShare { .. }) => Some(Fate::Refused),
            _ => None,
        }
    }

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Fate::InTime => "in_time",
            Fate::Late => "late",
            Fate::Expired => "expired",
            Fate::Refused => "refused",
        }
    }
}

/// What became of a tenant's deadlines, since it was loaded.
#[derive(Debug, Default)]
pub(super) struct Attainment([AtomicU64; Fate::ALL.len()]);

impl Attainment {
    pub(super) fn count(&self, fate: Fate) {
        self.0[fate as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn of(&self, fate: Fate) -> u64 {
        self.0[fate as usize].load(Ordering::Relaxed)
    }

    /// How many were let in, and how many of those in time.
    fn let_in(&self) -> (u64, u64) {
        let in_time = self.of(Fate::InTime);
        (in_time + self.of(Fate::Late) + self.of(Fate::Expired), in_time)
    }

    /// The part of those let in that was answered in time, in percent; all when there were none.
    pub(super) fn kept_percent(&self) -> f64 {
        let (all, in_time) = self.let_in();
        if all == 0 { 100.0 } else { 100.0 * in_time as f64 / all as f64 }
    }

    /// Whether that is what was agreed, in percent.
    pub(super) fn keeps(&self, percentile: f64) -> bool {
        let (all, in_time) = self.let_in();
        in_time as f64 * 100.0 >= percentile * all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tessera_core::OwnerId;

    #[test]
    fn what_was_let_in_is_kept_or_not_and_what_was_refused_stands_beside() {
        let attained = Attainment::default();
        assert!(attained.keeps(99.0) && attained.kept_percent() == 100.0, "nobody was let down");
        for fate in [Fate::InTime, Fate::InTime, Fate::InTime, Fate::Late, Fate::Refused] {
            attained.count(fate);
        }
        assert_eq!(attained.kept_percent(), 75.0);
        assert!(attained.keeps(75.0) && !attained.keeps(76.0));
        assert_eq!(Fate::ALL.map(|fate| attained.of(fate)), [3, 1, 0, 1]);
    }

    #[test]
    fn only_a_want_of_time_says_something_of_a_deadline() {
        let (predicted, allowed) = (Duration::from_millis(9), Duration::from_millis(5));
        let refused = |refusal: Refusal| Fate::of(&NotAnswered::Refused(refusal));
        assert_eq!(refused(Refusal::TooLate { predicted, allowed }), Some(Fate::Refused));
        let over_share = Refusal::OverShare { owner: OwnerId(1), ahead: Duration::ZERO, predicted, allowed };
        assert_eq!(refused(over_share), Some(Fate::Refused));
        assert_eq!(Fate::of(&NotAnswered::Expired), Some(Fate::Expired));
        for none in [NotAnswered::Unloaded, NotAnswered::Stopping, NotAnswered::Lost(String::new())] {
            assert_eq!(Fate::of(&none), None, "{none}");
        }
    }
}
