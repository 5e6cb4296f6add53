//! Requests that wait, under every order in which they are asked for.
//!
//! One home for "who waits": a request is put in and taken out here, and its tenant's bounds, its plan's order of urgency, its
//! owner's place in the fair order and its deadline follow.

use crate::fairness::Owners;
use crate::forming::Rider;
use crate::loose::{Loose, Whose};
use crate::plans::PlanIx;
use std::collections::{BTreeMap, BTreeSet};
use tessera_core::{Bytes, IdMap, Moment, RequestId, TenantId};

/// A request that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) whose: Whose,
    pub(crate) rider: Rider,
    pub(crate) bytes: Bytes,
    pub(crate) arrived: Moment,
    /// When its answer is due; `None` is best effort.
    pub(crate) due: Option<Moment>,
    /// When it should start at the latest; of best effort, when its patience ends.
    pub(crate) urgency: Moment,
    /// Order of arrival.
    pub(crate) number: u64,
}

/// What one tenant has waiting.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Depth {
    pub(crate) requests: u32,
    pub(crate) bytes: Bytes,
}

type Key = (Moment, u64, RequestId);

/// Everything that waits.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    waiting: IdMap<RequestId, Waiting>,
    depths: BTreeMap<TenantId, Depth>,
    by_tenant: BTreeMap<TenantId, BTreeSet<(u64, RequestId)>>,
    by_plan: BTreeMap<PlanIx, BTreeSet<Key>>,
    items_of_plan: BTreeMap<PlanIx, u64>,
    by_due: BTreeSet<(Moment, RequestId)>,
    fair: Loose,
    arrivals: u64,
}

impl Queues {
    /// Puts a request in; its number and urgency are set here, the latter so that a tenant's requests of one plan keep their order.
    pub(crate) fn insert(&mut self, mut request: Waiting, owners: &Owners) {
        self.arrivals += 1;
        request.number = self.arrivals;
        let id = request.rider.request;
        let v = owners.virtual_time(request.whose.owner);
        request.urgency = self.fair.insert(request.whose, (request.urgency, request.number, id), v);
        let depth = self.depths.entry(request.whose.tenant).or_default();
        depth.requests += 1;
        depth.bytes += request.bytes;
        self.by_tenant.entry(request.whose.tenant).or_default().insert((request.number, id));
        self.by_plan.entry(request.whose.plan).or_default().insert((request.urgency, request.number, id));
        *self.items_of_plan.entry(request.whose.plan).or_default() += u64::from(request.rider.items.get());
        self.by_due.extend(request.due.map(|due| (due, id)));
        self.waiting.insert(id, request);
    }

    /// Takes a request out.
    pub(crate) fn remove(&mut self, id: RequestId, owners: &Owners) -> Option<Waiting> {
        let request = self.waiting.remove(&id)?;
        let (tenant, plan) = (request.whose.tenant, request.whose.plan);
        let key = (request.urgency, request.number, id);
        self.fair.remove(request.whose, key, owners.virtual_time(request.whose.owner));
        if let Some(depth) = self.depths.get_mut(&tenant) {
            depth.requests -= 1;
            depth.bytes -= request.bytes;
            if depth.requests == 0 {
                self.depths.remove(&tenant);
            }
        }
        remove_from(&mut self.by_tenant, &tenant, &(request.number, id));
        remove_from(&mut self.by_plan, &plan, &key);
        if let Some(items) = self.items_of_plan.get_mut(&plan) {
            *items -= u64::from(request.rider.items.get());
        }
        if let Some(due) = request.due {
            self.by_due.remove(&(due, id));
        }
        Some(request)
    }

    pub(crate) fn get(&self, id: RequestId) -> Option<&Waiting> {
        self.waiting.get(&id)
    }

    pub(crate) fn contains(&self, id: RequestId) -> bool {
        self.waiting.contains_key(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn depth(&self, tenant: TenantId) -> Depth {
        self.depths.get(&tenant).copied().unwrap_or_default()
    }

    /// A tenant's requests, in order of arrival.
    pub(crate) fn of_tenant(&self, tenant: TenantId) -> impl Iterator<Item = &Waiting> {
        self.by_tenant.get(&tenant).into_iter().flatten().map(|(_, id)| &self.waiting[id])
    }

    /// Tenants with requests, in order of their ids, from the one after `last` round to `last`.
    pub(crate) fn tenants_after(&self, last: Option<TenantId>) -> impl Iterator<Item = TenantId> {
        let split = last.map_or(TenantId(0), |last| TenantId(last.0 + 1));
        let after = self.by_tenant.range(split..);
        after.chain(self.by_tenant.range(..split)).map(|(tenant, _)| *tenant)
    }

    /// A plan's requests, most urgent first.
    pub(crate) fn of_plan(&self, plan: PlanIx) -> impl Iterator<Item = &Waiting> {
        self.by_plan.get(&plan).into_iter().flatten().map(|(_, _, id)| &self.waiting[id])
    }

    /// Plans with requests and how many items each has waiting.
    pub(crate) fn backlog(&self) -> impl Iterator<Item = (PlanIx, u64)> {
        self.by_plan.keys().map(|plan| (*plan, self.items_of_plan.get(plan).copied().unwrap_or(0)))
    }

    /// The most urgent request of all.
    pub(crate) fn most_urgent(&self) -> Option<&Waiting> {
        let first = self.by_plan.values().filter_map(|set| set.first()).min()?;
        self.waiting.get(&first.2)
    }

    /// The requests by fairness between owners.
    pub(crate) fn fair(&self) -> &Loose {
        &self.fair
    }

    /// An owner's virtual time moved.
    pub(crate) fn owner_moved(&mut self, whose: tessera_core::OwnerId, from: u128, to: u128) {
        self.fair.moved(whose, from, to);
    }

    /// The earliest deadline of anything that waits.
    pub(crate) fn first_due(&self) -> Option<Moment> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// The request whose deadline has passed first, if one's has.
    pub(crate) fn overdue(&self, now: Moment) -> Option<RequestId> {
        self.by_due.first().filter(|(due, _)| *due <= now).map(|(_, id)| *id)
    }
}

/// Takes a member out of one of many sets, and the set out when it was the last.
fn remove_from<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, member: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(member);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
