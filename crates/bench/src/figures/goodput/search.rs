//! The search for the highest rate that is good, in few runs.
//!
//! ```text
//!   rate │            ✗                    up until one is too high, from the lowest or from what a closed loop answers
//!        │        ✓       ✗   ✗            then where what was in time at a rate that was too high says
//!        │   ✓                  ✓ ✓        then step by step from there; or halfway, where that says nothing
//!        └──────────────────────────▶ runs
//! ```

use super::EASE;
use anyhow::{Result, ensure};

/// Rates are found to this part of themselves.
const CLOSE: f64 = 0.05;

/// Rates grow by this factor until one is too high: from a rate that says nothing, and from one that was estimated.
const GROWTH: f64 = 2.0;
const GROWTH_OF_ESTIMATE: f64 = 1.5;

/// No machine of ours answers more than this.
const MOST: f64 = 1e7;

/// A search, to [`CLOSE`]. See the module's text.
pub(super) struct Search {
    lowest: f64,
    /// Where it begins.
    first: f64,
    growth: f64,
    /// Zero while none is known.
    good: f64,
    bad: Option<f64>,
    /// By what part of it the next rate differs from the last.
    step: f64,
    last: Option<Last>,
}

/// How the last rate was.
#[derive(Clone, Copy)]
enum Last {
    Good,
    /// With so many requests a second in time, where that is known.
    Bad(Option<f64>),
}

impl Search {
    fn from(lowest: f64) -> Search {
        Search { lowest, first: lowest, growth: GROWTH, good: 0.0, bad: None, step: 2.0 * CLOSE, last: None }
    }

    /// From a closed loop's rate, where one is known and above the lowest.
    pub(super) fn near(capacity: Option<f64>, lowest: f64) -> Search {
        match capacity.map(|capacity| EASE * capacity).filter(|first| *first > lowest) {
            Some(first) => Search { first, growth: GROWTH_OF_ESTIMATE, ..Search::from(lowest) },
            None => Search::from(lowest),
        }
    }

    /// The highest rate so far that was good; zero while none was.
    pub(super) fn good(&self) -> f64 {
        self.good
    }

    /// Whether another rate is to be tried.
    pub(super) fn goes_on(&self) -> bool {
        self.bad.is_none_or(|bad| bad > if self.good > 0.0 { self.good * (1.0 + CLOSE) } else { self.lowest })
    }

    /// The rate to try.
    pub(super) fn next(&self) -> Result<Option<f64>> {
        let good = self.good;
        let rate = match (self.bad, self.last) {
            _ if !self.goes_on() => return Ok(None),
            (None, None) => self.first,
            (None, _) => good * self.growth,
            (Some(bad), last) => self.between(bad, last),
        };
        ensure!(
            rate <= MOST,
            "every rate up to {good:.0} a second is in time; the SLO is too loose to find a limit"
        );
        Ok(Some(rate))
    }

    /// A rate below one that is too high, and above the best one that is not.
    fn between(&self, bad: f64, last: Option<Last>) -> f64 {
        let halfway = (self.good + bad) / 2.0;
        let wanted = match last {
            Some(Last::Good) => self.good * (1.0 + self.step),
            Some(Last::Bad(Some(in_time))) => in_time.min(bad / (1.0 + self.step)),
            Some(Last::Bad(None)) | None => halfway,
        };
        if self.good == 0.0 {
            return wanted.max(bad / (GROWTH * GROWTH)).min(bad / (1.0 + self.step)).max(self.lowest);
        }
        let inside = wanted > self.good * (1.0 + CLOSE / 2.0) && wanted < bad / (1.0 + CLOSE / 2.0);
        if inside { wanted } else { halfway }
    }

    /// A rate was good or not, with so many requests a second in time, where that is known.
    pub(super) fn hear(&mut self, rate: f64, is_good: bool, in_time: Option<f64>) {
        if let (Some(_), Some(_)) = (self.bad, self.last) {
            self.step *= 2.0;
        }
        if is_good {
            (self.good, self.last) = (rate, Some(Last::Good));
        } else {
            (self.bad, self.last) = (Some(rate), Some(Last::Bad(in_time)));
        }
    }
}

/// The highest rate that is good, from `lowest` up; zero when `lowest` is not.
pub(in crate::figures) fn highest(lowest: f64, is_good: &mut dyn FnMut(f64) -> Result<bool>) -> Result<f64> {
    let mut search = Search::from(lowest);
    while let Some(rate) = search.next()? {
        let good = is_good(rate)?;
        search.hear(rate, good, None);
    }
    Ok(search.good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_a_closed_loops_rate_the_limit_is_found_in_a_few_runs() {
        // What is in time at a rate that is too high: the limit itself, less, since queues grow, or nothing.
        for (capacity, in_overload) in
            [(1050.0, 1.0), (900.0, 0.97), (1500.0, 0.6), (700.0, 0.6), (4000.0, 0.0)]
        {
            let mut search = Search::near(Some(capacity), 1.0);
            let mut tries = 0;
            while let Some(rate) = search.next().unwrap() {
                tries += 1;
                search.hear(rate, rate <= 1000.0, Some(1000.0 * in_overload));
            }
            let found = search.good;
            assert!((1000.0 / (1.0 + CLOSE)..=1000.0).contains(&found), "{found} from {capacity}");
            assert!(tries <= if in_overload > 0.9 { 6 } else { 9 }, "{tries} from {capacity}");
        }
    }

    #[test]
    fn the_limit_is_found_to_a_part_of_itself_wherever_the_search_begins() {
        for lowest in [1.0, 10.0, 900.0] {
            let mut tries = 0;
            let found = highest(lowest, &mut |rate| {
                tries += 1;
                Ok(rate <= 1000.0)
            });
            let found = found.unwrap();
            assert!((1000.0 / (1.0 + CLOSE)..=1000.0).contains(&found), "{found} from {lowest}");
            assert!(tries < 20, "{tries}");
        }
        assert_eq!(highest(10.0, &mut |_| Ok(false)).unwrap(), 0.0);
        let loose = highest(10.0, &mut |_| Ok(true)).unwrap_err().to_string();
        assert!(loose.contains("too loose"), "{loose}");
    }
}
