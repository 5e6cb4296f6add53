//! Products of matrices.

use super::EvalError;
use super::element::Elements::{self, Floats, Integers};
use super::element::{from_floats, from_integers};
use super::error::Args;
use super::moves::{expand_to, transpose};
use crate::shape;
use crate::tensor::Tensor;

/// Numbers that are summed up: floats in f64; integers modulo 2^128, which is exact for the widths that results are cut to.
trait Summed: Copy {
    const ZERO: Self;
    fn add_product(self, a: Self, b: Self) -> Self;
}

impl Summed for f64 {
    const ZERO: f64 = 0.0;
    fn add_product(self, a: f64, b: f64) -> f64 {
        self + a * b
    }
}

impl Summed for i128 {
    const ZERO: i128 = 0;
    fn add_product(self, a: i128, b: i128) -> i128 {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

/// `out[i, j] = Σₖ a[i, k]·b[k, j]`, the sums running from the first k to the last. The loop over k is the middle one, so that rows of `b` and
/// `out` are read in order.
fn product<T: Summed>(a: &[T], b: &[T], k: usize, n: usize, out: &mut [T]) {
    if n == 0 {
        return;
    }
    for (i, row) in out.chunks_exact_mut(n).enumerate() {
        for (j, b) in b.chunks_exact(n).enumerate().take(k) {
            let a = a[i * k + j];
            row.iter_mut().zip(b).for_each(|(sum, &b)| *sum = sum.add_product(a, b));
        }
    }
}

pub(super) fn matmul(args: Args<'_>) -> Result<Tensor, EvalError> {
    let (a, b) = (args.get(0)?, args.get(1)?);
    if a.dtype() != b.dtype() || a.dims().is_empty() || b.dims().is_empty() {
        return Err(args.misfit("it multiplies tensors of one type and rank 1 or more"));
    }
    // A vector on the left is a row, one on the right a column; the axis added for it is taken away again.
    let (row, column) = (a.dims().len() == 1, b.dims().len() == 1);
    let (mut left, mut right) = (a.dims().to_vec(), b.dims().to_vec());
    if row {
        left.insert(0, 1);
    }
    if column {
        right.push(1);
    }
    let (batch_a, m, k) = (&left[..left.len() - 2], left[left.len() - 2], left[left.len() - 1]);
    let (batch_b, other, n) = (&right[..right.len() - 2], right[right.len() - 2], right[right.len() - 1]);
    if k != other {
        return Err(args.misfit(format!("rows of {k} elements meet columns of {other}")));
    }
    let batch =
        shape::broadcast(batch_a, batch_b).ok_or_else(|| args.misfit("the batches do not broadcast"))?;
    let mut dims = batch.clone();
    dims.extend((!row).then_some(m));
    dims.extend((!column).then_some(n));
    let count = args.count(a.dtype(), &dims)?;
    let wide = |tensor: &Tensor, matrix: [usize; 2], own: Vec<usize>| {
        let to = [&batch[..], &matrix[..]].concat();
        args.count(tensor.dtype(), &to)?;
        let tensor = tensor.reshaped(own).expect("a vector is a matrix of as many elements");
        Ok::<_, EvalError>(Elements::of(&expand_to(&tensor, &to)))
    };
    fn all<T: Summed>(a: &[T], b: &[T], [m, k, n]: [usize; 3], count: usize) -> Vec<T> {
        let mut out = vec![T::ZERO; count];
        if count > 0 && k > 0 {
            for ((out, a), b) in
                out.chunks_exact_mut(m * n).zip(a.chunks_exact(m * k)).zip(b.chunks_exact(k * n))
            {
                product(a, b, k, n, out);
            }
        }
        out
    }
    let sizes = [m, k, n];
    match (wide(a, [m, k], left.clone())?, wide(b, [k, n], right.clone())?) {
        (Floats(x), Floats(y)) => Ok(from_floats(a.dtype(), &dims, &all(&x, &y, sizes, count))),
        (Integers(x), Integers(y)) => Ok(from_integers(a.dtype(), &dims, &all(&x, &y, sizes, count))),
        _ => Err(args.undefined_on(a.dtype())),
    }
}

/// ONNX's product of two matrices; in the form that folded graphs use, `a` may have any rank and its last axis meets `b`'s first.
pub(super) fn gemm(
    alpha: f32,
    beta: f32,
    trans_a: bool,
    trans_b: bool,
    args: Args<'_>,
) -> Result<Tensor, EvalError> {
    let turned = |tensor: &Tensor, turn: bool| match turn {
        true => transpose(&[], Args { op: args.op, inputs: &[Some(tensor)] }),
        false => Ok(tensor.clone()),
    };
    let (a, b, c) = (args.get(0)?, args.get(1)?, args.opt(2));
    let matrices = a.dims().len() == 2 || (!a.dims().is_empty() && !trans_a);
    if b.dims().len() != 2 || !matrices || a.dtype() != b.dtype() || c.is_some_and(|c| c.dtype() != a.dtype())
    {
        return Err(args.misfit("it multiplies matrices of one type"));
    }
    let (a, b) = (turned(a, trans_a)?, turned(b, trans_b)?);
    let (k, n) = (b.dims()[0], b.dims()[1]);
    let (&inner, outer) = a.dims().split_last().expect("the rank was checked");
    if inner != k {
        return Err(args.misfit(format!("rows of {inner} elements meet columns of {k}")));
    }
    let dims = [outer, &[n]].concat();
    let count = args.count(a.dtype(), &dims)?;
    let addend = match c {
        None => None,
        Some(c) if shape::broadcast(c.dims(), &dims).as_ref() == Some(&dims) => {
            Some(Elements::of(&expand_to(c, &dims)))
        }
        Some(_) => return Err(args.misfit(format!("the addend does not broadcast to {dims:?}"))),
    };
    match (Elements::of(&a), Elements::of(&b), addend) {
        (Floats(x), Floats(y), addend) => {
            let mut out = vec![0.0; count];
            product(&x, &y, k, n, &mut out);
            out.iter_mut().for_each(|sum| *sum *= f64::from(alpha));
            if let Some(Floats(addend)) = addend {
                out.iter_mut().zip(addend).for_each(|(sum, c)| *sum += f64::from(beta) * c);
            }
            Ok(from_floats(a.dtype(), &dims, &out))
        }
        (Integers(x), Integers(y), addend) => {
            if alpha.fract() != 0.0 || beta.fract() != 0.0 {
                return Err(args.misfit(format!("integers cannot be scaled by {alpha} and {beta}")));
            }
            let mut out = vec![0; count];
            product(&x, &y, k, n, &mut out);
            out.iter_mut().for_each(|sum| *sum = sum.wrapping_mul(alpha as i128));
            if let Some(Integers(addend)) = addend {
                out.iter_mut().zip(addend).for_each(|(sum, c)| *sum = sum.add_product(beta as i128, c));
            }
            Ok(from_integers(a.dtype(), &dims, &out))
        }
        _ => Err(args.undefined_on(a.dtype())),
    }
}
