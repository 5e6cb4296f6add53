//! Requests one behind the other, by their tickets.
//!
//! ```text
//!   chain ─▶ first ◀─▶ ● ◀─▶ ● ◀─▶ last        links [before, behind] by ticket: eight bytes for each request
//! ```
//! A request comes and goes without a search, and whoever holds one finds the next. The links lie close together and not with the requests: a hundred thousand
//! of them stay in a cache that the requests do not fit into.

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
struct Neighbours {
    before: Link,
    behind: Link,
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
pub(crate) struct Links {
    by_ticket: Vec<Neighbours>,
}

impl Links {
    pub(crate) fn before(&self, ticket: Ticket) -> Option<Ticket> {
        self.by_ticket[ticket.0 as usize].before.ticket()
    }

    pub(crate) fn behind(&self, ticket: Ticket) -> Option<Ticket> {
        self.by_ticket[ticket.0 as usize].behind.ticket()
    }

    /// Puts a request into a chain behind one that is there, or in front of all.
    pub(crate) fn insert(&mut self, chain: &mut Chain, ticket: Ticket, before: Option<Ticket>) {
        let none = Neighbours { before: Link::NONE, behind: Link::NONE };
        let places = self.by_ticket.len().max(ticket.0 as usize + 1);
        self.by_ticket.resize(places, none);
        let behind = match before {
            Some(before) => self.behind(before),
            None => chain.first(),
        };
        self.by_ticket[ticket.0 as usize] = Neighbours { before: Link::to(before), behind: Link::to(behind) };
        self.join(before, Some(ticket));
        self.join(Some(ticket), behind);
        let first = before.and(chain.first()).unwrap_or(ticket);
        let last = behind.and(chain.last()).unwrap_or(ticket);
        chain.ends = Some((first, last));
    }

    /// Takes a request out of the chain that it is in.
    pub(crate) fn remove(&mut self, chain: &mut Chain, ticket: Ticket) {
        let (before, behind) = (self.before(ticket), self.behind(ticket));
        self.join(before, behind);
        let first = before.and(chain.first()).or(behind);
        let last = behind.and(chain.last()).or(before);
        chain.ends = first.zip(last);
    }

    /// The requests of a chain from its first.
    pub(crate) fn iter(&self, chain: Chain) -> impl Iterator<Item = Ticket> {
        std::iter::successors(chain.first(), |ticket| self.behind(*ticket))
    }

    fn join(&mut self, before: Option<Ticket>, behind: Option<Ticket>) {
        if let Some(before) = before {
            self.by_ticket[before.0 as usize].behind = Link::to(behind);
        }
        if let Some(behind) = behind {
            self.by_ticket[behind.0 as usize].before = Link::to(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever comes and goes, wherever: two chains hold what two lists would.
        #[test]
        fn chains_are_lists(steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0u32..40, 0usize..40), 1..200)) {
            let (mut links, mut chains) = (Links::default(), [Chain::default(); 2]);
            let mut lists: [Vec<Ticket>; 2] = Default::default();
            for (comes, which, number, at) in steps {
                let (ticket, which) = (Ticket(number), usize::from(which));
                if comes && lists.iter().all(|list| !list.contains(&ticket)) {
                    let at = at % (lists[which].len() + 1);
                    let before = at.checked_sub(1).map(|before| lists[which][before]);
                    links.insert(&mut chains[which], ticket, before);
                    lists[which].insert(at, ticket);
                } else if let Some(at) = lists[which].iter().position(|other| !comes && *other == ticket) {
                    links.remove(&mut chains[which], ticket);
                    lists[which].remove(at);
                }
                for (chain, list) in chains.iter().zip(&lists) {
                    prop_assert!(links.iter(*chain).eq(list.iter().copied()));
                    prop_assert_eq!((chain.first(), chain.last()), (list.first().copied(), list.last().copied()));
                    prop_assert_eq!(chain.is_empty(), list.is_empty());
                }
            }
        }
    }
}
