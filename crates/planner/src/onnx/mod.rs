//! From an ONNX file to a [`Graph`](crate::Graph).
//!
//! ```text
//!   file ─skeleton→ bytes ─proto→ ModelProto ─import→ live nodes in order ─table→ Op, one spelling for all opsets
//!                                └─data, external→ Param: literals read, weights only pointed at
//! ```
//! A file comes from outside and may be anything: every mistake in it is an [`ImportError`] that names the place, and operators that
//! we lack are listed all at once.

mod attention;
mod attributes;
mod convert;
mod data;
mod einsum;
mod elements;
pub(crate) mod error;
mod external;
pub mod import;
#[allow(missing_docs)] // the messages are documented in onnx.proto
#[allow(clippy::all, unreachable_pub)] // prost's style, not ours
#[rustfmt::skip] // kept as it was generated
pub mod proto;
mod limits;
mod order;
pub mod ranks;
mod recurrent;
pub mod roles;
mod skeleton;
mod table;

pub use error::{ImportError, Unsupported};
pub use import::{import, import_bytes};
