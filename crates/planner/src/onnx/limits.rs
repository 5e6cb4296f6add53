//! How much memory a file's messages would take, before any of it is taken.
//!
//! Two bytes of protobuf can say "one more attribute", which takes hundreds in memory: a few megabytes from outside could exhaust the
//! host. The wire format is therefore walked once, without allocating, and what decoding would allocate is added up.
//! Raw data costs nothing here, because it is sliced from the file's buffer. What is malformed is left for the decoder to refuse.

use crate::onnx::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};
use std::mem::size_of;

/// Real models stay far below: 100,000 nodes with four attributes each take 0.4 GB, and their file has 15 MB.
const BASE: u64 = 256 << 20;
const PER_BYTE: u64 = 16;

/// Bytes that decoding `file` may take.
pub(crate) fn allowed(file: &[u8]) -> u64 {
    BASE + PER_BYTE * file.len() as u64
}

/// Bytes that decoding `file`, a model, would take at most, about.
pub(crate) fn estimate(file: &[u8]) -> u64 {
    let mut total = 0;
    walk(file, Kind::Model, 0, &mut total);
    total
}

/// The messages that models consist of; the others are charged by their length.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
}

/// What a field of a message is.
enum Field {
    Message(Kind),
    /// A name, or bytes that are sliced.
    Text,
    /// Many small numbers, one byte each at least.
    Numbers,
    /// A message of small messages.
    Other,
}

fn field(of: Kind, number: u64) -> Field {
    match (of, number) {
        (Kind::Model, 7) | (Kind::Attribute, 6 | 11) => Field::Message(Kind::Graph),
        (Kind::Graph, 1) => Field::Message(Kind::Node),
        (Kind::Node, 5) => Field::Message(Kind::Attribute),
        (Kind::Graph, 5) | (Kind::Attribute, 5 | 10) => Field::Message(Kind::Tensor),
        (Kind::Model, 2..=4 | 6) | (Kind::Graph, 2 | 10) | (Kind::Node, 1..=4 | 6..=8) => Field::Text,
        (Kind::Attribute, 1 | 4 | 9 | 13 | 21) | (Kind::Tensor, 6 | 8 | 9 | 12) => Field::Text,
        (Kind::Attribute, 7 | 8) | (Kind::Tensor, 1 | 4 | 5 | 7 | 10 | 11) => Field::Numbers,
        // Functions and training are charged as the rest: they hold nodes, but few models have any.
        _ => Field::Other,
    }
}

/// A vector's element, with the slack of its growth.
const WORD: u64 = 16;

fn walk(mut bytes: &[u8], kind: Kind, depth: usize, total: &mut u64) {
    // The decoder gives up at a hundred.
    if depth > 100 {
        return;
    }
    let message = match kind {
        Kind::Model => 0,
        Kind::Graph => size_of::<GraphProto>(),
        Kind::Node => size_of::<NodeProto>(),
        Kind::Attribute => size_of::<AttributeProto>(),
        Kind::Tensor => size_of::<TensorProto>(),
    };
    *total += message as u64;
    while let Some(key) = varint(&mut bytes) {
        let skip = match key & 7 {
            0 => {
                *total += WORD;
                varint(&mut bytes).map(|_| 0)
            }
            1 => Some(8),
            2 => varint(&mut bytes),
            5 => Some(4),
            _ => None,
        };
        let Some((inside, rest)) = skip.and_then(|skip| bytes.split_at_checked(usize::try_from(skip).ok()?))
        else {
            return;
        };
        bytes = rest;
        if key & 7 != 2 {
            *total += WORD;
            continue;
        }
        match field(kind, key >> 3) {
            Field::Message(kind) => walk(inside, kind, depth + 1, total),
            Field::Text => *total += 2 * WORD,
            Field::Numbers => *total += 8 * inside.len() as u64,
            Field::Other => *total += 256 + 24 * inside.len() as u64,
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
