//! Models whose inputs, weights and outputs are not f32: what plans answer, and in which types they compute.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod common;

use common::ready::{Ready, ready};
use common::{fixture, float, floats, int, ints, model, node, typed_info};
use prost::Message;
use std::collections::BTreeMap;
use tessera_core::DType;
use tessera_planner::class;
use tessera_planner::infer::DimValue;
use tessera_planner::onnx::proto::{GraphProto, NodeProto, TensorProto};
use tessera_planner::plan::{Operand, StepKind};
use tessera_planner::{Tensor, interpret, npz};

fn loaded(name: &str) -> (Ready, BTreeMap<String, Tensor>) {
    let model = class::load(&fixture(&format!("types/{name}.onnx"))).unwrap();
    (ready(model, &[DimValue::Items]), npz::read(&fixture(&format!("types/{name}.npz"))).unwrap())
}

/// Any type's elements as floats.
fn elements(tensor: &Tensor) -> Vec<f64> {
    use half::f16;
    let whole = |list: Option<Vec<i64>>| list.unwrap_or_default().into_iter().map(|x| x as f64).collect();
    match tensor.dtype() {
        DType::F16 => tensor.elements::<f16>().unwrap().into_iter().map(f64::from).collect(),
        DType::F32 => tensor.elements::<f32>().unwrap().into_iter().map(f64::from).collect(),
        DType::F64 => tensor.elements::<f64>().unwrap(),
        DType::I32 => whole(tensor.elements::<i32>().map(|list| list.into_iter().map(i64::from).collect())),
        _ => tensor.bytes().iter().map(|&byte| f64::from(byte)).collect(),
    }
}

fn answers_as_pytorch_did(name: &str, tolerance: f64) {
    let (Ready { model, plan, layout, packed }, arrays) = loaded(name);
    let inputs: Vec<&Tensor> =
        model.input_names.iter().map(|input| &arrays[&format!("in.{input}")]).collect();
    let items = inputs[0].dims()[0];
    let mut answers = vec![Vec::new(); plan.outputs.len()];
    for item in 0..items {
        let slices: Vec<&[u8]> = inputs
            .iter()
            .map(|tensor| {
                let size = tensor.bytes().len() / items;
                &tensor.bytes()[item * size..][..size]
            })
            .collect();
        let one = interpret::run(&plan, &layout, &packed, &slices).unwrap();
        answers.iter_mut().zip(one).for_each(|(all, one)| all.extend(one));
    }
    for ((output, port), bytes) in model.output_names.iter().zip(&plan.outputs).zip(answers) {
        let want = &arrays[&format!("out.{output}")];
        let got = Tensor::new(port.dtype, want.dims().to_vec(), bytes).unwrap();
        assert_eq!(got.dtype(), want.dtype(), "{name} {output}");
        let (got, want) = (elements(&got), elements(want));
        let apart: f64 = got.iter().zip(&want).map(|(got, want)| (got - want).powi(2)).sum();
        let error = (apart / want.iter().map(|x| x * x).sum::<f64>()).sqrt();
        assert!(error < tolerance, "{name} {output}: relative error {error:e}");
    }
}

#[test]
fn half_precision_exports_answer_in_halves() {
    // Half of a half's last place, where the sum is beside the middle.
    answers_as_pytorch_did("half", 5e-4);
    answers_as_pytorch_did("half_dynamo", 5e-4);
}

#[test]
fn a_double_precision_export_answers_as_exactly_as_f32_does() {
    answers_as_pytorch_did("double", 1e-6);
}

#[test]
fn a_model_of_bytes_answers_in_bytes_booleans_and_integers() {
    answers_as_pytorch_did("pixels", 1e-6);
}

#[test]
fn a_half_precision_plan_computes_in_f32_from_its_first_step_to_its_last() {
    let (Ready { plan, model, .. }, _) = loaded("half");
    assert_eq!((plan.inputs[0].dtype, plan.outputs[0].dtype), (DType::F16, DType::F16));
    assert_eq!(model.class.output_shapes().next(), Some((DType::F16, vec![-1, 10])));
    let halves = |at: Operand| matches!(at, Operand::Buffer(id) if plan.buffer(id).dtype == DType::F16);
    let touching: Vec<usize> = plan
        .steps
        .iter()
        .enumerate()
        .filter(|(_, step)| {
            let reads = step.kind.reads().into_iter().any(|(read, _)| halves(read.operand()));
            reads || step.kind.writes().iter().any(|write| halves(Operand::Buffer(write.buffer)))
        })
        .map(|(index, _)| index)
        .collect();
    assert_eq!(touching, [0, plan.steps.len() - 1]);
    // What rewriting found: nothing of a half stands between the operators that it looks for.
    let kinds: Vec<&str> = plan.steps.iter().map(|step| step.kind.name()).collect();
    for kind in ["conv", "attention", "layer_norm"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
}

/// One node from typed inputs to one output, planned as a whole request.
fn one(inputs: &[(&str, DType, &[i64])], weights: Vec<TensorProto>, node: NodeProto) -> Ready {
    one_of(22, inputs, weights, node)
}

fn one_of(opset: i64, inputs: &[(&str, DType, &[i64])], weights: Vec<TensorProto>, node: NodeProto) -> Ready {
    let graph = GraphProto {
        input: inputs.iter().map(|(name, dtype, dims)| typed_info(name, *dtype, dims)).collect(),
        output: vec![common::untyped("y")],
        initializer: weights,
        node: vec![node],
        ..GraphProto::default()
    };
    ready(class::load_bytes(model(opset, graph).encode_to_vec(), None).unwrap(), &[])
}

fn answer(ready: &Ready, inputs: &[&[u8]]) -> Vec<u8> {
    interpret::run(&ready.plan, &ready.layout, &ready.packed, inputs).unwrap().remove(0)
}

#[test]
fn what_integers_cannot_do_gives_a_number_and_no_panic() {
    let least = i64::MIN.to_le_bytes();
    for (op, attributes, by, want) in [
        ("Div", vec![], -1i64, i64::MIN),
        ("Div", vec![], 0, 0),
        ("Mod", vec![], 0, 0),
        ("Mod", vec![int("fmod", 1)], -1, 0),
        ("Pow", vec![], -1, 0),
    ] {
        let ready = one(
            &[("a", DType::I64, &[1]), ("b", DType::I64, &[1])],
            vec![],
            node(op, &["a", "b"], &["y"], attributes),
        );
        assert_eq!(answer(&ready, &[&least, &by.to_le_bytes()]), want.to_le_bytes(), "{op} by {by}");
    }
    let ready = one(
        &[("a", DType::F32, &[3])],
        vec![],
        node("Cast", &["a"], &["y"], vec![int("to", 3)]), // INT8
    );
    let floats: Vec<u8> = [f32::NAN, 1e30, -1e30].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(answer(&ready, &[&floats]), [0i8, 127, -128].map(i8::cast_unsigned));
}

#[test]
fn reductions_of_narrow_types_wrap_to_them() {
    let reduce = |op: &str, dtype: DType| {
        one(
            &[("x", dtype, &[3])],
            vec![ints("axes", &[0])],
            node(op, &["x", "axes"], &["y"], vec![int("keepdims", 0)]),
        )
    };
    assert_eq!(answer(&reduce("ReduceSum", DType::U8), &[&[200, 50, 10]]), [4]);
    assert_eq!(answer(&reduce("ReduceMax", DType::I8), &[&[255, 3, 128]]), [3]);
    assert_eq!(answer(&reduce("ReduceMin", DType::Bool), &[&[1, 1, 0]]), [0]);
    assert_eq!(answer(&reduce("ReduceMax", DType::Bool), &[&[0, 7, 0]]), [1]);
    assert_eq!(answer(&reduce("ReduceL2", DType::U8), &[&[3, 4, 0]]), [5]);
}

#[test]
fn a_whole_power_of_an_integer_is_exact_whatever_type_the_exponent_has() {
    let ready = one(
        &[("x", DType::I32, &[2])],
        vec![floats("e", &[2], &[5.0, 0.5])],
        node("Pow", &["x", "e"], &["y"], vec![]),
    );
    let x: Vec<u8> = [7i32, 17].iter().flat_map(|x| x.to_le_bytes()).collect();
    let want: Vec<u8> = [16807i32, 4].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(answer(&ready, &[&x]), want);
}

#[test]
fn vectors_multiply_matrices_and_each_other() {
    let product = |a: &[i64], b: &[i64]| {
        one(
            &[("a", DType::F32, a), ("b", DType::F32, b)],
            vec![],
            node("MatMul", &["a", "b"], &["y"], vec![]),
        )
    };
    let bytes = |list: &[f32]| -> Vec<u8> { list.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let (two, four) = (bytes(&[1.0, 10.0]), bytes(&[1.0, 2.0, 3.0, 4.0]));
    for (a, b, inputs, dims, want) in [
        (&[2][..], &[2, 2][..], [&two, &four], &[2][..], bytes(&[31.0, 42.0])),
        (&[2, 2], &[2], [&four, &two], &[2], bytes(&[21.0, 43.0])),
        (&[2], &[2], [&two, &two], &[], bytes(&[101.0])),
    ] {
        let ready = product(a, b);
        assert_eq!(ready.plan.outputs[0].dims, dims);
        assert_eq!(answer(&ready, &inputs.map(Vec::as_slice)), want);
    }
}

#[test]
fn literals_beside_a_value_have_its_type_in_every_opset() {
    let half = |x: f32| half::f16::from_f32(x).to_le_bytes();
    let x = [("x", DType::F16, &[1][..])];
    // Bounds were attributes, and single floats, until opset 10.
    let bounds = || vec![float("min", -0.5), float("max", 0.25)];
    for opset in [9, 10] {
        let clip = one_of(opset, &x, vec![], node("Clip", &["x"], &["y"], bounds()));
        assert_eq!(answer(&clip, &[&half(-3.0)]), half(-0.5));
    }
    for opset in [9, 13, 22] {
        let mean = one_of(opset, &x, vec![], node("Mean", &["x", "x", "x"], &["y"], vec![]));
        assert_eq!(answer(&mean, &[&half(1.5)]), half(1.5));
    }
    let swish = one_of(24, &x, vec![], node("Swish", &["x"], &["y"], vec![float("alpha", 2.0)]));
    assert_eq!(answer(&swish, &[&half(0.5)]), half(0.5 / (1.0 + (-1.0f32).exp())));
    let celu = one_of(12, &x, vec![], node("Celu", &["x"], &["y"], vec![float("alpha", 2.0)]));
    assert_eq!(answer(&celu, &[&half(-0.5)]), half(2.0 * (-0.25f32).exp_m1()));
    let infinite = one_of(10, &[("x", DType::F32, &[1])], vec![], node("IsInf", &["x"], &["y"], vec![]));
    assert_eq!(answer(&infinite, &[&f32::NEG_INFINITY.to_le_bytes()]), [1]);
}

#[test]
fn the_mask_of_a_dropout_keeps_everything_in_the_type_of_its_opset() {
    let mask = |opset: i64| {
        one_of(opset, &[("x", DType::F32, &[2])], vec![], node("Dropout", &["x"], &["", "y"], vec![]))
    };
    let x = [f32::NAN, 1.0].map(f32::to_le_bytes).concat();
    assert_eq!(answer(&mask(9), &[&x]), [1.0f32; 2].map(f32::to_le_bytes).concat());
    assert_eq!(answer(&mask(10), &[&x]), [1, 1]);
}

#[test]
fn a_chain_in_halves_is_rounded_once_at_its_end() {
    let ready =
        one(&[("x", DType::F16, &[1])], vec![], node("LeakyRelu", &["x"], &["y"], vec![float("alpha", 0.3)]));
    let half = half::f16::from_f32;
    assert_eq!(answer(&ready, &[&half(-1.7).to_le_bytes()]), half(half(-1.7).to_f32() * 0.3).to_le_bytes());
    let [step] = &ready.plan.steps[..] else { panic!("one step: {:?}", ready.plan.steps) };
    assert!(matches!(step.kind, StepKind::Elementwise { .. }));
}
