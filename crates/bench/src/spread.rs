//! One figure, taken several times.

use serde::Serialize;
use std::fmt;

/// A figure of every round.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// All, in the order of rounds.
    pub rounds: Vec<f64>,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(rounds: Vec<f64>) -> Option<Spread> {
        let mut sorted = rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Spread { median, min, max, rounds })
    }

    /// This over another, round by round: what both suffered in a round cancels.
    pub fn over(&self, other: &Spread) -> Option<Spread> {
        Spread::of(self.rounds.iter().zip(&other.rounds).map(|(a, b)| a / b).collect())
    }
}

impl fmt::Display for Spread {
    /// `12.3 (12.1–12.9)`; with two digits behind the point as `{:.2}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(1);
        let Spread { median, min, max, .. } = self;
        write!(f, "{median:.digits$} ({min:.digits$}–{max:.digits$})")
    }
}

/// The geometric mean; `None` of nothing.
pub fn geomean(ratios: &[f64]) -> Option<f64> {
    let logarithms: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (!ratios.is_empty()).then(|| (logarithms / ratios.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(rounds: &[f64]) -> Spread {
        Spread::of(rounds.to_vec()).unwrap()
    }

    #[test]
    fn a_spread_tells_the_middle_and_the_ends() {
        let Spread { median, min, max, .. } = spread(&[3.0, 1.0, 2.0]);
        assert_eq!((median, min, max), (2.0, 1.0, 3.0));
        assert_eq!(spread(&[1.0, 4.0]).median, 2.5);
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(format!("{:.2}", spread(&[3.0, 1.0, 2.0])), "2.00 (1.00–3.00)");
    }

    #[test]
    fn a_slow_round_of_both_does_not_move_their_ratio() {
        let ratio = spread(&[4.0, 8.0, 4.0]).over(&spread(&[2.0, 4.0, 2.0])).unwrap();
        assert_eq!((ratio.min, ratio.max), (2.0, 2.0));
    }

    #[test]
    fn a_geometric_mean_is_the_root_of_the_product() {
        assert!((geomean(&[1.0, 4.0, 16.0]).unwrap() - 4.0).abs() < 1e-12);
        assert_eq!(geomean(&[]), None);
    }
}
