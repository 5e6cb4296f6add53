//! ONNX's own tests of operators, as the planner's tests have them, on devices.

#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do
#![allow(dead_code, unreachable_pub)] // each test file uses its part

pub mod device;
#[path = "../../../planner/tests/nodes/mod.rs"]
mod planned;

pub use planned::*;
