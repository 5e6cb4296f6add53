//! Tiles of `kernels/product_float.cu`: any product in strict fp32.

use super::sizes::Sizes;

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
    /// Rows of a tile, outputs and rows of a thread, and how much of the float units' rate the thread's work allows, of 100: what it reads from shared
    /// memory is used `rows` and `outputs` times (an estimate). Multiples of 7 fit images' 49, 196 and 784 pixels. Threads of 4 rows are twice as many,
    /// for blocks that would be too few to hide what a thread waits for.
    const WIDTHS: &[(usize, [usize; 2], usize)] = &[
        (64, [8, 8], 100),
        (56, [8, 7], 97),
        (64, [8, 4], 88),
        (32, [8, 8], 82),
        (32, [8, 4], 82),
        (28, [8, 7], 80),
        (16, [8, 4], 75),
        (8, [2, 8], 65),
        (4, [2, 4], 60),
        (2, [2, 2], 55),
        (1, [2, 1], 50),
    ];

    /// The tile with which the busiest multiprocessor is done first.
    pub(super) fn of(sizes: &Sizes) -> FloatTile {
        let heights: &[usize] = if sizes.has_pairs() { &[128, 64] } else { &[64] };
        let tiles = heights.iter().flat_map(|&outputs| {
            let wide = FloatTile::WIDTHS.iter().filter(move |(rows, ..)| outputs == 64 || *rows >= 56);
            wide.map(move |&(rows, of_thread, rate)| {
                (FloatTile::new(outputs, rows, of_thread), rate + outputs / 64)
            })
        });
        let best = tiles.min_by_key(|(tile, rate)| tile.cycles(sizes, *rate));
        best.expect("the table has tiles").0
    }

    fn new(outputs: usize, rows: usize, of_thread: [usize; 2]) -> FloatTile {
        // Few rows: 64 KB of weights under way per block, three blocks to a multiprocessor. The largest tiles: long stages, so that threads meet less often.
        let (depth, stages) = match (rows, outputs) {
            (..=8, _) => (32, 8),
            (_, 128) => (32, 3),
            _ => (16, 4),
        };
        // Sums take the registers: two warps to a scheduler at full width.
        let blocks = match (rows, outputs) {
            (..=8, _) => 3,
            (9..=32, _) => 8,
            (_, 128) => 2,
            _ => 4,
        };
        FloatTile { outputs, rows, of_thread, depth, stages, blocks }
    }

    /// What the busiest multiprocessor takes for one of k, in hundredths of a cycle: products at [`FloatTile::busy`] of them a cycle; weights and inputs at 32
    /// bytes a cycle, its share of the second-level cache.
    fn cycles(&self, sizes: &Sizes, rate: usize) -> usize {
        let blocks = sizes.blocks(self.outputs, self.rows).div_ceil(sizes.multiprocessors.max(1) as usize);
        let busy = FloatTile::busy(blocks.min(self.blocks) * self.threads());
        let products = blocks * self.outputs * self.rows * 10_000 / (busy * rate);
        products.max(blocks * (self.outputs + self.rows) * 4 * 100 / 32)
    }

    /// Products that a multiprocessor begins in a cycle when it has so many threads: 128 when each of its four schedulers has two warps to choose from. One
    /// warp alone waits for its own reads of shared memory a quarter of the time (an estimate).
    fn busy(threads: usize) -> usize {
        let (alone, second) = (threads.min(128), threads.clamp(128, 256) - 128);
        (alone * 3 + second) / 4
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

    fn tile(rows: usize, outputs: usize, lanes: u32) -> [usize; 3] {
        let tile = FloatTile::of(&sizes(rows, outputs, 512, lanes));
        [tile.outputs, tile.rows, tile.threads()]
    }

    #[test]
    fn many_rows_take_wide_tiles_that_fit_them() {
        assert_eq!(tile(3136, 64, 32), [64, 64, 64]);
        assert_eq!(tile(196, 1024, 32), [128, 56, 128]);
        assert_eq!(tile(49, 2048, 32), [128, 56, 128]);
        assert_eq!(tile(128, 256, 120), [128, 64, 128]);
        assert_eq!(tile(128, 256, 64), [128, 64, 128]);
    }

    #[test]
    fn one_block_to_a_multiprocessor_has_more_threads() {
        assert_eq!(tile(128, 256, 32), [128, 64, 256]);
    }

    #[test]
    fn few_lanes_take_narrow_tiles_before_multiprocessors_idle() {
        assert_eq!(tile(128, 256, 1), [64, 2, 32]);
        assert_eq!(tile(256, 256, 2), [64, 8, 32]);
    }

    #[test]
    fn single_rows_stream_their_weights() {
        assert_eq!(tile(1, 512, 1), [64, 1, 32]);
        assert_eq!(tile(1, 512, 120), [64, 1, 32]);
    }
}
