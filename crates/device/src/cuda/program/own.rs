//! A program's own memory on the card: what every launch of it finds there.
//!
//! ```text
//!   table │ errors, one of each item │ count of launches │ words │ constants        each at a multiple of ALIGNMENT
//! ```

use super::ALIGNMENT;
use crate::cuda::fence::{Block, CudaError, Stream};
use crate::cuda::frame::error_bytes;
use crate::cuda::site::words_bytes;
use crate::cuda::table::TableLayout;
use std::sync::Arc;
use tessera_planner::Tensor;

/// It, and the addresses in it.
#[derive(Debug)]
pub(super) struct Own {
    memory: Block,
    pub(super) errors: u64,
    pub(super) launched: u64,
    pub(super) words: u64,
    pub(super) constants: Vec<u64>,
}

impl Own {
    /// With no launch counted yet, words that are zero, and the constants in place.
    pub(super) fn new(
        stream: &Arc<Stream>,
        table: &TableLayout,
        items: u32,
        multiprocessors: u32,
        constants: &[Tensor],
    ) -> Result<Own, CudaError> {
        let mut bytes = 0;
        let mut next = |length: usize| {
            let at = bytes;
            bytes += length.next_multiple_of(ALIGNMENT);
            at as u64
        };
        next(table.bytes);
        let (errors, launched) = (next(error_bytes(items)), next(size_of::<u64>()));
        let words = next(words_bytes(multiprocessors));
        let places: Vec<u64> = constants.iter().map(|constant| next(constant.bytes().len())).collect();
        let memory = Block::new(stream, bytes)?;
        let address = memory.address();
        let own = Own {
            memory,
            errors: address + errors,
            launched: address + launched,
            words: address + words,
            constants: places.iter().map(|place| address + place).collect(),
        };
        stream.zero(own.launched, size_of::<u64>())?;
        stream.zero(own.words, words_bytes(multiprocessors))?;
        for (constant, &at) in constants.iter().zip(&own.constants) {
            stream.upload(constant.bytes(), at)?;
        }
        Ok(own)
    }

    /// Where the table lies.
    pub(super) fn table(&self) -> u64 {
        self.memory.address()
    }
}
