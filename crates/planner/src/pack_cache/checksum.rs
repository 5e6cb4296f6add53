//! The checksum of an entry: a hash of the checksums of its segments, so that several cores can read and check one entry.
//!
//! A segment's is a CRC, which tells every burst of damage up to 32 bits and all but one in four billion of the rest, at the speed of the cache that
//! the segment was just read into. It guards against disks, not against people: who can write into the folder can write a model, too.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::iter;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Read and summed up at a time: it stays in a core's second cache in between.
const SEGMENT: usize = 256 << 10;
/// More would wait for memory.
const MOST_THREADS: usize = 4;
/// Bytes for which another thread is worth being started.
const WORTH_A_THREAD: usize = 8 << 20;

type Hash = [u8; 32];

/// Writes `bytes`, and tells their checksum.
pub(super) fn write_checked(to: &mut impl Write, bytes: &[u8]) -> io::Result<Hash> {
    let mut whole = blake3::Hasher::new();
    for segment in bytes.chunks(SEGMENT) {
        to.write_all(segment)?;
        whole.update(&crc32fast::hash(segment).to_le_bytes());
    }
    Ok(whole.finalize().into())
}

/// Fills `bytes` from the file at `path` from `offset` on, and tells their checksum.
pub(super) fn read_checked(path: &Path, offset: u64, bytes: &mut [u8]) -> io::Result<Hash> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = (bytes.len() / WORTH_A_THREAD).clamp(1, cores.min(MOST_THREADS));
    let share = bytes.len().div_ceil(SEGMENT).div_ceil(threads).max(1) * SEGMENT;
    let shares = Mutex::new(bytes.chunks_mut(share).zip((offset..).step_by(share)).enumerate());
    let read = || {
        let mine = iter::from_fn(|| shares.lock().unwrap_or_else(PoisonError::into_inner).next());
        mine.map(|(number, (share, offset))| (number, read_share(path, offset, share))).collect()
    };
    let mut sums: Vec<(usize, io::Result<Vec<u32>>)> = thread::scope(|scope| {
        // A helper that the system refuses is done without.
        let helpers: Vec<_> =
            (1..threads).filter_map(|_| thread::Builder::new().spawn_scoped(scope, read).ok()).collect();
        let own: Vec<_> = read();
        let others = helpers.into_iter().map(|helper| helper.join().expect("reading does not panic"));
        others.fold(own, |mut all, read| {
            all.extend(read);
            all
        })
    });
    sums.sort_unstable_by_key(|(number, _)| *number);
    let mut whole = blake3::Hasher::new();
    for (_, sums) in sums {
        sums?.iter().for_each(|sum| _ = whole.update(&sum.to_le_bytes()));
    }
    Ok(whole.finalize().into())
}

fn read_share(path: &Path, offset: u64, share: &mut [u8]) -> io::Result<Vec<u32>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let segments = share.chunks_mut(SEGMENT).map(|segment| {
        file.read_exact(segment)?;
        Ok(crc32fast::hash(segment))
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
        let checksum = |bytes: &[u8]| write_checked(&mut io::sink(), bytes).unwrap();
        for len in [0, 1, SEGMENT, SEGMENT + 1, bytes.len() - 7] {
            std::fs::write(file.path(), &bytes[..7 + len]).unwrap();
            let mut read = vec![0; len];
            assert_eq!(read_checked(file.path(), 7, &mut read).unwrap(), checksum(&bytes[7..7 + len]));
            assert!(read == bytes[7..7 + len]);
            let mut written = Vec::new();
            write_checked(&mut written, &read).unwrap();
            assert!(written == read);
            assert!(read_checked(file.path(), 8, &mut read).is_err() || len == 0);
        }
        assert_ne!(checksum(&bytes), checksum(&bytes[1..]));
    }
}
