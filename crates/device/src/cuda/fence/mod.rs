//! CUDA's fence: the one place of this backend where `unsafe` may be said.
//!
//! Everything that calls the driver or the run-time compiler is here, as types that own what they name: a stream, an event, memory,
//! a module, a graph. Libraries are found when the process first asks for them; one that is missing is an error with the way out,
//! never a panic (the bindings panic when a missing library is called, so presence is asked first).

#![allow(unsafe_code)] // calls into the driver and the compiler, each with its duties

mod nvrtc;

pub(crate) use nvrtc::{Compiled, Compiler};
