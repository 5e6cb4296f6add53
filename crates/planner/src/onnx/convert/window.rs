//! Windows over images: convolutions and pools.

use super::{int, invalid, plain, rank, sizes, unsupported};
use crate::graph::ValueId;
use crate::onnx::table::{Made, Refusal, Site};
use crate::op::{Binary, Cut, Op, Padding, Reduction, Transposed, Unary, Window};
use crate::tensor::Tensor;

/// The extents of a window's kernel, which the attributes or the weights give.
fn kernel(site: &Site<'_, '_>, from_weights: Option<Vec<usize>>) -> Result<Vec<usize>, Refusal> {
    let kernel = match (site.attributes.ints("kernel_shape")?, from_weights) {
        (Some(said), from_weights) => {
            let said = sizes("kernel_shape", said, 1)?;
            if let Some(is) = from_weights.filter(|is| *is != said) {
                return Err(invalid(format!("has kernel_shape {said:?} over weights of {is:?}")));
            }
            said
        }
        (None, Some(from_weights)) => from_weights,
        (None, None) => return Err(unsupported("without kernel_shape its weights must be an initializer")),
    };
    let rank = kernel.len();
    if rank == 0 || site.known(0).rank.is_some_and(|x| x != rank + 2) {
        let x = site.known(0).rank.unwrap_or_default();
        return Err(invalid(format!("has a window of {rank} dimensions over an input of {x}")));
    }
    Ok(kernel)
}

/// An attribute of one number per spatial axis.
fn per_axis(
    site: &Site<'_, '_>,
    name: &'static str,
    rank: usize,
    [default, least]: [usize; 2],
) -> Result<Vec<usize>, Refusal> {
    let given = site.attributes.ints(name)?.map(|values| sizes(name, values, least as i64)).transpose()?;
    let given = given.unwrap_or_else(|| vec![default; rank]);
    if given.len() == rank {
        Ok(given)
    } else {
        Err(invalid(format!("has {} {name} for {rank} axes", given.len())))
    }
}

/// Elements before and after each spatial axis.
fn pads(site: &Site<'_, '_>, rank: usize) -> Result<Vec<(usize, usize)>, Refusal> {
    let pads = site.attributes.ints("pads")?.map(|pads| sizes("pads", pads, 0)).transpose()?;
    let pads = pads.unwrap_or_else(|| vec![0; 2 * rank]);
    if pads.len() != 2 * rank {
        return Err(invalid(format!("has {} pads for {rank} axes", pads.len())));
    }
    Ok((0..rank).map(|axis| (pads[axis], pads[axis + rank])).collect())
}

/// How `auto_pad` says that padding is found.
enum AutoPad {
    NotSet,
    Valid,
    SameUpper,
    SameLower,
}

fn auto_pad(site: &Site<'_, '_>) -> Result<AutoPad, Refusal> {
    Ok(match site.attributes.string("auto_pad")?.unwrap_or("NOTSET") {
        "" | "NOTSET" => AutoPad::NotSet,
        "VALID" => AutoPad::Valid,
        "SAME_UPPER" => AutoPad::SameUpper,
        "SAME_LOWER" => AutoPad::SameLower,
        other => return Err(invalid(format!("has an unknown auto_pad `{other}`"))),
    })
}

/// The window that a node's attributes describe, around a kernel that they or the weights give.
fn window(site: &Site<'_, '_>, from_weights: Option<Vec<usize>>) -> Result<Window, Refusal> {
    let kernel = kernel(site, from_weights)?;
    let rank = kernel.len();
    let pads = pads(site, rank)?;
    let padding = match auto_pad(site)? {
        AutoPad::NotSet => Padding::Explicit(pads),
        AutoPad::Valid => Padding::Explicit(vec![(0, 0); rank]),
        AutoPad::SameUpper => Padding::SameUpper,
        AutoPad::SameLower => Padding::SameLower,
    };
    Ok(Window {
        strides: per_axis(site, "strides", rank, [1, 1])?,
        dilations: per_axis(site, "dilations", rank, [1, 1])?,
        kernel,
        padding,
        ceil_mode: false,
    })
}

/// Groups, and the kernel's extents where the weights tell.
fn grouped(site: &Site<'_, '_>) -> Result<(usize, Option<Vec<usize>>), Refusal> {
    let weights = site.param_dims(1);
    if weights.as_ref().is_some_and(|dims| dims.len() < 3) {
        return Err(invalid("has weights of fewer than three dimensions"));
    }
    let groups = int(site, "group", 1)?;
    let groups = usize::try_from(groups).ok().filter(|groups| *groups > 0);
    let groups = groups.ok_or_else(|| invalid("has a group that is not positive"))?;
    Ok((groups, weights.map(|dims| dims[2..].to_vec())))
}

pub(crate) fn conv(site: &mut Site<'_, '_>) -> Made {
    let (groups, kernel) = grouped(site)?;
    let window = window(site, kernel)?;
    plain(site, Op::Conv(window, groups))
}

pub(crate) fn conv_transpose(site: &mut Site<'_, '_>) -> Made {
    let (groups, from_weights) = grouped(site)?;
    let kernel = kernel(site, from_weights)?;
    let rank = kernel.len();
    let pads = pads(site, rank)?;
    let output =
        site.attributes.ints("output_shape")?.map(|dims| sizes("output_shape", dims, 1)).transpose()?;
    // Some write the whole shape, batch and channels included.
    let output = output.map(|dims| if dims.len() == rank + 2 { dims[2..].to_vec() } else { dims });
    if output.as_ref().is_some_and(|output| output.len() != rank) {
        return Err(invalid(format!("has an output_shape that is not one of {rank} axes")));
    }
    let auto_pad = auto_pad(site)?;
    let upper = matches!(auto_pad, AutoPad::SameUpper);
    let cut = match auto_pad {
        _ if output.is_some() => Cut::Same { output, upper },
        AutoPad::NotSet => Cut::Explicit(pads),
        AutoPad::Valid => Cut::Explicit(vec![(0, 0); rank]),
        AutoPad::SameUpper | AutoPad::SameLower => Cut::Same { output: None, upper },
    };
    let strides = per_axis(site, "strides", rank, [1, 1])?;
    let output_padding = per_axis(site, "output_padding", rank, [0, 0])?;
    let window = Window {
        strides: vec![1; rank],
        dilations: per_axis(site, "dilations", rank, [1, 1])?,
        kernel,
        padding: Padding::Transposed(Transposed { strides, output_padding, cut }),
        ceil_mode: false,
    };
    plain(site, Op::ConvTranspose(window, groups))
}

fn pool_window(site: &Site<'_, '_>) -> Result<Window, Refusal> {
    let window = window(site, None)?;
    Ok(Window { ceil_mode: site.attributes.flag("ceil_mode", false)?, ..window })
}

pub(crate) fn max_pool(site: &mut Site<'_, '_>) -> Made {
    let column_major = site.attributes.flag("storage_order", false)?;
    let window = pool_window(site)?;
    if site.wants(1) {
        site.finish_output(1, Op::MaxPoolIndices(window.clone(), column_major), site.inputs.to_vec());
    }
    plain(site, Op::MaxPool(window))
}

pub(crate) fn average_pool(site: &mut Site<'_, '_>) -> Made {
    let count_padding = site.attributes.flag("count_include_pad", false)?;
    let window = pool_window(site)?;
    plain(site, Op::AveragePool(window, count_padding))
}

/// The exponent of an Lp norm.
fn exponent(site: &Site<'_, '_>) -> Result<i64, Refusal> {
    match int(site, "p", 2)? {
        p @ 1.. => Ok(p),
        p => Err(invalid(format!("has an exponent p of {p}"))),
    }
}

/// `(Σ |x|ᵖ)^(1/p)`, the sum being what `sum` makes of `|x|ᵖ`.
fn lp(site: &mut Site<'_, '_>, p: i64, sum: impl FnOnce(&mut Site<'_, '_>, ValueId) -> ValueId) -> Made {
    let x = site.inputs[0];
    let unary = |function| Op::Unary(function);
    let powers = match p {
        1 => site.inner("absolute", unary(Unary::Abs), vec![x]),
        2 => site.inner("square", Op::Binary(Binary::Mul), vec![x, x]),
        _ => {
            let absolute = site.inner("absolute", unary(Unary::Abs), vec![x]);
            let p = site.make_literal("p", Tensor::scalar(p as f32));
            site.inner("power", Op::Binary(Binary::Pow), vec![Some(absolute), Some(p)])
        }
    };
    let sum = sum(site, powers);
    match p {
        1 => site.alias(sum),
        2 => site.finish(unary(Unary::Sqrt), vec![Some(sum)], 1),
        _ => {
            let root = site.make_literal("root", Tensor::scalar(1.0 / p as f32));
            site.finish(Op::Binary(Binary::Pow), vec![Some(sum), Some(root)], 1);
        }
    }
    Ok(())
}

pub(crate) fn lp_pool(site: &mut Site<'_, '_>) -> Made {
    let p = exponent(site)?;
    let window = pool_window(site)?;
    lp(site, p, |site, powers| site.inner("sum", Op::SumPool(window), vec![Some(powers)]))
}

pub(crate) fn global_lp_pool(site: &mut Site<'_, '_>) -> Made {
    let p = exponent(site)?;
    let axes = spatial_axes(site)?;
    lp(site, p, |site, powers| {
        let op = Op::Reduce { kind: Reduction::Sum, keep_dims: true, noop_with_empty_axes: false };
        site.inner("sum", op, vec![Some(powers), Some(axes)])
    })
}

pub(crate) fn global_pool(site: &mut Site<'_, '_>, kind: Reduction) -> Made {
    let axes = spatial_axes(site)?;
    let op = Op::Reduce { kind, keep_dims: true, noop_with_empty_axes: false };
    site.finish(op, vec![site.inputs[0], Some(axes)], 1);
    Ok(())
}

/// The axes after batch and channels.
fn spatial_axes(site: &mut Site<'_, '_>) -> Result<ValueId, Refusal> {
    let rank = rank(site)?;
    let axes: Vec<i64> = (2..rank as i64).collect();
    if axes.is_empty() {
        return Err(invalid(format!("pools an input of {rank} dimensions, which has no spatial ones")));
    }
    Ok(site.integers("axes", &axes))
}
