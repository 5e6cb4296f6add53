//! Requests one behind the other, by their tickets.
//!
//! ```text
//!   chain ─▶ first ◀─▶ ● ◀─▶ ● ◀─▶ last        links [before, behind, mark] by ticket: eight bytes for each request, and the mark
//! ```
//! A request comes and goes without a search, and whoever holds one finds the next. The links lie close together and not with the requests: a hundred thousand
//! of them stay in a cache that the requests do not fit into. A link may carry a mark of the request that it leads to: who only asks how that one stands need
//! not read it.

use crate::waiting::Ticket;

/// A neighbour, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Link(u32);

impl Link {
    const NONE: Link = Link(u32::MAX);

    fn to(ticket: Option<Ticket>) -> Link {
        ticket.map_or(Link::NONE, |ticket| Link(ticket.0))
    }

    fn ticket(self) -> Option<Ticket> {
        (self != Link::NONE).then_some(Ticket(self.0))
    }
}

#[derive(Clone, Copy, Debug)]
struct Neighbours<M> {
    before: Link,
    behind: Link,
    /// Of the one behind, if there is one.
    mark: M,
}

/// The ends of a chain; none of one that is empty.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Chain {
    ends: Option<(Ticket, Ticket)>,
}

impl Chain {
    pub(crate) fn first(self) -> Option<Ticket> {
        self.ends.map(|(first, _)| first)
    }

    pub(crate) fn last(self) -> Option<Ticket> {
        self.ends.map(|(_, last)| last)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.ends.is_none()
    }
}

/// The links of chains that have no request in common.
#[derive(Default, Debug)]
pub(crate) struct Links<M> {
    by_ticket: Vec<Neighbours<M>>,
}

impl<M: Copy + Default> Links<M> {
    pub(crate) fn before(&self, ticket: Ticket) -> Option<Ticket> {
        self.by_ticket[ticket.0 as usize].before.ticket()
    }

    /// The request behind one, and its mark.
    pub(crate) fn behind(&self, ticket: Ticket) -> Option<(Ticket, M)> {
        let Neighbours { behind, mark, .. } = self.by_ticket[ticket.0 as usize];
        behind.ticket().map(|behind| (behind, mark))
    }

    /// Puts a request in front of a chain. `was_first` is the mark of the one that was there, if any.
    pub(crate) fn insert_first(&mut self, chain: &mut Chain, ticket: Ticket, was_first: M) {
        let behind = chain.first().map(|first| (first, was_first));
        self.insert(ticket, None, behind);
        chain.ends = Some((ticket, chain.last().unwrap_or(ticket)));
    }

    /// Puts a request of some mark behind one that is in the chain.
    pub(crate) fn insert_behind(&mut self, chain: &mut Chain, before: Ticket, ticket: Ticket, mark: M) {
        let behind = self.behind(before);
        self.insert(ticket, Some(before), behind);
        self.join(Some(before), Some((ticket, mark)));
        if behind.is_none() {
            chain.ends = chain.first().map(|first| (first, ticket));
        }
    }

    fn insert(&mut self, ticket: Ticket, before: Option<Ticket>, behind: Option<(Ticket, M)>) {
        let none = Neighbours { before: Link::NONE, behind: Link::NONE, mark: M::default() };
        let places = self.by_ticket.len().max(ticket.0 as usize + 1);
        self.by_ticket.resize(places, none);
        self.by_ticket[ticket.0 as usize].before = Link::to(before);
        self.join(Some(ticket), behind);
    }

    /// Takes a request out of the chain that it is in.
    pub(crate) fn remove(&mut self, chain: &mut Chain, ticket: Ticket) {
        let (before, behind) = (self.before(ticket), self.behind(ticket));
        self.join(before, behind);
        let behind = behind.map(|(behind, _)| behind);
        let first = before.and(chain.first()).or(behind);
        let last = behind.and(chain.last()).or(before);
        chain.ends = first.zip(last);
    }

    /// The requests of a chain from its first.
    pub(crate) fn iter(&self, chain: Chain) -> impl Iterator<Item = Ticket> {
        std::iter::successors(chain.first(), |ticket| self.behind(*ticket).map(|(behind, _)| behind))
    }

    fn join(&mut self, before: Option<Ticket>, behind: Option<(Ticket, M)>) {
        if let Some(before) = before {
            let link = &mut self.by_ticket[before.0 as usize];
            (link.behind, link.mark) =
                behind.map_or((Link::NONE, M::default()), |(behind, mark)| (Link::to(Some(behind)), mark));
        }
        if let Some((behind, _)) = behind {
            self.by_ticket[behind.0 as usize].before = Link::to(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mark(ticket: Ticket) -> u64 {
        1000 + u64::from(ticket.0)
    }

    proptest! {
        /// Whatever comes and goes, wherever: two chains hold what two lists would, and links know the marks of those that they lead to.
        #[test]
        fn chains_are_lists(steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0u32..40, 0usize..40), 1..200)) {
            let (mut links, mut chains) = (Links::default(), [Chain::default(); 2]);
            let mut lists: [Vec<Ticket>; 2] = Default::default();
            for (comes, which, number, at) in steps {
                let (ticket, which) = (Ticket(number), usize::from(which));
                if comes && lists.iter().all(|list| !list.contains(&ticket)) {
                    let at = at % (lists[which].len() + 1);
                    let (chain, list) = (&mut chains[which], &lists[which]);
                    match at.checked_sub(1).map(|before| list[before]) {
                        Some(before) => links.insert_behind(chain, before, ticket, mark(ticket)),
                        None => links.insert_first(chain, ticket, list.first().copied().map_or(0, mark)),
                    }
                    lists[which].insert(at, ticket);
                } else if let Some(at) = lists[which].iter().position(|other| !comes && *other == ticket) {
                    links.remove(&mut chains[which], ticket);
                    lists[which].remove(at);
                }
                for (chain, list) in chains.iter().zip(&lists) {
                    prop_assert!(links.iter(*chain).eq(list.iter().copied()));
                    for pair in list.windows(2) {
                        prop_assert_eq!(links.behind(pair[0]), Some((pair[1], mark(pair[1]))));
                    }
                    prop_assert_eq!((chain.first(), chain.last()), (list.first().copied(), list.last().copied()));
                    prop_assert_eq!(chain.is_empty(), list.is_empty());
                }
            }
        }
    }
}
