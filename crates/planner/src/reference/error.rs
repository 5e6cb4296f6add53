//! What can go wrong, and a node's inputs, which every message names.

use crate::shape;
use crate::tensor::Tensor;
use tessera_core::DType;

/// Why an operator has no result.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EvalError {
    /// The inputs do not fit the operator.
    #[error("{op} of {inputs}: {why}")]
    Misfit {
        /// The operator.
        op: &'static str,
        /// Types and shapes of what it was given.
        inputs: String,
        /// What does not fit.
        why: String,
    },
    /// An index leads out of what it indexes.
    #[error("{op}: index {index} is out of range for {rows} rows; give one of {}..{rows}", -(*rows as i128))]
    IndexOutOfRange {
        /// The operator.
        op: &'static str,
        /// The index.
        index: i64,
        /// How many rows there are.
        rows: usize,
    },
    /// An integer is divided by zero.
    #[error("{op}: an integer is divided by zero")]
    DivisionByZero {
        /// The operator.
        op: &'static str,
    },
    /// The result does not fit into memory.
    #[error("{op}: the result {dtype}{dims:?} is larger than memory can address")]
    TooLarge {
        /// The operator.
        op: &'static str,
        /// Its element type.
        dtype: DType,
        /// Its dimensions.
        dims: Vec<usize>,
    },
}

/// Why a graph has no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A node.
    #[error("node `{node}`")]
    Node {
        /// Its name, or that of its first output.
        node: String,
        /// What it said.
        #[source]
        source: EvalError,
    },
    /// A weight could not be read.
    #[error("weight `{name}` cannot be read")]
    Weight {
        /// Its name.
        name: String,
        /// What the reader said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A weight, or an input, is not what the graph declares.
    #[error("`{name}` is {got}, but the model declares {want}")]
    Declared {
        /// Its name.
        name: String,
        /// Type and shape that the graph declares.
        want: String,
        /// Type and shape that were given.
        got: String,
    },
    /// More or fewer inputs than the graph has.
    #[error("the model has {want} inputs, but {got} were given")]
    InputCount {
        /// How many the graph has.
        want: usize,
        /// How many were given.
        got: usize,
    },
    /// Something is read before it is made.
    #[error("node `{node}` reads `{value}`, which nothing before it makes")]
    Undefined {
        /// The node.
        node: String,
        /// The value.
        value: String,
    },
}

/// The inputs of an operator, and its name for messages.
#[derive(Clone, Copy)]
pub(super) struct Args<'a> {
    pub op: &'static str,
    pub inputs: &'a [Option<&'a Tensor>],
}

impl<'a> Args<'a> {
    /// An input that must be there.
    pub(super) fn get(self, index: usize) -> Result<&'a Tensor, EvalError> {
        self.opt(index).ok_or_else(|| self.misfit(format!("input {index} is missing")))
    }

    /// An input that may be left out.
    pub(super) fn opt(self, index: usize) -> Option<&'a Tensor> {
        self.inputs.get(index).copied().flatten()
    }

    pub(super) fn misfit(self, why: impl Into<String>) -> EvalError {
        let one = |tensor: &Option<&Tensor>| match tensor {
            Some(tensor) => format!("{}{:?}", tensor.dtype(), tensor.dims()),
            None => "–".into(),
        };
        let inputs: Vec<String> = self.inputs.iter().map(one).collect();
        EvalError::Misfit { op: self.op, inputs: inputs.join(", "), why: why.into() }
    }

    pub(super) fn undefined_on(self, dtype: DType) -> EvalError {
        self.misfit(format!("it is not defined on {dtype}"))
    }

    /// An axis, negative ones counted from the end.
    pub(super) fn axis(self, axis: i64, rank: usize) -> Result<usize, EvalError> {
        shape::axis(axis, rank).ok_or_else(|| self.misfit(format!("there is no axis {axis} among {rank}")))
    }

    /// Distinct axes in increasing order.
    pub(super) fn axes(self, axes: &[i64], rank: usize) -> Result<Vec<usize>, EvalError> {
        shape::axes(axes, rank).ok_or_else(|| self.misfit(format!("{axes:?} are not axes among {rank}")))
    }

    /// A list of integers, or one.
    pub(super) fn integers(self, index: usize) -> Result<Vec<i64>, EvalError> {
        let tensor = self.get(index)?;
        let integers = match tensor.dtype() {
            DType::I64 => tensor.elements::<i64>(),
            DType::I32 => tensor.elements::<i32>().map(|list| list.into_iter().map(i64::from).collect()),
            _ => None,
        };
        let integers = integers.filter(|_| tensor.dims().len() <= 1);
        integers.ok_or_else(|| self.misfit(format!("input {index} is not a list of integers")))
    }

    /// The number of elements of a result, which must fit into memory.
    pub(super) fn count(self, dtype: DType, dims: &[usize]) -> Result<usize, EvalError> {
        match crate::tensor::checked_len(dtype, dims) {
            Some(bytes) if isize::try_from(bytes.saturating_mul(16)).is_ok() => Ok(bytes / dtype.size()),
            _ => Err(EvalError::TooLarge { op: self.op, dtype, dims: dims.to_vec() }),
        }
    }
}
