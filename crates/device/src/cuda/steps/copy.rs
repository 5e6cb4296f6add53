//! Copies: of units as wide as both sides allow, or by tiles where the innermost axis changes. See `kernels/copy.cu` and `kernels/transpose.cu`.

use super::convert::as_moved;
use super::vector::{placement, width};
use super::{Dims, blocks};
use crate::cuda::abi::{LaunchParams, MAX_AXES, OperandParams, WalkParams};
use crate::cuda::call::{KernelCall, KernelSpec, params};
use crate::cuda::site::{Site, type_number};
use bytemuck::{Pod, Zeroable};
use tessera_core::DType;
use tessera_planner::plan::{Access, BufferId, StepKind};

/// Axes of a transpose beside the two that change places.
const MAX_OUTER: usize = MAX_AXES - 2;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct CopyParams {
    launch: LaunchParams,
    x: WalkParams,
    out: OperandParams,
    out_offset: i64,
    out_strides: [i64; MAX_AXES],
    dims: [u32; MAX_AXES],
    units: u32,
    axes: u32,
}
params!(CopyParams);

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct TransposeParams {
    launch: LaunchParams,
    x: OperandParams,
    out: OperandParams,
    x_offset: i64,
    out_offset: i64,
    x_b: i64,
    out_a: i64,
    x_outer: [i64; MAX_OUTER],
    out_outer: [i64; MAX_OUTER],
    outer: [u32; MAX_OUTER],
    outer_axes: u32,
    a: u32,
    b: u32,
    tiles_a: u32,
    tiles_b: u32,
    unused: u32,
}
params!(TransposeParams);

pub(super) fn calls(site: &Site<'_>, kind: &StepKind) -> Result<Vec<KernelCall>, String> {
    let StepKind::Copy { dims, x, out, out_offset, out_strides } = kind else {
        unreachable!("called for its own kind")
    };
    let (from, to) = (site.stored(x.operand), site.precision().stored(site.plan.buffer(*out).dtype));
    if from != to && !(from == DType::F32 && to.is_float()) {
        return Err(format!("it copies {from} into {to}"));
    }
    let strides: Vec<isize> = out_strides.iter().map(|&stride| stride as isize).collect();
    let walk = Dims::joined(dims, &[&x.strides, &strides])?;
    let rounds = site.is_factor(*out);
    let copy = Copy { site, x, out: *out, out_offset: *out_offset, walk, from, to, rounds };
    Ok(vec![copy.transposed().unwrap_or_else(|| copy.in_units())])
}

struct Copy<'a> {
    site: &'a Site<'a>,
    x: &'a Access,
    out: BufferId,
    out_offset: usize,
    /// Of x, then of out.
    walk: Dims,
    from: DType,
    to: DType,
    /// Whether a product reads what is written.
    rounds: bool,
}

impl Copy<'_> {
    fn in_units(&self) -> KernelCall {
        let (x, out) = (self.site.operand(self.x.operand), self.site.buffer(self.out));
        let size = self.from.size();
        let count = self.units(&x, &out);
        let unit = |elements: i64| elements / count as i64;
        let (mut dims, mut from, mut to) =
            (self.walk.padded_dims(), self.walk.padded_strides(0), self.walk.padded_strides(1));
        let axes = self.walk.dims.len();
        if count > 1 {
            // The innermost axis, which is one of units now, has stride 1 as before.
            dims[axes - 1] /= count as u32;
            from[..axes - 1].iter_mut().chain(&mut to[..axes - 1]).for_each(|stride| *stride = unit(*stride));
        }
        let units = dims.iter().product();
        let params = CopyParams {
            launch: self.site.launch,
            x: WalkParams { operand: x, offset: unit(self.x.offset as i64), strides: from },
            out,
            out_offset: unit(self.out_offset as i64),
            out_strides: to,
            dims,
            units: if self.walk.elements() == 0 { 0 } else { units },
            axes: axes.max(1) as u32,
        };
        let (from, to, width) = match size * count {
            _ if self.from != self.to => (self.from, self.to, 1),
            _ if self.rounds => (self.from, self.to, count as u32),
            16 => (DType::U64, DType::U64, 2),
            8 => (DType::U64, DType::U64, 1),
            4 => (DType::U32, DType::U32, 1),
            2 => (DType::U16, DType::U16, 1),
            _ => (DType::U8, DType::U8, 1),
        };
        let spec = moved("copy.cu", from, to).define("WIDTH", width);
        KernelCall::new(spec, &params, [blocks(params.units, 256 * 4), self.site.capacity.items, 1], 256)
    }

    /// Elements of a unit.
    fn units(&self, x: &OperandParams, out: &OperandParams) -> usize {
        let size = self.from.size();
        let [from, to] = [&self.walk.strides[0], &self.walk.strides[1]];
        let (Some((1, from)), Some((1, to))) = (from.split_last(), to.split_last()) else { return 1 };
        if self.from != self.to {
            return 1;
        }
        let strides = from.iter().chain(to).map(|stride| stride.unsigned_abs());
        let inner = self.walk.dims.last().copied();
        let places = [placement(x, size), placement(out, size), self.x.offset, self.out_offset];
        width(16 / size, strides.chain(inner).chain(places))
    }

    /// By tiles, where x and out have neighbours along different axes.
    fn transposed(&self) -> Option<KernelCall> {
        let neighbours = |operand: usize| self.walk.strides[operand].iter().position(|&stride| stride == 1);
        let (a, b) = (neighbours(0)?, neighbours(1)?);
        let axes = self.walk.dims.len();
        if self.walk.elements() == 0
            || a == b
            || self.walk.strides[0].last() == Some(&1) && self.walk.strides[1].last() == Some(&1)
        {
            return None;
        }
        let [tile_a, tile_b] = tile([self.walk.dims[a], self.walk.dims[b]]);
        let (mut x_outer, mut out_outer, mut outer) = ([0; MAX_OUTER], [0; MAX_OUTER], [1; MAX_OUTER]);
        let others = (0..axes).filter(|&axis| axis != a && axis != b);
        for (at, axis) in others.enumerate() {
            x_outer[at] = self.walk.strides[0][axis] as i64;
            out_outer[at] = self.walk.strides[1][axis] as i64;
            outer[at] = self.walk.dims[axis] as u32;
        }
        let (length_a, length_b) = (self.walk.dims[a] as u32, self.walk.dims[b] as u32);
        let params = TransposeParams {
            launch: self.site.launch,
            x: self.site.operand(self.x.operand),
            out: self.site.buffer(self.out),
            x_offset: self.x.offset as i64,
            out_offset: self.out_offset as i64,
            x_b: self.walk.strides[0][b] as i64,
            out_a: self.walk.strides[1][a] as i64,
            x_outer,
            out_outer,
            outer,
            outer_axes: axes as u32 - 2,
            a: length_a,
            b: length_b,
            tiles_a: length_a.div_ceil(tile_a),
            tiles_b: length_b.div_ceil(tile_b),
            unused: 0,
        };
        let tiles = params.tiles_a * params.tiles_b * outer.iter().product::<u32>();
        let (from, to) = as_moved(self.from, self.to, self.rounds);
        let spec = moved("transpose.cu", from, to).define("TILE_A", tile_a).define("TILE_B", tile_b);
        Some(KernelCall::new(spec, &params, [tiles, self.site.capacity.items, 1], 256))
    }
}

fn moved(source: &'static str, from: DType, to: DType) -> KernelSpec {
    KernelSpec::new(source).define("FROM", type_number(from)).define("TO", type_number(to))
}

/// The tile for axes of such lengths: as wide as a narrow axis and long on the other, or square.
fn tile([a, b]: [usize; 2]) -> [u32; 2] {
    let narrow = |length: usize| match length {
        3 => Some([3, 1024]),
        0..=4 => Some([4, 1024]),
        5..=8 => Some([8, 256]),
        9..=16 => Some([16, 256]),
        _ => None,
    };
    let square = |length: usize| if length <= 32 { 32 } else { 64 };
    match (narrow(a), narrow(b)) {
        (_, Some([b, a])) | (Some([a, b]), None) => [a, b],
        (None, None) => [square(a), square(b)],
    }
}
