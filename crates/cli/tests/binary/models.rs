//! Ten kinds of small models, each with an input and seeded weights, and requests to them.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tessera_bench::onnx_writer::{Attribute, Axis, OnnxWriter, Range};
use tessera_bench::zoo::tiny::{Tiny, VOCABULARY};

/// An architecture.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    graph: Graph,
    input: &'static str,
    /// Dimensions of one item; 0 is free.
    item: &'static [usize],
    /// Token ids are below this; `None` takes floats.
    ids: Option<i64>,
}

enum Graph {
    Demo(Tiny),
    /// Writes the graph, and says which value is its output and of what dimensions.
    Own(fn(&mut OnnxWriter) -> (String, Vec<Axis>)),
}

const WORDS: usize = 20_000;

/// Four of the demo's, and six with more weights than work: memory is what the soak measures.
pub(crate) const KINDS: [Kind; 10] = [
    Kind { name: "mlp", graph: Graph::Demo(Tiny::Mlp), input: "features", item: &[64], ids: None },
    Kind {
        name: "convnet",
        graph: Graph::Demo(Tiny::ConvNet),
        input: "image",
        item: &[3, 32, 32],
        ids: None,
    },
    Kind { name: "lstm", graph: Graph::Demo(Tiny::Lstm), input: "series", item: &[16, 24], ids: None },
    Kind {
        name: "encoder",
        graph: Graph::Demo(Tiny::Encoder),
        input: "ids",
        item: &[16],
        ids: Some(VOCABULARY),
    },
    Kind { name: "wide", graph: Graph::Own(wide), input: "x", item: &[64], ids: None },
    Kind { name: "deep", graph: Graph::Own(deep), input: "x", item: &[256], ids: None },
    Kind { name: "residual", graph: Graph::Own(residual), input: "x", item: &[512], ids: None },
    Kind { name: "words", graph: Graph::Own(words), input: "ids", item: &[0], ids: Some(WORDS as i64) },
    Kind { name: "tokens", graph: Graph::Own(tokens), input: "x", item: &[0, 48], ids: None },
    Kind { name: "patches", graph: Graph::Own(patches), input: "x", item: &[3, 32, 32], ids: None },
];

const BATCH: Axis = Axis::Free("batch");

/// Weights of a layer that sums `fan_in` products, so that activations keep their size.
fn he(fan_in: usize) -> Range {
    Range::of_variance(2.0 / fan_in as f32)
}

const SMALL: Range = Range { centre: 0.0, bound: 0.1 };

fn linear(w: &mut OnnxWriter, name: &str, x: &str, from: usize, to: usize) -> String {
    let weight = w.weight(&format!("{name}.weight"), &[to, from], he(from));
    let bias = w.weight(&format!("{name}.bias"), &[to], SMALL);
    w.node("Gemm", &[x, &weight, &bias], &[("transB", Attribute::Int(1))])
}

fn wide(w: &mut OnnxWriter) -> (String, Vec<Axis>) {
    let x = w.input("x", &[BATCH, Axis::Of(64)]);
    let x = linear(w, "first", &x, 64, 1024);
    let x = w.node("Relu", &[&x], &[]);
    let x = linear(w, "second", &x, 1024, 1024);
    let x = w.node("Relu", &[&x], &[]);
    let x = linear(w, "last", &x, 1024, 8);
    (x, vec![BATCH, Axis::Of(8)])
}

fn deep(w: &mut OnnxWriter) -> (String, Vec<Axis>) {
    let mut x = w.input("x", &[BATCH, Axis::Of(256)]);
    for layer in 0..8 {
        x = linear(w, &format!("layer{layer}"), &x, 256, 256);
        x = w.node("Tanh", &[&x], &[]);
    }
    (x, vec![BATCH, Axis::Of(256)])
}

fn residual(w: &mut OnnxWriter) -> (String, Vec<Axis>) {
    let mut x = w.input("x", &[BATCH, Axis::Of(512)]);
    for layer in 0..4 {
        let y = linear(w, &format!("layer{layer}"), &x, 512, 512);
        let y = w.node("Sigmoid", &[&y], &[]);
        x = w.node("Add", &[&x, &y], &[]);
    }
    (x, vec![BATCH, Axis::Of(512)])
}

/// A bag of words of any length.
fn words(w: &mut OnnxWriter) -> (String, Vec<Axis>) {
    let ids = w.ids("ids", &[BATCH, Axis::Free("length")]);
    let table = w.weight("table", &[WORDS, 64], he(2));
    let x = w.node("Gather", &[&table, &ids], &[]);
    let x = w.node("ReduceMean", &[&x], &[("axes", Attribute::Ints(&[1])), ("keepdims", Attribute::Int(0))]);
    let x = linear(w, "last", &x, 64, 16);
    (x, vec![BATCH, Axis::Of(16)])
}

/// Two layers for each of any number of tokens.
fn tokens(w: &mut OnnxWriter) -> (String, Vec<Axis>) {
    let length = Axis::Free("length");
    let mut x = w.input("x", &[BATCH, length, Axis::Of(48)]);
    for (layer, (from, to)) in [(48, 1024), (1024, 32)].into_iter().enumerate() {
        let weight = w.weight(&format!("layer{layer}.weight"), &[from, to], he(from));
        let bias = w.weight(&format!("layer{layer}.bias"), &[to], SMALL);
        let product = w.node("MatMul", &[&x, &weight], &[]);
        let sum = w.node("Add", &[&product, &bias], &[]);
        x = w.node("Tanh", &[&sum], &[]);
    }
    (x, vec![BATCH, length, Axis::Of(32)])
}

/// One convolution over patches, and a wide head.
fn patches(w: &mut OnnxWriter) -> (String, Vec<Axis>) {
    let x = w.input("x", &[BATCH, Axis::Of(3), Axis::Of(32), Axis::Of(32)]);
    let weight = w.weight("patch.weight", &[64, 3, 8, 8], he(3 * 8 * 8));
    let sides = [("kernel_shape", Attribute::Ints(&[8, 8])), ("strides", Attribute::Ints(&[8, 8]))];
    let x = w.node("Conv", &[&x, &weight], &sides);
    let x = w.node("Relu", &[&x], &[]);
    let x = w.node("Flatten", &[&x], &[("axis", Attribute::Int(1))]);
    let x = linear(w, "head", &x, 64 * 16, 256);
    (x, vec![BATCH, Axis::Of(256)])
}

/// Four convolutions over a larger image: slow enough for requests to queue behind it.
#[cfg(unix)]
pub(crate) const SLOW: Kind =
    Kind { name: "slow", graph: Graph::Own(slow), input: "x", item: &[3, 64, 64], ids: None };

#[cfg(unix)]
fn slow(w: &mut OnnxWriter) -> (String, Vec<Axis>) {
    let mut x = w.input("x", &[BATCH, Axis::Of(3), Axis::Of(64), Axis::Of(64)]);
    let mut from = 3;
    for layer in 0..4 {
        let weight = w.weight(&format!("layer{layer}.weight"), &[64, from, 3, 3], he(9 * from));
        let sides = [("kernel_shape", Attribute::Ints(&[3, 3])), ("pads", Attribute::Ints(&[1, 1, 1, 1]))];
        let y = w.node("Conv", &[&x, &weight], &sides);
        x = w.node("Relu", &[&y], &[]);
        from = 64;
    }
    let x = w.node("GlobalAveragePool", &[&x], &[]);
    let x = w.node("Flatten", &[&x], &[("axis", Attribute::Int(1))]);
    (x, vec![BATCH, Axis::Of(64)])
}

/// The body of a request, in binary both ways.
#[derive(Clone)]
pub(crate) struct Body {
    /// So many of its bytes are JSON, the rest a tensor.
    pub(crate) json_bytes: usize,
    pub(crate) bytes: bytes::Bytes,
}

impl Kind {
    /// A model of this kind. Equal seeds give equal models.
    pub(crate) fn onnx(&self, seed: u64) -> Vec<u8> {
        match self.graph {
            Graph::Demo(tiny) => tiny.onnx(seed),
            Graph::Own(graph) => {
                let mut writer = OnnxWriter::new(self.name);
                let (output, dims) = graph(&mut writer);
                writer.output("output", &output, &dims);
                writer.to_bytes(seed)
            }
        }
    }

    /// A request of so many items, with `length` for what is free in them; equal seeds give equal requests.
    pub(crate) fn request(&self, items: usize, length: usize, seed: u64) -> Body {
        let random = &mut StdRng::seed_from_u64(seed);
        let item = self.item.iter().map(|&dim| if dim == 0 { length } else { dim });
        let shape: Vec<usize> = std::iter::once(items).chain(item).collect();
        let elements = 0..shape.iter().product();
        let tensor: Vec<u8> = match self.ids {
            Some(most) => elements.flat_map(|_| random.random_range(0..most).to_le_bytes()).collect(),
            None => elements.flat_map(|_| random.random_range(-1.0f32..1.0).to_le_bytes()).collect(),
        };
        let input = json!({
            "name": self.input,
            "shape": shape,
            "datatype": if self.ids.is_some() { "INT64" } else { "FP32" },
            "parameters": { "binary_data_size": tensor.len() },
        });
        let header = json!({ "inputs": [input], "parameters": { "binary_data_output": true } }).to_string();
        Body { json_bytes: header.len(), bytes: [header.into_bytes(), tensor].concat().into() }
    }
}
