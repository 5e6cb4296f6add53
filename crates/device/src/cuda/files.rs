//! Files that help a later process: each is whole, or as good as not there.
//!
//! ```text
//!   checksum | bytes        written under a name of its own, then renamed into place
//! ```
//! Processes may share a folder. Its errors cost nothing but what the file would have saved.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the checksum at the start of a file.
const CHECKSUM: usize = 32;

/// Numbers the parts of files that this process writes.
static PARTS_EVER: AtomicU64 = AtomicU64::new(0);

/// What is found under a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// Nothing that can be read.
    Nothing,
    /// Less than was written, or something else.
    Damaged,
    /// All that was written.
    Whole(Vec<u8>),
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Found {
    let Ok(bytes) = std::fs::read(path) else { return Found::Nothing };
    match bytes.split_at_checked(CHECKSUM) {
        Some((checksum, whole)) if blake3::hash(whole).as_bytes() == checksum => Found::Whole(whole.to_vec()),
        _ => Found::Damaged,
    }
}

/// Writes a file, whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) {
    let number = PARTS_EVER.fetch_add(1, Ordering::Relaxed);
    let part = path.with_extension(format!("{}-{number}.part", std::process::id()));
    let whole = [blake3::hash(bytes).as_bytes().as_slice(), bytes].concat();
    if std::fs::write(&part, whole).and_then(|()| std::fs::rename(&part, path)).is_err() {
        // A full disk, most likely. What is left of the part would only take room.
        let _ = std::fs::remove_file(&part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_or_short_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.cubin");
        write(&path, b"machine code");
        assert_eq!(read(&path), Found::Whole(b"machine code".to_vec()));
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path), Found::Damaged);
        std::fs::write(&path, &bytes[..10]).unwrap();
        assert_eq!(read(&path), Found::Damaged, "short");
        assert_eq!(read(&folder.path().join("b.cubin")), Found::Nothing);
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "no parts are left: {left:?}");
    }
}
