//! One owner's loose requests of one plan, in order, the first few beside each other in memory.
//!
//!   heads [● ● ● ● ● · · ·]  rest (tree) ● ● ● ● ● …      every head before all of the rest
//!
//! A launch is filled with a few requests of each of many owners. From a tree each would cost a walk down through memory that no cache holds; the heads
//! are read in one go. They are filled up from the rest when requests are taken out, which nobody waits for.

use crate::queues::Key;
use std::collections::{BTreeSet, btree_set};
use std::iter::{Chain, Copied, Flatten};

/// With the tree they are eight lines of the cache.
const HEADS: usize = 7;

/// See the module's text.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Shelf {
    /// In order, without gaps.
    heads: [Option<Key>; HEADS],
    rest: BTreeSet<Key>,
}

impl Shelf {
    pub(crate) fn insert(&mut self, key: Key) {
        let at = self.heads.iter().take_while(|head| head.is_some_and(|head| head < key)).count();
        let is_behind = self.heads.get(at).is_none_or(Option::is_none);
        if is_behind && (at == HEADS || self.rest.first().is_some_and(|first| *first < key)) {
            self.rest.insert(key);
            return;
        }
        self.rest.extend(self.heads[HEADS - 1].take());
        self.heads[at..].rotate_right(1);
        self.heads[at] = Some(key);
    }

    pub(crate) fn remove(&mut self, key: Key) {
        let Some(at) = self.heads.iter().position(|head| *head == Some(key)) else {
            self.rest.remove(&key);
            return;
        };
        self.heads[at..].rotate_left(1);
        self.heads[HEADS - 1] = None;
        let left = self.heads.iter().flatten().count();
        if left <= HEADS / 2 {
            self.heads[left..].iter_mut().for_each(|head| *head = self.rest.pop_first());
        }
    }

    pub(crate) fn first(&self) -> Option<Key> {
        self.heads[0]
    }

    /// In order. Reads all heads at once: they come from memory together, and one by one they would not.
    pub(crate) fn iter(&self) -> Keys<'_> {
        self.heads.iter().flatten().copied().chain(self.rest.iter().copied())
    }
}

/// The requests of a shelf.
pub(crate) type Keys<'a> =
    Chain<Copied<Flatten<std::slice::Iter<'a, Option<Key>>>>, Copied<btree_set::Iter<'a, Key>>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forming::Rider;
    use proptest::prelude::*;
    use tessera_core::{Moment, TenantId};

    fn key(number: u64) -> Key {
        Key { urgency: Moment(number / 3), number, rider: Rider::one(number, TenantId(0)), due: None }
    }

    proptest! {
        /// Whatever comes and goes, in whatever order: a shelf holds what a tree would, in its order.
        #[test]
        fn a_shelf_is_a_tree(steps in prop::collection::vec((any::<bool>(), 0u64..60), 1..300)) {
            let (mut shelf, mut tree) = (Shelf::default(), BTreeSet::new());
            for (comes, number) in steps {
                match comes {
                    true if tree.insert(key(number)) => shelf.insert(key(number)),
                    false if tree.remove(&key(number)) => shelf.remove(key(number)),
                    _ => {}
                }
                prop_assert!(shelf.iter().eq(tree.iter().copied()));
                prop_assert_eq!(shelf.first(), tree.first().copied());
            }
        }
    }
}
