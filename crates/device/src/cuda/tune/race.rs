//! Which of several kernels is fastest, from times that scatter.
//!
//! ```text
//!   a look at all ─▶ those near the best, and the rule's ─▶ rounds, forwards and backwards in turn ─▶ medians
//! ```
//! The rule's kernel is the first. Another takes its place only when its median is clearly below the rule's best: what is within noise stays as it is, so that
//! choices do not change from one card to the next without a reason.

/// Rounds of those that are near the best, the look included.
const ROUNDS: usize = 5;
/// What took no more than so much of the best at the first look is looked at again.
const NEAR: f64 = 1.1;
/// What another kernel takes at most, of the rule's best time.
const CLEARLY: f64 = 0.98;

/// Who won.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Won {
    /// Its place among the kernels; the rule's is 0.
    pub(super) place: usize,
    /// The median of what the rule's took.
    pub(super) ruled: f64,
    /// The median of what it took itself.
    pub(super) chosen: f64,
}

/// Races `count` kernels, at least one; `time` runs one of them and tells how long it took. `None` when there was no time left before the end.
pub(super) fn race<E>(
    count: usize,
    may_go_on: &dyn Fn() -> bool,
    time: &mut dyn FnMut(usize) -> Result<f64, E>,
) -> Result<Option<Won>, E> {
    let mut times: Vec<Vec<f64>> = vec![Vec::with_capacity(ROUNDS); count];
    let mut order: Vec<usize> = (0..count).collect();
    for round in 0..ROUNDS {
        for &place in &order {
            if !may_go_on() {
                return Ok(None);
            }
            times[place].push(time(place)?);
        }
        if round == 0 {
            let best = times.iter().map(|times| times[0]).fold(f64::INFINITY, f64::min);
            order.retain(|&place| place == 0 || times[place][0] <= best * NEAR);
            if order.len() == 1 {
                break;
            }
        }
        order.reverse();
    }
    let ruled = median(&times[0]);
    let bar = times[0].iter().copied().fold(f64::INFINITY, f64::min) * CLEARLY;
    let others = order.into_iter().filter(|&place| place != 0).map(|place| (place, median(&times[place])));
    let fastest = others.min_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, took)| *took < bar);
    let (place, chosen) = fastest.unwrap_or((0, ruled));
    Ok(Some(Won { place, ruled, chosen }))
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::convert::Infallible;

    /// Races kernels that take these times, one after the other and again from the start.
    fn raced(times: &[&[f64]]) -> (Won, Vec<usize>) {
        let mut runs = vec![0; times.len()];
        let won = race::<Infallible>(times.len(), &|| true, &mut |place| {
            runs[place] += 1;
            Ok(times[place][(runs[place] - 1) % times[place].len()])
        });
        (won.unwrap().unwrap(), runs)
    }

    #[test]
    fn the_fastest_wins_and_what_is_far_off_runs_once() {
        let (won, runs) = raced(&[&[10.0], &[9.0], &[8.0], &[12.0]]);
        assert_eq!(won, Won { place: 2, ruled: 10.0, chosen: 8.0 });
        assert_eq!(runs, [5, 1, 5, 1]);
    }

    #[test]
    fn the_rule_stays_when_nothing_is_faster_beyond_the_noise() {
        assert_eq!(raced(&[&[10.0], &[9.9], &[11.0]]).0.place, 0);
        let (won, _) = raced(&[&[10.0, 9.0, 10.0], &[9.2]]);
        assert_eq!(won.place, 0, "the rule's own best is as good");
        let (won, _) = raced(&[&[10.0], &[9.0, 10.0, 10.0, 10.0, 9.0]]);
        assert_eq!(won.place, 0, "a lucky look is no win");
    }

    #[test]
    fn a_rule_that_is_far_ahead_runs_once() {
        assert_eq!(raced(&[&[10.0], &[12.0]]), (Won { place: 0, ruled: 10.0, chosen: 10.0 }, vec![1, 1]));
    }

    #[test]
    fn a_race_that_must_end_early_has_no_winner() {
        let left = Cell::new(7u32);
        let may_go_on = || left.replace(left.get().saturating_sub(1)) > 0;
        let won = race::<Infallible>(3, &may_go_on, &mut |place| Ok([10.0, 9.5, 9.0][place]));
        assert_eq!(won, Ok(None));
    }

    #[test]
    fn an_error_ends_it() {
        assert_eq!(race(2, &|| true, &mut |_| Err("lost")), Err("lost"));
    }
}
