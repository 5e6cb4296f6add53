//! Quantiles of many positive numbers in bounded memory.
//!
//! ```text
//!   record ─▶ buckets, each so much wider than the one before: 1.00 … 1.02 … 1.04 …        from the smallest that was seen to the largest
//!   Recent:  [ the five minutes before ][ these five minutes ]  ─▶ what is read            older ones are forgotten
//! ```
//! A bucket is a share of its value wide, so every quantile is right to that share, and two sketches add up to that of both.
//! Source: logarithmic buckets as DDSketch has them (Masson, Rim and Lee, VLDB 2019), never collapsed, since what is recorded here spans few decades.

use std::time::{Duration, Instant};

/// Counts of positive numbers by size.
#[derive(Clone, PartialEq, Debug)]
pub struct Sketch {
    /// How many times its lower end a bucket's upper end is.
    width: f64,
    /// The first bucket's number.
    first: i32,
    buckets: Vec<u32>,
    count: u64,
    sum: f64,
    most: f64,
}

/// What is recorded lies between: a nanosecond and thirty years where it is seconds. It bounds the buckets.
const LEAST: f64 = 1e-9;
const MOST: f64 = 1e9;

impl Sketch {
    /// Nothing yet. Quantiles will be at most `width` times what they are, which is above 1: 1.02 is two percent, and about 120 buckets for a decade.
    pub fn new(width: f64) -> Sketch {
        Sketch { width, first: 0, buckets: Vec::new(), count: 0, sum: 0.0, most: 0.0 }
    }

    /// Counts one number. What is no number counts as the least.
    pub fn record(&mut self, value: f64) {
        let value = if value >= LEAST { value.min(MOST) } else { LEAST };
        // Rounding may land one short of a bucket's very end, which is within what is promised.
        let number = (value.ln() / self.width.ln()).ceil() as i32;
        let bucket = self.bucket(number);
        *bucket = bucket.saturating_add(1);
        self.count += 1;
        self.sum += value;
        self.most = self.most.max(value);
    }

    /// Counts all of another one, which must be of the same width.
    pub fn merge(&mut self, other: &Sketch) {
        debug_assert_eq!(self.width, other.width, "buckets of two widths do not add up");
        for (number, &count) in (other.first..).zip(&other.buckets) {
            let bucket = self.bucket(number);
            *bucket = bucket.saturating_add(count);
        }
        self.count += other.count;
        self.sum += other.sum;
        self.most = self.most.max(other.most);
    }

    fn bucket(&mut self, number: i32) -> &mut u32 {
        if self.buckets.is_empty() {
            self.first = number;
        }
        let before = usize::try_from(self.first - number).unwrap_or_default();
        if before > 0 {
            self.buckets.splice(..0, std::iter::repeat_n(0, before));
            self.first = number;
        }
        let index = usize::try_from(number - self.first).unwrap_or_default();
        if index >= self.buckets.len() {
            self.buckets.resize(index + 1, 0);
        }
        &mut self.buckets[index]
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All of them together.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The largest; zero when there are none.
    pub fn most(&self) -> f64 {
        self.most
    }

    /// The smallest number that at least this part of all do not exceed (nearest rank; 0.5 is the median), and at most `width` times it; `None` when there are
    /// none.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let rank = ((part * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let reached = |count: &u32| {
            seen += u64::from(*count);
            seen >= rank
        };
        let index = self.buckets.iter().position(reached)?;
        Some(self.width.powi(self.first + index as i32).min(self.most))
    }

    fn clear(&mut self) {
        // The buckets stay: what comes is like what was.
        self.buckets.fill(0);
        (self.count, self.sum, self.most) = (0, 0.0, 0.0);
    }
}

/// How long one of the two sketches of a [`Recent`] is recorded in.
const SPAN: Duration = Duration::from_secs(300);

/// How exact a [`Recent`] is.
const WIDTH: f64 = 1.02;

/// A sketch of the last five to ten minutes; to two percent, where no other width is asked for. Some hundred bytes for numbers that are alike, a few thousand for those that are not.
#[derive(Clone, PartialEq, Debug)]
pub struct Recent {
    since: Option<Instant>,
    now: Sketch,
    before: Sketch,
}

impl Default for Recent {
    fn default() -> Recent {
        Recent::new(WIDTH)
    }
}

impl Recent {
    /// With buckets of another width: see [`Sketch::new`].
    pub fn new(width: f64) -> Recent {
        Recent { since: None, now: Sketch::new(width), before: Sketch::new(width) }
    }

    /// Counts a number of this moment; moments must not go back.
    pub fn record(&mut self, at: Instant, value: f64) {
        let since = *self.since.get_or_insert(at);
        let age = at.saturating_duration_since(since);
        if age >= SPAN {
            std::mem::swap(&mut self.now, &mut self.before);
            self.now.clear();
            if age >= 2 * SPAN {
                self.before.clear();
            }
            self.since = Some(at);
        }
        self.now.record(value);
    }

    /// Memory of its buckets.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        (self.now.buckets.capacity() + self.before.buckets.capacity()) * size_of::<u32>()
    }

    /// What was recorded lately, as of this moment.
    pub fn read(&self, at: Instant) -> Sketch {
        let age = self.since.map_or(Duration::MAX, |since| at.saturating_duration_since(since));
        let mut all = Sketch::new(self.now.width);
        if age < 2 * SPAN {
            all.merge(&self.now);
        }
        if age < SPAN {
            all.merge(&self.before);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = f64>) -> Sketch {
        let mut sketch = Sketch::new(WIDTH);
        values.into_iter().for_each(|value| sketch.record(value));
        sketch
    }

    #[test]
    fn quantiles_are_those_of_the_numbers_by_nearest_rank_to_a_buckets_width() {
        let sketch = of((1..=1000).rev().map(f64::from));
        for (part, exact) in [(0.001, 1.0), (0.5, 500.0), (0.95, 950.0), (0.99, 990.0)] {
            let ratio = sketch.quantile(part).unwrap() / exact;
            assert!((1.0 - 1e-6..=WIDTH + 1e-6).contains(&ratio), "{part}: {ratio}");
        }
        assert_eq!(sketch.quantile(1.0), Some(1000.0), "the largest is exact");
        assert_eq!((sketch.count(), sketch.sum()), (1000, 500_500.0));
        assert_eq!(Sketch::new(WIDTH).quantile(0.5), None);
    }

    #[test]
    fn two_sketches_add_up_to_that_of_both() {
        let mut one = of([1e-3, 2e-3]);
        one.merge(&of([5e-6, 7.0]));
        let both = of([5e-6, 1e-3, 2e-3, 7.0]);
        for part in [0.25, 0.5, 0.75, 1.0] {
            assert_eq!(one.quantile(part), both.quantile(part));
        }
    }

    #[test]
    fn what_is_no_length_of_time_neither_panics_nor_takes_memory() {
        let sketch = of([0.0, -1.0, f64::NAN, f64::INFINITY, 1e300, 1e-300]);
        assert_eq!(sketch.count(), 6);
        assert!(sketch.buckets.len() < 2100, "{}", sketch.buckets.len());
    }

    #[test]
    fn what_was_recorded_long_ago_is_forgotten() {
        let start = Instant::now();
        let mut recent = Recent::default();
        recent.record(start, 1.0);
        recent.record(start + SPAN / 2, 1.0);
        recent.record(start + SPAN, 4.0);
        assert_eq!(recent.read(start + SPAN).count(), 3);
        assert_eq!(recent.read(start + 2 * SPAN).count(), 1, "the first two are more than five minutes old");
        recent.record(start + 2 * SPAN, 4.0);
        assert_eq!(recent.read(start + 2 * SPAN).quantile(0.01), Some(4.0));
        assert_eq!(recent.read(start + 5 * SPAN).count(), 0, "nobody asked for long");
        recent.record(start + 9 * SPAN, 2.0);
        assert_eq!(recent.read(start + 9 * SPAN).count(), 1);
    }
}
