//! Items that pick among their own elements, said so.
//!
//! ```text
//!   x[arange(n), ids]     GatherND(x, [[0, ids₀], [1, ids₁], …])   becomes   GatherND(x[:n], [[ids₀], [ids₁], …]) with a shared axis
//! ```
//! So exporters write the pooling of each sequence's last token. A number that counts rows beside an index says that both have their rows side
//! by side, which the operator can say itself. Then nothing in the graph counts items any more, and they are proven independent whatever the
//! indices are: an index may be out of range of its own row, and never lead to another one.

use crate::fold::Ranks;
use crate::graph::{Graph, Node, Param, ParamData, ValueId};
use crate::onnx::import::Imported;
use crate::op::Op;
use crate::shape;
use crate::tensor::Tensor;
use std::collections::HashMap;
use tessera_core::DType;

/// Nodes between a range and the column that it is; exporters write three.
const MOST_STEPS: usize = 8;

/// A GatherND whose first column counts rows.
struct Counted {
    /// How far the column counts.
    limit: ValueId,
    /// The other columns.
    columns: Vec<Option<ValueId>>,
}

/// Gives every GatherND that counts rows an axis that it shares with its indices instead.
pub(super) fn share_axes(imported: &mut Imported) {
    let counted = counted(&imported.graph);
    if counted.is_empty() {
        return;
    }
    let nodes = std::mem::take(&mut imported.graph.nodes);
    for (index, mut node) in nodes.into_iter().enumerate() {
        if let Some(Counted { limit, columns }) = counted.get(&index) {
            let mut writer = Writer { imported, name: &node.name };
            let [zero, one] = [0, 1].map(|number| writer.literal(number));
            let end = writer.node("rows", Op::Reshape { allow_zero: false }, vec![Some(*limit), Some(one)]);
            let x = writer.node("x", Op::Slice, vec![node.inputs[0], Some(zero), Some(end), Some(zero)]);
            let indices = match columns[..] {
                [only] => only,
                _ => Some(writer.node("columns", Op::Concat { axis: -1 }, columns.clone())),
            };
            node.op = Op::GatherNd { batch_dims: 1 };
            node.inputs = vec![Some(x), indices];
        }
        imported.graph.nodes.push(node);
    }
}

/// Adds nodes on the way to another one.
struct Writer<'i> {
    imported: &'i mut Imported,
    /// What the other one is called.
    name: &'i str,
}

impl Writer<'_> {
    fn value(&mut self, what: &str) -> (ValueId, String) {
        let values = &mut self.imported.graph.values;
        let name = format!("{}:{what}", self.name);
        values.push(name.clone());
        (ValueId(u32::try_from(values.len() - 1).expect("limits keep values few")), name)
    }

    fn literal(&mut self, number: i64) -> ValueId {
        let (value, name) = self.value("literal");
        let data = ParamData::Literal(Tensor::from_elements(&[1], &[number]));
        self.imported.graph.params.push(Param { value, name, dtype: DType::I64, dims: vec![1], data });
        self.imported.origins.push(None);
        value
    }

    fn node(&mut self, what: &str, op: Op, inputs: Vec<Option<ValueId>>) -> ValueId {
        let (value, name) = self.value(what);
        self.imported.graph.nodes.push(Node { name, op, inputs, outputs: vec![Some(value)] });
        value
    }
}

/// What there is, by its place among the nodes.
fn counted(graph: &Graph) -> HashMap<usize, Counted> {
    let gathers = |node: &Node| matches!(node.op, Op::GatherNd { batch_dims: 0 });
    if !graph.nodes.iter().any(gathers) {
        return HashMap::new();
    }
    let mut makers = HashMap::new();
    for node in &graph.nodes {
        node.outputs.iter().flatten().for_each(|value| _ = makers.insert(*value, node));
    }
    let params = graph.params.iter().map(|param| (param.value, &param.data)).collect();
    let looked = Looked { params, makers, ranks: Ranks::of(graph) };
    let nodes = graph.nodes.iter().enumerate().filter(|(_, node)| gathers(node));
    nodes.filter_map(|(index, node)| Some((index, looked.counted(node)?))).collect()
}

/// What is looked at: parameters, the node that makes each value, and how many axes values have.
struct Looked<'g> {
    params: HashMap<ValueId, &'g ParamData>,
    makers: HashMap<ValueId, &'g Node>,
    ranks: Ranks,
}

impl Looked<'_> {
    fn counted(&self, gather: &Node) -> Option<Counted> {
        let indices = gather.inputs.get(1).copied().flatten()?;
        let concat = self.makers.get(&indices)?;
        let Op::Concat { axis } = concat.op else { return None };
        let last = self.ranks.rank(indices)?.checked_sub(1)?;
        let (&first, columns) = concat.inputs.split_first()?;
        let first = first?;
        let column = self.makers.get(&first)?;
        let one_wide = self.unsqueezed(column, first)?.contains(&last);
        if shape::axis(axis, last + 1)? != last || !one_wide || columns.is_empty() {
            return None;
        }
        Some(Counted { limit: self.limit(first)?, columns: columns.to_vec() })
    }

    /// How far a value counts along its first axis, if that is all that it does.
    fn limit(&self, mut value: ValueId) -> Option<ValueId> {
        for _ in 0..MOST_STEPS {
            let node = self.makers.get(&value)?;
            let input = node.inputs.first().copied().flatten()?;
            match node.op {
                Op::Cast(DType::I32 | DType::I64) => {}
                // Its first axis stays the first.
                Op::Unsqueeze if !self.unsqueezed(node, value)?.contains(&0) => {}
                Op::Expand if self.ranks.rank(input)? == self.ranks.rank(value)? => {}
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

    /// The axes that an Unsqueeze adds to make `value`.
    fn unsqueezed(&self, node: &Node, value: ValueId) -> Option<Vec<usize>> {
        let axes = self.literal(node, 1).filter(|_| node.op == Op::Unsqueeze)?;
        shape::axes(&axes, self.ranks.rank(value)?)
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
}
