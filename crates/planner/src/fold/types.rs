//! The graph in the types that plans compute with.
//!
//! ```text
//!   x f16 ─ Cast f32 ─ … the model, its floats f32 … ─ Cast f16 ─ y f16
//!   u i8 ─ Cast i64 ─ ReduceSum ─ Cast i8 ─ v
//!   Pow(b i32, e f32)   where e is whole: Pow(b, i32(e)), else i32(Pow(f32(b), e))
//! ```
//! A model's floats are halves, singles or doubles; a plan has one float, f32, which a device holds as its precision says. So the other floats
//! become border types ([`crate::element`]), and casts between floats inside the model vanish: half-precision exports are full of them, and
//! they would stand between the operators that rewriting looks for. Integers are computed in their own type, but for reductions, which run
//! over i64 or f32. Weights keep the type that they are stored in; [`super::Fixed`] widens them.

use super::rank::Ranks;
use crate::element::{is_border, register};
use crate::graph::{Graph, Node, Output, ParamData, ValueId};
use crate::op::{Binary, Op, Reduction, Unary};
use crate::reference;
use std::collections::{HashMap, HashSet};
use tessera_core::DType;

/// The same graph, computing in f32 and integers alone. Parameters keep their numbers, values keep theirs and get new ones after them.
pub(super) fn computed(graph: &Graph) -> Graph {
    let mut typing = Typing {
        ranks: Ranks::of(graph),
        weights: graph
            .params
            .iter()
            .filter(|param| matches!(param.data, ParamData::Weight(_)))
            .map(|param| param.value)
            .collect(),
        graph: Graph { nodes: Vec::with_capacity(graph.nodes.len()), outputs: Vec::new(), ..graph.clone() },
        instead: HashMap::new(),
    };
    for input in graph.inputs.iter().filter(|input| is_border(input.dtype)) {
        let single = typing.cast(input.value, DType::F32, "f32");
        typing.instead.insert(input.value, single);
    }
    for param in &mut typing.graph.params {
        if let ParamData::Literal(tensor) = &param.data {
            let single = reference::cast(tensor, register(param.dtype));
            (param.dtype, param.data) = (single.dtype(), ParamData::Literal(single));
        }
    }
    for node in &graph.nodes {
        typing.node(node);
    }
    for output in &graph.outputs {
        typing.output(output, graph);
    }
    typing.graph
}

struct Typing {
    /// Types of the values of the class's graph.
    ranks: Ranks,
    weights: HashSet<ValueId>,
    /// The graph as it grows.
    graph: Graph,
    /// What readers of a value read in its place.
    instead: HashMap<ValueId, ValueId>,
}

impl Typing {
    /// The type in which plans hold a value of the class's graph.
    fn held(&self, value: ValueId) -> Option<DType> {
        self.ranks.dtype(value).map(register)
    }

    fn node(&mut self, node: &Node) {
        let types: Vec<Option<DType>> =
            node.inputs.iter().map(|input| input.and_then(|value| self.held(value))).collect();
        let mut node = node.clone();
        for input in node.inputs.iter_mut().flatten() {
            *input = *self.instead.get(input).unwrap_or(input);
        }
        match (&mut node.op, &types[..], &node.inputs[..], &node.outputs[..]) {
            // A weight may be rounded on its way: that is part of what it is folded into.
            (Op::Cast(to), [from], &[Some(x)], &[Some(made)]) if !self.weights.contains(&x) => {
                *to = register(*to);
                if *from == Some(*to) {
                    self.instead.insert(made, x);
                    return;
                }
            }
            (Op::ConstantOfShape { value }, ..) => *value = reference::cast(value, register(value.dtype())),
            (Op::Reduce { kind, .. }, [Some(from), ..], _, &[Some(made)]) => {
                if let Some(through) = reduced_in(*kind, *from) {
                    return self.through(node, *from, through, made);
                }
            }
            (Op::Binary(Binary::Pow), &[Some(base), Some(exponent)], ..) if base != exponent => {
                return self.mixed_power(node, base, exponent);
            }
            _ => {}
        }
        self.graph.nodes.push(node);
    }

    /// A reduction whose input is cast to another type, and whose result is cast back.
    fn through(&mut self, mut node: Node, from: DType, through: DType, made: ValueId) {
        if let Op::Reduce { kind, .. } = &mut node.op {
            // The bits of a sum of sizes that have no sign are those of the sum.
            if *kind == Reduction::L1 && from == DType::U64 {
                *kind = Reduction::Sum;
            }
        }
        if let Some(Some(x)) = node.inputs.first_mut() {
            *x = self.cast(*x, through, "wide");
        }
        let wide = self.value(made, "wide");
        node.outputs = vec![Some(wide)];
        let name = node.name.clone();
        self.graph.nodes.push(node);
        self.push(name, Op::Cast(from), &[wide], made);
    }

    /// `Pow` of two types; the result is of the base's.
    fn mixed_power(&mut self, node: Node, base: DType, exponent: DType) {
        let (&[Some(b), Some(e)], &[Some(made)]) = (&node.inputs[..], &node.outputs[..]) else {
            return self.graph.nodes.push(node);
        };
        let power = Op::Binary(Binary::Pow);
        match (base, exponent) {
            (DType::F32, _) => {
                let e = self.cast(e, DType::F32, "exponent");
                self.push(node.name, power, &[b, e], made);
            }
            (_, DType::F32) => {
                // A float's power of integers may be a little less than the whole number that it should be.
                let near = self.next(e, "near", Op::Unary(Unary::Floor), &[e]);
                let whole = self.next(e, "whole", Op::Binary(Binary::Equal), &[e, near]);
                let integer = self.cast(e, base, "exponent");
                let exact = self.next(made, "exact", power.clone(), &[b, integer]);
                let float = self.cast(b, DType::F32, "base");
                let root = self.next(made, "root", power, &[float, e]);
                let root = self.cast(root, base, "integer");
                self.push(node.name, Op::Where, &[whole, exact, root], made);
            }
            _ => {
                // Both widened: powers wrap, so the low bits are the same.
                let [b, e] = [b, e].map(|value| self.cast(value, DType::I64, "wide"));
                let wide = self.next(made, "wide", power, &[b, e]);
                self.push(node.name, Op::Cast(base), &[wide], made);
            }
        }
    }

    /// Answers keep the type that the model gives them.
    fn output(&mut self, output: &Output, graph: &Graph) {
        let value = *self.instead.get(&output.value).unwrap_or(&output.value);
        let border = self.ranks.dtype(output.value).filter(|dtype| is_border(*dtype));
        let brought = graph.inputs.iter().any(|input| input.value == output.value);
        let value = match border {
            Some(_) if brought => output.value,
            Some(dtype) => self.cast(value, dtype, "answer"),
            None => value,
        };
        self.graph.outputs.push(Output { value, ..output.clone() });
    }

    fn cast(&mut self, value: ValueId, to: DType, what: &str) -> ValueId {
        self.next(value, what, Op::Cast(to), &[value])
    }

    /// A node that makes a new value, which is called after `near`.
    fn next(&mut self, near: ValueId, what: &str, op: Op, inputs: &[ValueId]) -> ValueId {
        let output = self.value(near, what);
        self.push(String::new(), op, inputs, output);
        output
    }

    fn push(&mut self, name: String, op: Op, inputs: &[ValueId], output: ValueId) {
        let inputs = inputs.iter().copied().map(Some).collect();
        self.graph.nodes.push(Node { name, op, inputs, outputs: vec![Some(output)] });
    }

    fn value(&mut self, near: ValueId, what: &str) -> ValueId {
        let name = format!("{}.{what}", self.graph.name(near));
        self.graph.values.push(name);
        ValueId(u32::try_from(self.graph.values.len() - 1).expect("values are counted in u32"))
    }
}

/// The type in which a reduction of `from` is computed, when it is another one.
fn reduced_in(kind: Reduction, from: DType) -> Option<DType> {
    use Reduction::{L2, LogSum, LogSumExp, Max, Mean, Min};
    match (kind, from) {
        (_, DType::F32) => None,
        // Any and all.
        (Max | Min, DType::Bool) => Some(DType::I64),
        (_, DType::Bool) => None,
        // Roots and logarithms of integers are computed as floats and cut off.
        (L2 | LogSum | LogSumExp, _) => Some(DType::F32),
        (_, DType::I64) => None,
        // Order and quotient depend on the sign: such numbers are not served, see `lower::rows`.
        (Max | Min | Mean, DType::U64) => None,
        _ => Some(DType::I64),
    }
}
