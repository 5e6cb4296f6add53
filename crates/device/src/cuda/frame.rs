//! What stands around the kernels of every launch, so that starting one is a single call of the driver, and its end is heard without one.
//!
//! ```text
//!   host    tables [a place for each launch under way]               signal  began, ended
//!                 │ fetched                                                    ▲ told
//!   graph   launch_begin ─▶ ingest, steps, egress ─▶ launch_end ───────────────┘
//! ```
//! Copying the table ahead of the graph, and marking both ends of it with events, were three calls more. An H100's host, µs for each (2026-11-26): a graph of five kernels
//! 1.3, of thirty 1.3; a copy to the card 1.4, within the card 4.4; an event with its time 1.3, without 0.2; a value written behind a copy 1.2. The four
//! calls together 6.5, a graph with these two kernels around it 2 with all that is said between threads.

use super::abi::{ItemError, LaunchParams};
use super::call::{KernelCall, KernelSpec, params};
use super::fence::{Context, CudaError, Pinned};
use super::partition::UNDER_WAY;
use super::table::TableLayout;
use bytemuck::{Pod, Zeroable};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct BeginParams {
    launch: LaunchParams,
    tables: u64,
    launched: u64,
    table_bytes: u32,
    place_bytes: u32,
    places: u32,
    errors: u32,
}
params!(BeginParams);

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct EndParams {
    launch: LaunchParams,
    began: u64,
    kernels: u32,
    fails: u32,
}
params!(EndParams);

/// Threads of either kernel: a table is fetched by one block.
const THREADS: u32 = 256;

/// Where the tables of a program's launches wait for the card, each in a place of its own.
#[derive(Debug)]
pub(crate) struct Tables {
    places: Pinned,
    table_bytes: usize,
    place_bytes: usize,
    /// Launches whose tables were written, as the card counts those that it fetched.
    launched: u64,
}

impl Tables {
    /// For tables of this layout, with as many places as launches may be under way: when a place's turn comes again, its launch is over.
    pub(crate) fn new(context: &Arc<Context>, layout: &TableLayout) -> Result<Tables, CudaError> {
        // Whole lines of a cache, so that no place shares one with its neighbour.
        let place_bytes = layout.bytes.next_multiple_of(128);
        let places = Pinned::new(context, UNDER_WAY * place_bytes)?;
        Ok(Tables { places, table_bytes: layout.bytes, place_bytes, launched: 0 })
    }

    /// The place of the next launch's table, which is to be written: another's lies there. Every launch of the program takes one, in the order in which they are
    /// launched. A launch that took one and does not start leaves the two counts apart, so its card is given up.
    pub(crate) fn next(&mut self) -> &mut [u8] {
        let start = place(self.launched) * self.place_bytes;
        self.launched += 1;
        &mut self.places.bytes_mut()[start..start + self.table_bytes]
    }

    /// The kernel that fetches the next table, given what kernels are told of it, and the address of its count, which begins at zero. It zeroes the errors of
    /// so many items.
    pub(crate) fn begin(&self, launch: LaunchParams, launched: u64, errors: u32) -> KernelCall {
        let params = BeginParams {
            launch,
            tables: self.places.address(),
            launched,
            table_bytes: self.table_bytes as u32,
            place_bytes: self.place_bytes as u32,
            places: UNDER_WAY as u32,
            errors,
        };
        begin(&params)
    }
}

fn begin(params: &BeginParams) -> KernelCall {
    KernelCall::new(KernelSpec::new("launch_begin.cu"), params, [1; 3], THREADS)
}

/// Which place launch number `launched` has.
fn place(launched: u64) -> usize {
    (launched % UNDER_WAY as u64) as usize
}

/// The kernel that tells how a launch went: which items failed, if any can, and, of a sampled one, when its `kernels` began, from `began` on.
pub(crate) fn end(launch: LaunchParams, began: u64, kernels: usize, fails: bool) -> KernelCall {
    let params = EndParams { launch, began, kernels: kernels as u32, fails: u32::from(fails) };
    KernelCall::new(KernelSpec::new("launch_end.cu"), &params, [1; 3], THREADS)
}

/// Bytes in which the errors of so many items are told.
pub(crate) fn error_bytes(items: u32) -> usize {
    items as usize * size_of::<ItemError>()
}

/// Both kernels, for no launch in particular.
#[cfg(test)]
pub(crate) fn calls() -> [KernelCall; 2] {
    [begin(&BeginParams::zeroed()), end(LaunchParams::zeroed(), 0, 0, false)]
}
