//! What a plan costs before anybody asks for it: a few launches when it is loaded.
//!
//! ```text
//!   1 lane ○ ● ● ● ─▶ 2 lanes ○ ● ● ● ─▶ 8 lanes ○ ● ● ● ─▶ …  ─▶ as many as launches carry
//!          ↑ finds everything cold, and does not count           ↑ ends here where the limit is, or where the next launch might pass it
//! ```
//! Without it the first requests of an architecture are let in and launched by a guess, and nobody can say whether a tenant's SLO can be met before it has
//! traffic. The caller asks for one launch after the other ([`Scheduler::measure`]), which is granted on an idle device only: whoever comes meanwhile
//! waits for one such launch at most, which is counted in what is promised to them, and what was measured beside them is thrown away.
//!
//! The middle of a size's launches seeds the cost of that size, and nothing else learns from them: no prediction was wrong, nobody was slow, and no owner is charged.
//! Lanes are all of the one tenant that is there, so their weights may stay in a cache where those of several tenants would not: a seed may be
//! too low, and the first launch that is slower replaces it, since of few launches the slowest counts (`cost`).

use crate::cost::{Company, Measured, Size};
use crate::decide::Going;
use crate::launch::Over;
use crate::scheduler::Scheduler;
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::{LaunchId, Moment, PartitionId, PlanKey};

/// Launches of each size that count, an odd number.
const ROUNDS: usize = 3;

/// A plan that is being measured.
#[derive(Clone, Debug)]
pub struct Profile {
    plan: PlanKey,
    /// Most lanes of a launch.
    most: u32,
    /// No launch is begun that may end later.
    until: Moment,
    /// Of the next launch.
    lanes: u32,
    /// What launches of this size took so far, the cold one first.
    took: Vec<Duration>,
    /// The size before, and what it takes.
    before: Option<(u32, Duration)>,
}

/// What came of asking for the next launch of a profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// Run this now, with so many lanes of one item each; [`Scheduler::measured`] must follow, whatever becomes of it.
    Launch {
        /// Names the launch.
        id: LaunchId,
        /// Where.
        partition: PartitionId,
        /// How many.
        lanes: NonZeroU32,
    },
    /// Not now: others wait or run. Ask again when something has ended.
    Busy,
    /// It is over: everything was measured, or time is up.
    Done,
}

impl Profile {
    /// Of a plan whose launches carry at most so many lanes, to be over at `until`.
    pub fn new(plan: PlanKey, most_lanes: NonZeroU32, until: Moment) -> Profile {
        Profile { plan, most: most_lanes.get(), until, lanes: 1, took: Vec::new(), before: None }
    }

    /// What the next launch takes at most, as far as that can be known: a lane costs no more than the first.
    fn expected(&self) -> Duration {
        let so_far = self.took.iter().min().map(|took| (self.lanes, *took)).or(self.before);
        so_far.map_or(Duration::ZERO, |(lanes, took)| took.mul_f64(f64::from(self.lanes) / f64::from(lanes)))
    }

    fn is_over(&self, now: Moment) -> bool {
        self.lanes > self.most || now + self.expected() > self.until
    }

    /// What this size takes, as far as it was measured: the cold launch stands only where no other could.
    fn typical(&self) -> Option<Duration> {
        let counted = if self.took.len() > 1 || self.before.is_some() { 1 } else { 0 };
        let mut took = self.took.get(counted..)?.to_vec();
        took.sort_unstable();
        took.get(took.len() / 2).copied()
    }

    /// Goes on to the next size, and says what this one takes.
    fn next_size(&mut self) -> Option<(Size, Duration)> {
        let done = self.typical().map(|took| (Size { lanes: self.lanes, items: self.lanes }, took));
        self.before = done.map(|(size, took)| (size.lanes, took)).or(self.before);
        self.took.clear();
        self.lanes = if self.lanes < self.most {
            self.lanes.saturating_mul(if self.lanes == 1 { 2 } else { 4 }).min(self.most)
        } else {
            self.lanes.saturating_add(1)
        };
        done
    }
}

impl Scheduler {
    /// Whether a plan's cost is known from launches, or given: then it needs no profile.
    pub fn is_measured(&self, plan: &PlanKey) -> bool {
        self.plans.alone(plan).is_some()
    }

    /// Asks for the next launch of a profile, when the one before is over.
    pub fn measure(&mut self, now: Moment, profile: &mut Profile) -> Measure {
        profile.most = profile.most.min(self.limits().max_lanes).min(self.config.max_items.get());
        let Some(plan) = self.plans.known(&profile.plan) else { return Measure::Done };
        if profile.is_over(now) {
            self.seed(now, profile);
            return Measure::Done;
        }
        self.mind_space(now);
        if self.queued() > 0 || self.in_flight() > 0 || self.space.is_leaving() {
            return Measure::Busy;
        }
        let lanes = NonZeroU32::new(profile.lanes).expect("a profile begins with one lane");
        let line = self.measuring_line();
        let going = Going {
            plan,
            size: Size { lanes: profile.lanes, items: profile.lanes },
            line,
            due: None,
            interrupts: None,
        };
        self.plans.used(plan);
        let id = self.go(now, going, Vec::new(), Vec::new());
        Measure::Launch { id, partition: self.space.lines().id(line), lanes }
    }

    /// The largest partition of the layout in force that is for everybody.
    fn measuring_line(&self) -> usize {
        let lines = self.space.open_to_all();
        let first = lines.start;
        lines.rev().max_by_key(|line| self.space.lines().units(*line)).unwrap_or(first)
    }

    /// A launch of a profile is over, however it ended: no time for one that did not run.
    pub fn measured(&mut self, now: Moment, launch: LaunchId, over: Over<'_>, profile: &mut Profile) {
        self.queues.tidy(&self.owners);
        let Some(ended) = self.ended(now, launch, over) else { return };
        self.plans.released(ended.launch.plan, 1);
        // Beside others it was not alone with the device.
        let disturbed = self.queued() > 0 || self.in_flight() > 0 || !ended.launch.stood_back.is_zero();
        if over.took.is_zero() || disturbed {
            return;
        }
        profile.took.push(ended.cost.unwrap_or(ended.took));
        if profile.took.len() > ROUNDS {
            self.seed(now, profile);
        }
    }

    /// Learns a size.
    fn seed(&mut self, now: Moment, profile: &mut Profile) {
        let Some((size, took)) = profile.next_size() else { return };
        let Some(plan) = self.plans.known(&profile.plan) else { return };
        let units = self.space.lines().units(self.measuring_line());
        let measured = Measured {
            at: now,
            units,
            company: Company::Alone,
            others: self.space.lines().most_units(),
            took,
            predicted: None,
            first: true,
        };
        self.plans.costs.learn(plan, size, measured);
    }
}
