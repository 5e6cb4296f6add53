//! Rows by number, with the bounds check that keeps a request inside its own model.

use super::{Bench, Reads};
use crate::RequestError;
use tessera_core::DType;
use tessera_planner::plan::{Operand, StepKind};

pub(super) fn gather(bench: &mut Bench<'_>, kind: &StepKind) {
    let StepKind::Gather { table, ids, outer, rows, row, count, what, out } = kind else { return };
    let items = bench.items;
    let (reads, [out], _, failures) = bench.open([*out]);
    let row_bytes = row * reads.dtype(*table).size();
    let out: &mut [u8] = bytemuck::cast_slice_mut(out);
    let table_elements = outer * rows * row;
    let table = reads.source::<u8>(*table);
    // Bytes of one item: an item of a buffer, or everything when all items see the same.
    let table_bytes = if table.per_item() == 0 { 0 } else { outer * rows * row_bytes };
    debug_assert!(table.per_item() == 0 || table.per_item() == table_elements);
    for item in 0..items {
        let table = &table.whole()[item * table_bytes..];
        for position in 0..*count {
            let id = id(&reads, *ids, item, position);
            let number = in_range(id, *rows).unwrap_or_else(|| {
                let error = RequestError::IdOutOfRange { input: what.clone(), id, position, rows: *rows };
                failures.push((item, error));
                0 // the item's answer is thrown away; what it computes meanwhile stays inside its own model
            });
            for o in 0..*outer {
                let from = (o * rows + number) * row_bytes;
                let to = ((item * outer + o) * count + position) * row_bytes;
                out[to..to + row_bytes].copy_from_slice(&table[from..from + row_bytes]);
            }
        }
    }
}

/// One of an item's ids, which are i32 or i64.
pub(super) fn id(reads: &Reads<'_>, ids: Operand, item: usize, position: usize) -> i64 {
    match reads.dtype(ids) {
        DType::I32 => i64::from(reads.source::<i32>(ids).at(item)[position]),
        _ => reads.source::<i64>(ids).at(item)[position],
    }
}

/// The row that an id means; negative ids count from the end.
pub(super) fn in_range(id: i64, rows: usize) -> Option<usize> {
    let counted = if id < 0 { id.checked_add(i64::try_from(rows).ok()?)? } else { id };
    usize::try_from(counted).ok().filter(|number| *number < rows)
}
