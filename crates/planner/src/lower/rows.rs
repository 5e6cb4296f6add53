//! Steps over rows: normalisations, softmax, reductions.

use super::linear::rows_in_memory;
use super::view::{View, merge};
use super::work::work;
use super::{Lowering, PlanError};
use crate::infer::Note;
use crate::net::Node;
use crate::op::Reduction;
use crate::plan::{Access, Operand, StepKind};
use tessera_core::DType;

/// Rough work per element, for costs and segments: mean, difference, square, sum, scale, shift, …
const LAYER_NORM_FLOPS: u64 = 8;
const SOFTMAX_FLOPS: u64 = 5;

impl Lowering<'_> {
    /// `(x, scale, bias?)` over the axes from `axis` on.
    pub(super) fn layer_norm(&mut self, node: &Node, axis: i64, epsilon: f32) -> Result<(), PlanError> {
        let rank = self.input(node, 0)?.dims.len();
        let axis = self.axis(node, axis, rank)?;
        self.norm(node, axis, epsilon, true)
    }

    /// `(x, scale)` likewise.
    pub(super) fn rms_norm(&mut self, node: &Node, axis: usize, epsilon: f32) -> Result<(), PlanError> {
        self.norm(node, axis, epsilon, false)
    }

    fn norm(&mut self, node: &Node, axis: usize, epsilon: f32, centred: bool) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let rank = x.dims.len();
        let columns: Vec<usize> = x.dims[axis..].to_vec();
        let (order, operand) = self.rows(node, &x, rank - axis)?;
        let scale = self.input(node, 1)?;
        let scale = self.vector(node, &scale, &columns)?;
        let bias = match self.optional(node, 2)? {
            Some(bias) => Some(self.vector(node, &bias, &columns)?),
            None => None,
        };
        let out = self.output_id(node)?;
        let (buffer, view) = self.make(DType::F32, &x.dims, &order);
        let cols: usize = columns.iter().product();
        let rows = x.elements() / cols;
        let flops = work(LAYER_NORM_FLOPS, &x.dims);
        let kind = StepKind::LayerNorm { x: operand, rows, cols, centred, epsilon, scale, bias, out: buffer };
        self.push(node, kind, flops);
        self.set(out, view);
        Ok(())
    }

    /// A vector over the normalised axes, dense.
    fn vector(&mut self, node: &Node, view: &View, columns: &[usize]) -> Result<Operand, PlanError> {
        // Leading axes of length one say nothing.
        let extra = view.dims.len().saturating_sub(columns.len());
        let inner = View {
            dims: view.dims[extra..].to_vec(),
            strides: view.strides[extra..].to_vec(),
            ..view.clone()
        };
        match inner.expanded(columns) {
            Some(inner) if view.dims[..extra].iter().all(|&dim| dim == 1) => Ok(self.dense(node, &inner)),
            _ => Err(self.unsupported(node, format!("a vector {:?} does not fit {columns:?}", view.dims))),
        }
    }

    pub(super) fn softmax(&mut self, node: &Node, axis: i64, log: bool) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let rank = x.dims.len();
        let axis = self.axis(node, axis, rank)?;
        // The axis goes last; the result is seen in the old order.
        let mut last: Vec<usize> = (0..rank).filter(|&other| other != axis).collect();
        last.push(axis);
        let turned = x.permuted(&last);
        let (order, operand) = self.rows(node, &turned, 1)?;
        let (buffer, view) = self.make(DType::F32, &turned.dims, &order);
        let mut back = vec![0; rank];
        last.iter().enumerate().for_each(|(at, &axis)| back[axis] = at);
        let cols = x.dims[axis];
        let rows = x.elements() / cols;
        let flops = work(SOFTMAX_FLOPS, &x.dims);
        self.push(node, StepKind::Softmax { x: operand, rows, cols, log, out: buffer }, flops);
        let out = self.output_id(node)?;
        self.set(out, view.permuted(&back));
        Ok(())
    }

    /// The view as dense rows of its last `columns` axes, in the order in which they lie if that will do, with that order.
    fn rows(&mut self, node: &Node, x: &View, columns: usize) -> Result<(Vec<usize>, Operand), PlanError> {
        if self.dtype_of(x.operand) != DType::F32 {
            return Err(self.unsupported(node, "only f32 can be normalised"));
        }
        if let Some(found) = rows_in_memory(x, columns, self.size_of(x.operand)) {
            return Ok(found);
        }
        Ok(((0..x.dims.len()).collect(), self.dense(node, x)))
    }

    pub(super) fn reduce(&mut self, node: &Node, kind: Reduction) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let out = self.output_id(node)?;
        let Some(Note::Reduce { axes }) = &node.note else {
            return Err(self.unsupported(node, "its axes are not known"));
        };
        let dtype = self.dtype_of(x.operand);
        let float_only = matches!(kind, Reduction::L2 | Reduction::LogSum | Reduction::LogSumExp);
        if dtype != DType::F32 && (dtype != DType::I64 || float_only) {
            return Err(self.unsupported(
                node,
                format!("it is not supported for {dtype}; cast to i64 or f32 before it"),
            ));
        }
        let kept_axes: Vec<usize> = (0..x.dims.len()).filter(|axis| !axes.contains(axis)).collect();
        let kept = self.group(&x, &kept_axes);
        let reduced = self.group(&x, axes);
        let kept_dims: Vec<usize> = kept_axes.iter().map(|&axis| x.dims[axis]).collect();
        let order: Vec<usize> = (0..kept_dims.len()).collect();
        let (buffer, view) = self.make(dtype, &kept_dims, &order);
        let access = Access {
            operand: x.operand,
            offset: x.offset,
            strides: kept.iter().chain(&reduced).map(|(_, stride)| *stride).collect(),
        };
        let kind = StepKind::Reduce {
            kind,
            x: access,
            kept: kept.iter().map(|(dim, _)| *dim).collect(),
            reduced: reduced.iter().map(|(dim, _)| *dim).collect(),
            out: buffer,
        };
        self.push(node, kind, work(1, &x.dims));
        let view = view.reshaped(self.net.dims(out)).expect("reduced axes have length one or are gone");
        self.set(out, view);
        Ok(())
    }

    /// Some axes of a view as lengths and strides, neighbours merged.
    fn group(&self, x: &View, axes: &[usize]) -> Vec<(usize, isize)> {
        let part = x.permuted(axes);
        merge(&part.dims, &[&part.strides]).into_iter().map(|(dim, strides)| (dim, strides[0])).collect()
    }
}
