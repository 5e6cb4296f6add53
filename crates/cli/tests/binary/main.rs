//! The `tessera` binary as its users run it: a process with signals, ports and memory of its own.

// What fails to be as it should, in a test or its helpers, is best told where it was.
#![allow(clippy::unwrap_used)]

#[path = "../../../server/tests/client/mod.rs"]
mod client;

mod models;
mod process;

mod operating;
mod soak;
#[cfg(unix)]
mod terminate;
mod threads;
