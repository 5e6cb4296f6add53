//! The models of `fixtures/`, their questions, and PyTorch's answers.

use crate::tensors::Tensors;
use std::fs;
use std::path::{Path, PathBuf};
use tessera_planner::npz;

/// A model with the questions that PyTorch answered.
pub(crate) struct Case {
    /// The file's name without `.onnx`; the tenant's name in these tests.
    pub(crate) name: String,
    model: PathBuf,
    pub(crate) sets: Vec<Question>,
}

/// One request, and the right answer to it.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) inputs: Tensors,
    pub(crate) answer: Tensors,
}

/// A path in `fixtures/`.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(name)
}

/// Every fixture that has its weights in the repository.
pub(crate) fn all() -> Vec<Case> {
    let mut names: Vec<String> = fs::read_dir(path(""))
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".onnx")?.to_owned()))
        .collect();
    names.sort();
    names.push("torch_export/iris".to_owned());
    names.extend(["half", "half_dynamo", "double", "pixels"].map(|name| format!("types/{name}")));
    names.iter().map(|name| case(name)).collect()
}

/// The fixture at `name`, as `mlp-0`.
pub(crate) fn case(name: &str) -> Case {
    let arrays = npz::read(&path(&format!("{name}.npz"))).unwrap();
    let of = |prefix: &str| -> Tensors {
        let named = arrays.iter().filter_map(|(name, array)| Some((name.strip_prefix(prefix)?, array)));
        named.map(|(name, array)| (name.to_owned(), array.clone())).collect()
    };
    let sets = ["", "alt."]
        .map(|set| Question { inputs: of(&format!("{set}in.")), answer: of(&format!("{set}out.")) });
    Case {
        name: name.rsplit('/').next().unwrap().to_owned(),
        model: path(&format!("{name}.onnx")),
        sets: sets.into_iter().filter(|set| !set.inputs.is_empty()).collect(),
    }
}

impl Case {
    /// Puts the model, and the file that some of its weights may be in, where a repository wants it.
    pub(crate) fn place(&self, at: &Path) {
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::copy(&self.model, at).unwrap();
        let data = self.model.with_extension("onnx.data");
        if data.exists() {
            fs::copy(&data, at.with_file_name(data.file_name().unwrap())).unwrap();
        }
    }
}

/// Puts fixtures into a repository, as files of their names.
pub(crate) fn place(repository: &Path, names: &[&str]) {
    names.iter().for_each(|name| case(name).place(&repository.join(format!("{name}.onnx"))));
}

/// Puts a fixture into a repository with a `tenant.toml` beside it.
pub(crate) fn place_as(repository: &Path, name: &str, terms: &str) {
    case(name).place(&repository.join(name).join("model.onnx"));
    fs::write(repository.join(name).join("tenant.toml"), terms).unwrap();
}

/// A model's bytes with `to` wherever `from` was, so that lengths stay true.
pub(crate) fn replaced(model: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> =
        (0..model.len() - from.len()).filter(|&at| model[at..].starts_with(from)).collect();
    assert!(!places.is_empty(), "the model does not hold what is to be replaced");
    let mut bytes = model.to_vec();
    places.iter().for_each(|&at| bytes[at..at + to.len()].copy_from_slice(to));
    bytes
}
