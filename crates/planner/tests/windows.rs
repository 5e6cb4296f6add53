//! Random convolutions, pools and normalisations: what a plan computes, for the whole request and item by item, is what the reference
//! says of the graph.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod support;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::HashMap;
use support::{Builder, meaning};
use tessera_core::{ClassId, PlanKey, Precision};
use tessera_planner::fold::fold;
use tessera_planner::graph::{Dim, Graph, ParamData, ParamId, ValueId};
use tessera_planner::infer::{DimValue, InferError};
use tessera_planner::op::{Binary, Cut, Op, Padding, Transposed, Unary, Window};
use tessera_planner::pack::{Matrices, pack};
use tessera_planner::{PackTarget, PlanError, SlotLayout, Tensor, interpret};

const SEEDS: u64 = 60;
const ITEMS: usize = 3;

/// What one plan answers to a request, item by item.
fn planned(
    graph: &Graph,
    dims: &[DimValue],
    inputs: &[Tensor],
    items: usize,
) -> Result<Vec<Tensor>, PlanError> {
    let folded = fold(graph).unwrap();
    let target = PackTarget { device: "test", precision: Precision::Fp32, matrices: Matrices::Panels(16) };
    let layout = SlotLayout::of(&folded, target).unwrap();
    let mut source = |id: ParamId| {
        let ParamData::Weight(source) = &graph.params[id.0 as usize].data else {
            panic!("literals are not read")
        };
        Ok(source.clone())
    };
    let packed = pack(graph, &folded, &layout, &mut source).unwrap();
    let key = PlanKey { class: ClassId([0; 16]), dims: [].into(), precision: Precision::Fp32 };
    let plan = tessera_planner::plan(key, &folded, &layout, dims)?;
    let mut answers = vec![Vec::new(); plan.outputs.len()];
    for item in 0..items {
        let cut = |input: &Tensor| {
            let len = input.bytes().len() / items;
            input.bytes()[item * len..(item + 1) * len].to_vec()
        };
        let inputs: Vec<Vec<u8>> = inputs.iter().map(cut).collect();
        let slices: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        let one = interpret::run(&plan, &layout, &packed, &slices).unwrap();
        answers.iter_mut().zip(one).for_each(|(all, one)| all.extend(one));
    }
    let tensor = |(port, bytes): (&tessera_planner::plan::Port, Vec<u8>)| {
        let mut dims = port.dims.clone();
        dims[0] *= items;
        Tensor::new(port.dtype, dims, bytes).unwrap()
    };
    Ok(plan.outputs.iter().zip(answers).map(tensor).collect())
}

/// Checks a graph whose inputs have [`ITEMS`] on axis 0, which then becomes free.
fn check(seed: u64, mut graph: Graph) {
    let inputs: HashMap<ValueId, Tensor> =
        meaning::random_inputs(&graph).into_iter().map(|(value, tensor)| (value, centred(&tensor))).collect();
    let want = meaning::of_graph(&graph, &inputs);
    let given: Vec<Tensor> = graph.inputs.iter().map(|input| inputs[&input.value].clone()).collect();
    let compare = |got: Vec<Tensor>, how: &str| {
        for (got, want) in got.iter().zip(&want) {
            // f32 sums against f64 ones.
            let error = meaning::relative_error(got, want);
            assert!(error < 3e-5, "seed {seed}, {how}: {error:e} off in {:?}", graph.nodes);
        }
    };
    compare(planned(&graph, &[], &given, 1).unwrap(), "whole");
    graph.free_dims = vec!["batch".into()];
    graph.inputs.iter_mut().for_each(|input| input.dims[0] = Dim::Free(0));
    match planned(&graph, &[DimValue::Items], &given, ITEMS) {
        Ok(got) => compare(got, "item by item"),
        Err(PlanError::Infer(InferError::MixesItems { .. })) => {
            let counts = |op: &Op| matches!(op, Op::MaxPoolIndices(..));
            assert!(graph.nodes.iter().any(|node| counts(&node.op)), "seed {seed}: items are independent");
        }
        Err(error) => panic!("seed {seed}: {error} in {:?}", graph.nodes),
    }
}

/// Inputs with both signs: a pool that takes padding for an element would not be seen among positive ones.
fn centred(tensor: &Tensor) -> Tensor {
    let elements: Vec<f32> = tensor.elements::<f32>().unwrap().into_iter().map(|x| x - 0.8).collect();
    Tensor::from_elements(tensor.dims(), &elements)
}

/// A window over some axes that fits an image of extents `image`.
fn window(random: &mut StdRng, image: &[usize], pool: bool) -> Window {
    let axes = image.len();
    let mut each = |range: std::ops::Range<usize>| -> Vec<usize> {
        (0..axes).map(|_| random.random_range(range.clone())).collect()
    };
    let (kernel, strides, dilations) = (each(1..4), each(1..4), each(1..3));
    let (before, after) = (each(0..3), each(0..3));
    let padding = match random.random_range(0..4) {
        0 => Padding::SameUpper,
        1 => Padding::SameLower,
        // A pool's windows see more than padding.
        _ => Padding::Explicit(
            (0..axes)
                .map(|axis| {
                    let most = if pool { (kernel[axis] - 1) * dilations[axis] } else { usize::MAX };
                    (before[axis].min(most), after[axis].min(most))
                })
                .collect(),
        ),
    };
    let ceil_mode = pool && random.random_range(0..2) == 0;
    Window { kernel, strides, dilations, padding, ceil_mode }
}

fn image(random: &mut StdRng, seed: u64) -> Vec<usize> {
    (0..1 + seed as usize % 3).map(|_| random.random_range(5..8)).collect()
}

fn dims(channels: usize, image: &[usize]) -> Vec<u64> {
    [ITEMS, channels].iter().chain(image).map(|&dim| dim as u64).collect()
}

/// What may follow a layer and is fused into it: a normalisation, a sum with another input, a function.
fn tail(b: &mut Builder, random: &mut StdRng, made: ValueId, channels: usize, output: &[usize]) {
    let mut last = made;
    if random.random_range(0..2) == 0 {
        last = b.batch_norm(last, "bn", channels, "normal");
    }
    if random.random_range(0..2) == 0 {
        let other = b.input("residual", &dims(channels, output));
        last = b.node(Op::Binary(Binary::Add), &[last, other], "sum");
    }
    match random.random_range(0..3) {
        0 => last = b.node(Op::Unary(Unary::Relu), &[last], "relu"),
        1 => last = b.node(Op::Unary(Unary::Tanh), &[last], "tanh"),
        _ => {}
    }
    b.output(last);
}

#[test]
fn convolutions_over_one_to_three_axes_are_what_the_reference_says() {
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let image = image(&mut random, seed);
        let window = window(&mut random, &image, false);
        let Ok(fit) = window.fit(&image) else { continue };
        let groups = random.random_range(1..4);
        let [inputs, outputs] = [(); 2].map(|()| random.random_range(1..4));
        let mut b = Builder::default();
        let x = b.input("x", &dims(groups * inputs, &image));
        let w = b.weight("w", &[&[groups * outputs, inputs], &window.kernel[..]].concat());
        let mut read = vec![x, w];
        if random.random_range(0..2) == 0 {
            read.push(b.weight("bias", &[groups * outputs]));
        }
        let made = b.node(Op::Conv(window, groups), &read, "conv");
        tail(&mut b, &mut random, made, groups * outputs, &fit.output);
        check(seed, b.0);
    }
}

#[test]
fn transposed_convolutions_over_one_to_three_axes_are_what_the_reference_says() {
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let image: Vec<usize> = (0..1 + seed as usize % 3).map(|_| random.random_range(1..5)).collect();
        let axes = image.len();
        let mut each = |range: std::ops::Range<usize>| -> Vec<usize> {
            (0..axes).map(|_| random.random_range(range.clone())).collect()
        };
        let (kernel, strides, output_padding) = (each(1..5), each(1..4), each(0..2));
        // Taps that lie apart and taps that do not are computed in different ways.
        let dilations = if seed % 2 == 0 { vec![1; axes] } else { each(1..3) };
        let (before, after, wanted) = (each(0..3), each(0..3), each(4..12));
        let cut = match random.random_range(0..4) {
            0 => Cut::Same { output: None, upper: seed % 4 == 0 },
            1 => Cut::Same { output: Some(wanted), upper: seed % 4 == 0 },
            _ => Cut::Explicit(before.into_iter().zip(after).collect()),
        };
        let spread = Transposed { strides, output_padding, cut };
        let window = Window {
            kernel,
            strides: vec![1; axes],
            dilations,
            padding: Padding::Transposed(spread),
            ceil_mode: false,
        };
        let Ok(fit) = window.fit(&image) else { continue };
        let groups = random.random_range(1..3);
        let [inputs, outputs] = [(); 2].map(|()| random.random_range(1..4));
        let mut b = Builder::default();
        let x = b.input("x", &dims(groups * inputs, &image));
        let w = b.weight("w", &[&[groups * inputs, outputs], &window.kernel[..]].concat());
        let mut read = vec![x, w];
        if random.random_range(0..2) == 0 {
            read.push(b.weight("bias", &[groups * outputs]));
        }
        let made = b.node(Op::ConvTranspose(window, groups), &read, "conv");
        tail(&mut b, &mut random, made, groups * outputs, &fit.output);
        check(seed, b.0);
    }
}

#[test]
fn pools_over_one_to_three_axes_are_what_the_reference_says() {
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let image = image(&mut random, seed);
        let window = window(&mut random, &image, true);
        if window.fit(&image).is_err() {
            continue;
        }
        let ops = [
            Op::MaxPool(window.clone()),
            Op::SumPool(window.clone()),
            Op::AveragePool(window.clone(), seed % 2 == 0),
            Op::MaxPoolIndices(window, seed % 4 < 2),
        ];
        for op in ops {
            let mut b = Builder::default();
            let x = b.input("x", &dims(4, &image));
            let made = b.node(op, &[x], "pool");
            b.output(made);
            check(seed, b.0);
        }
    }
}

#[test]
fn normalisations_over_channels_are_what_the_reference_says() {
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let image = image(&mut random, seed);
        let groups = [None, Some(1), Some(2), Some(3), Some(6)][random.random_range(0..5)];
        let op = Op::GroupNorm { groups, epsilon: 1e-3 };
        // Scale and bias per channel, or per group.
        let [scales, biases] = [(); 2].map(|()| [6, groups.unwrap_or(6)][random.random_range(0..2)]);
        let mut b = Builder::default();
        let x = b.input("x", &dims(6, &image));
        let read = [x, b.weight("scale", &[scales]), b.weight("bias", &[biases])];
        let normal = b.node(op, &read, "normal");
        let lrn = Op::Lrn { size: 1 + seed as usize % 7, alpha: 0.3, beta: 0.75, bias: 1.5 };
        let made = b.node(lrn, &[normal], "lrn");
        b.output(made);
        check(seed, b.0);
    }
}

#[test]
fn groups_written_as_channels_of_another_shape_are_what_the_reference_says() {
    for (seed, groups) in [(0, 1), (1, 2), (2, 3)] {
        let mut b = Builder::default();
        let x = b.input("x", &dims(6, &[5, 7]));
        let to = b.integers("to", &[0, groups, -1]);
        let flat = b.node(Op::Reshape { allow_zero: false }, &[x, to], "flat");
        let read = [flat, b.weight("scale", &[groups as usize]), b.weight("bias", &[groups as usize])];
        let normal = b.node(Op::GroupNorm { groups: None, epsilon: 1e-3 }, &read, "normal");
        let shape = b.node(Op::Shape { start: 0, end: None }, &[x], "shape");
        let back = b.node(Op::Reshape { allow_zero: false }, &[normal, shape], "back");
        let factor = b.weight("factor", &[6, 1, 1]);
        let made = b.node(Op::Binary(Binary::Mul), &[back, factor], "made");
        b.output(made);
        check(seed, b.0);
    }
}
