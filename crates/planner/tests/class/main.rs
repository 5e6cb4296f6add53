//! Which models are one architecture, and which weights belong to it.

#![allow(clippy::unwrap_used)] // the lint spares tests, but not the functions that they share

#[path = "../common/mod.rs"]
mod common;

mod over_base;
mod picks;

use common::{fixture, proto};
use prost::Message;
use tessera_core::{ClassId, DType, Precision};
use tessera_planner::PackTarget;
use tessera_planner::class::{Model, load, load_bytes};
use tessera_planner::graph::ParamData;
use tessera_planner::inspect::{compare, inspect};
use tessera_planner::onnx::proto::{AttributeProto, ModelProto, NodeProto};
use tessera_planner::pack::Matrices;
use tessera_planner::source::read_weight;

const TARGET: PackTarget =
    PackTarget { device: "cpu", precision: Precision::Fp32, matrices: Matrices::Panels(16) };

fn model(name: &str) -> Model {
    load(&fixture(&format!("{name}.onnx"))).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn changed(proto: &ModelProto) -> Model {
    load_bytes(proto.encode_to_vec(), None).unwrap()
}

fn id(name: &str) -> ClassId {
    model(name).class.id
}

#[test]
fn tenants_of_one_architecture_are_one_class_and_others_are_not() {
    let families: [&[&str]; 7] = [
        &["mlp-0", "mlp-1", "mlp-2", "mlp-3"],
        &["lstm-0", "lstm-1", "lstm-2", "lstm-3"],
        &["bert_tiny-0", "bert_tiny-1"],
        &["resnet26_narrow-0", "resnet26_narrow-1", "resnet26_narrow-2"],
        &["mobilenet_v2_035-0", "mobilenet_v2_035-1"],
        &["block_fresh", "block_tuned"],
        &["timm_test_vit"],
    ];
    let mut classes = Vec::new();
    for family in families {
        let first = id(family[0]);
        assert!(family.iter().all(|name| id(name) == first), "{family:?}");
        assert!(!classes.contains(&first), "{family:?}");
        classes.push(first);
    }
}

#[test]
fn models_of_one_class_have_equal_graphs_but_for_names() {
    let (fresh, tuned) = (model("block_fresh"), model("block_tuned"));
    assert_eq!(format!("{:?}", fresh.class.graph.nodes), format!("{:?}", tuned.class.graph.nodes));
    assert_eq!(fresh.weights.len(), 8);
    let names: Vec<&str> = fresh.weight_names().collect();
    assert_eq!(
        names,
        ["a.weight", "a.bias", "f.weight", "f.bias", "b.weight", "b.bias", "g.weight", "g.bias"]
    );
    assert_eq!(names, tuned.weight_names().collect::<Vec<_>>());
}

fn node<'m>(proto: &'m mut ModelProto, op: &str) -> &'m mut NodeProto {
    let graph = proto.graph.as_mut().unwrap();
    graph.node.iter_mut().find(|node| node.op_type() == op).unwrap()
}

fn attribute<'m>(proto: &'m mut ModelProto, op: &str, name: &str) -> &'m mut AttributeProto {
    node(proto, op).attribute.iter_mut().find(|attribute| attribute.name() == name).unwrap()
}

#[test]
fn another_epsilon_is_another_class() {
    let mut proto = proto("block_fresh.onnx");
    assert_eq!(changed(&proto).class.id, id("block_fresh"));
    attribute(&mut proto, "LayerNormalization", "epsilon").f = Some(1e-6);
    let other = changed(&proto);
    assert_ne!(other.class.id, id("block_fresh"));
    let said = compare(&model("block_fresh"), &other, TARGET).unwrap().difference.unwrap();
    assert_eq!(said, "LayerNormalization `/a/LayerNormalization`: epsilon 1e-5 against 1e-6");
}

#[test]
fn another_clip_bound_is_another_class() {
    let mut proto = proto("mobilenet_v2_035-0.onnx");
    let six = |node: &&mut NodeProto| {
        let value = node.attribute.first().and_then(|value| value.t.as_ref());
        value.and_then(|tensor| tensor.raw_data.as_deref()) == Some(&6f32.to_le_bytes()[..])
    };
    let bound = proto.graph.as_mut().unwrap().node.iter_mut().find(six).unwrap();
    bound.attribute[0].t.as_mut().unwrap().raw_data = Some(5f32.to_le_bytes().to_vec().into());
    let other = changed(&proto);
    assert_ne!(other.class.id, id("mobilenet_v2_035-0"));
    let said = compare(&model("mobilenet_v2_035-0"), &other, TARGET).unwrap().difference.unwrap();
    assert!(said.starts_with("Clip `/") && said.ends_with("`: high bound 6 against 5"), "{said}");
}

#[test]
fn another_value_of_a_weight_is_the_same_class() {
    let mut proto = proto("mlp-0.onnx");
    let weight = &mut proto.graph.as_mut().unwrap().initializer[0];
    let zeros = vec![0; weight.raw_data().len()];
    weight.raw_data = Some(zeros.into());
    assert_eq!(changed(&proto).class.id, id("mlp-0"));
}

#[test]
fn names_and_the_order_of_nodes_in_the_file_do_not_matter() {
    let mut proto = proto("bert_tiny-0.onnx");
    let graph = proto.graph.as_mut().unwrap();
    graph.node.reverse();
    graph.initializer.reverse();
    graph.value_info.clear();
    for node in &mut graph.node {
        node.name = None;
        node.input
            .iter_mut()
            .chain(&mut node.output)
            .filter(|name| !name.is_empty())
            .for_each(|name| name.push('~'));
    }
    graph.initializer.iter_mut().for_each(|tensor| tensor.name = Some(format!("{}~", tensor.name())));
    for info in graph.input.iter_mut().chain(&mut graph.output) {
        info.name = Some(format!("{}~", info.name()));
    }
    assert_eq!(changed(&proto).class.id, id("bert_tiny-0"));
}

#[test]
fn nodes_that_no_output_needs_do_not_matter() {
    let mut proto = proto("mlp-0.onnx");
    proto.graph.as_mut().unwrap().node.push(common::node("Sin", &["x"], &["nobody"], vec![]));
    assert_eq!(changed(&proto).class.id, id("mlp-0"));
}

#[test]
fn a_class_has_no_weights_and_a_model_has_all_of_them() {
    let model = model("bert_tiny-0");
    let graph = &model.class.graph;
    for (index, param) in graph.params.iter().enumerate() {
        assert_eq!(matches!(param.data, ParamData::Weight(_)), index < model.class.weights, "{}", param.name);
    }
    for (source, param) in model.weights.iter().zip(&graph.params) {
        assert_eq!(read_weight(source, param.dtype, &param.dims).unwrap().dims(), param.dims);
    }
    let forgetful = model.without_weights();
    assert!(read_weight(&forgetful.weights[0], DType::F32, &[1]).is_err());
}

#[test]
fn shapes_bind_free_dimensions() {
    let class = model("bert_tiny-0").class;
    assert_eq!(class.free_dims, ["batch", "free1"]);
    let bound = class.bind(&[&[3, 17], &[3, 17]]).unwrap();
    assert_eq!((&bound.dims[..], bound.item_dim, bound.items), (&[3, 17][..], Some(0), 3));
    assert_eq!(bound.batched_dims(), [17]);
    assert_eq!(class.bind_without_free_dims(), None);

    let class = model("mlp-0").class;
    let one = class.bind_without_free_dims().unwrap();
    assert_eq!(one, class.bind(&[&[1, 64]]).unwrap());
}

#[test]
fn shapes_that_do_not_fit_are_refused_with_what_was_expected() {
    let class = model("mobilenet_v2_035-0").class;
    let said = |shapes: &[&[u64]]| class.bind(shapes).unwrap_err().to_string();
    assert_eq!(
        said(&[&[2, 3, 224, 225]]),
        "input `image` has shape [2, 3, 224, 225], but the model takes [batch, 3, 224, 224]"
    );
    assert_eq!(said(&[&[3]]), "input `image` has shape [3], but the model takes [batch, 3, 224, 224]");
    assert!(said(&[]).contains("0 inputs came, but the model takes 1"));
    assert!(said(&[&[0, 3, 224, 224]]).contains("axis 0 is empty"));
    assert!(said(&[&[u64::MAX, 3, 224, 224]]).contains("more than can be held"));

    let class = model("bert_tiny-0").class;
    let error = class.bind(&[&[1, 8], &[1, 9]]).unwrap_err();
    assert_eq!(
        error.for_inputs(&["ids", "mask"]),
        "dimension `free1` is 8 in input `ids` and 9 in input `mask`"
    );
}

#[test]
fn a_request_of_another_batch_than_a_fixed_one_hears_how_to_export_a_free_one() {
    let node = common::node("Relu", &["x"], &["y"], vec![]);
    let class = changed(&common::model(17, common::one_node(&[("x", &[1, 3])], vec![], node))).class;
    let said = |shape: &[u64]| class.bind(&[shape]).unwrap_err().to_string();
    assert_eq!(
        said(&[2, 3]),
        "input `x` has shape [2, 3], but the model takes [1, 3]; its first axis is fixed to 1: where that is the batch, \
         export the model with a free first axis (`dynamic_axes` or `dynamic_shapes` of `torch.onnx.export`)"
    );
    for other in [&[2, 4][..], &[1, 4], &[2], &[3, 1, 3]] {
        assert!(said(other).ends_with("takes [1, 3]"), "a free first axis would not help: {}", said(other));
    }
}

#[test]
fn a_weight_that_is_cast_or_scaled_by_a_single_float_keeps_the_float_in_the_class() {
    let scale = |value: f32| {
        let node = common::node("Mul", &["x", "c"], &["y"], vec![]);
        common::model(17, common::one_node(&[("x", &[0, 4])], vec![common::floats("c", &[], &[value])], node))
    };
    assert_ne!(changed(&scale(2.0)).class.id, changed(&scale(3.0)).class.id);
    let vector = |value: f32| {
        let node = common::node("Mul", &["x", "c"], &["y"], vec![]);
        common::model(
            17,
            common::one_node(&[("x", &[0, 1])], vec![common::floats("c", &[1], &[value])], node),
        )
    };
    assert_eq!(changed(&vector(2.0)).class.id, changed(&vector(3.0)).class.id);
}

#[test]
fn a_float_used_as_a_bound_and_as_a_weight_is_both() {
    let graph = |value: f32| {
        let nodes = vec![
            common::node("Clip", &["x", "", "c"], &["low"], vec![]),
            common::node("Concat", &["low", "c"], &["y"], vec![common::int("axis", 0)]),
        ];
        let node = nodes[0].clone();
        let mut graph = common::one_node(&[("x", &[3])], vec![common::floats("c", &[1], &[value])], node);
        graph.node = nodes;
        graph.output = vec![common::untyped("y")];
        common::model(17, graph)
    };
    let model = changed(&graph(6.0));
    assert_eq!((model.weights.len(), model.class.graph.params.len()), (1, 2));
    assert_ne!(model.class.id, changed(&graph(5.0)).class.id);
}

#[test]
fn the_first_difference_is_told_for_a_person() {
    let said = |a: &str, b: &str| compare(&model(a), &model(b), TARGET).unwrap().difference;
    assert_eq!(said("block_fresh", "block_tuned"), None);
    assert_eq!(said("mlp-0", "lstm-0").unwrap(), "input `x`: [batch, 64] against [batch, free1, 32]");
    assert_eq!(said("mlp-0", "bert_tiny-0").unwrap(), "1 inputs against 2");

    let mut proto = proto("mlp-0.onnx");
    node(&mut proto, "Relu").op_type = Some("Tanh".into());
    let said = compare(&model("mlp-0"), &changed(&proto), TARGET).unwrap().difference.unwrap();
    assert_eq!(said, "Relu `/f/f.1/Relu` against Tanh `/f/f.1/Relu`");
}

#[test]
fn a_report_counts_what_a_model_is_made_of() {
    let report = inspect(&model("mlp-0"), TARGET).unwrap();
    assert_eq!(report.operators, [("Gemm", 3), ("Relu", 2)]);
    assert_eq!((report.weights, report.parameters), (6, 64 * 256 + 256 + 256 * 256 + 256 + 256 * 8 + 8));
    assert_eq!(report.weight_bytes.0, 4 * report.parameters);
    assert_eq!(report.inputs[0].to_string(), "x f32[batch, 64]");
    assert_eq!(report.to_json()["operators"]["Gemm"], 3);
    assert!(report.to_string().contains("operators   Gemm 3×, Relu 2×"));
}
