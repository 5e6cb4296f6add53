//! Sums of products over letters: `out[o…] = Σ over all other letters of Π inputs`, the letters of an input being its indices.

use super::EvalError;
use super::element::Elements::{self, Floats, Integers};
use super::element::{from_floats, from_integers};
use super::error::Args;
use crate::op::Equation;
use crate::shape::strides;
use crate::tensor::Tensor;

pub(super) fn einsum(equation: &Equation, args: Args<'_>) -> Result<Tensor, EvalError> {
    let mut tensors = Vec::with_capacity(equation.inputs.len());
    for index in 0..equation.inputs.len() {
        tensors.push(args.get(index)?);
    }
    let dtype = args.get(0)?.dtype();
    if tensors.iter().any(|tensor| tensor.dtype() != dtype) {
        return Err(args.misfit("its inputs are not of one type"));
    }
    let shapes: Vec<&[usize]> = tensors.iter().map(|tensor| tensor.dims()).collect();
    let lengths =
        equation.lengths(&shapes).ok_or_else(|| args.misfit(format!("they do not fit {equation}")))?;
    let dims: Vec<usize> = equation.output.iter().map(|&label| lengths[usize::from(label)]).collect();
    let count = args.count(dtype, &dims)?;
    // Letters of the output first, then those that are summed over.
    let mut order: Vec<u8> = equation.output.clone();
    order.extend((0..lengths.len() as u8).filter(|label| !equation.output.contains(label)));
    let extents: Vec<usize> = order.iter().map(|&label| lengths[usize::from(label)]).collect();
    args.count(dtype, &extents)?;
    let steps: Vec<Vec<usize>> = equation
        .inputs
        .iter()
        .zip(&shapes)
        .map(|(labels, dims)| {
            let own = strides(dims);
            let of = |label: &u8| {
                let axes = labels.iter().enumerate().filter(|(axis, own)| *own == label && dims[*axis] != 1);
                axes.map(|(axis, _)| own[axis]).sum()
            };
            order.iter().map(of).collect()
        })
        .collect();
    let walk = Walk { extents: &extents, steps: &steps, kept: dims.len(), count };
    let elements: Vec<Elements> = tensors.iter().map(|tensor| Elements::of(tensor)).collect();
    let floats: Option<Vec<&[f64]>> = elements
        .iter()
        .map(|all| match all {
            Floats(list) => Some(&list[..]),
            _ => None,
        })
        .collect();
    if let Some(lists) = floats {
        return Ok(from_floats(dtype, &dims, &walk.sums(&lists, 1.0, 0.0, |a, b| a * b, |a, b| a + b)));
    }
    let integers: Option<Vec<&[i128]>> = elements
        .iter()
        .map(|all| match all {
            Integers(list) => Some(&list[..]),
            _ => None,
        })
        .collect();
    match integers {
        Some(lists) => {
            Ok(from_integers(dtype, &dims, &walk.sums(&lists, 1, 0, i128::wrapping_mul, i128::wrapping_add)))
        }
        None => Err(args.undefined_on(dtype)),
    }
}

/// Every combination of indices.
struct Walk<'a> {
    extents: &'a [usize],
    /// Per input and letter: elements between neighbours.
    steps: &'a [Vec<usize>],
    /// How many letters, the first ones, the output has.
    kept: usize,
    count: usize,
}

impl Walk<'_> {
    fn sums<T: Copy>(
        &self,
        lists: &[&[T]],
        one: T,
        zero: T,
        mul: impl Fn(T, T) -> T,
        add: impl Fn(T, T) -> T,
    ) -> Vec<T> {
        let inner: usize = self.extents[self.kept..].iter().product();
        let mut index = vec![0usize; self.extents.len()];
        let mut out = Vec::with_capacity(self.count);
        for _ in 0..self.count {
            let mut sum = zero;
            for _ in 0..inner {
                let factor = |(list, steps): (&&[T], &Vec<usize>)| {
                    list[index.iter().zip(steps).map(|(index, step)| index * step).sum::<usize>()]
                };
                sum = add(sum, lists.iter().zip(self.steps).map(factor).fold(one, &mul));
                for axis in (0..index.len()).rev() {
                    index[axis] += 1;
                    if index[axis] < self.extents[axis] {
                        break;
                    }
                    index[axis] = 0;
                }
            }
            if inner == 0 {
                // Nothing is summed, and the place moves on by itself.
                index.fill(0);
            }
            out.push(sum);
        }
        out
    }
}
