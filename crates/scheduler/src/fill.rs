//! Who rides along: loose requests take the free places of a launch that somebody else leads.
//!
//!   [promised ● ● ○ ○]  ◀─ ○ the next by urgency, or by fairness when the backlog cannot be met
//!                          while what they add fits into the room of everything promised, and keeps the tightest deadline aboard

use crate::cost::Size;
use crate::fairness::distance;
use crate::forming::{Forming, Limits, Rider, Seat};
use crate::plans::PlanIx;
use crate::queues::Key;
use crate::scheduler::Scheduler;
use crate::timeline::{Nanos, nanos};
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

/// Riders that are read at once. Each is somewhere else in memory, and reads that wait for nothing but memory wait together.
const AT_ONCE: usize = 8;

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
    /// It has a lane that is open.
    Lane(usize),
    /// A request of it found no seat.
    PassedOver,
}

impl Filling {
    fn new(mut launch: Forming, riding: Riding, limits: Limits) -> Filling {
        launch.reserve(limits);
        let mut known = IdMap::with_capacity_and_hasher(2 * limits.max_lanes as usize, Default::default());
        known.extend(launch.open_lanes().map(|(lane, tenant)| (tenant, Place::Lane(lane))));
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
            Some(Place::Lane(_)) => true,
            None => !self.launch.has_all_lanes(self.limits),
        }
    }

    /// A seat for a rider, and how large the launch would be. One who finds none is passed over.
    fn seat(&mut self, rider: Rider) -> Option<(Seat, Size)> {
        if !self.may_seat(rider.tenant) {
            return None;
        }
        let open = match self.known.get(&rider.tenant) {
            Some(Place::Lane(lane)) => Some(*lane),
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
        if let (Seat::NewLane, true) = (seat, is_open) {
            self.known.insert(rider.tenant, Place::Lane(lane));
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
        let filling = Filling::new(launch, riding, limits);
        if self.queues.first_urgency().is_some_and(|urgency| urgency < now) {
            // Most requests are as large as the one before.
            let mut last = (NonZeroU32::MIN, self.alone(plan, riding.line, NonZeroU32::MIN));
            let step = |weight, items| {
                if items != last.0 {
                    last = (items, self.alone(plan, riding.line, items));
                }
                distance(weight, last.1)
            };
            self.fill(filling, self.queues.fair().of_plan(plan, step))
        } else {
            self.fill(filling, self.queues.of_plan(plan))
        }
    }

    /// Seats requests of a plan in order while the launch fits into the room and keeps the tightest deadline of those it seats.
    fn fill(&self, mut filling: Filling, candidates: impl Iterator<Item = Key>) -> Forming {
        let Limits { max_lanes, max_items, .. } = filling.limits;
        // Whoever finds no place is looked at in vain: not much more often than there are places.
        let mut candidates = candidates.take(2 * (max_lanes as usize + max_items as usize));
        let mut keys = Vec::with_capacity(AT_ONCE);
        let mut riders: Vec<(Rider, Option<Moment>)> = Vec::with_capacity(AT_ONCE);
        while !filling.is_full() {
            keys.clear();
            keys.extend(candidates.by_ref().filter(|key| filling.may_seat(key.tenant)).take(AT_ONCE));
            riders.clear();
            let read = |key: &Key| self.queues.get(key.ticket).map(|waiting| (waiting.rider, waiting.due));
            riders.extend(keys.iter().filter_map(read));
            let goes_on = |(rider, due): &(Rider, Option<Moment>)| self.board(&mut filling, *rider, *due);
            if riders.is_empty() || !riders.iter().all(goes_on) {
                break;
            }
        }
        filling.launch
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
