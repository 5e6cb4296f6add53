//! Plans by number: a `PlanKey` is 40 bytes behind a pointer, and every decision compares plans many times.

use crate::cost::Size;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::{IdMap, Moment, PlanKey};

use crate::cost::{CostTable, Costs};
use std::sync::Arc;

/// What a launch is taken for that was never measured and whose work nobody told.
const UNKNOWN: Duration = Duration::from_millis(10);

/// A plan the scheduler has heard of. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct PlanIx(pub(crate) u32);

/// The plans heard of, and what each costs.
#[derive(Debug)]
pub(crate) struct Plans {
    /// A tree: one plan or a few are mostly found without reading more of a key than its class.
    numbers: BTreeMap<PlanKey, PlanIx>,
    plans: IdMap<PlanIx, Plan>,
    next: u32,
    pub(crate) costs: Costs,
    given: Option<Arc<dyn CostTable>>,
    /// Units of the largest partition.
    whole: NonZeroU32,
}

#[derive(Debug)]
struct Plan {
    key: PlanKey,
    /// Requests queued or in flight: a plan in use is not forgotten.
    uses: u64,
    probed_at: Option<Moment>,
}

impl Plans {
    pub(crate) fn new(costs: Costs, given: Option<Arc<dyn CostTable>>, whole: NonZeroU32) -> Plans {
        Plans { numbers: BTreeMap::new(), plans: IdMap::default(), next: 0, costs, given, whole }
    }

    /// The plan's number, a new one when it was never heard of.
    pub(crate) fn number(&mut self, key: &PlanKey) -> PlanIx {
        if let Some(&known) = self.numbers.get(key) {
            return known;
        }
        let plan = PlanIx(self.next);
        self.next += 1;
        self.numbers.insert(key.clone(), plan);
        self.plans.insert(plan, Plan { key: key.clone(), uses: 0, probed_at: None });
        plan
    }

    pub(crate) fn key(&self, plan: PlanIx) -> &PlanKey {
        &self.plan(plan).key
    }

    pub(crate) fn used(&mut self, plan: PlanIx) {
        self.plan_mut(plan).uses += 1;
    }

    pub(crate) fn released(&mut self, plan: PlanIx) {
        self.plan_mut(plan).uses -= 1;
    }

    /// Drops what is known of a plan, unless a request of it is queued or in flight.
    pub(crate) fn forget(&mut self, key: &PlanKey) -> bool {
        match self.numbers.get(key) {
            Some(&plan) if self.plan(plan).uses == 0 => {
                self.numbers.remove(key);
                self.plans.remove(&plan);
                self.costs.forget(plan);
                true
            }
            Some(_) => false,
            None => true,
        }
    }

    /// How long a launch takes on the largest partition: as given, else as learnt, else by estimate.
    pub(crate) fn predict(&self, plan: PlanIx, size: Size) -> Option<Duration> {
        self.predict_on(self.whole, plan, size)
    }

    /// How long a launch takes on a partition of so many units.
    pub(crate) fn predict_on(&self, units: NonZeroU32, plan: PlanIx, size: Size) -> Option<Duration> {
        let share = f64::from(units.get()) / f64::from(self.whole.get());
        let given = self.given.as_ref().and_then(|table| table.on_share(self.key(plan), size, share));
        given.or_else(|| self.costs.predict(plan, size, units))
    }

    /// How long a launch takes on a partition of so many units, with a guess where nothing is known: what a line of promises counts.
    pub(crate) fn cost_on(&self, units: NonZeroU32, plan: PlanIx, size: Size) -> Duration {
        self.predict_on(units, plan, size).unwrap_or(UNKNOWN)
    }

    /// Whether the plan's cost is more than an estimate, so that a request may be refused for it.
    pub(crate) fn is_measured(&self, plan: PlanIx) -> bool {
        let one = Size { lanes: 1, items: 1 };
        self.costs.measured_at(plan).is_some()
            || self.given.as_ref().is_some_and(|table| table.cost(self.key(plan), one).is_some())
    }

    /// What a launch of this size takes, however that is known.
    pub(crate) fn predicted(&self, key: &PlanKey, size: Size) -> Option<Duration> {
        self.predict(*self.numbers.get(key)?, size)
    }

    /// What one item takes alone, where that was measured or is given.
    pub(crate) fn alone(&self, key: &PlanKey) -> Option<Duration> {
        let plan = *self.numbers.get(key)?;
        self.is_measured(plan).then(|| self.predict(plan, Size { lanes: 1, items: 1 }))?
    }

    /// Whether a request that seems too slow should go in to measure the plan again; true at most once in
    /// `after`, and never for costs that are given.
    pub(crate) fn probe(&mut self, plan: PlanIx, now: Moment, after: Duration) -> bool {
        let Some(measured) = self.costs.measured_at(plan) else { return false };
        let last = self.plan(plan).probed_at.map_or(measured, |probed| probed.max(measured));
        let due = now.since(last) >= after;
        if due {
            self.plan_mut(plan).probed_at = Some(now);
        }
        due
    }

    fn plan(&self, plan: PlanIx) -> &Plan {
        self.plans.get(&plan).expect("a plan in use is kept")
    }

    fn plan_mut(&mut self, plan: PlanIx) -> &mut Plan {
        self.plans.get_mut(&plan).expect("a plan in use is kept")
    }
}
