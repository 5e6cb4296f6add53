//! Tiles of `kernels/product_stem.cu`: the first convolution of a network, whose lines of input are a factor as they lie, and the pool behind it.

use super::sizes::{BESIDE_STAGES, SHARED_BYTES, Sizes, width};
use super::stem_float::StemFloatTile;
use crate::cuda::call::KernelSpec;
use tessera_core::{DType, Precision};
use tessera_planner::pack::BLOCK_ROW_BYTES;
use tessera_planner::plan::ConvShape;

/// How the image of outputs lies on that of sums: under the windows of a pool, or one to one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::cuda::steps) struct Windows {
    /// Lines and columns of outputs.
    pub(super) output: [usize; 2],
    kernel: [usize; 2],
    strides: [usize; 2],
    before: [usize; 2],
}

impl Windows {
    /// Of a convolution whose sums are its outputs.
    pub(in crate::cuda::steps) fn alone(shape: &ConvShape) -> Windows {
        Windows { output: shape.output, kernel: [1; 2], strides: [1; 2], before: [0; 2] }
    }

    /// Of a pool, if a stem can do it: of windows that share one line and column at most, each of which sees some of the image, and no two end at the same line.
    pub(in crate::cuda::steps) fn of(pool: &ConvShape) -> Option<Windows> {
        let ConvShape { output, kernel, strides, before, .. } = *pool;
        let along = |axis: usize| {
            let end = (output[axis] - 1) * strides[axis] + kernel[axis];
            (2..=3).contains(&kernel[axis])
                && (kernel[axis] == strides[axis] || kernel[axis] == strides[axis] + 1)
                && before[axis] < kernel[axis]
                && end < pool.input[axis] + before[axis] + strides[axis]
        };
        let simple = pool.dilations == [1; 2] && along(0) && along(1);
        simple.then_some(Windows { output, kernel, strides, before })
    }

    pub(super) fn pool(&self) -> bool {
        self.kernel != [1; 2]
    }

    /// Lines of sums, or columns, that so many neighbouring outputs see.
    fn seen(&self, axis: usize, outputs: usize) -> usize {
        (outputs - 1) * self.strides[axis] + self.kernel[axis]
    }

    /// As the kernel is told of them.
    pub(super) fn define(&self, spec: KernelSpec) -> KernelSpec {
        spec.define("POOL_HEIGHT", self.kernel[0])
            .define("POOL_WIDTH", self.kernel[1])
            .define("POOL_DOWN", self.strides[0])
            .define("POOL_ACROSS", self.strides[1])
            .define("POOL_TOP", self.before[0])
            .define("POOL_LEFT", self.before[1])
    }
}

/// A tile of columns of a line of sums, and how many lines of outputs a block computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StemTile {
    /// Of sums, a multiple of 16.
    pub(super) columns: usize,
    /// Columns of outputs.
    pub(super) written: usize,
    /// Tiles of a line of outputs.
    pub(super) line_tiles: usize,
    /// Lines of outputs of a block.
    pub(super) strip: usize,
    /// Tiles of one item, of all its strips.
    pub(super) item_tiles: usize,
    /// Blocks that share a multiprocessor.
    pub(super) blocks: usize,
    /// Bytes of an element.
    size: usize,
}

/// Whether a convolution is a stem in this precision, with such windows behind it: a matter of shape alone.
pub(in crate::cuda::steps) fn is_stem(
    shape: &ConvShape,
    windows: &Windows,
    precision: Precision,
    residual: bool,
) -> bool {
    if precision == Precision::Fp32 {
        return StemFloatTile::of_strip(shape, windows, residual, 1).is_some();
    }
    StemTile::of_strip(shape, windows, precision, residual, 1).is_some_and(|tile| tile.fits(shape, windows))
}

impl StemTile {
    pub(super) const OUTPUTS: usize = 64;
    pub(super) const THREADS: usize = 128;
    const WIDTHS: &[usize] = &[16, 32, 64, 80, 112, 128];
    /// Registers of a thread beside its weights and sums.
    const REGISTERS: usize = 56;
    /// That a thread has, less a few.
    const MOST_REGISTERS: usize = 240;
    /// What a block takes beside its lines of sums, in lines: weights to registers, and the first inputs.
    const PROLOGUE: usize = 3;
    const LONGEST_STRIP: usize = 32;

    /// The tiles of a convolution, the one to take first; none where it is no stem. They differ in their strips alone.
    pub(super) fn best_first(
        sizes: &Sizes,
        shape: &ConvShape,
        windows: &Windows,
        precision: Precision,
        residual: bool,
    ) -> Vec<StemTile> {
        let strips = 1..=windows.output[0].min(StemTile::LONGEST_STRIP);
        let tiles = strips.filter_map(|strip| StemTile::of_strip(shape, windows, precision, residual, strip));
        let mut tiles: Vec<StemTile> = tiles.filter(|tile| tile.fits(shape, windows)).collect();
        tiles.sort_by_key(|tile| tile.lines(sizes, windows));
        tiles
    }

    /// The tile of so many lines of outputs; `None` where the convolution is no stem: neighbours' inputs must start 16 bytes apart, which are two pixels of four
    /// halves or every second of four floats, and a thread's share of the weights must fit its registers. So must a residual, which no network has here.
    fn of_strip(
        shape: &ConvShape,
        windows: &Windows,
        precision: Precision,
        residual: bool,
        strip: usize,
    ) -> Option<StemTile> {
        let [height, across] = shape.kernel;
        let jumps = shape.strides == [2; 2] && shape.dilations == [1; 2];
        let small = shape.groups == 1 && shape.in_per_group <= 4 && precision != Precision::Fp32;
        if !jumps || !small || !(2..=7).contains(&height) || !(2..=8).contains(&across) {
            return None;
        }
        if windows.pool() && residual {
            return None;
        }
        let size = precision.stored(DType::F32).size();
        let registers = |columns: usize| {
            let elements = if residual { columns } else { columns / 2 };
            // The largest so far, as it is stored.
            let pooled = if windows.pool() { columns / 2 * size / 4 } else { 0 };
            weights(shape, size) + elements + pooled + StemTile::REGISTERS
        };
        let fitting = StemTile::WIDTHS.iter().copied();
        let widths: Vec<usize> =
            fitting.filter(|&columns| registers(columns) <= StemTile::MOST_REGISTERS).collect();
        let columns = width(&widths, shape.output[1]);
        let blocks = match registers(columns) {
            ..=128 => 4,
            129..=168 => 3,
            _ => 2,
        };
        let whole = shape.output[1] <= columns;
        let most = (columns - windows.kernel[1]) / windows.strides[1] + 1;
        let written = if whole { windows.output[1] } else { most };
        let line_tiles = windows.output[1].div_ceil(written);
        let item_tiles = windows.output[0].div_ceil(strip) * line_tiles;
        Some(StemTile { columns, written, line_tiles, strip, item_tiles, blocks, size })
    }

    fn fits(&self, shape: &ConvShape, windows: &Windows) -> bool {
        self.shared_bytes(shape, windows) <= SHARED_BYTES / self.blocks - BESIDE_STAGES
    }

    /// An estimate of a launch's time, in lines of sums that one block computes after the other.
    fn lines(&self, sizes: &Sizes, windows: &Windows) -> usize {
        let blocks = sizes.room.items as usize * self.item_tiles * sizes.outputs.div_ceil(StemTile::OUTPUTS);
        let at_once = self.blocks * sizes.multiprocessors.max(1) as usize;
        blocks.div_ceil(at_once) * (windows.seen(0, self.strip) + StemTile::PROLOGUE)
    }

    /// Dynamic shared memory: a line of outputs, and the inputs of a strip. Weights lie there before them. The factor that a line is has rows that
    /// overlap; compute-sanitizer measures it as if they did not, so there is room behind the last line for that too.
    pub(super) fn shared_bytes(&self, shape: &ConvShape, windows: &Windows) -> usize {
        let pixels = 2 * (self.columns - 1) + taps(shape, self.size).next_multiple_of(2);
        let lines = (windows.seen(0, self.strip) - 1) * shape.strides[0] + shape.kernel[0];
        let staged = self.columns * (StemTile::OUTPUTS * self.size + 16);
        let k = shape.kernel[0] * shape.kernel[1] * shape.in_per_group;
        let weights = (k * self.size).div_ceil(BLOCK_ROW_BYTES) * StemTile::OUTPUTS * BLOCK_ROW_BYTES;
        (staged + lines * pixels * 4 * self.size + self.columns * 16).max(weights)
    }
}

/// Taps of a line, with padding: an instruction takes four of halves, and any two of floats.
fn taps(shape: &ConvShape, size: usize) -> usize {
    if size == 2 { shape.kernel[1].next_multiple_of(4) } else { shape.kernel[1] }
}

/// Registers of a thread's share of the weights: four of each instruction.
fn weights(shape: &ConvShape, size: usize) -> usize {
    let taps = shape.kernel[0] * taps(shape, size);
    (taps * size / 2).next_multiple_of(4)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::sizes::tests::sizes;
    use super::*;

    /// A convolution of a square image to 64 outputs that takes every second place.
    pub(in super::super) fn stem(input: usize, kernel: usize, channels: usize) -> ConvShape {
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
        first(shape, &Windows::alone(shape), Precision::Bf16, lanes)
    }

    fn first(shape: &ConvShape, windows: &Windows, precision: Precision, lanes: u32) -> Option<StemTile> {
        let rows = shape.output.iter().product();
        let k = shape.kernel[0] * shape.kernel[1] * shape.in_per_group;
        StemTile::best_first(&sizes(rows, 64, k, lanes), shape, windows, precision, false).first().copied()
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

    /// A pool of windows of `kernel` every `strides`, beside which the image has so many zeros on every side.
    fn pool(stem: &ConvShape, kernel: usize, strides: usize, zeros: usize) -> ConvShape {
        let input = stem.output;
        ConvShape {
            input,
            output: input.map(|side| (side + 2 * zeros - kernel) / strides + 1),
            kernel: [kernel; 2],
            strides: [strides; 2],
            before: [zeros; 2],
            after: [zeros; 2],
            groups: stem.out_per_group,
            in_per_group: 1,
            out_per_group: 1,
            ..*stem
        }
    }

    #[test]
    fn strips_of_pooled_lines_share_one_line_of_sums() {
        let stem = stem(224, 7, 3);
        let windows = Windows::of(&pool(&stem, 3, 2, 1)).expect("simple");
        assert_eq!(windows.seen(0, 7), 15);
        let tile = first(&stem, &windows, Precision::Bf16, 32).expect("a stem");
        assert_eq!([tile.written, tile.strip, tile.blocks], [56, 7, 2], "256 blocks on 264 places");
        let wide = ConvShape { output: [112, 320], input: [224, 640], ..stem };
        let tile = first(&wide, &Windows::of(&pool(&wide, 3, 2, 1)).expect("simple"), Precision::Bf16, 32)
            .expect("a stem");
        let seen = (tile.written - 1) * 2 + 3;
        assert!(seen <= tile.columns && tile.written * tile.line_tiles >= 160, "{tile:?}");
    }

    #[test]
    fn floats_take_a_usual_image_in_two_halves_where_they_pool() {
        let stem = stem(224, 7, 3);
        let windows = Windows::of(&pool(&stem, 3, 2, 1)).expect("simple");
        let tile = first(&stem, &windows, Precision::Tf32, 32).expect("a stem");
        assert_eq!([tile.columns, tile.written, tile.line_tiles, tile.blocks], [64, 31, 2, 2]);
        let alone = first(&stem, &Windows::alone(&stem), Precision::Tf32, 32).expect("a stem");
        assert_eq!([alone.columns, alone.line_tiles, alone.blocks], [112, 1, 2]);
    }

    #[test]
    fn windows_share_one_line_and_each_ends_at_its_own() {
        let stem = stem(224, 7, 3);
        let simple = |kernel, strides, zeros| Windows::of(&pool(&stem, kernel, strides, zeros)).is_some();
        assert!(simple(2, 2, 0) && simple(3, 2, 0) && simple(3, 2, 1) && simple(3, 3, 1));
        assert!(!simple(3, 1, 1), "two lines are shared");
        assert!(!simple(2, 3, 0), "a line is left out");
        assert!(!simple(5, 4, 2), "more lines than are kept");
        let over = ConvShape { output: [56; 2], ..pool(&stem, 3, 2, 0) };
        assert!(Windows::of(&over).is_some(), "a window that hangs over");
        let over = ConvShape { output: [57; 2], ..over };
        assert_eq!(Windows::of(&over), None, "two windows end with the image");
        let apart = ConvShape { dilations: [2; 2], ..pool(&stem, 2, 2, 0) };
        assert_eq!(Windows::of(&apart), None);
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
        assert_eq!(first(&stem, &Windows::alone(&stem), Precision::Fp32, 32), None, "no matrix unit");
    }

    #[test]
    fn every_tile_fits_its_multiprocessor() {
        for input in [10, 33, 96, 224, 299, 640, 1333] {
            for (kernel, channels) in [(2, 3), (3, 3), (5, 1), (7, 3), (7, 4)] {
                for lanes in [1, 8, 32, 128] {
                    let shape = stem(input, kernel, channels);
                    let pooled = Windows::of(&pool(&shape, 3, 2, 1)).expect("simple");
                    for windows in [Windows::alone(&shape), pooled] {
                        for precision in [Precision::Bf16, Precision::Tf32] {
                            let tile = first(&shape, &windows, precision, lanes).expect("a stem");
                            let bytes = tile.shared_bytes(&shape, &windows) + BESIDE_STAGES;
                            assert!(tile.blocks * bytes <= SHARED_BYTES, "{tile:?}");
                            assert!(tile.written * tile.line_tiles >= windows.output[1]);
                            assert!(windows.seen(1, tile.written) <= tile.columns + windows.before[1] + 1);
                        }
                    }
                }
            }
        }
    }
}
