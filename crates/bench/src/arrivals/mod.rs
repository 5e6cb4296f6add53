//! When requests come, and for whom: seeded and pure, the same for the load generator, the simulator, the demo and the benches.
//!
//! ```text
//!   tenant 0:  gaps of mean one ─▶ expected arrivals ─ inverse of the summed rate ─▶ moments ─┐
//!   tenant 1:  …                                                                              ├─ merged in order ─▶ Arrival …
//!   a file:    seconds,tenant ────────────────────────────────────────────────────────────────┘
//! ```
//! How irregular arrivals are ([`Gaps`]) and how their rate changes with the hour ([`Rate`]) are two things, and any of one goes with
//! any of the other: gaps are drawn on a clock that counts expected arrivals, and the rate says when that clock shows what. Tenants
//! arrive independently of each other. Nothing is kept but one generator a tenant, so a day of ten thousand tenants is a stream.

mod gaps;
mod popularity;
mod rate;
mod trace;

pub use gaps::Gaps;
pub use popularity::Popularity;
pub use rate::Rate;
pub use trace::{Trace, TraceError};

use rand::SeedableRng;
use rand::rngs::StdRng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// One request's moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Arrival {
    /// Time from the start.
    pub at: Duration,
    /// Whose: a number below that of the tenants.
    pub tenant: usize,
}

/// The arrivals of many tenants.
#[derive(Clone, PartialEq, Debug)]
pub struct Pattern {
    /// How irregular each tenant's arrivals are.
    pub gaps: Gaps,
    /// Requests per second of all tenants together.
    pub rate: Rate,
    /// How they are divided among tenants.
    pub popularity: Popularity,
    /// How many tenants.
    pub tenants: usize,
    /// Decides every moment.
    pub seed: u64,
}

impl Pattern {
    /// All arrivals, in order, without end while the rate has none.
    pub fn arrivals(&self) -> Merged {
        self.arrivals_with_first(1.0)
    }

    /// The same, with the first tenant asking so many times as often.
    pub fn arrivals_with_first(&self, times: f64) -> Merged {
        let weights = self.popularity.weights(self.tenants);
        let stream = |(tenant, weight): (usize, &f64)| {
            let seed = self.seed ^ (tenant as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let times = if tenant == 0 { times } else { 1.0 };
            Stream::new(self.gaps, self.rate.times(*weight * times), seed)
        };
        weights.iter().enumerate().map(stream).collect()
    }
}

/// One tenant's arrivals, as times from the start.
#[derive(Debug)]
pub struct Stream {
    gaps: Gaps,
    rate: Rate,
    random: StdRng,
    /// Expected arrivals until the last one.
    expected: Option<f64>,
}

impl Stream {
    /// Arrivals at this rate.
    pub fn new(gaps: Gaps, rate: Rate, seed: u64) -> Stream {
        Stream { gaps, rate, random: StdRng::seed_from_u64(seed), expected: None }
    }
}

impl Iterator for Stream {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let expected = match self.expected {
            Some(last) => last + self.gaps.next(&mut self.random),
            None => self.gaps.first(&mut self.random),
        };
        self.expected = Some(expected);
        self.rate.when(expected)
    }
}

/// The arrivals of several streams, in order. The stream's number is the tenant's.
#[derive(Debug)]
pub struct Merged {
    streams: Vec<Stream>,
    next: BinaryHeap<Reverse<Arrival>>,
}

impl FromIterator<Stream> for Merged {
    fn from_iter<I: IntoIterator<Item = Stream>>(streams: I) -> Merged {
        let mut streams: Vec<Stream> = streams.into_iter().collect();
        let first =
            |(tenant, stream): (usize, &mut Stream)| Some(Reverse(Arrival { at: stream.next()?, tenant }));
        let next = streams.iter_mut().enumerate().filter_map(first).collect();
        Merged { streams, next }
    }
}

impl Iterator for Merged {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        let Reverse(arrival) = self.next.pop()?;
        if let Some(at) = self.streams[arrival.tenant].next() {
            self.next.push(Reverse(Arrival { at, ..arrival }));
        }
        Some(arrival)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(seconds: u64, stream: impl Iterator<Item = Duration>) -> Vec<Duration> {
        stream.take_while(|at| *at < Duration::from_secs(seconds)).collect()
    }

    #[test]
    fn a_burst_is_where_the_rate_puts_it_and_the_seed_decides_the_rest() {
        let second = Duration::from_secs;
        let rate = Rate::Steps(vec![(second(0), 100.0), (second(10), 1000.0), (second(12), 0.0)]);
        let times = within(20, Stream::new(Gaps::Poisson, rate.clone(), 7));
        let calm = times.iter().filter(|at| **at < second(10)).count();
        let burst = times.len() - calm;
        assert!((850..1150).contains(&calm), "{calm} arrivals in 10 s at 100 per second");
        assert!((1850..2150).contains(&burst), "{burst} arrivals in 2 s at 1000 per second");
        assert!(times.is_sorted() && times.last() < Some(&second(12)));
        assert_eq!(times, within(20, Stream::new(Gaps::Poisson, rate.clone(), 7)));
        assert_ne!(times, within(20, Stream::new(Gaps::Poisson, rate, 8)));
    }

    #[test]
    fn tenants_have_their_part_of_the_rate_and_come_in_order() {
        let pattern = Pattern {
            gaps: Gaps::Poisson,
            rate: Rate::Steady(1000.0),
            popularity: Popularity::Zipf(1.0),
            tenants: 4,
            seed: 1,
        };
        let arrivals: Vec<Arrival> =
            pattern.arrivals().take_while(|arrival| arrival.at < Duration::from_secs(100)).collect();
        assert!(arrivals.is_sorted_by_key(|arrival| arrival.at));
        let of = |tenant| arrivals.iter().filter(|arrival| arrival.tenant == tenant).count() as f64;
        // Shares of 1/(1 + 1/2 + 1/3 + 1/4); five standard deviations of a Poisson count of 48,000 are 2.3 %.
        assert!((arrivals.len() as f64 / 1e5 - 1.0).abs() < 0.02, "{}", arrivals.len());
        for (tenant, share) in [0.48, 0.24, 0.16, 0.12].into_iter().enumerate() {
            let ratio = of(tenant) / (1e5 * share);
            assert!((ratio - 1.0).abs() < 0.05, "tenant {tenant} has {ratio} of its part");
        }
    }

    /// The mean of counts in windows, and their variance over it: one for Poisson.
    fn counts(stream: Stream, windows: usize, width: f64) -> (f64, f64) {
        let mut counts = vec![0.0f64; windows];
        for at in stream {
            match counts.get_mut((at.as_secs_f64() / width) as usize) {
                Some(count) => *count += 1.0,
                None => break,
            }
        }
        let mean = counts.iter().sum::<f64>() / windows as f64;
        let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / windows as f64;
        (mean, variance / mean)
    }

    #[test]
    fn counts_of_a_renewal_process_vary_with_the_square_of_its_variation() {
        // Over windows of many arrivals variance over mean tends to the square of the coefficient of variation.
        for (gaps, squared, tolerance) in
            [(Gaps::Poisson, 1.0, 0.15), (Gaps::Gamma { cv: 3.0 }, 9.0, 2.0), (Gaps::Constant, 0.0, 0.01)]
        {
            let (mean, dispersion) = counts(Stream::new(gaps, Rate::Steady(100.0), 3), 1000, 2.0);
            assert!((mean - 200.0).abs() < 6.0, "{gaps}: {mean}");
            assert!((dispersion - squared).abs() < tolerance, "{gaps}: {dispersion}");
        }
    }

    #[test]
    fn a_short_look_at_many_bursty_tenants_sees_the_rate_that_was_asked_for() {
        // The clock does not start at an arrival: else each tenant's first burst would come at once.
        let pattern = Pattern {
            gaps: Gaps::Gamma { cv: 4.0 },
            rate: Rate::Steady(1000.0),
            popularity: Popularity::Uniform,
            tenants: 5000,
            seed: 2,
        };
        let seen = pattern.arrivals().take_while(|arrival| arrival.at < Duration::from_secs(2)).count();
        assert!((1700..2300).contains(&seen), "{seen} arrivals in 2 s at 1000 per second");
    }
}
