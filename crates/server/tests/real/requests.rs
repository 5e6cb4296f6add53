//! Requests that are wrong, too many, or broken off: each hears why, and nobody else notices.

use crate::client::{Answer, connect, eventually, head, json_request};
use crate::fixture::{Case, case, place};
use crate::served::{Served, binary, limited, place_blocker, settings};
use crate::tensors::{Form, Tensors, assert_right, bits, outputs, repeated, request};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::num::NonZeroU32;
use std::path::Path;
use tempfile::TempDir;
use tessera_core::Bytes;
use tessera_planner::Tensor;

const MLP: &str = "/v2/models/mlp-0/infer";
const BERT: &str = "/v2/models/bert_tiny-0/infer";
const MOST_BODY: usize = 4 << 20;

fn repository(tenants: &[&str]) -> TempDir {
    let repository = tempfile::tempdir().unwrap();
    place(repository.path(), tenants);
    place_blocker(repository.path());
    repository
}

impl Served {
    /// Expects a refusal with this status and word; then the server is live, and another tenant answers rightly.
    fn refused(&self, what: &str, request: &[u8], status: u16, word: &str) -> Answer {
        let answer = self.send(request);
        let error = answer.json()["error"].as_str().map(String::from);
        let error = error.unwrap_or_else(|| panic!("{what}: no error in {answer:?}"));
        let fits = answer.status == status && error.contains(word) && error.len() < 2000;
        assert!(fits, "{what}: {} is not {status} with `{word}`: {error}", answer.status);
        self.is_well(&case("mlp-1"));
        answer
    }

    fn is_well(&self, neighbour: &Case) {
        assert_eq!(self.get("/v2/health/live").status, 200);
        assert_eq!(self.get("/v2/health/ready").status, 200);
        let question = &neighbour.sets[0];
        assert_right(&neighbour.name, &self.answer(&neighbour.name, &question.inputs), &question.answer);
    }
}

/// A request in JSON for mlp-0, changed.
fn mlp(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut body = json!({ "inputs": [
        { "name": "x", "shape": [2, 64], "datatype": "FP32", "data": vec![0.5; 128] },
    ] });
    change(&mut body);
    json_request(MLP, &body.to_string())
}

fn floats(dims: &[usize]) -> Tensor {
    Tensor::from_elements(dims, &vec![0.5f32; dims.iter().product()])
}

fn ids(dims: &[usize]) -> Tensor {
    Tensor::from_elements(dims, &vec![1i64; dims.iter().product()])
}

fn named<const N: usize>(tensors: [(&str, Tensor); N]) -> Tensors {
    tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into()
}

#[test]
fn a_wrong_request_hears_what_is_wrong_and_its_neighbours_answers_stay_right() {
    let repository = repository(&["mlp-0", "mlp-1", "bert_tiny-0"]);
    let served = Served::with(tessera_server::Settings {
        max_body: Bytes(MOST_BODY as u64),
        ..settings(repository.path())
    });
    served.wait_ready();
    let (good, bert) = (&case("mlp-0").sets[0].inputs, &case("bert_tiny-0").sets[0].inputs);
    let shape = |shape: Value| mlp(|body| body["inputs"][0]["shape"] = shape);
    let with = |path: &str, inputs: &Tensors| request(path, inputs, Form::Binary, Form::Binary);
    let nested = |depth: usize| {
        let data = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        json_request(
            MLP,
            &format!(r#"{{"inputs":[{{"name":"x","shape":[1,64],"datatype":"FP32","data":{data}}}]}}"#),
        )
    };
    let numbers = vec![1.0; 600_000];
    let unequal = named([("input_ids", ids(&[2, 5])), ("attention_mask", ids(&[2, 6]))]);
    let long = named([("input_ids", ids(&[1, 5000])), ("attention_mask", ids(&[1, 5000]))]);
    // What is wrong, the request that is so, its status, and a word that the answer must hold.
    let cases = [
        ("an unknown tenant", with("/v2/models/nobody/infer", good), 404, "`nobody` is not found"),
        ("an unknown version", with("/v2/models/mlp-0/versions/7/infer", good), 404, "version 7"),
        (
            "a version in words",
            with("/v2/models/mlp-0/versions/last/infer", good),
            404,
            "versions are numbers",
        ),
        ("a wrong name", with(MLP, &named([("pixels", floats(&[2, 64]))])), 400, "pixels"),
        ("a missing input", with(BERT, &bert[..1].to_vec()), 400, "is missing"),
        ("a wrong datatype", with(MLP, &named([("x", ids(&[2, 64]))])), 400, "INT64"),
        ("a wrong extent", with(MLP, &named([("x", floats(&[2, 63]))])), 400, "64"),
        ("an axis too many", with(MLP, &named([("x", floats(&[2, 64, 1]))])), 400, "64"),
        ("an axis too few", with(MLP, &named([("x", floats(&[64]))])), 400, "64"),
        ("no items", with(MLP, &named([("x", floats(&[0, 64]))])), 400, "x"),
        ("lengths that disagree", with(BERT, &unequal), 400, "attention_mask"),
        ("a sentence beyond the model's positions", with(BERT, &long), 400, "5000"),
        ("an unknown output", mlp(|body| body["outputs"] = json!([{ "name": "logits" }])), 400, "logits"),
        ("a negative dimension", shape(json!([-2, 64])), 400, "negative"),
        ("an overflowing shape", shape(json!([1u64 << 62, 64])), 400, "overflows"),
        ("an overflowing shape with a zero", shape(json!([0, 1u64 << 62, 1u64 << 62])), 400, "overflows"),
        ("a promise of a terabyte", shape(json!([1u64 << 34, 64])), 400, "its data has 128"),
        ("fewer numbers than its shape", shape(json!([3, 64])), 400, "its data has 128"),
        ("more numbers than its shape", shape(json!([1, 64])), 400, "its data has more"),
        ("deep nesting", nested(100_000), 400, "nested"),
        ("deep nesting around it", json_request(MLP, &"[".repeat(1_000_000)), 400, "JSON"),
        (
            "megabytes of JSON that do not fit",
            mlp(|body| body["inputs"][0]["data"] = json!(numbers)),
            400,
            "more",
        ),
        ("not JSON at all", json_request(MLP, "\u{1}\u{2}"), 400, "JSON"),
    ];
    for (what, request, status, word) in cases {
        served.refused(what, &request, status, word);
    }
    // A body beyond the limit is refused before it is read. What was sent in vain may hide the answer, so only its head is.
    let announced = head(MLP, MOST_BODY + 1, None);
    served.refused("more than the server takes", &announced, 413, "max_body_bytes");
}

/// A binary request whose header names another length of JSON, and whose tensor is as long as `bytes`.
fn misframed(json_length: Option<&str>, says: usize, bytes: usize) -> Vec<u8> {
    let json = json!({ "inputs": [{ "name": "x", "shape": [1, 64], "datatype": "FP32",
                                    "parameters": { "binary_data_size": says } }] })
    .to_string();
    let true_length = json.len().to_string();
    let head = head(MLP, json.len() + bytes, Some(json_length.unwrap_or(&true_length)));
    [head, json.into_bytes(), vec![0; bytes]].concat()
}

#[test]
fn a_wrong_count_of_bytes_is_told_and_its_neighbours_answers_stay_right() {
    let repository = repository(&["mlp-0", "mlp-1"]);
    let served = Served::start(repository.path());
    for wrong in ["0", "1", "99999999999", "99999999999999999999999", "-1", "abc", "1.5", ""] {
        served.refused(&format!("header length {wrong}"), &misframed(Some(wrong), 256, 256), 400, "");
    }
    for (says, bytes, word) in [
        (255, 255, "takes 256"),
        (257, 257, "takes 256"),
        (256, 255, "255 bytes left"),
        (256, 257, "belong to no input"),
    ] {
        served.refused(&format!("{says} and {bytes} bytes"), &misframed(None, says, bytes), 400, word);
    }
    let answer = served.send(&misframed(None, 256, 256));
    assert_eq!(answer.status, 200, "the true lengths are right: {answer:?}");
}

#[test]
fn a_token_out_of_range_is_an_error_of_that_request_alone_even_in_a_shared_launch() {
    let repository = repository(&["mlp-1", "bert_tiny-0", "bert_tiny-1"]);
    let served = Served::start(repository.path());
    let question = |tenant: &str| case(tenant).sets.remove(0);
    let wrong = |token: i64| {
        let mut inputs = question("bert_tiny-0").inputs;
        let at = inputs.iter().position(|(name, _)| name == "input_ids").unwrap();
        let mut tokens = inputs[at].1.elements::<i64>().unwrap();
        tokens[7] = token;
        inputs[at].1 = Tensor::from_elements(inputs[at].1.dims(), &tokens);
        binary("bert_tiny-0", &inputs)
    };
    let tokens = [-1001, 1_000_000, i64::MIN, i64::MAX];
    for token in tokens {
        served.refused("a token out of range", &wrong(token), 400, &token.to_string());
    }
    // Lane-mates: the other tenant, and the same tenant's other requests before and after the wrong ones.
    let tenants = ["bert_tiny-0", "bert_tiny-1"];
    let good = tenants.map(|tenant| binary(tenant, &question(tenant).inputs));
    let alone = tenants.map(|tenant| served.answer(tenant, &question(tenant).inputs));
    let requests = [&good[..], &tokens.map(wrong), &good].concat();
    let together = served.together(&requests);
    assert_eq!((together.launches, together.lanes), (1.0, 2.0));
    for (at, answer) in together.answers.iter().enumerate() {
        match at {
            0 | 1 => assert_eq!(bits(&outputs(answer)), bits(&alone[at])),
            6 | 7 => assert_eq!(bits(&outputs(answer)), bits(&alone[at - 6])),
            _ => {
                let error = answer.json()["error"].as_str().unwrap().to_owned();
                let token = tokens[at - 2].to_string();
                assert!(answer.status == 400 && error.contains(&token), "{token}: {} {error}", answer.status);
            }
        }
    }
    served.is_well(&case("mlp-1"));
}

#[test]
fn a_full_queue_refuses_its_own_tenant_and_no_other() {
    let repository = repository(&["mlp-0", "mlp-1"]);
    let limit = NonZeroU32::new(2).unwrap();
    let served =
        Served::with(tessera_server::Settings { queue_requests: limit, ..settings(repository.path()) });
    served.wait_ready();
    let question = &case("mlp-0").sets[0];
    served.while_busy(|busy| {
        std::thread::scope(|scope| {
            let waiting: Vec<_> =
                (0..2).map(|_| scope.spawn(|| served.answer("mlp-0", &question.inputs))).collect();
            eventually("two wait, or it is too late", || served.queued() == 2.0 || !busy());
            let third = served.ask("mlp-0", &question.inputs);
            let other = scope.spawn(|| served.is_well(&case("mlp-1")));
            let was_busy = busy();
            for answer in waiting {
                assert_right("one that waited", &answer.join().unwrap(), &question.answer);
            }
            other.join().unwrap();
            was_busy.then(|| {
                assert_eq!(third.status, 429, "{third:?}");
                assert!(third.header("retry-after").is_some());
                let error = third.json()["error"].as_str().unwrap().to_owned();
                assert!(error.contains("mlp-0") && error.contains("2 of 2"), "{error}");
            })
        })
    });
    // There is room again.
    served.answer("mlp-0", &question.inputs);
}

#[test]
fn a_batch_larger_than_a_launch_is_answered_in_order_and_one_larger_than_its_queue_is_told_the_limit() {
    let repository = repository(&["mlp-0", "mlp-1"]);
    let two = NonZeroU32::new(2).unwrap();
    let served = Served::with(tessera_server::Settings {
        queue_requests: two,
        max_lanes: two,
        max_items: two,
        ..settings(repository.path())
    });
    served.wait_ready();
    let question = &case("mlp-0").sets[0];
    let launches = served.sample("tessera_launches_total{");
    // Three and four items, two to a launch.
    assert_right("in two parts", &served.answer("mlp-0", &question.inputs), &question.answer);
    assert!(served.sample("tessera_launches_total{") > launches);
    let four = served.answer("mlp-0", &repeated(&question.inputs, 4));
    assert_right("in two whole parts", &four, &repeated(&question.answer, 4));
    let five = binary("mlp-0", &repeated(&question.inputs, 5));
    served.refused("three parts, and two may wait", &five, 400, "send at most 4 at once");
}

#[test]
fn a_request_in_parts_has_one_deadline_and_one_without_has_none() {
    let repository = repository(&["mlp-0"]);
    let two = NonZeroU32::new(2).unwrap();
    let served = Served::with(tessera_server::Settings {
        max_lanes: two,
        max_items: two,
        ..settings(repository.path())
    });
    served.wait_ready();
    let inputs = repeated(&case("mlp-0").sets[0].inputs, 6);
    assert_eq!(served.send(&limited(&binary("mlp-0", &inputs), 60_000_000)).status, 200);
    assert_eq!(served.send(&binary("mlp-0", &inputs)).status, 200);
    let slo = served.get("/v2/models/mlp-0/stats").json()["model_stats"][0]["slo"].clone();
    let counts = ["in_time", "late", "expired", "refused"].map(|fate| slo[fate].as_u64().unwrap());
    assert_eq!(counts, [1, 0, 0, 0], "three launches, one answer");
    assert_eq!(served.sample("tessera_deadlines_total{tenant=\"mlp-0\""), 1.0);
}

#[test]
fn who_hangs_up_half_way_costs_no_launch_and_disturbs_nobody() {
    let repository = repository(&["mlp-0", "mlp-1"]);
    let served = Served::start(repository.path());
    let whole = binary("mlp-0", &case("mlp-0").sets[0].inputs);
    for part in [10, whole.len() / 2, whole.len() - 1] {
        connect(served.http).write_all(&whole[..part]).unwrap();
        served.is_well(&case("mlp-1"));
    }
    // One that was let in and waits is taken out of its queue.
    served.while_busy(|busy| {
        let mut socket = connect(served.http);
        socket.write_all(&whole).unwrap();
        eventually("it waits, or it is too late", || served.queued() == 1.0 || !busy());
        drop(socket);
        eventually("it waits no more", || served.queued() == 0.0);
        busy().then_some(())
    });
    served.is_well(&case("mlp-1"));
    eventually("its hanging up is counted", || {
        served.sample("tessera_requests_total{tenant=\"mlp-0\",outcome=\"hung_up\"}") >= 1.0
    });
}

#[test]
fn a_tenant_removed_while_its_requests_wait_tells_them() {
    let repository = repository(&["mlp-1"]);
    let at = |name: &str| -> std::path::PathBuf { Path::new(repository.path()).join(name) };
    let served = Served::start(repository.path());
    served.while_busy(|busy| {
        case("mlp-0").place(&at("going.onnx"));
        eventually("it is loaded", || served.get("/v2/models/going/ready").status == 200);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| served.ask("going", &case("mlp-0").sets[0].inputs));
            eventually("it waits, or it is too late", || served.queued() == 1.0 || !busy());
            fs::remove_file(at("going.onnx")).unwrap();
            eventually("it is gone", || served.get("/v2/models/going/ready").status == 404);
            let was_busy = busy();
            let answer = waiting.join().unwrap();
            was_busy.then(|| {
                let error = answer.json()["error"].as_str().unwrap().to_owned();
                assert!(
                    answer.status == 503 && error.contains("`going` was unloaded"),
                    "{}: {error}",
                    answer.status
                );
            })
        })
    });
    assert_eq!(served.send(&binary("going", &case("mlp-0").sets[0].inputs)).status, 404);
    served.is_well(&case("mlp-1"));
}

#[test]
fn a_length_that_needs_too_much_memory_is_refused_and_others_are_not() {
    let repository = repository(&["lstm-0", "mlp-1"]);
    let max_item_memory = Bytes(1 << 20);
    let served = Served::with(tessera_server::Settings { max_item_memory, ..settings(repository.path()) });
    served.wait_ready();
    let longer: Tensors = vec![("x".to_owned(), floats(&[1, 20_000, 32]))];
    let body = request("/v2/models/lstm-0/infer", &longer, Form::Binary, Form::Binary);
    served.refused("a series that is too long", &body, 400, "max_item_memory_bytes");
    served.is_well(&case("lstm-0"));
}

#[test]
fn more_lengths_at_once_than_plans_are_kept_are_all_answered() {
    let repository = repository(&["lstm-0", "mlp-1"]);
    let served =
        Served::with(tessera_server::Settings { max_plans: NonZeroU32::MIN, ..settings(repository.path()) });
    served.wait_ready();
    let inputs = &case("lstm-0").sets[0].inputs;
    let series = &inputs[0].1;
    let asked = |length: usize| -> Tensors {
        // One item of so many steps, cut from all that there are.
        let row = series.dims()[2] * size_of::<f32>();
        let bytes = series.bytes().iter().copied().cycle().take(length * row).collect::<Vec<u8>>();
        let dims = vec![1, length, series.dims()[2]];
        vec![(inputs[0].0.clone(), Tensor::new(series.dtype(), dims, bytes).unwrap())]
    };
    let lengths: Vec<usize> = (1..=8).collect();
    let alone: Vec<Tensors> = lengths.iter().map(|&length| served.answer("lstm-0", &asked(length))).collect();
    std::thread::scope(|scope| {
        for (length, alone) in lengths.iter().zip(&alone) {
            let (asked, served) = (asked(*length), &served);
            scope.spawn(move || {
                for _ in 0..40 {
                    assert_eq!(bits(&served.answer("lstm-0", &asked)), bits(alone), "length {length}");
                }
            });
        }
    });
    served.is_well(&case("mlp-1"));
}
