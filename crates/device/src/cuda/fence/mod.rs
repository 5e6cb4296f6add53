//! CUDA's fence: the one place of this backend where `unsafe` may be said.
//!
//! Everything that calls the driver or the run-time compiler is here, as types that own what they name:
//!
//! ```text
//!   Context ─┬─ Share ─▶ Stream, Event      which multiprocessors, and order
//!            ├─ Memory, Pinned, Pieces      bytes, on the device (grows without moving) and on the host
//!            └─ Module ─▶ Function ─▶ Graph code, and a program's kernels captured as one thing to launch
//!   Compiler                                source to machine code
//!   Blas                                    the vendor's matrix products, for benches to stand beside
//! ```
//! Libraries are found when the process first asks for them; one that is missing is an error with the way out, never a panic (the
//! bindings panic when a missing library is called, so presence is asked first).
//!
//! Addresses leave the fence as numbers: they go into kernels' parameters. Whoever hands a launch an address keeps the memory alive until
//! the launch's signal was given; `program.rs` and `slab.rs` hold the owners for that long.

#![allow(unsafe_code)] // calls into the driver and the compiler, each with its duties

mod code;
mod context;
mod cublas;
mod memory;
mod nvrtc;
mod order;
mod pieces;
mod promptly;
mod share;

pub(crate) use code::{Function, Graph, Shape};
pub(crate) use context::{Context, CudaError};
pub(crate) use cublas::{Blas, Gemm};
pub(crate) use memory::{Block, Memory, Pinned};
pub(crate) use nvrtc::{Compiled, Compiler};
pub(crate) use order::{Event, Stream};
pub(crate) use pieces::{Piece, Pieces};
pub(crate) use promptly::wake_promptly;
pub(crate) use share::Share;
