//! A model as a graph: operators in Tessera's spelling, values between them, parameters as references to data.
//!
//! ```text
//!   inputs ─┐
//!   params ─┴─▶ node ─▶ node ─▶ … ─▶ outputs        nodes are in an order in which every value is made before use
//! ```
//! The import makes a `Graph` out of an ONNX file; `class` normalises it; `reference` gives it its meaning. A graph holds no weights: a
//! [`Param`] says where its bytes are, and only packing reads them.

use crate::op::Op;
use crate::source::Stamp;
use crate::tensor::Tensor;
use std::path::PathBuf;
use std::sync::Arc;
use tessera_core::DType;

/// A value between nodes: an index into [`Graph::values`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ValueId(pub u32);

/// A parameter: an index into [`Graph::params`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ParamId(pub u32);

/// One dimension of an input as the file declares it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Dim {
    /// Known when the model was exported.
    Fixed(u64),
    /// Chosen by each request: an index into [`Graph::free_dims`].
    Free(usize),
}

/// A model's operators, values and parameters.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The names of the dimensions that requests choose (`batch`, `sequence`), in order of first appearance.
    pub free_dims: Vec<String>,
    /// What a request brings.
    pub inputs: Vec<Input>,
    /// What an answer holds.
    pub outputs: Vec<Output>,
    /// Operators, each after everything it reads.
    pub nodes: Vec<Node>,
    /// Weights, constants and everything else that the file brings.
    pub params: Vec<Param>,
    /// The name of every value, for messages; index with [`ValueId`].
    pub values: Vec<String>,
}

/// Something a request brings.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name on the wire.
    pub name: String,
    /// The value that nodes read.
    pub value: ValueId,
    /// Its element type.
    pub dtype: DType,
    /// Its dimensions.
    pub dims: Vec<Dim>,
}

/// Something an answer holds.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its name on the wire.
    pub name: String,
    /// The value that is handed out.
    pub value: ValueId,
}

/// One operator with what it reads and makes.
#[derive(Clone, Debug)]
pub struct Node {
    /// The file's name for it, for messages; may be empty.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// What it reads; `None` for an optional input that is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// What it makes; `None` for an optional output that nobody wants.
    pub outputs: Vec<Option<ValueId>>,
}

/// A tensor that the model brings: a weight, or a value that the planner reads.
#[derive(Clone, Debug)]
pub struct Param {
    /// The value that nodes read.
    pub value: ValueId,
    /// The initializer's name in the file, which weights-only tenants use as a key.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// Where its elements are.
    pub data: ParamData,
}

/// Where the elements of a parameter are.
#[derive(Clone, Debug)]
pub enum ParamData {
    /// The planner may read them: their value is part of the class (integers, booleans, single-float literals).
    Literal(Tensor),
    /// A weight. Its value never influences the plan; it is read once, into the pack.
    Weight(WeightSource),
}

/// Where the bytes of a weight come from.
#[derive(Clone, Debug)]
pub enum WeightSource {
    /// They were in the model file itself.
    Inline(Tensor),
    /// They are at `offset..offset + len` of a file, row-major and little-endian.
    File {
        /// The file, resolved and checked to be inside the model's folder.
        path: Arc<PathBuf>,
        /// The state it was in when the model was imported: a later read of another state is an error.
        stamp: Stamp,
        /// Where the elements begin.
        offset: u64,
        /// Their number of bytes.
        len: u64,
    },
    /// They are a tensor of another type, or transposed, and become what is wanted when they are read.
    Converted {
        /// The bytes.
        from: Box<WeightSource>,
        /// What they are: a half of either kind, or the type that is wanted.
        dtype: DType,
        /// The dimensions that they have.
        dims: Vec<usize>,
        /// Whether the two dimensions are swapped.
        transposed: bool,
    },
    /// In no file: they are the zeros that stand for a bias left out. Not counted among a file's parameters.
    Zeros,
    /// Not at hand: a class has no weights, and a served model forgets its own once they are packed.
    Forgotten,
}

impl Graph {
    /// The parameter that defines `value`, if one does.
    pub fn param(&self, value: ValueId) -> Option<&Param> {
        self.params.iter().find(|param| param.value == value)
    }

    /// The name of a value, for messages.
    pub fn name(&self, value: ValueId) -> &str {
        &self.values[value.0 as usize]
    }
}
