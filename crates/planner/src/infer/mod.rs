//! Shapes, types and known values of a graph whose free dimensions are given, with the item count left open.
//!
//! ```text
//!   ids [n, 16] ─ Shape → (n, 16) ─ Concat → (n, 16, 2, 32) ─┐
//!   x [n, 16, 64] ───────────────────────────────────────── Reshape → [n, 16, 2, 32]: per item [1, 16, 2, 32], items on axis 0
//! ```
//! Every value has a shape *per item*. A value of logical shape `[t, n·k, f]`, with `n` items on axis 1, has per-item
//! dimensions `[t, k, f]` and item axis 1 (`[t·n·k, f]` has `[t·k, f]`: the items come round `t` times); each operator then means on one item what ONNX says it means on the whole, which
//! is exactly the proof that items are independent. An operator that would mix items (a softmax over the item axis, a
//! reshape that moves it) is an error, `InferError::MixesItems`, and the class is planned a whole request at a time.
//!
//! Exporters compute shapes and indices with operators (`Shape`, `Gather`, `Range`, …). Small values that follow from shapes and literals
//! are therefore evaluated here, integers over numbers that may mention the item count `n` and the item's own index `i`: [`Number`]. That is
//! how a gather at `i·length + j` of flattened rows is seen to stay inside its item.
//!
//! With no dimension left open this is plain shape inference, and every shape is concrete.

mod contract;
mod einsum;
mod elementwise;
mod fact;
mod known;
mod moves;
mod normal;
mod number;
mod pixels;
mod recurrent;
mod select;
mod shapes;

pub use fact::{Fact, Known};
pub use number::Number;

use crate::graph::{Dim, Graph, Node, ParamData, ValueId};
use crate::op::Op;
use crate::tensor::{Tensor, checked_len};
use fact::Args;
use std::ops::Index;
use tessera_core::DType;

/// How a free dimension is given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DimValue {
    /// So many, in this plan.
    Fixed(u64),
    /// The item count, left open.
    Items,
}

/// Why a graph has no meaning at the given dimensions, or none item by item.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InferError {
    /// A node's inputs do not fit it.
    #[error("{at}: {why}")]
    Invalid {
        /// The node, its operator and what it was given.
        at: String,
        /// What does not fit.
        why: String,
    },
    /// The answer for one item would depend on other items, or on how many there are.
    #[error(
        "{at} mixes items: {why}; requests of this model cannot be batched unless axis 0 of every input and output is an independent batch"
    )]
    MixesItems {
        /// The node with its operator and what it was given, or the input or output.
        at: String,
        /// How.
        why: String,
    },
    /// A shape would depend on what a request holds.
    #[error("{at}: {why}, which depends on the data of a request; export the model with fixed shapes")]
    DataDependent {
        /// The node, its operator and what it was given.
        at: String,
        /// What is not known.
        why: String,
    },
    /// Something is read before it is made.
    #[error("node `{node}` reads `{value}`, which nothing before it makes")]
    Undefined {
        /// The node.
        node: String,
        /// The value.
        value: String,
    },
    /// Fewer or more dimensions were given than the graph leaves free.
    #[error("the model leaves {want} dimensions free, but {got} were given")]
    FreeDims {
        /// How many the graph has.
        want: usize,
        /// How many were given.
        got: usize,
    },
}

/// Why a rule has no answer; the node is added by [`infer`].
#[derive(Clone, PartialEq, Eq, Debug)]
enum Reason {
    Invalid(String),
    Mixes(String),
    DataDependent(String),
}

/// What inference found out about a node beyond the facts of its outputs, for lowering: attributes and shape inputs, resolved per item.
#[derive(Clone, PartialEq, Debug)]
pub enum Note {
    /// A gather or scatter along the item axis that stays inside its item: on one item it is one along the same axes with these
    /// constant indices (i64, of the shape that one item's indices have).
    WithinItem {
        /// Rows of one item.
        indices: Tensor,
    },
    /// A slice: along axis `a` element `j` of the output is element `starts[a] + j·steps[a]` of the input.
    Slice {
        /// First element taken, per axis.
        starts: Vec<usize>,
        /// Distance of the elements taken, per axis; may be negative.
        steps: Vec<i64>,
    },
    /// The axes that a reduction combines, in increasing order.
    Reduce {
        /// The axes.
        axes: Vec<usize>,
    },
    /// Elements added before and after each axis; negative ones are taken away.
    Pad {
        /// In front, per axis.
        before: Vec<i64>,
        /// Behind, per axis.
        after: Vec<i64>,
    },
    /// The axes that a resize changes, in increasing order.
    Resize {
        /// The axes.
        axes: Vec<crate::resample::Axis>,
    },
}

/// What is known of every value of a graph.
#[derive(Clone, PartialEq, Debug)]
pub struct Facts {
    facts: Vec<Option<Fact>>,
    notes: Vec<Option<Note>>,
}

impl Facts {
    /// What is known of `value`; `None` when the graph defines no such value.
    pub fn get(&self, value: ValueId) -> Option<&Fact> {
        self.facts.get(value.0 as usize)?.as_ref()
    }

    /// What lowering should know of the node at this place of [`Graph::nodes`].
    pub fn note(&self, node: usize) -> Option<&Note> {
        self.notes.get(node)?.as_ref()
    }
}

impl Index<ValueId> for Facts {
    type Output = Fact;

    /// What is known of a value that the graph defines; panics for any other.
    fn index(&self, value: ValueId) -> &Fact {
        self.get(value).expect("the graph that was inferred defines this value")
    }
}

/// What a rule says of a node: a fact for each output, wanted or not, and perhaps a note.
struct Outcome {
    outputs: Vec<Fact>,
    note: Option<Note>,
}

impl From<Fact> for Outcome {
    fn from(fact: Fact) -> Outcome {
        Outcome { outputs: vec![fact], note: None }
    }
}

type Rule = Result<Outcome, Reason>;

/// No value is larger than this, per item: sums of many sizes then cannot overflow.
const MOST_BYTES: usize = 1 << 40;

/// Infers every value of `graph`.
///
/// `weights` are values that hold f32 weights beside those of `graph.params`; this is how a folded graph ([`crate::fold::Folded`]) names its
/// own. `dims` gives `graph.free_dims`, in order. Costs are those of the graph's size; known values are evaluated up to 2²⁰ elements.
///
/// Errors when shapes or types do not fit, when a shape depends on a request's data, and, with [`DimValue::Items`] given, when
/// items are not independent: then every input and output must have its items on axis 0.
pub fn infer(
    graph: &Graph,
    weights: &[(ValueId, Vec<usize>)],
    dims: &[DimValue],
) -> Result<Facts, InferError> {
    if graph.free_dims.len() != dims.len() {
        return Err(InferError::FreeDims { want: graph.free_dims.len(), got: dims.len() });
    }
    let mut facts: Vec<Option<Fact>> = vec![None; graph.values.len()];
    for param in &graph.params {
        facts[param.value.0 as usize] = Some(match &param.data {
            ParamData::Literal(tensor) => Fact::literal(tensor.clone()),
            ParamData::Weight(_) => Fact::shared(param.dtype, param.dims.clone()),
        });
    }
    for (value, dims) in weights {
        facts[value.0 as usize] = Some(Fact::shared(DType::F32, dims.clone()));
    }
    let batched = dims.contains(&DimValue::Items);
    for input in &graph.inputs {
        facts[input.value.0 as usize] = Some(input_fact(&input.name, input.dtype, &input.dims, dims)?);
        must_be_per_item(batched, "input", &input.name, facts[input.value.0 as usize].as_ref())?;
    }
    let mut notes = vec![None; graph.nodes.len()];
    for (node, note) in graph.nodes.iter().zip(&mut notes) {
        *note = infer_node(graph, node, &mut facts)?;
    }
    for output in &graph.outputs {
        let fact = facts.get(output.value.0 as usize).and_then(Option::as_ref);
        let fact = fact.ok_or_else(|| undefined("(outputs)", graph, output.value))?;
        must_be_per_item(batched, "output", &output.name, Some(fact))?;
        if matches!(fact.known, Some(Known::Numbers(_))) {
            return Err(InferError::MixesItems {
                at: format!("output `{}`", output.name),
                why: "its values depend on the item count or on the item's place among the others".into(),
            });
        }
    }
    Ok(Facts { facts, notes })
}

fn input_fact(name: &str, dtype: DType, dims: &[Dim], given: &[DimValue]) -> Result<Fact, InferError> {
    let invalid = |why: &str| InferError::Invalid { at: format!("input `{name}`"), why: why.into() };
    let mut fact = Fact::shared(dtype, Vec::with_capacity(dims.len()));
    for (axis, dim) in dims.iter().enumerate() {
        let extent = match dim {
            Dim::Fixed(extent) => *extent,
            Dim::Free(free) => match given.get(*free) {
                Some(DimValue::Fixed(extent)) => *extent,
                Some(DimValue::Items) if fact.items.is_none() => {
                    fact.items = Some(axis);
                    1
                }
                Some(DimValue::Items) => {
                    return Err(InferError::MixesItems {
                        at: format!("input `{name}`"),
                        why: "two of its axes run over items".into(),
                    });
                }
                None => return Err(invalid("a free dimension of it is not one of the model's")),
            },
        };
        fact.dims.push(usize::try_from(extent).map_err(|_| invalid("a dimension of it overflows"))?);
    }
    sized(&fact).map_err(|why| invalid(&why))?;
    Ok(fact)
}

fn must_be_per_item(batched: bool, what: &str, name: &str, fact: Option<&Fact>) -> Result<(), InferError> {
    match fact {
        Some(fact) if batched && (fact.items != Some(0) || fact.rounds != 1) => Err(InferError::MixesItems {
            at: format!("{what} `{name}` of {fact}"),
            why: "its axis 0 does not run over items, each whole".into(),
        }),
        _ => Ok(()),
    }
}

fn undefined(node: &str, graph: &Graph, value: ValueId) -> InferError {
    let name = graph.values.get(value.0 as usize).map_or("?", String::as_str);
    InferError::Undefined { node: node.to_owned(), value: name.to_owned() }
}

/// Refuses a value whose dimensions would overflow what is counted with them later.
fn sized(fact: &Fact) -> Result<(), String> {
    match fits(fact.dtype, &fact.dims) {
        true => Ok(()),
        false => Err(format!("{fact} is larger than {} GiB per item", MOST_BYTES >> 30)),
    }
}

/// Whether something of these dimensions is no larger than a value may be. What is empty is counted as if its zeros were not there, since
/// some of its other dimensions may be multiplied without them.
pub(crate) fn fits(dtype: DType, dims: &[usize]) -> bool {
    let extents: Vec<usize> = dims.iter().copied().filter(|&extent| extent > 0).collect();
    checked_len(dtype, &extents).is_some_and(|len| len <= MOST_BYTES)
}

/// Infers one node, stores the facts of its outputs and gives its note.
fn infer_node(graph: &Graph, node: &Node, facts: &mut [Option<Fact>]) -> Result<Option<Note>, InferError> {
    let name = node_name(graph, node);
    let mut inputs = Vec::with_capacity(node.inputs.len());
    for input in &node.inputs {
        inputs.push(match input {
            None => None,
            Some(value) => {
                let fact = facts.get(value.0 as usize).and_then(Option::as_ref);
                Some(fact.ok_or_else(|| undefined(name, graph, *value))?)
            }
        });
    }
    let args = Args(&inputs);
    let located = |reason: Reason| {
        let at = format!("node `{name}` ({} of {args})", node.op.name());
        match reason {
            Reason::Invalid(why) => InferError::Invalid { at, why },
            Reason::Mixes(why) => InferError::MixesItems { at, why },
            Reason::DataDependent(why) => InferError::DataDependent { at, why },
        }
    };
    let outcome = apply(&node.op, args, node.outputs.len()).map_err(located)?;
    let wanted = node.outputs.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    if outcome.outputs.len() < wanted {
        let why = format!("{wanted} outputs are wanted, it has {}", outcome.outputs.len());
        return Err(located(Reason::Invalid(why)));
    }
    for (output, fact) in node.outputs.iter().zip(outcome.outputs) {
        let Some(value) = output else { continue };
        match facts.get_mut(value.0 as usize) {
            Some(slot) => *slot = Some(fact),
            None => return Err(undefined(name, graph, *value)),
        }
    }
    Ok(outcome.note)
}

/// A name for messages: the node's own, else that of the first value it makes.
fn node_name<'a>(graph: &'a Graph, node: &'a Node) -> &'a str {
    if !node.name.is_empty() {
        return &node.name;
    }
    let first = node.outputs.iter().flatten().next();
    first.and_then(|value| graph.values.get(value.0 as usize)).map_or("?", String::as_str)
}

/// One operator: the facts of its outputs with what is known of their values.
fn apply(op: &Op, args: Args<'_>, outputs: usize) -> Rule {
    let mut outcome = rule(op, args, outputs)?;
    for fact in &outcome.outputs {
        sized(fact).map_err(Reason::Invalid)?;
    }
    known::evaluate(op, args, &mut outcome)?;
    Ok(outcome)
}

/// Whether the rule of an operator holds for items that come round several times on their axis ([`Fact::rounds`]): those whose elements keep
/// the rows that they are in, and those that say themselves what becomes of rows.
fn takes_rounds(op: &Op) -> bool {
    matches!(
        op,
        Op::Unary(_)
            | Op::Binary(_)
            | Op::Where
            | Op::Clip
            | Op::Cast(_)
            | Op::Gemm { .. }
            | Op::MatMul
            | Op::LayerNorm { .. }
            | Op::Softmax { .. }
            | Op::Reduce { .. }
            | Op::Shape { .. }
            | Op::Reshape { .. }
            | Op::Flatten { .. }
            | Op::Transpose { .. }
            | Op::Squeeze
            | Op::Unsqueeze
            | Op::Split { .. }
    )
}

/// The table of rules: shapes and types, and the values of operators that read shapes.
fn rule(op: &Op, args: Args<'_>, outputs: usize) -> Rule {
    let rounds = args.0.iter().flatten().map(|fact| fact.rounds).max().unwrap_or(1);
    if rounds > 1 && !takes_rounds(op) {
        return Err(Reason::Mixes(format!("the items come round {rounds} times on one axis of its input")));
    }
    match op {
        Op::Unary(unary) => elementwise::unary(*unary, args),
        Op::Binary(binary) => elementwise::binary(*binary, args),
        Op::Where => elementwise::choose(args),
        Op::Clip => elementwise::clip(args),
        Op::Cast(to) => elementwise::cast(*to, args),
        Op::Gemm { trans_a, trans_b, .. } => contract::gemm(*trans_a, *trans_b, args),
        Op::MatMul => contract::matmul(args),
        Op::Einsum(equation) => einsum::einsum(equation, args),
        Op::Conv(window, groups) => contract::conv(window, *groups, args),
        Op::ConvTranspose(window, groups) => contract::conv_transpose(window, *groups, args),
        Op::MaxPool(window) | Op::SumPool(window) | Op::AveragePool(window, _) => {
            contract::pool(window, args)
        }
        Op::MaxPoolIndices(window, _) => contract::pool_indices(window, args),
        Op::BatchNorm { .. } => normal::batch_norm(args),
        Op::GroupNorm { groups, .. } => normal::group_norm(*groups, args),
        Op::Lrn { .. } => normal::lrn(args),
        Op::LayerNorm { axis, .. } => normal::layer_norm(*axis, args),
        Op::Softmax { axis, .. } => normal::softmax(*axis, args),
        Op::Reduce { keep_dims, noop_with_empty_axes, .. } => {
            normal::reduce(*keep_dims, *noop_with_empty_axes, args)
        }
        Op::Recurrent(layer) => recurrent::recurrent(layer, args),
        Op::Shape { start, end } => shapes::shape(*start, *end, args),
        Op::Reshape { allow_zero } => shapes::reshape(*allow_zero, args),
        Op::Flatten { axis } => shapes::flatten(*axis, args),
        Op::Squeeze => shapes::squeeze(args),
        Op::Unsqueeze => shapes::unsqueeze(args),
        Op::Expand => shapes::expand(args),
        Op::ConstantOfShape { value } => shapes::constant_of_shape(value, args),
        Op::Range => shapes::range(args),
        Op::Transpose { perm } => moves::transpose(perm, args),
        Op::Concat { axis } => moves::concat(*axis, args),
        Op::Split { axis } => moves::split(*axis, args, outputs),
        Op::Slice => moves::slice(args),
        Op::Gather { axis } => moves::gather(*axis, args),
        Op::GatherElements { axis } => moves::gather_elements(*axis, args),
        Op::Pad(mode) => moves::pad(*mode, args),
        Op::Tile => pixels::tile(args),
        Op::DepthToSpace { block, .. } => pixels::depth_to_space(*block, args),
        Op::SpaceToDepth { block, .. } => pixels::space_to_depth(*block, args),
        Op::Trilu { .. } => pixels::trilu(args),
        Op::Resize(resize) => pixels::resize(resize, args),
        Op::GatherNd { batch_dims } => select::gather_nd(*batch_dims, args),
        Op::ScatterElements { axis, .. } => select::scatter_elements(*axis, args),
        Op::ScatterNd(_) => select::scatter_nd(args),
        Op::OneHot { axis } => select::one_hot(*axis, args),
        Op::CumSum { .. } => select::cum_sum(args),
        Op::TopK { axis, .. } => select::top_k(*axis, args),
        Op::Arg { axis, keep_dims, .. } => select::arg(*axis, *keep_dims, args),
        Op::NonZero => select::non_zero(args),
    }
}
