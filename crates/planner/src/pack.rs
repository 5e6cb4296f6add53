//! Packing: from a model's weights to the bytes of a slot.
//!
//! ```text
//!   Class ─layout(target)─▶ SlotLayout   what lies where in a slot; per (class, precision, device), never per shape
//!   Model ─pack(layout)───▶ Packed       the bytes; per tenant version, cached on disk by everything that can change them
//! ```
//! Each packed tensor is the value of a small expression over parameters (fold a BatchNorm, transpose, add two biases),
//! evaluated by the reference, then laid out as a device wants it. Plans refer to packed tensors by [`WeightId`] alone.

mod evaluate;
mod identity;
mod lay;

pub use identity::{WeightsHash, identify};

use crate::fold::{Folded, FoldedWeight, Role};
use crate::graph::{Graph, ParamId};
use crate::reference::EvalError;
use crate::source::SourceError;
use crate::tensor::{Tensor, checked_len};
use evaluate::Evaluation;
use tessera_core::{Bytes, DType, Precision};

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

/// What every offset in a slot is a multiple of: a line of a CPU's cache, and enough for a GPU's widest loads.
const ALIGNMENT: usize = 64;

/// Why weights cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A weight could not be read.
    #[error("weight `{name}`")]
    Read {
        /// The parameter's name.
        name: String,
        /// Why.
        source: SourceError,
    },
    /// What was read is not what the class asks for.
    #[error("weight `{name}` is {got}, but the model's class asks for {want}")]
    Mismatch {
        /// The parameter's name.
        name: String,
        /// Type and dimensions that were read.
        got: String,
        /// Type and dimensions of the class.
        want: String,
    },
    /// An expression has no value.
    #[error("weight `{name}` cannot be computed")]
    Evaluate {
        /// The weight's name.
        name: String,
        /// Why.
        source: EvalError,
    },
    /// The slot is larger than this machine's memory.
    #[error("weight `{name}` makes a slot larger than memory can address")]
    Overflows {
        /// The weight's name.
        name: String,
    },
    /// Weights are packed as singles so far.
    #[error("weights cannot be packed for precision {0} yet; choose fp32")]
    Precision(Precision),
}

impl SlotLayout {
    /// What lies where in a slot of a class: its weights in their order, each as its readers want it.
    ///
    /// The order and the layouts follow from the class and the target alone. Errors when the precision is not one that is
    /// packed, or a slot is larger than memory can address.
    pub fn of(folded: &Folded, target: PackTarget) -> Result<SlotLayout, PackError> {
        if !matches!(target.precision, Precision::Fp32 | Precision::Tf32) {
            return Err(PackError::Precision(target.precision));
        }
        let mut end = 0usize;
        let mut tensors = Vec::with_capacity(folded.weights.len());
        for weight in &folded.weights {
            let overflows = || PackError::Overflows { name: weight.name.clone() };
            let layout = Layout::of(weight, target.panel_width).ok_or_else(overflows)?;
            let bytes = layout.checked_bytes().ok_or_else(overflows)?;
            tensors.push(PackedTensor { name: weight.name.clone(), layout, offset: end });
            let filled = end.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(ALIGNMENT));
            end = filled.filter(|&end| isize::try_from(end).is_ok()).ok_or_else(overflows)?;
        }
        Ok(SlotLayout { target, tensors, bytes: Bytes(end as u64) })
    }
}

impl Layout {
    /// How a weight lies under its role; `None` when a dimension overflows, or does not belong to the role.
    fn of(weight: &FoldedWeight, width: usize) -> Option<Layout> {
        let taps = |dims: &[usize]| dims.iter().try_fold(1usize, |taps, &dim| taps.checked_mul(dim));
        match (weight.role, &weight.dims[..]) {
            (Role::Plain, dims) => Some(Layout::Plain { dims: dims.to_vec() }),
            (Role::Matrix, &[k, n]) => Some(Layout::Panels { groups: 1, k, n, width }),
            (Role::Conv { groups }, [out, inputs, kernel @ ..]) => {
                let k = taps(kernel)?.checked_mul(*inputs)?;
                Some(Layout::Panels { groups, k, n: out.checked_div(groups)?, width })
            }
            (Role::Depthwise, [channels, 1, kernel @ ..]) => {
                Some(Layout::Plain { dims: vec![taps(kernel)?, *channels] })
            }
            (Role::Matrix | Role::Conv { .. } | Role::Depthwise, _) => None,
        }
    }

    /// Bytes of all elements, `None` when the number overflows.
    fn checked_bytes(&self) -> Option<usize> {
        match self {
            Layout::Plain { dims } => checked_len(DType::F32, dims),
            Layout::Panels { groups, k, n, width } => {
                let panels = (*width > 0).then(|| n.div_ceil(*width))?;
                checked_len(DType::F32, &[*groups, panels, *k, *width])
            }
        }
    }
}

/// The bytes of a slot: every weight of `folded`, which was folded from `class`, computed and laid out as `layout` says.
///
/// `read` brings a parameter of `class` with this tenant's elements, in any float type, and is called once for each that is needed. Costs a pass
/// over the weights for reading and one or a few for computing; memory peaks at the slot and about one tensor.
pub fn pack(
    class: &Graph,
    folded: &Folded,
    layout: &SlotLayout,
    read: &mut dyn FnMut(ParamId) -> Result<Tensor, SourceError>,
) -> Result<Packed, PackError> {
    pack_identified(class, folded, layout, read).map(|(packed, _)| packed)
}

/// As [`pack`], with the identity of the very bytes that were packed.
pub(crate) fn pack_identified(
    class: &Graph,
    folded: &Folded,
    layout: &SlotLayout,
    read: &mut dyn FnMut(ParamId) -> Result<Tensor, SourceError>,
) -> Result<(Packed, WeightsHash), PackError> {
    let len = usize::try_from(layout.bytes.0).expect("the layout was checked to fit memory");
    let mut bytes = vec![0; len];
    let mut evaluation = Evaluation::new(class, folded, read);
    for (weight, packed) in folded.weights.iter().zip(&layout.tensors) {
        let tensor = evaluation.weight(weight)?;
        let size = packed.layout.elements() * DType::F32.size();
        lay::lay(
            weight.role,
            tensor.dims(),
            tensor.bytes(),
            &packed.layout,
            &mut bytes[packed.offset..][..size],
        );
    }
    let hash = evaluation.finish();
    Ok((Packed { bytes }, hash))
}
