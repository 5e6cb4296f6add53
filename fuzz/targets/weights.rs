//! A tenant of weights only: a safetensors file over a base.

use super::model;
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;
use tempfile::TempDir;
use tessera_planner::class::{Model, load_bytes, load_over_base};

static BASE: LazyLock<Model> = LazyLock::new(|| {
    let file = include_bytes!("../../fixtures/block_fresh.onnx");
    load_bytes(&file[..], None).expect("the fixture is a model")
});
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder for one file"));

pub(super) fn run(bytes: &[u8]) {
    // By thread, since tests run side by side.
    let path: PathBuf = FOLDER.path().join(format!("{:?}", std::thread::current().id()));
    fs::write(&path, bytes).expect("a temporary folder takes a small file");
    if let Ok(model) = load_over_base(&BASE, &path) {
        model::packed(&model);
    }
}
