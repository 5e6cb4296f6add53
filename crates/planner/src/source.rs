//! Bytes of a user's files, read exactly and once.
//!
//! A user may replace, truncate or extend a file while we read it. We never map it (a truncated mapping kills the process) and never
//! trust a half: a file is recognised by its [`Stamp`], taken when it was first looked at and compared after every read, and a
//! read brings exactly the bytes asked for or an error.

use crate::graph::WeightSource;
use crate::tensor::{Tensor, TensorError, checked_len};
use prost::bytes::Bytes;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tessera_core::DType;

/// What tells one state of a file from another: its length, when it was written and, where the system knows it, which file it is and when
/// anything about it changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Length in bytes.
    pub len: u64,
    /// When it was last written; `None` where the file system does not say.
    pub modified: Option<SystemTime>,
    /// Device and inode; `None` where there is no such thing.
    pub identity: Option<(u64, u64)>,
    /// When content or attributes last changed, which nobody can set, in nanoseconds since 1970; `None` where there is no such thing.
    pub changed_ns: Option<i128>,
}

/// Why bytes of a file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder, a pipe, a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Larger than we take.
    #[error("{} has {len} bytes, more than the {limit} that such a file may have", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
        /// What is allowed.
        limit: u64,
    },
    /// It is not the file it was.
    #[error("{} changed while it was read; write a new file beside it and rename it into place", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// There is not as much in it as somebody says.
    #[error("{} has {len} bytes, but bytes {offset} to {end} of it are asked for", path.display())]
    Short {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
        /// First byte asked for.
        offset: u64,
        /// Byte after the last one asked for.
        end: u64,
    },
    /// Nobody kept them.
    #[error("the weights are not at hand any more; load the model again")]
    Forgotten,
    /// The bytes are no tensor of that type and shape.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        #[cfg(unix)]
        let (identity, changed_ns) = {
            use std::os::unix::fs::MetadataExt;
            let changed_ns = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
            (Some((metadata.dev(), metadata.ino())), Some(changed_ns))
        };
        #[cfg(not(unix))]
        let (identity, changed_ns) = (None, None);
        Stamp { len: metadata.len(), modified: metadata.modified().ok(), identity, changed_ns }
    }

    /// Whether both are of one file, written as it was. Links to it and rights to it may have changed.
    pub fn is_of_same(&self, other: &Stamp) -> bool {
        let told = |stamp: &Stamp| (stamp.len, stamp.modified, stamp.identity);
        told(self) == told(other)
    }

    /// Whether this is still the file at `path`, written as it was. Not so when nothing is there.
    pub fn still_stands_for(&self, path: &Path) -> bool {
        stamp(path).is_ok_and(|now| self.is_of_same(&now))
    }
}

/// The stamp of the file at `path`. Errors when there is none, or something that is not a regular file (opening a pipe would wait for ever).
pub fn stamp(path: &Path) -> Result<Stamp, SourceError> {
    let metadata = std::fs::metadata(path).map_err(|source| SourceError::Io { path: path.into(), source })?;
    match metadata.is_file() {
        true => Ok(Stamp::of(&metadata)),
        false => Err(SourceError::NotAFile { path: path.into() }),
    }
}

/// `len` bytes from `offset` on of the file at `path`, which must be as it was when `stamp` was taken, before and after.
pub(crate) fn read_range(path: &Path, stamp: &Stamp, offset: u64, len: u64) -> Result<Bytes, SourceError> {
    let mut opened = Opened::at(path, stamp, offset, len)?;
    let io = |source| SourceError::Io { path: path.into(), source };
    let room = usize::try_from(len).map_err(|_| io(io::ErrorKind::OutOfMemory.into()))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(room).map_err(|_| io(io::ErrorKind::OutOfMemory.into()))?;
    opened.file.by_ref().take(len).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() != room {
        return Err(SourceError::Changed { path: path.into() });
    }
    opened.finish()?;
    Ok(bytes.into())
}

/// A user's file in the state that a stamp says.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    file: File,
    path: &'a Path,
    stamp: &'a Stamp,
}

impl<'a> Opened<'a> {
    /// Before byte `offset`, from which on it has `len` bytes or more. Errors when it has fewer, or is in another state.
    pub(crate) fn at(path: &'a Path, stamp: &'a Stamp, offset: u64, len: u64) -> Result<Self, SourceError> {
        match offset.checked_add(len) {
            Some(end) if end <= stamp.len => {}
            end => {
                let end = end.unwrap_or(u64::MAX);
                return Err(SourceError::Short { path: path.into(), len: stamp.len, offset, end });
            }
        }
        let file = File::open(path).map_err(|source| SourceError::Io { path: path.into(), source })?;
        let mut opened = Opened { file, path, stamp };
        opened.check()?;
        opened.seek(offset)?;
        Ok(opened)
    }

    pub(crate) fn seek(&mut self, offset: u64) -> Result<(), SourceError> {
        self.file.seek(SeekFrom::Start(offset)).map(drop).map_err(|source| self.io(source))
    }

    /// The next bytes, as many as there is room for.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SourceError> {
        self.file.read_exact(bytes).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => SourceError::Changed { path: self.path.into() },
            _ => self.io(source),
        })
    }

    /// What was read is of the state that the stamp says.
    pub(crate) fn finish(self) -> Result<(), SourceError> {
        self.check()
    }

    fn check(&self) -> Result<(), SourceError> {
        match Stamp::of(&self.file.metadata().map_err(|source| self.io(source))?) == *self.stamp {
            true => Ok(()),
            false => Err(SourceError::Changed { path: self.path.into() }),
        }
    }

    fn io(&self, source: io::Error) -> SourceError {
        SourceError::Io { path: self.path.into(), source }
    }
}

/// The bytes of a weight from the first to the last, without ever holding all of them.
#[derive(Debug)]
pub(crate) enum Pieces<'a> {
    /// The rest of what is in memory.
    Memory(&'a [u8]),
    /// A file, before the next piece.
    File(Opened<'a>),
}

impl<'a> Pieces<'a> {
    /// Errors when the file is in another state than it was, and for what has to be converted or made.
    pub(crate) fn open(source: &'a WeightSource) -> Result<Pieces<'a>, SourceError> {
        match source {
            WeightSource::Inline(tensor) => Ok(Pieces::Memory(tensor.bytes())),
            WeightSource::File { path, stamp, offset, len } => {
                Ok(Pieces::File(Opened::at(path, stamp, *offset, *len)?))
            }
            WeightSource::Converted { .. } | WeightSource::Zeros | WeightSource::Forgotten => {
                Err(SourceError::Forgotten)
            }
        }
    }

    /// The next `len` bytes, instead of what was in `piece`. The caller takes no more than there are.
    pub(crate) fn next(&mut self, len: usize, piece: &mut Vec<u8>) -> Result<(), SourceError> {
        piece.resize(len, 0);
        match self {
            Pieces::File(opened) => opened.fill(piece),
            Pieces::Memory(rest) => {
                let (now, later) = rest.split_at(len);
                piece.copy_from_slice(now);
                *rest = later;
                Ok(())
            }
        }
    }

    /// Errors when the file changed meanwhile: then what was read may be of two states.
    pub(crate) fn finish(self) -> Result<(), SourceError> {
        match self {
            Pieces::Memory(_) => Ok(()),
            Pieces::File(opened) => opened.finish(),
        }
    }
}

/// The tensor that `source` points at, of this type and shape: exactly its bytes, read once.
pub fn read_weight(source: &WeightSource, dtype: DType, dims: &[usize]) -> Result<Tensor, SourceError> {
    match source {
        WeightSource::Inline(tensor) => Ok(tensor.clone()),
        WeightSource::File { path, stamp, offset, len } => {
            Ok(Tensor::new(dtype, dims.to_vec(), read_range(path, stamp, *offset, *len)?)?)
        }
        WeightSource::Converted { from, dtype: stored, dims: stored_dims, transposed } => {
            let tensor = read_weight(from, *stored, stored_dims)?;
            let tensor = if *transposed { transpose(&tensor) } else { tensor };
            let tensor = if *stored == dtype { tensor } else { widen(&tensor) };
            Ok(tensor.reshaped(dims.to_vec())?)
        }
        WeightSource::Zeros => {
            let len = checked_len(dtype, dims).expect("a bias is as long as the weight beside it is wide");
            Ok(Tensor::new(dtype, dims.to_vec(), vec![0; len])?)
        }
        WeightSource::Forgotten => Err(SourceError::Forgotten),
    }
}

/// Rows for columns of a matrix.
fn transpose(tensor: &Tensor) -> Tensor {
    let &[rows, cols] = tensor.dims() else { unreachable!("only matrices are stored transposed") };
    let size = tensor.dtype().size();
    let from = tensor.bytes();
    let mut to = Vec::with_capacity(from.len());
    for col in 0..cols {
        for row in 0..rows {
            let at = (row * cols + col) * size;
            to.extend_from_slice(&from[at..at + size]);
        }
    }
    Tensor::new(tensor.dtype(), vec![cols, rows], to).expect("as many elements as before")
}

/// Halves of either kind as singles, exactly.
fn widen(tensor: &Tensor) -> Tensor {
    let halves = tensor.bytes().chunks_exact(2).map(|bits| u16::from_le_bytes([bits[0], bits[1]]));
    let singles: Vec<f32> = match tensor.dtype() {
        DType::BF16 => halves.map(|bits| half::bf16::from_bits(bits).to_f32()).collect(),
        DType::F16 => halves.map(|bits| half::f16::from_bits(bits).to_f32()).collect(),
        other => unreachable!("only halves are widened, not {other}"),
    };
    Tensor::from_elements(tensor.dims(), &singles)
}
