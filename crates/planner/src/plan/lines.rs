//! Steps that work along one axis of a dense value, or go to elements by number.

use super::{BufferId, ConstantId, Operand};
use crate::op;

/// The lines of a dense value along one of its axes: element `at` of line `(o, i)` lies at `(o·length + at)·inner + i`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lines {
    /// Product of what lies outside the axis.
    pub outer: usize,
    /// Elements of a line.
    pub length: usize,
    /// Product of what lies inside the axis: neighbours of a line are so many elements apart.
    pub inner: usize,
}

impl Lines {
    /// Number of elements.
    pub const fn elements(self) -> usize {
        self.outer * self.length * self.inner
    }

    /// The same lines with another length.
    pub const fn with_length(self, length: usize) -> Lines {
        Lines { length, ..self }
    }
}

/// The first `k` elements of every line in order: largest or smallest first, a NaN before every number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopK {
    /// Dense: numbers of any type.
    pub x: Operand,
    /// Its lines, none of them empty.
    pub lines: Lines,
    /// How many are wanted, at least one and at most a line's length.
    pub k: usize,
    /// Whether the largest come first.
    pub largest: bool,
    /// Whether of equal elements the last comes first.
    pub last: bool,
    /// The elements: lines of `k`, of x's type.
    pub values: Option<BufferId>,
    /// Their numbers in their line: lines of `k`, i64.
    pub indices: Option<BufferId>,
}

/// Sums of every line from its first element on, added in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CumSum {
    /// Dense: f32, or integers, which wrap.
    pub x: Operand,
    /// Its lines.
    pub lines: Lines,
    /// Whether an element's own value is left out of its sum.
    pub exclusive: bool,
    /// Whether sums run from the last element back.
    pub reverse: bool,
    /// As `x`.
    pub out: BufferId,
}

/// Lines made longer or shorter: `out[o] = Σₜ weights[o, t] · x[at[o, t]]`, from the first tap to the last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resample {
    /// Dense f32.
    pub x: Operand,
    /// Its lines.
    pub lines: Lines,
    /// Length of the lines of `out`.
    pub count: usize,
    /// Elements that meet in one.
    pub taps: usize,
    /// `[count, taps]` i32, each below the length of a line of `x`.
    pub at: ConstantId,
    /// `[count, taps]` f32.
    pub weights: ConstantId,
    /// Lines of `count`, f32, dense.
    pub out: BufferId,
}

/// Places in a dense value that numbers lead to: point `p` of `dims` is at `Σ p·strides + Σ number·along`. A number outside `-size..size`
/// fails the request that it came from, and only that one; negative numbers count from the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Points {
    /// The points.
    pub dims: Vec<usize>,
    /// Elements between the places of neighbouring points, before their numbers are added.
    pub strides: Vec<usize>,
    /// For each number of a point how many elements it chooses from.
    pub sizes: Vec<usize>,
    /// And how far apart they lie.
    pub along: Vec<usize>,
    /// Elements from each place on that belong to the point.
    pub row: usize,
}

impl Points {
    /// How many points there are.
    pub fn count(&self) -> usize {
        self.dims.iter().product()
    }

    /// How many numbers there are.
    pub fn ids(&self) -> usize {
        self.count() * self.sizes.len()
    }

    /// Elements up to the end of the last place that any numbers lead to.
    pub fn reach(&self) -> usize {
        let axes = self.dims.iter().zip(&self.strides).chain(self.sizes.iter().zip(&self.along));
        axes.map(|(&length, &stride)| length.saturating_sub(1) * stride).sum::<usize>() + self.row
    }
}

/// `out[p, :] = x[place(p) ..]`, a row for every point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pick {
    /// Dense, of any type.
    pub x: Operand,
    /// What is taken.
    pub points: Points,
    /// The numbers: dense `[points.dims…, points.sizes.len()]`, i32 or i64.
    pub ids: Operand,
    /// The input that the numbers come from, for the error.
    pub what: String,
    /// Dense `[points.dims…, points.row]`, of x's type.
    pub out: BufferId,
}

/// `out[place(p) ..] = how(out[place(p) ..], updates[p, :])` in a buffer that was written before.
///
/// Points of one index along the axes of stride 0 never meet; those along axes of stride 0 may, and are written in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scatter {
    /// Where the updates go. The axes of stride 0 stand together.
    pub points: Points,
    /// The numbers: dense `[points.dims…, points.sizes.len()]`, i32 or i64.
    pub ids: Operand,
    /// The input that the numbers come from, for the error.
    pub what: String,
    /// Dense `[points.dims…, points.row]`, of out's type.
    pub updates: Operand,
    /// What becomes of the element that was there. Truths are replaced only.
    pub how: op::Scatter,
    /// Dense; holds what is changed.
    pub out: BufferId,
}
