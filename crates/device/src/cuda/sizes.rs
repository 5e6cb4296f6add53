//! Into which partitions a card is opened, and which of them are in force together.
//!
//! ```text
//!   partitions   0 … n−1  streams over all multiprocessors      n, n+1, …  the sizes of what is aside, largest first
//!   layout 0     [0 … n−1], and the size for who is apart, if one was asked for
//!   layout k     [0 … n−1], and the k-th size that classes may be kept to
//! ```

use super::CudaOptions;
use super::fence::{Context, CudaError, Share};
use std::num::NonZeroU32;
use std::sync::Arc;
use tessera_core::PartitionId;

/// See the module's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sizes {
    streams: usize,
    /// Of what is aside, as the card grants them: largest first, each once.
    aside: Vec<u32>,
    /// Which of them the layouts after the first have.
    behind: Vec<u32>,
    /// And which the first has.
    apart: Option<u32>,
}

impl Sizes {
    /// What is opened on a card that grants so many multiprocessors where so many are wanted.
    pub(super) fn of(options: &CudaOptions, granted: impl Fn(NonZeroU32) -> u32) -> Sizes {
        let apart = options.aside.map(&granted);
        let mut behind: Vec<u32> = options.behind.iter().copied().map(granted).collect();
        let largest_first = |sizes: &mut Vec<u32>| {
            sizes.sort_unstable_by(|one, other| other.cmp(one));
            sizes.dedup();
        };
        largest_first(&mut behind);
        let mut aside: Vec<u32> = behind.iter().copied().chain(apart).collect();
        largest_first(&mut aside);
        Sizes { streams: options.partitions.get(), aside, behind, apart }
    }

    /// What of the card each partition has. Streams go before what is aside, where there is any.
    pub(super) fn shares(&self, context: &Arc<Context>) -> Result<Vec<Share>, CudaError> {
        let stream = if self.aside.is_empty() { Share::whole(context) } else { Share::first(context) };
        let kept = self.aside.iter().copied().filter_map(NonZeroU32::new);
        let streams = std::iter::repeat_n(Ok(stream), self.streams);
        streams.chain(kept.map(|size| Share::kept_to(context, size))).collect()
    }

    /// The ways of cutting the card.
    pub(super) fn layouts(&self) -> Vec<Vec<PartitionId>> {
        let with = |size: Option<u32>| {
            let place = size.and_then(|size| self.aside.iter().position(|aside| *aside == size));
            let aside = place.map(|place| self.streams + place);
            (0..self.streams).chain(aside).map(|number| PartitionId(number as u64)).collect()
        };
        std::iter::once(self.apart).chain(self.behind.iter().copied().map(Some)).map(with).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    /// Two streams of a card of 132 multiprocessors that gives out eights.
    fn sizes(aside: Option<u32>, behind: &[u32]) -> Sizes {
        let options = CudaOptions {
            ordinal: 0,
            partitions: NonZeroUsize::new(2).unwrap(),
            aside: aside.and_then(NonZeroU32::new),
            behind: behind.iter().copied().filter_map(NonZeroU32::new).collect(),
            memory_limit: None,
            kernel_cache: None,
            tuning: None,
        };
        Sizes::of(&options, |wanted| wanted.get().next_multiple_of(8).min(132))
    }

    fn layouts(sizes: &Sizes) -> Vec<Vec<u64>> {
        sizes.layouts().iter().map(|layout| layout.iter().map(|id| id.0).collect()).collect()
    }

    #[test]
    fn without_sizes_there_is_one_layout_of_streams() {
        assert_eq!(layouts(&sizes(None, &[])), [[0, 1]]);
        assert_eq!(layouts(&sizes(Some(16), &[])), [[0, 1, 2]]);
    }

    #[test]
    fn each_size_is_in_a_layout_of_its_own_largest_first_and_streams_are_in_all() {
        let three = sizes(None, &[16, 64, 30, 32]);
        assert_eq!(three.aside, [64, 32, 16], "30 are 32");
        assert_eq!(layouts(&three), [vec![0, 1], vec![0, 1, 2], vec![0, 1, 3], vec![0, 1, 4]]);
    }

    #[test]
    fn who_is_apart_has_its_size_in_the_first_layout() {
        let with = sizes(Some(16), &[64, 16]);
        assert_eq!(with.aside, [64, 16]);
        assert_eq!(layouts(&with), [[0, 1, 3], [0, 1, 2], [0, 1, 3]]);
    }
}
