//! ONNX's own tests of operators: `fixtures/onnx_nodes`, shared by the tests of the planner and of the devices.
//!
//! ```text
//!   cases.bin ─suite─▶ Case ─ready─▶ plan, weights, inputs ─▶ answers ─compare─▶ right, or what differs
//!   not_passing.txt ─ledger─▶ which cases stop, at which stage and why         it may only shrink
//! ```
//! `scripts/make-node-tests.py` writes the cases and says which they are.

#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do
#![allow(dead_code, unreachable_pub)] // each test file uses its part

pub mod compare;
pub mod ledger;
pub mod ready;
pub mod suite;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs one case; a panic is a failure of that case, not the end of the others.
pub fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panics: {}", said.or_else(|| panic.downcast_ref().copied()).unwrap_or("(no words)")))
    })
}
