//! Operators that move elements, or only change shapes.

use super::{int, invalid, plain, sizes, unsupported};
use crate::graph::ValueId;
use crate::onnx::convert::float;
use crate::onnx::proto::TensorProto;
use crate::onnx::table::{Made, Refusal, Site};
use crate::op::{Op, PadMode, Reduction};
use crate::tensor::Tensor;

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

pub(crate) fn depth_to_space(site: &mut Site<'_, '_>) -> Made {
    let (block, depth_first) = blocks(site)?;
    plain(site, Op::DepthToSpace { block, depth_first })
}

pub(crate) fn space_to_depth(site: &mut Site<'_, '_>) -> Made {
    let (block, depth_first) = blocks(site)?;
    plain(site, Op::SpaceToDepth { block, depth_first })
}

/// The side of a square of pixels, and whether depth comes before rows and columns.
fn blocks(site: &Site<'_, '_>) -> Result<(usize, bool), Refusal> {
    let block = site.attributes.int("blocksize")?.ok_or_else(|| invalid("has no blocksize"))?;
    let block = sizes("blocksize", &[block], 1)?[0];
    match site.attributes.string("mode")?.unwrap_or("DCR") {
        "DCR" => Ok((block, true)),
        "CRD" => Ok((block, false)),
        other => Err(invalid(format!("has an unknown mode `{other}`"))),
    }
}

/// The product of the shape.
pub(crate) fn size(site: &mut Site<'_, '_>) -> Made {
    let shape = site.inner("shape", Op::Shape { start: 0, end: None }, vec![site.inputs[0]]);
    let op = Op::Reduce { kind: Reduction::Prod, keep_dims: false, noop_with_empty_axes: false };
    site.finish(op, vec![Some(shape)], 1);
    Ok(())
}

pub(crate) fn trilu(site: &mut Site<'_, '_>) -> Made {
    let upper = site.attributes.flag("upper", true)?;
    plain(site, Op::Trilu { upper })
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
