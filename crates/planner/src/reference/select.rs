//! Operators that choose or change elements by number or by value.

use super::EvalError;
use super::element::{Elements, from_floats, from_integers};
use super::error::Args;
use super::moves::indices;
use crate::op::{Op, Scatter};
use crate::shape;
use crate::tensor::Tensor;
use std::cmp::Ordering;
use tessera_core::DType;

/// The numbers of the elements of a line in order: largest or smallest first, a NaN before every number, of equals the first or last.
fn ranked<T: PartialOrd + Copy>(line: &[T], largest: bool, last: bool) -> Vec<usize> {
    let nan = |x: T| x.partial_cmp(&x).is_none();
    let mut order: Vec<usize> = (0..line.len()).collect();
    order.sort_by(|&a, &b| {
        let (x, y) = (line[a], line[b]);
        let by_value = match (nan(x), nan(y)) {
            (false, false) => x.partial_cmp(&y).unwrap_or(Ordering::Equal),
            // As if it were beyond every number, whichever end comes first.
            (x, y) => {
                if largest {
                    x.cmp(&y)
                } else {
                    y.cmp(&x)
                }
            }
        };
        let by_value = if largest { by_value.reverse() } else { by_value };
        by_value.then(if last { b.cmp(&a) } else { a.cmp(&b) })
    });
    order
}

/// The places, in a dense tensor, of the first `count` elements in order of every line along an axis: `[outer][count][inner]`.
fn places(
    x: &Tensor,
    axis: usize,
    count: usize,
    largest: bool,
    last: bool,
    args: Args<'_>,
) -> Result<Vec<usize>, EvalError> {
    fn of<T: PartialOrd + Copy>(
        list: &[T],
        x: &Tensor,
        axis: usize,
        count: usize,
        largest: bool,
        last: bool,
    ) -> Vec<usize> {
        let [outer, inner] =
            [&x.dims()[..axis], &x.dims()[axis + 1..]].map(|dims| shape::count(dims).unwrap_or(0));
        let length = x.dims()[axis];
        let mut places = vec![0; outer * count * inner];
        for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
            let line: Vec<T> = (0..length).map(|at| list[(o * length + at) * inner + i]).collect();
            for (rank, at) in ranked(&line, largest, last).into_iter().take(count).enumerate() {
                places[(o * count + rank) * inner + i] = (o * length + at) * inner + i;
            }
        }
        places
    }
    match Elements::of(x) {
        Elements::Floats(list) => Ok(of(&list, x, axis, count, largest, last)),
        Elements::Integers(list) => Ok(of(&list, x, axis, count, largest, last)),
        Elements::Booleans(_) => Err(args.undefined_on(DType::Bool)),
    }
}

/// The numbers along an axis that places in a tensor have.
fn numbers(x: &Tensor, axis: usize, places: &[usize]) -> Vec<i64> {
    let inner = shape::count(&x.dims()[axis + 1..]).unwrap_or(0);
    places.iter().map(|place| (place / inner.max(1) % x.dims()[axis].max(1)) as i64).collect()
}

pub(super) fn arg(
    largest: bool,
    axis: i64,
    keep_dims: bool,
    last: bool,
    args: Args<'_>,
) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let axis = args.axis(axis, x.dims().len())?;
    if x.dims()[axis] == 0 {
        return Err(args.misfit(format!("axis {axis} has no elements to choose from")));
    }
    let places = places(x, axis, 1, largest, last, args)?;
    let mut dims = x.dims().to_vec();
    dims[axis] = 1;
    if !keep_dims {
        dims.remove(axis);
    }
    Ok(Tensor::from_elements(&dims, &numbers(x, axis, &places)))
}

pub(super) fn top_k(axis: i64, largest: bool, args: Args<'_>) -> Result<Vec<Tensor>, EvalError> {
    let x = args.get(0)?;
    let axis = args.axis(axis, x.dims().len())?;
    let count = match args.integers(1)?[..] {
        [k] => usize::try_from(k).ok().filter(|&k| k <= x.dims()[axis]),
        _ => None,
    };
    let count = count.ok_or_else(|| args.misfit(format!("k is no number of elements of axis {axis}")))?;
    let places = places(x, axis, count, largest, false, args)?;
    let mut dims = x.dims().to_vec();
    dims[axis] = count;
    let size = x.dtype().size();
    let bytes: Vec<u8> =
        places.iter().flat_map(|place| &x.bytes()[place * size..][..size]).copied().collect();
    let indices = Tensor::from_elements(&dims, &numbers(x, axis, &places));
    Ok(vec![Tensor::new(x.dtype(), dims, bytes).expect("one element per place"), indices])
}

pub(super) fn cum_sum(exclusive: bool, reverse: bool, args: Args<'_>) -> Result<Tensor, EvalError> {
    fn sums<T: Copy>(
        list: &[T],
        dims: &[usize],
        axis: usize,
        way: [bool; 2],
        zero: T,
        add: impl Fn(T, T) -> T,
    ) -> Vec<T> {
        let [exclusive, reverse] = way;
        let [outer, inner] = [&dims[..axis], &dims[axis + 1..]].map(|dims| shape::count(dims).unwrap_or(0));
        let length = dims[axis];
        let mut sums = list.to_vec();
        for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
            let mut sum = zero;
            for at in 0..length {
                let at = if reverse { length - 1 - at } else { at };
                let place = (o * length + at) * inner + i;
                let with = add(sum, list[place]);
                sums[place] = if exclusive { sum } else { with };
                sum = with;
            }
        }
        sums
    }
    let x = args.get(0)?;
    let [axis] = args.integers(1)?[..] else { return Err(args.misfit("it sums along one axis")) };
    let axis = args.axis(axis, x.dims().len())?;
    let way = [exclusive, reverse];
    match Elements::of(x) {
        Elements::Floats(list) => {
            Ok(from_floats(x.dtype(), x.dims(), &sums(&list, x.dims(), axis, way, 0.0, |a, b| a + b)))
        }
        Elements::Integers(list) => {
            Ok(from_integers(x.dtype(), x.dims(), &sums(&list, x.dims(), axis, way, 0, i128::wrapping_add)))
        }
        Elements::Booleans(_) => Err(args.undefined_on(DType::Bool)),
    }
}

pub(super) fn one_hot(axis: i64, args: Args<'_>) -> Result<Tensor, EvalError> {
    let whole = |index: usize| -> Result<Vec<i64>, EvalError> {
        let wide = super::eval(&Op::Cast(DType::I64), &[Some(args.get(index)?)], 1)?;
        Ok(wide[0].elements::<i64>().unwrap_or_default())
    };
    let (numbers, values) = (whole(0)?, args.get(2)?);
    let depth = match whole(1)?[..] {
        [depth] => usize::try_from(depth).ok(),
        _ => None,
    };
    let depth = depth.ok_or_else(|| args.misfit("its depth is no number of elements"))?;
    if values.len() != 2 {
        return Err(args.misfit("its values are not two"));
    }
    let mut dims = args.get(0)?.dims().to_vec();
    let axis = args.axis(axis, dims.len() + 1)?;
    dims.insert(axis, depth);
    let count = args.count(values.dtype(), &dims)?;
    let inner = shape::count(&dims[axis + 1..]).unwrap_or(0);
    let (off, on) = values.bytes().split_at(values.dtype().size());
    let mut bytes = Vec::with_capacity(count * values.dtype().size());
    for place in 0..count {
        let number = numbers[place / (depth * inner) * inner + place % inner];
        let at = (place / inner % depth) as i64;
        let hot = number == at || number == at - depth as i64;
        bytes.extend_from_slice(if hot { on } else { off });
    }
    Ok(Tensor::new(values.dtype(), dims, bytes).expect("every place was filled"))
}

pub(super) fn non_zero(args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let found: Vec<usize> = match Elements::of(x) {
        Elements::Floats(list) => (0..list.len()).filter(|&at| list[at] != 0.0).collect(),
        Elements::Integers(list) => (0..list.len()).filter(|&at| list[at] != 0).collect(),
        Elements::Booleans(list) => (0..list.len()).filter(|&at| list[at]).collect(),
    };
    let along = shape::strides(x.dims()).into_iter().zip(x.dims());
    let places: Vec<i64> =
        along.flat_map(|(stride, &dim)| found.iter().map(move |at| (at / stride % dim) as i64)).collect();
    Ok(Tensor::from_elements(&[x.dims().len(), found.len()], &places))
}

/// The places in `x` that indices of `depth` axes from axis `first` on lead to, for every index in order: `spot` gives the place to which
/// the numbers are added.
fn named(
    args: Args<'_>,
    first: usize,
    depth: usize,
    spot: impl Fn(usize) -> usize,
) -> Result<Vec<usize>, EvalError> {
    let x = args.get(0)?;
    let strides = shape::strides(x.dims());
    let rows = |component: usize| x.dims()[first + component];
    let all = indices(args, 1, |at| rows(at % depth))?;
    let place = |(index, numbers): (usize, &[usize])| {
        let inside =
            numbers.iter().enumerate().map(|(component, number)| number * strides[first + component]);
        spot(index) + inside.sum::<usize>()
    };
    Ok(all.chunks(depth).enumerate().map(place).collect())
}

/// The number of axes that the last axis of the indices names.
fn depth(args: Args<'_>, most: usize) -> Result<usize, EvalError> {
    let depth = args.get(1)?.dims().last().copied().filter(|depth| (1..=most).contains(depth));
    depth.ok_or_else(|| args.misfit(format!("the last axis of the indices does not name 1 to {most} axes")))
}

pub(super) fn gather_nd(batch_dims: usize, args: Args<'_>) -> Result<Tensor, EvalError> {
    let (x, at) = (args.get(0)?, args.get(1)?);
    let shared = x.dims().get(..batch_dims).filter(|shared| at.dims().get(..batch_dims) == Some(shared));
    if shared.is_none() || batch_dims >= x.dims().len().min(at.dims().len()) {
        return Err(args.misfit(format!("they do not share {batch_dims} axes")));
    }
    let depth = depth(args, x.dims().len() - batch_dims)?;
    let points = &at.dims()[..at.dims().len() - 1];
    let dims = [points, &x.dims()[batch_dims + depth..]].concat();
    let count = args.count(x.dtype(), &dims)?;
    let batch = shape::count(&x.dims()[batch_dims..]).unwrap_or(0);
    let per_batch = shape::count(&points[batch_dims..]).unwrap_or(0).max(1);
    let places = named(args, batch_dims, depth, |index| index / per_batch * batch)?;
    let size = x.dtype().size();
    let row = shape::count(&x.dims()[batch_dims + depth..]).unwrap_or(0) * size;
    let mut bytes = Vec::with_capacity(count * size);
    places.iter().for_each(|place| bytes.extend_from_slice(&x.bytes()[place * size..][..row]));
    Ok(Tensor::new(x.dtype(), dims, bytes).expect("one row was taken per index"))
}

pub(super) fn scatter_elements(axis: i64, how: Scatter, args: Args<'_>) -> Result<Tensor, EvalError> {
    let (x, at, updates) = (args.get(0)?, args.get(1)?, args.get(2)?);
    let axis = args.axis(axis, x.dims().len())?;
    let fits = |dim: usize| dim == axis || at.dims()[dim] <= x.dims()[dim];
    let alike =
        at.dims().len() == x.dims().len() && at.dims() == updates.dims() && x.dtype() == updates.dtype();
    if !alike || !(0..x.dims().len()).all(fits) {
        return Err(args.misfit(format!("indices and updates do not fit but for axis {axis}")));
    }
    let (strides, own) = (shape::strides(x.dims()), shape::strides(at.dims()));
    let off_axis = |index: usize| {
        let along =
            |dim: usize| if dim == axis { 0 } else { index / own[dim] % at.dims()[dim] * strides[dim] };
        (0..own.len()).map(along).sum::<usize>()
    };
    let stride = strides[axis];
    let numbers = indices(args, 1, |_| x.dims()[axis])?;
    let places: Vec<usize> =
        numbers.iter().enumerate().map(|(index, number)| off_axis(index) + number * stride).collect();
    changed(args, x, updates, &places, 1, how)
}

pub(super) fn scatter_nd(how: Scatter, args: Args<'_>) -> Result<Tensor, EvalError> {
    let (x, at, updates) = (args.get(0)?, args.get(1)?, args.get(2)?);
    let depth = depth(args, x.dims().len())?;
    let row = &x.dims()[depth..];
    let points = &at.dims()[..at.dims().len() - 1];
    if updates.dims() != [points, row].concat() || updates.dtype() != x.dtype() {
        return Err(args.misfit("the updates do not fit"));
    }
    let places = named(args, 0, depth, |_| 0)?;
    changed(args, x, updates, &places, shape::count(row).unwrap_or(0), how)
}

/// `x` with `row` elements from each place on changed by as many updates, in order.
fn changed(
    args: Args<'_>,
    x: &Tensor,
    updates: &Tensor,
    places: &[usize],
    row: usize,
    how: Scatter,
) -> Result<Tensor, EvalError> {
    fn apply<T: Copy>(list: &mut [T], updates: &[T], places: &[usize], row: usize, both: impl Fn(T, T) -> T) {
        for (place, update) in places.iter().zip(updates.chunks(row.max(1))) {
            for (element, &update) in list[*place..].iter_mut().zip(update) {
                *element = both(*element, update);
            }
        }
    }
    match (Elements::of(x), Elements::of(updates)) {
        (Elements::Floats(mut list), Elements::Floats(updates)) => {
            apply(&mut list, &updates, places, row, |a, b| match how {
                Scatter::Replace => b,
                Scatter::Add => a + b,
                Scatter::Mul => a * b,
                Scatter::Max => {
                    if a > b || a.is_nan() {
                        a
                    } else {
                        b
                    }
                }
                Scatter::Min => {
                    if a < b || a.is_nan() {
                        a
                    } else {
                        b
                    }
                }
            });
            Ok(from_floats(x.dtype(), x.dims(), &list))
        }
        (Elements::Integers(mut list), Elements::Integers(updates)) => {
            apply(&mut list, &updates, places, row, |a, b| match how {
                Scatter::Replace => b,
                Scatter::Add => a.wrapping_add(b),
                Scatter::Mul => a.wrapping_mul(b),
                Scatter::Max => a.max(b),
                Scatter::Min => a.min(b),
            });
            Ok(from_integers(x.dtype(), x.dims(), &list))
        }
        (Elements::Booleans(mut list), Elements::Booleans(updates)) if how == Scatter::Replace => {
            apply(&mut list, &updates, places, row, |_, b| b);
            Ok(Tensor::from_elements(x.dims(), &list))
        }
        _ => Err(args.undefined_on(x.dtype())),
    }
}
