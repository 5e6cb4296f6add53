//! Which parts of a stretch of memory are free.
//!
//! ```text
//!   |■■■■|····|■■|··········|■■■|···|      take: the first that is long enough      give back: it grows together with free neighbours
//! ```
//! First fit keeps what is taken together at the front: pieces that are taken one after the other lie side by side.

use std::collections::BTreeMap;
use std::ops::Range;

/// Free parts of a stretch, by where they begin.
#[derive(Debug)]
pub(crate) struct FreeRanges(BTreeMap<usize, usize>);

impl FreeRanges {
    /// All of a stretch of so many bytes.
    pub(crate) fn new(bytes: usize) -> FreeRanges {
        FreeRanges(if bytes == 0 { BTreeMap::new() } else { BTreeMap::from([(0, bytes)]) })
    }

    /// Takes the first part that is long enough, or nothing when none is.
    pub(crate) fn take(&mut self, bytes: usize) -> Option<Range<usize>> {
        let (&start, &free) = self.0.iter().find(|(_, free)| **free >= bytes)?;
        self.0.remove(&start);
        if free > bytes {
            self.0.insert(start + bytes, free - bytes);
        }
        Some(start..start + bytes)
    }

    /// Gives back what was taken, whole.
    pub(crate) fn give_back(&mut self, Range { mut start, mut end }: Range<usize>) {
        if start == end {
            return;
        }
        if let Some((&before, &bytes)) = self.0.range(..start).next_back()
            && before + bytes == start
        {
            start = before;
        }
        if let Some(bytes) = self.0.remove(&end) {
            end += bytes;
        }
        self.0.insert(start, end - start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_taken_one_after_the_other_lies_side_by_side() {
        let mut free = FreeRanges::new(100);
        assert_eq!(
            [30, 50, 30, 20].map(|bytes| free.take(bytes)),
            [Some(0..30), Some(30..80), None, Some(80..100)]
        );
    }

    #[test]
    fn neighbours_that_come_back_are_one_part_again() {
        let mut free = FreeRanges::new(90);
        let taken = [30; 3].map(|bytes| free.take(bytes).unwrap());
        let [first, second, third] = taken;
        free.give_back(first);
        free.give_back(third);
        assert_eq!(free.take(40), None);
        free.give_back(second);
        assert_eq!(free.take(90), Some(0..90));
    }

    proptest! {
        #[test]
        fn no_byte_is_lent_twice_and_all_come_back(steps in prop::collection::vec((any::<bool>(), 1..40usize), 1..200)) {
            let mut free = FreeRanges::new(256);
            let mut lent: Vec<Range<usize>> = Vec::new();
            for (take, number) in steps {
                if take {
                    if let Some(range) = free.take(number) {
                        prop_assert!(range.len() == number && range.end <= 256);
                        prop_assert!(lent.iter().all(|other| other.end <= range.start || range.end <= other.start));
                        lent.push(range);
                    } else {
                        let mut ends = lent.clone();
                        ends.sort_by_key(|range| range.start);
                        ends.push(256..256);
                        let mut at = 0;
                        for range in ends {
                            prop_assert!(range.start - at < number, "{at}..{} is free", range.start);
                            at = range.end;
                        }
                    }
                } else if !lent.is_empty() {
                    free.give_back(lent.swap_remove(number % lent.len()));
                }
            }
            lent.into_iter().for_each(|range| free.give_back(range));
            prop_assert_eq!(free.take(256), Some(0..256));
        }
    }
}
