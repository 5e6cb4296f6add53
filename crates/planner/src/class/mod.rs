//! Which models are one architecture, and what remains of a model beside it.
//!
//! ```text
//!   Graph ─normalise→ nodes in canonical order, every use of a weight its own parameter, every layer with a bias ─hash→ ClassId
//!                  └→ weights: where each parameter of *this* model is
//! ```
//! A value that the planner reads is in the hash; one that it does not read is a weight. Names are in neither, so tenants may
//! call things as they like. All that is planned and packed is made from the class's graph, and is therefore the same for all
//! models of a class.

mod apart;
mod base;
mod biases;
mod bind;
mod difference;
mod hash;
mod keys;
mod normalise;
mod own_rows;
mod state_dict;

pub use base::{WeightsError, load_over_base};
pub use bind::{Bound, ShapeMismatch};
pub use difference::difference;

use crate::fold::{FoldError, Folded, fold, output_types};
use crate::graph::{Graph, WeightSource};
use crate::onnx::ImportError;
use crate::onnx::import::{DeclaredOutput, Imported, import_bytes, import_file};
use crate::source::Stamp;
use keys::WeightKey;
use prost::bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tessera_core::{ClassId, DType};

/// An architecture.
#[derive(Debug)]
pub struct Class {
    /// Its name: equal for equal architectures only.
    pub id: ClassId,
    /// The normalised graph. Weights come first among its parameters, in the order in which nodes read them, and are
    /// [`WeightSource::Forgotten`]; literals follow. Names in it are those of the model that it was made from.
    pub graph: Graph,
    /// The names of the dimensions that requests choose, as the model calls them; the order is the class's.
    pub free_dims: Vec<String>,
    /// How many parameters are weights: those of the numbers below this one.
    pub weights: usize,
    outputs: Vec<DeclaredOutput>,
    folded: Folded,
}

/// One model of a class: its names and its weights.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its architecture.
    pub class: Arc<Class>,
    /// What it calls the class's inputs.
    pub input_names: Vec<String>,
    /// What it calls the class's outputs.
    pub output_names: Vec<String>,
    /// Where its weights are, by the number of the class graph's parameter.
    pub weights: Vec<WeightSource>,
    /// What weights of a weights-only tenant over this model are called.
    keys: Arc<keys::Keys>,
}

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file is no model that can be served.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Its weights are used in a way that cannot be served.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The weights do not belong to the base.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// The model in the ONNX file at `path`. Reads the file; weights in other files are only looked for.
pub fn load(path: &Path) -> Result<Model, ModelError> {
    model(import_file(path)?)
}

/// The model in an ONNX file's bytes; `folder` is where its external data would be.
pub fn load_bytes(bytes: impl Into<Bytes>, folder: Option<&Path>) -> Result<Model, ModelError> {
    model(import_bytes(bytes, folder)?)
}

fn model(mut imported: Imported) -> Result<Model, ModelError> {
    biases::spell_out(&mut imported);
    own_rows::share_axes(&mut imported);
    apart::take_apart(&mut imported.graph);
    let normalise::Normal { graph, weights, origins } = normalise::normalise(&imported);
    // What the operators make is so, whatever the file declares.
    let mut outputs = imported.outputs;
    for (output, dtype) in outputs.iter_mut().zip(output_types(&graph)) {
        output.dtype = dtype.or(output.dtype);
    }
    let class = Class {
        id: hash::id(&graph),
        free_dims: graph.free_dims.clone(),
        weights: weights.len(),
        outputs,
        folded: fold(&graph)?,
        graph,
    };
    let keys = keys::Keys::of(&class.graph, &weights, &origins, imported.unread);
    let names = |names: &mut dyn Iterator<Item = &String>| names.cloned().collect();
    Ok(Model {
        input_names: names(&mut class.graph.inputs.iter().map(|input| &input.name)),
        output_names: names(&mut class.graph.outputs.iter().map(|output| &output.name)),
        class: Arc::new(class),
        weights,
        keys: Arc::new(keys),
    })
}

impl Class {
    /// What plans and packs are made from.
    pub fn folded(&self) -> &Folded {
        &self.folded
    }

    /// Type and shape of every input as the model declares them, free dimensions as -1.
    pub fn input_shapes(&self) -> impl Iterator<Item = (DType, Vec<i64>)> {
        self.graph.inputs.iter().map(|input| {
            let dims = input.dims.iter().map(|dim| match dim {
                crate::graph::Dim::Fixed(size) => *size as i64,
                crate::graph::Dim::Free(_) => -1,
            });
            (input.dtype, dims.collect())
        })
    }

    /// Type and shape of every output as the model declares them; -1 for what depends on the request, or is not declared.
    pub fn output_shapes(&self) -> impl Iterator<Item = (DType, Vec<i64>)> {
        self.outputs.iter().map(|output| {
            let dims = output.dims.iter().flatten().map(|dim| dim.map_or(-1, |size| size as i64));
            // Every operator of a graph that was imported tells its type.
            (output.dtype.unwrap_or(DType::F32), dims.collect())
        })
    }
}

impl Model {
    /// The model without its weights: what is kept of it while it is served. It can still be a base; what Constant nodes hold is kept
    /// for that, since no state dict has it.
    pub fn without_weights(mut self) -> Model {
        for weight in self.weights.iter_mut().filter(|weight| !matches!(weight, WeightSource::Zeros)) {
            *weight = WeightSource::Forgotten;
        }
        self
    }

    /// The files that its weights are read from, each once, in the state in which they were found.
    pub fn files(&self) -> Vec<(Arc<PathBuf>, Stamp)> {
        let mut files: Vec<(Arc<PathBuf>, Stamp)> = Vec::new();
        for weight in &self.weights {
            let mut source = weight;
            while let WeightSource::Converted { from, .. } = source {
                source = from;
            }
            if let WeightSource::File { path, stamp, .. } = source
                && files.iter().all(|(known, _)| known != path)
            {
                files.push((path.clone(), *stamp));
            }
        }
        files
    }

    /// The initializer (or state-dict) name of every weight, for people.
    pub fn weight_names(&self) -> impl Iterator<Item = &str> {
        self.keys.weights.iter().map(|key: &WeightKey| key.name.as_str())
    }
}
