//! The first thing that keeps two models from being one class, told for a person.
//!
//! Normalised graphs are walked side by side. Values are compared by where they come from, since their numbers shift with
//! every parameter more or less.

use crate::class::Class;
use crate::describe::{describe, input_name};
use crate::graph::{Dim, Graph, Node, Param, ParamData, ValueId};
use crate::tensor::Tensor;
use std::collections::HashMap;

/// The first difference between two architectures, `None` when they are one.
pub fn difference(left: &Class, right: &Class) -> Option<String> {
    if left.id == right.id {
        return None;
    }
    let sides = [Side::new(&left.graph), Side::new(&right.graph)];
    let found = inputs(&sides).or_else(|| nodes(&sides)).or_else(|| outputs(&sides));
    Some(found.unwrap_or_else(|| "they differ in how parameters are shared".to_owned()))
}

struct Side<'g> {
    graph: &'g Graph,
    params: HashMap<ValueId, &'g Param>,
    origins: HashMap<ValueId, Origin>,
}

/// Where a value comes from, in numbers that both sides share.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Input(usize),
    Node(usize, usize),
}

impl<'g> Side<'g> {
    fn new(graph: &'g Graph) -> Side<'g> {
        let mut origins = HashMap::new();
        for (index, input) in graph.inputs.iter().enumerate() {
            origins.insert(input.value, Origin::Input(index));
        }
        for (index, node) in graph.nodes.iter().enumerate() {
            for (output, value) in node.outputs.iter().enumerate() {
                value.map(|value| origins.insert(value, Origin::Node(index, output)));
            }
        }
        let params = graph.params.iter().map(|param| (param.value, param)).collect();
        Side { graph, params, origins }
    }

    /// A value that is no parameter, in words.
    fn origin(&self, value: ValueId) -> String {
        match self.origins.get(&value) {
            Some(Origin::Input(index)) => format!("input `{}`", self.graph.inputs[*index].name),
            Some(Origin::Node(index, 0)) => format!("the answer of {}", title(&self.graph.nodes[*index])),
            Some(Origin::Node(index, output)) => {
                format!("output {output} of {}", title(&self.graph.nodes[*index]))
            }
            None => "nothing".to_owned(),
        }
    }
}

fn inputs([left, right]: &[Side<'_>; 2]) -> Option<String> {
    let (a, b) = (&left.graph.inputs, &right.graph.inputs);
    if a.len() != b.len() {
        return Some(format!("{} inputs against {}", a.len(), b.len()));
    }
    a.iter().zip(b).find_map(|(a, b)| {
        let shape = |side: &Side<'_>, dims: &[Dim]| {
            let words = dims.iter().map(|dim| match dim {
                Dim::Fixed(size) => size.to_string(),
                Dim::Free(index) => side.graph.free_dims[*index].clone(),
            });
            format!("[{}]", words.collect::<Vec<_>>().join(", "))
        };
        if a.dtype != b.dtype {
            return Some(format!("input `{}`: {} against {}", a.name, a.dtype, b.dtype));
        }
        let differ = a.dims != b.dims;
        differ.then(|| {
            format!("input `{}`: {} against {}", a.name, shape(left, &a.dims), shape(right, &b.dims))
        })
    })
}

fn nodes(sides: &[Side<'_>; 2]) -> Option<String> {
    let [a, b] = [&sides[0].graph.nodes, &sides[1].graph.nodes];
    let first = a.iter().zip(b).find_map(|(a, b)| node(sides, a, b));
    first.or_else(|| match (a.get(b.len()), b.get(a.len())) {
        (Some(more), _) => Some(format!("{} against nothing", title(more))),
        (_, Some(more)) => Some(format!("nothing against {}", title(more))),
        (None, None) => None,
    })
}

fn node(sides: &[Side<'_>; 2], a: &Node, b: &Node) -> Option<String> {
    let (said, other) = (describe(&a.op), describe(&b.op));
    if said.name != other.name {
        return Some(format!("{} against {}", title(a), title(b)));
    }
    let at = title(a);
    let attributes = said.attributes.iter().zip(&other.attributes).find(|(a, b)| a != b);
    if let Some(((name, value), (_, other))) = attributes {
        return Some(format!("{at}: {name} {value} against {other}"));
    }
    for index in 0..a.inputs.len().max(b.inputs.len()) {
        let name = input_name(&a.op, index);
        let get = |node: &Node| node.inputs.get(index).copied().flatten();
        let different = match (get(a), get(b)) {
            (None, None) => None,
            (Some(_), None) => Some("is there against left out".to_owned()),
            (None, Some(_)) => Some("is left out against there".to_owned()),
            (Some(a), Some(b)) => value(sides, a, b),
        };
        if let Some(different) = different {
            return Some(format!("{at}: {name} {different}"));
        }
    }
    let outputs = |node: &Node| node.outputs.iter().map(Option::is_some).collect::<Vec<_>>();
    (outputs(a) != outputs(b)).then(|| format!("{at}: other ones of its outputs are used"))
}

fn value(sides: &[Side<'_>; 2], a: ValueId, b: ValueId) -> Option<String> {
    let [left, right] = sides;
    match (left.params.get(&a), right.params.get(&b)) {
        (Some(a), Some(b)) => param(a, b),
        (Some(_), None) => Some(format!("is a parameter against {}", right.origin(b))),
        (None, Some(_)) => Some(format!("is {} against a parameter", left.origin(a))),
        (None, None) if left.origins.get(&a) == right.origins.get(&b) => None,
        (None, None) => Some(format!("is {} against {}", left.origin(a), right.origin(b))),
    }
}

fn param(a: &Param, b: &Param) -> Option<String> {
    if (a.dtype, &a.dims) != (b.dtype, &b.dims) {
        return Some(format!("`{}` {}{:?} against {}{:?}", a.name, a.dtype, a.dims, b.dtype, b.dims));
    }
    match (&a.data, &b.data) {
        (ParamData::Weight(_), ParamData::Weight(_)) => None,
        (ParamData::Literal(a), ParamData::Literal(b)) if a.bytes() == b.bytes() => None,
        (ParamData::Literal(x), ParamData::Literal(y)) => Some(literals(x, y)),
        (ParamData::Literal(a), ParamData::Weight(_)) => {
            Some(format!("is always {} against a weight", literal(a)))
        }
        (ParamData::Weight(_), ParamData::Literal(b)) => {
            Some(format!("is a weight against always {}", literal(b)))
        }
    }
}

/// Two values of one type and shape: whole when they are short, else their first element that differs.
fn literals(a: &Tensor, b: &Tensor) -> String {
    if a.len() <= 8 {
        return format!("{} against {}", literal(a), literal(b));
    }
    let size = a.dtype().size();
    let pairs = a.bytes().chunks_exact(size).zip(b.bytes().chunks_exact(size));
    let at = pairs.take_while(|(a, b)| a == b).count();
    let one = |tensor: &Tensor| {
        let element = tensor.bytes()[at * size..(at + 1) * size].to_vec();
        literal(&Tensor::new(tensor.dtype(), vec![], element).expect("one element"))
    };
    format!("{} against {} at element {at}", one(a), one(b))
}

/// `6`, `[1, 2]`, or type and shape of what has no short words.
fn literal(tensor: &Tensor) -> String {
    let words: Option<Vec<String>> = None
        .or_else(|| Some(tensor.elements::<f32>()?.iter().map(f32::to_string).collect()))
        .or_else(|| Some(tensor.elements::<i64>()?.iter().map(i64::to_string).collect()))
        .or_else(|| Some(tensor.elements::<i32>()?.iter().map(i32::to_string).collect()))
        .or_else(|| Some(tensor.elements::<bool>()?.iter().map(bool::to_string).collect()));
    match words.as_deref() {
        Some([one]) => one.clone(),
        Some(words) if words.len() <= 8 => format!("[{}]", words.join(", ")),
        _ => format!("a value of {}{:?}", tensor.dtype(), tensor.dims()),
    }
}

fn outputs([left, right]: &[Side<'_>; 2]) -> Option<String> {
    let (a, b) = (&left.graph.outputs, &right.graph.outputs);
    if a.len() != b.len() {
        return Some(format!("{} outputs against {}", a.len(), b.len()));
    }
    a.iter().zip(b).find_map(|(a, b)| {
        let same = left.origins.get(&a.value) == right.origins.get(&b.value);
        (!same).then(|| {
            format!("output `{}`: {} against {}", a.name, left.origin(a.value), right.origin(b.value))
        })
    })
}

/// `LayerNormalization `/a/LayerNormalization``.
fn title(node: &Node) -> String {
    match node.name.as_str() {
        "" => describe(&node.op).name.to_owned(),
        name => format!("{} `{name}`", describe(&node.op).name),
    }
}
