//! The kernels that compute a product alike, each with its tile, the one to take first.
//!
//! ```text
//!   fp32           stems ─ streamed, also by warps of their own ─ and, with few rows, all of k in a block
//!   matrix unit    few rows │ windows, of held weights, in panes and one by one, then gathered │ stems │ held inputs, gathered, walked
//! ```
//! What stands between two bars sums in an order of its own, and the step's shape decides for it. Within, a tile changes no bit.

use super::expand::{ExpandTile, Places};
use super::fed::FedTile;
use super::few::{FewFloatTile, FewTile};
use super::float::{Feeding, FloatTile};
use super::held::HeldTile;
use super::panes::PaneTile;
use super::sizes::{Sizes, row_tiles};
use super::stem::StemTile;
use super::stem_float::StemFloatTile;
use super::tensor::{self, TensorTile};
use super::walk::WalkTile;
use super::window::{self, WindowTile};
use super::{Loader, Product, instruction};
use crate::cuda::call::KernelSpec;
use crate::cuda::site::Site;
use tessera_core::{DType, Precision};
use tessera_planner::pack::BLOCK_ROW_BYTES;
use tessera_planner::plan::Operand;

/// Of the kernels that keep their inputs, those that are told of: what wider and narrower tiles move is known well.
const EXPANDING: usize = 3;

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
    /// Blocks that stay, each with several tiles or a share of all, at most; `None` where each tile has a block.
    pub(super) resident: Option<usize>,
    /// Whether blocks hand sums on to each other, through the workspace.
    pub(super) hands: bool,
    /// What only some kernels are told of their tiles.
    pub(super) arranged: Arranged,
}

/// How tiles are arranged beyond their rows and outputs: on an image whose lines stay in shared memory, or over blocks that share rows. `product.cuh` calls
/// it by these names; each kernel says what it means by them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arranged {
    pub(super) line: usize,
    pub(super) item_tiles: usize,
    pub(super) plane: usize,
    pub(super) turns: usize,
}

impl Arranged {
    const PLAINLY: Arranged = Arranged { line: 1, item_tiles: 1, plane: 0, turns: 0 };

    /// Over so many blocks that share a tile of rows, each of which has `turns` tiles of outputs there.
    fn over_sharers(sharers: usize, turns: usize) -> Arranged {
        Arranged { item_tiles: sharers, turns, ..Arranged::PLAINLY }
    }
}

/// All that compute the product alike, to the last bit; the first is the one to take. There is one at least.
pub(super) fn candidates(site: &Site<'_>, product: &Product<'_>) -> Vec<Chosen> {
    let sizes = product.sizes(site.capacity, site.multiprocessors);
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
        hands: false,
        arranged: Arranged::PLAINLY,
    });
    let loader = product.loader(site);
    let summing = |tile: FloatTile| Chosen {
        loader,
        spec: site
            .spec("product_float.cu")
            .define("BY_K", u32::from(tile.feeding == Feeding::Turned))
            .define("PARTS", tile.parts)
            .define("OUTPUTS", tile.of_thread[0])
            .define("ROWS", tile.of_thread[1])
            .define("DEPTH", tile.depth)
            .define("STAGES", tile.stages)
            .define("MIN_BLOCKS", tile.blocks)
            .define("LONG", tile.runs as u32),
        outputs: tile.outputs,
        rows: tile.rows,
        depth: tile.depth,
        threads: tile.threads(),
        shared_bytes: tile.shared_bytes,
        tiles: row_tiles(sizes.room, sizes.rows, tile.rows),
        parts: tile.parts,
        resident: None,
        hands: false,
        arranged: Arranged::PLAINLY,
    };
    let fed = |tile: FedTile| Chosen {
        loader,
        spec: site
            .spec("product_fed.cu")
            .define("FEEDERS", FedTile::FEEDERS)
            .define("OUTPUTS", FedTile::OUTPUTS_OF_THREAD)
            .define("ROWS", tile.of_thread)
            .define("DEPTH", FedTile::DEPTH)
            .define("STAGES", tile.stages())
            .define("LONG", tile.runs as u32),
        outputs: tile.outputs,
        rows: tile.rows,
        depth: FedTile::DEPTH,
        threads: tile.threads(),
        shared_bytes: tile.shared_bytes(),
        tiles: row_tiles(sizes.room, sizes.rows, tile.rows),
        parts: 1,
        resident: Some(sizes.multiprocessors as usize),
        hands: tile.hands(),
        arranged: Arranged::PLAINLY,
    };
    let mut streamed: Vec<(f64, Chosen)> = FloatTile::all(sizes, loader)
        .map(|tile| (tile.takes(sizes), summing(tile.apart(sizes))))
        .chain(FedTile::all(sizes, loader, product.taps()).map(|tile| (tile.takes(sizes), fed(tile))))
        .collect();
    streamed.sort_by(|a, b| a.0.total_cmp(&b.0));
    let streamed = streamed.into_iter().map(|(_, chosen)| chosen);
    let stems = strict_stems(site, product, sizes);
    if product.planes.is_some() {
        return stems;
    }
    if FewFloatTile::is_best(sizes) {
        few.into_iter().chain(streamed).collect()
    } else {
        stems.into_iter().chain(streamed).chain(few).collect()
    }
}

/// The kernels that keep lines of a stem's image, which alone read it in planes; none where it is no stem.
fn strict_stems(site: &Site<'_>, product: &Product<'_>, sizes: &Sizes) -> Vec<Chosen> {
    let shape = &product.shape;
    let floats = product.planes.is_some() || site.stored(product.x) == DType::F32;
    if product.linear.is_some() || !floats {
        return Vec::new();
    }
    let chosen = |tile: StemFloatTile| {
        let spec = site
            .spec("product_stem_float.cu")
            .define("OUTPUTS", StemFloatTile::OF_THREAD)
            .define("ROWS", tile.rows_of_thread())
            .define("MIN_BLOCKS", tile.blocks)
            .define("CHANNELS", shape.in_per_group)
            .define("KERNEL_HEIGHT", shape.kernel[0])
            .define("KERNEL_WIDTH", shape.kernel[1])
            .define("PLANES", u32::from(product.planes.is_some()));
        let StemFloatTile { line_tiles: line, strip: plane, item_tiles, columns: turns, .. } = tile;
        Chosen {
            spec,
            loader: Loader::Rows,
            outputs: tile.outputs,
            rows: tile.columns,
            depth: sizes.k,
            threads: tile.threads(),
            shared_bytes: tile.shared_bytes(shape),
            tiles: sizes.room.items as usize * item_tiles,
            parts: 1,
            resident: None,
            hands: false,
            arranged: Arranged { line, item_tiles, plane, turns },
        }
    };
    let residual = product.epilogue.residual.is_some();
    StemFloatTile::best_first(sizes, shape, &product.windows, residual).into_iter().map(chosen).collect()
}

fn on_matrix_unit(site: &Site<'_>, product: &Product<'_>, sizes: &Sizes) -> Vec<Chosen> {
    let precision = site.precision();
    let real_bytes = precision.stored(DType::F32).size();
    let depth = BLOCK_ROW_BYTES / real_bytes;
    let unit = Unit { site, product, sizes, real_bytes, loader: product.loader(site), depth };
    let steps = sizes.k.div_ceil(depth);
    let few = FewTile::of(sizes.rows, steps).filter(|_| product.in_chunks(site));
    if let Some(tile) = few {
        return vec![unit.of_few_rows(tile)];
    }
    let image = product.linear.is_none();
    let parts = tensor::parts(sizes, steps);
    if image && unit.loader == Loader::Taps && parts == 1 {
        let windows = unit.windows();
        if !windows.is_empty() {
            return windows.into_iter().chain(unit.gathered(steps, parts)).collect();
        }
    }
    let dense = product.planes.is_some() || site.stored(product.x) == precision.stored(DType::F32);
    let residual = product.epilogue.residual.is_some();
    let stems = StemTile::best_first(sizes, &product.shape, &product.windows, precision, residual);
    if image && dense && !stems.is_empty() {
        return stems.into_iter().map(|tile| unit.stem(tile)).collect();
    }
    unit.gathered(steps, parts)
}

/// A product on the matrix unit, whose kernels all take k in stages of one depth.
struct Unit<'a> {
    site: &'a Site<'a>,
    product: &'a Product<'a>,
    sizes: &'a Sizes,
    /// Of an element, as the unit reads it.
    real_bytes: usize,
    loader: Loader,
    depth: usize,
}

/// What a block is, and what it takes at once.
#[derive(Clone, Copy, Debug)]
struct Block {
    outputs: usize,
    rows: usize,
    threads: usize,
    shared_bytes: usize,
}

impl Unit<'_> {
    /// A kernel with as many blocks as there are tiles, each of which sums all of k in one go.
    fn chosen(&self, spec: KernelSpec, block: Block, tiles: usize) -> Chosen {
        let Block { outputs, rows, threads, shared_bytes } = block;
        Chosen {
            spec,
            loader: self.loader,
            outputs,
            rows,
            depth: self.depth,
            threads,
            shared_bytes,
            tiles,
            parts: 1,
            resident: None,
            hands: false,
            arranged: Arranged::PLAINLY,
        }
    }

    /// A kernel whose tiles are rows of a lane, wherever in its images they are.
    fn of_rows(&self, spec: KernelSpec, block: Block) -> Chosen {
        let tiles = row_tiles(self.sizes.room, self.sizes.rows, block.rows);
        self.chosen(spec, block, tiles)
    }

    /// A kernel whose tiles are so many pieces of each item's image.
    fn of_images(&self, spec: KernelSpec, block: Block, arranged: Arranged) -> Chosen {
        let tiles = self.sizes.room.items as usize * arranged.item_tiles;
        Chosen { arranged, ..self.chosen(spec, block, tiles) }
    }

    fn of_few_rows(&self, tile: FewTile) -> Chosen {
        let spec = self.site.spec("product_few.cu").define("SPLIT", tile.split);
        let block = Block {
            outputs: tile.outputs(),
            rows: FewTile::ROWS,
            threads: FewTile::THREADS,
            shared_bytes: 0,
        };
        Chosen { loader: Loader::Rows, ..self.of_rows(spec, block) }
    }

    /// Whether a tile's residual, if there is one, can be staged as its outputs are: it is an item's own, and as large.
    fn stages_residual(&self) -> bool {
        let staged = |x| matches!(x, Operand::Buffer(_)) && self.site.stored(x).size() == self.real_bytes;
        self.product.epilogue.residual.is_none_or(staged)
    }

    /// Whether a window's outputs are staged as halves, and leave in chunks.
    fn stages_outputs(&self) -> bool {
        let chunks = (self.sizes.outputs * self.real_bytes).is_multiple_of(16);
        self.real_bytes == 2 && chunks && self.product.epilogue.residual.is_none()
    }

    /// The kernels that gather rows, for any product: blocks of one tile each, blocks that walk, and such as keep their inputs.
    fn gathered(&self, steps: usize, parts: usize) -> Vec<Chosen> {
        let whole_rows = self.loader == Loader::Rows;
        // Whether blocks that walk can compute it: they are fed in chunks, and finish sums where they are.
        let walks = matches!(self.loader, Loader::Rows | Loader::Taps)
            && self.product.epilogue.residual.is_none()
            && parts == 1;
        let mut tiles = TensorTile::best_first(self.sizes, steps, parts, whole_rows).into_iter();
        let best = tiles.next();
        let beside = best.filter(|_| walks).map(|best| WalkTile::beside(&best, self.sizes, steps));
        let walked = beside.unwrap_or_default().into_iter().map(|tile| self.walked(tile));
        let mut likely: Vec<Chosen> = best.map(|tile| self.tensor(tile)).into_iter().chain(walked).collect();
        if best.is_some_and(|best| WalkTile::is_best(&best, steps, self.real_bytes)) && likely.len() > 1 {
            likely.swap(0, 1);
        }
        let expands = whole_rows && parts == 1 && self.real_bytes == 2 && self.stages_residual();
        let expanding = if expands { ExpandTile::best_first(self.sizes, steps) } else { Vec::new() };
        let at = usize::from(!expanding.first().is_some_and(|tile| tile.is_best(self.sizes)));
        likely.splice(at..at, expanding.into_iter().take(EXPANDING).map(|tile| self.expanded(tile)));
        likely.into_iter().chain(tiles.map(|tile| self.tensor(tile))).collect()
    }

    fn tensor(&self, tile: TensorTile) -> Chosen {
        let mut spec = self
            .site
            .spec("product_tensor.cu")
            .define("STEPS", tile.ring.steps)
            .define("STAGES", tile.ring.stages)
            .define("LAG", tile.ring.lag)
            .define("AHEAD", tile.ring.ahead)
            .define("PARTS", tile.cut.blocks)
            .define("TURNS", tile.cut.turns)
            .define("EARLY", u32::from(tile.begins_next(self.sizes)))
            .define("MIN_BLOCKS", tile.blocks);
        spec.generated = instruction::multiply(self.site.precision(), tile.rows);
        let (threads, shared_bytes) = (tile.threads(), tile.shared_bytes());
        let block = Block { outputs: tile.outputs, rows: tile.rows, threads, shared_bytes };
        Chosen { parts: tile.cut.blocks, ..self.of_rows(spec, block) }
    }

    fn walked(&self, tile: WalkTile) -> Chosen {
        let mut spec = self
            .site
            .spec("product_walk.cu")
            .define("STEPS", tile.steps)
            .define("STAGES", tile.stages)
            .define("EARLY", u32::from(tile.begins_next(self.sizes)));
        spec.generated = instruction::multiply(self.site.precision(), tile.rows);
        let (threads, shared_bytes) = (tile.threads(), tile.shared_bytes());
        let block = Block { outputs: tile.outputs, rows: tile.rows, threads, shared_bytes };
        Chosen { resident: Some(self.site.multiprocessors as usize), ..self.of_rows(spec, block) }
    }

    fn expanded(&self, tile: ExpandTile) -> Chosen {
        let Places { planes, stages, slots } = tile.places;
        let spec = self.site.spec("product_expand.cu").define("PLANES", planes);
        let mut spec = spec.define("STAGES", stages).define("SLOTS", slots);
        spec.generated = instruction::multiply(self.site.precision(), tile.rows);
        let (outputs, threads) = (ExpandTile::OUTPUTS, ExpandTile::THREADS);
        let block = Block { outputs, rows: tile.rows, threads, shared_bytes: tile.shared_bytes() };
        let arranged = Arranged::over_sharers(tile.sharers, tile.turns);
        let resident = Some(self.site.multiprocessors as usize);
        Chosen { resident, arranged, ..self.of_rows(spec, block) }
    }

    /// The kernels of windows: those that hold their weights first, or behind the best of those that stream them.
    fn windows(&self) -> Vec<Chosen> {
        let (sizes, shape, size) = (self.sizes, &self.product.shape, self.real_bytes);
        let streamed = WindowTile::best_first(sizes, shape, size).into_iter().map(|tile| self.window(tile));
        let held = if self.stages_residual() { HeldTile::best_first(sizes, shape, size) } else { Vec::new() };
        let panes = if self.stages_outputs() { PaneTile::best_first(sizes, shape, size) } else { Vec::new() };
        let held_first = held.first().is_some_and(|tile| tile.is_best(sizes));
        let panes_first = panes.first().is_some_and(|tile| tile.is_best(sizes));
        let held = held.into_iter().map(|tile| self.held(tile));
        let panes = panes.into_iter().map(|tile| self.panes(tile));
        let mut all: Vec<Chosen> = streamed.collect();
        let behind = |first: bool, all: &[Chosen]| usize::from(!first && !all.is_empty());
        let at = behind(panes_first, &all);
        all.splice(at..at, panes);
        let at = behind(held_first, &all);
        all.splice(at..at, held);
        all
    }

    fn held(&self, tile: HeldTile) -> Chosen {
        let mut spec = self.site.spec("product_held.cu");
        spec.generated = instruction::multiply(self.site.precision(), tile.columns);
        let (outputs, threads) = (HeldTile::OUTPUTS, HeldTile::THREADS);
        let block = Block { outputs, rows: tile.columns, threads, shared_bytes: tile.shared_bytes() };
        let HeldTile { turns, item_blocks, plane, .. } = tile;
        let line = window::line(&self.product.shape);
        self.of_images(spec, block, Arranged { line, item_tiles: item_blocks, plane, turns })
    }

    fn panes(&self, tile: PaneTile) -> Chosen {
        let spec = self.site.spec("product_panes.cu").define("PANES", tile.panes);
        let mut spec = spec.define("STAGES", tile.stages);
        spec.generated = instruction::multiply(self.site.precision(), tile.columns);
        let (outputs, threads) = (PaneTile::OUTPUTS, PaneTile::THREADS);
        let block = Block { outputs, rows: tile.columns, threads, shared_bytes: tile.shared_bytes() };
        let PaneTile { item_tiles, plane, .. } = tile;
        let line = window::line(&self.product.shape);
        let resident = Some(self.site.multiprocessors as usize);
        let arranged = Arranged { line, item_tiles, plane, turns: 0 };
        Chosen { resident, ..self.of_images(spec, block, arranged) }
    }

    fn window(&self, tile: WindowTile) -> Chosen {
        let mut spec = self
            .site
            .spec("product_window.cu")
            .define("ACROSS", tile.across)
            .define("STAGES", tile.stages)
            .define("MIN_BLOCKS", tile.blocks)
            .define("STAGED", u32::from(self.stages_outputs()));
        spec.generated = instruction::multiply(self.site.precision(), tile.columns);
        let (threads, shared_bytes) = (tile.threads(), tile.shared_bytes());
        let block = Block { outputs: tile.outputs, rows: tile.positions(), threads, shared_bytes };
        let WindowTile { item_tiles, plane, .. } = tile;
        let line = window::line(&self.product.shape);
        self.of_images(spec, block, Arranged { line, item_tiles, plane, turns: 0 })
    }

    fn stem(&self, tile: StemTile) -> Chosen {
        let (shape, windows) = (&self.product.shape, &self.product.windows);
        let spec = self
            .site
            .spec("product_stem.cu")
            .define("CHANNELS", shape.in_per_group)
            .define("KERNEL_HEIGHT", shape.kernel[0])
            .define("KERNEL_WIDTH", shape.kernel[1])
            .define("PLANES", u32::from(self.product.planes.is_some()))
            .define("MIN_BLOCKS", tile.blocks);
        let mut spec = windows.define(spec);
        spec.generated = instruction::multiply_held(self.site.precision(), tile.columns);
        let (outputs, threads) = (StemTile::OUTPUTS, StemTile::THREADS);
        let shared_bytes = tile.shared_bytes(shape, windows);
        let block = Block { outputs, rows: tile.columns, threads, shared_bytes };
        let StemTile { line_tiles: line, strip: plane, item_tiles, written: turns, .. } = tile;
        self.of_images(spec, block, Arranged { line, item_tiles, plane, turns })
    }
}
