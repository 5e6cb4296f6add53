//! Linear layers that read one value become one, wide: the query, key and value projections of attention.
//!
//! ```text
//!   q = Gemm(x, wq, bq)                                      qkv = Gemm(x, [wq | wk | wv], [bq | bk | bv])
//!   k = Gemm(x, wk, bk)        becomes                       q, k, v = Split(qkv)
//!   v = Gemm(x, wv, bv)
//! ```
//! One product reads x once and fills a device better than three. It is worth it where what follows only looks at its part in another shape
//! (attention walks the parts where they lie); a product that an activation or a sum follows keeps it in its epilogue and stays alone.

use super::Folding;
use super::fixed::Fixed;
use crate::graph::{Node, ValueId};
use crate::op::Op;
use crate::tensor::Tensor;
use std::collections::HashMap;

/// One of several.
struct Sibling {
    /// Where it is among the emitted nodes.
    node: usize,
    w: Fixed,
    bias: Option<Fixed>,
    output: ValueId,
}

impl Folding<'_> {
    /// Joins every family of siblings that has more than one member.
    pub(super) fn join_siblings(&mut self) {
        let mut families: Vec<(ValueId, Vec<Sibling>)> = Vec::new();
        let readers = self.readers_by_value();
        for (index, node) in self.nodes.iter().enumerate() {
            let Some((x, sibling)) = self.sibling(index, node, &readers) else { continue };
            let alike = |first: &Sibling| {
                first.w.dims[0] == sibling.w.dims[0] && first.bias.is_some() == sibling.bias.is_some()
            };
            match families.iter_mut().find(|(of, members)| *of == x && alike(&members[0])) {
                Some((_, members)) => members.push(sibling),
                None => families.push((x, vec![sibling])),
            }
        }
        let mut gone = vec![false; self.nodes.len()];
        let mut instead: HashMap<usize, Vec<Node>> = HashMap::new();
        for (x, members) in families.into_iter().filter(|(_, members)| members.len() > 1) {
            let Some(joined) = self.joined(x, &members) else { continue };
            members.iter().for_each(|member| gone[member.node] = true);
            instead.insert(members[0].node, joined);
        }
        // The wide layer stands where the first of them stood: before all who read any of them.
        for (index, node) in std::mem::take(&mut self.nodes).into_iter().enumerate() {
            self.nodes.extend(instead.remove(&index).into_iter().flatten());
            if !gone[index] {
                self.nodes.push(node);
            }
        }
        // Places among the nodes have moved, and nothing is folded into a layer any more.
        self.linear.clear();
    }

    /// The nodes that read each value; `None` among them when a client does.
    fn readers_by_value(&self) -> HashMap<ValueId, Vec<Option<usize>>> {
        let mut readers: HashMap<ValueId, Vec<Option<usize>>> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            node.inputs
                .iter()
                .flatten()
                .for_each(|value| readers.entry(*value).or_default().push(Some(index)));
        }
        self.graph.outputs.iter().for_each(|output| readers.entry(output.value).or_default().push(None));
        readers
    }

    /// What a node reads, if it is a linear layer that may be joined with others.
    fn sibling(
        &self,
        index: usize,
        node: &Node,
        readers: &HashMap<ValueId, Vec<Option<usize>>>,
    ) -> Option<(ValueId, Sibling)> {
        let Op::Gemm { .. } = node.op else { return None };
        let fixed = |input: usize| node.inputs.get(input).copied().flatten().map(|id| self.fixed.get(&id));
        let (x, w) = (node.inputs.first().copied().flatten()?, fixed(1)??);
        let bias = match fixed(2) {
            Some(bias) => Some(bias?.clone()),
            None => None,
        };
        let output = node.outputs.first().copied().flatten()?;
        let only_looks = |reader: &Option<usize>| {
            reader.is_some_and(|reader| {
                let op = &self.nodes[reader].op;
                matches!(op, Op::Reshape { .. } | Op::Transpose { .. } | Op::Squeeze | Op::Unsqueeze)
            })
        };
        let looked_at = readers.get(&output).is_some_and(|readers| readers.iter().all(only_looks));
        let fits = w.weighs && w.dims.len() == 2 && bias.as_ref().is_none_or(|bias| bias.dims == [w.dims[1]]);
        (looked_at && fits).then(|| (x, Sibling { node: index, w: w.clone(), bias, output }))
    }

    /// The nodes that do the work of all members. `None` when their weights make too large an expression.
    fn joined(&mut self, x: ValueId, members: &[Sibling]) -> Option<Vec<Node>> {
        let concat = |axis: i64, parts: Vec<&Fixed>| {
            let parts: Vec<Option<&Fixed>> = parts.into_iter().map(Some).collect();
            Fixed::apply(&Op::Concat { axis }, &parts).filter(|whole| whole.size <= super::LARGEST_EXPR)
        };
        let w = concat(1, members.iter().map(|member| &member.w).collect())?;
        let bias = match &members[0].bias {
            Some(_) => Some(concat(0, members.iter().filter_map(|member| member.bias.as_ref()).collect())?),
            None => None,
        };
        let widths: Vec<i64> = members.iter().map(|member| member.w.dims[1] as i64).collect();
        let widths = Fixed::literal("widths", Tensor::from_elements(&[widths.len()], &widths));
        let (w, widths) = (self.define(w), self.define(widths));
        let bias = bias.map(|bias| self.define(bias));
        let first = &self.nodes[members[0].node];
        let (name, op) = (first.name.clone(), first.op.clone());
        let wide = self.value(format!("{}.joined", self.values[members[0].output.0 as usize]));
        let inputs = [Some(x), Some(w), bias];
        let inputs = inputs.into_iter().take(if bias.is_some() { 3 } else { 2 }).collect();
        let product = Node { name: name.clone(), op, inputs, outputs: vec![Some(wide)] };
        let outputs = members.iter().map(|member| Some(member.output)).collect();
        let split =
            Node { name, op: Op::Split { axis: -1 }, inputs: vec![Some(wide), Some(widths)], outputs };
        Some(vec![product, split])
    }
}
