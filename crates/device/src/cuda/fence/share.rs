//! Shares of a card: on which multiprocessors a stream's kernels run, and whose blocks go first where several wait.
//!
//! ```text
//!   whole     [ ································ ]   any multiprocessor
//!   first     [ ································ ]   any, and before blocks of the others that wait
//!   kept to   [ ████ ]                               a few, whatever is free elsewhere
//! ```
//! A stream keeps to some multiprocessors by being made in a *green context*: the driver takes a number of them out of the card's, and what is launched in
//! the context's streams runs there. Nothing is taken from anybody else: streams of the whole card run there, too. Memory, modules and events are
//! those of the primary context; graphs keep the context of the stream in which they were captured, so each share's are captured in a stream of it.
//!
//! Multiprocessors come in groups of [`GROUP`] on compute capability 9.0, since the blocks of a cluster must be placed together (CUDA programming guide, green
//! contexts); our clusters have at most as many blocks, so a share of any size runs every kernel that the card runs.

use super::context::{Context, CudaError, Doing};
use cudarc::driver::sys;
use std::fmt;
use std::num::NonZeroU32;
use std::ptr::null_mut;
use std::sync::Arc;

/// Multiprocessors that are given out together.
const GROUP: u32 = 8;

/// The first driver that makes streams in green contexts: CUDA 12.5.
const GREEN_SINCE: i32 = 12_050;

/// See the module's text. Clones are one share.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    context: Arc<Context>,
    kept: Option<Arc<Green>>,
    first: bool,
}

impl Share {
    /// All of a card.
    pub(crate) fn whole(context: &Arc<Context>) -> Share {
        Share { context: context.clone(), kept: None, first: false }
    }

    /// All of a card, before those who are not first.
    pub(crate) fn first(context: &Arc<Context>) -> Share {
        Share { first: true, ..Share::whole(context) }
    }

    /// How many multiprocessors [`Share::kept_to`] gives.
    pub(crate) fn granted(context: &Context, multiprocessors: NonZeroU32) -> u32 {
        whole_groups(multiprocessors, context.multiprocessors).unwrap_or(context.multiprocessors)
    }

    /// So many multiprocessors of a card, or a few more; all of it where it has no more than that. Errors where the driver knows no such shares.
    pub(crate) fn kept_to(context: &Arc<Context>, multiprocessors: NonZeroU32) -> Result<Share, CudaError> {
        let Some(some) = whole_groups(multiprocessors, context.multiprocessors) else {
            return Ok(Share::whole(context));
        };
        Ok(Share { kept: Some(Arc::new(Green::open(context, some)?)), ..Share::whole(context) })
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// How many multiprocessors it has.
    pub(crate) fn multiprocessors(&self) -> u32 {
        self.kept.as_ref().map_or(self.context.multiprocessors, |green| green.multiprocessors)
    }

    /// A stream of the share that waits for no other.
    pub(super) fn stream(&self) -> Result<sys::CUstream, CudaError> {
        self.context.bind()?;
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        let priority = if self.first { highest_priority()? } else { 0 };
        let mut raw = null_mut();
        let made = match &self.kept {
            // SAFETY: writes a pointer of ours; the green context lives in the share, which its streams hold.
            Some(green) => unsafe { sys::cuGreenCtxStreamCreate(&raw mut raw, green.raw, flags, priority) },
            // SAFETY: writes a pointer of ours; the context is current.
            None => unsafe { sys::cuStreamCreateWithPriority(&raw mut raw, flags, priority) },
        };
        made.result().doing("make a stream")?;
        Ok(raw)
    }
}

/// Whole groups that hold so many multiprocessors; `None` where that is all there are.
fn whole_groups(wanted: NonZeroU32, all: u32) -> Option<u32> {
    wanted.get().checked_next_multiple_of(GROUP).filter(|some| *some < all)
}

/// The priority of streams that go before all others. That of the others is 0, which is the lowest.
fn highest_priority() -> Result<i32, CudaError> {
    let (mut lowest, mut highest) = (0, 0);
    // SAFETY: writes two integers of ours; a context is current.
    unsafe { sys::cuCtxGetStreamPriorityRange(&raw mut lowest, &raw mut highest) }
        .result()
        .doing("ask for the priorities of streams")?;
    Ok(highest)
}

/// Some of a card's multiprocessors.
struct Green {
    context: Arc<Context>,
    raw: sys::CUgreenCtx,
    multiprocessors: u32,
}

// SAFETY: the driver lets any thread make streams in a green context, and locks it.
unsafe impl Send for Green {}
// SAFETY: as above.
unsafe impl Sync for Green {}

impl fmt::Debug for Green {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Green").field("multiprocessors", &self.multiprocessors).finish_non_exhaustive()
    }
}

impl Green {
    /// A green context of at least so many multiprocessors, which are whole groups and not all there are.
    fn open(context: &Arc<Context>, multiprocessors: u32) -> Result<Green, CudaError> {
        // Asked first, as the bindings panic where the driver lacks a function.
        if context.driver_version < GREEN_SINCE {
            let why = "the driver is older than CUDA 12.5; update it, or leave the share whole".to_owned();
            return Err(CudaError::new("part the multiprocessors", why));
        }
        context.bind()?;
        // SAFETY: numbers and a tag whose zero has a meaning: all zeros are valid.
        let (mut all, mut part): (sys::CUdevResource, sys::CUdevResource) = unsafe { std::mem::zeroed() };
        let kind = sys::CUdevResourceType::CU_DEV_RESOURCE_TYPE_SM;
        // SAFETY: writes one resource of ours.
        unsafe { sys::cuDeviceGetDevResource(context.device(), &raw mut all, kind) }
            .result()
            .doing("list the multiprocessors")?;
        let mut parts = 1;
        // SAFETY: reads one resource of ours and writes another, as many as `parts` says; what is left is not asked for.
        unsafe {
            sys::cuDevSmResourceSplitByCount(
                &raw mut part,
                &raw mut parts,
                &raw const all,
                null_mut(),
                0,
                multiprocessors,
            )
        }
        .result()
        .doing("part the multiprocessors")?;
        if parts == 0 {
            let why = format!("there are no {multiprocessors} that belong together");
            return Err(CudaError::new("part the multiprocessors", why));
        }
        let mut desc = null_mut();
        // SAFETY: reads the one resource and writes a pointer of ours.
        unsafe { sys::cuDevResourceGenerateDesc(&raw mut desc, &raw mut part, 1) }
            .result()
            .doing("describe a part of the multiprocessors")?;
        let flags = sys::CUgreenCtxCreate_flags::CU_GREEN_CTX_DEFAULT_STREAM as u32;
        let mut raw = null_mut();
        // SAFETY: writes a pointer of ours; the description was just made. It holds the primary context as long as it lives.
        unsafe { sys::cuGreenCtxCreate(&raw mut raw, desc, context.device(), flags) }
            .result()
            .doing("open a part of the card")?;
        // SAFETY: the driver filled it in as a resource of multiprocessors.
        let multiprocessors = unsafe { part.__bindgen_anon_1.sm.smCount };
        Ok(Green { context: context.clone(), raw, multiprocessors })
    }
}

impl Drop for Green {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once; its streams and what was captured in them held it until now.
        let _ = self.context.bind().map(|()| unsafe { sys::cuGreenCtxDestroy(self.raw) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiprocessors_are_given_out_in_whole_groups_and_all_of_them_are_the_card() {
        let of_132 = |wanted| whole_groups(NonZeroU32::new(wanted).unwrap(), 132);
        assert_eq!([1, 8, 9, 16, 100].map(of_132), [8, 8, 16, 16, 104].map(Some));
        assert_eq!([127, 128].map(of_132), [128, 128].map(Some));
        assert_eq!([129, 132, 500, u32::MAX].map(of_132), [None; 4]);
    }
}
