//! One tenant's loose requests of one plan, in the order in which they are launched.
//!
//! ```text
//!   (tenant, plan) ─▶ head ◀─▶ ● ◀─▶ ●        as urgent as the one before, or less
//!                      └▶ stands in the orders of those that wait, for all behind it
//! ```
//! A tenant's later request of a plan is never more urgent than its earlier, so every order of those that wait holds the requests of a flow as the flow
//! does. The orders need the head alone, then: they are as large as there are tenants that wait, however much each has waiting, and who comes or goes behind a head
//! is no matter of theirs. Whoever asks an order for more than heads gets the next of a flow from here ([`InOrder`]), and so does a lane that takes more of its
//! tenant's requests.

use crate::chain::{Chain, Links};
use crate::heap::Ranked;
use crate::loose::ShelfIx;
use crate::ordered::{self, Ordered};
use crate::plans::PlanIx;
use crate::read_ahead::{AT_ONCE, ReadAhead};
use crate::slab::Slab;
use crate::waiting::{Candidate, Rank, Ticket, Waiting};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use tessera_core::{IdMap, OwnerId, TenantId};

/// Names a flow while any request is in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct FlowIx(u32);

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    names: IdMap<(TenantId, PlanIx), FlowIx>,
    flows: Slab<Flow>,
    /// A link says how the request stands that it leads to.
    links: Links<Rank>,
}

/// A flow, with all that a launch must know of its head: a line of the cache.
#[derive(Debug)]
#[repr(C, align(64))]
struct Flow {
    requests: Chain,
    /// Where its owner keeps the head (`loose`).
    shelf: ShelfIx,
    /// The head's.
    owner: OwnerId,
    head: Candidate,
}

/// The first request of a flow, as the orders of heads know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) rank: Rank,
    pub(crate) owner: OwnerId,
    candidate: Candidate,
}

impl From<&Waiting> for Head {
    fn from(request: &Waiting) -> Head {
        Head { rank: request.rank(), owner: request.owner, candidate: request.candidate() }
    }
}

/// The head of a flow was one request, and is another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved<T> {
    pub(crate) flow: FlowIx,
    /// `None` of a flow that was not there.
    pub(crate) from: Option<Stood>,
    /// `None` of a flow that is over.
    pub(crate) to: Option<T>,
}

/// Where a head stood.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stood {
    pub(crate) owner: OwnerId,
    pub(crate) shelf: ShelfIx,
    pub(crate) rank: Rank,
}

impl Flows {
    /// The head: a tenant's first request of a plan.
    pub(crate) fn first(&self, flow: (TenantId, PlanIx)) -> Option<Ticket> {
        self.head(*self.names.get(&flow)?).map(|head| head.rider.ticket)
    }

    /// The head of a flow.
    pub(crate) fn head(&self, flow: FlowIx) -> Option<Candidate> {
        self.flows.get(flow.0).map(|flow| flow.head)
    }

    /// The request behind one that is in a flow.
    pub(crate) fn behind(&self, ticket: Ticket) -> Option<Ticket> {
        self.links.behind(ticket).map(|(behind, _)| behind)
    }

    /// The same, and how it stands.
    fn ranked_behind(&self, ticket: Ticket) -> Option<Ranked<Rank>> {
        self.links.behind(ticket).map(|(name, rank)| Ranked { rank, name })
    }

    /// Puts a request into its flow, and makes it no more urgent than the last there. It goes to the end, but before those that are as urgent and came later: a
    /// promise that was broken brings back one that came long ago. `rank` is where another stands. Says whether it is the head.
    pub(crate) fn insert(
        &mut self,
        request: &mut Waiting,
        rank: impl Fn(Ticket) -> Rank,
    ) -> Option<Moved<Head>> {
        let ticket = request.rider.ticket;
        let Some(name) = self.names.get(&request.flow()).copied() else {
            let mut requests = Chain::default();
            self.links.insert_first(&mut requests, ticket, Rank::default());
            let head = Head::from(&*request);
            let Head { owner, candidate, .. } = head;
            let flow = Flow { requests, shelf: ShelfIx::default(), owner, head: candidate };
            let flow = FlowIx(self.flows.insert(flow));
            self.names.insert(request.flow(), flow);
            return Some(Moved { flow, from: None, to: Some(head) });
        };
        let flow = self.flows.get_mut(name.0).expect("a flow with a name is there");
        let mut before = flow.requests.last();
        if let Some(last) = before {
            request.urgency = request.urgency.max(rank(last).urgency);
        }
        while let Some(later) = before.filter(|other| rank(*other) > request.rank()) {
            before = self.links.before(later);
        }
        if let Some(before) = before {
            self.links.insert_behind(&mut flow.requests, before, ticket, request.rank());
            return None;
        }
        let was_first = flow.requests.first().map(rank).unwrap_or_default();
        self.links.insert_first(&mut flow.requests, ticket, was_first);
        let from = Some(Stood { owner: flow.owner, shelf: flow.shelf, rank: was_first });
        let head = Head::from(&*request);
        self.has_head(name, head);
        Some(Moved { flow: name, from, to: Some(head) })
    }

    /// Takes requests out of their flow. Says whether the head was among them; who is head now is then to be told to [`Flows::has_head`]. `rank` is where
    /// one of them stands.
    pub(crate) fn remove(
        &mut self,
        flow: (TenantId, PlanIx),
        requests: impl Iterator<Item = Ticket>,
        rank: impl Fn(Ticket) -> Rank,
    ) -> Option<Moved<Ticket>> {
        let name = *self.names.get(&flow)?;
        let Flow { requests: chain, owner, shelf, head } = self.flows.get_mut(name.0)?;
        requests.for_each(|ticket| self.links.remove(chain, ticket));
        let to = chain.first();
        if to == Some(head.rider.ticket) {
            return None;
        }
        let from = Some(Stood { owner: *owner, shelf: *shelf, rank: rank(head.rider.ticket) });
        if to.is_none() {
            self.names.remove(&flow);
            self.flows.remove(name.0);
        }
        Some(Moved { flow: name, from, to })
    }

    /// What is known of the request that is head now.
    pub(crate) fn has_head(&mut self, flow: FlowIx, head: Head) {
        if let Some(flow) = self.flows.get_mut(flow.0) {
            (flow.owner, flow.head) = (head.owner, head.candidate);
        }
    }

    /// The head of a flow has its place on a shelf.
    pub(crate) fn shelved(&mut self, flow: FlowIx, shelf: ShelfIx) {
        if let Some(flow) = self.flows.get_mut(flow.0) {
            flow.shelf = shelf;
        }
    }
}

/// Those that wait, and who is behind whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) requests: &'a Slab<Waiting>,
    pub(crate) flows: &'a Flows,
}

impl<'a> Row<'a> {
    /// The requests of flows in order, from their heads in order.
    pub(crate) fn in_order(
        self,
        heads: impl Iterator<Item = Ranked<Rank, FlowIx>>,
    ) -> InOrder<'a, impl Iterator<Item = Read>> {
        let read = move |Ranked { rank, name }: Ranked<Rank, FlowIx>| {
            let head = self.flows.head(name)?;
            Some(Read { rank, head, behind: self.flows.ranked_behind(head.rider.ticket) })
        };
        let heads = ReadAhead::new(heads.filter_map(read));
        InOrder { row: self, heads, behind: BinaryHeap::with_capacity(AT_ONCE), last: None }
    }

    /// The requests of the flows whose heads these are, but for the very first, which is this one.
    pub(crate) fn behind_first(
        self,
        heads: &'a Ordered<Ranked<Rank, FlowIx>>,
        first: Ticket,
    ) -> OneByOne<'a> {
        let mut heads = heads.iter();
        // The one that was taken.
        heads.next();
        let behind = self.flows.ranked_behind(first);
        let mut rest = OneByOne {
            row: self,
            head: heads.next(),
            heads,
            behind,
            more: BinaryHeap::new(),
            last: None,
            ready: None,
        };
        rest.ready = rest.read_next();
        rest
    }

    fn get(self, ticket: Ticket) -> Option<Candidate> {
        self.requests.get(ticket.0).map(Waiting::candidate)
    }
}

/// The requests of few flows in order, one read after the other but for the first, which is there already: an owner is mostly asked for no more.
pub(crate) struct OneByOne<'a> {
    row: Row<'a>,
    ready: Option<Candidate>,
    /// The next head, and those after it.
    head: Option<Ranked<Rank, FlowIx>>,
    heads: ordered::Iter<'a, Ranked<Rank, FlowIx>>,
    /// The first of those behind such as were taken, and the others: mostly there are none.
    behind: Option<Ranked<Rank>>,
    more: BinaryHeap<Reverse<Ranked<Rank>>>,
    /// Taken. Who is behind it is looked up when one more is asked for.
    last: Option<Ticket>,
}

impl OneByOne<'_> {
    fn read_next(&mut self) -> Option<Candidate> {
        let before = |behind: Ranked<Rank>| self.head.is_none_or(|head| behind.rank < head.rank);
        if let Some(behind) = self.behind.filter(|behind| before(*behind)) {
            self.behind = self.more.pop().map(|Reverse(next)| next);
            return self.row.get(behind.name);
        }
        let head = std::mem::replace(&mut self.head, self.heads.next())?;
        self.row.flows.head(head.name)
    }

    fn follows(&mut self, next: Ranked<Rank>) {
        match &mut self.behind {
            None => self.behind = Some(next),
            Some(first) => {
                let later = std::mem::replace(first, next.min(*first)).max(next);
                self.more.push(Reverse(later));
            }
        }
    }
}

impl Iterator for OneByOne<'_> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        let next = self.ready.take().or_else(|| {
            let behind = self.row.flows.ranked_behind(self.last.take()?);
            behind.into_iter().for_each(|behind| self.follows(behind));
            self.read_next()
        })?;
        self.last = Some(next.rider.ticket);
        Some(next)
    }
}

/// A head that was read, and who is behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    rank: Rank,
    head: Candidate,
    behind: Option<Ranked<Rank>>,
}

/// The requests of some flows in order.
pub(crate) struct InOrder<'a, I: Iterator> {
    row: Row<'a>,
    heads: ReadAhead<I>,
    /// Those behind such as were taken.
    behind: BinaryHeap<Reverse<Ranked<Rank>>>,
    /// Taken from behind another. Who is behind it in turn is looked up when one more is asked for.
    last: Option<Ticket>,
}

impl<I: Iterator<Item = Read>> Iterator for InOrder<'_, I> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        let behind = self.last.take().and_then(|last| self.row.flows.ranked_behind(last));
        // One by one: extending a heap weighs whether to build it anew.
        behind.into_iter().for_each(|behind| self.behind.push(Reverse(behind)));
        let behind = self.behind.peek().map(|Reverse(behind)| behind.rank);
        if let Some(read) = self.heads.next_if(|read| behind.is_none_or(|behind| read.rank < behind)) {
            read.behind.into_iter().for_each(|behind| self.behind.push(Reverse(behind)));
            return Some(read.head);
        }
        let Reverse(Ranked { name, .. }) = self.behind.pop()?;
        self.last = Some(name);
        self.row.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_launch_reads_of_a_flow_is_one_line_of_the_cache() {
        assert_eq!(size_of::<Option<Flow>>(), 64);
    }
}
