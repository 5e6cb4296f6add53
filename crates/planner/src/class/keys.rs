//! What a base's weights are called in a state dict.
//!
//! Exporters keep the names of parameters, with three exceptions that matter here: equal tensors are merged and the other names survive
//! on Identity nodes; a linear layer under a matrix product is transposed ahead of time and renamed `onnx::MatMul_602`; and
//! the whole model may have been wrapped, so that all names have a prefix more. For the second, the graph still tells: the
//! bias that is added next is `X.bias`, or the node's scope `/X/MatMul` names the module.

use crate::graph::{Graph, Node, ParamData, ParamId, ValueId, WeightSource};
use crate::op::{Binary, Op};
use crate::tensor::Tensor;
use prost::bytes::Bytes;
use std::collections::HashMap;

/// What a base's weights and literals are called.
#[derive(Debug)]
pub(super) struct Keys {
    /// By the number of the class graph's parameter.
    pub(super) weights: Vec<WeightKey>,
    /// Initializers whose values are part of the architecture.
    pub(super) literals: Vec<(String, Tensor)>,
    /// Initializers that no answer depends on.
    pub(super) unread: Vec<String>,
}

/// What one weight may be called.
#[derive(Debug)]
pub(super) struct WeightKey {
    /// Its own name: the initializer's, or the Identity node's output.
    pub(super) name: String,
    /// The initializer that holds it in the base; `None` for the value of a Constant node.
    pub(super) origin: Option<String>,
    /// For a weight that the exporter renamed: its state-dict name, and whether it was transposed.
    pub(super) derived: Option<(String, bool)>,
    /// What a Constant node holds is in no state dict: it is the base's, for every tenant, unless it is large. So are the zeros of a bias that
    /// the base leaves out, for every tenant that leaves it out, too.
    pub(super) constant: Option<WeightSource>,
}

impl Keys {
    pub(super) fn of(
        graph: &Graph,
        weights: &[WeightSource],
        origins: &[Option<String>],
        unread: Vec<String>,
    ) -> Keys {
        let derive = Derive::new(graph, weights.len());
        let weights = weights.iter().enumerate().map(|(index, source)| {
            let name = graph.params[index].name.clone();
            let origin = origins[index].clone();
            let renamed = origin.is_some() && name.contains("::");
            WeightKey {
                derived: derive.of(index).filter(|_| renamed),
                constant: if origin.is_none() { kept(source) } else { None },
                origin,
                name,
            }
        });
        let weights = weights.collect();
        let literals = graph.params.iter().filter_map(|param| match &param.data {
            ParamData::Literal(tensor) => Some((param.name.clone(), tensor.clone())),
            ParamData::Weight(_) => None,
        });
        Keys { weights, literals: literals.collect(), unread }
    }
}

/// A table as large as this is a weight, and whoever brings other weights must bring it, too.
const LARGEST_CONSTANT: usize = 64 << 10;

/// The value of a Constant node, in memory of its own: the file's buffer is not kept for it.
fn kept(source: &WeightSource) -> Option<WeightSource> {
    match source {
        WeightSource::Inline(tensor) if tensor.bytes().len() > LARGEST_CONSTANT => None,
        WeightSource::Inline(tensor) => {
            let own = Bytes::copy_from_slice(tensor.bytes());
            let tensor =
                Tensor::new(tensor.dtype(), tensor.dims().to_vec(), own).expect("the length that it had");
            Some(WeightSource::Inline(tensor))
        }
        elsewhere => Some(elsewhere.clone()),
    }
}

/// The graph around each weight.
struct Derive<'g> {
    graph: &'g Graph,
    weights: HashMap<ValueId, ParamId>,
    /// The only use of each weight: a normalised graph has one parameter per use.
    uses: HashMap<ValueId, (&'g Node, usize)>,
    /// The reader of each value that has one reader only.
    readers: HashMap<ValueId, Option<&'g Node>>,
}

impl<'g> Derive<'g> {
    fn new(graph: &'g Graph, weights: usize) -> Derive<'g> {
        let numbers = graph.params[..weights].iter().enumerate();
        let weights = numbers.map(|(index, param)| (param.value, ParamId(index as u32))).collect();
        let (mut uses, mut readers) = (HashMap::new(), HashMap::new());
        for node in &graph.nodes {
            for (index, value) in
                node.inputs.iter().enumerate().filter_map(|(index, value)| Some((index, (*value)?)))
            {
                uses.insert(value, (node, index));
                readers.entry(value).and_modify(|only| *only = None).or_insert(Some(node));
            }
        }
        graph.outputs.iter().for_each(|output| _ = readers.insert(output.value, None));
        Derive { graph, weights, uses, readers }
    }

    /// The state-dict name of a renamed weight, and whether it was transposed.
    fn of(&self, weight: usize) -> Option<(String, bool)> {
        let (node, input) = self.uses.get(&self.graph.params[weight].value)?;
        if *input != 1 || self.graph.params[weight].dims.len() != 2 {
            return None;
        }
        let (transposed, module) = match &node.op {
            Op::MatMul => (true, self.added_bias(node)),
            Op::Gemm { trans_b, .. } => {
                (!trans_b, node.inputs.get(2).copied().flatten().and_then(|c| self.bias(c)))
            }
            _ => return None,
        };
        let module = module.or_else(|| scope(&node.name))?;
        Some((format!("{module}.weight"), transposed))
    }

    /// `X` when the product's only reader adds `X.bias` to it.
    fn added_bias(&self, product: &Node) -> Option<String> {
        let value = product.outputs.first().copied().flatten()?;
        let add = (*self.readers.get(&value)?).filter(|node| node.op == Op::Binary(Binary::Add))?;
        let other = add.inputs.iter().flatten().find(|&&input| input != value)?;
        self.bias(*other)
    }

    /// `X` when the value is a weight called `X.bias`.
    fn bias(&self, value: ValueId) -> Option<String> {
        let param = &self.graph.params[self.weights.get(&value)?.0 as usize];
        param.name.strip_suffix(".bias").map(str::to_owned)
    }
}

/// `blocks.0.attn.qkv` for a node `/blocks/blocks.0/attn/qkv/MatMul` or `/blocks.0/attn/qkv/MatMul`: torch names nodes by the
/// path of modules that they stand in, where a module in a list comes with the list's name before it.
fn scope(node: &str) -> Option<String> {
    let (path, _) = node.strip_prefix('/')?.rsplit_once('/')?;
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        // `layer.0` after `layer` says the same again, only more exactly.
        let list = parts.last().and_then(|list| part.strip_prefix(list));
        if list.is_some_and(|rest| rest.starts_with('.')) {
            parts.pop();
        }
        parts.push(part);
    }
    Some(parts.join("."))
}
