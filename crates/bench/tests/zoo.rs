//! The zoo's models are the published ones, can be served, and stay in range.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod common;

use common::{Cpu, Tenant};
use std::collections::BTreeMap;
use tessera_bench::zoo::{self, ARCHITECTURES, Sizes, Takes, ZooError};
use tessera_device::conformance::relative_l2;
use tessera_planner::Plan;
use tessera_planner::class;

/// Small enough for plain loops, with every layer there.
fn narrow(takes: Takes) -> Sizes {
    let usual = Sizes { width: 0.125, ..Sizes::default() };
    match takes {
        Takes::Image { least, .. } => Sizes { image_size: Some(least.max(32)), ..usual },
        Takes::Sequence { .. } => Sizes { tokens: Some(12), ..usual },
        Takes::Fixed => usual,
    }
}

#[test]
fn parameters_are_as_many_as_published() {
    for architecture in ARCHITECTURES {
        let model = architecture.model(&Sizes::default()).unwrap();
        assert_eq!(model.parameters(), architecture.parameters, "{}", architecture.name);
    }
}

#[test]
fn the_cpu_device_answers_as_the_operators_are_defined() {
    let cpu = Cpu::open();
    for architecture in ARCHITECTURES {
        let tenant = Tenant::new(architecture.name, &narrow(architecture.takes), 1, cpu.target());
        let inputs = tenant.inputs(1);
        let (want, got) = (tenant.by_definition(&inputs), cpu.answer(&tenant, &inputs));
        assert_eq!(want.len(), got.len());
        for (want, got) in want.iter().zip(&got) {
            let distance = relative_l2(want, got);
            // Sums of some thousand floats in another order, through up to 154 layers.
            assert!(distance <= 1e-5, "{}: {distance:e}", architecture.name);
        }
    }
}

#[test]
fn answers_stay_in_range_and_depend_on_weights_and_inputs() {
    let cpu = Cpu::open();
    for architecture in ARCHITECTURES {
        let name = architecture.name;
        let sizes = narrow(architecture.takes);
        let [one, other] = [1, 2].map(|seed| Tenant::new(name, &sizes, seed, cpu.target()));
        assert_eq!(one.model.class.id, other.model.class.id, "{name}: tenants are of one class");
        // To three inputs, for the model that answers with a single number.
        let answers = |tenant: &Tenant, seeds: [u64; 3]| {
            seeds.map(|seed| cpu.answer(tenant, &tenant.inputs(seed)).concat()).concat()
        };
        let [first, second, others] =
            [answers(&one, [1, 2, 3]), answers(&one, [4, 5, 6]), answers(&other, [1, 2, 3])];
        let size = (first.iter().map(|x| x * x).sum::<f32>() / first.len() as f32).sqrt();
        assert!((0.03..30.0).contains(&size), "{name}: answers are of size {size}");
        let [by_input, by_weights] = [&second, &others].map(|answer| relative_l2(&first, answer));
        assert!(by_input > 0.05, "{name}: another input moves the answer by {by_input} only");
        assert!(by_weights > 0.1, "{name}: other weights move the answer by {by_weights} only");
    }
}

#[test]
fn a_repository_of_tenants_is_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let architecture = zoo::find("lstm").unwrap();
    let model = architecture.model(&narrow(architecture.takes)).unwrap();
    let paths = zoo::write_tenants(&model, 11, 5, folder.path(), &mut |_| {}).unwrap();
    let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!((names[0], names[10]), ("lstm-00.onnx", "lstm-10.onnx"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 11);
    let models: Vec<_> = paths.iter().map(|path| class::load(path).unwrap()).collect();
    assert!(models.iter().all(|model| model.class.id == models[0].class.id));
    assert_ne!(std::fs::read(&paths[0]).unwrap(), std::fs::read(&paths[1]).unwrap());
    assert_eq!(std::fs::read(&paths[3]).unwrap(), model.bytes(zoo::tenant_seed(5, 3)));
}

#[test]
fn names_are_forgiving_and_refusals_say_what_there_is() {
    assert_eq!(zoo::find("ResNet50").unwrap().name, "resnet-50");
    let error = zoo::find("resnet-51").unwrap_err();
    assert!(error.to_string().contains("resnet-50"), "{error}");
    let resnet = zoo::find("resnet-18").unwrap();
    let error = resnet.model(&Sizes { tokens: Some(3), ..Sizes::default() }).unwrap_err();
    assert_eq!(error.to_string(), "resnet-18 takes no tokens; it takes an image size");
    let error = resnet.model(&Sizes { image_size: Some(100), ..Sizes::default() }).unwrap_err();
    assert_eq!(error.to_string(), "image size 100 does not fit resnet-18: a multiple of 32 from 32 to 4096");
    let error = resnet.model(&Sizes { width: 16.0, ..Sizes::default() }).unwrap_err();
    assert!(matches!(error, ZooError::TooLarge { .. }), "{error}");
}

/// How many steps of each kind a plan has.
fn kinds(plan: &Plan) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for step in &plan.steps {
        *counts.entry(step.kind.name()).or_default() += 1;
    }
    counts
}

#[test]
fn layers_are_fused_into_as_few_steps_as_there_are_products() {
    let target = Cpu::open().target();
    for (name, expected) in FUSED {
        let architecture = zoo::find(name).unwrap();
        let tenant = Tenant::new(name, &narrow(architecture.takes), 1, target);
        let found: Vec<(&str, usize)> = kinds(&tenant.plan).into_iter().collect();
        assert_eq!(found, *expected, "{name}\n{}", tenant.plan);
    }
    assert_eq!(FUSED.len(), ARCHITECTURES.len(), "a new architecture needs a row");
}

/// Steps by kind, and why those that are no product are there.
#[rustfmt::skip] // one architecture a line
const FUSED: &[(&str, &[(&str, usize)])] = &[
    // The copy brings the image's channels last. (Before the classifier another brings them first again, unless one pixel is left as here.)
    ("alexnet", &[("conv", 5), ("copy", 1), ("gemm", 3), ("pool", 3)]),
    ("vgg-16", &[("conv", 13), ("copy", 1), ("gemm", 3), ("pool", 5)]),
    // The pool is the stem's, the reduction the mean before the classifier. Normalisations, activations and residuals are no steps.
    ("resnet-18", &[("conv", 20), ("copy", 1), ("gemm", 1), ("pool", 1), ("reduce", 1)]),
    ("resnet-34", &[("conv", 36), ("copy", 1), ("gemm", 1), ("pool", 1), ("reduce", 1)]),
    ("resnet-50", &[("conv", 20), ("copy", 1), ("gemm", 34), ("pool", 1), ("reduce", 1)]),
    ("resnet-101", &[("conv", 37), ("copy", 1), ("gemm", 68), ("pool", 1), ("reduce", 1)]),
    ("resnet-152", &[("conv", 54), ("copy", 1), ("gemm", 102), ("pool", 1), ("reduce", 1)]),
    // A normalisation that reads many layers' features is a step with its activation, and so is each layer's part of each concatenation.
    ("densenet-121", &[("conv", 59), ("copy", 594), ("elementwise", 62), ("gemm", 62), ("pool", 4), ("reduce", 1)]),
    ("densenet-161", &[("conv", 79), ("copy", 1144), ("elementwise", 82), ("gemm", 82), ("pool", 4), ("reduce", 1)]),
    // Each block's mean is a step, and so are its gate, residual and activation together.
    ("senet-154", &[("conv", 56), ("copy", 1), ("elementwise", 50), ("gemm", 202), ("pool", 1), ("reduce", 51)]),
    ("mobilenet-v2", &[("conv", 1), ("copy", 1), ("depthwise", 17), ("gemm", 35), ("reduce", 1)]),
    // The gate is a step; it cannot join the depthwise convolution, whose mean it needs.
    ("efficientnet-b0", &[("conv", 1), ("copy", 1), ("depthwise", 16), ("elementwise", 16), ("gemm", 65), ("reduce", 17)]),
    // Two copies put the class token before the patches, the element-wise step adds their places.
    ("vit-b16", &[("attention", 12), ("conv", 1), ("copy", 3), ("elementwise", 1), ("gemm", 49), ("layer_norm", 25)]),
    ("vit-ti", &[("attention", 12), ("conv", 1), ("copy", 3), ("elementwise", 1), ("gemm", 49), ("layer_norm", 25)]),
    // The element-wise step adds words, segments and places.
    ("bert-base", &[("attention", 12), ("elementwise", 1), ("gather", 1), ("gemm", 49), ("layer_norm", 25)]),
    ("bert-small", &[("attention", 4), ("elementwise", 1), ("gather", 1), ("gemm", 17), ("layer_norm", 9)]),
    ("minilm", &[("attention", 6), ("elementwise", 1), ("gather", 1), ("gemm", 25), ("layer_norm", 13)]),
    ("lstm", &[("gemm", 1), ("lstm", 1)]),
    ("lstm-2", &[("gemm", 1), ("lstm", 2)]),
    ("gru", &[("gemm", 1), ("gru", 1)]),
    ("mlp", &[("gemm", 3)]),
    // The towers' product, and what comes after its sum.
    ("two-tower", &[("elementwise", 2), ("gather", 2), ("gemm", 4), ("reduce", 1)]),
];
