//! What a plan's launches cost at every size, from those that were measured.
//!
//! ```text
//!   lanes │ 4   ·   ?   ▪        ▪ measured     ? guessed: the nearest one's ratio to the shape, and a quarter more
//!         │ 2   ▪   ?   ·        kept between its neighbours: more lanes or items never cost less
//!         │ 1   ▪   ▪   ?
//!         └──────────────── items
//! ```
//! Costs stand at the corners of a grid (`steps`) and are interpolated between them. Where measurements contradict each other, as a slow launch of one
//! lane and a quick one of eight, the later one counts and the earlier is moved: so one bad moment at a size that is seldom run does not make everything larger dear
//! for ever.

use super::Size;
use super::steps::{between, between_items, corner, half_octave, item_corner, item_step};

/// What a size never run is taken for, over what the nearest one suggests: to be cautious until it is measured.
pub(super) const GUESSED: f64 = 1.25;

/// Sizes that share measurements.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Step {
    lanes: usize,
    items: usize,
}

impl Step {
    pub(super) fn of(size: Size) -> Step {
        Step { lanes: half_octave(size.lanes), items: item_step(size.items) }
    }

    /// The first size of them.
    pub(super) fn corner(self) -> Size {
        Size { lanes: corner(self.lanes), items: item_corner(self.items) }
    }

    fn distance(self, other: Step) -> usize {
        self.lanes.abs_diff(other.lanes) + self.items.abs_diff(other.items)
    }

    /// Whether a launch of this step is nowhere larger than one of the other.
    fn within(self, other: Step) -> bool {
        self.lanes <= other.lanes && self.items <= other.items
    }
}

/// Seconds at every corner, rows of lanes.
#[derive(Clone, Debug)]
pub(super) struct Surface {
    items: usize,
    seconds: Vec<f64>,
}

impl Surface {
    /// `cells`: where it was measured, as what ratio to the shape, and how late. `most` is the largest launch that will be asked for.
    pub(super) fn new(cells: &[(Step, f64, u64)], most: Size, shape: impl Fn(Size) -> f64) -> Surface {
        let (lanes, items) = (half_octave(most.lanes) + 2, item_step(most.items) + 2);
        let at = |step: Step| shape(step.corner());
        let known = agree(cells, &at);
        // The least that anything at least as large was measured to cost.
        let mut above = vec![f64::INFINITY; lanes * items];
        for &(step, seconds) in &known {
            if step.lanes < lanes && step.items < items {
                above[step.lanes * items + step.items] = seconds;
            }
        }
        let measured = above.clone();
        for row in (0..lanes).rev() {
            for column in (0..items).rev() {
                let here = row * items + column;
                let up = if row + 1 < lanes { above[here + items] } else { f64::INFINITY };
                let right = if column + 1 < items { above[here + 1] } else { f64::INFINITY };
                above[here] = above[here].min(up).min(right);
            }
        }
        let mut surface = Surface { items, seconds: vec![0.0; lanes * items] };
        for row in 0..lanes {
            for column in 0..items {
                let here = row * items + column;
                let below = if row > 0 { surface.seconds[here - items] } else { 0.0 };
                let left = if column > 0 { surface.seconds[here - 1] } else { 0.0 };
                let step = Step { lanes: row, items: column };
                surface.seconds[here] = if measured[here].is_finite() {
                    measured[here]
                } else {
                    let nearest = cells.iter().min_by_key(|(other, _, _)| other.distance(step));
                    let guess = at(step) * nearest.map_or(1.0, |(_, ratio, _)| *ratio) * GUESSED;
                    guess.max(below).max(left).min(above[here])
                };
            }
        }
        surface
    }

    /// Seconds for a launch of this size.
    pub(super) fn at(&self, size: Size) -> f64 {
        let rows = self.seconds.len() / self.items;
        let (row, up) = between(size.lanes, rows);
        let (column, right) = between_items(size.items, self.items);
        let corner = |row: usize, column: usize| self.seconds[row * self.items + column];
        let low = corner(row, column) * (1.0 - right) + corner(row, column + 1) * right;
        let high = corner(row + 1, column) * (1.0 - right) + corner(row + 1, column + 1) * right;
        low * (1.0 - up) + high * up
    }
}

/// Measurements that do not contradict each other: from the latest on, each is moved between those that are later.
fn agree(cells: &[(Step, f64, u64)], at: &impl Fn(Step) -> f64) -> Vec<(Step, f64)> {
    let mut latest: Vec<&(Step, f64, u64)> = cells.iter().collect();
    latest.sort_by_key(|(_, _, clock)| std::cmp::Reverse(*clock));
    let mut agreed: Vec<(Step, f64)> = Vec::with_capacity(latest.len());
    for &&(step, ratio, _) in &latest {
        let mut seconds = at(step) * ratio;
        for &(other, bound) in &agreed {
            if other.within(step) {
                seconds = seconds.max(bound);
            } else if step.within(other) {
                seconds = seconds.min(bound);
            }
        }
        agreed.push((step, seconds));
    }
    agreed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOST: Size = Size { lanes: 32, items: 128 };

    fn by_items(size: Size) -> f64 {
        f64::from(size.lanes + size.items)
    }

    #[test]
    fn what_was_measured_is_answered_and_between_two_it_is_between() {
        let one_of = |lanes, items| Step::of(Size { lanes, items });
        let cells = vec![(one_of(1, 4), 2.0, 1), (one_of(1, 8), 4.0, 2)];
        let surface = Surface::new(&cells, MOST, by_items);
        let at = |items| surface.at(Size { lanes: 1, items });
        assert_eq!((at(4), at(8)), (10.0, 36.0));
        assert!(at(4) < at(5) && at(5) < at(6) && at(6) <= at(8));
    }

    #[test]
    fn where_measurements_contradict_each_other_the_later_counts() {
        let (small, large) = (Step::of(Size { lanes: 1, items: 1 }), Step::of(Size { lanes: 8, items: 8 }));
        let stale = Surface::new(&[(small, 100.0, 1), (large, 1.0, 2)], MOST, by_items);
        assert_eq!(stale.at(Size { lanes: 8, items: 8 }), 16.0);
        assert_eq!(stale.at(Size { lanes: 1, items: 1 }), 16.0, "no dearer than the larger launch");
        let fresh = Surface::new(&[(small, 100.0, 3), (large, 1.0, 2)], MOST, by_items);
        assert_eq!(fresh.at(Size { lanes: 8, items: 8 }), 200.0);
    }

    proptest! {
        /// Whatever was measured: more lanes or items never cost less, and the latest measurement is kept.
        #[test]
        fn more_never_costs_less(
            cells in prop::collection::btree_map((1u32..=32, 1u32..=128), 0.1f64..10.0, 1..12),
            one in (1u32..=32, 1u32..=128), more in (0u32..32, 0u32..128),
        ) {
            let cells: std::collections::BTreeMap<Step, f64> =
                cells.into_iter().map(|((lanes, items), ratio)| (Step::of(Size { lanes, items }), ratio)).collect();
            let cells: Vec<(Step, f64, u64)> =
                cells.into_iter().enumerate().map(|(clock, (step, ratio))| (step, ratio, clock as u64)).collect();
            let &(last, ratio, _) = cells.last().unwrap();
            let surface = Surface::new(&cells, MOST, by_items);
            let small = Size { lanes: one.0, items: one.1 };
            let large = Size { lanes: (one.0 + more.0).min(32), items: (one.1 + more.1).min(128) };
            prop_assert!(surface.at(small) <= surface.at(large) * (1.0 + 1e-12));
            let last = last.corner();
            prop_assert!((surface.at(last) / (by_items(last) * ratio) - 1.0).abs() < 1e-9);
        }
    }
}
