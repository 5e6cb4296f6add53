//! all-MiniLM-L6-v2 with its real weights: sentences that mean the same are near, at every length.

use crate::fixture;
use crate::served::{Served, place_blocker};
use crate::tensors::{Tensors, assert_right, bits, item};
use serde_json::Value;
use std::fs;
use std::path::Path;
use tessera_planner::graph::{Graph, ParamData, ParamId};
use tessera_planner::{Tensor, import, npz, reference, source};

/// Serves MiniLM as caches lay models out: files that are links. `None` says, and is told, that its weights are not here.
fn served(repository: &Path) -> Option<Served> {
    let from = fixture::path("minilm_l6_v2").canonicalize().unwrap();
    if !from.join("model.safetensors").exists() {
        eprintln!(
            "skipped: fixtures/minilm_l6_v2/model.safetensors is absent; scripts/fetch-minilm brings it"
        );
        return None;
    }
    let to = repository.join("minilm");
    fs::create_dir(&to).unwrap();
    for file in ["model.onnx", "model.safetensors"] {
        #[cfg(unix)]
        std::os::unix::fs::symlink(from.join(file), to.join(file)).unwrap();
        #[cfg(not(unix))]
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    place_blocker(repository);
    Some(Served::start(repository))
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn sentences_that_mean_the_same_are_near_and_others_are_not() {
    let repository = tempfile::tempdir().unwrap();
    let Some(served) = served(repository.path()) else { return };
    let arrays = npz::read(&fixture::path("minilm_l6_v2/reference.npz")).unwrap();
    let of = |prefix: &str| -> Tensors {
        let named = arrays.iter().filter_map(|(name, array)| Some((name.strip_prefix(prefix)?, array)));
        named.map(|(name, array)| (name.to_owned(), array.clone())).collect()
    };
    let answer = served.answer("minilm", &of("in."));
    assert_right("the three sentences", &answer, &of("out."));
    let known = fs::read_to_string(fixture::path("minilm_l6_v2/reference.json")).unwrap();
    let known = &serde_json::from_str::<Value>(&known).unwrap()["cosine"];
    let values = answer[0].1.elements::<f32>().unwrap();
    let sentences: Vec<&[f32]> = values.chunks(values.len() / answer[0].1.dims()[0]).collect();
    assert_eq!(sentences.len(), 3);
    for (i, a) in sentences.iter().enumerate() {
        for (j, b) in sentences.iter().enumerate() {
            let (got, want) = (cosine(a, b), known[i][j].as_f64().unwrap());
            // The embeddings stand within 1e-5, and so do their cosines.
            assert!((got - want).abs() < 1e-5, "sentences {i} and {j}: {got} instead of {want}");
        }
    }
}

/// Two sentences of so many tokens, the second one with its last quarter masked.
fn sentences(length: usize) -> Tensors {
    let ids: Vec<i64> = (0..2 * length).map(|at| (at as i64 * 7919 + 1012) % 30_000).collect();
    let mask: Vec<i64> = (0..2 * length).map(|at| i64::from(at < length + length * 3 / 4)).collect();
    [("input_ids", ids), ("attention_mask", mask)]
        .map(|(name, elements)| (name.to_owned(), Tensor::from_elements(&[2, length], &elements)))
        .into()
}

/// What plain loops over the graph answer.
fn by_the_reference(graph: &Graph, inputs: &Tensors) -> Tensors {
    let given = graph.inputs.iter().map(|input| {
        let found = inputs.iter().find(|(name, _)| *name == input.name);
        found.unwrap_or_else(|| panic!("the model takes `{}`", input.name)).1.clone()
    });
    let weight = |id: ParamId| {
        let param = &graph.params[id.0 as usize];
        let ParamData::Weight(from) = &param.data else { unreachable!("only weights are asked for") };
        Ok(source::read_weight(from, param.dtype, &param.dims)?)
    };
    let answers = reference::run(graph, &weight, &given.collect::<Vec<_>>()).unwrap();
    graph.outputs.iter().map(|output| output.name.clone()).zip(answers).collect()
}

#[test]
fn every_length_is_answered_as_the_reference_does() {
    let repository = tempfile::tempdir().unwrap();
    let Some(served) = served(repository.path()) else { return };
    let graph = import(&fixture::path("minilm_l6_v2/model.onnx")).unwrap();
    for length in [8, 32, 128] {
        let asked = sentences(length);
        let answer = served.answer("minilm", &asked);
        assert_right(&format!("length {length}"), &answer, &by_the_reference(&graph, &asked));
        for number in 0..2 {
            let alone = served.answer("minilm", &item(&asked, number));
            assert_eq!(bits(&alone), bits(&item(&answer, number)), "length {length}, sentence {number}");
        }
    }
}
