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
use crate::heap::{self, Heap, Ranked};
use crate::loose::ShelfIx;
use crate::plans::PlanIx;
use crate::read_ahead::ReadAhead;
use crate::slab::Slab;
use crate::waiting::{Candidate, Rank, Ticket, Waiting};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::Peekable;
use tessera_core::{IdMap, TenantId};

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    flows: IdMap<(TenantId, PlanIx), Flow>,
    links: Links,
}

#[derive(Debug, Default)]
struct Flow {
    chain: Chain,
    /// Where its owner keeps the head (`loose`).
    shelf: ShelfIx,
}

/// What became of the head of a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved<T> {
    pub(crate) from: Option<T>,
    pub(crate) to: Option<T>,
    /// Where the one before was kept.
    pub(crate) shelf: ShelfIx,
}

impl<T> Moved<T> {
    /// The same of what is known of the two.
    pub(crate) fn map<U>(self, known: impl Fn(T) -> Option<U>) -> Moved<U> {
        let Moved { from, to, shelf } = self;
        Moved { from: from.and_then(&known), to: to.and_then(&known), shelf }
    }
}

impl Flows {
    /// The head: a tenant's first request of a plan.
    pub(crate) fn first(&self, flow: (TenantId, PlanIx)) -> Option<Ticket> {
        self.flows.get(&flow).and_then(|flow| flow.chain.first())
    }

    /// The request behind one that is in a flow.
    pub(crate) fn behind(&self, ticket: Ticket) -> Option<Ticket> {
        self.links.behind(ticket)
    }

    /// Puts a request into its flow, and makes it no more urgent than the last there. It goes to the end, but before those that are as urgent and came later: a
    /// promise that was broken brings back one that came long ago. `rank` is where another stands.
    pub(crate) fn insert(&mut self, request: &mut Waiting, rank: impl Fn(Ticket) -> Rank) -> Moved<Ticket> {
        let Flow { chain, shelf } = self.flows.entry(request.flow()).or_default();
        let from = chain.first();
        let mut before = chain.last();
        if let Some(last) = before {
            request.urgency = request.urgency.max(rank(last).urgency);
        }
        while let Some(later) = before.filter(|other| rank(*other) > request.rank()) {
            before = self.links.before(later);
        }
        self.links.insert(chain, request.rider.ticket, before);
        Moved { from, to: chain.first(), shelf: *shelf }
    }

    /// Takes requests out of their flow.
    pub(crate) fn remove(
        &mut self,
        flow: (TenantId, PlanIx),
        requests: impl Iterator<Item = Ticket>,
    ) -> Moved<Ticket> {
        let Some(Flow { chain, shelf }) = self.flows.get_mut(&flow) else {
            return Moved { from: None, to: None, shelf: ShelfIx::default() };
        };
        let from = chain.first();
        requests.for_each(|ticket| self.links.remove(chain, ticket));
        let moved = Moved { from, to: chain.first(), shelf: *shelf };
        if chain.is_empty() {
            self.flows.remove(&flow);
        }
        moved
    }

    /// The head of a flow has its place on a shelf.
    pub(crate) fn shelved(&mut self, flow: (TenantId, PlanIx), shelf: ShelfIx) {
        if let Some(flow) = self.flows.get_mut(&flow) {
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
    fn behind(self, ticket: Ticket) -> Option<Ranked<Rank>> {
        let ticket = self.flows.behind(ticket)?;
        self.requests.get(ticket.0).map(|behind| Ranked { rank: behind.rank(), ticket })
    }

    /// The requests of flows in order, from their heads in order.
    pub(crate) fn in_order(
        self,
        heads: impl Iterator<Item = Ranked<Rank>>,
    ) -> InOrder<'a, impl Iterator<Item = Head>> {
        let read = move |ranked: Ranked<Rank>| {
            let candidate = self.requests.get(ranked.ticket.0)?.candidate();
            Some(Head { ranked, candidate, behind: self.behind(ranked.ticket) })
        };
        let heads = ReadAhead::new(heads.filter_map(read));
        InOrder { row: self, heads, behind: BinaryHeap::new(), last: None }
    }
}

/// The requests of few flows in order, one read after the other: an owner is mostly asked for one or two.
pub(crate) struct OneByOne<'a> {
    row: Row<'a>,
    heads: Peekable<heap::InOrder<'a, Rank>>,
    /// Those behind such as were taken.
    behind: BinaryHeap<Reverse<Ranked<Rank>>>,
    last: Option<Ticket>,
}

impl<'a> Row<'a> {
    /// The requests of the flows whose heads these are, but for the very first.
    pub(crate) fn behind_first(self, heads: &'a Heap<Rank>) -> OneByOne<'a> {
        let mut heads = heads.in_order().peekable();
        let last = heads.next().map(|first| first.ticket);
        OneByOne { row: self, heads, behind: BinaryHeap::new(), last }
    }
}

impl Iterator for OneByOne<'_> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        let behind = self.last.take().and_then(|last| self.row.behind(last));
        self.behind.extend(behind.map(Reverse));
        let behind = self.behind.peek().map(|Reverse(behind)| *behind);
        let head = self.heads.next_if(|head| behind.is_none_or(|behind| *head < behind));
        let next = head.or_else(|| self.behind.pop().map(|Reverse(next)| next))?;
        self.last = Some(next.ticket);
        self.row.requests.get(next.ticket.0).map(Waiting::candidate)
    }
}

/// A head that was read, and who is behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    ranked: Ranked<Rank>,
    candidate: Candidate,
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

impl<I: Iterator<Item = Head>> Iterator for InOrder<'_, I> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        let behind = self.last.take().and_then(|last| self.row.behind(last));
        self.behind.extend(behind.map(Reverse));
        let behind = self.behind.peek().map(|Reverse(behind)| *behind);
        if let Some(head) = self.heads.next_if(|head| behind.is_none_or(|behind| head.ranked < behind)) {
            self.behind.extend(head.behind.map(Reverse));
            return Some(head.candidate);
        }
        let Reverse(Ranked { ticket, .. }) = self.behind.pop()?;
        self.last = Some(ticket);
        self.row.requests.get(ticket.0).map(Waiting::candidate)
    }
}
