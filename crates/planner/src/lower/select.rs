//! Nodes that choose or change elements by number or by value.
//!
//! Numbers that follow from shapes and literals are walks or gathers of rows; those of a request are checked where they are used.

use super::moves::{as_i64, even};
use super::view::{View, dense_strides, signed};
use super::work::work;
use super::{Lowering, PlanError};
use crate::graph::ValueId;
use crate::infer::Note;
use crate::net::Node;
use crate::op;
use crate::plan::{CumSum, Operand, Pick, Points, Scatter, StepKind, TopK};
use crate::tensor::Tensor;
use std::collections::HashSet;
use tessera_core::DType;

impl Lowering<'_> {
    pub(super) fn top_k(&mut self, node: &Node, axis: i64, largest: bool) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let axis = self.axis(node, axis, x.dims.len())?;
        let wanted = [0, 1].map(|index| node.outputs.get(index).copied().flatten());
        let Some(&made) = wanted.iter().flatten().next() else { return Ok(()) };
        let dims = self.net.dims(made).to_vec();
        let views =
            self.ranked(node, &x, axis, dims[axis], [largest, false], wanted.map(|id| id.is_some()))?;
        for (id, view) in wanted.into_iter().zip(views) {
            if let (Some(id), Some(view)) = (id, view) {
                self.set(id, view);
            }
        }
        Ok(())
    }

    pub(super) fn arg(&mut self, node: &Node, axis: i64, largest: bool, last: bool) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let axis = self.axis(node, axis, x.dims.len())?;
        let out = self.output_id(node)?;
        let [_, indices] = self.ranked(node, &x, axis, 1, [largest, last], [false, true])?;
        let view = indices.and_then(|view| view.reshaped(self.net.dims(out)));
        self.set(out, view.expect("an axis of length one stays or goes"));
        Ok(())
    }

    /// The first `k` elements along an axis and their numbers, those of the two that are wanted.
    fn ranked(
        &mut self,
        node: &Node,
        x: &View,
        axis: usize,
        k: usize,
        [largest, last]: [bool; 2],
        [values, indices]: [bool; 2],
    ) -> Result<[Option<View>; 2], PlanError> {
        let dtype = self.dtype_of(x.operand);
        let (order, operand, lines) = self.lines(node, x, axis);
        let mut dims = x.dims.clone();
        dims[axis] = k;
        let values = values.then(|| self.make(dtype, &dims, &order));
        let indices = indices.then(|| self.make(DType::I64, &dims, &order));
        let step = TopK {
            x: operand,
            lines,
            k,
            largest,
            last,
            values: values.as_ref().map(|(buffer, _)| *buffer),
            indices: indices.as_ref().map(|(buffer, _)| *buffer),
        };
        self.push(node, StepKind::TopK(step), (lines.elements() * k) as u64);
        Ok([values, indices].map(|made| made.map(|(_, view)| view)))
    }

    pub(super) fn cum_sum(&mut self, node: &Node, exclusive: bool, reverse: bool) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let out = self.output_id(node)?;
        let axis = self.net.integers(self.input_id(node, 1)?).and_then(|axis| axis.first().copied());
        let axis = axis.ok_or_else(|| self.unsupported(node, "its axis is not known"))?;
        let axis = self.axis(node, axis, x.dims.len())?;
        let dtype = self.dtype_of(x.operand);
        let (order, operand, lines) = self.lines(node, &x, axis);
        let (buffer, view) = self.make(dtype, &x.dims, &order);
        let step = CumSum { x: operand, lines, exclusive, reverse, out: buffer };
        self.push(node, StepKind::CumSum(step), lines.elements() as u64);
        self.set(out, view);
        Ok(())
    }

    /// A node's indices where they are known, per item.
    fn known_indices(&self, node: &Node) -> Result<Option<Tensor>, PlanError> {
        Ok(match &node.note {
            Some(Note::WithinItem { indices }) => Some(indices.clone()),
            _ => self.net.tensor(self.input_id(node, 1)?).and_then(as_i64),
        })
    }

    /// The indices of a request as an operand.
    fn indices(&mut self, node: &Node) -> Result<(Operand, ValueId), PlanError> {
        let id = self.input_id(node, 1)?;
        let view = self.input(node, 1)?;
        match self.dtype_of(view.operand) {
            DType::I32 | DType::I64 => Ok((self.dense(node, &view), id)),
            _ => Err(self.unsupported(node, "its indices must be i32 or i64")),
        }
    }

    /// Known places of points, in order. Errors when a number is out of range.
    fn known_places(&self, node: &Node, points: &Points, indices: &Tensor) -> Result<Vec<usize>, PlanError> {
        let numbers = indices.elements::<i64>().unwrap_or_default();
        let spots = spots(&points.dims, &points.strides);
        let place = |(spot, numbers): (usize, &[i64])| {
            let along = numbers.iter().zip(points.sizes.iter().zip(&points.along));
            along.into_iter().try_fold(spot, |place, (&number, (&size, &along))| {
                let counted = if number < 0 { number.checked_add(signed(size) as i64)? } else { number };
                let inside = usize::try_from(counted).ok().filter(|&number| number < size)?;
                Some(place + inside * along)
            })
        };
        let places: Option<Vec<usize>> =
            spots.into_iter().zip(numbers.chunks(points.sizes.len())).map(place).collect();
        places
            .ok_or_else(|| self.unsupported(node, format!("an index is out of range of {:?}", points.sizes)))
    }

    /// The points of indices that name one axis of a value of `dims`.
    fn along_axis(&self, dims: &[usize], axis: usize, indices: &[usize]) -> Points {
        let mut strides: Vec<usize> =
            dense_strides(dims).iter().map(|stride| stride.unsigned_abs()).collect();
        let along = vec![std::mem::take(&mut strides[axis])];
        Points { dims: indices.to_vec(), strides, sizes: vec![dims[axis]], along, row: 1 }
    }

    /// The points of indices that name `depth` axes of a value of `dims`, after axes that both share.
    fn along_axes_from(&self, dims: &[usize], shared: usize, indices: &[usize]) -> Points {
        let strides: Vec<usize> = dense_strides(dims).iter().map(|stride| stride.unsigned_abs()).collect();
        let (points, depth) = (&indices[..indices.len() - 1], indices[indices.len() - 1]);
        let named = shared..shared + depth;
        Points {
            dims: points.to_vec(),
            strides: (0..points.len()).map(|axis| if axis < shared { strides[axis] } else { 0 }).collect(),
            sizes: dims[named.clone()].to_vec(),
            along: strides[named.clone()].to_vec(),
            row: dims[named.end..].iter().product(),
        }
    }

    pub(super) fn gather_elements(&mut self, node: &Node, axis: i64) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let axis = self.axis(node, axis, x.dims.len())?;
        let out = self.output_id(node)?;
        if let Some(indices) = self.known_indices(node)?
            && let Some(view) = self.walked_elements(node, &x, axis, &indices)?
        {
            self.set(out, view);
            return Ok(());
        }
        let points = self.along_axis(&x.dims, axis, self.net.dims(self.input_id(node, 1)?));
        self.pick(node, &x, points)
    }

    /// Known elements along an axis whose numbers are evenly spaced.
    fn walked_elements(
        &self,
        node: &Node,
        x: &View,
        axis: usize,
        indices: &Tensor,
    ) -> Result<Option<View>, PlanError> {
        let numbers = self.numbers(node, indices, x.dims[axis])?;
        let Some((first, steps)) = even(indices.dims(), &numbers) else { return Ok(None) };
        let mut view = x.sliced(axis, first, 1, 1);
        let along = x.strides[axis];
        view.strides[axis] = 0;
        view.strides.iter_mut().zip(&steps).for_each(|(stride, step)| *stride += step * along);
        view.dims = indices.dims().to_vec();
        Ok(Some(view))
    }

    pub(super) fn gather_nd(&mut self, node: &Node, batch_dims: usize) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let points = self.along_axes_from(&x.dims, batch_dims, self.net.dims(self.input_id(node, 1)?));
        self.pick(node, &x, points)
    }

    /// A row for every point: known ones as rows of one axis.
    fn pick(&mut self, node: &Node, x: &View, points: Points) -> Result<(), PlanError> {
        let out = self.output_id(node)?;
        let dims = self.net.dims(out).to_vec();
        let operand = self.dense(node, x);
        if let Some(indices) = self.known_indices(node)? {
            let places = self.known_places(node, &points, &indices)?;
            let rows: Vec<i64> =
                places.iter().map(|place| signed(place / points.row.max(1)) as i64).collect();
            let flat = View::dense(operand, &[x.elements() / points.row.max(1), points.row]);
            let view = self.take(node, &flat, 0, &Tensor::from_elements(&points.dims, &rows))?;
            let view = match view.reshaped(&dims) {
                Some(view) => view,
                None => View::dense(self.dense(node, &view), &dims),
            };
            self.set(out, view);
            return Ok(());
        }
        let (ids, id) = self.indices(node)?;
        let buffer = self.buffer(self.dtype_of(operand), dims.iter().product());
        let step = Pick { x: operand, points, ids, what: self.origin(id), out: buffer };
        self.push(node, StepKind::Pick(step), 0);
        self.set(out, View::dense(Operand::Buffer(buffer), &dims));
        Ok(())
    }

    pub(super) fn scatter_elements(
        &mut self,
        node: &Node,
        axis: i64,
        how: op::Scatter,
    ) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let axis = self.axis(node, axis, x.dims.len())?;
        let points = self.along_axis(&x.dims, axis, self.net.dims(self.input_id(node, 1)?));
        self.scatter(node, &x, points, how)
    }

    pub(super) fn scatter_nd(&mut self, node: &Node, how: op::Scatter) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let points = self.along_axes_from(&x.dims, 0, self.net.dims(self.input_id(node, 1)?));
        self.scatter(node, &x, points, how)
    }

    /// A copy of `x`, changed at every point.
    fn scatter(&mut self, node: &Node, x: &View, points: Points, how: op::Scatter) -> Result<(), PlanError> {
        let out = self.output_id(node)?;
        let updates = self.input(node, 2)?;
        if updates.elements() == 0 {
            self.set(out, x.clone());
            return Ok(());
        }
        let dtype = self.dtype_of(x.operand);
        if dtype == DType::Bool && how != op::Scatter::Replace {
            return Err(self.unsupported(node, "truths can be replaced, not added or compared"));
        }
        let buffer = self.buffer(dtype, x.elements());
        let whole = View::dense(Operand::Buffer(buffer), &x.dims);
        self.copy(node, x, buffer, &whole);
        self.set(out, whole);
        let known = self.known_indices(node)?;
        if let (Some(indices), op::Scatter::Replace) = (&known, how) {
            let places = self.known_places(node, &points, indices)?;
            if let Some(to) = written_walk(&points, &places, buffer) {
                let from = match updates.reshaped(&to.dims) {
                    Some(from) => from,
                    None => View::dense(self.dense(node, &updates), &to.dims),
                };
                self.copy(node, &from, buffer, &to);
                return Ok(());
            }
        }
        let (ids, what) = match known {
            Some(indices) => {
                self.known_places(node, &points, &indices)?;
                (Operand::Constant(self.constant(&indices)), self.node_name(node))
            }
            None => {
                let (ids, id) = self.indices(node)?;
                (ids, self.origin(id))
            }
        };
        let updates = self.dense(node, &updates);
        let flops = work(1, &[points.count(), points.row]);
        let step = Scatter { points, ids, what, updates, how, out: buffer };
        self.push(node, StepKind::Scatter(step), flops);
        Ok(())
    }
}

/// The positions of every index of `dims`.
fn spots(dims: &[usize], strides: &[usize]) -> Vec<usize> {
    dims.iter().zip(strides).fold(vec![0], |spots, (&dim, &stride)| {
        spots.iter().flat_map(|spot| (0..dim).map(move |index| spot + index * stride)).collect()
    })
}

/// The rows of known points as a walk that is written forwards and meets nothing twice.
fn written_walk(points: &Points, places: &[usize], buffer: crate::plan::BufferId) -> Option<View> {
    let (first, steps) = even(&points.dims, places)?;
    let distinct = places.iter().collect::<HashSet<_>>().len() == places.len();
    let forwards = points.dims.iter().zip(&steps).all(|(&dim, &step)| dim == 1 || step > 0);
    let dims = [&points.dims[..], &[points.row]].concat();
    let strides = [&steps[..], &[1]].concat();
    (distinct && forwards).then_some(View { operand: Operand::Buffer(buffer), offset: first, dims, strides })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spots_count_like_an_odometer() {
        assert_eq!(spots(&[2, 3], &[10, 0]), [0, 0, 0, 10, 10, 10]);
        assert_eq!(spots(&[], &[]), [0]);
    }
}
