//! Things that each lie somewhere else in memory, read a few at once.
//!
//!   ● ─▶ ● ● ─▶ ● ● ● ● ─▶ …        twice as many each time, up to sixteen
//!
//! Between one request and the next a launch does too much for a processor to see the next read coming. Reads that wait for nothing but memory wait together, if they
//! stand together. What is read and not asked for is no more than what was.

/// How many are read at once at most.
pub(crate) const AT_ONCE: usize = 16;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct ReadAhead<I: Iterator> {
    things: I,
    read: Vec<I::Item>,
    /// How many of those that were read.
    taken: usize,
}

impl<I: Iterator<Item: Copy>> ReadAhead<I> {
    pub(crate) fn new(things: I) -> ReadAhead<I> {
        ReadAhead { things, read: Vec::new(), taken: 0 }
    }

    /// The next one, if it is one that `wanted` says.
    pub(crate) fn next_if(&mut self, wanted: impl FnOnce(&I::Item) -> bool) -> Option<I::Item> {
        if self.taken == self.read.len() {
            let more = (2 * self.read.len()).clamp(1, AT_ONCE);
            self.taken = 0;
            self.read.clear();
            // Once for all: growing with what is asked for, the list would be moved each time.
            self.read.reserve(AT_ONCE);
            self.read.extend(self.things.by_ref().take(more));
        }
        let next = self.read.get(self.taken).copied().filter(wanted)?;
        self.taken += 1;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_come_in_order_and_one_that_is_not_wanted_stays() {
        let mut numbers = ReadAhead::new(0..100);
        assert_eq!(numbers.next_if(|number| *number > 0), None);
        assert!((0..100).all(|number| numbers.next_if(|_| true) == Some(number)));
        assert_eq!(numbers.next_if(|_| true), None);
    }

    #[test]
    fn no_more_are_read_ahead_than_were_taken() {
        let mut read = 0;
        let mut numbers = ReadAhead::new((0..100).inspect(|_| read += 1));
        (0..10).for_each(|_| _ = numbers.next_if(|_| true));
        drop(numbers);
        assert_eq!(read, 15);
    }
}
