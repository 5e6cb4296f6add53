//! Few or many in order, walked from the first far more often than they change.
//!
//! ```text
//!   few    [● ● ● ●]                            one leaf
//!   many   [● ● ● ●] [● ● ●] [● ● ● ● ●] …      leaves of 32 at most, all of one before all of the next; the first of each stands in a list of its own
//! ```
//! A launch asks for the first few dozen of those that wait, and its lanes change where a few dozen stand. In a heap each one asked for in order is a struggle between those
//! below the ones that were taken, which no processor foresees; here it is the next in memory. A change is a search in the list of leaves and one in a leaf, and moves
//! the rest of the leaf by one.
//!
//! Cost: the next in order is the next in memory. A change costs O(log n) comparisons and moves one leaf; one change in sixteen at most also moves the list of leaves, which are at
//! most n / 8 + 1.

/// How many stand in a leaf at most.
const MOST: usize = 32;

/// Two leaves that have no more than so many together become one.
const TOGETHER: usize = MOST / 2;

/// See the module's text. No larger than a list: it stands in a line of the cache, beside what is wanted of its first.
#[derive(Debug)]
pub(crate) enum Ordered<E> {
    Few(Vec<E>),
    Many(Box<Leaves<E>>),
}

/// Two or more.
#[derive(Debug)]
pub(crate) struct Leaves<E>(Vec<Leaf<E>>);

/// One or more, in order.
#[derive(Debug)]
struct Leaf<E> {
    first: E,
    entries: Vec<E>,
}

impl<E> Default for Ordered<E> {
    fn default() -> Ordered<E> {
        Ordered::Few(Vec::new())
    }
}

impl<E: Copy + Ord> Ordered<E> {
    pub(crate) fn first(&self) -> Option<E> {
        match self {
            Ordered::Few(entries) => entries.first().copied(),
            Ordered::Many(leaves) => leaves.0.first().map(|leaf| leaf.first),
        }
    }

    /// All in order.
    pub(crate) fn iter(&self) -> Iter<'_, E> {
        match self {
            Ordered::Few(entries) => Iter { leaf: entries.iter(), leaves: [].iter() },
            Ordered::Many(leaves) => Iter { leaf: [].iter(), leaves: leaves.0.iter() },
        }
    }

    /// Puts in one that is not here.
    pub(crate) fn insert(&mut self, entry: E) {
        match self {
            Ordered::Few(entries) => {
                insert(entries, entry);
                if entries.len() > MOST {
                    let second = Leaf::of(entries.split_off(MOST / 2));
                    let first = Leaf::of(std::mem::take(entries));
                    *self = Ordered::Many(Box::new(Leaves(vec![first, second])));
                }
            }
            Ordered::Many(leaves) => leaves.insert(entry),
        }
    }

    /// Takes out some that are here, given in order. A leaf that several of them leave is gone through once.
    pub(crate) fn remove_all(&mut self, entries: &[E]) {
        match self {
            Ordered::Few(few) => remove_all(few, entries),
            Ordered::Many(leaves) => {
                leaves.remove_all(entries);
                if leaves.0.len() < 2 {
                    let last = leaves.0.pop();
                    *self = Ordered::Few(last.map(|leaf| leaf.entries).unwrap_or_default());
                }
            }
        }
    }

    /// Takes out one that is here.
    pub(crate) fn remove(&mut self, entry: E) {
        self.remove_all(&[entry]);
    }

    /// Another takes the place of one that is here, or rather finds its own.
    pub(crate) fn replace(&mut self, from: E, to: E) {
        match self {
            Ordered::Few(entries) => replace(entries, from, to),
            Ordered::Many(_) => {
                self.remove(from);
                self.insert(to);
            }
        }
    }
}

impl<E: Copy + Ord> Leaves<E> {
    /// The leaf that an entry belongs into.
    fn of(&self, entry: E) -> usize {
        self.0.partition_point(|leaf| leaf.first <= entry).saturating_sub(1)
    }

    fn insert(&mut self, entry: E) {
        let at = self.of(entry);
        let leaf = &mut self.0[at];
        insert(&mut leaf.entries, entry);
        leaf.first = leaf.first.min(entry);
        if leaf.entries.len() > MOST {
            let second = leaf.entries.split_off(MOST / 2);
            self.0.insert(at + 1, Leaf::of(second));
        }
    }

    fn remove_all(&mut self, mut entries: &[E]) {
        while let Some(first) = entries.first() {
            let at = self.of(*first);
            let here = match self.0.get(at + 1) {
                Some(next) => entries.partition_point(|entry| *entry < next.first),
                None => entries.len(),
            };
            let (leaving, others) = entries.split_at(here);
            remove_all(&mut self.0[at].entries, leaving);
            self.mend(at);
            entries = others;
        }
    }

    /// Some left a leaf.
    fn mend(&mut self, at: usize) {
        let leaf = &mut self.0[at];
        match leaf.entries.first() {
            Some(first) => leaf.first = *first,
            None => _ = self.0.remove(at),
        }
        // So that any two neighbours have more than that: the leaves are few.
        for at in [at, at.saturating_sub(1)] {
            if let Some([one, next]) = self.0.get_mut(at..at + 2)
                && one.entries.len() + next.entries.len() <= TOGETHER
            {
                one.entries.append(&mut next.entries);
                self.0.remove(at + 1);
            }
        }
    }
}

impl<E: Copy + Ord> Leaf<E> {
    /// Of some that are in order; one or more.
    fn of(mut entries: Vec<E>) -> Leaf<E> {
        entries.reserve_exact(MOST + 1 - entries.len());
        Leaf { first: entries[0], entries }
    }
}

fn insert<E: Ord>(entries: &mut Vec<E>, entry: E) {
    let at = entries.partition_point(|other| *other < entry);
    entries.insert(at, entry);
}

fn remove_all<E: Ord>(entries: &mut Vec<E>, leaving: &[E]) {
    match leaving {
        [one] => _ = entries.remove(place(entries, one)),
        _ => {
            let there = entries.len();
            let mut next = leaving.iter().peekable();
            entries.retain(|entry| next.next_if_eq(&entry).is_none());
            assert_eq!(there - entries.len(), leaving.len(), "who leaves is here");
        }
    }
}

fn replace<E: Copy + Ord>(entries: &mut [E], from: E, to: E) {
    let (before, after) = (place(entries, &from), entries.partition_point(|other| *other < to));
    if before < after {
        entries.copy_within(before + 1..after, before);
        entries[after - 1] = to;
    } else {
        entries.copy_within(after..before, after + 1);
        entries[after] = to;
    }
}

fn place<E: Ord>(entries: &[E], of: &E) -> usize {
    entries.binary_search(of).expect("who leaves is here")
}

/// All in order.
#[derive(Clone, Debug)]
pub(crate) struct Iter<'a, E> {
    leaf: std::slice::Iter<'a, E>,
    leaves: std::slice::Iter<'a, Leaf<E>>,
}

impl<E: Copy> Iterator for Iter<'_, E> {
    type Item = E;

    fn next(&mut self) -> Option<E> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(*entry);
            }
            self.leaf = self.leaves.next()?.entries.iter();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn leaves<E>(of: &Ordered<E>) -> usize {
        match of {
            Ordered::Few(_) => 1,
            Ordered::Many(leaves) => leaves.0.len(),
        }
    }

    #[test]
    fn an_order_is_no_larger_than_a_list() {
        assert_eq!(size_of::<Ordered<u64>>(), size_of::<Vec<u64>>());
    }

    #[test]
    fn leaves_of_few_that_are_left_of_many_are_few() {
        let mut ordered = Ordered::default();
        (0..10_000).for_each(|entry| ordered.insert(entry));
        assert!((10_000 / MOST..=10_000 / 8 + 1).contains(&leaves(&ordered)), "{} leaves", leaves(&ordered));
        // Of every leaf one is left.
        (0..10_000).filter(|entry| entry % 16 != 0).for_each(|entry| ordered.remove(entry));
        assert!(leaves(&ordered) <= 625 / 8 + 1, "{} leaves", leaves(&ordered));
        (0..10_000).filter(|entry| entry % 16 == 0).for_each(|entry| ordered.remove(entry));
        assert!(matches!(&ordered, Ordered::Few(entries) if entries.is_empty()));
    }

    proptest! {
        /// Whoever comes and goes, in whatever order: it holds what a tree would, in its order, in few leaves.
        #[test]
        fn an_order_is_a_tree(
            steps in prop::collection::vec((0u32..10, 0u32..300, 0u32..300), 1..1000),
            coming in 2u32..9,
        ) {
            let (mut ordered, mut tree) = (Ordered::default(), BTreeSet::new());
            for (what, entry, other) in steps {
                let known = tree.range(entry..).next().copied().filter(|_| what >= coming);
                match (known, what % 3) {
                    (None, _) if what < coming && tree.insert(entry) => ordered.insert(entry),
                    (Some(known), 0) if tree.insert(other) => {
                        tree.remove(&known);
                        ordered.replace(known, other);
                    }
                    (Some(known), 1) => {
                        let some = tree.range(known..).step_by(1 + other as usize % 4).take(40);
                        let leaving: Vec<u32> = some.copied().collect();
                        leaving.iter().for_each(|entry| _ = tree.remove(entry));
                        ordered.remove_all(&leaving);
                    }
                    (Some(known), 2) => {
                        tree.remove(&known);
                        ordered.remove(known);
                    }
                    _ => {}
                }
                prop_assert_eq!(ordered.first(), tree.first().copied());
                prop_assert!(ordered.iter().eq(tree.iter().copied()));
                prop_assert!(leaves(&ordered) <= tree.len() / 8 + 1, "{} leaves of {}", leaves(&ordered), tree.len());
            }
        }
    }
}
