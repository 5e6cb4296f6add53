//! Requests that wait, under every order in which they are asked for.
//!
//! ```text
//!   request ─▶ ticket ─▶ what is known of it       a ticket is a place in a slab: orders hold tickets, and only the outside says ids
//!   orders:  its tenant's, its plan's by urgency, its owner's (`loose`), its tenant's of its plan (`flows`), by due
//! ```
//! One home for "who waits": a request is put in and taken out here, and its tenant's bounds, its plan's order of urgency, its
//! owner's place in the fair order and its deadline follow. A request with a promise stands in a line instead (`promises`), and not in the
//! orders of those that wait *loose*. One that was launched keeps its ticket until it has ended.

use crate::chain::{Chain, Links};
use crate::fairness::{Owners, VirtualTime};
use crate::flows::Flows;
use crate::forming::Rider;
use crate::loose::{Loose, Whose};
use crate::plans::PlanIx;
use crate::promises::BookingId;
use crate::slab::Slab;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tessera_core::{Bytes, IdMap, Moment, OwnerId, RequestId, TenantId};

/// Names a request from its arrival to its end; used again afterwards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Ticket(pub(crate) u32);

/// A request that waits or runs: two lines of the cache, what a launch reads of it in the first.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Waiting {
    pub(crate) rider: Rider,
    /// When its answer is due; `None` is best effort.
    pub(crate) due: Option<Moment>,
    pub(crate) plan: PlanIx,
    /// Whether it waits no more, but is in a launch.
    pub(crate) runs: bool,
    pub(crate) owner: OwnerId,
    pub(crate) bytes: Bytes,
    pub(crate) arrived: Moment,
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

/// Where a loose request stands: urgency, then arrival. With it is all that a launch must know to seat it: requests lie all over a memory that no cache holds, and
/// orders hold their neighbours together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) urgency: Moment,
    pub(crate) number: u64,
    pub(crate) rider: Rider,
    pub(crate) due: Option<Moment>,
}

impl Key {
    fn place(&self) -> (Moment, u64) {
        (self.urgency, self.number)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl Waiting {
    pub(crate) fn whose(&self) -> Whose {
        Whose { owner: self.owner, plan: self.plan }
    }

    pub(crate) fn key(&self) -> Key {
        let Waiting { urgency, number, rider, due, .. } = *self;
        Key { urgency, number, rider, due }
    }
}

/// The requests of one tenant, in order of arrival.
#[derive(Debug, Default)]
struct OfTenant {
    depth: Depth,
    requests: Chain,
}

/// The loose requests of one plan.
#[derive(Debug, Default)]
struct OfPlan {
    requests: BTreeSet<Key>,
    items: u64,
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    requests: Slab<Waiting>,
    /// Those that wait and those that run.
    tickets: IdMap<RequestId, Ticket>,
    waiting: usize,
    by_tenant: BTreeMap<TenantId, OfTenant>,
    arrived: Links,
    by_plan: BTreeMap<PlanIx, OfPlan>,
    /// The most urgent of each plan.
    firsts: BTreeSet<Key>,
    flows: Flows,
    by_due: BTreeSet<(Moment, RequestId, Ticket)>,
    fair: Loose,
    arrivals: u64,
    /// Launched, and still under the orders: `tidy` takes them out.
    leaving: Vec<Ticket>,
}

impl Queues {
    /// The ticket of the request that is put in next.
    pub(crate) fn next_ticket(&self) -> Ticket {
        Ticket(self.requests.next())
    }

    /// Puts a request in, with the ticket that was said to be next; its number and, of a loose one, its urgency are set here, the latter so that
    /// a tenant's requests of one plan keep their order.
    pub(crate) fn insert(&mut self, mut request: Waiting, owners: &Owners) {
        self.arrivals += 1;
        request.number = self.arrivals;
        let rider = request.rider;
        let of_tenant = self.by_tenant.entry(rider.tenant).or_default();
        of_tenant.depth.requests += 1;
        of_tenant.depth.bytes += request.bytes;
        let last = of_tenant.requests.last();
        self.arrived.insert(&mut of_tenant.requests, rider.ticket, last);
        self.by_due.extend(request.due.map(|due| (due, rider.request, rider.ticket)));
        if request.booked.is_none() {
            self.shelve(&mut request, owners);
        }
        self.waiting += 1;
        self.tickets.insert(rider.request, rider.ticket);
        let place = self.requests.insert(request);
        assert_eq!(place, rider.ticket.0, "a request comes in with the ticket that is next");
    }

    /// A request whose promise is gone waits loose from now on.
    pub(crate) fn loosen(&mut self, ticket: Ticket, urgency: Moment, owners: &Owners) {
        let Some(mut request) = self.get(ticket).copied() else { return };
        if request.booked.take().is_some() {
            request.urgency = urgency;
            self.shelve(&mut request, owners);
            *self.requests.get_mut(ticket.0).expect("it was found above") = request;
        }
    }

    /// A loose request runs as another plan from now on; returns the one before. One with a promise keeps its plan.
    pub(crate) fn change_plan(&mut self, ticket: Ticket, plan: PlanIx, owners: &Owners) -> Option<PlanIx> {
        let mut request = self.get(ticket).copied()?;
        let before = request.plan;
        if request.booked.is_some() || before == plan {
            return None;
        }
        self.unshelve(&request, owners);
        request.plan = plan;
        self.shelve(&mut request, owners);
        *self.requests.get_mut(ticket.0).expect("it was found above") = request;
        Some(before)
    }

    fn shelve(&mut self, request: &mut Waiting, owners: &Owners) {
        let other = |ticket: Ticket| self.requests.get(ticket.0).expect("who is in a flow is known").key();
        self.flows.insert(request, other);
        let key = request.key();
        self.fair.insert(request.whose(), key, owners.standing(request.owner));
        let of_plan = self.by_plan.entry(request.plan).or_default();
        let first = of_plan.requests.first().copied();
        if first.is_none_or(|first| key < first) {
            first.map(|first| self.firsts.remove(&first));
            self.firsts.insert(key);
        }
        of_plan.requests.insert(key);
        of_plan.items += u64::from(request.rider.items.get());
    }

    /// Takes a request out that waits. Its planned launch, if it has a place in one, is the caller's to tell. Nothing may be leaving.
    pub(crate) fn remove(&mut self, ticket: Ticket, owners: &Owners) -> Option<Waiting> {
        self.get(ticket)?;
        self.forget(ticket, owners);
        self.ended(ticket)
    }

    /// Takes a request out to be launched. The orders hear of it in `tidy`: a launch need not wait for a dozen trees to be mended for each of its
    /// requests, they can be while it runs.
    pub(crate) fn launched(&mut self, ticket: Ticket) {
        self.leaving.push(ticket);
    }

    /// Mends the orders. Must come before anything else is asked of them after a launch.
    pub(crate) fn tidy(&mut self, owners: &Owners) {
        let mut leaving = std::mem::take(&mut self.leaving);
        for ticket in leaving.drain(..) {
            self.forget(ticket, owners);
        }
        self.leaving = leaving;
    }

    /// A request that ran, or was taken out, is over: nothing is known of it any more.
    pub(crate) fn ended(&mut self, ticket: Ticket) -> Option<Waiting> {
        let request = self.requests.remove(ticket.0)?;
        self.tickets.remove(&request.rider.request);
        Some(request)
    }

    /// A request waits no more.
    fn forget(&mut self, ticket: Ticket, owners: &Owners) {
        let request = self.requests.get_mut(ticket.0).expect("who waits is known");
        request.runs = true;
        let request = *request;
        let Rider { request: id, tenant, .. } = request.rider;
        self.waiting -= 1;
        let of_tenant = self.by_tenant.get_mut(&tenant).expect("a request is with its tenant's");
        of_tenant.depth.requests -= 1;
        of_tenant.depth.bytes -= request.bytes;
        self.arrived.remove(&mut of_tenant.requests, ticket);
        if of_tenant.requests.is_empty() {
            self.by_tenant.remove(&tenant);
        }
        if let Some(due) = request.due {
            self.by_due.remove(&(due, id, ticket));
        }
        if request.booked.is_none() {
            self.unshelve(&request, owners);
        }
    }

    fn unshelve(&mut self, request: &Waiting, owners: &Owners) {
        let key = request.key();
        self.fair.remove(request.whose(), key, owners.virtual_time(request.owner));
        self.flows.remove(request);
        let of_plan = self.by_plan.get_mut(&request.plan).expect("a loose request is with its plan");
        of_plan.requests.remove(&key);
        of_plan.items -= u64::from(request.rider.items.get());
        if self.firsts.remove(&key) {
            self.firsts.extend(of_plan.requests.first());
        }
        if of_plan.requests.is_empty() {
            self.by_plan.remove(&request.plan);
        }
    }

    /// A request that waits.
    pub(crate) fn get(&self, ticket: Ticket) -> Option<&Waiting> {
        self.requests.get(ticket.0).filter(|request| !request.runs)
    }

    /// The ticket of a request that waits or runs.
    pub(crate) fn ticket(&self, id: RequestId) -> Option<Ticket> {
        self.tickets.get(&id).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting - self.leaving.len()
    }

    pub(crate) fn depth(&self, tenant: TenantId) -> Depth {
        let mut depth = self.by_tenant.get(&tenant).map(|of_tenant| of_tenant.depth).unwrap_or_default();
        for gone in self.leaving.iter().filter_map(|ticket| self.get(*ticket)) {
            if gone.rider.tenant == tenant {
                depth.requests -= 1;
                depth.bytes -= gone.bytes;
            }
        }
        depth
    }

    /// A tenant's requests, in order of arrival.
    pub(crate) fn of_tenant(&self, tenant: TenantId) -> impl Iterator<Item = &Waiting> {
        let chain = self.by_tenant.get(&tenant).map(|of_tenant| of_tenant.requests).unwrap_or_default();
        self.arrived.iter(chain).filter_map(|ticket| self.get(ticket))
    }

    /// Tenants with requests, in order of their ids, from the one after `last` round to `last`.
    pub(crate) fn tenants_after(&self, last: Option<TenantId>) -> impl Iterator<Item = TenantId> {
        let split = last.map_or(TenantId(0), |last| TenantId(last.0 + 1));
        let after = self.by_tenant.range(split..);
        after.chain(self.by_tenant.range(..split)).map(|(tenant, _)| *tenant)
    }

    /// A plan's loose requests, most urgent first.
    pub(crate) fn of_plan(&self, plan: PlanIx) -> impl Iterator<Item = Key> {
        self.by_plan.get(&plan).into_iter().flat_map(|of_plan| &of_plan.requests).copied()
    }

    /// Tenants' loose requests of one plan, in order.
    pub(crate) fn flows(&self) -> &Flows {
        &self.flows
    }

    /// Plans with loose requests and how many items each has waiting.
    pub(crate) fn backlog(&self) -> impl Iterator<Item = (PlanIx, u64)> {
        self.by_plan.iter().map(|(plan, of_plan)| (*plan, of_plan.items))
    }

    /// How urgent the most urgent loose request is.
    pub(crate) fn first_urgency(&self) -> Option<Moment> {
        self.firsts.first().map(|key| key.urgency)
    }

    /// The most urgent loose request of all.
    pub(crate) fn most_urgent(&self) -> Option<&Waiting> {
        self.get(self.firsts.first()?.rider.ticket)
    }

    /// The most urgent loose request of the plans that `of` names; a look at every plan.
    pub(crate) fn most_urgent_of(&self, of: impl Fn(PlanIx) -> bool) -> Option<&Waiting> {
        let firsts = self.by_plan.iter().filter(|(plan, _)| of(**plan));
        let first = firsts.filter_map(|(_, of_plan)| of_plan.requests.first()).min()?;
        self.get(first.rider.ticket)
    }

    /// The loose requests by fairness between owners.
    pub(crate) fn fair(&self) -> &Loose {
        &self.fair
    }

    /// An owner's virtual time moved.
    pub(crate) fn owner_moved(&mut self, owner: OwnerId, from: VirtualTime, to: VirtualTime) {
        self.fair.moved(owner, from, to);
    }

    /// An owner's weight may have changed.
    pub(crate) fn owner_weighed(&mut self, owner: OwnerId, owners: &Owners) {
        self.fair.weighed(owner, owners.standing(owner));
    }

    /// The earliest deadline of anything that waits.
    pub(crate) fn first_due(&self) -> Option<Moment> {
        self.by_due.first().map(|(due, ..)| *due)
    }

    /// The request whose deadline has passed first, if one's has.
    pub(crate) fn overdue(&self, now: Moment) -> Option<Ticket> {
        self.by_due.first().filter(|(due, ..)| *due <= now).map(|(.., ticket)| *ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_at_often_fits_into_lines_of_the_cache() {
        assert_eq!((size_of::<Option<Waiting>>(), size_of::<Option<Key>>()), (128, 64));
    }
}
