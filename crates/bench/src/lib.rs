//! The model zoo, workloads, the load generator and the demo.
//!
//! [`zoo`] makes models, [`load`] sends requests to them, [`latency`] says what people ask of the answers; [`demo`] puts them
//! together.

pub mod client;
pub mod demo;
pub mod latency;
pub mod load;
pub mod onnx_writer;
pub mod zoo;
