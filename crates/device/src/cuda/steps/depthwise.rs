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
    groups: u32,
    groups_of_row: u32,
    strip: u32,
    unused: u32,
    limits: [f32; 2],
}
params!(DepthwiseParams);

/// Threads of a block.
const THREADS: usize = 256;
/// Packs of channels of a block at most: a warp's worth.
const MAX_COLUMNS: usize = 32;
/// Bytes of a block's kernels at most, so that several blocks share a multiprocessor.
const MAX_SHARED: usize = 40 << 10;
/// Runs of pixels that a thread computes at most; enough to make the loading of the kernels cheap.
const MAX_RUNS: usize = 8;
/// Blocks per multiprocessor below which strips stay short.
const BLOCKS_PER_MULTIPROCESSOR: usize = 8;

pub(super) fn calls(site: &Site<'_>, kind: &StepKind) -> Result<Vec<KernelCall>, String> {
    let StepKind::Depthwise { x, w, shape, epilogue, out } = kind else {
        unreachable!("called for its own kind")
    };
    let stored = site.stored(*x);
    let tiles = Tiles::of(shape, stored)?;
    let weight = Operand::Weight(*w);
    if [Some(*w), epilogue.bias]
        .into_iter()
        .flatten()
        .any(|id| site.stored(Operand::Weight(id)) != DType::F32)
    {
        return Err("its kernels are not held as f32".to_owned());
    }
    let absent = OperandParams { base: 0, item_bytes: 0, kind: 1, unused: 0 };
    let row = shape.output[1].div_ceil(tiles.pixels);
    let groups = shape.output[0] * row;
    let rows_of_threads = THREADS / tiles.columns;
    let blocks = groups.div_ceil(rows_of_threads) * tiles.channel_tiles * site.capacity.items as usize;
    let wanted = site.multiprocessors as usize * BLOCKS_PER_MULTIPROCESSOR;
    let strip = rows_of_threads * (blocks / wanted.max(1)).clamp(1, MAX_RUNS);
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
        groups: groups as u32,
        groups_of_row: row as u32,
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
    let strips = groups.div_ceil(strip).max(1) * tiles.channel_tiles;
    let grid = [strips as u32, site.capacity.items, 1];
    Ok(vec![KernelCall::new(spec, &params, grid, THREADS as u32).shared(tiles.shared_bytes(shape))])
}

/// How an image is divided among blocks and threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tiles {
    /// Channels of a pack.
    width: usize,
    /// Neighbouring pixels of a thread.
    pixels: usize,
    /// Packs of a block.
    columns: usize,
    /// Blocks side by side along channels.
    channel_tiles: usize,
}

impl Tiles {
    fn of(shape: &ConvShape, stored: DType) -> Result<Tiles, String> {
        // A row of floats for every tap, and one for the bias.
        let rows = shape.kernel[0] * shape.kernel[1] + 1;
        let mut width = width(widest(stored.size()), [shape.groups]);
        while width > 1 && rows * width * 4 > MAX_SHARED {
            width /= 2;
        }
        let most = MAX_COLUMNS.min(MAX_SHARED / (rows * width * 4));
        if most == 0 {
            return Err(format!("its kernels of {} taps are more than a block holds", rows - 1));
        }
        let packs = shape.groups / width;
        let channel_tiles = packs.div_ceil(most).max(1);
        // As even as can be: 36 packs are 2 × 18, not 32 and 4.
        let columns = packs.div_ceil(channel_tiles).max(1);
        Ok(Tiles { width, pixels: pixels(shape, width), columns, channel_tiles })
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

    fn shape(channels: usize, kernel: usize, stride: usize) -> ConvShape {
        ConvShape {
            input: [28; 2],
            output: [28 / stride; 2],
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
    fn tiles_fit_registers_and_shared_memory() {
        let tiles = |channels, kernel, stride, dtype| {
            let Tiles { width, pixels, columns, channel_tiles } =
                Tiles::of(&shape(channels, kernel, stride), dtype).unwrap();
            (width, pixels, columns, channel_tiles)
        };
        assert_eq!(tiles(32, 3, 1, DType::BF16), (8, 4, 4, 1));
        assert_eq!(tiles(288, 3, 2, DType::BF16), (8, 2, 18, 2));
        assert_eq!(tiles(1152, 5, 1, DType::F32), (4, 4, 32, 9));
        assert_eq!(tiles(35, 3, 1, DType::F16), (1, 4, 18, 2));
        assert_eq!(tiles(8, 9, 1, DType::BF16), (8, 1, 1, 1));
    }

    #[test]
    fn a_kernel_beyond_shared_memory_is_refused() {
        assert!(Tiles::of(&shape(8, 200, 1), DType::F32).is_err());
    }
}
