//! Values that are fixed before the first request: literals, weights, and what follows from them.
//!
//! ```text
//!   Fixed { dims, expr }  ──apply(op)──▶  Fixed { dims′, op(expr, …) }
//! ```
//! [`Fixed::apply`] is the one way in which expressions grow. It knows the shape of what it makes without evaluating anything;
//! an operator that it does not know stays a step of the plan, which is always right and sometimes slower.

mod shape;

use self::shape::{count, resolve, shape};
use super::WeightExpr;
use crate::op::{Binary, Op, Unary};
use crate::tensor::Tensor;
use tessera_core::DType;

pub(super) use self::shape::slice_length;

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
