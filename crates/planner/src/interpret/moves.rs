//! Steps that move elements without computing.

use super::RequestError;
use super::memory::{Memory, walk};
use crate::plan::{Operand, StepKind};
use tessera_core::DType;

pub(super) fn gather(memory: &mut Memory<'_>, kind: &StepKind) -> Result<(), RequestError> {
    let StepKind::Gather { table, ids, outer, rows, row, count, what, out } = kind else {
        unreachable!("called for its own kind")
    };
    let ids: Vec<i64> = match memory.dtype(*ids) {
        DType::I32 => memory.elements::<i32>(*ids).into_iter().map(i64::from).collect(),
        _ => memory.elements::<i64>(*ids),
    };
    let signed_rows = i64::try_from(*rows).expect("a verified table fits memory");
    let mut numbers = Vec::with_capacity(*count);
    for &id in &ids[..*count] {
        if id < -signed_rows || id >= signed_rows {
            return Err(RequestError::IdOutOfRange { what: what.clone(), id, rows: *rows });
        }
        numbers.push(usize::try_from(id.rem_euclid(signed_rows)).expect("just brought into range"));
    }
    let row_bytes = row * memory.dtype(*table).size();
    let bytes = memory.bytes(*table);
    let mut written = Vec::with_capacity(outer * count * row_bytes);
    for o in 0..*outer {
        for number in &numbers {
            written.extend_from_slice(&bytes[(o * rows + number) * row_bytes..][..row_bytes]);
        }
    }
    memory.put(Operand::Buffer(*out), &written);
    Ok(())
}

pub(super) fn copy(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::Copy { dims, x, out, out_offset, out_strides } = kind else {
        unreachable!("called for its own kind")
    };
    let size = memory.dtype(x.operand).size();
    let bytes = memory.bytes(x.operand).to_vec();
    let target = memory.buffer_mut(*out);
    let out_strides: Vec<isize> =
        out_strides.iter().map(|&s| isize::try_from(s).expect("a verified stride fits memory")).collect();
    for (from, to) in walk(x.offset, &x.strides, dims).zip(walk(*out_offset, &out_strides, dims)) {
        target[to * size..][..size].copy_from_slice(&bytes[from * size..][..size]);
    }
}

pub(super) fn fill(memory: &mut Memory<'_>, kind: &StepKind) {
    let StepKind::Fill { value, out } = kind else { unreachable!("called for its own kind") };
    let one = value.bytes().to_vec();
    memory.buffer_mut(*out).chunks_exact_mut(one.len()).for_each(|element| element.copy_from_slice(&one));
}
