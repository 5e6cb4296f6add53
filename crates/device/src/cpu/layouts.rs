//! The ways of cutting a CPU device into partitions.
//!
//! ```text
//!   cores  0 1 2 3     whole [0 1 2 3]     three quarters and one [0 1 2][3]     halves [0 1][2 3]
//! ```
//! Few of them: each is looked at whenever space is divided anew, and a finer cut of a small machine gains little. Partitions are neighbouring cores,
//! which are more likely to share caches.

use std::ops::Range;

/// Partitions, each a set of cores by number; and layouts, each some partitions that follow each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Layouts {
    pub(super) partitions: Vec<Vec<usize>>,
    pub(super) layouts: Vec<Range<usize>>,
}

impl Layouts {
    /// One layout of so many partitions, which differ by one core at most.
    pub(super) fn fixed(cores: usize, partitions: usize) -> Layouts {
        let mine = |number| (number..cores).step_by(partitions).collect();
        let cut = 0..partitions;
        Layouts { partitions: cut.clone().map(mine).collect(), layouts: vec![cut] }
    }

    /// The whole device, and two partitions of different sizes and of one.
    pub(super) fn of(cores: usize) -> Layouts {
        let mut layouts = Layouts { partitions: vec![(0..cores).collect()], layouts: vec![] };
        layouts.layouts.push(0..1);
        let mut smaller = vec![(cores / 4).max(1), cores / 2];
        smaller.dedup();
        for part in smaller.into_iter().filter(|part| (1..cores).contains(part)) {
            let first = layouts.partitions.len();
            layouts.partitions.extend([(0..cores - part).collect(), (cores - part..cores).collect()]);
            layouts.layouts.push(first..first + 2);
        }
        layouts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(cores: usize) -> Vec<Vec<usize>> {
        let Layouts { partitions, layouts } = Layouts::of(cores);
        layouts.into_iter().map(|layout| partitions[layout].iter().map(Vec::len).collect()).collect()
    }

    #[test]
    fn a_device_offers_itself_whole_and_in_two() {
        assert_eq!(sizes(1), [vec![1]]);
        assert_eq!(sizes(2), [vec![2], vec![1, 1]]);
        assert_eq!(sizes(3), [vec![3], vec![2, 1]]);
        assert_eq!(sizes(4), [vec![4], vec![3, 1], vec![2, 2]]);
        assert_eq!(sizes(16), [vec![16], vec![12, 4], vec![8, 8]]);
    }

    #[test]
    fn every_layout_has_every_core_once() {
        for cores in 1..20 {
            let Layouts { partitions, layouts } = Layouts::of(cores);
            for layout in layouts {
                let mut there = partitions[layout].concat();
                there.sort_unstable();
                assert_eq!(there, (0..cores).collect::<Vec<_>>());
            }
        }
        assert_eq!(Layouts::fixed(5, 2).partitions, [vec![0, 2, 4], vec![1, 3]]);
    }
}
