//! Settings, registry, engine loop, HTTP and metrics.
//!
//! ```text
//! bytes ─http─▶ protocol ─▶ InferRequest ─▶ Backend (registry + engine) ─▶ InferResponse ─▶ protocol ─http─▶ bytes
//!                                │                      │
//!                                └────── wire: what the caller hears when it cannot be ──────┘
//! ```
//!
//! [`frontend`] is the joint: the wire side turns words into requests and answers into words and decides nothing;
//! what is behind the [`frontend::Backend`] decides everything and never sees a byte of HTTP.

// What is set, and what a repository asks to be served.
pub mod catalog;
pub mod settings;

// Bytes to a request, and an answer or a reason to bytes.
pub mod frontend;
mod http;
pub mod protocol;
pub mod serve;
mod wire;

// Whose tenants are served, on which devices, and where a request goes.
mod again;
mod fleet;
mod loader;
pub mod placement;
mod quotas;
mod registry;
pub mod routing;
mod service;
mod spare;

// One device: its engine, and what tenants of one architecture share on it.
pub mod classes;
pub mod devices;
pub mod engine;
mod mailbox;
mod profile;

// What is told of all that.
pub mod events;
pub mod log;
mod metrics;
pub mod monitor;
mod standing;

// Put together.
pub mod backstage;
pub mod runtime;
pub mod server;

pub use events::Events;
pub use frontend::{
    Backend, DeviceStatus, InferRequest, InferResponse, Listed, ModelInfo, Placement, TensorIn, TensorInfo,
    TensorOut,
};
pub use metrics::Metrics;
pub use settings::Settings;
pub use wire::Rejection;
