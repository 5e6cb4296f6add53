//! Arrays of a NumPy archive (`numpy.savez`): fixtures and recorded requests.
//!
//! ```text
//!   file.npz = zip of NAME.npy = magic, header as a Python dict, elements
//! ```
//! Only what `savez` writes is read: members stored without compression, C order, little endian. That keeps us free of an
//! inflate dependency; archives of `savez_compressed` are refused by name.

use crate::tensor::{Tensor, TensorError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tessera_core::DType;

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NpzError {
    /// The file itself.
    #[error("cannot read {}", path.display())]
    Io {
        /// The archive.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Not a zip archive, or one that ends too early.
    #[error("not a NumPy archive: {what}")]
    NotAnArchive {
        /// What is missing.
        what: &'static str,
    },
    /// A member is compressed.
    #[error("array `{name}` is compressed; write the archive with numpy.savez, not savez_compressed")]
    Compressed {
        /// The member.
        name: String,
    },
    /// The header of an array says something that is not supported.
    #[error(
        "array `{name}` has the header {header:?}; little-endian numbers and booleans in C order are supported"
    )]
    Header {
        /// The member.
        name: String,
        /// Its header.
        header: String,
    },
    /// The elements do not fill the shape.
    #[error("array `{name}`")]
    Elements {
        /// The member.
        name: String,
        /// The mismatch.
        #[source]
        source: TensorError,
    },
}

/// The arrays of the archive at `path`, by name (`in.x`). Errors as [`parse`] does, and when the file cannot be read.
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>, NpzError> {
    let bytes = std::fs::read(path).map_err(|source| NpzError::Io { path: path.to_owned(), source })?;
    parse(&bytes)
}

/// The arrays of an archive in memory, by name.
pub fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, NpzError> {
    let cut = NpzError::NotAnArchive { what: "it ends inside a zip record" };
    let members = central_directory(bytes)?;
    let mut arrays = BTreeMap::new();
    for member in members {
        let name = member.name.strip_suffix(".npy").unwrap_or(&member.name).to_owned();
        if member.method != 0 {
            return Err(NpzError::Compressed { name });
        }
        let Some(data) = member.stored(bytes) else { return Err(cut) };
        arrays.insert(name.clone(), array(&name, data)?);
    }
    Ok(arrays)
}

/// One entry of the zip's central directory.
struct Member {
    name: String,
    method: u16,
    len: usize,
    local_header: usize,
}

impl Member {
    /// The member's bytes. The local header's sizes may be placeholders, so only its lengths of name and extra are used.
    fn stored<'a>(&self, archive: &'a [u8]) -> Option<&'a [u8]> {
        let header = archive.get(self.local_header..)?;
        let start = 30 + usize::from(u16_at(header, 26)?) + usize::from(u16_at(header, 28)?);
        header.get(start..start.checked_add(self.len)?)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().expect("two bytes were cut")))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().expect("four bytes were cut")) as usize)
}

fn central_directory(bytes: &[u8]) -> Result<Vec<Member>, NpzError> {
    let end = bytes
        .windows(4)
        .rposition(|window| window == b"PK\x05\x06")
        .filter(|end| bytes.len() - end >= 22)
        .ok_or(NpzError::NotAnArchive { what: "it has no zip directory" })?;
    let read = || {
        let (count, mut at) = (u16_at(bytes, end + 10)?, u32_at(bytes, end + 16)?);
        let mut members = Vec::new();
        for _ in 0..count {
            let entry = bytes.get(at..).filter(|entry| entry.starts_with(b"PK\x01\x02"))?;
            let (name, extra, comment) = (u16_at(entry, 28)?, u16_at(entry, 30)?, u16_at(entry, 32)?);
            members.push(Member {
                name: String::from_utf8_lossy(entry.get(46..46 + usize::from(name))?).into_owned(),
                method: u16_at(entry, 10)?,
                len: u32_at(entry, 24)?,
                local_header: u32_at(entry, 42)?,
            });
            at += 46 + usize::from(name) + usize::from(extra) + usize::from(comment);
        }
        Some(members)
    };
    read().ok_or(NpzError::NotAnArchive { what: "its zip directory is cut short" })
}

/// The tensor in one `.npy` file.
fn array(name: &str, bytes: &[u8]) -> Result<Tensor, NpzError> {
    let short = || NpzError::NotAnArchive { what: "a member is not an array" };
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err(short());
    }
    // Version 1 counts the header in two bytes, later ones in four.
    let (start, len) = match bytes.get(6) {
        Some(1) => (10, u16_at(bytes, 8).map(usize::from)),
        _ => (12, u32_at(bytes, 8)),
    };
    let end = len.and_then(|len| len.checked_add(start)).ok_or_else(short)?;
    let header = String::from_utf8_lossy(bytes.get(start..end).ok_or_else(short)?).trim().to_owned();
    let (dtype, dims) = described(&header)
        .ok_or_else(|| NpzError::Header { name: name.to_owned(), header: header.clone() })?;
    Tensor::new(dtype, dims, bytes[end..].to_vec())
        .map_err(|source| NpzError::Elements { name: name.to_owned(), source })
}

/// `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }` as a type and dimensions.
fn described(header: &str) -> Option<(DType, Vec<usize>)> {
    let after = |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' ']));
    let descr = after("'descr'")?.strip_prefix('\'')?.split('\'').next()?;
    let dtype = match descr {
        "|b1" => DType::Bool,
        "|u1" => DType::U8,
        "|i1" => DType::I8,
        "<u2" => DType::U16,
        "<u4" => DType::U32,
        "<u8" => DType::U64,
        "<i2" => DType::I16,
        "<i4" => DType::I32,
        "<i8" => DType::I64,
        "<f2" => DType::F16,
        "<f4" => DType::F32,
        "<f8" => DType::F64,
        _ => return None,
    };
    let shape = after("'shape'")?.strip_prefix('(')?.split(')').next()?;
    let dims = shape.split(',').map(str::trim).filter(|dim| !dim.is_empty()).map(|dim| dim.parse().ok());
    let dims = dims.collect::<Option<Vec<usize>>>()?;
    // Both orders are the same for fewer than two dimensions.
    let c_order = after("'fortran_order'")?.starts_with("False") || dims.len() < 2;
    c_order.then_some((dtype, dims))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(name)
    }

    #[test]
    fn a_fixture_holds_its_requests_and_answers() {
        let arrays = read(&fixture("bert_tiny-0.npz")).unwrap();
        assert_eq!(arrays["in.input_ids"].dtype(), DType::I64);
        assert_eq!(arrays["out.output"].dtype(), DType::F32);
        assert_eq!(arrays["alt.in.input_ids"].dims(), [3, 23]);
        assert_eq!(arrays["alt.out.output"].dims(), [3, 23, 64]);
        assert_eq!(arrays.len(), 6);
    }

    #[test]
    fn an_archive_cut_anywhere_is_an_error_and_not_a_panic() {
        let bytes = std::fs::read(fixture("lstm-0.npz")).unwrap();
        for len in 0..bytes.len() {
            assert!(parse(&bytes[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn a_header_says_type_and_shape() {
        let of = |descr: &str, order: &str, shape: &str| {
            described(&format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"))
        };
        assert_eq!(of("<f4", "False", "(2, 3)"), Some((DType::F32, vec![2, 3])));
        assert_eq!(of("|b1", "False", "()"), Some((DType::Bool, vec![])));
        assert_eq!(of("<i8", "True", "(7,)"), Some((DType::I64, vec![7])));
        assert_eq!(of("<i8", "True", "(7, 2)"), None);
        assert_eq!(of(">f4", "False", "(2,)"), None);
    }
}
