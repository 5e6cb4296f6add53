//! How well something is known that several parts of a run tell.

use serde::Serialize;

/// The normal distribution's 97.5th percentile.
const NORMAL: f64 = 1.959_964;

/// A mean, and how far to both sides of it the truth lies in 95 of 100 cases (Student).
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Known {
    /// Of all parts.
    pub mean: f64,
    /// Infinite where there are too few parts to say.
    pub within: f64,
}

impl Known {
    /// What these parts say.
    pub(super) fn of(parts: &[f64]) -> Known {
        let count = parts.len() as f64;
        let mean = parts.iter().sum::<f64>() / count.max(1.0);
        if parts.len() < 3 {
            return Known { mean, within: f64::INFINITY };
        }
        let squares: f64 = parts.iter().map(|part| (part - mean).powi(2)).sum();
        Known { mean, within: student(count - 1.0) * (squares / (count - 1.0) / count).sqrt() }
    }
}

/// Student's 97.5th percentile by degrees of freedom: Fisher's expansion (Abramowitz and Stegun, 26.7.5), good to a thousandth from nine on and to a tenth with two.
fn student(freedom: f64) -> f64 {
    let z = NORMAL;
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    z + first / freedom + second / freedom.powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_of_students_is_that_of_the_tables() {
        for (freedom, table) in [(9.0, 2.262), (19.0, 2.093), (29.0, 2.045)] {
            assert!((student(freedom) / table - 1.0).abs() < 0.002, "{freedom}: {}", student(freedom));
        }
    }

    #[test]
    fn a_mean_is_known_as_well_as_its_parts_agree() {
        assert_eq!(Known::of(&[3.0; 10]), Known { mean: 3.0, within: 0.0 });
        assert_eq!(Known::of(&[1.0, 2.0]), Known { mean: 1.5, within: f64::INFINITY });
        // Parts of 12 and of 16 in turn: a deviation of 2.108 from 14, over the root of ten.
        let parts: Vec<f64> = (0..10).map(|part| if part % 2 == 0 { 12.0 } else { 16.0 }).collect();
        let known = Known::of(&parts);
        assert!((known.within / (2.262 * 2.108 / 10f64.sqrt()) - 1.0).abs() < 0.002, "{known:?}");
    }
}
