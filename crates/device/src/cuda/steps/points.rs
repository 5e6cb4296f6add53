//! Elements taken or changed by number: see `kernels/{pick,scatter}.cu` and `kernels/points.cuh`.

use super::Dims;
use super::convert::as_moved;
use super::vector::{placement, widest, width};
use crate::cuda::abi::{LaunchParams, MAX_AXES, OperandParams};
use crate::cuda::call::{KernelCall, KernelSpec, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_core::DType;
use tessera_planner::op;
use tessera_planner::plan::{Operand, Pick, Points, Scatter};

/// Places that numbers lead to.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Places {
    strides: [i64; MAX_AXES],
    along: [i64; MAX_AXES],
    dims: [u32; MAX_AXES],
    sizes: [u32; MAX_AXES],
    axes: u32,
    depth: u32,
    ids: u32,
    step: u32,
}
const _: () = assert!(size_of::<Places>() == 208);

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct PickParams {
    launch: LaunchParams,
    x: OperandParams,
    ids: OperandParams,
    out: OperandParams,
    places: Places,
    packs: u64,
    row: u32,
    unused: u32,
}
params!(PickParams);

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ScatterParams {
    launch: LaunchParams,
    ids: OperandParams,
    updates: OperandParams,
    out: OperandParams,
    places: Places,
    threads: u64,
    serial: u32,
    after: u32,
    row: u32,
    unused: u32,
}
params!(ScatterParams);

/// Most blocks of one item; each walks on from there.
const MAX_BLOCKS: u64 = 1 << 16;

fn counted(count: usize) -> Result<u32, String> {
    u32::try_from(count).map_err(|_| format!("{count} is more than kernels number in 32 bits"))
}

impl Places {
    /// Of the points along some axes, whose lengths and strides these are.
    fn of(points: &Points, dims: &[usize], strides: &[usize], index: usize) -> Result<Places, String> {
        let strides: Vec<isize> = strides.iter().map(|&stride| stride as isize).collect();
        let walk = Dims::joined(dims, &[&strides])?;
        let depth = points.sizes.len();
        if depth > MAX_AXES {
            return Err(format!("its numbers name {depth} axes, and kernels go along {MAX_AXES}"));
        }
        let (mut along, mut sizes) = ([0; MAX_AXES], [0; MAX_AXES]);
        for (component, (&size, &stride)) in points.sizes.iter().zip(&points.along).enumerate() {
            sizes[component] = counted(size)?;
            along[component] = stride as i64;
        }
        Ok(Places {
            strides: walk.padded_strides(0),
            along,
            dims: walk.padded_dims(),
            sizes,
            axes: walk.dims.len().max(1) as u32,
            depth: depth as u32,
            ids: counted(points.ids())?,
            step: counted(index + 1)?,
        })
    }
}

pub(super) fn pick(site: &Site<'_>, index: usize, step: &Pick) -> Result<Vec<KernelCall>, String> {
    let Pick { x, points, ids, out, what: _ } = step;
    let (from, to) = (site.stored(*x), site.stored(Operand::Buffer(*out)));
    if from != to && !(from == DType::F32 && to.is_float()) {
        return Err(format!("it picks {from} into {to}"));
    }
    let (source, target) = (site.operand(*x), site.buffer(*out));
    let places = [placement(&source, from.size()), placement(&target, to.size()), points.row];
    let strides = points.strides.iter().chain(&points.along).copied();
    let width = width(widest(from.size().max(to.size())), places.into_iter().chain(strides));
    let params = PickParams {
        launch: site.launch,
        x: source,
        ids: site.operand(*ids),
        out: target,
        places: Places::of(points, &points.dims, &points.strides, index)?,
        packs: (points.count() * (points.row / width)) as u64,
        row: counted(points.row / width)?,
        unused: 0,
    };
    let (from, to) = as_moved(from, to, site.is_factor(*out));
    let spec = KernelSpec::new("pick.cu")
        .define("FROM", type_number(from))
        .define("TO", type_number(to))
        .define("IDS", type_number(site.stored(*ids)))
        .define("WIDTH", width);
    let blocks = params.packs.div_ceil(256).clamp(1, MAX_BLOCKS) as u32;
    Ok(vec![KernelCall::new(spec, &params, [blocks, site.capacity.items, 1], 256)])
}

pub(super) fn scatter(site: &Site<'_>, index: usize, step: &Scatter) -> Result<Vec<KernelCall>, String> {
    let Scatter { points, ids, updates, how, out, what: _ } = step;
    let (from, to) = (site.stored(*updates), site.stored(Operand::Buffer(*out)));
    if from != to && !(from == DType::F32 && to.is_float()) {
        return Err(format!("it scatters {from} into {to}"));
    }
    let serial = serial(points);
    let apart: Vec<usize> = (0..points.dims.len()).filter(|axis| !serial.contains(axis)).collect();
    let of = |list: &[usize]| apart.iter().map(|&axis| list[axis]).collect::<Vec<_>>();
    let length = |axes: &[usize]| counted(axes.iter().product());
    let params = ScatterParams {
        launch: site.launch,
        ids: site.operand(*ids),
        updates: site.operand(*updates),
        out: site.buffer(*out),
        places: Places::of(points, &of(&points.dims), &of(&points.strides), index)?,
        threads: of(&points.dims).iter().product::<usize>() as u64 * points.row as u64,
        serial: length(&points.dims[serial.clone()])?,
        after: length(&points.dims[serial.end..])?,
        row: counted(points.row)?,
        unused: 0,
    };
    let spec = KernelSpec::new("scatter.cu")
        .define("TYPE", type_number(to))
        .define("FROM", type_number(from))
        .define("IDS", type_number(site.stored(*ids)))
        .define("HOW", number(*how));
    let blocks = params.threads.div_ceil(256).clamp(1, MAX_BLOCKS) as u32;
    Ok(vec![KernelCall::new(spec, &params, [blocks, site.capacity.items, 1], 256)])
}

/// The axes along which points may meet; they stand together.
fn serial(points: &Points) -> std::ops::Range<usize> {
    let meets = |axis: &usize| points.strides[*axis] == 0;
    let first = (0..points.dims.len()).find(meets).unwrap_or(points.dims.len());
    first..(first..points.dims.len()).take_while(meets).last().map_or(first, |last| last + 1)
}

/// As the kernel numbers them.
fn number(how: op::Scatter) -> u32 {
    match how {
        op::Scatter::Replace => 0,
        op::Scatter::Add => 1,
        op::Scatter::Mul => 2,
        op::Scatter::Max => 3,
        op::Scatter::Min => 4,
    }
}
