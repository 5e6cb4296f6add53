//! How element-wise operators that we have no operator for are said with those that we have.

use crate::onnx::convert::{chain, float, identity, plain, unary, unsupported};
use crate::onnx::table::{Made, Site};
use crate::op::{Binary, Op, Unary};
use crate::tensor::Tensor;
use tessera_core::DType;

/// `x / (1 + e^(−alpha·x))`; with alpha 1 it is an operator of its own, which PyTorch calls SiLU.
pub(crate) fn swish(site: &mut Site<'_, '_>) -> Made {
    let alpha = float(site, "alpha", 1.0)?;
    if alpha == 1.0 {
        return unary(site, Unary::Silu);
    }
    let x = site.inputs[0];
    let alpha = site.number("alpha", f64::from(alpha), 0);
    let scaled = site.inner("scaled", Op::Binary(Binary::Mul), vec![x, Some(alpha)]);
    let gate = site.inner("gate", Op::Unary(Unary::Sigmoid), vec![Some(scaled)]);
    site.finish(Op::Binary(Binary::Mul), vec![x, Some(gate)], 1);
    Ok(())
}

/// `alpha · elu(x / alpha)`.
pub(crate) fn celu(site: &mut Site<'_, '_>) -> Made {
    let alpha = float(site, "alpha", 1.0)?;
    let elu = Op::Unary(Unary::Elu { alpha: 1.0 });
    if alpha == 1.0 {
        return plain(site, elu);
    }
    let alpha = Some(site.number("alpha", f64::from(alpha), 0));
    let scaled = site.inner("scaled", Op::Binary(Binary::Div), vec![site.inputs[0], alpha]);
    let bent = site.inner("bent", elu, vec![Some(scaled)]);
    site.finish(Op::Binary(Binary::Mul), vec![Some(bent), alpha], 1);
    Ok(())
}

/// Only a NaN is not itself.
pub(crate) fn is_nan(site: &mut Site<'_, '_>) -> Made {
    let x = site.inputs[0];
    let equal = site.inner("equal", Op::Binary(Binary::Equal), vec![x, x]);
    site.finish(Op::Unary(Unary::Not), vec![Some(equal)], 1);
    Ok(())
}

pub(crate) fn is_inf(site: &mut Site<'_, '_>) -> Made {
    let (negative, positive) =
        (site.attributes.flag("detect_negative", true)?, site.attributes.flag("detect_positive", true)?);
    let mut x = site.inputs[0];
    let which = if positive { f64::INFINITY } else { f64::NEG_INFINITY };
    let infinity = site.number("infinity", which, 0);
    if negative && positive {
        x = Some(site.inner("size", Op::Unary(Unary::Abs), vec![x]));
    }
    // With neither asked for it holds nowhere: nothing is less than minus infinity.
    let compare = if negative || positive { Binary::Equal } else { Binary::Less };
    site.finish(Op::Binary(compare), vec![x, Some(infinity)], 1);
    Ok(())
}

pub(crate) fn tan(site: &mut Site<'_, '_>) -> Made {
    let x = site.inputs[0];
    let [sin, cos] = [("sin", Unary::Sin), ("cos", Unary::Cos)]
        .map(|(what, function)| Some(site.inner(what, Op::Unary(function), vec![x])));
    site.finish(Op::Binary(Binary::Div), vec![sin, cos], 1);
    Ok(())
}

pub(crate) fn mean(site: &mut Site<'_, '_>) -> Made {
    let count = site.inputs.len();
    if count < 2 {
        return chain(site, Binary::Add);
    }
    let mut sum = site.inputs[0];
    for (at, &input) in site.inputs.iter().enumerate().skip(1) {
        sum = Some(site.inner(&format!("sum{at}"), Op::Binary(Binary::Add), vec![sum, input]));
    }
    let count = site.number("count", count as f64, 0);
    site.finish(Op::Binary(Binary::Div), vec![sum, Some(count)], 1);
    Ok(())
}

pub(crate) fn selu(site: &mut Site<'_, '_>) -> Made {
    let (alpha, gamma) = (float(site, "alpha", 1.673_263_2)?, float(site, "gamma", 1.050_701)?);
    unary(site, Unary::Selu { alpha, gamma })
}

pub(crate) fn thresholded_relu(site: &mut Site<'_, '_>) -> Made {
    let alpha = float(site, "alpha", 1.0)?;
    unary(site, Unary::ThresholdedRelu { alpha })
}

/// To the type of another value.
pub(crate) fn cast_like(site: &mut Site<'_, '_>) -> Made {
    // As for Cast: of 8-bit floats only.
    site.attributes.skip(&["saturate", "round_mode"]);
    let to = site.known(1).dtype.ok_or_else(|| unsupported("the type to cast to is not known"))?;
    site.finish(Op::Cast(to), vec![site.inputs[0]], 1);
    Ok(())
}

/// Away at inference; its mask then keeps everything.
pub(crate) fn dropout(site: &mut Site<'_, '_>) -> Made {
    site.attributes.skip(&["ratio", "seed"]);
    let training = site.inputs.get(2).copied().flatten();
    let off = training.is_none() || site.boolean(2) == Some(false);
    if !off {
        return Err(unsupported("training mode is not served; export the model after `model.eval()`"));
    }
    if site.wants(1) {
        let kept = match site.importer.opset {
            10.. => Tensor::from_elements(&[1], &[true]),
            // The mask was of the input's own type.
            _ => {
                let dtype = site.known(0).dtype.unwrap_or(DType::F32);
                crate::reference::number(1.0, dtype).reshaped(vec![1]).expect("it has one element")
            }
        };
        let kept = site.make_literal("kept", kept);
        let shape = site.inner("shape", Op::Shape { start: 0, end: None }, vec![site.inputs[0]]);
        site.finish_output(1, Op::Expand, vec![Some(kept), Some(shape)]);
    }
    identity(site)
}

pub(crate) fn clip(site: &mut Site<'_, '_>) -> Made {
    if site.importer.opset >= 11 {
        return plain(site, Op::Clip);
    }
    let mut inputs = site.inputs.to_vec();
    for (name, index) in [("min", 1), ("max", 2)] {
        if let Some(bound) = site.attributes.float(name)? {
            inputs.resize(index, None);
            inputs.push(Some(site.number(name, f64::from(bound), 0)));
        }
    }
    site.finish(Op::Clip, inputs, 1);
    Ok(())
}
