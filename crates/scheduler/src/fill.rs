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
use crate::flows::Flows;
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
    /// Lane by lane, who may join those in it.
    next: Vec<Next>,
}

/// Where a tenant stands with a launch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It has a lane that is open.
    Lane(usize),
    /// A request of it found no seat.
    PassedOver,
}

/// Who may join a lane next, of its tenant's loose requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    First,
    Behind(Ticket),
    Nobody,
}

impl Filling {
    /// Makes room for as many as there are lanes and places, but not for more than `waiting`: limits may be set beyond all memory.
    fn new(mut launch: Forming, riding: Riding, limits: Limits, waiting: usize) -> Filling {
        launch.reserve(limits, waiting);
        let lanes = launch.size().lanes as usize;
        let most = (limits.max_lanes as usize).min(lanes + waiting);
        let mut known = IdMap::with_capacity_and_hasher(2 * most, Default::default());
        let mut next = Vec::with_capacity(most);
        next.resize(lanes, Next::Nobody);
        for (lane, tenant) in launch.open_lanes() {
            known.insert(tenant, Place::Lane(lane));
            next[lane] = Next::First;
        }
        Filling { launch, riding, limits, tightest: None, known, next }
    }

    fn is_full(&self) -> bool {
        self.launch.is_full(self.limits)
    }

    /// Whether a tenant may find a seat that stands so with the launch. One whose earlier request found none waits with all of them: order is kept. And without
    /// a lane that is open none of a tenant finds one once all are taken.
    fn may_seat(&self, place: Option<Place>) -> bool {
        match place {
            Some(Place::PassedOver) => false,
            Some(Place::Lane(_)) => true,
            None => !self.launch.has_all_lanes(self.limits),
        }
    }

    /// A seat for a rider whose tenant has this lane open, or none, and how large the launch would be. One who finds none is passed over.
    fn seat(&mut self, rider: Rider, open: Option<usize>) -> Option<(Seat, Size)> {
        let seat = self.launch.seat_beside(open, rider, self.limits);
        if seat.is_none() {
            self.known.insert(rider.tenant, Place::PassedOver);
            open.into_iter().for_each(|lane| self.next[lane] = Next::Nobody);
        }
        seat
    }

    fn add(&mut self, rider: Rider, open: Option<usize>, seat: Seat) {
        let is_open = self.launch.add(rider, seat, self.limits);
        let behind = Next::Behind(rider.ticket);
        if let Seat::NewLane = seat {
            let of_the_lane = is_open && open.is_none();
            if of_the_lane {
                self.known.insert(rider.tenant, Place::Lane(self.next.len()));
            }
            self.next.push(if of_the_lane { behind } else { Next::Nobody });
        }
        open.into_iter().for_each(|lane| self.next[lane] = behind);
    }

    /// The request that may join a lane.
    fn next_in(&self, lane: usize, tenant: TenantId, flows: &Flows) -> Option<Ticket> {
        match self.next[lane] {
            Next::First => flows.first((tenant, self.launch.plan)),
            Next::Behind(last) => flows.behind(last),
            Next::Nobody => None,
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
            if filling.is_full() {
                return false;
            }
            let place = filling.known.get(&rider.tenant).copied();
            let open = match place {
                Some(Place::Lane(lane)) => Some(lane),
                _ => None,
            };
            if filling.may_seat(place) && !self.board(filling, rider, due.moment(), open) {
                return false;
            }
            if filling.launch.has_all_lanes(filling.limits) {
                break;
            }
        }
        true
    }

    /// Seats further requests of the tenants that have a lane, one of each in turn. Those of a round are looked up at once and read at once: each is somewhere
    /// else in memory, and reads that wait for nothing but memory wait together.
    fn share_lanes(&self, filling: &mut Filling) {
        let flows = self.queues.flows();
        let mut lanes: Vec<(usize, TenantId)> = filling.launch.open_lanes().collect();
        let mut next: Vec<(usize, Ticket)> = Vec::with_capacity(lanes.len());
        let mut read: Vec<(usize, Rider, Option<Moment>)> = Vec::with_capacity(lanes.len());
        while !lanes.is_empty() && !filling.is_full() {
            next.clear();
            let asked = lanes.drain(..);
            next.extend(
                asked.filter_map(|(lane, tenant)| Some((lane, filling.next_in(lane, tenant, flows)?))),
            );
            read.clear();
            read.extend(next.iter().filter_map(|(lane, ticket)| {
                let waiting = self.queues.get(*ticket)?;
                Some((*lane, waiting.rider, waiting.due.moment()))
            }));
            for (lane, rider, due) in &read {
                if filling.is_full() || !self.board(filling, *rider, *due, Some(*lane)) {
                    return;
                }
                lanes.push((*lane, rider.tenant));
            }
        }
    }

    /// Seats one rider, if it finds a place in the lane that its tenant has open or in a new one; says whether others may follow. Where nothing is promised the first
    /// one always goes: whatever it leads, it leads alone if it must.
    fn board(&self, filling: &mut Filling, rider: Rider, due: Option<Moment>, open: Option<usize>) -> bool {
        let Some((seat, size)) = filling.seat(rider, open) else { return true };
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
        filling.add(rider, open, seat);
        filling.tightest = due;
        true
    }

    /// What a launch of one lane takes on a line, as far as that is known.
    fn alone(&self, plan: PlanIx, line: usize, items: NonZeroU32) -> Duration {
        self.plans.predict_on(self.units(line), plan, Size::one_lane(items)).unwrap_or_default()
    }
}
