//! What was promised: the launches that admission has planned, in the order in which each partition will run them.
//!
//! ```text
//!   offer ─▶ joins a planned launch of its plan, at marginal cost ─┐
//!         └▶ or a launch of its own, placed by its due ────────────┴─▶ [partition 0: ● ● ●]   ─▶ decide runs the first
//!                                                                      [partition 1: ● ● ]
//! ```
//! A request is booked where it is itself in time and where what it adds leaves every other booking in time: two look-ups in the line (`timeline`).
//! Decide runs each line from its front, and puts between only what the line's room can bear. So with exact costs, which do not fall as lanes or
//! items grow, **no promise is broken**: by induction over the calls, every line's room is never negative. Booking checks it; running the first
//! launch moves its cost from the line into the moment the device is free; ending early, cancelling and expiring only add room; and a launch from
//! outside the line takes no more than there is.
//!
//! A tenant's booked requests of one plan keep their order: a later one goes on the same line, and not before the last of them.

use crate::cost::Size;
use crate::forming::{Forming, Limits, Rider, Seat};
use crate::plans::PlanIx;
use crate::timeline::{Nanos, Place, Timeline, nanos};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tessera_core::{IdMap, Moment, RequestId, TenantId};

/// Names a planned launch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct BookingId(u64);

/// A launch that is planned.
#[derive(Debug)]
pub(crate) struct Booking {
    pub(crate) launch: Forming,
    /// What the line counts for it.
    pub(crate) cost: Duration,
    /// When its first request came.
    pub(crate) arrived: Moment,
    line: usize,
    place: Place,
    /// The requests' dues, at most as many as a launch has items.
    dues: Vec<(RequestId, Moment)>,
}

impl Booking {
    /// The tightest due in it.
    pub(crate) fn due(&self) -> Moment {
        self.dues.iter().map(|(_, due)| *due).min().unwrap_or(Moment(u64::MAX))
    }

    /// The requests and when each is due.
    pub(crate) fn dues(&self) -> &[(RequestId, Moment)] {
        &self.dues
    }
}

/// A request that wants a promise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) plan: PlanIx,
    pub(crate) rider: Rider,
    pub(crate) arrived: Moment,
    /// When its answer must be there.
    pub(crate) due: Moment,
    /// When it must be predicted to be there to be booked; not later than `due`.
    pub(crate) by: Moment,
    /// How much room it must leave to others.
    pub(crate) leave: Nanos,
}

/// A request has its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Booked {
    pub(crate) booking: BookingId,
    /// When it will be answered, unless more urgent ones come.
    pub(crate) finish: Moment,
    /// What it added to the line.
    pub(crate) added: Duration,
}

/// A tenant's booked requests of one plan.
#[derive(Debug)]
struct Flow {
    requests: u32,
    line: usize,
    last: Place,
}

/// How many planned launches a request tries to join before it gets one of its own.
const LAUNCHES_TRIED: usize = 3;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Promises {
    lines: Vec<Timeline>,
    bookings: IdMap<u64, Booking>,
    /// Launches that have a place for another tenant.
    open: BTreeMap<PlanIx, BTreeSet<Place>>,
    flows: IdMap<(TenantId, u32), Flow>,
    next: u64,
}

impl Promises {
    pub(crate) fn new(lines: usize) -> Promises {
        Promises {
            lines: (0..lines).map(|_| Timeline::default()).collect(),
            bookings: IdMap::default(),
            open: BTreeMap::new(),
            flows: IdMap::default(),
            next: 0,
        }
    }

    /// Books a request, or says when it could be answered without making anything late. `free` is when each line's device is free, `cost` what a
    /// launch of the plan takes.
    pub(crate) fn book(
        &mut self,
        wish: Wish,
        limits: Limits,
        free: &[Moment],
        cost: impl Fn(Size) -> Duration,
    ) -> Result<Booked, Moment> {
        let flow = self.flows.get(&(wish.rider.tenant, wish.plan.0));
        let (line, after) = (flow.map(|flow| flow.line), flow.map(|flow| flow.last));
        for booking in self.to_join(&wish, line, after) {
            if let Some(booked) = self.join(booking, wish, limits, free, &cost) {
                return Ok(booked);
            }
        }
        self.plan_launch(wish, (line, after), limits, free, &cost)
    }

    /// Planned launches that the request may join, the best first: the tenant's own last one, the last that is due before it, the one before that,
    /// the first that is due later.
    fn to_join(&self, wish: &Wish, line: Option<usize>, after: Option<Place>) -> Vec<u64> {
        let mut found: Vec<u64> = after.map(|place| place.1).into_iter().collect();
        if let Some(open) = self.open.get(&wish.plan) {
            let middle = (wish.due, u64::MAX);
            let start = after.unwrap_or((Moment::START, 0)).min(middle);
            let before = open.range(start..middle).rev().take(LAUNCHES_TRIED - 1);
            let behind = open.range(middle.max(after.unwrap_or(middle))..).take(1);
            found.extend(before.chain(behind).map(|place| place.1));
        }
        found.retain(|number| {
            let booking = self.bookings.get(number);
            booking.is_some_and(|booking| {
                booking.launch.plan == wish.plan && line.is_none_or(|line| booking.line == line)
            })
        });
        found
    }

    fn join(
        &mut self,
        number: u64,
        wish: Wish,
        limits: Limits,
        free: &[Moment],
        cost: &impl Fn(Size) -> Duration,
    ) -> Option<Booked> {
        let booking = self.bookings.get(&number)?;
        let (seat, size) = booking.launch.seat(wish.rider, limits)?;
        let (place, line, before, due) = (booking.place, booking.line, booking.cost, booking.due());
        let grown = cost(size);
        let more = nanos(grown) - nanos(before);
        let around = self.lines[line].around(place);
        let free = Nanos::from(free[line].0);
        let finish = free + around.until + more;
        // Who costs nothing takes nothing from anybody, whatever room there is.
        let room = around.room_behind.min(Nanos::from(due.0) - around.until).saturating_sub(free);
        if finish > Nanos::from(wish.by.0) || (more > 0 && room < more + wish.leave) {
            return None;
        }
        let added = grown.saturating_sub(before);
        self.seat(number, wish, seat, limits, grown);
        Some(Booked { booking: BookingId(number), finish: moment(finish), added })
    }

    fn seat(&mut self, number: u64, wish: Wish, seat: Seat, limits: Limits, cost: Duration) {
        let booking = self.bookings.get_mut(&number).expect("who joins has found it");
        booking.launch.add(wish.rider, seat, limits);
        booking.dues.push((wish.rider.request, wish.due));
        booking.cost = cost;
        let (place, line) = (booking.place, booking.line);
        self.lines[line].change(place, cost, booking.due());
        if booking.launch.has_all_lanes(limits) {
            self.close(wish.plan, place);
        }
        let flow = (wish.rider.tenant, wish.plan.0);
        let flow = self.flows.entry(flow).or_insert(Flow { requests: 0, line, last: place });
        flow.requests += 1;
        flow.last = flow.last.max(place);
    }

    fn plan_launch(
        &mut self,
        wish: Wish,
        (line, after): (Option<usize>, Option<Place>),
        limits: Limits,
        free: &[Moment],
        cost: &impl Fn(Size) -> Duration,
    ) -> Result<Booked, Moment> {
        let mut launch = Forming::new(wish.plan);
        let (seat, size) = launch.seat(wish.rider, limits).expect("an empty launch has a place");
        let cost = cost(size);
        let place = (wish.due.max(after.map_or(wish.due, |after| after.0)), self.next);
        let mut lines: Vec<usize> = line.map_or_else(|| (0..self.lines.len()).collect(), |line| vec![line]);
        let tail = |line: &usize| Nanos::from(free[*line].0) + self.lines[*line].cost();
        lines.sort_by_key(tail);
        let at_the_end = lines.first().map_or(0, tail) + nanos(cost);
        for line in lines {
            let around = self.lines[line].around(place);
            let free = Nanos::from(free[line].0);
            let finish = free + around.until + nanos(cost);
            let room = around.room_behind.saturating_sub(free);
            if finish > Nanos::from(wish.by.0) || room < nanos(cost).saturating_add(wish.leave) {
                continue;
            }
            let number = self.next;
            self.next += 1;
            launch.add(wish.rider, seat, limits);
            let open = !launch.has_all_lanes(limits);
            let dues = vec![(wish.rider.request, wish.due)];
            self.bookings.insert(number, Booking { launch, cost, arrived: wish.arrived, line, place, dues });
            self.lines[line].insert(place, cost, wish.due);
            if open {
                self.open.entry(wish.plan).or_default().insert(place);
            }
            let flow = (wish.rider.tenant, wish.plan.0);
            let flow = self.flows.entry(flow).or_insert(Flow { requests: 0, line, last: place });
            flow.requests += 1;
            flow.last = place;
            return Ok(Booked { booking: BookingId(number), finish: moment(finish), added: cost });
        }
        Err(moment(at_the_end))
    }

    /// Takes one request out of its launch, and the launch away when it was the last.
    pub(crate) fn leave(
        &mut self,
        booking: BookingId,
        rider: Rider,
        limits: Limits,
        cost: impl Fn(Size) -> Duration,
    ) {
        let Some(found) = self.bookings.get_mut(&booking.0) else { return };
        if found.dues.len() == 1 {
            self.take(booking);
            return;
        }
        found.launch.remove(rider.request);
        found.dues.retain(|(request, _)| *request != rider.request);
        // Never more than before: what a line counts on does not grow because somebody left.
        found.cost = cost(found.launch.size()).min(found.cost);
        let (plan, place, line, cost, due) =
            (found.launch.plan, found.place, found.line, found.cost, found.due());
        let open = !found.launch.has_all_lanes(limits);
        self.lines[line].change(place, cost, due);
        if open {
            self.open.entry(plan).or_default().insert(place);
        }
        self.left(rider.tenant, plan, 1);
    }

    /// Takes a launch out of its line, to be run.
    pub(crate) fn take(&mut self, booking: BookingId) -> Option<Booking> {
        let taken = self.bookings.remove(&booking.0)?;
        self.lines[taken.line].remove(taken.place);
        self.close(taken.launch.plan, taken.place);
        for (tenant, requests) in taken.launch.riders_by_lane() {
            self.left(tenant, taken.launch.plan, requests);
        }
        Some(taken)
    }

    fn left(&mut self, tenant: TenantId, plan: PlanIx, requests: u32) {
        let flow = (tenant, plan.0);
        if let Some(entry) = self.flows.get_mut(&flow) {
            entry.requests -= requests;
            if entry.requests == 0 {
                self.flows.remove(&flow);
            }
        }
    }

    fn close(&mut self, plan: PlanIx, place: Place) {
        if let Some(open) = self.open.get_mut(&plan) {
            open.remove(&place);
            if open.is_empty() {
                self.open.remove(&plan);
            }
        }
    }

    pub(crate) fn get(&self, booking: BookingId) -> Option<&Booking> {
        self.bookings.get(&booking.0)
    }

    /// The launch that a line runs next.
    pub(crate) fn front(&self, line: usize) -> Option<BookingId> {
        self.lines[line].first().map(|place| BookingId(place.1))
    }

    /// How far all of a line can be pushed back when its device is free at `free`; the largest number for an empty line.
    pub(crate) fn room(&self, line: usize, free: Moment) -> Nanos {
        self.lines[line].least_room().saturating_sub(Nanos::from(free.0))
    }

    /// Predicted time of everything planned on a line.
    pub(crate) fn planned(&self, line: usize) -> Nanos {
        self.lines[line].cost()
    }

    /// Takes every launch away, and says whose requests they were.
    pub(crate) fn clear(&mut self) -> Vec<RequestId> {
        let mut requests: Vec<RequestId> =
            self.bookings.values().flat_map(|booking| booking.launch.requests()).collect();
        requests.sort_unstable();
        *self = Promises { next: self.next, ..Promises::new(self.lines.len()) };
        requests
    }
}

fn moment(at: Nanos) -> Moment {
    Moment(u64::try_from(at.max(0)).unwrap_or(u64::MAX))
}
