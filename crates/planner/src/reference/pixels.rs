//! Squares of pixels, triangles, repetitions, and images made larger or smaller.

use super::EvalError;
use super::element::{Elements, from_floats};
use super::error::Args;
use super::moves::walk;
use crate::op::{Coordinates, Op, Resize};
use crate::resample::{self, Axis, Taps};
use crate::shape;
use crate::tensor::Tensor;
use tessera_core::DType;

/// `x` repeated to `dims`, which are multiples of its own and fit into memory.
pub(crate) fn tile_to(x: &Tensor, dims: &[usize]) -> Tensor {
    // Every axis is one of repetitions, which stand still, and one of elements.
    let (mut split, mut strides) = (Vec::new(), Vec::new());
    for ((&length, &own), stride) in dims.iter().zip(x.dims()).zip(shape::strides(x.dims())) {
        split.extend([length.checked_div(own).unwrap_or(0), own]);
        strides.extend([0, stride as isize]);
    }
    let tiled = walk(x, &split, 0, &strides);
    tiled.reshaped(dims.to_vec()).expect("every element was repeated")
}

pub(super) fn tile(args: Args<'_>) -> Result<Tensor, EvalError> {
    let (x, repeats) = (args.get(0)?, args.integers(1)?);
    let times = |(&length, &repeat): (&usize, &i64)| usize::try_from(repeat).ok()?.checked_mul(length);
    let dims: Option<Vec<usize>> = x.dims().iter().zip(&repeats).map(times).collect();
    let dims = dims.filter(|dims| dims.len() == repeats.len());
    let dims = dims.ok_or_else(|| args.misfit(format!("it cannot be repeated {repeats:?} times")))?;
    args.count(x.dtype(), &dims)?;
    Ok(tile_to(x, &dims))
}

/// Four axes, with those of squares among them, in another order and joined again.
fn regrouped(
    args: Args<'_>,
    split: &[usize; 6],
    perm: [usize; 6],
    dims: [usize; 4],
) -> Result<Tensor, EvalError> {
    let misfit = |error: crate::tensor::TensorError| args.misfit(error.to_string());
    let x = args.get(0)?.reshaped(split.to_vec()).map_err(misfit)?;
    let turned = super::eval(&Op::Transpose { perm: perm.to_vec() }, &[Some(&x)], 1)?;
    turned[0].reshaped(dims.to_vec()).map_err(misfit)
}

fn image(args: Args<'_>) -> Result<[usize; 4], EvalError> {
    let dims = args.get(0)?.dims();
    dims.try_into().map_err(|_| args.misfit("it is no image of four axes"))
}

pub(super) fn depth_to_space(block: usize, depth_first: bool, args: Args<'_>) -> Result<Tensor, EvalError> {
    let [n, c, h, w] = image(args)?;
    let square = block.saturating_mul(block);
    if c.checked_rem(square) != Some(0) {
        return Err(args.misfit(format!("{c} channels are no squares of {block}×{block}")));
    }
    let depth = c / square;
    let dims = [n, depth, h.saturating_mul(block), w.saturating_mul(block)];
    match depth_first {
        true => regrouped(args, &[n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2], dims),
        false => regrouped(args, &[n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3], dims),
    }
}

pub(super) fn space_to_depth(block: usize, depth_first: bool, args: Args<'_>) -> Result<Tensor, EvalError> {
    let [n, c, h, w] = image(args)?;
    if [h, w].iter().any(|side| side.checked_rem(block) != Some(0)) {
        return Err(args.misfit(format!("it is not made of squares of {block}×{block}")));
    }
    let (rows, columns) = (h / block, w / block);
    let depth = c.saturating_mul(block.saturating_mul(block));
    let perm = if depth_first { [0, 3, 5, 1, 2, 4] } else { [0, 1, 3, 5, 2, 4] };
    regrouped(args, &[n, c, rows, block, columns, block], perm, [n, depth, rows, columns])
}

pub(super) fn trilu(upper: bool, args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let [.., rows, columns] = *x.dims() else { return Err(args.misfit("it is no matrix")) };
    let diagonal = match args.opt(1) {
        None => 0,
        Some(_) => match args.integers(1)?[..] {
            [diagonal] => i128::from(diagonal),
            _ => return Err(args.misfit("it has more than one diagonal")),
        },
    };
    let size = x.dtype().size();
    let mut bytes = x.bytes().to_vec();
    for (at, element) in bytes.chunks_exact_mut(size).enumerate() {
        let (row, column) = (at / columns % rows, at % columns);
        let beyond = column as i128 - row as i128 - diagonal;
        if if upper { beyond < 0 } else { beyond > 0 } {
            element.fill(0);
        }
    }
    Ok(Tensor::new(x.dtype(), x.dims().to_vec(), bytes).expect("as many elements as before"))
}

pub(super) fn resize(resize: &Resize, args: Args<'_>) -> Result<Tensor, EvalError> {
    let floats = |index: usize| -> Result<Option<Vec<f64>>, EvalError> {
        match args.opt(index).map(Elements::of) {
            None => Ok(None),
            Some(Elements::Floats(list)) => Ok(Some(list)),
            Some(_) => Err(args.misfit(format!("input {index} is not a list of floats"))),
        }
    };
    let (roi, scales) = (floats(1)?, floats(2)?);
    let scales: Option<Vec<f32>> =
        scales.map(|scales| scales.into_iter().map(|scale| scale as f32).collect());
    let sizes = args.opt(3).map(|_| args.integers(3)).transpose()?;
    let x = args.get(0)?;
    let axes = resample::axes(resize, x.dims(), roi.as_deref(), scales.as_deref(), sizes.as_deref());
    resize_along(resize, &axes.map_err(|why| args.misfit(why))?, x)
}

/// `x` resized along some axes. Integers become the nearest ones toward zero, as ONNX's own implementation casts them.
pub(crate) fn resize_along(resize: &Resize, axes: &[Axis], x: &Tensor) -> Result<Tensor, EvalError> {
    let args = super::error::Args { op: "Resize", inputs: &[Some(x)] };
    let mut dims = x.dims().to_vec();
    let mut list = match Elements::of(x) {
        Elements::Floats(list) => list,
        Elements::Integers(list) => list.into_iter().map(|x| x as f64).collect(),
        Elements::Booleans(_) => return Err(args.undefined_on(DType::Bool)),
    };
    let mut outside = Vec::new();
    for axis in axes {
        let at = axis.axis;
        let [outer, inner] = [&dims[..at], &dims[at + 1..]].map(|dims| shape::count(dims).unwrap_or(0));
        dims[at] = axis.output;
        args.count(DType::F64, &dims)?;
        let taps = if axis.output == 0 { None } else { Some(Taps::of(resize, axis)) };
        let (length, output) = (axis.input, axis.output);
        let mut next = vec![0.0; outer * output * inner];
        for (place, element) in next.iter_mut().enumerate() {
            let (o, position, i) = (place / (output * inner), place / inner % output, place % inner);
            let Some(taps) = taps.as_ref().filter(|taps| taps.inside.contains(&position)) else { continue };
            let first = (position - taps.inside.start) * taps.count;
            let pairs = (first..first + taps.count).map(|tap| (taps.at[tap], taps.weights[tap]));
            // What weighs nothing is not there, be it infinite.
            *element = pairs
                .filter(|(_, weight)| *weight != 0.0)
                .map(|(from, weight)| weight * list[(o * length + from) * inner + i])
                .sum();
        }
        list = next;
        outside.extend(taps.map(|taps| (at, taps.inside)));
    }
    if let Coordinates::CropAndResize { extrapolation } = resize.coordinates {
        let strides = shape::strides(&dims);
        for (place, element) in list.iter_mut().enumerate() {
            if outside.iter().any(|(axis, inside)| !inside.contains(&(place / strides[*axis] % dims[*axis])))
            {
                *element = f64::from(extrapolation);
            }
        }
    }
    Ok(from_floats(x.dtype(), &dims, &list))
}
