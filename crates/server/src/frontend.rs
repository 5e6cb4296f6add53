//! The joint between the wire and what is behind it.
//!
//! Everything a protocol may ask for, as types of this crate and one trait. Whoever
//! implements [`Backend`] owns names, versions, admission and execution; whoever calls it owns bytes on sockets.
//! Tests put a few lines of arithmetic behind the same trait.

use crate::events::Events;
use crate::monitor::Share;
use crate::wire::Rejection;
use bytes::Bytes;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tessera_core::{DType, Precision};

/// What the wire side needs from what is behind it.
pub trait Backend: Send + Sync + 'static {
    /// Whether the process can do its work at all: false only when a restart is the way out.
    fn live(&self) -> bool;

    /// Whether every tenant found at start is loaded or has definitely failed, and the engine runs. Says what it
    /// waits for otherwise, in a sentence for a person.
    fn ready(&self) -> Result<(), String>;

    /// What a tenant takes and gives. Without a version: the one that would serve a request now.
    /// Errors with [`Rejection::UnknownModel`] or [`Rejection::UnknownVersion`].
    fn model(&self, name: &str, version: Option<u64>) -> Result<Arc<ModelInfo>, Rejection>;

    /// Nothing if a request to this tenant could be admitted now, else what it would hear.
    fn model_ready(&self, name: &str, version: Option<u64>) -> Result<(), Rejection>;

    /// Where requests are answered.
    fn devices(&self) -> Vec<DeviceStatus>;

    /// What became of a version's requests, in Triton's words and ours; of all versions that answer where none is named.
    /// Errors as `model` does.
    fn statistics(&self, name: &str, version: Option<u64>) -> Result<Vec<serde_json::Value>, Rejection>;

    /// The same of every version that answers, by name and version.
    fn statistics_of_all(&self) -> Vec<serde_json::Value>;

    /// What was seen of the launches that a version takes part in, by device and plan, step by step; of the one that would serve a request now where none
    /// is named. Errors as `model` does.
    fn steps(&self, name: &str, version: Option<u64>) -> Result<serde_json::Value, Rejection>;

    /// Every version of every tenant that the repository has, by name and version.
    fn index(&self) -> Vec<Listed>;

    /// What happened.
    fn events(&self) -> &Events;

    /// Answers one request. Dropping the future cancels it: a client that hung up costs no launch if its request
    /// has not been launched yet. The wire side has checked that each input's bytes match its own dtype and shape
    /// and that no input is named twice; it has not compared them with the model.
    fn infer(&self, request: InferRequest) -> impl Future<Output = Result<InferResponse, Rejection>> + Send;
}

/// One device, as shown to callers.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct DeviceStatus {
    /// As on the command line: `cpu:0`, `cuda:0`.
    pub name: String,
    /// For people: its cores and instructions, or the card's name.
    pub description: String,
    /// Whether it answers; false once it was lost.
    pub running: bool,
    /// Versions of tenants whose weights are on it.
    pub tenants: u64,
    /// How far it is used.
    #[serde(rename = "use")]
    pub share: Share,
}

/// A version of a tenant in the repository, in the words of Triton's repository index.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Listed {
    /// The tenant's name.
    pub name: String,
    /// The version; empty where the tenant has none to show because its folder makes no sense.
    pub version: String,
    /// `READY`, `LOADING` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why it is unavailable, or, though it answers, why what its files hold now does not; empty else.
    pub reason: String,
}

impl Listed {
    /// The state of a version that answers.
    pub const READY: &'static str = "READY";
}

/// What a tenant version takes and gives, as shown to its callers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelInfo {
    /// The tenant's name.
    pub name: String,
    /// The version described here.
    pub version: u64,
    /// Every version that is served, ascending.
    pub versions: Vec<u64>,
    /// What must be sent, in the model's order.
    pub inputs: Vec<TensorInfo>,
    /// What comes back, in the model's order.
    pub outputs: Vec<TensorInfo>,
    /// Where this version answers.
    pub placements: Vec<Placement>,
}

/// A device that answers for a tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// As on the command line: `cpu:0`, `cuda:0`.
    pub device: String,
    /// How numbers are held there.
    pub precision: Precision,
    /// Why this one, where it stands in for a device that has no kernel for a step of the model, or was lost.
    pub because: Option<String>,
}

/// One input or output of a model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    /// Its name in the graph.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its shape, outermost first; −1 where any extent is taken.
    pub dims: Vec<i64>,
}

/// One request, free of its encoding.
#[derive(Clone, PartialEq, Debug)]
pub struct InferRequest {
    /// The tenant's name.
    pub model: String,
    /// The version asked for; `None` lets the registry choose.
    pub version: Option<u64>,
    /// How long the caller will wait, when it said so. Replaces the tenant's own SLO for this request.
    pub timeout: Option<Duration>,
    /// The tensors sent, in the order of the request.
    pub inputs: Vec<TensorIn>,
    /// The outputs wanted, in the order wanted; empty means all, in the model's order.
    pub outputs: Vec<String>,
}

/// A tensor sent: `data` is row-major, little endian, exactly `shape`'s elements of `dtype`.
#[derive(Clone, PartialEq, Debug)]
pub struct TensorIn {
    /// The name of the model's input.
    pub name: String,
    /// Its element type as sent.
    pub dtype: DType,
    /// Its shape as sent, outermost first.
    pub shape: Vec<u64>,
    /// Its elements. Not aligned to more than a byte.
    pub data: Bytes,
}

/// One answer, free of its encoding.
#[derive(Clone, PartialEq, Debug)]
pub struct InferResponse {
    /// Who answered.
    pub model: String,
    /// Which version answered.
    pub version: u64,
    /// The outputs asked for, in the order asked for.
    pub outputs: Vec<TensorOut>,
}

/// A tensor answered: `data` is row-major, little endian, exactly `shape`'s elements of `dtype`.
#[derive(Clone, PartialEq, Debug)]
pub struct TensorOut {
    /// The name of the model's output.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its shape, outermost first.
    pub shape: Vec<u64>,
    /// Its elements.
    pub data: Bytes,
}
