//! How far predictions are off.
//!
//! ```text
//!   a launch is over: predicted, took, how it ran ─▶ [● ● ● … ● ●]  the last ones ─▶ median, p99 of the last two thousand: what is served
//!                                                        └ since a moment ┘        ─▶ the same of a bench's run, and which were furthest off
//! ```

use super::{Size, percentile};
use crate::plans::PlanIx;
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::Moment;

/// How far launches were from their predictions: |measured ÷ predicted − 1|, of the last two thousand where nothing else is said. Both are of the launch alone: predicted when it
/// was handed over, for its lanes and items, by costs as learnt until then; measured by the device's own clock where that tells, without the way there and back, and with the
/// usual pause between launches on both sides.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct PredictionError {
    /// Launches that had a prediction, since the start.
    pub launches: u64,
    /// Those of them that took longer than predicted.
    pub slower: u64,
    /// The median error.
    pub median: f64,
    /// The 99th percentile.
    pub p99: f64,
}

/// A launch beside its prediction, and how it ran.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Foretold {
    /// When it was over.
    pub at: Moment,
    /// How large it was.
    pub size: Size,
    /// Units of its partition.
    pub units: NonZeroU32,
    /// Whether it ran beside others on the same units.
    pub beside: bool,
    /// Whether nothing ran on its partition when it was handed over.
    pub first: bool,
    /// Launches of its step that predictions rested on: none where its size was a guess.
    pub known_by: usize,
    /// What was predicted, the usual pause before it included.
    pub predicted: Duration,
    /// What it took, that pause included.
    pub took: Duration,
    pub(crate) plan: PlanIx,
}

impl Foretold {
    /// How far off the prediction was: |measured ÷ predicted − 1|.
    pub fn error(&self) -> f64 {
        // A prediction of zero is possible from a given table; a nanosecond keeps the ratio finite.
        (self.took.as_secs_f64() / self.predicted.as_secs_f64().max(1e-9) - 1.0).abs()
    }
}

/// Launches whose errors are served: twenty of them are beyond the 99th percentile.
const SERVED: usize = 2048;

/// Launches that are remembered, for whoever asks for those since a moment: some seconds of the smallest launches.
const KEPT: usize = 32 * 1024;

/// The errors of the last launches.
#[derive(Debug, Default)]
pub(super) struct Errors {
    last: VecDeque<Foretold>,
    launches: u64,
    slower: u64,
}

impl Errors {
    pub(super) fn note(&mut self, launch: Foretold) {
        self.launches += 1;
        self.slower += u64::from(launch.took > launch.predicted);
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(launch);
    }

    /// Goes through what is remembered of the last two thousand, some ten microseconds: not for every launch.
    pub(super) fn so_far(&self) -> PredictionError {
        let (median, p99) = median_and_p99(self.last.iter().rev().take(SERVED));
        PredictionError { launches: self.launches, slower: self.slower, median, p99 }
    }

    /// Those of launches that were over at a moment or later, as far as they are remembered; and of these the furthest off, so many.
    pub(super) fn since(&self, moment: Moment, worst: usize) -> (PredictionError, Vec<Foretold>) {
        let since = || self.last.iter().rev().take_while(|launch| launch.at >= moment);
        let mut furthest: Vec<Foretold> = since().copied().collect();
        furthest.sort_by(|one, other| other.error().total_cmp(&one.error()));
        furthest.truncate(worst);
        let slower = since().filter(|launch| launch.took > launch.predicted).count();
        let (median, p99) = median_and_p99(since());
        (PredictionError { launches: since().count() as u64, slower: slower as u64, median, p99 }, furthest)
    }
}

fn median_and_p99<'a>(launches: impl Iterator<Item = &'a Foretold>) -> (f64, f64) {
    let mut errors: Vec<f64> = launches.map(Foretold::error).collect();
    (percentile(&mut errors, 0.5), percentile(&mut errors, 0.99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_since_a_moment_are_judged_apart_from_those_before_and_the_furthest_off_are_told() {
        let mut errors = Errors::default();
        let launch = |at, took| Foretold {
            at: Moment::at(Duration::from_millis(at)),
            size: Size { lanes: 2, items: 3 },
            units: NonZeroU32::MIN,
            beside: false,
            first: false,
            known_by: 1,
            predicted: Duration::from_micros(100),
            took: Duration::from_micros(took),
            plan: PlanIx(0),
        };
        for (at, took) in [(1, 400), (2, 100), (3, 130), (4, 90)] {
            errors.note(launch(at, took));
        }
        assert!((errors.so_far().p99 - 3.0).abs() < 1e-9);
        let (error, furthest) = errors.since(Moment::at(Duration::from_millis(2)), 2);
        assert_eq!((error.launches, error.slower), (3, 1));
        assert!((error.p99 - 0.3).abs() < 1e-9 && (error.median - 0.1).abs() < 1e-9, "{error:?}");
        assert_eq!(furthest, [launch(3, 130), launch(4, 90)]);
        assert_eq!(errors.since(Moment::at(Duration::from_secs(1)), 9), (PredictionError::default(), vec![]));
    }
}
