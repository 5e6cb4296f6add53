//! Named tensors as requests carry them and answers bring them, in JSON and as binary.

use crate::client::{Answer, head};
use half::f16;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tessera_core::DType;
use tessera_planner::Tensor;

/// Tensors by name, in order.
pub(crate) type Tensors = Vec<(String, Tensor)>;

/// How tensors travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Json,
    Binary,
}

/// A whole request: where it goes, what it brings, and in which form each way.
pub(crate) fn request(path: &str, inputs: &Tensors, there: Form, back: Form) -> Vec<u8> {
    let described: Vec<Value> = inputs.iter().map(|(name, tensor)| described(name, tensor, there)).collect();
    let json = json!({ "inputs": described, "parameters": { "binary_data_output": back == Form::Binary } })
        .to_string();
    let binary = inputs.iter().filter(|_| there == Form::Binary);
    let tensors: Vec<u8> = binary.flat_map(|(_, tensor)| tensor.bytes()).copied().collect();
    let json_length = (there == Form::Binary).then(|| json.len().to_string());
    [head(path, json.len() + tensors.len(), json_length.as_deref()), json.into_bytes(), tensors].concat()
}

fn described(name: &str, tensor: &Tensor, form: Form) -> Value {
    let mut one = json!({ "name": name, "shape": tensor.dims(), "datatype": tensor.dtype().protocol_name() });
    match (form, tensor.dtype()) {
        (Form::Binary, _) => one["parameters"] = json!({ "binary_data_size": tensor.bytes().len() }),
        (Form::Json, DType::F32) => one["data"] = json!(tensor.elements::<f32>().unwrap()),
        (Form::Json, DType::F64) => one["data"] = json!(tensor.elements::<f64>().unwrap()),
        (Form::Json, DType::F16) => one["data"] = json!(floats(tensor)),
        (Form::Json, DType::I64) => one["data"] = json!(tensor.elements::<i64>().unwrap()),
        (Form::Json, DType::I32) => one["data"] = json!(tensor.elements::<i32>().unwrap()),
        (Form::Json, DType::U8) => one["data"] = json!(tensor.elements::<u8>().unwrap()),
        (Form::Json, other) => panic!("no fixture takes {other:?}"),
    }
    one
}

/// The outputs of an answer that must be one, in either form.
pub(crate) fn outputs(answer: &Answer) -> Tensors {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let at = answer.header("inference-header-content-length").map(|length| length.parse::<usize>().unwrap());
    let (json, mut rest) = answer.body.split_at(at.unwrap_or(answer.body.len()));
    let json: Described<'_> = serde_json::from_slice(json).unwrap();
    let outputs = json.outputs.into_iter().map(|output| {
        let dtype = DType::from_protocol_name(&output.datatype).unwrap();
        let bytes: Vec<u8> = if let Some(parameters) = output.parameters {
            let (mine, after) = rest.split_at(parameters.binary_data_size);
            rest = after;
            mine.to_vec()
        } else {
            let data = output.data.expect("an output brings its data in JSON or in binary").get();
            data[1..data.len() - 1].split(',').flat_map(|token| element(dtype, token)).collect()
        };
        (output.name, Tensor::new(dtype, output.shape, bytes).unwrap())
    });
    let outputs = outputs.collect();
    assert!(rest.is_empty(), "bytes that belong to no output");
    outputs
}

/// The JSON of an answer. Numbers stay text: the JSON parser's own doubles may be a last place off.
#[derive(Deserialize)]
struct Described<'a> {
    #[serde(borrow)]
    outputs: Vec<Output<'a>>,
}

#[derive(Deserialize)]
struct Output<'a> {
    name: String,
    datatype: String,
    shape: Vec<usize>,
    parameters: Option<BinarySize>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct BinarySize {
    binary_data_size: usize,
}

/// An element as JSON says it, in the bytes of its type.
fn element(dtype: DType, token: &str) -> Vec<u8> {
    match dtype {
        DType::F16 => f16::from_f64(token.parse().unwrap()).to_le_bytes().to_vec(),
        DType::F32 => token.parse::<f32>().unwrap().to_le_bytes().to_vec(),
        DType::F64 => token.parse::<f64>().unwrap().to_le_bytes().to_vec(),
        DType::Bool => vec![u8::from(token.parse::<bool>().unwrap())],
        _ => token.parse::<i64>().unwrap().to_le_bytes()[..dtype.size()].to_vec(),
    }
}

/// The elements of a tensor of any type that fixtures have, to be compared.
fn floats(tensor: &Tensor) -> Vec<f32> {
    let bytes = tensor.bytes().iter();
    match tensor.dtype() {
        DType::F16 => tensor.elements::<f16>().unwrap().iter().map(|x| x.to_f32()).collect(),
        DType::F32 => tensor.elements::<f32>().unwrap(),
        DType::F64 => tensor.elements::<f64>().unwrap().iter().map(|&x| x as f32).collect(),
        DType::I32 => tensor.elements::<i32>().unwrap().iter().map(|&x| x as f32).collect(),
        DType::U8 | DType::Bool => bytes.map(|&byte| f32::from(byte)).collect(),
        other => panic!("no fixture answers {other}"),
    }
}

/// The bits of an answer, to be compared.
pub(crate) fn bits(tensors: &Tensors) -> Vec<(&str, &[usize], &[u8])> {
    tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.dims(), tensor.bytes())).collect()
}

/// One item of each tensor: its part along the first axis.
pub(crate) fn item(tensors: &Tensors, number: usize) -> Tensors {
    let one = |(name, tensor): &(String, Tensor)| {
        let size = tensor.bytes().len() / tensor.dims()[0];
        let bytes = tensor.bytes()[number * size..(number + 1) * size].to_vec();
        let dims = [&[1], &tensor.dims()[1..]].concat();
        (name.clone(), Tensor::new(tensor.dtype(), dims, bytes).unwrap())
    };
    tensors.iter().map(one).collect()
}

/// So many items of each tensor, its own over and over.
pub(crate) fn repeated(tensors: &Tensors, items: usize) -> Tensors {
    let one = |(name, tensor): &(String, Tensor)| {
        let size = tensor.bytes().len() / tensor.dims()[0];
        let bytes: Vec<u8> = tensor.bytes().iter().copied().cycle().take(items * size).collect();
        let dims = [&[items], &tensor.dims()[1..]].concat();
        (name.clone(), Tensor::new(tensor.dtype(), dims, bytes).unwrap())
    };
    tensors.iter().map(one).collect()
}

/// ‖got − want‖ / ‖want‖, the worst of all outputs. Names, types and shapes must be equal; answers come in the model's order, and arrays of a
/// fixture in that of their names.
pub(crate) fn relative_error(got: &Tensors, want: &Tensors) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let by_name = |tensors: &Tensors| tensors.iter().cloned().collect::<BTreeMap<_, _>>();
    let (got, want) = (by_name(got), by_name(want));
    let errors = got.iter().zip(&want).map(|((name, got), (expected, want))| {
        assert_eq!((name, got.dtype(), got.dims()), (expected, want.dtype(), want.dims()));
        let (got, want) = (floats(got), floats(want));
        let apart: f64 = got.iter().zip(&want).map(|(got, want)| square(got - want)).sum();
        (apart / want.iter().map(|&x| square(x)).sum::<f64>()).sqrt()
    });
    // NaN must not hide behind a maximum.
    errors.fold(0.0, |worst, error| if error <= worst { worst } else { error })
}

/// Asks that an answer is PyTorch's. Float32 sums in another order stand within 1e-5 relative L2, onnxruntime within 5e-7; where they are
/// rounded to halves, one beside the middle falls to the other side.
pub(crate) fn assert_right(what: &str, got: &Tensors, want: &Tensors) {
    let error = relative_error(got, want);
    let halves = want.iter().any(|(_, tensor)| tensor.dtype() == DType::F16);
    assert!(error < if halves { 5e-4 } else { 1e-5 }, "{what}: relative error {error:e}");
}
