//! Virtual time: a scheduler driven by seeded arrivals against a device that takes exactly as long as a cost function says.
//!
//! ```text
//!   arrivals ─▶ offer ─▶ decide ─▶ [partition: busy until …] ─▶ finished ─▶ Outcome per request
//! ```
//! Nothing waits: a day of traffic takes as long as its decisions. Scenario tests run on it, and the `simulate` command will.

use crate::{Config, CostTable, Decision, LaunchPlan, Offer, Refusal, Scheduler, Size, Terms};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tessera_core::{LaunchId, Moment, RequestId, TenantId};

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Answered at this moment, in a launch of so many lanes.
    Answered {
        /// When.
        at: Moment,
        /// Lanes of its launch.
        lanes: u32,
    },
    /// Not let in.
    Refused(Refusal),
    /// Its deadline passed while it waited.
    Expired(Moment),
}

/// A scheduler, a device of exact speed, and the time between them.
#[derive(Debug)]
pub struct Simulation<C> {
    /// The scheduler under test.
    pub scheduler: Scheduler,
    costs: C,
    now: Moment,
    running: BTreeSet<(Moment, LaunchId)>,
    launches: BTreeMap<LaunchId, (LaunchPlan, Duration)>,
    outcomes: BTreeMap<RequestId, Outcome>,
    /// Every launch in the order of its start.
    pub history: Vec<(Moment, LaunchPlan)>,
}

impl<C: CostTable> Simulation<C> {
    /// Time starts at zero. `costs` must know every plan that is offered.
    pub fn new(config: Config, costs: C) -> Simulation<C> {
        Simulation {
            scheduler: Scheduler::new(config),
            costs,
            now: Moment::START,
            running: BTreeSet::new(),
            launches: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    /// Adds a tenant now.
    pub fn tenant(&mut self, tenant: TenantId, terms: Terms) {
        self.scheduler.tenant_added(self.now, tenant, terms);
    }

    /// Offers a request at a moment that is not before the last one.
    pub fn offer(&mut self, at: Moment, offer: &Offer) {
        self.advance(at);
        let request = offer.request;
        if let Err(refusal) = self.scheduler.offer(self.now, offer) {
            self.outcomes.insert(request, Outcome::Refused(refusal));
        }
        self.decide();
    }

    /// Runs until nothing waits and nothing runs, and says what became of every request.
    pub fn finish(mut self) -> (BTreeMap<RequestId, Outcome>, Vec<(Moment, LaunchPlan)>) {
        while let Some(next) = self.next_event() {
            self.advance(next);
        }
        (self.outcomes, self.history)
    }

    fn next_event(&mut self) -> Option<Moment> {
        let finish = self.running.first().map(|(at, _)| *at);
        let wake = match self.scheduler.decide(self.now) {
            Decision::SleepUntil(at) => Some(at.max(self.now + Duration::from_nanos(1))),
            Decision::Launch(launch) => {
                self.start(launch);
                return self.next_event();
            }
            Decision::Idle => None,
        };
        [finish, wake].into_iter().flatten().min()
    }

    /// Lets time pass, with everything that happens on the way.
    fn advance(&mut self, to: Moment) {
        while let Some(&(at, id)) = self.running.first().filter(|(at, _)| *at <= to) {
            self.running.remove(&(at, id));
            self.now = self.now.max(at);
            self.expire();
            let (launch, took) = self.launches.remove(&id).expect("a running launch is known");
            for request in launch.requests() {
                self.outcomes.insert(request, Outcome::Answered { at, lanes: launch.lanes.len() as u32 });
            }
            self.scheduler.finished(self.now, id, took, took);
            self.decide();
        }
        self.now = self.now.max(to);
        self.expire();
        self.decide();
    }

    fn expire(&mut self) {
        for request in self.scheduler.expire(self.now) {
            self.outcomes.insert(request, Outcome::Expired(self.now));
        }
    }

    fn decide(&mut self) {
        while let Decision::Launch(launch) = self.scheduler.decide(self.now) {
            self.start(launch);
        }
    }

    fn start(&mut self, launch: LaunchPlan) {
        let size = Size { lanes: launch.lanes.len() as u32, items: launch.items() };
        let took = self.costs.cost(&launch.plan, size).unwrap_or(Duration::from_millis(1));
        self.running.insert((self.now + took, launch.id));
        self.history.push((self.now, launch.clone()));
        self.launches.insert(launch.id, (launch, took));
    }
}
