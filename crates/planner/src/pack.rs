//! Packing: from a model's weights to the bytes of a slot.
//!
//! ```text
//!   Class ─layout(target)─▶ SlotLayout   what lies where in a slot; per (class, precision, device), never per shape
//!   Model ─pack(layout)───▶ Packed       the bytes; per tenant version, cached on disk by everything that can change them
//! ```
//! Each packed tensor is the value of a small expression over parameters (fold a BatchNorm, transpose, add two biases), laid out as a
//! device wants it. What is large streams from its file into its place; what is not is evaluated by the reference. Plans refer to packed
//! tensors by [`WeightId`] alone.

mod evaluate;
pub(crate) mod lay;
mod packed;
mod sources;
mod stream;

pub use lay::lay;
pub use packed::{Blank, Packed};
pub use sources::Sources;

use crate::fold::{Folded, FoldedWeight, Role};
use crate::graph::{Graph, ParamId, WeightSource};
use crate::reference::EvalError;
use crate::source::SourceError;
use crate::tensor::checked_len;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::thread;
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
    /// How matrices lie.
    pub matrices: Matrices,
}

/// How a device wants its matrices.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Matrices {
    /// [`Layout::Panels`] of so many columns: for kernels that broadcast one input to a row of columns.
    Panels(usize),
    /// [`Layout::Blocks`]: for matrix units that are fed from shared memory.
    Blocks,
}

/// What lies where in a slot of a class.
#[derive(Clone, PartialEq, Debug)]
pub struct SlotLayout {
    /// What it was made for.
    pub target: PackTarget,
    /// Every packed tensor; offsets are multiples of 128.
    pub tensors: Vec<PackedTensor>,
    /// Bytes of one slot, a multiple of 128.
    pub bytes: Bytes,
}

/// One packed tensor of a slot.
#[derive(Clone, PartialEq, Debug)]
pub struct PackedTensor {
    /// The parameter that it mainly comes from, for people.
    pub name: String,
    /// How it lies.
    pub layout: Layout,
    /// The type of its elements: that of the precision for matrices and tables, f32 for vectors (biases, scales) and depthwise
    /// kernels, which are small and meet f32 sums.
    pub dtype: DType,
    /// Its first byte in the slot.
    pub offset: usize,
}

impl PackedTensor {
    /// Bytes of all elements, zeros included.
    pub fn bytes(&self) -> usize {
        self.layout.elements() * self.dtype.size()
    }
}

/// How a packed tensor lies.
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
    /// `groups` matrices of `k` rows and `n` columns, each as blocks of 64 columns by `depth` rows, which is 128 bytes, as a matrix unit reads them
    /// from shared memory: `[group][n / 64, rounded up][k / depth, rounded up][64 columns][depth rows]`. In a block, the 16-byte chunk `c` of column
    /// `j` lies at `c ^ (j & 7)` (the 128-byte swizzle), so one contiguous copy puts it in place. Zeros beyond `k` and `n`.
    Blocks {
        /// Matrices.
        groups: usize,
        /// Rows: the length of the sums.
        k: usize,
        /// Columns.
        n: usize,
        /// Rows of one block: 64 of two bytes, 32 of four.
        depth: usize,
    },
}

/// Columns of one block.
pub const BLOCK_COLUMNS: usize = 64;
/// Bytes of one column of a block.
pub const BLOCK_ROW_BYTES: usize = 128;

impl Layout {
    /// Number of elements, zeros included.
    pub fn elements(&self) -> usize {
        match self {
            Layout::Plain { dims } => dims.iter().product(),
            Layout::Panels { groups, k, n, width } => groups * n.div_ceil(*width) * k * width,
            Layout::Blocks { groups, k, n, depth } => {
                groups * n.div_ceil(BLOCK_COLUMNS) * k.div_ceil(*depth) * BLOCK_COLUMNS * depth
            }
        }
    }

    /// Which element is `(row, column)` of a group's matrix. A plain tensor is one matrix of rows and columns.
    pub fn element(&self, group: usize, row: usize, column: usize) -> usize {
        match *self {
            Layout::Plain { ref dims } => row * dims.last().copied().unwrap_or(1) + column,
            Layout::Panels { k, n, width, .. } => {
                ((group * n.div_ceil(width) + column / width) * k + row) * width + column % width
            }
            Layout::Blocks { k, n, depth, .. } => {
                let columns = group * n.div_ceil(BLOCK_COLUMNS) + column / BLOCK_COLUMNS;
                let block = columns * k.div_ceil(depth) + row / depth;
                let (column, row) = (column % BLOCK_COLUMNS, row % depth);
                // A row of 128 bytes is eight chunks of 16.
                let chunk_elements = depth / 8;
                let chunk = (row / chunk_elements) ^ (column & 7);
                (block * BLOCK_COLUMNS + column) * depth + chunk * chunk_elements + row % chunk_elements
            }
        }
    }
}

/// What every offset in a slot is a multiple of: a line of a GPU's cache, two of a CPU's.
pub const ALIGNMENT: usize = 128;

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
}

impl SlotLayout {
    /// What lies where in a slot of a class: its weights in their order, each as its readers want it.
    ///
    /// The order and the layouts follow from the class and the target alone. Errors when a slot is larger than memory can address.
    pub fn of(folded: &Folded, target: PackTarget) -> Result<SlotLayout, PackError> {
        let weights = folded.weights.iter();
        SlotLayout::of_roles(
            weights.map(|weight| (weight.name.as_str(), weight.role, weight.dims.as_slice())),
            target,
        )
    }

    /// As [`SlotLayout::of`], of weights that no class is behind: name, role and dimensions.
    pub fn of_roles<'a>(
        weights: impl IntoIterator<Item = (&'a str, Role, &'a [usize])>,
        target: PackTarget,
    ) -> Result<SlotLayout, PackError> {
        let mut end = 0usize;
        let mut tensors = Vec::new();
        for (name, role, dims) in weights {
            let overflows = || PackError::Overflows { name: name.to_owned() };
            let stored = target.precision.stored(DType::F32);
            let vector = role == Role::Depthwise || (role == Role::Plain && dims.len() < 2);
            let dtype = if vector { DType::F32 } else { stored };
            let layout = Layout::of(role, dims, dtype, target.matrices).ok_or_else(overflows)?;
            let bytes = layout.checked_bytes(dtype).ok_or_else(overflows)?;
            tensors.push(PackedTensor { name: name.to_owned(), layout, dtype, offset: end });
            let filled = end.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(ALIGNMENT));
            end = filled.filter(|&end| isize::try_from(end).is_ok()).ok_or_else(overflows)?;
        }
        Ok(SlotLayout { target, tensors, bytes: Bytes(end as u64) })
    }
}

impl Layout {
    /// How a weight lies under its role; `None` when a dimension overflows, or does not belong to the role.
    fn of(role: Role, dims: &[usize], dtype: DType, matrices: Matrices) -> Option<Layout> {
        let taps = |dims: &[usize]| dims.iter().try_fold(1usize, |taps, &dim| taps.checked_mul(dim));
        let matrix = |groups, k, n| match matrices {
            Matrices::Panels(width) => Layout::Panels { groups, k, n, width },
            Matrices::Blocks => Layout::Blocks { groups, k, n, depth: BLOCK_ROW_BYTES / dtype.size() },
        };
        match (role, dims) {
            (Role::Plain, dims) => Some(Layout::Plain { dims: dims.to_vec() }),
            (Role::Matrix, &[k, n]) => Some(matrix(1, k, n)),
            (Role::Conv { groups }, [out, inputs, kernel @ ..]) => {
                let k = taps(kernel)?.checked_mul(*inputs)?;
                Some(matrix(groups, k, out.checked_div(groups)?))
            }
            (Role::Phases { groups, strides }, [out, inputs, kernel @ ..]) if kernel.len() <= 3 => {
                let phases = taps(&strides)?;
                let per_phase = taps(&lay::per_phase(kernel, strides))?;
                let n = out.checked_div(groups)?.checked_mul(phases)?;
                Some(matrix(groups, per_phase.checked_mul(*inputs)?, n))
            }
            (Role::Depthwise, [channels, 1, kernel @ ..]) => {
                Some(Layout::Plain { dims: vec![taps(kernel)?, *channels] })
            }
            (Role::Matrix | Role::Conv { .. } | Role::Depthwise | Role::Phases { .. }, _) => None,
        }
    }

    /// Bytes of all elements, `None` when the number overflows.
    fn checked_bytes(&self, dtype: DType) -> Option<usize> {
        match self {
            Layout::Plain { dims } => checked_len(dtype, dims),
            Layout::Panels { groups, k, n, width } => {
                let panels = (*width > 0).then(|| n.div_ceil(*width))?;
                checked_len(dtype, &[*groups, panels, *k, *width])
            }
            Layout::Blocks { groups, k, n, depth } => {
                let blocks = [n.div_ceil(BLOCK_COLUMNS), k.div_ceil(*depth)];
                checked_len(dtype, &[*groups, blocks[0], blocks[1], BLOCK_COLUMNS, *depth])
            }
        }
    }
}

/// The bytes of a slot: every weight of `folded`, which was folded from `class`, computed and laid out as `layout` says.
///
/// `source` says where this tenant's elements of a parameter are, in any float type; it is asked once for each that is needed. Costs a pass
/// over the weights, on a few cores where there are many; memory peaks at the slot and one piece of a tensor, or one tensor of what has to be
/// computed whole.
pub fn pack(
    class: &Graph,
    folded: &Folded,
    layout: &SlotLayout,
    source: &mut dyn FnMut(ParamId) -> Result<WeightSource, SourceError>,
) -> Result<Packed, PackError> {
    pack_sources(&Sources::of(class, folded, source)?, folded, layout)
}

/// As [`pack`], of sources that were looked up before.
pub(crate) fn pack_sources(
    sources: &Sources<'_>,
    folded: &Folded,
    layout: &SlotLayout,
) -> Result<Packed, PackError> {
    let len = usize::try_from(layout.bytes.0).expect("the layout was checked to fit memory");
    let mut blank = Blank::zeroed(len);
    let mut jobs = Vec::with_capacity(layout.tensors.len());
    let (mut rest, mut at) = (blank.bytes_mut(), 0);
    for (number, (weight, tensor)) in folded.weights.iter().zip(&layout.tensors).enumerate() {
        let (_, from_here) = rest.split_at_mut(tensor.offset - at);
        let (to, later) = from_here.split_at_mut(tensor.bytes());
        jobs.push(Job { number, weight, tensor, to });
        (rest, at) = (later, tensor.offset + tensor.bytes());
    }
    // The largest first, so that no core is left with one when the others are done. Taken from the end.
    jobs.sort_by_key(|job| job.to.len());
    let jobs = Mutex::new(jobs);
    let failed = Mutex::new(None);
    let work = || {
        let mut piece = Vec::new();
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(Job { number, weight, tensor, to }) = job else { return };
            let Err(error) = stream::fill(weight, tensor, sources, &mut piece, to) else { continue };
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            // Of several the first in the model's order, so that a message does not depend on threads.
            if failed.as_ref().is_none_or(|(earlier, _)| number < *earlier) {
                *failed = Some((number, error));
            }
        }
    };
    thread::scope(|scope| {
        // A helper that the system refuses is done without.
        (1..threads(len)).for_each(|_| _ = thread::Builder::new().spawn_scoped(scope, work));
        work();
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(blank.done()),
    }
}

/// One weight on its way.
struct Job<'a> {
    number: usize,
    weight: &'a FoldedWeight,
    tensor: &'a PackedTensor,
    to: &'a mut [u8],
}

/// Memory is busy with so many; loads must not take all cores of a server that serves.
const MOST_THREADS: usize = 4;
/// A slot for which another thread is worth being started.
const WORTH_A_THREAD: usize = 8 << 20;

/// How many threads pack a slot of so many bytes.
fn threads(bytes: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (bytes / WORTH_A_THREAD).clamp(1, cores.min(MOST_THREADS))
}
