//! A bench of R matrix products, one per tenant: what it is asked and what it answers. The card that answers is
//! [`crate::cuda::sgemm`].
//!
//! ```text
//!   C_r[m, n] = A_r[m, k] · B_r[k, n]      r = 0…R−1, A_r the tenant's weights
//!
//!   time-only    one after another                    ─□─□─□─□─▶
//!   space-only   on a few streams, one after another  ─□─□─▶ ─□─□─▶
//!   batched      cuBLAS, all in one call              ─▣─▶
//!   super-kernel the step that plans use              ─▣─▶
//! ```

use std::fmt;
use tessera_core::Precision;

/// Sizes of every tenant's product, as BLAS names them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Sizes {
    /// Outputs of a row: columns of the tenant's weights.
    pub m: usize,
    /// Rows that a tenant multiplies at once.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
}

impl Sizes {
    /// Floating-point operations of one product (a multiply-add is two).
    pub fn flops(&self) -> f64 {
        2.0 * self.m as f64 * self.n as f64 * self.k as f64
    }

    /// Elements of A, B and C.
    pub fn elements(&self) -> usize {
        self.m * self.k + self.k * self.n + self.m * self.n
    }
}

/// Who shares the card how.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// One product after another, in one stream.
    TimeOnly,
    /// A product a launch, on several streams that do not wait for each other.
    SpaceOnly,
    /// All products in one call of cuBLAS.
    CublasBatched,
    /// All products as one step of a plan.
    SuperKernel,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 4] =
        [Family::TimeOnly, Family::SpaceOnly, Family::CublasBatched, Family::SuperKernel];

    /// The word used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Family::TimeOnly => "time-only",
            Family::SpaceOnly => "space-only",
            Family::CublasBatched => "cublas-batched",
            Family::SuperKernel => "super-kernel",
        }
    }
}

/// Which kernels multiply.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kernel {
    /// Ours, for one tenant a launch or for all, as the family says.
    Ours,
    /// `cublasGemmEx`.
    Gemm,
    /// `cublasGemmStridedBatchedEx`.
    Strided,
    /// `cublasGemmBatchedEx`, with arrays of pointers on the device.
    Pointers,
}

/// One way of computing all products.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Way {
    /// Who shares the card how.
    pub family: Family,
    /// Which kernels multiply.
    pub kernel: Kernel,
    /// Whether A lies as `[k, m]` for cuBLAS, some of whose kernels want that.
    pub transposed: bool,
    /// On how many streams.
    pub streams: usize,
    /// Whether launches are replayed from a graph, or made one by one.
    pub graph: bool,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kernel {
            Kernel::Ours => "our kernel",
            Kernel::Gemm => "cuBLAS gemm",
            Kernel::Strided => "cuBLAS strided batched",
            Kernel::Pointers => "cuBLAS pointer-array batched",
        })?;
        if self.transposed {
            f.write_str(", A transposed")?;
        }
        if self.streams > 1 {
            write!(f, ", {} streams", self.streams)?;
        }
        f.write_str(if self.graph { ", graph" } else { ", stream launches" })
    }
}

/// What is measured at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell {
    /// Sizes of each product.
    pub sizes: Sizes,
    /// How elements are held and multiplied.
    pub precision: Precision,
    /// R.
    pub tenants: usize,
}

/// One way's times. Microseconds for all R products.
#[derive(Clone, PartialEq, Debug)]
pub struct Timed {
    /// Which way.
    pub way: Way,
    /// What one run of the first look took.
    pub first_us: f64,
    /// Each round's; empty when the first look showed that others of the family are faster.
    pub rounds_us: Vec<f64>,
}

/// What a cell's measuring brought.
#[derive(Clone, PartialEq, Debug)]
pub struct Measured {
    /// What was measured.
    pub cell: Cell,
    /// Copies of all R products that runs rotate through.
    pub sets: usize,
    /// Every way whose results were right. The k-th rounds of all were taken together.
    pub ways: Vec<Timed>,
    /// Ways that were wrong or failed, and how. They are not timed.
    pub faults: Vec<String>,
    /// Whether the super-kernel's results have the bits of the same kernel run for each tenant alone.
    pub same_bits: Option<bool>,
}
