//! The vendor's matrix products, for benches to stand beside: no plan calls them.

use super::context::{CudaError, Doing};
use super::memory::Block;
use super::order::Stream;
use cudarc::cublas::{result, sys};
use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;
use tessera_core::{DType, Precision};

/// What NVIDIA recommends for Hopper; with less, some of the kernels are not chosen.
const WORKSPACE_BYTES: usize = 32 << 20;

impl<T> Doing<T> for Result<T, result::CublasError> {
    fn doing(self, doing: &'static str) -> Result<T, CudaError> {
        self.map_err(|error| CudaError::new(doing, format!("cuBLAS answers {error}")))
    }
}

/// cuBLAS on one stream, with a workspace of its own, so that its calls may be captured and may run beside those of
/// others.
pub(crate) struct Blas {
    raw: sys::cublasHandle_t,
    stream: Arc<Stream>,
    /// Given back after the handle.
    _workspace: Block,
}

impl fmt::Debug for Blas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Blas")
    }
}

/// Column-major `C[m, n] = A[m, k] · B[k, n]`, every matrix dense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gemm {
    pub(crate) m: u32,
    pub(crate) n: u32,
    pub(crate) k: u32,
    /// How elements are held and multiplied. Strict fp32 is fp32.
    pub(crate) precision: Precision,
    /// Whether A lies as `[k, m]`.
    pub(crate) transposed: bool,
}

/// A `Gemm` as cuBLAS takes it.
struct Words {
    sizes: [i32; 3],
    transposed: sys::cublasOperation_t,
    leading: [i32; 3],
    elements: [i64; 3],
    dtype: sys::cudaDataType,
    compute: sys::cublasComputeType_t,
}

impl Gemm {
    fn words(&self) -> Words {
        use sys::{cublasComputeType_t as Compute, cublasOperation_t as Operation, cudaDataType_t as Type};
        let [m, n, k] = [self.m, self.n, self.k].map(|size| size as i32);
        let compute = match self.precision {
            Precision::Tf32 => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
            Precision::Fp32 | Precision::Bf16 | Precision::Fp16 => Compute::CUBLAS_COMPUTE_32F,
        };
        Words {
            sizes: [m, n, k],
            transposed: if self.transposed { Operation::CUBLAS_OP_T } else { Operation::CUBLAS_OP_N },
            leading: [if self.transposed { k } else { m }, k, m],
            elements: [(m, k), (k, n), (m, n)].map(|(rows, columns)| i64::from(rows) * i64::from(columns)),
            dtype: match self.precision.stored(DType::F32) {
                DType::BF16 => Type::CUDA_R_16BF,
                DType::F16 => Type::CUDA_R_16F,
                _ => Type::CUDA_R_32F,
            },
            compute,
        }
    }
}

/// Factors of the product and of what C held. In host memory, which is where a fresh handle looks for them, and reads
/// them within the call.
static ONE: f32 = 1.0;
static ZERO: f32 = 0.0;
const NONE: sys::cublasOperation_t = sys::cublasOperation_t::CUBLAS_OP_N;
const CHOOSE: sys::cublasGemmAlgo_t = sys::cublasGemmAlgo_t::CUBLAS_GEMM_DFALT;

impl Blas {
    /// Whether the library is here; the error says what to do.
    pub(crate) fn find() -> Result<(), String> {
        // SAFETY: only opens and closes a library of NVIDIA's, whose initialisers have no preconditions.
        if unsafe { sys::is_culib_present() } {
            return Ok(());
        }
        Err("cuBLAS (libcublas.so.13) is not found; install the CUDA toolkit, or the PyPI package nvidia-cublas and put its lib \
             folder into LD_LIBRARY_PATH"
            .to_owned())
    }

    /// A handle for one stream. [`Blas::find`] has found the library.
    pub(crate) fn new(stream: &Arc<Stream>) -> Result<Blas, CudaError> {
        let workspace = Block::new(stream, WORKSPACE_BYTES)?;
        let raw = result::create_handle().doing("start cuBLAS")?;
        let blas = Blas { raw, stream: stream.clone(), _workspace: workspace };
        // SAFETY: handle and stream live; the two bindings have a name each for the driver's one type.
        unsafe { result::set_stream(raw, stream.raw.cast()) }.doing("give cuBLAS its stream")?;
        let address = blas._workspace.address() as *mut c_void;
        // SAFETY: the workspace has so many bytes and outlives the handle. It comes after the stream, which would
        // reset it.
        unsafe { sys::cublasSetWorkspace_v2(raw, address, WORKSPACE_BYTES) }
            .result()
            .doing("give cuBLAS its workspace")?;
        Ok(blas)
    }

    /// As `130100` for 13.1.0.
    pub(crate) fn version(&self) -> Result<i32, CudaError> {
        let mut version = 0;
        // SAFETY: the handle lives, and the version is an integer of ours.
        unsafe { sys::cublasGetVersion_v2(self.raw, &raw mut version) }
            .result()
            .doing("ask cuBLAS its version")?;
        Ok(version)
    }

    /// Puts one product into the stream, with A, B and C at `at`. The caller owns what is there until it has run.
    pub(crate) fn one(&self, gemm: &Gemm, at: [u64; 3]) -> Result<(), CudaError> {
        self.stream.bind()?;
        let Words { sizes: [m, n, k], transposed, leading, dtype, compute, .. } = gemm.words();
        let [a, b, c] = at.map(|address| address as *mut c_void);
        // SAFETY: the caller's matrices have the sizes that `gemm` says; the factors are constants.
        unsafe {
            sys::cublasGemmEx(
                self.raw,
                transposed,
                NONE,
                m,
                n,
                k,
                (&raw const ONE).cast(),
                a,
                dtype,
                leading[0],
                b,
                dtype,
                leading[1],
                (&raw const ZERO).cast(),
                c,
                dtype,
                leading[2],
                compute,
                CHOOSE,
            )
        }
        .result()
        .doing("multiply matrices")
    }

    /// Puts `count` products into the stream, whose matrices follow each other from `at`. Duties as in [`Blas::one`].
    pub(crate) fn strided(&self, gemm: &Gemm, at: [u64; 3], count: u32) -> Result<(), CudaError> {
        self.stream.bind()?;
        let Words { sizes: [m, n, k], transposed, leading, elements, dtype, compute } = gemm.words();
        let [a, b, c] = at.map(|address| address as *mut c_void);
        // SAFETY: as in `one`, for `count` matrices each.
        unsafe {
            sys::cublasGemmStridedBatchedEx(
                self.raw,
                transposed,
                NONE,
                m,
                n,
                k,
                (&raw const ONE).cast(),
                a,
                dtype,
                leading[0],
                elements[0],
                b,
                dtype,
                leading[1],
                elements[1],
                (&raw const ZERO).cast(),
                c,
                dtype,
                leading[2],
                elements[2],
                count as i32,
                compute,
                CHOOSE,
            )
        }
        .result()
        .doing("multiply strided batches of matrices")
    }

    /// Puts `count` products into the stream. At each of `at` lie, on the device, `count` addresses of matrices.
    /// Duties as in [`Blas::one`].
    pub(crate) fn pointed(&self, gemm: &Gemm, at: [u64; 3], count: u32) -> Result<(), CudaError> {
        self.stream.bind()?;
        let Words { sizes: [m, n, k], transposed, leading, dtype, compute, .. } = gemm.words();
        let [a, b, c] = at.map(|address| address as *const *const c_void);
        // SAFETY: as in `one`, for `count` matrices each, whose addresses lie in the caller's memory as well.
        unsafe {
            sys::cublasGemmBatchedEx(
                self.raw,
                transposed,
                NONE,
                m,
                n,
                k,
                (&raw const ONE).cast(),
                a,
                dtype,
                leading[0],
                b,
                dtype,
                leading[1],
                (&raw const ZERO).cast(),
                c.cast(),
                dtype,
                leading[2],
                count as i32,
                compute,
                CHOOSE,
            )
        }
        .result()
        .doing("multiply batches of matrices")
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once.
        let _ = self.stream.bind().map(|()| unsafe { result::destroy_handle(self.raw) });
    }
}
