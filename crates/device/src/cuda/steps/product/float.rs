//! Tiles of `kernels/product_float.cu`, for any product in strict fp32.
//!
//! ```text
//!   outputs and rows of a tile ─▶ how even the multiprocessors' shares are, and what is read how often
//!   of a thread                ─▶ products to a read of shared memory, and how many warps there are to take turns
//!   feeding                    ─▶ how inputs lie
//!   runs of k                  ─▶ one after the other in a block, or each in a block of a cluster
//! ```
//! What the busiest multiprocessor takes is looked up in what each tile took on a card, and the least wins. None changes a bit.

use super::Loader;
use super::sizes::{SHARED_BYTES, Sizes};

/// k of one chain of sums, `K_SEGMENT` of the plan.
pub(super) const RUN: usize = 256;
/// Blocks of a cluster that every card can place.
const CLUSTER: usize = 8;
/// Of shared memory, what the driver keeps of each block.
const KEPT: usize = 1024;
/// Shared memory of a multiprocessor: what a block alone may have, and what is kept of it.
const ALL_SHARED: usize = SHARED_BYTES + KEPT;

/// A tile of the float units.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct FloatTile {
    /// 64 or 128.
    pub(super) outputs: usize,
    pub(super) rows: usize,
    /// Outputs and rows of one thread.
    pub(super) of_thread: [usize; 2],
    /// k of a stage.
    pub(super) depth: usize,
    pub(super) stages: usize,
    pub(super) feeding: Feeding,
    /// Blocks that share a multiprocessor.
    pub(super) blocks: usize,
    /// How a block sums.
    pub(super) runs: Runs,
    /// Blocks of a cluster, each with a run of k.
    pub(super) parts: usize,
    /// Dynamic shared memory. More than is used keeps blocks of a small launch apart.
    pub(super) shared_bytes: usize,
    times: &'static [Time],
}

/// How inputs come into a stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Feeding {
    /// Row by row, copied by all threads.
    Rows,
    /// K by k, through the registers of all threads.
    Turned,
}

/// What a block does about runs of k: the numbers of `-DLONG`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Runs {
    /// It sums one.
    One = 0,
    /// What earlier ones add up to waits in shared memory.
    Shared = 1,
    /// It waits in registers.
    Held = 2,
}

/// So many blocks together on a multiprocessor, the microseconds that their first run of k takes with all that comes before and after, and those of each further run.
type Time = (usize, f64, f64);

use Feeding::{Rows, Turned};
use Runs::{Held, One, Shared};

/// Outputs, rows, those of a thread, runs; depth, stages, blocks; and how long it takes.
type Row = (usize, usize, [usize; 2], Runs, [usize; 3], &'static [Time]);

/// Multiples of 7 fit images' 49, 196 and 784 pixels. The last, of one warp each, are for the few rows of linear layers.
///
/// Times are from sweeps of products of 256×256×256 and 256×128×1152 with 1 to 120 lanes on an H200 (2026-11-26). Those of 56 rows are ⅞ of their neighbours' of
/// 64, those of 64×64 in registers are as two to a block of 128×64, and those of one and two rows follow from what memory brings.
const ROWS: &[Row] = &[
    (128, 64, [8, 8], One, [64, 2, 2], &[(1, 15.4, 0.0), (2, 28.3, 0.0)]),
    (128, 64, [8, 8], One, [32, 2, 4], &[(1, 16.6, 0.0), (2, 28.9, 0.0), (4, 50.2, 0.0)]),
    (128, 64, [8, 8], Held, [32, 3, 2], &[(1, 15.5, 13.3), (2, 28.1, 24.2)]),
    (128, 64, [8, 8], Held, [64, 2, 2], &[(1, 14.6, 12.6), (2, 28.5, 24.5)]),
    (128, 64, [8, 8], Shared, [16, 3, 3], &[(1, 18.6, 17.3), (2, 30.8, 28.0), (3, 41.0, 40.3)]),
    (128, 56, [8, 7], One, [64, 2, 2], &[(1, 13.5, 0.0), (2, 24.8, 0.0)]),
    (128, 56, [8, 7], One, [32, 2, 4], &[(1, 14.5, 0.0), (2, 25.3, 0.0), (4, 43.9, 0.0)]),
    (128, 56, [8, 7], Held, [32, 3, 2], &[(1, 13.6, 11.6), (2, 24.6, 21.2)]),
    (128, 56, [8, 7], Held, [64, 2, 2], &[(1, 12.8, 11.0), (2, 25.0, 21.5)]),
    (128, 56, [8, 7], Shared, [16, 3, 3], &[(1, 16.3, 15.1), (2, 26.9, 24.5), (3, 35.9, 35.3)]),
    (64, 64, [8, 8], One, [16, 3, 8], &[(1, 20.2, 0.0), (2, 20.6, 0.0), (4, 35.6, 0.0), (8, 58.5, 0.0)]),
    (64, 64, [8, 8], Held, [16, 4, 4], &[(1, 15.7, 13.5), (2, 15.7, 13.5), (4, 28.7, 24.7)]),
    (
        64,
        64,
        [8, 8],
        Shared,
        [16, 2, 6],
        &[(1, 20.2, 19.0), (2, 20.6, 19.3), (4, 35.6, 30.0), (6, 47.0, 41.3)],
    ),
    (64, 56, [8, 7], One, [16, 3, 8], &[(1, 17.7, 0.0), (2, 18.0, 0.0), (4, 31.2, 0.0), (8, 51.2, 0.0)]),
    (64, 56, [8, 7], Held, [16, 4, 4], &[(1, 13.7, 11.8), (2, 13.7, 11.8), (4, 25.1, 21.6)]),
    (
        64,
        56,
        [8, 7],
        Shared,
        [16, 2, 6],
        &[(1, 17.7, 16.6), (2, 18.0, 16.9), (4, 31.2, 26.3), (6, 41.1, 36.1)],
    ),
    (
        64,
        64,
        [8, 4],
        One,
        [16, 4, 5],
        &[(1, 11.3, 0.0), (2, 18.3, 0.0), (3, 24.2, 0.0), (4, 30.5, 0.0), (5, 36.0, 0.0)],
    ),
    (
        64,
        64,
        [8, 4],
        Shared,
        [32, 2, 4],
        &[(1, 11.7, 10.2), (2, 19.0, 16.4), (3, 25.6, 22.3), (4, 32.6, 28.3)],
    ),
    (
        64,
        32,
        [4, 4],
        One,
        [32, 3, 5],
        &[(1, 7.0, 0.0), (2, 10.7, 0.0), (3, 13.3, 0.0), (4, 17.6, 0.0), (5, 20.5, 0.0)],
    ),
    (
        64,
        32,
        [4, 4],
        Shared,
        [16, 4, 5],
        &[(1, 7.0, 7.9), (2, 10.7, 10.4), (3, 13.3, 13.7), (4, 17.6, 16.5), (5, 20.5, 19.2)],
    ),
    (
        64,
        28,
        [8, 7],
        One,
        [16, 2, 16],
        &[(1, 18.4, 0.0), (4, 18.9, 0.0), (7, 28.6, 0.0), (10, 38.8, 0.0), (16, 56.0, 0.0)],
    ),
    (
        64,
        28,
        [8, 7],
        Shared,
        [8, 2, 15],
        &[(1, 18.4, 24.0), (4, 18.9, 24.0), (5, 28.3, 32.8), (10, 38.8, 43.5), (15, 53.0, 53.7)],
    ),
    (64, 16, [4, 2], One, [32, 3, 5], &[(1, 4.9, 0.0), (2, 7.4, 0.0), (4, 12.2, 0.0), (5, 15.2, 0.0)]),
    (
        64,
        16,
        [4, 2],
        Shared,
        [32, 3, 5],
        &[(1, 4.9, 3.6), (2, 7.4, 5.2), (3, 9.8, 6.7), (4, 12.2, 9.7), (5, 15.2, 10.7)],
    ),
    (64, 8, [2, 8], One, FEW, &[(1, 6.4, 0.0), (2, 7.4, 0.0), (3, 8.3, 0.0)]),
    (64, 8, [2, 8], Held, FEW, &[(1, 6.4, 5.4), (2, 7.4, 6.4), (3, 8.3, 7.3)]),
    (64, 4, [2, 4], One, FEW, &[(1, 4.8, 0.0), (2, 5.4, 0.0), (3, 6.1, 0.0)]),
    (64, 4, [2, 4], Held, FEW, &[(1, 4.8, 3.8), (2, 5.4, 4.6), (3, 6.1, 5.7)]),
    (64, 2, [2, 2], One, FEW, &[(1, 3.8, 0.0), (2, 4.9, 0.0), (3, 5.8, 0.0)]),
    (64, 2, [2, 2], Held, FEW, &[(1, 3.8, 2.8), (2, 4.9, 4.0), (3, 5.8, 5.5)]),
    (64, 1, [2, 1], One, FEW, &[(1, 3.4, 0.0), (2, 4.6, 0.0), (3, 5.6, 0.0)]),
    (64, 1, [2, 1], Held, FEW, &[(1, 3.4, 2.4), (2, 4.6, 3.8), (3, 5.6, 5.4)]),
];

/// Tiles whose inputs lie k by k in shared memory, of a k that their stages divide. A multiplying thread reads four rows at once and keeps few operands, for
/// which the compiler finds banks of registers that are free when they are read. Times are from the same products on an H100.
const TURNED: &[Row] =
    &[(128, 64, [8, 8], One, [16, 4, 4], &[(1, 17.0, 0.0), (2, 27.7, 0.0), (4, 47.8, 0.0)])];

/// Few rows: 64 KB of weights under way per block, three blocks to a multiprocessor.
const FEW: [usize; 3] = [32, 8, 3];

impl FloatTile {
    /// Every tile for sums so long of inputs that are loaded so.
    pub(super) fn all(sizes: &Sizes, loader: Loader) -> impl Iterator<Item = FloatTile> {
        let runs = sizes.k.div_ceil(RUN).max(1);
        let narrow = !sizes.has_pairs();
        let rows = ROWS.iter().map(|row| (row, Rows));
        let in_chunks = matches!(loader, Loader::Rows | Loader::Taps);
        let turned = TURNED.iter().map(|row| (row, Turned));
        let turned =
            turned.filter(move |((.., [depth, ..], _), _)| in_chunks && sizes.k.is_multiple_of(*depth));
        let rows = rows.chain(turned);
        let rows = rows.filter(move |((outputs, ..), _)| !(narrow && *outputs >= 128));
        rows.filter_map(move |(row, feeding)| {
            let (.., of_thread, summing, [depth, ..], _) = *row;
            let parts = match summing {
                One if runs == 1 => 1,
                // A run is but four stages of 64.
                One if runs <= CLUSTER && of_thread[0] >= 4 && depth <= 32 => runs,
                Shared | Held if runs > 1 => 1,
                _ => return None,
            };
            Some(FloatTile::new(row, feeding, parts))
        })
    }

    fn new(row: &Row, feeding: Feeding, parts: usize) -> FloatTile {
        let (outputs, rows, of_thread, runs, [depth, stages, most], times) = *row;
        let tile = FloatTile {
            outputs,
            rows,
            of_thread,
            depth,
            stages,
            feeding,
            blocks: most,
            runs,
            parts,
            shared_bytes: 0,
            times,
        };
        // Meeting takes a few registers.
        let blocks = most - usize::from(parts > 1 && tile.threads() <= 64);
        FloatTile { blocks, shared_bytes: tile.used_bytes(), ..tile }
    }

    pub(super) fn threads(&self) -> usize {
        self.outputs * self.rows / (self.of_thread[0] * self.of_thread[1])
    }

    /// Dynamic shared memory of a block, of so many on a multiprocessor: beside what the driver keeps, where rows lie, barriers and the like.
    fn room(&self, blocks: usize) -> usize {
        (ALL_SHARED / blocks - KEPT - self.rows * 16 - 256) / 128 * 128
    }

    /// The stages, and sums: of runs that are over, beside them; of a cluster's blocks, in their place.
    fn used_bytes(&self) -> usize {
        let floats_of_inputs = match self.feeding {
            Rows => {
                self.stages * self.rows * (self.depth + if self.depth.is_multiple_of(32) { 4 } else { 0 })
            }
            // They wait in registers for the one of two places that the stage before theirs leaves.
            Turned => 2 * self.depth * self.rows,
        };
        let stages = 4 * (self.stages * self.outputs * self.depth + floats_of_inputs);
        let sums = self.outputs * self.rows * 4;
        match (self.runs, self.parts) {
            (Shared, _) => sums + stages,
            (Held, _) | (One, 1) => stages,
            (One, _) => stages.max(sums),
        }
    }

    fn launched(&self, sizes: &Sizes) -> usize {
        sizes.blocks(self.outputs, self.rows) * self.parts
    }

    /// Blocks begin before the kernel ahead has ended, wherever there is room: multiprocessors that are done early would take more than their share of a
    /// launch that fits them all at once. So none has room for more. (8 lanes in 640 blocks, ten to a multiprocessor, took as long as 10 lanes in 800, seven
    /// to a multiprocessor: H200.)
    pub(super) fn apart(self, sizes: &Sizes) -> FloatTile {
        let share = self.launched(sizes).div_ceil(sizes.multiprocessors.max(1) as usize);
        if share >= self.blocks {
            return self;
        }
        FloatTile { shared_bytes: self.room(share).max(self.shared_bytes), ..self }
    }

    /// What the busiest multiprocessor takes, in microseconds, launching left out.
    pub(super) fn takes(&self, sizes: &Sizes) -> f64 {
        let (launched, units) = (self.launched(sizes), sizes.multiprocessors.max(1) as usize);
        // Clusters leave a few places free where not all of one fits. Their longest block has a whole run.
        let (share, runs) = match self.parts {
            1 => (launched.div_ceil(units), sizes.k as f64 / RUN as f64),
            _ => ((launched * 14).div_ceil(units * 13), 1.0),
        };
        let sums = self.of_thread[0] * self.of_thread[1];
        let (full, rest) = (share / self.blocks, share % self.blocks);
        let all = self.together(self.blocks, runs);
        let last = match rest {
            0 => 0.0,
            _ if full == 0 => self.together(rest, runs),
            // Large blocks of several runs end at once, and those that come then go to the first multiprocessors that are free, as many to each as fit it.
            _ if self.runs != One && sums >= 56 => all,
            // Clusters of large blocks wait until there is room for all of one.
            _ if self.parts > 1 && self.blocks <= 4 => all,
            _ => self.together(rest, runs),
        };
        let meeting = if self.parts > 1 { (sums as f64 / 16.0).min(1.0) } else { 0.0 };
        full as f64 * all + last + meeting
    }

    /// What so many blocks take that begin and end together, each of so many runs: between the nearest that were measured.
    fn together(&self, blocks: usize, runs: f64) -> f64 {
        // A quarter of the first run is not summing.
        let took =
            |&(_, first, more): &Time| first * (0.25 + 0.75 * runs.min(1.0)) + more * (runs - 1.0).max(0.0);
        let after = self.times.partition_point(|(measured, ..)| *measured < blocks);
        let above = &self.times[after.min(self.times.len() - 1)];
        if after == 0 || above.0 <= blocks {
            return took(above);
        }
        let below = &self.times[after - 1];
        took(below) + (took(above) - took(below)) * (blocks - below.0) as f64 / (above.0 - below.0) as f64
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
                for tile in FloatTile::all(&sizes, Loader::Rows).flat_map(|tile| [tile, tile.apart(&sizes)]) {
                    assert!(tile.threads().is_multiple_of(32), "{tile:?}");
                    assert!(tile.threads().is_multiple_of(tile.depth / 4), "{tile:?}");
                    assert!(
                        tile.parts == 1 || (tile.parts == k.div_ceil(RUN) && tile.runs == One),
                        "{tile:?}"
                    );
                    assert_eq!(tile.runs != One, tile.parts == 1 && k > RUN, "{tile:?}");
                    assert!(tile.used_bytes() <= tile.room(tile.blocks), "{tile:?}");
                    assert!(tile.shared_bytes <= tile.room(1), "{tile:?}");
                }
            }
        }
    }

    /// The tile of the least time.
    fn best(sizes: &Sizes) -> FloatTile {
        let by_time = |a: &FloatTile, b: &FloatTile| a.takes(sizes).total_cmp(&b.takes(sizes));
        FloatTile::all(sizes, Loader::Rows).min_by(by_time).expect("there is one").apart(sizes)
    }

    fn tile(rows: usize, outputs: usize, k: usize, lanes: u32) -> ([usize; 3], Runs, usize) {
        let tile = best(&sizes(rows, outputs, k, lanes));
        ([tile.outputs, tile.rows, tile.threads()], tile.runs, tile.parts)
    }

    #[test]
    fn a_convolution_of_few_lanes_has_the_tile_that_a_sweep_found_best_or_near_it() {
        let few = |rows| ([64, rows, 128], One, 5);
        let wide = ([128, 64, 128], One, 5);
        let best = [(1, few(16)), (2, few(16)), (4, few(32)), (8, few(64)), (10, wide), (16, wide)];
        for (lanes, best) in best {
            assert_eq!(tile(128, 256, 1152, lanes), best, "{lanes} lanes");
        }
    }

    #[test]
    fn so_has_a_square_product() {
        let best = [
            (1, [64, 16, 128]),
            (2, [64, 16, 128]),
            (8, [64, 32, 128]),
            (10, [64, 32, 128]),
            (20, [64, 32, 128]),
        ];
        for (lanes, best) in best {
            assert_eq!(tile(256, 256, 256, lanes), (best, One, 1), "{lanes} lanes");
        }
    }

    #[test]
    fn runs_that_are_too_many_for_a_cluster_are_summed_by_one_block() {
        let (_, runs, parts) = tile(128, 256, 4608, 1);
        assert_eq!((runs != One, parts), (true, 1));
    }

    #[test]
    fn single_rows_stream_their_weights() {
        for lanes in [32, 120] {
            assert_eq!(tile(1, 512, 512, lanes).0, [64, 1, 32]);
        }
    }

    #[test]
    fn blocks_of_a_small_launch_have_no_room_beside_each_other() {
        let sizes = sizes(128, 256, 256, 10);
        let tile = best(&sizes);
        let share = tile.launched(&sizes).div_ceil(132);
        assert!(share < tile.blocks, "{tile:?}");
        let of_block = tile.shared_bytes + KEPT + tile.rows * 16;
        assert!(of_block * share <= ALL_SHARED && of_block * (share + 1) > ALL_SHARED, "{tile:?}");
    }
}
