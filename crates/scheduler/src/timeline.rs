//! One partition's future as a line of launches, each with a cost and a moment by which it must be over.
//!
//! ```text
//!   free ─▶ [3 ms, due 9] ─▶ [2 ms, due 12] ─▶ [4 ms, due 30]        the device is free at 2
//!   over      5  (4 left)      7  (5 left)      11  (19 left)        room: 4, what all of them can be pushed back
//! ```
//! *Room* is the least of (due − everything up to there), less the moment when the device is free. A line keeps its dues as long as its room is not
//! negative: each launch begins when the one before is over, so this is the demand-bound test, exact for a device that runs one launch after the other.
//!
//! A treap, in which every node knows the cost of its subtree and the least room in it: every question and every change is O(log n). Positions are
//! given from outside and never change, so the order need not be that of the dues; the test holds in any order.

use std::time::Duration;
use tessera_core::Moment;

/// A place in a line: launches run in this order.
pub(crate) type Place = (Moment, u64);

/// Nanoseconds, signed and wide: room may be negative, and a line of the longest launches does not overflow.
pub(crate) type Nanos = i128;

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    place: Place,
    cost: Nanos,
    due: Nanos,
    left: u32,
    right: u32,
    priority: u64,
    /// Cost of the subtree.
    total: Nanos,
    /// The least of (due − costs up to there, from the subtree's start) in the subtree.
    room: Nanos,
}

/// What a new launch at some place would meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Around {
    /// Cost of all before the place, what stands on it included.
    pub(crate) until: Nanos,
    /// The least of (due − everything up to there) of all behind it; the largest number when there are none.
    pub(crate) room_behind: Nanos,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Timeline {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
}

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline { nodes: Vec::new(), free: Vec::new(), root: NONE }
    }
}

impl Timeline {
    /// Puts a launch at a place where none is.
    pub(crate) fn insert(&mut self, place: Place, cost: Duration, due: Moment) {
        let (before, behind) = self.split(self.root, place);
        let node = Node {
            place,
            cost: nanos(cost),
            due: Nanos::from(due.0),
            left: NONE,
            right: NONE,
            priority: priority(place.1),
            total: 0,
            room: 0,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("fewer launches than 2³² are planned")
            }
        };
        self.sum_up(at);
        let front = self.join(before, at);
        self.root = self.join(front, behind);
    }

    /// Takes away what stands at a place.
    pub(crate) fn remove(&mut self, place: Place) {
        let (before, rest) = self.split(self.root, place);
        let (taken, behind) = self.split(rest, (place.0, place.1 + 1));
        self.free.extend((taken != NONE).then_some(taken));
        self.root = self.join(before, behind);
    }

    /// Changes the cost and the due of what stands at a place.
    pub(crate) fn change(&mut self, place: Place, cost: Duration, due: Moment) {
        self.change_below(self.root, place, nanos(cost), Nanos::from(due.0));
    }

    /// What stands before and behind a place.
    pub(crate) fn around(&self, place: Place) -> Around {
        let mut around = Around { until: 0, room_behind: Nanos::MAX };
        let mut at = self.root;
        while let Some(node) = self.node(at) {
            let to_here = self.total(node.left) + node.cost;
            if node.place <= place {
                around.until += to_here;
                at = node.right;
            } else {
                let right = self.room(node.right).saturating_sub(to_here);
                let here = (node.due - to_here).min(right).saturating_sub(around.until);
                around.room_behind = around.room_behind.min(here);
                at = node.left;
            }
        }
        around
    }

    /// The first place of the line.
    pub(crate) fn first(&self) -> Option<Place> {
        let mut at = self.node(self.root)?;
        while let Some(left) = self.node(at.left) {
            at = left;
        }
        Some(at.place)
    }

    /// Cost of the whole line.
    pub(crate) fn cost(&self) -> Nanos {
        self.total(self.root)
    }

    /// The least of (due − everything up to there); the largest number for an empty line.
    pub(crate) fn least_room(&self) -> Nanos {
        self.room(self.root)
    }

    fn node(&self, at: u32) -> Option<&Node> {
        self.nodes.get(at as usize)
    }

    fn total(&self, at: u32) -> Nanos {
        self.node(at).map_or(0, |node| node.total)
    }

    fn room(&self, at: u32) -> Nanos {
        self.node(at).map_or(Nanos::MAX, |node| node.room)
    }

    fn sum_up(&mut self, at: u32) {
        let node = &self.nodes[at as usize];
        let to_here = self.total(node.left) + node.cost;
        let total = to_here + self.total(node.right);
        let right = self.room(node.right).saturating_sub(to_here);
        let room = self.room(node.left).min(node.due - to_here).min(right);
        let node = &mut self.nodes[at as usize];
        (node.total, node.room) = (total, room);
    }

    /// Everything before a place, and the rest.
    fn split(&mut self, at: u32, place: Place) -> (u32, u32) {
        let Some(node) = self.node(at) else { return (NONE, NONE) };
        let (left, right) = (node.left, node.right);
        if node.place < place {
            let (first, second) = self.split(right, place);
            self.nodes[at as usize].right = first;
            self.sum_up(at);
            (at, second)
        } else {
            let (first, second) = self.split(left, place);
            self.nodes[at as usize].left = second;
            self.sum_up(at);
            (first, at)
        }
    }

    /// Two lines as one, all of the first before all of the second.
    fn join(&mut self, first: u32, second: u32) -> u32 {
        let (Some(one), Some(two)) = (self.node(first), self.node(second)) else {
            return if first == NONE { second } else { first };
        };
        if one.priority > two.priority {
            let right = one.right;
            self.nodes[first as usize].right = self.join(right, second);
            self.sum_up(first);
            first
        } else {
            let left = two.left;
            self.nodes[second as usize].left = self.join(first, left);
            self.sum_up(second);
            second
        }
    }

    fn change_below(&mut self, at: u32, place: Place, cost: Nanos, due: Nanos) {
        let Some(node) = self.nodes.get_mut(at as usize) else { return };
        let (here, left, right) = (node.place, node.left, node.right);
        match place.cmp(&here) {
            std::cmp::Ordering::Equal => (node.cost, node.due) = (cost, due),
            std::cmp::Ordering::Less => self.change_below(left, place, cost, due),
            std::cmp::Ordering::Greater => self.change_below(right, place, cost, due),
        }
        self.sum_up(at);
    }
}

/// A length as the line counts it.
pub(crate) fn nanos(length: Duration) -> Nanos {
    Nanos::try_from(length.as_nanos()).unwrap_or(Nanos::MAX)
}

/// What a line counts as a length; nothing where it is negative.
pub(crate) fn length(nanos: Nanos) -> Duration {
    Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
}

/// As good as random, and the same in every run: splitmix64 (Steele et al., 2014).
fn priority(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn depth(line: &Timeline, at: u32) -> usize {
        line.node(at).map_or(0, |node| 1 + depth(line, node.left).max(depth(line, node.right)))
    }

    #[test]
    fn the_picture_above_is_true() {
        let mut line = Timeline::default();
        let ms = Duration::from_millis;
        for (number, (cost, due)) in [(3, 9), (2, 12), (4, 30)].into_iter().enumerate() {
            let due = Moment::at(ms(due));
            line.insert((due, number as u64), ms(cost), due);
        }
        assert_eq!(line.least_room() - nanos(ms(2)), nanos(ms(4)));
        assert_eq!(line.cost(), nanos(ms(9)));
    }

    #[test]
    fn a_line_of_launches_in_order_stays_shallow() {
        let mut line = Timeline::default();
        for number in 0..10_000 {
            line.insert((Moment(number), number), Duration::from_nanos(1), Moment(number));
        }
        assert!(depth(&line, line.root) < 45, "{} levels", depth(&line, line.root));
        (0..10_000).for_each(|number| line.remove((Moment(number), number)));
        assert_eq!((line.first(), line.cost(), line.least_room()), (None, 0, Nanos::MAX));
        line.insert((Moment(1), 1), Duration::ZERO, Moment(1));
        assert_eq!(line.nodes.len(), 10_000, "places of what left are used again");
    }

    proptest! {
        /// Whatever is put, changed and taken: the answers are those of adding up by hand.
        #[test]
        fn a_line_answers_like_a_list(steps in prop::collection::vec((0u8..4, 0u64..40, 0u64..50, 0u64..2000), 1..200)) {
            let (mut line, mut list) = (Timeline::default(), BTreeMap::<Place, (u64, u64)>::new());
            for (number, (what, at, cost, due)) in steps.into_iter().enumerate() {
                let found = list.keys().copied().nth(at as usize % list.len().max(1));
                match (what, found) {
                    (0 | 1, _) | (_, None) => {
                        let place = (Moment(at), number as u64);
                        line.insert(place, Duration::from_nanos(cost), Moment(due));
                        list.insert(place, (cost, due));
                    }
                    (2, Some(place)) => {
                        line.remove(place);
                        list.remove(&place);
                    }
                    (_, Some(place)) => {
                        line.change(place, Duration::from_nanos(cost), Moment(due));
                        list.insert(place, (cost, due));
                    }
                }
                let place = (Moment(at), u64::MAX);
                let (mut sum, mut expected) = (0, Around { until: 0, room_behind: Nanos::MAX });
                let mut least = Nanos::MAX;
                for (&here, &(cost, due)) in &list {
                    sum += Nanos::from(cost);
                    let room = Nanos::from(due) - sum;
                    least = least.min(room);
                    if here <= place {
                        expected.until = sum;
                    } else {
                        expected.room_behind = expected.room_behind.min(room);
                    }
                }
                prop_assert_eq!(line.around(place), expected);
                prop_assert_eq!((line.least_room(), line.cost()), (least, sum));
                prop_assert_eq!(line.first(), list.keys().next().copied());
            }
        }
    }
}
