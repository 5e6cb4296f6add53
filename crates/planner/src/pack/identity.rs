//! What tells one tenant's weights from another's: their content.
//!
//! Names, times and inodes lie when a file is rewritten within a tick of its file system's clock, and a wrong hit would serve
//! one tenant's numbers as another's. So the bytes themselves are hashed, at one to a few GiB/s on one core.

use super::PackError;
use super::evaluate::{count, read_param};
use crate::fold::Folded;
use crate::graph::{Graph, ParamId};
use crate::source::SourceError;
use crate::tensor::Tensor;
use std::collections::{BTreeMap, HashMap};

/// The content of all weights that a slot is computed from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WeightsHash(pub [u8; 32]);

/// Gathers the hash of one parameter after the other, in any order.
#[derive(Default)]
pub(super) struct Hashing(BTreeMap<ParamId, blake3::Hash>);

impl Hashing {
    pub(super) fn add(&mut self, id: ParamId, tensor: &Tensor) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{}{:?}\n", tensor.dtype(), tensor.dims()).as_bytes());
        self.0.insert(id, hasher.update(tensor.bytes()).finalize());
    }

    pub(super) fn finish(self) -> WeightsHash {
        let mut hasher = blake3::Hasher::new();
        for (id, hash) in self.0 {
            hasher.update(&id.0.to_le_bytes()).update(hash.as_bytes());
        }
        WeightsHash(hasher.finalize().into())
    }
}

/// Hashes the weights that `folded` reads, each read once; memory peaks at one of them.
pub fn identify(
    class: &Graph,
    folded: &Folded,
    read: &mut dyn FnMut(ParamId) -> Result<Tensor, SourceError>,
) -> Result<WeightsHash, PackError> {
    let mut uses = HashMap::new();
    folded.weights.iter().for_each(|weight| count(&weight.expr, &mut uses));
    let mut params: Vec<ParamId> = uses.into_keys().collect();
    params.sort_unstable();
    let mut hashing = Hashing::default();
    for id in params {
        hashing.add(id, &read_param(class, id, read)?);
    }
    Ok(hashing.finish())
}
