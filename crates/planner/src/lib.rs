//! ONNX in; class, plans and packed weights out; and the reference that defines what every operator means.
//!
//! ```text
//!   file ─onnx→ Graph ─class→ Class ─plan→ Plan                 architecture: once per class and free dimensions
//!                        └──→ Model ─pack→ Packed               weights: once per tenant version
//! ```
//! Pure but for files: no device, no time, and threads only where they shorten packing and cached packs; no answer depends on how many.

// From a file to a graph, or to arrays.
pub mod graph;
pub mod npz;
pub mod onnx;
pub mod op;
pub mod source;
pub mod tensor;

// What operators mean, and what follows from that for shapes and types.
pub mod infer;
pub mod integer;
pub mod reference;
pub mod resample;
mod shape;
mod types;
pub mod window;

// What tenants of one architecture share.
pub mod class;
pub mod fold;

// From a class to a plan, and what the plan means.
pub mod element;
pub mod interpret;
mod lower;
mod net;
mod operands;
mod place;
pub mod plan;
mod rewrite;
mod segment;
mod traffic;
pub mod verify;

// A tenant's weights, as a plan reads them.
pub mod pack;
pub mod pack_cache;

// For people.
pub mod describe;
pub mod inspect;
mod text;

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
