//! The attributes of a node, by name and type.
//!
//! Whoever converts a node asks for what it knows; what is left at the end is an error, because an attribute that we skip
//! could change what the node means.

use crate::onnx::proto::attribute_proto::AttributeType;
use crate::onnx::proto::{AttributeProto, NodeProto, TensorProto};
use std::cell::Cell;

/// A node's attributes, and which of them have been asked for.
#[derive(Debug)]
pub(crate) struct Attributes<'a> {
    all: &'a [AttributeProto],
    asked: Vec<Cell<bool>>,
}

impl<'a> Attributes<'a> {
    /// Errors when two attributes have one name.
    pub(crate) fn new(node: &'a NodeProto) -> Result<Attributes<'a>, String> {
        let all = &node.attribute;
        if all.len() > 64 {
            return Err(format!("has {} attributes, more than any operator knows", all.len()));
        }
        let twice = (1..all.len()).find(|&i| all[..i].iter().any(|earlier| earlier.name() == all[i].name()));
        match twice {
            Some(i) => Err(format!("has attribute `{}` twice", all[i].name())),
            None => Ok(Attributes { all, asked: vec![Cell::new(false); all.len()] }),
        }
    }

    /// Whether the node has it, whatever its type; does not count as asking.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.all.iter().any(|attribute| attribute.name() == name)
    }

    fn find(&self, name: &str, wanted: AttributeType) -> Result<Option<&'a AttributeProto>, String> {
        let Some(i) = self.all.iter().position(|attribute| attribute.name() == name) else { return Ok(None) };
        self.asked[i].set(true);
        let attribute = &self.all[i];
        if attribute.ref_attr_name.as_deref().is_some_and(|name| !name.is_empty()) {
            return Err(format!("takes attribute `{name}` from a function, outside of one"));
        }
        // IR versions before 2 had no type; then the field that is set must do.
        match attribute.r#type() {
            AttributeType::Undefined => Ok(Some(attribute)),
            found if found == wanted => Ok(Some(attribute)),
            found => Err(format!(
                "has attribute `{name}` of type {}, but {} is wanted",
                found.as_str_name(),
                wanted.as_str_name()
            )),
        }
    }

    pub(crate) fn int(&self, name: &str) -> Result<Option<i64>, String> {
        Ok(self.find(name, AttributeType::Int)?.map(AttributeProto::i))
    }

    pub(crate) fn float(&self, name: &str) -> Result<Option<f32>, String> {
        Ok(self.find(name, AttributeType::Float)?.map(AttributeProto::f))
    }

    pub(crate) fn ints(&self, name: &str) -> Result<Option<&'a [i64]>, String> {
        Ok(self.find(name, AttributeType::Ints)?.map(|attribute| &attribute.ints[..]))
    }

    pub(crate) fn floats(&self, name: &str) -> Result<Option<&'a [f32]>, String> {
        Ok(self.find(name, AttributeType::Floats)?.map(|attribute| &attribute.floats[..]))
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<Option<&'a TensorProto>, String> {
        let Some(attribute) = self.find(name, AttributeType::Tensor)? else { return Ok(None) };
        attribute.t.as_ref().map(Some).ok_or_else(|| format!("has attribute `{name}` without its tensor"))
    }

    pub(crate) fn string(&self, name: &str) -> Result<Option<&'a str>, String> {
        let Some(attribute) = self.find(name, AttributeType::String)? else { return Ok(None) };
        let bytes = attribute.s.as_deref().unwrap_or_default();
        std::str::from_utf8(bytes).map(Some).map_err(|_| format!("has attribute `{name}` that is not UTF-8"))
    }

    pub(crate) fn strings(&self, name: &str) -> Result<Option<Vec<&'a str>>, String> {
        let Some(attribute) = self.find(name, AttributeType::Strings)? else { return Ok(None) };
        let strings = attribute.strings.iter().map(|bytes| std::str::from_utf8(bytes));
        let strings: Result<Vec<_>, _> = strings.collect();
        strings.map(Some).map_err(|_| format!("has attribute `{name}` that is not UTF-8"))
    }

    /// A 0 or 1; `default` when it is left out.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, String> {
        match self.int(name)? {
            None => Ok(default),
            Some(value @ (0 | 1)) => Ok(value == 1),
            Some(value) => Err(format!("has attribute `{name}` of {value}, but 0 or 1 is wanted")),
        }
    }

    /// Attributes that say how a model was trained or exported and mean nothing here.
    pub(crate) fn skip(&self, names: &[&str]) {
        for (attribute, asked) in self.all.iter().zip(&self.asked) {
            if names.contains(&attribute.name()) {
                asked.set(true);
            }
        }
    }

    /// The first attribute that nobody asked for.
    pub(crate) fn unknown(&self) -> Option<&'a str> {
        let left = self.all.iter().zip(&self.asked).find(|(_, asked)| !asked.get());
        left.map(|(attribute, _)| attribute.name())
    }
}
