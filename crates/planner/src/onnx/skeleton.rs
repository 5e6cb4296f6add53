//! A model's file without its large weights: what is decoded, while the weights stay where they are until they are packed.
//!
//! ```text
//!   file       │ model │ … graph │ node … │ initializer: name, dims, raw ████████ │ …
//!   skeleton   │ model │ … graph │ node … │ initializer: name, dims               │ …     raw of initializer 0: bytes 8192..2097152
//! ```
//! A ResNet-152 has 240 MB of weights around 1 MB of everything else, so its file is looked at for some milliseconds here, and its weights cross
//! memory once, later. Lengths of messages are rewritten to what is left. What is malformed, or written as no exporter does, is left to the
//! decoder, which is given the file whole.

use crate::source::{Opened, SourceError, Stamp, read_range};
use prost::bytes::Bytes;
use prost::encoding::encode_varint;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

/// Raw data that is left out is as long as this or longer: less is sooner copied than looked for again.
const LARGE: u64 = 16 << 10;
/// What is read of the file at a time.
const WINDOW: usize = 16 << 10;

/// Bytes that a message's length takes, which is known when the message is written.
const LENGTH: usize = 5;

/// What is decoded, and what was left out of it.
#[derive(Debug)]
pub(super) struct Skeleton {
    /// A model as protobuf.
    pub(super) bytes: Bytes,
    /// Where the raw data of initializers is, by their number in the graph.
    pub(super) left_out: HashMap<usize, Range<u64>>,
}

/// The skeleton of the file at `path`, which must be in the state `stamp`.
pub(super) fn read(path: &Path, stamp: &Stamp) -> Result<Skeleton, SourceError> {
    let mut walk = Walk {
        file: Opened::at(path, stamp, 0, stamp.len)?,
        len: stamp.len,
        window: Vec::new(),
        begin: 0,
        initializers: 0,
        left_out: HashMap::new(),
    };
    let mut bytes = Vec::new();
    match walk.message(0..stamp.len, Kind::Model, &mut bytes) {
        Ok(()) => {
            walk.file.finish()?;
            Ok(Skeleton { bytes: bytes.into(), left_out: walk.left_out })
        }
        Err(Stop::Unusual) => {
            Ok(Skeleton { bytes: read_range(path, stamp, 0, stamp.len)?, left_out: HashMap::new() })
        }
        Err(Stop::Source(error)) => Err(error),
    }
}

/// The messages that are looked into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Graph,
    Initializer,
}

impl Kind {
    /// The kind of message in field `number`, if it is looked into.
    fn inside(self, number: u64) -> Option<Kind> {
        match (self, number) {
            (Kind::Model, 7) => Some(Kind::Graph),
            (Kind::Graph, 5) => Some(Kind::Initializer),
            _ => None,
        }
    }
}

/// The field of a tensor that holds its elements as they are.
const RAW_DATA: u64 = 9;

/// Why a walk ends early.
enum Stop {
    /// The bytes are not what exporters write.
    Unusual,
    /// The file cannot be read.
    Source(SourceError),
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Stop {
        Stop::Source(error)
    }
}

/// A number in as many bytes as there is room for, the last of which may be zeros.
fn padded(number: usize) -> Option<[u8; LENGTH]> {
    let mut bytes: [u8; LENGTH] = std::array::from_fn(|at| (number >> (7 * at)) as u8 | 0x80);
    bytes[LENGTH - 1] &= 0x7f;
    (number >> (7 * LENGTH) == 0).then_some(bytes)
}

/// A walk over the wire format of a file.
struct Walk<'a> {
    file: Opened<'a>,
    len: u64,
    /// Bytes of the file from `begin` on.
    window: Vec<u8>,
    begin: u64,
    initializers: usize,
    left_out: HashMap<usize, Range<u64>>,
}

impl Walk<'_> {
    /// Appends the message at `range` to `to`, without large raw data.
    fn message(&mut self, range: Range<u64>, kind: Kind, to: &mut Vec<u8>) -> Result<(), Stop> {
        let mut at = range.start;
        let mut raws = 0;
        while at < range.end {
            let key = self.varint(&mut at)?;
            encode_varint(key, to);
            let (number, wire) = (key >> 3, key & 7);
            let len = match wire {
                0 => {
                    let value = self.varint(&mut at)?;
                    encode_varint(value, to);
                    continue;
                }
                1 => 8,
                2 => self.varint(&mut at)?,
                5 => 4,
                _ => return Err(Stop::Unusual),
            };
            let field = at..at.checked_add(len).filter(|&end| end <= range.end).ok_or(Stop::Unusual)?;
            at = field.end;
            if wire != 2 {
                self.copy(field, to)?;
                continue;
            }
            if let Some(inside) = kind.inside(number) {
                let at = to.len();
                to.extend_from_slice(&[0; LENGTH]);
                self.message(field, inside, to)?;
                self.initializers += usize::from(inside == Kind::Initializer);
                let length = padded(to.len() - at - LENGTH).ok_or(Stop::Unusual)?;
                to[at..][..LENGTH].copy_from_slice(&length);
                continue;
            }
            if (kind, number) == (Kind::Initializer, RAW_DATA) {
                raws += 1;
                if raws > 1 {
                    return Err(Stop::Unusual); // the last one counts, and it may be a small one
                }
                if len >= LARGE {
                    // The key that was written is taken back.
                    to.truncate(to.len() - prost::encoding::encoded_len_varint(key));
                    self.left_out.insert(self.initializers, field);
                    continue;
                }
            }
            encode_varint(len, to);
            self.copy(field, to)?;
        }
        if at == range.end { Ok(()) } else { Err(Stop::Unusual) }
    }

    fn varint(&mut self, at: &mut u64) -> Result<u64, Stop> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.bytes(*at, 1)?[0];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Stop::Unusual)
    }

    fn copy(&mut self, range: Range<u64>, to: &mut Vec<u8>) -> Result<(), Stop> {
        let mut at = range.start;
        while at < range.end {
            let most = usize::try_from(range.end - at).map_or(WINDOW, |left| left.min(WINDOW));
            let bytes = self.bytes(at, most)?;
            to.extend_from_slice(bytes);
            at += bytes.len() as u64;
        }
        Ok(())
    }

    /// At least one and at most `most` bytes at `at`.
    fn bytes(&mut self, at: u64, most: usize) -> Result<&[u8], Stop> {
        let inside = |begin: u64, len: usize| (begin..begin + len as u64).contains(&at);
        if !inside(self.begin, self.window.len()) {
            let left = self.len.checked_sub(at).filter(|&left| left > 0).ok_or(Stop::Unusual)?;
            self.window.resize(usize::try_from(left).map_or(WINDOW, |left| left.min(WINDOW)), 0);
            self.file.seek(at)?;
            self.file.fill(&mut self.window)?;
            self.begin = at;
        }
        let from = (at - self.begin) as usize;
        Ok(&self.window[from..self.window.len().min(from + most)])
    }
}
