//! The real server, end to end: a repository on disk, the registry, the engine, the CPU device and HTTP on free ports.
//!
//! What a caller may rely on is told here in whole sentences; `tests/http` has the wire alone, with less behind it, and
//! `tests/python` the clients that users have.

// What fails to be as it should, in a test or its helpers, is best told where it was.
#![allow(clippy::unwrap_used)]

#[path = "../client/mod.rs"]
mod client;

mod fixture;
mod served;
mod tensors;
mod weights;

mod answers;
mod classes;
mod devices;
mod engine;
mod events;
mod express;
mod minilm;
mod monitor;
mod partitions;
mod quotas;
mod refusing;
mod repository;
mod requests;
mod sizes;
mod standing;
mod stragglers;
