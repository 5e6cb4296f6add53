//! What requests bring: made from a model's metadata, or taken from a file, and encoded once.
//!
//! A first dimension of −1 is the batch. Other dimensions of −1 must be given: no metadata says which lengths a model likes.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tessera_core::DType;

/// Requests made of each model: enough that no two neighbours in a queue are alike, few enough to be kept.
const VARIANTS: usize = 8;

/// One input in a model's metadata.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Deserialize)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// `FP32`, `INT64`, …
    pub datatype: String,
    /// Outermost first; −1 where any extent is taken.
    pub shape: Vec<i64>,
}

/// Where elements come from.
#[derive(Clone, PartialEq, Debug)]
pub enum Source {
    /// Floats from −1 to 1, integers from 0 to below `ids_below`, truth values.
    Random,
    /// Zeros.
    Zero,
    /// A request an entry: inputs by name, as arrays of all elements or as `{"content": […], "shape": […]}`.
    Given(Vec<Map<String, Value>>),
}

impl Source {
    /// Reads perf_analyzer's format: `{"data": [{"INPUT": [1, 2, 3]}, …]}`.
    pub fn read(path: &Path) -> Result<Source> {
        #[derive(Deserialize)]
        struct File {
            data: Vec<Map<String, Value>>,
        }
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: File = serde_json::from_slice(&text).with_context(|| {
            format!(r#"{} is not of the form {{"data": [{{"INPUT": [1, 2, 3]}}]}}"#, path.display())
        })?;
        ensure!(!file.data.is_empty(), "{} has no entry in `data`", path.display());
        Ok(Source::Given(file.data))
    }
}

/// How requests are made.
#[derive(Clone, PartialEq, Debug)]
pub struct Inputs {
    /// Where elements come from.
    pub source: Source,
    /// Dimensions by input, without the batch.
    pub shapes: BTreeMap<String, Vec<u64>>,
    /// Items of a request.
    pub batch: u32,
    /// Random integers are below this; they are mostly ids, and a table is only so long.
    pub ids_below: i64,
    /// Decides random elements.
    pub seed: u64,
}

/// A request's body: how many bytes of it are JSON when tensors follow in binary, and the bytes.
pub(super) type Body = (Option<usize>, Bytes);

impl Inputs {
    /// Some requests for a model. Tensors are sent in binary when the server takes that, and always as JSON when they come from a
    /// file; `timeout` is sent along.
    pub(super) fn bodies(
        &self,
        specs: &[TensorSpec],
        binary: bool,
        timeout: Option<Duration>,
    ) -> Result<Vec<Body>> {
        let mut random = StdRng::seed_from_u64(self.seed);
        let variants = match &self.source {
            Source::Random => VARIANTS,
            Source::Zero => 1,
            Source::Given(entries) => entries.len(),
        };
        let body = |variant| self.body(specs, variant, binary, timeout, &mut random);
        (0..variants).map(body).collect()
    }

    fn body(
        &self,
        specs: &[TensorSpec],
        variant: usize,
        binary: bool,
        timeout: Option<Duration>,
        random: &mut StdRng,
    ) -> Result<Body> {
        let mut inputs = Vec::with_capacity(specs.len());
        let mut tensors = Vec::new();
        for spec in specs {
            let TensorSpec { name, datatype, .. } = spec;
            let mut input = json!({ "name": name, "datatype": datatype });
            if let Source::Given(entries) = &self.source {
                let (data, shape) = self.given(spec, &entries[variant])?;
                input["shape"] = json!(shape);
                input["data"] = data;
            } else {
                let shape = self.shape(spec)?;
                let dtype = DType::from_protocol_name(datatype).with_context(|| {
                    format!("input `{name}` is of {datatype}, which cannot be made up; give it with --input-data FILE")
                })?;
                let elements = elements(name, &shape)?;
                let mut element = || self.element(dtype, random);
                if binary {
                    let before = tensors.len();
                    (0..elements).for_each(|_| element().put(dtype, &mut tensors));
                    input["parameters"] = json!({ "binary_data_size": tensors.len() - before });
                } else {
                    input["data"] = (0..elements).map(|_| element().json()).collect();
                }
                input["shape"] = json!(shape);
            }
            inputs.push(input);
        }
        let mut parameters = Map::new();
        if binary {
            parameters.insert("binary_data_output".to_owned(), json!(true));
        }
        if let Some(timeout) = timeout {
            parameters.insert("timeout".to_owned(), json!(timeout.as_micros() as u64));
        }
        let mut body = json!({ "inputs": inputs, "parameters": parameters }).to_string().into_bytes();
        let json_bytes = (binary && !tensors.is_empty()).then_some(body.len());
        body.extend(tensors);
        Ok((json_bytes, body.into()))
    }

    /// The shape of an input as it is sent.
    fn shape(&self, spec: &TensorSpec) -> Result<Vec<u64>> {
        let TensorSpec { name, shape, .. } = spec;
        let batched = shape.first() == Some(&-1);
        let rest = if batched { &shape[1..] } else { &shape[..] };
        ensure!(
            batched || self.batch == 1,
            "input `{name}` of shape {shape:?} has no batch; send one item a request"
        );
        let batch = batched.then_some(u64::from(self.batch));
        if let Some(given) = self.shapes.get(name) {
            let fits = given.len() == rest.len()
                && given.iter().zip(rest).all(|(given, want)| *want < 0 || *given == *want as u64);
            ensure!(fits, "input `{name}` takes {rest:?} an item, and --shape gives {given:?}");
            return Ok(batch.into_iter().chain(given.iter().copied()).collect());
        }
        let fixed = rest.iter().map(|&dim| {
            u64::try_from(dim).ok().with_context(|| {
                let dims: Vec<String> = rest
                    .iter()
                    .map(|dim| u64::try_from(*dim).map_or("N".into(), |dim| dim.to_string()))
                    .collect();
                format!(
                    "input `{name}` takes any extent in {rest:?}; choose with --shape {name}:{}",
                    dims.join(",")
                )
            })
        });
        batch.map(Ok).into_iter().chain(fixed).collect()
    }

    /// An input of an entry of a file, and its shape.
    fn given(&self, spec: &TensorSpec, entry: &Map<String, Value>) -> Result<(Value, Vec<u64>)> {
        let name = &spec.name;
        let given = entry.get(name).with_context(|| format!("the input data has no `{name}`"))?;
        let (data, shape) = match given {
            Value::Array(_) => (given, self.shape(spec)?),
            Value::Object(given) => {
                let content = given
                    .get("content")
                    .with_context(|| format!("`{name}` of the input data has no `content`"))?;
                let shape = given.get("shape").map(|shape| {
                    let dims = Vec::<u64>::deserialize(shape)
                        .with_context(|| format!("the shape of `{name}` is {shape}"))?;
                    let batch = (spec.shape.first() == Some(&-1)).then_some(u64::from(self.batch));
                    anyhow::Ok(batch.into_iter().chain(dims).collect())
                });
                (content, shape.transpose()?.map_or_else(|| self.shape(spec), Ok)?)
            }
            _ => bail!("`{name}` of the input data is neither an array nor an object with `content`"),
        };
        let (has, needs) = (leaves(data), elements(name, &shape)?);
        ensure!(has == needs, "`{name}` of the input data has {has} elements, and {shape:?} needs {needs}");
        Ok((data.clone(), shape))
    }

    fn element(&self, dtype: DType, random: &mut StdRng) -> Element {
        let zero = self.source == Source::Zero;
        match dtype {
            DType::Bool => Element::Int(i64::from(!zero && random.random::<bool>())),
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => {
                Element::Float(if zero { 0.0 } else { random.random_range(-1.0f32..1.0) })
            }
            // A byte holds no more.
            DType::I8 | DType::U8 => {
                Element::Int(if zero { 0 } else { random.random_range(0..self.ids_below.clamp(1, 128)) })
            }
            _ => Element::Int(if zero { 0 } else { random.random_range(0..self.ids_below.max(1)) }),
        }
    }
}

/// Elements of an input above which it is a typing error: a body of them would be gigabytes, and is made before anything is sent.
const MOST_ELEMENTS: u64 = 1 << 28;

/// How many elements an input of a shape has.
fn elements(name: &str, shape: &[u64]) -> Result<u64> {
    // A zero does not excuse what overflows beside it.
    let product = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim.max(1)));
    let few = product.filter(|&product| product <= MOST_ELEMENTS);
    few.with_context(|| {
        format!(
            "input `{name}` of {shape:?} has more than {MOST_ELEMENTS} elements; choose smaller dimensions"
        )
    })?;
    Ok(shape.iter().product())
}

/// How many scalars an array holds, however nested.
fn leaves(value: &Value) -> u64 {
    match value {
        Value::Array(parts) => parts.iter().map(leaves).sum(),
        _ => 1,
    }
}

/// One element, before its type.
enum Element {
    Float(f32),
    Int(i64),
}

impl Element {
    fn json(self) -> Value {
        match self {
            Element::Float(value) => json!(value),
            Element::Int(value) => json!(value),
        }
    }

    /// Little endian, as the protocol's binary tensors are.
    fn put(self, dtype: DType, to: &mut Vec<u8>) {
        match self {
            Element::Float(value) => match dtype {
                DType::F16 => to.extend(half_bits(value).to_le_bytes()),
                DType::BF16 => to.extend(&value.to_le_bytes()[2..]),
                DType::F64 => to.extend(f64::from(value).to_le_bytes()),
                _ => to.extend(value.to_le_bytes()),
            },
            Element::Int(value) => to.extend(&value.to_le_bytes()[..dtype.size()]),
        }
    }
}

/// A float of at most one in fp16, cut rather than rounded: what is below fp16's normal numbers is zero.
fn half_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    if exponent <= 0 { sign } else { sign | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, datatype: &str, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype: datatype.into(), shape: shape.to_vec() }
    }

    fn inputs(source: Source) -> Inputs {
        Inputs { source, shapes: BTreeMap::new(), batch: 2, ids_below: 30, seed: 1 }
    }

    fn parts(body: &Body) -> (Value, &[u8]) {
        let json = body.0.unwrap_or(body.1.len());
        (serde_json::from_slice(&body.1[..json]).unwrap(), &body.1[json..])
    }

    #[test]
    fn tensors_have_the_metadatas_shapes_and_types_in_binary_and_in_json() {
        let specs = [spec("x", "FP32", &[-1, 3]), spec("ids", "INT64", &[-1, 2]), spec("h", "FP16", &[-1])];
        let inputs = inputs(Source::Random);
        let bodies = inputs.bodies(&specs, true, Some(Duration::from_millis(25))).unwrap();
        assert_ne!(bodies[0], bodies[1]);
        let (json, tensors) = parts(&bodies[0]);
        assert_eq!(json["inputs"][0]["shape"], json!([2, 3]));
        assert_eq!(json["inputs"][1]["parameters"]["binary_data_size"], 32);
        assert_eq!(json["parameters"]["timeout"], 25_000);
        assert_eq!(tensors.len(), 4 * 6 + 8 * 4 + 2 * 2);
        let ids = tensors[24..56].chunks_exact(8).map(|eight| i64::from_le_bytes(eight.try_into().unwrap()));
        assert!(ids.into_iter().all(|id| (0..30).contains(&id)));
        let bodies = inputs.bodies(&specs, false, None).unwrap();
        let (json, tensors) = parts(&bodies[0]);
        assert!(tensors.is_empty() && json["inputs"][0]["data"].as_array().unwrap().len() == 6);
    }

    #[test]
    fn an_open_dimension_is_asked_for_and_a_shape_that_does_not_fit_is_refused() {
        let specs = [spec("ids", "INT64", &[-1, -1])];
        let mut inputs = inputs(Source::Zero);
        let error = inputs.bodies(&specs, true, None).unwrap_err().to_string();
        assert!(error.ends_with("--shape ids:N"), "{error}");
        let partly = [spec("x", "FP32", &[-1, -1, 32])];
        let error = inputs.bodies(&partly, true, None).unwrap_err().to_string();
        assert!(error.ends_with("--shape x:N,32"), "what is fixed is not asked for: {error}");
        inputs.shapes.insert("ids".into(), vec![7]);
        let body = inputs.bodies(&specs, true, None).unwrap().remove(0);
        assert_eq!(parts(&body).0["inputs"][0]["shape"], json!([2, 7]));
        assert!(parts(&body).1.iter().all(|byte| *byte == 0));
        let fixed = [spec("ids", "INT64", &[-1, 8])];
        assert!(inputs.bodies(&fixed, true, None).unwrap_err().to_string().contains("takes [8] an item"));
        for dims in [[1 << 40, 1], [1 << 40, 1 << 40], [0, u64::MAX]] {
            inputs.shapes.insert("x".into(), dims.to_vec());
            let error = inputs.bodies(&[spec("x", "FP32", &[-1, -1, -1])], true, None).unwrap_err();
            assert!(error.to_string().contains("choose smaller dimensions"), "{error}");
        }
        let text = [spec("words", "BYTES", &[-1])];
        assert!(inputs.bodies(&text, true, None).unwrap_err().to_string().contains("--input-data"));
    }

    #[test]
    fn a_files_entries_are_sent_as_they_are_and_counted() {
        let entry = |value: Value| value.as_object().unwrap().clone();
        let specs = [spec("x", "FP32", &[-1, 2])];
        let given = inputs(Source::Given(vec![
            entry(json!({ "x": [1, 2, 3, 4] })),
            entry(json!({ "x": { "content": [[1, 2], [3, 4]], "shape": [2] } })),
        ]));
        for body in given.bodies(&specs, true, None).unwrap() {
            let (json, _) = parts(&body);
            assert_eq!(json["inputs"][0]["shape"], json!([2, 2]));
            assert_eq!(leaves(&json["inputs"][0]["data"]), 4);
        }
        let short = inputs(Source::Given(vec![entry(json!({ "x": [1] }))]));
        assert!(short.bodies(&specs, true, None).unwrap_err().to_string().contains("has 1 elements"));
        let other = inputs(Source::Given(vec![entry(json!({ "y": [1] }))]));
        assert!(other.bodies(&specs, true, None).unwrap_err().to_string().contains("no `x`"));
    }

    #[test]
    fn halves_are_the_floats_that_they_were_cut_from() {
        for (float, bits) in [(1.0, 0x3c00), (-0.5, 0xb800), (0.75, 0x3a00), (0.0, 0)] {
            assert_eq!(half_bits(float), bits);
        }
    }
}
