//! Files that are no models, or bad ones: each is an error that says what is wrong, and none is a panic.

#![allow(clippy::unwrap_used)] // the lint spares tests, but not the functions that they share

#[path = "../common/mod.rs"]
mod common;

mod external;

use common::{fixture, float, floats, info, int, int_list, ints, model, node, one_node, string};
use proptest::prelude::*;
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tessera_core::{PlanKey, Precision};
use tessera_planner::class::{load, load_bytes};
use tessera_planner::infer::DimValue;
use tessera_planner::onnx::proto::attribute_proto::AttributeType;
use tessera_planner::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, OperatorSetIdProto, SparseTensorProto,
    TensorProto, TypeProto, tensor_proto, type_proto,
};
use tessera_planner::onnx::{ImportError, import_bytes};
use tessera_planner::pack::{Matrices, PackTarget};
use tessera_planner::{SlotLayout, plan};

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_fixture_with_changed_bytes_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        name in prop::sample::select(vec!["block_fresh.onnx", "torch_export/iris.onnx", "minilm_l6_v2/model.onnx"]),
    ) {
        let mut bytes = std::fs::read(fixture(name)).unwrap();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = load_bytes(bytes, Some(&fixture("torch_export")));
    }
}

fn error(model: &ModelProto) -> ImportError {
    match import_bytes(model.encode_to_vec(), None) {
        Err(error) => error,
        Ok(_) => panic!("the model was taken"),
    }
}

/// What a user reads about a graph of opset 17.
fn said(graph: GraphProto) -> String {
    error(&model(17, graph)).to_string()
}

fn relu() -> GraphProto {
    one_node(&[("x", &[0, 4])], vec![], node("Relu", &["x"], &["y"], vec![]))
}

fn with_initializer(tensor: TensorProto) -> GraphProto {
    one_node(&[("x", &[0, 4])], vec![tensor], node("Add", &["x", "w"], &["y"], vec![]))
}

#[test]
fn an_empty_file_is_refused() {
    assert_eq!(import_bytes(Vec::new(), None).unwrap_err().to_string(), "the file is empty");
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    for name in ["block_tuned.onnx", "lstm-0.onnx", "minilm_l6_v2/model.onnx"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let ends = (0..200)
            .chain((200..bytes.len()).step_by(bytes.len() / 400))
            .chain(bytes.len() - 40..bytes.len());
        for end in ends {
            assert!(load_bytes(bytes[..end].to_vec(), None).is_err(), "{name} cut at {end}");
        }
    }
}

#[test]
fn random_bytes_are_refused() {
    for seed in 0..500 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = vec![0; random.random_range(1..2000)];
        random.fill_bytes(&mut bytes);
        assert!(load_bytes(bytes, None).is_err(), "seed {seed}");
    }
}

#[test]
fn something_else_than_onnx_is_refused() {
    let error = import_bytes(b"PK\x03\x04 a zip archive, say".to_vec(), None).unwrap_err();
    assert!(error.to_string().starts_with("this is not an ONNX model"), "{error}");
    let error = error_of(&ModelProto { ir_version: Some(8), ..ModelProto::default() });
    assert!(error.contains("there is no graph in it"), "{error}");
}

fn error_of(model: &ModelProto) -> String {
    error(model).to_string()
}

#[test]
fn opsets_that_are_not_known_are_refused_with_a_way_out() {
    for (opset, word) in [(8, "older"), (0, "older"), (-1, "older"), (29, "newer"), (i64::MAX, "newer")] {
        let error = error(&model(opset, relu())).to_string();
        assert!(
            error.contains(&format!("opset {opset}, which is {word}; Tessera knows opsets 9 to 28")),
            "{error}"
        );
        assert!(error.contains("onnx.version_converter"), "{error}");
    }
    let none = ModelProto { opset_import: vec![], ..model(17, relu()) };
    assert!(error_of(&none).contains("names no opset"));
    let set = |version| OperatorSetIdProto { domain: None, version: Some(version) };
    let two = ModelProto { opset_import: vec![set(17), set(18)], ..model(17, relu()) };
    assert!(error_of(&two).contains("two opsets, 17 and 18"));
}

#[test]
fn all_unsupported_operators_are_listed_at_once() {
    let mut graph = relu();
    graph.node = vec![
        node("Unique", &["x"], &["a"], vec![]),
        node("QuantizeLinear", &["x", "s"], &["b"], vec![]),
        node("Frobnicate", &["a", "b"], &["c"], vec![]),
        node("Frobnicate", &["c"], &["d"], vec![]),
        node("FusedMatMul", &["d"], &["y"], vec![]),
    ];
    graph.node[4].domain = Some("com.microsoft".into());
    graph.initializer = vec![floats("s", &[], &[1.0])];
    let error = error(&model(17, graph));
    let ImportError::Unsupported(list) = &error else { panic!("{error}") };
    let listed: Vec<(&str, usize)> = list.iter().map(|one| (one.op.as_str(), one.count)).collect();
    let expected =
        [("Unique", 1), ("QuantizeLinear", 1), ("Frobnicate", 2), ("com.microsoft.FusedMatMul", 1)];
    assert_eq!(listed, expected);
    let said = error.to_string();
    for word in [
        "Unique (1×, first Unique `the_Unique`)",
        "depends on data",
        "before quantisation",
        "before its optimiser",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

/// What is refused by design says what to do about it.
#[test]
fn operators_that_are_refused_by_design_say_the_way_out() {
    for (ops, domain, way_out) in [
        (&["Loop", "Scan"][..], "", "export the model traced for inference"),
        (
            &["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"],
            "",
            "as it was before quantisation",
        ),
        (
            &["QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"],
            "",
            "as it was before quantisation",
        ),
        (&["SequenceConstruct", "SequenceAt", "SplitToSequence", "OptionalGetElement"], "", "export tensors"),
        (&["StringNormalizer", "StringConcat", "RegexFullMatch"], "", "before the request"),
        (&["Compress", "Unique", "NonMaxSuppression"], "", "do this step after the request"),
        (&["RandomNormal", "Bernoulli"], "", "pass them as an input"),
        (&["QLinearAdd", "FusedConv", "QAttention"], "com.microsoft", "as it was before its optimiser"),
        (&["TreeEnsemble"], "ai.onnx.ml", "classical machine learning is not served"),
    ] {
        for op in ops {
            let mut graph = one_node(&[("x", &[2])], vec![], node(op, &["x"], &["y"], vec![]));
            graph.node[0].domain = Some(domain.into());
            let said = said(graph);
            assert!(said.contains(op) && said.contains(way_out), "{op}: {said}");
        }
    }
}

#[test]
fn types_that_are_not_served_are_refused_with_those_that_are() {
    for (number, word) in [(8, "STRING"), (17, "FLOAT8E4M3FN"), (22, "INT4")] {
        let mut graph = relu();
        let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) =
            &mut graph.input[0].r#type
        else {
            panic!("an input is a tensor")
        };
        tensor.elem_type = Some(number);
        let said = said(graph);
        assert!(said.contains(word) && said.contains("floats of 16 to 64 bits are served"), "{said}");
    }
    let cast = one_node(&[("x", &[2])], vec![], node("Cast", &["x"], &["y"], vec![int("to", 8)]));
    let said = said(cast);
    assert!(said.contains("casting to STRING is not served; booleans"), "{said}");
}

#[test]
fn loops_and_branches_are_refused_by_name() {
    let body = AttributeProto {
        name: Some("then_branch".into()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(GraphProto::default()),
        ..AttributeProto::default()
    };
    let said = said(one_node(&[("x", &[1])], vec![], node("If", &["x"], &["y"], vec![body])));
    assert!(said.contains("If (1×, first If `the_If`): control flow is not served"), "{said}");
}

#[test]
fn functions_of_the_model_are_refused_with_a_way_out() {
    let function =
        FunctionProto { name: Some("gelu".into()), domain: Some("mine".into()), ..FunctionProto::default() };
    let mut call = node("gelu", &["x"], &["y"], vec![]);
    call.domain = Some("mine".into());
    let model = ModelProto { functions: vec![function], ..model(17, one_node(&[("x", &[1])], vec![], call)) };
    assert!(error_of(&model).contains("inline_local_functions"));
}

#[test]
fn a_cycle_is_refused_and_shown() {
    let mut graph = relu();
    graph.node = vec![
        node("Add", &["x", "c"], &["a"], vec![]),
        node("Relu", &["a"], &["b"], vec![]),
        node("Neg", &["b"], &["c"], vec![]),
        node("Abs", &["c"], &["y"], vec![]),
    ];
    let said = said(graph);
    assert!(said.starts_with("the graph has a cycle: "), "{said}");
    for name in ["Add `the_Add`", "Relu `the_Relu`", "Neg `the_Neg`"] {
        assert!(said.contains(name), "{said}");
    }
    assert!(!said.contains("Abs"), "{said}");
}

#[test]
fn a_node_that_reads_itself_is_a_cycle() {
    let said = said(one_node(&[("x", &[1])], vec![], node("Add", &["x", "y"], &["y"], vec![])));
    assert_eq!(said, "the graph has a cycle: Add `the_Add` → Add `the_Add`");
}

#[test]
fn a_chain_of_a_hundred_thousand_nodes_is_taken() {
    let mut graph = relu();
    let name = |i: usize| if i == 0 { "x".to_owned() } else { format!("v{i}") };
    graph.node = (0..100_000).map(|i| node("Relu", &[&name(i)], &[&name(i + 1)], vec![])).collect();
    graph.output[0].name = Some(name(100_000));
    let graph = import_bytes(model(17, graph).encode_to_vec(), None).unwrap().graph;
    assert_eq!(graph.nodes.len(), 100_000);
}

#[test]
fn a_small_file_that_would_fill_the_memory_is_refused_before_it_is_decoded() {
    let field = |number: u8, bytes: &[u8]| {
        let mut message = vec![number << 3 | 2];
        prost::encoding::encode_varint(bytes.len() as u64, &mut message);
        message.extend_from_slice(bytes);
        message
    };
    // Two million attributes of two bytes each, in one node.
    let attributes = field(5, &[]).repeat(2_000_000);
    let file = field(7, &field(1, &attributes));
    let error = import_bytes(file, None).unwrap_err();
    assert!(matches!(error, ImportError::TooLarge { .. }), "{error}");
    // Half a million nodes fit the memory, and are more than we take.
    let file =
        [field(7, &field(1, &[]).repeat(500_000)), model(17, GraphProto::default()).encode_to_vec()].concat();
    let error = import_bytes(file, None).unwrap_err().to_string();
    assert_eq!(error, "the model has 500000 nodes, more than the 200000 that are taken");
}

#[test]
fn values_that_nothing_makes_are_refused() {
    let graph = one_node(&[("x", &[1])], vec![], node("Add", &["x", "ghost"], &["y"], vec![]));
    assert_eq!(said(graph), "Add `the_Add` reads `ghost`, which nothing makes");
    let mut graph = relu();
    graph.output[0].name = Some("ghost".into());
    assert_eq!(said(graph), "the answer reads `ghost`, which nothing makes");
}

#[test]
fn names_that_are_defined_twice_are_refused() {
    let mut graph = relu();
    graph.node.push(node("Abs", &["x"], &["y"], vec![]));
    assert_eq!(said(graph), "`y` is defined twice: by Relu `the_Relu` and by Abs `the_Abs`");

    let mut graph = relu();
    graph.node[0].output = vec!["x".into()];
    assert!(said(graph).contains("`x` is defined twice: by the inputs and by Relu"));

    let mut graph = with_initializer(floats("w", &[1], &[1.0]));
    graph.initializer.push(floats("w", &[1], &[2.0]));
    assert!(said(graph).contains("`w` is defined twice: by an initializer and by another initializer"));

    let mut graph = relu();
    graph.input.push(info("x", &[1]));
    assert_eq!(said(graph), "input `x` is listed twice");

    let mut graph = relu();
    graph.output.push(graph.output[0].clone());
    assert_eq!(said(graph), "output `y` is listed twice");
}

#[test]
fn things_without_names_are_refused() {
    assert!(said(with_initializer(floats("", &[1], &[1.0]))).contains("has no name"));
    let mut graph = relu();
    graph.input[0].name = None;
    assert!(said(graph).contains("has no name"));
    let mut graph = relu();
    graph.output[0].name = None;
    assert!(said(graph).contains("has no name"));
    let mut graph = relu();
    graph.output.clear();
    assert!(said(graph).contains("no outputs"));
}

#[test]
fn an_initializer_that_is_also_listed_as_an_input_is_a_weight() {
    let mut graph = with_initializer(floats("w", &[4], &[1.0; 4]));
    graph.input.push(info("w", &[4]));
    let graph = import_bytes(model(9, graph).encode_to_vec(), None).unwrap().graph;
    assert_eq!((graph.inputs.len(), graph.params.len()), (1, 1));
}

#[test]
fn inputs_that_no_request_could_bring_are_refused() {
    let with_type = |value: Option<type_proto::Value>| {
        let mut graph = relu();
        graph.input[0].r#type = value.map(|value| TypeProto { value: Some(value), denotation: None });
        said(graph)
    };
    let tensor = |elem_type| {
        type_proto::Value::TensorType(type_proto::Tensor { elem_type: Some(elem_type), shape: None })
    };
    assert_eq!(with_type(None), "input `x` declares no type");
    assert!(with_type(Some(tensor(8))).contains("unsupported type, STRING"));
    assert!(with_type(Some(tensor(99))).contains("unsupported type, number 99"));
    assert!(with_type(Some(tensor(1))).contains("declares no shape"));
    assert!(with_type(Some(type_proto::Value::SequenceType(Default::default()))).contains("not a tensor"));

    let shaped = |dims: &[i64]| said(one_node(&[("x", dims)], vec![], node("Relu", &["x"], &["y"], vec![])));
    assert!(shaped(&[1; 9]).contains("9 dimensions, more than 8"));
    assert!(shaped(&[-1, 4]).contains("a dimension of -1"));
    assert!(shaped(&[i64::MAX, i64::MAX]).contains("overflows"));
}

#[test]
fn initializers_that_do_not_hold_what_they_say_are_refused() {
    let tensor = |dims: &[i64]| said(with_initializer(floats("w", dims, &[1.0; 4])));
    assert!(tensor(&[5]).contains("holds 20 bytes, but 16 were given"));
    assert!(tensor(&[3]).contains("holds 12 bytes, but 16 were given"));
    assert!(tensor(&[-1]).contains("negative dimension"));
    assert!(tensor(&[i64::MAX, i64::MAX]).contains("overflows"));
    assert!(tensor(&[i64::MAX, i64::MAX, 0]).contains("overflows"));
    assert!(tensor(&[1 << 40]).contains("bytes, but 16 were given"));
    assert!(tensor(&[1; 9]).contains("9 dimensions"));

    let typed = |data_type: i32| TensorProto { data_type: Some(data_type), ..floats("w", &[4], &[]) };
    assert!(said(with_initializer(typed(8))).contains("unsupported type, STRING"));
    assert!(said(with_initializer(typed(0))).contains("unsupported type, UNDEFINED"));
    assert!(said(with_initializer(typed(1000))).contains("unsupported type, number 1000"));
    let u8s = TensorProto { int32_data: vec![1, 2, 3, 256], ..typed(2) };
    assert!(said(with_initializer(u8s)).contains("an element 256 that its type cannot hold"));
    let bools = TensorProto { raw_data: Some(vec![0, 1, 2, 1].into()), ..typed(9) };
    assert!(said(with_initializer(bools)).contains("neither 0 nor 1"));
    let segment = tensor_proto::Segment { begin: Some(0), end: Some(4) };
    let segmented = TensorProto { segment: Some(segment), ..floats("w", &[4], &[1.0; 4]) };
    assert!(said(with_initializer(segmented)).contains("segments"));
}

#[test]
fn sparse_initializers_are_refused() {
    let values = Some(floats("w", &[1], &[1.0]));
    let mut graph = relu();
    graph.sparse_initializer = vec![SparseTensorProto { values, ..SparseTensorProto::default() }];
    assert!(said(graph).contains("tensor `w` is sparse"));
}

#[test]
fn nodes_that_break_their_operator_are_refused() {
    let x: &[(&str, &[i64])] = &[("x", &[0, 3, 8, 8])];
    let weight = || vec![floats("w", &[4, 3, 3, 3], &[0.5; 108])];
    let conv = |attributes| said(one_node(x, weight(), node("Conv", &["x", "w"], &["y"], attributes)));
    assert!(conv(vec![int_list("strides", &[1])]).contains("has 1 strides for 2 axes"));
    assert!(conv(vec![int_list("strides", &[0, 1])]).contains("has strides of [0, 1]"));
    assert!(conv(vec![int_list("kernel_shape", &[5, 5])]).contains("over weights of [3, 3]"));
    assert!(conv(vec![int_list("pads", &[1, 1])]).contains("has 2 pads for 2 axes"));
    assert!(conv(vec![int_list("pads", &[-1, 0, 0, 0])]).contains("negative padding"));
    assert!(conv(vec![int("group", 0)]).contains("not positive"));
    assert!(conv(vec![string("auto_pad", "SOMEHOW")]).contains("unknown auto_pad `SOMEHOW`"));
    assert!(conv(vec![int("strides", 1)]).contains("attribute `strides` of type INT, but INTS is wanted"));
    assert!(
        conv(vec![float("zeal", 1.0)])
            .contains("an attribute `zeal` that the operator of opset 17 does not know")
    );
    assert!(conv(vec![int("group", 1), int("group", 1)]).contains("attribute `group` twice"));

    let relu = |inputs: &[&str], outputs: &[&str]| {
        said(one_node(x, weight(), node("Relu", inputs, outputs, vec![])))
    };
    assert!(relu(&["x", "w"], &["y"]).contains("has 2 inputs, but 1 are wanted"));
    assert!(relu(&[""], &["y"]).contains("has 0 inputs, but 1 are wanted"));
    assert!(relu(&["x"], &["y", "z"]).contains("has 2 outputs"));
    let add = said(one_node(x, weight(), node("Add", &["", "x"], &["y"], vec![])));
    assert!(add.contains("leaves out input 0"), "{add}");

    let transpose =
        said(one_node(x, vec![], node("Transpose", &["x"], &["y"], vec![int_list("perm", &[0, 1, 1, 3])])));
    assert!(transpose.contains("no permutation"), "{transpose}");
    let split = said(one_node(x, vec![], node("Split", &["x"], &["y", "z"], vec![int_list("split", &[8])])));
    assert!(split.contains("1 sizes for 2 outputs"), "{split}");
    let newer = said(one_node(x, vec![], node("Gelu", &["x"], &["y"], vec![])));
    assert!(newer.contains("is of opset 20, but the model says that it is written in opset 17"), "{newer}");
    let norm = vec![floats("s", &[3], &[1.0; 3])];
    let inputs = ["x", "s", "s", "s", "s"];
    let training = node("BatchNormalization", &inputs, &["y"], vec![int("training_mode", 1)]);
    assert!(said(one_node(x, norm, training)).contains("training mode is not served"));
    let far = node("LayerNormalization", &["x", "s"], &["y", "mean"], vec![int("axis", i64::MIN)]);
    let far = said(one_node(x, vec![floats("s", &[3], &[1.0; 3])], far));
    assert!(far.contains("normalises from axis -9223372036854775808"), "{far}");
}

#[test]
fn a_batch_that_is_split_into_one_part_of_another_length_is_refused() {
    for size in [2, i64::MAX - 1] {
        let split = node("Split", &["x"], &["y"], vec![int_list("split", &[size])]);
        let bytes = model(11, one_node(&[("x", &[0, 4])], vec![], split)).encode_to_vec();
        let said = |dim| not_planned(bytes.clone(), &[dim]);
        let by_items = said(DimValue::Items);
        assert!(by_items.contains(&format!("the one part of its item axis is {size} long")), "{by_items}");
        let whole = said(DimValue::Fixed(3));
        assert!(whole.contains("does not split into 1 parts of the given sizes"), "{whole}");
    }
}

/// Why a model that imports cannot be served at these free dimensions.
fn not_planned(bytes: Vec<u8>, dims: &[DimValue]) -> String {
    let class = load_bytes(bytes, None).unwrap().class;
    let target = PackTarget { device: "test", precision: Precision::Fp32, matrices: Matrices::Panels(16) };
    let layout = match SlotLayout::of(class.folded(), target) {
        Ok(layout) => layout,
        Err(error) => return error.to_string(),
    };
    let key = PlanKey { class: class.id, dims: [1].into(), precision: Precision::Fp32 };
    plan(key, class.folded(), &layout, dims).unwrap_err().to_string()
}

/// Each value is one that could be, and what a step would make of some of them is not.
#[test]
fn products_across_values_that_nothing_could_hold_or_count_are_refused() {
    let refused = |opset, inputs: &[(&str, &[i64])], weights, node| {
        not_planned(model(opset, one_node(inputs, weights, node)).encode_to_vec(), &[])
    };
    // The largest number that an attribute of a window may be.
    let far = i64::from(i32::MAX);
    let image: &[(&str, &[i64])] = &[("x", &[1, 4, 8, 8])];
    let wide = |name, size| int_list(name, &[size, size]);
    let around = |size| int_list("pads", &[size; 4]);
    let pool = vec![wide("kernel_shape", far), wide("strides", far), around(far)];
    let pool = refused(17, image, vec![], node("MaxPool", &["x"], &["y"], pool));
    assert!(pool.contains("takes more than 2⁶⁴ operations at these dimensions"), "{pool}");
    assert!(pool.contains("`the_MaxPool`"), "{pool}");

    let transposed = |attributes| {
        let taps = vec![floats("w", &[4, 1, 2, 2], &[0.5; 16])];
        refused(17, image, taps, node("ConvTranspose", &["x", "w"], &["y"], attributes))
    };
    let zeros = transposed(vec![wide("dilations", far), wide("strides", 2), around(far / 2)]);
    assert!(zeros.contains("bytes of activations"), "{zeros}");
    let phases = transposed(vec![wide("strides", far), wide("output_shape", 8)]);
    assert!(phases.contains("a slot larger than memory can address"), "{phases}");

    // Every element of the border would have its number written down.
    let border = vec![string("mode", "edge"), int_list("pads", &[0, 0, 0, 4, 0, 0, 0, 1 << 28])];
    let padded = refused(9, image, vec![], node("Pad", &["x"], &["y"], border));
    assert!(padded.contains("it takes a table of 268435468 numbers"), "{padded}");

    // What is put on one end does not make up for what the other lacks.
    let cut = int_list("pads", &[0, 0, i64::MIN, 0, 0, 0, i64::MAX, 0]);
    let cut = refused(9, image, vec![], node("Pad", &["x"], &["y"], vec![cut]));
    assert!(cut.contains("9223372036854775808 elements cannot be cut off"), "{cut}");

    let volume: &[(&str, &[i64])] = &[("x", &[1, 1, 8, 8, 64])];
    let taps = vec![floats("w", &[1, 1, 2, 2, 1], &[0.5; 4])];
    let apart =
        vec![int_list("dilations", &[1, far, 1]), int_list("pads", &[0, far / 2, 0, 0, far / 2 + 1, 0])];
    let conv = refused(17, volume, taps, node("Conv", &["x", "w"], &["y"], apart));
    assert!(conv.contains("bytes of activations"), "{conv}");

    let long: &[(&str, &[i64])] = &[("x", &[1, 1, 1 << 30, 1, 1])];
    let kernel = int_list("kernel_shape", &[1 << 30, 1, 1]);
    let around = int_list("pads", &[0, 1 << 15, 1 << 15, 0, 1 << 15, 1 << 15]);
    let pool = refused(17, long, vec![], node("MaxPool", &["x"], &["y"], vec![kernel, around]));
    assert!(pool.contains("bytes of activations"), "{pool}");

    let matrix: &[i64] = &[1 << 18, 1 << 18];
    let inputs = ["a", "b", "c", "d"].map(|name| (name, matrix));
    let einsum = node("Einsum", &["a", "b", "c", "d"], &["y"], vec![string("equation", "ij,kl,ik,jl->")]);
    let einsum = refused(17, &inputs, vec![], einsum);
    assert!(einsum.contains("bytes of activations"), "{einsum}");
}

#[test]
fn odd_indices_in_literals_are_taken_as_they_are() {
    // What they mean for shapes is decided when shapes are known.
    let indices = vec![ints("i", &[i64::MIN, i64::MAX])];
    let graph = one_node(
        &[("x", &[0, 4])],
        indices,
        node("Gather", &["x", "i"], &["y"], vec![int("axis", i64::MAX)]),
    );
    assert!(import_bytes(model(17, graph).encode_to_vec(), None).is_ok());
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(load(folder.path()).unwrap_err().to_string().contains("not a regular file"));
    assert!(load(&folder.path().join("none.onnx")).is_err());
}
