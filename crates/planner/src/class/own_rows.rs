//! Items that pick among their own elements, said so.
//!
//! ```text
//!   x[arange(n), ids]
//!     GatherND(x, [[0, ids₀], [1, ids₁], …])   becomes   GatherND(x[:n], [[ids₀], [ids₁], …]) with a shared axis
//!     Gather(rows of x, ids + arange(n)·len)   becomes   the same
//! ```
//! So exporters write the pooling of each sequence's last token: the newer one with a number that counts rows beside each index, the older one
//! with all rows of all items in one matrix. Both say that indices have their rows side by side, which the operator can say itself. Then nothing in
//! the graph counts items any more, and they are proven independent whatever the indices are: an index may be out of range of its own row, and
//! never lead to another one.
//!
//! The older spelling would lead an index below zero to its neighbour's row. Nobody may read that one, and nobody meant it: it counts from the end
//! of its own row, as it does in PyTorch and in the newer spelling.

mod looked;

use crate::graph::{Graph, Node, Param, ParamData, ValueId};
use crate::onnx::import::Imported;
use crate::op::{Binary, Op};
use crate::shape;
use crate::tensor::Tensor;
use looked::Looked;
use std::collections::HashMap;
use tessera_core::DType;

/// A node that picks by row.
struct Picks {
    /// What is picked from, an axis of rows first.
    x: ValueId,
    /// How many rows there are indices for.
    limit: ValueId,
    indices: Indices,
}

/// Indices, as they are found.
enum Indices {
    /// Columns to be put side by side, one or more.
    Columns(Vec<Option<ValueId>>),
    /// Numbers in a row, and what they become in the matrix of all rows.
    Flat { ids: ValueId, sums: ValueId },
}

/// Gives every node that picks by row an axis that its elements share with their indices.
pub(super) fn share_axes(imported: &mut Imported) {
    let picks = picks(&imported.graph);
    if picks.is_empty() {
        return;
    }
    // Of indices in the matrix only the shape may be asked for, which is that of the indices in their rows.
    let mut numbers: HashMap<ValueId, ValueId> = HashMap::new();
    for picks in picks.values() {
        if let Indices::Flat { ids, sums } = picks.indices {
            numbers.insert(sums, ids);
        }
    }
    let nodes = std::mem::take(&mut imported.graph.nodes);
    for (index, mut node) in nodes.into_iter().enumerate() {
        if let Some(Picks { x, limit, indices }) = picks.get(&index) {
            let mut writer = Writer { imported, name: &node.name };
            let [zero, one, last] = [&[0], &[1], &[-1]].map(|number| writer.literal(number));
            let end = writer.node("rows", Op::Reshape { allow_zero: false }, vec![Some(*limit), Some(one)]);
            let x = writer.node("x", Op::Slice, vec![Some(*x), Some(zero), Some(end), Some(zero)]);
            node.inputs = match indices {
                Indices::Columns(columns) => match columns[..] {
                    [only] => vec![Some(x), only],
                    _ => {
                        vec![Some(x), Some(writer.node("columns", Op::Concat { axis: -1 }, columns.clone()))]
                    }
                },
                Indices::Flat { ids, .. } => {
                    // What lies in one row of the matrix.
                    let elements = Some(writer.literal(&[0, 0, -1]));
                    let x =
                        writer.node("elements", Op::Reshape { allow_zero: false }, vec![Some(x), elements]);
                    let column = writer.node("column", Op::Unsqueeze, vec![Some(*ids), Some(last)]);
                    vec![Some(x), Some(column)]
                }
            };
            node.op = Op::GatherNd { batch_dims: 1 };
        }
        if let (Op::Shape { .. }, [Some(of)]) = (&node.op, &mut node.inputs[..]) {
            *of = *numbers.get(of).unwrap_or(of);
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

    fn literal(&mut self, numbers: &[i64]) -> ValueId {
        let (value, name) = self.value("literal");
        let dims = vec![numbers.len()];
        let data = ParamData::Literal(Tensor::from_elements(&dims, numbers));
        self.imported.graph.params.push(Param { value, name, dtype: DType::I64, dims, data });
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
fn picks(graph: &Graph) -> HashMap<usize, Picks> {
    let gathers = |node: &Node| matches!(node.op, Op::GatherNd { batch_dims: 0 } | Op::Gather { axis: 0 });
    if !graph.nodes.iter().any(|node| node.op == Op::Range) {
        return HashMap::new();
    }
    let looked = Looked::at(graph);
    let nodes = graph.nodes.iter().enumerate().filter(|(_, node)| gathers(node));
    let found = nodes.filter_map(|(index, node)| {
        let picks = if node.op == (Op::Gather { axis: 0 }) {
            flattened(&looked, node)
        } else {
            counted(&looked, node)
        };
        Some((index, picks?))
    });
    found.collect()
}

/// A GatherND whose first column counts rows.
fn counted(looked: &Looked<'_>, gather: &Node) -> Option<Picks> {
    let indices = gather.inputs.get(1).copied().flatten()?;
    let concat = looked.maker(indices)?;
    let Op::Concat { axis } = concat.op else { return None };
    let last = looked.rank(indices)?.checked_sub(1)?;
    let (&first, columns) = concat.inputs.split_first()?;
    let first = first?;
    let column = looked.maker(first)?;
    let one_wide = looked.unsqueezed(column, first)?.contains(&last);
    if shape::axis(axis, last + 1)? != last || !one_wide || columns.is_empty() {
        return None;
    }
    let limit = looked.limit(first, true)?;
    Some(Picks { x: gather.inputs[0]?, limit, indices: Indices::Columns(columns.to_vec()) })
}

/// A Gather from a matrix of all items' rows, whose indices have the number of their item's first row added.
fn flattened(looked: &Looked<'_>, gather: &Node) -> Option<Picks> {
    let &[Some(matrix), Some(sums)] = &gather.inputs[..] else { return None };
    let flatten = looked.maker(matrix).filter(|node| node.op == Op::Flatten { axis: 2 })?;
    let x = flatten.inputs[0]?;
    let by_row = |[ids, starts]: [ValueId; 2]| {
        // The first axis of the one must lie along that of the other, and be as long.
        let along = looked.rank(ids)? == looked.rank(sums)? && looked.rank(starts)? == looked.rank(sums)?;
        let starts = looked.both_ways(starts, Binary::Mul)?.into_iter().find_map(|[rows, length]| {
            let limit = looked.limit(rows, false)?;
            looked.is_row_length(length, x)?.then_some(limit)
        });
        let limit = starts.filter(|_| along && !looked.has_one_row(ids))?;
        Some(Picks { x, limit, indices: Indices::Flat { ids, sums } })
    };
    looked.both_ways(sums, Binary::Add)?.into_iter().find_map(by_row)
}
