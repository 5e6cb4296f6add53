//! The driver, a card, and the context that everything else lives in.

use cudarc::driver::{result, sys};
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the driver said no to.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("CUDA could not {doing}: {why}")]
pub(crate) struct CudaError {
    doing: &'static str,
    why: String,
}

impl CudaError {
    /// What a library said no to, or what became of a card that said nothing.
    pub(crate) fn new(doing: &'static str, why: String) -> CudaError {
        CudaError { doing, why }
    }

    /// The same, with what it was done to.
    pub(crate) fn to(self, what: impl fmt::Display) -> CudaError {
        CudaError { why: format!("{} ({what})", self.why), ..self }
    }
}

/// Gives a driver's answer the words of who asked.
pub(super) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, CudaError>;
}

impl<T> Doing<T> for Result<T, result::DriverError> {
    fn doing(self, doing: &'static str) -> Result<T, CudaError> {
        self.map_err(|error| {
            let words = error.error_string().map(|words| words.to_string_lossy().into_owned());
            let why = words.unwrap_or_else(|_| format!("error {}", error.0 as i32));
            CudaError { doing, why }
        })
    }
}

thread_local! {
    /// The number of the context that this thread made current last; nobody but [`Context::bind`] makes any current. Numbers are never used again, as a
    /// driver's pointers may be.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// Contexts opened so far in this process.
static CONTEXTS: AtomicU64 = AtomicU64::new(0);

/// One card, with its primary context.
pub(crate) struct Context {
    device: sys::CUdevice,
    raw: sys::CUcontext,
    /// From one; see [`CURRENT`].
    number: u64,
    /// As the vendor calls it.
    pub(crate) name: String,
    /// Streaming multiprocessors.
    pub(crate) multiprocessors: u32,
    /// Bytes of its memory.
    pub(crate) total_bytes: u64,
    /// What its driver supports: 13000 for CUDA 13.0.
    pub(crate) driver_version: i32,
    /// Bytes of the card that are ours now.
    used: AtomicU64,
    /// Bytes of the host that are pinned for it now.
    pinned: AtomicU64,
}

// SAFETY: a context may be made current on any thread, and on several at once; the driver locks what it must.
unsafe impl Send for Context {}
// SAFETY: as above; no method changes the fields.
unsafe impl Sync for Context {}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Connections between streams and the card's work queues: enough that streams do not wait for each other (the default is 8). The
/// driver reads it when it starts; a user's own setting stands.
const CONNECTIONS: (&str, &str) = ("CUDA_DEVICE_MAX_CONNECTIONS", "32");

impl Context {
    /// How many cards there are; the error says why none can be used: no driver, or one that does not start.
    pub(crate) fn count() -> Result<usize, String> {
        // SAFETY: only opens and closes the driver's library.
        if !unsafe { sys::is_culib_present() } {
            return Err("there is no NVIDIA driver here (libcuda.so.1 is not found)".to_owned());
        }
        result::init().map_err(|error| format!("the NVIDIA driver does not start: {error}"))?;
        let count =
            result::device::get_count().map_err(|error| format!("no cards can be listed: {error}"))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Opens card number `ordinal`. The error says what is missing.
    pub(crate) fn open(ordinal: usize) -> Result<Arc<Context>, String> {
        if std::env::var_os(CONNECTIONS.0).is_none() {
            // SAFETY: std's own readers and writers of the environment lock each other out. Only foreign code that reads it at this very
            // moment could be disturbed; the driver has not started yet, and our threads run no other foreign code.
            unsafe { std::env::set_var(CONNECTIONS.0, CONNECTIONS.1) };
        }
        let count = Context::count()?;
        if ordinal >= count {
            return Err(format!("there are {count} cards here, numbered from 0; there is no {ordinal}"));
        }
        let said = |error: CudaError| error.to_string();
        let device = result::device::get(ordinal as i32).doing("find the card").map_err(said)?;
        let attribute = |which| {
            // SAFETY: the device was just obtained.
            unsafe { result::device::get_attribute(device, which) }.doing("ask the card").map_err(said)
        };
        use sys::CUdevice_attribute_enum as Attribute;
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let name = result::device::get_name(device).doing("name the card").map_err(said)?;
        if (major, minor) != (9, 0) {
            return Err(format!(
                "{name} has compute capability {major}.{minor}, and the kernels are made for 9.0 (Hopper)"
            ));
        }
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        // SAFETY: the device was just obtained.
        let total =
            unsafe { result::device::total_mem(device) }.doing("measure the card's memory").map_err(said)?;
        let mut driver_version = 0;
        // SAFETY: writes one integer of ours.
        let asked = unsafe { sys::cuDriverGetVersion(&raw mut driver_version) }.result();
        asked.doing("ask the driver's version").map_err(said)?;
        // SAFETY: the device was just obtained; the context is released when dropped.
        let raw = unsafe { result::primary_ctx::retain(device) }.doing("open the card").map_err(said)?;
        Ok(Arc::new(Context {
            device,
            raw,
            number: CONTEXTS.fetch_add(1, Ordering::Relaxed) + 1,
            name,
            multiprocessors: multiprocessors as u32,
            total_bytes: total as u64,
            driver_version,
            used: AtomicU64::new(0),
            pinned: AtomicU64::new(0),
        }))
    }

    /// Makes the context current on this thread, if it is not already. Every call of the driver begins with it.
    pub(super) fn bind(&self) -> Result<(), CudaError> {
        if CURRENT.get() == self.number {
            return Ok(());
        }
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.raw) }.doing("use the card from this thread")?;
        CURRENT.set(self.number);
        Ok(())
    }

    /// Bytes of memory that nobody uses now, other processes included.
    pub(crate) fn free_bytes(&self) -> Result<u64, CudaError> {
        self.bind()?;
        result::mem_get_info().doing("measure free memory").map(|(free, _)| free as u64)
    }

    /// Bytes of the card that this process's memory and blocks take, exactly.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    pub(super) fn took(&self, bytes: usize) {
        self.used.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    pub(super) fn gave_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes as u64, Ordering::AcqRel);
    }

    /// Bytes of the host that are pinned for the card, exactly.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.pinned.load(Ordering::Acquire)
    }

    pub(super) fn pinned(&self, bytes: usize) {
        self.pinned.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    pub(super) fn unpinned(&self, bytes: usize) {
        self.pinned.fetch_sub(bytes as u64, Ordering::AcqRel);
    }

    pub(super) fn device(&self) -> sys::CUdevice {
        self.device
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once in `open`. A failure would leak the context at the end of the process.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}
