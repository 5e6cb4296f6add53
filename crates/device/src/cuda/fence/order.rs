//! Streams and events: what comes after what.

use super::context::{Context, CudaError, Doing};
use super::memory::{Memory, Pinned};
use super::pieces::Pieces;
use super::share::Share;
use cudarc::driver::{result, sys};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Work in order.
pub(crate) struct Stream {
    share: Share,
    pub(super) raw: sys::CUstream,
}

// SAFETY: the driver lets any thread use a stream, and locks it.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

impl Stream {
    /// A stream of the whole card that waits for no other.
    pub(crate) fn new(context: &Arc<Context>) -> Result<Stream, CudaError> {
        Stream::of(&Share::whole(context))
    }

    /// A stream of a share of a card that waits for no other.
    pub(crate) fn of(share: &Share) -> Result<Stream, CudaError> {
        Ok(Stream { raw: share.stream()?, share: share.clone() })
    }

    pub(super) fn bind(&self) -> Result<(), CudaError> {
        self.context().bind()
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        self.share.context()
    }

    /// Where its kernels run.
    pub(super) fn share(&self) -> &Share {
        &self.share
    }

    /// Everything after this waits for `event`.
    pub(crate) fn wait(&self, event: &Event) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: stream and event live, and belong to one context.
        unsafe {
            result::stream::wait_event(self.raw, event.raw, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT)
        }
        .doing("order two streams")
    }

    /// Whether everything so far is done. Asks, and does not wait; the error may be that of any kernel before.
    pub(crate) fn is_done(&self) -> Result<bool, CudaError> {
        self.bind()?;
        // SAFETY: the stream lives.
        match unsafe { sys::cuStreamQuery(self.raw) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            answer => answer.result().map(|()| true).doing("finish a launch"),
        }
    }

    /// Writes `word` at byte `at` of `into` when everything so far is done: for whoever reads it there, see [`Pinned::word`].
    ///
    /// # Panics
    /// When there is no such word.
    pub(crate) fn tell(&self, into: &Pinned, at: usize, word: u64) -> Result<(), CudaError> {
        self.bind()?;
        let address = into.word_at(at) as u64;
        let flags = sys::CUstreamWriteValue_flags::CU_STREAM_WRITE_VALUE_DEFAULT as u32;
        // SAFETY: the word was checked to lie in pinned memory, which lives until the caller has heard it.
        unsafe { sys::cuStreamWriteValue64_v2(self.raw, address, word, flags) }
            .result()
            .doing("mark a place in a stream")
    }

    /// Blocks this thread until everything so far is done.
    pub(crate) fn synchronize(&self) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: the stream lives.
        unsafe { result::stream::synchronize(self.raw) }.doing("finish what was started")
    }

    /// Copies the host's bytes in `range` of `from` to the same place in `to`. They must not change, and neither may be dropped, before
    /// the copy is done.
    pub(crate) fn copy_in(&self, from: &Pinned, to: &Memory, range: Range<usize>) -> Result<(), CudaError> {
        self.bind()?;
        let target = to.at(range.clone());
        // SAFETY: both ranges were checked to lie in memory that lives until the caller has heard that the copy is done.
        unsafe { result::memcpy_htod_async(target, &from.bytes()[range], self.raw) }.doing("copy to the card")
    }

    /// Copies pieces that lie in `range` of `from` to a place in `to`. They must stay lent, and `to` live, until the copy is done.
    pub(crate) fn copy_pieces(
        &self,
        from: &Pieces,
        range: Range<usize>,
        to: &Memory,
        place: usize,
    ) -> Result<(), CudaError> {
        self.bind()?;
        let target = to.at(place..place + range.len());
        // SAFETY: both ranges were checked to lie in memory that lives until the caller has heard that the copy is done, with the pieces' leases.
        unsafe { result::memcpy_htod_async(target, from.bytes(range), self.raw) }.doing("copy to the card")
    }

    /// Copies bytes to the device, and waits: for what happens once. From memory of any kind.
    pub(crate) fn upload(&self, from: &[u8], address: u64) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: the caller's slot holds as many bytes at `address`; the copy is over before this returns.
        unsafe { result::memcpy_htod_async(address, from, self.raw) }.doing("copy to the card")?;
        self.synchronize()
    }

    /// Copies the device's bytes in `range` of `from` to the same place in `to`, with the same duties as [`Stream::copy_in`].
    pub(crate) fn copy_out(
        &self,
        from: &Memory,
        to: &mut Pinned,
        range: Range<usize>,
    ) -> Result<(), CudaError> {
        self.bind()?;
        let source = from.at(range.clone());
        // SAFETY: as in `copy_in`.
        unsafe { result::memcpy_dtoh_async(&mut to.bytes_mut()[range], source, self.raw) }
            .doing("copy from the card")
    }

    /// Copies from the device, and waits: for what happens once. Into memory of any kind.
    pub(crate) fn download(&self, address: u64, into: &mut [u8]) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: the caller owns as many bytes at `address`; the copy is over before this returns.
        unsafe { result::memcpy_dtoh_async(into, address, self.raw) }.doing("copy from the card")?;
        self.synchronize()
    }

    /// Copies `bytes` from one address of the device to another. Both lie in memory whose owners the caller holds.
    pub(crate) fn copy_within(&self, from: u64, to: u64, bytes: usize) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: the duty of the caller, who owns both.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.raw) }.doing("copy on the card")
    }

    /// Fills `bytes` at an address with zeros, with the same duty.
    pub(crate) fn zero(&self, address: u64, bytes: usize) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: the duty of the caller, who owns it.
        unsafe { result::memset_d8_async(address, 0, bytes, self.raw) }.doing("zero memory of the card")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once; work in it goes on and is done with.
        let _ = self.bind().map(|()| unsafe { result::stream::destroy(self.raw) });
    }
}

/// A place in a stream.
pub(crate) struct Event {
    context: Arc<Context>,
    raw: sys::CUevent,
}

// SAFETY: the driver lets any thread use an event, and locks it.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Event")
    }
}

impl Event {
    /// An event that remembers when it fired.
    pub(crate) fn timed(context: &Arc<Context>) -> Result<Event, CudaError> {
        Event::new(context, sys::CUevent_flags::CU_EVENT_DEFAULT)
    }

    /// An event that other streams wait for, and nothing else.
    pub(crate) fn ordering(context: &Arc<Context>) -> Result<Event, CudaError> {
        Event::new(context, sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    fn new(context: &Arc<Context>, flags: sys::CUevent_flags) -> Result<Event, CudaError> {
        context.bind()?;
        let raw = result::event::create(flags).doing("make an event")?;
        Ok(Event { context: context.clone(), raw })
    }

    /// Fires when everything in `stream` so far is done.
    pub(crate) fn record(&self, stream: &Stream) -> Result<(), CudaError> {
        self.context.bind()?;
        // SAFETY: both live, and belong to one context.
        unsafe { result::event::record(self.raw, stream.raw) }.doing("mark a place in a stream")
    }

    /// As [`Event::record`], inside a graph that is being captured: it fires anew whenever the graph runs.
    pub(crate) fn record_in_graph(&self, stream: &Stream) -> Result<(), CudaError> {
        self.context.bind()?;
        let flags = sys::CUevent_record_flags::CU_EVENT_RECORD_EXTERNAL as u32;
        // SAFETY: both live, and belong to one context.
        unsafe { sys::cuEventRecordWithFlags(self.raw, stream.raw, flags) }
            .result()
            .doing("mark a place in a graph")
    }

    /// Blocks this thread until it has fired. The error may be that of any kernel before it.
    pub(crate) fn synchronize(&self) -> Result<(), CudaError> {
        self.context.bind()?;
        // SAFETY: the event lives.
        unsafe { result::event::synchronize(self.raw) }.doing("finish a launch")
    }

    /// From this event to a later one; both have fired.
    pub(crate) fn until(&self, later: &Event) -> Result<Duration, CudaError> {
        self.context.bind()?;
        // SAFETY: both live and were made with timing.
        let milliseconds = unsafe { result::event::elapsed(self.raw, later.raw) }.doing("time a launch")?;
        Ok(Duration::from_secs_f32(milliseconds.max(0.0) / 1e3))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once.
        let _ = self.context.bind().map(|()| unsafe { result::event::destroy(self.raw) });
    }
}
