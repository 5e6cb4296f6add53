//! What can be wrong with a model file, said to the person who exported it.

use crate::onnx::import::{NEWEST_OPSET, OLDEST_OPSET};
use crate::source::SourceError;
use std::fmt;
use tessera_core::Bytes;

/// Why a model could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file, or one that it points to, could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// The bytes are not the protobuf message that they should be.
    #[error("this is not an ONNX model, or a part of one: {0}")]
    NotOnnx(String),
    /// More than we are willing to hold.
    #[error("the model has {got} {what}, more than the {limit} that are taken")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        got: usize,
        /// How many are taken.
        limit: usize,
    },
    /// Its messages would take more memory than a model of its length has any use for.
    #[error(
        "the model's messages would take {need} of memory, more than the {allowed} that are taken for a file of its length"
    )]
    TooLarge {
        /// What decoding would take.
        need: Bytes,
        /// What it may take.
        allowed: Bytes,
    },
    /// It was written for an operator set that we do not know, or for none.
    #[error("{problem}; Tessera knows opsets {OLDEST_OPSET} to {NEWEST_OPSET}: {way_out}")]
    Opset {
        /// What it asks for.
        problem: String,
        /// How to get one that we know.
        way_out: &'static str,
    },
    /// An input is not what a request could bring.
    #[error("input `{name}` {problem}")]
    Input {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// An output is not what an answer could hold.
    #[error("output `{name}` {problem}")]
    Output {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// An initializer or constant does not hold what it says.
    #[error("tensor `{name}` {problem}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// External data could not be had.
    #[error("external data of tensor `{name}`: {source}")]
    External {
        /// The tensor's name.
        name: String,
        /// Why not.
        source: SourceError,
    },
    /// A node breaks the rules of its operator.
    #[error("{node} {problem}")]
    Node {
        /// The operator and the node's name.
        node: String,
        /// What is wrong.
        problem: String,
    },
    /// Something is read that nothing makes.
    #[error("{reader} reads `{value}`, which nothing makes")]
    Dangling {
        /// The value's name.
        value: String,
        /// Who reads it.
        reader: String,
    },
    /// Two things have one name.
    #[error("`{value}` is defined twice: by {first} and by {second}")]
    DefinedTwice {
        /// The value's name.
        value: String,
        /// Who defines it first.
        first: String,
        /// Who defines it again.
        second: String,
    },
    /// Nodes that wait for each other.
    #[error("the graph has a cycle: {}", nodes.join(" → "))]
    Cycle {
        /// The nodes of the cycle, the first one again at the end.
        nodes: Vec<String>,
    },
    /// Operators that we lack, all of them.
    #[error("{}", list(.0))]
    Unsupported(Vec<Unsupported>),
}

/// An operator that cannot be served, and why not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unsupported {
    /// Its name, with its domain where that is not ONNX's own.
    pub op: String,
    /// How many nodes of the model are such.
    pub count: usize,
    /// The first of them.
    pub first: String,
    /// Why not, and what to do.
    pub reason: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}×, first {}): {}", self.op, self.count, self.first, self.reason)
    }
}

fn list(unsupported: &[Unsupported]) -> String {
    let lines: Vec<String> = unsupported.iter().map(|one| format!("\n  {one}")).collect();
    format!("the model uses what Tessera does not support:{}", lines.concat())
}
