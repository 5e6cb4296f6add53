//! Products: with packed matrices, and of intermediate values.

use super::view::{View, merge, signed};
use super::work::work;
use super::{Lowering, PlanError};
use crate::net::Node;
use crate::pack::WeightId;
use crate::plan::{Access, Activation, BufferId, Epilogue, Operand, StepKind};
use crate::shape::broadcast;
use tessera_core::DType;

impl Lowering<'_> {
    /// `(x, w, bias?, residual?)`.
    pub(super) fn linear(&mut self, node: &Node, activation: Activation) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let (w, _) = self.packed(node, 1)?;
        let out = self.output_id(node)?;
        let dims = self.net.dims(out).to_vec();
        let columns = dims.len() - 1;
        // Rows may be computed in any order: in that in which they lie, when they can be walked so and not as they are numbered.
        let natural: Vec<usize> = (0..dims.len()).collect();
        let mut by_memory = x.memory_order();
        by_memory.retain(|&axis| axis != columns);
        by_memory.push(columns);
        let walk = |order: &[usize]| row_walk(&x.permuted(order)).map(|access| (order.to_vec(), access));
        let (order, access) = match walk(&natural).or_else(|| walk(&by_memory)) {
            Some(found) => found,
            None => {
                let dense = View::dense(self.dense(node, &x), &x.dims);
                (natural, row_walk(&dense).expect("a dense matrix has rows"))
            }
        };
        let (buffer, view) = self.make(DType::F32, &dims, &order);
        let epilogue = self.epilogue(node, activation, &order)?;
        let (k, n) = (x.dims[columns], dims[columns]);
        let rows = dims[..columns].iter().product();
        self.gemm(node, access, w, [rows, k, n], epilogue, buffer);
        self.set(out, view);
        Ok(())
    }

    pub(super) fn gemm(
        &mut self,
        node: &Node,
        x: Access,
        w: WeightId,
        [rows, k, n]: [usize; 3],
        epilogue: Epilogue,
        out: crate::plan::BufferId,
    ) {
        let flops = work(2, &[rows, k, n]).saturating_add(work(epilogue.flops_per_element(), &[rows, n]));
        self.push(node, StepKind::Gemm { x, w, rows, k, n, epilogue, out }, flops);
    }

    /// What inputs 2 and 3 and the activation do to the sums; the result's axes lie in the order `order`.
    pub(super) fn epilogue(
        &mut self,
        node: &Node,
        activation: Activation,
        order: &[usize],
    ) -> Result<Epilogue, PlanError> {
        let bias = self.bias(node)?;
        let residual = self.optional(node, 3)?.map(|view| self.dense_in(node, &view, order));
        Ok(Epilogue { bias, residual, activation })
    }

    /// The packed bias of a product or convolution, its third input.
    pub(super) fn bias(&self, node: &Node) -> Result<Option<WeightId>, PlanError> {
        match node.inputs.get(2).copied().flatten() {
            Some(_) => Ok(Some(self.packed(node, 2)?.0)),
            None => Ok(None),
        }
    }

    /// `(a, b)` with NumPy's rules.
    pub(super) fn matmul(&mut self, node: &Node) -> Result<(), PlanError> {
        let (mut a, mut b) = (self.input(node, 0)?, self.input(node, 1)?);
        let out = self.output_id(node)?;
        if [a.operand, b.operand].iter().any(|&operand| self.dtype_of(operand) != DType::F32) {
            return Err(self.unsupported(node, "only f32 can be multiplied"));
        }
        // A vector is a row on the left and a column on the right.
        if a.dims.len() == 1 {
            a = View { dims: vec![1, a.dims[0]], strides: vec![0, a.strides[0]], ..a };
        }
        if b.dims.len() == 1 {
            b = View { dims: vec![b.dims[0], 1], strides: vec![b.strides[0], 0], ..b };
        }
        let [m, k] = last_two(&a);
        let [_, n] = last_two(&b);
        let batch = broadcast(&a.dims[..a.dims.len() - 2], &b.dims[..b.dims.len() - 2]);
        let batch =
            batch.ok_or_else(|| self.unsupported(node, "its batch dimensions do not fit each other"))?;
        let full = |last: [usize; 2]| [batch.as_slice(), &last].concat();
        let (Some(a), Some(b)) = (a.expanded(&full([m, k])), b.expanded(&full([k, n]))) else {
            return Err(self.unsupported(node, "its batch dimensions do not fit each other"));
        };
        let (buffer, view) = {
            let dims = full([m, n]);
            let order: Vec<usize> = (0..dims.len()).collect();
            self.make(DType::F32, &dims, &order)
        };
        let view = view.reshaped(self.net.dims(out)).expect("a dense result has any shape of its size");
        self.push_mat_mul(node, &batch, [&a, &b], [m, n, k], buffer);
        self.set(out, view);
        Ok(())
    }

    /// `a [batch…, m, k]` times `b [batch…, k, n]` into a dense buffer.
    pub(super) fn push_mat_mul(
        &mut self,
        node: &Node,
        batch: &[usize],
        [a, b]: [&View; 2],
        [m, n, k]: [usize; 3],
        out: BufferId,
    ) {
        let merged = merge(batch, &[&a.strides[..batch.len()], &b.strides[..batch.len()]]);
        let access = |view: &View, which: usize| Access {
            operand: view.operand,
            offset: view.offset,
            strides: merged
                .iter()
                .map(|(_, strides)| strides[which])
                .chain(view.strides[batch.len()..].iter().copied())
                .collect(),
        };
        let (a, b) = (access(a, 0), access(b, 1));
        let batch: Vec<usize> = merged.iter().map(|(dim, _)| *dim).collect();
        let flops = work(work(2, &batch), &[m, n, k]);
        self.push(node, StepKind::MatMul { batch, m, n, k, a, b, alpha: 1.0, out }, flops);
    }
}

impl Epilogue {
    /// Additions and functions per element, a function counting as one.
    pub(super) fn flops_per_element(&self) -> u64 {
        u64::from(self.bias.is_some())
            + u64::from(self.residual.is_some())
            + u64::from(self.activation != Activation::Identity)
    }
}

fn last_two(view: &View) -> [usize; 2] {
    let rank = view.dims.len();
    [view.dims[rank - 2], view.dims[rank - 1]]
}

/// A walk over rows that each lie in one piece, one behind the other: `[rows, k]`.
pub(super) fn row_walk(x: &View) -> Option<Access> {
    let k = *x.dims.last()?;
    let rows = x.elements() / k.max(1);
    let matrix = x.reshaped(&[rows, k])?;
    // Strides of axes of length one mean nothing; these are the ones that a dense matrix has.
    let row = if rows == 1 { signed(k) } else { matrix.strides[0] };
    let element = if k == 1 { 1 } else { matrix.strides[1] };
    (element == 1 && row >= 0).then(|| Access { operand: x.operand, offset: x.offset, strides: vec![row, 1] })
}

/// Dense rows in any order of the other axes: the order of all axes in memory with `last` axes at its end, if they lie so.
pub(super) fn rows_in_memory(x: &View, last: usize, elements: usize) -> Option<(Vec<usize>, Operand)> {
    let order = x.dense_order(elements)?;
    let first = x.dims.len() - last;
    let long = |axis: &&usize| x.dims[**axis] != 1;
    let mut columns: Vec<usize> = order.iter().filter(long).copied().filter(|&axis| axis >= first).collect();
    let tail: Vec<usize> =
        order.iter().filter(long).copied().skip(order.iter().filter(long).count() - columns.len()).collect();
    columns.sort_unstable();
    (tail == columns).then_some((order, x.operand))
}
