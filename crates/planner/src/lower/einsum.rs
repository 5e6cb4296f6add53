//! Einsum: diagonals and orders of axes are walks, sums over one input are reductions, and the rest products of two.
//!
//! ```text
//!   a[i j k], b[j l k]  ─▶ sum what one alone has ─▶ batch = kept by both, k = summed, m and n = what either has alone
//!                       ─▶ MatMul [batch…, m, k]·[batch…, k, n]   or, where nothing is summed, an element-wise product
//! ```
//! Inputs are taken in their order, as the reference of ONNX does.

use super::view::{View, merge};
use super::work::work;
use super::{Lowering, PlanError};
use crate::net::Node;
use crate::op::{Binary, Equation, Reduction};
use crate::plan::{Access, ElementOp, StepKind};
use tessera_core::DType;

/// A value whose axes have letters, each once.
#[derive(Clone)]
struct Term {
    labels: Vec<u8>,
    view: View,
}

impl Term {
    /// The view with its axes in the order of `labels`.
    fn ordered(&self, labels: &[u8]) -> View {
        let order: Vec<usize> = labels.iter().filter_map(|label| self.axis(*label)).collect();
        self.view.permuted(&order)
    }

    fn axis(&self, label: u8) -> Option<usize> {
        self.labels.iter().position(|other| *other == label)
    }

    fn has(&self, label: u8) -> bool {
        self.labels.contains(&label)
    }
}

impl Lowering<'_> {
    pub(super) fn einsum(&mut self, node: &Node, equation: &Equation) -> Result<(), PlanError> {
        let out = self.output_id(node)?;
        let mut views = Vec::with_capacity(equation.inputs.len());
        for index in 0..equation.inputs.len() {
            views.push(self.input(node, index)?);
        }
        let shapes: Vec<&[usize]> = views.iter().map(|view| &view.dims[..]).collect();
        let lengths = equation
            .lengths(&shapes)
            .ok_or_else(|| self.unsupported(node, format!("its inputs do not fit {equation}")))?;
        let mut terms: Vec<Term> = views
            .iter()
            .zip(&equation.inputs)
            .map(|(view, labels)| diagonal(view, labels, &lengths))
            .collect();
        for term in &terms {
            self.bounded(self.dtype_of(term.view.operand), &term.view.dims)?;
        }
        if terms.iter().any(|term| !matches!(self.dtype_of(term.view.operand), DType::F32 | DType::I64)) {
            return Err(self.unsupported(node, "only f32 and i64 can be summed up; cast before it"));
        }
        terms.reverse();
        let mut done = terms.pop().ok_or_else(|| self.unsupported(node, "it has no inputs"))?;
        while let Some(next) = terms.pop() {
            let later =
                |label: u8| equation.output.contains(&label) || terms.iter().any(|term| term.has(label));
            let done_alone = self.summed(node, &done, |label| later(label) || next.has(label))?;
            let next_alone = self.summed(node, &next, |label| later(label) || done.has(label))?;
            done = self.contracted(node, &done_alone, &next_alone, later)?;
        }
        let done = self.summed(node, &done, |label| equation.output.contains(&label))?;
        let view = done.ordered(&equation.output);
        self.set(out, view);
        Ok(())
    }

    /// A term without the letters that are not kept.
    fn summed(&mut self, node: &Node, term: &Term, keep: impl Fn(u8) -> bool) -> Result<Term, PlanError> {
        let (kept, gone): (Vec<u8>, Vec<u8>) = term.labels.iter().partition(|label| keep(**label));
        if gone.is_empty() {
            return Ok(term.clone());
        }
        let view = term.ordered(&[&kept[..], &gone].concat());
        let (dims, reduced) = view.dims.split_at(kept.len());
        let x = view.access();
        let (buffer, made) = self.in_order(self.dtype_of(view.operand), dims);
        let kind = StepKind::Reduce {
            kind: Reduction::Sum,
            x,
            kept: dims.to_vec(),
            reduced: reduced.to_vec(),
            out: buffer,
        };
        self.push(node, kind, work(1, &view.dims));
        Ok(Term { labels: kept, view: made })
    }

    /// The product of two terms, summed over the letters that both have and nobody needs later.
    fn contracted(
        &mut self,
        node: &Node,
        a: &Term,
        b: &Term,
        later: impl Fn(u8) -> bool,
    ) -> Result<Term, PlanError> {
        let of = |term: &Term, wanted: &dyn Fn(u8) -> bool| -> Vec<u8> {
            term.labels.iter().copied().filter(|label| wanted(*label)).collect()
        };
        let batch = of(a, &|label| b.has(label) && later(label));
        let inner = of(a, &|label| b.has(label) && !later(label));
        let rows = of(a, &|label| !b.has(label));
        let columns = of(b, &|label| !a.has(label));
        let labels = [&batch[..], &rows, &columns].concat();
        let dims: Vec<usize> = labels
            .iter()
            .map(|&label| {
                let of = |term: &Term| term.axis(label).map(|axis| term.view.dims[axis]);
                of(a).or_else(|| of(b)).expect("a letter is of one of them")
            })
            .collect();
        let dtype = self.dtype_of(a.view.operand);
        self.bounded(dtype, &dims)?;
        if inner.is_empty() || dtype != DType::F32 {
            let all = [&labels[..], &inner].concat();
            let view = self.elementwise_product(node, a, b, &all)?;
            return self.summed(node, &Term { labels: all, view }, |label| !inner.contains(&label));
        }
        let size = |term: &Term, labels: &[u8]| -> usize {
            labels.iter().filter_map(|&label| term.axis(label)).map(|axis| term.view.dims[axis]).product()
        };
        let (m, n, k) = (size(a, &rows), size(b, &columns), size(a, &inner));
        let lead: Vec<usize> = dims[..batch.len()].to_vec();
        let left = self.matrices(node, &a.ordered(&[&batch[..], &rows, &inner].concat()), &lead, [m, k]);
        let right = self.matrices(node, &b.ordered(&[&batch[..], &inner, &columns].concat()), &lead, [k, n]);
        let (buffer, view) = self.in_order(DType::F32, &dims);
        self.push_mat_mul(node, &lead, [&left, &right], [m, n, k], buffer);
        Ok(Term { labels, view })
    }

    /// A new dense buffer, and the view of it.
    fn in_order(&mut self, dtype: DType, dims: &[usize]) -> (crate::plan::BufferId, View) {
        let order: Vec<usize> = (0..dims.len()).collect();
        self.make(dtype, dims, &order)
    }

    /// A view as `[lead…, rows, columns]`; copied where no walk does that.
    fn matrices(&mut self, node: &Node, view: &View, lead: &[usize], matrix: [usize; 2]) -> View {
        let dims = [lead, &matrix].concat();
        match view.reshaped(&dims) {
            Some(view) => view,
            None => View::dense(self.dense(node, view), &dims),
        }
    }

    /// Every pair of elements multiplied, broadcast over the letters that one of them lacks.
    fn elementwise_product(
        &mut self,
        node: &Node,
        a: &Term,
        b: &Term,
        labels: &[u8],
    ) -> Result<View, PlanError> {
        let walked = |term: &Term| {
            let stride = |label: &u8| term.axis(*label).map_or(0, |axis| term.view.strides[axis]);
            labels.iter().map(stride).collect::<Vec<isize>>()
        };
        let length = |label: &u8| {
            let of = |term: &Term| term.axis(*label).map(|axis| term.view.dims[axis]);
            of(a).or_else(|| of(b)).expect("a letter is of one of them")
        };
        let dims: Vec<usize> = labels.iter().map(length).collect();
        let dtype = self.dtype_of(a.view.operand);
        self.bounded(dtype, &dims)?;
        let strides = [walked(a), walked(b)];
        let merged = merge(&dims, &[&strides[0], &strides[1]]);
        let (buffer, view) = self.in_order(dtype, &dims);
        let access = |term: &Term, which: usize| Access {
            operand: term.view.operand,
            offset: term.view.offset,
            strides: merged.iter().map(|(_, strides)| strides[which]).collect(),
        };
        let kind = StepKind::Elementwise {
            dims: merged.iter().map(|(dim, _)| *dim).collect(),
            inputs: vec![access(a, 0), access(b, 1)],
            program: vec![ElementOp::Load(0), ElementOp::Load(1), ElementOp::Binary(Binary::Mul, 0, 1)],
            out: buffer,
        };
        self.push(node, kind, work(1, &dims));
        Ok(view)
    }
}

/// An input with one axis per letter: the diagonal where a letter stands twice, repeated where a length of one meets a longer one.
fn diagonal(view: &View, labels: &[u8], lengths: &[usize]) -> Term {
    let mut own: Vec<u8> = Vec::new();
    labels.iter().for_each(|label| own.extend((!own.contains(label)).then_some(*label)));
    let strides = own.iter().map(|label| {
        let axes = labels.iter().enumerate().filter(|(axis, other)| *other == label && view.dims[*axis] != 1);
        axes.map(|(axis, _)| view.strides[axis]).sum()
    });
    let strides = strides.collect();
    let dims = own.iter().map(|&label| lengths[usize::from(label)]).collect();
    Term { labels: own, view: View { dims, strides, ..view.clone() } }
}
