//! How large what flows through a network is: expected mean and variance over channels, places and draws of the weights.
//!
//! Values before a rectifier are taken to be bell curves. What is not (maxima, gates) is measured once and written where it is used.

use std::f32::consts::TAU;

/// The first two moments of a value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Scale {
    pub(super) mean: f32,
    pub(super) variance: f32,
}

impl Scale {
    pub(super) const UNIT: Scale = Scale { mean: 0.0, variance: 1.0 };

    pub(super) fn around_zero(variance: f32) -> Scale {
        Scale { mean: 0.0, variance }
    }

    /// The mean square.
    pub(super) fn power(self) -> f32 {
        self.mean * self.mean + self.variance
    }

    pub(super) fn times(self, factor: f32) -> Scale {
        Scale { mean: factor * self.mean, variance: factor * factor * self.variance }
    }

    /// The sum of two values that know nothing of each other.
    pub(super) fn plus(self, other: Scale) -> Scale {
        Scale { mean: self.mean + other.mean, variance: self.variance + other.variance }
    }

    /// The larger of it and zero.
    pub(super) fn rectified(self) -> Scale {
        let Scale { mean, variance } = self;
        let deviation = variance.sqrt();
        let z = mean / deviation;
        let density = (-0.5 * z * z).exp() / TAU.sqrt();
        // The logistic curve that is nearest to the bell's integral: within 0.01 of it (Camilli, 1994).
        let above = 1.0 / (1.0 + (-1.702 * z).exp());
        let mean_above = mean * above + deviation * density;
        let power = (mean * mean + variance) * above + mean * deviation * density;
        Scale { mean: mean_above, variance: power - mean_above * mean_above }
    }

    /// Values of so many channels each, end to end.
    pub(super) fn joined(parts: impl Iterator<Item = (Scale, usize)>) -> Scale {
        let (mut mean, mut power, mut all) = (0.0, 0.0, 0.0);
        for (scale, channels) in parts {
            let channels = channels as f32;
            mean += channels * scale.mean;
            power += channels * scale.power();
            all += channels;
        }
        let mean = mean / all;
        Scale { mean, variance: power / all - mean * mean }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rectified_bell_keeps_half_of_its_power() {
        let half = Scale::UNIT.rectified();
        assert!((half.mean - 0.398_9).abs() < 1e-3 && (half.power() - 0.5).abs() < 1e-3, "{half:?}");
        let high = Scale { mean: 5.0, variance: 1.0 }.rectified();
        assert!((high.mean - 5.0).abs() < 0.01 && (high.variance - 1.0).abs() < 0.05, "{high:?}");
    }

    #[test]
    fn joined_parts_that_differ_in_mean_vary() {
        let part = |mean| (Scale { mean, variance: 1.0 }, 8);
        assert_eq!(Scale::joined([part(1.0), part(-1.0)].into_iter()), Scale { mean: 0.0, variance: 2.0 });
    }
}
