//! What tuning a plan came to, for people.

use std::fmt;
use std::time::Duration;

/// What [`crate::Device::tune`] came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tuned {
    /// Products of the plan that differ, at any number of lanes, and that several kernels compute to the same bits.
    pub products: usize,
    /// Those of them whose kernels were timed now.
    pub timed: usize,
    /// Those that are left to the rule, as there was no time or others were served.
    pub left: usize,
    /// Those for which another kernel than the rule's was clearly faster, timed now or known from before.
    pub changed: usize,
    /// What the rule's kernels took of all that were ever timed, one launch of each.
    pub ruled: Duration,
    /// What the chosen ones took of the same.
    pub chosen: Duration,
    /// How long the card was timed for.
    pub took: Duration,
    /// What went wrong and cost no more than time: a file that was damaged, a kernel that gave other bits.
    pub remarks: Vec<String>,
}

impl Tuned {
    /// One more product whose kernels were timed, now or before.
    pub(crate) fn count(&mut self, changed: bool, ruled: Duration, chosen: Duration) {
        self.changed += usize::from(changed);
        self.ruled += ruled;
        self.chosen += chosen;
    }
}

impl fmt::Display for Tuned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tuned { products, timed, left, changed, ruled, chosen, took, .. } = self;
        let saved = 1.0 - chosen.as_secs_f64() / ruled.as_secs_f64().max(f64::MIN_POSITIVE);
        write!(f, "{changed} of {products} products take another tile than the rule's")?;
        if *changed > 0 {
            write!(f, ", all together {:.1} % less time", saved * 100.0)?;
        }
        write!(f, " ({timed} timed in {:.2} s", took.as_secs_f64())?;
        if *left > 0 {
            write!(f, ", {left} left to the rule for want of time")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_chosen_is_told_with_what_it_gained() {
        let mut tuned = Tuned { products: 3, timed: 2, left: 1, ..Tuned::default() };
        tuned.count(false, Duration::from_micros(60), Duration::from_micros(60));
        tuned.count(true, Duration::from_micros(40), Duration::from_micros(30));
        tuned.took = Duration::from_millis(120);
        assert_eq!(
            tuned.to_string(),
            "1 of 3 products take another tile than the rule's, all together 10.0 % less time (2 timed in 0.12 s, 1 left to the rule for want of time)"
        );
        assert_eq!(
            Tuned::default().to_string(),
            "0 of 0 products take another tile than the rule's (0 timed in 0.00 s)"
        );
    }
}
