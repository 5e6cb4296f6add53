//! Tiles of `kernels/product_float.cu`: any product in strict fp32.
//!
//! ```text
//!   outputs and rows of a tile ─▶ how even the multiprocessors' shares are, and what is read how often
//!   of a thread                ─▶ products to a read of shared memory, and how many warps there are to take turns
//!   runs of k                  ─▶ one after the other in a block, or each in a block of a cluster
//! ```
//! What a tile takes is estimated for the busiest multiprocessor, and the least wins. None changes a bit.

use super::sizes::{SHARED_BYTES, Sizes};

/// k of one chain of sums, `K_SEGMENT` of the plan.
const RUN: usize = 256;
/// Blocks of a cluster that every card can place.
const CLUSTER: usize = 8;
/// Of shared memory, what the driver keeps of each block.
const KEPT: usize = 1024;

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
    /// Whether a block sums several runs of k.
    pub(super) long: bool,
    /// Blocks of a cluster, each with a run of k.
    pub(super) parts: usize,
    /// Dynamic shared memory. More than is used keeps blocks of a small launch apart.
    pub(super) shared_bytes: usize,
}

/// Outputs, rows, and those of a thread. Multiples of 7 fit images' 49, 196 and 784 pixels. The last, of one warp each, are for the few rows of linear layers.
const SHAPES: &[(usize, usize, [usize; 2])] = &[
    (128, 64, [8, 8]),
    (128, 56, [8, 7]),
    (64, 64, [8, 8]),
    (64, 56, [8, 7]),
    (64, 64, [8, 4]),
    (64, 32, [8, 4]),
    (64, 32, [4, 4]),
    (64, 28, [8, 7]),
    (64, 16, [4, 4]),
    (64, 16, [4, 2]),
    (64, 8, [2, 8]),
    (64, 4, [2, 4]),
    (64, 2, [2, 2]),
    (64, 1, [2, 1]),
];

impl FloatTile {
    /// The tile with which the busiest multiprocessor is done first.
    pub(super) fn of(sizes: &Sizes) -> FloatTile {
        let timed = FloatTile::all(sizes).map(|tile| (tile.cycles(sizes), tile));
        let (_, best) = timed.min_by(|(a, _), (b, _)| a.total_cmp(b)).expect("there are tiles");
        best.apart(sizes)
    }

    /// Every tile for sums so long.
    fn all(sizes: &Sizes) -> impl Iterator<Item = FloatTile> {
        let runs = sizes.k.div_ceil(RUN).max(1);
        let narrow = !sizes.has_pairs();
        let shapes = SHAPES.iter().filter(move |(outputs, ..)| !(narrow && *outputs == 128));
        shapes.flat_map(move |&(outputs, rows, of_thread)| {
            let long = runs > 1;
            let whole = FloatTile::new(outputs, rows, of_thread, long, 1);
            let spread = (2..=CLUSTER).contains(&runs) && of_thread[0] >= 4;
            let parts = spread.then(|| FloatTile::new(outputs, rows, of_thread, false, runs));
            std::iter::once(whole).chain(parts)
        })
    }

    fn new(outputs: usize, rows: usize, of_thread: [usize; 2], long: bool, parts: usize) -> FloatTile {
        let threads = outputs * rows / (of_thread[0] * of_thread[1]);
        // Few rows: 64 KB of weights under way per block, three blocks to a multiprocessor. All else as many blocks as there are registers for, 128 or 102
        // a thread; long stages, as each costs a hundred instructions.
        let (most, plans): (usize, &[(usize, usize)]) = match of_thread[0] * of_thread[1] {
            _ if rows <= 8 => (3, &[(32, 8)]),
            32.. => (
                (512 / threads).min(16) - usize::from(parts > 1 && threads <= 64),
                &[(32, 3), (32, 2), (16, 3), (16, 2), (8, 3), (8, 2)],
            ),
            _ => (640 / threads, &[(32, 3), (16, 6), (16, 4), (16, 3), (16, 2)]),
        };
        let tile = FloatTile {
            outputs,
            rows,
            of_thread,
            depth: 0,
            stages: 0,
            blocks: 0,
            long,
            parts,
            shared_bytes: 0,
        };
        let fitting = (1..=most).rev().find_map(|blocks| {
            let fits = plans.iter().map(|&(depth, stages)| {
                let tile = FloatTile { depth, stages, blocks, ..tile };
                FloatTile { shared_bytes: tile.used_bytes(), ..tile }
            });
            fits.into_iter().find(|tile| tile.shared_bytes <= tile.room(blocks))
        });
        fitting.expect("every tile fits a multiprocessor of its own")
    }

    pub(super) fn threads(&self) -> usize {
        self.outputs * self.rows / (self.of_thread[0] * self.of_thread[1])
    }

    /// Dynamic shared memory of a block, of so many on a multiprocessor: beside what the driver keeps, where rows lie, barriers and the like.
    fn room(&self, blocks: usize) -> usize {
        (SHARED_BYTES / blocks - KEPT - self.rows * 16 - 256) / 128 * 128
    }

    /// The stages, and sums: of runs that are over, beside them; of a cluster's blocks, in their place.
    fn used_bytes(&self) -> usize {
        let pitch = if self.depth == 32 { self.depth + 4 } else { self.depth };
        let stages = self.stages * 4 * (self.outputs * self.depth + self.rows * pitch);
        let sums = self.outputs * self.rows * 4;
        match (self.long, self.parts) {
            (true, _) => sums + stages,
            (false, 1) => stages,
            (false, _) => stages.max(sums),
        }
    }

    fn launched(&self, sizes: &Sizes) -> usize {
        sizes.blocks(self.outputs, self.rows) * self.parts
    }

    /// Blocks begin before the kernel ahead has ended, wherever there is room: multiprocessors that are done early would take more than their share of a
    /// launch that fits them all at once. So none has room for more. (8 lanes in 640 blocks, ten to a multiprocessor, took as long as 10 lanes in 800, seven
    /// to a multiprocessor: H200.)
    fn apart(self, sizes: &Sizes) -> FloatTile {
        let share = self.launched(sizes).div_ceil(sizes.multiprocessors.max(1) as usize);
        if share >= self.blocks {
            return self;
        }
        FloatTile { shared_bytes: self.room(share).max(self.shared_bytes), ..self }
    }

    /// What the busiest multiprocessor takes, in cycles. Beside launching, which all tiles do.
    fn cycles(&self, sizes: &Sizes) -> f64 {
        let share = self.launched(sizes).div_ceil(sizes.multiprocessors.max(1) as usize);
        let k = sizes.k as f64 / self.parts as f64;
        let [outputs, rows] = self.of_thread.map(|side| side as f64);
        // A warp's instructions: products and reads; what a stage costs; the runs' ends; the beginning and the end (counted in the assembler's output).
        let reads = (outputs / 4.0).max(1.0) + rows / 4.0;
        let stages = k / self.depth as f64 * 110.0;
        let runs = if self.long { k / RUN as f64 * outputs * rows * 3.0 } else { 0.0 };
        let ends = 400.0 + outputs * rows * 8.0 + if self.parts > 1 { 300.0 } else { 0.0 };
        let instructions = k * (outputs * rows + reads) + stages + runs + ends;
        // Reads of shared memory, one at a time on a multiprocessor: two each, of half a warp.
        let served = k * ((outputs / 2.0).max(2.0) + rows / 2.0);
        // Blocks that run together: four schedulers with one instruction a cycle each, of which a warp alone fills half (measured on an H100, as is that
        // two warps fill three quarters).
        let together = |blocks: usize| {
            let warps = (blocks * self.threads()) as f64 / 32.0;
            let bounds = [(warps / 4.0).max(1.0) * instructions, instructions * 2.0, warps * served];
            bounds.map(|bound| bound.powi(4)).iter().sum::<f64>().sqrt().sqrt()
        };
        let (full, rest) = (share / self.blocks, share % self.blocks);
        let computing = full as f64 * together(self.blocks) + if rest > 0 { together(rest) } else { 0.0 };
        // Weights and inputs at 40 bytes a cycle, a multiprocessor's share of the second-level cache.
        let loading = (share * (self.outputs + self.rows) * 4) as f64 * k / 40.0;
        let meeting = if self.parts > 1 { 2000.0 } else { 0.0 };
        computing.max(loading) + meeting
    }
}

#[cfg(test)]
mod tests {
    use super::super::sizes::tests::sizes;
    use super::*;
    use tessera_planner::plan::K_SEGMENT;

    #[test]
    fn every_tile_is_covered_by_whole_warps_and_fits_its_multiprocessor() {
        assert_eq!(RUN, K_SEGMENT);
        for rows in 1..400 {
            for (outputs, k, lanes) in
                [(10, 20, 1), (128, 256, 8), (512, 700, 128), (64, 2000, 20), (256, 4608, 3)]
            {
                let sizes = sizes(rows, outputs, k, lanes);
                for tile in FloatTile::all(&sizes).chain([FloatTile::of(&sizes)]) {
                    assert!(tile.threads().is_multiple_of(32), "{tile:?}");
                    assert!(tile.threads().is_multiple_of(tile.depth / 4), "{tile:?}");
                    assert!(tile.parts == 1 || (tile.parts == k.div_ceil(RUN) && !tile.long), "{tile:?}");
                    assert!(tile.long == (tile.parts == 1 && k > RUN), "{tile:?}");
                    assert!(tile.used_bytes() <= tile.room(tile.blocks), "{tile:?}");
                    assert!(tile.shared_bytes <= tile.room(1), "{tile:?}");
                }
            }
        }
    }

    fn tile(rows: usize, outputs: usize, k: usize, lanes: u32) -> ([usize; 3], usize) {
        let tile = FloatTile::of(&sizes(rows, outputs, k, lanes));
        ([tile.outputs, tile.rows, tile.threads()], tile.parts)
    }

    #[test]
    fn many_lanes_take_wide_tiles() {
        assert_eq!(tile(256, 256, 256, 64), ([128, 64, 128], 1));
        assert_eq!(tile(256, 256, 256, 120), ([64, 64, 64], 1), "more even shares");
        assert_eq!(tile(128, 256, 1152, 120).0, [128, 64, 128]);
    }

    #[test]
    fn few_lanes_spread_their_runs_of_k() {
        for lanes in [1, 2, 4, 8, 16, 32] {
            assert_eq!(tile(128, 256, 1152, lanes).1, 5);
        }
        assert_eq!(tile(128, 256, 256, 1).1, 1, "one run");
        assert_eq!(tile(128, 256, 4608, 1).1, 1, "too many for a cluster");
    }

    #[test]
    fn single_rows_stream_their_weights() {
        assert_eq!(tile(1, 512, 512, 32), ([64, 1, 32], 1));
        assert_eq!(tile(1, 512, 512, 120), ([64, 1, 32], 1));
    }

    #[test]
    fn blocks_of_a_small_launch_have_no_room_beside_each_other() {
        let sizes = sizes(128, 256, 256, 10);
        let tile = FloatTile::of(&sizes);
        let share = tile.launched(&sizes).div_ceil(132);
        assert!(share < tile.blocks, "{tile:?}");
        let of_block = tile.shared_bytes + KEPT + tile.rows * 16;
        assert!(of_block * share <= SHARED_BYTES && of_block * (share + 1) > SHARED_BYTES, "{tile:?}");
    }
}
