//! Tiles of `kernels/product_stem_float.cu`: the first convolution of a network in strict fp32, lines of whose image stay in shared memory.

use super::sizes::{SHARED_BYTES, Sizes, width};
use super::stem::Windows;
use crate::cuda::PANEL_WIDTH;
use tessera_planner::plan::{ConvShape, K_SEGMENT};

/// Columns of a line of outputs, and how many lines a block computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StemFloatTile {
    /// 64, or 32 where there are no more.
    pub(super) outputs: usize,
    pub(super) columns: usize,
    /// Tiles of a line.
    pub(super) line_tiles: usize,
    /// Lines of a block.
    pub(super) strip: usize,
    /// Tiles of one item, of all its strips.
    pub(super) item_tiles: usize,
    /// Blocks that share a multiprocessor.
    pub(super) blocks: usize,
}

impl StemFloatTile {
    /// Outputs of one thread.
    pub(super) const OF_THREAD: usize = 8;
    const FEEDERS: usize = 32;
    /// Multiples of 7 and 8 columns of a thread, of as many threads.
    const WIDTHS: &[usize] = &[112, 128];
    /// What a block takes beside its lines, in lines: weights, and the first lines of the image.
    const PROLOGUE: usize = 1;
    /// Of shared memory, what the driver keeps of each block, and barriers.
    const BESIDE: usize = 1024 + 256;

    /// The tiles of a convolution, the one to take first; none where it is no stem. They differ in their strips alone.
    pub(super) fn best_first(
        sizes: &Sizes,
        shape: &ConvShape,
        windows: &Windows,
        residual: bool,
    ) -> Vec<StemFloatTile> {
        let strips = 1..=shape.output[0].min(32);
        let mut tiles: Vec<StemFloatTile> =
            strips.filter_map(|strip| StemFloatTile::of_strip(shape, windows, residual, strip)).collect();
        tiles.sort_by_key(|tile| tile.lines(sizes));
        tiles
    }

    /// The tile of so many lines of outputs; `None` where the convolution is no stem, or its columns fill less than three fifths of their tiles: those of
    /// `product_float.cu` take less then. Pools are steps of their own here, and a stem has no residual.
    pub(super) fn of_strip(
        shape: &ConvShape,
        windows: &Windows,
        residual: bool,
        strip: usize,
    ) -> Option<StemFloatTile> {
        let [height, across] = shape.kernel;
        let jumps = shape.strides == [2; 2] && shape.dilations == [1; 2];
        let small = shape.groups == 1 && shape.in_per_group <= 4 && k(shape) <= K_SEGMENT;
        if !jumps
            || !small
            || !(2..=7).contains(&height)
            || !(2..=8).contains(&across)
            || windows.pool()
            || residual
        {
            return None;
        }
        let columns = width(StemFloatTile::WIDTHS, shape.output[1]);
        let line_tiles = shape.output[1].div_ceil(columns);
        if shape.output[1] * 5 < line_tiles * columns * 3 {
            return None;
        }
        let outputs = if shape.out_per_group <= 32 { 32 } else { PANEL_WIDTH };
        let item_tiles = shape.output[0].div_ceil(strip) * line_tiles;
        let tile = StemFloatTile { outputs, columns, line_tiles, strip, item_tiles, blocks: 1 };
        // As many as find registers: where a line of k is short, a thread keeps few addresses.
        let most = match (outputs, across * shape.in_per_group) {
            (32, ..=9) if columns == 112 => 6,
            (32, ..=9) => 5,
            (32, _) => 4,
            _ => 2,
        };
        let blocks = (SHARED_BYTES / (tile.shared_bytes(shape) + StemFloatTile::BESIDE)).min(most);
        (blocks > 0).then_some(StemFloatTile { blocks, ..tile })
    }

    /// An estimate of a launch's time, in lines that one block computes after the other.
    fn lines(&self, sizes: &Sizes) -> usize {
        let blocks = sizes.room.items as usize * self.item_tiles * sizes.outputs.div_ceil(self.outputs);
        let at_once = self.blocks * sizes.multiprocessors.max(1) as usize;
        blocks.div_ceil(at_once) * (self.strip + StemFloatTile::PROLOGUE)
    }

    /// Columns of one thread.
    pub(super) fn rows_of_thread(&self) -> usize {
        self.columns / 16
    }

    pub(super) fn threads(&self) -> usize {
        self.outputs * self.columns / (StemFloatTile::OF_THREAD * self.rows_of_thread())
            + StemFloatTile::FEEDERS
    }

    /// Dynamic shared memory: the weights, and as many lines of the image as the kernel has, each as often as a column sees it.
    pub(super) fn shared_bytes(&self, shape: &ConvShape) -> usize {
        let places = StemFloatTile::FEEDERS * 4;
        4 * k(shape) * (PANEL_WIDTH + places)
    }
}

fn k(shape: &ConvShape) -> usize {
    shape.kernel[0] * shape.kernel[1] * shape.in_per_group
}

#[cfg(test)]
mod tests {
    use super::super::sizes::tests::sizes;
    use super::super::stem;
    use super::*;

    fn stem(input: usize, kernel: usize, outputs: usize) -> ConvShape {
        ConvShape { out_per_group: outputs, ..stem::tests::stem(input, kernel, 3) }
    }

    fn tile(shape: &ConvShape, lanes: u32) -> Option<StemFloatTile> {
        let rows = shape.output.iter().product();
        let sizes = sizes(rows, shape.out_per_group, k(shape), lanes);
        StemFloatTile::best_first(&sizes, shape, &Windows::alone(shape), false).first().copied()
    }

    #[test]
    fn strips_of_a_full_launch_run_at_once_and_those_of_one_lane_are_short() {
        let strip = |shape, lanes| {
            tile(&shape, lanes).map(|tile| [tile.outputs, tile.columns, tile.strip, tile.blocks])
        };
        assert_eq!(strip(stem(224, 7, 64), 32), Some([64, 112, 14, 2]), "256 blocks on 264 places");
        assert_eq!(strip(stem(224, 7, 64), 1), Some([64, 112, 1, 2]));
        assert_eq!(strip(stem(224, 3, 32), 32), Some([32, 112, 5, 6]), "736 blocks on 792 places");
    }

    #[test]
    fn lines_that_would_fill_too_little_of_their_tiles_are_left_to_others() {
        assert_eq!(tile(&stem(96, 7, 64), 32), None, "48 columns");
        let wide = tile(&stem(299, 7, 64), 32).expect("150 columns in two tiles");
        assert_eq!([wide.columns, wide.line_tiles], [112, 2]);
        assert_eq!(tile(&ConvShape { strides: [1; 2], ..stem(224, 3, 64) }, 32), None);
        assert_eq!(tile(&ConvShape { in_per_group: 5, ..stem(224, 3, 64) }, 32), None);
    }

    #[test]
    fn every_tile_is_covered_by_whole_warps_and_fits_its_multiprocessor() {
        for (input, kernel, outputs) in
            [(224, 7, 64), (224, 3, 32), (256, 5, 24), (640, 7, 100), (333, 3, 64)]
        {
            for lanes in [1, 8, 32, 128] {
                let shape = stem(input, kernel, outputs);
                let tile = tile(&shape, lanes).expect("a stem");
                assert!(tile.threads().is_multiple_of(32), "{tile:?}");
                assert!(
                    tile.blocks * (tile.shared_bytes(&shape) + StemFloatTile::BESIDE) <= SHARED_BYTES,
                    "{tile:?}"
                );
                assert!(tile.columns * tile.line_tiles >= shape.output[1], "{tile:?}");
            }
        }
    }
}
