//! What goes before a launch that runs: an *express place*, for a promise that no line can keep.
//!
//! ```text
//!   line      [runs: segment│segment│ …          ]│[ ●  ][  ●  ]      behind what runs it would be late
//!   offer              ↑
//!   express            └ stands back ┴[urgent][runs: …  ][ ●  ][  ●  ]  so it goes between two segments, and all else moves back
//!                      └─── counted ─────────┘
//! ```
//! A device that yields lets an urgent launch go first when what runs comes to the end of a segment, and tells how long its segments are. So a request that
//! the line cannot answer in time may still be: it is over by `now + those before it + the longest segment of what runs + its own cost`, where each
//! urgent launch that is not over counts before it with the segment that it may have to wait for. It gets the place where
//! - that is in time;
//! - everything promised in what runs, and on the whole line behind, bears to be delayed by the segment and the cost together: other cores may wait while
//!   the last one comes to the end of its segment;
//! - what runs is delayed by no more than its own cost in all its interruptions together, so that it takes at most twice as long, whatever comes.
//!
//! **No promise is broken.** From the moment when the place is given the delay is part of what the line's next launch waits for (`Scheduler::work_before`), so the room
//! of the line is what is left beyond it, and no promise, rider or later interruption uses it a second time. What runs is checked against its own dues when it is
//! interrupted, and nothing delays it otherwise. That an interruption was shorter than it was counted only adds room. So with exact costs and segments the
//! induction of `promises` holds with interruptions in it.
//!
//! **Who does not interrupt.** Best effort never does, nor a tenant that is apart (`stragglers`): what nobody else vouches for delays nobody else. An
//! urgent launch is not interrupted. A tenant's requests of one plan keep their order: while one is booked on a line, or runs, no later one
//! goes before it.
//!
//! Urgent launches are handed over with the next decision, before all others and without riders. They stand in a line of their own until then (`promises`), where
//! later ones that come with them share their launch. Costs: a look at what runs on every line, for requests that would be refused.

use crate::launch::LaunchPlan;
use crate::promises::{Booked, Open, Wish};
use crate::scheduler::{InFlight, Scheduler};
use crate::timeline::{Nanos, length, nanos};
use std::time::Duration;
use tessera_core::{LaunchId, Moment};

impl Scheduler {
    /// A place before what runs, on the first line where that is in time and everything there bears it.
    pub(crate) fn book_express(&mut self, now: Moment, wish: Wish, open: &Open) -> Option<Booked> {
        if !self.config.interrupts || self.space.is_leaving() || wish.plan.is_own() {
            return None;
        }
        let mut lines = open.home.map_or(open.lines.clone(), |home| home..home + 1);
        lines.find_map(|line| {
            let open = !self.health.is_closed(line);
            open.then(|| self.book_express_on(now, wish, line)).flatten()
        })
    }

    fn book_express_on(&mut self, now: Moment, wish: Wish, line: usize) -> Option<Booked> {
        let segment = self.segment(line)?;
        let express = self.promises.express(line);
        if self.promises.is_booked_off(express, wish.rider.tenant, wish.plan) {
            return None;
        }
        let most = self.bears_interruption(now, wish, line)?;
        let open = Open {
            lines: express..express + 1,
            free: vec![now + self.urgent_left(now, line)],
            home: Some(express),
            most,
        };
        let (limits, units, plans) = (self.limits(), self.units(line), &self.plans);
        let cost = |size, _| segment + plans.cost_on(units, wish.plan, size);
        self.promises.book(wish, limits, &open, cost).ok()
    }

    /// The longest that what runs on a line may take to stand back. `None` where nothing runs, or something that never told.
    fn segment(&self, line: usize) -> Option<Duration> {
        self.running[line].front()?;
        self.running[line].iter().try_fold(Duration::ZERO, |longest, launch| {
            let launch = &self.in_flight[launch];
            Some(longest.max(self.plans.segment_on(self.units(line), launch.plan, launch.size)?))
        })
    }

    /// By how much everything on a line can be delayed once more; `None` where the wish may not delay it.
    fn bears_interruption(&self, now: Moment, wish: Wish, line: usize) -> Option<Nanos> {
        let booked = nanos(self.express_booked(line));
        let mut over = Nanos::from(now.0) + booked;
        let mut bears =
            self.promises.room(line, now + self.work_before(now, line)).saturating_sub(wish.leave);
        for (place, launch) in self.running[line].iter().enumerate() {
            let launch = &self.in_flight[launch];
            let predicted = launch.predicted?;
            if launch.plan == wish.plan && launch.carries(wish.rider.tenant) {
                return None;
            }
            over += nanos(launch.left(now));
            if let Some(due) = launch.due {
                bears = bears.min(Nanos::from((due - self.config.margin).0) - over);
            }
            // The first of them is the one that stands back.
            if place == 0 {
                bears = bears.min(nanos(predicted) - nanos(launch.delayed) - booked);
            }
        }
        Some(bears)
    }

    /// Counted time of urgent launches that are booked on a line and not handed over.
    pub(crate) fn express_booked(&self, line: usize) -> Duration {
        length(self.promises.planned(self.promises.express(line)))
    }

    /// Counted time until the urgent launches of a line that were handed over are over.
    pub(crate) fn urgent_left(&self, now: Moment, line: usize) -> Duration {
        self.urgent[line].iter().map(|launch| self.in_flight[launch].left(now)).sum()
    }

    /// What launches of a line are counted with beside their cost: in an express place, the segment that they may have to wait for.
    pub(crate) fn stands_back(&self, line: usize) -> Duration {
        let beside = self.promises.beside(line);
        if beside == line { Duration::ZERO } else { self.segment(beside).unwrap_or_default() }
    }

    /// The next launch that goes before what runs. Where nothing runs any more it is one like any other.
    pub(crate) fn express(&mut self, now: Moment) -> Option<LaunchPlan> {
        let booked = |line| Some((line, self.promises.front(self.promises.express(line))?));
        // A partition that is closed and empty is about to be opened anew: they wait for that.
        let serves = |line: &usize| !self.running[*line].is_empty() || !self.health.is_closed(*line);
        let (line, booking) = self.space.running().filter(serves).find_map(booked)?;
        let interrupts = self.running[line].front().copied();
        let segment = self.segment(line).unwrap_or_default();
        let booking = self.promises.take(booking)?;
        let due = booking.due() + self.config.margin;
        let mut launch = booking.launch;
        launch.promised = Some(due);
        let plan = self.start(now, launch, line, interrupts);
        if let Some(interrupted) = interrupts {
            let urgent = self.in_flight.get_mut(&plan.id).expect("it was handed over just now");
            urgent.delayed = segment;
            let counted = segment + urgent.predicted.unwrap_or_default();
            self.in_flight.get_mut(&interrupted).expect("it runs").delayed += counted;
        }
        Some(plan)
    }

    /// An urgent launch is over, that computed so long: what it interrupted was delayed by no more than it took in all.
    pub(crate) fn goes_on(
        &mut self,
        now: Moment,
        urgent: &InFlight,
        interrupted: LaunchId,
        computed: Duration,
    ) {
        let Some(launch) = self.in_flight.get_mut(&interrupted) else { return };
        self.events.interrupted(now, computed);
        let counted = urgent.delayed + urgent.predicted.unwrap_or_default();
        let delayed = urgent.begun.map_or(counted, |begun| now.since(begun).min(counted));
        launch.delayed = launch.delayed.saturating_sub(counted) + delayed;
        launch.stood_back += computed;
    }
}
