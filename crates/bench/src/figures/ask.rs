//! What a bench of the report is asked for: the same words for each, so that one table runs all of them.

use crate::load;
use crate::zoo::{self, Architecture, Sizes, Takes};
use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tessera_core::Precision;
use tessera_device::conformance::bell;
use tessera_server::devices;

/// What to measure, on what, and for how long.
#[derive(Clone, Debug)]
pub struct Ask {
    /// In the words of `tessera serve --device`.
    pub device: String,
    /// How numbers are held, where a bench does not compare precisions.
    pub precision: Precision,
    /// Small networks, few tenants, short runs: everything is gone through, and no number means anything.
    pub quick: bool,
    /// Sizes that were asked for; where none was, those of [`Ask::quick`] or the published ones.
    pub sizes: Sizes,
    /// Most processes that are started at once.
    pub processes: usize,
    /// Most tenants that are loaded at once.
    pub tenants: usize,
    /// How often what is compared runs; the order turns round every time.
    pub rounds: usize,
    /// Decides weights, inputs and arrivals.
    pub seed: u64,
    /// The binary, which starts itself as a process with one tenant.
    pub program: PathBuf,
    /// When it must be over.
    pub budget: Budget,
}

/// Widths of [`Ask::quick`].
const NARROW: f32 = 0.125;
/// Tokens of it.
const FEW_TOKENS: usize = 4;

impl Ask {
    /// An architecture of the zoo, at the sizes asked for.
    pub fn model(&self, name: &str) -> Result<zoo::Model> {
        let architecture = zoo::find(name)?;
        Ok(architecture.model(&self.sizes_of(architecture))?)
    }

    /// The sizes of an architecture: each takes only some of them.
    pub fn sizes_of(&self, architecture: &Architecture) -> Sizes {
        let mut sizes = self.sizes.taken_by(architecture.takes);
        if self.quick {
            if sizes.width == 1.0 {
                sizes.width = NARROW;
            }
            match architecture.takes {
                Takes::Image { least, .. } => _ = sizes.image_size.get_or_insert(least),
                Takes::Sequence { .. } => _ = sizes.tokens.get_or_insert(FEW_TOKENS),
                Takes::Fixed => {}
            }
        }
        sizes
    }

    /// The device that a word stands for: `auto` is a card where one can be used, else the cores.
    pub fn device_named(word: &str) -> Result<String> {
        if word != "auto" {
            return Ok(word.to_owned());
        }
        let settings = load::settings([("device", word.to_owned())])?;
        Ok(devices::open(&settings, bell().0)?.info().name)
    }

    /// Whether it is a card.
    pub fn is_card(&self) -> bool {
        self.device.starts_with("cuda")
    }

    /// The device, and after a card the machine's own cores, each with how it holds numbers: cores have fp32 alone.
    pub fn devices(&self) -> Vec<(String, Precision)> {
        let cores = self.is_card().then(|| ("cpu".to_owned(), Precision::Fp32));
        std::iter::once((self.device.clone(), self.precision)).chain(cores).collect()
    }

    /// What fits: the first of two, or the second in a quick run.
    pub fn or_quick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// How long one run of many is, so that all of them take about this part of the time that is left; within reason.
    pub fn run_length(&self, part: f64, runs: usize) -> Duration {
        let (least, most) = self.or_quick((100, 2000), (30, 60));
        let each = self.budget.left().mul_f64(part) / u32::try_from(runs.max(1)).unwrap_or(u32::MAX);
        each.clamp(Duration::from_millis(least), Duration::from_millis(most))
    }
}

/// Time that may be spent.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    until: Instant,
    /// Of everything that this is a part of.
    end: Instant,
}

impl Budget {
    /// From now on, for so long.
    pub fn of(length: Duration) -> Budget {
        let end = Instant::now() + length;
        Budget { until: end, end }
    }

    /// What is left.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Whether nothing is.
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// A part of what is left.
    pub fn part(&self, part: f64) -> Budget {
        Budget { until: Instant::now() + self.left().mul_f64(part.clamp(0.0, 1.0)), end: self.end }
    }

    /// Errors when not only this part but everything is over: for benches that cannot end early, but may take of what comes after them.
    pub fn go_on(&self) -> Result<()> {
        ensure!(Instant::now() < self.end, "the time was over before it was done; give more minutes");
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn quick(device: &str) -> Ask {
    Ask {
        device: device.to_owned(),
        precision: Precision::Fp32,
        quick: true,
        sizes: Sizes::default(),
        processes: 2,
        tenants: 3,
        rounds: 1,
        seed: 1,
        program: PathBuf::new(),
        budget: Budget::of(Duration::from_secs(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_has_the_smallest_networks_unless_sizes_are_asked_for() {
        let ask = quick("cpu");
        let sizes = |ask: &Ask, name: &str| ask.sizes_of(zoo::find(name).unwrap());
        assert_eq!(sizes(&ask, "alexnet").image_size, Some(64));
        assert_eq!(sizes(&ask, "lstm").tokens, Some(4));
        let wide = Ask { sizes: Sizes { width: 0.5, image_size: Some(96), tokens: None }, ..ask.clone() };
        assert_eq!(sizes(&wide, "resnet-50"), wide.sizes);
        assert_eq!(sizes(&wide, "mlp").image_size, None, "it takes no image");
        assert_eq!(sizes(&Ask { quick: false, ..ask }, "resnet-50"), Sizes::default());
    }

    #[test]
    fn runs_share_what_time_is_left_and_a_card_comes_before_the_cores() {
        let ask = Ask { quick: false, budget: Budget::of(Duration::from_secs(100)), ..quick("cuda:0") };
        let length = ask.run_length(0.5, 50);
        assert!((Duration::from_millis(900)..=Duration::from_secs(1)).contains(&length), "{length:?}");
        assert!(Budget::of(Duration::ZERO).is_over() && !ask.budget.is_over());
        let no_part = ask.budget.part(0.0);
        assert!(no_part.is_over() && no_part.go_on().is_ok() && Budget::of(Duration::ZERO).go_on().is_err());
        let cores = ("cpu".to_owned(), Precision::Fp32);
        assert_eq!(ask.devices(), [("cuda:0".to_owned(), ask.precision), cores]);
    }
}
