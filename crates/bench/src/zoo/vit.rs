//! Vision transformers (Dosovitskiy et al., 2021) with patches of 16, as timm exports them: one product for q, k and v, the scale's
//! square root on both sides of their product.

use super::network::{Conv, Network, PLAIN, Value};
use super::scale::Scale;
use super::{Size, wide_heads};
use crate::onnx_writer::{Attribute, Range};

const PATCH: usize = 16;
const LAYERS: usize = 12;
const EPSILON: f32 = 1e-6;

pub(super) fn build(net: &mut Network, size: &Size, heads: usize) {
    let mut x = patches(net, size.length, wide_heads(heads, size));
    for layer in 0..LAYERS {
        x = block(net, &format!("blocks.{layer}"), &x, heads);
    }
    let x = net.layer_norm("norm", &x, EPSILON);
    let zero = net.onnx.integers("class_token", &[], &[0]);
    let class = net.onnx.named("head/Gather", "Gather", &[&x.name, &zero], &[("axis", Attribute::Int(1))]);
    let class = Value { name: class, dims: vec![x.columns()], scale: x.scale };
    let x = net.linear("head", &class, 1000, PLAIN);
    net.output("logits", &x);
}

/// `[tokens, width]`: the class token, then every patch, each with its place added.
fn patches(net: &mut Network, side: usize, width: usize) -> Value {
    let x = net.input("image", &[3, side, side]);
    let conv = Conv { gain: PLAIN, ..Conv::new(width, PATCH).stride(PATCH).pad(0).biased() };
    let x = net.conv("patch_embed.proj", &x, conv);
    let count = x.dims[1] * x.dims[2];
    let rows = net.integers("patch_rows", &[0, width as i64, -1]);
    let flat = net.onnx.named("patch_embed/Reshape", "Reshape", &[&x.name, &rows], &[]);
    let perm = [("perm", Attribute::Ints(&[0, 2, 1]))];
    let flat = net.onnx.named("patch_embed/Transpose", "Transpose", &[&flat], &perm);
    let token = net.onnx.weight("cls_token", &[1, 1, width], Range::of_variance(1.0));
    // One class token for every item: [batch, 1, width].
    let shape = net.onnx.named("cls_token/Shape", "Shape", &[&flat], &[]);
    let (first, rest) = (net.integers("first_axis", &[0]), net.integers("one_row", &[1, width as i64]));
    let batch =
        net.onnx.named("cls_token/Gather", "Gather", &[&shape, &first], &[("axis", Attribute::Int(0))]);
    let shape =
        net.onnx.named("cls_token/Concat", "Concat", &[&batch, &rest], &[("axis", Attribute::Int(0))]);
    let tokens = net.onnx.named("cls_token/Expand", "Expand", &[&token, &shape], &[]);
    let all = net.onnx.named("tokens/Concat", "Concat", &[&tokens, &flat], &[("axis", Attribute::Int(1))]);
    let places = net.onnx.weight("pos_embed", &[1, count + 1, width], Range::of_variance(0.3));
    let all = net.onnx.named("tokens/Add", "Add", &[&all, &places], &[]);
    Value { name: all, dims: vec![count + 1, width], scale: x.scale.plus(Scale::around_zero(0.3)) }
}

fn block(net: &mut Network, name: &str, x: &Value, heads: usize) -> Value {
    let part = |what: &str| format!("{name}.{what}");
    let normed = net.layer_norm(&part("norm1"), x, EPSILON);
    let mixed = attention(net, &part("attn"), &normed, heads);
    let mixed = net.project(&part("attn.proj"), &mixed, x.columns(), PLAIN);
    let x = net.add(&part("add"), x, &mixed);
    let normed = net.layer_norm(&part("norm2"), &x, EPSILON);
    let inner = net.project(&part("mlp.fc1"), &normed, 4 * x.columns(), PLAIN);
    let inner = net.gelu(&part("mlp.act"), &inner);
    let outer = net.project(&part("mlp.fc2"), &inner, x.columns(), PLAIN);
    net.add(&part("add_1"), &x, &outer)
}

fn attention(net: &mut Network, name: &str, x: &Value, heads: usize) -> Value {
    let (tokens, width) = (x.dims[0], x.columns());
    let part = |what: &str| format!("{name}/{what}");
    let qkv = net.project(&format!("{name}.qkv"), x, 3 * width, PLAIN);
    let [t, h, d] = [tokens, heads, width / heads].map(|n| n as i64);
    let cut = net.integers("qkv_heads", &[0, t, 3, h, d]);
    let merged = net.integers("merged", &[0, t, width as i64]);
    let root = net.constant("scale_root", (width as f32 / heads as f32).powf(-0.25));
    let cut = net.onnx.named(&part("Reshape"), "Reshape", &[&qkv.name, &cut], &[]);
    let perm = [("perm", Attribute::Ints(&[2, 0, 3, 1, 4]))];
    let cut = net.onnx.named(&part("Transpose"), "Transpose", &[&cut], &perm);
    let mut one = |which: &str, index: i64| {
        let id = format!("qkv_{which}");
        let id = if net.onnx.has(&id) { id } else { net.onnx.integers(&id, &[], &[index]) };
        net.onnx.named(&part(which), "Gather", &[&cut, &id], &[("axis", Attribute::Int(0))])
    };
    let (q, k, v) = (one("query", 0), one("key", 1), one("value", 2));
    let perm = [("perm", Attribute::Ints(&[0, 1, 3, 2]))];
    let k = net.onnx.named(&part("Transpose_1"), "Transpose", &[&k], &perm);
    let q = net.onnx.named(&part("Mul"), "Mul", &[&q, &root], &[]);
    let k = net.onnx.named(&part("Mul_1"), "Mul", &[&k, &root], &[]);
    let scores = net.onnx.named(&part("MatMul"), "MatMul", &[&q, &k], &[]);
    let weights = net.onnx.named(&part("Softmax"), "Softmax", &[&scores], &[("axis", Attribute::Int(-1))]);
    let mixed = net.onnx.named(&part("MatMul_1"), "MatMul", &[&weights, &v], &[]);
    let perm = [("perm", Attribute::Ints(&[0, 2, 1, 3]))];
    let mixed = net.onnx.named(&part("Transpose_2"), "Transpose", &[&mixed], &perm);
    let mixed = net.onnx.named(&part("Reshape_1"), "Reshape", &[&mixed, &merged], &[]);
    // A mean of many rows is smaller than they are.
    Value { name: mixed, scale: Scale::around_zero(0.3 * qkv.scale.power()), ..x.clone() }
}
