//! What the scheduler does for a tenant that is apart.

use crate::event::Happened;
use crate::plans::PlanIx;
use crate::queues::Ticket;
use crate::scheduler::{InFlight, LaneAboard, Scheduler};
use crate::stragglers::LaneTime;
use std::time::Duration;
use tessera_core::{Moment, PlanKey, Policy, TenantId};

impl Scheduler {
    /// What a request of a tenant runs as: the plan that it shares with others, or its own while it is apart.
    pub(crate) fn plan_for(&mut self, now: Moment, tenant: TenantId, key: &PlanKey) -> PlanIx {
        if let Some(decided) = self.stragglers.came(self.config.stragglers, now, tenant) {
            self.events.tell(now, decided);
            if !self.stragglers.is_apart(tenant) {
                self.rejoin(tenant);
            }
        }
        let shared = self.plans.number(key);
        match self.stragglers.slower_by(tenant) {
            Some(factor) => self.plans.own(shared, tenant, factor),
            None => shared,
        }
    }

    /// Judges the lanes of a launch that is over by what each took, and acts on it. Returns the part of the launch's time that costs are to learn.
    pub(crate) fn judge(
        &mut self,
        now: Moment,
        launch: &InFlight,
        computed: Duration,
        lanes: &[Duration],
    ) -> f64 {
        // A launch of one lane is told by its own time where lanes are not measured.
        let whole = [computed];
        let times = if lanes.is_empty() && launch.lanes.len() == 1 { &whole } else { lanes };
        if self.config.policy != Policy::SpaceTime || times.len() != launch.lanes.len() || computed.is_zero()
        {
            return 1.0;
        }
        let lane = |(lane, took): (&LaneAboard, &Duration)| LaneTime {
            tenant: lane.tenant,
            items: lane.items,
            took: *took,
        };
        let lanes: Vec<LaneTime> = launch.lanes.iter().zip(times).map(lane).collect();
        let shared = self.plans.shared(launch.plan);
        let place = (shared, self.units(launch.line));
        let settings = self.config.stragglers;
        let judged = self.stragglers.judge(settings, now, place, &lanes, shared == launch.plan);
        for change in judged.changes {
            if let Happened::Evicted { tenant, .. } = change {
                self.set_apart(tenant);
            }
            self.events.tell(now, change);
        }
        // What its own launches take is what it is to be predicted by.
        if shared == launch.plan { judged.ordinary } else { 1.0 }
    }

    /// What waits of a tenant that was evicted shares with nobody any more. Its promises counted on what its neighbours take, and end.
    fn set_apart(&mut self, tenant: TenantId) {
        let Some(factor) = self.stragglers.slower_by(tenant) else { return };
        for (ticket, plan) in self.waiting_of(tenant) {
            self.break_promise(ticket);
            let own = self.plans.own(plan, tenant, factor);
            self.run_as(ticket, own);
        }
    }

    /// What waits of a tenant shares again, but for what was promised by itself: that promise is kept.
    pub(crate) fn rejoin(&mut self, tenant: TenantId) {
        for (ticket, plan) in self.waiting_of(tenant) {
            if self.queues.get(ticket).is_some_and(|waiting| waiting.booked.is_none()) {
                self.run_as(ticket, self.plans.shared(plan));
            }
        }
        self.plans.retire_own(tenant);
    }

    fn waiting_of(&self, tenant: TenantId) -> Vec<(Ticket, PlanIx)> {
        self.queues.of_tenant(tenant).map(|waiting| (waiting.rider.ticket, waiting.plan)).collect()
    }

    /// From now on a request without a promise counts as one of another plan.
    fn run_as(&mut self, ticket: Ticket, plan: PlanIx) {
        if let Some(before) = self.queues.change_plan(ticket, plan, &self.owners) {
            self.plans.used(plan);
            self.plans.released(before);
        }
    }
}
