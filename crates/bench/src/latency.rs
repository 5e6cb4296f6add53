//! Latencies of one run in bounded memory, and the figures people ask of them.
//!
//! Counted in buckets half a percent wide, from the smallest that was seen to the largest: some hundred numbers, however many requests.

use std::time::Duration;
use tessera_server::monitor::Sketch;

/// How much wider each bucket begins than the one before.
const STEP: f64 = 1.005;

/// Every latency of a run, to half a percent; mean, deviation and the largest are exact.
#[derive(Clone, PartialEq, Debug)]
pub struct Latencies {
    seconds: Sketch,
    squares: f64,
    most: Duration,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { seconds: Sketch::new(STEP), squares: 0.0, most: Duration::ZERO }
    }
}

impl FromIterator<Duration> for Latencies {
    fn from_iter<I: IntoIterator<Item = Duration>>(latencies: I) -> Latencies {
        let mut all = Latencies::default();
        latencies.into_iter().for_each(|latency| all.record(latency));
        all
    }
}

impl Latencies {
    /// Counts one.
    pub fn record(&mut self, latency: Duration) {
        let seconds = latency.as_secs_f64();
        self.seconds.record(seconds);
        self.squares += seconds * seconds;
        self.most = self.most.max(latency);
    }

    /// Counts all of another run.
    pub fn merge(&mut self, other: &Latencies) {
        self.seconds.merge(&other.seconds);
        self.squares += other.squares;
        self.most = self.most.max(other.most);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.seconds.count() as usize
    }

    /// The largest; zero when there are none.
    pub fn most(&self) -> Duration {
        self.most
    }

    /// The mean; zero when there are none.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.mean_seconds())
    }

    fn mean_seconds(&self) -> f64 {
        self.seconds.sum() / self.seconds.count().max(1) as f64
    }

    /// The standard deviation; zero when there are none.
    pub fn deviation(&self) -> Duration {
        let (mean, count) = (self.mean_seconds(), self.seconds.count().max(1) as f64);
        Duration::from_secs_f64((self.squares / count - mean * mean).max(0.0).sqrt())
    }

    /// The smallest latency that at least `percent` of all do not exceed (nearest rank), and at most half a percent more; zero when
    /// there are none.
    pub fn percentile(&self, percent: f64) -> Duration {
        let seconds = self.seconds.quantile(percent / 100.0).unwrap_or_default();
        Duration::from_secs_f64(seconds).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(percentile: Duration, exact: Duration) -> bool {
        let ratio = percentile.as_secs_f64() / exact.as_secs_f64();
        (1.0 - 1e-6..=STEP + 1e-6).contains(&ratio)
    }

    #[test]
    fn percentiles_are_measured_latencies_by_nearest_rank_to_half_a_percent() {
        let ms = Duration::from_millis;
        let latencies: Latencies = (1..=100).rev().map(ms).collect();
        for percent in [1u32, 50, 90, 99] {
            let found = latencies.percentile(percent.into());
            assert!(close(found, ms(percent.into())), "p{percent} is {found:?}");
        }
        assert_eq!(latencies.percentile(100.0), ms(100), "the largest is exact");
        assert_eq!(latencies.count(), 100);
        assert_eq!(Latencies::default().percentile(99.0), Duration::ZERO);
    }

    #[test]
    fn mean_and_deviation_are_exact_and_merging_is_as_recording() {
        let ms = Duration::from_millis;
        let (mut one, other): (Latencies, Latencies) =
            ([ms(2)].into_iter().collect(), [ms(4)].into_iter().collect());
        one.merge(&other);
        assert!(one.mean().abs_diff(ms(3)) < Duration::from_nanos(10));
        assert!(one.deviation().abs_diff(ms(1)) < Duration::from_nanos(10));
        let together: Latencies = [ms(2), ms(4)].into_iter().collect();
        assert_eq!((one.percentile(50.0), one.most()), (together.percentile(50.0), ms(4)));
    }
}
