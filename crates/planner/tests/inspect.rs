//! Plans as `tessera inspect` shows them.

#![allow(clippy::unwrap_used)] // the lint spares tests, but not the functions that they share

mod common;

use common::{int, model, node, one_node};
use prost::Message;
use tessera_core::Precision;
use tessera_planner::PackTarget;
use tessera_planner::class::{Model, load_bytes};
use tessera_planner::inspect::{NotPlanned, Planned, planned};
use tessera_planner::pack::Matrices;

const TARGET: PackTarget =
    PackTarget { device: "cpu", precision: Precision::Fp32, matrices: Matrices::Panels(16) };

/// A softmax over `axis` of `[d0, d1]` (0 is free).
fn softmax(dims: &[i64], axis: i64) -> Model {
    let node = node("Softmax", &["x"], &["y"], vec![int("axis", axis)]);
    load_bytes(model(17, one_node(&[("x", dims)], Vec::new(), node)).encode_to_vec(), None).unwrap()
}

fn at(model: &Model, dims: &[(&str, u64)]) -> Result<Planned, NotPlanned> {
    let dims: Vec<_> = dims.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    planned(model, TARGET, &dims)
}

#[test]
fn independent_items_stay_open_and_one_plan_serves_any_number() {
    let shown = at(&softmax(&[0, 4], 1), &[]).unwrap();
    assert!(shown.plan.batched && shown.dims.is_empty());
    assert_eq!(shown.items.as_deref(), Some("d0"));
    assert!(shown.to_string().contains("items       independent, counted by d0\n"), "{shown}");
}

#[test]
fn a_batch_whose_items_mix_is_a_dimension_of_the_plan_and_one_unless_given() {
    let mixing = softmax(&[0, 4], 0);
    for (given, batch) in [(vec![], 1), (vec![("d0", 8)], 8)] {
        let shown = at(&mixing, &given).unwrap();
        assert!(!shown.plan.batched && shown.items.is_none());
        assert_eq!(shown.dims, [("d0".to_owned(), batch)]);
        assert_eq!(shown.plan.inputs[0].dims, [batch as usize, 4]);
        let text = shown.to_string();
        assert!(
            text.contains("items       one request is one item: ") && text.contains("mixes items"),
            "{text}"
        );
        assert_eq!(shown.to_json()["dims"]["d0"], batch);
    }
}

#[test]
fn a_model_of_fixed_shapes_has_its_one_plan() {
    let shown = at(&softmax(&[2, 4], 1), &[]).unwrap();
    assert!(!shown.plan.batched && shown.dims.is_empty() && shown.mixes.is_none());
    let error = at(&softmax(&[2, 4], 1), &[("d0", 3)]).unwrap_err().to_string();
    assert_eq!(error, "the model has no free dimension `d0`; all of its dimensions are fixed");
}

#[test]
fn what_is_missing_is_listed_by_name() {
    let error = at(&softmax(&[2, 0, 0], 1), &[]).unwrap_err().to_string();
    assert_eq!(error, "the plan depends on `d1` and `d2`; choose --dim d1=N --dim d2=N to see it");
    let error = at(&softmax(&[2, 0, 0], 1), &[("d1", 3)]).unwrap_err().to_string();
    assert_eq!(error, "the plan depends on `d2`; choose --dim d2=N to see it");
}
