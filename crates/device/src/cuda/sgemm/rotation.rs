//! Which memory a run walks through, so that nothing it reads is still in the cache.
//!
//! ```text
//!   set 0 [tenant 0][tenant 1]…[tenant R−1]   set 1 […]   …      one walk: every set once, in order
//! ```
//! Sets are as many as cover more than three times the largest second-level cache of these cards (60 MB): by the time
//! a walk comes round, all of a set has been evicted. Where R products are larger than that, one set is enough.

use std::time::Duration;

/// Bytes that a walk touches at least.
const COVER: usize = 192 << 20;

/// Products whose numbers differ; a prime, so that neighbours, tenants of the same set, and sets all differ. The
/// others are copies of these.
pub(super) const DISTINCT: usize = 7;

/// What a timed run should take, and takes half of at least. Launching a graph costs some microseconds, which are
/// then lost in it.
const RUN: Duration = Duration::from_millis(2);

/// Copies of R products.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rotation {
    pub(super) tenants: usize,
    pub(super) sets: usize,
}

impl Rotation {
    /// For products that read and write so many bytes each.
    pub(super) fn new(tenants: usize, product_bytes: usize) -> Rotation {
        Rotation { tenants, sets: COVER.div_ceil(tenants * product_bytes).max(1) }
    }

    /// Products of all sets.
    pub(super) fn products(&self) -> usize {
        self.sets * self.tenants
    }

    /// Products whose results are looked at: `(set, tenant)`.
    pub(super) fn sample(&self) -> Vec<(usize, usize)> {
        let (last_set, last) = (self.sets - 1, self.tenants - 1);
        let mut sample = vec![(0, 0), (0, self.tenants / 2), (0, last), (last_set, last)];
        sample.dedup();
        sample
    }
}

/// How often a run walks, when `walks` took so long.
pub(super) fn walks(walks: usize, took: Duration) -> usize {
    let wanted = (walks as u128 * RUN.as_nanos()).div_ceil(took.as_nanos().max(1));
    usize::try_from(wanted).unwrap_or(1)
}

/// Whether a run of so long is too short to be timed.
pub(super) fn too_short(took: Duration) -> bool {
    took < RUN / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_is_larger_than_three_caches_and_no_larger_than_needed() {
        for tenants in [1, 2, 10, 120] {
            for bytes in [500_000, 1_052_672, 1_900_544] {
                let rotation = Rotation::new(tenants, bytes);
                assert!(rotation.products() * bytes >= 3 * 60_000_000);
                assert!(rotation.sets == 1 || (rotation.sets - 1) * tenants * bytes < COVER);
            }
        }
    }

    #[test]
    fn products_side_by_side_differ() {
        for tenants in [2, 8, 120] {
            let rotation = Rotation::new(tenants, 1 << 20);
            assert!((1..rotation.products()).all(|product| product % DISTINCT != (product - 1) % DISTINCT));
        }
    }

    #[test]
    fn the_sample_reaches_from_the_first_product_to_the_last() {
        assert_eq!(Rotation { tenants: 10, sets: 3 }.sample(), [(0, 0), (0, 5), (0, 9), (2, 9)]);
        assert_eq!(Rotation { tenants: 1, sets: 1 }.sample(), [(0, 0)]);
    }

    #[test]
    fn a_run_lasts_until_launching_is_lost_in_it() {
        assert_eq!(walks(1, Duration::from_micros(400)), 5);
        assert_eq!(walks(5, Duration::from_micros(900)), 12);
        assert_eq!(walks(1, Duration::from_millis(7)), 1);
        assert!(too_short(Duration::from_micros(900)) && !too_short(Duration::from_micros(1100)));
    }
}
