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

mod again;
pub mod backstage;
pub mod catalog;
pub mod classes;
pub mod devices;
pub mod engine;
pub mod events;
mod fleet;
pub mod frontend;
mod http;
mod loader;
pub mod log;
mod mailbox;
mod metrics;
pub mod monitor;
pub mod placement;
mod profile;
pub mod protocol;
mod quotas;
mod registry;
pub mod routing;
pub mod serve;
pub mod server;
mod service;
pub mod settings;
mod spare;
mod standing;
mod wire;

pub use events::Events;
pub use frontend::{
    Backend, DeviceStatus, InferRequest, InferResponse, Listed, ModelInfo, Placement, TensorIn, TensorInfo,
    TensorOut,
};
pub use metrics::Metrics;
pub use settings::Settings;
pub use wire::Rejection;
