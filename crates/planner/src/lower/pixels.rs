//! Nodes that regroup or repeat elements, and images made larger or smaller.
//!
//! What repeats or regroups is a walk over more axes than the result has; one copy joins them, in the order in which the input lies,
//! so that an image that lies channels last stays so.

use super::view::View;
use super::work::work;
use super::{Lowering, PlanError};
use crate::infer::Note;
use crate::net::Node;
use crate::op::{Coordinates, Resize};
use crate::plan::{ConstantId, ElementOp, Lines, Operand, Resample, StepKind};
use crate::resample::{Axis, Taps};
use crate::tensor::Tensor;
use tessera_core::DType;

impl Lowering<'_> {
    /// The view as the lines of one of its axes, in the order in which it lies if that will do: the order, the operand, the lines.
    pub(super) fn lines(&mut self, node: &Node, x: &View, axis: usize) -> (Vec<usize>, Operand, Lines) {
        let order = x.dense_order(self.size_of(x.operand)).unwrap_or_else(|| (0..x.dims.len()).collect());
        let operand = self.dense_in(node, x, &order);
        let at = order.iter().position(|&other| other == axis).expect("an order holds every axis");
        let product = |axes: &[usize]| axes.iter().map(|&axis| x.dims[axis]).product();
        let (outer, inner) = (product(&order[..at]), product(&order[at + 1..]));
        (order, operand, Lines { outer, length: x.dims[axis], inner })
    }

    /// A walk whose axes stand in groups, each of which becomes one axis of the result: `groups` are their sizes, `order` is how the result's
    /// axes should lie if they must be copied.
    fn joined(&mut self, node: &Node, split: &View, groups: &[usize], order: &[usize]) -> View {
        let mut dims = Vec::with_capacity(groups.len());
        let mut starts = Vec::with_capacity(groups.len());
        let mut next = 0;
        for &group in groups {
            starts.push(next);
            dims.push(split.dims[next..next + group].iter().product());
            next += group;
        }
        if let Some(view) = split.reshaped(&dims) {
            return view;
        }
        let inner: Vec<usize> =
            order.iter().flat_map(|&axis| starts[axis]..starts[axis] + groups[axis]).collect();
        let operand = self.dense_in(node, split, &inner);
        View::ordered(operand, &dims, order)
    }

    /// Every axis as a whole so many times, and every element of it so many times.
    fn repeated(&mut self, node: &Node, x: &View, whole: &[usize], each: &[usize]) -> View {
        let (mut dims, mut strides) = (Vec::new(), Vec::new());
        for axis in 0..x.dims.len() {
            dims.extend([whole[axis], x.dims[axis], each[axis]]);
            strides.extend([0, x.strides[axis], 0]);
        }
        let split = View { dims, strides, ..x.clone() };
        self.joined(node, &split, &vec![3; x.dims.len()], &x.memory_order())
    }

    pub(super) fn tile(&mut self, node: &Node) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let out = self.output_id(node)?;
        let repeats: Vec<usize> =
            self.net.dims(out).iter().zip(&x.dims).map(|(&out, &x)| out / x.max(1)).collect();
        let view = self.repeated(node, &x, &repeats, &vec![1; repeats.len()]);
        self.set(out, view);
        Ok(())
    }

    pub(super) fn depth_to_space(
        &mut self,
        node: &Node,
        block: usize,
        depth_first: bool,
    ) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let out = self.output_id(node)?;
        let [n, c, h, w] = self.image(node, &x)?;
        let depth = c / (block * block);
        let (split, perm) = match depth_first {
            true => ([n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2]),
            false => ([n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3]),
        };
        let view = x.reshaped(&split).expect("axes are only cut").permuted(&perm);
        let view = self.joined(node, &view, &[1, 1, 2, 2], &x.memory_order());
        self.set(out, view);
        Ok(())
    }

    pub(super) fn space_to_depth(
        &mut self,
        node: &Node,
        block: usize,
        depth_first: bool,
    ) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let out = self.output_id(node)?;
        let [n, c, h, w] = self.image(node, &x)?;
        let perm = if depth_first { [0, 3, 5, 1, 2, 4] } else { [0, 1, 3, 5, 2, 4] };
        let split = x.reshaped(&[n, c, h / block, block, w / block, block]).expect("axes are only cut");
        let view = self.joined(node, &split.permuted(&perm), &[1, 3, 1, 1], &x.memory_order());
        self.set(out, view);
        Ok(())
    }

    fn image(&self, node: &Node, x: &View) -> Result<[usize; 4], PlanError> {
        x.dims[..].try_into().map_err(|_| self.unsupported(node, "it is no image of four axes"))
    }

    pub(super) fn resize(&mut self, node: &Node, resize: &Resize) -> Result<(), PlanError> {
        let x = self.input(node, 0)?;
        let out = self.output_id(node)?;
        let Some(Note::Resize { axes }) = &node.note else {
            return Err(self.unsupported(node, "its sizes are not known"));
        };
        let mut tables: Vec<(Axis, Taps)> = axes.iter().map(|axis| (*axis, Taps::of(resize, axis))).collect();
        // What shrinks goes first: less is left for the others.
        tables.sort_by(|(a, _), (b, _)| a.scale.total_cmp(&b.scale));
        let inside = tables.iter().all(|(axis, taps)| taps.inside == (0..axis.output));
        let empty = tables.iter().any(|(_, taps)| taps.inside.is_empty());
        let mut view = x;
        if !empty {
            view = self.along_axes(node, view, &tables)?;
        }
        if !inside {
            view = self.surrounded(node, resize, &view, &tables, out)?;
        }
        self.set(out, view);
        Ok(())
    }

    fn along_axes(&mut self, node: &Node, x: View, tables: &[(Axis, Taps)]) -> Result<View, PlanError> {
        // Elements that are repeated, in one copy for all axes.
        let mut each = vec![1; x.dims.len()];
        let mut others = Vec::new();
        for (axis, taps) in tables {
            let times = axis.output / axis.input;
            match taps.single() {
                Some(at)
                    if at.len() == times * axis.input
                        && at.iter().enumerate().all(|(place, &from)| place / times == from) =>
                {
                    each[axis.axis] = times;
                }
                single => others.push((axis, taps, single)),
            }
        }
        let dtype = self.dtype_of(x.operand);
        let mut view = x;
        for (axis, taps, single) in others {
            view = match single {
                Some(at) => {
                    let at: Vec<i64> = at.into_iter().map(|at| at as i64).collect();
                    self.take(node, &view, axis.axis, &Tensor::from_elements(&[at.len()], &at))?
                }
                None => {
                    if self.dtype_of(view.operand) != DType::F32 {
                        view = self.cast(node, &view, DType::F32);
                    }
                    self.resampled(node, &view, axis.axis, taps)
                }
            };
        }
        if each.iter().any(|&times| times > 1) {
            view = self.repeated(node, &view, &vec![1; each.len()], &each);
        }
        if self.dtype_of(view.operand) != dtype {
            view = self.cast(node, &view, dtype);
        }
        Ok(view)
    }

    fn resampled(&mut self, node: &Node, x: &View, axis: usize, taps: &Taps) -> View {
        let (order, operand, lines) = self.lines(node, x, axis);
        let count = taps.inside.len();
        let mut dims = x.dims.clone();
        dims[axis] = count;
        let (out, view) = self.make(DType::F32, &dims, &order);
        let shape = [count, taps.count];
        let at: Vec<i32> =
            taps.at.iter().map(|&at| i32::try_from(at).expect("an axis is shorter than 2³¹")).collect();
        let weights: Vec<f32> = taps.weights.iter().map(|&weight| weight as f32).collect();
        let at: ConstantId = self.constant(&Tensor::from_elements(&shape, &at));
        let weights = self.constant(&Tensor::from_elements(&shape, &weights));
        let flops = work(2, &[lines.with_length(count).elements(), taps.count]);
        let step = Resample { x: operand, lines, count, taps: taps.count, at, weights, out };
        self.push(node, StepKind::Resample(step), flops);
        view
    }

    /// A view of elements as another type.
    pub(super) fn cast(&mut self, node: &Node, x: &View, to: DType) -> View {
        let order = x.memory_order();
        let walked = x.permuted(&order);
        let (out, view) = self.make(to, &x.dims, &order);
        let program = vec![ElementOp::Load(0), ElementOp::Cast(to, 0)];
        let kind =
            StepKind::Elementwise { dims: walked.dims.clone(), inputs: vec![walked.access()], program, out };
        self.push(node, kind, 0);
        view
    }

    /// What was resized inside a region, in the middle of what is outside it.
    fn surrounded(
        &mut self,
        node: &Node,
        resize: &Resize,
        inner: &View,
        tables: &[(Axis, Taps)],
        out: crate::graph::ValueId,
    ) -> Result<View, PlanError> {
        let Coordinates::CropAndResize { extrapolation } = resize.coordinates else {
            return Err(self.unsupported(node, "only a crop has an outside"));
        };
        let (dtype, dims) = (self.net.get(out).dtype, self.net.dims(out).to_vec());
        let order = inner.memory_order();
        let (buffer, view) = self.make(dtype, &dims, &order);
        let value =
            crate::reference::eval(&crate::op::Op::Cast(dtype), &[Some(&Tensor::scalar(extrapolation))], 1);
        let value = value.map_err(|error| self.unsupported(node, error.to_string()))?.swap_remove(0);
        self.push(node, StepKind::Fill { value, out: buffer }, 0);
        if tables.iter().all(|(_, taps)| !taps.inside.is_empty()) {
            let to = tables.iter().fold(view.clone(), |to, (axis, taps)| {
                to.sliced(axis.axis, taps.inside.start, 1, taps.inside.len())
            });
            self.copy(node, &inner.permuted(&order), buffer, &to.permuted(&order));
        }
        Ok(view)
    }

    /// One element everywhere, however many there are.
    pub(super) fn constant_of_shape(&mut self, node: &Node, value: &Tensor) -> Result<(), PlanError> {
        let out = self.output_id(node)?;
        let operand = Operand::Constant(self.constant(value));
        let dims = self.net.dims(out).to_vec();
        self.set(out, View { operand, offset: 0, strides: vec![0; dims.len()], dims });
        Ok(())
    }
}
