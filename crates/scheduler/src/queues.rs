//! Requests that wait, under every order in which they are asked for.
//!
//! One home for "who waits": a request is put in and taken out here, and its tenant's bounds, its plan's order of urgency, its
//! owner's place in the fair order and its deadline follow. A request with a promise stands in a line instead (`promises`), and not in the
//! orders of those that wait *loose*.

use crate::fairness::Owners;
use crate::forming::Rider;
use crate::loose::{Loose, Whose};
use crate::plans::PlanIx;
use crate::promises::BookingId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
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
    /// The planned launch that it has a place in; `None` for one that waits loose.
    pub(crate) booked: Option<BookingId>,
    /// Device time that was counted for its owner in advance.
    pub(crate) committed: Duration,
}

/// What one tenant has waiting.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Depth {
    pub(crate) requests: u32,
    pub(crate) bytes: Bytes,
}

type Key = (Moment, u64, RequestId);

/// The loose requests of one plan.
#[derive(Debug, Default)]
struct OfPlan {
    requests: BTreeSet<Key>,
    items: u64,
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    waiting: IdMap<RequestId, Waiting>,
    depths: IdMap<TenantId, Depth>,
    by_tenant: BTreeMap<TenantId, BTreeSet<(u64, RequestId)>>,
    by_urgency: BTreeSet<Key>,
    by_plan: BTreeMap<PlanIx, OfPlan>,
    by_due: BTreeSet<(Moment, RequestId)>,
    fair: Loose,
    arrivals: u64,
    /// Launched, and still under the orders: `tidy` takes them out.
    leaving: Vec<Waiting>,
}

impl Queues {
    /// Puts a request in; its number and, of a loose one, its urgency are set here, the latter so that a tenant's requests of one plan keep their
    /// order.
    pub(crate) fn insert(&mut self, mut request: Waiting, owners: &Owners) {
        self.arrivals += 1;
        request.number = self.arrivals;
        let id = request.rider.request;
        let depth = self.depths.entry(request.whose.tenant).or_default();
        depth.requests += 1;
        depth.bytes += request.bytes;
        self.by_tenant.entry(request.whose.tenant).or_default().insert((request.number, id));
        self.by_due.extend(request.due.map(|due| (due, id)));
        if request.booked.is_none() {
            self.shelve(&mut request, owners);
        }
        self.waiting.insert(id, request);
    }

    /// A request whose promise is gone waits loose from now on.
    pub(crate) fn loosen(&mut self, id: RequestId, urgency: Moment, owners: &Owners) {
        let Some(mut request) = self.waiting.remove(&id) else { return };
        if request.booked.take().is_some() {
            request.urgency = urgency;
            self.shelve(&mut request, owners);
        }
        self.waiting.insert(id, request);
    }

    fn shelve(&mut self, request: &mut Waiting, owners: &Owners) {
        let id = request.rider.request;
        let v = owners.virtual_time(request.whose.owner);
        request.urgency = self.fair.insert(request.whose, (request.urgency, request.number, id), v);
        let key = (request.urgency, request.number, id);
        self.by_urgency.insert(key);
        let of_plan = self.by_plan.entry(request.whose.plan).or_default();
        of_plan.requests.insert(key);
        of_plan.items += u64::from(request.rider.items.get());
    }

    /// Takes a request out. Its planned launch, if it has a place in one, is the caller's to tell. Nothing may be leaving.
    pub(crate) fn remove(&mut self, id: RequestId, owners: &Owners) -> Option<Waiting> {
        let request = self.waiting.remove(&id)?;
        self.forget(&request, owners);
        Some(request)
    }

    /// Takes a request out to be launched. The orders hear of it in `tidy`: a launch need not wait for a dozen trees to be mended for each of its
    /// requests, they can be while it runs.
    pub(crate) fn launched(&mut self, id: RequestId) -> Option<&Waiting> {
        let request = self.waiting.remove(&id)?;
        self.leaving.push(request);
        self.leaving.last()
    }

    /// Mends the orders. Must come before anything else is asked of them after a launch.
    pub(crate) fn tidy(&mut self, owners: &Owners) {
        let mut leaving = std::mem::take(&mut self.leaving);
        leaving.drain(..).for_each(|request| self.forget(&request, owners));
        self.leaving = leaving;
    }

    fn forget(&mut self, request: &Waiting, owners: &Owners) {
        let (id, tenant) = (request.rider.request, request.whose.tenant);
        if let Some(depth) = self.depths.get_mut(&tenant) {
            depth.requests -= 1;
            depth.bytes -= request.bytes;
            if depth.requests == 0 {
                self.depths.remove(&tenant);
            }
        }
        if let Some(requests) = self.by_tenant.get_mut(&tenant) {
            requests.remove(&(request.number, id));
            if requests.is_empty() {
                self.by_tenant.remove(&tenant);
            }
        }
        if let Some(due) = request.due {
            self.by_due.remove(&(due, id));
        }
        if request.booked.is_none() {
            self.unshelve(request, owners);
        }
    }

    fn unshelve(&mut self, request: &Waiting, owners: &Owners) {
        let key = (request.urgency, request.number, request.rider.request);
        self.fair.remove(request.whose, key, owners.virtual_time(request.whose.owner));
        self.by_urgency.remove(&key);
        let of_plan = self.by_plan.get_mut(&request.whose.plan).expect("a loose request is with its plan");
        of_plan.requests.remove(&key);
        of_plan.items -= u64::from(request.rider.items.get());
        if of_plan.requests.is_empty() {
            self.by_plan.remove(&request.whose.plan);
        }
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
        let mut depth = self.depths.get(&tenant).copied().unwrap_or_default();
        for gone in self.leaving.iter().filter(|gone| gone.whose.tenant == tenant) {
            depth.requests -= 1;
            depth.bytes -= gone.bytes;
        }
        depth
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

    /// A plan's loose requests, most urgent first.
    pub(crate) fn of_plan(&self, plan: PlanIx) -> impl Iterator<Item = &Waiting> {
        let of_plan = self.by_plan.get(&plan).into_iter().flat_map(|of_plan| &of_plan.requests);
        of_plan.map(|(_, _, id)| &self.waiting[id])
    }

    /// Plans with loose requests and how many items each has waiting.
    pub(crate) fn backlog(&self) -> impl Iterator<Item = (PlanIx, u64)> {
        self.by_plan.iter().map(|(plan, of_plan)| (*plan, of_plan.items))
    }

    /// The most urgent loose request of all.
    pub(crate) fn most_urgent(&self) -> Option<&Waiting> {
        self.waiting.get(&self.by_urgency.first()?.2)
    }

    /// The most urgent loose request of the plans that `of` names; a look at every plan.
    pub(crate) fn most_urgent_of(&self, of: impl Fn(PlanIx) -> bool) -> Option<&Waiting> {
        let firsts = self.by_plan.iter().filter(|(plan, _)| of(**plan));
        let first = firsts.filter_map(|(_, of_plan)| of_plan.requests.first()).min()?;
        self.waiting.get(&first.2)
    }

    /// The loose requests by fairness between owners.
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
