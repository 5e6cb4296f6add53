//! Where elements lie in [`Layout::Blocks`](crate::pack::Layout::Blocks): a place is a sum of what its column and its row contribute.

use crate::pack::{BLOCK_COLUMNS, BLOCK_ROW_BYTES};

/// Places of elements of `SIZE` bytes.
pub(super) struct Blocks<const SIZE: usize> {
    /// Elements of all blocks of one column of blocks.
    stride: usize,
}

impl<const SIZE: usize> Blocks<SIZE> {
    const DEPTH: usize = BLOCK_ROW_BYTES / SIZE;
    /// A row of 128 bytes is eight chunks of 16.
    const CHUNK: usize = 16 / SIZE;

    pub(super) fn of(k: usize) -> Self {
        Blocks { stride: k.div_ceil(Self::DEPTH) * BLOCK_COLUMNS * Self::DEPTH }
    }

    /// Where a column begins, after so many columns of blocks.
    pub(super) fn column(&self, blocks: usize, column: usize) -> usize {
        (blocks + column / BLOCK_COLUMNS) * self.stride + column % BLOCK_COLUMNS * Self::DEPTH
    }

    /// How far a row lies from where its column begins.
    pub(super) fn row(row: usize, column: usize) -> usize {
        let chunk = row % Self::DEPTH / Self::CHUNK;
        row / Self::DEPTH * BLOCK_COLUMNS * Self::DEPTH
            + (chunk ^ (column & 7)) * Self::CHUNK
            + row % Self::CHUNK
    }
}
