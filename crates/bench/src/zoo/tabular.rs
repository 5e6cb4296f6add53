//! Models over numbers and ids: a perceptron, and a recommender of two towers.

use super::network::{HE, Network, PLAIN, Value};
use super::scale::Scale;
use super::{Size, wide};
use crate::onnx_writer::{Attribute, Range};

/// Keras's `mnist_mlp`: 784 pixels, twice 512, ten classes.
pub(super) fn mlp(net: &mut Network, size: &Size) {
    let mut x = net.input("features", &[784]);
    for layer in ["hidden_1", "hidden_2"] {
        x = net.linear(layer, &x, wide(512, size), HE);
        x = net.relu(&format!("{layer}/Relu"), &x);
    }
    let x = net.linear("output_layer", &x, 10, PLAIN);
    net.output("logits", &x);
}

/// Users and films of MovieLens 20M, 64 numbers each; a tower of two layers for either, and their towers' product.
pub(super) fn two_tower(net: &mut Network, size: &Size) {
    let user = tower(net, "user", 138_493, size);
    let item = tower(net, "item", 26_744, size);
    let product = net.onnx.named("score/Mul", "Mul", &[&user.name, &item.name], &[]);
    let axis = net.integers("last_axis", &[-1]);
    let sum = net.onnx.named("score/ReduceSum", "ReduceSum", &[&product, &axis], &[]);
    // A temperature, so that scores are neither all a half nor all zero and one.
    let factor = net.constant("temperature", (user.columns() as f32).powf(-0.5));
    let score = net.onnx.named("score/Mul_1", "Mul", &[&sum, &factor], &[]);
    let score = Value { name: score, dims: vec![1], scale: Scale::UNIT };
    let score = net.pointwise("score/Sigmoid", "Sigmoid", &score, Scale { mean: 0.5, variance: 0.04 });
    net.output("score", &score);
}

fn tower(net: &mut Network, name: &str, rows: usize, size: &Size) -> Value {
    let width = wide(64, size);
    let ids = net.ids(&format!("{name}_id"), &[1], rows);
    let table = net.onnx.weight(&format!("{name}.embedding.weight"), &[rows, width], Range::of_variance(1.0));
    let row = net.onnx.named(&format!("{name}.embedding/Gather"), "Gather", &[&table, &ids], &[]);
    let row = net.onnx.named(
        &format!("{name}.embedding/Flatten"),
        "Flatten",
        &[&row],
        &[("axis", Attribute::Int(1))],
    );
    let row = Value { name: row, dims: vec![width], scale: Scale::UNIT };
    let hidden = net.linear(&format!("{name}.tower.0"), &row, wide(256, size), HE);
    let hidden = net.relu(&format!("{name}.tower.1"), &hidden);
    net.linear(&format!("{name}.tower.2"), &hidden, wide(128, size), PLAIN)
}
