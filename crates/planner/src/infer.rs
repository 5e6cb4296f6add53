//! Shapes, types and known values of a graph whose free dimensions are given, with the item count left open.
//!
//! Every value has a shape *per item*. A value of logical shape `[t, n·k, f]`, with `n` items on axis 1, has per-item
//! dimensions `[t, k, f]` and item axis 1; each operator then means on one item what ONNX says it means on the whole, which
//! is exactly the proof that items are independent. An operator that would mix items (a softmax over the item axis, a
//! reshape that moves it) is an error, `InferError::MixesItems`, and the class is planned a whole request at a time.
//!
//! Exporters compute shapes and indices with operators (`Shape`, `Gather`, `Range`, …). Small integer and boolean values are therefore
//! evaluated here, over numbers that may mention the item count `n` and the item's own index `i`: [`Number`]. That is how a
//! gather at `i·length + j` of flattened rows is seen to stay inside its item.

use tessera_core::DType;

/// How a free dimension is given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DimValue {
    /// So many, in this plan.
    Fixed(u64),
    /// The item count, left open.
    Items,
}

/// An integer that may depend on the item count `n` and on the item's index `i`: `constant + per_count·n + per_item·i`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Number {
    /// The part that depends on neither.
    pub constant: i64,
    /// Factor of the item count.
    pub per_count: i64,
    /// Factor of the item's index.
    pub per_item: i64,
}

/// What is known of a value.
#[derive(Clone, PartialEq, Debug)]
pub struct Fact {
    /// Element type.
    pub dtype: DType,
    /// Dimensions of one item.
    pub dims: Vec<usize>,
    /// The axis that runs over items (times `dims[axis]` rows each), or `None` for a value that all items share.
    pub items: Option<usize>,
    /// Its elements, when they follow from shapes and literals alone.
    pub known: Option<Known>,
}

/// The elements of a value that follows from shapes and literals alone, per item, row-major.
#[derive(Clone, PartialEq, Debug)]
pub enum Known {
    /// The same for every item and item count.
    Tensor(crate::tensor::Tensor),
    /// Integers (or booleans as 0 and 1) that depend on the item count or index.
    Numbers(Vec<Number>),
}
