//! Bytes on the device, large ones that grow without moving and small blocks, and pinned bytes on the host.

use super::context::{Context, CudaError, Doing};
use super::order::Stream;
use cudarc::driver::{result, sys};
use std::ffi::c_void;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tessera_planner::pack::Blank;

/// A range of device addresses, backed from its start as far as it was grown. Growing moves nothing and waits for nothing, so addresses
/// may be baked into graphs and kernels may run meanwhile.
pub(crate) struct Memory {
    context: Arc<Context>,
    address: sys::CUdeviceptr,
    /// Addresses reserved.
    reserved: usize,
    /// Bytes of each piece that backs them, in order.
    pieces: Vec<usize>,
    granularity: usize,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} of {} bytes)", self.bytes(), self.reserved)
    }
}

impl Memory {
    /// Addresses for up to `most` bytes, none of them backed yet. Addresses are plenty: 47 bits of them.
    pub(crate) fn reserve(context: &Arc<Context>, most: usize) -> Result<Memory, CudaError> {
        context.bind()?;
        let properties = properties(context);
        let mut granularity = 0;
        // SAFETY: reads a struct and writes an integer, both ours.
        unsafe {
            sys::cuMemGetAllocationGranularity(
                &raw mut granularity,
                &raw const properties,
                sys::CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_RECOMMENDED,
            )
        }
        .result()
        .doing("ask how memory is cut")?;
        let reserved = most.max(1).next_multiple_of(granularity);
        let mut address = 0;
        // SAFETY: writes an integer of ours.
        unsafe { sys::cuMemAddressReserve(&raw mut address, reserved, 0, 0, 0) }
            .result()
            .doing("reserve addresses")?;
        Ok(Memory { context: context.clone(), address, reserved, pieces: Vec::new(), granularity })
    }

    /// As much as that, backed at once.
    pub(crate) fn new(context: &Arc<Context>, bytes: usize) -> Result<Memory, CudaError> {
        let mut memory = Memory::reserve(context, bytes)?;
        memory.grow_to(bytes)?;
        Ok(memory)
    }

    /// Bytes that are backed.
    pub(crate) fn bytes(&self) -> usize {
        self.pieces.iter().sum()
    }

    /// What [`Memory::grow_to`] would add to reach `bytes`.
    pub(crate) fn growth_to(&self, bytes: usize) -> usize {
        bytes.next_multiple_of(self.granularity).saturating_sub(self.bytes())
    }

    /// Backs at least `bytes` from the start.
    ///
    /// # Panics
    /// When more is asked for than was reserved.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), CudaError> {
        let more = self.growth_to(bytes);
        let have = self.bytes();
        assert!(have + more <= self.reserved, "{bytes} bytes are more than the {} reserved", self.reserved);
        if more == 0 {
            return Ok(());
        }
        self.context.bind()?;
        let properties = properties(&self.context);
        let place = self.address + have as u64;
        let mut handle = 0;
        // SAFETY: reads a struct and writes an integer, both ours.
        unsafe { sys::cuMemCreate(&raw mut handle, more, &raw const properties, 0) }
            .result()
            .doing("take memory of the card")?;
        // SAFETY: `place..place + more` is reserved and not mapped yet; the handle has `more` bytes.
        let mapped = unsafe { sys::cuMemMap(place, more, 0, handle, 0) }.result();
        // SAFETY: the mapping, if there is one, keeps the memory; the handle is not needed any more.
        let released = unsafe { sys::cuMemRelease(handle) }.result();
        mapped.and(released).doing("map memory of the card")?;
        self.pieces.push(more);
        self.context.took(more);
        let access = sys::CUmemAccessDesc {
            location: properties.location,
            flags: sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
        };
        // SAFETY: the range was just mapped.
        unsafe { sys::cuMemSetAccess(place, more, &raw const access, 1) }
            .result()
            .doing("open memory of the card")
    }

    /// Gives back what backs the addresses; they stay reserved, and can be backed anew. Nothing on the card may use them any more.
    pub(crate) fn clear(&mut self) {
        if self.context.bind().is_err() {
            return; // the context is lost, and its memory with it
        }
        self.context.gave_back(self.bytes());
        let mut place = self.address;
        for piece in self.pieces.drain(..) {
            // SAFETY: mapped in `grow_to` with this size; the owner has seen to it that nothing uses it any more.
            let _ = unsafe { sys::cuMemUnmap(place, piece) };
            place += piece as u64;
        }
    }

    /// The address of the first byte.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// The address of a range of bytes.
    ///
    /// # Panics
    /// When the range is not backed.
    pub(super) fn at(&self, range: Range<usize>) -> u64 {
        assert!(range.end <= self.bytes(), "bytes {range:?} of {self:?}");
        self.address + range.start as u64
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.context.bind().is_err() {
            return; // the context is lost, and its memory with it
        }
        self.clear();
        // SAFETY: reserved in `reserve` with this size, and nothing is mapped in it.
        let _ = unsafe { sys::cuMemAddressFree(self.address, self.reserved) };
    }
}

/// Some bytes of the card that are had and given back without waiting for kernels: for what is too small for [`Memory`], which is cut in
/// megabytes.
pub(crate) struct Block {
    stream: Arc<Stream>,
    address: sys::CUdeviceptr,
    bytes: usize,
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} bytes)", self.bytes)
    }
}

impl Block {
    /// So many bytes, of unknown content. `stream` is where it is had and given back.
    pub(crate) fn new(stream: &Arc<Stream>, bytes: usize) -> Result<Block, CudaError> {
        stream.bind()?;
        // SAFETY: given back in `drop`, in the same stream.
        let address =
            unsafe { result::malloc_async(stream.raw, bytes.max(1)) }.doing("take memory of the card")?;
        let block = Block { stream: stream.clone(), address, bytes };
        stream.context().took(bytes);
        // From here on every stream may use it.
        stream.synchronize()?;
        Ok(block)
    }

    /// The address of the first byte.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.stream.context().gave_back(self.bytes);
        // SAFETY: had once, given back once; the owner has seen to it that nothing uses it any more.
        let _ = self.stream.bind().map(|()| unsafe { result::free_async(self.address, self.stream.raw) });
    }
}

/// Plain memory of the card.
fn properties(context: &Context) -> sys::CUmemAllocationProp {
    // SAFETY: a struct of integers, enums with a zero value and a pointer; all zeros are its documented default.
    let mut properties: sys::CUmemAllocationProp = unsafe { std::mem::zeroed() };
    properties.type_ = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = context.device();
    properties
}

/// Bytes of the host that the card can copy by itself.
pub(crate) struct Pinned {
    context: Arc<Context>,
    start: *mut c_void,
    bytes: usize,
    /// Where the bytes lie, unless the driver brought them.
    pages: Option<Blank>,
}

// SAFETY: plain bytes with one owner.
unsafe impl Send for Pinned {}
// SAFETY: shared only for reading.
unsafe impl Sync for Pinned {}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({} bytes)", self.bytes)
    }
}

impl Pinned {
    /// So many bytes, zeroed. Cached by the processor, so that answers can be read at full speed.
    pub(crate) fn new(context: &Arc<Context>, bytes: usize) -> Result<Pinned, CudaError> {
        context.bind()?;
        let (start, pages) = match Pinned::in_huge_pages(bytes) {
            Some((start, pages)) => (start, Some(pages)),
            None => {
                // SAFETY: freed in `drop`; zeroed below before anybody reads it.
                let start =
                    unsafe { result::malloc_host(bytes.max(1), 0) }.doing("pin memory of the host")?;
                // SAFETY: the allocation has at least `bytes` bytes.
                unsafe { std::ptr::write_bytes(start.cast::<u8>(), 0, bytes) };
                (start, None)
            }
        };
        context.pinned(bytes);
        Ok(Pinned { context: context.clone(), start, bytes, pages })
    }

    /// Many bytes, pinned where they lie: the driver brings them in small pages, 77 MB in 48 ms, of which these take 17 (H200, 2026-11-26). `None` for few
    /// bytes, and where the system or the driver has no such memory: outside of Linux the card may see it at another address.
    fn in_huge_pages(bytes: usize) -> Option<(*mut c_void, Blank)> {
        let mut pages = Blank::mapped(bytes).filter(|_| cfg!(target_os = "linux"))?;
        let start: *mut c_void = pages.bytes_mut().as_mut_ptr().cast();
        // Kernels reach them too, as they do what the driver brings.
        // SAFETY: the bytes are there until `drop` has let them go, on pages of their own, and stay where they are when `pages` is moved.
        unsafe { sys::cuMemHostRegister_v2(start, bytes, sys::CU_MEMHOSTREGISTER_DEVICEMAP) }
            .result()
            .ok()?;
        Some((start, pages))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// The first of them.
    pub(super) fn start(&self) -> *mut u8 {
        self.start.cast()
    }

    /// The address of its first byte for kernels, which reach it over the bus: with unified addressing the host's own.
    pub(crate) fn address(&self) -> u64 {
        self.start as u64
    }

    /// Where the word at byte `at` lies.
    ///
    /// # Panics
    /// When it is not whole words from the start, or ends behind the last byte.
    pub(super) fn word_at(&self, at: usize) -> *mut u64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.bytes, "a word at {at} of {self:?}");
        // SAFETY: within the allocation.
        unsafe { self.start.cast::<u8>().add(at).cast() }
    }

    /// The word at byte `at`, as the card may be writing it now. What it wrote before it can be read once this has been seen to be written.
    ///
    /// # Panics
    /// When there is no such word.
    pub(crate) fn word(&self, at: usize) -> u64 {
        // SAFETY: memory of pages, so aligned; it lives as long as `self`, and is written by the card as a whole.
        unsafe { AtomicU64::from_ptr(self.word_at(at)) }.load(Ordering::Acquire)
    }

    /// Its bytes, none of which the card writes now.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `start` has `bytes` initialised bytes and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.bytes) }
    }

    /// Its bytes, to be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.context.unpinned(self.bytes);
        // SAFETY: allocated, or registered, once, and freed once, before the pages go; copies from and to it are over by the duty of `Stream::copy_in` and
        // `copy_out`.
        let _ = self.context.bind().map(|()| unsafe {
            match &self.pages {
                Some(_) => sys::cuMemHostUnregister(self.start).result(),
                None => result::free_host(self.start),
            }
        });
    }
}
