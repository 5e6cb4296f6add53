//! From an answer to a body.

use super::numbers;
use super::request::Wanted;
use crate::frontend::InferResponse;
use crate::wire::Rejection;
use serde::Serialize;
use std::io::Write;

/// A body, and where its JSON ends when tensors follow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encoded {
    /// JSON, then binary tensors.
    pub body: Vec<u8>,
    /// The value of [`super::JSON_LENGTH_HEADER`]; absent when all is JSON.
    pub json_length: Option<usize>,
}

/// Writes an answer. Errors with [`Rejection::Invalid`] when an output holds what JSON cannot say and was not asked
/// for as binary. Costs one copy of the tensors, or their decimals.
pub fn encode(response: &InferResponse, id: Option<&str>, wanted: &Wanted) -> Result<Encoded, Rejection> {
    let outputs = || response.outputs.iter().map(|output| (output, wanted.binary(&output.name)));
    let bytes = |binary: bool| {
        outputs()
            .filter(|(_, as_binary)| *as_binary == binary)
            .map(|(output, _)| output.data.len())
            .sum::<usize>()
    };
    // A float's shortest decimal is seldom longer than 12 letters: three for each of its bytes.
    let mut body = Vec::with_capacity(192 + 96 * response.outputs.len() + bytes(true) + 3 * bytes(false));
    body.extend_from_slice(b"{\"model_name\":");
    json(&mut body, &response.model);
    body.extend_from_slice(b",\"model_version\":\"");
    json(&mut body, &response.version);
    body.push(b'"');
    if let Some(id) = id {
        body.extend_from_slice(b",\"id\":");
        json(&mut body, id);
    }
    body.extend_from_slice(b",\"outputs\":[");
    for (at, (output, binary)) in outputs().enumerate() {
        body.extend_from_slice(if at == 0 { b"{\"name\":" } else { b",{\"name\":" });
        json(&mut body, &output.name);
        body.extend_from_slice(b",\"datatype\":\"");
        body.extend_from_slice(output.dtype.protocol_name().as_bytes());
        body.extend_from_slice(b"\",\"shape\":");
        json(&mut body, &output.shape);
        if binary {
            let size = output.data.len();
            write!(body, ",\"parameters\":{{\"binary_data_size\":{size}}}}}")
                .expect("memory takes all that is written");
        } else {
            body.extend_from_slice(b",\"data\":");
            numbers::write(output.dtype, &output.data, &mut body).map_err(|value| {
                Rejection::Invalid(format!(
                    "output '{}' holds {value}, which JSON has no word for; ask for it as binary: \
                     \"parameters\": {{\"binary_data_output\": true}}",
                    output.name
                ))
            })?;
            body.push(b'}');
        }
    }
    body.extend_from_slice(b"]}");
    let any_binary = outputs().any(|(_, binary)| binary);
    let json_length = any_binary.then_some(body.len());
    for (output, _) in outputs().filter(|(_, binary)| *binary) {
        body.extend_from_slice(&output.data);
    }
    Ok(Encoded { body, json_length })
}

fn json<T: Serialize + ?Sized>(body: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(body, value).expect("names and numbers have a form in JSON");
}
