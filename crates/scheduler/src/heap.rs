//! Requests, or flows of them, by rank, where who is first is asked often and the others come and go from wherever they are.
//!
//! ```text
//!   heap    9 ─┬▶ 12 ─▶ …      two below each, neither of which ranks before the one above
//!              └▶ 11 …
//!   places  name ─▶ where in its heap        so that whoever leaves is found without a search
//! ```
//! A tree in order would be walked down for each that leaves, mended, and its nodes given back, through memory that no near cache holds. Here a few bytes for each
//! name move among neighbours, and one that ranks otherwise from now on moves no further than it must. O(log n) at worst for each change; all in order cost
//! O(log k) each for the first k.

use crate::waiting::Ticket;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Range;

/// How many are below each.
const BELOW: usize = 2;

/// Who stands in a heap. Numbers are small: a table has a place for each.
pub(crate) trait Name: Copy + Ord {
    fn number(self) -> u32;
}

impl Name for Ticket {
    fn number(self) -> u32 {
        self.0
    }
}

/// Of two of one rank the lower name comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ranked<R, N = Ticket> {
    pub(crate) rank: R,
    pub(crate) name: N,
}

/// Where in its heap each name is, for heaps that have none in common; of those that are in none it says nothing.
#[derive(Debug, Default)]
pub(crate) struct Places(Vec<u32>);

impl Places {
    fn of(&self, name: impl Name) -> usize {
        self.0[name.number() as usize] as usize
    }

    fn put(&mut self, name: impl Name, at: usize) {
        self.0[name.number() as usize] = at as u32;
    }

    fn make_room(&mut self, name: impl Name) {
        let places = self.0.len().max(name.number() as usize + 1);
        self.0.resize(places, 0);
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Heap<R, N = Ticket> {
    entries: Vec<Ranked<R, N>>,
}

impl<R, N> Default for Heap<R, N> {
    fn default() -> Heap<R, N> {
        Heap { entries: Vec::new() }
    }
}

impl<R: Copy + Ord, N: Name> Heap<R, N> {
    pub(crate) fn first(&self) -> Option<Ranked<R, N>> {
        self.entries.first().copied()
    }

    /// All in order. Those below one that was taken are looked at when one more is asked for.
    pub(crate) fn in_order(&self) -> InOrder<'_, R, N> {
        let next = self.first().map(|first| Reverse((first, 0))).into_iter().collect();
        InOrder { entries: &self.entries, next, taken: false }
    }

    /// Those below a place: none of them ranks before who is there. The first is at place 0.
    pub(crate) fn below(&self, place: usize) -> impl Iterator<Item = (usize, Ranked<R, N>)> {
        below(place, self.entries.len()).map(|place| (place, self.entries[place]))
    }

    /// Puts in who is not here.
    pub(crate) fn insert(&mut self, places: &mut Places, entry: Ranked<R, N>) {
        places.make_room(entry.name);
        self.entries.push(entry);
        self.rise(places, self.entries.len() - 1, entry);
    }

    /// Takes out who is here.
    pub(crate) fn remove(&mut self, places: &mut Places, name: N) {
        let at = places.of(name);
        let last = self.entries.pop().expect("who leaves is here");
        // The last one takes the place.
        if at < self.entries.len() {
            self.settle(places, at, last);
        }
    }

    /// Who is here has another rank from now on.
    pub(crate) fn rank(&mut self, places: &mut Places, entry: Ranked<R, N>) {
        self.settle(places, places.of(entry.name), entry);
    }

    /// An entry comes to a place, or goes up or down from there.
    fn settle(&mut self, places: &mut Places, at: usize, entry: Ranked<R, N>) {
        if at > 0 && entry < self.entries[above(at)] {
            self.rise(places, at, entry);
        } else {
            self.sink(places, at, entry);
        }
    }

    fn rise(&mut self, places: &mut Places, mut at: usize, entry: Ranked<R, N>) {
        while at > 0 && entry < self.entries[above(at)] {
            self.put(places, at, self.entries[above(at)]);
            at = above(at);
        }
        self.put(places, at, entry);
    }

    fn sink(&mut self, places: &mut Places, mut at: usize, entry: Ranked<R, N>) {
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

    fn put(&mut self, places: &mut Places, at: usize, entry: Ranked<R, N>) {
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

/// What is in a heap, in order.
#[derive(Debug)]
pub(crate) struct InOrder<'a, R, N = Ticket> {
    entries: &'a [Ranked<R, N>],
    /// The one taken last, and those below such as were taken, with their places: the next one is among them.
    next: BinaryHeap<Reverse<(Ranked<R, N>, usize)>>,
    /// Whether the first of those was taken.
    taken: bool,
}

impl<R: Copy + Ord, N: Name> Iterator for InOrder<'_, R, N> {
    type Item = Ranked<R, N>;

    fn next(&mut self) -> Option<Ranked<R, N>> {
        if std::mem::replace(&mut self.taken, true) {
            // Who is below it comes in its place: that moves fewer than to take it out first.
            let mut last = self.next.peek_mut()?;
            let below = below(last.0.1, self.entries.len());
            let mut below = below.map(|place| Reverse((self.entries[place], place)));
            match below.next() {
                Some(next) => {
                    *last = next;
                    drop(last);
                }
                None => _ = PeekMut::pop(last),
            }
            below.for_each(|next| self.next.push(next));
        }
        self.next.peek().map(|Reverse((next, _))| *next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Whoever comes, leaves or ranks otherwise, in whatever order: a heap holds what a tree would, in its order.
        #[test]
        fn heaps_are_trees(steps in prop::collection::vec((0usize..2, 0u8..3, 0u32..50, 0u64..30), 1..400)) {
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
                    (2, Some(known)) => {
                        heap.rank(&mut places, entry);
                        trees[which].remove(&known);
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
