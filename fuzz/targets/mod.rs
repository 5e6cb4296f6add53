//! What is fuzzed: one function per kind of bytes that come from outside. An input is refused or taken; none panics, hangs, or takes
//! more memory than its size explains.
//!
//! ```text
//!   model      an ONNX file       ─ import ─ class ─ pack ─ plan ─ interpret
//!   graph      a recipe of bytes  ─ a well-formed ONNX graph of random operators ─ the same road: it gets past the parser
//!   weights    a safetensors file ─ over a base ─ pack
//!   request    JSON, or JSON and binary tensors ─ decode ─ encode
//!   config     TOML ─ the server's settings, a tenant's file
//! ```
//! libFuzzer drives these in `fuzz/run`; an ordinary test replays the seeds with a few mutations.

mod config;
mod graph;
mod model;
mod request;
mod weights;

/// One kind of input.
pub(crate) struct Target {
    /// Its name, and that of its folder of seeds.
    pub(crate) name: &'static str,
    /// Takes any bytes.
    pub(crate) run: fn(&[u8]),
}

/// All of them.
pub(crate) const TARGETS: [Target; 5] = [
    Target { name: "model", run: model::run },
    Target { name: "graph", run: graph::run },
    Target { name: "weights", run: weights::run },
    Target { name: "request", run: request::run },
    Target { name: "config", run: config::run },
];
