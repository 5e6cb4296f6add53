//! A tenant of weights only: a base's architecture with the tensors of a `.safetensors` file.
//!
//! Keys are the base's initializer names, or the state-dict names that they came from (see [`super::keys`]), with or without a wrapper's
//! prefix. Every weight must be found, be used up, and have its shape (a bias that the base leaves out may be left out again); whatever does not fit is listed at once.

use crate::class::Model;
use crate::class::keys::{Keys, WeightKey};
use crate::class::state_dict::{self, HeaderError, StateDict, Stored};
use crate::graph::{Param, WeightSource};
use crate::source::read_weight;
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use tessera_core::DType;

/// Why a file's tensors are not the weights of a base.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file's header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Its tensors.
    #[error("the weights do not fit the base model:{}", problems.iter().map(|line| format!("\n  {line}")).collect::<String>())]
    Mismatch {
        /// One line each.
        problems: Vec<String>,
    },
}

/// `base` with the weights in the file at `safetensors`. Reads the header; tensors are read when they are packed.
pub fn load_over_base(base: &Model, safetensors: &Path) -> Result<Model, WeightsError> {
    let dict = state_dict::read(safetensors)?;
    let matching = Matching::new(&base.keys, &dict);
    let mut problems = Vec::new();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    let mut missing: BTreeSet<&str> = BTreeSet::new();
    let mut weights = Vec::with_capacity(base.keys.weights.len());
    for (key, param) in base.keys.weights.iter().zip(&base.class.graph.params) {
        // A bias that the base leaves out may be among the tenant's weights.
        let left_out = matches!(key.constant, Some(WeightSource::Zeros));
        let found = if key.constant.is_none() || left_out { matching.find(key) } else { None };
        if let (Some(constant), None) = (&key.constant, &found) {
            weights.push(constant.clone());
            continue;
        }
        let Some(found) = found else {
            missing.insert(key.name.as_str());
            continue;
        };
        used.insert(found.name);
        match source(&dict, &found, param) {
            Ok(source) => weights.push(source),
            Err(problem) => problems.push(problem),
        }
    }
    let derived: BTreeMap<&str, &WeightKey> =
        base.keys.weights.iter().map(|key| (key.name.as_str(), key)).collect();
    for name in &missing {
        let or = match &derived[name].derived {
            Some((derived, _)) => format!(" (or `{derived}`)"),
            None => String::new(),
        };
        problems.push(format!("missing: `{name}`{or}"));
    }
    problems.extend(matching.ambiguous(&base.keys));
    problems.extend(matching.changed_literals(&base.keys));
    problems.extend(matching.extra(&base.keys, &used));
    problems.dedup();
    if !problems.is_empty() {
        return Err(WeightsError::Mismatch { problems });
    }
    Ok(Model { weights, ..base.clone() })
}

/// A tensor of the file that is to be a weight.
struct Found<'d> {
    name: &'d str,
    stored: &'d Stored,
    transposed: bool,
}

fn source(dict: &StateDict, found: &Found<'_>, param: &Param) -> Result<WeightSource, String> {
    let Found { name, stored, transposed } = found;
    let dtype = match &stored.dtype {
        Ok(dtype) if *dtype == param.dtype => *dtype,
        Ok(dtype @ (DType::F16 | DType::BF16)) if param.dtype == DType::F32 => *dtype,
        Ok(other) => return Err(format!("wrong type: `{name}` is {other}, and {} is wanted", param.dtype)),
        Err(other) => return Err(format!("wrong type: `{name}` is {other}, and {} is wanted", param.dtype)),
    };
    let mut wanted = param.dims.clone();
    if *transposed {
        wanted.reverse();
    }
    if stored.dims != wanted {
        return Err(format!("wrong shape: `{name}` is {:?}, and {wanted:?} is wanted", stored.dims));
    }
    let (path, stamp) = (dict.path.clone(), dict.stamp);
    let file = WeightSource::File { path, stamp, offset: stored.offset, len: stored.len };
    if dtype == param.dtype && !transposed {
        return Ok(file);
    }
    Ok(WeightSource::Converted {
        from: Box::new(file),
        dtype,
        dims: stored.dims.clone(),
        transposed: *transposed,
    })
}

/// A file's keys beside a base's names.
struct Matching<'d> {
    dict: &'d StateDict,
    prefix: Prefix,
    /// Whether the file speaks of names that the exporter merged: then each must be there.
    speaks_of_merged: bool,
}

/// How a key is made of a base's name.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Prefix {
    /// They are the same.
    None,
    /// The base was wrapped.
    Without(String),
    /// The file's model was.
    With(String),
}

impl Prefix {
    fn key(&self, name: &str) -> Option<String> {
        match self {
            Prefix::None => Some(name.to_owned()),
            Prefix::Without(prefix) => name.strip_prefix(prefix.as_str()).map(str::to_owned),
            Prefix::With(prefix) => Some(format!("{prefix}{name}")),
        }
    }
}

impl<'d> Matching<'d> {
    fn new(keys: &Keys, dict: &'d StateDict) -> Matching<'d> {
        let state_dict_name = |key: &'_ WeightKey| match &key.derived {
            Some((derived, _)) => derived.clone(),
            None => key.name.clone(),
        };
        let names: Vec<String> = keys
            .weights
            .iter()
            .filter(|key| key.constant.is_none())
            .map(state_dict_name)
            .filter(|name| !name.contains("::"))
            .collect();
        let prefixes = |names: &mut dyn Iterator<Item = &String>| common_prefixes(names);
        let mut candidates = vec![Prefix::None];
        candidates.extend(prefixes(&mut names.iter()).into_iter().map(Prefix::Without));
        candidates.extend(prefixes(&mut dict.tensors.keys()).into_iter().map(Prefix::With));
        let found = |prefix: &Prefix| {
            let keys = names.iter().filter_map(|name| prefix.key(name));
            keys.filter(|key| dict.tensors.contains_key(key)).count()
        };
        // The first of those that find most: names as they are win a tie.
        let mut best = (0, Prefix::None);
        for prefix in candidates {
            let count = found(&prefix);
            if count > best.0 {
                best = (count, prefix);
            }
        }
        let mut matching = Matching { dict, prefix: best.1, speaks_of_merged: false };
        let merged =
            keys.weights.iter().filter(|key| key.origin.as_ref().is_some_and(|origin| *origin != key.name));
        matching.speaks_of_merged = merged.into_iter().any(|key| matching.named(&key.name).is_some());
        matching
    }

    /// The tensor that a base's name means.
    fn named(&self, name: &str) -> Option<(&'d str, &'d Stored)> {
        let tensors = &self.dict.tensors;
        let found = self.prefix.key(name).and_then(|key| tensors.get_key_value(&key));
        let found = found.or_else(|| tensors.get_key_value(name));
        found.map(|(name, stored)| (name.as_str(), stored))
    }

    fn find(&self, key: &WeightKey) -> Option<Found<'d>> {
        let as_it_is = |(name, stored)| Found { name, stored, transposed: false };
        if let Some(found) = self.named(&key.name) {
            return Some(as_it_is(found));
        }
        if let Some((derived, transposed)) = &key.derived
            && let Some((name, stored)) = self.named(derived)
        {
            return Some(Found { name, stored, transposed: *transposed });
        }
        // Named as the base's initializers are, merged ones together.
        let origin = key.origin.as_ref().filter(|_| !self.speaks_of_merged)?;
        self.named(origin).map(as_it_is)
    }

    /// Tensors that two differently named weights would take.
    fn ambiguous(&self, keys: &Keys) -> Vec<String> {
        let mut takers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for key in keys.weights.iter().filter(|key| key.derived.is_some()) {
            let Some(found) = self.find(key).filter(|found| found.name != key.name) else { continue };
            takers.entry(found.name).or_default().insert(&key.name);
        }
        for key in keys.weights.iter().filter(|key| key.derived.is_none() && key.constant.is_none()) {
            if let Some(names) = self.find(key).and_then(|found| takers.get_mut(found.name)) {
                names.insert(&key.name);
            }
        }
        let twice = takers.into_iter().filter(|(_, names)| names.len() > 1);
        twice.map(|(key, names)| format!("ambiguous: `{key}` could be each of {names:?}")).collect()
    }

    /// Tensors that the architecture holds, with another value.
    fn changed_literals(&self, keys: &Keys) -> Vec<String> {
        let mut changed = Vec::new();
        for (name, literal) in &keys.literals {
            let Some((key, stored)) = self.named(name) else { continue };
            if !self.same(stored, literal) {
                changed.push(format!(
                    "part of the architecture: `{key}` is {literal:?} in the base, and differs here"
                ));
            }
        }
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    fn same(&self, stored: &Stored, literal: &Tensor) -> bool {
        let (path, stamp) = (self.dict.path.clone(), self.dict.stamp);
        let file = WeightSource::File { path, stamp, offset: stored.offset, len: stored.len };
        let Ok(dtype @ (DType::F16 | DType::BF16)) = stored.dtype else {
            return stored.dims == literal.dims()
                && stored.dtype == Ok(literal.dtype())
                && read_weight(&file, literal.dtype(), &stored.dims).is_ok_and(|tensor| tensor == *literal);
        };
        let (from, dims) = (Box::new(file), stored.dims.clone());
        let wide = WeightSource::Converted { from, dtype, dims, transposed: false };
        literal.dtype() == DType::F32
            && read_weight(&wide, DType::F32, literal.dims()).is_ok_and(|tensor| tensor == *literal)
    }

    /// Tensors that nothing asks for. Integers are left alone: a state dict counts batches and positions in them, and a
    /// weight is never one.
    fn extra(&self, keys: &Keys, used: &BTreeSet<&str>) -> Vec<String> {
        let known = keys.literals.iter().map(|(name, _)| name).chain(&keys.unread);
        let known: HashSet<&str> = known.filter_map(|name| Some(self.named(name)?.0)).collect();
        let tensors = self.dict.tensors.iter();
        let extra = tensors.filter(|(name, stored)| {
            let float = stored.dtype.as_ref().map_or(true, |dtype| dtype.is_float());
            float && !used.contains(name.as_str()) && !known.contains(name.as_str())
        });
        extra.map(|(name, _)| format!("extra: `{name}`")).collect()
    }
}

/// The dotted prefixes that all names have: `a.` and `a.b.` for `a.b.c` and `a.b.d`.
fn common_prefixes(names: &mut dyn Iterator<Item = &String>) -> Vec<String> {
    let Some(first) = names.next() else { return Vec::new() };
    let mut common = first.as_str();
    for name in names {
        let same = common.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
        // Cut between characters: a dot is one.
        let cut = common.as_bytes()[..same].iter().rposition(|&byte| byte == b'.').map_or(0, |dot| dot + 1);
        common = &common[..cut];
    }
    common.match_indices('.').map(|(dot, _)| common[..=dot].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_at_dots_and_are_common_to_all() {
        let names = ["m.layer.a".to_owned(), "m.layer.bé".to_owned(), "m.layers".to_owned()];
        assert_eq!(common_prefixes(&mut names.iter()), ["m."]);
        assert_eq!(common_prefixes(&mut names[..2].iter()), ["m.", "m.layer."]);
        assert!(common_prefixes(&mut [].iter()).is_empty());
    }
}
