//! The header of a `.safetensors` file: which tensors it holds, and where.
//!
//! ```text
//!   u64 length n │ n bytes of JSON: name → type, shape, offsets │ the elements
//! ```
//! Only the header is read here. It comes from outside: its length is bounded before it is believed, the `safetensors` crate
//! checks that tensors lie end to end and fill their shapes, and the file must be exactly as long as they say.

use crate::source::{SourceError, Stamp, read_range, stamp};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tessera_core::DType;

/// Larger than the header of any model; the reference implementation's limit.
const MAX_HEADER: u64 = 100_000_000;

/// The tensors of a file.
#[derive(Debug)]
pub(super) struct StateDict {
    pub(super) path: Arc<PathBuf>,
    pub(super) stamp: Stamp,
    pub(super) tensors: BTreeMap<String, Stored>,
}

/// One tensor of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stored {
    /// Its type; the file's word for it when we have no such type.
    pub(super) dtype: Result<DType, String>,
    pub(super) dims: Vec<usize>,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Why a file's header could not be used.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The file could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The header lies, or there is none.
    #[error("{} is not a safetensors file: {problem}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// The header of the file at `path`.
pub(super) fn read(path: &Path) -> Result<StateDict, HeaderError> {
    let wrong = |problem: String| HeaderError::Wrong { path: path.to_owned(), problem };
    let stamp = stamp(path)?;
    if stamp.len < 8 {
        return Err(wrong(format!("it has {} bytes", stamp.len)));
    }
    let length = read_range(path, &stamp, 0, 8)?;
    let length = u64::from_le_bytes(length[..].try_into().expect("eight bytes were read"));
    if length > MAX_HEADER || length > stamp.len - 8 {
        return Err(wrong(format!("its header claims {length} bytes, and the file has {}", stamp.len)));
    }
    let header = read_range(path, &stamp, 8, length)?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| wrong(error.to_string()))?;
    let begin = 8 + length;
    if begin.checked_add(metadata.data_len() as u64) != Some(stamp.len) {
        return Err(wrong(format!(
            "its tensors take {} bytes after a header of {begin}, and the file has {}",
            metadata.data_len(),
            stamp.len
        )));
    }
    let tensors = metadata.tensors().into_iter().map(|(name, info)| {
        let (start, end) = info.data_offsets;
        let stored = Stored {
            dtype: dtype(info.dtype),
            dims: info.shape.clone(),
            offset: begin + start as u64,
            len: (end - start) as u64,
        };
        (name, stored)
    });
    Ok(StateDict { path: Arc::new(path.to_owned()), stamp, tensors: tensors.collect() })
}

fn dtype(stored: Dtype) -> Result<DType, String> {
    Ok(match stored {
        Dtype::BOOL => DType::Bool,
        Dtype::U8 => DType::U8,
        Dtype::U16 => DType::U16,
        Dtype::U32 => DType::U32,
        Dtype::U64 => DType::U64,
        Dtype::I8 => DType::I8,
        Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        other => return Err(format!("{other:?}")),
    })
}
