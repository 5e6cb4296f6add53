//! Nodes that only move elements: views where a walk will do, copies and gathers where not.

use super::view::{View, signed};
use super::{Lowering, PlanError};
use crate::infer::Note;
use crate::net::{Node, Source};
use crate::op::PadMode;
use crate::plan::{Operand, StepKind};
use crate::shape::{even_parts, permutation};
use crate::tensor::Tensor;
use tessera_core::DType;

impl Lowering<'_> {
    pub(super) fn reshape(&mut self, node: &Node) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let out = self.output_id(node)?;
        let dims = self.net.dims(out);
        let view = match x.reshaped(dims) {
            Some(view) => view,
            None => View::dense(self.dense(node, &x), dims),
        };
        self.set(out, view);
        Ok(())
    }

    pub(super) fn transpose(&mut self, node: &Node, perm: &[usize]) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let Some(perm) = permutation(perm, x.dims.len()) else {
            return Err(self.unsupported(node, format!("{perm:?} is no order of its axes")));
        };
        let view = x.permuted(&perm);
        let out = self.output_id(node)?;
        self.set(out, view);
        Ok(())
    }

    pub(super) fn expand(&mut self, node: &Node) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let out = self.output_id(node)?;
        let dims = self.net.dims(out);
        let Some(view) = x.expanded(dims) else {
            return Err(self.unsupported(node, format!("{:?} cannot be broadcast to {dims:?}", x.dims)));
        };
        self.set(out, view);
        Ok(())
    }

    pub(super) fn slice(&mut self, node: &Node) -> Result<(), PlanError> {
        let mut view = self.input(node, 0)?;
        let out = self.output_id(node)?;
        let Some(Note::Slice { starts, steps }) = &node.note else {
            return Err(self.unsupported(node, "its bounds are not known"));
        };
        for (axis, &count) in self.net.dims(out).iter().enumerate() {
            let step = isize::try_from(steps[axis]).unwrap_or(isize::MAX);
            // The step of a single element leads nowhere, and may be too large to multiply by.
            view = view.sliced(axis, starts[axis], if count == 1 { 1 } else { step }, count);
        }
        self.set(out, view);
        Ok(())
    }

    pub(super) fn split(&mut self, node: &Node, axis: i64) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        // One part is all of it: also along the item axis, where its size is the number of items and no integer.
        if let [whole] = node.outputs[..] {
            if let Some(id) = whole {
                self.set(id, x);
            }
            return Ok(());
        }
        let axis = self.axis(node, axis, x.dims.len())?;
        let given = node.inputs.get(1).copied().flatten().and_then(|id| self.net.integers(id));
        let sizes = match given {
            Some(sizes) => sizes.into_iter().map(|size| usize::try_from(size).ok()).collect(),
            None => even_parts(x.dims[axis], node.outputs.len()),
        };
        let Some(sizes) = sizes.filter(|sizes: &Vec<usize>| sizes.len() == node.outputs.len()) else {
            return Err(self.unsupported(node, "its sizes are not known"));
        };
        let mut start = 0;
        for (output, size) in node.outputs.iter().zip(sizes) {
            if let Some(id) = *output {
                // The start of an empty part may be the end of the tensor, where nothing lies.
                let from = if size == 0 { 0 } else { start };
                self.set(id, x.sliced(axis, from, 1, size));
            }
            start += size;
        }
        Ok(())
    }

    pub(super) fn concat(&mut self, node: &Node, axis: i64) -> Result<(), PlanError> {
        let out = self.output_id(node)?;
        let dims = self.net.dims(out).to_vec();
        let axis = self.axis(node, axis, dims.len())?;
        let mut parts = Vec::with_capacity(node.inputs.len());
        for index in 0..node.inputs.len() {
            parts.push(self.input(node, index)?);
        }
        parts.retain(|part| part.elements() > 0);
        if let [only] = &parts[..] {
            self.set(out, only.clone());
            return Ok(());
        }
        let order = parts.iter().max_by_key(|part| part.elements()).map_or_else(Vec::new, View::memory_order);
        let (buffer, view) = self.make(self.net.get(out).dtype, &dims, &order);
        let mut start = 0;
        for part in &parts {
            let to = view.sliced(axis, start, 1, part.dims[axis]);
            self.copy(node, &part.permuted(&order), buffer, &to.permuted(&order));
            start += part.dims[axis];
        }
        self.set(out, view);
        Ok(())
    }

    pub(super) fn pad(&mut self, node: &Node, mode: PadMode) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let out = self.output_id(node)?;
        let dims = self.net.dims(out).to_vec();
        let Some(Note::Pad { before, after }) = &node.note else {
            return Err(self.unsupported(node, "its sizes are not known"));
        };
        if before.iter().chain(after).all(|&pad| pad == 0) {
            self.set(out, x);
            return Ok(());
        }
        if mode != PadMode::Constant {
            return self.pad_by_rows(node, mode, x, before);
        }
        // Negative padding cuts elements off first.
        let mut inner = x;
        for axis in 0..dims.len() {
            let cut = [before[axis], after[axis]].map(|pad| usize::try_from(-pad.min(0)).unwrap_or(0));
            let kept = inner.dims[axis].saturating_sub(cut[0] + cut[1]);
            inner = inner.sliced(axis, cut[0], 1, kept);
        }
        let dtype = self.net.get(out).dtype;
        let order = inner.memory_order();
        let (buffer, view) = self.make(dtype, &dims, &order);
        let value = node.inputs.get(2).copied().flatten();
        match value.map(|id| (id, self.net.tensor(id))) {
            None => {
                let value = Tensor::new(dtype, vec![], vec![0; dtype.size()]).expect("one element");
                self.push(node, StepKind::Fill { value, out: buffer }, 0);
            }
            Some((_, Some(tensor))) if tensor.len() == 1 && tensor.dtype() == dtype => {
                let value = tensor.reshaped(vec![]).expect("one element");
                self.push(node, StepKind::Fill { value, out: buffer }, 0);
            }
            Some((id, _)) => {
                let value = self.view(node, id)?;
                let Some(everywhere) = value.expanded(&dims) else {
                    return Err(self.unsupported(node, "its value is not one element"));
                };
                self.copy(node, &everywhere.permuted(&order), buffer, &view.permuted(&order));
            }
        }
        if inner.elements() > 0 {
            let mut to = view.clone();
            for (axis, &pad) in before.iter().enumerate() {
                to = to.sliced(axis, usize::try_from(pad.max(0)).unwrap_or(0), 1, inner.dims[axis]);
            }
            self.copy(node, &inner.permuted(&order), buffer, &to.permuted(&order));
        }
        self.set(out, view);
        Ok(())
    }

    /// Padding that repeats the input: every padded axis is a gather of its own elements.
    fn pad_by_rows(&mut self, node: &Node, mode: PadMode, x: View, before: &[i64]) -> Result<(), PlanError> {
        let out = self.output_id(node)?;
        let mut view = x;
        for (axis, &count) in self.net.dims(out).iter().enumerate() {
            let length = signed(view.dims[axis]) as i64;
            if view.dims[axis] == count && before[axis] == 0 {
                continue;
            }
            self.table(node, count)?;
            let ids: Vec<i64> = (0..count as i64).map(|at| source(mode, at - before[axis], length)).collect();
            view = self.take(node, &view, axis, &Tensor::from_elements(&[count], &ids))?;
        }
        self.set(out, view);
        Ok(())
    }

    pub(super) fn gather(&mut self, node: &Node, axis: i64) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let out = self.output_id(node)?;
        let axis = self.axis(node, axis, x.dims.len())?;
        let ids = self.input_id(node, 1)?;
        let known = match &node.note {
            Some(Note::WithinItem { indices }) => Some(indices.clone()),
            _ => self.net.tensor(ids).and_then(as_i64),
        };
        if let Some(ids) = known {
            let view = self.take(node, &x, axis, &ids)?;
            self.set(out, view);
            return Ok(());
        }
        let dims = self.net.dims(out).to_vec();
        let ids_view = self.input(node, 1)?;
        if !matches!(self.dtype_of(ids_view.operand), DType::I32 | DType::I64) {
            return Err(self.unsupported(node, "its indices must be i32 or i64"));
        }
        let ids_operand = self.dense(node, &ids_view);
        let table = self.dense(node, &x);
        let buffer = self.buffer(self.dtype_of(table), dims.iter().product());
        let kind = StepKind::Gather {
            table,
            ids: ids_operand,
            outer: x.dims[..axis].iter().product(),
            rows: x.dims[axis],
            row: x.dims[axis + 1..].iter().product(),
            count: ids_view.elements(),
            what: self.origin(ids),
            out: buffer,
        };
        self.push(node, kind, 0);
        self.set(out, View::dense(Operand::Buffer(buffer), &dims));
        Ok(())
    }

    /// The request's input that a value comes from, by way of nodes that keep elements as they are; else its own name.
    pub(super) fn origin(&self, mut id: crate::graph::ValueId) -> String {
        loop {
            let value = self.net.get(id);
            let before =
                self.net.maker(id).and_then(|at| self.net.nodes[at].inputs.first().copied().flatten());
            match (&value.source, before) {
                (Source::Made, Some(before)) => id = before,
                _ => return value.name.clone(),
            }
        }
    }

    /// Known rows of a view: a walk where their numbers are evenly spaced, else a gather.
    pub(super) fn take(
        &mut self,
        node: &Node,
        x: &View,
        axis: usize,
        ids: &Tensor,
    ) -> Result<View, PlanError> {
        let numbers = self.numbers(node, ids, x.dims[axis])?;
        let dims = [&x.dims[..axis], ids.dims(), &x.dims[axis + 1..]].concat();
        if let Some((first, steps)) = even(ids.dims(), &numbers) {
            let start = x.sliced(axis, first, 1, 1);
            let strides = steps.iter().map(|step| step * x.strides[axis]).collect::<Vec<_>>();
            let strides = [&x.strides[..axis], &strides, &x.strides[axis + 1..]].concat();
            return Ok(View { operand: x.operand, offset: start.offset, dims, strides });
        }
        let (order, table, lines) = self.lines(node, x, axis);
        let all: Vec<i64> = numbers.iter().map(|&number| signed(number) as i64).collect();
        // As rows of a list of numbers, in the order in which x lies.
        let mut taken = x.dims.clone();
        taken[axis] = all.len();
        self.bounded(self.dtype_of(table), &taken)?;
        let (buffer, view) = self.make(self.dtype_of(table), &taken, &order);
        let kind = StepKind::Gather {
            table,
            ids: Operand::Constant(self.constant(&Tensor::from_elements(&[all.len()], &all))),
            outer: lines.outer,
            rows: lines.length,
            row: lines.inner,
            count: all.len(),
            what: self.node_name(node),
            out: buffer,
        };
        self.push(node, kind, 0);
        Ok(view.reshaped(&dims).expect("one axis is cut into those of the numbers"))
    }

    /// Indices that are known, each inside `0..rows`.
    pub(super) fn numbers(&self, node: &Node, ids: &Tensor, rows: usize) -> Result<Vec<usize>, PlanError> {
        let rows = i64::try_from(rows).expect("a dimension fits memory");
        let ids = ids.elements::<i64>().unwrap_or_default();
        let inside =
            |id: i64| usize::try_from(if id < 0 { id + rows } else { id }).ok().filter(|_| id < rows);
        match ids.iter().map(|&id| inside(id)).collect() {
            Some(numbers) => Ok(numbers),
            None => Err(self.unsupported(node, format!("an index is outside {}..{rows}", -rows))),
        }
    }
}

/// Integers of either width as i64.
pub(super) fn as_i64(tensor: &Tensor) -> Option<Tensor> {
    let wide = tensor
        .elements::<i64>()
        .or_else(|| tensor.elements::<i32>().map(|all| all.into_iter().map(i64::from).collect()))?;
    Some(Tensor::from_elements(tensor.dims(), &wide))
}

/// The first number and the step along every axis, when all numbers follow from these.
pub(super) fn even(dims: &[usize], numbers: &[usize]) -> Option<(usize, Vec<isize>)> {
    let &first = numbers.first()?;
    let places = super::view::dense_strides(dims);
    let steps: Vec<isize> = dims
        .iter()
        .zip(&places)
        .map(|(&dim, &place)| if dim == 1 { 0 } else { signed(numbers[place as usize]) - signed(first) })
        .collect();
    let expected = |at: usize| {
        let mut rest = signed(at);
        places.iter().zip(&steps).fold(signed(first), |sum, (place, step)| {
            let index = rest / place;
            rest %= place;
            sum + index * step
        })
    };
    numbers.iter().enumerate().all(|(at, &number)| signed(number) == expected(at)).then_some((first, steps))
}

/// Which element of an axis of `length` stands at `at`, which may lie outside.
fn source(mode: PadMode, at: i64, length: i64) -> i64 {
    match mode {
        PadMode::Wrap => at.rem_euclid(length),
        PadMode::Reflect if length > 1 => {
            // There and back again, the borders once each.
            let turn = at.rem_euclid(2 * (length - 1));
            turn.min(2 * (length - 1) - turn)
        }
        PadMode::Reflect | PadMode::Edge | PadMode::Constant => at.clamp(0, length - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evenly_spaced_numbers_are_a_walk() {
        assert_eq!(even(&[4], &[3, 5, 7, 9]), Some((3, vec![2])));
        assert_eq!(even(&[1, 3], &[2, 2, 2]), Some((2, vec![0, 0])));
        assert_eq!(even(&[2, 2], &[0, 1, 4, 5]), Some((0, vec![4, 1])));
        assert_eq!(even(&[3], &[0, 1, 3]), None);
        assert_eq!(even(&[], &[7]), Some((7, vec![])));
    }

    #[test]
    fn reflections_leave_the_border_element_alone() {
        let padded: Vec<i64> = (-2..6).map(|at| source(PadMode::Reflect, at, 4)).collect();
        assert_eq!(padded, [2, 1, 0, 1, 2, 3, 2, 1]);
        assert_eq!(source(PadMode::Wrap, -1, 4), 3);
        assert_eq!(source(PadMode::Edge, 9, 4), 3);
    }
}
