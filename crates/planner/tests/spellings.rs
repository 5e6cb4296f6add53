//! Operators that ONNX renamed, or whose attributes became inputs: every spelling is one class.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod common;

use common::{floats, int, ints, model, node, one_node, string};
use prost::Message;
use tessera_core::{ClassId, DType};
use tessera_planner::class::load_bytes;
use tessera_planner::graph::ParamData;
use tessera_planner::onnx::proto::{ModelProto, NodeProto, TensorProto};

fn class(model: &ModelProto) -> ClassId {
    load_bytes(model.encode_to_vec(), None).unwrap().class.id
}

/// A model of one node over an image, and what else the node reads.
fn over_an_image(opset: i64, others: Vec<TensorProto>, node: NodeProto) -> ModelProto {
    model(opset, one_node(&[("x", &[0, 3, 8, 8])], others, node))
}

#[test]
fn upsample_is_the_resize_of_opset_ten() {
    let scales = || vec![floats("scales", &[4], &[1.0, 1.0, 2.0, 2.0])];
    let linear = || vec![string("mode", "linear")];
    let upsample = over_an_image(9, scales(), node("Upsample", &["x", "scales"], &["y"], linear()));
    let resize = over_an_image(10, scales(), node("Resize", &["x", "scales"], &["y"], linear()));
    assert_eq!(class(&upsample), class(&resize));
    let asymmetric = vec![string("mode", "linear"), string("coordinate_transformation_mode", "asymmetric")];
    let newest = over_an_image(13, scales(), node("Resize", &["x", "", "scales"], &["y"], asymmetric));
    assert_eq!(class(&resize), class(&newest));
}

#[test]
fn empty_regions_and_scales_are_left_out() {
    let linear = || vec![string("mode", "linear")];
    let sizes = ints("sizes", &[1, 3, 4, 4]);
    let nothing = |name: &str| floats(name, &[0], &[]);
    let eleven = over_an_image(
        11,
        vec![nothing("roi"), nothing("scales"), sizes.clone()],
        node("Resize", &["x", "roi", "scales", "sizes"], &["y"], linear()),
    );
    let thirteen = over_an_image(13, vec![sizes], node("Resize", &["x", "", "", "sizes"], &["y"], linear()));
    assert_eq!(class(&eleven), class(&thirteen));
}

#[test]
fn the_k_of_opset_nine_is_an_attribute() {
    let old = over_an_image(9, vec![], node("TopK", &["x"], &["v", "i"], vec![int("k", 2), int("axis", 1)]));
    let attributes = vec![int("axis", 1), int("sorted", 1)];
    let new = over_an_image(11, vec![ints("k", &[2])], node("TopK", &["x", "k"], &["v", "i"], attributes));
    assert_eq!(class(&old), class(&new));
}

#[test]
fn scatter_is_scatter_elements() {
    let others = || vec![ints("at", &[2]), floats("updates", &[1], &[5.0])];
    let of = |opset, op: &str| {
        let node = node(op, &["x", "at", "updates"], &["y"], vec![]);
        model(opset, one_node(&[("x", &[4])], others(), node))
    };
    assert_eq!(class(&of(9, "Scatter")), class(&of(11, "ScatterElements")));
}

#[test]
fn scales_are_part_of_the_architecture_and_updates_are_weights() {
    let resize = |scale: f32| {
        let scales = floats("scales", &[4], &[1.0, 1.0, scale, scale]);
        over_an_image(13, vec![scales], node("Resize", &["x", "", "scales"], &["y"], vec![]))
    };
    assert_ne!(class(&resize(2.0)), class(&resize(3.0)));

    let scatter = |update: f32| {
        let others = vec![ints("at", &[2]), floats("updates", &[1], &[update])];
        let node = node("ScatterElements", &["x", "at", "updates"], &["y"], vec![]);
        model(13, one_node(&[("x", &[4])], others, node))
    };
    assert_eq!(class(&scatter(1.0)), class(&scatter(2.0)));
    let model = load_bytes(scatter(1.0).encode_to_vec(), None).unwrap();
    let weights = model.class.graph.params.iter().filter(|param| matches!(param.data, ParamData::Weight(_)));
    assert_eq!(weights.map(|param| param.dtype).collect::<Vec<_>>(), [DType::F32]);
}
