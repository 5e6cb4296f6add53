//! The thread that writes entries, so that no load waits for a disk.
//!
//! ```text
//!   offer ─▶ [ one that waits ] ─▶ one being written      what comes when the place is taken is not kept this time
//! ```
//! A slot that is being written stays in memory until it is, even if its tenant has gone or a card has its copy: two at most.

use super::folder::Folder;
use super::{CacheError, CacheKey, Complain};
use crate::pack::Packed;
use std::mem;
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
    /// Starts the thread. What it cannot keep, it complains of: once for all that follow for the same reason, as a full disk keeps none of hundreds of tenants.
    pub(super) fn start(folder: Arc<Folder>, complain: Complain) -> Result<Writer, CacheError> {
        let (entries, taken) = mpsc::sync_channel::<(CacheKey, Packed)>(WAITING);
        let path = folder.path().to_owned();
        let write = move || {
            let mut told = None;
            for (key, packed) in taken {
                let failed = folder.put(&key, &packed).err();
                let kind = failed.as_ref().map(mem::discriminant);
                failed.filter(|_| kind != told).into_iter().for_each(|error| complain(error));
                told = kind;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

    use super::*;
    use crate::pack::Blank;
    use std::mem::Discriminant;
    use std::sync::Mutex;
    use tessera_core::Bytes;

    #[test]
    fn what_cannot_be_kept_is_complained_of_once_until_the_reason_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        let folder = Arc::new(Folder::open(path.clone(), Bytes(1000)).unwrap());
        let complaints: Arc<Mutex<Vec<Discriminant<CacheError>>>> = Arc::default();
        let heard = complaints.clone();
        let complain = Arc::new(move |error| heard.lock().unwrap().push(mem::discriminant(&error)));
        let writer = Writer::start(folder, complain).unwrap();
        std::fs::remove_dir(path).unwrap();
        let entry = |bytes: usize| (CacheKey([0; 32]), Blank::zeroed(bytes).done());
        for bytes in [2000, 2000, 2000, 10, 10, 2000] {
            writer.entries.as_ref().unwrap().send(entry(bytes)).unwrap();
        }
        drop(writer);
        let complaints = complaints.lock().unwrap();
        assert_eq!(complaints.len(), 3, "too large, no folder, too large again");
        assert!(complaints[0] == complaints[2] && complaints[0] != complaints[1]);
    }
}
