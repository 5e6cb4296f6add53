//! What may run beside what.
//!
//! ```text
//!   a visitor     on another class's partition: only for as long as that class can wait        [b ][ visitor ]  ◀ b comes: waits, and is in time
//!   best effort   beside a promised launch: if one needs the memory and the other the           [promised, computes        ]
//!                 arithmetic, or if it is over before what is promised must move                [best effort, reads ]
//! ```
//! Partitions do not share cores, but they share memory and its caches. Two launches that both read as fast as memory can make each other slower, and so do two that
//! compute, by heat and clock; one of each hardly does. This is Orion's rule (Strati et al., EuroSys '24: best effort goes beside a high-priority operator
//! if the profiles differ or one is unknown, and within a budget of outstanding time). Its budget is here the room of what is promised: a neighbour delays a
//! launch by no more than the time it runs beside it. Profiles come from the plan's FLOP and bytes (`cost`).
//!
//! A partition that is aside is in nobody's way, nor anybody in its: it has few units, and what wants them besides goes first. Nothing visits it, and nothing that belongs there
//! visits the others, which would have it on all units.
//!
//! It holds back best effort only while it is patient: who has waited beyond that goes whatever runs beside it, so that nobody starves.

use crate::cost::Size;
use crate::plans::PlanIx;
use crate::scheduler::Scheduler;
use crate::timeline::{Nanos, nanos};
use crate::waiting::Waiting;
use std::time::Duration;
use tessera_core::Moment;

impl Scheduler {
    /// How long a launch of a plan on a line may be: as long as the line's own classes can wait for it, where it is not their own.
    pub(crate) fn bears(&self, plan: PlanIx, line: usize) -> Option<Duration> {
        let cut = self.space.cut.filter(|_| !self.space.belongs(plan, line))?;
        self.space.promising().contains(&line).then(|| cut.bears(line))?
    }

    /// Whether a launch of this size may visit a line.
    pub(crate) fn may_visit(&self, plan: PlanIx, size: Size, line: usize) -> bool {
        let lines = self.space.lines();
        let home = self.space.home(plan).filter(|home| *home != line);
        let stays = |home| plan.is_own() || lines.is_aside(home);
        if home.is_some_and(stays) || (lines.is_aside(line) && !self.space.belongs(plan, line)) {
            return false;
        }
        self.bears(plan, line).is_none_or(|bears| self.plans.cost_on(self.units(line), plan, size) <= bears)
    }

    /// Whether what waits may run on a line from `now` beside what runs on the others.
    pub(crate) fn may_run_beside(&self, now: Moment, waiting: &Waiting, line: usize) -> bool {
        let aside = self.space.aside();
        if waiting.due.moment().is_some() || waiting.urgency < now || aside == Some(line) {
            return true;
        }
        let (plan, size) = (waiting.plan, Size::one_lane(waiting.rider.items));
        let cost = nanos(self.plans.cost_on(self.units(line), plan, size));
        let others = self.space.running().filter(|other| *other != line && aside != Some(*other));
        let beside = others.filter_map(|other| Some((other, self.running[other].front()?)));
        beside.into_iter().all(|(other, launch)| {
            let launch = &self.in_flight[launch];
            let Some(due) = launch.due else { return true };
            let profiles = (
                self.plans.costs.reads_more(plan, size),
                self.plans.costs.reads_more(launch.plan, launch.size),
            );
            let opposite = !matches!(profiles, (Some(one), Some(two)) if one == two);
            let end = now + launch.left(now);
            let slack = Nanos::from(due.0) - Nanos::from(end.0);
            opposite || cost <= slack.min(self.promises.room(other, now + self.work_before(now, other)))
        })
    }
}
