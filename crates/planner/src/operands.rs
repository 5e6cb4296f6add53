//! What a step reads and writes, one list for everybody: lifetimes, verification, devices.

use crate::op::CellKind;
use crate::pack::{SlotLayout, WeightId};
use crate::plan::{Access, BufferId, CumSum, Epilogue, Operand, Pick, Resample, Scatter, StepKind, TopK};
use tessera_core::DType;

/// Something that a step reads.
#[derive(Clone, PartialEq, Debug)]
pub enum Read {
    /// An operand walked as the given dimensions.
    Walk(Access, Vec<usize>),
    /// The first elements of an operand, one after the other.
    Dense(Operand, usize),
    /// A packed matrix.
    Panels {
        /// Which.
        weight: WeightId,
        /// Matrices.
        groups: usize,
        /// Rows.
        k: usize,
        /// Columns.
        n: usize,
    },
}

/// Something that a step writes.
#[derive(Clone, PartialEq, Debug)]
pub struct Write {
    /// Where to.
    pub buffer: BufferId,
    /// Elements before the first one.
    pub offset: usize,
    /// The elements that are written, walked by `strides`.
    pub dims: Vec<usize>,
    /// Elements between neighbours.
    pub strides: Vec<usize>,
}

impl Read {
    /// What is read.
    pub fn operand(&self) -> Operand {
        match self {
            Read::Walk(access, _) => access.operand,
            Read::Dense(operand, _) => *operand,
            Read::Panels { weight, .. } => Operand::Weight(*weight),
        }
    }

    /// How many elements are read, each counted once; of a packed matrix with its padding.
    pub fn distinct_elements(&self, layout: &SlotLayout) -> usize {
        match self {
            Read::Dense(_, count) => *count,
            // A stride of zero reads one element again and again.
            Read::Walk(access, dims) => {
                let strides = dims.iter().zip(&access.strides);
                strides.filter(|(_, stride)| **stride != 0).map(|(dim, _)| dim).product()
            }
            Read::Panels { weight, .. } => layout.tensors[weight.0 as usize].layout.elements(),
        }
    }
}

impl Write {
    /// A whole buffer.
    fn whole(buffer: BufferId, elements: usize) -> Write {
        Write { buffer, offset: 0, dims: vec![elements], strides: vec![1] }
    }

    /// How many elements are written.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }
}

impl StepKind {
    /// Everything that the step reads, with the element type where the step's meaning fixes it.
    pub fn reads(&self) -> Vec<(Read, Option<DType>)> {
        const F32: Option<DType> = Some(DType::F32);
        let mut reads = Vec::new();
        let mut epilogue_reads = |epilogue: &Epilogue, rows: usize, n: usize| {
            reads.extend(epilogue.bias.map(|bias| (Read::Dense(Operand::Weight(bias), n), F32)));
            reads.extend(epilogue.residual.map(|residual| (Read::Dense(residual, rows * n), F32)));
        };
        match self {
            StepKind::Gemm { x, w, rows, k, n, epilogue, .. } => {
                epilogue_reads(epilogue, *rows, *n);
                reads.push((Read::Walk(x.clone(), vec![*rows, *k]), F32));
                reads.push((Read::Panels { weight: *w, groups: 1, k: *k, n: *n }, F32));
            }
            StepKind::Conv { x, w, shape, epilogue, .. } => {
                let [pixels_in, pixels] = [shape.input, shape.output].map(|[height, width]| height * width);
                epilogue_reads(epilogue, pixels, shape.groups * shape.out_per_group);
                let k = shape.kernel[0] * shape.kernel[1] * shape.in_per_group;
                reads.push((Read::Dense(*x, pixels_in * shape.groups * shape.in_per_group), F32));
                reads.push((
                    Read::Panels { weight: *w, groups: shape.groups, k, n: shape.out_per_group },
                    F32,
                ));
            }
            StepKind::Depthwise { x, w, shape, epilogue, .. } => {
                let [pixels_in, pixels, taps] =
                    [shape.input, shape.output, shape.kernel].map(|[height, width]| height * width);
                epilogue_reads(epilogue, pixels, shape.groups);
                reads.push((Read::Dense(*x, pixels_in * shape.groups), F32));
                reads.push((Read::Dense(Operand::Weight(*w), taps * shape.groups), F32));
            }
            StepKind::Pool { x, shape, .. } => {
                reads.push((Read::Dense(*x, shape.input[0] * shape.input[1] * shape.groups), F32));
            }
            StepKind::PoolIndices { x, shape, .. } => {
                reads.push((Read::Dense(*x, shape.planes * shape.input.iter().product::<usize>()), F32));
            }
            StepKind::GroupNorm { x, shape, scale, bias, .. } => {
                reads.push((Read::Dense(*x, shape.elements()), F32));
                reads.extend([scale, bias].map(|vector| (Read::Dense(*vector, shape.vectors), F32)));
            }
            StepKind::Lrn { x, pixels, channels, .. } => {
                reads.push((Read::Dense(*x, pixels * channels), F32));
            }
            StepKind::MatMul { batch, m, n, k, a, b, .. } => {
                reads.push((Read::Walk(a.clone(), [batch.as_slice(), &[*m, *k]].concat()), F32));
                reads.push((Read::Walk(b.clone(), [batch.as_slice(), &[*k, *n]].concat()), F32));
            }
            StepKind::Attention { shape, q, k, v, mask, .. } => {
                let (heads, queries, keys) = (shape.heads, shape.queries, shape.keys);
                reads.push((Read::Walk(q.clone(), vec![heads, queries, shape.head_dim]), F32));
                reads.push((Read::Walk(k.clone(), vec![heads, keys, shape.head_dim]), F32));
                reads.push((Read::Walk(v.clone(), vec![heads, keys, shape.value_dim]), F32));
                reads.extend(mask.clone().map(|mask| (Read::Walk(mask, vec![heads, queries, keys]), F32)));
            }
            StepKind::LayerNorm { x, rows, cols, scale, bias, .. } => {
                reads.push((Read::Dense(*x, rows * cols), F32));
                reads.push((Read::Dense(*scale, *cols), F32));
                reads.extend(bias.map(|bias| (Read::Dense(bias, *cols), F32)));
            }
            StepKind::Softmax { x, rows, cols, .. } => reads.push((Read::Dense(*x, rows * cols), F32)),
            StepKind::Recurrent { shape, cell, x, weights, length, h0, c0, .. } => {
                let hidden = shape.hidden;
                let gates = cell.kind.gates() * hidden;
                let apart = if weights.candidate.is_some() { hidden } else { 0 };
                let panels = |weight, k, n| (Read::Panels { weight, groups: 1, k, n }, F32);
                let vector =
                    |id: Option<WeightId>, n| id.map(|id| (Read::Dense(Operand::Weight(id), n), F32));
                let after = matches!(cell.kind, CellKind::Gru { linear_before_reset: true });
                reads.push((Read::Walk(x.clone(), vec![shape.time, shape.input]), F32));
                reads.push(panels(weights.w, shape.input, gates));
                reads.push(panels(weights.r, hidden, gates - apart));
                reads.extend(weights.candidate.map(|id| panels(id, hidden, hidden)));
                reads.extend(vector(weights.bias, if after { gates + hidden } else { gates }));
                reads.extend(vector(weights.peephole, 3 * hidden));
                reads.extend(length.map(|length| (Read::Dense(length, 1), Some(DType::I32))));
                reads.extend([h0, c0].into_iter().flatten().map(|&start| (Read::Dense(start, hidden), F32)));
            }
            StepKind::Gather { table, ids, outer, rows, row, count, .. } => {
                reads.push((Read::Dense(*table, outer * rows * row), None));
                reads.push((Read::Dense(*ids, *count), None));
            }
            StepKind::Reduce { x, kept, reduced, .. } => {
                reads.push((Read::Walk(x.clone(), [kept.as_slice(), reduced].concat()), None));
            }
            StepKind::Elementwise { dims, inputs, .. } => {
                reads.extend(inputs.iter().map(|input| (Read::Walk(input.clone(), dims.clone()), None)));
            }
            StepKind::Copy { dims, x, .. } => reads.push((Read::Walk(x.clone(), dims.clone()), None)),
            StepKind::Fill { .. } => {}
            StepKind::TopK(TopK { x, lines, .. }) | StepKind::CumSum(CumSum { x, lines, .. }) => {
                reads.push((Read::Dense(*x, lines.elements()), None));
            }
            StepKind::Resample(Resample { x, lines, count, taps, at, weights, .. }) => {
                reads.push((Read::Dense(*x, lines.elements()), F32));
                reads.push((Read::Dense(Operand::Constant(*at), count * taps), Some(DType::I32)));
                reads.push((Read::Dense(Operand::Constant(*weights), count * taps), F32));
            }
            StepKind::Pick(Pick { x, points, ids, .. }) => {
                reads.push((Read::Dense(*x, points.reach()), None));
                reads.push((Read::Dense(*ids, points.ids()), None));
            }
            StepKind::Scatter(Scatter { points, ids, updates, .. }) => {
                reads.push((Read::Dense(*ids, points.ids()), None));
                reads.push((Read::Dense(*updates, points.count() * points.row), None));
            }
        }
        reads
    }

    /// Everything that the step writes. A fill writes all of its buffer, whose size it does not know.
    pub fn writes(&self) -> Vec<Write> {
        match self {
            StepKind::Gemm { rows, n, out, .. } => vec![Write::whole(*out, rows * n)],
            StepKind::Conv { shape, out, .. } | StepKind::Depthwise { shape, out, .. } => {
                let channels = shape.groups * shape.out_per_group;
                vec![Write::whole(*out, shape.output[0] * shape.output[1] * channels)]
            }
            StepKind::Pool { shape, out, .. } => {
                vec![Write::whole(*out, shape.output[0] * shape.output[1] * shape.groups)]
            }
            StepKind::PoolIndices { shape, out, .. } => {
                vec![Write::whole(*out, shape.planes * shape.output.iter().product::<usize>())]
            }
            StepKind::GroupNorm { shape, out, .. } => vec![Write::whole(*out, shape.elements())],
            StepKind::Lrn { pixels, channels, out, .. } => vec![Write::whole(*out, pixels * channels)],
            StepKind::MatMul { batch, m, n, out, .. } => {
                vec![Write::whole(*out, batch.iter().product::<usize>() * m * n)]
            }
            StepKind::Attention { shape, out, out_strides, .. } => vec![Write {
                buffer: *out,
                offset: 0,
                dims: vec![shape.heads, shape.queries, shape.value_dim],
                strides: vec![out_strides[0], out_strides[1], 1],
            }],
            StepKind::LayerNorm { rows, cols, out, .. } | StepKind::Softmax { rows, cols, out, .. } => {
                vec![Write::whole(*out, rows * cols)]
            }
            StepKind::Recurrent { shape, y, y_offset, y_stride, h, c, .. } => {
                let states = y.map(|buffer| Write {
                    buffer,
                    offset: *y_offset,
                    dims: vec![shape.time, shape.hidden],
                    strides: vec![*y_stride, 1],
                });
                let last = [h, c].into_iter().flatten().map(|&buffer| Write::whole(buffer, shape.hidden));
                states.into_iter().chain(last).collect()
            }
            StepKind::Gather { outer, row, count, out, .. } => vec![Write::whole(*out, outer * count * row)],
            StepKind::Reduce { kept, out, .. } => vec![Write::whole(*out, kept.iter().product())],
            StepKind::Elementwise { dims, out, .. } => vec![Write::whole(*out, dims.iter().product())],
            StepKind::Copy { dims, out, out_offset, out_strides, .. } => vec![Write {
                buffer: *out,
                offset: *out_offset,
                dims: dims.clone(),
                strides: out_strides.clone(),
            }],
            StepKind::Fill { out, .. } => vec![Write::whole(*out, 0)],
            StepKind::TopK(TopK { lines, k, values, indices, .. }) => {
                let elements = lines.with_length(*k).elements();
                [values, indices].into_iter().flatten().map(|&out| Write::whole(out, elements)).collect()
            }
            StepKind::CumSum(CumSum { lines, out, .. }) => vec![Write::whole(*out, lines.elements())],
            StepKind::Resample(Resample { lines, count, out, .. }) => {
                vec![Write::whole(*out, lines.with_length(*count).elements())]
            }
            StepKind::Pick(Pick { points, out, .. }) => {
                vec![Write::whole(*out, points.count() * points.row)]
            }
            // As far as numbers may lead.
            StepKind::Scatter(Scatter { points, out, .. }) => vec![Write::whole(*out, points.reach())],
        }
    }
}
