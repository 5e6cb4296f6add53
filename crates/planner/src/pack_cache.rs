//! Packed weights on disk, so that a restart does not compute them again.
//!
//! ```text
//!   states of files ─▶ CacheKey ─▶ get ── hit ──▶ Packed
//!                                   └─ miss ─▶ pack ─┬──▶ Packed
//!                                                    └─▶ put, on a thread of its own
//! ```
//! The key covers everything that can change the bytes: the formats, the class, what is computed and how it is laid out, the target, and the
//! weights: those in memory by their content, those in files by the files' states, so that a hit reads none of them. A state is which file it
//! is, its length, and when it was written and last changed; the system alone sets the latter. Only a write within the same tick of the file
//! system's clock could go unseen, so a file that changed less than two seconds ago has no key yet: it is packed, and kept the next time (as git
//! does with its index). So an entry is never stale, only unused; the least recently used go when the budget is full.
//!
//! Processes may share a folder: an entry is written under a name of its own, brought to the disk and renamed into place, and its checksum is
//! verified whenever it is read. The cache only ever helps: each of its errors leaves the caller where a miss would, and no load waits for
//! the disk that keeps it. An entry is read into its slot rather than mapped: files have small pages that the system may take away, which a
//! request would wait for.

mod checksum;
mod folder;
mod writer;

use crate::fold::Folded;
use crate::graph::{Graph, ParamId, WeightSource};
use crate::pack::{PackError, Packed, SlotLayout, Sources, pack_sources};
use crate::source::{SourceError, Stamp};
use folder::Folder;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tessera_core::{Bytes, ClassId};
use writer::Writer;

/// Increased whenever packing makes other bytes of the same input, or an entry looks different.
const FORMAT: u32 = 4;
const ENTRY: &str = "pack";
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

/// Hears what went wrong, from any thread.
pub type Complain = Arc<dyn Fn(CacheError) + Send + Sync>;

/// A folder of packed weights, and who writes into it. Dropping it waits until what is on its way is written.
pub struct PackCache {
    folder: Arc<Folder>,
    writer: Writer,
    complain: Complain,
}

impl fmt::Debug for PackCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackCache").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl PackCache {
    /// The cache in `dir`, which is made if it is not there, of at most `budget` bytes (entries above it go with the next
    /// [`PackCache::put`]). Weights are private: on Unix the folder is made for its owner alone. What goes wrong later and fails nobody's
    /// call goes to `complain`, what keeps several entries in a row from being kept once. Errors when the folder cannot be made, or the thread that writes cannot be started.
    pub fn open(dir: impl Into<PathBuf>, budget: Bytes, complain: Complain) -> Result<PackCache, CacheError> {
        let folder = Arc::new(Folder::open(dir.into(), budget)?);
        let writer = Writer::start(folder.clone(), complain.clone())?;
        Ok(PackCache { folder, writer, complain })
    }

    /// The entry of `key`, or `None` when there is none. `expected` is the length of a slot. Costs reading the entry, and marks it as used. An
    /// entry that turns out damaged is removed.
    pub fn get(&self, key: &CacheKey, expected: Bytes) -> Result<Option<Packed>, CacheError> {
        self.folder.get(key, expected)
    }

    /// Keeps `packed` under `key`, and lets go of what was used least recently until the budget holds it. Costs the time of the disk.
    pub fn put(&self, key: &CacheKey, packed: &Packed) -> Result<(), CacheError> {
        self.folder.put(key, packed)
    }

    /// [`pack()`](crate::pack::pack) through the cache: the same bytes, and the cache's own errors are for `complain` alone.
    ///
    /// `source` is asked once for each weight. A hit reads none of them, but for what is in memory. What had to be packed is kept meanwhile, if
    /// the disk keeps up: what comes while one entry is written and another waits is packed again the next time.
    pub fn pack(
        &self,
        wanted: &Wanted<'_>,
        source: &mut dyn FnMut(ParamId) -> Result<WeightSource, SourceError>,
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
            Err(error) => (self.complain)(error),
        }
        let packed = pack_sources(&sources, folded, layout)?;
        self.writer.offer(key, packed.clone());
        Ok(packed)
    }
}
