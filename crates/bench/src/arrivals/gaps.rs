//! How irregular arrivals are: gaps between them, of mean one.

use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use std::f64::consts::TAU;
use std::fmt;
use std::str::FromStr;

/// A distribution of gaps.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Gaps {
    /// Exponential: each arrival knows nothing of the others.
    Poisson,
    /// Gamma with this coefficient of variation (standard deviation over mean): above one arrivals come in bursts, below one they
    /// avoid each other. As AlpaServe (OSDI '23) and Clockwork's successors vary burstiness.
    Gamma {
        /// From 0.05 to 20.
        cv: f64,
    },
    /// All equal, with a phase of each tenant's own: perf_analyzer's default.
    Constant,
}

impl Gaps {
    /// The next gap.
    pub(super) fn next(self, random: &mut StdRng) -> f64 {
        match self {
            Gaps::Poisson => exponential(random),
            Gaps::Gamma { cv } => gamma(1.0 / (cv * cv), random) * (cv * cv),
            Gaps::Constant => 1.0,
        }
    }

    /// The time from the start to the first arrival of a process that has run for ever: a part, uniform, of a gap as a moment falls
    /// into one, and long gaps catch more moments. For gaps of Gamma(k) those are Gamma(k + 1).
    pub(super) fn first(self, random: &mut StdRng) -> f64 {
        match self {
            Gaps::Poisson => exponential(random),
            Gaps::Gamma { cv } => {
                let shape = 1.0 / (cv * cv);
                positive(random) * gamma(shape + 1.0, random) / shape
            }
            Gaps::Constant => positive(random),
        }
    }
}

impl FromStr for Gaps {
    type Err = String;

    fn from_str(word: &str) -> Result<Gaps, String> {
        match word {
            "poisson" => Ok(Gaps::Poisson),
            "constant" => Ok(Gaps::Constant),
            _ => {
                let cv = word.strip_prefix("gamma:").and_then(|cv| cv.parse().ok());
                let cv = cv.filter(|cv| (0.05..=20.0).contains(cv)).map(|cv| Gaps::Gamma { cv });
                cv.ok_or_else(|| {
                    format!(
                        "`{word}` is no distribution of arrivals; choose poisson, constant, or gamma:CV with a coefficient of \
                         variation from 0.05 to 20"
                    )
                })
            }
        }
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gaps::Poisson => f.write_str("poisson"),
            Gaps::Gamma { cv } => write!(f, "gamma:{cv}"),
            Gaps::Constant => f.write_str("constant"),
        }
    }
}

/// Uniform, above zero and at most one: its logarithm exists.
fn positive(random: &mut impl Rng) -> f64 {
    1.0 - random.random::<f64>()
}

fn exponential(random: &mut impl Rng) -> f64 {
    -positive(random).ln()
}

/// Gamma of this shape and scale one. Marsaglia and Tsang, "A simple method for generating gamma variables", 2000; below a shape of one
/// by their §6.
fn gamma(shape: f64, random: &mut impl Rng) -> f64 {
    if shape < 1.0 {
        return gamma(shape + 1.0, random) * positive(random).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        // Box and Muller.
        let x = (-2.0 * positive(random).ln()).sqrt() * (TAU * random.random::<f64>()).cos();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && positive(random).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn gaps_have_a_mean_of_one_and_the_variation_that_was_asked_for() {
        let mut random = StdRng::seed_from_u64(5);
        for (gaps, cv) in [
            (Gaps::Poisson, 1.0),
            (Gaps::Gamma { cv: 0.5 }, 0.5),
            (Gaps::Gamma { cv: 1.0 }, 1.0),
            (Gaps::Gamma { cv: 4.0 }, 4.0),
            (Gaps::Constant, 0.0),
        ] {
            const DRAWS: usize = 400_000;
            let drawn: Vec<f64> = (0..DRAWS).map(|_| gaps.next(&mut random)).collect();
            let mean = drawn.iter().sum::<f64>() / DRAWS as f64;
            let variance = drawn.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / DRAWS as f64;
            // The mean's own deviation is cv/√400000, at most 0.6 %.
            assert!((mean - 1.0).abs() < 0.03, "{gaps}: mean {mean}");
            assert!((variance.sqrt() - cv).abs() <= 0.05 * cv, "{gaps}: {} for {cv}", variance.sqrt());
        }
    }

    #[test]
    fn the_first_gap_of_bursty_arrivals_is_long_as_moments_fall_into_long_gaps() {
        let mut random = StdRng::seed_from_u64(5);
        let gaps = Gaps::Gamma { cv: 2.0 };
        let mean = (0..400_000).map(|_| gaps.first(&mut random)).sum::<f64>() / 400_000.0;
        // (1 + cv²) / 2 of a mean gap.
        assert!((mean - 2.5).abs() < 0.05, "{mean}");
    }

    #[test]
    fn a_distribution_is_written_as_it_is_read_and_others_are_refused_with_the_choices() {
        for word in ["poisson", "constant", "gamma:3.5"] {
            assert_eq!(word.parse::<Gaps>().unwrap().to_string(), word);
        }
        for word in ["gamma", "gamma:0", "gamma:nan", "pareto"] {
            assert!(word.parse::<Gaps>().unwrap_err().contains("gamma:CV"), "{word}");
        }
    }
}
