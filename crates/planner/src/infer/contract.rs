//! Sums over an inner dimension: products of matrices and windows over images. Items may be rows or batches,
//! never what is summed over, and weights are shared by all of them.

use super::elementwise::{broadcast, like};
use super::fact::{Args, Fact, shared};
use super::{Reason, Rule};
use crate::op::Window;
use tessera_core::DType;

fn one_type(a: &Fact, b: &Fact) -> Result<(), Reason> {
    match a.dtype == b.dtype && a.dtype != DType::Bool {
        true => Ok(()),
        false => Err(Reason::Invalid(format!(
            "its inputs are {} and {}, which must be one type of number",
            a.dtype, b.dtype
        ))),
    }
}

fn summed_over_items(fact: &Fact) -> Reason {
    Reason::Mixes(format!("it sums over the items of {fact}"))
}

/// `Gemm` as ONNX has it, and in a folded graph over the last axis of an `a` of any rank.
pub(super) fn gemm(trans_a: bool, trans_b: bool, args: Args<'_>) -> Rule {
    let (a, b) = (args.get(0)?, args.get(1)?);
    one_type(a, b)?;
    shared(b, "the second matrix")?;
    let over_rows = a.rank() >= 1 && !trans_a;
    if b.rank() != 2 || (a.rank() != 2 && !over_rows) {
        return Err(Reason::Invalid("it multiplies matrices".into()));
    }
    let (k, n) = if trans_b { (b.dims[1], b.dims[0]) } else { (b.dims[0], b.dims[1]) };
    let last = a.rank() - 1;
    let inner = if trans_a { 0 } else { last };
    if a.items == Some(inner) {
        return Err(summed_over_items(a));
    }
    if a.dims[inner] != k {
        return Err(Reason::Invalid(format!("rows of {} elements meet columns of {k}", a.dims[inner])));
    }
    let mut out = like(a);
    if trans_a {
        out.dims.swap(0, 1);
        out.items = out.items.map(|axis| 1 - axis);
    }
    out.dims[last] = n;
    if let Some(c) = args.opt(2) {
        one_type(a, c)?;
        if broadcast(out.dtype, &[&out, c])? != out {
            return Err(Reason::Invalid(format!("the addend {c} does not broadcast to the product {out}")));
        }
    }
    Ok(out.into())
}

pub(super) fn matmul(args: Args<'_>) -> Rule {
    let (a, b) = (args.get(0)?, args.get(1)?);
    one_type(a, b)?;
    if a.rank() == 0 || b.rank() == 0 {
        return Err(Reason::Invalid("it does not multiply scalars".into()));
    }
    // A vector on the left is a row, one on the right a column; the axis added for it is taken away again.
    let (row, column) = (a.rank() == 1, b.rank() == 1);
    let matrix = |fact: &Fact, at: usize| {
        let mut matrix = like(fact);
        matrix.dims.insert(at, 1);
        matrix.items = matrix.items.map(|axis| if axis >= at { axis + 1 } else { axis });
        matrix
    };
    let a = if row { matrix(a, 0) } else { like(a) };
    let b = if column { matrix(b, 1) } else { like(b) };
    let (a_rank, b_rank) = (a.rank(), b.rank());
    if a.items == Some(a_rank - 1) {
        return Err(summed_over_items(&a));
    }
    if b.items == Some(b_rank - 2) {
        return Err(summed_over_items(&b));
    }
    if b.items == Some(b_rank - 1) {
        return Err(Reason::Mixes(format!("the items of {b} would become columns of a product")));
    }
    let (k, other) = (a.dims[a_rank - 1], b.dims[b_rank - 2]);
    if k != other {
        return Err(Reason::Invalid(format!("rows of {k} elements meet columns of {other}")));
    }
    // Broadcast as if both were [batch…, m, n], each with what it lacks as 1.
    let (mut rows, mut columns) = (a, b);
    rows.dims[a_rank - 1] = 1;
    columns.dims[b_rank - 2] = 1;
    let mut out = broadcast(rows.dtype, &[&rows, &columns])?;
    if column {
        out.dims.pop();
    }
    if row {
        let at = out.rank() - 1 - usize::from(!column);
        out.dims.remove(at);
        out.items = out.items.map(|axis| if axis > at { axis - 1 } else { axis });
    }
    Ok(out.into())
}

/// The spatial extents of an image `[n, c, spatial…]` whose items, if any, are on axis 0.
fn image(x: &Fact) -> Result<&[usize], Reason> {
    if x.rank() < 3 {
        return Err(Reason::Invalid(format!("{x} is not an image [n, c, …]")));
    }
    match x.items {
        None | Some(0) => Ok(&x.dims[2..]),
        Some(axis) => Err(Reason::Mixes(format!("items are on axis {axis} of an image"))),
    }
}

pub(super) fn conv(window: &Window, groups: usize, args: Args<'_>) -> Rule {
    let (x, w) = (args.get(0)?, args.shared(1, "the kernel")?);
    one_type(x, w)?;
    image(x)?;
    if w.rank() != x.rank() || w.dims[2..] != window.kernel[..] {
        return Err(Reason::Invalid(format!("the kernel {w} is not one of {:?}", window.kernel)));
    }
    if groups == 0 || !w.dims[0].is_multiple_of(groups) || w.dims[1].checked_mul(groups) != Some(x.dims[1]) {
        return Err(Reason::Invalid(format!(
            "{groups} groups of {} channels do not make {}",
            w.dims[1], x.dims[1]
        )));
    }
    channel_bias(x, w.dims[0], args)?;
    swept(window, x, w.dims[0])
}

/// `w [c, out/groups, kernel…]`, as ONNX has it: a folded graph has a [`conv`] instead.
pub(super) fn conv_transpose(window: &Window, groups: usize, args: Args<'_>) -> Rule {
    let (x, w) = (args.get(0)?, args.shared(1, "the kernel")?);
    one_type(x, w)?;
    image(x)?;
    if w.rank() != x.rank() || w.dims[2..] != window.kernel[..] {
        return Err(Reason::Invalid(format!("the kernel {w} is not one of {:?}", window.kernel)));
    }
    let channels = w.dims[1].checked_mul(groups);
    let Some(channels) =
        channels.filter(|_| groups > 0 && w.dims[0] == x.dims[1] && x.dims[1].is_multiple_of(groups))
    else {
        return Err(Reason::Invalid(format!(
            "{groups} groups of the kernel {w} do not fit {} channels",
            x.dims[1]
        )));
    };
    channel_bias(x, channels, args)?;
    swept(window, x, channels)
}

fn channel_bias(x: &Fact, channels: usize, args: Args<'_>) -> Result<(), Reason> {
    let Some(bias) = args.opt(2) else { return Ok(()) };
    shared(bias, "the bias")?;
    match bias.dims == [channels] && bias.dtype == x.dtype {
        true => Ok(()),
        false => Err(Reason::Invalid(format!("the bias {bias} is not one of {channels} channels"))),
    }
}

/// What a window over the images of `x` makes, with so many channels.
fn swept(window: &Window, x: &Fact, channels: usize) -> Rule {
    let fit = window.fit(image(x)?).map_err(Reason::Invalid)?;
    let mut out = like(x);
    out.dims[1] = channels;
    out.dims[2..].copy_from_slice(&fit.output);
    Ok(out.into())
}

pub(super) fn pool(window: &Window, args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    image(x)?;
    if x.dtype == DType::Bool {
        return Err(Reason::Invalid("it is not defined on bool".into()));
    }
    swept(window, x, x.dims[1])
}

/// Places are counted over all images of x, so those of an item depend on the items before it.
pub(super) fn pool_indices(window: &Window, args: Args<'_>) -> Rule {
    let mut made = pool(window, args)?;
    for out in &mut made.outputs {
        if out.items.is_some() {
            return Err(Reason::Mixes(
                "indices of a maximum count the elements of all items before it".into(),
            ));
        }
        out.dtype = DType::I64;
    }
    Ok(made)
}
