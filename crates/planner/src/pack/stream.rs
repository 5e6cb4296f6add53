//! The way of one weight into its place: read in pieces that fit a core's cache, scaled there, and laid.
//!
//! ```text
//!   file ─read─▶ piece (128 KiB, reused) ─×scale─▶ piece ─lay─▶ slot        each weight crosses memory once in, once out
//! ```
//! Covers what large weights are: a parameter, turned, scaled along its output channels (a folded BatchNorm), side by side with others (the joined
//! projections of attention). Everything else is small or rare, and is computed whole by the reference. Both ways give the same bits: the
//! reference rounds an exact product once, and so does a multiplication of singles.

use super::lay::{ELEMENT, Lines, Order, lay_piece, times};
use super::sources::Sources;
use super::{BLOCK_COLUMNS, Layout, PackError, PackedTensor, evaluate};
use crate::fold::{FoldedWeight, Role, WeightExpr};
use crate::graph::{ParamId, WeightSource};
use crate::op::{Binary, Op};
use crate::source::Pieces;
use tessera_core::DType;

/// What is read at a time, about: half of a core's second cache at most, and enough to make a system call cheap.
const PIECE: usize = 128 << 10;

/// Computes `weight` and lays it into `to`, its place in a slot of zeros. `piece` is room that is used again.
pub(super) fn fill(
    weight: &FoldedWeight,
    packed: &PackedTensor,
    sources: &Sources<'_>,
    piece: &mut Vec<u8>,
    to: &mut [u8],
) -> Result<(), PackError> {
    let mut parts = Vec::new();
    let seen = match weight.role {
        Role::Matrix => matrix(&weight.expr, 0, sources, &weight.name, &mut parts)?,
        role => whole(weight, role, sources, &mut parts)?,
    };
    if seen.as_deref() != Some(&weight.dims[..]) {
        let tensor = evaluate::weight(weight, sources)?;
        super::lay::lay(
            weight.role,
            tensor.dims(),
            tensor.bytes(),
            &PackedTensor { offset: 0, ..packed.clone() },
            to,
        );
        return Ok(());
    }
    parts.iter().try_for_each(|part| part.run(packed, sources, piece, to))
}

/// A parameter on its way.
struct Part {
    param: ParamId,
    order: Order,
    lines: usize,
    /// By output channel, one after the other: each rounds.
    scales: Vec<Vec<f32>>,
}

/// A convolution's kernel, perhaps scaled, or a plain parameter: its dimensions, or `None` when it is something else.
fn whole(
    weight: &FoldedWeight,
    role: Role,
    sources: &Sources<'_>,
    parts: &mut Vec<Part>,
) -> Result<Option<Vec<usize>>, PackError> {
    let (mut expr, mut scales) = (&weight.expr, Vec::new());
    while let Some((inner, scale)) = scaled(expr).filter(|_| role != Role::Plain) {
        let scale = evaluate::value(scale, &weight.name, sources)?;
        let channels = weight.dims[0];
        let along_channels = scale.dims().len() == weight.dims.len() && scale.dims()[0] == channels;
        match scale.elements::<f32>() {
            Some(scale) if along_channels && scale.len() == channels => scales.insert(0, scale),
            _ => return Ok(None),
        }
        expr = inner;
    }
    let Some((param, false)) = streamed(expr, sources) else { return Ok(None) };
    if matches!(sources.get(param), WeightSource::Converted { .. }) {
        return Ok(None);
    }
    let dims = &sources.param(param).dims;
    let (order, lines) = match (role, &dims[..]) {
        (Role::Plain, dims) => (Order::Dense, dims.iter().product()),
        // Those of three axes are rare, and their taps are scattered.
        (Role::Conv { .. }, [out, inputs, kernel @ ..]) if kernel.len() < 3 => {
            (Order::Columns { column: 0, inputs: *inputs, taps: kernel.iter().product() }, *out)
        }
        (Role::Depthwise, [channels, _, kernel @ ..]) => {
            (Order::Channels { channels: *channels, taps: kernel.iter().product() }, *channels)
        }
        _ => return Ok(None),
    };
    parts.push(Part { param, order, lines, scales });
    Ok(Some(dims.clone()))
}

/// A matrix whose first column is `column` of the one that is laid: its dimensions, or `None` when it is not made of parameters as they are
/// streamed.
fn matrix(
    expr: &WeightExpr,
    column: usize,
    sources: &Sources<'_>,
    name: &str,
    parts: &mut Vec<Part>,
) -> Result<Option<Vec<usize>>, PackError> {
    if let WeightExpr::Apply { op: Op::Concat { axis: 1 | -1 }, inputs, output: 0 } = expr {
        let (mut rows, mut columns) = (None, 0);
        for input in inputs {
            let Some(input) = input else { return Ok(None) };
            match matrix(input, column + columns, sources, name, parts)?.as_deref() {
                Some(&[k, n]) if rows.is_none_or(|rows| rows == k) => {
                    (rows, columns) = (Some(k), columns + n);
                }
                _ => return Ok(None),
            }
        }
        return Ok(rows.map(|rows| vec![rows, columns]));
    }
    if let Some((inner, scale)) = scaled(expr) {
        let before = parts.len();
        let Some(dims) = matrix(inner, column, sources, name, parts)? else { return Ok(None) };
        let scale = evaluate::value(scale, name, sources)?;
        let along_columns = matches!(scale.dims(), [] | [1]) || scale.dims() == &dims[1..];
        let (Some(scale), true, [part]) = (scale.elements::<f32>(), along_columns, &mut parts[before..])
        else {
            return Ok(None);
        };
        let one = scale.first().copied().filter(|_| scale.len() == 1);
        part.scales.push(one.map_or(scale, |one| vec![one; dims[1]]));
        return Ok(Some(dims));
    }
    let Some((param, turned)) = streamed(expr, sources) else { return Ok(None) };
    let &[rows, columns] = &sources.param(param).dims[..] else { return Ok(None) };
    // A file that holds it turned is turned once more.
    let stored_turned = matches!(sources.get(param), WeightSource::Converted { .. });
    let dims = if turned { [columns, rows] } else { [rows, columns] };
    let (order, lines) = match turned == stored_turned {
        true => (Order::Rows { column, columns: dims[1] }, dims[0]),
        false => (Order::Columns { column, inputs: dims[0], taps: 1 }, dims[1]),
    };
    parts.push(Part { param, order, lines, scales: Vec::new() });
    Ok(Some(dims.to_vec()))
}

/// A product, as what is scaled and its scale.
fn scaled(expr: &WeightExpr) -> Option<(&WeightExpr, &WeightExpr)> {
    match expr {
        WeightExpr::Apply { op: Op::Binary(Binary::Mul), inputs, output: 0 } => match &inputs[..] {
            [Some(inner), Some(scale)] => Some((inner, scale)),
            _ => None,
        },
        _ => None,
    }
}

/// A parameter whose singles can be had piece by piece, and whether the expression exchanges its axes.
fn streamed(expr: &WeightExpr, sources: &Sources<'_>) -> Option<(ParamId, bool)> {
    let (id, turned) = match expr {
        WeightExpr::Param(id) => (*id, false),
        WeightExpr::Apply { op: Op::Transpose { perm }, inputs, output: 0 } => match &inputs[..] {
            [Some(WeightExpr::Param(id))] if *perm == [1, 0] => (*id, true),
            _ => return None,
        },
        _ => return None,
    };
    let singles = match sources.get(id) {
        WeightSource::Inline(tensor) => tensor.dtype() == DType::F32,
        WeightSource::File { .. } => true,
        WeightSource::Converted { from, dtype, transposed, .. } => {
            *dtype == DType::F32 && *transposed && matches!(**from, WeightSource::File { .. })
        }
        WeightSource::Zeros | WeightSource::Forgotten => false,
    };
    (singles && sources.param(id).dtype == DType::F32).then_some((id, turned))
}

impl Part {
    fn run(
        &self,
        packed: &PackedTensor,
        sources: &Sources<'_>,
        piece: &mut Vec<u8>,
        to: &mut [u8],
    ) -> Result<(), PackError> {
        let name = &sources.param(self.param).name;
        let read = |source| PackError::Read { name: name.clone(), source };
        let source = match sources.get(self.param) {
            WeightSource::Converted { from, .. } => from,
            source => source,
        };
        let line = self.order.line();
        let step = self.step(packed, line);
        let mut pieces = Pieces::open(source).map_err(read)?;
        // Columns are scaled while they are laid.
        let (in_piece, while_laid) = match (self.order, self.scales.split_last()) {
            (Order::Columns { .. }, Some((last, before))) => (before, Some(last)),
            _ => (&self.scales[..], None),
        };
        for first in (0..self.lines).step_by(step) {
            let lines = step.min(self.lines - first);
            pieces.next(lines * line * ELEMENT, piece).map_err(read)?;
            for scale in in_piece {
                match self.order {
                    Order::Rows { .. } => by_row(piece, scale),
                    _ => by_line(piece, line, &scale[first..]),
                }
            }
            let scale = while_laid.map(|scale| &scale[first..][..lines]);
            lay_piece(Lines { order: self.order, first, scale }, piece, packed, to);
        }
        pieces.finish().map_err(read)
    }

    /// Lines of one piece: for columns a multiple of what lies side by side.
    fn step(&self, packed: &PackedTensor, line: usize) -> usize {
        let unit = match (self.order, &packed.layout) {
            (Order::Columns { .. }, Layout::Panels { width, .. }) => *width,
            (Order::Columns { .. }, Layout::Blocks { .. }) => BLOCK_COLUMNS,
            _ => 1,
        };
        let bytes = unit.saturating_mul(line).saturating_mul(ELEMENT);
        unit.max(1) * (PIECE / bytes.max(1)).max(1)
    }
}

/// Every element of line `i` times `scale[i]`.
fn by_line(piece: &mut [u8], line: usize, scale: &[f32]) {
    let (elements, _) = piece.as_chunks_mut::<ELEMENT>();
    for (line, scale) in elements.chunks_exact_mut(line.max(1)).zip(scale) {
        line.iter_mut().for_each(|x| *x = times(*x, *scale));
    }
}

/// Element `i` of every line times `scale[i]`.
fn by_row(piece: &mut [u8], scale: &[f32]) {
    let (elements, _) = piece.as_chunks_mut::<ELEMENT>();
    for line in elements.chunks_exact_mut(scale.len().max(1)) {
        line.iter_mut().zip(scale).for_each(|(x, scale)| *x = times(*x, *scale));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::Folded;
    use crate::graph::{Graph, Param, ParamData, ValueId};
    use crate::pack::{Matrices, PackTarget, SlotLayout, pack};
    use crate::tensor::Tensor;
    use std::io::Write;
    use std::sync::Arc;
    use tessera_core::Precision;

    fn numbers(dims: &[usize], seed: f32) -> Tensor {
        let count = dims.iter().product();
        let elements: Vec<f32> = (0..count).map(|at| ((at as f32 + seed) * 0.737).sin()).collect();
        Tensor::from_elements(dims, &elements)
    }

    /// A class of these parameters whose only weight is `expr`.
    fn class(params: &[Vec<usize>], expr: WeightExpr, dims: &[usize], role: Role) -> (Graph, Folded) {
        let param = |(index, dims): (usize, &Vec<usize>)| Param {
            value: ValueId(index as u32),
            name: format!("p{index}"),
            dtype: DType::F32,
            dims: dims.clone(),
            data: ParamData::Weight(WeightSource::Forgotten),
        };
        let graph = Graph { params: params.iter().enumerate().map(param).collect(), ..Graph::default() };
        let weight = FoldedWeight { name: "w".into(), value: ValueId(0), dims: dims.to_vec(), expr, role };
        (graph.clone(), Folded { graph, weights: vec![weight] })
    }

    fn param(id: u32) -> WeightExpr {
        WeightExpr::Param(ParamId(id))
    }

    fn apply(op: Op, inputs: Vec<WeightExpr>) -> WeightExpr {
        WeightExpr::Apply { op, inputs: inputs.into_iter().map(Some).collect(), output: 0 }
    }

    fn turned(expr: WeightExpr) -> WeightExpr {
        apply(Op::Transpose { perm: vec![1, 0] }, vec![expr])
    }

    fn times(expr: WeightExpr, by: WeightExpr) -> WeightExpr {
        apply(Op::Binary(Binary::Mul), vec![expr, by])
    }

    const TARGETS: [PackTarget; 3] = [
        PackTarget { device: "test", precision: Precision::Fp32, matrices: Matrices::Panels(32) },
        PackTarget { device: "test", precision: Precision::Bf16, matrices: Matrices::Panels(6) },
        PackTarget { device: "test", precision: Precision::Tf32, matrices: Matrices::Blocks },
    ];

    /// Streams a weight from memory and from a file, and compares both with the definition: evaluated whole, laid whole.
    fn streams(params: &[Vec<usize>], expr: WeightExpr, dims: &[usize], role: Role) {
        let (graph, folded) = class(params, expr, dims, role);
        let tensors: Vec<Tensor> =
            params.iter().zip(1u8..).map(|(dims, seed)| numbers(dims, seed.into())).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        tensors.iter().for_each(|tensor| file.write_all(tensor.bytes()).unwrap());
        let (path, stamp) = (Arc::new(file.path().to_owned()), crate::source::stamp(file.path()).unwrap());
        let in_file = |id: ParamId| {
            let before: usize = tensors[..id.0 as usize].iter().map(|tensor| tensor.bytes().len()).sum();
            let len = tensors[id.0 as usize].bytes().len() as u64;
            Ok(WeightSource::File { path: path.clone(), stamp, offset: before as u64, len })
        };
        let in_memory = |id: ParamId| Ok(WeightSource::Inline(tensors[id.0 as usize].clone()));
        for target in TARGETS {
            let layout = SlotLayout::of(&folded, target).unwrap();
            let sources = Sources::of(&graph, &folded, &mut in_memory.clone()).unwrap();
            let whole = evaluate::weight(&folded.weights[0], &sources).unwrap();
            let mut want = vec![0; layout.bytes.0 as usize];
            crate::pack::lay(role, dims, whole.bytes(), &layout.tensors[0], &mut want);
            for source in [&in_file as &dyn Fn(ParamId) -> _, &in_memory] {
                let got = pack(&graph, &folded, &layout, &mut |id| source(id)).unwrap();
                assert!(got.bytes() == want, "{role:?} {dims:?} for {target:?}");
            }
        }
    }

    #[test]
    fn kernels_stream_as_they_are_defined() {
        let folded = || times(times(param(0), param(1)), param(2));
        for (dims, groups) in
            [([100, 40, 3, 3], 1), ([66, 3, 7, 5], 3), ([8, 1, 1, 1], 2), ([33, 500, 1, 1], 1)]
        {
            let scale = vec![dims[0], 1, 1, 1];
            let role = Role::Conv { groups };
            streams(&[dims.to_vec(), scale.clone(), scale], folded(), &dims, role);
        }
        let (dims, scale) = ([300, 1, 5, 5], vec![300, 1, 1, 1]);
        streams(&[dims.to_vec(), scale.clone(), scale], folded(), &dims, Role::Depthwise);
    }

    #[test]
    fn matrices_stream_as_they_are_defined() {
        for (k, n) in [(300, 200), (1, 1), (7, 33), (1000, 65)] {
            let role = Role::Matrix;
            streams(&[vec![k, n]], param(0), &[k, n], role);
            streams(&[vec![n, k]], turned(param(0)), &[k, n], role);
            streams(&[vec![n, k], vec![n]], times(turned(param(0)), param(1)), &[k, n], role);
            streams(&[vec![k, n], vec![]], times(param(0), param(1)), &[k, n], role);
            let parts = vec![param(0), turned(param(1)), times(param(2), param(3))];
            let joined = apply(Op::Concat { axis: 1 }, parts);
            streams(&[vec![k, n], vec![9, k], vec![k, 40], vec![40]], joined, &[k, n + 49], role);
        }
        streams(&[vec![70_000]], param(0), &[70_000], Role::Plain);
    }

    #[test]
    fn what_scales_along_another_axis_is_computed_whole() {
        let across = times(param(0), param(1));
        streams(
            &[vec![4, 5, 3, 3], vec![1, 5, 1, 1]],
            across.clone(),
            &[4, 5, 3, 3],
            Role::Conv { groups: 1 },
        );
        streams(&[vec![4, 4], vec![4, 1]], across, &[4, 4], Role::Matrix);
    }
}
