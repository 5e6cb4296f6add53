//! What runs next.
//!
//! ```text
//!   a partition is free, or nearly ─▶ the front of its line of promises ─┐
//!                                  └▶ or, of those that wait loose, one ──┴─▶ others of its plan ride along ─▶ Launch
//! ```
//! `space-time` keeps promises first (`promises`): the front of the line runs, and loose requests of its plan fill its lanes as far as the line's room bears. A
//! loose request leads a launch where nothing is promised, or when it has waited beyond its patience and its owner has had less device time for its
//! share than the front's; but never a longer launch than the room bears. A partition without promises takes over the front of another's line, where it
//! is done with it earlier. Which partitions there are, and which classes belong on which, is decided in `space`; who is too slow to ride along with others has plans of
//! its own (`stragglers`).
//!
//! Of those that wait loose the most urgent leads: slack is a deadline less the cost of one lane, and best effort becomes as urgent as if it
//! were due to start when its patience ends. When the most urgent is past that moment the backlog cannot be met, and slack would serve whoever
//! shouts loudest: then owners go first that have had the least device time for their share (`fairness`), and a launch is filled from the
//! owners in turn.
//!
//! Bounds, as `tests/properties.rs` tests them:
//! - No promise is broken while costs are exact and do not fall as launches grow (`promises`).
//! - No starvation: a loose request whose patience is over and whose owner is next by fairness starts within the longest time that was allowed to
//!   anything promised before, plus the longest launch, twice on a device that yields. Promises given later leave room for it (`admission`), those given before are kept or over by then.
//! - A tenant's requests of one plan are launched in the order in which they came, the promised ones among themselves and the loose among themselves. A
//!   promise goes before the same tenant's best effort. What a tenant was promised while it was apart, or with others before it was heard alone
//!   (`stragglers`), counts as of another plan.
//!
//! Cost: O(log n) of what waits, and no more looks than there are lanes and items in the launch, twice (`fill`, `benches/decide.rs`). A request is named by a place in
//! memory (`queues`), orders hold one request of each flow (`flows`), and what lies apart is read together (`read_ahead`): what costs time is not the arithmetic but memory
//! that no cache holds. What follows from a launch for the orders of those that wait is done after it was handed over, in the next call of any kind (`Queues::tidy`):
//! O(log f) of f flows for each lane, O(log n) for each request that is due at some time, nothing else that grows with what waits.
//! So that call is bounded by the lanes and requests of the one launch before it, as is `finished`, which charges each owner in the launch once (`bills`).
//! O(plans of one owner with loose requests) when it is charged for a launch, and when it leads. Where plans have homes (`space`), who leads costs a look at every plan
//! with loose requests.
//!
//! Before all of that goes what was let in to go between the segments of a launch that runs (`express`).
//!
//! The other policies are in `baselines`.

use crate::cost::{Company, Size};
use crate::fill::Riding;
use crate::forming::{Forming, Limits};
use crate::launch::{Decision, LanePlan, LaunchPlan};
use crate::plans::PlanIx;
use crate::promises::BookingId;
use crate::scheduler::{InFlight, LaneAboard, Scheduler};
use crate::timeline::{Nanos, length, nanos};
use crate::waiting::{Ticket, Waiting};
use std::time::Duration;
use tessera_core::{LaunchId, Moment, Policy};

/// What there is to do.
pub(crate) enum Formed {
    /// A launch on the partition of this number.
    Launch(Forming, usize),
    /// Nothing before then.
    Wait(Moment),
    Nothing,
}

/// Who leads the next launch of a partition.
#[derive(Clone, Copy)]
enum Lead {
    Promise(BookingId),
    Loose(Ticket),
}

/// A launch that is about to begin.
#[derive(Clone, Copy)]
pub(crate) struct Going {
    pub(crate) plan: PlanIx,
    pub(crate) size: Size,
    pub(crate) line: usize,
    /// The tightest of the dues that were promised in it.
    pub(crate) due: Option<Moment>,
    /// What it goes before, if it is urgent.
    pub(crate) interrupts: Option<LaunchId>,
}

impl Scheduler {
    pub(crate) fn next(&mut self, now: Moment) -> Decision {
        if let Some(launch) = self.express(now) {
            return Decision::Launch(launch);
        }
        self.mind_space(now);
        let formed = match self.config.policy {
            // The first layout's turn comes when what runs on another is over.
            Policy::Time | Policy::Exclusive | Policy::Space if self.space.is_leaving() => Formed::Nothing,
            Policy::SpaceTime => self.space_time(now),
            Policy::Time | Policy::Exclusive => self.in_turn(now),
            Policy::Space => self.side_by_side(),
        };
        match formed {
            Formed::Launch(launch, line) => Decision::Launch(self.start(now, launch, line, None)),
            Formed::Wait(until) => {
                Decision::SleepUntil(self.queues.first_due().map_or(until, |due| until.min(due)))
            }
            Formed::Nothing => self.queues.first_due().map_or(Decision::Idle, Decision::SleepUntil),
        }
    }

    /// How large launches are under the policy in force.
    pub(crate) fn limits(&self) -> Limits {
        let lanes = if self.config.policy == Policy::SpaceTime { self.config.max_lanes.get() } else { 1 };
        Limits {
            max_lanes: lanes,
            max_items: self.config.max_items.get(),
            tenant_batching: self.config.tenant_batching,
        }
    }

    fn space_time(&mut self, now: Moment) -> Formed {
        if self.queues.len() == 0 {
            return Formed::Nothing;
        }
        let mut wait: Option<Moment> = None;
        let mut lines: Vec<usize> = self.space.running().collect();
        lines.sort_by_key(|line| self.load(*line));
        for line in lines {
            if self.load(line) >= self.config.ahead.get() as usize {
                break;
            }
            if self.health.is_closed(line) {
                continue;
            }
            let has_guests = self.plans.any_own() || self.space.is_cut();
            if self.space.is_closed(line) && self.promises.front(line).is_none() && !has_guests {
                continue;
            }
            match self.on_line(now, line) {
                Formed::Launch(launch, line) => return Formed::Launch(launch, line),
                Formed::Wait(until) => wait = Some(wait.map_or(until, |earlier| earlier.min(until))),
                Formed::Nothing => {}
            }
        }
        wait.map_or(Formed::Nothing, Formed::Wait)
    }

    /// The next launch of one partition.
    fn on_line(&mut self, now: Moment, line: usize) -> Formed {
        let limits = self.limits();
        let before = self.work_before(now, line);
        let (begin, lead) = (now + before, self.way_ahead());
        let early = before > lead;
        let turn = Formed::Wait(begin - lead);
        // Fewer than there are lanes cannot fill a launch: not worth forming one on every arrival while its turn is far.
        if early && self.queues.len() < limits.max_lanes as usize {
            return turn;
        }
        let lead = match self.lead(now, begin, line) {
            Ok(lead) => lead,
            Err(waits) => return waits.map_or(Formed::Nothing, Formed::Wait),
        };
        let (mut launch, until) = match lead {
            Lead::Promise(booking) => {
                let Some(found) = self.promises.get(booking) else { return Formed::Nothing };
                if self.space.is_leaving() {
                    // What is drained takes nobody along, and waits for nobody.
                    (found.launch.clone(), now)
                } else {
                    let alone = self.promises.front(line) != Some(booking);
                    let cost = self.promised_cost(booking, line);
                    let room = if alone {
                        Nanos::from(found.due().0) - Nanos::from(begin.0) - nanos(cost)
                    } else {
                        self.promises.room(line, begin)
                    };
                    let bears = self.bears(found.launch.plan, line).map(|bears| nanos(bears) - nanos(cost));
                    let room = bears.map_or(room, |bears| room.min(bears));
                    let riding = Riding { line, begin, counted: nanos(cost), room };
                    let until = (found.arrived + self.config.max_wait).min(now + length(room));
                    (self.ride_along(found.launch.clone(), riding, limits, now), until)
                }
            }
            Lead::Loose(request) => {
                let Some(leader) = self.queues.get(request) else { return Formed::Nothing };
                let room = self.promises.room(line, begin);
                let room = self.bears(leader.plan, line).map_or(room, |bears| room.min(nanos(bears)));
                let riding = Riding { line, begin, counted: 0, room };
                let urgency = self.queues.first_urgency().unwrap_or(leader.urgency);
                let until = (leader.arrived + self.config.max_wait).min(urgency).min(now + length(room));
                (self.ride_along(Forming::new(leader.plan), riding, limits, now), until)
            }
        };
        if launch.is_empty() {
            return Formed::Nothing;
        }
        // Its turn is not near, and others may join it until then.
        if early && !launch.has_all_lanes(limits) {
            return turn;
        }
        // Company may still come: wait for it as long as slack allows, but never with a full launch.
        if now < until && !launch.is_full(limits) {
            return Formed::Wait(until);
        }
        if let Lead::Promise(booking) = lead {
            let taken = self.promises.take(booking);
            launch.promised = taken.map(|taken| taken.due() + self.config.margin);
        }
        Formed::Launch(launch, line)
    }

    /// Who leads the next launch of a partition that is free at `begin`; else when that may change by itself.
    fn lead(&mut self, now: Moment, begin: Moment, line: usize) -> Result<Lead, Option<Moment>> {
        let front = loop {
            let Some(front) = self.front(now, begin, line) else { break None };
            if !self.shed(front, begin, line) {
                break Some(front);
            }
        };
        if self.space.is_leaving() {
            return front.map(Lead::Promise).ok_or(None);
        }
        let leader = self.loose_leader(now, line, front.is_none());
        match (front, leader) {
            (Some(front), Some(leader)) if self.goes_first(leader, front, begin, line, now) => {
                Ok(Lead::Loose(leader.rider.ticket))
            }
            (Some(front), _) => Ok(Lead::Promise(front)),
            (None, Some(leader)) if self.may_run_beside(now, leader, line) => {
                Ok(Lead::Loose(leader.rider.ticket))
            }
            // It goes when what runs beside it is over, or its patience.
            (None, leader) => Err(leader.map(|leader| leader.urgency + Duration::from_nanos(1))),
        }
    }

    /// What is promised next: of this partition, else of the one that has most to do and would be done with it later.
    fn front(&self, now: Moment, begin: Moment, line: usize) -> Option<BookingId> {
        if let Some(front) = self.promises.front(line) {
            return Some(front);
        }
        if self.space.is_closed(line) {
            return None;
        }
        // What is over earlier elsewhere keeps its promise, and its line gains room.
        let others = self.space.running().filter(|other| {
            self.promises.front(*other).and_then(|front| self.promises.get(front)).is_some_and(|front| {
                let plan = front.launch.plan;
                let here = self.plans.cost_on(self.units(line), plan, front.launch.size());
                let there = now + self.work_before(now, *other) + front.cost;
                begin + here < there && self.may_visit(plan, front.launch.size(), line)
            })
        });
        self.promises.front(others.max_by_key(|other| self.promises.planned(*other))?)
    }

    /// What a planned launch takes on a line, its own or another.
    fn promised_cost(&self, booking: BookingId, line: usize) -> Duration {
        let Some(found) = self.promises.get(booking) else { return Duration::ZERO };
        if self.promises.front(line) == Some(booking) {
            return found.cost;
        }
        self.plans.cost_on(self.units(line), found.launch.plan, found.launch.size())
    }

    /// The one of those without a promise whose turn it is on a line: of the plans at home there, else of those that may visit it.
    fn loose_leader(&self, now: Moment, line: usize, visitors: bool) -> Option<&Waiting> {
        let urgent = self.queues.most_urgent()?;
        let by_urgency = urgent.urgency >= now;
        let closed = self.space.is_closed(line);
        let at_home = |plan| self.space.home(plan).map_or(!closed, |home| home == line);
        if self.space.home(urgent.plan).is_none() && !closed {
            let fair = || self.queues.fair().next().and_then(|ticket| self.queues.get(ticket));
            let next = Some(urgent).filter(|_| by_urgency).or_else(fair).unwrap_or(urgent);
            if at_home(next.plan) {
                return Some(next);
            }
        }
        let of = |plans: &dyn Fn(PlanIx) -> bool| {
            if by_urgency {
                return self.queues.most_urgent_of(plans);
            }
            self.queues.fair().next_of(plans).and_then(|ticket| self.queues.get(ticket))
        };
        let one = Size { lanes: 1, items: 1 };
        let visits = |plan| !at_home(plan) && self.may_visit(plan, one, line);
        of(&at_home).or_else(|| if visitors && !closed { of(&visits) } else { None })
    }

    /// Whether a loose request goes before what is promised.
    fn goes_first(
        &self,
        leader: &Waiting,
        front: BookingId,
        begin: Moment,
        line: usize,
        now: Moment,
    ) -> bool {
        let first = self.promises.get(front).and_then(|booking| booking.dues().first());
        let Some(promised) = first.and_then(|(ticket, _)| self.queues.get(*ticket)) else { return true };
        let behind = self.owners.virtual_time(leader.owner) < self.owners.virtual_time(promised.owner);
        let (plan, size) = (leader.plan, Size::one_lane(leader.rider.items));
        let cost = self.plans.cost_on(self.units(line), plan, size);
        leader.urgency < now && behind && nanos(cost) <= self.promises.room(line, begin)
    }

    /// Lets those out of a planned launch whose due cannot be kept any more, whatever is done: costs were not what they were thought to be. They
    /// wait on, until their deadlines pass. Says whether there were any.
    fn shed(&mut self, booking: BookingId, begin: Moment, line: usize) -> bool {
        let Some(found) = self.promises.get(booking) else { return false };
        if begin + self.promised_cost(booking, line) <= found.due() {
            return false;
        }
        let plan = found.launch.plan;
        let lost = |(ticket, _): &&(Ticket, Moment)| {
            self.queues.get(*ticket).is_some_and(|waiting| {
                let alone = self.plans.cost_on(self.units(line), plan, Size::one_lane(waiting.rider.items));
                waiting.due.moment().is_some_and(|due| begin + alone > due)
            })
        };
        let lost: Vec<Ticket> = found.dues().iter().filter(lost).map(|(ticket, _)| *ticket).collect();
        for ticket in &lost {
            self.break_promise(*ticket);
        }
        !lost.is_empty()
    }

    /// Hands a launch over to a line, where it goes first if it interrupts another.
    pub(crate) fn start(
        &mut self,
        now: Moment,
        launch: Forming,
        line: usize,
        interrupts: Option<LaunchId>,
    ) -> LaunchPlan {
        let going = Going { plan: launch.plan, size: launch.size(), line, due: launch.promised, interrupts };
        let plan = launch.plan;
        let (lanes, requests) = launch.into_lanes();
        requests.iter().for_each(|ticket| self.queues.launched(*ticket));
        let aboard = |lane: &LanePlan| LaneAboard {
            tenant: lane.tenant,
            requests: lane.requests.len(),
            items: lane.items,
        };
        let id = self.go(now, going, lanes.iter().map(aboard).collect(), requests);
        let partition = self.space.lines().id(line);
        let predicted = self.in_flight[&id].predicted;
        let urgent = interrupts.is_some();
        LaunchPlan { id, plan: self.plans.key(plan).clone(), partition, lanes, predicted, urgent }
    }

    /// From now on a launch is in flight.
    pub(crate) fn go(
        &mut self,
        now: Moment,
        going: Going,
        lanes: Vec<LaneAboard>,
        requests: Vec<Ticket>,
    ) -> LaunchId {
        let Going { plan, size, line, due, interrupts } = going;
        let id = LaunchId(self.launches);
        self.launches += 1;
        let alone = self.load(line) == 0;
        let begun = match interrupts {
            None => alone.then(|| now + self.work_before(now, line)),
            Some(_) => self.urgent[line].is_empty().then(|| now + self.way()),
        };
        let beside = self.config.overlap && self.is_beside(line);
        let predicted = self.plans.predict_in(Company::of(beside), self.units(line), plan, size);
        let in_flight = InFlight {
            plan,
            size,
            line,
            due,
            predicted,
            handed: now,
            alone,
            beside,
            begun,
            interrupts,
            delayed: Duration::ZERO,
            stood_back: Duration::ZERO,
            lanes,
            requests,
        };
        self.in_flight.insert(id, in_flight);
        let queue = if interrupts.is_some() { &mut self.urgent } else { &mut self.running };
        queue[line].push_back(id);
        id
    }
}
