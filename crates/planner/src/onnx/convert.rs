//! How each operator of each opset is said in the newest spelling. The functions stand in the order of [`super::table`].

mod normal;
mod window;

pub(crate) use normal::*;
pub(crate) use window::*;

use crate::graph::ValueId;
use crate::onnx::data::{SERVED, dtype};
use crate::onnx::proto::TensorProto;
use crate::onnx::table::{Made, Refusal, Site};
use crate::op::{Binary, Direction, Op, PadMode, Recurrent, Reduction, Unary};
use crate::tensor::Tensor;

pub(crate) fn unsupported(reason: impl Into<String>) -> Refusal {
    Refusal::Unsupported(reason.into())
}

fn invalid(problem: impl Into<String>) -> Refusal {
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

fn int(site: &Site<'_, '_>, name: &str, default: i64) -> Result<i64, Refusal> {
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
fn rank(site: &Site<'_, '_>) -> Result<usize, Refusal> {
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

pub(crate) fn lstm(site: &mut Site<'_, '_>) -> Made {
    let attributes = site.attributes;
    let direction = match attributes.string("direction")?.unwrap_or("forward") {
        "forward" => Direction::Forward,
        "reverse" => Direction::Reverse,
        "bidirectional" => Direction::Bidirectional,
        other => return Err(invalid(format!("has an unknown direction `{other}`"))),
    };
    let directions = if direction == Direction::Bidirectional { 2 } else { 1 };
    if let Some(activations) = attributes.strings("activations")? {
        let usual = ["sigmoid", "tanh", "tanh"];
        let count = activations.len() == 3 * directions;
        let same =
            activations.iter().zip(usual.iter().cycle()).all(|(is, usual)| is.eq_ignore_ascii_case(usual));
        if !(count && same) {
            return Err(unsupported(format!("only the usual activations are served, not {activations:?}")));
        }
    }
    let unusual = [
        attributes.float("clip")?.is_some(),
        attributes.flag("input_forget", false)?,
        attributes.floats("activation_alpha")?.is_some_and(|values| !values.is_empty()),
        attributes.floats("activation_beta")?.is_some_and(|values| !values.is_empty()),
    ];
    if unusual.contains(&true) {
        return Err(unsupported("clip, input_forget and parameters of activations are not served"));
    }
    if attributes.flag("layout", false)? {
        return Err(unsupported("only layout 0 (time first) is served"));
    }
    let from_weights = site.param_dims(2).and_then(|dims| dims.last().map(|&hidden| hidden as i64));
    let hidden = attributes.int("hidden_size")?.or(from_weights);
    let hidden = hidden.and_then(|hidden| usize::try_from(hidden).ok()).filter(|&hidden| hidden > 0);
    let hidden = hidden.ok_or_else(|| invalid("has no hidden_size, and its weights do not tell one"))?;
    site.finish(Op::Lstm(Recurrent { hidden, direction }), site.inputs.to_vec(), 3);
    Ok(())
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

pub(crate) fn concat(site: &mut Site<'_, '_>) -> Made {
    let axis = site.attributes.int("axis")?.ok_or_else(|| invalid("has no axis"))?;
    plain(site, Op::Concat { axis })
}

pub(crate) fn constant(site: &mut Site<'_, '_>) -> Made {
    let attributes = site.attributes;
    if let Some(value) = attributes.tensor("value")? {
        let loaded = site.load(value)?;
        return site.constant(&loaded);
    }
    let proto = if let Some(value) = attributes.float("value_float")? {
        TensorProto { data_type: Some(1), float_data: vec![value], ..TensorProto::default() }
    } else if let Some(values) = attributes.floats("value_floats")? {
        let dims = vec![values.len() as i64];
        TensorProto { data_type: Some(1), dims, float_data: values.to_vec(), ..TensorProto::default() }
    } else if let Some(value) = attributes.int("value_int")? {
        TensorProto { data_type: Some(7), int64_data: vec![value], ..TensorProto::default() }
    } else if let Some(values) = attributes.ints("value_ints")? {
        let dims = vec![values.len() as i64];
        TensorProto { data_type: Some(7), dims, int64_data: values.to_vec(), ..TensorProto::default() }
    } else if ["value_string", "value_strings"].iter().any(|name| attributes.has(name)) {
        return Err(unsupported("constants that are strings are not served"));
    } else if attributes.has("sparse_value") {
        return Err(unsupported("sparse constants are not served; export them dense"));
    } else {
        return Err(invalid("has no value"));
    };
    let loaded = site.load(&proto)?;
    site.constant(&loaded)
}

pub(crate) fn constant_of_shape(site: &mut Site<'_, '_>) -> Made {
    let value = match site.attributes.tensor("value")? {
        None => Tensor::from_elements(&[1], &[0f32]),
        Some(proto) => {
            let loaded = site.load(proto)?;
            if loaded.elements() != 1 {
                return Err(invalid(format!("has a value of {} elements, not one", loaded.elements())));
            }
            let one = loaded.literal("the value of ConstantOfShape")?;
            one.reshaped(vec![1]).expect("it has one element")
        }
    };
    plain(site, Op::ConstantOfShape { value })
}

pub(crate) fn identity(site: &mut Site<'_, '_>) -> Made {
    site.alias(site.inputs[0].expect("required inputs are there"));
    Ok(())
}

pub(crate) fn flatten(site: &mut Site<'_, '_>) -> Made {
    let axis = int(site, "axis", 1)?;
    plain(site, Op::Flatten { axis })
}

pub(crate) fn gather(site: &mut Site<'_, '_>) -> Made {
    let axis = int(site, "axis", 0)?;
    plain(site, Op::Gather { axis })
}

pub(crate) fn gather_elements(site: &mut Site<'_, '_>) -> Made {
    let axis = int(site, "axis", 0)?;
    plain(site, Op::GatherElements { axis })
}

pub(crate) fn pad(site: &mut Site<'_, '_>) -> Made {
    let mode = match site.attributes.string("mode")?.unwrap_or("constant") {
        "constant" => PadMode::Constant,
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Edge,
        "wrap" => PadMode::Wrap,
        other => return Err(invalid(format!("has an unknown mode `{other}`"))),
    };
    if site.importer.opset >= 11 {
        return match site.inputs.get(1) {
            Some(Some(_)) => plain(site, Op::Pad(mode)),
            _ => Err(invalid("has no pads")),
        };
    }
    let pads = site.attributes.ints("pads")?.ok_or_else(|| invalid("has no pads"))?;
    let value = float(site, "value", 0.0)?;
    let mut inputs = vec![site.inputs[0], Some(site.integers("pads", pads))];
    if mode == PadMode::Constant && value != 0.0 {
        inputs.push(Some(site.make_literal("value", Tensor::scalar(value))));
    }
    site.finish(Op::Pad(mode), inputs, 1);
    Ok(())
}

pub(crate) fn range(site: &mut Site<'_, '_>) -> Made {
    // In which type halves are counted up; the result is rounded to the same.
    site.attributes.skip(&["stash_type"]);
    plain(site, Op::Range)
}

pub(crate) fn reshape(site: &mut Site<'_, '_>) -> Made {
    let allow_zero = site.attributes.flag("allowzero", false)?;
    plain(site, Op::Reshape { allow_zero })
}

pub(crate) fn shape(site: &mut Site<'_, '_>) -> Made {
    let op = Op::Shape { start: int(site, "start", 0)?, end: site.attributes.int("end")? };
    plain(site, op)
}

pub(crate) fn slice(site: &mut Site<'_, '_>) -> Made {
    if site.importer.opset >= 10 {
        return match site.inputs.get(1..3) {
            Some([Some(_), Some(_)]) => plain(site, Op::Slice),
            _ => Err(invalid("has no starts and ends")),
        };
    }
    let attribute = |name: &str| -> Result<&[i64], Refusal> {
        site.attributes.ints(name)?.ok_or_else(|| invalid(format!("has no {name}")))
    };
    let (starts, ends) = (attribute("starts")?, attribute("ends")?);
    let axes = site.attributes.ints("axes")?;
    let mut inputs = vec![site.inputs[0]];
    inputs.push(Some(site.integers("starts", starts)));
    inputs.push(Some(site.integers("ends", ends)));
    inputs.extend(axes.map(|axes| Some(site.integers("axes", axes))));
    site.finish(Op::Slice, inputs, 1);
    Ok(())
}

pub(crate) fn split(site: &mut Site<'_, '_>) -> Made {
    let axis = int(site, "axis", 0)?;
    let parts = site.node.output.len();
    if let Some(count) = site.attributes.int("num_outputs")?.filter(|&count| count != parts as i64) {
        return Err(invalid(format!("says that it has {count} outputs, and has {parts}")));
    }
    let sizes = site.attributes.ints("split")?;
    if sizes.is_some_and(|sizes| sizes.len() != parts) {
        return Err(invalid(format!("has {} sizes for {parts} outputs", sizes.unwrap_or_default().len())));
    }
    let mut inputs = site.inputs.to_vec();
    if let Some(sizes) = sizes {
        inputs.truncate(1);
        inputs.push(Some(site.integers("sizes", sizes)));
    }
    site.finish(Op::Split { axis }, inputs, parts);
    Ok(())
}

/// Squeeze and Unsqueeze, whose axes were an attribute until opset 12.
pub(crate) fn axes(site: &mut Site<'_, '_>, op: Op) -> Made {
    let mut inputs: Vec<Option<ValueId>> = site.inputs.to_vec();
    if site.importer.opset < 13 {
        inputs.truncate(1);
        inputs.extend(site.attributes.ints("axes")?.map(|axes| Some(site.integers("axes", axes))));
    }
    if op == Op::Unsqueeze && inputs.len() < 2 {
        return Err(invalid("has no axes"));
    }
    site.finish(op, inputs, 1);
    Ok(())
}

pub(crate) fn transpose(site: &mut Site<'_, '_>) -> Made {
    let perm = site.attributes.ints("perm")?.unwrap_or_default();
    let perm = sizes("perm", perm, 0)?;
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    let rank = site.known(0).rank.filter(|_| !perm.is_empty()).unwrap_or(perm.len());
    if rank != perm.len() || sorted.iter().enumerate().any(|(i, &axis)| i != axis) {
        return Err(invalid(format!("has a perm {perm:?} that is no permutation of its input's axes")));
    }
    plain(site, Op::Transpose { perm })
}
