//! Linear layers and convolutions: see `kernels/product.cuh`.
//!
//! ```text
//!   fp32 ─────────────┬─ few rows of few lanes ───────▶ product_few_float.cu  [`few`]
//!                     ├─ few channels, stride 2 ──────▶ product_stem_float.cu [`stem_float`]   lines of many columns; reads its image as it came
//!                     └─ everything else ─┬───────────▶ product_float.cu      [`float`]
//!                                         └───────────▶ product_fed.cu        [`fed`]       many rows, inputs in chunks
//!   tf32, bf16, fp16 ─┬─ rows of 8 at most ───────────▶ product_few.cu        [`few`]
//!                     ├─ few rows, long k ────────────▶ product_tensor.cu     [`tensor`]    k in two parts
//!                     ├─ several taps, stride 1 ─┬────▶ product_held.cu       [`held`]      bf16 and fp16, weights that fit on chip
//!                     │                          ├────▶ product_panes.cu      [`panes`]     bf16 and fp16, outputs in blocks of 128, no residual
//!                     │                          └────▶ product_window.cu     [`window`]
//!                     ├─ few channels, stride 2 ──────▶ product_stem.cu       [`stem`]      with the steps around it: [`super::joined`]
//!                     ├─ one tap, many rows ──────────▶ product_expand.cu     [`expand`]    bf16 and fp16, inputs that fit on chip
//!                     └─ everything else ─────────────▶ product_tensor.cu     [`tensor`]
//!                                                       or product_walk.cu        [`walk`]      blocks that stay; no residual, inputs in chunks
//! ```
//! A linear layer is a convolution of one tap whose image is a row, so one description serves both. A step's shape and precision decide whether
//! `product_few.cu` or the stem's kernel computes it, whose orders of sums are their own, and whether its k is summed in parts. Which of the others does,
//! with which tile, is a matter of time alone: of one precision, all sum the same products in the same order. [`chosen`] lists them, the one that its rules take first.

mod chosen;
mod expand;
mod fed;
mod few;
mod float;
mod held;
mod instruction;
mod panes;
mod sizes;
mod stem;
mod stem_float;
mod tensor;
mod walk;
mod window;

pub(super) use self::stem::{Windows, is_stem};

use self::chosen::{Arranged, Chosen, candidates};
use self::fed::FedTile;
use self::sizes::Sizes;
use super::activation::{activated, limits};
use super::joined::{joined, pooled};
use crate::Room;
use crate::cuda::PANEL_WIDTH;
use crate::cuda::abi::{LaunchParams, OperandParams};
use crate::cuda::call::{KernelCall, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_core::{DType, Precision};
use tessera_planner::Plan;
use tessera_planner::pack::{BLOCK_COLUMNS, WeightId};
use tessera_planner::plan::{BufferId, ConvShape, Epilogue, Operand, StepKind};

/// A division by a product: the twin of `Divisor` in `product.cuh`. Right for numerators below 2³¹.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
struct Divisor {
    value: u32,
    multiplier: u32,
    shift: u32,
}

impl Divisor {
    /// Errors when the divisor is zero, or 2³¹ and more.
    fn new(value: usize) -> Result<Divisor, String> {
        let small = u32::try_from(value).ok().filter(|value| (1..1 << 31).contains(value));
        let value = small.ok_or_else(|| format!("a side of {value} is not between 1 and 2³¹"))?;
        let shift = value.next_power_of_two().trailing_zeros();
        let multiplier = (1u64 << (31 + shift)).div_ceil(u64::from(value)) as u32;
        Ok(Divisor { value, multiplier, shift })
    }
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ProductParams {
    launch: LaunchParams,
    x: OperandParams,
    out: OperandParams,
    residual: OperandParams,
    weights: u64,
    bias: u64,
    x_offset: i64,
    x_row: i64,
    rows: Divisor,
    out_width: Divisor,
    m_tiles: Divisor,
    group_tiles: Divisor,
    in_per_group: Divisor,
    run: Divisor,
    k: u32,
    n: u32,
    groups: u32,
    blocks: u32,
    steps: u32,
    vector: u32,
    input: [u32; 2],
    kernel: [u32; 2],
    strides: [u32; 2],
    dilations: [u32; 2],
    before: [u32; 2],
    limits: [f32; 2],
    line: Divisor,
    item_tiles: Divisor,
    plane: u32,
    turns: u32,
    sums: [u32; 2],
    handed: u64,
    words: u64,
}
params!(ProductParams);

/// How rows of the input come into shared memory: the numbers of `-DLOADER`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Loader {
    /// All of a row's k lies in one piece.
    Rows = 0,
    /// The channels of a tap do.
    Taps = 1,
    /// None of the others.
    Elements = 2,
    /// All channels of a row of taps do, in odd lengths or at odd places.
    Runs = 3,
}

/// A step of either kind.
#[derive(Debug)]
struct Product<'a> {
    x: Operand,
    /// Elements of an item before the first row, and between rows; `None` for an image.
    linear: Option<(usize, isize)>,
    w: WeightId,
    shape: ConvShape,
    epilogue: &'a Epilogue,
    out: BufferId,
    /// The input that is read as it was staged, in planes of floats.
    planes: Option<usize>,
    /// How the sums' image becomes that of the outputs.
    windows: Windows,
}

impl Product<'_> {
    fn of(plan: &Plan, index: usize) -> Product<'_> {
        match &plan.steps[index].kind {
            StepKind::Gemm { x, w, rows, k, n, epilogue, out } => {
                let shape = ConvShape {
                    input: [1; 2],
                    output: [*rows, 1],
                    kernel: [1; 2],
                    strides: [1; 2],
                    dilations: [1; 2],
                    before: [0; 2],
                    after: [0; 2],
                    groups: 1,
                    in_per_group: *k,
                    out_per_group: *n,
                };
                let linear = Some((x.offset, x.strides[0]));
                let windows = Windows::alone(&shape);
                Product { x: x.operand, linear, w: *w, shape, epilogue, out: *out, planes: None, windows }
            }
            StepKind::Conv { x, w, shape, epilogue, out } => {
                let joined = joined(plan, index);
                let pool = joined.pool.map(|pool| pooled(plan, pool));
                let windows = pool.and_then(|(pool, _)| Windows::of(pool));
                Product {
                    x: *x,
                    linear: None,
                    w: *w,
                    shape: *shape,
                    epilogue,
                    out: pool.map_or(*out, |(_, out)| out),
                    planes: joined.planes.map(|planes| planes.input),
                    windows: windows.unwrap_or_else(|| Windows::alone(shape)),
                }
            }
            _ => unreachable!("called for its own kinds"),
        }
    }

    /// The inputs as kernels find them, and their type.
    fn inputs(&self, site: &Site<'_>) -> (OperandParams, DType) {
        match self.planes {
            Some(input) => (site.staged_input(input), DType::F32),
            None => (site.operand(self.x), site.stored(self.x)),
        }
    }

    fn rows(&self) -> usize {
        self.shape.output[0] * self.shape.output[1]
    }

    fn sizes(&self, room: Room, multiprocessors: u32) -> Sizes {
        Sizes {
            rows: self.rows(),
            outputs: self.shape.out_per_group,
            groups: self.shape.groups,
            k: self.k(),
            room,
            multiprocessors,
        }
    }

    fn taps(&self) -> usize {
        self.shape.kernel[0] * self.shape.kernel[1]
    }

    fn k(&self) -> usize {
        self.taps() * self.shape.in_per_group
    }

    /// Outputs of all groups.
    fn outputs(&self) -> usize {
        self.shape.groups * self.shape.out_per_group
    }

    /// Whether the rows of a linear layer are whole chunks of 16 bytes in a buffer. A matter of the plan alone: buffers begin at multiples of 64 bytes at
    /// any capacity.
    fn in_chunks(&self, site: &Site<'_>) -> bool {
        let real = site.precision().stored(DType::F32);
        let chunk = 16 / real.size();
        let Some((offset, stride)) = self.linear else { return false };
        matches!(self.x, Operand::Buffer(_))
            && site.stored(self.x) == real
            && site.operand(self.x).item_bytes.is_multiple_of(16)
            && self.k().is_multiple_of(chunk)
            && offset.is_multiple_of(chunk)
            && (self.rows() == 1 || stride.unsigned_abs().is_multiple_of(chunk))
    }

    fn loader(&self, site: &Site<'_>) -> Loader {
        let real = site.precision().stored(DType::F32);
        let chunk = 16 / real.size();
        let x = site.operand(self.x);
        // Chunks of a lane are numbered in 31 bits.
        let near = u64::from(site.capacity.items) * x.item_bytes / 16 < 1 << 31;
        let aligned = site.stored(self.x) == real
            && x.item_bytes.is_multiple_of(16)
            && near
            && x.base.is_multiple_of(16);
        let run = self.shape.kernel[1] * self.shape.in_per_group;
        let together = self.shape.groups == 1 && self.shape.dilations[1] == 1 && run >= chunk;
        let gathered = if site.stored(self.x) == real && together { Loader::Runs } else { Loader::Elements };
        if !aligned || !self.shape.in_per_group.is_multiple_of(chunk) {
            return gathered;
        }
        if let Some((offset, stride)) = self.linear {
            let rows = self.rows() == 1 || stride.unsigned_abs().is_multiple_of(chunk);
            return if rows && offset.is_multiple_of(chunk) { Loader::Rows } else { gathered };
        }
        let inside = |axis: usize| {
            (self.shape.output[axis] - 1) * self.shape.strides[axis] < self.shape.input[axis]
                && self.shape.kernel[axis] == 1
                && self.shape.before[axis] == 0
        };
        if inside(0) && inside(1) { Loader::Rows } else { Loader::Taps }
    }
}

/// Bytes that any kernel of the plan's product `index` needs beside the buffers.
pub(super) fn workspace_bytes(plan: &Plan, index: usize, capacity: Room, multiprocessors: u32) -> u64 {
    if plan.key.precision != Precision::Fp32 {
        return 0;
    }
    let product = Product::of(plan, index);
    FedTile::workspace_bytes(&product.sizes(capacity, multiprocessors))
}

pub(super) fn calls(site: &Site<'_>, index: usize) -> Result<Vec<KernelCall>, String> {
    let product = Product::of(site.plan, index);
    let chosen = candidates(site, &product).into_iter().next().expect("there is one at least");
    Ok(vec![call(site, &product, chosen)?])
}

/// Of all that compute the step alike, to the last bit, the one kernel that each takes: first that of [`calls`], the likelier before the others.
pub(super) fn alike(site: &Site<'_>, index: usize) -> Result<Vec<KernelCall>, String> {
    let product = Product::of(site.plan, index);
    let mut all: Vec<KernelCall> = Vec::new();
    for chosen in candidates(site, &product) {
        let call = call(site, &product, chosen)?;
        if !all.contains(&call) {
            all.push(call);
        }
    }
    Ok(all)
}

fn call(site: &Site<'_>, product: &Product<'_>, chosen: Chosen) -> Result<KernelCall, String> {
    let (shape, epilogue) = (&product.shape, product.epilogue);
    let real = site.precision().stored(DType::F32);

    // Kernels number a lane's rows and the blocks in 31 bits, an item's bytes in 32.
    let room = site.capacity;
    let tiles = chosen.tiles;
    let group_tiles = shape.out_per_group.div_ceil(chosen.outputs);
    let m_tiles = shape.groups * group_tiles;
    let blocks = tiles * m_tiles * chosen.parts;
    let launched = chosen.resident.map_or(blocks, |most| blocks.min(most));
    let numbered = [tiles * chosen.rows, blocks, product.outputs(), product.k() + chosen.depth];
    let sides = [shape.input[0], shape.input[1], shape.groups, shape.in_per_group, size_of::<f32>()];
    let bytes = sides.iter().try_fold(1usize, |all, &side| all.checked_mul(side));
    if numbered.iter().any(|&count| count >= 1 << 31) || bytes.is_none_or(|bytes| bytes >= 1 << 32) {
        return Err(format!(
            "it multiplies {} rows for {} items, more than kernels can number",
            product.rows(),
            room.items
        ));
    }

    let residual = epilogue.residual;
    let residual_kind = match residual {
        None => 0,
        Some(Operand::Buffer(_)) => 1,
        Some(Operand::Constant(_) | Operand::Weight(_)) => 2,
    };
    let residual_params = residual
        .map_or(OperandParams { base: 0, item_bytes: 0, kind: 0, unused: 0 }, |operand| {
            site.operand(operand)
        });
    let vector =
        shape.out_per_group.is_multiple_of(16 / real.size()) && residual_params.base.is_multiple_of(16);
    let [x_offset, x_row] = product.linear.map_or([0, 0], |(offset, row)| [offset as i64, row as i64]);
    let pair = |pair: [usize; 2]| pair.map(|side| side as u32);
    let Arranged { line, item_tiles, plane, turns } = chosen.arranged;
    let block = if site.precision() == Precision::Fp32 { PANEL_WIDTH } else { BLOCK_COLUMNS };
    let (x, x_type) = product.inputs(site);
    let [height, width] = product.windows.output;
    let offset_of = |weight: WeightId| site.operand(Operand::Weight(weight)).base;

    let params = ProductParams {
        launch: site.launch,
        x,
        out: site.buffer(product.out),
        residual: residual_params,
        weights: offset_of(product.w),
        bias: epilogue.bias.map_or(0, offset_of),
        x_offset,
        x_row,
        rows: Divisor::new(height * width)?,
        out_width: Divisor::new(width)?,
        m_tiles: Divisor::new(m_tiles)?,
        group_tiles: Divisor::new(group_tiles)?,
        in_per_group: Divisor::new(shape.in_per_group)?,
        run: Divisor::new(shape.kernel[1] * shape.in_per_group)?,
        k: product.k() as u32,
        n: shape.out_per_group as u32,
        groups: shape.groups as u32,
        blocks: shape.out_per_group.div_ceil(block) as u32,
        steps: product.k().div_ceil(chosen.depth) as u32,
        vector: u32::from(vector),
        input: pair(shape.input),
        kernel: pair(shape.kernel),
        strides: pair(shape.strides),
        dilations: pair(shape.dilations),
        before: pair(shape.before),
        limits: limits(epilogue.activation),
        line: Divisor::new(line)?,
        item_tiles: Divisor::new(item_tiles)?,
        plane: plane as u32,
        turns: turns as u32,
        sums: pair(shape.output),
        handed: if chosen.hands { site.workspace } else { 0 },
        words: if chosen.hands { site.words } else { 0 },
    };
    let spec = chosen
        .spec
        .define("BM", chosen.outputs)
        .define("BN", chosen.rows)
        .define("LINEAR", u32::from(product.linear.is_some()))
        .define("LOADER", chosen.loader as u32)
        .define("X_TYPE", type_number(x_type))
        .define("BIAS", u32::from(epilogue.bias.is_some()))
        .define("RESIDUAL", residual_kind)
        .define("RESIDUAL_TYPE", type_number(residual.map_or(real, |operand| site.stored(operand))));
    let spec = activated(spec, epilogue.activation);
    let call = KernelCall::new(spec, &params, [launched as u32, 1, 1], chosen.threads as u32);
    Ok(call.shared(chosen.shared_bytes).clusters_of(chosen.parts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Room;
    use crate::conformance::cases;
    use crate::cuda::call::KernelSpec;
    use crate::cuda::target;
    use std::collections::BTreeSet;

    /// The call of a case.
    fn call(name: &str, precision: Precision) -> KernelCall {
        let case = cases().into_iter().find(|case| case.name == name).expect(name);
        let (plan, layout) = (case.plan_in(precision), case.layout(target(precision)));
        let site = Site::nowhere(&plan, &layout, Room { lanes: 16, items: 64 }, &[]);
        calls(&site, 0).expect(name).remove(0)
    }

    fn defined(spec: &KernelSpec, name: &str) -> String {
        spec.defines.iter().find(|(define, _)| *define == name).expect("one of its defines").1.clone()
    }

    /// The kernel of a case, and how it loads.
    fn kernel(name: &str, precision: Precision) -> (&'static str, String) {
        let spec = call(name, precision).spec;
        (spec.source, defined(&spec, "LOADER"))
    }

    #[test]
    fn few_rows_of_a_long_k_are_summed_by_clusters_that_load_in_every_way() {
        let conv = |channels: &str, rest: &str| format!("conv {channels} 3×3 {rest}");
        for (name, outputs, loader) in [
            ("gemm 9×2056×20 with residual".to_owned(), "64", Loader::Rows),
            ("gemm 1×2001×66 with residual".to_owned(), "64", Loader::Runs),
            ("gemm 9×1990×330".to_owned(), "128", Loader::Runs),
            (conv("256→24", "stride 2 dilation 1 groups 1"), "64", Loader::Taps),
            (conv("256→12", "stride 1 dilation 1 groups 1"), "64", Loader::Taps),
            (conv("512→20", "stride 1 dilation 1 groups 2"), "64", Loader::Taps),
            (conv("450→6", "stride 1 dilation 1 groups 2"), "64", Loader::Elements),
        ] {
            let call = call(&name, Precision::Bf16);
            assert_eq!((call.spec.source, call.cluster), ("product_tensor.cu", 2), "{name}");
            let chosen = [defined(&call.spec, "BM"), defined(&call.spec, "LOADER")];
            assert_eq!(chosen, [outputs.to_owned(), (loader as u32).to_string()], "{name}");
        }
        let short = call("gemm 49×72×24", Precision::Bf16);
        assert_eq!((short.spec.source, short.cluster), ("product_tensor.cu", 1));
    }

    /// In which order a kernel sums: which family of kernels it is of, and how k is cut.
    fn order(k: usize, call: &KernelCall) -> String {
        let number = |name: &str| defined(&call.spec, name).parse::<usize>().unwrap();
        match call.spec.source {
            // Runs of 256, each from zero, added in order: by blocks of a cluster, or by one block after the other.
            "product_few_float.cu" | "product_stem_float.cu" => "runs".to_owned(),
            "product_float.cu" | "product_fed.cu" => {
                let runs = k.div_ceil(256).max(1);
                let parts = if call.spec.source == "product_fed.cu" { 1 } else { number("PARTS") };
                let long = number("LONG");
                assert!(parts == runs || (parts == 1 && long > 0), "{runs} runs: {}", call.spec);
                "runs".to_owned()
            }
            "product_tensor.cu" => format!("steps in {} parts", number("PARTS") * number("TURNS")),
            "product_window.cu" | "product_panes.cu" | "product_held.cu" | "product_walk.cu"
            | "product_expand.cu" => "steps in 1 parts".to_owned(),
            "product_few.cu" => format!("few, shared by {} warps", number("SPLIT")),
            other => other.to_owned(),
        }
    }

    #[test]
    fn all_kernels_of_a_product_sum_in_one_order_at_every_number_of_lanes() {
        let rooms = [(1, 1), (2, 2), (4, 32), (16, 64), (32, 32), (128, 128), (1024, 1024)];
        let (mut products, mut kernels) = (0, 0);
        for precision in Precision::ALL {
            for case in cases() {
                let (plan, layout) = (case.plan_in(precision), case.layout(target(precision)));
                if !matches!(plan.steps[0].kind, StepKind::Gemm { .. } | StepKind::Conv { .. }) {
                    continue;
                }
                let k = Product::of(&plan, 0).k();
                let constants = vec![0; plan.constants.len()];
                let mut orders = BTreeSet::new();
                for (lanes, items) in rooms {
                    let site = Site::nowhere(&plan, &layout, Room { lanes, items }, &constants);
                    let alike = alike(&site, 0).unwrap();
                    assert_eq!(alike[..1], calls(&site, 0).unwrap(), "{}: the rule's is first", case.name);
                    kernels += alike.len();
                    orders.extend(alike.iter().map(|call| order(k, call)));
                }
                products += 1;
                assert_eq!(orders.len(), 1, "{} in {precision}: {orders:?}", case.name);
            }
        }
        assert!(products > 100 && kernels > 20 * products, "{kernels} kernels of {products} products");
    }

    #[test]
    fn inputs_are_copied_in_the_largest_pieces_that_lie_together() {
        let conv = |channels: &str, taps: &str| format!("conv {channels} {taps} dilation 1 groups 1");
        let tensor = |loader: Loader| ("product_tensor.cu", (loader as u32).to_string());
        for precision in [Precision::Bf16, Precision::Fp16] {
            let of = |name: &str| kernel(name, precision);
            assert_eq!(of("gemm 17×64×128"), tensor(Loader::Rows));
            assert_eq!(of("gemm 5×300×33"), tensor(Loader::Runs), "300 halves are no chunks");
            assert_eq!(of("gemm of rows 56 apart from 8"), ("product_few.cu", "0".to_owned()), "few rows");
            assert_eq!(of("gemm 9×264×20"), tensor(Loader::Rows));
            assert_eq!(of("gemm of rows 45 apart from 3"), tensor(Loader::Runs));
            assert_eq!(of(&conv("16→16", "1×1 stride 2")), tensor(Loader::Rows));
            assert_eq!(of(&conv("8→40", "3×3 stride 2")), tensor(Loader::Taps));
            assert_eq!(of(&conv("3→8", "7×7 stride 2")).0, "product_stem.cu");
            assert_eq!(of("conv 6→8 3×3 stride 1 dilation 2 groups 2"), tensor(Loader::Elements));
            assert_eq!(of(&conv("64→3", "3×3 stride 1")).0, "product_window.cu");
            assert_eq!(of("gemm 300×72×248").0, "product_expand.cu");
            assert_eq!(of("gemm 300×72×248 with residual").0, "product_expand.cu");
        }
        assert_eq!(kernel(&conv("64→3", "3×3 stride 1"), Precision::Fp32).0, "product_float.cu");
        assert_eq!(kernel("gemm 1×64×10", Precision::Fp32).0, "product_few_float.cu");
        assert_eq!(kernel("gemm 7×8×600", Precision::Fp32).0, "product_float.cu", "28 rows of a lane");
    }

    #[test]
    fn dividing_by_a_product_is_dividing() {
        for value in (1..200).chain([784, 3136, 12544, 65535, 65536, 65537, 1 << 30, (1 << 31) - 1]) {
            let divisor = Divisor::new(value).unwrap();
            let near = |n: u64| [n.saturating_sub(1), n, n + 1];
            let tried = (0..64).flat_map(|times| near(times * value as u64)).chain(near((1 << 31) - 2));
            for n in tried.filter(|n| *n < 1 << 31) {
                let quotient = (n * u64::from(divisor.multiplier)) >> (31 + divisor.shift);
                assert_eq!(quotient, n / value as u64, "{n} / {value}");
            }
        }
        assert!(Divisor::new(0).is_err() && Divisor::new(1 << 31).is_err());
    }
}
