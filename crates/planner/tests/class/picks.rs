//! Rows that are picked by item, and normalisations that an exporter merged: graphs that are brought into another form before their class is known.

use super::{TARGET, changed};
use crate::common::{self, fixture, floats, info, int, ints, node as operator, typed_info, untyped};
use tessera_core::DType;
use tessera_planner::class::{Model, load};
use tessera_planner::infer::{DimValue, infer};
use tessera_planner::inspect::compare;
use tessera_planner::onnx::proto::{GraphProto, TensorProto};
use tessera_planner::op::Op;

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
