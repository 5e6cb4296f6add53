//! Tiles of `kernels/product_expand.cu`: layers of one tap whose inputs stay on chip while a block walks over their outputs.
//!
//! ```text
//!   rows of a lane   width           32 lanes on 132 multiprocessors
//!   3136             16 × 200        512 tiles of rows, in 4 rounds of all outputs
//!    784              4 × 200        128, in one round
//!    196              200             32, each shared by 4 blocks
//!     49              56              32, likewise
//! ```
//! Wide tiles read the weights a few times only, and blocks that share rows read these again. The tile to take is the one whose busiest multiprocessor moves
//! the fewest bytes.

use super::sizes::{BESIDE_STAGES, SHARED_BYTES, Sizes};
use tessera_planner::pack::BLOCK_ROW_BYTES;

/// A tile of rows, and the rings through which everything comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ExpandTile {
    /// A multiple of 8.
    pub(super) rows: usize,
    /// Blocks that share a tile of rows: each has every so many-th tile of outputs.
    pub(super) sharers: usize,
    /// Tiles of outputs that a block has of a tile of rows.
    pub(super) turns: usize,
    pub(super) places: Places,
}

/// How much there is room for in shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Places {
    /// Of inputs: the rows of a tile, and 128 bytes of k.
    pub(super) planes: usize,
    /// Of weights, likewise.
    pub(super) stages: usize,
    /// Of residuals and outputs.
    pub(super) slots: usize,
}

impl ExpandTile {
    pub(super) const OUTPUTS: usize = 64;
    /// Two groups that multiply, one that brings.
    pub(super) const THREADS: usize = 3 * 128;
    /// No wider: with the longest activations all registers are taken. Of GELU without a residual, several of which are worked out at once, 12 bytes of a thread are spilled at
    /// 200 and 24 at 224; to tell the compiler to take one after the other (an empty `asm volatile` between them) changes nothing.
    const WIDTHS: &[usize] = &[56, 64, 104, 112, 128, 200, 224];
    /// As wide as the tiles of other kernels: what has no room for such inputs had better not keep them (197 rows, 768 outputs, k of 768, 32 lanes: 64 wide 43 µs,
    /// not kept 35).
    const USUAL: usize = 104;
    /// Fewer rows fill no tile: what is on chip would be padding.
    const FEWEST_ROWS: usize = 33;

    /// The tiles of a layer whose k is so many steps long, the one to take first; none where its outputs do not come in chunks of 16 bytes, where rows are few, or
    /// where inputs do not fit. Elements are halves.
    pub(super) fn best_first(sizes: &Sizes, steps: usize) -> Vec<ExpandTile> {
        if sizes.groups != 1
            || !sizes.outputs.is_multiple_of(8)
            || sizes.lane_rows() < ExpandTile::FEWEST_ROWS
        {
            return Vec::new();
        }
        let panels = sizes.outputs.div_ceil(ExpandTile::OUTPUTS);
        let sharers: Vec<usize> = (1..=panels.min(sizes.multiprocessors as usize))
            .filter(|&count| panels.is_multiple_of(count))
            .collect();
        let tile = |rows, places, sharers| ExpandTile { rows, sharers, turns: panels / sharers, places };
        let widths =
            ExpandTile::WIDTHS.iter().filter(|&&rows| rows >= sizes.lane_rows().min(ExpandTile::USUAL));
        let best = widths.filter_map(|&rows| {
            let places = Places::of(rows, steps)?;
            let tiles = sharers.iter().map(|&sharers| tile(rows, places, sharers));
            tiles.min_by_key(|tile| tile.moved(sizes, steps))
        });
        let mut tiles: Vec<ExpandTile> = best.collect();
        tiles.sort_by_key(|tile| tile.moved(sizes, steps));
        // Whole lines of memory's pages at a time: 128 lanes of 784 rows, 512 outputs, k of 128 take 93 us for 101 with four sharers.
        let near = tiles.first().and_then(|best| {
            let sharers = sharers.iter().find(|&&sharers| sharers >= 4 && sharers * 2 <= panels)?;
            (best.sharers < *sharers).then(|| tile(best.rows, best.places, *sharers))
        });
        tiles.splice(tiles.len().min(1)..tiles.len().min(1), near);
        tiles
    }

    /// Whether it comes before the kernels that have a block for each tile: where a block has several tiles, so that something is under way while it finishes one.
    /// bf16, µs on an H100, 2026-11-26, the first tile for the best of the others, with residual:
    ///
    /// ```text
    ///   rows, k, outputs      8 lanes        32 lanes       128 lanes
    ///   3136   64  256        9.0 for 13.0   47.0 for 47.6   182 for 173
    ///    784  128  512        6.8 for 6.8    24.2 for 28.1   101 for 100
    ///    196  256 1024        6.5 for 6.5    17.1 for 25.1    68 for 86
    ///     49  512 2048        9.3 for 9.2    30.6 for 32.2   118 for 120
    ///    784  256  512        8.2 for 8.6    29.0 for 43.9   115 for 145
    /// ```
    pub(super) fn is_best(&self, sizes: &Sizes) -> bool {
        self.rounds(sizes) * self.turns >= 4
    }

    /// Tiles of rows that the busiest block has.
    fn rounds(&self, sizes: &Sizes) -> usize {
        let lanes = sizes.room.lanes.max(1) as usize;
        let lane_rows = sizes.rows * (sizes.room.items as usize).div_ceil(lanes);
        let units = lanes * lane_rows.div_ceil(self.rows) * self.sharers;
        units.div_ceil(sizes.multiprocessors.max(1) as usize)
    }

    /// Bytes that the busiest multiprocessor moves: of every tile of rows its inputs, and of every tile of it weights, residuals and outputs.
    fn moved(&self, sizes: &Sizes, steps: usize) -> usize {
        let depth = steps * BLOCK_ROW_BYTES;
        let of_tile = ExpandTile::OUTPUTS * depth + 2 * self.rows * ExpandTile::OUTPUTS * 2;
        self.rounds(sizes) * (self.turns * of_tile + self.rows * depth)
    }

    /// Dynamic shared memory: all places, and what it takes to begin at a multiple of 1024.
    pub(super) fn shared_bytes(&self) -> usize {
        self.places.bytes(self.rows) + 1024
    }
}

impl Places {
    /// More are no faster, and where k is short slower (12544 rows, 96 outputs, k of 16, 32 lanes, 224 wide, µs: three slots 46, four 51).
    const MOST_SLOTS: usize = 4;
    const MOST_STAGES: usize = 16;

    /// Places for tiles of so many rows whose k is so many steps long; `None` where it does not fit. Weights come first, 64 KiB of them; then residuals, as far ahead
    /// as there is room; then the inputs of the next rows.
    fn of(rows: usize, steps: usize) -> Option<Places> {
        let least = Places { planes: steps.max(2), stages: 8, slots: 2 };
        let fits = |places: &Places| places.bytes(rows) + BESIDE_STAGES <= SHARED_BYTES;
        let slots = (2..=Places::MOST_SLOTS).rev().map(|slots| Places { slots, ..least }).find(fits)?;
        let doubled = Places { planes: least.planes.max(2 * steps), ..slots };
        let places = if fits(&doubled) { doubled } else { slots };
        let stages = (least.stages..=Places::MOST_STAGES).rev();
        stages.map(|stages| Places { stages, ..places }).find(fits)
    }

    fn bytes(&self, rows: usize) -> usize {
        let staged = rows * (ExpandTile::OUTPUTS * 2 + 16);
        let (plane, stage) = (rows * BLOCK_ROW_BYTES, ExpandTile::OUTPUTS * BLOCK_ROW_BYTES);
        self.planes * plane + self.stages * stage + self.slots * staged
    }
}

#[cfg(test)]
mod tests {
    use super::super::sizes::tests::sizes;
    use super::*;

    fn tiles(rows: usize, outputs: usize, k: usize, lanes: u32) -> Vec<ExpandTile> {
        ExpandTile::best_first(&sizes(rows, outputs, k, lanes), k.div_ceil(64))
    }

    #[test]
    fn residual_networks_expand_in_whole_rounds() {
        let chosen = |rows, outputs, k, lanes| {
            let tile = tiles(rows, outputs, k, lanes)[0];
            [tile.rows, tile.sharers, tile.turns]
        };
        assert_eq!(chosen(3136, 256, 64, 32), [200, 1, 4]);
        assert_eq!(chosen(784, 512, 128, 32), [200, 1, 8], "128 tiles of rows");
        assert_eq!(chosen(196, 1024, 256, 32), [200, 4, 4], "128 blocks, of 32 lanes");
        assert_eq!(chosen(49, 2048, 512, 32), [56, 4, 8]);
        assert_eq!(chosen(196, 1024, 256, 8), [104, 8, 2], "as many blocks for 8 lanes");
    }

    #[test]
    fn blocks_with_several_tiles_come_first() {
        let is_best = |rows, outputs, k, lanes| {
            tiles(rows, outputs, k, lanes)[0].is_best(&sizes(rows, outputs, k, lanes))
        };
        assert_eq!([1, 8, 32, 128].map(|lanes| is_best(196, 1024, 256, lanes)), [false, false, true, true]);
        assert_eq!([1, 8, 32, 128].map(|lanes| is_best(3136, 256, 64, lanes)), [false, true, true, true]);
    }

    #[test]
    fn what_does_not_fit_is_left_to_others() {
        assert_eq!(tiles(196, 100, 256, 32), [], "outputs that are no chunks");
        assert_eq!(tiles(196, 1024, 4096, 32), [], "a long k");
        assert_eq!(tiles(197, 768, 768, 32), [], "a long one for wide tiles");
        assert_eq!(tiles(16, 1024, 256, 1), [], "few rows");
    }

    #[test]
    fn every_tile_fits_its_multiprocessor_and_its_blocks_share_all_outputs() {
        for rows in (33..400).chain([3136, 12544]) {
            for (outputs, k, lanes) in
                [(256, 64, 32), (96, 16, 32), (200, 640, 8), (2048, 512, 32), (1024, 1024, 128), (8, 1, 1)]
            {
                for tile in tiles(rows, outputs, k, lanes) {
                    let Places { planes, stages, slots } = tile.places;
                    assert!(tile.shared_bytes() - 1024 + BESIDE_STAGES <= SHARED_BYTES, "{tile:?}");
                    assert!(planes >= k.div_ceil(64) && stages >= 8 && slots >= 2, "{tile:?}");
                    assert_eq!(tile.sharers * tile.turns, outputs.div_ceil(64), "{tile:?}");
                }
            }
        }
    }
}
