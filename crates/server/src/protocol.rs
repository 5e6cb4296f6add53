//! The Open Inference Protocol v2 as bytes: JSON, and Triton's binary tensor extension.
//!
//! ```text
//! Inference-Header-Content-Length: 180          no such header: the whole body is JSON
//! ┌─────────── 180 bytes ───────────┬────────────────┬────────┐
//! │ {"inputs":[{"name":…}, …], …}   │ tensor x       │ mask   │   raw tensors in the order of their names in JSON,
//! └─────────────────────────────────┴────────────────┴────────┘   little endian, each `binary_data_size` long
//! ```
//!
//! A header of 0 means that the body is the one input of a model, and nothing else. Answers have the same form.
//! Whoever sent bytes that do not add up hears it from here: [`decode`] gives a request whose tensors are exactly
//! as long as their own shape and datatype say. What the model thinks of them is not known here.
//!
//! What we chose where the protocol leaves a choice:
//! - Numbers in JSON are read straight into the declared datatype, correctly rounded; a number that the datatype
//!   cannot hold (`300` as UINT8, `1.5` as INT64, `1e40` as FP32) is an error, never a wrapped or infinite value.
//! - FP16 and BF16 may be written as JSON numbers. JSON has no NaN or infinity: sent, they are a syntax error;
//!   in an answer they are an error that asks for binary output, since `null` would be read as zero by some.
//! - Nested and flat `data` are alike: the shape decides, the count must agree.
//! - BYTES, shared memory, classification and sequences are refused by name.
//! - How long an answer may take can be said twice, both in microseconds and 0 for no limit: by the parameter `timeout`, and by the
//!   header `Inference-Timeout-Us`, which also serves a body that has no JSON and a proxy that does not read bodies. The shorter one
//!   counts: who forwards a request can tighten what its sender allowed, never loosen it.

mod decimal;
mod numbers;
mod parameters;
mod request;
mod response;

pub(crate) use parameters::Object;
pub use request::{Decoded, Wanted, decode};
pub use response::{Encoded, encode};

/// The request and response header that says where JSON ends and tensors begin.
pub const JSON_LENGTH_HEADER: &str = "inference-header-content-length";

/// The request header that says how long the answer may take, in microseconds; 0 is no limit.
pub const TIMEOUT_HEADER: &str = "inference-timeout-us";
