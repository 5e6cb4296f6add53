//! Operators on images and their squares, on triangles, and repetitions: the axes that they change are never those of items.

use super::elementwise::like;
use super::fact::{Args, Fact};
use super::number::Extent;
use super::{Known, Note, Number, Outcome, Reason, Rule};
use crate::op::Resize;
use crate::resample;
use crate::tensor::Tensor;
use tessera_core::DType;

fn overflow() -> Reason {
    Reason::Invalid("a dimension overflows".into())
}

/// The whole of every axis so many times. An axis of one shared row may be repeated once per item.
pub(super) fn tile(args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    let repeats = args.numbers(1, "the repeats")?;
    if repeats.len() != x.rank() {
        return Err(Reason::Invalid(format!("{} repeats are given for {x}", repeats.len())));
    }
    let mut extents = Vec::with_capacity(x.rank());
    for (axis, repeat) in repeats.into_iter().enumerate() {
        let times = |length: usize, times: usize| length.checked_mul(times).ok_or_else(overflow);
        extents.push(match (x.extent(axis), repeat.extent()?) {
            (extent, Extent::Fixed(1)) => extent,
            (Extent::Fixed(length), Extent::Fixed(repeat)) => Extent::Fixed(times(length, repeat)?),
            (Extent::Fixed(length), Extent::PerItem(repeat)) => Extent::PerItem(times(length, repeat)?),
            (Extent::PerItem(_), repeat) => {
                return Err(Reason::Mixes(format!("it repeats the item axis of {x} ({repeat:?})")));
            }
        });
    }
    Ok(Fact::of_extents(x.dtype, &extents)?.into())
}

/// An image whose items are whole images.
fn image(args: Args<'_>) -> Result<&Fact, Reason> {
    let x = args.get(0)?;
    if x.rank() != 4 {
        return Err(Reason::Invalid(format!("{x} is no image of four axes")));
    }
    match x.items {
        None | Some(0) => Ok(x),
        Some(axis) => Err(Reason::Mixes(format!("its items are on axis {axis}, which it takes apart"))),
    }
}

pub(super) fn depth_to_space(block: usize, args: Args<'_>) -> Rule {
    let x = image(args)?;
    let square = block.checked_mul(block).filter(|&square| square > 0).ok_or_else(overflow)?;
    if !x.dims[1].is_multiple_of(square) {
        return Err(Reason::Invalid(format!("{} channels are no squares of {block}×{block}", x.dims[1])));
    }
    let mut out = like(x);
    out.dims[1] /= square;
    for axis in [2, 3] {
        out.dims[axis] = x.dims[axis].checked_mul(block).ok_or_else(overflow)?;
    }
    Ok(out.into())
}

pub(super) fn space_to_depth(block: usize, args: Args<'_>) -> Rule {
    let x = image(args)?;
    let mut out = like(x);
    for axis in [2, 3] {
        if x.dims[axis].checked_rem(block) != Some(0) {
            return Err(Reason::Invalid(format!("{x} is not made of squares of {block}×{block}")));
        }
        out.dims[axis] /= block;
        out.dims[1] = out.dims[1].checked_mul(block).ok_or_else(overflow)?;
    }
    Ok(out.into())
}

pub(super) fn trilu(args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    if x.rank() < 2 {
        return Err(Reason::Invalid(format!("{x} is no matrix")));
    }
    if x.items.is_some_and(|axis| axis + 2 >= x.rank()) {
        return Err(Reason::Mixes(format!("the items of {x} are the rows or columns of its triangle")));
    }
    if args.opt(1).is_some() && args.integers(1, "the diagonal")?.len() != 1 {
        return Err(Reason::Invalid("it has more than one diagonal".into()));
    }
    Ok(like(x).into())
}

/// Items stay apart where their axis keeps its length.
pub(super) fn resize(resize: &Resize, args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    let roi = floats(args, 1, "the region of interest")?;
    let scales = floats(args, 2, "the scales")?;
    let sizes = args.opt(3).map(|_| args.numbers(3, "the sizes")).transpose()?;
    let sizes = sizes.map(|sizes| per_item(resize, x, sizes)).transpose()?;
    let scales: Option<Vec<f32>> =
        scales.map(|scales| scales.into_iter().map(|scale| scale as f32).collect());
    let axes = resample::axes(resize, &x.dims, roi.as_deref(), scales.as_deref(), sizes.as_deref());
    let axes = axes.map_err(Reason::Invalid)?;
    let mut out = like(x);
    for axis in &axes {
        if x.items == Some(axis.axis) {
            return Err(Reason::Mixes(format!("it changes the length of the item axis of {x}")));
        }
        out.dims[axis.axis] = axis.output;
    }
    Ok(Outcome { outputs: vec![out], note: Some(Note::Resize { axes }) })
}

/// Sizes of one item: that of the item axis must be the one that it has.
fn per_item(resize: &Resize, x: &Fact, sizes: Vec<Number>) -> Result<Vec<i64>, Reason> {
    let rank = x.rank();
    let one = |(index, size): (usize, Number)| {
        let named = resize.axes.get(index).map_or(Some(index), |&axis| crate::shape::axis(axis, rank));
        match named {
            Some(axis) if x.items == Some(axis) && size == x.length(axis)? => Ok(x.dims[axis] as i64),
            Some(axis) if x.items == Some(axis) => {
                Err(Reason::Mixes(format!("it makes {size} of the item axis of {x}")))
            }
            _ => size.fixed().ok_or_else(|| Reason::Mixes(format!("a size is {size}"))),
        }
    };
    sizes.into_iter().enumerate().map(one).collect()
}

/// The elements of a float input that shapes depend on.
fn floats(args: Args<'_>, index: usize, what: &str) -> Result<Option<Vec<f64>>, Reason> {
    let Some(fact) = args.opt(index) else { return Ok(None) };
    let Some(Known::Tensor(tensor)) = &fact.known else {
        return Err(Reason::DataDependent(format!("{what} are not known")));
    };
    if !fact.dtype.is_float() || fact.rank() != 1 {
        return Err(Reason::Invalid(format!("{what} {fact} are not a list of floats")));
    }
    let wide = crate::reference::eval(&crate::op::Op::Cast(DType::F64), &[Some(tensor)], 1);
    let wide = wide.ok().and_then(|mut wide| wide.pop()).and_then(|wide: Tensor| wide.elements::<f64>());
    Ok(Some(wide.ok_or_else(|| Reason::Invalid(format!("{what} {fact} are not a list of floats")))?))
}
