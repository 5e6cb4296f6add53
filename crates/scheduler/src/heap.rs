//! Requests by rank, where who is first is asked often and the others come and go from wherever they are.
//!
//! ```text
//!   heap    9 ─┬▶ 12 ─▶ …      two below each, neither of which ranks before the one above
//!              └▶ 11 …
//!   places  ticket ─▶ where in its heap        so that whoever leaves is found without a search
//! ```
//! A tree in order would be walked down for each that leaves, mended, and its nodes given back, through memory that no near cache holds. Here a few bytes for each
//! request move among neighbours. O(log n) at worst for each change; all in order cost O(log k) each for the first k.

use crate::waiting::Ticket;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

/// How many are below each.
const BELOW: usize = 2;

/// Of two of one rank the lower ticket comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ranked<R> {
    pub(crate) rank: R,
    pub(crate) ticket: Ticket,
}

/// Where in its heap each ticket is, for heaps that have no request in common; of those that are in none it says nothing.
#[derive(Debug, Default)]
pub(crate) struct Places(Vec<u32>);

impl Places {
    fn of(&self, ticket: Ticket) -> usize {
        self.0[ticket.0 as usize] as usize
    }

    fn put(&mut self, ticket: Ticket, at: usize) {
        self.0[ticket.0 as usize] = at as u32;
    }

    fn make_room(&mut self, ticket: Ticket) {
        let places = self.0.len().max(ticket.0 as usize + 1);
        self.0.resize(places, 0);
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Heap<R> {
    entries: Vec<Ranked<R>>,
}

impl<R> Default for Heap<R> {
    fn default() -> Heap<R> {
        Heap { entries: Vec::new() }
    }
}

impl<R: Copy + Ord> Heap<R> {
    pub(crate) fn first(&self) -> Option<Ranked<R>> {
        self.entries.first().copied()
    }

    /// All in order. Those below one that was taken are looked at when one more is asked for.
    pub(crate) fn in_order(&self) -> InOrder<'_, R> {
        let next = self.first().map(|first| Reverse((first, 0))).into_iter().collect();
        InOrder { entries: &self.entries, next, last: None }
    }

    /// Puts a request in that is not here.
    pub(crate) fn insert(&mut self, places: &mut Places, entry: Ranked<R>) {
        places.make_room(entry.ticket);
        self.entries.push(entry);
        self.rise(places, self.entries.len() - 1, entry);
    }

    /// Takes a request out that is here.
    pub(crate) fn remove(&mut self, places: &mut Places, ticket: Ticket) {
        let at = places.of(ticket);
        let last = self.entries.pop().expect("who leaves is here");
        // The last one takes the place.
        if at < self.entries.len() {
            self.settle(places, at, last);
        }
    }

    /// Another comes for one that is here.
    pub(crate) fn replace(&mut self, places: &mut Places, ticket: Ticket, by: Ranked<R>) {
        places.make_room(by.ticket);
        self.settle(places, places.of(ticket), by);
    }

    /// An entry comes to a place, or goes up or down from there.
    fn settle(&mut self, places: &mut Places, at: usize, entry: Ranked<R>) {
        if at > 0 && entry < self.entries[above(at)] {
            self.rise(places, at, entry);
        } else {
            self.sink(places, at, entry);
        }
    }

    fn rise(&mut self, places: &mut Places, mut at: usize, entry: Ranked<R>) {
        while at > 0 && entry < self.entries[above(at)] {
            self.put(places, at, self.entries[above(at)]);
            at = above(at);
        }
        self.put(places, at, entry);
    }

    fn sink(&mut self, places: &mut Places, mut at: usize, entry: Ranked<R>) {
        loop {
            match below(at, self.entries.len()).min_by_key(|below| self.entries[*below]) {
                Some(next) if self.entries[next] < entry => {
                    self.put(places, at, self.entries[next]);
                    at = next;
                }
                _ => break,
            }
        }
        self.put(places, at, entry);
    }

    fn put(&mut self, places: &mut Places, at: usize, entry: Ranked<R>) {
        self.entries[at] = entry;
        places.put(entry.ticket, at);
    }
}

fn above(place: usize) -> usize {
    (place - 1) / BELOW
}

/// The places below one, of so many.
fn below(place: usize, places: usize) -> Range<usize> {
    let first = (BELOW * place + 1).min(places);
    first..(first + BELOW).min(places)
}

/// What is in a heap, in order.
#[derive(Debug)]
pub(crate) struct InOrder<'a, R> {
    entries: &'a [Ranked<R>],
    /// Those below such as were taken, with their places: the next one is among them.
    next: BinaryHeap<Reverse<(Ranked<R>, usize)>>,
    /// Where the one was that was taken last.
    last: Option<usize>,
}

impl<R: Copy + Ord> Iterator for InOrder<'_, R> {
    type Item = Ranked<R>;

    fn next(&mut self) -> Option<Ranked<R>> {
        let below = self.last.map_or(0..0, |last| below(last, self.entries.len()));
        self.next.extend(below.map(|place| Reverse((self.entries[place], place))));
        let Reverse((next, place)) = self.next.pop()?;
        self.last = Some(place);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Whoever comes, leaves or makes way for another, in whatever order: a heap holds what a tree would, in its order.
        #[test]
        fn heaps_are_trees(steps in prop::collection::vec((0usize..2, 0u8..3, 0u32..50, 0u64..30), 1..400)) {
            let mut places = Places::default();
            let (mut heaps, mut trees) = ([Heap::default(), Heap::default()], [BTreeSet::new(), BTreeSet::new()]);
            for (which, what, number, rank) in steps {
                let entry = Ranked { rank, ticket: Ticket(number) };
                let is_here = |tree: &BTreeSet<Ranked<u64>>| tree.iter().find(|other| other.ticket == entry.ticket).copied();
                let (heap, known) = (&mut heaps[which], is_here(&trees[which]));
                let free = trees.iter().all(|tree| is_here(tree).is_none());
                match (what, known) {
                    (0, None) if free => {
                        heap.insert(&mut places, entry);
                        trees[which].insert(entry);
                    }
                    (1, Some(known)) => {
                        heap.remove(&mut places, known.ticket);
                        trees[which].remove(&known);
                    }
                    (2, None) if free && !trees[which].is_empty() => {
                        let leaves = *trees[which].iter().nth(rank as usize % trees[which].len()).expect("there are so many");
                        heap.replace(&mut places, leaves.ticket, entry);
                        trees[which].remove(&leaves);
                        trees[which].insert(entry);
                    }
                    _ => {}
                }
                for (heap, tree) in heaps.iter().zip(&trees) {
                    prop_assert_eq!(heap.first(), tree.first().copied());
                    prop_assert!(heap.in_order().eq(tree.iter().copied()));
                }
            }
        }
    }
}
