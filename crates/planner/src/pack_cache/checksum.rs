//! The checksum of an entry: a hash of the hashes of its segments, so that several cores can read and check one entry.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;

/// Read and hashed at a time: it stays in a core's second cache in between.
const SEGMENT: usize = 256 << 10;
/// More would wait for memory.
const MOST_THREADS: usize = 4;
/// Bytes for which another thread is worth being started.
const WORTH_A_THREAD: usize = 8 << 20;

type Hash = [u8; 32];

/// The checksum of bytes in memory.
pub(super) fn checksum(bytes: &[u8]) -> Hash {
    let mut whole = blake3::Hasher::new();
    bytes.chunks(SEGMENT).for_each(|segment| _ = whole.update(blake3::hash(segment).as_bytes()));
    whole.finalize().into()
}

/// Fills `bytes` from the file at `path` from `offset` on, and tells their checksum.
pub(super) fn read_checked(path: &Path, offset: u64, bytes: &mut [u8]) -> io::Result<Hash> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = (bytes.len() / WORTH_A_THREAD).clamp(1, cores.min(MOST_THREADS));
    let share = bytes.len().div_ceil(SEGMENT).div_ceil(threads).max(1) * SEGMENT;
    let hashes: Vec<io::Result<Vec<Hash>>> = thread::scope(|scope| {
        let shares = bytes.chunks_mut(share).zip((offset..).step_by(share));
        let readers: Vec<_> =
            shares.map(|(share, offset)| scope.spawn(move || read_share(path, offset, share))).collect();
        readers.into_iter().map(|reader| reader.join().expect("reading does not panic")).collect()
    });
    let mut whole = blake3::Hasher::new();
    for hashes in hashes {
        hashes?.iter().for_each(|hash| _ = whole.update(hash));
    }
    Ok(whole.finalize().into())
}

fn read_share(path: &Path, offset: u64, share: &mut [u8]) -> io::Result<Vec<Hash>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let segments = share.chunks_mut(SEGMENT).map(|segment| {
        file.read_exact(segment)?;
        Ok(blake3::hash(segment).into())
    });
    segments.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_has_the_checksum_of_what_was_written() {
        let bytes: Vec<u8> = (0..3 * WORTH_A_THREAD + 5).map(|at| (at * 31 % 251) as u8).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        for len in [0, 1, SEGMENT, SEGMENT + 1, bytes.len() - 7] {
            std::fs::write(file.path(), &bytes[..7 + len]).unwrap();
            let mut read = vec![0; len];
            assert_eq!(read_checked(file.path(), 7, &mut read).unwrap(), checksum(&bytes[7..7 + len]));
            assert!(read == bytes[7..7 + len]);
            assert!(read_checked(file.path(), 8, &mut read).is_err() || len == 0);
        }
        assert_ne!(checksum(&bytes), checksum(&bytes[1..]));
    }
}
