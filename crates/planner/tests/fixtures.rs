//! Every fixture: what the reference computes is what PyTorch computed, and items are proven independent.

#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use common::fixture;
use std::collections::BTreeMap;
use std::path::Path;
use tessera_planner::graph::{Dim, Graph, ParamData, ParamId, ValueId};
use tessera_planner::infer::{DimValue, infer};
use tessera_planner::{Tensor, import, npz, reference, source};

/// Models with answers. `minilm_l6_v2` has no weights in the repository and a test of its own.
const CASES: [&str; 25] = [
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
    "resnet26_narrow-0",
    "resnet26_narrow-2",
    "timm_test_resnet",
    "timm_test_vit",
    "bert_tiny-0",
    "bert_tiny-1",
    "recurrent-lstm-clip",
    "recurrent-lstm-coupled",
    "recurrent-lstm-peephole",
    "recurrent-lstm-functions",
    "recurrent-gru-reset-first",
    "recurrent-gru-reset-after",
    "recurrent-gru-functions",
    "recurrent-rnn-functions",
];

/// The answers of the reference to the requests `{set}in.*` of an archive.
fn answers(graph: &Graph, arrays: &BTreeMap<String, Tensor>, set: &str) -> Vec<Tensor> {
    let inputs: Vec<Tensor> =
        graph.inputs.iter().map(|input| arrays[&format!("{set}in.{}", input.name)].clone()).collect();
    let weight = |id: ParamId| {
        let param = &graph.params[id.0 as usize];
        let ParamData::Weight(from) = &param.data else { unreachable!("only weights are asked for") };
        Ok(source::read_weight(from, param.dtype, &param.dims)?)
    };
    reference::run(graph, &weight, &inputs).unwrap()
}

/// ‖got − want‖ / ‖want‖.
fn relative_error(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!((got.dtype(), got.dims()), (want.dtype(), want.dims()));
    let (got, want) = (got.elements::<f32>().unwrap(), want.elements::<f32>().unwrap());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let apart: f64 = got.iter().zip(&want).map(|(got, want)| square(got - want)).sum();
    (apart / want.iter().map(|&x| square(x)).sum::<f64>()).sqrt()
}

/// Answers are float32 sums in another order; 1e-5 is what the project asks of every device.
fn agrees(case: &str, model: &Path, arrays: &BTreeMap<String, Tensor>) {
    let graph = import(model).unwrap();
    for set in ["", "alt."] {
        if !arrays.keys().any(|name| name.starts_with(&format!("{set}in."))) {
            continue;
        }
        for (output, answer) in graph.outputs.iter().zip(answers(&graph, arrays, set)) {
            let error = relative_error(&answer, &arrays[&format!("{set}out.{}", output.name)]);
            assert!(error < 1e-5, "{case}, {set}{}: relative error {error:e}", output.name);
        }
    }
}

#[test]
fn the_reference_answers_every_fixture_as_pytorch_does() {
    for case in CASES {
        let arrays = npz::read(&fixture(&format!("{case}.npz"))).unwrap();
        agrees(case, &fixture(&format!("{case}.onnx")), &arrays);
    }
}

#[test]
fn the_reference_answers_exports_of_both_exporters_as_pytorch_does() {
    let files = std::fs::read_dir(fixture("exports")).unwrap().map(|entry| entry.unwrap().path());
    for answers in files.filter(|path| path.extension().is_some_and(|extension| extension == "npz")) {
        let model = answers.with_extension("onnx");
        agrees(&model.display().to_string(), &model, &npz::read(&answers).unwrap());
    }
}

/// Whether MiniLM's weights were fetched; its model file cannot be imported without them.
fn minilm_is_here() -> bool {
    let here = fixture("minilm_l6_v2/model.safetensors").exists();
    if !here {
        eprintln!(
            "skipped: fixtures/minilm_l6_v2/model.safetensors is absent; scripts/fetch-minilm brings it"
        );
    }
    here
}

#[test]
fn the_reference_answers_minilm_with_its_real_weights() {
    if !minilm_is_here() {
        return;
    }
    let arrays = npz::read(&fixture("minilm_l6_v2/reference.npz")).unwrap();
    agrees("minilm_l6_v2", &fixture("minilm_l6_v2/model.onnx"), &arrays);
}

/// The free dimension that every input has first.
fn batch_dim(graph: &Graph) -> usize {
    let Some(Dim::Free(free)) = graph.inputs[0].dims.first() else { panic!("the batch is free") };
    *free
}

/// Dimensions for a plan: items for the batch, and `other` for what else is free.
fn dims(graph: &Graph, batch: DimValue, other: u64) -> Vec<DimValue> {
    let mut dims = vec![DimValue::Fixed(other); graph.free_dims.len()];
    dims[batch_dim(graph)] = batch;
    dims
}

fn items_are_proven(case: &str) {
    let graph = import(&fixture(&format!("{case}.onnx"))).unwrap();
    let per_item = infer(&graph, &[], &dims(&graph, DimValue::Items, 16))
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    // The proof says of one item and of three what plain inference says.
    for n in [1, 3] {
        let whole = infer(&graph, &[], &dims(&graph, DimValue::Fixed(n), 16)).unwrap();
        for value in (0..graph.values.len()).map(|id| ValueId(id as u32)) {
            let (Some(per_item), Some(whole)) = (per_item.get(value), whole.get(value)) else {
                assert_eq!(per_item.get(value), whole.get(value));
                continue;
            };
            let of_n = (per_item.dtype, per_item.dims_of(n as usize));
            assert_eq!(
                of_n,
                (whole.dtype, whole.dims.clone()),
                "{case}: `{}` of {n} items",
                graph.name(value)
            );
        }
    }
}

#[test]
fn items_are_proven_independent_in_every_fixture() {
    CASES.into_iter().for_each(items_are_proven);
}

#[test]
fn items_are_proven_independent_in_minilm() {
    if minilm_is_here() {
        items_are_proven("minilm_l6_v2/model");
    }
}
