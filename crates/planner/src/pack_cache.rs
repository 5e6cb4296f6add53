//! Packed weights on disk, so that a restart does not compute them again.
//!
//! ```text
//!   identify ─▶ CacheKey ─▶ get ── hit ──▶ Packed
//!                            └─ miss ─▶ pack ─▶ put
//! ```
//! The key covers everything that can change the bytes: the formats, the class, what is computed and how it is laid out, the target, and the
//! content of the weights. So an entry is never stale, only unused; the least recently used go when the budget is full. A hit
//! still costs reading and hashing the weights; what it saves is computing and laying them out.
//!
//! Processes may share a folder: an entry is written under a name of its own and renamed into place, and its checksum is verified
//! whenever it is read. The cache only ever helps: each of its errors leaves the caller where a miss would.

use crate::fold::Folded;
use crate::graph::{Graph, ParamId};
use crate::pack::{PackError, Packed, SlotLayout, WeightsHash, identify, pack_identified};
use crate::source::SourceError;
use crate::tensor::Tensor;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tessera_core::{Bytes, ClassId};

/// Increased whenever packing makes other bytes of the same input, or an entry looks different.
const FORMAT: u32 = 2;
const MAGIC: [u8; 8] = *b"TESSPACK";
/// Magic, format, four zeros, length, key, checksum.
const HEADER: usize = 8 + 4 + 4 + 8 + 32 + 32;
const ENTRY: &str = "pack";
const UNFINISHED: &str = "unfinished";
/// A write that has not ended after so long belongs to a process that died.
const ABANDONED_AFTER: Duration = Duration::from_secs(60 * 60);

/// Names packed bytes by everything that they depend on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// The key of what [`crate::pack::pack`] makes of these.
    pub fn new(class: ClassId, folded: &Folded, layout: &SlotLayout, weights: &WeightsHash) -> CacheKey {
        let mut hasher = blake3::Hasher::new();
        let parts = [
            format!("tessera {} format {FORMAT}", env!("CARGO_PKG_VERSION")),
            class.to_hex(),
            // The expressions and the layout as text: every operator, attribute, offset and dimension is in it. Long literals
            // are not, but they are part of the class.
            format!("{:?}", folded.weights),
            format!("{layout:?}"),
        ];
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        CacheKey(hasher.update(&weights.0).finalize().into())
    }

    fn file_name(&self) -> String {
        format!("{}.{ENTRY}", blake3::Hash::from_bytes(self.0).to_hex())
    }
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
        let mut bytes = vec![0; usize::try_from(expected.0).expect("the caller has a slot of this length")];
        let read = file.read_exact(&mut header).and_then(|()| file.read_exact(&mut bytes));
        match read {
            Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.damaged(path, "cut short"));
            }
            other => other.map_err(io_at(&path))?,
        }
        if header != header_of(key, &bytes) {
            return Err(self.damaged(path, "its checksum differs"));
        }
        // Best effort: a folder that we may read but not write is a fine cache.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(Packed { bytes }))
    }

    /// Keeps `packed` under `key`, and lets go of what was used least recently until the budget holds it.
    pub fn put(&self, key: &CacheKey, packed: &Packed) -> Result<(), CacheError> {
        let need = Bytes((HEADER + packed.bytes.len()) as u64);
        if need > self.budget {
            return Err(CacheError::TooLarge { need, budget: self.budget });
        }
        self.make_room(need, &key.file_name())?;
        let (unfinished, mut file) = self.create_unfinished()?;
        let written = file
            .write_all(&header_of(key, &packed.bytes))
            .and_then(|()| file.write_all(&packed.bytes))
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
fn header_of(key: &CacheKey, bytes: &[u8]) -> [u8; HEADER] {
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    header.extend_from_slice(&key.0);
    header.extend_from_slice(blake3::hash(bytes).as_bytes());
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
    /// `read` is called once for each weight on a hit, and twice on a miss (once to find out that it is one).
    pub fn pack(
        &self,
        wanted: &Wanted<'_>,
        read: &mut dyn FnMut(ParamId) -> Result<Tensor, SourceError>,
        complain: &mut dyn FnMut(CacheError),
    ) -> Result<Packed, PackError> {
        let Wanted { class, graph, folded, layout } = *wanted;
        let key = CacheKey::new(class, folded, layout, &identify(graph, folded, read)?);
        match self.get(&key, layout.bytes) {
            Ok(Some(packed)) => return Ok(packed),
            Ok(None) => {}
            Err(error) => complain(error),
        }
        // The weights may have changed since they were identified: what is kept is named by what was packed.
        let (packed, weights) = pack_identified(graph, folded, layout, read)?;
        self.put(&CacheKey::new(class, folded, layout, &weights), &packed).unwrap_or_else(complain);
        Ok(packed)
    }
}
