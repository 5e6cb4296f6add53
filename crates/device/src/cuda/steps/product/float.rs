//! Tiles of `kernels/product_float.cu`: any product in strict fp32.

use super::sizes::{Sizes, width};

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

#[cfg(test)]
mod tests {
    use super::super::sizes::SHARED_BYTES;
    use super::super::sizes::tests::sizes;
    use super::*;

    #[test]
    fn every_tile_is_covered_by_whole_warps() {
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
    fn images_take_wide_tiles_and_single_rows_stream_their_weights() {
        let tile = |rows, outputs, lanes| {
            let tile = FloatTile::of(&sizes(rows, outputs, 512, lanes));
            [tile.outputs, tile.rows, tile.threads(), tile.depth * tile.stages]
        };
        assert_eq!(tile(784, 128, 32), [128, 56, 128, 64]);
        assert_eq!(tile(49, 64, 32), [64, 56, 64, 64]);
        assert_eq!(tile(1, 512, 120), [64, 1, 32, 256]);
    }
}
