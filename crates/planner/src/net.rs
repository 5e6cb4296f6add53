//! The form that rewriting works on: the folded graph with every value's shape and, where it is known, its elements.
//!
//! ```text
//!   Folded + Facts ─▶ Net ─ rewrite: fewer, larger nodes ─▶ Net ─ lower ─▶ steps
//! ```
//! Nodes stay in an order in which every value is made before use. A rule replaces the *last* node of what it matches, so everything that
//! the new node reads is there; what nobody reads any more is then swept away.

use crate::describe::function_text;
use crate::fold::{Folded, Role};
use crate::graph::ValueId;
use crate::infer::{Facts, Known, Note};
use crate::op::{Op, Window};
use crate::pack::WeightId;
use crate::plan::{Activation, ElementOp};
use crate::tensor::{Element, Tensor};
use std::fmt;
use tessera_core::DType;

/// A graph at given dimensions, being rewritten.
#[derive(Clone, Debug, Default)]
pub(crate) struct Net {
    pub(crate) values: Vec<Value>,
    pub(crate) nodes: Vec<Node>,
    /// The values that an answer holds.
    pub(crate) outputs: Vec<ValueId>,
    /// Per value: the node that makes it.
    makers: Vec<Option<usize>>,
    /// Per value: how many inputs of nodes, and outputs of the net, are this value.
    uses: Vec<usize>,
}

/// A value per item.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) dims: Vec<usize>,
    pub(crate) source: Source,
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// The request.
    Input,
    /// The tenant's weights.
    Weight(WeightId, Role),
    /// It follows from shapes and literals alone.
    Known(Tensor),
    /// The same, but it depends on the item's index or on the number of items.
    PerItem,
    /// A node makes it.
    Made,
}

/// One operator, or several that were fused.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) inputs: Vec<Option<ValueId>>,
    pub(crate) outputs: Vec<Option<ValueId>>,
    /// What inference found out about it.
    pub(crate) note: Option<Note>,
}

/// What a node does.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Kind {
    /// As the graph says it.
    Op(Op),
    /// `(x, w, bias?, residual?)`: a product with a packed matrix over x's last axis.
    Linear(Activation),
    /// `(x, w, bias?, residual?)`.
    Conv(Window, usize, Activation),
    /// `(q […, queries, d], k […, d, keys], v […, keys, e], mask?)`.
    Attention {
        /// Factor of the scores.
        scale: f32,
    },
    /// `(x, scale)` over the axes from `axis` on: x by the root of the mean of its squares and `epsilon`.
    RmsNorm {
        /// First normalised axis.
        axis: usize,
        /// Added to the mean.
        epsilon: f32,
    },
    /// A chain; `Load(i)` is input `i`.
    Chain(Vec<ElementOp>),
}

impl Net {
    /// The folded graph with what is known of it. Nodes whose results are all known, or read by nobody, are left out.
    pub(crate) fn new(folded: &Folded, facts: &Facts) -> Net {
        let graph = &folded.graph;
        let mut net = Net::default();
        for (index, name) in graph.values.iter().enumerate() {
            let id = ValueId(u32::try_from(index).expect("values are counted in u32"));
            let fact = facts.get(id);
            net.values.push(Value {
                name: name.clone(),
                dtype: fact.map_or(DType::F32, |fact| fact.dtype),
                dims: fact.map_or_else(Vec::new, |fact| fact.dims.clone()),
                source: match fact.and_then(|fact| fact.known.as_ref()) {
                    Some(Known::Tensor(tensor)) => Source::Known(tensor.clone()),
                    Some(Known::Numbers(_)) => Source::PerItem,
                    None => Source::Made,
                },
            });
        }
        for (index, weight) in folded.weights.iter().enumerate() {
            let id = WeightId(u32::try_from(index).expect("a model has fewer weights than 2³²"));
            net.values[weight.value.0 as usize].source = Source::Weight(id, weight.role);
        }
        for input in &graph.inputs {
            net.values[input.value.0 as usize].source = Source::Input;
        }
        net.outputs = graph.outputs.iter().map(|output| output.value).collect();
        for (index, node) in graph.nodes.iter().enumerate() {
            let made = |id: &ValueId| matches!(net.get(*id).source, Source::Made);
            if node.outputs.iter().flatten().any(made) {
                let inputs = node.inputs.clone();
                net.add(
                    &node.name,
                    node.op.clone(),
                    inputs,
                    node.outputs.clone(),
                    facts.note(index).cloned(),
                );
            }
        }
        net.sweep();
        net
    }

    /// Adds an operator of the graph at the end, products with packed matrices and convolutions in their own kinds.
    pub(crate) fn add(
        &mut self,
        name: &str,
        op: Op,
        mut inputs: Vec<Option<ValueId>>,
        outputs: Vec<Option<ValueId>>,
        note: Option<Note>,
    ) {
        let kind = match op {
            Op::Gemm { .. } => Kind::Linear(Activation::Identity),
            Op::Conv(window, groups) => Kind::Conv(window, groups, Activation::Identity),
            other => Kind::Op(other),
        };
        if matches!(kind, Kind::Linear(_) | Kind::Conv(..)) {
            inputs.resize(4, None);
        }
        let name = name.trim_start_matches('/').to_string();
        self.nodes.push(Node { name, kind, inputs, outputs, note });
    }

    pub(crate) fn get(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    pub(crate) fn dims(&self, id: ValueId) -> &[usize] {
        &self.get(id).dims
    }

    /// The node that makes a value.
    pub(crate) fn maker(&self, value: ValueId) -> Option<usize> {
        self.makers[value.0 as usize]
    }

    /// The node that makes a value, when nobody else reads it than the one who asks.
    pub(crate) fn sole_maker(&self, value: ValueId) -> Option<usize> {
        if self.uses[value.0 as usize] == 1 { self.maker(value) } else { None }
    }

    /// How often a value is read, by nodes or as an output.
    pub(crate) fn uses(&self, value: ValueId) -> usize {
        self.uses[value.0 as usize]
    }

    /// The operator that makes a value, with its inputs, when there is one and all its inputs are given.
    pub(crate) fn made_by(&self, value: ValueId) -> Option<(&Op, Vec<ValueId>)> {
        let node = &self.nodes[self.maker(value)?];
        let Kind::Op(op) = &node.kind else { return None };
        let inputs: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
        (inputs.len() == node.inputs.len()).then_some((op, inputs))
    }

    /// The tensor, when the value is known.
    pub(crate) fn tensor(&self, value: ValueId) -> Option<&Tensor> {
        match &self.get(value).source {
            Source::Known(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The one element of a known value of type `T`, whatever its rank.
    pub(crate) fn element<T: Element>(&self, value: ValueId) -> Option<T> {
        let tensor = self.tensor(value)?;
        if tensor.len() == 1 { tensor.elements::<T>()?.first().copied() } else { None }
    }

    /// The one element of a known float value.
    pub(crate) fn scalar(&self, value: ValueId) -> Option<f32> {
        self.element::<f32>(value)
    }

    /// Known integers of either width.
    pub(crate) fn integers(&self, value: ValueId) -> Option<Vec<i64>> {
        let tensor = self.tensor(value)?;
        tensor
            .elements::<i64>()
            .or_else(|| tensor.elements::<i32>().map(|all| all.into_iter().map(i64::from).collect()))
    }

    /// Of the two inputs of a commutative operator, the known scalar and the other one.
    pub(crate) fn scalar_and_other(&self, inputs: &[ValueId]) -> Option<(f32, ValueId)> {
        match *inputs {
            [a, b] => match (self.scalar(a), self.scalar(b)) {
                (_, Some(scalar)) => Some((scalar, a)),
                (Some(scalar), None) => Some((scalar, b)),
                (None, None) => None,
            },
            _ => None,
        }
    }

    /// A new value like `like`, made by whichever node lists it as an output.
    pub(crate) fn fresh(&mut self, like: &Value) -> ValueId {
        self.values.push(Value { source: Source::Made, ..like.clone() });
        self.makers.push(None);
        self.uses.push(0);
        ValueId(u32::try_from(self.values.len() - 1).expect("a graph has fewer than 2³² values"))
    }

    /// A new value that everybody knows.
    pub(crate) fn known(&mut self, tensor: Tensor) -> ValueId {
        let (dtype, dims) = (tensor.dtype(), tensor.dims().to_vec());
        let id = self.fresh(&Value { name: String::new(), dtype, dims, source: Source::Made });
        self.values[id.0 as usize].source = Source::Known(tensor);
        id
    }

    /// Removes nodes whose results nobody reads, and counts makers and uses anew.
    pub(crate) fn sweep(&mut self) {
        self.uses = vec![0; self.values.len()];
        for output in &self.outputs {
            self.uses[output.0 as usize] += 1;
        }
        // Readers come after makers, so one pass from the end sees every reader first.
        let mut kept = Vec::with_capacity(self.nodes.len());
        for mut node in std::mem::take(&mut self.nodes).into_iter().rev() {
            for output in &mut node.outputs {
                *output = output.filter(|id| self.uses[id.0 as usize] > 0);
            }
            if node.outputs.iter().all(Option::is_none) {
                continue;
            }
            for input in node.inputs.iter().flatten() {
                self.uses[input.0 as usize] += 1;
            }
            kept.push(node);
        }
        kept.reverse();
        self.nodes = kept;
        self.makers = vec![None; self.values.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for output in node.outputs.iter().flatten() {
                self.makers[output.0 as usize] = Some(index);
            }
        }
    }
}

impl fmt::Display for Net {
    /// One node a line: `%3 f32[1, 8] = Linear+relu(%1, w0, w1)`. Known scalars are written as their value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in &self.nodes {
            let outputs: Vec<String> = node.outputs.iter().flatten().map(|&id| self.typed(id)).collect();
            let inputs: Vec<String> =
                node.inputs.iter().map(|id| id.map_or("-".to_string(), |id| self.short(id))).collect();
            writeln!(f, "{} = {}({})", outputs.join(", "), kind_text(&node.kind), inputs.join(", "))?;
        }
        let outputs: Vec<String> = self.outputs.iter().map(|&id| self.short(id)).collect();
        write!(f, "→ {}", outputs.join(", "))
    }
}

impl Net {
    fn typed(&self, id: ValueId) -> String {
        format!("%{} {}{:?}", id.0, self.get(id).dtype, self.dims(id))
    }

    fn short(&self, id: ValueId) -> String {
        match &self.get(id).source {
            Source::Weight(weight, _) => format!("w{}", weight.0),
            Source::Known(tensor) => match (self.element::<f32>(id), self.element::<i64>(id)) {
                (Some(x), _) => format!("{x}"),
                (_, Some(x)) => format!("{x}"),
                _ => format!("{tensor:?}"),
            },
            Source::Input | Source::PerItem | Source::Made => format!("%{}", id.0),
        }
    }
}

fn kind_text(kind: &Kind) -> String {
    match kind {
        Kind::Op(op) => format!("{op:?}"),
        Kind::Linear(activation) => format!("Linear{}", activation_text(*activation)),
        Kind::Conv(window, groups, activation) => {
            format!("Conv{:?}×{groups}{}", window.kernel, activation_text(*activation))
        }
        Kind::Attention { scale } => format!("Attention·{scale}"),
        Kind::RmsNorm { axis, epsilon } => format!("RmsNorm·{axis}·{epsilon:?}"),
        Kind::Chain(program) => format!("Chain{program:?}"),
    }
}

/// `+relu`, `+clip(0, 6)`, nothing for the identity.
pub(crate) fn activation_text(activation: Activation) -> String {
    match activation {
        Activation::Identity => String::new(),
        Activation::Clip { low: 0.0, high: f32::INFINITY } => "+relu".to_string(),
        Activation::Clip { low, high } => format!("+clip({low}, {high})"),
        Activation::Unary(function) => format!("+{}", function_text(function)),
    }
}

#[cfg(test)]
pub(crate) mod build {
    //! Small nets for the tests of rules.

    use super::*;

    /// A product with a packed matrix, as folded graphs have it.
    pub(crate) const GEMM: Op = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };

    impl Net {
        pub(crate) fn input(&mut self, dims: &[usize]) -> ValueId {
            let dims = dims.to_vec();
            let like = Value { name: "x".into(), dtype: DType::F32, dims, source: Source::Made };
            let id = self.fresh(&like);
            self.values[id.0 as usize].source = Source::Input;
            id
        }

        pub(crate) fn weight(&mut self, index: u32, role: Role, dims: &[usize]) -> ValueId {
            let id = self.input(dims);
            self.values[id.0 as usize].source = Source::Weight(WeightId(index), role);
            id
        }

        pub(crate) fn float(&mut self, x: f32) -> ValueId {
            self.known(Tensor::scalar(x))
        }

        pub(crate) fn op(&mut self, op: Op, inputs: &[ValueId], dims: &[usize]) -> ValueId {
            let dims = dims.to_vec();
            let like = Value { name: "y".into(), dtype: DType::F32, dims, source: Source::Made };
            let out = self.fresh(&like);
            let inputs = inputs.iter().copied().map(Some).collect();
            self.add("node", op, inputs, vec![Some(out)], None);
            out
        }

        pub(crate) fn output(&mut self, value: ValueId) {
            self.outputs.push(value);
            self.sweep();
        }
    }
}
