//! Operators that choose elements by number or by value.

use super::{int, invalid, plain, unsupported};
use crate::onnx::table::{Made, Refusal, Site};
use crate::op::{Op, Scatter};

pub(crate) fn arg(site: &mut Site<'_, '_>, largest: bool) -> Made {
    let op = Op::Arg {
        largest,
        axis: int(site, "axis", 0)?,
        keep_dims: site.attributes.flag("keepdims", true)?,
        last: site.attributes.flag("select_last_index", false)?,
    };
    plain(site, op)
}

pub(crate) fn cum_sum(site: &mut Site<'_, '_>) -> Made {
    let exclusive = site.attributes.flag("exclusive", false)?;
    let reverse = site.attributes.flag("reverse", false)?;
    plain(site, Op::CumSum { exclusive, reverse })
}

pub(crate) fn gather_nd(site: &mut Site<'_, '_>) -> Made {
    let batch_dims = int(site, "batch_dims", 0)?;
    let batch_dims =
        usize::try_from(batch_dims).map_err(|_| invalid(format!("has batch_dims of {batch_dims}")))?;
    plain(site, Op::GatherNd { batch_dims })
}

pub(crate) fn one_hot(site: &mut Site<'_, '_>) -> Made {
    let axis = int(site, "axis", -1)?;
    plain(site, Op::OneHot { axis })
}

pub(crate) fn scatter_elements(site: &mut Site<'_, '_>) -> Made {
    let (axis, how) = (int(site, "axis", 0)?, reduction(site)?);
    plain(site, Op::ScatterElements { axis, how })
}

/// ScatterElements, as opset 10 called it.
pub(crate) fn scatter(site: &mut Site<'_, '_>) -> Made {
    if site.importer.opset >= 11 {
        return Err(unsupported("Scatter was renamed in opset 11; export it as ScatterElements"));
    }
    scatter_elements(site)
}

pub(crate) fn scatter_nd(site: &mut Site<'_, '_>) -> Made {
    let how = reduction(site)?;
    plain(site, Op::ScatterNd(how))
}

fn reduction(site: &Site<'_, '_>) -> Result<Scatter, Refusal> {
    match site.attributes.string("reduction")?.unwrap_or("none") {
        "none" => Ok(Scatter::Replace),
        "add" => Ok(Scatter::Add),
        "mul" => Ok(Scatter::Mul),
        "max" => Ok(Scatter::Max),
        "min" => Ok(Scatter::Min),
        other => Err(invalid(format!("has an unknown reduction `{other}`"))),
    }
}

pub(crate) fn top_k(site: &mut Site<'_, '_>) -> Made {
    let axis = int(site, "axis", -1)?;
    let largest = site.attributes.flag("largest", true)?;
    // Ours are always in order, which is one of the orders that an unsorted one may have.
    site.attributes.skip(&["sorted"]);
    let mut inputs = site.inputs.to_vec();
    if site.importer.opset < 10 {
        let k = site.attributes.int("k")?.ok_or_else(|| invalid("has no k"))?;
        inputs.truncate(1);
        inputs.push(Some(site.integers("k", &[k])));
    } else if inputs.len() < 2 {
        return Err(invalid("has no k"));
    }
    site.finish(Op::TopK { axis, largest }, inputs, 2);
    Ok(())
}
