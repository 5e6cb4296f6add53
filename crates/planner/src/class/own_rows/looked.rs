//! What is known of a graph's values by what makes them.

use crate::fold::Ranks;
use crate::graph::{Graph, Node, ParamData, ValueId};
use crate::op::{Binary, Op};
use crate::shape;
use std::collections::HashMap;
use tessera_core::DType;

/// Nodes between a range and the column that it is; exporters write three.
const MOST_STEPS: usize = 8;

/// Parameters, the node that makes each value, and how many axes values have.
pub(super) struct Looked<'g> {
    params: HashMap<ValueId, &'g ParamData>,
    makers: HashMap<ValueId, &'g Node>,
    ranks: Ranks,
}

impl<'g> Looked<'g> {
    pub(super) fn at(graph: &'g Graph) -> Looked<'g> {
        let mut makers = HashMap::new();
        for node in &graph.nodes {
            node.outputs.iter().flatten().for_each(|value| _ = makers.insert(*value, node));
        }
        let params = graph.params.iter().map(|param| (param.value, &param.data)).collect();
        Looked { params, makers, ranks: Ranks::of(graph) }
    }

    pub(super) fn maker(&self, value: ValueId) -> Option<&'g Node> {
        self.makers.get(&value).copied()
    }

    pub(super) fn rank(&self, value: ValueId) -> Option<usize> {
        self.ranks.rank(value)
    }

    /// How far a value counts along its first axis, if that is all that it does. `expanded` says whether it may do so more than once.
    pub(super) fn limit(&self, mut value: ValueId, expanded: bool) -> Option<ValueId> {
        for _ in 0..MOST_STEPS {
            let node = self.maker(value)?;
            let input = node.inputs.first().copied().flatten()?;
            match node.op {
                Op::Cast(DType::I32 | DType::I64) => {}
                // Its first axis stays the first.
                Op::Unsqueeze if !self.unsqueezed(node, value)?.contains(&0) => {}
                Op::Expand if expanded && self.rank(input)? == self.rank(value)? => {}
                Op::Range => {
                    let [start, step] = [0, 2].map(|index| self.integer(node, index));
                    return node.inputs[1].filter(|_| (start, step) == (Some(0), Some(1)));
                }
                _ => return None,
            }
            value = input;
        }
        None
    }

    /// Whether a value is the length of axis 1 of `x`, or of another value that is made as `x` is.
    pub(super) fn is_row_length(&self, value: ValueId, x: ValueId) -> Option<bool> {
        let picked = self.maker(value).filter(|node| node.op == Op::Gather { axis: 0 })?;
        let shape = self.maker(picked.inputs[0]?)?;
        let of = shape.inputs[0].filter(|_| shape.op == Op::Shape { start: 0, end: None })?;
        let axis = shape::axis(self.integer(picked, 1)?, self.rank(x)?)?;
        let alike = |one: &Node, other: &Node| one.op == other.op && one.inputs == other.inputs;
        let twins = || Some(alike(self.maker(of)?, self.maker(x)?));
        Some(axis == 1 && (of == x || twins()?))
    }

    /// The axes that an Unsqueeze adds to make `value`.
    pub(super) fn unsqueezed(&self, node: &Node, value: ValueId) -> Option<Vec<usize>> {
        let axes = self.literal(node, 1).filter(|_| node.op == Op::Unsqueeze)?;
        shape::axes(&axes, self.rank(value)?)
    }

    /// What a sum or a product is of, both ways around.
    pub(super) fn both_ways(&self, value: ValueId, function: Binary) -> Option<[[ValueId; 2]; 2]> {
        let node = self.maker(value).filter(|node| node.op == Op::Binary(function))?;
        match node.inputs[..] {
            [Some(one), Some(other)] => Some([[one, other], [other, one]]),
            _ => None,
        }
    }

    fn integer(&self, node: &Node, index: usize) -> Option<i64> {
        self.literal(node, index)?.first().copied()
    }

    fn literal(&self, node: &Node, index: usize) -> Option<Vec<i64>> {
        match self.params.get(&node.inputs.get(index).copied().flatten()?)? {
            ParamData::Literal(tensor) => tensor.elements::<i64>(),
            ParamData::Weight(_) => None,
        }
    }

    /// Whether a value is known to have one row only, whatever the nodes add that only turn or cast it.
    pub(super) fn has_one_row(&self, mut value: ValueId) -> bool {
        for _ in 0..MOST_STEPS {
            if let Some(ParamData::Literal(tensor)) = self.params.get(&value) {
                return tensor.dims().first() == Some(&1);
            }
            let Some(node) = self.maker(value) else { return false };
            match node.op {
                Op::Cast(_) => {}
                Op::Unsqueeze => match self.unsqueezed(node, value) {
                    // Its first axis stays the first.
                    Some(axes) if !axes.contains(&0) => {}
                    Some(_) => return true,
                    None => return false,
                },
                _ => return false,
            }
            let Some(input) = node.inputs.first().copied().flatten() else { return false };
            value = input;
        }
        false
    }
}
