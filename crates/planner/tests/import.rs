//! Fixtures, as the real exporters write them, become graphs.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod common;

use common::{fixture, floats, model, node, one_node};
use prost::Message;
use tessera_core::DType;
use tessera_planner::class::load_bytes;
use tessera_planner::describe::describe;
use tessera_planner::graph::{Dim, Graph, Param, ParamData, WeightSource};
use tessera_planner::onnx::import::import_file;
use tessera_planner::onnx::import_bytes;
use tessera_planner::onnx::proto::attribute_proto::AttributeType;
use tessera_planner::onnx::proto::{AttributeProto, NodeProto, TensorProto};
use tessera_planner::source::read_weight;
use tessera_planner::{Op, import};

const CASES: [&str; 18] = [
    "mlp-0",
    "mlp-1",
    "mlp-2",
    "mlp-3",
    "lstm-0",
    "lstm-1",
    "lstm-2",
    "lstm-3",
    "block_fresh",
    "block_tuned",
    "mobilenet_v2_035-0",
    "mobilenet_v2_035-1",
    "resnet26_narrow-0",
    "timm_test_resnet",
    "torch_export/iris",
    "timm_test_vit",
    "bert_tiny-0",
    "bert_tiny-1",
];

fn graph(name: &str) -> Graph {
    import(&fixture(&format!("{name}.onnx"))).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_fixture_is_a_graph_whose_nodes_read_only_what_is_made_before() {
    for name in CASES {
        let graph = graph(name);
        let mut made = vec![false; graph.values.len()];
        let given =
            graph.inputs.iter().map(|input| input.value).chain(graph.params.iter().map(|param| param.value));
        given.for_each(|value| made[value.0 as usize] = true);
        for node in &graph.nodes {
            let read = node.inputs.iter().flatten();
            assert!(read.clone().all(|value| made[value.0 as usize]), "{name}: {}", node.name);
            node.outputs.iter().flatten().for_each(|value| made[value.0 as usize] = true);
        }
        assert!(graph.outputs.iter().all(|output| made[output.value.0 as usize]), "{name}");
    }
}

#[test]
fn an_mlp_has_its_layers_and_a_free_batch() {
    let graph = graph("mlp-0");
    assert_eq!(graph.free_dims, ["batch"]);
    assert_eq!((graph.inputs[0].name.as_str(), graph.inputs[0].dtype), ("x", DType::F32));
    assert_eq!(graph.inputs[0].dims, [Dim::Free(0), Dim::Fixed(64)]);
    let gemms = graph.nodes.iter().filter(|node| matches!(node.op, Op::Gemm { trans_b: true, .. }));
    assert_eq!((gemms.count(), graph.nodes.len(), graph.params.len()), (3, 5, 6));
    assert!(graph.params.iter().all(|param| matches!(param.data, ParamData::Weight(_))));
}

/// The graph of one node of `opset`, from `x`.
fn converted(opset: i64, shape: &[i64], initializers: Vec<TensorProto>, node: NodeProto) -> Graph {
    let graph = common::one_node(&[("x", shape)], initializers, node);
    import_bytes(common::model(opset, graph).encode_to_vec(), None).unwrap().graph
}

/// Operators by name, and the integers that literals hold.
fn told(graph: &Graph) -> (Vec<&'static str>, Vec<Vec<i64>>) {
    let literal = |param: &Param| match &param.data {
        ParamData::Literal(tensor) => tensor.elements::<i64>(),
        ParamData::Weight(_) => None,
    };
    let operators = graph.nodes.iter().map(|node| describe(&node.op).name).collect();
    (operators, graph.params.iter().filter_map(literal).collect())
}

#[test]
fn attributes_of_old_opsets_become_inputs() {
    use common::{int, int_list, node};
    let squeeze = node("Squeeze", &["x"], &["y"], vec![int_list("axes", &[1])]);
    assert_eq!(told(&converted(11, &[2, 1], vec![], squeeze)), (vec!["Squeeze"], vec![vec![1]]));
    let reduce = node("ReduceSum", &["x"], &["y"], vec![int_list("axes", &[-1]), int("keepdims", 0)]);
    assert_eq!(told(&converted(12, &[2, 3], vec![], reduce)), (vec!["ReduceSum"], vec![vec![-1]]));
    let attributes = vec![int_list("starts", &[1]), int_list("ends", &[i64::MAX]), int_list("axes", &[0])];
    let slice = node("Slice", &["x"], &["y"], attributes);
    assert_eq!(
        told(&converted(9, &[4], vec![], slice)),
        (vec!["Slice"], vec![vec![1], vec![i64::MAX], vec![0]])
    );
    let pad = node("Pad", &["x"], &["y"], vec![int_list("pads", &[1, 2])]);
    assert_eq!(told(&converted(10, &[4], vec![], pad)), (vec!["Pad"], vec![vec![1, 2]]));
    let split = node("Split", &["x"], &["y", "z"], vec![int_list("split", &[1, 3])]);
    assert_eq!(told(&converted(11, &[4], vec![], split)), (vec!["Split"], vec![vec![1, 3]]));
}

#[test]
fn old_and_new_spellings_are_one_class() {
    use common::{float, floats, ints, node};
    let id = |opset, initializers, node| {
        let graph = common::one_node(&[("x", &[0, 6])], initializers, node);
        load_bytes(common::model(opset, graph).encode_to_vec(), None).unwrap().class.id
    };
    let old = node("Clip", &["x"], &["y"], vec![float("min", 0.0), float("max", 6.0)]);
    let bounds = vec![floats("low", &[], &[0.0]), floats("high", &[], &[6.0])];
    let new = node("Clip", &["x", "low", "high"], &["y"], vec![]);
    assert_eq!(id(9, vec![], old), id(17, bounds, new));
    let old = node("Unsqueeze", &["x"], &["y"], vec![common::int_list("axes", &[0])]);
    let new = node("Unsqueeze", &["x", "axes"], &["y"], vec![]);
    assert_eq!(id(11, vec![], old), id(13, vec![ints("axes", &[0])], new));
    // With two dimensions the old softmax over axis 1 is the new one over the last.
    let softmax = |axis| node("Softmax", &["x"], &["y"], vec![common::int("axis", axis)]);
    assert_eq!(id(9, vec![], softmax(1)), id(13, vec![], softmax(-1)));
}

#[test]
fn an_old_softmax_over_several_axes_goes_through_a_matrix() {
    let softmax = common::node("Softmax", &["x"], &["y"], vec![]);
    let graph = converted(12, &[0, 3, 4], vec![], softmax);
    assert_eq!(told(&graph).0, ["Flatten", "Softmax", "Shape", "Reshape"]);
}

#[test]
fn pools_over_everything_reduce_the_spatial_axes() {
    let pool = || common::node("GlobalAveragePool", &["x"], &["y"], vec![]);
    assert_eq!(told(&converted(17, &[0, 3, 4, 5], vec![], pool())), (vec!["ReduceMean"], vec![vec![2, 3]]));
    assert_eq!(told(&converted(17, &[0, 3, 4], vec![], pool())), (vec!["ReduceMean"], vec![vec![2]]));
}

#[test]
fn norms_of_windows_and_rows_are_made_of_what_there_is() {
    use common::{int, int_list, node};
    let pool = |p| node("LpPool", &["x"], &["y"], vec![int_list("kernel_shape", &[2, 2]), int("p", p)]);
    let operators = |p| told(&converted(22, &[0, 3, 4, 5], vec![], pool(p))).0;
    assert_eq!(operators(1), ["Abs", "LpPool"]);
    assert_eq!(operators(2), ["Mul", "LpPool", "Sqrt"]);
    assert_eq!(operators(3), ["Abs", "Pow", "LpPool", "Pow"]);
    let rows = node("LpNormalization", &["x"], &["y"], vec![int("axis", 1)]);
    assert_eq!(told(&converted(9, &[0, 3], vec![], rows)).0, ["ReduceL2", "Div", "Cast", "Where"]);
}

#[test]
fn a_transposed_convolution_may_name_the_output_with_or_without_batch_and_channels() {
    use common::{floats, int_list, node};
    let conv = |shape: &[i64]| {
        let w = floats("w", &[3, 2, 3, 3], &[0.5; 54]);
        let attributes = vec![int_list("output_shape", shape), int_list("strides", &[2, 2])];
        let graph =
            converted(11, &[0, 3, 4, 5], vec![w], node("ConvTranspose", &["x", "w"], &["y"], attributes));
        graph.nodes[0].op.clone()
    };
    let Op::ConvTranspose(window, 1) = conv(&[9, 10]) else { panic!("a transposed convolution") };
    assert_eq!(window.fit(&[4, 5]).unwrap().output, [9, 10]);
    assert_eq!(conv(&[1, 2, 9, 10]), Op::ConvTranspose(window, 1));
}

#[test]
fn every_way_to_say_a_constant_is_read() {
    let attribute = |name: &str, kind: AttributeType| AttributeProto {
        name: Some(name.into()),
        r#type: Some(kind as i32),
        f: Some(1.5),
        i: Some(-3),
        floats: vec![1.5, 2.5],
        ints: vec![4, 5],
        t: Some(common::floats("t", &[], &[7.0])),
        ..AttributeProto::default()
    };
    let values = [
        (attribute("value", AttributeType::Tensor), vec![]),
        (attribute("value_float", AttributeType::Float), vec![]),
        (attribute("value_floats", AttributeType::Floats), vec![2]),
        (attribute("value_int", AttributeType::Int), vec![]),
        (attribute("value_ints", AttributeType::Ints), vec![2]),
    ];
    for (value, dims) in values {
        let name = value.name().to_owned();
        let graph = converted(13, &[1], vec![], common::node("Constant", &[], &["y"], vec![value]));
        assert_eq!((graph.params.len(), graph.nodes.len()), (1, 0), "{name}");
        assert_eq!(graph.params[0].dims, dims, "{name}");
    }
}

#[test]
fn typed_fields_hold_the_same_as_raw_data() {
    // (ONNX's number of the type, its size, the field filled with 1 and 2)
    let typed = |data_type| TensorProto {
        name: Some("w".into()),
        dims: vec![2],
        data_type: Some(data_type),
        ..TensorProto::default()
    };
    let raw =
        |data_type, bytes: &[u8]| TensorProto { raw_data: Some(bytes.to_vec().into()), ..typed(data_type) };
    let small =
        |data_type, one: i32, two: i32| TensorProto { int32_data: vec![one, two], ..typed(data_type) };
    let cases = [
        (TensorProto { float_data: vec![1.0, 2.0], ..typed(1) }, raw(1, &[0, 0, 128, 63, 0, 0, 0, 64])),
        (small(2, 1, 255), raw(2, &[1, 255])),
        (small(3, -1, 127), raw(3, &[255, 127])),
        (small(5, -1, 2), raw(5, &[255, 255, 2, 0])),
        (small(6, -1, 2), raw(6, &[255, 255, 255, 255, 2, 0, 0, 0])),
        (
            TensorProto { int64_data: vec![-1, 2], ..typed(7) },
            raw(7, &[[255; 8], 2i64.to_le_bytes()].concat()),
        ),
        (small(9, 1, 0), raw(9, &[1, 0])),
        (small(10, 0x3c00, 0x4000), raw(10, &[0, 0x3c, 0, 0x40])),
        (
            TensorProto { double_data: vec![1.0, 2.0], ..typed(11) },
            raw(11, &[1f64.to_le_bytes(), 2f64.to_le_bytes()].concat()),
        ),
        (TensorProto { uint64_data: vec![1, 2], ..typed(12) }, raw(12, &[1, 0, 0, 0, 2, 0, 0, 0])),
        (small(16, 0x3f80, 0x4000), raw(16, &[0x80, 0x3f, 0, 0x40])),
    ];
    for (typed, raw) in cases {
        let read = |tensor: TensorProto| {
            let graph = converted(17, &[2], vec![tensor], common::node("Add", &["x", "w"], &["y"], vec![]));
            match &graph.params[0].data {
                ParamData::Literal(tensor) => tensor.clone(),
                ParamData::Weight(source) => read_weight(source, graph.params[0].dtype, &[2]).unwrap(),
            }
        };
        assert_eq!(read(typed), read(raw));
    }
}

#[test]
fn a_file_and_its_bytes_are_one_model() {
    let mut looked_for = 0;
    for name in
        ["resnet26_narrow-0", "bert_tiny-0", "lstm-0", "timm_test_vit", "block_fresh", "mobilenet_v2_035-0"]
    {
        let path = fixture(&format!("{name}.onnx"));
        let (by_path, by_bytes) =
            (import_file(&path).unwrap(), import_bytes(std::fs::read(&path).unwrap(), None).unwrap());
        assert_eq!(by_path.origins, by_bytes.origins);
        assert_eq!(by_path.graph.params.len(), by_bytes.graph.params.len());
        for (one, other) in by_path.graph.params.iter().zip(&by_bytes.graph.params) {
            assert_eq!((&one.name, one.dtype, &one.dims), (&other.name, other.dtype, &other.dims));
            let (ParamData::Weight(one_source), ParamData::Weight(other_source)) = (&one.data, &other.data)
            else {
                continue;
            };
            looked_for += usize::from(matches!(one_source, WeightSource::File { .. }));
            let read = |source| read_weight(source, one.dtype, &one.dims).unwrap();
            assert!(read(one_source) == read(other_source), "{} of {name}", one.name);
        }
    }
    assert!(looked_for > 20, "large weights stay in their files");
}

#[test]
fn raw_data_of_another_length_than_the_shape_is_refused_without_being_read() {
    let mut tensor = floats("w", &[5000], &[]);
    tensor.float_data.clear();
    tensor.raw_data = Some(vec![0; 4 * 4999].into());
    let graph = one_node(&[("x", &[0, 5000])], vec![tensor], node("Add", &["x", "w"], &["y"], vec![]));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, model(17, graph).encode_to_vec()).unwrap();
    let error = import_file(&path).unwrap_err().to_string();
    assert!(error.contains("holds 20000 bytes, but 19996 were given"), "{error}");
}

#[test]
fn weights_of_a_file_that_changed_since_it_was_imported_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::copy(fixture("resnet26_narrow-0.onnx"), &path).unwrap();
    let imported = import_file(&path).unwrap();
    std::fs::copy(fixture("resnet26_narrow-1.onnx"), &path).unwrap();
    let mut params = imported.graph.params.iter();
    let (param, source) = params
        .find_map(|param| match &param.data {
            ParamData::Weight(source @ WeightSource::File { .. }) => Some((param, source)),
            _ => None,
        })
        .unwrap();
    let error = read_weight(source, param.dtype, &param.dims).unwrap_err().to_string();
    assert!(error.contains("changed while it was read"), "{error}");
}
