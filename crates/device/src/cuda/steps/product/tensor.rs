//! Tiles of `kernels/product_tensor.cu`: any product on the matrix unit.

use super::sizes::{BESIDE_STAGES, SHARED_BYTES, Sizes, stages, width};

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
    /// Stages that are loaded before they are used: all where no place is used twice.
    pub(super) ahead: usize,
    /// Blocks that share a multiprocessor.
    pub(super) blocks: usize,
    /// See [`parts`].
    pub(super) parts: usize,
}

/// Parts of k that are summed apart, on blocks of their own, and then added in order. Few rows of few outputs make few tiles of each lane, and where k is
/// long each of them streams its weights as fast as one multiprocessor can: 8 lanes of a layer of 512 outputs kept half of them busy. The parts are part of
/// the order of a sum, so they may depend on nothing but the step: full launches of many lanes are summed in parts as well.
pub(super) fn parts(sizes: &Sizes, steps: usize) -> usize {
    let few = sizes.rows <= 64 && sizes.outputs * sizes.groups <= 1024;
    if few && steps >= 32 { 2 } else { 1 }
}

/// Registers of a multiprocessor.
const REGISTERS: usize = 1 << 16;
/// Of a thread, those beside its sums.
const BESIDE_SUMS: usize = 60;

impl TensorTile {
    const WIDTHS: &[usize] = &[8, 16, 32, 48, 56, 64, 104, 112, 128];

    /// The tiles of a step as [`TensorTile::of`] takes it: that one first, then its neighbours in height, width and in how many share a multiprocessor.
    pub(super) fn best_first(sizes: &Sizes, steps: usize, whole_rows: bool) -> Vec<TensorTile> {
        let best = TensorTile::of(sizes, steps, whole_rows);
        let TensorTile { outputs, rows, blocks, .. } = best;
        let steps = steps.div_ceil(best.parts);
        let place = TensorTile::WIDTHS.iter().position(|&width| width == rows);
        let beside = |away: isize| {
            let width = place?.checked_add_signed(away).and_then(|place| TensorTile::WIDTHS.get(place));
            width.copied().filter(|&width| away < 0 || rows < sizes.lane_rows().min(width))
        };
        let other = if outputs == 64 { 128 } else { 64 };
        let (narrower, wider) = (beside(-1), beside(1));
        let near = [
            (other, Some(rows), blocks),
            (outputs, narrower, blocks),
            (outputs, wider, blocks),
            (outputs, Some(rows), blocks + 1),
            (outputs, Some(rows), blocks.saturating_sub(1)),
            (other, Some(rows), if other == 64 { blocks + 1 } else { blocks.saturating_sub(1) }),
            (other, narrower, blocks),
            (other, wider, blocks),
        ];
        let near = near.into_iter().filter(|(outputs, ..)| *outputs == 64 || sizes.has_pairs());
        let near = near.filter_map(|(outputs, rows, blocks)| {
            TensorTile::holding(outputs, rows?, blocks, steps, best.parts, whole_rows)
        });
        std::iter::once(best).chain(near).collect()
    }

    /// A tile with all the stages for which `blocks` on a multiprocessor leave room; `None` where they leave none, or too few registers.
    fn holding(
        outputs: usize,
        rows: usize,
        blocks: usize,
        steps: usize,
        parts: usize,
        whole_rows: bool,
    ) -> Option<TensorTile> {
        let room = (SHARED_BYTES / Some(blocks).filter(|&blocks| blocks > 0)?).checked_sub(BESIDE_STAGES)?;
        let stages = match steps {
            1 if whole_rows => 1,
            ..=2 => 2,
            _ => stages(room, (outputs + rows) * 128)?,
        };
        let lag = usize::from(stages >= 6);
        let ahead = if steps <= stages { stages } else { stages - 1 - lag };
        let tile = TensorTile { outputs, rows, stages, lag, ahead, blocks, parts };
        let fits = tile.shared_bytes() - 1024 <= room;
        let registers = tile.threads() * blocks * (rows / 2 + BESIDE_SUMS);
        (fits && registers <= REGISTERS).then_some(tile)
    }

    /// The tile of a step whose k is `steps` stages long, and of whose inputs each row lies in one piece or not.
    pub(super) fn of(sizes: &Sizes, steps: usize, whole_rows: bool) -> TensorTile {
        let all = sizes.multiprocessors as usize;
        let parts = parts(sizes, steps);
        // Of one block.
        let steps = steps.div_ceil(parts);
        let launch = |outputs, rows| sizes.blocks(outputs, rows) * parts;
        let mut rows = width(TensorTile::WIDTHS, sizes.lane_rows());
        // Few rows: weights are streamed, and small blocks stream as well as large ones and are more. Short sums: prologue and end are the
        // kernel, and what matters is that other blocks work meanwhile.
        let streamed = rows <= 32;
        // A long sum is bound by the bytes under way. Tall blocks that are alone have many stages, twice the weights in each, and read the inputs half as
        // often, which is worth more than the multiprocessors they leave idle (BERT's layers of 768 outputs, 16 lanes: 192 blocks of 64 had
        // 23 KB of weights under way per multiprocessor; an estimate, to be measured).
        let tall_blocks = launch(128, rows);
        let enough = tall_blocks * 4 >= all * 3 || (steps >= 12 && tall_blocks * 2 >= all);
        // Some multiprocessors would have two tall blocks and some one, where all blocks of half the height fit at once, three to each (96 lanes of 256 outputs and
        // 128 rows, k of 1152: 50 for 52 µs in tf32, 26 for 28 in bf16; H200, 2026-11-26).
        let uneven = rows >= 104 && tall_blocks > all && tall_blocks * 2 <= all * 3;
        let tall = !streamed && steps > 2 && sizes.has_pairs() && enough && !uneven;
        let outputs = if tall { 128 } else { 64 };
        // A few lanes: narrower tiles before idle multiprocessors, each of which brings fewer inputs beside the same weights: what a block takes is its bytes
        // (64×56 took 8 lanes of ResNet-50 12 % faster). The narrowest with which all blocks still begin at once.
        // Short sums end before two blocks are in each other's way (256 outputs and rows, k of 256, bf16: 3.8 for 4.3 µs with 10 lanes; H200, 2026-11-26).
        let at_once = if matches!(steps, 3 | 4) { all * 2 } else { all };
        if !tall && !uneven {
            let narrower = TensorTile::WIDTHS.iter().copied().take_while(|&width| width < rows);
            rows = narrower.into_iter().find(|&width| launch(outputs, width) <= at_once).unwrap_or(rows);
        }
        let launched = launch(outputs, rows).div_ceil(all);
        let alone = launched <= 1 && steps >= 6;
        let short = steps <= 2 && !streamed;
        // One stage is all there is, so the sums take the most room; only where rows are whole there are registers for five blocks.
        let single = short && steps == 1 && whole_rows;
        let blocks = match (alone, short, outputs) {
            (true, ..) => 1,
            (_, true, _) if single => 5,
            (_, true, _) => 4,
            (_, _, 128) => 2,
            (..) => launched.clamp(2, 3),
        };
        let room = SHARED_BYTES / blocks - BESIDE_STAGES;
        let stages = match (single, short) {
            (true, _) => Some(1),
            (_, true) => Some(2),
            _ => stages(room, (outputs + rows) * 128),
        };
        let stages = stages.expect("three stages of any tile fit");
        let lag = usize::from(stages >= 6);
        let ahead = if steps <= stages { stages } else { stages - 1 - lag };
        TensorTile { outputs, rows, stages, lag, ahead, blocks, parts }
    }

    /// Dynamic shared memory: the stages, where the sums lie later, and what it takes to begin them at a multiple of 1024.
    pub(super) fn shared_bytes(&self) -> usize {
        let sums = self.rows * (self.outputs + 4) * 4;
        (self.stages * (self.outputs + self.rows) * 128).max(sums) + 1024
    }

    pub(super) fn threads(&self) -> usize {
        self.outputs * 2
    }
}

#[cfg(test)]
mod tests {
    use super::super::sizes::tests::sizes;
    use super::*;

    fn tensor(rows: usize, outputs: usize, k: usize, lanes: u32) -> [usize; 3] {
        let tile = TensorTile::of(&sizes(rows, outputs, k, lanes), k.div_ceil(64), true);
        [tile.outputs, tile.rows, tile.stages]
    }

    #[test]
    fn tiles_fit_the_images_of_residual_networks() {
        assert_eq!(tensor(3136, 64, 576, 32), [64, 112, 3]);
        assert_eq!(tensor(3136, 256, 64, 32), [64, 112, 1], "a short sum");
        assert_eq!(tensor(784, 128, 1152, 32), [128, 112, 3]);
        assert_eq!(tensor(196, 256, 2304, 32), [128, 104, 6], "128 blocks are one to a multiprocessor");
        assert_eq!(tensor(196, 1024, 256, 32), [128, 104, 3]);
        assert_eq!(tensor(49, 512, 4608, 32), [128, 56, 4], "a weight stream in two parts, of two blocks");
        assert_eq!(tensor(49, 2048, 512, 32), [128, 56, 4]);
    }

    #[test]
    fn few_lanes_take_smaller_tiles_before_multiprocessors_idle() {
        assert_eq!(tensor(196, 256, 2304, 8), [64, 56, 8]);
        assert_eq!(tensor(49, 512, 4608, 8), [64, 56, 8]);
        assert_eq!(tensor(49, 512, 4608, 1), [64, 8, 8]);
        assert_eq!(tensor(128, 256, 1152, 1), [64, 8, 8]);
        assert_eq!(tensor(128, 256, 1152, 4), [64, 16, 8]);
        assert_eq!(tensor(128, 256, 1152, 8), [64, 32, 8]);
        assert_eq!(tensor(128, 256, 1152, 10), [64, 48, 8]);
        assert_eq!(tensor(128, 256, 1152, 16), [64, 64, 8]);
        assert_eq!(tensor(256, 256, 256, 1), [64, 8, 8]);
    }

    #[test]
    fn few_rows_of_a_long_k_are_summed_in_parts_whatever_the_lanes() {
        let split = |rows, outputs, k, lanes| {
            TensorTile::of(&sizes(rows, outputs, k, lanes), usize::div_ceil(k, 64), true).parts
        };
        for lanes in [1, 8, 32, 128] {
            assert_eq!(split(49, 512, 4608, lanes), 2);
            assert_eq!(split(49, 512, 2048, lanes), 2);
            assert_eq!(split(64, 1000, 2048, lanes), 2);
            assert_eq!(split(65, 512, 4608, lanes), 1, "many rows");
            assert_eq!(split(49, 2048, 4608, lanes), 1, "many outputs");
            assert_eq!(split(49, 512, 1984, lanes), 1, "a short k");
        }
    }

    #[test]
    fn linear_layers_take_narrow_tiles_and_many_stages() {
        assert_eq!(tensor(1, 1000, 2048, 32), [64, 8, 8]);
        assert_eq!(tensor(12, 512, 512, 32), [64, 16, 8]);
        assert_eq!(tensor(128, 768, 768, 16), [128, 128, 6], "alone, with all the room for stages");
        assert_eq!(tensor(128, 768, 3072, 16), [128, 128, 6]);
        assert_eq!(tensor(128, 768, 3072, 8), [64, 128, 8]);
        assert_eq!(tensor(128, 768, 768, 48), [128, 128, 3]);
    }

    #[test]
    fn tall_blocks_that_would_come_out_uneven_are_halved() {
        assert_eq!(tensor(128, 256, 1152, 64), [128, 128, 6], "one to a multiprocessor");
        assert_eq!(tensor(128, 256, 1152, 96), [64, 128, 3], "192 blocks on 132 multiprocessors");
        assert_eq!(tensor(128, 256, 1152, 120), [128, 128, 3], "480 halves would not fit at once");
    }

    #[test]
    fn short_sums_are_two_to_a_multiprocessor() {
        assert_eq!(tensor(256, 256, 256, 4), [64, 16, 8]);
        assert_eq!(tensor(256, 256, 256, 10), [64, 48, 6]);
        assert_eq!(tensor(256, 256, 256, 16), [64, 64, 6]);
    }

    #[test]
    fn every_tile_fits_its_multiprocessor_and_its_sums() {
        for rows in (1..400).chain([3136, 12544]) {
            for (outputs, k, lanes) in
                [(64, 64, 1), (64, 128, 32), (96, 16, 32), (200, 640, 8), (512, 4608, 32), (4096, 1024, 128)]
            {
                for whole_rows in [false, true] {
                    let tiles =
                        TensorTile::best_first(&sizes(rows, outputs, k, lanes), k.div_ceil(64), whole_rows);
                    for tile in &tiles {
                        assert!(
                            tile.blocks * (tile.shared_bytes() + BESIDE_STAGES - 1024) <= SHARED_BYTES,
                            "{tile:?}"
                        );
                        assert!(tile.rows * (tile.outputs + 4) * 4 <= tile.shared_bytes() - 1024, "{tile:?}");
                        let steps = k.div_ceil(64).div_ceil(tile.parts);
                        assert!(
                            tile.ahead > 0 && (tile.ahead < tile.stages - tile.lag || steps <= tile.stages)
                        );
                        assert_eq!(tile.parts, tiles[0].parts, "parts are part of the sum");
                    }
                }
            }
        }
    }

    #[test]
    fn a_tile_has_neighbours_in_height_width_and_company() {
        let tiles = TensorTile::best_first(&sizes(128, 256, 1152, 16), 18, true);
        let shapes: Vec<[usize; 3]> =
            tiles.iter().map(|tile| [tile.outputs, tile.rows, tile.blocks]).collect();
        assert_eq!(shapes[0], [64, 64, 1]);
        for near in [[128, 64, 1], [64, 56, 1], [64, 104, 1], [64, 64, 2]] {
            assert!(shapes.contains(&near), "{shapes:?}");
        }
        let few = TensorTile::best_first(&sizes(1, 64, 640, 4), 10, true);
        assert!(
            few.iter().all(|tile| tile.rows == 8 && tile.outputs == 64),
            "no wider than its rows: {few:?}"
        );
    }
}
