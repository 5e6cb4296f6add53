//! The thread that writes entries, so that no load waits for a disk.
//!
//! ```text
//!   offer ─▶ [ one that waits ] ─▶ one being written      what comes when the place is taken is not kept this time
//! ```
//! A slot that is being written stays in memory until it is, even if its tenant has gone or a card has its copy: two at most.

use super::folder::Folder;
use super::{CacheError, CacheKey, Complain};
use crate::pack::Packed;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

/// Entries that wait while one is written.
const WAITING: usize = 1;

/// Writes what it is offered. Dropping it waits for what it took.
pub(super) struct Writer {
    /// `None` once nothing more comes.
    entries: Option<SyncSender<(CacheKey, Packed)>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. What it cannot keep, it complains of.
    pub(super) fn start(folder: Arc<Folder>, complain: Complain) -> Result<Writer, CacheError> {
        let (entries, taken) = mpsc::sync_channel::<(CacheKey, Packed)>(WAITING);
        let path = folder.path().to_owned();
        let write = move || {
            for (key, packed) in taken {
                folder.put(&key, &packed).unwrap_or_else(|error| complain(error));
            }
        };
        let thread = thread::Builder::new().name("pack-cache".to_owned()).spawn(write);
        let thread = thread.map_err(|source| CacheError::Io { path, source })?;
        Ok(Writer { entries: Some(entries), thread: Some(thread) })
    }

    /// Has an entry written, if there is a place for it.
    pub(super) fn offer(&self, key: CacheKey, packed: Packed) {
        if let Some(entries) = &self.entries {
            let _ = entries.try_send((key, packed)); // it is packed again the next time
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.entries = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a writer that panicked has nothing left to write
        }
    }
}
