//! What runs next.
//!
//! `space-time`: the most urgent request leads, and its plan's other requests fill the launch, most urgent first, while the
//! predicted time keeps the tightest deadline in it. Urgency is slack: a deadline less the cost of one lane. A best-effort
//! request becomes as urgent as if it were due to start when its patience ends, so none waits for ever: only requests that
//! arrived before that moment can go before it.
//!
//! When the most urgent request is past its latest start the backlog cannot be met, and slack would serve whoever shouts
//! loudest. Then owners go first that have had the least device time for their share (`fairness`), and a launch is filled
//! from the owners in turn.
//!
//! `time`, `exclusive` and `space` launch one tenant at a time: the paper's baselines, with the same queues and costs.

use crate::cost::Size;
use crate::forming::{Forming, Limits};
use crate::launch::{Decision, LaunchPlan};
use crate::plans::PlanIx;
use crate::queues::Waiting;
use crate::scheduler::{InFlight, Scheduler};
use std::time::Duration;
use tessera_core::{LaunchId, Moment, PartitionId, Policy, TenantId};

impl Scheduler {
    pub(crate) fn next(&mut self, now: Moment) -> Decision {
        let formed = match self.config.policy {
            Policy::SpaceTime => self.space_time(now),
            Policy::Time | Policy::Exclusive => self.in_turn(now),
            Policy::Space => self.side_by_side(),
        };
        match formed {
            Formed::Launch(launch, partition) => Decision::Launch(self.start(now, launch, partition)),
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

    fn space_time(&self, now: Moment) -> Formed {
        let Some(partition) = self.least_loaded() else { return Formed::Nothing };
        let Some(urgent) = self.queues.most_urgent() else { return Formed::Nothing };
        let limits = self.limits();
        let before = self.work_before(now, partition);
        // Fewer than there are lanes cannot fill a launch: not worth forming one on every arrival while its turn is far.
        if before > self.config.lead && self.queues.len() < limits.max_lanes as usize {
            return Formed::Wait(now + before - self.config.lead);
        }
        let overloaded = urgent.urgency < now;
        let leader = if overloaded { self.queues.fair().next() } else { None };
        let leader = leader.and_then(|id| self.queues.get(id)).unwrap_or(urgent);
        let plan = leader.whose.plan;
        let launch = if overloaded {
            let step = |owner, id| {
                let cost =
                    self.queues.get(id).and_then(|w| self.plans.predict(plan, Size::one_lane(w.rider.items)));
                self.owners.distance(owner, cost.unwrap_or_default())
            };
            let fair = self.queues.fair().of_plan(plan, step).filter_map(|id| self.queues.get(id));
            self.fill(now + before, plan, fair, limits)
        } else {
            self.fill(now + before, plan, self.queues.of_plan(plan), limits)
        };
        // Its turn is not near, and others may join it until then.
        if before > self.config.lead && !launch.has_all_lanes(limits) {
            return Formed::Wait(now + before - self.config.lead);
        }
        // Company may still come: wait for it as long as slack allows, but never with a full launch.
        let until = (leader.arrived + self.config.max_wait).min(urgent.urgency);
        if now < until && !launch.is_full(limits) {
            return Formed::Wait(until);
        }
        Formed::Launch(launch, partition)
    }

    /// Seats requests of a plan in order while the launch keeps the tightest deadline in it. The first one always goes: whatever it
    /// leads, it leads alone if it must.
    fn fill<'a>(
        &self,
        now: Moment,
        plan: PlanIx,
        candidates: impl Iterator<Item = &'a Waiting>,
        limits: Limits,
    ) -> Forming {
        let mut launch = Forming::new(plan);
        let mut tightest: Option<Moment> = None;
        let mut passed_over: Vec<TenantId> = Vec::new();
        for waiting in candidates {
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
            let due = [tightest, waiting.due].into_iter().flatten().min();
            // A deadline that is lost already binds nobody.
            let kept = |due: Moment| {
                let cost = self.plans.predict(plan, size);
                cost.is_none_or(|cost| now + cost <= due) || self.is_lost(now, plan, due)
            };
            if !launch.is_empty() && !due.is_none_or(kept) {
                break;
            }
            launch.add(waiting.rider, seat, limits);
            tightest = due;
        }
        launch
    }

    fn is_lost(&self, now: Moment, plan: PlanIx, due: Moment) -> bool {
        let one = Size { lanes: 1, items: 1 };
        self.plans.predict(plan, one).is_some_and(|cost| now + cost > due)
    }

    /// `time` and `exclusive`: launches that compute one after the other, tenants in turn or one until its queue is empty.
    fn in_turn(&mut self, now: Moment) -> Formed {
        if self.in_flight.len() >= self.config.ahead.get() as usize {
            return Formed::Nothing;
        }
        let same = self.last_tenant.filter(|tenant| self.queues.depth(*tenant).requests > 0);
        let keeps = self.config.policy == Policy::Exclusive;
        let next = same.filter(|_| keeps).or_else(|| self.queues.tenants_after(self.last_tenant).next());
        let Some(tenant) = next else { return Formed::Nothing };
        let partition = self.config.partitions[0];
        let Some(launch) = self.of_one(tenant) else { return Formed::Nothing };
        // Its turn is not near, and its tenant's next requests may join it until then.
        let before = self.work_before(now, partition);
        if before > self.config.lead && !launch.is_full(self.limits()) {
            return Formed::Wait(now + before - self.config.lead);
        }
        self.last_tenant = Some(tenant);
        Formed::Launch(launch, partition)
    }

    /// `space`: every tenant launches by itself, one launch each.
    fn side_by_side(&mut self) -> Formed {
        if self.in_flight.len() >= self.config.max_concurrent.get() as usize {
            return Formed::Nothing;
        }
        let running =
            |tenant: &TenantId| self.in_flight.values().any(|launch| launch.tenants.contains(tenant));
        let Some(tenant) = self.queues.tenants_after(self.last_tenant).find(|tenant| !running(tenant)) else {
            return Formed::Nothing;
        };
        self.last_tenant = Some(tenant);
        let load =
            |id: &PartitionId| self.in_flight.values().filter(|launch| launch.partition == *id).count();
        let partition = self.config.partitions.iter().copied().min_by_key(load);
        match self.of_one(tenant) {
            Some(launch) => Formed::Launch(launch, partition.unwrap_or(self.config.partitions[0])),
            None => Formed::Nothing,
        }
    }

    /// A launch of one tenant: its oldest request and what may share its lane.
    fn of_one(&self, tenant: TenantId) -> Option<Forming> {
        let limits = self.limits();
        let first = self.queues.of_tenant(tenant).next()?;
        let mut launch = Forming::new(first.whose.plan);
        for waiting in self.queues.of_tenant(tenant).filter(|waiting| waiting.whose.plan == first.whose.plan)
        {
            match launch.seat(waiting.rider, limits) {
                Some((seat, _)) => launch.add(waiting.rider, seat, limits),
                None => break,
            }
        }
        Some(launch)
    }

    /// The partition with the fewest launches, if it may have one more.
    fn least_loaded(&self) -> Option<PartitionId> {
        let load = |id: &PartitionId| self.on(*id).count();
        let least = self.config.partitions.iter().copied().min_by_key(load)?;
        (load(&least) < self.config.ahead.get() as usize).then_some(least)
    }

    /// Predicted time until a launch that is handed to a partition now begins.
    fn work_before(&self, now: Moment, partition: PartitionId) -> Duration {
        self.on(partition).map(|launch| launch.left(now)).sum()
    }

    fn start(&mut self, now: Moment, launch: Forming, partition: PartitionId) -> LaunchPlan {
        let id = LaunchId(self.launches);
        self.launches += 1;
        let (plan, size) = (launch.plan, launch.size());
        let predicted = self.plans.predict(plan, size);
        let begun = self.on(partition).next().is_none().then_some(now);
        let mut in_flight =
            InFlight { plan, size, partition, predicted, begun, tenants: Vec::new(), requests: Vec::new() };
        for request in launch.requests() {
            let waiting =
                self.queues.remove(request, &self.owners).expect("a launch is formed of what waits");
            self.in_flight_requests.insert(request, id);
            in_flight.requests.push((request, waiting.whose.owner, waiting.rider.items));
        }
        let lanes = launch.into_lanes();
        in_flight.tenants = lanes.iter().map(|lane| lane.tenant).collect();
        self.in_flight.insert(id, in_flight);
        LaunchPlan { id, plan: self.plans.key(plan).clone(), partition, lanes, predicted }
    }
}

/// What there is to do.
enum Formed {
    Launch(Forming, PartitionId),
    /// For company, at most until then.
    Wait(Moment),
    Nothing,
}
