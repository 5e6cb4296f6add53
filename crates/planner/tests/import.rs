//! Fixtures, as the real exporters write them, become graphs.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

use std::path::PathBuf;
use tessera_core::DType;
use tessera_planner::graph::{Dim, Graph, ParamData};
use tessera_planner::{Op, import};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(name)
}

const CASES: [&str; 17] = [
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
