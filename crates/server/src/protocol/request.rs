//! From a body to a request.

use super::numbers;
use super::parameters::{Object, Parameters, UpTo};
use crate::frontend::{InferRequest, ModelInfo, TensorIn};
use crate::wire::Rejection;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tessera_core::DType;

/// A request and what its caller wants to know about the form of the answer.
#[derive(Debug)]
pub struct Decoded {
    /// For the backend.
    pub request: InferRequest,
    /// To be echoed, when it was given.
    pub id: Option<String>,
    /// Which outputs travel as binary.
    pub wanted: Wanted,
}

/// Which outputs of the answer travel as binary.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// The choice of outputs that made one, by name.
    pub chosen: Vec<(String, bool)>,
    /// Everyone else's.
    pub otherwise: bool,
}

impl Wanted {
    /// Whether this output is wanted as binary.
    pub fn binary(&self, output: &str) -> bool {
        self.chosen.iter().find(|(name, _)| name == output).map_or(self.otherwise, |(_, binary)| *binary)
    }
}

/// Tensors in one request; axes of one tensor. Far above any model, far below harm.
const MOST_TENSORS: usize = 256;
const MOST_AXES: usize = 32;

#[derive(Deserialize)]
struct Body<'a> {
    id: Option<String>,
    parameters: Option<Parameters>,
    #[serde(borrow)]
    inputs: UpTo<Object<Input<'a>>, MOST_TENSORS>,
    outputs: Option<UpTo<Object<Output>, MOST_TENSORS>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: String,
    shape: UpTo<i64, MOST_AXES>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    parameters: Option<Parameters>,
    /// Kept as text until the datatype is known, which may come later in the object.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    parameters: Option<Parameters>,
}

/// Reads a request for `model`. `json_length` is the value of [`super::JSON_LENGTH_HEADER`]; `describe` is asked for
/// the model only when the body is a bare tensor. Tensors sent as binary are not copied.
///
/// Errors with [`Rejection::Invalid`], [`Rejection::Unsupported`], or what `describe` says.
pub fn decode(
    model: &str,
    version: Option<u64>,
    json_length: Option<&str>,
    body: &Bytes,
    describe: impl FnOnce() -> Result<Arc<ModelInfo>, Rejection>,
) -> Result<Decoded, Rejection> {
    let json_length = json_length.map(|word| split_at(word, body.len())).transpose()?;
    if json_length == Some(0) {
        return bare_tensor(model, version, body, &*describe()?);
    }
    let (json, mut tensors) = match json_length {
        Some(length) => (body.slice(..length), body.slice(length..)),
        None => (body.clone(), Bytes::new()),
    };
    let parsed: Object<Body<'_>> = serde_json::from_slice(&json).map_err(|error| syntax(&error, &json))?;
    let Object(parsed) = parsed;
    let parameters = parsed.parameters.unwrap_or_default();
    if ["sequence_id", "sequence_start", "sequence_end"].iter().any(|name| parameters.asks(name)) {
        return Err(Rejection::Unsupported("sequences are not offered: every request stands alone".into()));
    }
    if let Some(twice) = repeated(parsed.inputs.0.iter().map(|Object(input)| input.name.as_str())) {
        return Err(invalid(format_args!("input `{}` is given twice", shown(twice))));
    }
    let mut inputs = Vec::with_capacity(parsed.inputs.0.len());
    for Object(input) in parsed.inputs.0 {
        inputs.push(tensor(input, &mut tensors)?);
    }
    if !tensors.is_empty() {
        return Err(invalid(format_args!("{} bytes of the body belong to no input", tensors.len())));
    }
    let mut wanted = Wanted {
        otherwise: parameters.flag("binary_data_output").map_err(invalid)?.unwrap_or(false),
        ..Wanted::default()
    };
    let mut outputs = Vec::new();
    let asked = parsed.outputs.map(|all| all.0).unwrap_or_default();
    if let Some(twice) = repeated(asked.iter().map(|Object(output)| output.name.as_str())) {
        return Err(invalid(format_args!("output `{}` is asked for twice", shown(twice))));
    }
    for Object(output) in asked {
        let parameters = output.parameters.unwrap_or_default();
        if parameters.asks("classification") || parameters.asks("shared_memory_region") {
            return Err(Rejection::Unsupported(format!(
                "output `{}`: classification and shared memory are not offered",
                shown(&output.name)
            )));
        }
        if let Some(binary) = parameters.flag("binary_data").map_err(invalid)? {
            wanted.chosen.push((output.name.clone(), binary));
        }
        outputs.push(output.name);
    }
    let timeout = parameters.whole("timeout").map_err(invalid)?.filter(|&micros| micros > 0);
    let timeout = timeout.map(Duration::from_micros);
    let request = InferRequest { model: model.into(), version, timeout, inputs, outputs };
    Ok(Decoded { request, id: parsed.id, wanted })
}

/// The first name that was there before. Hashed: comparing each with each would let 256 long names that differ in their last letter
/// take seconds.
fn repeated<'a>(mut names: impl ExactSizeIterator<Item = &'a str>) -> Option<&'a str> {
    // Most requests name one tensor or none, which needs no table.
    if names.len() < 2 {
        return None;
    }
    let mut seen = HashSet::with_capacity(names.len());
    names.find(|name| !seen.insert(*name))
}

fn split_at(word: &str, length: usize) -> Result<usize, Rejection> {
    let read = word.trim().parse::<usize>().ok().filter(|&at| at <= length);
    read.ok_or_else(|| {
        invalid(format_args!(
            "Inference-Header-Content-Length is `{}`; it takes a number from 0 to the body's {length} bytes",
            shown(word)
        ))
    })
}

/// One input; as binary it takes its bytes from the front of `tensors`.
fn tensor(input: Input<'_>, tensors: &mut Bytes) -> Result<TensorIn, Rejection> {
    let name = input.name;
    let wrong = |why: &dyn Display| invalid(format_args!("input `{}`: {why}", shown(&name)));
    let Some(dtype) = DType::from_protocol_name(&input.datatype) else {
        let known: Vec<&str> = DType::ALL.iter().map(|dtype| dtype.protocol_name()).collect();
        return Err(wrong(&format_args!(
            "datatype `{}` is not supported; there are {}",
            shown(&input.datatype),
            known.join(", ")
        )));
    };
    let (shape, count) = extents(&input.shape.0).map_err(|why| wrong(&why))?;
    let bytes = count.checked_mul(dtype.size());
    let bytes = bytes.ok_or_else(|| wrong(&format_args!("its shape {:?} overflows", input.shape.0)))?;
    let parameters = input.parameters.unwrap_or_default();
    if parameters.asks("shared_memory_region") {
        return Err(Rejection::Unsupported(format!(
            "input `{}`: shared memory is not offered",
            shown(&name)
        )));
    }
    let data = match (input.data, parameters.whole("binary_data_size").map_err(|why| wrong(&why))?) {
        (Some(_), Some(_)) => return Err(wrong(&"it has both `data` and `binary_data_size`")),
        (None, None) => return Err(wrong(&"it has neither `data` nor the parameter `binary_data_size`")),
        (Some(json), None) => numbers::read(dtype, json.get(), count).map_err(|why| wrong(&why))?.into(),
        (None, Some(size)) => {
            if u64::try_from(bytes) != Ok(size) {
                let dtype = dtype.protocol_name();
                let shape = &input.shape.0;
                return Err(wrong(&format_args!(
                    "`binary_data_size` is {size}; {dtype} of shape {shape:?} takes {bytes} bytes"
                )));
            }
            if bytes > tensors.len() {
                let left = tensors.len();
                return Err(wrong(&format_args!("the body has {left} bytes left of the {bytes} it takes")));
            }
            tensors.split_to(bytes)
        }
    };
    Ok(TensorIn { name, dtype, shape, data })
}

/// Extents as lengths, and their product.
fn extents(shape: &[i64]) -> Result<(Vec<u64>, usize), String> {
    let lengths: Result<Vec<u64>, _> = shape.iter().map(|&extent| u64::try_from(extent)).collect();
    let lengths = lengths.map_err(|_| format!("its shape {shape:?} has a negative dimension"))?;
    let multiply = |count: usize, &extent: &u64| count.checked_mul(usize::try_from(extent).ok()?);
    // A zero does not excuse its neighbours: their product without it must fit too, for whoever multiplies strides.
    let fits = lengths
        .iter()
        .try_fold(1, |count, &extent| multiply(count, &extent.max(1)))
        .filter(|&count| count <= usize::MAX / 16);
    let overflow = || format!("its shape {shape:?} overflows");
    fits.ok_or_else(overflow)?;
    let count = lengths.iter().try_fold(1, multiply).ok_or_else(overflow)?;
    Ok((lengths, count))
}

/// The body is the one input of a model; its one free dimension, if any, follows from the number of bytes.
fn bare_tensor(
    model: &str,
    version: Option<u64>,
    body: &Bytes,
    info: &ModelInfo,
) -> Result<Decoded, Rejection> {
    let [input] = &info.inputs[..] else {
        return Err(invalid(format_args!(
            "Inference-Header-Content-Length is 0, which takes a model of one input; `{model}` has {}",
            info.inputs.len()
        )));
    };
    if input.dims.iter().filter(|&&extent| extent < 0).count() > 1 {
        return Err(invalid(format_args!(
            "Inference-Header-Content-Length is 0, and more than one dimension of `{}`, {:?}, is free: send a shape",
            input.name, input.dims
        )));
    }
    let fixed: Vec<i64> = input.dims.iter().map(|&extent| if extent < 0 { 1 } else { extent }).collect();
    let one = extents(&fixed).ok().and_then(|(_, count)| count.checked_mul(input.dtype.size()));
    let one = one.ok_or_else(|| Rejection::Internal(format!("the shape of `{}` overflows", input.name)))?;
    let free = input.dims.iter().any(|&extent| extent < 0);
    let times = body.len().checked_div(one).unwrap_or(0);
    if times * one != body.len() || times == 0 || (!free && times != 1) {
        return Err(invalid(format_args!(
            "the body has {} bytes; input `{}` of shape {:?} takes {}{one}",
            body.len(),
            input.name,
            input.dims,
            if free { "a multiple of " } else { "" },
        )));
    }
    let shape = input.dims.iter().map(|&extent| u64::try_from(extent).unwrap_or(times as u64)).collect();
    let tensor = TensorIn { name: input.name.clone(), dtype: input.dtype, shape, data: body.clone() };
    let request = InferRequest {
        model: model.into(),
        version,
        timeout: None,
        inputs: vec![tensor],
        outputs: Vec::new(),
    };
    let wanted = Wanted { otherwise: true, ..Wanted::default() };
    Ok(Decoded { request, id: None, wanted })
}

fn invalid(why: impl Display) -> Rejection {
    Rejection::Invalid(why.to_string())
}

/// A parser's error may quote what it met, which may be megabytes. That JSON has no NaN is no news to its grammar, but to those whose library
/// writes it all the same.
fn syntax(error: &serde_json::Error, json: &[u8]) -> Rejection {
    let hint = if error.is_syntax() && starts_beyond_json(at(json, error.line(), error.column())) {
        "; JSON has no NaN or infinity: send the tensor as binary, with the parameter `binary_data_size`"
    } else {
        ""
    };
    invalid(format_args!("request is not an inference request in JSON: {}{hint}", shown(&error.to_string())))
}

/// What the parser had before it; its lines and columns count from 1, in bytes.
fn at(json: &[u8], line: usize, column: usize) -> &[u8] {
    let line = json.split_inclusive(|&byte| byte == b'\n').nth(line.saturating_sub(1));
    line.and_then(|line| line.get(column.saturating_sub(1)..)).unwrap_or_default()
}

/// Whether this begins as a number does that JSON cannot say. Of −Infinity the parser has taken the sign before it stumbles.
fn starts_beyond_json(text: &[u8]) -> bool {
    ["nan", "inf"]
        .iter()
        .any(|word| text.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes())))
}

/// As much of a caller's text as an error should repeat.
fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(200) {
        Some((at, _)) => Cow::Owned(format!("{}…", &text[..at])),
        None => Cow::Borrowed(text),
    }
}
