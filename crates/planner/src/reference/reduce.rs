//! Reductions along axes, combined from the first element to the last.

use super::EvalError;
use super::element::Elements::{self, Booleans, Floats, Integers};
use super::element::{from_floats, from_integers};
use super::error::Args;
use super::moves::expand_to;
use crate::op::Reduction;
use crate::shape;
use crate::tensor::Tensor;
use tessera_core::DType;

/// The least value of an integer type.
pub(super) fn least(dtype: DType) -> i128 {
    match dtype {
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => -(1i128 << (8 * dtype.size() - 1)),
        _ => 0,
    }
}

/// The greatest value of an integer type.
fn greatest(dtype: DType) -> i128 {
    match dtype {
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => (1i128 << (8 * dtype.size() - 1)) - 1,
        _ => (1i128 << (8 * dtype.size())) - 1,
    }
}

pub(super) fn reduce(
    kind: Reduction,
    keep_dims: bool,
    noop: bool,
    args: Args<'_>,
) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let rank = x.dims().len();
    let wanted = if args.opt(1).is_some() { args.integers(1)? } else { vec![] };
    let axes = match (wanted.is_empty(), noop) {
        (true, true) => vec![],
        (true, false) => (0..rank).collect(),
        _ => args.axes(&wanted, rank)?,
    };
    let mut kept = x.dims().to_vec();
    axes.iter().for_each(|&axis| kept[axis] = 1);
    let dims: Vec<usize> = match keep_dims {
        true => kept.clone(),
        false => (0..rank).filter(|axis| !axes.contains(axis)).map(|axis| kept[axis]).collect(),
    };
    let count = args.count(x.dtype(), &kept)?;
    // The place among the results that each element goes to.
    let places: Vec<u64> = (0..count as u64).collect();
    let places = expand_to(&Tensor::from_elements(&kept, &places), x.dims());
    let places: Vec<usize> =
        places.elements::<u64>().expect("places are u64").into_iter().map(|place| place as usize).collect();
    let members = shape::count(&axes.iter().map(|&axis| x.dims()[axis]).collect::<Vec<_>>()).unwrap_or(0);
    match Elements::of(x) {
        Floats(list) => Ok(from_floats(x.dtype(), &dims, &of_floats(kind, &list, &places, count, members))),
        Integers(list) => {
            let whole = of_integers(kind, x.dtype(), &list, &places, count);
            Ok(match (whole, kind) {
                (Some(sums), Reduction::Mean) if members == 0 && !sums.is_empty() => {
                    return Err(EvalError::DivisionByZero { op: args.op });
                }
                (Some(sums), Reduction::Mean) => {
                    let means: Vec<i128> = sums.iter().map(|sum| sum / members.max(1) as i128).collect();
                    from_integers(x.dtype(), &dims, &means)
                }
                (Some(results), _) => from_integers(x.dtype(), &dims, &results),
                // Roots and logarithms of integers are computed as floats and truncated.
                (None, _) => {
                    let list: Vec<f64> = list.iter().map(|&x| x as f64).collect();
                    from_floats(x.dtype(), &dims, &of_floats(kind, &list, &places, count, members))
                }
            })
        }
        Booleans(list) => {
            let any = |any: bool, x: bool| any | x;
            let all = |all: bool, x: bool| all & x;
            Ok(Tensor::from_elements(
                &dims,
                &match kind {
                    Reduction::Max => fold(&list, &places, vec![false; count], any),
                    Reduction::Min => fold(&list, &places, vec![true; count], all),
                    _ => return Err(args.undefined_on(x.dtype())),
                },
            ))
        }
    }
}

/// Every element combined into its place, which starts as `start`.
fn fold<T: Copy>(list: &[T], places: &[usize], start: Vec<T>, with: impl Fn(T, T) -> T) -> Vec<T> {
    let mut results = start;
    list.iter().zip(places).for_each(|(&x, &place)| results[place] = with(results[place], x));
    results
}

fn of_floats(kind: Reduction, list: &[f64], places: &[usize], count: usize, members: usize) -> Vec<f64> {
    let sum = |of: &dyn Fn(f64) -> f64| fold(list, places, vec![0.0; count], |sum, x| sum + of(x));
    let each = |results: Vec<f64>, of: &dyn Fn(f64) -> f64| results.into_iter().map(of).collect();
    // NaN is handed on, as NumPy does.
    let larger = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
    let smaller = |a: f64, b: f64| if b < a || b.is_nan() { b } else { a };
    match kind {
        Reduction::Sum => sum(&|x| x),
        Reduction::Mean => each(sum(&|x| x), &|sum| sum / members as f64),
        Reduction::Prod => fold(list, places, vec![1.0; count], |product, x| product * x),
        Reduction::Max => fold(list, places, vec![f64::NEG_INFINITY; count], larger),
        Reduction::Min => fold(list, places, vec![f64::INFINITY; count], smaller),
        Reduction::L1 => sum(&f64::abs),
        Reduction::L2 => each(sum(&|x| x * x), &f64::sqrt),
        Reduction::SumSquare => sum(&|x| x * x),
        Reduction::LogSum => each(sum(&|x| x), &libm::log),
        Reduction::LogSumExp => {
            let largest = fold(list, places, vec![f64::NEG_INFINITY; count], larger);
            // An infinite largest element is the result: taking it off would give NaN.
            let shift: Vec<f64> = largest.iter().map(|&x| if x.is_finite() { x } else { 0.0 }).collect();
            let shifted: Vec<f64> =
                list.iter().zip(places).map(|(x, &place)| libm::exp(x - shift[place])).collect();
            let sums = fold(&shifted, places, vec![0.0; count], |sum, x| sum + x);
            sums.iter().zip(&shift).map(|(&sum, shift)| libm::log(sum) + shift).collect()
        }
    }
}

/// `None` where the reduction is not one of integers. A mean is handed back as a sum.
fn of_integers(
    kind: Reduction,
    dtype: DType,
    list: &[i128],
    places: &[usize],
    count: usize,
) -> Option<Vec<i128>> {
    Some(match kind {
        Reduction::Sum | Reduction::Mean => fold(list, places, vec![0; count], i128::wrapping_add),
        Reduction::Prod => fold(list, places, vec![1; count], i128::wrapping_mul),
        Reduction::Max => fold(list, places, vec![least(dtype); count], i128::max),
        Reduction::Min => fold(list, places, vec![greatest(dtype); count], i128::min),
        Reduction::L1 => fold(list, places, vec![0; count], |sum, x| sum.wrapping_add(x.abs())),
        Reduction::SumSquare => {
            fold(list, places, vec![0; count], |sum, x| sum.wrapping_add(x.wrapping_mul(x)))
        }
        Reduction::L2 | Reduction::LogSum | Reduction::LogSumExp => return None,
    })
}
