//! What `tessera inspect` says of a model.

use crate::class::{Class, Model, difference};
use crate::describe::describe;
use crate::graph::ParamData;
use crate::tensor::checked_len;
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
    /// How often each operator occurs in the normalised graph, most frequent first.
    pub operators: Vec<(&'static str, usize)>,
    /// How many weights there are; one that is used twice counts twice, as it is packed twice.
    pub weights: usize,
    /// How many numbers they hold.
    pub parameters: u64,
    /// Bytes of the weights as the file holds them.
    pub weight_bytes: Bytes,
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

/// Whether two models are one architecture.
#[derive(Clone, PartialEq, Debug)]
pub struct Comparison {
    /// The first model.
    pub left: Report,
    /// The second.
    pub right: Report,
    /// The first difference that keeps them apart; `None` when they are one class.
    pub difference: Option<String>,
}

/// What there is to say of `model`.
pub fn inspect(model: &Model) -> Report {
    let class = &model.class;
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    class.graph.nodes.iter().for_each(|node| *counts.entry(describe(&node.op).name).or_default() += 1);
    let mut operators: Vec<_> = counts.into_iter().collect();
    operators.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let (weights, literals): (Vec<_>, Vec<_>) =
        class.graph.params.iter().partition(|param| matches!(param.data, ParamData::Weight(_)));
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
    Report {
        class: class.id,
        inputs: inputs.collect(),
        outputs: outputs.collect(),
        free_dims: class.free_dims.clone(),
        operators,
        weights: weights.len(),
        parameters: elements.fold(0, u64::saturating_add),
        weight_bytes: Bytes(bytes.fold(0, u64::saturating_add)),
        literals: literals.len(),
    }
}

/// Whether `left` and `right` are one class, and if not, what first keeps them apart.
pub fn compare(left: &Model, right: &Model) -> Comparison {
    let classes: [&Class; 2] = [&left.class, &right.class];
    Comparison { left: inspect(left), right: inspect(right), difference: difference(classes[0], classes[1]) }
}

impl Report {
    /// For machines: the class in full, sizes in bytes.
    pub fn to_json(&self) -> Value {
        let ports = |ports: &[Port]| -> Value {
            let port = |port: &Port| json!({ "name": port.name, "datatype": port.dtype.protocol_name(), "shape": port.shape });
            ports.iter().map(port).collect()
        };
        let operators: serde_json::Map<String, Value> =
            self.operators.iter().map(|&(name, count)| (name.to_owned(), count.into())).collect();
        json!({
            "class": self.class.to_hex(),
            "inputs": ports(&self.inputs),
            "outputs": ports(&self.outputs),
            "free_dims": self.free_dims,
            "operators": operators,
            "weights": self.weights,
            "parameters": self.parameters,
            "weight_bytes": self.weight_bytes.0,
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
        writeln!(f, "parameters  {} in {} weights, {}", self.parameters, self.weights, self.weight_bytes)?;
        let operators: Vec<String> =
            self.operators.iter().map(|(name, count)| format!("{name} {count}×")).collect();
        writeln!(f, "operators   {}", operators.join(", "))
    }
}

impl Comparison {
    /// For machines.
    pub fn to_json(&self) -> Value {
        json!({
            "models": [self.left.to_json(), self.right.to_json()],
            "one_class": self.difference.is_none(),
            "difference": self.difference,
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.difference {
            None => {
                writeln!(f, "one class: {}", self.left.class.to_hex())?;
                writeln!(f, "Requests to these two can share a launch.")
            }
            Some(difference) => {
                writeln!(f, "two classes: {} and {}", self.left.class, self.right.class)?;
                writeln!(f, "first difference: {difference}")
            }
        }
    }
}
