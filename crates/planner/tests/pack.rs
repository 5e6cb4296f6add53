//! What is packed means what the model means: fixtures, folded, packed, unpacked and run, answer as PyTorch does.

#![allow(clippy::unwrap_used)] // the lint spares tests, but not the functions that they share

mod support;

use std::collections::{HashMap, HashSet};
use support::meaning;
use tessera_core::{DType, Precision};
use tessera_planner::fold::{Folded, Role, fold};
use tessera_planner::graph::{Graph, ParamId, WeightSource};
use tessera_planner::pack::Matrices;
use tessera_planner::pack::{Layout, PackError, pack};
use tessera_planner::{PackTarget, SlotLayout, Tensor, import, npz};

const TARGET: PackTarget =
    PackTarget { device: "cpu", precision: Precision::Fp32, matrices: Matrices::Panels(16) };

fn fixture(name: &str) -> (Graph, Folded) {
    let path = format!("{}/../../fixtures/{name}.onnx", env!("CARGO_MANIFEST_DIR"));
    let graph = import(path.as_ref()).unwrap();
    let folded = fold(&graph).unwrap();
    (graph, folded)
}

fn answers_as_pytorch_does(name: &str) {
    let (graph, folded) = fixture(name);
    let path = format!("{}/../../fixtures/{name}.npz", env!("CARGO_MANIFEST_DIR"));
    let arrays = npz::read(path.as_ref()).unwrap();
    for prefix in ["", "alt."] {
        let input = |name: &str| arrays.get(&format!("{prefix}in.{name}")).cloned();
        let inputs: Option<HashMap<_, _>> =
            graph.inputs.iter().map(|port| Some((port.value, input(&port.name)?))).collect();
        let Some(inputs) = inputs else {
            assert_eq!(prefix, "alt.", "{name} has its first inputs");
            continue;
        };
        for (output, got) in graph.outputs.iter().zip(meaning::of_folded(&graph, &folded, &inputs)) {
            let error = meaning::relative_error(&got, &arrays[&format!("{prefix}out.{}", output.name)]);
            assert!(error < 1e-5, "{prefix}{} of {name} differs by {error:e}", output.name);
        }
    }
}

#[test]
fn small_networks_answer_as_pytorch_does() {
    for name in
        ["mlp-0", "mlp-3", "lstm-0", "lstm-2", "block_fresh", "block_tuned", "bert_tiny-0", "bert_tiny-1"]
    {
        answers_as_pytorch_does(name);
    }
}

#[test]
fn image_networks_answer_as_pytorch_does() {
    for name in ["resnet26_narrow-0", "mobilenet_v2_035-1", "timm_test_resnet", "timm_test_vit"] {
        answers_as_pytorch_does(name);
    }
}

#[test]
fn two_tenants_of_an_architecture_have_one_layout() {
    for (one, other) in
        [("resnet26_narrow-0", "resnet26_narrow-1"), ("lstm-0", "lstm-1"), ("bert_tiny-0", "bert_tiny-1")]
    {
        let layout = |name: &str| SlotLayout::of(&fixture(name).1, TARGET).unwrap();
        let (one, other) = (layout(one), layout(other));
        assert_eq!(one.bytes, other.bytes);
        let places = |layout: &SlotLayout| {
            layout.tensors.iter().map(|tensor| (tensor.layout.clone(), tensor.offset)).collect::<Vec<_>>()
        };
        assert_eq!(places(&one), places(&other));
    }
}

#[test]
fn a_slot_is_hardly_larger_than_its_weights() {
    // With panels as wide as these, only layers with few outputs (1000 classes are 63 panels) pad at all.
    for name in ["resnet26_narrow-0", "timm_test_vit", "bert_tiny-0", "mobilenet_v2_035-0"] {
        let (graph, folded) = fixture(name);
        let layout = SlotLayout::of(&folded, TARGET).unwrap();
        let weights: usize = graph
            .params
            .iter()
            .filter(|param| param.dtype == DType::F32)
            .map(|param| 4 * param.dims.iter().product::<usize>())
            .sum();
        let ratio = layout.bytes.0 as f64 / weights as f64;
        assert!((0.9..1.05).contains(&ratio), "{name}: {ratio:.3}");
    }
}

#[test]
fn every_weight_is_asked_for_once() {
    for name in ["resnet26_narrow-0", "lstm-0", "timm_test_vit"] {
        let (graph, folded) = fixture(name);
        let layout = SlotLayout::of(&folded, TARGET).unwrap();
        let mut read = HashSet::new();
        let mut once = |id: ParamId| {
            assert!(read.insert(id), "{name}: parameter {} is asked for again", id.0);
            Ok(WeightSource::Inline(zeros(&graph, id)))
        };
        let packed = pack(&graph, &folded, &layout, &mut once).unwrap();
        assert_eq!(packed.bytes().len() as u64, layout.bytes.0);
        assert!(!read.is_empty());
    }
}

fn zeros(graph: &Graph, id: ParamId) -> Tensor {
    let dims = &graph.params[id.0 as usize].dims;
    Tensor::from_elements(dims, &vec![0f32; dims.iter().product()])
}

#[test]
fn weights_of_another_shape_are_refused_by_name() {
    let (graph, folded) = fixture("mlp-0");
    let layout = SlotLayout::of(&folded, TARGET).unwrap();
    let error =
        pack(&graph, &folded, &layout, &mut |_| Ok(WeightSource::Inline(Tensor::scalar(1f32)))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "weight `f.0.weight` is f32[], but the model's class asks for f32[256, 64]"
    );
    let integers = pack(&graph, &folded, &layout, &mut |id| {
        let dims = &graph.params[id.0 as usize].dims;
        Ok(WeightSource::Inline(Tensor::from_elements(dims, &vec![0i32; dims.iter().product()])))
    });
    assert!(matches!(integers, Err(PackError::Mismatch { .. })));
}

#[test]
fn a_tenant_may_bring_its_weights_in_half_precision() {
    let (graph, folded) = fixture("mlp-0");
    let layout = SlotLayout::of(&folded, TARGET).unwrap();
    let constant = |id: ParamId, half: bool| {
        let dims = &graph.params[id.0 as usize].dims;
        let count = dims.iter().product();
        Ok(WeightSource::Inline(match half {
            true => Tensor::from_elements(dims, &vec![half::f16::from_f32(0.5); count]),
            false => Tensor::from_elements(dims, &vec![0.5f32; count]),
        }))
    };
    let halves = pack(&graph, &folded, &layout, &mut |id| constant(id, true)).unwrap();
    let singles = pack(&graph, &folded, &layout, &mut |id| constant(id, false)).unwrap();
    assert_eq!(halves.bytes(), singles.bytes());
}

#[test]
fn the_layouts_of_a_convolution_are_what_kernels_walk() {
    let (_, folded) = fixture("mobilenet_v2_035-0");
    let layout = SlotLayout::of(&folded, TARGET).unwrap();
    let layouts: Vec<&Layout> = layout.tensors.iter().map(|tensor| &tensor.layout).take(5).collect();
    assert_eq!(
        layouts,
        [
            &Layout::Panels { groups: 1, k: 27, n: 16, width: 16 },
            &Layout::Plain { dims: vec![16] },
            &Layout::Plain { dims: vec![9, 16] },
            &Layout::Plain { dims: vec![16] },
            &Layout::Panels { groups: 1, k: 16, n: 8, width: 16 },
        ]
    );
}

#[test]
fn reduced_precisions_halve_matrices_and_leave_vectors_alone() {
    let (_, folded) = fixture("mlp-0");
    let target = PackTarget { device: "test", precision: Precision::Bf16, matrices: Matrices::Blocks };
    let layout = SlotLayout::of(&folded, target).unwrap();
    for (weight, tensor) in folded.weights.iter().zip(&layout.tensors) {
        let vector = weight.role == Role::Plain && weight.dims.len() < 2;
        assert_eq!(tensor.dtype, if vector { DType::F32 } else { DType::BF16 }, "{}", tensor.name);
        assert_eq!(matches!(tensor.layout, Layout::Blocks { depth: 64, .. }), weight.role == Role::Matrix);
    }
}
