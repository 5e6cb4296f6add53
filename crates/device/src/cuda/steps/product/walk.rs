//! Tiles of `kernels/product_walk.cu`: blocks that stay on their multiprocessor and walk from tile to tile.

use super::sizes::{BESIDE_STAGES, SHARED_BYTES, Sizes};
use super::tensor::TensorTile;

/// A tile of the matrix unit, and the ring that it is fed through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WalkTile {
    /// 64 or 128.
    pub(super) outputs: usize,
    /// A multiple of 8.
    pub(super) rows: usize,
    /// Of a stage, each 128 bytes of k.
    pub(super) steps: usize,
    pub(super) stages: usize,
}

impl WalkTile {
    /// Threads that feed.
    const FEEDERS: usize = 128;
    /// More stages than there are bytes under way anywhere.
    const MOST_STAGES: usize = 16;

    /// The tiles to try beside a step's `best` in `product_tensor.cu`, whose k is so many steps long: as high and wide, of the other height, wider.
    pub(super) fn beside(best: &TensorTile, sizes: &Sizes, steps: usize) -> Vec<WalkTile> {
        let other = if best.outputs == 64 { 128 } else { 64 };
        let wider = TensorTile::wider(best.rows).filter(|_| best.rows < sizes.lane_rows());
        let shapes = [
            Some((best.outputs, best.rows)),
            Some((other, best.rows)),
            wider.map(|rows| (best.outputs, rows)),
        ];
        let fitting = shapes.into_iter().flatten().filter(|(outputs, _)| *outputs == 64 || sizes.has_pairs());
        fitting.filter_map(|(outputs, rows)| WalkTile::holding(outputs, rows, steps)).collect()
    }

    /// Whether the first tile is the one to take: where a block is alone on its multiprocessor all the same, k is long, and a step of products lasts long enough
    /// for feeders to be worth their threads. 256 outputs, 128 rows, k of 1152, bf16, µs on an H200, 2026-11-26, this kernel for the other with the same tile:
    /// 10 lanes (64×48) 6.0 for 5.1, 16 (64×64) 7.0 for 6.3, 20 (64×128) 7.7 for 8.1, 32 10.0 for 10.1. Of four-byte elements, the other,
    /// which lets the next kernel begin at once (tf32, 20 lanes 16.3 for 15.7, 32 23.1 for 23.0; H100, 2026-11-27).
    pub(super) fn is_best(best: &TensorTile, steps: usize, real_bytes: usize) -> bool {
        real_bytes == 2 && best.blocks == 1 && best.rows >= 104 && steps >= 12
    }

    /// Whether the next kernel had better begin at once: where nearly all multiprocessors are taken, it asks for its first weights on each that is done. Where many
    /// idle, it is in the way of those that work. 256 outputs, 128 rows, k of 1152, bf16, µs on an H100, 2026-11-27: 10 lanes (64×48) 5.7 for 6.1, 32 (64×128) 11.9 for 12.4,
    /// 64 (128×128) 22.3 for 23.2; but 16 (128×64, 64 blocks) 8.1 for 7.4, 20 (64×128, 80 blocks) 8.9 for 8.8.
    pub(super) fn begins_next(&self, sizes: &Sizes) -> bool {
        sizes.blocks(self.outputs, self.rows) * 4 >= sizes.multiprocessors as usize * 3
    }

    /// A tile with all the stages that a multiprocessor has room for: of two steps where five of those fit, else of one. Two steps are half as many waits, but
    /// four stages of two are too coarse for tiles that are few (256 outputs, 128 rows, k of 1152, 20 lanes, bf16: 9.3 for 8.8 µs).
    fn holding(outputs: usize, rows: usize, steps: usize) -> Option<WalkTile> {
        let step_bytes = (outputs + rows) * 128;
        let room = SHARED_BYTES - BESIDE_STAGES;
        let pairs = room / (2 * step_bytes);
        let (of_stage, stages) =
            if steps.is_multiple_of(2) && pairs >= 5 { (2, pairs) } else { (1, room / step_bytes) };
        let stages = stages.min(WalkTile::MOST_STAGES);
        (stages >= 3).then_some(WalkTile { outputs, rows, steps: of_stage, stages })
    }

    /// Dynamic shared memory: the stages, and what it takes to begin them at a multiple of 1024.
    pub(super) fn shared_bytes(&self) -> usize {
        self.stages * self.steps * (self.outputs + self.rows) * 128 + 1024
    }

    /// Those that feed, and 128 for every 64 outputs.
    pub(super) fn threads(&self) -> usize {
        WalkTile::FEEDERS + self.outputs * 2
    }
}

#[cfg(test)]
mod tests {
    use super::super::sizes::tests::sizes;
    use super::*;

    fn beside(rows: usize, outputs: usize, k: usize, lanes: u32) -> Vec<WalkTile> {
        let (sizes, steps) = (sizes(rows, outputs, k, lanes), k.div_ceil(64));
        WalkTile::beside(&TensorTile::of(&sizes, steps, 1, true), &sizes, steps)
    }

    #[test]
    fn a_step_has_a_tile_like_its_best_one_and_its_neighbours() {
        let shapes = |lanes| -> Vec<[usize; 4]> {
            let tiles = beside(128, 256, 1152, lanes).into_iter();
            tiles.map(|tile| [tile.outputs, tile.rows, tile.steps, tile.stages]).collect()
        };
        assert_eq!(shapes(16), [[64, 64, 2, 6], [128, 64, 1, 9], [64, 104, 2, 5]]);
        assert_eq!(shapes(20), [[64, 128, 1, 9], [128, 128, 1, 6]]);
        assert_eq!(shapes(120), [[128, 128, 1, 6], [64, 128, 1, 9]]);
    }

    #[test]
    fn the_next_kernel_begins_at_once_where_few_multiprocessors_idle() {
        let begins_next = |lanes| beside(128, 256, 1152, lanes)[0].begins_next(&sizes(128, 256, 1152, lanes));
        assert_eq!([10, 16, 20, 32, 64, 120].map(begins_next), [true, true, false, true, true, true]);
    }

    #[test]
    fn wide_tiles_of_halves_that_are_alone_are_walked_over_first() {
        let is_best = |real_bytes: usize, lanes| {
            let (sizes, steps) = (sizes(128, 256, 1152, lanes), 1152 * real_bytes / 128);
            WalkTile::is_best(&TensorTile::of(&sizes, steps, 1, true), steps, real_bytes)
        };
        assert_eq!([16, 20, 32, 64, 120].map(|lanes| is_best(2, lanes)), [false, true, true, true, false]);
        assert_eq!([16, 20, 32, 64, 120].map(|lanes| is_best(4, lanes)), [false; 5]);
    }

    #[test]
    fn every_tile_fits_its_multiprocessor() {
        for rows in (1..400).chain([3136, 12544]) {
            for (outputs, k, lanes) in
                [(64, 64, 1), (96, 16, 32), (200, 640, 8), (512, 4608, 32), (4096, 1024, 128)]
            {
                for tile in beside(rows, outputs, k, lanes) {
                    assert!(tile.shared_bytes() - 1024 + BESIDE_STAGES <= SHARED_BYTES, "{tile:?}");
                    assert!(k.div_ceil(64).is_multiple_of(tile.steps), "{tile:?}");
                    assert!(tile.threads() * (tile.rows / 2 + 42) <= 1 << 16, "{tile:?}");
                }
            }
        }
    }
}
