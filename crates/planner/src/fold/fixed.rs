//! Values that are fixed before the first request: literals, weights, and what follows from them.
//!
//! ```text
//!   Fixed { dims, expr }  ──apply(op)──▶  Fixed { dims′, op(expr, …) }
//! ```
//! [`Fixed::apply`] is the one way in which expressions grow. It knows the shape of what it makes without evaluating anything;
//! an operator that it does not know stays a step of the plan, which is always right and sometimes slower.

use super::WeightExpr;
use crate::op::{Binary, Op, Unary};
use crate::tensor::Tensor;
use tessera_core::DType;

/// Operators in one expression. Real models need about ten; a hostile graph that doubles a value forty times must not
/// make a tree of 2⁴⁰ of them.
pub(super) const LARGEST_EXPR: usize = 64;

/// A value that is known once the weights are.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    /// The parameter that it mainly comes from.
    pub(super) name: String,
    /// Its element type: f32 for all that depends on weights.
    pub(super) dtype: DType,
    /// Its dimensions.
    pub(super) dims: Vec<usize>,
    /// How it is computed.
    pub(super) expr: WeightExpr,
    /// Operators in `expr`.
    pub(super) size: usize,
    /// Whether it depends on a weight: if not, it is the same for every tenant of the class.
    pub(super) weighs: bool,
}

impl Fixed {
    /// A value that is the same for every tenant.
    pub(super) fn literal(name: impl Into<String>, tensor: Tensor) -> Fixed {
        Fixed {
            name: name.into(),
            dtype: tensor.dtype(),
            dims: tensor.dims().to_vec(),
            expr: WeightExpr::Literal(tensor),
            size: 0,
            weighs: false,
        }
    }

    /// A list of integers, as operators take their axes and shapes.
    fn integers(list: &[i64]) -> Fixed {
        Fixed::literal("integers", Tensor::from_elements(&[list.len()], list))
    }

    /// Its elements, when it is a literal.
    pub(super) fn tensor(&self) -> Option<&Tensor> {
        match &self.expr {
            WeightExpr::Literal(tensor) => Some(tensor),
            WeightExpr::Param(_) | WeightExpr::Apply { .. } => None,
        }
    }

    /// Its elements as integers, when it is an integer literal.
    pub(super) fn as_integers(&self) -> Option<Vec<i64>> {
        let tensor = self.tensor()?;
        tensor
            .elements::<i64>()
            .or_else(|| Some(tensor.elements::<i32>()?.into_iter().map(i64::from).collect()))
    }

    /// Number of elements.
    pub(super) fn elements(&self) -> usize {
        count(&self.dims)
    }

    /// The value in single precision, in which all expressions are computed: a half-precision weight is widened before
    /// anything is folded into it, so that folding does not round twice.
    pub(super) fn single(&self) -> Fixed {
        if !self.dtype.is_float() || self.dtype == DType::F32 {
            return self.clone();
        }
        let mut single = self.wrap(Op::Cast(DType::F32), vec![Some(self.expr.clone())]);
        single.dtype = DType::F32;
        single
    }

    /// The same elements under another shape.
    pub(super) fn reshaped(&self, dims: &[usize]) -> Fixed {
        if self.dims == dims {
            return self.clone();
        }
        let shape: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
        Fixed::apply(&Op::Reshape { allow_zero: true }, &[Some(self), Some(&Fixed::integers(&shape))])
            .expect("the caller keeps the number of elements")
    }

    /// A single element repeated, or a vector of that length left as it is.
    pub(super) fn spread(&self, length: usize) -> Fixed {
        if self.dims == [length] {
            return self.clone();
        }
        let to = Fixed::integers(&[length as i64]);
        Fixed::apply(&Op::Expand, &[Some(&self.reshaped(&[1])), Some(&to)]).expect("one element spreads")
    }

    /// Elements `from..to` of an axis.
    pub(super) fn sliced(&self, axis: usize, from: usize, to: usize) -> Fixed {
        if from == 0 && to == self.dims[axis] {
            return self.clone();
        }
        let [from, to, axis] = [from, to, axis].map(|number| Fixed::integers(&[number as i64]));
        Fixed::apply(&Op::Slice, &[Some(self), Some(&from), Some(&to), Some(&axis)])
            .expect("the caller slices inside the axis")
    }

    /// A matrix, its axes exchanged.
    pub(super) fn transposed(&self) -> Fixed {
        self.permuted(vec![1, 0])
    }

    /// Axis `i` is axis `perm[i]` of this.
    pub(super) fn permuted(&self, perm: Vec<usize>) -> Fixed {
        Fixed::apply(&Op::Transpose { perm }, &[Some(self)]).expect("the caller brings as many axes")
    }

    /// The elements of an axis of so many, last to first.
    pub(super) fn reversed(&self, axis: usize, length: usize) -> Fixed {
        let backwards: Vec<i64> = (0..length as i64).rev().collect();
        Fixed::apply(&Op::Gather { axis: axis as i64 }, &[Some(self), Some(&Fixed::integers(&backwards))])
            .expect("the caller reverses an axis that is there")
    }

    /// Two floats combined, broadcast. Panics when the shapes do not: for shapes that the caller has checked.
    pub(super) fn combined(&self, how: Binary, with: &Fixed) -> Fixed {
        Fixed::apply(&Op::Binary(how), &[Some(self), Some(with)]).expect("the caller checked both shapes")
    }

    /// A function of every element.
    pub(super) fn mapped(&self, function: Unary) -> Fixed {
        Fixed::apply(&Op::Unary(function), &[Some(self)]).expect("every shape can be mapped")
    }

    /// What `op` makes of fixed inputs, or `None` when that is not known to be a float tensor of a known shape.
    pub(super) fn apply(op: &Op, inputs: &[Option<&Fixed>]) -> Option<Fixed> {
        let inputs: Vec<Option<Fixed>> = inputs.iter().map(|input| input.map(Fixed::single)).collect();
        let dims = shape(op, &inputs)?;
        let main = inputs.iter().flatten().find(|input| input.weighs).or(inputs.first()?.as_ref())?;
        let exprs = inputs.iter().map(|input| input.as_ref().map(|input| input.expr.clone())).collect();
        let size = 1 + inputs.iter().flatten().map(|input| input.size).sum::<usize>();
        let weighs = inputs.iter().flatten().any(|input| input.weighs);
        let made = Fixed { dims, size, weighs, dtype: DType::F32, ..main.wrap(op.clone(), exprs) };
        match op {
            // Everything already is in single precision.
            Op::Cast(DType::F32) => Some(main.clone()),
            // A cast to less than single precision rounds, and is then widened again for whoever comes next.
            Op::Cast(to) => Some(Fixed { dtype: *to, ..made }.single()),
            _ => Some(made),
        }
    }

    /// Itself, under one more operator.
    fn wrap(&self, op: Op, inputs: Vec<Option<WeightExpr>>) -> Fixed {
        let expr = WeightExpr::Apply { op, inputs, output: 0 };
        Fixed { expr, size: self.size + 1, ..self.clone() }
    }
}

/// The parts that a Split makes, as slices; `None` when its sizes are not known or do not add up.
pub(super) fn split(axis: i64, parts: usize, inputs: &[Option<&Fixed>]) -> Option<Vec<Fixed>> {
    let x = inputs.first().copied().flatten()?;
    let axis = resolve(axis, x.dims.len())?;
    let length = x.dims[axis];
    let sizes: Vec<usize> = match inputs.get(1).copied().flatten() {
        Some(sizes) => {
            sizes.as_integers()?.into_iter().map(usize::try_from).collect::<Result<_, _>>().ok()?
        }
        None => {
            let size = length.div_ceil(parts.max(1));
            (0..parts).map(|part| length.saturating_sub(part * size).min(size)).collect()
        }
    };
    let whole = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size))?;
    if sizes.len() != parts || whole != length {
        return None;
    }
    let single = x.single();
    let mut from = 0;
    let cut = sizes.iter().map(|size| {
        from += size;
        single.sliced(axis, from - size, from)
    });
    Some(cut.collect())
}

/// An axis that may count from the end, as an index; `None` outside the rank.
fn resolve(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis.checked_add(rank)? } else { axis };
    (0..rank).contains(&axis).then(|| usize::try_from(axis).ok())?
}

/// The shape that `op` makes: for the operators that exporters put between a weight and its use.
fn shape(op: &Op, inputs: &[Option<Fixed>]) -> Option<Vec<usize>> {
    let input = |index: usize| inputs.get(index).and_then(Option::as_ref);
    let x = input(0)?;
    match op {
        Op::Unary(Unary::Not) => None,
        Op::Unary(_) | Op::Clip => floats(inputs).then(|| x.dims.clone()),
        Op::Cast(to) => (to.is_float() && x.dtype.is_float()).then(|| x.dims.clone()),
        Op::Binary(how) => {
            (arithmetic(*how) && floats(inputs)).then(|| broadcast(&x.dims, &input(1)?.dims))?
        }
        Op::Where => broadcast(&broadcast(&x.dims, &input(1)?.dims)?, &input(2)?.dims),
        Op::Transpose { perm } if perm.is_empty() => Some(x.dims.iter().rev().copied().collect()),
        Op::Transpose { perm } => {
            let mut seen = perm.clone();
            seen.sort_unstable();
            let valid = seen.into_iter().eq(0..x.dims.len());
            valid.then(|| perm.iter().map(|&axis| x.dims[axis]).collect())
        }
        Op::Reshape { allow_zero } => reshape(x, &input(1)?.as_integers()?, *allow_zero),
        Op::Flatten { axis } => {
            let rank = x.dims.len();
            let axis = if *axis == rank as i64 { rank } else { resolve(*axis, rank)? };
            Some(vec![count(&x.dims[..axis]), count(&x.dims[axis..])])
        }
        Op::Squeeze => {
            let axes = match input(1) {
                Some(axes) => resolve_all(&axes.as_integers()?, x.dims.len())?,
                None => (0..x.dims.len()).filter(|&axis| x.dims[axis] == 1).collect(),
            };
            let kept = x.dims.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
            axes.iter().all(|&axis| x.dims[axis] == 1).then(|| kept.map(|(_, &dim)| dim).collect())
        }
        Op::Unsqueeze => {
            let axes = input(1)?.as_integers()?;
            let rank = x.dims.len() + axes.len();
            let axes = resolve_all(&axes, rank)?;
            let mut dims = x.dims.iter();
            (0..rank).map(|axis| if axes.contains(&axis) { Some(1) } else { dims.next().copied() }).collect()
        }
        Op::Concat { axis } => {
            let axis = resolve(*axis, x.dims.len())?;
            let mut dims = x.dims.clone();
            dims[axis] = 0;
            for part in inputs {
                let part = part.as_ref()?;
                let same = |at: usize| at == axis || part.dims[at] == x.dims[at];
                if part.dims.len() != x.dims.len() || !(0..x.dims.len()).all(same) {
                    return None;
                }
                dims[axis] = dims[axis].checked_add(part.dims[axis])?;
            }
            floats(inputs).then_some(dims)
        }
        Op::Slice => {
            let list = |index: usize| input(index)?.as_integers();
            let (starts, ends) = (list(1)?, list(2)?);
            let axes = match input(3) {
                Some(axes) => resolve_all(&axes.as_integers()?, x.dims.len())?,
                None => (0..starts.len()).collect(),
            };
            let steps = if input(4).is_some() { list(4)? } else { vec![1; starts.len()] };
            if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || axes.len() > x.dims.len() {
                return None;
            }
            let mut dims = x.dims.clone();
            for (index, &axis) in axes.iter().enumerate() {
                dims[axis] = slice_length(x.dims[axis], starts[index], ends[index], steps[index])?;
            }
            Some(dims)
        }
        Op::Gather { axis } => {
            let (axis, rows) = (resolve(*axis, x.dims.len())?, input(1)?);
            let length = i64::try_from(x.dims[axis]).ok()?;
            let inside = rows.as_integers()?.iter().all(|row| (-length..length).contains(row));
            inside.then(|| [&x.dims[..axis], &rows.dims, &x.dims[axis + 1..]].concat())
        }
        Op::Expand => {
            let to = input(1)?.as_integers()?;
            let to: Vec<usize> = to.into_iter().map(usize::try_from).collect::<Result<_, _>>().ok()?;
            broadcast(&x.dims, &to)
        }
        Op::MatMul => match (&x.dims[..], &input(1)?.dims[..]) {
            ([m, k], [l, n]) if k == l => Some(vec![*m, *n]),
            _ => None,
        },
        Op::Reduce { keep_dims, noop_with_empty_axes, .. } => {
            let axes = input(1).map_or(Some(Vec::new()), Fixed::as_integers)?;
            let axes = match axes.is_empty() && !noop_with_empty_axes {
                true => (0..x.dims.len()).collect(),
                false => resolve_all(&axes, x.dims.len())?,
            };
            let dim = |(axis, &dim): (usize, &usize)| match axes.contains(&axis) {
                true => keep_dims.then_some(1),
                false => Some(dim),
            };
            (x.dtype.is_float() && count(&x.dims) > 0)
                .then(|| x.dims.iter().enumerate().filter_map(dim).collect())
        }
        Op::BatchNorm { .. } => {
            let channels = *x.dims.get(1)?;
            let vector = |index: usize| input(index).is_some_and(|vector| vector.dims == [channels]);
            (floats(inputs) && (1..5).all(vector)).then(|| x.dims.clone())
        }
        _ => None,
    }
}

/// Elements of a shape. Saturates, as an empty tensor may have dimensions whose product overflows.
fn count(dims: &[usize]) -> usize {
    dims.iter().fold(1, |product: usize, &dim| product.saturating_mul(dim))
}

/// Whether every input is a float tensor.
fn floats(inputs: &[Option<Fixed>]) -> bool {
    inputs.iter().flatten().all(|input| input.dtype.is_float())
}

/// Whether floats make a float.
fn arithmetic(how: Binary) -> bool {
    use Binary::{Add, Div, Max, Min, Mod, Mul, Pow, Sub};
    matches!(how, Add | Sub | Mul | Div | Pow | Min | Max | Mod { .. })
}

/// NumPy's broadcast of two shapes.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(1, |axis| dims[axis]);
    let both = |axis: usize| match (at(a, axis), at(b, axis)) {
        (one, other) if one == other || other == 1 => Some(one),
        (1, other) => Some(other),
        _ => None,
    };
    (0..rank).map(both).collect()
}

/// Axes that may count from the end, each at most once.
fn resolve_all(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    let axes: Vec<usize> = axes.iter().map(|&axis| resolve(axis, rank)).collect::<Option<_>>()?;
    let distinct = axes.iter().enumerate().all(|(index, axis)| !axes[..index].contains(axis));
    distinct.then_some(axes)
}

fn reshape(x: &Fixed, to: &[i64], allow_zero: bool) -> Option<Vec<usize>> {
    let mut dims = Vec::with_capacity(to.len());
    let mut left = None;
    for (axis, &dim) in to.iter().enumerate() {
        dims.push(match dim {
            -1 if left.is_none() => {
                left = Some(axis);
                1
            }
            0 if !allow_zero => *x.dims.get(axis)?,
            dim => usize::try_from(dim).ok()?,
        });
    }
    let known = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))?;
    if let Some(axis) = left {
        dims[axis] = x.elements().checked_div(known)?;
        return (dims[axis].checked_mul(known)? == x.elements()).then_some(dims);
    }
    (known == x.elements()).then_some(dims)
}

/// How many elements a slice takes of an axis, by ONNX's rules of clamping.
pub(super) fn slice_length(length: usize, start: i64, end: i64, step: i64) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let from_end = |at: i64| if at < 0 { at.saturating_add(length) } else { at };
    if step < 1 {
        return None; // backwards is rare enough to stay a step
    }
    let taken = (from_end(end).clamp(0, length) - from_end(start).clamp(0, length)).max(0);
    usize::try_from(taken).ok()?.div_ceil(usize::try_from(step).ok()?).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::ParamId;
    use crate::op::Reduction;

    fn weight(dims: &[usize], dtype: DType) -> Fixed {
        Fixed {
            name: "w".into(),
            dtype,
            dims: dims.to_vec(),
            expr: WeightExpr::Param(ParamId(0)),
            size: 0,
            weighs: true,
        }
    }

    fn made(op: &Op, w: &Fixed, lists: &[&[i64]]) -> Option<Vec<usize>> {
        let lists: Vec<Fixed> = lists.iter().map(|list| Fixed::integers(list)).collect();
        let inputs: Vec<Option<&Fixed>> = std::iter::once(w).chain(&lists).map(Some).collect();
        Fixed::apply(op, &inputs).map(|made| made.dims)
    }

    #[test]
    fn shapes_follow_the_operators_rules() {
        let w = weight(&[2, 3, 4], DType::F32);
        assert_eq!(made(&Op::Transpose { perm: vec![2, 0, 1] }, &w, &[]), Some(vec![4, 2, 3]));
        assert_eq!(made(&Op::Transpose { perm: vec![] }, &w, &[]), Some(vec![4, 3, 2]));
        assert_eq!(made(&Op::Reshape { allow_zero: false }, &w, &[&[0, -1]]), Some(vec![2, 12]));
        assert_eq!(made(&Op::Flatten { axis: -1 }, &w, &[]), Some(vec![6, 4]));
        assert_eq!(made(&Op::Unsqueeze, &w, &[&[0, -1]]), Some(vec![1, 2, 3, 4, 1]));
        assert_eq!(made(&Op::Slice, &w, &[&[1], &[i64::MAX], &[-1], &[2]]), Some(vec![2, 3, 2]));
        assert_eq!(made(&Op::Gather { axis: 1 }, &w, &[&[0, -3, 2]]), Some(vec![2, 3, 4]));
        assert_eq!(made(&Op::Expand, &w, &[&[5, 1, 1, 1]]), Some(vec![5, 2, 3, 4]));
        let mean = |keep_dims| Op::Reduce { kind: Reduction::Mean, keep_dims, noop_with_empty_axes: false };
        assert_eq!(made(&mean(true), &w, &[&[0, -1]]), Some(vec![1, 3, 1]));
        assert_eq!(made(&mean(false), &w, &[&[0, -1]]), Some(vec![3]));
        assert_eq!(made(&mean(false), &w, &[]), Some(vec![]));
    }

    #[test]
    fn what_does_not_fit_is_left_to_the_plan() {
        let w = weight(&[2, 3], DType::F32);
        assert_eq!(made(&Op::Transpose { perm: vec![0, 0] }, &w, &[]), None);
        assert_eq!(made(&Op::Reshape { allow_zero: false }, &w, &[&[4, -1]]), None);
        assert_eq!(made(&Op::Reshape { allow_zero: false }, &w, &[&[i64::MAX, i64::MAX]]), None);
        assert_eq!(made(&Op::Flatten { axis: 3 }, &w, &[]), None);
        assert_eq!(made(&Op::Gather { axis: 0 }, &w, &[&[2]]), None);
        assert_eq!(made(&Op::Slice, &w, &[&[1], &[-9], &[0], &[-1]]), None);
        assert_eq!(made(&Op::Unary(Unary::Not), &w, &[]), None);
        let sum = Op::Reduce { kind: Reduction::Sum, keep_dims: true, noop_with_empty_axes: false };
        assert_eq!(made(&sum, &w, &[&[2]]), None);
        let norm = Op::BatchNorm { epsilon: 1e-5 };
        let (two, three) = (weight(&[2], DType::F32), weight(&[3], DType::F32));
        let normed = |v: &Fixed| Fixed::apply(&norm, &[&w, &three, &three, &three, v].map(Some));
        assert!(normed(&two).is_none() && normed(&three).is_some());
    }

    #[test]
    fn half_precision_is_widened_before_it_is_computed_with() {
        let twice = Fixed::apply(
            &Op::Binary(Binary::Add),
            &[Some(&weight(&[3], DType::F16)), Some(&weight(&[3], DType::F16))],
        );
        let WeightExpr::Apply { op: Op::Binary(Binary::Add), inputs, .. } = twice.unwrap().expr else {
            panic!("an addition");
        };
        for input in inputs {
            assert!(matches!(input, Some(WeightExpr::Apply { op: Op::Cast(DType::F32), .. })));
        }
    }

    #[test]
    fn a_split_takes_equal_parts_with_the_last_one_smaller() {
        let w = weight(&[7, 2], DType::F32);
        let parts = split(0, 3, &[Some(&w)]).unwrap();
        assert_eq!(parts.iter().map(|part| part.dims[0]).collect::<Vec<_>>(), [3, 3, 1]);
        assert!(split(0, 2, &[Some(&w), Some(&Fixed::integers(&[3, 3]))]).is_none());
    }
}
