//! How each operator of each opset is said in the newest spelling. The functions stand in the order of [`super::table`].

mod moves;
mod normal;
mod resize;
mod select;
mod window;

pub(crate) use moves::*;
pub(crate) use normal::*;
pub(crate) use resize::{resize, upsample};
pub(crate) use select::*;
pub(crate) use window::*;

use crate::onnx::data::{SERVED, dtype};
use crate::onnx::table::{Made, Refusal, Site};
use crate::op::{Binary, Op, Reduction, Unary};

pub(crate) fn unsupported(reason: impl Into<String>) -> Refusal {
    Refusal::Unsupported(reason.into())
}

pub(super) fn invalid(problem: impl Into<String>) -> Refusal {
    Refusal::Invalid(problem.into())
}

/// One output, inputs as they are.
pub(crate) fn plain(site: &mut Site<'_, '_>, op: Op) -> Made {
    site.finish(op, site.inputs.to_vec(), 1);
    Ok(())
}

pub(crate) fn unary(site: &mut Site<'_, '_>, op: Unary) -> Made {
    plain(site, Op::Unary(op))
}

pub(crate) fn binary(site: &mut Site<'_, '_>, op: Binary) -> Made {
    plain(site, Op::Binary(op))
}

pub(crate) fn float(site: &Site<'_, '_>, name: &str, default: f32) -> Result<f32, Refusal> {
    Ok(site.attributes.float(name)?.unwrap_or(default))
}

pub(super) fn int(site: &Site<'_, '_>, name: &str, default: i64) -> Result<i64, Refusal> {
    Ok(site.attributes.int(name)?.unwrap_or(default))
}

fn sizes(name: &str, values: &[i64], least: i64) -> Result<Vec<usize>, Refusal> {
    let fits = |&value: &i64| (least..=i64::from(i32::MAX)).contains(&value).then_some(value as usize);
    let sizes: Option<Vec<usize>> = values.iter().map(fits).collect();
    sizes.ok_or_else(|| match values.iter().any(|&value| value < 0) && name == "pads" {
        true => unsupported("negative padding is not served"),
        false => invalid(format!("has {name} of {values:?}")),
    })
}

/// The rank of the first input, which some spellings need.
pub(super) fn rank(site: &Site<'_, '_>) -> Result<usize, Refusal> {
    site.known(0).rank.ok_or_else(|| {
        unsupported(
            "the number of dimensions of its input is not known; run `onnx.shape_inference` over the model",
        )
    })
}

/// Any number of inputs, two at a time from the left.
pub(crate) fn chain(site: &mut Site<'_, '_>, op: Binary) -> Made {
    let Some((&last, first)) = site.inputs.split_last() else { return Err(invalid("has no inputs")) };
    let Some((&start, middle)) = first.split_first() else {
        site.alias(last.expect("required inputs are there"));
        return Ok(());
    };
    let left = middle.iter().enumerate().fold(start, |left, (i, &right)| {
        Some(site.inner(&format!("part{i}"), Op::Binary(op), vec![left, right]))
    });
    site.finish(Op::Binary(op), vec![left, last], 1);
    Ok(())
}

pub(crate) fn gelu(site: &mut Site<'_, '_>) -> Made {
    match site.attributes.string("approximate")?.unwrap_or("none") {
        "none" => unary(site, Unary::Gelu { tanh: false }),
        "tanh" => unary(site, Unary::Gelu { tanh: true }),
        other => Err(invalid(format!("has an unknown approximation `{other}`"))),
    }
}

pub(crate) fn hard_sigmoid(site: &mut Site<'_, '_>) -> Made {
    let (alpha, beta) = (float(site, "alpha", 0.2)?, float(site, "beta", 0.5)?);
    unary(site, Unary::HardSigmoid { alpha, beta })
}

pub(crate) fn cast(site: &mut Site<'_, '_>) -> Made {
    let to = site.attributes.int("to")?.ok_or_else(|| invalid("names no type to cast to"))?;
    // These two speak of 8-bit floats only, which we do not have.
    site.attributes.skip(&["saturate", "round_mode"]);
    let to = i32::try_from(to).map_err(|_| invalid(format!("casts to a type of number {to}")))?;
    let to = dtype(to).map_err(|word| unsupported(format!("casting to {word} is not served; {SERVED}")))?;
    plain(site, Op::Cast(to))
}

pub(crate) fn where_(site: &mut Site<'_, '_>) -> Made {
    plain(site, Op::Where)
}

pub(crate) fn mat_mul(site: &mut Site<'_, '_>) -> Made {
    plain(site, Op::MatMul)
}

pub(crate) fn gemm(site: &mut Site<'_, '_>) -> Made {
    let op = Op::Gemm {
        alpha: float(site, "alpha", 1.0)?,
        beta: float(site, "beta", 1.0)?,
        trans_a: int(site, "transA", 0)? != 0,
        trans_b: int(site, "transB", 0)? != 0,
    };
    plain(site, op)
}

pub(crate) fn reduce(site: &mut Site<'_, '_>, kind: Reduction, axes_are_an_input_since: i64) -> Made {
    let keep_dims = site.attributes.flag("keepdims", true)?;
    if site.importer.opset >= axes_are_an_input_since {
        let noop_with_empty_axes = site.attributes.flag("noop_with_empty_axes", false)?;
        return plain(site, Op::Reduce { kind, keep_dims, noop_with_empty_axes });
    }
    let op = Op::Reduce { kind, keep_dims, noop_with_empty_axes: false };
    let axes = site.attributes.ints("axes")?.map(|axes| site.integers("axes", axes));
    let inputs = site.inputs[..1].iter().copied().chain(axes.map(Some)).collect();
    site.finish(op, inputs, 1);
    Ok(())
}
