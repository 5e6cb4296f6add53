//! Which tile computes a product: a table from the step's sizes and the room of a launch.
//!
//! ```text
//!   rows of a lane ─▶ width of the tile     the least waste: 49 ▸ 56, 196 ▸ 2·104, 784 ▸ 7·112, 3136 ▸ 28·112, 1 ▸ 8
//!   outputs, lanes ─▶ height                128 outputs halve the reading of inputs; 64 make twice the blocks
//!   blocks per SM  ─▶ stages                a block alone on its multiprocessor takes all the shared memory
//! ```
//! A tile changes when an element is computed and by which block, never how: the sums run over k in one order with one instruction whatever the
//! tile. So the room of a launch may be asked here, without a doubt about bits.
//!
//! Figures are from a study of ResNet-50's layers on an H200 (bf16, 32 lanes); what is not from there says so.

use crate::Room;

/// Bytes of shared memory that the blocks of one multiprocessor share.
const SHARED_BYTES: usize = 227 * 1024;
/// Of a block, beside its stages: barriers, biases, what aligning loses, and what the driver keeps.
const BESIDE_STAGES: usize = 3 * 1024;
/// The narrowest tile for more rows than one tile holds.
const WIDE: usize = 56;

/// What a choice depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sizes {
    /// Rows of one item.
    pub(super) rows: usize,
    /// Outputs of one group.
    pub(super) outputs: usize,
    pub(super) groups: usize,
    /// Length of the sums.
    pub(super) k: usize,
    pub(super) room: Room,
    pub(super) multiprocessors: u32,
}

impl Sizes {
    /// Rows of a lane that a tile should fit. Small items are taken together as a full launch brings them; large ones fill tiles alone, and a lane
    /// mostly carries one.
    fn lane_rows(&self) -> usize {
        let items = (self.room.items / self.room.lanes.max(1)).max(1) as usize;
        if self.rows <= 16 { self.rows * items } else { self.rows }
    }

    /// Blocks of a full launch.
    fn blocks(&self, tile_outputs: usize, tile_rows: usize) -> usize {
        let tiles = self.lane_rows().div_ceil(tile_rows) * self.outputs.div_ceil(tile_outputs);
        self.room.lanes as usize * self.groups * tiles
    }

    /// Whether two panels of 64 outputs to a tile waste little.
    fn has_pairs(&self) -> bool {
        let panels = self.outputs.div_ceil(64);
        panels.is_multiple_of(2) || panels > 5
    }
}

/// The width that wastes least: the smallest that holds all rows; of several tiles, which are [`WIDE`], those that pad least, the wider first as they
/// read the weights fewer times.
fn width(widths: &[usize], rows: usize) -> usize {
    let padded = |&width: &usize| (rows.next_multiple_of(width), std::cmp::Reverse(width));
    let holding = widths.iter().copied().find(|&width| width >= rows);
    let several = || widths.iter().copied().filter(|&width| width >= WIDE).min_by_key(padded);
    holding.or_else(several).expect("a table has wide tiles")
}

/// A tile of the matrix unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TensorTile {
    /// 64 or 128.
    pub(super) outputs: usize,
    /// A multiple of 8.
    pub(super) rows: usize,
    /// Of 128 bytes of k.
    pub(super) stages: usize,
    /// Groups of products that run while the next is fed: with deep stages, one.
    pub(super) lag: usize,
    /// Blocks that share a multiprocessor.
    pub(super) blocks: usize,
}

impl TensorTile {
    const WIDTHS: &[usize] = &[8, 16, 32, 56, 64, 104, 112, 128];

    /// The tile of a step whose k is `steps` stages long.
    pub(super) fn of(sizes: &Sizes, steps: usize) -> TensorTile {
        let all = sizes.multiprocessors as usize;
        let mut rows = width(TensorTile::WIDTHS, sizes.lane_rows());
        // Few rows: weights are streamed, and small blocks stream as well as large ones and are more. Short sums: prologue and end are the
        // kernel, and what matters is that other blocks work meanwhile.
        let streamed = rows <= 32;
        let tall = !streamed && steps > 2 && sizes.has_pairs() && sizes.blocks(128, rows) * 4 >= all * 3;
        let outputs = if tall { 128 } else { 64 };
        // A few lanes: narrower tiles before idle multiprocessors (64×56 took 8 lanes of ResNet-50 12 % faster).
        if !tall && rows > 64 && sizes.blocks(outputs, rows) * 2 < all {
            rows = if rows == 128 { 64 } else { 56 };
        }
        let alone = sizes.blocks(outputs, rows) <= all && steps >= 6;
        let blocks = match (alone, outputs) {
            (true, _) => 1,
            (false, 128) => 2,
            (false, _) => 3,
        };
        let stage = (outputs + rows) * 128;
        let most = ((SHARED_BYTES / blocks - BESIDE_STAGES) / stage).min(8);
        let stages = [8, 6, 4, 3].into_iter().find(|&stages| stages <= most).unwrap_or(3);
        TensorTile { outputs, rows, stages, lag: usize::from(stages >= 6), blocks }
    }

    /// Dynamic shared memory: the stages, and what it takes to begin them at a multiple of 1024.
    pub(super) fn shared_bytes(&self) -> usize {
        self.stages * (self.outputs + self.rows) * 128 + 1024
    }

    pub(super) fn threads(&self) -> usize {
        self.outputs * 2
    }
}

/// A tile of the float units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FloatTile {
    /// 64 or 128.
    pub(super) outputs: usize,
    pub(super) rows: usize,
    /// Outputs and rows of one thread.
    pub(super) of_thread: [usize; 2],
    /// k of a stage.
    pub(super) depth: usize,
    pub(super) stages: usize,
    /// Blocks that share a multiprocessor.
    pub(super) blocks: usize,
}

impl FloatTile {
    /// Widths, with the outputs and rows of a thread. 7 rows rather than 8, so that images' 49, 196 and 784 pixels fit.
    const WIDTHS: &[(usize, [usize; 2])] =
        &[(1, [2, 1]), (2, [2, 2]), (4, [2, 4]), (8, [2, 8]), (16, [8, 4]), (28, [8, 7]), (56, [8, 7])];

    pub(super) fn of(sizes: &Sizes) -> FloatTile {
        let widths: Vec<usize> = FloatTile::WIDTHS.iter().map(|(width, _)| *width).collect();
        let rows = width(&widths, sizes.lane_rows());
        let of_thread = FloatTile::WIDTHS[widths.iter().position(|&width| width == rows).unwrap_or(0)].1;
        let wide = rows == 56;
        let tall = wide && sizes.has_pairs() && sizes.blocks(128, rows) >= sizes.multiprocessors as usize * 2;
        // Few rows: 64 KB of weights under way per block, three blocks to a multiprocessor (not measured).
        let (depth, stages) = if rows <= 8 { (32, 8) } else { (16, if wide { 4 } else { 8 }) };
        let outputs = if tall { 128 } else { 64 };
        // Sums take the registers: two warps to a scheduler at full width.
        let blocks = match (rows, tall) {
            (..=8, _) => 3,
            (_, true) => 2,
            (_, false) => 4,
        };
        FloatTile { outputs, rows, of_thread, depth, stages, blocks }
    }

    pub(super) fn shared_bytes(&self) -> usize {
        self.stages * 4 * (self.outputs * self.depth + self.rows * (self.depth + 4))
    }

    pub(super) fn threads(&self) -> usize {
        self.outputs * self.rows / (self.of_thread[0] * self.of_thread[1])
    }
}

/// Tiles of rows in the worst launch of a room: every lane may end with a tile that is not full.
pub(super) fn row_tiles(room: Room, rows: usize, tile_rows: usize) -> usize {
    (room.items as usize * rows + room.lanes as usize * (tile_rows - 1)) / tile_rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(rows: usize, outputs: usize, k: usize, lanes: u32) -> Sizes {
        let room = Room { lanes, items: lanes };
        Sizes { rows, outputs, groups: 1, k, room, multiprocessors: 132 }
    }

    fn tensor(rows: usize, outputs: usize, k: usize, lanes: u32) -> [usize; 3] {
        let tile = TensorTile::of(&sizes(rows, outputs, k, lanes), k.div_ceil(64));
        [tile.outputs, tile.rows, tile.stages]
    }

    #[test]
    fn tiles_fit_the_images_of_residual_networks() {
        assert_eq!(tensor(3136, 64, 576, 32), [64, 112, 3]);
        assert_eq!(tensor(3136, 256, 64, 32), [64, 112, 3], "a short sum");
        assert_eq!(tensor(784, 128, 1152, 32), [128, 112, 3]);
        assert_eq!(tensor(196, 256, 2304, 32), [128, 104, 6], "128 blocks are one to a multiprocessor");
        assert_eq!(tensor(196, 1024, 256, 32), [128, 104, 3]);
        assert_eq!(tensor(49, 512, 4608, 32), [128, 56, 8], "a weight stream");
        assert_eq!(tensor(49, 2048, 512, 32), [128, 56, 4]);
    }

    #[test]
    fn few_lanes_take_smaller_tiles_before_multiprocessors_idle() {
        assert_eq!(tensor(196, 256, 2304, 8), [64, 56, 8]);
        assert_eq!(tensor(49, 512, 4608, 8), [64, 56, 8]);
    }

    #[test]
    fn linear_layers_take_narrow_tiles_and_many_stages() {
        assert_eq!(tensor(1, 1000, 2048, 32), [64, 8, 8]);
        assert_eq!(tensor(12, 512, 512, 32), [64, 16, 6]);
        assert_eq!(tensor(128, 768, 768, 16), [64, 128, 3]);
        assert_eq!(tensor(128, 768, 768, 32), [128, 128, 3]);
    }

    #[test]
    fn every_tensor_tile_fits_its_multiprocessor_and_its_sums() {
        for rows in 1..400 {
            for (outputs, k, lanes) in [(64, 64, 1), (200, 640, 8), (512, 4608, 32), (4096, 1024, 128)] {
                let tile = TensorTile::of(&sizes(rows, outputs, k, lanes), k.div_ceil(64));
                assert!(tile.blocks * (tile.shared_bytes() + 2048) <= SHARED_BYTES, "{tile:?}");
                assert!(tile.rows * (tile.outputs + 4) * 4 <= tile.shared_bytes() - 1024, "{tile:?}");
                assert!(tile.stages > tile.lag + 1);
            }
        }
    }

    #[test]
    fn every_float_tile_is_covered_by_whole_warps() {
        for rows in 1..400 {
            for (outputs, lanes) in [(10, 1), (128, 8), (512, 128)] {
                let tile = FloatTile::of(&sizes(rows, outputs, 256, lanes));
                assert!(tile.threads().is_multiple_of(32), "{tile:?}");
                assert!(tile.threads().is_multiple_of(tile.depth / 4), "{tile:?}");
                assert!(tile.blocks * (tile.shared_bytes() + 2048) <= SHARED_BYTES, "{tile:?}");
            }
        }
    }

    #[test]
    fn a_room_of_lanes_has_tiles_for_every_split_of_its_items() {
        let room = Room { lanes: 3, items: 9 };
        for (rows, tile) in [(1, 8), (49, 56), (196, 104), (5, 1)] {
            let tiles =
                |lanes: &[usize]| lanes.iter().map(|items| (items * rows).div_ceil(tile)).sum::<usize>();
            let worst = (1..8).flat_map(|a| (1..=8 - a).map(move |b| tiles(&[a, b, 9 - a - b])));
            assert!(worst.max().unwrap() <= row_tiles(room, rows, tile));
        }
    }
}
