//! Where a launch may be interrupted: runs of steps of about equal work.
//!
//! Between segments the scheduler may let something more urgent go first, which waits for no more than the longest of them. So a plan is cut as finely
//! as its steps allow, but not into less than is worth a look whether something is urgent.

use std::ops::Range;

/// Work per item that is worth a segment: some hundreds of microseconds of one core. A look takes some tens of nanoseconds.
const WORTH_CUTTING_FLOPS: u64 = 16_000_000;

/// Runs that cover the steps in order, given each step's work, whose sum can be counted.
pub(crate) fn segments(flops: &[u64]) -> Vec<Range<usize>> {
    let mut left: u64 = flops.iter().sum();
    let count = (left / WORTH_CUTTING_FLOPS).max(1);
    let mut segments = Vec::new();
    let (mut start, mut done) = (0, 0);
    for (step, work) in flops.iter().enumerate() {
        done += work;
        // Shares are of what is left, so that one dear step does not leave crumbs behind it.
        let open = count - segments.len() as u64;
        let share = u128::from(done) * u128::from(open);
        if open > 1 && share >= u128::from(left) && step + 1 < flops.len() {
            segments.push(start..step + 1);
            (start, left, done) = (step + 1, left - done, 0);
        }
    }
    segments.push(start..flops.len());
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_plan_is_one_segment() {
        let whole = |steps: usize| vec![Range { start: 0, end: steps }];
        assert_eq!(segments(&[1000, 2000, 0]), whole(3));
        assert_eq!(segments(&[]), whole(0));
    }

    #[test]
    fn a_large_plan_is_cut_into_equal_shares() {
        let cut = segments(&[WORTH_CUTTING_FLOPS / 4; 40]);
        assert_eq!(cut.len(), 10);
        assert!(cut.iter().all(|run| run.len() == 4));
        assert_eq!(segments(&[WORTH_CUTTING_FLOPS; 400]).len(), 400, "no finer than its steps");
    }

    #[test]
    fn one_dear_step_does_not_make_empty_segments() {
        let cut = segments(&[0, 10 * WORTH_CUTTING_FLOPS, 0, 0, 0]);
        assert!(cut.iter().all(|run| !run.is_empty()));
        assert_eq!((cut.first().unwrap().start, cut.last().unwrap().end), (0, 5));
    }
}
