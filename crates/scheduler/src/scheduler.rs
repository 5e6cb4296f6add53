//! The scheduler's state, and what its calls do to it.

use crate::bills::Bills;
use crate::config::Config;
use crate::cost::{
    ALONE_PERCENTILE, Company, Costs, Foretold, Kin, Measured, PlanWork, PredictionError, Size,
};
use crate::event::{Event, Events};
use crate::fairness::Owners;
use crate::forming::Rider;
use crate::launch::{Decision, Over, Timed};
use crate::layout::{Lines, Partition};
use crate::offer::{Admitted, Cancelled, Offer, Refusal, Terms, Verdict};
use crate::plans::{PlanIx, Plans};
use crate::promises::Promises;
use crate::queues::Queues;
use crate::recycle::Health;
use crate::space::Space;
use crate::stragglers::{Pace, Stragglers};
use crate::waiting::{Ticket, Waiting};
use crate::way::Way;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tessera_core::{IdMap, LaunchId, Moment, OwnerId, PlanKey, Policy, RequestId, TenantId};

/// Who waits, what runs, what things cost. See the crate's text.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: Config,
    pub(crate) tenants: BTreeMap<TenantId, Terms>,
    pub(crate) owners: Owners,
    pub(crate) plans: Plans,
    pub(crate) queues: Queues,
    pub(crate) promises: Promises,
    pub(crate) events: Events,
    pub(crate) stragglers: Stragglers,
    pub(crate) health: Health,
    pub(crate) way: Way,
    /// What launches take besides computing where that is part of their cost.
    pub(crate) around: Way,
    pub(crate) in_flight: IdMap<LaunchId, InFlight>,
    /// The launches of each line; oldest first.
    pub(crate) running: Vec<VecDeque<LaunchId>>,
    /// Those of each line that go before them.
    pub(crate) urgent: Vec<VecDeque<LaunchId>>,
    pub(crate) launches: u64,
    /// Whose turn it was last, for the policies that take turns.
    pub(crate) last_tenant: Option<TenantId>,
    pub(crate) space: Space,
}

/// A launch that runs.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) plan: PlanIx,
    pub(crate) size: Size,
    pub(crate) line: usize,
    /// The tightest of the dues that were promised in it.
    pub(crate) due: Option<Moment>,
    pub(crate) predicted: Option<Duration>,
    /// When it was handed over.
    pub(crate) handed: Moment,
    /// Whether nothing else ran on its partition then.
    pub(crate) alone: bool,
    /// Whether anything ran on another partition meanwhile, where those share the device's units.
    pub(crate) beside: bool,
    /// When it could begin: those before it were over, and its way in was done. `None` while they are not.
    pub(crate) begun: Option<Moment>,
    /// What it goes before, if it is urgent.
    pub(crate) interrupts: Option<LaunchId>,
    /// Beyond what it is predicted to take: for urgent ones that went before it, as counted while they are not over; of an urgent one for the segment
    /// that it waits for.
    pub(crate) delayed: Duration,
    /// How long urgent ones computed between its segments.
    pub(crate) stood_back: Duration,
    pub(crate) lanes: Vec<LaneAboard>,
    /// Lane by lane.
    pub(crate) requests: Vec<Ticket>,
}

/// One tenant's place in a launch that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneAboard {
    pub(crate) tenant: TenantId,
    pub(crate) requests: usize,
    pub(crate) items: u32,
}

/// A launch that is over.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) launch: InFlight,
    /// For how long its partition was taken, urgent ones between its segments apart.
    pub(crate) took: Duration,
    /// What it computed, those apart.
    pub(crate) computed: Duration,
    /// What it cost by itself, on a device that tells and copies beside its kernels.
    pub(crate) cost: Option<Duration>,
}

impl InFlight {
    /// Predicted time to its end.
    pub(crate) fn left(&self, now: Moment) -> Duration {
        let begun = self.begun.unwrap_or(now);
        let takes = self.predicted.unwrap_or_default() + self.delayed;
        (begun.since(now) + takes).saturating_sub(now.since(begun))
    }

    /// Whether a tenant has a lane in it.
    pub(crate) fn carries(&self, tenant: TenantId) -> bool {
        self.lanes.iter().any(|lane| lane.tenant == tenant)
    }
}

impl Scheduler {
    /// A scheduler with nobody to serve yet. `config.layouts` must not be empty, nor any of them.
    pub fn new(config: Config) -> Scheduler {
        let lines = Lines::new(&config.layouts);
        let most = Size { lanes: config.max_lanes.get(), items: config.max_items.get() };
        Scheduler {
            tenants: BTreeMap::new(),
            owners: Owners::default(),
            plans: Plans::new(
                Costs::new(config.cost, most, lines.most_units()),
                config.given_costs.clone(),
                lines.most_units(),
            ),
            queues: Queues::default(),
            events: Events::default(),
            stragglers: Stragglers::default(),
            health: Health::new(lines.count()),
            way: Way::default(),
            around: Way::default(),
            promises: Promises::new(lines.count()),
            in_flight: IdMap::default(),
            running: vec![VecDeque::new(); lines.count()],
            urgent: vec![VecDeque::new(); lines.count()],
            launches: 0,
            last_tenant: None,
            space: Space::new(lines, config.dwell, config.overlap),
            config,
        }
    }

    /// From now on requests of the tenant may be offered. A tenant added again has its terms replaced.
    pub fn tenant_added(&mut self, _now: Moment, tenant: TenantId, terms: Terms) {
        if let Some(before) = self.tenants.insert(tenant, terms)
            && before.owner != terms.owner
        {
            self.owners.tenant_removed(before.owner, tenant);
            self.queues.owner_weighed(before.owner, &self.owners);
        }
        self.owners.tenant_added(terms.owner, tenant, terms.share);
        self.queues.owner_weighed(terms.owner, &self.owners);
    }

    /// From now on they may not. Returns the requests that waited: the caller answers them. Those in flight still finish.
    pub fn tenant_removed(&mut self, _now: Moment, tenant: TenantId) -> Vec<RequestId> {
        self.queues.tidy(&self.owners);
        let waiting: Vec<Rider> = self.queues.of_tenant(tenant).map(|waiting| waiting.rider).collect();
        for rider in &waiting {
            self.leave(rider.ticket);
        }
        self.events.forget(tenant);
        self.stragglers.forget(tenant);
        self.plans.retire_own(tenant);
        if let Some(terms) = self.tenants.remove(&tenant) {
            self.owners.tenant_removed(terms.owner, tenant);
            self.queues.owner_weighed(terms.owner, &self.owners);
        }
        waiting.into_iter().map(|rider| rider.request).collect()
    }

    /// What one launch of the plan has to do: the first guess at its cost.
    pub fn plan_known(&mut self, plan: &PlanKey, work: PlanWork) {
        let number = self.plans.number(plan);
        self.plans.costs.plan_known(number, Kin::of(plan), work);
    }

    /// The plan is not wanted any more; what was learnt of it goes, unless requests of it wait or run.
    pub fn plan_dropped(&mut self, plan: &PlanKey) {
        if let Some(number) = self.plans.forget(plan) {
            self.stragglers.forget_plan(number);
            self.health.forget_plan(number);
        }
    }

    /// From now on decisions are made under another policy; what waits, runs and was learnt stays. Promises end: they hold under the policy
    /// that gave them.
    pub fn set_policy(&mut self, policy: Policy, tenant_batching: bool) {
        self.queues.tidy(&self.owners);
        // In order of ids: those that wait in a hash table have none of their own, and what is decided must not depend on it.
        let mut riders: Vec<Rider> = self
            .promises
            .clear()
            .into_iter()
            .filter_map(|ticket| self.queues.get(ticket))
            .map(|waiting| waiting.rider)
            .collect();
        riders.sort_unstable_by_key(|rider| rider.request);
        for rider in riders {
            self.loosen(rider.ticket);
        }
        for tenant in self.stragglers.pardon() {
            self.rejoin(tenant);
        }
        (self.config.policy, self.config.tenant_batching) = (policy, tenant_batching);
        if policy != Policy::SpaceTime {
            self.first_layout();
        }
    }

    /// Lets a request in, or says why not.
    pub fn offer(&mut self, now: Moment, offer: &Offer) -> Result<Admitted, Refusal> {
        self.queues.tidy(&self.owners);
        let answer = self.admit(now, offer);
        if let (Err(refusal), Some(terms)) = (&answer, self.tenants.get(&offer.tenant)) {
            self.events.refused(now, offer.tenant, terms.owner, refusal.clone());
        }
        answer
    }

    /// Nobody wants the answer any more.
    pub fn cancel(&mut self, _now: Moment, request: RequestId) -> Cancelled {
        self.queues.tidy(&self.owners);
        match self.queues.ticket(request) {
            None => Cancelled::Unknown,
            Some(ticket) if self.leave(ticket) => Cancelled::Queued,
            Some(_) => Cancelled::InFlight,
        }
    }

    /// The requests whose deadlines have passed while they waited: they are out, and the caller answers them.
    pub fn expire(&mut self, now: Moment) -> Vec<RequestId> {
        self.queues.tidy(&self.owners);
        let mut expired = Vec::new();
        while let Some(waiting) = self.queues.overdue(now).and_then(|ticket| self.queues.get(ticket)).copied()
        {
            let Rider { request, ticket, tenant, .. } = waiting.rider;
            self.note_late(&waiting);
            self.events.expired(now, tenant);
            self.leave(ticket);
            expired.push(request);
        }
        expired
    }

    /// What happened that whoever runs the server should hear of, in order of time, and how many such events were lost because nobody took them. Refusals
    /// of one reason are gathered for a second: [`Scheduler::next_event`] says when those are due that no other call will bring.
    pub fn take_events(&mut self, now: Moment) -> (Vec<Event>, u64) {
        self.events.take(now)
    }

    /// When [`Scheduler::take_events`] will have something that it has not yet.
    pub fn next_event(&self) -> Option<Moment> {
        self.events.next()
    }

    /// What to do now; call again after every launch until it says something else.
    pub fn decide(&mut self, now: Moment) -> Decision {
        self.queues.tidy(&self.owners);
        self.next(now)
    }

    /// A launch that was decided on has not run: its device would not take it, or was lost with it. Makes room on its partition; nothing is learnt or charged.
    pub fn not_run(&mut self, now: Moment, launch: LaunchId) {
        self.queues.tidy(&self.owners);
        let Some(launch_over) = self.in_flight.remove(&launch) else { return };
        self.make_room(now, launch, &launch_over, Duration::ZERO);
        let mut bills = Bills::default();
        for ticket in launch_over.requests {
            let request = self.queues.ended(ticket).expect("a request is known until its launch is over");
            bills.add(&request, Duration::ZERO);
        }
        self.charge(launch_over.plan, bills);
    }

    /// A launch is over, however its requests fared: `took` since it was handed over, `computed` on the device. Makes room on its partition, learns from it,
    /// charges the owners in it by items. The time that it waited behind others counts for them, not for it.
    pub fn finished(&mut self, now: Moment, launch: LaunchId, took: Duration, computed: Duration) {
        self.finished_by_lane(now, launch, Over { took, computed, ..Over::default() });
    }

    /// The same of a launch whose lanes were measured, in their order: owners are charged by what their lanes took, and a tenant that is slow beside its neighbours
    /// for long is set apart (`stragglers`). Says what the launch took by the measure that predictions have; `None` of one that does not run.
    pub fn finished_by_lane(&mut self, now: Moment, launch: LaunchId, over: Over<'_>) -> Option<Timed> {
        self.queues.tidy(&self.owners);
        let Ended { launch, took, computed, cost } = self.ended(now, launch, over)?;
        let lanes = over.lanes;
        let ordinary = self.judge(now, &launch, computed, lanes);
        let work: Duration = lanes.iter().sum();
        let measured = lanes.len() == launch.lanes.len() && !work.is_zero();
        let alone = if computed.is_zero() { took } else { computed };
        self.watch_partition(now, &launch, alone);
        let whole = Measured {
            at: now,
            units: self.units(launch.line),
            company: Company::of(launch.beside),
            others: self.space.lines().others(self.space.lines().layout_of(launch.line)),
            took: cost.unwrap_or(took).mul_f64(ordinary),
            predicted: launch.predicted,
            first: launch.alone,
        };
        // What an urgent one waited for is not its cost, and is not told apart where it does not tell what it computed.
        if launch.interrupts.is_none() || !computed.is_zero() {
            self.plans.costs.learn(launch.plan, launch.size, whole);
        }
        let weight = self.space.lines().weight(launch.line);
        let lane_of = launch.lanes.iter().enumerate();
        let lane_of = lane_of.flat_map(|(number, lane)| std::iter::repeat_n(number, lane.requests));
        let mut bills = Bills::default();
        for (ticket, lane) in launch.requests.into_iter().zip(lane_of) {
            let ended = self.queues.ended(ticket).expect("a request is known until its launch is over");
            if ended.due.moment().is_some_and(|due| due < now) {
                self.note_late(&ended);
            }
            let items = ended.rider.items;
            let part = if measured {
                let of_lane = f64::from(items.get()) / f64::from(launch.lanes[lane].items.max(1));
                took.mul_f64(lanes[lane].as_secs_f64() / work.as_secs_f64() * of_lane)
            } else {
                took * items.get() / launch.size.items.max(1)
            };
            bills.add(&ended, part.mul_f64(weight));
        }
        self.charge(launch.plan, bills);
        let took = cost.map_or(took, |computed| computed + self.plans.costs.pause(launch.plan));
        Some(Timed { took, predicted: launch.predicted, stood_back: launch.stood_back })
    }

    /// A launch is not in flight any more, and the next on its partition begins.
    pub(crate) fn ended(&mut self, now: Moment, id: LaunchId, over: Over<'_>) -> Option<Ended> {
        let launch = self.in_flight.remove(&id)?;
        let stood_back = launch.stood_back;
        let took = over.took.saturating_sub(stood_back);
        let computed = over.computed.saturating_sub(stood_back);
        let cost = self.learn_way(now, &launch, took, computed);
        if let Some(longest) = over.longest_segment {
            let units = self.units(launch.line);
            self.plans.segments.learn(launch.plan, launch.size, units, longest);
        }
        // Two launches of a partition may be heard of at once: then the second seems to have begun just now.
        let took = launch.begun.map_or(took, |begun| took.min(now.since(begun).saturating_sub(stood_back)));
        let took = cost.filter(|_| launch.interrupts.is_some()).unwrap_or(took.max(computed));
        self.make_room(now, id, &launch, computed);
        Some(Ended { took, launch, computed, cost })
    }

    /// A launch is off its partition: the next one begins, or what it went before goes on.
    fn make_room(&mut self, now: Moment, id: LaunchId, launch: &InFlight, computed: Duration) {
        let line = launch.line;
        match launch.interrupts {
            None => self.running[line].retain(|other| *other != id),
            Some(interrupted) => {
                self.urgent[line].retain(|other| *other != id);
                self.goes_on(now, launch, interrupted, computed);
            }
        }
        let way = self.way();
        if let Some(next) = self.urgent[line].front().and_then(|next| self.in_flight.get_mut(next)) {
            next.begun = next.begun.or(Some(now));
        }
        let urgent = self.urgent_left(now, line);
        if let Some(next) = self.running[line].front().and_then(|next| self.in_flight.get_mut(next)) {
            let begins = now.max(next.handed + way) + urgent;
            next.begun = Some(next.begun.map_or(begins, |begun| begun.min(begins)));
        }
    }

    /// How many launches a partition has.
    pub(crate) fn load(&self, line: usize) -> usize {
        self.running[line].len() + self.urgent[line].len()
    }

    /// Predicted time until a launch that is handed to a partition now begins: when those before it are over, urgent ones with what they delay, and not before
    /// its way in is done.
    pub(crate) fn work_before(&self, now: Moment, line: usize) -> Duration {
        let before: Duration = self.running[line].iter().map(|launch| self.in_flight[launch].left(now)).sum();
        (before.max(self.urgent_left(now, line)) + self.express_booked(line)).max(self.way())
    }

    /// How long before its turn a launch is to be handed over: twice the way, as those before it are over earlier than the high percentile that they are
    /// predicted by, and a device that waits for inputs loses more than a launch that others could still have joined.
    pub(crate) fn way_ahead(&self) -> Duration {
        self.way.known().map_or(self.config.lead, |way| 2 * way)
    }

    /// What a launch takes besides computing, on an idle device that tells how long it computed.
    pub(crate) fn way(&self) -> Duration {
        self.way.known().unwrap_or_default()
    }

    /// Learns what lay around a launch of a device that copies beside its kernels, and says what it cost by itself; `None` where the device does not, or does
    /// not tell: then its cost is all that its partition was taken for.
    fn learn_way(
        &mut self,
        now: Moment,
        launch: &InFlight,
        took: Duration,
        computed: Duration,
    ) -> Option<Duration> {
        if computed.is_zero() {
            return None;
        }
        if launch.interrupts.is_some() {
            // Besides computing it mostly waited for the end of a segment: what others take besides stands for its own.
            return Some(computed + self.around.known().unwrap_or_default());
        }
        if self.config.lead.is_zero() {
            if launch.alone && launch.stood_back.is_zero() {
                self.around.note(took.saturating_sub(computed));
            }
            return None;
        }
        let over = launch.begun.map(|begun| now.since(begun).saturating_sub(launch.stood_back));
        if launch.alone {
            self.way.note(took.saturating_sub(computed));
        } else if let Some(over) = over {
            self.plans.costs.between(launch.plan, over, computed);
        }
        Some(computed)
    }

    /// Takes a waiting request out for good.
    fn leave(&mut self, ticket: Ticket) -> bool {
        let Some(waiting) = self.queues.remove(ticket, &self.owners) else { return false };
        self.unbook(&waiting);
        self.owners.settle(waiting.owner, waiting.committed);
        self.owners.work_left(waiting.owner, 1);
        self.plans.released(waiting.plan, 1);
        true
    }

    /// Takes a request out of its planned launch; it waits on without a promise.
    pub(crate) fn break_promise(&mut self, ticket: Ticket) {
        let Some(waiting) = self.queues.get(ticket).copied() else { return };
        self.unbook(&waiting);
        self.loosen(ticket);
    }

    /// The planned launch that a request has a place in goes without it.
    fn unbook(&mut self, waiting: &Waiting) {
        let Some(booking) = waiting.booked else { return };
        let Some(line) = self.promises.get(booking).map(|booking| booking.line) else { return };
        let (limits, units, segment) =
            (self.limits(), self.units(self.promises.beside(line)), self.stands_back(line));
        let cost = |size, _| segment + self.plans.cost_on(units, waiting.plan, size);
        self.promises.leave(booking, waiting.rider, limits, cost);
    }

    /// A request whose promise is gone waits on as one without. It stays as urgent as its due makes it.
    pub(crate) fn loosen(&mut self, ticket: Ticket) {
        let Some(waiting) = self.queues.get(ticket) else { return };
        let urgency = waiting.urgency;
        self.queues.loosen(ticket, urgency, &self.owners);
    }

    /// Requests that wait, of all tenants.
    pub fn queued(&self) -> usize {
        self.queues.len()
    }

    /// Requests of one tenant that wait.
    pub fn queued_of(&self, tenant: TenantId) -> u32 {
        self.queues.depth(tenant).requests
    }

    /// Launches that run.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The partitions of the layout in force: where promises are made. Launches begin there once those of the layout before are over.
    pub fn layout(&self) -> &[Partition] {
        self.space.in_force()
    }

    /// How far launches were from their predictions.
    pub fn prediction_error(&self) -> PredictionError {
        self.plans.costs.prediction_error()
    }

    /// The same of launches that were over at a moment or later, as far as they are remembered (some tens of thousands), and so many of those that were furthest off, worst
    /// first, each with its plan's name where that is still known.
    pub fn predictions_since(
        &self,
        moment: Moment,
        furthest: usize,
    ) -> (PredictionError, Vec<(Option<PlanKey>, Foretold)>) {
        let (error, furthest) = self.plans.costs.predictions_since(moment, furthest);
        let named = |launch: Foretold| {
            let known = self.plans.is_known(launch.plan);
            (known.then(|| self.plans.key(launch.plan).clone()), launch)
        };
        (error, furthest.into_iter().map(named).collect())
    }

    /// Whether a tenant's answers can be in time at all: what one item of a plan takes alone on an idle device, at the 99th percentile of the last launches, against
    /// its SLO. `None` where the tenant has no SLO or nothing of the plan was measured.
    pub fn verdict(&self, tenant: TenantId, plan: &PlanKey) -> Option<Verdict> {
        let Terms { slo, percentile, .. } = *self.tenants.get(&tenant)?;
        let (slo, alone) = (slo?, self.plans.alone(plan)?);
        Some(Verdict {
            alone,
            alone_percentile: ALONE_PERCENTILE,
            slo,
            percentile,
            margin: self.config.margin,
        })
    }

    /// What a launch of this size would take on an idle device, measured or guessed. `None` for plans that were never announced.
    pub fn predicted(&self, plan: &PlanKey, size: Size) -> Option<Duration> {
        self.plans.predicted(plan, size)
    }

    /// How a tenant's lanes compare with its neighbours', and whether it shares launches.
    pub fn pace(&self, tenant: TenantId) -> Pace {
        self.stragglers.pace(tenant)
    }

    /// Device time charged to an owner since it last had neither tenants nor work.
    pub fn served(&self, owner: OwnerId) -> Duration {
        self.owners.served(owner)
    }
}
