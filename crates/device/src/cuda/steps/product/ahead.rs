//! What a product asks into the L2 cache for the product after it.
//!
//! ```text
//!   multiprocessors   ▒ product ▒ its end ▒ launch of the next, its first inputs ▒ product ▒ …
//!   memory            its weights │ weights of the next ──────────────────────────▶│ weights of the one after …
//! ```
//! Few lanes leave the card's memory idle for half of a launch: between two products there are ends, launches and waits, in which nobody asks for weights.
//! Weights depend on no step, so each product asks for those of the next while it multiplies, as many as leave the cache room for activations.

use crate::cuda::site::Site;
use tessera_planner::pack::{BLOCK_COLUMNS, BLOCK_ROW_BYTES, Layout};
use tessera_planner::plan::StepKind;

/// Of the cache, for the next weights of all lanes. An H100 has 50 MB.
const ROOM: usize = 16 << 20;
/// Weights are asked for by block, the beginning of each where there is not room for all: whoever reads them finds a part of every stage.
const BLOCK: usize = BLOCK_COLUMNS * BLOCK_ROW_BYTES;
/// Less than so much of a block is not worth asking for.
const LEAST: usize = 2048;

/// The weights of the next product.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Ahead {
    /// Offset in the slot.
    pub(super) weights: u64,
    /// Blocks of one lane; none where nothing is asked for.
    pub(super) blocks: u32,
    /// Of each block, from its start.
    pub(super) bytes: u32,
}

impl Ahead {
    /// What the product at `index` of the plan asks for.
    pub(super) fn of(site: &Site<'_>, index: usize) -> Ahead {
        let next = site.plan.steps[index + 1..].iter().find_map(|step| match step.kind {
            StepKind::Gemm { w, .. } | StepKind::Conv { w, .. } => Some(w),
            _ => None,
        });
        let Some(tensor) = next.map(|weight| &site.layout.tensors[weight.0 as usize]) else {
            return Ahead::default();
        };
        if !matches!(tensor.layout, Layout::Blocks { .. }) {
            return Ahead::default();
        }
        let blocks = tensor.bytes() / BLOCK;
        match Ahead::of_each(blocks, site.capacity.lanes as usize) {
            0 => Ahead::default(),
            bytes => Ahead { weights: tensor.offset as u64, blocks: blocks as u32, bytes: bytes as u32 },
        }
    }

    /// Bytes of each of so many blocks of so many lanes: whole lines of the cache.
    fn of_each(blocks: usize, lanes: usize) -> usize {
        let share = ROOM / (blocks * lanes).max(1);
        if share < LEAST { 0 } else { share.min(BLOCK) / 128 * 128 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lanes_together_stay_within_their_room() {
        assert_eq!(Ahead::of_each(144, 8), BLOCK, "all of 256 × 2304");
        assert_eq!(Ahead::of_each(576, 8), 3584, "a part of 512 × 4608");
        assert_eq!(Ahead::of_each(576, 32), 0, "too many lanes");
        for (blocks, lanes) in [(1, 1), (9, 128), (144, 32), (250, 20), (8192, 1)] {
            let bytes = Ahead::of_each(blocks, lanes);
            assert!(bytes.is_multiple_of(128) && bytes <= BLOCK && bytes * blocks * lanes <= ROOM);
        }
    }
}
