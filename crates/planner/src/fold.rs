//! Weights folded: the class graph with everything that only depends on weights taken out of it.
//!
//! ```text
//!   Conv(x, w, b) ─ BatchNorm(·, γ, β, μ, σ²)      becomes   Conv(x, w′, b′)   w′ = expression over (w, γ, σ²), b′ = …
//!   Gemm(x, Transpose(w))                          becomes   Gemm(x, w′)       w′ = Transpose(w)
//! ```
//! Purely structural: it looks at operators, attributes and the shapes of parameters, never at activations' shapes (so
//! one slot serves every plan of the class) and never at weights' values. The expressions are evaluated once per tenant
//! version, by the reference, when its weights are packed.

use crate::graph::{Graph, ParamId, ValueId};
use crate::op::Op;
use crate::tensor::Tensor;

/// What plans are made from.
#[derive(Clone, Debug)]
pub struct Folded {
    /// The nodes that remain. Its `params` are literals only; weights are listed below. Conventions of this form:
    /// `Gemm` has factors of one and no transposes, its weight being `[k, n]`; `MatMul` with a weight matrix on the right is a `Gemm` over the last
    /// axis of an input of any rank; `Lstm` has one direction, `w [input, 4·hidden]`, `r [hidden, 4·hidden]` and the summed bias `[4·hidden]`.
    pub graph: Graph,
    /// Weights that nodes read, by [`crate::pack::WeightId`].
    pub weights: Vec<FoldedWeight>,
}

/// One packed tensor as nodes see it, and where it comes from.
#[derive(Clone, Debug)]
pub struct FoldedWeight {
    /// The parameter that it mainly comes from, for people.
    pub name: String,
    /// The value that nodes of [`Folded::graph`] read.
    pub value: ValueId,
    /// Its dimensions as nodes see them.
    pub dims: Vec<usize>,
    /// How it is computed from the class graph's parameters.
    pub expr: WeightExpr,
    /// How its readers want it to lie.
    pub role: Role,
}

/// A value computed from weights alone.
#[derive(Clone, Debug)]
pub enum WeightExpr {
    /// A parameter of the *class* graph.
    Param(ParamId),
    /// A value that is the same for every tenant.
    Literal(Tensor),
    /// One output of an operator of other expressions.
    Apply {
        /// The operator.
        op: Op,
        /// Its inputs.
        inputs: Vec<Option<WeightExpr>>,
        /// Which of its outputs.
        output: usize,
    },
}

/// How the readers of a weight want it to lie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Row-major.
    Plain,
    /// `[k, n]`: panels.
    Matrix,
    /// `[out, in / groups, kernel height, kernel width]` of a convolution: panels of `kernel·in × out` per group, rows in the order
    /// (ky, kx, in).
    Conv {
        /// Groups of the convolution.
        groups: usize,
    },
    /// `[channels, 1, kernel height, kernel width]` of a depthwise convolution: plain `[taps][channels]`.
    Depthwise,
}
