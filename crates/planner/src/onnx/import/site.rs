//! What converters of [`table`] see of a node's inputs, and do to the graph as it grows.

use crate::graph::{Node, Param, ParamData, ValueId};
use crate::onnx::data::{self, Loaded};
use crate::onnx::proto::TensorProto;
use crate::onnx::ranks::{self, Known};
use crate::onnx::table::{self, Refusal};
use crate::op::Op;
use tessera_core::DType;

impl<'m> table::Site<'_, 'm> {
    /// What is known of an input's shape.
    pub(crate) fn known(&self, input: usize) -> Known {
        let known =
            self.inputs.get(input).copied().flatten().map(|value| self.importer.known[value.0 as usize]);
        known.unwrap_or_default()
    }

    /// The dimensions of an input that is a parameter.
    pub(crate) fn param_dims(&self, input: usize) -> Option<Vec<usize>> {
        let value = self.inputs.get(input).copied().flatten()?;
        let param = self.importer.params.get(&value)?;
        Some(self.importer.graph.params[param.0 as usize].dims.clone())
    }

    /// The one element of an input that is a boolean literal.
    pub(crate) fn boolean(&self, input: usize) -> Option<bool> {
        let value = self.inputs.get(input).copied().flatten()?;
        let param = self.importer.params.get(&value)?;
        match &self.importer.graph.params[param.0 as usize].data {
            ParamData::Literal(tensor) => tensor.elements::<bool>()?.first().copied(),
            ParamData::Weight(_) => None,
        }
    }

    /// A literal of this site, as if it were an initializer.
    pub(crate) fn make_literal(&mut self, what: &str, tensor: crate::tensor::Tensor) -> ValueId {
        let name = format!("{}:{what}", self.base_name());
        let (dtype, dims) = (tensor.dtype(), tensor.dims().to_vec());
        self.importer.push_param(name, dtype, dims, ParamData::Literal(tensor), None)
    }

    /// A literal scalar of the type of input `like`: a float, or its integer part.
    pub(crate) fn number(&mut self, what: &str, value: f64, like: usize) -> ValueId {
        // Where the type is not known, an operator before this one was refused, and so is the model.
        let dtype = self.known(like).dtype.unwrap_or(DType::F32);
        self.make_literal(what, crate::reference::number(value, dtype))
    }

    /// A vector of integers as an input.
    pub(crate) fn integers(&mut self, what: &str, elements: &[i64]) -> ValueId {
        self.make_literal(what, crate::tensor::Tensor::from_elements(&[elements.len()], elements))
    }

    fn base_name(&self) -> &'m str {
        self.node.output.iter().find(|name| !name.is_empty()).map(String::as_str).unwrap_or_default()
    }

    /// Whether output `index` is read by anybody.
    pub(crate) fn wants(&self, index: usize) -> bool {
        let name = self.node.output.get(index);
        name.is_some_and(|name| !name.is_empty() && self.importer.read.contains(&name[..]))
    }

    /// A node on the way to the answer; one output.
    pub(crate) fn inner(&mut self, what: &str, op: Op, inputs: Vec<Option<ValueId>>) -> ValueId {
        let known = self.infer(&op, &inputs, 1)[0];
        let value = self.importer.value(format!("{}:{what}", self.base_name()), known);
        let name = self.node.name().to_owned();
        self.importer.graph.nodes.push(Node { name, op, inputs, outputs: vec![Some(value)] });
        value
    }

    /// A node on the way to the answer; as many outputs as are asked for.
    pub(crate) fn inner_of(&mut self, op: Op, inputs: Vec<Option<ValueId>>, count: usize) -> Vec<ValueId> {
        let base = self.base_name();
        let known = self.infer(&op, &inputs, count);
        let values: Vec<ValueId> = known
            .into_iter()
            .enumerate()
            .map(|(index, known)| self.importer.value(format!("{base}:{index}"), known))
            .collect();
        let name = self.node.name().to_owned();
        let outputs = values.iter().copied().map(Some).collect();
        self.importer.graph.nodes.push(Node { name, op, inputs, outputs });
        values
    }

    /// The node that makes the outputs, `count` of them; those that nobody reads are left out.
    pub(crate) fn finish(&mut self, op: Op, inputs: Vec<Option<ValueId>>, count: usize) {
        let known = self.infer(&op, &inputs, count);
        let outputs = (0..count).map(|i| {
            let known = known.get(i).copied().unwrap_or_default();
            self.wants(i).then(|| self.define(&self.node.output[i], known))
        });
        let outputs = outputs.collect();
        let name = self.node.name().to_owned();
        self.importer.graph.nodes.push(Node { name, op, inputs, outputs });
    }

    /// As [`Self::finish`], for output `index` alone.
    pub(crate) fn finish_output(&mut self, index: usize, op: Op, inputs: Vec<Option<ValueId>>) {
        if self.wants(index) {
            let known = self.infer(&op, &inputs, 1)[0];
            let output = self.define(&self.node.output[index], known);
            let name = self.node.name().to_owned();
            self.importer.graph.nodes.push(Node { name, op, inputs, outputs: vec![Some(output)] });
        }
    }

    fn define(&mut self, name: &'m str, mut known: Known) -> ValueId {
        known.rank = known.rank.or_else(|| self.importer.declared_ranks.get(name).copied());
        let value = self.importer.value(name.to_owned(), known);
        self.importer.values.insert(name, value);
        value
    }

    fn infer(&self, op: &Op, inputs: &[Option<ValueId>], outputs: usize) -> Vec<Known> {
        let known: Vec<_> =
            inputs.iter().map(|value| value.map(|value| self.importer.known[value.0 as usize])).collect();
        ranks::infer(op, &known, outputs)
    }

    /// The first output is `value` under another name. A parameter gets a parameter of its own with that name: exporters merge equal
    /// initializers of a fresh model, and the names that they had before are those of the Identity nodes.
    pub(crate) fn alias(&mut self, value: ValueId) {
        self.alias_output(0, value);
    }

    /// Output `index`, where there is one, is `value` under another name.
    pub(crate) fn alias_output(&mut self, index: usize, value: ValueId) {
        let Some(name) = self.node.output.get(index).filter(|name| !name.is_empty()) else { return };
        let value = match self.importer.params.get(&value) {
            None => value,
            Some(param) => {
                let Param { dtype, dims, data, .. } = self.importer.graph.params[param.0 as usize].clone();
                let origin = self.importer.origins[param.0 as usize].clone();
                self.importer.push_param(name.clone(), dtype, dims, data, origin)
            }
        };
        self.importer.values.insert(name, value);
    }

    /// The first output is this tensor of the file.
    pub(crate) fn constant(&mut self, loaded: &Loaded) -> Result<(), Refusal> {
        let Some(name) = self.node.output.first() else { return Ok(()) };
        let value = self.importer.param(name.clone(), loaded, None)?;
        self.importer.values.insert(name, value);
        Ok(())
    }

    /// A tensor that stands in an attribute.
    pub(crate) fn load(&mut self, tensor: &TensorProto) -> Result<Loaded, Refusal> {
        Ok(data::load(tensor, self.base_name(), None, &mut self.importer.external)?)
    }
}
