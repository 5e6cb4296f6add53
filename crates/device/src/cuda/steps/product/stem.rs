//! Tiles of `kernels/product_stem.cu`: the first convolution of a network, whose lines of input are a factor as they lie.

use super::sizes::{BESIDE_STAGES, SHARED_BYTES, Sizes, width};
use tessera_planner::pack::BLOCK_ROW_BYTES;
use tessera_planner::plan::ConvShape;

/// A tile of columns of a line of outputs, and how many lines a block computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StemTile {
    /// A multiple of 16.
    pub(super) columns: usize,
    /// Tiles of a line of outputs.
    pub(super) line_tiles: usize,
    /// Lines of outputs of a block.
    pub(super) strip: usize,
    /// Tiles of one item, of all its strips.
    pub(super) item_tiles: usize,
    /// Blocks that share a multiprocessor.
    pub(super) blocks: usize,
}

impl StemTile {
    pub(super) const OUTPUTS: usize = 64;
    pub(super) const THREADS: usize = 128;
    const WIDTHS: &[usize] = &[16, 32, 64, 80, 112, 128];
    /// Registers of a thread beside its weights and sums.
    const REGISTERS: usize = 56;
    /// What a block takes beside its lines of outputs, in lines: weights to registers, and the first inputs.
    const PROLOGUE: usize = 3;
    const LONGEST_STRIP: usize = 32;

    /// The tiles of a convolution, whose elements have `size` bytes, the one to take first; none where it is no stem: neighbours' inputs must start 16 bytes
    /// apart, which are two pixels of four halves, and a thread's share of the weights must fit its registers. So must a residual, which no
    /// network has here. They differ in their strips alone.
    pub(super) fn best_first(sizes: &Sizes, shape: &ConvShape, size: usize, residual: bool) -> Vec<StemTile> {
        let [height, across] = shape.kernel;
        let jumps = shape.strides == [2; 2] && shape.dilations == [1; 2];
        let small = shape.groups == 1 && shape.in_per_group <= 4 && size == 2;
        if !jumps || !small || !(2..=7).contains(&height) || !(2..=8).contains(&across) {
            return Vec::new();
        }
        let columns = width(StemTile::WIDTHS, shape.output[1]);
        let elements = if residual { columns } else { columns / 2 };
        let registers = height * taps(shape) + elements + StemTile::REGISTERS;
        let blocks = match registers {
            ..=128 => 4,
            129..=168 => 3,
            _ => 2,
        };
        let line_tiles = shape.output[1].div_ceil(columns);
        let of_strip = |strip: usize| {
            let item_tiles = shape.output[0].div_ceil(strip) * line_tiles;
            StemTile { columns, line_tiles, strip, item_tiles, blocks }
        };
        let room = SHARED_BYTES / blocks - BESIDE_STAGES;
        let strips = 1..=shape.output[0].min(StemTile::LONGEST_STRIP);
        let fitting = strips.map(of_strip).filter(|tile| tile.shared_bytes(shape) <= room);
        let mut tiles: Vec<StemTile> = fitting.collect();
        tiles.sort_by_key(|tile| tile.lines(sizes));
        tiles
    }

    /// An estimate of a launch's time, in lines of outputs that one block computes after the other.
    fn lines(&self, sizes: &Sizes) -> usize {
        let blocks = sizes.room.items as usize * self.item_tiles * sizes.outputs.div_ceil(StemTile::OUTPUTS);
        let at_once = self.blocks * sizes.multiprocessors.max(1) as usize;
        blocks.div_ceil(at_once) * (self.strip + StemTile::PROLOGUE)
    }

    /// Dynamic shared memory: a line of outputs, and the inputs of a strip. Weights lie there before them. The factor that a line is has rows that
    /// overlap; compute-sanitizer measures it as if they did not, so there is room behind the last line for that too.
    pub(super) fn shared_bytes(&self, shape: &ConvShape) -> usize {
        let pixels = 2 * (self.columns - 1) + taps(shape);
        let lines = (self.strip - 1) * shape.strides[0] + shape.kernel[0];
        let staged = self.columns * (StemTile::OUTPUTS * 2 + 16);
        let k = shape.kernel[0] * shape.kernel[1] * shape.in_per_group;
        let weights = (k * 2).div_ceil(BLOCK_ROW_BYTES) * StemTile::OUTPUTS * BLOCK_ROW_BYTES;
        (staged + lines * pixels * 8 + self.columns * 16).max(weights)
    }
}

/// Taps of a line, with padding.
fn taps(shape: &ConvShape) -> usize {
    shape.kernel[1].next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::super::sizes::tests::sizes;
    use super::*;

    fn stem(input: usize, kernel: usize, channels: usize) -> ConvShape {
        let before = kernel / 2;
        ConvShape {
            input: [input; 2],
            output: [(input + 2 * before - kernel) / 2 + 1; 2],
            kernel: [kernel; 2],
            strides: [2; 2],
            dilations: [1; 2],
            before: [before; 2],
            after: [before; 2],
            groups: 1,
            in_per_group: channels,
            out_per_group: 64,
        }
    }

    fn tile(shape: &ConvShape, lanes: u32) -> Option<StemTile> {
        let rows = shape.output.iter().product();
        let k = shape.kernel[0] * shape.kernel[1] * shape.in_per_group;
        StemTile::best_first(&sizes(rows, 64, k, lanes), shape, 2, false).first().copied()
    }

    #[test]
    fn strips_of_a_full_launch_run_at_once_and_those_of_one_lane_are_short() {
        let strip = |kernel, lanes| {
            tile(&stem(224, kernel, 3), lanes).map(|tile| [tile.columns, tile.strip, tile.blocks])
        };
        assert_eq!(strip(7, 32), Some([112, 10, 3]), "384 blocks on 396 places");
        assert_eq!(strip(7, 1), Some([112, 1, 3]));
        assert_eq!(strip(3, 32), Some([112, 7, 4]), "512 blocks on 528 places");
    }

    #[test]
    fn wide_images_have_several_tiles_to_a_line() {
        let tile = tile(&stem(512, 7, 3), 8).unwrap();
        assert_eq!([tile.columns, tile.line_tiles], [128, 2]);
        assert_eq!(tile.item_tiles, 256usize.div_ceil(tile.strip) * 2);
    }

    #[test]
    fn other_convolutions_are_no_stems() {
        let stem = stem(224, 7, 3);
        let of = |shape: ConvShape| tile(&shape, 32);
        assert!(of(ConvShape { in_per_group: 4, ..stem }).is_some());
        assert_eq!(of(ConvShape { in_per_group: 5, ..stem }), None);
        assert_eq!(of(ConvShape { strides: [1; 2], ..stem }), None);
        assert_eq!(of(ConvShape { dilations: [2; 2], ..stem }), None);
        assert_eq!(of(ConvShape { kernel: [9; 2], ..stem }), None);
        assert_eq!(of(ConvShape { kernel: [1; 2], ..stem }), None);
        assert_eq!(
            StemTile::best_first(&sizes(12544, 64, 147, 32), &stem, 4, false),
            [],
            "four bytes are too many"
        );
    }

    #[test]
    fn every_tile_fits_its_multiprocessor() {
        for input in [10, 33, 96, 224, 299, 640, 1333] {
            for (kernel, channels) in [(2, 3), (3, 3), (5, 1), (7, 3), (7, 4)] {
                for lanes in [1, 8, 32, 128] {
                    let shape = stem(input, kernel, channels);
                    let tile = tile(&shape, lanes).expect("a stem");
                    let bytes = tile.shared_bytes(&shape) + BESIDE_STAGES;
                    assert!(tile.blocks * bytes <= SHARED_BYTES, "{tile:?}");
                    assert!(tile.columns * tile.line_tiles >= shape.output[1]);
                }
            }
        }
    }
}
