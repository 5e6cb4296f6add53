//! What a request says beside what its model takes and gives: inputs in the model's order, what they bind, the outputs that are wanted, and the answer put together.

use super::parts;
use crate::frontend::{InferRequest, InferResponse, TensorIn, TensorOut};
use crate::registry::Served;
use crate::wire::Rejection;
use bytes::Bytes;
use tessera_planner::Plan;
use tessera_planner::class::Bound;
use tessera_planner::plan::Port;

/// The indices of the outputs that the request wants; `None` are all, when it names none.
pub(super) fn wanted(served: &Served, request: &InferRequest) -> Result<Option<Vec<usize>>, Rejection> {
    let outputs = &served.info.outputs;
    if request.outputs.is_empty() {
        return Ok(None);
    }
    let find = |name: &String| {
        outputs.iter().position(|output| output.name == *name).ok_or_else(|| {
            let known: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
            Rejection::Invalid(format!(
                "unexpected inference output `{name}` for model `{}`; it has {}",
                served.info.name,
                known.join(", ")
            ))
        })
    };
    request.outputs.iter().map(find).collect::<Result<_, _>>().map(Some)
}

/// The request's inputs in the model's order, all there and of the right type.
pub(super) fn in_order<'a>(served: &Served, given: &'a [TensorIn]) -> Result<Vec<&'a TensorIn>, Rejection> {
    let info = &served.info;
    let known = || info.inputs.iter().map(|input| input.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(extra) = given.iter().find(|input| info.inputs.iter().all(|want| want.name != input.name)) {
        let (name, model) = (&extra.name, &info.name);
        return Err(Rejection::Invalid(format!(
            "unexpected inference input `{name}` for model `{model}`; it takes {}",
            known()
        )));
    }
    let mut ordered = Vec::with_capacity(info.inputs.len());
    for want in &info.inputs {
        let Some(input) = given.iter().find(|input| input.name == want.name) else {
            let text = format!(
                "model `{}` expects {} inputs ({}); `{}` is missing",
                info.name,
                info.inputs.len(),
                known(),
                want.name
            );
            return Err(Rejection::Invalid(text));
        };
        if input.dtype != want.dtype {
            return Err(Rejection::Invalid(format!(
                "input `{}` of model `{}` is {}, but {} was sent",
                want.name,
                info.name,
                want.dtype.protocol_name(),
                input.dtype.protocol_name()
            )));
        }
        ordered.push(input);
    }
    Ok(ordered)
}

/// What the inputs, in the model's order, bind its free dimensions to.
pub(super) fn bound(served: &Served, inputs: &[&TensorIn]) -> Result<Bound, Rejection> {
    let shapes: Vec<&[u64]> = inputs.iter().map(|input| input.shape.as_slice()).collect();
    served.class.bind(&shapes).map_err(|error| {
        let names: Vec<&str> = served.info.inputs.iter().map(|input| input.name.as_str()).collect();
        Rejection::Invalid(error.for_inputs(&names))
    })
}

/// The answer of a plan's outputs, each in parts that are put together; with those that are wanted, or all.
pub(super) fn response(
    served: &Served,
    plan: &Plan,
    parts: &[Vec<Bytes>],
    wanted: Option<Vec<usize>>,
) -> InferResponse {
    let info = &served.info;
    let output = |output: usize| {
        let port = &plan.outputs[output];
        let data = parts::joined(parts.iter().map(|part| part[output].clone()));
        TensorOut {
            name: info.outputs[output].name.clone(),
            dtype: port.dtype,
            shape: shape_of(port, data.len()),
            data,
        }
    };
    let outputs = match wanted {
        None => (0..info.outputs.len()).map(output).collect(),
        Some(wanted) => wanted.into_iter().map(output).collect(),
    };
    InferResponse { model: info.name.clone(), version: info.version, outputs }
}

/// The shape of an output of so many bytes: the items are on its first axis.
fn shape_of(port: &Port, bytes: usize) -> Vec<u64> {
    let mut shape: Vec<u64> = port.dims.iter().map(|&dim| dim as u64).collect();
    let items = bytes.checked_div(port.bytes_per_item()).unwrap_or(1);
    if let Some(rows) = shape.first_mut() {
        *rows *= items as u64;
    }
    shape
}
