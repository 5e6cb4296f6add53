//! Tiles of `kernels/product_held.cu`: convolutions of several taps whose weights stay in shared memory beside their window.
//!
//! ```text
//!   56×56 of 64 channels, 32 lanes   4 blocks a lane on 132 multiprocessors   of 8 tiles of 104 positions
//!                          8 lanes   16 blocks a lane                         of 2
//! ```
//! A block takes all the shared memory of its multiprocessor, so blocks come in waves of as many as there are multiprocessors, and the tile to take is the one
//! that fills waves best.

use super::sizes::{BESIDE_STAGES, SHARED_BYTES, Sizes};
use super::window;
use tessera_planner::pack::BLOCK_ROW_BYTES;
use tessera_planner::plan::ConvShape;

/// A tile of positions of the padded image, and how many of them a block has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HeldTile {
    /// Positions: a multiple of 8.
    pub(super) columns: usize,
    /// Tiles of a block, one after the other.
    pub(super) turns: usize,
    /// Blocks of one item and 64 outputs.
    pub(super) item_blocks: usize,
    /// Places of a plane of the window.
    pub(super) plane: usize,
    /// Steps of k.
    steps: usize,
    /// Bytes of the window.
    window: usize,
}

impl HeldTile {
    pub(super) const OUTPUTS: usize = 64;
    /// Two groups that multiply, one that brings.
    pub(super) const THREADS: usize = 3 * 128;
    /// A tile's products take longer than its outputs, and the outputs of two fit beside all else.
    const COLUMNS: &[usize] = &[104, 112, 96];
    /// As in the kernel.
    const MOST_STEPS: usize = 24;
    const MOST_TURNS: usize = 16;

    /// The tiles of a convolution, whose elements have `size` bytes, the one to take first; none where it is no window, elements are no halves, outputs
    /// do not come in chunks of 16 bytes, or weights and window do not fit.
    pub(super) fn best_first(sizes: &Sizes, shape: &ConvShape, size: usize) -> Vec<HeldTile> {
        let steps = (sizes.k * size).div_ceil(BLOCK_ROW_BYTES);
        let chunks = (sizes.outputs * size).is_multiple_of(16);
        if size != 2 || !chunks || steps > HeldTile::MOST_STEPS || !window::walks(shape, size) {
            return Vec::new();
        }
        let best = |&columns: &usize| {
            let turns = 1..=HeldTile::MOST_TURNS;
            let tiles = turns.map(|turns| HeldTile::of(columns, turns, steps, shape, size));
            tiles.filter(HeldTile::fits).min_by_key(|tile| tile.cycles(sizes, shape))
        };
        let mut tiles: Vec<HeldTile> = HeldTile::COLUMNS.iter().filter_map(best).collect();
        tiles.sort_by_key(|tile| tile.cycles(sizes, shape));
        tiles
    }

    /// Whether it comes before the kernels that stream their weights: where all outputs are of one block, whose weights meet several tiles or whose
    /// multiprocessor has no other. On an H100 (2026-11-26) 56×56 of 64 channels took 4.0 µs instead of 4.4 for one lane, 6.9 instead of 8.1 for 8, 19 instead
    /// of 28 for 32, and 76 instead of 84 for 128.
    pub(super) fn is_best(&self, sizes: &Sizes) -> bool {
        let blocks = sizes.room.lanes as usize * self.item_blocks;
        let once = self.turns > 1 || blocks <= sizes.multiprocessors as usize;
        sizes.outputs <= HeldTile::OUTPUTS && once
    }

    fn of(columns: usize, turns: usize, steps: usize, shape: &ConvShape, size: usize) -> HeldTile {
        let line = window::line(shape);
        let positions = (shape.output[0] - 1) * line + shape.output[1];
        let plane = window::plane(turns * columns, shape);
        let window = plane * shape.in_per_group * size;
        let item_blocks = positions.div_ceil(turns * columns);
        HeldTile { columns, turns, item_blocks, plane, steps, window }
    }

    fn fits(&self) -> bool {
        self.shared_bytes() + BESIDE_STAGES - 1024 <= SHARED_BYTES
    }

    /// An estimate of the busiest multiprocessor's time: products at the matrix unit's rate, before the first of a block the places that it sees at 20 bytes
    /// a cycle, behind its last one the outputs, and a thousand cycles to begin and end.
    fn cycles(&self, sizes: &Sizes, shape: &ConvShape) -> usize {
        let products = self.turns * self.columns * self.steps * 2;
        let first = window::plane(self.columns, shape) * shape.in_per_group * 2 / 20;
        let blocks = sizes.room.lanes as usize * self.item_blocks * sizes.outputs.div_ceil(HeldTile::OUTPUTS);
        let waves = blocks.div_ceil(sizes.multiprocessors.max(1) as usize);
        waves * (products + first + self.columns * 8 + 1000)
    }

    /// Dynamic shared memory: weights, the window, a tile of outputs of each group, and what it takes to begin at a multiple of 1024.
    pub(super) fn shared_bytes(&self) -> usize {
        let weights = self.steps * HeldTile::OUTPUTS * BLOCK_ROW_BYTES;
        let staged = 2 * self.columns * (HeldTile::OUTPUTS * 2 + 16);
        weights + self.window + staged + 1024
    }
}

#[cfg(test)]
mod tests {
    use super::window::tests::layer;
    use super::*;

    fn tiles(side: usize, channels: usize, lanes: u32) -> Vec<HeldTile> {
        let (sizes, shape) = layer(side, [channels; 2], lanes);
        HeldTile::best_first(&sizes, &shape, 2)
    }

    #[test]
    fn lanes_share_the_multiprocessors_in_whole_waves() {
        let chosen = |side, lanes| {
            let tile = tiles(side, 64, lanes)[0];
            [tile.columns, tile.turns, tile.item_blocks]
        };
        assert_eq!(chosen(56, 32), [104, 8, 4], "128 blocks");
        assert_eq!(chosen(56, 8), [104, 2, 16], "128 blocks");
        assert_eq!(chosen(56, 64), [104, 8, 4], "two waves: all of a half does not fit");
        assert_eq!(chosen(56, 1)[1], 1, "few lanes leave no block two tiles");
    }

    #[test]
    fn what_does_not_fit_beside_its_window_is_streamed() {
        assert_eq!(tiles(28, 256, 32), []);
        assert_eq!(tiles(500, 128, 32), []);
        let of = |size: usize, outputs: usize| {
            let (sizes, shape) = layer(56, [64, outputs], 32);
            HeldTile::best_first(&sizes, &shape, size).len()
        };
        assert!(of(2, 64) > 0 && of(2, 72) > 0);
        assert_eq!([of(4, 64), of(2, 68)], [0, 0], "floats; outputs that are no chunks");
    }

    #[test]
    fn every_tile_fits_its_multiprocessor_and_all_of_them_cover_the_image() {
        for side in [5, 14, 28, 56, 112, 224] {
            for lanes in [1, 8, 32, 128] {
                for tile in tiles(side, 64, lanes) {
                    let line = side + 2;
                    assert!(tile.shared_bytes() + BESIDE_STAGES - 1024 <= SHARED_BYTES, "{tile:?}");
                    assert!(tile.plane % 8 == 1 && tile.plane >= tile.turns * tile.columns + 2 * line + 2);
                    assert!(tile.item_blocks * tile.turns * tile.columns >= side * line - 2);
                    assert!((tile.item_blocks - 1) * tile.turns * tile.columns < side * line - 2);
                }
            }
        }
    }
}
