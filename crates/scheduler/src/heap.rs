//! Requests by rank, where only who is first is asked for and the others come and go from wherever they are.
//!
//! ```text
//!   heap    9 ─┬▶ 12 ─▶ …      two below each, neither of which ranks before the one above
//!              └▶ 11 …
//!   places  ticket ─▶ where in its heap        so that whoever leaves is found without a search
//! ```
//! A tree in order would be walked down for each that leaves, mended, and its nodes given back, through memory that no near cache holds. Here a few bytes for each
//! request move among neighbours. O(log n) at worst for each change. Who wants more of them in order than the first finds that in `ordered`.

use crate::waiting::Ticket;
use std::ops::Range;

/// How many are below each.
const BELOW: usize = 2;

/// Of two of one rank the lower name comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ranked<R, N = Ticket> {
    pub(crate) rank: R,
    pub(crate) name: N,
}

/// Where in its heap each request is, for heaps that have none in common; of those that are in none it says nothing.
#[derive(Debug, Default)]
pub(crate) struct Places(Vec<u32>);

impl Places {
    fn of(&self, name: Ticket) -> usize {
        self.0[name.0 as usize] as usize
    }

    fn put(&mut self, name: Ticket, at: usize) {
        self.0[name.0 as usize] = at as u32;
    }

    fn make_room(&mut self, name: Ticket) {
        let places = self.0.len().max(name.0 as usize + 1);
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

    /// Puts in who is not here.
    pub(crate) fn insert(&mut self, places: &mut Places, entry: Ranked<R>) {
        places.make_room(entry.name);
        self.entries.push(entry);
        self.rise(places, self.entries.len() - 1, entry);
    }

    /// Takes out who is here.
    pub(crate) fn remove(&mut self, places: &mut Places, name: Ticket) {
        let at = places.of(name);
        let last = self.entries.pop().expect("who leaves is here");
        // The last one takes the place.
        if at < self.entries.len() {
            self.settle(places, at, last);
        }
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
        places.put(entry.name, at);
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Whoever comes or leaves, in whatever order: a heap holds as many as a tree would, and the same is first.
        #[test]
        fn heaps_are_trees(steps in prop::collection::vec((0usize..2, 0u8..2, 0u32..50, 0u64..30), 1..400)) {
            let mut places = Places::default();
            let (mut heaps, mut trees) = ([Heap::default(), Heap::default()], [BTreeSet::new(), BTreeSet::new()]);
            for (which, what, number, rank) in steps {
                let entry = Ranked { rank, name: Ticket(number) };
                let is_here = |tree: &BTreeSet<Ranked<u64>>| tree.iter().find(|other| other.name == entry.name).copied();
                let (heap, known) = (&mut heaps[which], is_here(&trees[which]));
                let free = trees.iter().all(|tree| is_here(tree).is_none());
                match (what, known) {
                    (0, None) if free => {
                        heap.insert(&mut places, entry);
                        trees[which].insert(entry);
                    }
                    (1, Some(known)) => {
                        heap.remove(&mut places, known.name);
                        trees[which].remove(&known);
                    }
                    _ => {}
                }
                for (heap, tree) in heaps.iter().zip(&trees) {
                    prop_assert_eq!(heap.first(), tree.first().copied());
                    prop_assert_eq!(heap.entries.len(), tree.len());
                }
            }
        }
    }
}
