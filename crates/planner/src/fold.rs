//! Weights folded: the class graph with everything that only depends on weights taken out of it.
//!
//! ```text
//!   Conv(x, w, b) ─ BatchNorm(·, γ, β, μ, σ²)      becomes   Conv(x, w′, b′)   w′ = expression over (w, γ, σ²), b′ = …
//!   Gemm(x, Transpose(w))                          becomes   Gemm(x, w′)       w′ = Transpose(w)
//!   Gemm(x, u), Gemm(x, v), …                      becomes   Split(Gemm(x, w′))  w′ = [u | v | …]
//! ```
//! Purely structural: it looks at operators, attributes and the shapes of parameters, never at activations' shapes (so
//! one slot serves every plan of the class) and never at weights' values. The expressions are evaluated once per tenant
//! version, by the reference, when its weights are packed.

mod fixed;
mod linear;
mod rank;
mod recurrent;
mod siblings;
mod types;

use crate::element::is_border;
use crate::graph::{Graph, Node, Param, ParamData, ParamId, ValueId};
use crate::op::{Binary, Op, Padding, Window};
use crate::tensor::Tensor;
use fixed::{Fixed, LARGEST_EXPR};
pub(crate) use rank::Ranks;
use std::collections::{HashMap, HashSet};
use tessera_core::DType;

/// What plans are made from: a graph whose values are numbered as the class graph's, with new ones after them, and the weights it reads.
///
/// Conventions of this form, beyond those of [`Op`]:
/// - `Gemm(x, w, bias?)` has factors of one and no transposes. `w [k, n]` and `bias [n]` are always weights, and `x` has any rank: the sum runs over its
///   last axis. A `Gemm` of the class whose second matrix is computed is a `MatMul` here; a `MatMul` by a weight matrix is a `Gemm`.
/// - `Conv(x, w, bias?)`: `w` (of the rank of `x`) and `bias [out]` are always weights.
/// - There is no `ConvTranspose`: it is a `Conv` over the spread input ([`Padding::Transposed`]), its kernel's taps in opposite order.
/// - `Recurrent(x, w, r, bias?, lengths?, h0?, c0?, peephole?, candidate?)` has one direction: `w [input, gates·hidden]`,
///   `r [hidden, gates·hidden]`, one bias `[gates·hidden]`, the sum of ONNX's two, and the peephole `[3·hidden]`, all of them weights; gates in ONNX's order. A GRU
///   that resets the state before its product has the last third of `r` apart, as `candidate [hidden, hidden]`; one that resets after it has a bias of
///   `[4·hidden]`, whose last quarter is the candidate's bias of the state. Outputs are ONNX's with one direction: `y [time, 1, batch, hidden]`, `h` and `c`
///   `[1, batch, hidden]`. Two directions are two nodes, joined by `Concat` (axis 1 for `y`, axis 0 for the states).
/// - There is no `BatchNorm`.
/// - Floats are f32 (`fold/types.rs`): weights that a file holds in another float type are converted by their expression, and
///   inputs and outputs of another float type are cast where they enter and leave.
/// - Literals that are needed as weights (a bias of one element) are weights; all others are parameters of `graph`.
#[derive(Clone, Debug)]
pub struct Folded {
    /// The nodes that remain. Its `params` are literals only.
    pub graph: Graph,
    /// Weights that nodes read, by [`crate::pack::WeightId`], in the order in which they are first read.
    pub weights: Vec<FoldedWeight>,
}

/// One packed tensor as nodes see it, and where it comes from.
#[derive(Clone, Debug)]
pub struct FoldedWeight {
    /// The parameter that it mainly comes from, for people.
    pub name: String,
    /// The value that nodes of [`Folded::graph`] read.
    pub value: ValueId,
    /// Its dimensions as nodes see them.
    pub dims: Vec<usize>,
    /// How it is computed from the class graph's parameters.
    pub expr: WeightExpr,
    /// How its readers want it to lie.
    pub role: Role,
}

/// A value computed from weights alone.
#[derive(Clone, Debug)]
pub enum WeightExpr {
    /// A parameter of the *class* graph.
    Param(ParamId),
    /// A value that is the same for every tenant.
    Literal(Tensor),
    /// One output of an operator of other expressions.
    Apply {
        /// The operator.
        op: Op,
        /// Its inputs.
        inputs: Vec<Option<WeightExpr>>,
        /// Which of its outputs.
        output: usize,
    },
}

/// How the readers of a weight want it to lie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Row-major.
    Plain,
    /// `[k, n]`: panels.
    Matrix,
    /// `[out, in / groups, kernel height, kernel width]` of a convolution: panels of `kernel·in × out` per group, rows in the order
    /// (ky, kx, in). A 1-D convolution has no kernel height.
    Conv {
        /// Groups of the convolution.
        groups: usize,
    },
    /// `[channels, 1, kernel height, kernel width]` of a depthwise convolution: plain `[taps][channels]`.
    Depthwise,
    /// A transposed convolution's kernel, as the one of the convolution over its spread input (`[out, in / groups, kernel…]`), cut into one
    /// kernel per phase of the output: panels of `kernel′·in × phases·out` per group. See `lower::transposed`.
    Phases {
        /// Groups of the convolution.
        groups: usize,
        /// Steps between neighbouring input elements, of depth, height and width.
        strides: [usize; 3],
    },
}

/// Why a graph's weights cannot be folded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// What must be known when the model is loaded is computed from requests.
    #[error(
        "{node}: input {input} must be a weight or a constant, but it is computed from what requests bring"
    )]
    Dynamic {
        /// The node.
        node: String,
        /// Which of its inputs.
        input: usize,
    },
    /// An input that the operator needs is not there.
    #[error("{node}: input {input} is missing")]
    Missing {
        /// The node.
        node: String,
        /// Which of its inputs.
        input: usize,
    },
    /// A weight's shape or type does not belong to its operator.
    #[error("{node}: {what} cannot be {dtype}{dims:?}")]
    Misfit {
        /// The node.
        node: String,
        /// Which weight.
        what: &'static str,
        /// Its element type.
        dtype: DType,
        /// Its dimensions.
        dims: Vec<usize>,
    },
    /// Something that ONNX knows and Tessera does not.
    #[error("{node}: {what} are not supported")]
    Unsupported {
        /// The node.
        node: String,
        /// What.
        what: &'static str,
    },
    /// Where the channels of a BatchNorm are cannot be told.
    #[error("{node}: the number of axes of its input depends on the request")]
    UnknownRank {
        /// The node.
        node: String,
    },
}

/// Takes everything that depends on weights alone out of a class graph (normalised: see the module's text).
///
/// Looks at neither weights' values nor activations' lengths; costs a walk over the graph.
pub fn fold(graph: &Graph) -> Result<Folded, FoldError> {
    let graph = types::computed(graph);
    let mut folding = Folding::new(&graph);
    for node in &graph.nodes {
        if !folding.vanish(node) {
            folding.rewrite(node)?;
        }
    }
    folding.join_siblings();
    Ok(folding.finish())
}

/// The element type of every output of a class graph, as its operators make it.
pub(crate) fn output_types(graph: &Graph) -> Vec<Option<DType>> {
    let ranks = Ranks::of(graph);
    graph.outputs.iter().map(|output| ranks.dtype(output.value)).collect()
}

/// A graph on its way.
struct Folding<'g> {
    graph: &'g Graph,
    ranks: Ranks,
    /// How often each value of the class graph is read, by nodes and as an output.
    readers: Vec<usize>,
    /// The names of all values, new ones included.
    values: Vec<String>,
    /// Values that do not depend on requests.
    fixed: HashMap<ValueId, Fixed>,
    /// What remains to be done.
    nodes: Vec<Node>,
    /// The values that a Gemm or Conv of `nodes` makes.
    linear: HashMap<ValueId, usize>,
}

impl<'g> Folding<'g> {
    fn new(graph: &'g Graph) -> Self {
        let mut readers = vec![0; graph.values.len()];
        let read_by_nodes = graph.nodes.iter().flat_map(|node| node.inputs.iter().flatten());
        let read_by_clients = graph.outputs.iter().map(|output| &output.value);
        read_by_nodes.chain(read_by_clients).for_each(|value| readers[value.0 as usize] += 1);

        let fixed = graph.params.iter().enumerate().map(|(index, param)| {
            let fixed = match &param.data {
                ParamData::Literal(tensor) => Fixed::literal(&param.name, tensor.clone()),
                ParamData::Weight(_) => Fixed {
                    name: param.name.clone(),
                    dtype: param.dtype,
                    dims: param.dims.clone(),
                    expr: WeightExpr::Param(ParamId(
                        u32::try_from(index).expect("values are counted in u32"),
                    )),
                    size: 0,
                    weighs: true,
                },
            };
            (param.value, fixed)
        });
        Folding {
            graph,
            ranks: Ranks::of(graph),
            readers,
            values: graph.values.clone(),
            fixed: fixed.collect(),
            nodes: Vec::new(),
            linear: HashMap::new(),
        }
    }

    /// Makes a node's outputs fixed if its inputs are, and `true` if that was possible.
    fn vanish(&mut self, node: &Node) -> bool {
        let inputs: Option<Vec<Option<&Fixed>>> = node
            .inputs
            .iter()
            .map(|input| input.map_or(Some(None), |id| self.fixed.get(&id).map(Some)))
            .collect();
        let Some(inputs) = inputs.filter(|inputs| inputs.iter().flatten().any(|input| input.weighs)) else {
            return false;
        };
        let made = match &node.op {
            Op::Shape { start, end } => inputs[0].map(|x| vec![shape_of(x, *start, *end)]),
            Op::Split { axis } => fixed::split(*axis, node.outputs.len(), &inputs),
            // What is answered in a type of its own is not held as a weight.
            Op::Cast(to) if is_border(*to) && self.is_answer(node) => None,
            op => Fixed::apply(op, &inputs).map(|made| vec![made]),
        };
        // What grows by an operator (a class token repeated for every item, an outer sum) is cheaper as a step than as memory
        // in every tenant's slot.
        let brought = inputs.iter().flatten().fold(0usize, |sum, input| sum.saturating_add(input.elements()));
        let small = |made: &Fixed| made.size <= LARGEST_EXPR && made.elements() <= brought;
        let Some(made) = made.filter(|made| made.iter().all(|made| !made.weighs || small(made))) else {
            return false;
        };
        for (output, made) in node.outputs.iter().zip(made) {
            if let Some(output) = output {
                self.fixed.insert(*output, made);
            }
        }
        true
    }

    fn is_answer(&self, node: &Node) -> bool {
        self.graph.outputs.iter().any(|output| node.outputs.contains(&Some(output.value)))
    }

    /// Keeps a node, in the spelling of the folded graph.
    fn rewrite(&mut self, node: &Node) -> Result<(), FoldError> {
        match &node.op {
            Op::Gemm { .. } => return self.gemm(node),
            Op::MatMul => return self.matmul(node),
            Op::Conv(_, groups) => return self.conv(node, *groups),
            Op::ConvTranspose(window, groups) => return self.conv_transpose(node, window, *groups),
            Op::BatchNorm { epsilon } => return self.batch_norm(node, *epsilon),
            Op::Recurrent(layer) => return self.recurrent(node, layer),
            Op::Binary(how @ (Binary::Add | Binary::Sub | Binary::Mul | Binary::Div))
                if self.per_channel_step(node, *how) => {}
            _ => self.nodes.push(node.clone()),
        }
        Ok(())
    }

    /// Lists the weights in the order in which nodes read them, and gives each reader the layout that it wants.
    fn finish(self) -> Folded {
        let Folding { graph, mut values, fixed, mut nodes, .. } = self;
        let mut params: Vec<Param> = Vec::new();
        let mut weights: Vec<FoldedWeight> = Vec::new();
        let mut literals: HashSet<ValueId> = HashSet::new();
        let mut placed: HashMap<(ValueId, Role), ValueId> = HashMap::new();

        let mut read = |value: ValueId, need: Need| -> ValueId {
            let Some(constant) = fixed.get(&value) else { return value };
            let role = match (need, constant.tensor()) {
                (Need::Weight(role), _) => role,
                (Need::Anything, None) => Role::Plain,
                (Need::Anything, Some(tensor)) => {
                    if literals.insert(value) {
                        params.push(Param {
                            value,
                            name: values[value.0 as usize].clone(),
                            dtype: tensor.dtype(),
                            dims: tensor.dims().to_vec(),
                            data: ParamData::Literal(tensor.clone()),
                        });
                    }
                    return value;
                }
            };
            *placed.entry((value, role)).or_insert_with(|| {
                // One value under two layouts is two values; so is a literal that some node reads as a weight.
                let taken = literals.contains(&value) || weights.iter().any(|weight| weight.value == value);
                let value =
                    if taken || constant.tensor().is_some() { new_value(&mut values, value) } else { value };
                let Fixed { name, dims, expr, .. } = constant.single();
                weights.push(FoldedWeight { name, value, dims, expr, role });
                value
            })
        };
        for node in &mut nodes {
            let dims =
                |index: usize| fixed.get(&node.inputs.get(index).copied().flatten()?).map(|w| &w.dims[..]);
            let needs: Vec<Need> =
                (0..node.inputs.len()).map(|index| need(&node.op, index, dims(1))).collect();
            for (input, need) in node.inputs.iter_mut().zip(needs) {
                *input = input.map(|value| read(value, need));
            }
        }
        let mut outputs = graph.outputs.clone();
        for output in &mut outputs {
            output.value = read(output.value, Need::Anything);
        }
        let graph = Graph {
            free_dims: graph.free_dims.clone(),
            inputs: graph.inputs.clone(),
            outputs,
            nodes,
            params,
            values,
        };
        Folded { graph, weights }
    }

    /// A new value.
    fn value(&mut self, name: String) -> ValueId {
        self.values.push(name);
        ValueId(u32::try_from(self.values.len() - 1).expect("values are counted in u32"))
    }

    /// A new value on the way to another one.
    fn value_near(&mut self, output: ValueId, what: &str) -> ValueId {
        self.value(format!("{}.{what}", self.graph.name(output)))
    }

    /// A new value that is fixed.
    fn define(&mut self, fixed: Fixed) -> ValueId {
        let value = self.value(fixed.name.clone());
        self.fixed.insert(value, fixed);
        value
    }

    fn emit(&mut self, node: &Node, op: Op, inputs: &[ValueId], output: ValueId) {
        let inputs = inputs.iter().copied().map(Some).collect();
        self.nodes.push(Node { name: node.name.clone(), op, inputs, outputs: vec![Some(output)] });
    }

    /// Emits a node that makes a new value.
    fn emit_new(&mut self, node: &Node, what: &str, op: Op, inputs: &[ValueId]) -> ValueId {
        let output = self.value(format!("{}.{what}", node.name));
        self.emit(node, op, inputs, output);
        output
    }

    fn input(&self, node: &Node, input: usize) -> Result<ValueId, FoldError> {
        let value = node.inputs.get(input).copied().flatten();
        value.ok_or_else(|| FoldError::Missing { node: self.label(node), input })
    }

    /// An input that must be fixed and float, in single precision.
    fn fixed_float(&self, node: &Node, input: usize) -> Result<Fixed, FoldError> {
        let fixed = self.fixed.get(&self.input(node, input)?);
        let fixed = fixed.ok_or_else(|| FoldError::Dynamic { node: self.label(node), input })?;
        if fixed.dtype.is_float() { Ok(fixed.single()) } else { Err(self.misfit(node, "a weight", fixed)) }
    }

    /// The number of axes of a value, if it is known.
    fn rank(&self, value: ValueId) -> Option<usize> {
        self.fixed.get(&value).map(|fixed| fixed.dims.len()).or_else(|| self.ranks.rank(value))
    }

    fn misfit(&self, node: &Node, what: &'static str, fixed: &Fixed) -> FoldError {
        FoldError::Misfit { node: self.label(node), what, dtype: fixed.dtype, dims: fixed.dims.clone() }
    }

    /// What a message calls a node: by its name, else by what it makes.
    fn label(&self, node: &Node) -> String {
        match node.outputs.iter().flatten().next() {
            Some(output) if node.name.is_empty() => {
                format!("the node that makes `{}`", self.graph.name(*output))
            }
            _ => format!("node `{}`", node.name),
        }
    }
}

/// What a reader accepts.
#[derive(Clone, Copy)]
enum Need {
    /// A packed tensor and nothing else.
    Weight(Role),
    /// Whatever there is.
    Anything,
}

/// How input `index` of a node wants a fixed value, `w` being the dimensions of its second input.
fn need(op: &Op, index: usize, w: Option<&[usize]>) -> Need {
    match (op, index, w) {
        (Op::Gemm { .. }, 1, Some(_)) | (Op::Recurrent(_), 1 | 2 | 8, _) => Need::Weight(Role::Matrix),
        (Op::Conv(window, groups), 1, Some(w)) => Need::Weight(match phases(window) {
            Some(strides) => Role::Phases { groups: *groups, strides },
            // Steps for one channel per group know two spatial axes.
            None if w[1] == 1 && w[0] == *groups && w.len() <= 4 => Role::Depthwise,
            None => Role::Conv { groups: *groups },
        }),
        (Op::Gemm { .. } | Op::Conv(..), 2, _) | (Op::Recurrent(_), 3 | 7, _) => Need::Weight(Role::Plain),
        _ => Need::Anything,
    }
}

/// The steps between input elements of a transposed convolution that is done phase by phase: one whose taps are neighbours, so that each
/// phase of the output sees every so many of them.
pub(crate) fn phases(window: &Window) -> Option<[usize; 3]> {
    let Padding::Transposed(spread) = &window.padding else { return None };
    let apart = spread.strides.iter().any(|&stride| stride > 1);
    (apart && window.dilations.iter().all(|&dilation| dilation == 1)).then(|| volume(&spread.strides, 1))
}

/// One number per spatial axis as depth, height and width; `one` stands for axes that are not there.
pub(crate) fn volume<T: Copy>(numbers: &[T], one: T) -> [T; 3] {
    std::array::from_fn(|axis| (axis + numbers.len()).checked_sub(3).map_or(one, |axis| numbers[axis]))
}

/// A value of the same name as another.
fn new_value(values: &mut Vec<String>, like: ValueId) -> ValueId {
    values.push(values[like.0 as usize].clone());
    ValueId(u32::try_from(values.len() - 1).expect("values are counted in u32"))
}

/// The dimensions of a fixed value, which are the same for every tenant.
fn shape_of(x: &Fixed, start: i64, end: Option<i64>) -> Fixed {
    let rank = x.dims.len() as i64;
    let resolve = |axis: i64| (if axis < 0 { axis + rank } else { axis }).clamp(0, rank) as usize;
    let range = resolve(start)..resolve(end.unwrap_or(rank)).max(resolve(start));
    let dims: Vec<i64> = x.dims[range].iter().map(|&dim| dim as i64).collect();
    Fixed::literal("shape", Tensor::from_elements(&[dims.len()], &dims))
}
