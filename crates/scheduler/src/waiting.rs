//! A request that waits, and what an order must know of it.
//!
//! ```text
//!   line of the cache   what a launch reads: who, how much, until when, after whom, of which plan
//!   the next one        what its owner and its tenant are charged, when it came, where it is booked
//! ```
//! A hundred thousand of them lie all over a memory that no near cache holds: to seat one must cost one line.

use crate::forming::Rider;
use crate::plans::PlanIx;
use crate::promises::BookingId;
use std::cmp::Ordering;
use std::time::Duration;
use tessera_core::{Bytes, Moment, OwnerId, TenantId};

/// Names a request from its arrival to its end; used again afterwards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Ticket(pub(crate) u32);

/// When an answer is due, if ever, in eight bytes: the end of time is never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Due(u64);

impl Due {
    pub(crate) const NEVER: Due = Due(u64::MAX);

    pub(crate) fn moment(self) -> Option<Moment> {
        (self != Due::NEVER).then_some(Moment(self.0))
    }
}

impl From<Option<Moment>> for Due {
    fn from(due: Option<Moment>) -> Due {
        due.map_or(Due::NEVER, |due| Due(due.0))
    }
}

/// A request that waits or runs. See the module's text.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Waiting {
    pub(crate) rider: Rider,
    /// When its answer is due; never is best effort.
    pub(crate) due: Due,
    /// When it should start at the latest; of best effort, when its patience ends.
    pub(crate) urgency: Moment,
    /// Order of arrival.
    pub(crate) number: u64,
    pub(crate) plan: PlanIx,
    /// Whether it waits no more, but is in a launch.
    pub(crate) runs: bool,
    pub(crate) owner: OwnerId,
    pub(crate) bytes: Bytes,
    pub(crate) arrived: Moment,
    /// The planned launch that it has a place in; `None` for one that waits loose.
    pub(crate) booked: Option<BookingId>,
    /// Device time that was counted for its owner in advance.
    pub(crate) committed: Duration,
}

impl Waiting {
    /// Whose requests it keeps its order with.
    pub(crate) fn flow(&self) -> (TenantId, PlanIx) {
        (self.rider.tenant, self.plan)
    }

    /// Where it stands between loose ones.
    pub(crate) fn rank(&self) -> Rank {
        Rank { urgency: self.urgency, number: self.number }
    }

    pub(crate) fn candidate(&self) -> Candidate {
        Candidate { rider: self.rider, due: self.due }
    }
}

/// Where a loose request stands between others: urgency, then arrival. No two have the same.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Rank {
    pub(crate) urgency: Moment,
    pub(crate) number: u64,
}

impl Rank {
    /// In one piece: orders compare little else, and which of two is first is nothing that a processor could foresee.
    fn whole(self) -> u128 {
        u128::from(self.urgency.0) << 64 | u128::from(self.number)
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Rank) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Rank) -> Ordering {
        self.whole().cmp(&other.whole())
    }
}

/// All that a launch must know of a request to seat it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) rider: Rider,
    pub(crate) due: Due,
}

#[cfg(test)]
impl Waiting {
    /// A loose request of one item and plan 0, without a deadline.
    pub(crate) fn one(rider: Rider, owner: OwnerId) -> Waiting {
        Waiting {
            rider,
            due: Due::NEVER,
            urgency: Moment::START,
            number: 0,
            plan: PlanIx(0),
            runs: false,
            owner,
            bytes: Bytes(1),
            arrived: Moment::START,
            booked: None,
            committed: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn what_a_launch_reads_of_a_request_is_one_line_of_the_cache() {
        assert_eq!((size_of::<Option<Waiting>>(), offset_of!(Waiting, owner)), (128, 64));
    }

    #[test]
    fn best_effort_is_never_due() {
        assert_eq!(Due::from(Some(Moment(7))).moment(), Some(Moment(7)));
        assert_eq!(Due::from(None).moment(), None);
    }
}
