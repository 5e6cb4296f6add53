//! The kernels that compute a product alike, each with its tile, the one to take first.
//!
//! ```text
//!   fp32           streamed ─ and, with few rows, all of k in a block
//!   matrix unit    few rows │ windows, of held weights and of streamed ones, then gathered │ stems │ gathered
//! ```
//! What stands between two bars sums in an order of its own, and the step's shape decides for it. Within, a tile changes no bit.

use super::few::{FewFloatTile, FewTile};
use super::float::FloatTile;
use super::held::HeldTile;
use super::sizes::{Sizes, row_tiles};
use super::stem::StemTile;
use super::tensor::{self, TensorTile};
use super::walk::WalkTile;
use super::window::{self, WindowTile};
use super::{Loader, Product, instruction};
use crate::cuda::call::KernelSpec;
use crate::cuda::site::Site;
use tessera_core::{DType, Precision};
use tessera_planner::pack::BLOCK_ROW_BYTES;
use tessera_planner::plan::Operand;

/// A kernel and its tile.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) spec: KernelSpec,
    pub(super) loader: Loader,
    /// Outputs and rows of a tile.
    pub(super) outputs: usize,
    pub(super) rows: usize,
    /// k of a stage.
    pub(super) depth: usize,
    pub(super) threads: usize,
    pub(super) shared_bytes: usize,
    /// Of rows, in the worst launch.
    pub(super) tiles: usize,
    /// Parts of k, each of a block of its own; the blocks of a tile are a cluster.
    pub(super) parts: usize,
    /// Blocks that stay and take tiles in turn, at most; `None` where each tile has a block.
    pub(super) resident: Option<usize>,
    /// Where lines of the image stay in shared memory.
    pub(super) image: OnImage,
}

/// How tiles lie on an image: what `product.cuh` calls by these names; each kernel says what it means by them.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnImage {
    pub(super) line: usize,
    pub(super) item_tiles: usize,
    pub(super) plane: usize,
    pub(super) turns: usize,
}

impl OnImage {
    const NONE: OnImage = OnImage { line: 1, item_tiles: 1, plane: 0, turns: 0 };
}

/// All that compute the product alike, to the last bit; the first is the one to take. There is one at least.
pub(super) fn candidates(site: &Site<'_>, product: &Product<'_>) -> Vec<Chosen> {
    let sizes = Sizes {
        rows: product.rows(),
        outputs: product.shape.out_per_group,
        groups: product.shape.groups,
        k: product.k(),
        room: site.capacity,
        multiprocessors: site.multiprocessors,
    };
    if site.precision() == Precision::Fp32 {
        strict(site, product, &sizes)
    } else {
        on_matrix_unit(site, product, &sizes)
    }
}

fn strict(site: &Site<'_>, product: &Product<'_>, sizes: &Sizes) -> Vec<Chosen> {
    let few = FewFloatTile::holding(sizes).filter(|_| product.in_chunks(site)).map(|tile| Chosen {
        spec: site.spec("product_few_float.cu"),
        loader: Loader::Rows,
        outputs: FewFloatTile::OUTPUTS,
        rows: tile.rows,
        depth: sizes.k,
        threads: FewFloatTile::THREADS,
        shared_bytes: tile.shared_bytes(sizes.k),
        tiles: row_tiles(sizes.room, sizes.rows, tile.rows),
        parts: 1,
        resident: None,
        image: OnImage::NONE,
    });
    let loader = product.loader(site);
    let chosen = |tile: FloatTile| Chosen {
        loader,
        spec: site
            .spec("product_float.cu")
            .define("OUTPUTS", tile.of_thread[0])
            .define("ROWS", tile.of_thread[1])
            .define("DEPTH", tile.depth)
            .define("STAGES", tile.stages)
            .define("MIN_BLOCKS", tile.blocks)
            .define("LONG", tile.runs as u32)
            .define("BY_K", u32::from(tile.by_k))
            .define("PARTS", tile.parts),
        outputs: tile.outputs,
        rows: tile.rows,
        depth: tile.depth,
        threads: tile.threads(),
        shared_bytes: tile.shared_bytes,
        tiles: row_tiles(sizes.room, sizes.rows, tile.rows),
        parts: tile.parts,
        resident: None,
        image: OnImage::NONE,
    };
    let in_chunks = matches!(loader, Loader::Rows | Loader::Taps);
    let streamed = FloatTile::best_first(sizes, in_chunks).into_iter().map(chosen);
    if FewFloatTile::is_best(sizes) {
        few.into_iter().chain(streamed).collect()
    } else {
        streamed.chain(few).collect()
    }
}

fn on_matrix_unit(site: &Site<'_>, product: &Product<'_>, sizes: &Sizes) -> Vec<Chosen> {
    let precision = site.precision();
    let size = precision.stored(DType::F32).size();
    let loader = product.loader(site);
    let depth = BLOCK_ROW_BYTES / size;
    let steps = sizes.k.div_ceil(depth);
    let few = FewTile::of(sizes.rows, steps).filter(|_| product.in_chunks(site));
    if let Some(tile) = few {
        return vec![Chosen {
            spec: site.spec("product_few.cu").define("SPLIT", tile.split),
            loader: Loader::Rows,
            outputs: tile.outputs(),
            rows: FewTile::ROWS,
            depth,
            threads: FewTile::THREADS,
            shared_bytes: 0,
            tiles: row_tiles(sizes.room, sizes.rows, FewTile::ROWS),
            parts: 1,
            resident: None,
            image: OnImage::NONE,
        }];
    }
    let tensor = |tile: TensorTile| {
        let mut spec = site
            .spec("product_tensor.cu")
            .define("STEPS", tile.ring.steps)
            .define("STAGES", tile.ring.stages)
            .define("LAG", tile.ring.lag)
            .define("AHEAD", tile.ring.ahead)
            .define("PARTS", tile.cut.blocks)
            .define("TURNS", tile.cut.turns)
            .define("MIN_BLOCKS", tile.blocks);
        spec.generated = instruction::multiply(precision, tile.rows);
        Chosen {
            spec,
            loader,
            outputs: tile.outputs,
            rows: tile.rows,
            depth,
            threads: tile.threads(),
            shared_bytes: tile.shared_bytes(),
            tiles: row_tiles(sizes.room, sizes.rows, tile.rows),
            parts: tile.cut.blocks,
            resident: None,
            image: OnImage::NONE,
        }
    };
    let image = product.linear.is_none();
    let parts = tensor::parts(sizes, steps);
    let whole_rows = loader == Loader::Rows;
    // Whether blocks that walk can compute it: they are fed in chunks, and finish sums where they are.
    let walks =
        matches!(loader, Loader::Rows | Loader::Taps) && product.epilogue.residual.is_none() && parts == 1;
    let tensor_tiles = || {
        let mut tiles = TensorTile::best_first(sizes, steps, parts, whole_rows).into_iter();
        let best = tiles.next();
        let beside = best.filter(|_| walks).map(|best| WalkTile::beside(&best, sizes, steps));
        let walked =
            beside.unwrap_or_default().into_iter().map(|tile| walked(site, sizes, loader, depth, tile));
        let mut likely: Vec<Chosen> = best.map(tensor).into_iter().chain(walked).collect();
        if best.is_some_and(|best| WalkTile::is_best(&best, steps)) && likely.len() > 1 {
            likely.swap(0, 1);
        }
        likely.into_iter().chain(tiles.map(tensor)).collect::<Vec<Chosen>>()
    };
    if image && loader == Loader::Taps && parts == 1 {
        let windows = windows(site, product, sizes, loader, depth);
        if !windows.is_empty() {
            return windows.into_iter().chain(tensor_tiles()).collect();
        }
    }
    let dense = image && site.stored(product.x) == precision.stored(DType::F32);
    let residual = product.epilogue.residual.is_some();
    let stems = StemTile::best_first(sizes, &product.shape, size, residual);
    if dense && !stems.is_empty() {
        let stem = |tile| stemmed(site, product, sizes, loader, depth, tile);
        return stems.into_iter().map(stem).collect();
    }
    tensor_tiles()
}

fn walked(site: &Site<'_>, sizes: &Sizes, loader: Loader, depth: usize, tile: WalkTile) -> Chosen {
    let mut spec = site.spec("product_walk.cu").define("STEPS", tile.steps).define("STAGES", tile.stages);
    spec.generated = instruction::multiply(site.precision(), tile.rows);
    Chosen {
        spec,
        loader,
        outputs: tile.outputs,
        rows: tile.rows,
        depth,
        threads: tile.threads(),
        shared_bytes: tile.shared_bytes(),
        tiles: row_tiles(sizes.room, sizes.rows, tile.rows),
        parts: 1,
        resident: Some(site.multiprocessors as usize),
        image: OnImage::NONE,
    }
}

/// The kernels of windows: those that hold their weights first, or behind the best of those that stream them.
fn windows(
    site: &Site<'_>,
    product: &Product<'_>,
    sizes: &Sizes,
    loader: Loader,
    depth: usize,
) -> Vec<Chosen> {
    let (shape, size) = (&product.shape, site.precision().stored(DType::F32).size());
    let streamed = WindowTile::best_first(sizes, shape, size);
    let residual = product.epilogue.residual;
    let of_halves = residual.is_none_or(|x| matches!(x, Operand::Buffer(_)) && site.stored(x).size() == size);
    let held = if of_halves { HeldTile::best_first(sizes, shape, size) } else { Vec::new() };
    let first = streamed.is_empty() || held.first().is_some_and(|tile| tile.is_best(sizes));
    let mut all: Vec<Chosen> =
        streamed.into_iter().map(|tile| windowed(site, product, loader, depth, tile)).collect();
    let at = if first { 0 } else { 1 };
    all.splice(at..at, held.into_iter().map(|tile| holding(site, product, loader, depth, tile)));
    all
}

fn holding(site: &Site<'_>, product: &Product<'_>, loader: Loader, depth: usize, tile: HeldTile) -> Chosen {
    let mut spec = site.spec("product_held.cu");
    spec.generated = instruction::multiply(site.precision(), tile.columns);
    let HeldTile { columns, turns, item_blocks, plane, .. } = tile;
    Chosen {
        spec,
        loader,
        outputs: HeldTile::OUTPUTS,
        rows: columns,
        depth,
        threads: HeldTile::THREADS,
        shared_bytes: tile.shared_bytes(),
        tiles: site.capacity.items as usize * item_blocks,
        parts: 1,
        resident: None,
        image: OnImage { line: window::line(&product.shape), item_tiles: item_blocks, plane, turns },
    }
}

fn windowed(
    site: &Site<'_>,
    product: &Product<'_>,
    loader: Loader,
    depth: usize,
    tile: WindowTile,
) -> Chosen {
    let mut spec = site
        .spec("product_window.cu")
        .define("ACROSS", tile.across)
        .define("STAGES", tile.stages)
        .define("MIN_BLOCKS", tile.blocks);
    spec.generated = instruction::multiply(site.precision(), tile.columns);
    Chosen {
        spec,
        loader,
        outputs: tile.outputs,
        rows: tile.positions(),
        depth,
        threads: tile.threads(),
        shared_bytes: tile.shared_bytes(),
        tiles: site.capacity.items as usize * tile.item_tiles,
        parts: 1,
        resident: None,
        image: OnImage {
            line: window::line(&product.shape),
            item_tiles: tile.item_tiles,
            plane: tile.plane,
            turns: 0,
        },
    }
}

fn stemmed(
    site: &Site<'_>,
    product: &Product<'_>,
    sizes: &Sizes,
    loader: Loader,
    depth: usize,
    tile: StemTile,
) -> Chosen {
    let mut spec = site
        .spec("product_stem.cu")
        .define("CHANNELS", product.shape.in_per_group)
        .define("KERNEL_HEIGHT", product.shape.kernel[0])
        .define("KERNEL_WIDTH", product.shape.kernel[1])
        .define("MIN_BLOCKS", tile.blocks);
    spec.generated = instruction::multiply_held(site.precision(), tile.columns);
    Chosen {
        spec,
        loader,
        outputs: StemTile::OUTPUTS,
        rows: tile.columns,
        depth,
        threads: StemTile::THREADS,
        shared_bytes: tile.shared_bytes(&product.shape),
        tiles: sizes.room.items as usize * tile.item_tiles,
        parts: 1,
        resident: None,
        image: OnImage { line: tile.line_tiles, item_tiles: tile.item_tiles, plane: tile.strip, turns: 0 },
    }
}
