//! Which launches have their steps timed: one in so many, since it costs a look at a clock for each step, or a small copy for each launch.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

/// How often the steps of launches are timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StepTiming {
    /// As often as the device finds cheap.
    #[default]
    Auto,
    /// Of one launch in so many.
    OneIn(NonZeroU32),
    /// Never.
    Off,
}

impl fmt::Display for StepTiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepTiming::Auto => f.write_str("auto"),
            StepTiming::OneIn(count) => write!(f, "one in {count}"),
            StepTiming::Off => f.write_str("off"),
        }
    }
}

/// What is in force on a device: shared by all that submits to it, and changed while launches run.
#[derive(Debug)]
pub(crate) struct Timing {
    auto: u32,
    /// Zero is never.
    one_in: AtomicU32,
}

impl Timing {
    /// One launch in so many, until something else is set.
    pub(crate) fn new(auto: u32) -> Timing {
        Timing { auto, one_in: AtomicU32::new(auto) }
    }

    /// From now on like this.
    pub(crate) fn set(&self, timing: StepTiming) {
        let one_in = match timing {
            StepTiming::Auto => self.auto,
            StepTiming::OneIn(count) => count.get(),
            StepTiming::Off => 0,
        };
        self.one_in.store(one_in, Ordering::Relaxed);
    }

    /// Whether the launch of this number, counted from 0, is one of them.
    pub(crate) fn includes(&self, launch: u64) -> bool {
        match self.one_in.load(Ordering::Relaxed) {
            0 => false,
            count => launch.is_multiple_of(u64::from(count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_launch_in_so_many_is_timed_from_the_first_on_or_none() {
        let timing = Timing::new(3);
        let timed = || (0..7).filter(|launch| timing.includes(*launch)).collect::<Vec<_>>();
        assert_eq!(timed(), [0, 3, 6]);
        timing.set(StepTiming::OneIn(NonZeroU32::MIN));
        assert_eq!(timed().len(), 7);
        timing.set(StepTiming::Off);
        assert_eq!(timed().len(), 0);
        timing.set(StepTiming::Auto);
        assert_eq!(timed(), [0, 3, 6]);
    }
}
