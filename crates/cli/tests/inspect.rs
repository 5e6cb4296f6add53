//! `tessera inspect` as people and scripts run it.

#![allow(clippy::unwrap_used)] // the lint spares tests, but not the functions that they share

use prost::Message;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tessera_planner::onnx::proto::{GraphProto, ModelProto};

/// What one run said.
struct Said {
    status: i32,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }

    /// The line that tells what keeps two models apart.
    fn difference(&self) -> &str {
        let line = self.out.lines().nth(1).unwrap();
        line.strip_prefix("first difference: ").unwrap()
    }
}

fn inspect<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Said {
    let run = Command::new(env!("CARGO_BIN_EXE_tessera")).arg("inspect").args(arguments).output().unwrap();
    Said {
        status: run.status.code().unwrap(),
        out: String::from_utf8(run.stdout).unwrap(),
        err: String::from_utf8(run.stderr).unwrap(),
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(name)
}

fn one(name: &str, options: &[&str]) -> Said {
    let path = fixture(name);
    inspect([path.as_os_str()].into_iter().chain(options.iter().map(OsStr::new)))
}

fn two(left: &str, right: &str) -> Said {
    inspect([fixture(left), fixture(right)])
}

/// The fixture beside a copy of it whose graph was edited.
fn beside_edited(name: &str, edit: impl FnOnce(&mut GraphProto)) -> Said {
    let folder = tempfile::tempdir().unwrap();
    let mut proto = ModelProto::decode(std::fs::read(fixture(name)).unwrap().as_slice()).unwrap();
    edit(proto.graph.as_mut().unwrap());
    let path = folder.path().join("edited.onnx");
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    inspect([fixture(name), path])
}

#[test]
fn a_model_is_told_in_numbers_and_steps() {
    let Said { status, out, err } = one("block_fresh.onnx", &[]);
    assert_eq!((status, err.as_str()), (0, ""));
    let expected = "\
class       8eb1c8ea8e3a70aac530c6d75a954880
input       x f32[batch, 32]
output      output f32[?, 32]
free        batch
parameters  2,240 in 8 weights
weights     8.8 KiB in the file's types, 8.8 KiB packed for cpu in fp32
operators   Add 2×, Gemm 2×, LayerNormalization 2×, Mul 2×, Div 1×, Erf 1×
literals    3 values, part of the architecture
work        4.7 kFLOP per item
arena       384 B per item
items       independent, counted by batch

plan: 4 steps in 1 segment, 0 constants
  0 b1 f32[32] ← layer norm 1×32 ε 1e-5  b0 w0 w1  256 FLOP  (a/LayerNormalization)
  1 b2 f32[32] ← gemm 1×32·32×32 +w3 +gelu  b1 w2  2.1 kFLOP  (f/Gemm+gelu)
  2 b3 f32[32] ← layer norm 1×32 ε 1e-5  b2 w4 w5  256 FLOP  (b/LayerNormalization)
  3 b4 f32[32] ← gemm 1×32·32×32 +w7 +b0  b3 w6  2.1 kFLOP  (g/Gemm+residual)
";
    assert_eq!(out, expected);
}

#[test]
fn long_plans_show_where_the_scheduler_may_step_in() {
    let out = one("mobilenet_v2_035-0.onnx", &[]).out;
    let segments = out.lines().filter(|line| line.starts_with("--- segment ")).count();
    let head = out.lines().find(|line| line.starts_with("plan")).unwrap();
    assert!(segments > 1 && head.contains(&format!("in {segments} segments")), "{head}, {segments} shown");
}

#[test]
fn json_has_the_same_content_for_machines() {
    let said = one("mobilenet_v2_035-0.onnx", &["--json"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let document = said.json();
    assert_eq!(document["class"].as_str().unwrap().len(), 32);
    let image = json!({ "name": "image", "datatype": "FP32", "shape": ["batch", 3, 224, 224] });
    assert_eq!(document["inputs"], json!([image]));
    assert_eq!(document["outputs"][0]["shape"], json!([null, 1000]));
    assert_eq!((&document["free_dims"], &document["item_dim"]), (&json!(["batch"]), &json!("batch")));
    assert_eq!((&document["operators"]["Conv"], &document["operators"]["Clip"]), (&json!(52), &json!(35)));
    assert_eq!(document["weight_bytes"], 4 * document["parameters"].as_u64().unwrap());
    assert!(document["packed_bytes"].as_u64() >= document["weight_bytes"].as_u64());

    let plan = &document["plan"];
    let steps = plan["steps"].as_array().unwrap();
    let sum: u64 = steps.iter().map(|step| step["flop"].as_u64().unwrap()).sum();
    assert_eq!(plan["flop_per_item"], sum);
    assert_eq!(plan["items"], "batch");
    assert!(plan["arena_bytes_per_item"].as_u64().unwrap() > 0);
    let depthwise = steps.iter().find(|step| step["kind"] == "depthwise").unwrap();
    assert!(depthwise["name"].as_str().unwrap().ends_with("Conv+clip(0, 6)"), "{depthwise}");
    let last = steps.last().unwrap()["segment"].as_u64().unwrap();
    assert_eq!(plan["segments"], last + 1);
}

#[test]
fn a_plan_that_depends_on_free_dimensions_waits_for_their_values() {
    let without = one("bert_tiny-0.onnx", &[]);
    assert_eq!((without.status, without.err.as_str()), (0, ""));
    let last = without.out.lines().last().unwrap();
    assert_eq!(last, "plan        the plan depends on `free1`; choose --dim free1=N to see it");
    let document = one("bert_tiny-0.onnx", &["--json"]).json();
    assert_eq!((&document["missing_dims"], &document["plan"]), (&json!(["free1"]), &Value::Null));

    let with = one("bert_tiny-0.onnx", &["--dim", "free1=16"]);
    assert_eq!(with.status, 0, "{}", with.err);
    assert!(with.out.contains("\nplan at free1 = 16: 19 steps in 1 segment, 1 constant\n"), "{}", with.out);
    let flop = |length: &str| {
        let document = one("bert_tiny-0.onnx", &["--json", "--dim", length]).json();
        document["plan"]["flop_per_item"].as_u64().unwrap()
    };
    assert!(flop("free1=32") > 2 * flop("free1=16"), "attention grows faster than the length");
}

#[test]
fn dimensions_that_make_no_sense_are_refused_by_name() {
    let refused = |options: &[&str]| {
        let said = one("lstm-0.onnx", options);
        assert_eq!(said.status, 2, "{options:?}: {}", said.err);
        said.err
    };
    let err = refused(&["--dim", "time=4"]);
    assert!(err.contains("no free dimension `time`; it has `batch` and `free1`"), "{err}");
    let err = refused(&["--dim", "free1=4", "--dim", "free1=5"]);
    assert!(err.contains("`free1` is given twice"), "{err}");
    let err = refused(&["--dim", "free1=4", "--dim", "batch=5"]);
    assert!(err.contains("`batch` counts items"), "{err}");
    let err = refused(&["--dim", "free1=9999999999999"]);
    assert!(err.contains("input `x`") && err.contains("larger than"), "{err}");
    for word in ["free1", "free1=0", "free1=-1", "=3", "free1=1.5"] {
        let err = refused(&["--dim", word]);
        assert!(err.contains("sequence=128"), "{word}: {err}");
    }
}

#[test]
fn two_models_of_one_class_could_share_a_launch() {
    let Said { status, out, err } = two("block_fresh.onnx", "block_tuned.onnx");
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "one class: 8eb1c8ea8e3a70aac530c6d75a954880\nrequests to these two can share a launch\n"
    );
}

#[test]
fn two_classes_are_told_apart_by_their_first_difference() {
    let names = ["mobilenet_v2_035-0.onnx", "resnet26_narrow-0.onnx"];
    let said = two(names[0], names[1]);
    assert_eq!((said.status, said.err.as_str()), (1, ""));
    assert!(said.out.starts_with("two classes: "), "{}", said.out);
    let difference = said.difference();
    assert!(
        difference.starts_with("Conv `") && difference.ends_with("kernel_shape [3, 3] against [7, 7]"),
        "{difference}"
    );

    let paths = names.map(fixture);
    let said = inspect(paths.iter().map(|path| path.as_os_str()).chain([OsStr::new("--json")]));
    assert_eq!(said.status, 1);
    let document = said.json();
    assert_eq!((&document["one_class"], &document["difference"]), (&json!(false), &json!(difference)));
    assert_ne!(document["models"][0]["class"], document["models"][1]["class"]);
}

#[test]
fn another_epsilon_is_another_class_and_told_by_node_and_values() {
    let said = beside_edited("resnet26_narrow-0.onnx", |graph| {
        let node = graph.node.iter_mut().find(|node| node.op_type() == "BatchNormalization").unwrap();
        let epsilon = node.attribute.iter_mut().find(|attribute| attribute.name() == "epsilon").unwrap();
        epsilon.f = Some(0.001);
    });
    assert_eq!(said.status, 1, "{}", said.err);
    let wanted = "BatchNormalization `/bn1/BatchNormalization`: epsilon 1e-5 against 0.001";
    assert_eq!(said.difference(), wanted);
}

#[test]
fn another_clip_bound_is_another_class_and_told_by_node_and_values() {
    let said = beside_edited("mobilenet_v2_035-0.onnx", |graph| {
        let bound = graph.node.iter().find(|node| node.op_type() == "Clip").unwrap().input[2].clone();
        let constant = graph.node.iter_mut().find(|node| node.output.contains(&bound)).unwrap();
        constant.attribute[0].t.as_mut().unwrap().raw_data = Some(5.0f32.to_le_bytes().to_vec().into());
    });
    assert_eq!(said.status, 1, "{}", said.err);
    let difference = said.difference();
    assert!(
        difference.starts_with("Clip `") && difference.ends_with(": high bound 6 against 5"),
        "{difference}"
    );
}

#[test]
fn weights_alone_are_held_against_the_base_that_they_would_be_over() {
    let folder = tempfile::tempdir().unwrap();
    let (base, path) = (fixture("block_fresh.onnx"), folder.path().join("model.safetensors"));
    let linear = ["f.weight", "g.weight"].map(|name| (name, vec![32, 32]));
    let vectors =
        ["a.weight", "a.bias", "f.bias", "b.weight", "b.bias", "g.bias"].map(|name| (name, vec![32]));
    let all: Vec<(&str, Vec<usize>)> = linear.into_iter().chain(vectors).collect();
    let zeros = [0u8; 4 * 32 * 32];
    let write = |tensors: &[(&str, Vec<usize>)]| {
        let views = tensors.iter().map(|(name, dims)| {
            let bytes = &zeros[..4 * dims.iter().product::<usize>()];
            (*name, TensorView::new(Dtype::F32, dims.clone(), bytes).unwrap())
        });
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    };

    write(&all);
    let said = inspect([&base, &path]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.out.starts_with("one class: "), "{}", said.out);

    write(&all[1..]);
    let said = inspect([&base, &path]);
    assert_eq!(said.status, 1, "{}", said.err);
    assert!(said.out.contains("missing: `f.weight`"), "{}", said.out);

    std::fs::write(&path, "not tensors").unwrap();
    let said = inspect([&base, &path]);
    assert_eq!((said.status, said.out.as_str()), (2, ""));
    assert!(said.err.contains("is not a safetensors file"), "{}", said.err);
}

#[test]
fn a_bad_file_is_an_error_that_names_it_and_says_each_thing_once() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(fixture("mlp-0.onnx")).unwrap();
    let cases: [(&str, &[u8], &str); 3] = [
        ("empty.onnx", b"", "the file is empty"),
        ("text.onnx", b"this is no model at all", "not an ONNX model"),
        ("half.onnx", &whole[..whole.len() / 2], "not an ONNX model"),
    ];
    for (name, bytes, why) in cases {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        for arguments in [vec![path.clone()], vec![fixture("mlp-0.onnx"), path.clone()]] {
            let said = inspect(&arguments);
            assert_eq!((said.status, said.out.as_str()), (2, ""), "{name}");
            assert!(said.err.starts_with("tessera inspect: "), "{}", said.err);
            assert!(said.err.contains(name) && said.err.contains(why), "{}", said.err);
        }
    }
    let said = inspect([folder.path().join("absent.onnx")]);
    assert_eq!(said.status, 2);
    assert_eq!(said.err.matches("absent.onnx").count(), 1, "{}", said.err);
    assert_eq!(said.err.matches("os error").count(), 1, "{}", said.err);
}

#[test]
fn help_tells_the_exit_status() {
    let help = inspect(["--help"]);
    assert_eq!(help.status, 0);
    for part in ["--dim <NAME=N>", "--json", "Exit status: 0", "1 when two are not one class"] {
        assert!(help.out.contains(part), "{part} in {}", help.out);
    }
}
