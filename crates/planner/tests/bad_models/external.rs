//! Weights in a file beside the model.

use super::with_initializer;
use crate::common::{fixture, floats, model};
use prost::Message;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tessera_core::DType;
use tessera_planner::class::load;
use tessera_planner::graph::WeightSource;
use tessera_planner::onnx::import_bytes;
use tessera_planner::onnx::proto::{ModelProto, StringStringEntryProto, TensorProto};
use tessera_planner::source::read_weight;

/// A model whose weight `w`, four floats, is external data as the entries say.
fn external(entries: &[(&str, &str)]) -> ModelProto {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: Some((*key).into()),
        value: Some((*value).into()),
    };
    let tensor = TensorProto {
        data_location: Some(1),
        external_data: entries.iter().map(entry).collect(),
        ..floats("w", &[4], &[])
    };
    model(17, with_initializer(tensor))
}

fn external_error(folder: &Path, entries: &[(&str, &str)]) -> String {
    let path = folder.join("model.onnx");
    std::fs::write(&path, external(entries).encode_to_vec()).unwrap();
    load(&path).unwrap_err().to_string()
}

#[test]
fn external_data_that_is_missing_short_or_outside_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    std::fs::create_dir(&models).unwrap();
    std::fs::write(folder.path().join("secret"), [0; 16]).unwrap();
    std::fs::write(models.join("short"), [0; 12]).unwrap();
    std::fs::create_dir(models.join("folder")).unwrap();
    let said = |entries: &[(&str, &str)]| external_error(&models, entries);

    assert!(said(&[]).contains("names no `location`"));
    let missing = said(&[("location", "none")]);
    assert!(
        missing.contains("`w`") && missing.contains("external data in `none`, which is not in"),
        "{missing}"
    );
    assert!(missing.ends_with("; put it beside the model"), "{missing}");
    assert!(said(&[("location", "short")]).contains("has 12 bytes, but bytes 0 to 16 of it are asked for"));
    assert!(said(&[("location", "short"), ("offset", "18446744073709551615")]).contains("are asked for"));
    assert!(said(&[("location", "short"), ("offset", "-1")]).contains("offset `-1`"));
    assert!(
        said(&[("location", "short"), ("length", "12")])
            .contains("12 bytes of external data, but its shape asks for 16")
    );
    assert!(said(&[("location", "folder")]).contains("not a regular file"));
    assert!(said(&[("location", "../secret")]).contains("outside of the model's folder"));
    let absolute = folder.path().join("secret");
    assert!(said(&[("location", absolute.to_str().unwrap())]).contains("outside of the model's folder"));
    assert!(said(&[("location", "a\0b")]).contains("external data of tensor `w`"));
    let bytes = external(&[("location", "short")]).encode_to_vec();
    assert!(import_bytes(bytes, None).unwrap_err().to_string().contains("came without a folder"));
}

#[cfg(unix)]
#[test]
fn links_to_a_model_are_followed_but_not_out_of_its_folder() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let (real, linked) = (folder.path().join("blobs"), folder.path().join("snapshot"));
    std::fs::create_dir(&real).unwrap();
    std::fs::create_dir(&linked).unwrap();
    std::fs::write(folder.path().join("secret"), [0; 16]).unwrap();
    std::fs::write(real.join("0123"), external(&[("location", "model.data")]).encode_to_vec()).unwrap();
    symlink(real.join("0123"), linked.join("model.onnx")).unwrap();

    // As download caches look: both files are links to blobs that lie side by side.
    std::fs::write(real.join("4567"), [1; 16]).unwrap();
    symlink(real.join("4567"), linked.join("model.data")).unwrap();
    let model = load(&linked.join("model.onnx")).unwrap();
    assert_eq!(read_weight(&model.weights[0], DType::F32, &[4]).unwrap().bytes(), [1; 16]);

    // As mounted volumes look: the folder is a link.
    symlink(&real, folder.path().join("current")).unwrap();
    std::fs::write(real.join("model.data"), [2; 16]).unwrap();
    let model = load(&folder.path().join("current/0123")).unwrap();
    assert_eq!(read_weight(&model.weights[0], DType::F32, &[4]).unwrap().bytes(), [2; 16]);

    // A link that leads out of the real folder.
    std::fs::remove_file(real.join("model.data")).unwrap();
    symlink(folder.path().join("secret"), real.join("model.data")).unwrap();
    let error = load(&linked.join("model.onnx")).unwrap_err().to_string();
    assert!(error.contains("outside of the model's folder"), "{error}");
}

#[test]
fn a_weight_file_that_shrinks_or_changes_after_the_import_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (path, data) = (folder.path().join("model.onnx"), folder.path().join("data"));
    std::fs::write(&path, external(&[("location", "data")]).encode_to_vec()).unwrap();
    std::fs::write(&data, [1; 16]).unwrap();
    let model = load(&path).unwrap();
    let read = || read_weight(&model.weights[0], DType::F32, &[4]).map_err(|error| error.to_string());
    assert!(read().is_ok());

    let file = std::fs::OpenOptions::new().write(true).open(&data).unwrap();
    file.set_len(8).unwrap();
    assert!(read().unwrap_err().contains("changed while it was read"));
    file.set_len(16).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
    assert!(read().unwrap_err().contains("changed while it was read"));
    std::fs::remove_file(&data).unwrap();
    assert!(read().is_err());
}

#[test]
fn a_safetensors_file_may_hold_external_data() {
    // The real weights are not here: a file of their length, with a hole for content, is enough to import.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::copy(fixture("minilm_l6_v2/model.onnx"), &path).unwrap();
    let data = std::fs::File::create(folder.path().join("model.safetensors")).unwrap();
    data.set_len(90_868_376).unwrap();
    let model = load(&path).unwrap();
    assert_eq!(model.class.free_dims, ["batch", "sequence"]);
    let files = model.weights.iter().filter(|source| matches!(source, WeightSource::File { .. }));
    assert_eq!(files.count(), model.weights.len());
    data.set_len(1_000_000).unwrap();
    assert!(load(&path).is_err());
}
