//! How far predictions are off.

use super::percentile;
use std::collections::VecDeque;
use std::time::Duration;

/// How far launches were from their predictions: |measured ÷ predicted − 1| of the last two thousand. Both are of the launch alone: predicted when it was handed over, for its
/// lanes and items, by costs as learnt until then; measured by the device's own clock where that tells, without the way there and back, and with the usual pause between
/// launches on both sides.
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

/// Launches whose errors are remembered: twenty of them are beyond the 99th percentile.
const ERRORS_KEPT: usize = 2048;

/// The errors of the last launches.
#[derive(Debug, Default)]
pub(super) struct Errors {
    last: VecDeque<f64>,
    launches: u64,
    slower: u64,
}

impl Errors {
    pub(super) fn note(&mut self, predicted: Duration, took: Duration) {
        self.launches += 1;
        self.slower += u64::from(took > predicted);
        if self.last.len() == ERRORS_KEPT {
            self.last.pop_front();
        }
        // A prediction of zero is possible from a given table; a nanosecond keeps the ratio finite.
        let predicted = predicted.as_secs_f64().max(1e-9);
        self.last.push_back((took.as_secs_f64() / predicted - 1.0).abs());
    }

    /// Goes through what is remembered, some ten microseconds: not for every launch.
    pub(super) fn so_far(&self) -> PredictionError {
        let mut errors: Vec<f64> = self.last.iter().copied().collect();
        let mut at = |part| percentile(&mut errors, part);
        PredictionError { launches: self.launches, slower: self.slower, median: at(0.5), p99: at(0.99) }
    }
}
