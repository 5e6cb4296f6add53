//! Tiles of `kernels/product_few.cu` and `kernels/product_few_float.cu`: linear layers of few rows, which are read more than computed.

use super::sizes::{SHARED_BYTES, Sizes};

/// Rows of an item, or of a lane, that are few.
const FEW: usize = 8;

/// A tile of the matrix unit that takes its weights from registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FewTile {
    /// Warps that share a sum: 1, 2 or 4. Part of the order of the sum, so it may depend on nothing but `k`.
    pub(super) split: usize,
}

impl FewTile {
    pub(super) const ROWS: usize = 8;
    pub(super) const THREADS: usize = 128;

    /// The tile of items of so many rows, whose k is `steps` times 128 bytes long; `None` where rows are many. It depends on the plan alone.
    pub(super) fn of(rows: usize, steps: usize) -> Option<FewTile> {
        // A warp holds four steps at once.
        let split = match steps {
            ..=4 => 1,
            5..=8 => 2,
            _ => 4,
        };
        (rows <= FEW).then_some(FewTile { split })
    }

    /// 16 of each warp that has a sum of its own.
    pub(super) fn outputs(&self) -> usize {
        64 / self.split
    }
}

/// A tile of the float units whose block holds all of k.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FewFloatTile {
    pub(super) rows: usize,
}

impl FewFloatTile {
    pub(super) const OUTPUTS: usize = 16;
    pub(super) const THREADS: usize = 128;
    /// k of one chain of sums, `K_SEGMENT` of the plan.
    const RUN: usize = 256;

    /// The tile of a step; `None` where rows are many, or k is longer than a block can hold.
    pub(super) fn holding(sizes: &Sizes) -> Option<FewFloatTile> {
        let rows = sizes.lane_rows();
        let runs = sizes.k.div_ceil(FewFloatTile::RUN);
        let held = rows <= FEW && runs * FewFloatTile::OUTPUTS <= FewFloatTile::THREADS;
        held.then(|| FewFloatTile { rows: rows.next_power_of_two() })
    }

    /// Whether the tile of a step is the one to take: where lanes are few as well.
    pub(super) fn is_best(sizes: &Sizes) -> bool {
        let Some(tile) = FewFloatTile::holding(sizes) else { return false };
        // What the driver keeps of each block.
        let of_block = tile.shared_bytes(sizes.k) + 1024;
        let resident = (SHARED_BYTES / of_block).min(6) * sizes.multiprocessors as usize;
        // Blocks that begin together take as long as one. Many are better as few that stream.
        let blocks = sizes.blocks(FewFloatTile::OUTPUTS, tile.rows);
        blocks * 2 <= resident * 3
    }

    /// Dynamic shared memory: weights, inputs and the sums of runs; both of the former have a gap after every run.
    pub(super) fn shared_bytes(&self, k: usize) -> usize {
        let (runs, outputs) = (k.div_ceil(FewFloatTile::RUN), FewFloatTile::OUTPUTS);
        4 * ((k + runs) * outputs + self.rows * (k + runs * 4) + runs * self.rows * outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sizes::tests::sizes;
    use super::*;
    use tessera_planner::plan::K_SEGMENT;

    fn float(rows: usize, outputs: usize, k: usize, lanes: u32) -> Option<usize> {
        let sizes = sizes(rows, outputs, k, lanes);
        FewFloatTile::holding(&sizes).filter(|_| FewFloatTile::is_best(&sizes)).map(|tile| tile.rows)
    }

    #[test]
    fn few_rows_of_few_lanes_hold_all_of_k() {
        assert_eq!(FewFloatTile::RUN, K_SEGMENT);
        for lanes in [1, 10, 20, 32] {
            assert_eq!(float(1, 512, 512, lanes), Some(1));
        }
        assert_eq!(float(5, 512, 512, 1), Some(8));
        assert_eq!(float(1, 1000, 2048, 1), Some(1));
    }

    #[test]
    fn many_lanes_many_rows_and_long_sums_are_streamed() {
        assert_eq!(float(1, 512, 512, 64), None);
        assert_eq!(float(9, 512, 512, 1), None);
        assert_eq!(float(1, 512, 2049, 1), None);
    }

    #[test]
    fn every_tile_fits_its_multiprocessor() {
        for rows in 1..=8 {
            for k in (4..2100).step_by(4) {
                if let Some(tile) = FewFloatTile::holding(&sizes(rows, 16, k, 1)) {
                    assert!(tile.rows >= rows && tile.shared_bytes(k) + 1024 <= SHARED_BYTES, "{rows} × {k}");
                }
            }
        }
    }

    #[test]
    fn on_the_matrix_unit_few_rows_share_sums_by_the_length_of_k_alone() {
        let split = |steps| FewTile::of(1, steps).map(|tile| [tile.split, tile.outputs()]);
        assert_eq!([1, 4].map(split), [Some([1, 64]); 2]);
        assert_eq!([5, 8].map(split), [Some([2, 32]); 2]);
        assert_eq!([9, 16, 64].map(split), [Some([4, 16]); 3]);
        assert_eq!(FewTile::of(9, 4), None);
    }
}
