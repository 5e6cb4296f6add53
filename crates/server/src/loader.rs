//! Loading one tenant version: file in, slots out. Runs on a loader's thread, far from requests.

use crate::classes::{ClassEntry, NoClass, NoPlan};
use crate::fleet::{Means, NoKernel, Settled};
use crate::frontend::{ModelInfo, TensorInfo};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tessera_core::Precision;
use tessera_device::{DeviceError, Slot};
use tessera_planner::class::{self, Model, ModelError, WeightsError};
use tessera_planner::graph::ParamId;
use tessera_planner::pack::{self, PackError};
use tessera_planner::pack_cache::Wanted;
use tessera_planner::source::Stamp;
use tessera_planner::{Packed, SlotLayout};

/// A version that is ready to be served.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The model, without its weights.
    pub model: Model,
    /// The files that its weights were read from.
    pub files: Vec<(Arc<PathBuf>, Stamp)>,
    /// Its weights, on each device that has them; never empty.
    pub settled: Vec<Settled>,
    /// How long that took.
    pub took: Duration,
}

/// Why a version cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Its weights are not its base's.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Its class.
    #[error(transparent)]
    Class(#[from] NoClass),
    /// Its weights.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Its plan.
    #[error(transparent)]
    Plan(#[from] NoPlan),
    /// No device has all kernels of its class.
    #[error("{0}; no other device is open for it: name `cpu` beside it")]
    NoKernel(NoKernel),
    /// Every device was lost.
    #[error("no device is left to load it on")]
    NoDevice,
    /// We did.
    #[error(
        "loading it panicked, which no model should bring about; please report it with the model and what standard error says"
    )]
    Panicked,
}

/// Reads a version's file: `model.onnx`, or `model.safetensors` where there is a base, the model whose architecture the weights are for.
pub(crate) fn import(path: &Path, base: Option<&Model>) -> Result<Model, LoadError> {
    Ok(match base {
        None => class::load(path)?,
        Some(base) => class::load_over_base(base, path)?,
    })
}

/// Packs, and uploads to one device, if it has a kernel for every step of the class. A class without free dimensions but the item count is planned, compiled and measured too, so that its
/// first request finds everything there; this also refuses what cannot be planned before it is served.
pub(crate) fn settle(
    model: &Model,
    precision: Precision,
    means: &Means,
) -> Result<(Arc<ClassEntry>, Slot), LoadError> {
    let class = means.classes.enter(&model.class, precision)?;
    class.check()?;
    let packed = packed(model, &class.layout, means)?;
    let slot = means.device.upload(class.class.id, &class.layout, packed)?;
    if let Some(bound) = class.class.bind_without_free_dims() {
        class.planned_now(&bound)?;
        class.measured_now(&bound, slot.clone());
    }
    Ok((class, slot))
}

/// The bytes of the model's slot, from the cache if they were packed before.
fn packed(model: &Model, layout: &SlotLayout, means: &Means) -> Result<Packed, PackError> {
    let class = &model.class;
    let mut source = |id: ParamId| Ok(model.weights[id.0 as usize].clone());
    let Some(cache) = &means.cache else {
        return pack::pack(&class.graph, class.folded(), layout, &mut source);
    };
    let wanted = Wanted { class: class.id, graph: &class.graph, folded: class.folded(), layout };
    cache.pack(&wanted, &mut source)
}

/// The metadata of a model.
pub(crate) fn info(name: &str, version: u64, model: &Model) -> ModelInfo {
    let tensor = |name: &String, (dtype, dims): (tessera_core::DType, Vec<i64>)| TensorInfo {
        name: name.clone(),
        dtype,
        dims,
    };
    let inputs = model.input_names.iter().zip(model.class.input_shapes());
    let outputs = model.output_names.iter().zip(model.class.output_shapes());
    ModelInfo {
        name: name.to_owned(),
        version,
        versions: Vec::new(),
        inputs: inputs.map(|(name, shape)| tensor(name, shape)).collect(),
        outputs: outputs.map(|(name, shape)| tensor(name, shape)).collect(),
        placements: Vec::new(),
    }
}
