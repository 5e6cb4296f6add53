//! What a graph and a folded graph mean, by the reference's operators and the folded form's conventions.

use super::random;
use std::collections::HashMap;
use tessera_core::{DType, Precision};
use tessera_planner::fold::{Folded, FoldedWeight, Role};
use tessera_planner::graph::{Dim, Graph, Input, Node, ParamData, ValueId};
use tessera_planner::op::{Direction, Op};
use tessera_planner::pack::Matrices;
use tessera_planner::pack::{Layout, pack};
use tessera_planner::source::read_weight;
use tessera_planner::{PackTarget, Packed, SlotLayout, Tensor, reference};

type Values = HashMap<ValueId, Tensor>;

/// Everything that an input needs, for graphs without free dimensions.
pub fn random_inputs(graph: &Graph) -> Values {
    let make = |input: &Input| {
        let dims: Vec<usize> = input
            .dims
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(dim) => *dim as usize,
                Dim::Free(_) => panic!("the shape of `{}` is free", input.name),
            })
            .collect();
        let tensor = match input.dtype {
            DType::I64 => {
                let rows: Vec<i64> = (0..dims.iter().product::<usize>() as i64).map(|row| row % 3).collect();
                Tensor::from_elements(&dims, &rows)
            }
            _ => random(1000 + u64::from(input.value.0), &dims),
        };
        (input.value, tensor)
    };
    graph.inputs.iter().map(make).collect()
}

/// The outputs of a graph as it was imported.
pub fn of_graph(graph: &Graph, inputs: &Values) -> Vec<Tensor> {
    let mut values = inputs.clone();
    for param in &graph.params {
        let tensor = match &param.data {
            ParamData::Literal(tensor) => tensor.clone(),
            ParamData::Weight(source) => read_weight(source, param.dtype, &param.dims).unwrap(),
        };
        values.insert(param.value, tensor);
    }
    run(graph, values, |op, inputs, outputs| reference::eval(op, inputs, outputs).unwrap())
}

/// The outputs of a folded graph with the weights that `pack` makes of `class`.
pub fn of_folded(class: &Graph, folded: &Folded, inputs: &Values) -> Vec<Tensor> {
    let target = PackTarget { device: "cpu", precision: Precision::Fp32, matrices: Matrices::Panels(16) };
    let layout = SlotLayout::of(folded, target).unwrap();
    let mut source = |id: tessera_planner::graph::ParamId| {
        let ParamData::Weight(source) = &class.params[id.0 as usize].data else {
            panic!("literals are not read")
        };
        Ok(source.clone())
    };
    let packed = pack(class, folded, &layout, &mut source).unwrap();

    let mut values = inputs.clone();
    for param in &folded.graph.params {
        let ParamData::Literal(tensor) = &param.data else {
            panic!("a folded graph has no weights of its own")
        };
        values.insert(param.value, tensor.clone());
    }
    for (weight, tensor) in folded.weights.iter().zip(&layout.tensors) {
        assert_eq!(tensor.offset % 64, 0);
        values.insert(weight.value, unpacked(weight, &tensor.layout, tensor.offset, &packed));
    }
    run(&folded.graph, values, by_convention)
}

fn run(
    graph: &Graph,
    mut values: Values,
    eval: impl Fn(&Op, &[Option<&Tensor>], usize) -> Vec<Tensor>,
) -> Vec<Tensor> {
    for Node { op, inputs, outputs, .. } in &graph.nodes {
        let inputs: Vec<Option<&Tensor>> =
            inputs.iter().map(|input| input.map(|input| &values[&input])).collect();
        let made = eval(op, &inputs, outputs.len());
        for (output, tensor) in outputs.iter().zip(made) {
            output.map(|output| values.insert(output, tensor));
        }
    }
    graph.outputs.iter().map(|output| values[&output.value].clone()).collect()
}

/// An operator of a folded graph in terms of ONNX's.
fn by_convention(op: &Op, inputs: &[Option<&Tensor>], outputs: usize) -> Vec<Tensor> {
    let eval = |op: &Op, inputs: &[Option<&Tensor>]| reference::eval(op, inputs, outputs).unwrap();
    match op {
        Op::Gemm { alpha, beta, trans_a, trans_b } => {
            assert_eq!((*alpha, *beta, *trans_a, *trans_b), (1.0, 1.0, false, false));
            let product = eval(&Op::MatMul, &inputs[..2]);
            let Some(Some(bias)) = inputs.get(2) else { return product };
            assert_eq!(bias.dims(), &inputs[1].unwrap().dims()[1..]);
            eval(&Op::Binary(tessera_planner::op::Binary::Add), &[Some(&product[0]), Some(bias)])
        }
        // The reference knows a folded layer by its matrices, which have no axis of directions.
        Op::Recurrent(layer) => {
            assert_ne!(layer.direction, Direction::Bidirectional);
            eval(op, inputs)
        }
        _ => eval(op, inputs),
    }
}

/// A packed tensor as nodes of the folded graph see it, by the definition of its layout.
fn unpacked(weight: &FoldedWeight, layout: &Layout, offset: usize, packed: &Packed) -> Tensor {
    let element = |index: usize| {
        let at = offset + 4 * index;
        f32::from_le_bytes(packed.bytes()[at..at + 4].try_into().unwrap())
    };
    let panel = |group: usize, row: usize, column: usize| {
        let Layout::Panels { k, n, width, .. } = *layout else { panic!("panels") };
        element(((group * n.div_ceil(width) + column / width) * k + row) * width + column % width)
    };
    let dims = &weight.dims;
    let taps: usize = dims.iter().skip(2).product();
    let elements: Vec<f32> = (0..dims.iter().product())
        .map(|index: usize| match weight.role {
            Role::Plain => element(index),
            Role::Matrix => panel(0, index / dims[1], index % dims[1]),
            Role::Depthwise => element(index % taps * dims[0] + index / taps),
            Role::Conv { groups } => {
                let (out, input, tap) = (index / taps / dims[1], index / taps % dims[1], index % taps);
                let per_group = dims[0] / groups;
                // Height and width, then depth, then the input.
                let depth = if dims.len() == 5 { dims[2] } else { 1 };
                let row = tap % (taps / depth) * depth + tap / (taps / depth);
                panel(out / per_group, row * dims[1] + input, out % per_group)
            }
            Role::Phases { groups, strides } => {
                let (out, input, tap) = (index / taps / dims[1], index / taps % dims[1], index % taps);
                let per_group = dims[0] / groups;
                let lead = 5 - dims.len();
                let kernel: Vec<usize> =
                    std::iter::repeat_n(1, lead).chain(dims[2..].iter().copied()).collect();
                let along = [tap / kernel[2] / kernel[1], tap / kernel[2] % kernel[1], tap % kernel[2]];
                // Tap t is tap k = kernel − 1 − t of the transposed kernel: number k / stride, backwards, of phase k mod stride.
                let (mut phase, mut place) = (0, [0; 3]);
                for axis in 0..3 {
                    let k = kernel[axis] - 1 - along[axis];
                    phase = phase * strides[axis] + k % strides[axis];
                    place[axis] = (kernel[axis] - 1) / strides[axis] - k / strides[axis];
                }
                let [depth, width] = [0, 2].map(|axis| (kernel[axis] - 1) / strides[axis] + 1);
                let row = (place[1] * width + place[2]) * depth + place[0];
                panel(out / per_group, row * dims[1] + input, phase * per_group + out % per_group)
            }
        })
        .collect();
    Tensor::from_elements(dims, &elements)
}

/// ‖got − want‖ / ‖want‖.
pub fn relative_error(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!((got.dtype(), got.dims()), (want.dtype(), want.dims()));
    if got.bytes() == want.bytes() {
        return 0.0;
    }
    assert_eq!(got.dtype(), DType::F32, "other types are equal or wrong");
    let (got, want) = (got.elements::<f32>().unwrap(), want.elements::<f32>().unwrap());
    let squares = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|number| number * number).sum::<f64>();
    let difference =
        squares(&mut got.iter().zip(&want).map(|(got, want)| f64::from(*got) - f64::from(*want)));
    if difference == 0.0 {
        0.0
    } else {
        (difference / squares(&mut want.iter().map(|&want| f64::from(want)))).sqrt()
    }
}
