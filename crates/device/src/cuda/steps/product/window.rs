//! Tiles of `kernels/product_window.cu`: convolutions of several taps whose input stays in shared memory.

use super::sizes::{BESIDE_STAGES, SHARED_BYTES, Sizes, stages};
use tessera_planner::plan::ConvShape;

/// A tile of positions of the padded image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WindowTile {
    /// 64 or 128.
    pub(super) outputs: usize,
    /// Of one warp group: a multiple of 8.
    pub(super) columns: usize,
    /// Warp groups side by side along positions.
    pub(super) across: usize,
    pub(super) stages: usize,
    /// Blocks that share a multiprocessor.
    pub(super) blocks: usize,
    /// Tiles of one item.
    pub(super) item_tiles: usize,
    /// Places of a plane of the window.
    pub(super) plane: usize,
    /// Bytes of the window.
    window: usize,
}

impl WindowTile {
    /// Outputs, warp groups side by side, positions of each; the better of equals first. 4 lines of 28 columns with their padding are 120 positions, 7 are 210,
    /// 7 lines of 14 are 112. A block of 216 is alone on its multiprocessor, which only two warp groups can keep busy.
    const TILES: &[(usize, usize, usize)] = &[
        (128, 1, 216),
        (128, 1, 120),
        (128, 1, 112),
        (64, 2, 120),
        (64, 1, 120),
        (64, 1, 112),
        (128, 1, 56),
        (64, 1, 56),
    ];

    /// The tiles of a convolution, whose elements have `size` bytes, the one to take first; none where no taps walk over a window, or it does not fit.
    pub(super) fn best_first(sizes: &Sizes, shape: &ConvShape, size: usize) -> Vec<WindowTile> {
        let pixel = shape.in_per_group * size;
        if !walks(shape, size) {
            return Vec::new();
        }
        let tiles = WindowTile::TILES.iter().filter(|(outputs, ..)| *outputs == 64 || sizes.has_pairs());
        let all = tiles.filter_map(|&(outputs, across, columns)| {
            let tile = WindowTile::fitting(outputs, across, columns, sizes, shape, pixel)?;
            Some((tile.cycles(sizes, shape, size), tile))
        });
        let mut all: Vec<(usize, WindowTile)> = all.collect();
        // One that comes later must be better by more than the estimate's error.
        let better = |best: (usize, WindowTile), next: (usize, WindowTile)| {
            if next.0 * 100 < best.0 * 97 { next } else { best }
        };
        let Some((_, best)) = all.iter().copied().reduce(better) else { return Vec::new() };
        all.sort_by_key(|(cycles, tile)| (*tile != best, *cycles));
        all.into_iter().map(|(_, tile)| tile).collect()
    }

    fn fitting(
        outputs: usize,
        across: usize,
        columns: usize,
        sizes: &Sizes,
        shape: &ConvShape,
        pixel: usize,
    ) -> Option<WindowTile> {
        let (line, positions) = (line(shape), across * columns);
        let plane = plane(positions, shape);
        let window = plane * pixel;
        let fits = |blocks: usize, least: usize| {
            let room = (SHARED_BYTES / blocks).checked_sub(BESIDE_STAGES + window)?;
            stages(room, outputs * 128).filter(|&stages| stages >= least).map(|stages| (blocks, stages))
        };
        let item_tiles = ((shape.output[0] - 1) * line + shape.output[1]).div_ceil(positions);
        let launched = sizes.room.lanes as usize * item_tiles * sizes.outputs.div_ceil(outputs);
        let alone = columns > 120 || launched <= sizes.multiprocessors as usize;
        let shared = if alone { None } else { fits(2, 4) };
        let (blocks, stages) = shared.or_else(|| fits(1, 3))?;
        let tile = WindowTile { outputs, columns, across, stages, blocks, item_tiles, plane, window };
        (tile.blocks * (tile.shared_bytes() + BESIDE_STAGES - 1024) <= SHARED_BYTES).then_some(tile)
    }

    /// An estimate of the busiest multiprocessor's time: products at the matrix unit's rate, weights and window at 64 bytes a cycle of which products
    /// hide half, a thousand cycles to begin and end. A block alone waits for its window.
    fn cycles(&self, sizes: &Sizes, shape: &ConvShape, size: usize) -> usize {
        let products = self.outputs * self.positions() * sizes.k * size / 4096;
        let needed = self.positions() + (shape.kernel[0] - 1) * line(shape);
        let window = needed * shape.in_per_group * size;
        let moved = (self.outputs * sizes.k * size + window) / 128;
        let waited = if self.blocks == 1 { window / 64 } else { 0 };
        let lanes = sizes.room.lanes as usize;
        let blocks = lanes * self.item_tiles * sizes.outputs.div_ceil(self.outputs);
        blocks.div_ceil(sizes.multiprocessors.max(1) as usize) * (products + moved + waited + 1000)
    }

    pub(super) fn positions(&self) -> usize {
        self.across * self.columns
    }

    /// Dynamic shared memory: the ring and the window, where the sums lie later, and what it takes to begin at a multiple of 1024.
    pub(super) fn shared_bytes(&self) -> usize {
        let sums = self.positions() * (self.outputs + 4) * 4;
        (self.stages * self.outputs * 128 + self.window).max(sums) + 1024
    }

    pub(super) fn threads(&self) -> usize {
        self.outputs * 2 * self.across + 32
    }
}

/// Whether the taps of a convolution, whose elements have `size` bytes, walk over a window. They are better gathered one by one where there is one, they jump,
/// channels do not fill steps, or an eighth of the sums or more would be of padding (7×7 ties at best).
pub(super) fn walks(shape: &ConvShape, size: usize) -> bool {
    let several = shape.kernel.iter().product::<usize>() > 1;
    let near = shape.strides == [1; 2] && shape.dilations == [1; 2];
    let whole_steps = shape.groups == 1 && (shape.in_per_group * size).is_multiple_of(128);
    several && near && whole_steps && shape.output[1] * 20 >= line(shape) * 17
}

/// Places of a plane that holds what the taps of so many positions see: one more than a multiple of 8, see the kernel.
pub(super) fn plane(positions: usize, shape: &ConvShape) -> usize {
    let needed = positions + (shape.kernel[0] - 1) * line(shape) + shape.kernel[1] - 1;
    (needed + 6) / 8 * 8 + 1
}

/// Positions of a padded line.
pub(super) fn line(shape: &ConvShape) -> usize {
    shape.output[1] + shape.kernel[1] - 1
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::sizes::tests::sizes;
    use super::*;

    /// A 3×3 convolution of a square image, and what the choice of its tile depends on where each lane has one item.
    pub(in crate::cuda::steps::product) fn layer(
        side: usize,
        [channels, outputs]: [usize; 2],
        lanes: u32,
    ) -> (Sizes, ConvShape) {
        let shape = ConvShape {
            input: [side; 2],
            output: [side; 2],
            kernel: [3; 2],
            strides: [1; 2],
            dilations: [1; 2],
            before: [1; 2],
            after: [1; 2],
            groups: 1,
            in_per_group: channels,
            out_per_group: outputs,
        };
        (sizes(side * side, outputs, 9 * channels, lanes), shape)
    }

    fn tile(side: usize, channels: usize, lanes: u32, size: usize) -> Option<WindowTile> {
        let (sizes, shape) = layer(side, [channels; 2], lanes);
        WindowTile::best_first(&sizes, &shape, size).first().copied()
    }

    #[test]
    fn images_of_residual_networks_take_the_tiles_that_were_measured_best() {
        let chosen = |side, channels, lanes| {
            tile(side, channels, lanes, 2).map(|tile| [tile.outputs, tile.positions(), tile.stages])
        };
        assert_eq!(chosen(56, 64, 32), Some([64, 240, 8]));
        assert_eq!(chosen(28, 128, 32), Some([128, 216, 8]));
        assert_eq!(chosen(14, 256, 32), Some([128, 112, 8]));
        assert_eq!(chosen(14, 256, 8), Some([64, 56, 8]), "few lanes, small tiles");
        assert_eq!(chosen(7, 512, 32), None, "a fifth of the sums would be padding");
    }

    #[test]
    fn jumping_taps_and_odd_channels_are_gathered() {
        let (sizes, shape) = layer(14, [64; 2], 8);
        let of = |shape: ConvShape| WindowTile::best_first(&sizes, &shape, 2).first().copied();
        assert!(of(shape).is_some());
        assert_eq!(of(ConvShape { strides: [2; 2], ..shape }), None);
        assert_eq!(of(ConvShape { dilations: [2; 2], ..shape }), None);
        assert_eq!(of(ConvShape { in_per_group: 40, ..shape }), None);
        assert_eq!(of(ConvShape { kernel: [1; 2], ..shape }), None);
    }

    #[test]
    fn every_tile_fits_its_multiprocessor() {
        for side in [14, 20, 28, 56, 112, 224, 500] {
            for (channels, size) in [(64, 2), (256, 2), (512, 2), (64, 4), (256, 4)] {
                let (sizes, shape) = layer(side, [channels; 2], 32);
                for tile in WindowTile::best_first(&sizes, &shape, size) {
                    assert!(
                        tile.blocks * (tile.shared_bytes() + BESIDE_STAGES - 1024) <= SHARED_BYTES,
                        "{tile:?}"
                    );
                    assert!(tile.plane % 8 == 1 && tile.threads() * tile.blocks <= 640);
                }
            }
        }
    }
}
