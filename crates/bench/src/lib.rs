//! The model zoo, workloads, the load generator and the demo.
//!
//! [`zoo`] makes models, [`arrivals`] says when requests come, [`load`] sends them, over HTTP or in process, and [`latency`] says what people ask of the
//! answers; [`demo`] puts them together, and [`simulate`] does without a device. In process, [`tenants`] measures whole models under every policy, [`launches`] asks what starting one costs the host, [`beside`] what one costs another, and [`figures`] repeats the paper's on a card.

pub mod arrivals;
pub mod beside;
pub mod client;
pub mod demo;
pub mod figures;
pub mod latency;
pub mod launches;
pub mod load;
pub mod load_test;
pub mod onnx_writer;
mod page;
pub mod simulate;
pub mod spread;
pub mod tenants;
mod thread_time;
mod yard;
pub mod zoo;
