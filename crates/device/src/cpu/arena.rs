//! A worker's arena: the intermediate values of the items it works on.
//!
//! ```text
//!   [buffer a, item 0][item 1]… | [buffer b, item 0][item 1]… | …        buffer starts at capacity · offset
//! ```
//! Buffers begin with lines of the cache, so that no vector of 64 bytes lies in two of them.
//!
//! Buffers that live at different times share bytes (the planner placed them), so a step borrows the arena in two: the
//! buffers that it writes, and everything else to read from. The borrow checker then keeps what a plan promises.

use bytemuck::{Pod, Zeroable};
use std::ops::Range;
use tessera_planner::Plan;
use tessera_planner::plan::BufferId;

/// Memory for the buffers of a plan, for some items at a time. Grows to the largest plan it has served.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    lines: Vec<Line>,
}

/// A line of the cache.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u64; WORDS]);

const WORD: usize = 8;
/// Words of a line.
const WORDS: usize = 8;

/// Where the buffers of one plan lie for a number of items.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) items: usize,
}

impl Placed<'_> {
    /// Words of a buffer, all items. Offsets are multiples of 64 bytes, so these are whole.
    fn words(&self, id: BufferId) -> Range<usize> {
        let buffer = self.plan.buffer(id);
        let start = self.items * buffer.offset / WORD;
        start..start + (self.items * buffer.elements * buffer.dtype.size()).div_ceil(WORD)
    }
}

impl Arena {
    /// Makes room for `items` items of a plan.
    pub(crate) fn reserve(&mut self, placed: Placed<'_>) {
        let lines = (placed.items * placed.plan.arena_per_item.0 as usize).div_ceil(WORD * WORDS);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line::zeroed());
        }
    }

    /// Bytes it holds.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.lines.as_slice())
    }

    /// Borrows the arena for a step that writes `outs` (distinct, not overlapping): what can be read, and one slice of words for each of `outs`,
    /// in their order.
    pub(crate) fn split<'a, const N: usize>(
        &'a mut self,
        placed: Placed<'a>,
        outs: [BufferId; N],
    ) -> (Readable<'a>, [&'a mut [u64]; N]) {
        let mut order: [usize; N] = std::array::from_fn(|i| i);
        order.sort_by_key(|&i| placed.words(outs[i]).start);
        let mut writable: [&mut [u64]; N] = std::array::from_fn(|_| Default::default());
        let mut pieces = Vec::with_capacity(N + 1);
        let mut rest: &mut [u64] = bytemuck::cast_slice_mut(&mut self.lines);
        let mut at = 0;
        for i in order {
            let words = placed.words(outs[i]);
            let (before, from) = rest.split_at_mut(words.start - at);
            let (out, after) = from.split_at_mut(words.len());
            pieces.push((at, &*before));
            writable[i] = out;
            (rest, at) = (after, words.end);
        }
        pieces.push((at, &*rest));
        (Readable { placed, pieces }, writable)
    }

    /// The words of one buffer, to be filled or read as a whole.
    pub(crate) fn buffer(&mut self, placed: Placed<'_>, id: BufferId) -> &mut [u64] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[placed.words(id)]
    }
}

/// What a step may read: the arena without the buffers that it writes.
#[derive(Debug)]
pub(crate) struct Readable<'a> {
    placed: Placed<'a>,
    /// Word offset in the arena, and the words from there.
    pieces: Vec<(usize, &'a [u64])>,
}

impl<'a> Readable<'a> {
    /// The words of a buffer, all items.
    pub(crate) fn words(&self, id: BufferId) -> &'a [u64] {
        let words = self.placed.words(id);
        let piece = self.pieces.iter().rev().find(|(start, _)| *start <= words.start);
        let (start, piece) = piece.expect("the first piece starts at zero");
        // A plan that reads what it writes was refused by the planner's verification.
        &piece[words.start - start..words.end - start]
    }
}
