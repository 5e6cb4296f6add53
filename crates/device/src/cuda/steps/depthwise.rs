//! Depthwise convolutions: see `kernels/depthwise.cu`.
//!
//! Everything chosen here (packs, pixels of a thread, tiles, strips) decides who computes an element and never how.

use super::activation::{activated, limits};
use super::vector::{widest, width};
use super::window::Window;
use crate::cuda::abi::{LaunchParams, OperandParams};
use crate::cuda::call::{KernelCall, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_core::DType;
use tessera_planner::plan::{ConvShape, Operand, StepKind};

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct DepthwiseParams {
    launch: LaunchParams,
    x: OperandParams,
    out: OperandParams,
    w: OperandParams,
    bias: OperandParams,
    residual: OperandParams,
    window: Window,
    columns: u32,
    channel_tiles: u32,
    runs: u32,
    lines: u32,
    tiles_across: u32,
    tiles: u32,
    strip: u32,
    unused: u32,
    limits: [f32; 2],
}
params!(DepthwiseParams);

/// Threads of a block at most.
const THREADS: usize = 256;
/// The same where larger blocks would leave multiprocessors idle.
const FEW_THREADS: usize = 64;
/// Packs of channels of a block at most: a warp's worth.
const MAX_COLUMNS: usize = 32;
/// Bytes of a block's kernels at most, so that several blocks share a multiprocessor.
const MAX_SHARED: usize = 40 << 10;
/// Tiles that a block computes at most; enough to make the loading of the kernels cheap.
const MAX_TILES: usize = 4;
/// Blocks per multiprocessor below which a block has one tile.
const BLOCKS_PER_MULTIPROCESSOR: usize = 8;

pub(super) fn calls(site: &Site<'_>, kind: &StepKind) -> Result<Vec<KernelCall>, String> {
    let StepKind::Depthwise { x, w, shape, epilogue, out } = kind else {
        unreachable!("called for its own kind")
    };
    let stored = site.stored(*x);
    let tiles = Tiles::of(shape, stored, THREADS)?;
    let launched = tiles.count(shape) * tiles.channel_tiles * site.capacity.items as usize;
    let few = launched < site.multiprocessors as usize;
    let tiles = if few { Tiles::of(shape, stored, FEW_THREADS)? } else { tiles };
    let weight = Operand::Weight(*w);
    if [Some(*w), epilogue.bias]
        .into_iter()
        .flatten()
        .any(|id| site.stored(Operand::Weight(id)) != DType::F32)
    {
        return Err("its kernels are not held as f32".to_owned());
    }
    let absent = OperandParams { base: 0, item_bytes: 0, kind: 1, unused: 0 };
    let count = tiles.count(shape);
    let blocks = count * tiles.channel_tiles * site.capacity.items as usize;
    let wanted = site.multiprocessors as usize * BLOCKS_PER_MULTIPROCESSOR;
    let strip = (blocks / wanted.max(1)).clamp(1, MAX_TILES);
    let params = DepthwiseParams {
        launch: site.launch,
        x: site.operand(*x),
        out: site.buffer(*out),
        w: site.operand(weight),
        bias: epilogue.bias.map_or(absent, |bias| site.operand(Operand::Weight(bias))),
        residual: epilogue.residual.map_or(absent, |residual| site.operand(residual)),
        window: Window::of(shape, tiles.width)?,
        columns: tiles.columns as u32,
        channel_tiles: tiles.channel_tiles as u32,
        runs: tiles.runs as u32,
        lines: tiles.lines as u32,
        tiles_across: tiles.across(shape) as u32,
        tiles: count as u32,
        strip: strip as u32,
        unused: 0,
        limits: limits(epilogue.activation),
    };
    let mut spec = site
        .spec("depthwise.cu")
        .define("TYPE", type_number(stored))
        .define("WIDTH", tiles.width)
        .define("PIXELS", tiles.pixels);
    if epilogue.bias.is_some() {
        spec = spec.define("BIAS", 1);
    }
    if let Some(residual) = epilogue.residual {
        spec = spec.define("RESIDUAL", type_number(site.stored(residual)));
    }
    let spec = activated(Window::define(spec, shape), epilogue.activation);
    let strips = count.div_ceil(strip).max(1) * tiles.channel_tiles;
    let grid = [strips as u32, site.capacity.items, 1];
    let threads = tiles.threads() as u32;
    Ok(vec![KernelCall::new(spec, &params, grid, threads).shared(tiles.shared_bytes(shape))])
}

/// How an image is divided among blocks and threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tiles {
    /// Channels of a pack.
    width: usize,
    /// Neighbouring pixels of a thread: a run.
    pixels: usize,
    /// Packs of a block.
    columns: usize,
    /// Blocks side by side along channels.
    channel_tiles: usize,
    /// Runs along a line, and lines, of a tile.
    runs: usize,
    lines: usize,
}

impl Tiles {
    /// The tiles that cost least, of all that a block of so many threads can hold.
    fn of(shape: &ConvShape, stored: DType, threads: usize) -> Result<Tiles, String> {
        // A row of floats for every tap, and one for the bias.
        let rows = shape.kernel[0] * shape.kernel[1] + 1;
        let mut width = width(widest(stored.size()), [shape.groups]);
        while width > 1 && rows * width * 4 > MAX_SHARED {
            width /= 2;
        }
        let packs = shape.groups / width;
        let most = MAX_COLUMNS.min(MAX_SHARED / (rows * width * 4)).min(packs.max(1));
        let pixels = pixels(shape, width);
        let row = shape.output[1].div_ceil(pixels).max(1);
        let height = shape.output[0].max(1);
        let all = (1..=most).flat_map(|columns| {
            let channel_tiles = packs.div_ceil(columns).max(1);
            (1..=row.min(threads / columns)).map(move |runs| {
                // As even as can be: 28 lines are 4 × 7, not 9, 9, 9 and 1.
                let lines = height.div_ceil(height.div_ceil((threads / columns / runs).min(height)));
                Tiles { width, pixels, columns, channel_tiles, runs, lines }
            })
        });
        all.min_by_key(|tiles| tiles.cost(shape, stored))
            .ok_or_else(|| format!("its kernels of {} taps are more than a block holds", rows - 1))
    }

    /// Of an item: packs that are computed, idle threads' as well, and those that are brought, in pieces of 64 bytes. One to compute takes four times
    /// the time of one from the caches.
    fn cost(&self, shape: &ConvShape, stored: DType) -> usize {
        let seen = |outputs: usize, axis: usize| {
            (outputs - 1) * shape.strides[axis] + (shape.kernel[axis] - 1) * shape.dilations[axis] + 1
        };
        let pack = self.width * stored.size();
        let run = self.columns * pack;
        // Runs that do not begin where memory's pieces do touch one more.
        let beyond = if run.is_multiple_of(64) { 0 } else { 32 };
        let moved = (run.next_multiple_of(64) + beyond).div_ceil(pack);
        let kernels = (shape.kernel[0] * shape.kernel[1] + 1) * size_of::<f32>() / stored.size();
        let brought = (seen(self.lines, 0) * seen(self.runs * self.pixels, 1) + kernels) * moved;
        let computed = self.threads() * self.pixels;
        (4 * computed + brought) * self.count(shape) * self.channel_tiles
    }

    /// Tiles side by side along a line of the image.
    fn across(&self, shape: &ConvShape) -> usize {
        shape.output[1].div_ceil(self.runs * self.pixels)
    }

    /// Tiles of an image.
    fn count(&self, shape: &ConvShape) -> usize {
        self.across(shape) * shape.output[0].div_ceil(self.lines)
    }

    /// Whole warps.
    fn threads(&self) -> usize {
        (self.columns * self.runs * self.lines).next_multiple_of(32)
    }

    fn shared_bytes(&self, shape: &ConvShape) -> usize {
        (shape.kernel[0] * shape.kernel[1] + 1) * self.columns * self.width * 4
    }
}

/// Pixels whose sums, and the columns that they see, fit a thread's registers; windows beyond the common sizes go one by one.
fn pixels(shape: &ConvShape, width: usize) -> usize {
    let reach =
        |pixels: usize| (pixels - 1) * shape.strides[1] + (shape.kernel[1] - 1) * shape.dilations[1] + 1;
    let most = if width > 4 { 8 } else { 12 };
    [4, 2].into_iter().find(|&pixels| reach(pixels) <= most).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(side: usize, channels: usize, kernel: usize, stride: usize) -> ConvShape {
        ConvShape {
            input: [side; 2],
            output: [side.div_ceil(stride); 2],
            kernel: [kernel; 2],
            strides: [stride; 2],
            dilations: [1; 2],
            before: [kernel / 2; 2],
            after: [kernel / 2; 2],
            groups: channels,
            in_per_group: 1,
            out_per_group: 1,
        }
    }

    #[test]
    fn tiles_hold_whole_images_or_squares_of_them() {
        let tiles = |side, channels, kernel, stride, dtype| {
            let tiles = Tiles::of(&shape(side, channels, kernel, stride), dtype, THREADS).unwrap();
            [tiles.width, tiles.pixels, tiles.columns, tiles.runs, tiles.lines]
        };
        let common = |side, channels| tiles(side, channels, 3, 1, DType::BF16);
        assert_eq!(common(7, 960), [8, 4, 16, 2, 7]);
        assert_eq!(common(14, 384), [8, 4, 4, 4, 14]);
        assert_eq!(common(112, 32), [8, 4, 4, 4, 16]);
        assert_eq!(tiles(112, 96, 3, 2, DType::BF16), [8, 2, 4, 4, 14]);
        assert_eq!(tiles(14, 1152, 5, 1, DType::F32), [4, 4, 4, 4, 14]);
        assert_eq!(tiles(28, 8, 9, 1, DType::BF16), [8, 1, 1, 14, 14]);
        assert_eq!(common(28, 192), [8, 4, 8, 1, 28]);
        assert_eq!(common(56, 144), [8, 4, 4, 2, 28]);
        assert_eq!(tiles(28, 35, 3, 1, DType::F16), [1, 4, 18, 1, 14]);
    }

    #[test]
    fn every_tile_fits_its_block_and_the_image_its_tiles() {
        for side in [1, 2, 7, 13, 28, 112] {
            for (channels, kernel, stride) in [(8, 3, 1), (35, 3, 2), (144, 5, 1), (960, 3, 1), (16, 9, 2)] {
                for (dtype, threads) in
                    [(DType::F32, THREADS), (DType::BF16, THREADS), (DType::BF16, FEW_THREADS)]
                {
                    let shape = shape(side, channels, kernel, stride);
                    let tiles = Tiles::of(&shape, dtype, threads).unwrap();
                    assert!(
                        tiles.threads() <= threads && tiles.shared_bytes(&shape) <= MAX_SHARED,
                        "{tiles:?}"
                    );
                    assert!(tiles.columns * tiles.channel_tiles * tiles.width >= channels, "{tiles:?}");
                    let covered = tiles.count(&shape) * tiles.lines * tiles.runs * tiles.pixels;
                    assert!(covered >= shape.output[0] * shape.output[1], "{tiles:?}");
                }
            }
        }
    }

    #[test]
    fn a_kernel_beyond_shared_memory_is_refused() {
        assert!(Tiles::of(&shape(28, 8, 200, 1), DType::F32, THREADS).is_err());
    }
}
