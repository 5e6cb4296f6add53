//! Tiles of `kernels/product_tensor.cu`: any product on the matrix unit.

use super::sizes::{BESIDE_STAGES, SHARED_BYTES, Sizes, stages, width};

/// A tile of the matrix unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TensorTile {
    /// 64 or 128.
    pub(super) outputs: usize,
    /// A multiple of 8.
    pub(super) rows: usize,
    /// Blocks that share a multiprocessor.
    pub(super) blocks: usize,
    pub(super) cut: Cut,
    pub(super) ring: Ring,
}

/// In how many parts k is summed, see [`parts`], and by whom. One of the two is 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cut {
    /// Blocks of a cluster, each with a part.
    pub(super) blocks: usize,
    /// Parts that one block sums, one after the other.
    pub(super) turns: usize,
}

impl Cut {
    fn together(parts: usize) -> Cut {
        Cut { blocks: parts, turns: 1 }
    }

    fn in_turn(parts: usize) -> Cut {
        Cut { blocks: 1, turns: parts }
    }

    /// Steps of a block, the longest.
    fn steps_of_block(self, steps: usize) -> usize {
        // The first of two may be a step shorter, as parts begin with an even step.
        steps - steps * (self.blocks - 1) / self.blocks / 2 * 2
    }
}

/// Where stages wait in shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ring {
    /// Of a stage, each 128 bytes of k.
    pub(super) steps: usize,
    pub(super) stages: usize,
    /// Groups of products that run while the next is fed: with deep rings, one.
    pub(super) lag: usize,
    /// Stages that are loaded before they are used: all where no place is used twice.
    pub(super) ahead: usize,
}

/// Parts of k that are summed apart, each from zero, and then added in order. Few rows of few outputs make few tiles of each lane, and where k is long each of
/// them streams its weights as fast as one multiprocessor can: 8 lanes of a layer of 512 outputs kept half of them busy. The parts are part of the order of a sum,
/// so they may depend on nothing but the step: full launches of many lanes are summed in parts as well, by blocks that do all of them.
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

    /// The tiles of a step as [`TensorTile::of`] takes it: that one first, then its neighbours in height, width and in how many share a multiprocessor, and the
    /// one that sums parts of k in the other way.
    pub(super) fn best_first(sizes: &Sizes, steps: usize, parts: usize, whole_rows: bool) -> Vec<TensorTile> {
        let best = TensorTile::of(sizes, steps, parts, whole_rows);
        let TensorTile { outputs, rows, blocks, .. } = best;
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
            let tile = TensorTile::holding(outputs, rows?, blocks, best.cut, steps, whole_rows)?;
            tile.has_registers(whole_rows).then_some(tile)
        });
        let other_way = (parts > 1).then(|| {
            let cut = if best.cut.turns == 1 { Cut::in_turn(parts) } else { Cut::together(parts) };
            TensorTile::summing(sizes, steps, cut, whole_rows)
        });
        std::iter::once(best).chain(other_way).chain(near).collect()
    }

    /// The next width.
    pub(super) fn wider(rows: usize) -> Option<usize> {
        TensorTile::WIDTHS.iter().copied().find(|&width| width > rows)
    }

    /// A tile with all the stages for which `blocks` on a multiprocessor leave room; `None` where they leave none.
    fn holding(
        outputs: usize,
        rows: usize,
        blocks: usize,
        cut: Cut,
        steps: usize,
        whole_rows: bool,
    ) -> Option<TensorTile> {
        let room = (SHARED_BYTES / Some(blocks).filter(|&blocks| blocks > 0)?).checked_sub(BESIDE_STAGES)?;
        let (step_bytes, of_block) = ((outputs + rows) * 128, cut.steps_of_block(steps));
        let in_pairs = blocks == 1 && steps.is_multiple_of(2);
        let pairs = if in_pairs { Ring::of_pairs(room, step_bytes, of_block) } else { None };
        let ring = pairs.or_else(|| Ring::within(room, step_bytes, of_block, whole_rows))?;
        let tile = TensorTile { outputs, rows, blocks, cut, ring };
        (tile.shared_bytes() - 1024 <= room).then_some(tile)
    }

    /// Whether there are registers for as many blocks as share a multiprocessor.
    fn has_registers(&self, whole_rows: bool) -> bool {
        let (sums, beside) = match self.cut.turns {
            1 => (self.rows / 2, BESIDE_SUMS),
            _ => (self.rows, if whole_rows { 42 } else { BESIDE_SUMS }),
        };
        self.threads() * self.blocks * (sums + beside) <= REGISTERS
    }

    /// The tile of a product whose k is so many steps long and cut in `parts`, and of whose inputs each row lies in one piece or not.
    pub(super) fn of(sizes: &Sizes, steps: usize, parts: usize, whole_rows: bool) -> TensorTile {
        let rows = width(TensorTile::WIDTHS, sizes.lane_rows());
        // Blocks that are one to a multiprocessor anyway had better sum all parts (49 rows, 512 outputs, k of 2048, 32 lanes: 19.8 for 20.7 µs in bf16; H200, 2026-11-26).
        let together = sizes.blocks(128, rows) * parts <= sizes.multiprocessors as usize;
        let cut = if together { Cut::together(parts) } else { Cut::in_turn(parts) };
        TensorTile::summing(sizes, steps, cut, whole_rows)
    }

    fn summing(sizes: &Sizes, steps: usize, cut: Cut, whole_rows: bool) -> TensorTile {
        let all = sizes.multiprocessors as usize;
        let mut rows = width(TensorTile::WIDTHS, sizes.lane_rows());
        // Of one block.
        let of_block = cut.steps_of_block(steps);
        let launch = |outputs, rows| sizes.blocks(outputs, rows) * cut.blocks;
        // Few rows: weights are streamed, and small blocks stream as well as large ones and are more. Short sums: prologue and end are the
        // kernel, and what matters is that other blocks work meanwhile.
        let streamed = rows <= 32;
        // A long sum is bound by the bytes under way. Tall blocks that are alone have many stages, twice the weights in each, and read the inputs half as
        // often, which is worth more than the multiprocessors they leave idle (BERT's layers of 768 outputs, 16 lanes: 192 blocks of 64 had
        // 23 KB of weights under way per multiprocessor; an estimate, to be measured).
        let tall_blocks = launch(128, rows);
        let enough = tall_blocks * 4 >= all * 3 || (of_block >= 12 && tall_blocks * 2 >= all);
        // Some multiprocessors would have two tall blocks and some one, where all blocks of half the height fit at once, three to each (96 lanes of 256 outputs and
        // 128 rows, k of 1152: 50 for 52 µs in tf32, 26 for 28 in bf16; H200, 2026-11-26).
        let uneven = rows >= 104 && tall_blocks > all && tall_blocks * 2 <= all * 3;
        let tall = !streamed && of_block > 2 && sizes.has_pairs() && enough && !uneven;
        let outputs = if tall { 128 } else { 64 };
        // A few lanes: narrower tiles before idle multiprocessors, each of which brings fewer inputs beside the same weights: what a block takes is its bytes
        // (64×56 took 8 lanes of ResNet-50 12 % faster). The narrowest with which all blocks still begin at once.
        // Short sums end before two blocks are in each other's way (256 outputs and rows, k of 256, bf16: 3.8 for 4.3 µs with 10 lanes; H200, 2026-11-26).
        let at_once = if matches!(of_block, 3 | 4) { all * 2 } else { all };
        if !tall && !uneven {
            let narrower = TensorTile::WIDTHS.iter().copied().take_while(|&width| width < rows);
            rows = narrower.into_iter().find(|&width| launch(outputs, width) <= at_once).unwrap_or(rows);
        }
        let launched = launch(outputs, rows).div_ceil(all);
        let alone = launched <= 1 && of_block >= 6;
        let short = of_block <= 2 && !streamed;
        // One stage is all there is, so the sums take the most room; only where rows are whole there are registers for five blocks.
        let single = short && of_block == 1 && whole_rows;
        let blocks = match (alone, short, outputs) {
            (true, ..) => 1,
            (_, true, _) if single => 5,
            (_, true, _) => 4,
            (_, _, 128) => 2,
            (..) => launched.clamp(2, 3),
        };
        let tile = |blocks| TensorTile::holding(outputs, rows, blocks, cut, steps, whole_rows);
        let held = |tile: &TensorTile| cut.turns == 1 || tile.has_registers(whole_rows);
        let tile = (1..=blocks).rev().filter_map(tile).find(held);
        tile.expect("a tile alone has registers and three stages")
    }

    /// Whether the next kernel had better begin at once: where blocks are alone on their multiprocessors and some of these idle. It asks for its weights there
    /// meanwhile. 256 outputs, 128 rows, k of 1152, µs on an H100, 2026-11-27:
    ///
    /// ```text
    ///   lanes                64×128              128×128
    ///   20           bf16   8.9 for 9.4        11.3 for 11.4
    ///   32           bf16  12.0 for 12.3       13.5 for 14.1
    ///   20           tf32  15.7 for 16.4
    ///   64           bf16  23.5 for 23.3       22.7 for 22.5
    /// ```
    /// Of 64 lanes none idles at the former, and the latter, where four do, are walked over first. Narrow tiles gain nothing, or lose (16 lanes, 128×56: 7.7 for 7.1).
    pub(super) fn begins_next(&self, sizes: &Sizes) -> bool {
        let launched = sizes.blocks(self.outputs, self.rows) * self.cut.blocks;
        self.blocks == 1 && self.rows >= 104 && launched <= sizes.multiprocessors as usize
    }

    /// Dynamic shared memory: the stages, where the sums lie later, and what it takes to begin them at a multiple of 1024.
    pub(super) fn shared_bytes(&self) -> usize {
        let sums = self.rows * (self.outputs + 4) * 4;
        let stage = self.ring.steps * (self.outputs + self.rows) * 128;
        (self.ring.stages * stage).max(sums) + 1024
    }

    pub(super) fn threads(&self) -> usize {
        self.outputs * 2
    }
}

impl Ring {
    /// As many stages as `room` holds of a block that sums `steps`, each of so many bytes; `None` where it holds too few.
    fn within(room: usize, step_bytes: usize, steps: usize, whole_rows: bool) -> Option<Ring> {
        let stages = match steps {
            1 if whole_rows => 1,
            ..=2 => 2,
            _ => stages(room, step_bytes)?,
        };
        let lag = usize::from(stages >= 6);
        let ahead = if steps <= stages { stages } else { stages - 1 - lag };
        Some(Ring { steps: 1, stages, lag, ahead })
    }

    /// Stages of two steps, for a block that is alone on its multiprocessor and sums an even number of them: half as many waits, and all the room for what is under
    /// way. `None` where k is short, or five do not fit; then single steps are better (256 outputs, 128 rows, k of 1152, bf16, µs on an H200, 2026-11-26: 1 lane
    /// 3.6 for 5.3, 16 lanes 6.7 for 7.4, 32 lanes with four stages of two 11.1 for 10.6). Never one ahead: NVRTC 13.0 leaves half of an address unset in that variant with
    /// 128 outputs, and the card reports an illegal access.
    fn of_pairs(room: usize, step_bytes: usize, steps: usize) -> Option<Ring> {
        let pairs = steps / 2;
        let stages = (room / (2 * step_bytes)).min(pairs);
        let ahead = if stages == pairs { stages } else { stages.checked_sub(2)? };
        (ahead >= 3).then_some(Ring { steps: 2, stages, lag: 1, ahead })
    }
}

#[cfg(test)]
mod tests {
    use super::super::sizes::tests::sizes;
    use super::*;
    use std::collections::BTreeSet;

    fn tensor(rows: usize, outputs: usize, k: usize, lanes: u32) -> [usize; 3] {
        let (sizes, steps) = (sizes(rows, outputs, k, lanes), k.div_ceil(64));
        let tile = TensorTile::of(&sizes, steps, parts(&sizes, steps), true);
        [tile.outputs, tile.rows, tile.ring.stages]
    }

    #[test]
    fn tiles_fit_the_images_of_residual_networks() {
        assert_eq!(tensor(3136, 64, 576, 32), [64, 112, 3]);
        assert_eq!(tensor(3136, 256, 64, 32), [64, 112, 1], "a short sum");
        assert_eq!(tensor(784, 128, 1152, 32), [128, 112, 3]);
        assert_eq!(tensor(196, 256, 2304, 32), [128, 104, 6], "128 blocks are one to a multiprocessor");
        assert_eq!(tensor(196, 1024, 256, 32), [128, 104, 3]);
        assert_eq!(
            tensor(49, 512, 4608, 32),
            [128, 56, 8],
            "a weight stream in two parts, one after the other"
        );
        assert_eq!(tensor(49, 2048, 512, 32), [128, 56, 4]);
    }

    #[test]
    fn few_lanes_take_smaller_tiles_before_multiprocessors_idle() {
        assert_eq!(tensor(196, 256, 2304, 8), [64, 56, 7], "stages of two steps");
        assert_eq!(tensor(49, 512, 4608, 8), [64, 56, 7]);
        assert_eq!(tensor(49, 512, 4608, 1), [64, 8, 12]);
        assert_eq!(tensor(128, 256, 1152, 1), [64, 8, 9], "all that there are");
        assert_eq!(tensor(128, 256, 1152, 4), [64, 16, 9]);
        assert_eq!(tensor(128, 256, 1152, 8), [64, 32, 9]);
        assert_eq!(tensor(128, 256, 1152, 10), [64, 48, 7]);
        assert_eq!(tensor(128, 256, 1152, 16), [64, 64, 6]);
        assert_eq!(tensor(256, 256, 256, 1), [64, 8, 8]);
    }

    #[test]
    fn few_rows_of_a_long_k_are_summed_in_parts_whatever_the_lanes() {
        let cut = |rows, outputs, k, lanes| {
            let (sizes, steps) = (sizes(rows, outputs, k, lanes), usize::div_ceil(k, 64));
            let tiles = TensorTile::best_first(&sizes, steps, parts(&sizes, steps), true);
            let cuts: BTreeSet<usize> = tiles.iter().map(|tile| tile.cut.blocks * tile.cut.turns).collect();
            assert_eq!(cuts.len(), 1, "{tiles:?}");
            cuts.into_iter().next().unwrap()
        };
        for lanes in [1, 8, 32, 128] {
            assert_eq!(cut(49, 512, 4608, lanes), 2);
            assert_eq!(cut(49, 512, 2048, lanes), 2);
            assert_eq!(cut(64, 1000, 2048, lanes), 2);
            assert_eq!(cut(65, 512, 4608, lanes), 1, "many rows");
            assert_eq!(cut(49, 2048, 4608, lanes), 1, "many outputs");
            assert_eq!(cut(49, 512, 1984, lanes), 1, "a short k");
        }
    }

    #[test]
    fn parts_are_summed_at_the_same_time_where_lanes_are_few() {
        let turns = |lanes| TensorTile::of(&sizes(49, 512, 2048, lanes), 32, 2, true).cut.turns;
        assert_eq!([1, 8, 16].map(turns), [1; 3]);
        assert_eq!([32, 120].map(turns), [2; 2]);
    }

    #[test]
    fn blocks_that_are_alone_have_stages_of_two_steps_if_five_fit() {
        let steps = |rows, k, lanes| {
            let (sizes, steps) = (sizes(rows, 256, k, lanes), usize::div_ceil(k, 64));
            TensorTile::of(&sizes, steps, 1, true).ring.steps
        };
        assert_eq!([1, 16].map(|lanes| steps(128, 1152, lanes)), [2; 2]);
        assert_eq!(steps(128, 1152, 32), 1, "wide tiles");
        assert_eq!(steps(128, 1216, 1), 1, "an odd number");
        assert_eq!(steps(128, 256, 1), 1, "a short k");
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
                for (whole_rows, parts) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
                    let (steps, sizes) = (usize::div_ceil(k, 64), sizes(rows, outputs, k, lanes));
                    let parts = if steps >= 16 { parts } else { 1 };
                    for tile in TensorTile::best_first(&sizes, steps, parts, whole_rows) {
                        let TensorTile { outputs, rows, blocks, cut, ring } = tile;
                        assert!(
                            blocks * (tile.shared_bytes() + BESIDE_STAGES - 1024) <= SHARED_BYTES,
                            "{tile:?}"
                        );
                        assert!(rows * (outputs + 4) * 4 <= tile.shared_bytes() - 1024, "{tile:?}");
                        let stages = cut.steps_of_block(steps).div_ceil(ring.steps);
                        let no_place_is_used_twice = stages <= ring.stages;
                        assert!(
                            ring.ahead > 0 && (ring.ahead < ring.stages - ring.lag || no_place_is_used_twice)
                        );
                        assert_eq!(cut.blocks * cut.turns, parts, "parts are part of the sum");
                    }
                }
            }
        }
    }

    #[test]
    fn only_wide_tiles_that_leave_multiprocessors_idle_let_the_next_kernel_begin_at_once() {
        let begins_next = |lanes| {
            let sizes = sizes(128, 256, 1152, lanes);
            TensorTile::of(&sizes, 18, 1, true).begins_next(&sizes)
        };
        assert_eq!([10, 16, 20, 32, 64, 96].map(begins_next), [false, false, true, true, true, false]);
    }

    #[test]
    fn a_tile_has_neighbours_in_height_width_and_company() {
        let tiles = TensorTile::best_first(&sizes(128, 256, 1152, 16), 18, 1, true);
        let shapes: Vec<[usize; 3]> =
            tiles.iter().map(|tile| [tile.outputs, tile.rows, tile.blocks]).collect();
        assert_eq!(shapes[0], [64, 64, 1]);
        for near in [[128, 64, 1], [64, 56, 1], [64, 104, 1], [64, 64, 2]] {
            assert!(shapes.contains(&near), "{shapes:?}");
        }
        let few = TensorTile::best_first(&sizes(1, 64, 640, 4), 10, 1, true);
        assert!(
            few.iter().all(|tile| tile.rows == 8 && tile.outputs == 64),
            "no wider than its rows: {few:?}"
        );
    }
}
