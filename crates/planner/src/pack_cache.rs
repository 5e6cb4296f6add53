//! Packed weights on disk, so that a restart does not compute them again.
//!
//! ```text
//!   states of files ─▶ CacheKey ─▶ get ── hit ──▶ Packed
//!                                   └─ miss ─▶ pack ─▶ put
//! ```
//! The key covers everything that can change the bytes: the formats, the class, what is computed and how it is laid out, the target, and the
//! weights: those in memory by their content, those in files by the files' states, so that a hit reads none of them. A state is which file it
//! is, its length, and when it was written and last changed; the system alone sets the latter. Only a write within the same tick of the file
//! system's clock could go unseen, so a file that changed less than two seconds ago has no key yet: it is packed, and kept the next time (as git
//! does with its index). So an entry is never stale, only unused; the least recently used go when the budget is full.
//!
//! Processes may share a folder: an entry is written under a name of its own and renamed into place, and its checksum is verified
//! whenever it is read. The cache only ever helps: each of its errors leaves the caller where a miss would.

mod checksum;

use crate::fold::Folded;
use crate::graph::{Graph, ParamId, WeightSource};
use crate::pack::{PackError, Packed, SlotLayout, Sources, pack_sources};
use crate::source::{SourceError, Stamp};
use checksum::{checksum, read_checked};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tessera_core::{Bytes, ClassId};

/// Increased whenever packing makes other bytes of the same input, or an entry looks different.
const FORMAT: u32 = 3;
const MAGIC: [u8; 8] = *b"TESSPACK";
/// Magic, format, four zeros, length, key, checksum.
const HEADER: usize = 8 + 4 + 4 + 8 + 32 + 32;
const ENTRY: &str = "pack";
const UNFINISHED: &str = "unfinished";
/// A write that has not ended after so long belongs to a process that died.
const ABANDONED_AFTER: Duration = Duration::from_secs(60 * 60);
/// How long ago a file must have changed for its times to tell it from what is written next: the coarsest clock of a file system in use ticks
/// every two seconds.
const SETTLED: Duration = Duration::from_secs(2);

/// Names packed bytes by everything that they depend on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// The key of what [`crate::pack::pack`] makes of these, or `None` when a weight's file changed too short a time before `now` to be known
    /// again, or its file system does not tell enough.
    pub fn new(
        class: ClassId,
        folded: &Folded,
        layout: &SlotLayout,
        weights: &Sources<'_>,
        now: SystemTime,
    ) -> Option<CacheKey> {
        let mut hasher = blake3::Hasher::new();
        let mut part = |part: &[u8]| {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        };
        part(format!("tessera {} format {FORMAT}", env!("CARGO_PKG_VERSION")).as_bytes());
        part(class.to_hex().as_bytes());
        // The expressions and the layout as text: every operator, attribute, offset and dimension is in it. Long literals
        // are not, but they are part of the class.
        part(format!("{:?}", folded.weights).as_bytes());
        part(format!("{layout:?}").as_bytes());
        for (param, mut source) in weights.iter() {
            part(format!("{}{:?}", param.dtype, param.dims).as_bytes());
            while let WeightSource::Converted { from, dtype, dims, transposed } = source {
                part(format!("{dtype}{dims:?}{transposed}").as_bytes());
                source = from;
            }
            match source {
                WeightSource::Inline(tensor) => {
                    part(format!("{}{:?}", tensor.dtype(), tensor.dims()).as_bytes());
                    part(tensor.bytes());
                }
                WeightSource::File { stamp, offset, len, .. } if settled(stamp, now) => {
                    part(format!("{stamp:?} {offset} {len}").as_bytes());
                }
                WeightSource::Zeros => part(b"zeros"),
                WeightSource::File { .. } | WeightSource::Converted { .. } | WeightSource::Forgotten => {
                    return None;
                }
            }
        }
        Some(CacheKey(hasher.finalize().into()))
    }

    fn file_name(&self) -> String {
        format!("{}.{ENTRY}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// Whether a file in this state cannot be changed any more without its state telling.
fn settled(stamp: &Stamp, now: SystemTime) -> bool {
    let (Some(modified), Some(changed_ns), Some(_)) = (stamp.modified, stamp.changed_ns, stamp.identity)
    else {
        return false;
    };
    let before = now.checked_sub(SETTLED).unwrap_or(UNIX_EPOCH);
    let before_ns = before.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
    modified <= before && changed_ns <= before_ns
}

/// What went wrong with the cache. Never a reason to fail: log it, and pack.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An entry is not what was written.
    #[error("{} is damaged ({what}) and is packed anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// One entry does not fit.
    #[error("packed weights of {need} do not fit the cache's {budget}; raise its budget to keep them")]
    TooLarge {
        /// Bytes of the entry.
        need: Bytes,
        /// Bytes of the cache.
        budget: Bytes,
    },
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> CacheError + '_ {
    move |source| CacheError::Io { path: path.into(), source }
}

/// A folder of packed weights.
#[derive(Debug)]
pub struct PackCache {
    dir: PathBuf,
    budget: Bytes,
}

impl PackCache {
    /// The cache in `dir`, which is made if it is not there, of at most `budget` bytes (entries above it go with the next
    /// [`PackCache::put`]). Weights are private: on Unix the folder is made for its owner alone.
    pub fn open(dir: impl Into<PathBuf>, budget: Bytes) -> Result<PackCache, CacheError> {
        let dir = dir.into();
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&dir).map_err(io_at(&dir))?;
        Ok(PackCache { dir, budget })
    }

    /// The entry of `key`, or `None` when there is none. `expected` is the length of a slot. Costs reading and hashing the entry, and marks
    /// it as used. An entry that turns out damaged is removed.
    pub fn get(&self, key: &CacheKey, expected: Bytes) -> Result<Option<Packed>, CacheError> {
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
        let mut packed =
            Packed::zeroed(usize::try_from(expected.0).expect("the caller has a slot of this length"));
        let read = file.read_exact(&mut header);
        let checksum = read.and_then(|()| read_checked(&path, HEADER as u64, packed.bytes_mut()));
        let checksum = match checksum {
            Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.damaged(path, "cut short"));
            }
            other => other.map_err(io_at(&path))?,
        };
        if header != header_of(key, packed.bytes().len(), &checksum) {
            return Err(self.damaged(path, "its checksum differs"));
        }
        // Best effort: a folder that we may read but not write is a fine cache.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(packed))
    }

    /// Keeps `packed` under `key`, and lets go of what was used least recently until the budget holds it.
    pub fn put(&self, key: &CacheKey, packed: &Packed) -> Result<(), CacheError> {
        let bytes = packed.bytes();
        let need = Bytes((HEADER + bytes.len()) as u64);
        if need > self.budget {
            return Err(CacheError::TooLarge { need, budget: self.budget });
        }
        self.make_room(need, &key.file_name())?;
        let (unfinished, mut file) = self.create_unfinished()?;
        // The header comes last: writing and summing up take their time side by side.
        let written = thread::scope(|scope| {
            let checksum = scope.spawn(|| checksum(bytes));
            file.seek(SeekFrom::Start(HEADER as u64))?;
            file.write_all(bytes)?;
            let checksum = checksum.join().expect("hashing does not panic");
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&header_of(key, bytes.len(), &checksum))
        });
        let written = written
            // No sync: what a crash leaves half written fails its checksum, and is packed anew.
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

/// What is packed, but for the weights.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The class's name.
    pub class: ClassId,
    /// The class graph.
    pub graph: &'a Graph,
    /// What was folded from it.
    pub folded: &'a Folded,
    /// How it is to lie.
    pub layout: &'a SlotLayout,
}

impl PackCache {
    /// [`pack()`](crate::pack::pack) through the cache: the same bytes, and the cache's own errors go to `complain` alone.
    ///
    /// `source` is asked once for each weight. A hit reads none of them, but for what is in memory.
    pub fn pack(
        &self,
        wanted: &Wanted<'_>,
        source: &mut dyn FnMut(ParamId) -> Result<WeightSource, SourceError>,
        complain: &mut dyn FnMut(CacheError),
    ) -> Result<Packed, PackError> {
        let Wanted { class, graph, folded, layout } = *wanted;
        let sources = Sources::of(graph, folded, source)?;
        // Made before anything is read: what is read later is of the state that the key names, or reading says that it changed.
        let Some(key) = CacheKey::new(class, folded, layout, &sources, SystemTime::now()) else {
            return pack_sources(&sources, folded, layout);
        };
        match self.get(&key, layout.bytes) {
            Ok(Some(packed)) => return Ok(packed),
            Ok(None) => {}
            Err(error) => complain(error),
        }
        let packed = pack_sources(&sources, folded, layout)?;
        self.put(&key, &packed).unwrap_or_else(complain);
        Ok(packed)
    }
}
