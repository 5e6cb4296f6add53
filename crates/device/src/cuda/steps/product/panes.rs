//! Tiles of `kernels/product_panes.cu`: convolutions of several taps by blocks that stay, whose next window comes while this one is multiplied.
//!
//! ```text
//!   28×28 of 128 channels    4 tiles of 216 positions a lane     2 panes, 5 stages
//!   14×14 of 256 channels    2 tiles of 112, twice the outputs   1 pane, 8 stages
//! ```

use super::sizes::{BESIDE_STAGES, SHARED_BYTES, Sizes};
use super::window;
use tessera_planner::pack::BLOCK_ROW_BYTES;
use tessera_planner::plan::ConvShape;

/// A tile of positions of the padded image, and the places for what comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PaneTile {
    /// Positions: a multiple of 8.
    pub(super) columns: usize,
    /// Windows that there is room for.
    pub(super) panes: usize,
    /// Of weights, each 128 bytes of k.
    pub(super) stages: usize,
    /// Tiles of one item.
    pub(super) item_tiles: usize,
    /// Places of a plane of the window.
    pub(super) plane: usize,
    /// Bytes of a pane.
    pane: usize,
}

impl PaneTile {
    pub(super) const OUTPUTS: usize = 128;
    /// Two groups that multiply, three warps that bring windows, one that brings weights.
    pub(super) const THREADS: usize = 3 * 128;
    /// Sums of wider ones leave too few registers. 4 lines of 28 columns with their padding are 120 positions, 7 are 210, 7 lines of 14 are 112.
    const COLUMNS: &[usize] = &[216, 120, 112];
    /// Weights on their way are enough.
    const MOST_STAGES: usize = 8;
    const FEWEST_STAGES: usize = 4;
    /// Beside two panes: 14×14 of 256 channels, 128 lanes, took 71 µs with two panes and four stages, 62 with one and eight (H200, 2026-11-26).
    const FEWEST_BESIDE_TWO: usize = 5;

    /// The tiles of a convolution, whose elements have `size` bytes, the one to take first; none where it is no window, elements are no halves, outputs do not
    /// fill blocks of 128, or nothing fits.
    pub(super) fn best_first(sizes: &Sizes, shape: &ConvShape, size: usize) -> Vec<PaneTile> {
        let whole = sizes.outputs.is_multiple_of(PaneTile::OUTPUTS);
        if size != 2 || !whole || !window::walks(shape, size) {
            return Vec::new();
        }
        let of = |&columns: &usize| PaneTile::of(columns, shape, size);
        let mut tiles: Vec<PaneTile> = PaneTile::COLUMNS.iter().filter_map(of).collect();
        tiles.sort_by_key(|tile| tile.cycles(sizes, shape));
        tiles
    }

    /// With two panes, where they leave stages enough, else with one.
    fn of(columns: usize, shape: &ConvShape, size: usize) -> Option<PaneTile> {
        let line = window::line(shape);
        let item_tiles = ((shape.output[0] - 1) * line + shape.output[1]).div_ceil(columns);
        let plane = window::plane(columns, shape);
        let staged = columns * PaneTile::OUTPUTS / 64 * (64 * size + 16);
        let pane = (plane * shape.in_per_group * size).max(staged);
        let tile = |panes: usize, fewest: usize| {
            let room = (SHARED_BYTES - BESIDE_STAGES).checked_sub(panes * pane)?;
            let stages = (room / PaneTile::STAGE_BYTES).min(PaneTile::MOST_STAGES);
            let tile = PaneTile { columns, panes, stages, item_tiles, plane, pane };
            (stages >= fewest).then_some(tile)
        };
        tile(2, PaneTile::FEWEST_BESIDE_TWO).or_else(|| tile(1, PaneTile::FEWEST_STAGES))
    }

    const STAGE_BYTES: usize = PaneTile::OUTPUTS * BLOCK_ROW_BYTES;

    /// Tiles of the busiest block.
    fn rounds(&self, sizes: &Sizes) -> usize {
        self.blocks(sizes).div_ceil(sizes.multiprocessors.max(1) as usize)
    }

    /// Whether it comes before the kernels that have a block for each tile: where tiles keep most multiprocessors busy. bf16, µs of one in a chain on an H200,
    /// 2026-11-26, for the best tile of product_window.cu that was tried: 28×28 of 128 channels, 32 lanes 17.3 for 17.6, 128 lanes 57.8 for 69.0; 14×14 of 256, 18.2 for
    /// 18.1 and 62.1 for 69.3. 8 lanes of either are left to narrow tiles of 64 outputs: 8.0 for 9.5, 9.6 for 14.2.
    pub(super) fn is_best(&self, sizes: &Sizes) -> bool {
        self.blocks(sizes) * 4 >= sizes.multiprocessors as usize * 3
    }

    fn blocks(&self, sizes: &Sizes) -> usize {
        sizes.room.lanes as usize * self.item_tiles * (sizes.outputs / PaneTile::OUTPUTS)
    }

    /// An estimate of the busiest multiprocessor's time: products at the matrix unit's rate, which hide half of the weights at 64 bytes a cycle, and outputs; before them
    /// the first window, or every one where there is one pane, at 20 bytes a cycle, and a thousand cycles to begin and end.
    fn cycles(&self, sizes: &Sizes, shape: &ConvShape) -> usize {
        let products = PaneTile::OUTPUTS * self.columns * sizes.k / 2048;
        let window = self.plane * shape.in_per_group * 2 / 20;
        let rounds = self.rounds(sizes);
        let waited = if self.panes == 1 { rounds } else { 1 };
        let weights = PaneTile::OUTPUTS * sizes.k * 2 / 128;
        rounds * (products + weights + self.columns * 8) + waited * window + 1000
    }

    /// Dynamic shared memory: the ring, the panes, and what it takes to begin at a multiple of 1024.
    pub(super) fn shared_bytes(&self) -> usize {
        self.stages * PaneTile::STAGE_BYTES + self.panes * self.pane + 1024
    }
}

#[cfg(test)]
mod tests {
    use super::window::tests::layer;
    use super::*;

    fn tiles(side: usize, channels: usize, lanes: u32) -> Vec<PaneTile> {
        let (sizes, shape) = layer(side, [channels; 2], lanes);
        PaneTile::best_first(&sizes, &shape, 2)
    }

    #[test]
    fn a_second_pane_is_there_where_it_leaves_stages_enough() {
        let chosen = |side, channels, lanes| {
            let tile = tiles(side, channels, lanes)[0];
            [tile.columns, tile.panes, tile.stages]
        };
        assert_eq!(chosen(28, 128, 16), [112, 2, 8]);
        assert_eq!(chosen(28, 128, 32), [216, 2, 5]);
        assert_eq!(chosen(28, 128, 128), [216, 2, 5]);
        assert_eq!(chosen(14, 256, 32), [112, 1, 8]);
        assert_eq!(chosen(14, 256, 128), [112, 1, 8]);
    }

    #[test]
    fn few_lanes_are_left_to_narrower_tiles() {
        let best = |side: usize, channels: usize, lanes: u32| {
            let (sizes, _) = layer(side, [channels; 2], lanes);
            tiles(side, channels, lanes)[0].is_best(&sizes)
        };
        assert!(best(28, 128, 32) && best(14, 256, 32) && best(28, 128, 128));
        assert!(!best(28, 128, 8) && !best(14, 256, 8));
    }

    #[test]
    fn floats_and_outputs_that_do_not_fill_blocks_are_left_to_others() {
        let of = |size: usize, outputs: usize| {
            let (sizes, shape) = layer(28, [128, outputs], 32);
            PaneTile::best_first(&sizes, &shape, size).len()
        };
        assert!(of(2, 128) > 0);
        assert_eq!([of(2, 64), of(4, 128), of(2, 120)], [0; 3]);
        assert_eq!(tiles(7, 512, 32), [], "padding");
        assert_eq!(tiles(500, 256, 32), [], "lines that do not fit");
    }

    #[test]
    fn every_tile_fits_its_multiprocessor_and_all_of_them_cover_the_image() {
        for (side, channels) in [(14, 128), (14, 512), (20, 256), (28, 128), (56, 128), (112, 128)] {
            for lanes in [1, 8, 32, 128] {
                for tile in tiles(side, channels, lanes) {
                    let line = side + 2;
                    assert!(tile.shared_bytes() + BESIDE_STAGES - 1024 <= SHARED_BYTES, "{tile:?}");
                    assert!(tile.plane % 8 == 1 && tile.plane >= tile.columns + 2 * line + 2, "{tile:?}");
                    assert!(tile.item_tiles * tile.columns >= side * line - 2, "{tile:?}");
                }
            }
        }
    }
}
