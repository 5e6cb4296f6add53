//! What a request says beside what its model takes and gives: inputs in the model's order, the outputs that are wanted, and the shape of an answer.

use crate::frontend::{InferRequest, TensorIn};
use crate::registry::Served;
use crate::wire::Rejection;
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
                "unexpected inference output '{name}' for model '{}'; it has {}",
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
            "unexpected inference input '{name}' for model '{model}'; it takes {}",
            known()
        )));
    }
    let mut ordered = Vec::with_capacity(info.inputs.len());
    for want in &info.inputs {
        let Some(input) = given.iter().find(|input| input.name == want.name) else {
            let text = format!(
                "model '{}' expects {} inputs ({}); '{}' is missing",
                info.name,
                info.inputs.len(),
                known(),
                want.name
            );
            return Err(Rejection::Invalid(text));
        };
        if input.dtype != want.dtype {
            return Err(Rejection::Invalid(format!(
                "input '{}' of model '{}' is {}, but {} was sent",
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

/// The shape of an output of so many bytes: the items are on its first axis.
pub(super) fn shape_of(port: &Port, bytes: usize) -> Vec<u64> {
    let mut shape: Vec<u64> = port.dims.iter().map(|&dim| dim as u64).collect();
    let items = bytes.checked_div(port.bytes_per_item()).unwrap_or(1);
    if let Some(rows) = shape.first_mut() {
        *rows *= items as u64;
    }
    shape
}
