//! Steps on a CPU: each kind of [`StepKind`] for some items of one lane.
//!
//! A worker runs all steps of a plan for a run of items of one lane, in its own arena, with the lane's weights. Nothing
//! here knows of other lanes or launches, and every element is computed in the order that the plan's docs give: which
//! items are together changes no bit, nor does who computes which part of a heavy step when a [`Crew`] shares it.

pub(crate) mod activation;
mod attention;
mod channels;
mod conv;
mod elementwise;
mod functions;
mod gather;
pub(crate) mod gemm;
mod lines;
mod matmul;
mod norm;
mod numbers;
mod panels;
mod points;
mod pool;
mod recurrent;
mod reduce;
mod register;
mod walk;

use crate::RequestError;
use crate::cpu::arena::{Arena, Placed, Readable};
use crate::cpu::crew::Crew;
use bytemuck::Pod;
use gemm::Finish;
use tessera_core::DType;
use tessera_planner::op;
use tessera_planner::pack::{SlotLayout, WeightId};
use tessera_planner::plan::{BufferId, CumSum, Epilogue, Operand, Scatter, Step, StepKind, TopK};
use tessera_planner::{Plan, Tensor};

/// What steps work with: some items of one lane.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) layout: &'a SlotLayout,
    /// The lane's slot.
    pub(crate) weights: &'a [f32],
    pub(crate) constants: &'a [Constant],
    pub(crate) items: usize,
    /// Who shares heavy steps.
    pub(crate) crew: Crew<'a>,
    pub(crate) arena: &'a mut Arena,
    /// Working memory of single steps, kept between them.
    pub(crate) scratch: &'a mut Scratch,
    /// Items that failed, and why: the first reason of each counts.
    pub(crate) failures: &'a mut Vec<(usize, RequestError)>,
}

/// Working memory that steps keep between calls.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) a: Vec<f32>,
    pub(crate) b: Vec<f32>,
    pub(crate) c: Vec<f32>,
}

/// A constant of a plan, aligned for any element type.
#[derive(Clone, Debug)]
pub(crate) struct Constant {
    words: Vec<u64>,
    bytes: usize,
}

impl Constant {
    pub(crate) fn new(tensor: &Tensor) -> Constant {
        let mut words = vec![0u64; tensor.bytes().len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..tensor.bytes().len()].copy_from_slice(tensor.bytes());
        Constant { words, bytes: tensor.bytes().len() }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }
}

/// The elements of an operand, for every item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a, T> {
    all: &'a [T],
    per_item: usize,
}

impl<'a, T> Source<'a, T> {
    /// The elements that `item` sees.
    pub(crate) fn at(&self, item: usize) -> &'a [T] {
        &self.all[item * self.per_item..]
    }

    /// All items' elements, when they lie one after the other.
    pub(crate) fn whole(&self) -> &'a [T] {
        self.all
    }

    /// Elements between items; zero when all items see the same.
    pub(crate) fn per_item(&self) -> usize {
        self.per_item
    }
}

/// What a step reads from.
pub(crate) struct Reads<'a> {
    bench: Lane<'a>,
    readable: Readable<'a>,
}

/// The parts of a [`Bench`] that no step writes.
#[derive(Clone, Copy)]
struct Lane<'a> {
    plan: &'a Plan,
    layout: &'a SlotLayout,
    weights: &'a [f32],
    constants: &'a [Constant],
}

impl<'a> Reads<'a> {
    /// An operand's elements as `T`, which has the operand's size of element.
    pub(crate) fn source<T: Pod>(&self, operand: Operand) -> Source<'a, T> {
        match operand {
            Operand::Buffer(id) => {
                let per_item = self.bench.plan.buffer(id).elements;
                Source { all: bytemuck::cast_slice(self.readable.words(id)), per_item }
            }
            Operand::Weight(id) => Source { all: bytemuck::cast_slice(self.weight(id)), per_item: 0 },
            Operand::Constant(id) => {
                let words = &self.bench.constants[id.0 as usize].words;
                Source { all: bytemuck::cast_slice(words), per_item: 0 }
            }
        }
    }

    /// The element type of an operand.
    pub(crate) fn dtype(&self, operand: Operand) -> DType {
        dtype(self.bench.plan, operand)
    }

    /// A packed tensor.
    pub(crate) fn weight(&self, id: WeightId) -> &'a [f32] {
        let tensor = &self.bench.layout.tensors[id.0 as usize];
        let start = tensor.offset / size_of::<f32>();
        &self.bench.weights[start..start + tensor.layout.elements()]
    }

    /// An epilogue with its operands, for one item.
    pub(crate) fn finish(&self, epilogue: &Epilogue, item: usize) -> Finish<'a> {
        Finish {
            bias: epilogue.bias.map(|bias| self.weight(bias)),
            residual: epilogue.residual.map(|residual| self.source(residual).at(item)),
            activation: epilogue.activation,
        }
    }
}

/// Which items failed, and why.
type Failures = Vec<(usize, RequestError)>;

impl<'a> Bench<'a> {
    fn lane(&self) -> Lane<'a> {
        Lane { plan: self.plan, layout: self.layout, weights: self.weights, constants: self.constants }
    }

    /// Borrows everything for a step that writes `outs`.
    fn open<'s, const N: usize>(
        &'s mut self,
        outs: [BufferId; N],
    ) -> (Reads<'s>, [&'s mut [u64]; N], &'s mut Scratch, &'s mut Failures)
    where
        'a: 's,
    {
        let lane = self.lane();
        let placed = Placed { plan: self.plan, items: self.items };
        let (readable, writable) = self.arena.split(placed, outs);
        (Reads { bench: lane, readable }, writable, self.scratch, self.failures)
    }

    /// Runs one step for all items.
    pub(crate) fn run(&mut self, step: &Step) {
        match &step.kind {
            StepKind::Gemm { .. } => conv::gemm(self, &step.kind),
            StepKind::Conv { .. } => conv::conv(self, &step.kind),
            StepKind::Depthwise { .. } => conv::depthwise(self, &step.kind),
            StepKind::Pool { .. } => pool::pool(self, &step.kind),
            StepKind::PoolIndices { .. } => pool::pool_indices(self, &step.kind),
            StepKind::GroupNorm { .. } => channels::group_norm(self, &step.kind),
            StepKind::Lrn { .. } => channels::lrn(self, &step.kind),
            StepKind::MatMul { .. } => matmul::matmul(self, &step.kind),
            StepKind::Attention { .. } => attention::attention(self, &step.kind),
            StepKind::LayerNorm { .. } => norm::layer_norm(self, &step.kind),
            StepKind::Softmax { .. } => norm::softmax(self, &step.kind),
            StepKind::Recurrent { .. } => recurrent::recurrent(self, &step.kind),
            StepKind::Gather { .. } => gather::gather(self, &step.kind),
            StepKind::Reduce { .. } => reduce::reduce(self, &step.kind),
            StepKind::Elementwise { .. } => elementwise::elementwise(self, &step.kind),
            StepKind::Copy { .. } => walk::copy(self, &step.kind),
            StepKind::Fill { .. } => walk::fill(self, &step.kind),
            StepKind::TopK(step) => lines::top_k(self, step),
            StepKind::CumSum(step) => lines::cum_sum(self, step),
            StepKind::Resample(step) => lines::resample(self, step),
            StepKind::Pick(step) => points::pick(self, step),
            StepKind::Scatter(step) => points::scatter(self, step),
        }
    }
}

/// The element type of an operand.
fn dtype(plan: &Plan, operand: Operand) -> DType {
    match operand {
        Operand::Buffer(id) => plan.buffer(id).dtype,
        Operand::Weight(_) => DType::F32,
        Operand::Constant(id) => plan.constants[id.0 as usize].dtype(),
    }
}

/// Why the CPU device cannot run a step, or `None` when it can. Asked when a program is made, so that no launch fails for it.
pub(crate) fn refusal(plan: &Plan, step: &Step) -> Option<String> {
    let f32s = |operand: Operand| dtype(plan, operand) == DType::F32;
    match &step.kind {
        StepKind::Reduce { x, .. } => {
            let plain = matches!(dtype(plan, x.operand), DType::F32 | DType::I64);
            (!plain).then(|| "reductions run over f32 and i64".to_owned())
        }
        StepKind::Elementwise { inputs, program, .. } => {
            let types: Vec<DType> = inputs.iter().map(|access| dtype(plan, access.operand)).collect();
            elementwise::refusal(&types, program)
        }
        StepKind::MatMul { a, b, .. } => {
            (!f32s(a.operand) || !f32s(b.operand)).then(|| "matrix products run over f32".to_owned())
        }
        StepKind::Softmax { x, .. } | StepKind::LayerNorm { x, .. } => {
            (!f32s(*x)).then(|| "normalisations run over f32".to_owned())
        }
        StepKind::TopK(TopK { x, .. }) | StepKind::CumSum(CumSum { x, .. }) => {
            numbers::refusal(dtype(plan, *x))
        }
        StepKind::Scatter(Scatter { how, updates, .. }) if *how != op::Scatter::Replace => {
            numbers::refusal(dtype(plan, *updates))
        }
        _ => None,
    }
}
