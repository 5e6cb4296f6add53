//! How long may it take to stand back.
//!
//! ```text
//!   finished(longest segment) ─▶ [plan, units: items of a lane 1 │ 2 │ 4 │ … → the last few] ─▶ their upper quartile
//! ```
//! A segment is a few steps of a plan for the items that a core takes at once: of one lane, up to some number that the device knows. So it grows with the items of a
//! lane, and then no more; how many lanes there are is nothing to it. What is asked for lanes of some size is answered by what was measured at that size, or else at
//! the next larger, and by nothing smaller: a launch whose lanes are larger than any that was measured is not interrupted, and is measured itself.

use crate::cost::Size;
use crate::plans::PlanIx;
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::IdMap;

/// Launches of each size of lanes that are remembered. Each tells the longest of hundreds of segments, which whoever interrupts hardly ever meets: so the upper
/// quartile of them counts, and one launch that something else on the machine disturbed does not stand for the others.
const LAST: usize = 16;
const QUARTILE: f64 = 0.75;

/// Items of a lane, in powers of two, on partitions of so many units.
type Of = (NonZeroU32, u32);

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Segments(IdMap<PlanIx, BTreeMap<Of, VecDeque<Duration>>>);

impl Segments {
    /// A launch of this size was over, the longest of whose segments took so long.
    pub(crate) fn learn(&mut self, plan: PlanIx, size: Size, units: NonZeroU32, longest: Duration) {
        let last = self.0.entry(plan).or_default().entry((units, of_a_lane(size))).or_default();
        last.truncate(LAST - 1);
        last.push_front(longest);
    }

    /// The longest that a launch of this size may take to stand back; `None` where nothing like it was measured.
    pub(crate) fn longest(&self, plan: PlanIx, size: Size, units: NonZeroU32) -> Option<Duration> {
        let larger = self.0.get(&plan)?.range((units, of_a_lane(size))..=(units, u32::MAX)).next();
        let mut last: Vec<Duration> = larger?.1.iter().copied().collect();
        last.sort_unstable();
        let rank = (QUARTILE * last.len() as f64).ceil() as usize;
        last.get(rank.saturating_sub(1)).copied()
    }

    /// A plan is taken for what another is, so many times longer, until its own launches tell.
    pub(crate) fn known_by(&mut self, plan: PlanIx, other: PlanIx, factor: f64) {
        let Some(mut known) = self.0.get(&other).cloned() else { return };
        known.values_mut().flatten().for_each(|longest| *longest = longest.mul_f64(factor));
        self.0.insert(plan, known);
    }

    pub(crate) fn forget(&mut self, plan: PlanIx) {
        self.0.remove(&plan);
    }
}

/// Items of a lane, rounded up.
fn of_a_lane(size: Size) -> u32 {
    size.items.div_ceil(size.lanes.max(1)).max(1).checked_next_power_of_two().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: PlanIx = PlanIx(0);
    const UNITS: NonZeroU32 = NonZeroU32::MIN;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn size(lanes: u32, items: u32) -> Size {
        Size { lanes, items }
    }

    #[test]
    fn lanes_are_nothing_to_it_and_one_that_was_disturbed_does_not_stand_for_the_others() {
        let mut segments = Segments::default();
        assert_eq!(segments.longest(PLAN, size(1, 1), UNITS), None);
        [90, 2].into_iter().for_each(|took| segments.learn(PLAN, size(1, 1), UNITS, ms(took)));
        assert_eq!(segments.longest(PLAN, size(32, 32), UNITS), Some(ms(90)));
        [3, 2].into_iter().for_each(|took| segments.learn(PLAN, size(2, 2), UNITS, ms(took)));
        assert_eq!(segments.longest(PLAN, size(1, 1), UNITS), Some(ms(3)));
        (0..LAST).for_each(|_| segments.learn(PLAN, size(2, 2), UNITS, ms(1)));
        assert_eq!(segments.longest(PLAN, size(1, 1), UNITS), Some(ms(1)), "the last ones count");
    }

    #[test]
    fn larger_lanes_answer_for_smaller_ones_and_never_the_other_way_round() {
        let mut segments = Segments::default();
        segments.learn(PLAN, size(1, 7), UNITS, ms(4));
        assert_eq!(segments.longest(PLAN, size(2, 6), UNITS), Some(ms(4)));
        assert_eq!(segments.longest(PLAN, size(1, 9), UNITS), None);
        assert_eq!(
            segments.longest(PLAN, size(1, 1), NonZeroU32::new(2).unwrap()),
            None,
            "cores tell for themselves"
        );
    }

    #[test]
    fn a_plan_of_one_tenants_own_is_known_by_the_shared_one_until_it_tells() {
        let mut segments = Segments::default();
        segments.learn(PLAN, size(1, 1), UNITS, ms(2));
        segments.known_by(PlanIx(1), PLAN, 3.0);
        assert_eq!(segments.longest(PlanIx(1), size(1, 1), UNITS), Some(ms(6)));
        segments.forget(PlanIx(1));
        assert_eq!(segments.longest(PlanIx(1), size(1, 1), UNITS), None);
    }
}
