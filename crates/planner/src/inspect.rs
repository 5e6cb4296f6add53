//! What `tessera inspect` says of a model: its architecture in numbers, the plan at some free dimensions, and what keeps
//! two models apart. All of it as text for people and as JSON for machines, with the same content.

mod comparison;
mod planned;

pub use comparison::{Comparison, compare, misfit};
pub use planned::{NotPlanned, Planned, planned};

use crate::class::Model;
use crate::describe::describe;
use crate::graph::WeightSource;
use crate::pack::{PackError, PackTarget, SlotLayout};
use crate::tensor::checked_len;
use crate::text::count;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use tessera_core::{Bytes, ClassId, DType};

/// A model in numbers.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// Its architecture.
    pub class: ClassId,
    /// What a request brings.
    pub inputs: Vec<Port>,
    /// What an answer holds.
    pub outputs: Vec<Port>,
    /// The dimensions that requests choose.
    pub free_dims: Vec<String>,
    /// The one of them that stands first in every input and nowhere else, and so may count items.
    pub item_dim: Option<String>,
    /// How often each operator occurs in the normalised graph, most frequent first.
    pub operators: Vec<(&'static str, usize)>,
    /// How many weights there are; one that is used twice counts twice, as it is packed twice.
    pub weights: usize,
    /// How many numbers they hold.
    pub parameters: u64,
    /// Bytes of the weights in the types that the file gives them.
    pub weight_bytes: Bytes,
    /// What they are packed for.
    pub target: PackTarget,
    /// Bytes of one tenant's slot: folded, laid out for the device, padded.
    pub packed_bytes: Bytes,
    /// How many values are part of the architecture.
    pub literals: usize,
}

/// An input or output.
#[derive(Clone, PartialEq, Debug)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its dimensions; a name for one that requests choose, `?` for one that the file does not declare.
    pub shape: Vec<String>,
}

/// What there is to say of `model`, whose weights would be packed for `target`. Errors when they cannot be.
pub fn inspect(model: &Model, target: PackTarget) -> Result<Report, PackError> {
    let class = &model.class;
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    class.graph.nodes.iter().for_each(|node| *counts.entry(describe(&node.op).name).or_default() += 1);
    let mut operators: Vec<_> = counts.into_iter().collect();
    operators.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let (weights, literals) = class.graph.params.split_at(class.weights);
    // What the file leaves out is none of its parameters.
    let weights: Vec<_> = weights
        .iter()
        .zip(&model.weights)
        .filter(|(_, source)| !matches!(source, WeightSource::Zeros))
        .map(|(param, _)| param)
        .collect();
    let bytes =
        weights.iter().map(|param| checked_len(param.dtype, &param.dims).unwrap_or(usize::MAX) as u64);
    let elements = weights.iter().map(|param| param.dims.iter().product::<usize>() as u64);
    let names = class.graph.inputs.iter().map(|input| &input.dims);
    let inputs = model.input_names.iter().zip(names).zip(class.input_shapes());
    let inputs = inputs.map(|((name, dims), (dtype, _))| Port {
        name: name.clone(),
        dtype,
        shape: dims.iter().map(|dim| class.dim_name(dim)).collect(),
    });
    let outputs = model.output_names.iter().zip(class.output_shapes());
    let outputs = outputs.map(|(name, (dtype, dims))| Port {
        name: name.clone(),
        dtype,
        shape: dims.iter().map(|&dim| if dim < 0 { "?".to_owned() } else { dim.to_string() }).collect(),
    });
    Ok(Report {
        class: class.id,
        inputs: inputs.collect(),
        outputs: outputs.collect(),
        free_dims: class.free_dims.clone(),
        item_dim: class.item_dim().map(|dim| class.free_dims[dim].clone()),
        operators,
        weights: weights.len(),
        parameters: elements.fold(0, u64::saturating_add),
        weight_bytes: Bytes(bytes.fold(0, u64::saturating_add)),
        target,
        packed_bytes: SlotLayout::of(class.folded(), target)?.bytes,
        literals: literals.len(),
    })
}

impl Report {
    /// For machines: the class in full, sizes in bytes, dimensions as numbers, names, or null for what is not declared.
    pub fn to_json(&self) -> Value {
        let dim = |word: &String| match word.as_str() {
            "?" => Value::Null,
            word => word.parse::<u64>().map_or_else(|_| word.into(), Value::from),
        };
        let shape = |port: &Port| port.shape.iter().map(dim).collect::<Value>();
        let ports = |ports: &[Port]| -> Value {
            let port = |port: &Port| json!({ "name": port.name, "datatype": port.dtype.protocol_name(), "shape": shape(port) });
            ports.iter().map(port).collect()
        };
        let operators: serde_json::Map<String, Value> =
            self.operators.iter().map(|&(name, count)| (name.to_owned(), count.into())).collect();
        json!({
            "class": self.class.to_hex(),
            "inputs": ports(&self.inputs),
            "outputs": ports(&self.outputs),
            "free_dims": self.free_dims,
            "item_dim": self.item_dim,
            "operators": operators,
            "weights": self.weights,
            "parameters": self.parameters,
            "weight_bytes": self.weight_bytes.0,
            "packed_bytes": self.packed_bytes.0,
            "packed_for": { "device": self.target.device, "precision": self.target.precision.name() },
            "literals": self.literals,
        })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}]", self.name, self.dtype, self.shape.join(", "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "class       {}", self.class.to_hex())?;
        self.inputs.iter().try_for_each(|port| writeln!(f, "input       {port}"))?;
        self.outputs.iter().try_for_each(|port| writeln!(f, "output      {port}"))?;
        if !self.free_dims.is_empty() {
            writeln!(f, "free        {}", self.free_dims.join(", "))?;
        }
        let weights = count(self.weights, "weight");
        writeln!(f, "parameters  {} in {weights}", grouped(self.parameters))?;
        let PackTarget { device, precision, .. } = self.target;
        let (file, packed) = (self.weight_bytes, self.packed_bytes);
        writeln!(f, "weights     {file} in the file's types, {packed} packed for {device} in {precision}")?;
        let operators: Vec<String> =
            self.operators.iter().map(|(name, count)| format!("{name} {count}×")).collect();
        writeln!(f, "operators   {}", wrapped(&operators))?;
        writeln!(f, "literals    {}, part of the architecture", count(self.literals, "value"))
    }
}

/// `1,670,088`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let commas = |(index, digit): (usize, char)| {
        let comma = index > 0 && (digits.len() - index).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(commas).collect()
}

/// Words after a report's margin, in lines of about a hundred columns.
fn wrapped(words: &[String]) -> String {
    let mut text = String::new();
    let mut column = 12;
    for (index, word) in words.iter().enumerate() {
        let comma = if index + 1 < words.len() { "," } else { "" };
        let length = word.chars().count() + comma.len() + 1;
        if index > 0 && column + length > 100 {
            text += "\n            ";
            column = 12;
        } else if index > 0 {
            text += " ";
        }
        text += &format!("{word}{comma}");
        column += length;
    }
    text
}
