//! Normalisations.

use super::{float, int, invalid, plain, rank, sizes, unsupported};
use crate::onnx::data::MAX_RANK;
use crate::onnx::table::{Made, Refusal, Site};
use crate::op::{Binary, Op, Reduction, Unary};
use crate::tensor::Tensor;
use tessera_core::DType;

pub(crate) fn batch_norm(site: &mut Site<'_, '_>) -> Made {
    site.attributes.skip(&["momentum"]);
    let training = site.attributes.flag("training_mode", false)?;
    let weight = site.param_dims(0).filter(|dims| dims.len() >= 2);
    if (training && weight.is_none()) || (1..5).any(|output| site.wants(output)) {
        return Err(unsupported("training mode is not served; export the model after `model.eval()`"));
    }
    let op = Op::BatchNorm { epsilon: float(site, "epsilon", 1e-5)? };
    match weight.filter(|_| training) {
        Some(dims) => standardised(site, op, dims.len()),
        None => plain(site, op),
    }
}

/// A weight normalised by its own mean and variance, as layers with standardised weights have it in every mode.
fn standardised(site: &mut Site<'_, '_>, op: Op, rank: usize) -> Made {
    let axes: Vec<i64> = (0..rank as i64).filter(|&axis| axis != 1).collect();
    let axes = Some(site.integers("axes", &axes));
    let average = |keep_dims| Op::Reduce { kind: Reduction::Mean, keep_dims, noop_with_empty_axes: false };
    let (x, scale, bias) = (site.inputs[0], site.inputs[1], site.inputs[2]);
    let mean = Some(site.inner("mean", average(true), vec![x, axes]));
    let centred = Some(site.inner("centred", Op::Binary(Binary::Sub), vec![x, mean]));
    let square = Some(site.inner("square", Op::Binary(Binary::Mul), vec![centred, centred]));
    let variance = Some(site.inner("variance", average(false), vec![square, axes]));
    let mean = Some(site.inner("means", average(false), vec![x, axes]));
    site.finish(op, vec![x, scale, bias, mean, variance], 1);
    Ok(())
}

/// The type that mean and deviation are computed and answered in.
fn stash_type(site: &Site<'_, '_>) -> Result<DType, Refusal> {
    match int(site, "stash_type", 1)? {
        1 => Ok(DType::F32),
        10 => Ok(DType::F16),
        16 => Ok(DType::BF16),
        other => Err(unsupported(format!(
            "statistics are computed in single precision: only stash_type 1, 10 and 16 are served, not {other}"
        ))),
    }
}

pub(crate) fn layer_norm(site: &mut Site<'_, '_>) -> Made {
    let (axis, epsilon) = (int(site, "axis", -1)?, float(site, "epsilon", 1e-5)?);
    let stash = stash_type(site)?;
    if site.wants(1) || site.wants(2) {
        statistics(site, axis, epsilon, stash)?;
    }
    plain(site, Op::LayerNorm { axis, epsilon })
}

/// LayerNormalization's second and third output: the mean and the inverse of the deviation, as reductions.
fn statistics(site: &mut Site<'_, '_>, axis: i64, epsilon: f32, stash: DType) -> Made {
    if axis < -(MAX_RANK as i64) {
        return Err(invalid(format!("normalises from axis {axis}, and tensors have at most {MAX_RANK}")));
    }
    let axes: Vec<i64> = if axis < 0 { (axis..0).collect() } else { (axis..rank(site)? as i64).collect() };
    let axes = Some(site.integers("axes", &axes));
    let average = || Op::Reduce { kind: Reduction::Mean, keep_dims: true, noop_with_empty_axes: false };
    let x = Some(site.inner("single", Op::Cast(DType::F32), vec![site.inputs[0]]));
    let mean = Some(site.inner("mean", average(), vec![x, axes]));
    if site.wants(1) {
        site.finish_output(1, Op::Cast(stash), vec![mean]);
    }
    if site.wants(2) {
        let centred = Some(site.inner("centred", Op::Binary(Binary::Sub), vec![x, mean]));
        let square = Some(site.inner("square", Op::Binary(Binary::Mul), vec![centred, centred]));
        let variance = Some(site.inner("variance", average(), vec![square, axes]));
        let epsilon = Some(site.make_literal("epsilon", Tensor::scalar(epsilon)));
        let safe = Some(site.inner("safe", Op::Binary(Binary::Add), vec![variance, epsilon]));
        let deviation = Some(site.inner("deviation", Op::Unary(Unary::Sqrt), vec![safe]));
        let inverse = Some(site.inner("inverse", Op::Unary(Unary::Reciprocal), vec![deviation]));
        site.finish_output(2, Op::Cast(stash), vec![inverse]);
    }
    Ok(())
}

/// One vector per group until opset 20, per channel since; the operator takes both.
pub(crate) fn group_norm(site: &mut Site<'_, '_>) -> Made {
    let groups = site.attributes.int("num_groups")?.ok_or_else(|| invalid("has no num_groups"))?;
    let groups = usize::try_from(groups).ok().filter(|&groups| groups > 0);
    let groups = groups.ok_or_else(|| invalid("has a num_groups that is not positive"))?;
    let epsilon = float(site, "epsilon", 1e-5)?;
    stash_type(site)?;
    plain(site, Op::GroupNorm { groups: Some(groups), epsilon })
}

pub(crate) fn instance_norm(site: &mut Site<'_, '_>) -> Made {
    let epsilon = float(site, "epsilon", 1e-5)?;
    plain(site, Op::GroupNorm { groups: None, epsilon })
}

pub(crate) fn lrn(site: &mut Site<'_, '_>) -> Made {
    let size = site.attributes.int("size")?.ok_or_else(|| invalid("has no size"))?;
    let size = sizes("size", &[size], 1)?[0];
    let (alpha, beta) = (float(site, "alpha", 1e-4)?, float(site, "beta", 0.75)?);
    let op = Op::Lrn { size, alpha, beta, bias: float(site, "bias", 1.0)? };
    plain(site, op)
}

/// `x / norm`, and zeros where the norm is zero, as onnxruntime has it.
pub(crate) fn lp_norm(site: &mut Site<'_, '_>) -> Made {
    let kind = match int(site, "p", 2)? {
        1 => Reduction::L1,
        2 => Reduction::L2,
        p => return Err(invalid(format!("has a norm of p {p}, but 1 or 2 is wanted"))),
    };
    let axis = int(site, "axis", -1)?;
    let (x, axes) = (site.inputs[0], site.integers("axes", &[axis]));
    let reduce = Op::Reduce { kind, keep_dims: true, noop_with_empty_axes: false };
    let norm = Some(site.inner("norm", reduce, vec![x, Some(axes)]));
    let quotient = Some(site.inner("quotient", Op::Binary(Binary::Div), vec![x, norm]));
    let something = Some(site.inner("something", Op::Cast(DType::Bool), vec![norm]));
    site.finish(Op::Where, vec![something, quotient, norm], 1);
    Ok(())
}

pub(crate) fn softmax(site: &mut Site<'_, '_>, log: bool) -> Made {
    if site.importer.opset >= 13 {
        let axis = int(site, "axis", -1)?;
        return plain(site, Op::Softmax { axis, log });
    }
    // Until opset 12 all axes from `axis` on were normalised together.
    let axis = int(site, "axis", 1)?;
    if axis == -1 || site.known(0).rank.is_some_and(|rank| axis == rank as i64 - 1) {
        return plain(site, Op::Softmax { axis: -1, log });
    }
    let x = site.inputs[0];
    let matrix = site.inner("matrix", Op::Flatten { axis }, vec![x]);
    let softmax = site.inner("rows", Op::Softmax { axis: -1, log }, vec![Some(matrix)]);
    let shape = site.inner("shape", Op::Shape { start: 0, end: None }, vec![x]);
    site.finish(Op::Reshape { allow_zero: false }, vec![Some(softmax), Some(shape)], 1);
    Ok(())
}
