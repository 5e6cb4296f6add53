//! Weights of a tenant that come alone, over a base that has its architecture.

use super::{TARGET, changed, id, model};
use crate::common::{self, fixture, floats, int, node as operator, one_node, proto};
use prost::Message;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tessera_planner::SlotLayout;
use tessera_planner::class::{Model, ModelError, load, load_bytes, load_over_base};
use tessera_planner::graph::ParamId;
use tessera_planner::inspect::inspect;
use tessera_planner::onnx::proto::{ModelProto, TensorProto};
use tessera_planner::pack::{Sources, pack};
use tessera_planner::pack_cache::CacheKey;
use tessera_planner::source::read_weight;

/// The initializers of a model file, as a state dict of f32.
fn state_dict(proto: &ModelProto) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let tensors = proto.graph.as_ref().unwrap().initializer.iter();
    let dims = |tensor: &TensorProto| tensor.dims.iter().map(|&dim| dim as usize).collect();
    tensors.map(|tensor| (tensor.name().to_owned(), (dims(tensor), tensor.raw_data().to_vec()))).collect()
}

type Dict = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn write(dict: &Dict, dtype: Dtype, folder: &Path) -> PathBuf {
    let views =
        dict.iter().map(|(name, (dims, bytes))| (name, TensorView::new(dtype, dims.clone(), bytes).unwrap()));
    let path = folder.join("model.safetensors");
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path
}

fn weights(model: &Model) -> Vec<Vec<u8>> {
    let params = model.weights.iter().zip(&model.class.graph.params);
    params
        .map(|(source, param)| read_weight(source, param.dtype, &param.dims).unwrap().bytes().to_vec())
        .collect()
}

fn problems(base: &Model, dict: &Dict) -> String {
    let folder = tempfile::tempdir().unwrap();
    load_over_base(base, &write(dict, Dtype::F32, folder.path())).unwrap_err().to_string()
}

#[test]
fn tuned_weights_go_over_a_fresh_base_whose_equal_tensors_were_merged() {
    let folder = tempfile::tempdir().unwrap();
    let tuned = state_dict(&proto("block_tuned.onnx"));
    let base = model("block_fresh").without_weights();
    let over = load_over_base(&base, &write(&tuned, Dtype::F32, folder.path())).unwrap();
    assert_eq!(over.class.id, id("block_tuned"));
    assert_eq!(weights(&over), weights(&model("block_tuned")));
}

/// What an exporter that takes zeros out of the graph makes of a model whose biases are zeros.
fn without_biases(mut proto: ModelProto) -> ModelProto {
    let graph = proto.graph.as_mut().unwrap();
    let linear = graph.node.iter_mut().filter(|node| ["Conv", "Gemm"].contains(&node.op_type()));
    let gone: Vec<String> = linear.flat_map(|node| node.input.drain(2..)).collect();
    assert!(!gone.is_empty());
    graph.initializer.retain(|tensor| !gone.contains(&tensor.name.clone().unwrap_or_default()));
    proto
}

#[test]
fn a_bias_that_the_file_leaves_out_is_a_bias_of_zeros_and_none_of_its_parameters() {
    let tuned = model("mlp-0");
    let fresh = changed(&without_biases(proto("mlp-0.onnx")));
    assert_eq!(fresh.class.id, tuned.class.id);
    for ((left, was), name) in weights(&fresh).iter().zip(weights(&tuned)).zip(tuned.weight_names()) {
        match name.ends_with("bias") {
            true => assert!(left.len() == was.len() && left.iter().all(|&byte| byte == 0), "{name}"),
            false => assert_eq!(*left, was, "{name}"),
        }
    }
    assert_eq!(fresh.weight_names().collect::<Vec<_>>(), tuned.weight_names().collect::<Vec<_>>());
    let [all, some] = [&tuned, &fresh].map(|model| inspect(model, TARGET).unwrap());
    let biases = tuned.class.graph.params.iter().filter(|param| param.name.ends_with("bias"));
    let elements: usize = biases.clone().map(|param| param.dims[0]).sum();
    assert_eq!(all.weights - some.weights, biases.count());
    assert_eq!(all.parameters - some.parameters, elements as u64);
}

/// What is uploaded of a model, and the name under which it is cached.
fn packed(model: &Model) -> (Vec<u8>, Option<CacheKey>) {
    let (class, folded) = (&model.class, model.class.folded());
    let layout = SlotLayout::of(folded, TARGET).unwrap();
    let mut source = |id: ParamId| Ok(model.weights[id.0 as usize].clone());
    let sources = Sources::of(&class.graph, folded, &mut source).unwrap();
    let key = CacheKey::new(class.id, folded, &layout, &sources, SystemTime::now());
    (pack(&class.graph, folded, &layout, &mut source).unwrap().bytes().to_vec(), key)
}

#[test]
fn biases_left_out_pack_as_zeros_do_and_are_cached_apart_from_others() {
    for name in ["mlp-0", "block_tuned", "mobilenet_v2_035-0"] {
        let tuned = proto(&format!("{name}.onnx"));
        let mut zeros = tuned.clone();
        let graph = zeros.graph.as_mut().unwrap();
        let linear = graph.node.iter().filter(|node| ["Conv", "Gemm"].contains(&node.op_type()));
        let biases: Vec<String> = linear.flat_map(|node| node.input[2..].to_vec()).collect();
        for tensor in
            graph.initializer.iter_mut().filter(|tensor| biases.contains(&tensor.name.clone().unwrap()))
        {
            tensor.raw_data = Some(vec![0; tensor.raw_data().len()].into());
        }
        let [tuned, zeros, left_out] =
            [tuned.clone(), zeros, without_biases(tuned)].map(|proto| packed(&changed(&proto)));
        assert_eq!(left_out.0, zeros.0, "{name}");
        assert_ne!(left_out.0, tuned.0, "{name}");
        assert!(left_out.1.is_some() && left_out.1 != tuned.1, "{name}");
    }
}

#[test]
fn a_file_cannot_ask_for_a_bias_larger_than_its_weight() {
    for (inputs, group) in [(0, 1 << 40), (2, 1 << 40), (2, 0)] {
        let kernel = vec![0.5; inputs * 4];
        let deconv = operator("ConvTranspose", &["x", "w"], &["y"], vec![int("group", group)]);
        let graph = one_node(
            &[("x", &[0, inputs as i64, 3])],
            vec![floats("w", &[inputs as i64, 4, 1], &kernel)],
            deconv,
        );
        if let Ok(made) = load_bytes(common::model(17, graph).encode_to_vec(), None) {
            assert_eq!(made.class.weights, 1, "{inputs} channels in {group} groups");
        }
    }
}

#[test]
fn a_base_without_biases_takes_weights_with_and_without_them() {
    let folder = tempfile::tempdir().unwrap();
    let base = changed(&without_biases(proto("mlp-0.onnx"))).without_weights();
    let mut dict = state_dict(&proto("mlp-1.onnx"));
    let over = load_over_base(&base, &write(&dict, Dtype::F32, folder.path())).unwrap();
    assert_eq!(weights(&over), weights(&model("mlp-1")));

    dict.retain(|name, _| !name.ends_with("bias"));
    let over = load_over_base(&base, &write(&dict, Dtype::F32, folder.path())).unwrap();
    assert_eq!(weights(&over), weights(&changed(&without_biases(proto("mlp-1.onnx")))));

    dict.insert("net.0.bias".into(), (vec![1], vec![0; 4]));
    let said = problems(&base, &dict);
    assert!(said.contains("wrong shape") || said.contains("extra"), "{said}");
}

#[test]
fn a_base_takes_its_own_initializers_too() {
    let folder = tempfile::tempdir().unwrap();
    let base = model("block_fresh");
    let own = state_dict(&proto("block_fresh.onnx"));
    let over = load_over_base(&base, &write(&own, Dtype::F32, folder.path())).unwrap();
    assert_eq!(weights(&over), weights(&base));
}

/// Names as PyTorch has them, for a base that was exported from a wrapper `m` with its linear layers renamed.
fn as_pytorch_has_it(model: &Model) -> Dict {
    let mut dict = Dict::new();
    let graph = &model.class.graph;
    let bias_after = |weight: usize| {
        let value = graph.params[weight].value;
        let product = graph.nodes.iter().find(|node| node.inputs.contains(&Some(value))).unwrap();
        let add = graph.nodes.iter().find(|node| node.inputs.contains(&product.outputs[0])).unwrap();
        let params = add.inputs.iter().flatten().filter_map(|value| graph.param(*value));
        params.map(|param| param.name.clone()).next().unwrap()
    };
    for ((index, source), name) in model.weights.iter().enumerate().zip(model.weight_names()) {
        let param = &graph.params[index];
        let tensor = read_weight(source, param.dtype, &param.dims).unwrap();
        let (name, dims, bytes) = match name.contains("::") {
            false => (name.to_owned(), param.dims.clone(), tensor.bytes().to_vec()),
            true => {
                let [k, n] = param.dims[..] else { panic!("{name} is no matrix") };
                let element = |at: usize| &tensor.bytes()[4 * at..4 * at + 4];
                let bytes =
                    (0..n).flat_map(|col| (0..k).flat_map(move |row| element(row * n + col))).copied();
                (bias_after(index).replace(".bias", ".weight"), vec![n, k], bytes.collect())
            }
        };
        dict.insert(name.strip_prefix("m.").unwrap().to_owned(), (dims, bytes));
    }
    dict
}

#[test]
fn renamed_and_transposed_weights_are_found_by_their_state_dict_names() {
    let folder = tempfile::tempdir().unwrap();
    let (base, other) = (model("bert_tiny-0"), model("bert_tiny-1"));
    let mut dict = as_pytorch_has_it(&other);
    assert!(dict.contains_key("encoder.layer.1.attention.self.query.weight"), "{:?}", dict.keys());
    let over = load_over_base(&base, &write(&dict, Dtype::F32, folder.path())).unwrap();
    assert_eq!(weights(&over), weights(&other));

    // The same with a prefix that the base does not have.
    dict = dict.into_iter().map(|(name, tensor)| (format!("m.{name}"), tensor)).collect();
    let over = load_over_base(&base, &write(&dict, Dtype::F32, folder.path())).unwrap();
    assert_eq!(weights(&over), weights(&other));
}

#[test]
fn halves_become_singles() {
    let folder = tempfile::tempdir().unwrap();
    let base = model("mlp-0");
    let mut dict = state_dict(&proto("mlp-1.onnx"));
    for (_, bytes) in dict.values_mut() {
        // The upper half of a single is a bfloat16.
        *bytes = bytes.chunks_exact(4).flat_map(|single| [single[2], single[3]]).collect();
    }
    let over = load_over_base(&base, &write(&dict, Dtype::BF16, folder.path())).unwrap();
    let cut = |bytes: &[u8]| {
        bytes.chunks_exact(4).flat_map(|single| [0, 0, single[2], single[3]]).collect::<Vec<u8>>()
    };
    let expected: Vec<Vec<u8>> = weights(&model("mlp-1")).iter().map(|bytes| cut(bytes)).collect();
    assert_eq!(weights(&over), expected);
}

#[test]
fn everything_that_does_not_fit_is_listed_at_once() {
    let base = model("block_fresh");
    let mut dict = state_dict(&proto("block_tuned.onnx"));
    dict.remove("g.bias");
    let a = dict.remove("a.weight").unwrap();
    dict.insert("a.wight".into(), a);
    dict.insert("f.weight".into(), (vec![16, 64], vec![0; 4096]));
    let said = problems(&base, &dict);
    let lines: Vec<&str> = said.lines().map(str::trim).skip(1).collect();
    let expected = [
        "wrong shape: `f.weight` is [16, 64], and [32, 32] is wanted",
        "missing: `a.weight`",
        "missing: `g.bias`",
        "extra: `a.wight`",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_wrong_type_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dict = state_dict(&proto("mlp-1.onnx"));
    let path = write(&dict, Dtype::I32, folder.path());
    let error = load_over_base(&model("mlp-0"), &path).unwrap_err().to_string();
    assert!(error.contains("wrong type: `f.0.weight` is i32, and f32 is wanted"), "{error}");
}

#[test]
fn counters_of_a_state_dict_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dict = state_dict(&proto("mlp-1.onnx"));
    let count = 7i64.to_le_bytes();
    let mut views: Vec<_> = dict
        .iter()
        .map(|(name, (dims, bytes))| {
            (name.clone(), TensorView::new(Dtype::F32, dims.clone(), bytes).unwrap())
        })
        .collect();
    views.push(("bn.num_batches_tracked".into(), TensorView::new(Dtype::I64, vec![], &count).unwrap()));
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    load_over_base(&model("mlp-0"), &path).unwrap();
}

#[test]
fn a_header_that_lies_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let base = model("mlp-0");
    let header = |json: &str, data: usize| {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    };
    let f =
        |offsets: &str| format!(r#"{{"f.0.bias":{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}}}"#);
    let two = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let files = [
        ("empty", vec![]),
        ("seven bytes", vec![0; 7]),
        ("giant header", [u64::MAX.to_le_bytes().to_vec(), vec![0; 64]].concat()),
        ("header beyond the file", [1000u64.to_le_bytes().to_vec(), vec![b' '; 64]].concat()),
        ("not JSON", header("not JSON", 8)),
        ("not UTF-8", header("{\"a\u{0}", 8)),
        ("outside", header(&f("[0,8]"), 4)),
        ("trailing", header(&f("[0,8]"), 12)),
        ("backwards", header(&f("[8,0]"), 8)),
        ("a gap", header(&f("[4,12]"), 12)),
        ("overflow", header(&f("[0,18446744073709551615]"), 8)),
        ("overlapping", header(two, 4)),
        ("too long for its shape", header(&f("[0,12]"), 12)),
        ("negative", header(&f("[-1,8]"), 8)),
    ];
    for (what, bytes) in files {
        std::fs::write(&path, &bytes).unwrap();
        let error =
            load_over_base(&base, &path).map(|_| ()).map_err(ModelError::from).unwrap_err().to_string();
        assert!(error.contains("not a safetensors file"), "{what}: {error}");
    }
    assert!(load_over_base(&base, &folder.path().join("none")).is_err());
    assert!(load_over_base(&base, folder.path()).is_err());
}

#[test]
fn the_real_minilm_fits_its_own_base_but_for_a_head_that_it_does_not_use() {
    let weights = fixture("minilm_l6_v2/model.safetensors");
    if !weights.exists() {
        eprintln!("skipped: MiniLM's real weights are absent; scripts/fetch-minilm brings them");
        return;
    }
    let base = load(&fixture("minilm_l6_v2/model.onnx")).unwrap();
    let error = load_over_base(&base, &weights).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().map(str::trim).skip(1).collect();
    assert_eq!(lines, ["extra: `pooler.dense.bias`", "extra: `pooler.dense.weight`"]);
}
