//! The scheduler's state, and what its calls do to it.

use crate::config::Config;
use crate::cost::{ALONE_PERCENTILE, Costs, Foretold, Kin, PlanWork, PredictionError, Size};
use crate::event::{Event, Events};
use crate::fairness::Owners;
use crate::forming::Rider;
use crate::launch::Decision;
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
