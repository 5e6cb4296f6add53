//! Packing: from a model's weights to the bytes of a slot.
//!
//! ```text
//!   Class ─layout(target)─▶ SlotLayout   what lies where in a slot; per (class, precision, device), never per shape
//!   Model ─pack(layout)───▶ Packed       the bytes; per tenant version, cached on disk by everything that can change them
//! ```
//! Each packed tensor is the value of a small expression over parameters (fold a BatchNorm, transpose, add two biases),
//! evaluated by the reference, then laid out as a device wants it. Plans refer to packed tensors by [`WeightId`] alone.

use tessera_core::{Bytes, Precision};

/// Index into [`SlotLayout::tensors`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WeightId(pub u32);

/// What a device wants of packed weights.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PackTarget {
    /// The device family, for the cache's key: `cpu`, `sm90`.
    pub device: &'static str,
    /// How numbers are held.
    pub precision: Precision,
    /// Columns of one panel of a matrix.
    pub panel_width: usize,
}

/// What lies where in a slot of a class.
#[derive(Clone, PartialEq, Debug)]
pub struct SlotLayout {
    /// What it was made for.
    pub target: PackTarget,
    /// Every packed tensor; offsets are multiples of 64.
    pub tensors: Vec<PackedTensor>,
    /// Bytes of one slot, a multiple of 64.
    pub bytes: Bytes,
}

/// One packed tensor of a slot.
#[derive(Clone, PartialEq, Debug)]
pub struct PackedTensor {
    /// The parameter that it mainly comes from, for people.
    pub name: String,
    /// How it lies.
    pub layout: Layout,
    /// Where it starts in the slot.
    pub offset: usize,
}

/// How a packed tensor lies. Elements are f32 on the CPU device.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Layout {
    /// Row-major, dense.
    Plain {
        /// Its dimensions.
        dims: Vec<usize>,
    },
    /// `groups` matrices of `k` rows and `n` columns, each as panels of `width` columns: `[group][n / width, rounded up][k][width]`, zeros
    /// beyond `n`.
    Panels {
        /// Matrices.
        groups: usize,
        /// Rows: the length of the sums.
        k: usize,
        /// Columns.
        n: usize,
        /// Columns of one panel.
        width: usize,
    },
}

impl Layout {
    /// Number of elements, zeros included.
    pub fn elements(&self) -> usize {
        match self {
            Layout::Plain { dims } => dims.iter().product(),
            Layout::Panels { groups, k, n, width } => groups * n.div_ceil(*width) * k * width,
        }
    }
}

/// The packed weights of one tenant version: the bytes of a slot.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Exactly [`SlotLayout::bytes`] bytes.
    pub bytes: Vec<u8>,
}
