//! Which models are one architecture, and which weights belong to it.

#![allow(clippy::unwrap_used)] // the lint spares tests, but not the functions that they share

mod common;

use common::{fixture, floats, info, int, ints, node as operator, one_node, proto, typed_info, untyped};
use prost::Message;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tessera_core::{ClassId, DType, Precision};
use tessera_planner::class::{Model, ModelError, load, load_bytes, load_over_base};
use tessera_planner::graph::{ParamData, ParamId};
use tessera_planner::infer::{DimValue, infer};
use tessera_planner::inspect::{compare, inspect};
use tessera_planner::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use tessera_planner::op::Op;
use tessera_planner::pack::{Matrices, Sources, pack};
use tessera_planner::pack_cache::CacheKey;
use tessera_planner::source::read_weight;
use tessera_planner::{PackTarget, SlotLayout};

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

/// The model of a graph, and whether its items are proven independent.
fn proven(graph: GraphProto) -> (Model, bool) {
    let model = changed(&common::model(18, graph));
    let dims = vec![DimValue::Items; model.class.free_dims.len()];
    let proven = infer(&model.class.folded().graph, &[], &dims).is_ok();
    (model, proven)
}

/// `x[arange(n) + first, at]` as an exporter writes it, and whether its items are proven independent.
fn picks_by_item(first: i64) -> (Model, bool) {
    let scalar = |name: &str, number: i64| TensorProto { dims: vec![], ..ints(name, &[number]) };
    let batch = vec![int("start", 0), int("end", 1)];
    let graph = GraphProto {
        input: vec![info("x", &[0, 5, 4]), typed_info("at", DType::I64, &[0])],
        output: vec![untyped("y")],
        initializer: vec![scalar("first", first), scalar("one", 1), ints("last", &[-1])],
        node: vec![
            operator("Shape", &["x"], &["shape"], batch),
            operator("Squeeze", &["shape"], &["n"], vec![]),
            operator("Range", &["first", "n", "one"], &["rows"], vec![]),
            operator("Unsqueeze", &["rows", "last"], &["row"], vec![]),
            operator("Unsqueeze", &["at", "last"], &["column"], vec![]),
            operator("Concat", &["row", "column"], &["indices"], vec![int("axis", -1)]),
            operator("GatherND", &["x", "indices"], &["y"], vec![]),
        ],
        ..GraphProto::default()
    };
    proven(graph)
}

#[test]
fn rows_that_are_counted_beside_an_index_are_an_axis_that_both_share() {
    let (model, proven) = picks_by_item(0);
    let gather = model.class.graph.nodes.iter().find(|node| node.op.name() == "GatherND").unwrap();
    assert_eq!(gather.op, Op::GatherNd { batch_dims: 1 });
    assert!(proven, "an item picks among its own elements");
    let (model, proven) = picks_by_item(1);
    let gather = model.class.graph.nodes.iter().find(|node| node.op.name() == "GatherND").unwrap();
    assert_eq!(gather.op, Op::GatherNd { batch_dims: 0 });
    assert!(!proven, "an item would pick among its neighbour's elements");
}

/// `x[arange(n), at]` as the older exporter writes it, with so many rows for each item, and whether its items are proven independent.
fn picks_from_all_rows(starts: &str) -> (Model, bool) {
    let scalar = |name: &str, number: i64| TensorProto { dims: vec![], ..ints(name, &[number]) };
    let graph = GraphProto {
        input: vec![info("x", &[0, 5, 4]), typed_info("at", DType::I64, &[0])],
        output: vec![untyped("y")],
        initializer: vec![
            scalar("zero", 0),
            scalar("one", 1),
            ints("first", &[0]),
            ints("second", &[1]),
            ints("third", &[2]),
            ints("rest", &[-1]),
        ],
        node: vec![
            operator("Shape", &["x"], &["shape"], vec![]),
            operator("Gather", &["shape", "first"], &["items"], vec![]),
            operator("Squeeze", &["items"], &["n"], vec![]),
            operator("Range", &["zero", "n", "one"], &["rows"], vec![]),
            operator("Gather", &["shape", "second"], &["tokens"], vec![]),
            operator("Gather", &["shape", "third"], &["width"], vec![]),
            operator("Mul", &["rows", starts], &["starts"], vec![]),
            operator("Flatten", &["x"], &["matrix"], vec![int("axis", 2)]),
            operator("Add", &["at", "starts"], &["indices"], vec![]),
            operator("Gather", &["matrix", "indices"], &["picked"], vec![]),
            operator("Concat", &["rest", "width"], &["wide"], vec![int("axis", 0)]),
            operator("Reshape", &["picked", "wide"], &["listed"], vec![]),
            operator("Shape", &["indices"], &["counts"], vec![]),
            operator("Concat", &["counts", "width"], &["as_asked"], vec![int("axis", 0)]),
            operator("Reshape", &["listed", "as_asked"], &["y"], vec![]),
        ],
        ..GraphProto::default()
    };
    proven(graph)
}

#[test]
fn an_index_into_all_rows_that_begins_at_its_items_first_is_one_into_its_own() {
    let (model, proven) = picks_from_all_rows("tokens");
    assert!(model.class.graph.nodes.iter().any(|node| node.op == Op::GatherNd { batch_dims: 1 }));
    assert!(proven, "an item picks among its own elements");
    let (model, proven) = picks_from_all_rows("width");
    assert!(!model.class.graph.nodes.iter().any(|node| node.op == Op::GatherNd { batch_dims: 1 }));
    assert!(!proven, "an item would pick among its neighbour's elements");
}

/// A mask of all pairs of tokens reads every item's row at the same places, which are one row of numbers and not a row for each item.
#[test]
fn indices_that_all_items_have_in_common_are_not_taken_for_their_own() {
    let model = load(&fixture("bert_tiny-0.onnx")).unwrap();
    let shared = |op: &&Op| matches!(op, Op::GatherNd { batch_dims: 1 });
    assert_eq!(model.class.graph.nodes.iter().map(|node| &node.op).filter(shared).count(), 0);
}

/// `scale(x) + (x - scale(x))`, whose two normalisations are trained apart or were never trained.
fn two_norms(merged: bool) -> Model {
    let norm = |number: usize| {
        let names = ["scale", "shift", "mean", "variance"].map(|name| format!("{name}{number}"));
        let made = format!("norm{number}");
        operator(
            "BatchNormalization",
            &[&["x"], &names.each_ref().map(String::as_str)[..]].concat(),
            &[&made],
            vec![],
        )
    };
    let weights = (0..if merged { 1 } else { 2 }).flat_map(|number| {
        ["scale", "shift", "mean", "variance"].map(|name| floats(&format!("{name}{number}"), &[3], &[0.5; 3]))
    });
    let second = if merged { "norm0" } else { "norm1" };
    let mut nodes = vec![norm(0), operator("Sub", &["x", second], &["less"], vec![])];
    if !merged {
        nodes.insert(0, norm(1));
    }
    nodes.push(operator("Add", &["norm0", "less"], &["y"], vec![]));
    let graph = GraphProto {
        input: vec![info("x", &[0, 3, 4, 4])],
        output: vec![untyped("y")],
        initializer: weights.collect(),
        node: nodes,
        ..GraphProto::default()
    };
    changed(&common::model(18, graph))
}

#[test]
fn two_normalisations_that_an_exporter_made_one_are_two_again() {
    let (merged, trained) = (two_norms(true), two_norms(false));
    assert_eq!(compare(&merged, &trained, TARGET).unwrap().difference, None);
    assert_eq!(merged.class.id, trained.class.id);
    assert_eq!(merged.weights.len(), 8);
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

/// The initializers of a model file, as a state dict of f32.
fn state_dict(proto: &ModelProto) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let tensors = proto.graph.as_ref().unwrap().initializer.iter();
    let dims = |tensor: &TensorProto| tensor.dims.iter().map(|&dim| dim as usize).collect();
    tensors.map(|tensor| (tensor.name().to_owned(), (dims(tensor), tensor.raw_data().to_vec()))).collect()
}

type Dict = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn write(dict: &Dict, dtype: Dtype, folder: &Path) -> PathBuf {
    let views =
        dict.iter().map(|(name, (dims, bytes))| (name, TensorView::new(dtype, dims.clone(), bytes).unwrap()));
    let path = folder.join("model.safetensors");
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path
}

fn weights(model: &Model) -> Vec<Vec<u8>> {
    let params = model.weights.iter().zip(&model.class.graph.params);
    params
        .map(|(source, param)| read_weight(source, param.dtype, &param.dims).unwrap().bytes().to_vec())
        .collect()
}

fn problems(base: &Model, dict: &Dict) -> String {
    let folder = tempfile::tempdir().unwrap();
    load_over_base(base, &write(dict, Dtype::F32, folder.path())).unwrap_err().to_string()
}

#[test]
fn tuned_weights_go_over_a_fresh_base_whose_equal_tensors_were_merged() {
    let folder = tempfile::tempdir().unwrap();
    let tuned = state_dict(&proto("block_tuned.onnx"));
    let base = model("block_fresh").without_weights();
    let over = load_over_base(&base, &write(&tuned, Dtype::F32, folder.path())).unwrap();
    assert_eq!(over.class.id, id("block_tuned"));
    assert_eq!(weights(&over), weights(&model("block_tuned")));
}

/// What an exporter that takes zeros out of the graph makes of a model whose biases are zeros.
fn without_biases(mut proto: ModelProto) -> ModelProto {
    let graph = proto.graph.as_mut().unwrap();
    let linear = graph.node.iter_mut().filter(|node| ["Conv", "Gemm"].contains(&node.op_type()));
    let gone: Vec<String> = linear.flat_map(|node| node.input.drain(2..)).collect();
    assert!(!gone.is_empty());
    graph.initializer.retain(|tensor| !gone.contains(&tensor.name.clone().unwrap_or_default()));
    proto
}

#[test]
fn a_bias_that_the_file_leaves_out_is_a_bias_of_zeros_and_none_of_its_parameters() {
    let tuned = model("mlp-0");
    let fresh = changed(&without_biases(proto("mlp-0.onnx")));
    assert_eq!(fresh.class.id, tuned.class.id);
    for ((left, was), name) in weights(&fresh).iter().zip(weights(&tuned)).zip(tuned.weight_names()) {
        match name.ends_with("bias") {
            true => assert!(left.len() == was.len() && left.iter().all(|&byte| byte == 0), "{name}"),
            false => assert_eq!(*left, was, "{name}"),
        }
    }
    assert_eq!(fresh.weight_names().collect::<Vec<_>>(), tuned.weight_names().collect::<Vec<_>>());
    let [all, some] = [&tuned, &fresh].map(|model| inspect(model, TARGET).unwrap());
    let biases = tuned.class.graph.params.iter().filter(|param| param.name.ends_with("bias"));
    let elements: usize = biases.clone().map(|param| param.dims[0]).sum();
    assert_eq!(all.weights - some.weights, biases.count());
    assert_eq!(all.parameters - some.parameters, elements as u64);
}

/// What is uploaded of a model, and the name under which it is cached.
fn packed(model: &Model) -> (Vec<u8>, Option<CacheKey>) {
    let (class, folded) = (&model.class, model.class.folded());
    let layout = SlotLayout::of(folded, TARGET).unwrap();
    let mut source = |id: ParamId| Ok(model.weights[id.0 as usize].clone());
    let sources = Sources::of(&class.graph, folded, &mut source).unwrap();
    let key = CacheKey::new(class.id, folded, &layout, &sources, SystemTime::now());
    (pack(&class.graph, folded, &layout, &mut source).unwrap().bytes().to_vec(), key)
}

#[test]
fn biases_left_out_pack_as_zeros_do_and_are_cached_apart_from_others() {
    for name in ["mlp-0", "block_tuned", "mobilenet_v2_035-0"] {
        let tuned = proto(&format!("{name}.onnx"));
        let mut zeros = tuned.clone();
        let graph = zeros.graph.as_mut().unwrap();
        let linear = graph.node.iter().filter(|node| ["Conv", "Gemm"].contains(&node.op_type()));
        let biases: Vec<String> = linear.flat_map(|node| node.input[2..].to_vec()).collect();
        for tensor in
            graph.initializer.iter_mut().filter(|tensor| biases.contains(&tensor.name.clone().unwrap()))
        {
            tensor.raw_data = Some(vec![0; tensor.raw_data().len()].into());
        }
        let [tuned, zeros, left_out] =
            [tuned.clone(), zeros, without_biases(tuned)].map(|proto| packed(&changed(&proto)));
        assert_eq!(left_out.0, zeros.0, "{name}");
        assert_ne!(left_out.0, tuned.0, "{name}");
        assert!(left_out.1.is_some() && left_out.1 != tuned.1, "{name}");
    }
}

#[test]
fn a_file_cannot_ask_for_a_bias_larger_than_its_weight() {
    for (inputs, group) in [(0, 1 << 40), (2, 1 << 40), (2, 0)] {
        let kernel = vec![0.5; inputs * 4];
        let deconv = operator("ConvTranspose", &["x", "w"], &["y"], vec![int("group", group)]);
        let graph = one_node(
            &[("x", &[0, inputs as i64, 3])],
            vec![floats("w", &[inputs as i64, 4, 1], &kernel)],
            deconv,
        );
        if let Ok(made) = load_bytes(common::model(17, graph).encode_to_vec(), None) {
            assert_eq!(made.class.weights, 1, "{inputs} channels in {group} groups");
        }
    }
}

#[test]
fn a_base_without_biases_takes_weights_with_and_without_them() {
    let folder = tempfile::tempdir().unwrap();
    let base = changed(&without_biases(proto("mlp-0.onnx"))).without_weights();
    let mut dict = state_dict(&proto("mlp-1.onnx"));
    let over = load_over_base(&base, &write(&dict, Dtype::F32, folder.path())).unwrap();
    assert_eq!(weights(&over), weights(&model("mlp-1")));

    dict.retain(|name, _| !name.ends_with("bias"));
    let over = load_over_base(&base, &write(&dict, Dtype::F32, folder.path())).unwrap();
    assert_eq!(weights(&over), weights(&changed(&without_biases(proto("mlp-1.onnx")))));

    dict.insert("net.0.bias".into(), (vec![1], vec![0; 4]));
    let said = problems(&base, &dict);
    assert!(said.contains("wrong shape") || said.contains("extra"), "{said}");
}

#[test]
fn a_base_takes_its_own_initializers_too() {
    let folder = tempfile::tempdir().unwrap();
    let base = model("block_fresh");
    let own = state_dict(&proto("block_fresh.onnx"));
    let over = load_over_base(&base, &write(&own, Dtype::F32, folder.path())).unwrap();
    assert_eq!(weights(&over), weights(&base));
}

/// Names as PyTorch has them, for a base that was exported from a wrapper `m` with its linear layers renamed.
fn as_pytorch_has_it(model: &Model) -> Dict {
    let mut dict = Dict::new();
    let graph = &model.class.graph;
    let bias_after = |weight: usize| {
        let value = graph.params[weight].value;
        let product = graph.nodes.iter().find(|node| node.inputs.contains(&Some(value))).unwrap();
        let add = graph.nodes.iter().find(|node| node.inputs.contains(&product.outputs[0])).unwrap();
        let params = add.inputs.iter().flatten().filter_map(|value| graph.param(*value));
        params.map(|param| param.name.clone()).next().unwrap()
    };
    for ((index, source), name) in model.weights.iter().enumerate().zip(model.weight_names()) {
        let param = &graph.params[index];
        let tensor = read_weight(source, param.dtype, &param.dims).unwrap();
        let (name, dims, bytes) = match name.contains("::") {
            false => (name.to_owned(), param.dims.clone(), tensor.bytes().to_vec()),
            true => {
                let [k, n] = param.dims[..] else { panic!("{name} is no matrix") };
                let element = |at: usize| &tensor.bytes()[4 * at..4 * at + 4];
                let bytes =
                    (0..n).flat_map(|col| (0..k).flat_map(move |row| element(row * n + col))).copied();
                (bias_after(index).replace(".bias", ".weight"), vec![n, k], bytes.collect())
            }
        };
        dict.insert(name.strip_prefix("m.").unwrap().to_owned(), (dims, bytes));
    }
    dict
}

#[test]
fn renamed_and_transposed_weights_are_found_by_their_state_dict_names() {
    let folder = tempfile::tempdir().unwrap();
    let (base, other) = (model("bert_tiny-0"), model("bert_tiny-1"));
    let mut dict = as_pytorch_has_it(&other);
    assert!(dict.contains_key("encoder.layer.1.attention.self.query.weight"), "{:?}", dict.keys());
    let over = load_over_base(&base, &write(&dict, Dtype::F32, folder.path())).unwrap();
    assert_eq!(weights(&over), weights(&other));

    // The same with a prefix that the base does not have.
    dict = dict.into_iter().map(|(name, tensor)| (format!("m.{name}"), tensor)).collect();
    let over = load_over_base(&base, &write(&dict, Dtype::F32, folder.path())).unwrap();
    assert_eq!(weights(&over), weights(&other));
}

#[test]
fn halves_become_singles() {
    let folder = tempfile::tempdir().unwrap();
    let base = model("mlp-0");
    let mut dict = state_dict(&proto("mlp-1.onnx"));
    for (_, bytes) in dict.values_mut() {
        // The upper half of a single is a bfloat16.
        *bytes = bytes.chunks_exact(4).flat_map(|single| [single[2], single[3]]).collect();
    }
    let over = load_over_base(&base, &write(&dict, Dtype::BF16, folder.path())).unwrap();
    let cut = |bytes: &[u8]| {
        bytes.chunks_exact(4).flat_map(|single| [0, 0, single[2], single[3]]).collect::<Vec<u8>>()
    };
    let expected: Vec<Vec<u8>> = weights(&model("mlp-1")).iter().map(|bytes| cut(bytes)).collect();
    assert_eq!(weights(&over), expected);
}

#[test]
fn everything_that_does_not_fit_is_listed_at_once() {
    let base = model("block_fresh");
    let mut dict = state_dict(&proto("block_tuned.onnx"));
    dict.remove("g.bias");
    let a = dict.remove("a.weight").unwrap();
    dict.insert("a.wight".into(), a);
    dict.insert("f.weight".into(), (vec![16, 64], vec![0; 4096]));
    let said = problems(&base, &dict);
    let lines: Vec<&str> = said.lines().map(str::trim).skip(1).collect();
    let expected = [
        "wrong shape: `f.weight` is [16, 64], and [32, 32] is wanted",
        "missing: `a.weight`",
        "missing: `g.bias`",
        "extra: `a.wight`",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_wrong_type_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dict = state_dict(&proto("mlp-1.onnx"));
    let path = write(&dict, Dtype::I32, folder.path());
    let error = load_over_base(&model("mlp-0"), &path).unwrap_err().to_string();
    assert!(error.contains("wrong type: `f.0.weight` is i32, and f32 is wanted"), "{error}");
}

#[test]
fn counters_of_a_state_dict_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dict = state_dict(&proto("mlp-1.onnx"));
    let count = 7i64.to_le_bytes();
    let mut views: Vec<_> = dict
        .iter()
        .map(|(name, (dims, bytes))| {
            (name.clone(), TensorView::new(Dtype::F32, dims.clone(), bytes).unwrap())
        })
        .collect();
    views.push(("bn.num_batches_tracked".into(), TensorView::new(Dtype::I64, vec![], &count).unwrap()));
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    load_over_base(&model("mlp-0"), &path).unwrap();
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
fn a_header_that_lies_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let base = model("mlp-0");
    let header = |json: &str, data: usize| {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    };
    let f =
        |offsets: &str| format!(r#"{{"f.0.bias":{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}}}"#);
    let two = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let files = [
        ("empty", vec![]),
        ("seven bytes", vec![0; 7]),
        ("giant header", [u64::MAX.to_le_bytes().to_vec(), vec![0; 64]].concat()),
        ("header beyond the file", [1000u64.to_le_bytes().to_vec(), vec![b' '; 64]].concat()),
        ("not JSON", header("not JSON", 8)),
        ("not UTF-8", header("{\"a\u{0}", 8)),
        ("outside", header(&f("[0,8]"), 4)),
        ("trailing", header(&f("[0,8]"), 12)),
        ("backwards", header(&f("[8,0]"), 8)),
        ("a gap", header(&f("[4,12]"), 12)),
        ("overflow", header(&f("[0,18446744073709551615]"), 8)),
        ("overlapping", header(two, 4)),
        ("too long for its shape", header(&f("[0,12]"), 12)),
        ("negative", header(&f("[-1,8]"), 8)),
    ];
    for (what, bytes) in files {
        std::fs::write(&path, &bytes).unwrap();
        let error =
            load_over_base(&base, &path).map(|_| ()).map_err(ModelError::from).unwrap_err().to_string();
        assert!(error.contains("not a safetensors file"), "{what}: {error}");
    }
    assert!(load_over_base(&base, &folder.path().join("none")).is_err());
    assert!(load_over_base(&base, folder.path()).is_err());
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

#[test]
fn the_real_minilm_fits_its_own_base_but_for_a_head_that_it_does_not_use() {
    let weights = fixture("minilm_l6_v2/model.safetensors");
    if !weights.exists() {
        eprintln!("skipped: MiniLM's real weights are absent; scripts/fetch-minilm brings them");
        return;
    }
    let base = load(&fixture("minilm_l6_v2/model.onnx")).unwrap();
    let error = load_over_base(&base, &weights).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().map(str::trim).skip(1).collect();
    assert_eq!(lines, ["extra: `pooler.dense.bias`", "extra: `pooler.dense.weight`"]);
}
