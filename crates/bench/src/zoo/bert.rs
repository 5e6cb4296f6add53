//! BERT (Devlin et al., 2019), as transformers exports `BertModel` from token ids alone: no padding, one segment.

use super::network::{Network, PLAIN, Value};
use super::scale::Scale;
use super::{Size, wide_heads};
use crate::onnx_writer::{Attribute, Range};

/// Rows of the table of words.
pub(super) const VOCABULARY: usize = 30_522;

/// Rows of the table of places: no request is longer.
pub(super) const PLACES: usize = 512;

const EPSILON: f32 = 1e-12;

pub(super) fn build(net: &mut Network, size: &Size, layers: usize, heads: usize) {
    encoder(net, size, layers, heads, wide_heads(heads, size));
}

/// MiniLM-L6 (Wang et al., 2020), of which all-MiniLM-L6-v2 is made: heads half as wide.
pub(super) fn minilm(net: &mut Network, size: &Size) {
    const HEADS: usize = 12;
    encoder(net, size, 6, HEADS, wide_heads(HEADS / 2, size));
}

fn encoder(net: &mut Network, size: &Size, layers: usize, heads: usize, width: usize) {
    let mut x = embeddings(net, size.length, width);
    for layer in 0..layers {
        x = encoder_layer(net, &format!("encoder.layer.{layer}"), &x, heads);
    }
    net.output("last_hidden_state", &x);
    let first = net.integers("first", &[0]);
    let first = net.onnx.named("pooler/Gather", "Gather", &[&x.name, &first], &[("axis", Attribute::Int(1))]);
    let first = net.onnx.named("pooler/Flatten", "Flatten", &[&first], &[("axis", Attribute::Int(1))]);
    let first = Value { name: first, dims: vec![width], scale: x.scale };
    let pooled = net.linear("pooler.dense", &first, width, PLAIN);
    let pooled = net.pointwise("pooler.activation", "Tanh", &pooled, Scale::around_zero(0.4));
    net.output("pooler_output", &pooled);
}

fn embeddings(net: &mut Network, tokens: usize, width: usize) -> Value {
    let ids = net.ids("input_ids", &[tokens], VOCABULARY);
    let place_ids: Vec<i64> = (0..tokens as i64).collect();
    let place_ids = net.onnx.integers("embeddings.position_ids", &[1, tokens], &place_ids);
    let segment_ids = net.onnx.integers("embeddings.token_type_ids", &[1, tokens], &vec![0; tokens]);
    let mut look_up = |what: &str, rows: usize, ids: &str, variance: f32| {
        let name = format!("embeddings.{what}_embeddings");
        let table = net.onnx.weight(&format!("{name}.weight"), &[rows, width], Range::of_variance(variance));
        net.onnx.named(&format!("{name}/Gather"), "Gather", &[&table, ids], &[])
    };
    let words = look_up("word", VOCABULARY, &ids, 1.0);
    let segments = look_up("token_type", 2, &segment_ids, 0.1);
    let places = look_up("position", PLACES, &place_ids, 0.3);
    let sum = net.onnx.named("embeddings/Add", "Add", &[&words, &segments], &[]);
    let sum = net.onnx.named("embeddings/Add_1", "Add", &[&sum, &places], &[]);
    let x = Value { name: sum, dims: vec![tokens, width], scale: Scale::around_zero(1.4) };
    net.layer_norm("embeddings.LayerNorm", &x, EPSILON)
}

fn encoder_layer(net: &mut Network, name: &str, x: &Value, heads: usize) -> Value {
    let part = |what: &str| format!("{name}.{what}");
    let [query, key, value] = ["query", "key", "value"]
        .map(|which| net.project(&part(&format!("attention.self.{which}")), x, x.columns(), PLAIN));
    let mixed = attention(net, &part("attention.self"), [&query, &key, &value], heads);
    let mixed = net.project(&part("attention.output.dense"), &mixed, x.columns(), PLAIN);
    let sum = net.add(&part("attention.output/Add"), &mixed, x);
    let x = net.layer_norm(&part("attention.output.LayerNorm"), &sum, EPSILON);
    let inner = net.project(&part("intermediate.dense"), &x, 4 * x.columns(), PLAIN);
    let inner = net.gelu(&part("intermediate.intermediate_act_fn"), &inner);
    let outer = net.project(&part("output.dense"), &inner, x.columns(), PLAIN);
    let sum = net.add(&part("output/Add"), &outer, &x);
    net.layer_norm(&part("output.LayerNorm"), &sum, EPSILON)
}

/// `softmax(q·kᵀ/√d)·v` for every head, from `[tokens, width]` and back.
fn attention(net: &mut Network, name: &str, [q, k, v]: [&Value; 3], heads: usize) -> Value {
    let (tokens, width) = (q.dims[0], q.columns());
    let part = |what: &str| format!("{name}/{what}");
    let split = net.integers("heads", &[0, tokens as i64, heads as i64, (width / heads) as i64]);
    let merged = net.integers("merged", &[0, tokens as i64, width as i64]);
    let root = net.constant("sqrt_d", ((width / heads) as f32).sqrt());
    let mut head = |which: &str, x: &Value, perm: &[i64]| {
        let cut = net.onnx.named(&part(&format!("{which}/Reshape")), "Reshape", &[&x.name, &split], &[]);
        net.onnx.named(
            &part(&format!("{which}/Transpose")),
            "Transpose",
            &[&cut],
            &[("perm", Attribute::Ints(perm))],
        )
    };
    let (q, k) = (head("query", q, &[0, 2, 1, 3]), head("key", k, &[0, 2, 3, 1]));
    let v_cut = head("value", v, &[0, 2, 1, 3]);
    let scores = net.onnx.named(&part("MatMul"), "MatMul", &[&q, &k], &[]);
    let scores = net.onnx.named(&part("Div"), "Div", &[&scores, &root], &[]);
    let weights = net.onnx.named(&part("Softmax"), "Softmax", &[&scores], &[("axis", Attribute::Int(-1))]);
    let mixed = net.onnx.named(&part("MatMul_1"), "MatMul", &[&weights, &v_cut], &[]);
    let perm = [("perm", Attribute::Ints(&[0, 2, 1, 3]))];
    let mixed = net.onnx.named(&part("Transpose"), "Transpose", &[&mixed], &perm);
    let mixed = net.onnx.named(&part("Reshape"), "Reshape", &[&mixed, &merged], &[]);
    // A mean of many rows is smaller than they are; how much depends on how sharp the softmax is.
    Value { name: mixed, dims: vec![tokens, width], scale: Scale::around_zero(0.3 * v.scale.power()) }
}
