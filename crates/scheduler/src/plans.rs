//! Plans by number: a `PlanKey` is 40 bytes behind a pointer, and every decision compares plans many times.
//!
//! A tenant that shares with nobody (`stragglers`) has a number of its own for each plan that it runs. Launches carry one number and costs belong to numbers, so it
//! neither shares nor is predicted by what others take.

use crate::cost::{Company, CostTable, Costs, ONE, Size};
use crate::segments::Segments;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tessera_core::{IdMap, Moment, PlanKey, TenantId};

/// What a launch is taken for that was never measured and whose work nobody told.
const UNKNOWN: Duration = Duration::from_millis(10);

/// A plan the scheduler has heard of. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct PlanIx(pub(crate) u32);

impl PlanIx {
    /// Marks numbers that are one tenant's own.
    const OWN: u32 = 1 << 31;

    /// Whether it is one tenant's own number, whom nobody shares with.
    pub(crate) fn is_own(self) -> bool {
        self.0 & PlanIx::OWN != 0
    }
}

/// The plans heard of, and what each costs.
#[derive(Debug)]
pub(crate) struct Plans {
    /// A tree: one plan or a few are mostly found without reading more of a key than its class.
    numbers: BTreeMap<PlanKey, PlanIx>,
    plans: IdMap<PlanIx, Plan>,
    /// Numbers that are one tenant's own, by the shared ones.
    own: BTreeMap<(TenantId, PlanIx), PlanIx>,
    next: u32,
    pub(crate) costs: Costs,
    /// How long the segments of launches are, on devices that yield.
    pub(crate) segments: Segments,
    given: Option<Arc<dyn CostTable>>,
    /// Units of the largest partition.
    whole: NonZeroU32,
}

#[derive(Debug)]
struct Plan {
    key: PlanKey,
    /// Requests queued or in flight, and tenants' own numbers for it: a plan in use is not forgotten.
    uses: u64,
    probed_at: Option<Moment>,
    /// The number that others share, and whose this one is, if it is one tenant's own.
    of: Option<(PlanIx, TenantId)>,
}

impl Plans {
    pub(crate) fn new(costs: Costs, given: Option<Arc<dyn CostTable>>, whole: NonZeroU32) -> Plans {
        Plans {
            numbers: BTreeMap::new(),
            plans: IdMap::default(),
            own: BTreeMap::new(),
            next: 0,
            costs,
            segments: Segments::default(),
            given,
            whole,
        }
    }

    /// The plan's number, a new one when it was never heard of.
    pub(crate) fn number(&mut self, key: &PlanKey) -> PlanIx {
        if let Some(&known) = self.numbers.get(key) {
            return known;
        }
        let plan = self.insert(key.clone(), None);
        self.numbers.insert(key.clone(), plan);
        plan
    }

    /// The plan's number, if it was heard of.
    pub(crate) fn known(&self, key: &PlanKey) -> Option<PlanIx> {
        self.numbers.get(key).copied()
    }

    fn insert(&mut self, key: PlanKey, of: Option<(PlanIx, TenantId)>) -> PlanIx {
        let plan = PlanIx(self.next | if of.is_some() { PlanIx::OWN } else { 0 });
        self.next += 1;
        self.plans.insert(plan, Plan { key, uses: 0, probed_at: None, of });
        plan
    }

    /// A tenant's own number for a plan; a new one is taken to cost `factor` times what the shared one does.
    pub(crate) fn own(&mut self, shared: PlanIx, tenant: TenantId, factor: f64) -> PlanIx {
        if let Some(&own) = self.own.get(&(tenant, shared)) {
            return own;
        }
        let own = self.insert(self.key(shared).clone(), Some((shared, tenant)));
        self.own.insert((tenant, shared), own);
        // While it is there, so is the shared one.
        self.used(shared);
        self.costs.known_by(own, shared, factor);
        self.segments.known_by(own, shared, factor);
        own
    }

    /// Whether any tenant has numbers of its own.
    pub(crate) fn any_own(&self) -> bool {
        !self.own.is_empty()
    }

    /// The number that others share: of a tenant's own number the one that it stands for, of others themselves.
    pub(crate) fn shared(&self, plan: PlanIx) -> PlanIx {
        self.plan(plan).of.map_or(plan, |(shared, _)| shared)
    }

    /// A tenant needs no numbers of its own any more; those in use go when they are not.
    pub(crate) fn retire_own(&mut self, tenant: TenantId) {
        let of = (tenant, PlanIx(0))..=(tenant, PlanIx(u32::MAX));
        let own: Vec<_> = self.own.range(of).map(|(key, own)| (*key, *own)).collect();
        self.retire(own);
    }

    fn retire(&mut self, own: Vec<((TenantId, PlanIx), PlanIx)>) {
        for (key, own) in own {
            self.own.remove(&key);
            self.drop_if_retired(own);
        }
    }

    fn drop_if_retired(&mut self, plan: PlanIx) {
        let Plan { uses: 0, of: Some((shared, tenant)), .. } = *self.plan(plan) else { return };
        if self.own.get(&(tenant, shared)) != Some(&plan) {
            self.plans.remove(&plan);
            self.costs.forget(plan);
            self.segments.forget(plan);
            self.released(shared, 1);
        }
    }

    /// Whether the number still stands for a plan: those that were dropped, and tenants' own that were retired, do not.
    pub(crate) fn is_known(&self, plan: PlanIx) -> bool {
        self.plans.contains_key(&plan)
    }

    pub(crate) fn key(&self, plan: PlanIx) -> &PlanKey {
        &self.plan(plan).key
    }

    pub(crate) fn used(&mut self, plan: PlanIx) {
        self.plan_mut(plan).uses += 1;
    }

    /// So many requests of it are over.
    pub(crate) fn released(&mut self, plan: PlanIx, uses: u64) {
        self.plan_mut(plan).uses -= uses;
        self.drop_if_retired(plan);
    }

    /// Drops what is known of a plan and says which number it had, unless a request of it is queued or in flight.
    pub(crate) fn forget(&mut self, key: &PlanKey) -> Option<PlanIx> {
        let plan = *self.numbers.get(key)?;
        // Who is apart has its own number for a plan whether it asks for it or not.
        let idle = |((_, shared), own): &(&(TenantId, PlanIx), &PlanIx)| {
            *shared == plan && self.plan(**own).uses == 0
        };
        let idle: Vec<_> = self.own.iter().filter(idle).map(|(key, own)| (*key, *own)).collect();
        self.retire(idle);
        if self.plan(plan).uses > 0 {
            return None;
        }
        self.numbers.remove(key);
        self.plans.remove(&plan);
        self.costs.forget(plan);
        self.segments.forget(plan);
        Some(plan)
    }

    /// How long a launch takes on the largest partition: as given, else as learnt, else by estimate.
    pub(crate) fn predict(&self, plan: PlanIx, size: Size) -> Option<Duration> {
        self.predict_on(self.whole, plan, size)
    }

    /// How long a launch takes on a partition of so many units.
    pub(crate) fn predict_on(&self, units: NonZeroU32, plan: PlanIx, size: Size) -> Option<Duration> {
        self.given(units, plan, size).or_else(|| self.costs.predict(plan, size, units))
    }

    /// The same of one that goes now, in this company.
    pub(crate) fn predict_in(
        &self,
        company: Company,
        units: NonZeroU32,
        plan: PlanIx,
        size: Size,
    ) -> Option<Duration> {
        self.given(units, plan, size).or_else(|| self.costs.predict_in(company, plan, size, units))
    }

    fn given(&self, units: NonZeroU32, plan: PlanIx, size: Size) -> Option<Duration> {
        let share = f64::from(units.get()) / f64::from(self.whole.get());
        // A table knows plans, and nothing of a tenant unlike the others.
        let given = self.given.as_ref().filter(|_| !plan.is_own());
        given.and_then(|table| table.on_share(self.key(plan), size, share))
    }

    /// How long a launch takes on a partition of so many units, with a guess where nothing is known: what a line of promises counts.
    pub(crate) fn cost_on(&self, units: NonZeroU32, plan: PlanIx, size: Size) -> Duration {
        let bound = || self.costs.bound(plan, size, units);
        self.given(units, plan, size).or_else(bound).unwrap_or(UNKNOWN)
    }

    /// The same of one beside which nothing runs on its units.
    pub(crate) fn cost_alone(&self, units: NonZeroU32, plan: PlanIx, size: Size) -> Duration {
        self.predict_in(Company::Alone, units, plan, size).unwrap_or(UNKNOWN)
    }

    /// The longest segment of a launch on a partition of so many units: as given, else as learnt (`segments`).
    pub(crate) fn segment_on(&self, units: NonZeroU32, plan: PlanIx, size: Size) -> Option<Duration> {
        let share = f64::from(units.get()) / f64::from(self.whole.get());
        let given = self.given.as_ref().filter(|_| !plan.is_own());
        let given = given.and_then(|table| table.segment(self.key(plan), size, share));
        given.or_else(|| self.segments.longest(plan, size, units))
    }

    /// Whether the plan's cost is more than an estimate, so that a request may be refused for it.
    pub(crate) fn is_measured(&self, plan: PlanIx) -> bool {
        let one = Size { lanes: 1, items: 1 };
        self.costs.measured_at(plan).is_some()
            || self.given.as_ref().is_some_and(|table| table.cost(self.key(plan), one).is_some())
    }

    /// What a launch of this size takes, however that is known.
    pub(crate) fn predicted(&self, key: &PlanKey, size: Size) -> Option<Duration> {
        self.predict(self.known(key)?, size)
    }

    /// What one item takes alone, at the 99th percentile where it was measured, or as given.
    pub(crate) fn alone(&self, key: &PlanKey) -> Option<Duration> {
        let plan = self.known(key)?;
        let given = self.given(self.whole, plan, ONE);
        given.or_else(|| self.is_measured(plan).then(|| self.costs.alone(plan))?)
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
