//! Requests that wait, under every order in which they are asked for.
//!
//! ```text
//!   request ─▶ ticket ─▶ what is known of it       a ticket is a place in a slab: orders hold tickets, and only the outside says ids
//!   orders of all:   its tenant's, by arrival; by due; its tenant's of its plan (`flows`)
//!   orders of heads: its plan's, by urgency; its owner's (`loose`)         a head stands for its whole flow
//! ```
//! One home for "who waits": a request is put in and taken out here, and its tenant's bounds, its plan's order of urgency, its
//! owner's place in the fair order and its deadline follow. A request with a promise stands in a line instead (`promises`), and not in the
//! orders of those that wait *loose*. One that was launched keeps its ticket until it has ended.
//!
//! Cost: who comes or goes behind the head of its flow costs O(log n) if it is due at some time, and nothing else that grows. A head costs what a change of two orders
//! of f flows costs (`ordered`), and a lane of a launch moves its head once, however many requests it takes.

use crate::chain::{Chain, Links};
use crate::fairness::{Owners, VirtualTime};
use crate::flows::{FlowIx, Flows, Head, Moved, Row};
use crate::heap::{Heap, Places, Ranked};
use crate::loose::Loose;
use crate::ordered::Ordered;
use crate::plans::PlanIx;
use crate::slab::Slab;
use crate::waiting::{Candidate, Rank, Ticket, Waiting};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::Range;
use tessera_core::{Bytes, IdMap, Moment, OwnerId, RequestId, TenantId};

/// What one tenant has waiting.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Depth {
    pub(crate) requests: u32,
    pub(crate) bytes: Bytes,
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
    heads: Ordered<Ranked<Rank, FlowIx>>,
    items: u64,
    /// The one of them that stands for the plan between plans.
    first: Option<Ranked<Rank, FlowIx>>,
}

/// Requests of one tenant and plan that wait no more.
#[derive(Debug)]
struct Leaving {
    flow: (TenantId, PlanIx),
    /// Among all that leave.
    tickets: Range<usize>,
    bytes: Bytes,
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    requests: Slab<Waiting>,
    /// Those that wait and those that run.
    tickets: IdMap<RequestId, Ticket>,
    waiting: usize,
    by_tenant: IdMap<TenantId, OfTenant>,
    /// Those of them in order: the policies that take turns ask for the next.
    tenants: BTreeSet<TenantId>,
    arrived: Links<()>,
    by_plan: BTreeMap<PlanIx, OfPlan>,
    /// The most urgent of each plan.
    firsts: BTreeSet<Ranked<Rank, FlowIx>>,
    flows: Flows,
    by_due: Heap<Moment>,
    due_places: Places,
    fair: Loose,
    arrivals: u64,
    /// Launched, lane by lane, and still under the orders: `tidy` takes them out.
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
        if of_tenant.requests.is_empty() {
            self.tenants.insert(rider.tenant);
        }
        of_tenant.depth.requests += 1;
        of_tenant.depth.bytes += request.bytes;
        match of_tenant.requests.last() {
            Some(last) => self.arrived.insert_behind(&mut of_tenant.requests, last, rider.ticket, ()),
            None => self.arrived.insert_first(&mut of_tenant.requests, rider.ticket, ()),
        }
        if let Some(due) = request.due.moment() {
            self.by_due.insert(&mut self.due_places, Ranked { rank: due, name: rider.ticket });
        }
        self.waiting += 1;
        self.tickets.insert(rider.request, rider.ticket);
        let place = self.requests.insert(request);
        assert_eq!(place, rider.ticket.0, "a request comes in with the ticket that is next");
        if request.booked.is_none() {
            self.shelve(request, owners);
        }
    }

    /// A request whose promise is gone waits loose from now on.
    pub(crate) fn loosen(&mut self, ticket: Ticket, urgency: Moment, owners: &Owners) {
        let Some(mut request) = self.get(ticket).copied() else { return };
        if request.booked.take().is_some() {
            request.urgency = urgency;
            self.shelve(request, owners);
        }
    }

    /// A loose request runs as another plan from now on; returns the one before. One with a promise keeps its plan.
    pub(crate) fn change_plan(&mut self, ticket: Ticket, plan: PlanIx, owners: &Owners) -> Option<PlanIx> {
        let mut request = self.get(ticket).copied()?;
        let before = request.plan;
        if request.booked.is_some() || before == plan {
            return None;
        }
        if let Some(moved) = self.leave_flow(request.flow(), &[ticket]) {
            let moved = self.read_heads(&[moved]);
            self.heads_moved(before, &moved, owners);
        }
        request.plan = plan;
        self.shelve(request, owners);
        Some(before)
    }

    /// A request that is known waits loose from now on, as it is given here.
    fn shelve(&mut self, mut request: Waiting, owners: &Owners) {
        let requests = &self.requests;
        let other = |ticket: Ticket| requests.get(ticket.0).expect("who is in a flow is known").rank();
        let moved = self.flows.insert(&mut request, other);
        let ticket = request.rider.ticket;
        *self.requests.get_mut(ticket.0).expect("who waits is known") = request;
        self.by_plan.entry(request.plan).or_default().items += u64::from(request.rider.items.get());
        if let Some(moved) = moved {
            self.heads_moved(request.plan, &[moved], owners);
        }
    }

    /// Loose requests of a flow are in it no more. Says whether its head is another now, which neither the flow nor the orders of heads know yet.
    fn leave_flow(&mut self, flow: (TenantId, PlanIx), tickets: &[Ticket]) -> Option<Moved<Ticket>> {
        let mut items = 0;
        let requests = &self.requests;
        let loose = tickets.iter().filter(|ticket| {
            let loose = requests.get(ticket.0).filter(|request| request.booked.is_none());
            items += loose.map_or(0, |request| u64::from(request.rider.items.get()));
            loose.is_some()
        });
        let rank = |ticket: Ticket| requests.get(ticket.0).expect("who is in a flow is known").rank();
        let moved = self.flows.remove(flow, loose.copied(), rank);
        if items > 0 {
            self.by_plan.get_mut(&flow.1).expect("a loose request is with its plan").items -= items;
        }
        moved
    }

    /// Flows are told what their new heads are, once all of those were read: each is somewhere else in memory.
    fn read_heads(&mut self, moved: &[Moved<Ticket>]) -> Vec<Moved<Head>> {
        let known = |to: Ticket| Head::from(self.requests.get(to.0).expect("who is in a flow is known"));
        let read = moved.iter().map(|Moved { flow, from, to }| Moved {
            flow: *flow,
            from: *from,
            to: to.map(known),
        });
        let moved: Vec<Moved<Head>> = read.collect();
        for Moved { flow, to, .. } in &moved {
            if let Some(head) = to {
                self.flows.has_head(*flow, *head);
            }
        }
        moved
    }

    /// Heads of flows of a plan were some, and are others: the orders of heads follow. Given in the order in which they stood.
    fn heads_moved(&mut self, plan: PlanIx, moved: &[Moved<Head>], owners: &Owners) {
        let heads = &mut self.by_plan.get_mut(&plan).expect("a loose request is with its plan").heads;
        let left = |moved: &Moved<Head>| Some(Ranked { rank: moved.from?.rank, name: moved.flow });
        // A launch is filled from the front of the order, so those that leave it stand close together.
        let leaving: Vec<Ranked<Rank, FlowIx>> = moved.iter().filter_map(left).collect();
        heads.remove_all(&leaving);
        for Moved { flow, to, .. } in moved {
            if let Some(Head { rank, .. }) = to {
                heads.insert(Ranked { rank: *rank, name: *flow });
            }
        }
        for moved in moved {
            if let Some(shelf) = self.fair.head_moved(plan, *moved, &self.flows, owners) {
                self.flows.shelved(moved.flow, shelf);
            }
        }
        self.list_first(plan);
    }

    /// The first of a plan may be another than it was.
    fn list_first(&mut self, plan: PlanIx) {
        let Some(of_plan) = self.by_plan.get_mut(&plan) else { return };
        let first = of_plan.heads.first();
        if of_plan.first != first {
            of_plan.first.map(|before| self.firsts.remove(&before));
            self.firsts.extend(first);
            of_plan.first = first;
        }
        if first.is_none() {
            self.by_plan.remove(&plan);
        }
    }

    /// Takes a request out that waits. Its planned launch, if it has a place in one, is the caller's to tell. Nothing may be leaving.
    pub(crate) fn remove(&mut self, ticket: Ticket, owners: &Owners) -> Option<Waiting> {
        self.get(ticket)?;
        self.forget(&[ticket], owners);
        self.ended(ticket)
    }

    /// Takes a request out to be launched; those of one lane come one after the other. The orders hear of it in `tidy`: a launch need not wait for them to be mended,
    /// they can be while it runs.
    pub(crate) fn launched(&mut self, ticket: Ticket) {
        self.leaving.push(ticket);
    }

    /// Mends the orders. Must come before anything else is asked of them after a launch.
    pub(crate) fn tidy(&mut self, owners: &Owners) {
        if self.leaving.is_empty() {
            return;
        }
        let mut leaving = std::mem::take(&mut self.leaving);
        self.forget(&leaving, owners);
        leaving.clear();
        self.leaving = leaving;
    }

    /// A request that ran, or was taken out, is over: nothing is known of it any more.
    pub(crate) fn ended(&mut self, ticket: Ticket) -> Option<Waiting> {
        let request = self.requests.remove(ticket.0)?;
        self.tickets.remove(&request.rider.request);
        Some(request)
    }

    /// Requests wait no more. Those of a lane, one behind the other here, are taken out of their flow together.
    ///
    /// Step by step for all of them, not one by one: what each step reads lies all over memory, and reads that wait for nothing but memory wait together.
    fn forget(&mut self, tickets: &[Ticket], owners: &Owners) {
        let runs = tickets.iter().map(|ticket| {
            let request = self.requests.get_mut(ticket.0).expect("who waits is known");
            request.runs = true;
            (request.flow(), request.bytes)
        });
        // All of them before anything is made of one: what a processor guesses wrong of one it finds out when that was read, and begins anew with the next.
        let left: Vec<((TenantId, PlanIx), Bytes)> = runs.collect();
        let mut lanes: Vec<Leaving> = Vec::with_capacity(left.len());
        for (at, (flow, bytes)) in left.into_iter().enumerate() {
            match lanes.last_mut().filter(|lane| lane.flow == flow) {
                Some(lane) => (lane.tickets.end, lane.bytes) = (at + 1, lane.bytes + bytes),
                None => lanes.push(Leaving { flow, tickets: at..at + 1, bytes }),
            }
        }
        self.waiting -= tickets.len();
        for ticket in tickets {
            if self.requests.get(ticket.0).is_some_and(|request| request.due.moment().is_some()) {
                self.by_due.remove(&mut self.due_places, *ticket);
            }
        }
        for Leaving { flow: (tenant, _), tickets: lane, bytes } in &lanes {
            let of_tenant = self.by_tenant.get_mut(tenant).expect("a request is with its tenant's");
            of_tenant.depth.requests -= lane.len() as u32;
            of_tenant.depth.bytes -= *bytes;
            tickets[lane.clone()].iter().for_each(|ticket| {
                self.arrived.remove(&mut of_tenant.requests, *ticket);
            });
            if of_tenant.requests.is_empty() {
                self.by_tenant.remove(tenant);
                self.tenants.remove(tenant);
            }
        }
        // A launch is of one plan.
        for lanes in lanes.chunk_by(|one, next| one.flow.1 == next.flow.1) {
            let left =
                lanes.iter().filter_map(|lane| self.leave_flow(lane.flow, &tickets[lane.tickets.clone()]));
            let mut moved: Vec<Moved<Ticket>> = left.collect();
            // A tenant may have had several lanes: its head was one, and is what the last of them left.
            moved.sort_by_key(|moved| moved.from.map(|stood| stood.rank));
            moved.dedup_by(|later, kept| {
                let same = later.flow == kept.flow;
                if same {
                    kept.to = later.to;
                }
                same
            });
            let moved = self.read_heads(&moved);
            // Those that were promised are in no flow.
            if let Some(lane) = lanes.first().filter(|_| !moved.is_empty()) {
                self.heads_moved(lane.flow.1, &moved, owners);
            }
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
        let after = self.tenants.range(split..);
        after.chain(self.tenants.range(..split)).copied()
    }

    /// A plan's loose requests, most urgent first.
    pub(crate) fn of_plan(&self, plan: PlanIx) -> impl Iterator<Item = Candidate> {
        self.by_plan.get(&plan).into_iter().flat_map(|of_plan| self.row().in_order(of_plan.heads.iter()))
    }

    /// A plan's loose requests by fairness between owners. Each one taken moves its owner, of some weight, on by what `step` says that so many items cost.
    pub(crate) fn of_plan_in_turn<'a>(
        &'a self,
        plan: PlanIx,
        step: impl FnMut(u64, NonZeroU32) -> VirtualTime + 'a,
    ) -> impl Iterator<Item = Candidate> + 'a {
        self.fair.of_plan(plan, self.row(), step)
    }

    fn row(&self) -> Row<'_> {
        Row { requests: &self.requests, flows: &self.flows }
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
        self.firsts.first().map(|first| first.rank.urgency)
    }

    /// The most urgent loose request of all.
    pub(crate) fn most_urgent(&self) -> Option<&Waiting> {
        self.head(self.firsts.first()?.name)
    }

    /// The most urgent loose request of the plans that `of` names; a look at every plan.
    pub(crate) fn most_urgent_of(&self, of: impl Fn(PlanIx) -> bool) -> Option<&Waiting> {
        let firsts = self.by_plan.iter().filter(|(plan, _)| of(**plan));
        let first = firsts.filter_map(|(_, of_plan)| of_plan.heads.first()).min()?;
        self.head(first.name)
    }

    fn head(&self, flow: FlowIx) -> Option<&Waiting> {
        self.get(self.flows.head(flow)?.rider.ticket)
    }

    /// Owners in turn.
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
        self.by_due.first().map(|first| first.rank)
    }

    /// The request whose deadline has passed first, if one's has.
    pub(crate) fn overdue(&self, now: Moment) -> Option<Ticket> {
        self.by_due.first().filter(|first| first.rank <= now).map(|first| first.name)
    }
}

#[cfg(test)]
mod tests;
