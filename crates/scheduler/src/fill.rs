//! Who rides along: loose requests take the free places of a launch that somebody else leads.
//!
//!   [promised ● ● ○ ○]  ◀─ ○ the next by urgency, or by fairness when the backlog cannot be met
//!                          while what they add fits into the room of everything promised, and keeps the tightest deadline aboard

use crate::cost::Size;
use crate::forming::{Forming, Limits};
use crate::plans::PlanIx;
use crate::queues::Waiting;
use crate::scheduler::Scheduler;
use crate::timeline::{Nanos, nanos};
use std::time::Duration;
use tessera_core::{Moment, TenantId};

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

impl Scheduler {
    /// Fills a launch with loose requests of its plan.
    pub(crate) fn ride_along(&self, launch: Forming, riding: Riding, limits: Limits, now: Moment) -> Forming {
        let (plan, units) = (launch.plan, self.units(riding.line));
        if launch.is_full(limits) {
            return launch;
        }
        if self.queues.most_urgent().is_some_and(|urgent| urgent.urgency < now) {
            let step = |owner, id| {
                let waiting = self.queues.get(id);
                let cost =
                    waiting.and_then(|w| self.plans.predict_on(units, plan, Size::one_lane(w.rider.items)));
                self.owners.distance(owner, cost.unwrap_or_default())
            };
            let fair = self.queues.fair().of_plan(plan, step).filter_map(|id| self.queues.get(id));
            self.fill(launch, riding, fair, limits)
        } else {
            self.fill(launch, riding, self.queues.of_plan(plan), limits)
        }
    }

    /// Seats requests of a plan in order while the launch fits into the room and keeps the tightest deadline of those it seats. Where nothing is
    /// promised the first one always goes: whatever it leads, it leads alone if it must.
    fn fill<'a>(
        &self,
        mut launch: Forming,
        riding: Riding,
        candidates: impl Iterator<Item = &'a Waiting>,
        limits: Limits,
    ) -> Forming {
        let Riding { line, begin, counted, room } = riding;
        let (plan, units) = (launch.plan, self.units(line));
        let mut tightest: Option<Moment> = None;
        let mut passed_over: Vec<TenantId> = Vec::new();
        // Whoever finds no place is looked at in vain: not much more often than there are places.
        let looks = 2 * (limits.max_lanes as usize + limits.max_items as usize);
        for waiting in candidates.take(looks) {
            if launch.is_full(limits) {
                break;
            }
            // A tenant whose earlier request found no seat waits with all of them: order is kept.
            if passed_over.contains(&waiting.whose.tenant) {
                continue;
            }
            let Some((seat, size)) = launch.seat(waiting.rider, limits) else {
                passed_over.push(waiting.whose.tenant);
                continue;
            };
            if room != Nanos::MAX && nanos(self.plans.cost_on(units, plan, size)) - counted > room.max(0) {
                break;
            }
            let due = [tightest, waiting.due].into_iter().flatten().min();
            // A deadline that is lost already binds nobody.
            let kept = |due: Moment| {
                let cost = self.plans.predict_on(units, plan, size);
                cost.is_none_or(|cost| begin + cost <= due) || self.is_lost(riding, plan, due)
            };
            if !launch.is_empty() && !due.is_none_or(kept) {
                break;
            }
            launch.add(waiting.rider, seat, limits);
            tightest = due;
        }
        launch
    }

    fn is_lost(&self, riding: Riding, plan: PlanIx, due: Moment) -> bool {
        let one = Size { lanes: 1, items: 1 };
        let cost: Duration = self.plans.predict_on(self.units(riding.line), plan, one).unwrap_or_default();
        riding.begin + cost > due
    }
}
