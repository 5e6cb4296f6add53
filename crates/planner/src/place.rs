//! Where buffers lie in an item's arena, and how long their bytes are theirs.
//!
//! ```text
//!   offset ▲ ┌───────┐      ┌────┐
//!          │ │   b   │      │ d  │        buffers whose lifetimes do not meet share bytes
//!          │ ├───┬───┴──────┤    │
//!          │ │ a │    c     │    │
//!          └─┴───┴──────────┴────┴─▶ step
//! ```
//! Largest first, each into the tightest gap among those that live with it: within a few percent of the bound (the busiest
//! step's bytes) on our networks, and the same for the same plan.

use std::ops::Range;
use tessera_core::Bytes;

/// Offsets are multiples of this: a cache line, and what vector loads ask for.
pub(crate) const ALIGNMENT: usize = 64;

/// What a buffer asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Claim {
    pub(crate) bytes: usize,
    pub(crate) live: Range<usize>,
}

/// An offset for every claim, and the size of the arena. `None` when the arena does not fit memory.
pub(crate) fn place(claims: &[Claim]) -> Option<(Vec<usize>, Bytes)> {
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(claims[index].bytes), index));
    let mut offsets = vec![0; claims.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut end = 0;
    for index in order {
        let size = rounded(claims[index].bytes)?;
        // The bytes that are taken while this buffer lives, in order.
        let mut taken: Vec<Range<usize>> = placed
            .iter()
            .filter(|&&other| meet(&claims[other].live, &claims[index].live))
            .map(|&other| offsets[other]..offsets[other] + rounded(claims[other].bytes).unwrap_or(0))
            .collect();
        taken.sort_by_key(|range| range.start);
        let offset = tightest(&taken, size);
        end = end.max(offset.checked_add(size)?);
        offsets[index] = offset;
        placed.push(index);
    }
    Some((offsets, Bytes(u64::try_from(end).ok()?)))
}

fn rounded(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(ALIGNMENT)
}

/// Whether two lifetimes have a step in common.
pub(crate) fn meet(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The start of the smallest gap that holds `size` bytes, or the end of everything.
fn tightest(taken: &[Range<usize>], size: usize) -> usize {
    let mut best: Option<(usize, usize)> = None;
    let mut free_from = 0;
    for range in taken {
        let gap = range.start.saturating_sub(free_from);
        if range.start > free_from && gap >= size && best.is_none_or(|(smallest, _)| gap < smallest) {
            best = Some((gap, free_from));
        }
        free_from = free_from.max(range.end);
    }
    best.map_or(free_from, |(_, start)| start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buffers_that_never_meet_share_bytes() {
        let claims = [(256, 0..2), (256, 2..4), (100, 1..3)].map(|(bytes, live)| Claim { bytes, live });
        let (offsets, size) = place(&claims).unwrap();
        assert_eq!(offsets, [0, 0, 256]);
        assert_eq!(size, Bytes(384));
    }

    #[test]
    fn an_arena_larger_than_memory_is_no_arena() {
        assert_eq!(place(&[Claim { bytes: usize::MAX - 3, live: 0..1 }]), None);
    }

    proptest! {
        #[test]
        fn live_buffers_never_overlap(
            claims in prop::collection::vec((0usize..5000, 0usize..30, 1usize..12), 0..60)
        ) {
            let claims: Vec<Claim> = claims
                .into_iter()
                .map(|(bytes, start, length)| Claim { bytes, live: start..start + length })
                .collect();
            let (offsets, size) = place(&claims).unwrap();
            for (i, a) in claims.iter().enumerate() {
                prop_assert_eq!(offsets[i] % ALIGNMENT, 0);
                prop_assert!(offsets[i] + a.bytes <= usize::try_from(size.0).unwrap());
                for (j, b) in claims.iter().enumerate().skip(i + 1) {
                    let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                    prop_assert!(apart || !meet(&a.live, &b.live), "{a:?} at {} and {b:?} at {}", offsets[i], offsets[j]);
                }
            }
            // Nobody can do better than the bytes of the busiest step; we stay near it.
            let busiest = (0..42)
                .map(|step| claims.iter().filter(|c| c.live.contains(&step)).map(|c| c.bytes).sum::<usize>())
                .max()
                .unwrap_or(0);
            prop_assert!(size.0 as usize >= busiest);
        }
    }
}
