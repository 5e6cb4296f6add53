//! How far predictions are off.

use super::percentile;
use std::collections::VecDeque;
use std::time::Duration;

/// How far launches were from their predictions: |measured ÷ predicted − 1| of the last few hundred.
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

/// Launches whose errors are remembered. 512 give a p99 of five samples: enough for a gauge.
const ERRORS_KEPT: usize = 512;

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

    /// Sorts what is remembered: not for every launch.
    pub(super) fn so_far(&self) -> PredictionError {
        let errors: Vec<f64> = self.last.iter().copied().collect();
        PredictionError {
            launches: self.launches,
            slower: self.slower,
            median: percentile(errors.clone(), 0.5),
            p99: percentile(errors, 0.99),
        }
    }
}
