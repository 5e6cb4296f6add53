//! Small graphs for tests, and what graphs mean.

#![allow(clippy::unwrap_used)] // the lint spares tests, but not the functions that they share
#![allow(dead_code, unreachable_pub)] // each test file uses its part

pub mod meaning;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tessera_core::DType;
use tessera_planner::graph::{Dim, Graph, Input, Node, Output, Param, ParamData, ValueId, WeightSource};
use tessera_planner::op::{Cut, Op, Padding, Transposed, Window};
use tessera_planner::{Tensor, reference};

/// Numbers around one, none of them negative, so that they may be variances too.
pub fn random(seed: u64, dims: &[usize]) -> Tensor {
    let mut random = StdRng::seed_from_u64(seed);
    let elements: Vec<f32> = (0..dims.iter().product()).map(|_| random.random_range(0.1..1.5)).collect();
    Tensor::from_elements(dims, &elements)
}

/// A graph under construction; values are numbered as they come.
#[derive(Default)]
pub struct Builder(pub Graph);

impl Builder {
    pub fn value(&mut self, name: &str) -> ValueId {
        self.0.values.push(name.into());
        ValueId(self.0.values.len() as u32 - 1)
    }

    pub fn input(&mut self, name: &str, dims: &[u64]) -> ValueId {
        let value = self.value(name);
        let dims = dims.iter().map(|&dim| Dim::Fixed(dim)).collect();
        self.0.inputs.push(Input { name: name.into(), value, dtype: DType::F32, dims });
        value
    }

    /// Indices of so many rows.
    pub fn ids(&mut self, name: &str, dims: &[u64]) -> ValueId {
        let value = self.input(name, dims);
        self.0.inputs.last_mut().unwrap().dtype = DType::I64;
        value
    }

    pub fn param(&mut self, name: &str, dtype: DType, dims: &[usize], data: ParamData) -> ValueId {
        let value = self.value(name);
        self.0.params.push(Param { value, name: name.into(), dtype, dims: dims.to_vec(), data });
        value
    }

    pub fn weight(&mut self, name: &str, dims: &[usize]) -> ValueId {
        self.weight_of(DType::F32, name, dims)
    }

    pub fn weight_of(&mut self, dtype: DType, name: &str, dims: &[usize]) -> ValueId {
        let single = random(self.0.params.len() as u64, dims);
        let tensor = reference::eval(&Op::Cast(dtype), &[Some(&single)], 1).unwrap().remove(0);
        self.param(name, dtype, dims, ParamData::Weight(WeightSource::Inline(tensor)))
    }

    pub fn literal(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let dims = tensor.dims().to_vec();
        self.param(name, tensor.dtype(), &dims, ParamData::Literal(tensor))
    }

    pub fn integers(&mut self, name: &str, list: &[i64]) -> ValueId {
        self.literal(name, Tensor::from_elements(&[list.len()], list))
    }

    pub fn optional(&mut self, op: Op, inputs: &[Option<ValueId>], outputs: &[&str]) -> Vec<ValueId> {
        let outputs: Vec<ValueId> = outputs.iter().map(|name| self.value(name)).collect();
        self.0.nodes.push(Node {
            name: self.0.values[outputs[0].0 as usize].clone(),
            op,
            inputs: inputs.to_vec(),
            outputs: outputs.iter().copied().map(Some).collect(),
        });
        outputs
    }

    pub fn node(&mut self, op: Op, inputs: &[ValueId], output: &str) -> ValueId {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        self.optional(op, &inputs, &[output])[0]
    }

    pub fn batch_norm(&mut self, x: ValueId, name: &str, channels: usize, output: &str) -> ValueId {
        let numbers = ["gamma", "beta", "mean", "variance"]
            .map(|what| self.weight(&format!("{name}.{what}"), &[channels]));
        let [gamma, beta, mean, variance] = numbers;
        self.node(Op::BatchNorm { epsilon: 0.5 }, &[x, gamma, beta, mean, variance], output)
    }

    pub fn output(&mut self, value: ValueId) {
        let name = self.0.values[value.0 as usize].clone();
        self.0.outputs.push(Output { name, value });
    }
}

pub fn window(kernel: &[usize]) -> Window {
    Window {
        kernel: kernel.to_vec(),
        strides: vec![1; kernel.len()],
        dilations: vec![1; kernel.len()],
        padding: Padding::Explicit(vec![(0, 0); kernel.len()]),
        ceil_mode: false,
    }
}

/// A transposed window that nothing is cut off.
pub fn transposed(kernel: &[usize], strides: &[usize]) -> Window {
    let spread = Transposed {
        strides: strides.to_vec(),
        output_padding: vec![0; kernel.len()],
        cut: Cut::Explicit(vec![(0, 0); kernel.len()]),
    };
    Window { padding: Padding::Transposed(spread), ..window(kernel) }
}
