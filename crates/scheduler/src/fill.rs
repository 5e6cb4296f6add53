//! Who rides along: loose requests take the free places of a launch that somebody else leads.
//!
//! ```text
//!   lanes   [promised ● ● ○ ○]  ◀─ ○ the next by urgency, or by fairness when the backlog cannot be met
//!   places   ● ● ● ●                while what they add fits into the room of everything promised, and keeps the tightest deadline aboard
//!            ● ○    ○           ◀─ once every lane is taken: each tenant's own next, lane by lane (`flows`)
//! ```
//! Bound: a launch of up to L lanes and N items looks at no more than L + N requests in order, and then at no more than one for every lane beside those that it
//! seats, however many wait. Most of those in order belong to tenants without a lane: looking on among them for the few that could still sit down is what this
//! saves, and those that could are all found.

use crate::cost::Size;
use crate::fairness::distance;
use crate::forming::{Forming, Limits, Rider, Seat};
use crate::plans::PlanIx;
use crate::scheduler::Scheduler;
use crate::timeline::{Nanos, nanos};
use crate::waiting::{Candidate, Ticket};
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::{IdMap, Moment, TenantId};

/// What a launch may still grow by.
#[derive(Clone, Copy)]
pub(crate) struct Riding {
    /// Where it runs.
    pub(crate) line: usize,
    /// When it begins.
    pub(crate) begin: Moment,
    /// What of its cost the line counts already.
    pub(crate) counted: Nanos,
    /// How far everything promised can be pushed back.
    pub(crate) room: Nanos,
}

/// A launch that is being filled.
struct Filling {
    launch: Forming,
    riding: Riding,
    limits: Limits,
    /// The tightest deadline of those that were seated.
    tightest: Option<Moment>,
    /// Tenants of whom more is to be known than that they need a new lane.
    known: IdMap<TenantId, Place>,
}

/// Where a tenant stands with a launch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It has a lane that is open. `last` is the last of its loose requests that was seated.
    Lane { lane: usize, last: Option<Ticket> },
    /// A request of it found no seat.
    PassedOver,
}

impl Filling {
    /// Makes room for as many as there are lanes and places, but not for more than `waiting`: limits may be set beyond all memory.
    fn new(mut launch: Forming, riding: Riding, limits: Limits, waiting: usize) -> Filling {
        launch.reserve(limits, waiting);
        let tenants = (limits.max_lanes as usize).min(launch.size().lanes as usize + waiting);
        let mut known = IdMap::with_capacity_and_hasher(2 * tenants, Default::default());
        known.extend(launch.open_lanes().map(|(lane, tenant)| (tenant, Place::Lane { lane, last: None })));
        Filling { launch, riding, limits, tightest: None, known }
    }

    fn is_full(&self) -> bool {
        self.launch.is_full(self.limits)
    }

    /// Whether a request of the tenant may find a seat. One whose earlier request found none waits with all of them: order is kept. And without
    /// a lane that is open none of a tenant finds one once all are taken.
    fn may_seat(&self, tenant: TenantId) -> bool {
        match self.known.get(&tenant) {
            Some(Place::PassedOver) => false,
            Some(Place::Lane { .. }) => true,
            None => !self.launch.has_all_lanes(self.limits),
        }
    }

    /// A seat for a rider, and how large the launch would be. One who finds none is passed over.
    fn seat(&mut self, rider: Rider) -> Option<(Seat, Size)> {
        if !self.may_seat(rider.tenant) {
            return None;
        }
        let open = match self.known.get(&rider.tenant) {
            Some(Place::Lane { lane, .. }) => Some(*lane),
            _ => None,
        };
        let seat = self.launch.seat_beside(open, rider, self.limits);
        if seat.is_none() {
            self.known.insert(rider.tenant, Place::PassedOver);
        }
        seat
    }

    fn add(&mut self, rider: Rider, seat: Seat) {
        let lane = self.launch.size().lanes as usize;
        let is_open = self.launch.add(rider, seat, self.limits);
        let last = Some(rider.ticket);
        if let (Seat::NewLane, true) = (seat, is_open) {
            self.known.insert(rider.tenant, Place::Lane { lane, last });
        } else if let Some(Place::Lane { last: known, .. }) = self.known.get_mut(&rider.tenant) {
            *known = last;
        }
    }
}

impl Scheduler {
    /// Fills a launch with loose requests of its plan.
    pub(crate) fn ride_along(&self, launch: Forming, riding: Riding, limits: Limits, now: Moment) -> Forming {
        let plan = launch.plan;
        if launch.is_full(limits) {
            return launch;
        }
        let filling = Filling::new(launch, riding, limits, self.queues.len());
        if self.queues.first_urgency().is_some_and(|urgency| urgency < now) {
            // Most requests are as large as the one before.
            let mut last = (NonZeroU32::MIN, self.alone(plan, riding.line, NonZeroU32::MIN));
            let step = |weight, items| {
                if items != last.0 {
                    last = (items, self.alone(plan, riding.line, items));
                }
                distance(weight, last.1)
            };
            self.fill(filling, self.queues.of_plan_in_turn(plan, step))
        } else {
            self.fill(filling, self.queues.of_plan(plan))
        }
    }

    /// Seats requests of a plan while the launch fits into the room and keeps the tightest deadline of those it seats: in order while there are lanes,
    /// then those who share one.
    fn fill(&self, mut filling: Filling, candidates: impl Iterator<Item = Candidate>) -> Forming {
        if self.take_lanes(&mut filling, candidates) {
            self.share_lanes(&mut filling);
        }
        filling.launch
    }

    /// Seats requests in order until every lane is taken. Says whether others may follow.
    fn take_lanes(&self, filling: &mut Filling, candidates: impl Iterator<Item = Candidate>) -> bool {
        let Limits { max_lanes, max_items, .. } = filling.limits;
        // Who needs more places than are left is looked at in vain: not more often than there are places.
        for Candidate { rider, due } in candidates.take(max_lanes as usize + max_items as usize) {
            if !self.board(filling, rider, due.moment()) {
                return false;
            }
            if filling.launch.has_all_lanes(filling.limits) {
                break;
            }
        }
        true
    }

    /// Seats further requests of the tenants that have a lane, one of each in turn. Those of a round are read at once: each is somewhere else in memory, and
    /// reads that wait for nothing but memory wait together.
    fn share_lanes(&self, filling: &mut Filling) {
        let (plan, flows) = (filling.launch.plan, self.queues.flows());
        let next = |(_, tenant): (usize, TenantId)| match filling.known.get(&tenant)? {
            Place::Lane { last: Some(last), .. } => flows.behind(*last),
            Place::Lane { last: None, .. } => flows.first((tenant, plan)),
            Place::PassedOver => None,
        };
        let mut next: Vec<Ticket> = filling.launch.open_lanes().filter_map(next).collect();
        let mut read: Vec<(Rider, Option<Moment>)> = Vec::with_capacity(next.len());
        while !next.is_empty() && !filling.is_full() {
            read.clear();
            let waiting = next.drain(..).filter_map(|ticket| self.queues.get(ticket));
            read.extend(waiting.map(|waiting| (waiting.rider, waiting.due.moment())));
            for (rider, due) in &read {
                if !self.board(filling, *rider, *due) {
                    return;
                }
                next.extend(flows.behind(rider.ticket).filter(|_| filling.may_seat(rider.tenant)));
            }
        }
    }

    /// Seats one rider, if it finds a place; says whether others may follow. Where nothing is promised the first one always goes: whatever it leads, it leads alone if it must.
    fn board(&self, filling: &mut Filling, rider: Rider, due: Option<Moment>) -> bool {
        if filling.is_full() {
            return false;
        }
        let Some((seat, size)) = filling.seat(rider) else { return true };
        let (plan, Riding { line, begin, counted, room }) = (filling.launch.plan, filling.riding);
        let units = self.units(line);
        if room != Nanos::MAX && nanos(self.plans.cost_on(units, plan, size)) - counted > room.max(0) {
            return false;
        }
        let due = [filling.tightest, due].into_iter().flatten().min();
        // A deadline that is lost already binds nobody.
        let kept = |due: Moment| {
            let cost = self.plans.predict_on(units, plan, size);
            cost.is_none_or(|cost| begin + cost <= due)
                || begin + self.alone(plan, line, NonZeroU32::MIN) > due
        };
        if !filling.launch.is_empty() && !due.is_none_or(kept) {
            return false;
        }
        filling.add(rider, seat);
        filling.tightest = due;
        true
    }

    /// What a launch of one lane takes on a line, as far as that is known.
    fn alone(&self, plan: PlanIx, line: usize, items: NonZeroU32) -> Duration {
        self.plans.predict_on(self.units(line), plan, Size::one_lane(items)).unwrap_or_default()
    }
}
