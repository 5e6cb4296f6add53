//! How many elements a kernel may move at once: see `kernels/vector.cuh`.

use crate::cuda::abi::OperandParams;

/// The largest power of two, up to `limit` (itself one), that divides every count.
pub(super) fn width(limit: usize, counts: impl IntoIterator<Item = usize>) -> usize {
    let all = counts.into_iter().fold(limit, |all, count| all | count);
    1 << all.trailing_zeros()
}

/// What the width divides when an operand of elements of so many bytes is moved in packs: where it begins and the length of an item.
pub(super) fn placement(operand: &OperandParams, size: usize) -> usize {
    (operand.base | operand.item_bytes) as usize / size
}

/// Elements of so many bytes in the widest instruction.
pub(super) fn widest(size: usize) -> usize {
    (16 / size).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_width_divides_everything_it_is_asked_to() {
        assert_eq!(width(8, [24, 48]), 8);
        assert_eq!(width(8, [24, 12, 0]), 4);
        assert_eq!(width(4, [35]), 1);
        assert_eq!(width(8, []), 8);
    }
}
