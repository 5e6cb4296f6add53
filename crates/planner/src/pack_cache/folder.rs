//! The folder of a cache: its entries as files, what they begin with, and which of them go when there is no room.

use super::checksum::{read_checked, write_checked};
use super::{CacheError, CacheKey, ENTRY, FORMAT};
use crate::pack::{Blank, Packed};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tessera_core::Bytes;

const MAGIC: [u8; 8] = *b"TESSPACK";
/// Magic, format, four zeros, length, key, checksum.
const HEADER: usize = 8 + 4 + 4 + 8 + 32 + 32;
const UNFINISHED: &str = "unfinished";
/// A write that has not ended after so long belongs to a process that died.
const ABANDONED_AFTER: Duration = Duration::from_secs(60 * 60);

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> CacheError + '_ {
    move |source| CacheError::Io { path: path.into(), source }
}

/// A folder of entries.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    budget: Bytes,
}

impl Folder {
    /// As [`super::PackCache::open`].
    pub(super) fn open(dir: PathBuf, budget: Bytes) -> Result<Folder, CacheError> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&dir).map_err(io_at(&dir))?;
        Ok(Folder { dir, budget })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.dir
    }

    /// As [`super::PackCache::get`].
    pub(super) fn get(&self, key: &CacheKey, expected: Bytes) -> Result<Option<Packed>, CacheError> {
        let path = self.dir.join(key.file_name());
        match fs::symlink_metadata(&path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CacheError::Io { path, source }),
            // Opening a pipe would wait for ever; a link is not ours.
            Ok(metadata) if !metadata.is_file() => {
                return Err(CacheError::Damaged { path, what: "no regular file" });
            }
            Ok(metadata) if metadata.len() != (HEADER as u64).saturating_add(expected.0) => {
                return Err(self.damaged(path, "wrong length"));
            }
            Ok(_) => {}
        }
        let mut file = match File::open(&path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None), // evicted by another process
            file => file.map_err(io_at(&path))?,
        };
        let mut header = [0; HEADER];
        let mut blank =
            Blank::zeroed(usize::try_from(expected.0).expect("the caller has a slot of this length"));
        let read = file.read_exact(&mut header);
        let checksum = read.and_then(|()| read_checked(&path, HEADER as u64, blank.bytes_mut()));
        let checksum = match checksum {
            Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.damaged(path, "cut short"));
            }
            other => other.map_err(io_at(&path))?,
        };
        if header != header_of(key, blank.bytes_mut().len(), &checksum) {
            return Err(self.damaged(path, "its checksum differs"));
        }
        // Best effort: a folder that we may read but not write is a fine cache.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(blank.done()))
    }

    /// As [`super::PackCache::put`].
    pub(super) fn put(&self, key: &CacheKey, packed: &Packed) -> Result<(), CacheError> {
        let need = Bytes((HEADER + packed.bytes().len()) as u64);
        if need > self.budget {
            return Err(CacheError::TooLarge { need, budget: self.budget });
        }
        self.make_room(need, &key.file_name())?;
        let (unfinished, file) = self.create_unfinished()?;
        let written = write(file, key, packed.bytes())
            .and_then(|()| fs::rename(&unfinished, self.dir.join(key.file_name())));
        written.map_err(|source| {
            let _ = fs::remove_file(&unfinished); // the error that matters is the first one
            CacheError::Io { path: unfinished, source }
        })
    }

    /// Removes entries, oldest use first, until `need` more bytes fit, and what processes that died left unfinished. The entry
    /// `replaced` goes anyway.
    fn make_room(&self, need: Bytes, replaced: &str) -> Result<(), CacheError> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io_at(&self.dir))? {
            let path = entry.map_err(io_at(&self.dir))?.path();
            // Another process may have removed it since: then it needs no room.
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(ENTRY) if path.file_name().is_some_and(|name| name != replaced) => {
                    entries.push((used, path, metadata.len()));
                }
                Some(UNFINISHED) if used.elapsed().is_ok_and(|age| age > ABANDONED_AFTER) => {
                    let _ = fs::remove_file(&path); // another process may be doing the same
                }
                _ => {} // not ours
            }
        }
        entries.sort();
        let mut total: u64 = entries.iter().map(|(_, _, len)| len).sum();
        for (_, path, len) in entries {
            if total + need.0 <= self.budget.0 {
                break;
            }
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(CacheError::Io { path, source });
                }
                _ => total -= len,
            }
        }
        Ok(())
    }

    /// A new file that no other thread or process writes.
    fn create_unfinished(&self) -> Result<(PathBuf, File), CacheError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self.dir.join(format!("{}-{number}.{UNFINISHED}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((path, file)),
                // Left by a process that died and had our number, or alive in another container: take the next.
                Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(CacheError::Io { path, source }),
            }
        }
    }

    fn damaged(&self, path: PathBuf, what: &'static str) -> CacheError {
        let _ = fs::remove_file(&path); // it would be found damaged again; put replaces it anyway
        CacheError::Damaged { path, what }
    }
}

/// Writes an entry, and waits until it is on its disk: what is renamed into place must be whole, whatever happens to the machine.
fn write(mut file: File, key: &CacheKey, bytes: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(HEADER as u64))?;
    let checksum = write_checked(&mut file, bytes)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header_of(key, bytes.len(), &checksum))?;
    file.sync_data()
}

/// What an entry begins with.
fn header_of(key: &CacheKey, len: usize, checksum: &[u8; 32]) -> [u8; HEADER] {
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&(len as u64).to_le_bytes());
    header.extend_from_slice(&key.0);
    header.extend_from_slice(checksum);
    header.try_into().expect("the parts make up the header")
}
