//! From rewritten nodes to steps.
//!
//! ```text
//!   Folded ─infer─▶ Facts ─┬─▶ Net ─rewrite─▶ Net ─lower─▶ steps ─place─▶ Plan ─verify─▶
//!   weights' shapes ───────┘
//! ```
//! Every value is a [`View`]: a walk over a buffer, a weight or a constant. Nodes that only move elements make views and no
//! steps; steps that can walk read views as they are; the others get a dense copy, in the order of axes that they ask for.

mod attention;
mod chain;
mod channels;
mod einsum;
mod linear;
mod moves;
mod pixels;
mod pool;
mod recurrent;
mod rows;
mod select;
mod transposed;
pub(crate) mod view;
mod volume;
mod window;
mod work;

use crate::fold::{Folded, Role};
use crate::graph::ValueId;
use crate::infer::{DimValue, InferError, infer};
use crate::net::{Kind, Net, Node, Source};
use crate::op::Op;
use crate::pack::{SlotLayout, WeightId};
use crate::place::{Claim, place};
use crate::plan::{Buffer, BufferId, ConstantId, LrnShape, Operand, Plan, PoolKind, Port, Step, StepKind};
use crate::rewrite::rewrite;
use crate::segment::segments;
use crate::tensor::Tensor;
use crate::verify::{VerifyError, verify};
use std::collections::HashMap;
use std::ops::Range;
use tessera_core::{DType, PlanKey};
use view::View;

/// Why a class cannot be planned at some dimensions.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum PlanError {
    /// The graph has no meaning at these dimensions, or none item by item.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// An operator that no step does.
    #[error("node `{node}` ({op}): {why}")]
    Unsupported {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// What is missing.
        why: String,
    },
    /// The activations of one item do not fit memory.
    #[error("one item needs {bytes} bytes of activations at these dimensions, more than memory can address")]
    TooLarge {
        /// What all buffers take together, as far as it can be counted.
        bytes: u64,
    },
    /// The operations of one item are more than can be counted.
    #[error(
        "one item takes more than 2⁶⁴ operations at these dimensions, which no device ends, most of them in `{node}`; ask for smaller ones"
    )]
    TooMuchWork {
        /// The step that takes most.
        node: String,
    },
    /// A mistake of the planner: the plan breaks a rule that devices rely on.
    #[error("the planner made a plan that breaks its own rules, please report this: {0}")]
    Internal(#[from] VerifyError),
}

/// Plans a class at given free dimensions: one per entry of the class's `free_dims`, with at most one being the item count.
///
/// Items are batched when one of `dims` is [`DimValue::Items`]; when their independence cannot be proven this is
/// [`PlanError::Infer`] with [`InferError::MixesItems`], and the caller plans whole requests instead. Costs a few passes over
/// the graph. The layout is the one that the same folded graph is packed by.
pub fn plan(
    key: PlanKey,
    folded: &Folded,
    layout: &SlotLayout,
    dims: &[DimValue],
) -> Result<Plan, PlanError> {
    let weights: Vec<_> = folded.weights.iter().map(|weight| (weight.value, weight.dims.clone())).collect();
    let facts = infer(&folded.graph, &weights, dims)?;
    let mut net = Net::new(folded, &facts);
    rewrite(&mut net);
    let mut lowering = Lowering::new(&net);
    let mut plan = Plan {
        key,
        batched: dims.contains(&DimValue::Items),
        inputs: Vec::new(),
        outputs: Vec::new(),
        steps: Vec::new(),
        buffers: Vec::new(),
        arena_per_item: tessera_core::Bytes::ZERO,
        constants: Vec::new(),
        segments: Vec::new(),
    };
    for input in &folded.graph.inputs {
        let (dtype, dims) = (net.get(input.value).dtype, net.dims(input.value).to_vec());
        let buffer = lowering.buffer(dtype, dims.iter().product());
        lowering.set(input.value, View::dense(Operand::Buffer(buffer), &dims));
        plan.inputs.push(Port { dtype, dims, at: Operand::Buffer(buffer) });
    }
    for node in &net.nodes {
        lowering.node(node)?;
    }
    for output in &folded.graph.outputs {
        let dims = net.dims(output.value).to_vec();
        let at = lowering.output(output.value, &output.name)?;
        plan.outputs.push(Port { dtype: net.get(output.value).dtype, dims, at });
    }
    let Lowering { steps, buffers, constants, .. } = lowering;
    (plan.steps, plan.constants) = (steps, constants);
    place_buffers(&mut plan, &buffers).ok_or_else(|| PlanError::TooLarge {
        bytes: buffers.iter().fold(0, |sum: u64, (dtype, elements)| {
            sum.saturating_add(dtype.size().saturating_mul(*elements) as u64)
        }),
    })?;
    work::countable(&plan.steps)?;
    plan.segments = segments(&plan.steps.iter().map(|step| step.flops).collect::<Vec<_>>());
    verify(&plan, layout)?;
    Ok(plan)
}

/// Finds every buffer's lifetime and place. `None` when the arena does not fit memory.
fn place_buffers(plan: &mut Plan, buffers: &[(DType, usize)]) -> Option<()> {
    let steps = plan.steps.len();
    let mut live: Vec<Option<Range<usize>>> = vec![None; buffers.len()];
    let mut touch = |operand: Operand, step: usize| {
        if let Operand::Buffer(id) = operand {
            let range = live[id.0 as usize].get_or_insert(step..step + 1);
            *range = range.start.min(step)..range.end.max(step + 1);
        }
    };
    // Inputs are there before the first step, outputs until after the last.
    plan.inputs.iter().for_each(|port| touch(port.at, 0));
    for (index, step) in plan.steps.iter().enumerate() {
        step.kind.reads().into_iter().for_each(|(read, _)| touch(read.operand(), index));
        step.kind.writes().into_iter().for_each(|write| touch(Operand::Buffer(write.buffer), index));
    }
    plan.outputs.iter().for_each(|port| touch(port.at, steps.saturating_sub(1)));
    let precision = plan.key.precision;
    let claims: Vec<Claim> = buffers
        .iter()
        .zip(live)
        .map(|(&(dtype, elements), live)| {
            let bytes = elements.checked_mul(precision.stored(dtype).size())?;
            Some(Claim { bytes, live: live.unwrap_or(0..0) })
        })
        .collect::<Option<_>>()?;
    let (offsets, bytes) = place(&claims)?;
    plan.arena_per_item = bytes;
    plan.buffers = buffers
        .iter()
        .zip(claims.into_iter().zip(offsets))
        .map(|(&(dtype, elements), (claim, offset))| Buffer { dtype, elements, offset, live: claim.live })
        .collect();
    Some(())
}

/// A plan on its way.
struct Lowering<'n> {
    net: &'n Net,
    views: Vec<Option<View>>,
    steps: Vec<Step>,
    /// Element type and number of elements.
    buffers: Vec<(DType, usize)>,
    constants: Vec<Tensor>,
    /// Where equal constants are.
    constant_ids: HashMap<(DType, Vec<u8>), ConstantId>,
    /// The nodes that read each value.
    readers: Vec<Vec<usize>>,
}

impl<'n> Lowering<'n> {
    fn new(net: &'n Net) -> Lowering<'n> {
        let mut readers = vec![Vec::new(); net.values.len()];
        for (index, node) in net.nodes.iter().enumerate() {
            node.inputs.iter().flatten().for_each(|input| readers[input.0 as usize].push(index));
        }
        Lowering {
            net,
            views: vec![None; net.values.len()],
            steps: Vec::new(),
            buffers: Vec::new(),
            constants: Vec::new(),
            constant_ids: HashMap::new(),
            readers,
        }
    }

    /// Lowers one node: steps, or only views.
    fn node(&mut self, node: &Node) -> Result<(), PlanError> {
        if self.is_empty(node)? {
            return Ok(());
        }
        match &node.kind {
            Kind::Linear(activation) => self.linear(node, *activation),
            Kind::Conv(window, groups, activation) => self.conv(node, window, *groups, *activation),
            Kind::Attention { scale } => self.attention(node, *scale),
            Kind::RmsNorm { axis, epsilon } => self.rms_norm(node, *axis, *epsilon),
            Kind::Chain(program) => self.chain(node, program),
            Kind::Op(op) => match op {
                Op::MatMul => self.matmul(node),
                Op::Einsum(equation) => self.einsum(node, equation),
                Op::MaxPool(window) => self.pool(node, window, PoolKind::Max),
                Op::SumPool(window) => self.pool(node, window, PoolKind::Sum),
                &Op::AveragePool(ref window, count_padding) => {
                    self.pool(node, window, PoolKind::Average { count_padding })
                }
                Op::MaxPoolIndices(window, column_major) => self.pool_indices(node, window, *column_major),
                Op::GroupNorm { groups, epsilon } => self.group_norm(node, *groups, *epsilon),
                &Op::Lrn { size, alpha, beta, bias } => self.lrn(node, LrnShape { size, alpha, beta, bias }),
                Op::LayerNorm { axis, epsilon } => self.layer_norm(node, *axis, *epsilon),
                Op::Softmax { axis, log } => self.softmax(node, *axis, *log),
                Op::Reduce { kind, .. } => self.reduce(node, *kind),
                Op::Recurrent(layer) => self.recurrent(node, layer),
                Op::Reshape { .. } | Op::Flatten { .. } | Op::Squeeze | Op::Unsqueeze => self.reshape(node),
                Op::Transpose { perm } => self.transpose(node, perm),
                Op::Concat { axis } => self.concat(node, *axis),
                Op::Split { axis } => self.split(node, *axis),
                Op::Slice => self.slice(node),
                Op::Gather { axis } => self.gather(node, *axis),
                Op::GatherElements { axis } => self.gather_elements(node, *axis),
                Op::Expand => self.expand(node),
                Op::Pad(mode) => self.pad(node, *mode),
                Op::Tile => self.tile(node),
                Op::DepthToSpace { block, depth_first } => self.depth_to_space(node, *block, *depth_first),
                Op::SpaceToDepth { block, depth_first } => self.space_to_depth(node, *block, *depth_first),
                Op::Resize(resize) => self.resize(node, resize),
                Op::GatherNd { batch_dims } => self.gather_nd(node, *batch_dims),
                Op::ScatterElements { axis, how } => self.scatter_elements(node, *axis, *how),
                Op::ScatterNd(how) => self.scatter_nd(node, *how),
                Op::CumSum { exclusive, reverse } => self.cum_sum(node, *exclusive, *reverse),
                Op::TopK { axis, largest } => self.top_k(node, *axis, *largest),
                Op::Arg { largest, axis, last, .. } => self.arg(node, *axis, *largest, *last),
                Op::ConstantOfShape { value } => self.constant_of_shape(node, value),
                Op::Trilu { .. } | Op::OneHot { .. } => {
                    Err(self.unsupported(node, "its positions are too many, or its diagonal is not known"))
                }
                Op::Shape { .. } | Op::Range | Op::NonZero => {
                    Err(self
                        .unsupported(node, "its result would have to be known when the request is planned"))
                }
                Op::Unary(_) | Op::Binary(_) | Op::Where | Op::Clip | Op::Cast(_) => {
                    Err(self.unsupported(node, "an input is missing"))
                }
                Op::Gemm { .. } | Op::Conv(..) | Op::ConvTranspose(..) | Op::BatchNorm { .. } => {
                    Err(self.unsupported(node, "folding should have replaced it"))
                }
            },
        }
    }

    /// Whether a node makes nothing; then its outputs are empty buffers. What is made of nothing is refused, except that parts of
    /// concatenations may be empty.
    fn is_empty(&mut self, node: &Node) -> Result<bool, PlanError> {
        let empty = |id: &ValueId| self.net.dims(*id).contains(&0);
        if node.outputs.iter().flatten().all(empty) {
            for &output in node.outputs.iter().flatten() {
                let buffer = self.buffer(self.net.get(output).dtype, 0);
                self.set(output, View::dense(Operand::Buffer(buffer), self.net.dims(output)));
            }
            return Ok(true);
        }
        let may_be_empty = matches!(node.kind, Kind::Op(Op::Concat { .. } | Op::Pad(_) | Op::Split { .. }));
        let data = node.inputs.first().copied().flatten();
        if !may_be_empty && data.as_ref().is_some_and(empty) {
            return Err(self.unsupported(node, "its input has no elements"));
        }
        Ok(false)
    }

    fn unsupported(&self, node: &Node, why: impl Into<String>) -> PlanError {
        let op = match &node.kind {
            Kind::Op(op) => op.name().to_string(),
            Kind::Linear(_) => "Gemm".to_string(),
            Kind::Conv(..) => "Conv".to_string(),
            Kind::Attention { .. } => "Attention".to_string(),
            Kind::RmsNorm { .. } => "RMSNormalization".to_string(),
            Kind::Chain(_) => "element-wise".to_string(),
        };
        PlanError::Unsupported { node: self.node_name(node), op, why: why.into() }
    }

    /// The node's name, else that of what it makes.
    fn node_name(&self, node: &Node) -> String {
        if !node.name.is_empty() {
            return node.name.clone();
        }
        node.outputs.iter().flatten().next().map_or_else(String::new, |&id| self.net.get(id).name.clone())
    }

    fn buffer(&mut self, dtype: DType, elements: usize) -> BufferId {
        self.buffers.push((dtype, elements));
        BufferId(u32::try_from(self.buffers.len() - 1).expect("a plan has fewer than 2³² buffers"))
    }

    fn constant(&mut self, tensor: &Tensor) -> ConstantId {
        let key = (tensor.dtype(), tensor.bytes().to_vec());
        *self.constant_ids.entry(key).or_insert_with(|| {
            self.constants.push(tensor.clone());
            ConstantId(u32::try_from(self.constants.len() - 1).expect("a plan has fewer than 2³² constants"))
        })
    }

    fn push(&mut self, node: &Node, kind: StepKind, flops: u64) {
        let name = self.node_name(node);
        self.steps.push(Step { name, kind, flops });
    }

    fn set(&mut self, id: ValueId, view: View) {
        self.views[id.0 as usize] = Some(view);
    }

    /// A new dense buffer for a value whose axes it holds in the order `order`, and the view of it.
    fn make(&mut self, dtype: DType, dims: &[usize], order: &[usize]) -> (BufferId, View) {
        let buffer = self.buffer(dtype, dims.iter().product());
        (buffer, View::ordered(Operand::Buffer(buffer), dims, order))
    }

    /// How a value is read.
    fn view(&mut self, node: &Node, id: ValueId) -> Result<View, PlanError> {
        if let Some(view) = &self.views[id.0 as usize] {
            return Ok(view.clone());
        }
        let value = self.net.get(id);
        let view = match &value.source {
            Source::Weight(weight, Role::Plain) => View::dense(Operand::Weight(*weight), &value.dims),
            Source::Weight(..) => {
                return Err(self.unsupported(node, "it reads a weight that is packed for products"));
            }
            Source::Known(tensor) => self.known(tensor),
            Source::PerItem => {
                let why = format!("it computes with `{}`, which depends on the item count", value.name);
                return Err(self.unsupported(node, why));
            }
            Source::Input | Source::Made => {
                return Err(self.unsupported(node, format!("`{}` is not made before it", value.name)));
            }
        };
        self.set(id, view.clone());
        Ok(view)
    }

    /// A known tensor as a constant; one element where all are equal.
    fn known(&mut self, tensor: &Tensor) -> View {
        let size = tensor.dtype().size();
        let first = tensor.bytes().get(..size);
        if let Some(first) = first.filter(|first| tensor.bytes().chunks_exact(size).all(|one| one == *first))
        {
            let one =
                Tensor::new(tensor.dtype(), vec![1], first.to_vec()).expect("one element has its own size");
            let operand = Operand::Constant(self.constant(&one));
            let dims = tensor.dims().to_vec();
            return View { operand, offset: 0, strides: vec![0; dims.len()], dims };
        }
        View::dense(Operand::Constant(self.constant(tensor)), tensor.dims())
    }

    /// The view of a node's input that must be there.
    fn input(&mut self, node: &Node, index: usize) -> Result<View, PlanError> {
        let id = self.input_id(node, index)?;
        self.view(node, id)
    }

    fn input_id(&self, node: &Node, index: usize) -> Result<ValueId, PlanError> {
        let id = node.inputs.get(index).copied().flatten();
        id.ok_or_else(|| self.unsupported(node, format!("input {index} is missing")))
    }

    /// The view of a node's input that may be left out.
    fn optional(&mut self, node: &Node, index: usize) -> Result<Option<View>, PlanError> {
        node.inputs.get(index).copied().flatten().map(|id| self.view(node, id)).transpose()
    }

    /// A packed weight of a node, whatever its layout.
    fn packed(&self, node: &Node, index: usize) -> Result<(WeightId, Role), PlanError> {
        match self.net.get(self.input_id(node, index)?).source {
            Source::Weight(id, role) => Ok((id, role)),
            _ => Err(self.unsupported(node, format!("input {index} must be a weight"))),
        }
    }

    /// An axis that may count from the end.
    fn axis(&self, node: &Node, axis: i64, rank: usize) -> Result<usize, PlanError> {
        let found = crate::shape::axis(axis, rank);
        found.ok_or_else(|| self.unsupported(node, format!("there is no axis {axis} of {rank}")))
    }

    fn output_id(&self, node: &Node) -> Result<ValueId, PlanError> {
        let id = node.outputs.first().copied().flatten();
        id.ok_or_else(|| self.unsupported(node, "its first output is not read"))
    }

    /// Number of elements of an operand.
    fn size_of(&self, operand: Operand) -> usize {
        match operand {
            Operand::Buffer(id) => self.buffers[id.0 as usize].1,
            Operand::Constant(id) => self.constants[id.0 as usize].len(),
            Operand::Weight(id) => {
                let is_this = |source: &Source| matches!(source, Source::Weight(other, _) if *other == id);
                let value = self.net.values.iter().find(|value| is_this(&value.source));
                value.map_or(0, |value| value.dims.iter().product())
            }
        }
    }

    fn dtype_of(&self, operand: Operand) -> DType {
        match operand {
            Operand::Buffer(id) => self.buffers[id.0 as usize].0,
            Operand::Constant(id) => self.constants[id.0 as usize].dtype(),
            Operand::Weight(_) => DType::F32,
        }
    }

    /// An operand that is the view's elements, dense, its axes lying in the order `order`: the view's own where it is that already, else a copy.
    fn dense_in(&mut self, node: &Node, view: &View, order: &[usize]) -> Operand {
        let walked = view.permuted(order);
        if walked.is_dense(self.size_of(view.operand)) {
            return view.operand;
        }
        let buffer = self.buffer(self.dtype_of(view.operand), view.elements());
        self.copy(node, &walked, buffer, &View::dense(Operand::Buffer(buffer), &walked.dims));
        Operand::Buffer(buffer)
    }

    /// The same, row-major.
    fn dense(&mut self, node: &Node, view: &View) -> Operand {
        let order: Vec<usize> = (0..view.dims.len()).collect();
        self.dense_in(node, view, &order)
    }

    /// A copy of `from` to the place `to` in a buffer, both of the same dimensions.
    fn copy(&mut self, node: &Node, from: &View, buffer: BufferId, to: &View) {
        // Nothing is moved, and where it would be read from may be outside.
        if from.dims.contains(&0) {
            return;
        }
        let merged = view::merge(&from.dims, &[&from.strides, &to.strides]);
        let kind = StepKind::Copy {
            dims: merged.iter().map(|(dim, _)| *dim).collect(),
            x: crate::plan::Access {
                operand: from.operand,
                offset: from.offset,
                strides: merged.iter().map(|(_, strides)| strides[0]).collect(),
            },
            out: buffer,
            out_offset: to.offset,
            out_strides: merged
                .iter()
                .map(|(_, strides)| usize::try_from(strides[1]).expect("copies are written forwards"))
                .collect(),
        };
        let name = format!("copy for {}", self.node_name(node));
        self.steps.push(Step { name, kind, flops: 0 });
    }

    /// Where an output lies: dense and row-major, in a buffer or a constant.
    fn output(&mut self, id: ValueId, name: &str) -> Result<Operand, PlanError> {
        if let Source::Known(tensor) = &self.net.get(id).source {
            return Ok(Operand::Constant(self.constant(tensor)));
        }
        let node = Node {
            name: format!("output {name}"),
            kind: Kind::Chain(Vec::new()),
            inputs: vec![Some(id)],
            outputs: Vec::new(),
            note: None,
        };
        let view = self.view(&node, id)?;
        Ok(match self.dense(&node, &view) {
            // A weight is no activation: an answer needs its own copy.
            Operand::Weight(_) => {
                let buffer = self.buffer(DType::F32, view.elements());
                self.copy(&node, &view, buffer, &View::dense(Operand::Buffer(buffer), &view.dims));
                Operand::Buffer(buffer)
            }
            operand => operand,
        })
    }
}
