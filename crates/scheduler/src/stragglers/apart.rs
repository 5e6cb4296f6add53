//! What the scheduler does for a tenant that is apart.

use crate::cost::Company;
use crate::event::Happened;
use crate::plans::PlanIx;
use crate::scheduler::{InFlight, LaneAboard, Scheduler};
use crate::stragglers::{Kind, LaneTime};
use crate::waiting::Ticket;
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
            Some(factor) => self.own_plan(shared, tenant, factor),
            None => shared,
        }
    }

    /// A tenant's own number for a plan, at home where the tenant's standing wants it.
    fn own_plan(&mut self, shared: PlanIx, tenant: TenantId, factor: f64) -> PlanIx {
        let own = self.plans.own(shared, tenant, factor);
        if self.stragglers.is_apart(tenant) {
            self.put_aside(own);
        } else {
            self.take_back(own);
        }
        own
    }

    /// Judges the lanes of a launch that is over by what each took, or where the device does not tell by what all did, and acts on it. Returns the part of the launch's
    /// time that costs are to learn.
    pub(crate) fn judge(
        &mut self,
        now: Moment,
        launch: &InFlight,
        computed: Duration,
        lanes: &[Duration],
    ) -> f64 {
        if self.config.policy != Policy::SpaceTime || computed.is_zero() {
            return 1.0;
        }
        // A launch of one lane is told by its own time where lanes are not measured.
        let whole = [computed];
        let times = if lanes.is_empty() && launch.lanes.len() == 1 { &whole } else { lanes };
        let lane_by_lane =
            if times.len() == launch.lanes.len() { self.judge_lanes(now, launch, times) } else { 1.0 };
        let together = if lanes.is_empty() { self.blame(now, launch, computed) } else { 1.0 };
        // Of a tenant that went meanwhile nothing is kept.
        for lane in launch.lanes.iter().filter(|lane| !self.tenants.contains_key(&lane.tenant)) {
            self.stragglers.forget(lane.tenant);
        }
        // What a tenant's own launches take is what it is to be predicted by.
        if launch.plan.is_own() { 1.0 } else { lane_by_lane.min(together) }
    }

    fn judge_lanes(&mut self, now: Moment, launch: &InFlight, times: &[Duration]) -> f64 {
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
        self.changed(now, judged.changes);
        judged.ordinary
    }

    /// Blames those aboard of a launch that told one time. Where nobody may be evicted nobody is accused: whoever is heard leaves shared launches for that.
    fn blame(&mut self, now: Moment, launch: &InFlight, computed: Duration) -> f64 {
        if launch.plan.is_own() || !self.config.stragglers.evicts() {
            return 1.0;
        }
        let mut aboard: Vec<TenantId> = launch.lanes.iter().map(|lane| lane.tenant).collect();
        aboard.sort_unstable();
        aboard.dedup();
        let company = Company::of(launch.beside);
        let kind = Kind { plan: launch.plan, units: self.units(launch.line), company };
        let settings = self.config.stragglers;
        let blamed = self.stragglers.blame(settings, now, kind, (launch.size, computed), &aboard);
        self.changed(now, blamed.changes);
        blamed.ordinary
    }

    fn changed(&mut self, now: Moment, changes: Vec<Happened>) {
        for change in changes {
            match change {
                Happened::Evicted { tenant, .. } => self.set_apart(tenant),
                Happened::Heard { tenant, .. } => self.set_alone(tenant),
                Happened::Acquitted { tenant, .. } | Happened::Returned { tenant, .. } => self.rejoin(tenant),
                _ => {}
            }
            match change {
                Happened::Heard { .. } | Happened::Acquitted { .. } => self.events.hearing(now, change),
                _ => self.events.tell(now, change),
            }
        }
    }

    /// What waits of a tenant that is to be heard runs alone, but for what was promised with others: that promise is kept.
    fn set_alone(&mut self, tenant: TenantId) {
        let Some(factor) = self.stragglers.slower_by(tenant) else { return };
        for (ticket, plan) in self.waiting_of(tenant).into_iter().filter(|(_, plan)| !plan.is_own()) {
            if self.queues.get(ticket).is_some_and(|waiting| waiting.booked.is_none()) {
                let own = self.own_plan(plan, tenant, factor);
                self.run_as(ticket, own);
            }
        }
    }

    /// What waits of a tenant that was evicted shares with nobody any more. Its promises counted on what its neighbours take, and end; but for what is left of
    /// an earlier time apart, which counted on what it takes by itself.
    fn set_apart(&mut self, tenant: TenantId) {
        let Some(factor) = self.stragglers.slower_by(tenant) else { return };
        for (ticket, plan) in self.waiting_of(tenant).into_iter().filter(|(_, plan)| !plan.is_own()) {
            self.break_promise(ticket);
            let own = self.own_plan(plan, tenant, factor);
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
            self.plans.released(before, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Decision, LaunchPlan, Offer, Over, Standing, StragglerSettings, Terms};
    use std::num::NonZeroU32;
    use tessera_core::{Bytes, ClassId, OwnerId, PartitionId, Precision, RequestId};

    const SLOW: TenantId = TenantId(0);
    const TENANTS: u64 = 4;

    /// Four tenants on two partitions; who is evicted is tried again after a millisecond.
    struct Bench {
        scheduler: Scheduler,
        now: Moment,
        requests: u64,
    }

    impl Bench {
        fn new() -> Bench {
            let ms = Duration::from_millis(1);
            let stragglers =
                StragglerSettings { after: Duration::ZERO, away: ms, most_away: ms, ..Default::default() };
            let partitions = vec![PartitionId(0), PartitionId(1)];
            let mut scheduler =
                Scheduler::new(Config { stragglers, ..Config::new(Policy::SpaceTime, partitions) });
            for tenant in 0..TENANTS {
                let terms = Terms::best_effort(OwnerId(tenant));
                scheduler.tenant_added(Moment::START, TenantId(tenant), terms);
            }
            Bench { scheduler, now: Moment::START, requests: 0 }
        }

        fn ask(&mut self, tenant: TenantId, allowed: Option<Duration>) -> Ticket {
            let request = RequestId(self.requests);
            self.requests += 1;
            let offer = Offer {
                request,
                tenant,
                plan: PlanKey { class: ClassId([1; 16]), dims: [].into(), precision: Precision::Fp32 },
                items: NonZeroU32::MIN,
                bytes: Bytes(1),
                deadline: allowed.map(|allowed| self.now + allowed),
                batchable: true,
            };
            let admitted = self.scheduler.offer(self.now, &offer).unwrap();
            assert_eq!(admitted.promised, allowed.is_some());
            self.scheduler.queues.ticket(request).unwrap()
        }

        fn launch(&mut self) -> LaunchPlan {
            let decision = self.scheduler.decide(self.now);
            let Decision::Launch(launch) = decision else { panic!("{decision:?} where requests wait") };
            launch
        }

        fn finish(&mut self, launch: &LaunchPlan) {
            let micros = |tenant| if tenant == SLOW { 500 } else { 100 };
            let lane = |tenant| Duration::from_micros(micros(tenant));
            let lanes: Vec<Duration> = launch.lanes.iter().map(|of| lane(of.tenant)).collect();
            let took = lanes.iter().sum();
            self.now = self.now + took;
            let over = Over { took, computed: took, lanes: &lanes, ..Over::default() };
            self.scheduler.finished_by_lane(self.now, launch.id, over);
        }

        /// All tenants share launches until the slow one is evicted.
        fn until_evicted(&mut self) {
            for _ in 0..8 {
                (0..TENANTS).for_each(|tenant| _ = self.ask(TenantId(tenant), None));
                let launch = self.launch();
                assert_eq!(launch.lanes.len() as u64, TENANTS);
                self.finish(&launch);
                if self.scheduler.pace(SLOW).standing == Standing::Apart {
                    return;
                }
            }
            panic!("a tenant five times slower still shares");
        }
    }

    #[test]
    fn what_was_promised_by_itself_is_kept_when_the_tenant_is_evicted_again() {
        let mut bench = Bench::new();
        bench.until_evicted();
        // The last partition, where the slow one belongs while it is apart, is busy for long.
        let [first, long] = [1, 2].map(|tenant| {
            bench.ask(TenantId(tenant), None);
            bench.launch()
        });
        let alone = bench.ask(SLOW, Some(Duration::from_secs(1)));
        bench.finish(&first);
        bench.now = bench.now + Duration::from_millis(2);
        bench.until_evicted();
        let waiting = *bench.scheduler.queues.get(alone).unwrap();
        assert!(waiting.booked.is_some() && waiting.plan.is_own());
        assert!(!bench.scheduler.plans.shared(waiting.plan).is_own());
        bench.finish(&long);
        let launch = bench.launch();
        assert!(launch.lanes.len() == 1 && launch.lanes[0].tenant == SLOW);
        bench.finish(&launch);
        assert!(!bench.scheduler.plans.is_known(waiting.plan), "nothing of the earlier time apart is left");
    }
}
