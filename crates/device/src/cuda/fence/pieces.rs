//! Pinned bytes on the host that are lent in pieces: each is filled once, when it is lent, and read from then on.

use super::context::{Context, CudaError};
use super::memory::Pinned;
use crate::cuda::ranges::FreeRanges;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Pieces begin at multiples of this, so that they may be copied in whole lines.
const ALIGNMENT: usize = 256;

/// A stretch of pinned memory that is lent in pieces. It goes with the last of them.
pub(crate) struct Pieces {
    /// Read and written through [`Piece`] alone: a reference to all of it would reach into pieces that are being filled.
    pinned: Pinned,
    free: Mutex<FreeRanges>,
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pieces({} bytes)", self.pinned.len())
    }
}

impl Pieces {
    /// So many bytes, none of them lent.
    pub(crate) fn new(context: &Arc<Context>, bytes: usize) -> Result<Pieces, CudaError> {
        let whole = bytes.next_multiple_of(ALIGNMENT);
        Ok(Pieces { pinned: Pinned::new(context, whole)?, free: Mutex::new(FreeRanges::new(whole)) })
    }

    /// Bytes, lent or not.
    pub(crate) fn len(&self) -> usize {
        self.pinned.len()
    }

    /// A piece with these bytes. `None` when no free part is long enough. Takes a copy on this thread.
    pub(crate) fn lend(self: &Arc<Pieces>, from: &[u8]) -> Option<Piece> {
        let taken = self.free().take(from.len().next_multiple_of(ALIGNMENT))?;
        // SAFETY: `taken` lies in the stretch, is as long as `from` at least, and is lent to nobody else until it is given back; the card reads it
        // only for launches that hold the piece.
        unsafe { self.pinned.start().add(taken.start).copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        Some(Piece { bytes: from.len(), taken, of: self.clone() })
    }

    /// Where in the stretch some bytes lie, if they do.
    pub(crate) fn place_of(&self, bytes: &[u8]) -> Option<Range<usize>> {
        let start = (bytes.as_ptr() as usize).checked_sub(self.pinned.start() as usize)?;
        let end = start.checked_add(bytes.len())?;
        (end <= self.len()).then_some(start..end)
    }

    /// The bytes in a range of pieces that are lent, and stay so for as long as the answer lives.
    ///
    /// # Panics
    /// When the range is not in the stretch.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.len(), "bytes {range:?} of {self:?}");
        // SAFETY: the range lies in initialised memory that lives as long as `self`, and pieces that are lent are written by nobody.
        unsafe { std::slice::from_raw_parts(self.pinned.start().add(range.start), range.len()) }
    }

    fn free(&self) -> MutexGuard<'_, FreeRanges> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A piece of [`Pieces`]: given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Piece {
    of: Arc<Pieces>,
    taken: Range<usize>,
    bytes: usize,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.of.bytes(self.taken.start..self.taken.start + self.bytes)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.of.free().give_back(self.taken.clone());
    }
}
