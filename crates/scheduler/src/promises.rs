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
//! Beside every line stands another, mostly empty, of launches that go before what runs there (`express`), by the same rules.
//!
//! A tenant's booked requests of one plan keep their order: a later one goes on the same line, and not before the last of them. Where that line belongs to
//! a layout that is being left (`space`), a later one goes on a line of the next, whose turn comes when the old one has run out.

use crate::cost::Size;
use crate::forming::{Forming, Limits, Rider, Seat};
use crate::plans::PlanIx;
use crate::timeline::{Nanos, Place, Timeline, nanos};
use crate::waiting::Ticket;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::ops::Range;
use std::time::Duration;
use tessera_core::{IdMap, Moment, TenantId};

/// Names a planned launch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct BookingId(NonZeroU64);

impl BookingId {
    /// The launch of a number, counted from one.
    pub(crate) fn of(number: u64) -> BookingId {
        BookingId(NonZeroU64::new(number).expect("planned launches are counted from one"))
    }
}

/// A launch that is planned.
#[derive(Debug)]
pub(crate) struct Booking {
    pub(crate) launch: Forming,
    /// What the line counts for it.
    pub(crate) cost: Duration,
    /// When its first request came.
    pub(crate) arrived: Moment,
    pub(crate) line: usize,
    place: Place,
    /// The requests' dues, at most as many as a launch has items.
    dues: Vec<(Ticket, Moment)>,
}

impl Booking {
    /// The tightest due in it.
    pub(crate) fn due(&self) -> Moment {
        self.dues.iter().map(|(_, due)| *due).min().unwrap_or(Moment(u64::MAX))
    }

    /// The requests and when each is due.
    pub(crate) fn dues(&self) -> &[(Ticket, Moment)] {
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

/// Where requests may be booked.
#[derive(Debug)]
pub(crate) struct Open {
    /// The lines of the layout in force.
    pub(crate) lines: Range<usize>,
    /// When the device of each of them is free.
    pub(crate) free: Vec<Moment>,
    /// The line that the wish's plan belongs on; `None` for any.
    pub(crate) home: Option<usize>,
    /// The most that a request may add to a line, whatever room there is.
    pub(crate) most: Nanos,
}

impl Open {
    fn free(&self, line: usize) -> Nanos {
        Nanos::from(self.free[line - self.lines.start].0)
    }
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

/// A launch is worth its time when each item takes at most so many times what it takes in the best one.
const WORTHWHILE: f64 = 1.1;

/// The smallest launch that is worth its time, in doublings of a first one.
fn worthwhile(first: Size, limits: Limits, cost: impl Fn(Size) -> Duration) -> Size {
    let most = (limits.max_lanes, if limits.tenant_batching { limits.max_items } else { limits.max_lanes });
    let sizes = std::iter::successors(Some(first), |size| {
        let Size { lanes, items } = Size { lanes: (2 * size.lanes).min(most.0), items: 2 * size.items };
        (items <= most.1).then_some(Size { lanes, items })
    });
    let per_item = |size: Size| cost(size).as_secs_f64() / f64::from(size.items);
    let sizes: Vec<(Size, f64)> = sizes.map(|size| (size, per_item(size))).collect();
    let best = sizes.iter().map(|(_, per_item)| *per_item).fold(f64::INFINITY, f64::min);
    sizes.into_iter().find(|(_, per_item)| *per_item <= WORTHWHILE * best).map_or(first, |(size, _)| size)
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Promises {
    /// The lines, and then those of the express places beside them.
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
            lines: (0..2 * lines).map(|_| Timeline::default()).collect(),
            bookings: IdMap::default(),
            open: BTreeMap::new(),
            flows: IdMap::default(),
            next: 1,
        }
    }

    /// The line of express places beside a line.
    pub(crate) fn express(&self, line: usize) -> usize {
        self.lines.len() / 2 + line
    }

    /// The line that one of express places is beside; of another itself.
    pub(crate) fn beside(&self, line: usize) -> usize {
        line % (self.lines.len() / 2)
    }

    /// Whether a tenant has requests of a plan booked elsewhere than on this line.
    pub(crate) fn is_booked_off(&self, line: usize, tenant: TenantId, plan: PlanIx) -> bool {
        self.flows.get(&(tenant, plan.0)).is_some_and(|flow| flow.line != line)
    }

    /// Books a request, or says when it could be answered without making anything late. `cost` is what a launch of the plan takes on a line.
    pub(crate) fn book(
        &mut self,
        wish: Wish,
        limits: Limits,
        open: &Open,
        cost: impl Fn(Size, usize) -> Duration,
    ) -> Result<Booked, Moment> {
        let flow = self.flows.get(&(wish.rider.tenant, wish.plan.0));
        let after = flow.map(|flow| flow.last);
        let line = flow.map(|flow| flow.line).filter(|line| open.lines.contains(line)).or(open.home);
        for booking in self.to_join(&wish, (line, after), open) {
            if let Some(booked) = self.join(booking, wish, limits, open, &cost) {
                return Ok(booked);
            }
        }
        self.plan_launch(wish, (line, after), limits, open, &cost)
    }

    /// Planned launches that the request may join, the best first: the tenant's own last one, the last that is due before it, the one before that,
    /// the first that is due later.
    fn to_join(&self, wish: &Wish, (line, after): (Option<usize>, Option<Place>), open: &Open) -> Vec<u64> {
        let mut found: Vec<u64> = after.map(|place| place.1).into_iter().collect();
        if let Some(places) = self.open.get(&wish.plan) {
            let middle = (wish.due, u64::MAX);
            let start = after.unwrap_or((Moment::START, 0)).min(middle);
            let before = places.range(start..middle).rev().take(LAUNCHES_TRIED - 1);
            let behind = places.range(middle.max(after.unwrap_or(middle))..).take(1);
            found.extend(before.chain(behind).map(|place| place.1));
        }
        found.retain(|number| {
            let booking = self.bookings.get(number);
            booking.is_some_and(|booking| {
                booking.launch.plan == wish.plan
                    && open.lines.contains(&booking.line)
                    && line.is_none_or(|line| booking.line == line)
            })
        });
        found
    }

    fn join(
        &mut self,
        number: u64,
        wish: Wish,
        limits: Limits,
        open: &Open,
        cost: &impl Fn(Size, usize) -> Duration,
    ) -> Option<Booked> {
        let booking = self.bookings.get(&number)?;
        let (seat, size) = booking.launch.seat(wish.rider, limits)?;
        let (place, line, before, due) = (booking.place, booking.line, booking.cost, booking.due());
        let grown = cost(size, line);
        let more = nanos(grown) - nanos(before);
        let around = self.lines[line].around(place);
        let free = open.free(line);
        let finish = free + around.until + more;
        // Who costs nothing takes nothing from anybody, whatever room there is.
        let room = around.room_behind.min(Nanos::from(due.0) - around.until).saturating_sub(free);
        if finish > Nanos::from(wish.by.0) || (more > 0 && room.min(open.most) < more + wish.leave) {
            return None;
        }
        let added = grown.saturating_sub(before);
        self.seat(number, wish, seat, limits, grown);
        Some(Booked { booking: BookingId::of(number), finish: moment(finish), added })
    }

    fn seat(&mut self, number: u64, wish: Wish, seat: Seat, limits: Limits, cost: Duration) {
        let booking = self.bookings.get_mut(&number).expect("who joins has found it");
        booking.launch.add(wish.rider, seat, limits);
        booking.dues.push((wish.rider.ticket, wish.due));
        booking.cost = cost;
        let (place, line) = (booking.place, booking.line);
        self.lines[line].change(place, cost, booking.due());
        if booking.launch.has_all_lanes(limits) {
            self.close(wish.plan, place);
        }
        let flow = (wish.rider.tenant, wish.plan.0);
        let flow = self.flows.entry(flow).or_insert(Flow { requests: 0, line, last: place });
        flow.requests += 1;
        (flow.line, flow.last) = (line, flow.last.max(place));
    }

    fn plan_launch(
        &mut self,
        wish: Wish,
        (line, after): (Option<usize>, Option<Place>),
        limits: Limits,
        open: &Open,
        cost: &impl Fn(Size, usize) -> Duration,
    ) -> Result<Booked, Moment> {
        let mut launch = Forming::new(wish.plan);
        let (seat, size) = launch.seat(wish.rider, limits).expect("an empty launch has a place");
        let place = (wish.due.max(after.map_or(wish.due, |after| after.0)), self.next);
        let mut lines: Vec<usize> = line.map_or_else(|| open.lines.clone().collect(), |line| vec![line]);
        let tail = |line: &usize| open.free(*line) + self.lines[*line].cost();
        lines.sort_by_key(tail);
        let at_the_end = lines.first().map_or(0, |line| tail(line) + nanos(cost(size, *line)));
        let growth = |wish: Wish, line| {
            let worth = worthwhile(size, limits, |size| cost(size, line));
            nanos(cost(worth, line).saturating_sub(cost(size, line)).min(wish.due.since(wish.arrived) / 4))
        };
        for line in lines {
            let cost = cost(size, line);
            let around = self.lines[line].around(place);
            let free = open.free(line);
            let finish = free + around.until + nanos(cost);
            let room = around.room_behind.saturating_sub(free).min(open.most);
            let grows = if around.until > 0 { growth(wish, line) } else { 0 };
            if finish + grows > Nanos::from(wish.by.0) || room < nanos(cost).saturating_add(wish.leave) {
                continue;
            }
            let number = self.next;
            self.next += 1;
            launch.add(wish.rider, seat, limits);
            let open = !launch.has_all_lanes(limits);
            let dues = vec![(wish.rider.ticket, wish.due)];
            self.bookings.insert(number, Booking { launch, cost, arrived: wish.arrived, line, place, dues });
            self.lines[line].insert(place, cost, wish.due);
            if open {
                self.open.entry(wish.plan).or_default().insert(place);
            }
            let flow = (wish.rider.tenant, wish.plan.0);
            let flow = self.flows.entry(flow).or_insert(Flow { requests: 0, line, last: place });
            flow.requests += 1;
            (flow.line, flow.last) = (line, place);
            return Ok(Booked { booking: BookingId::of(number), finish: moment(finish), added: cost });
        }
        Err(moment(at_the_end))
    }

    /// Takes one request out of its launch, and the launch away when it was the last.
    pub(crate) fn leave(
        &mut self,
        booking: BookingId,
        rider: Rider,
        limits: Limits,
        cost: impl Fn(Size, usize) -> Duration,
    ) {
        let Some(found) = self.bookings.get_mut(&booking.0.get()) else { return };
        if found.dues.len() == 1 {
            self.take(booking);
            return;
        }
        found.launch.remove(rider);
        found.dues.retain(|(ticket, _)| *ticket != rider.ticket);
        // Never more than before: what a line counts on does not grow because somebody left.
        found.cost = cost(found.launch.size(), found.line).min(found.cost);
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
        let taken = self.bookings.remove(&booking.0.get())?;
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
        self.bookings.get(&booking.0.get())
    }

    /// The launch that a line runs next.
    pub(crate) fn front(&self, line: usize) -> Option<BookingId> {
        self.lines[line].first().map(|place| BookingId::of(place.1))
    }

    /// How far all of a line can be pushed back when its device is free at `free`; the largest number for an empty line.
    pub(crate) fn room(&self, line: usize, free: Moment) -> Nanos {
        match self.lines[line].least_room() {
            Nanos::MAX => Nanos::MAX,
            least => least.saturating_sub(Nanos::from(free.0)),
        }
    }

    /// Predicted time of everything planned on a line.
    pub(crate) fn planned(&self, line: usize) -> Nanos {
        self.lines[line].cost()
    }

    /// Moves every planned launch to the line that `line` names for its plan, in the order in which they stand, if all of them are in time there with
    /// the lines free at `free` and launches taking what `cost` says; else changes nothing. Costs O(n log n) for n planned launches.
    pub(crate) fn move_all(
        &mut self,
        line: impl Fn(PlanIx, usize) -> usize,
        free: impl Fn(usize) -> Moment,
        cost: impl Fn(PlanIx, Size, usize) -> Duration,
    ) -> bool {
        let mut lines: Vec<Timeline> = self.lines.iter().map(|_| Timeline::default()).collect();
        let mut moved = Vec::with_capacity(self.bookings.len());
        for (number, booking) in &self.bookings {
            let plan = booking.launch.plan;
            let to = line(plan, booking.line);
            let cost = cost(plan, booking.launch.size(), to);
            lines[to].insert(booking.place, cost, booking.due());
            moved.push((*number, to, cost));
        }
        let kept = |(line, of): (usize, &Timeline)| {
            of.first().is_none() || of.least_room() >= Nanos::from(free(line).0)
        };
        if !lines.iter().enumerate().all(kept) {
            return false;
        }
        self.lines = lines;
        for (number, to, cost) in moved {
            let booking = self.bookings.get_mut(&number).expect("it was there just now");
            (booking.line, booking.cost) = (to, cost);
        }
        for ((_, plan), flow) in &mut self.flows {
            flow.line = line(PlanIx(*plan), flow.line);
        }
        true
    }

    /// Takes every launch away, and says who had a place in one, in no order.
    pub(crate) fn clear(&mut self) -> Vec<Ticket> {
        let requests = self.bookings.values().flat_map(|booking| booking.launch.tickets()).collect();
        *self = Promises { next: self.next, ..Promises::new(self.lines.len() / 2) };
        requests
    }
}

fn moment(at: Nanos) -> Moment {
    Moment(u64::try_from(at.max(0)).unwrap_or(u64::MAX))
}
