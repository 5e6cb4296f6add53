//! The model zoo, workloads, the load generator, the demo, the simulator and the benches.
//!
//! ```text
//!   zoo ─ models ──────────┐
//!   arrivals ─ when ───────┼▶ load ─ over HTTP or in process ─▶ load_test, demo
//!                          └▶ simulate ─ in virtual time ──────▶ the same columns
//! ```
//! In process, [`tenants`] measures whole models under every policy, [`launches`] what starting one costs the host, [`beside`] what one costs another;
//! [`figures`] repeats the paper's figures and goes beyond them, each with its claim. [`latency`] says what people ask of answers, [`spread`] how far rounds
//! are apart; [`client`] speaks HTTP, and [`onnx_writer`] writes what the zoo makes.

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
