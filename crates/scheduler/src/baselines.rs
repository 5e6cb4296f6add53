//! `time`, `exclusive` and `space`: one tenant a launch.
//!
//! The paper's baselines, in the same engine with the same queues and costs, so that a comparison of policies compares policies. They fill lanes
//! with their tenant's requests, hand launches over ahead of their turn and drop what has expired, as ours does; they promise nothing.

use crate::decide::Formed;
use crate::forming::Forming;
use crate::scheduler::Scheduler;
use tessera_core::{Moment, Policy, TenantId};

impl Scheduler {
    /// `time` and `exclusive`: launches that compute one after the other, tenants in turn or one until its queue is empty.
    pub(crate) fn in_turn(&mut self, now: Moment) -> Formed {
        if self.in_flight.len() >= self.config.ahead.get() as usize {
            return Formed::Nothing;
        }
        let same = self.last_tenant.filter(|tenant| self.queues.depth(*tenant).requests > 0);
        let keeps = self.config.policy == Policy::Exclusive;
        let next = same.filter(|_| keeps).or_else(|| self.queues.tenants_after(self.last_tenant).next());
        let Some(tenant) = next else { return Formed::Nothing };
        let Some(launch) = self.of_one(tenant) else { return Formed::Nothing };
        // Its turn is not near, and its tenant's next requests may join it until then.
        let line = self.space.running().start;
        let before = self.work_before(now, line);
        if before > self.way_ahead() && !launch.is_full(self.limits()) {
            return Formed::Wait(now + before - self.way_ahead());
        }
        self.last_tenant = Some(tenant);
        Formed::Launch(launch, line)
    }

    /// `space`: every tenant launches by itself, one launch each.
    pub(crate) fn side_by_side(&mut self) -> Formed {
        if self.in_flight.len() >= self.config.max_concurrent.get() as usize {
            return Formed::Nothing;
        }
        let running = |tenant: &TenantId| {
            self.in_flight.values().any(|launch| launch.lanes.iter().any(|lane| lane.tenant == *tenant))
        };
        let Some(tenant) = self.queues.tenants_after(self.last_tenant).find(|tenant| !running(tenant)) else {
            return Formed::Nothing;
        };
        self.last_tenant = Some(tenant);
        let line = self.space.open_to_all().min_by_key(|line| self.load(*line)).unwrap_or(0);
        self.of_one(tenant).map_or(Formed::Nothing, |launch| Formed::Launch(launch, line))
    }

    /// A launch of one tenant: its oldest request and what may share its lane.
    fn of_one(&self, tenant: TenantId) -> Option<Forming> {
        let limits = self.limits();
        let first = self.queues.of_tenant(tenant).next()?;
        let mut launch = Forming::new(first.plan);
        for waiting in self.queues.of_tenant(tenant).filter(|waiting| waiting.plan == first.plan) {
            match launch.seat(waiting.rider, limits) {
                Some((seat, _)) => _ = launch.add(waiting.rider, seat, limits),
                None => break,
            }
        }
        Some(launch)
    }
}
