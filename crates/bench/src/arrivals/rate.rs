//! How the rate of arrivals changes with time.

use std::f64::consts::TAU;
use std::time::Duration;

/// Requests per second, over time.
#[derive(Clone, PartialEq, Debug)]
pub enum Rate {
    /// Always the same.
    Steady(f64),
    /// A wave that begins at its trough: `mean · (1 − swing · cos(2πt/period))`.
    Diurnal {
        /// Over a whole period.
        mean: f64,
        /// From 0, none, to 1: then the trough has no arrivals.
        swing: f64,
        /// A day, or what stands for one.
        period: Duration,
    },
    /// Each rate from its moment on, in order; none before the first. A burst is a step of its own.
    Steps(Vec<(Duration, f64)>),
}

impl Rate {
    /// So many times the rate, at every moment.
    pub fn times(&self, factor: f64) -> Rate {
        match self {
            Rate::Steady(rate) => Rate::Steady(rate * factor),
            Rate::Diurnal { mean, swing, period } => {
                Rate::Diurnal { mean: mean * factor, swing: *swing, period: *period }
            }
            Rate::Steps(steps) => {
                Rate::Steps(steps.iter().map(|(from, rate)| (*from, rate * factor)).collect())
            }
        }
    }

    /// When so many arrivals are to be expected since the start; `None` when there will never be.
    pub(super) fn when(&self, expected: f64) -> Option<Duration> {
        let seconds = match self {
            Rate::Steady(rate) => expected / rate,
            Rate::Diurnal { mean, swing, period } => {
                let period = period.as_secs_f64();
                period * wave(expected / (mean * period), *swing)
            }
            Rate::Steps(steps) => return in_steps(steps, expected),
        };
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// The time, in periods, at which the summed wave of mean one reaches `sum`: t − swing·sin(2πt)/2π = sum, Kepler's equation. By
/// Newton's method where it stays inside what is known to hold the answer, else by halving.
fn wave(sum: f64, swing: f64) -> f64 {
    if !sum.is_finite() {
        return sum;
    }
    let (mut low, mut high) = (sum - swing / TAU, sum + swing / TAU);
    let mut time = sum;
    for _ in 0..64 {
        let over = time - swing * (TAU * time).sin() / TAU - sum;
        // A hundredth of a microsecond of a day.
        if over.abs() < 1e-13 {
            break;
        }
        if over > 0.0 {
            high = time;
        } else {
            low = time;
        }
        let newton = time - over / (1.0 - swing * (TAU * time).cos());
        time = if low < newton && newton < high { newton } else { (low + high) / 2.0 };
    }
    time.max(0.0)
}

fn in_steps(steps: &[(Duration, f64)], expected: f64) -> Option<Duration> {
    let mut left = expected;
    for (index, &(from, rate)) in steps.iter().enumerate() {
        let needs = left / rate;
        match steps.get(index + 1) {
            Some((until, _)) => {
                let length = until.saturating_sub(from).as_secs_f64();
                if rate > 0.0 && needs < length {
                    return Some(from + Duration::from_secs_f64(needs));
                }
                left -= rate.max(0.0) * length;
            }
            None => return from.checked_add(Duration::try_from_secs_f64(needs).ok()?),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn diurnal(swing: f64) -> Rate {
        Rate::Diurnal { mean: 2.0, swing, period: DAY }
    }

    #[test]
    fn a_day_has_its_mean_and_noon_has_more_of_it_than_midnight() {
        for swing in [0.0, 0.5, 1.0] {
            let whole = diurnal(swing).when(2.0 * 86_400.0).unwrap();
            assert!(whole.abs_diff(DAY) < Duration::from_micros(1), "{swing}: {whole:?}");
            let half = diurnal(swing).when(86_400.0).unwrap();
            assert!(half.abs_diff(DAY / 2) < Duration::from_micros(1), "{swing}: {half:?}");
        }
        // A quarter of the day brings 1/4 − swing/2π of its arrivals.
        let quarter = diurnal(0.5).when(2.0 * 86_400.0 * (0.25 - 0.5 / TAU)).unwrap();
        assert!(quarter.abs_diff(DAY / 4) < Duration::from_micros(1), "{quarter:?}");
    }

    #[test]
    fn later_arrivals_are_later() {
        for swing in [0.3, 0.99, 1.0] {
            let times: Vec<_> =
                (0..10_000).map(|n| diurnal(swing).when(f64::from(n) * 40.0).unwrap()).collect();
            assert!(times.is_sorted(), "{swing}");
        }
    }

    #[test]
    fn steps_add_up_and_end_where_the_last_rate_is_none() {
        let second = Duration::from_secs;
        let rate = Rate::Steps(vec![(second(1), 2.0), (second(3), 0.0), (second(5), 1.0)]);
        assert_eq!(rate.when(2.0), Some(second(2)));
        assert_eq!(rate.when(6.0), Some(second(7)));
        assert_eq!(Rate::Steps(vec![(second(0), 1.0), (second(1), 0.0)]).when(2.0), None);
        assert_eq!(Rate::Steady(0.0).when(1.0), None);
        assert_eq!(rate.times(2.0).when(4.0), Some(second(2)));
    }
}
