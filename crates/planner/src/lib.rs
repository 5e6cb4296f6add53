//! ONNX in; class, plans and packed weights out; and the reference that defines what every operator means.
//!
//! ```text
//!   file ─onnx→ Graph ─class→ Class ─plan→ Plan                 architecture: once per class and free dimensions
//!                        └──→ Model ─pack→ Packed               weights: once per tenant version
//! ```
//! Pure: no device, no threads, no time.

pub mod class;
pub mod describe;
pub mod element;
pub mod fold;
pub mod graph;
pub mod infer;
pub mod inspect;
pub mod integer;
pub mod interpret;
mod lower;
mod net;
pub mod npz;
pub mod onnx;
pub mod op;
mod operands;
pub mod pack;
pub mod pack_cache;
mod place;
pub mod plan;
pub mod reference;
pub mod resample;
mod rewrite;
mod segment;
mod shape;
pub mod source;
pub mod tensor;
mod text;
mod traffic;
mod types;
pub mod verify;
pub mod window;

pub use class::{Bound, Class, Model, ModelError};
pub use graph::Graph;
pub use lower::{PlanError, plan};
pub use onnx::{ImportError, import};
pub use op::Op;
pub use operands::{Read, Write};
pub use pack::{PackTarget, Packed, SlotLayout, WeightId};
pub use plan::Plan;
pub use tensor::Tensor;
pub use traffic::Traffic;
