//! Requests that are refused, with the reason, and a server that goes on.

use crate::client::{binary_request, head, json_request};
use crate::fake::{self, Served};
use crate::{ADD, add_body, changed};
use serde_json::{Value, json};

#[test]
fn a_request_that_does_not_add_up_is_refused_and_the_server_lives() {
    let served = Served::start();
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32","data":{open}1{close}}}]}}"#)
    };
    let shape = |shape: Value| changed(|body| body["inputs"][0]["shape"] = shape);
    let data = |data: Value| changed(|body| body["inputs"][0]["data"] = data);
    let x = || add_body()["inputs"][0].clone();
    let without_data = changed(|body| drop(body["inputs"][0].as_object_mut().unwrap().remove("data")));
    // What is wrong, the body that is so, and a word that the answer must hold.
    let cases = [
        ("nothing", String::new(), "JSON"),
        ("half an object", "{\"inputs\":[".into(), "JSON"),
        ("not an object", "[]".into(), "expected an object"),
        ("fields without names", json!([null, null, [x()], null]).to_string(), "expected an object"),
        (
            "an input without names",
            changed(|body| body["inputs"][0] = json!(["x", [1], "FP32", null, [1]])),
            "expected an object",
        ),
        ("no inputs", "{}".into(), "inputs"),
        ("a wrong name", changed(|body| body["inputs"][0]["name"] = json!("pixels")), "pixels"),
        ("a name twice", json!({ "inputs": [x(), x()] }).to_string(), "twice"),
        ("no such datatype", changed(|body| body["inputs"][0]["datatype"] = json!("FP31")), "FP31"),
        ("strings", changed(|body| body["inputs"][0]["datatype"] = json!("BYTES")), "BYTES"),
        ("a shape too large", shape(json!([1, 5])), "5 elements and its data has 4"),
        ("a shape too small", shape(json!([1, 3])), "3 elements and its data has more"),
        ("a negative dimension", shape(json!([-1, 4])), "negative"),
        ("an overflowing shape", shape(json!([1u64 << 62, 4])), "overflows"),
        ("an overflowing shape with a zero", shape(json!([0, 1u64 << 62, 1u64 << 62])), "overflows"),
        ("a dimension beyond 63 bits", shape(json!([u64::MAX])), "JSON"),
        ("a promise of a terabyte", shape(json!([1u64 << 40])), "its data has 4"),
        ("a fraction as an extent", shape(json!([1.5])), "JSON"),
        ("many axes", shape(json!(vec![1; 33])), "32"),
        ("many inputs", json!({ "inputs": vec![x(); 257] }).to_string(), "256"),
        ("NaN", add_body().to_string().replace("0.25", "NaN"), "send the tensor as binary"),
        ("infinity", add_body().to_string().replace("0.25", " Infinity"), "send the tensor as binary"),
        (
            "minus infinity",
            add_body().to_string().replace("0.25", "\n-Infinity"),
            "send the tensor as binary",
        ),
        ("a number too large", data(json!([1e40, 0, 0, 0])), "FP32"),
        ("text for numbers", data(json!("abc")), "not an array"),
        ("no data", without_data, "binary_data_size"),
        (
            "an output twice",
            changed(|body| body["outputs"] = json!([{ "name": "z" }, { "name": "z" }])),
            "twice",
        ),
        ("an unknown output", changed(|body| body["outputs"] = json!([{ "name": "wanted" }])), "wanted"),
        ("a timeout in words", changed(|body| body["parameters"] = json!({ "timeout": "soon" })), "timeout"),
        ("nesting", nested(101), "nested"),
        ("deep nesting", nested(250_000), "nested"),
        ("deep nesting elsewhere", "[".repeat(250_000), "JSON"),
        ("deep parameters", format!(r#"{{"parameters":{}"#, r#"{"a":"#.repeat(100_000)), "JSON"),
        ("deep unknown fields", format!(r#"{{"mine":{}"#, "[".repeat(250_000)), "JSON"),
        (
            "a megabyte of datatype",
            changed(|b| b["inputs"][0]["datatype"] = json!("y".repeat(1 << 20))),
            "yyy",
        ),
        ("a megabyte for a number", shape(json!("z".repeat(1 << 20))), "JSON"),
    ];
    for (what, body, word) in cases {
        println!("{what}");
        let answer = served.refused(&json_request(ADD, &body), 400, word);
        assert!(answer.body.len() < 2000, "{what}: {} bytes of error", answer.body.len());
        served.refused(&json_request("/v2/models/nobody/infer", &body), 404, "`nobody` is not found");
    }
    served.refused(&json_request("/v2/models/add/versions/7/infer", "[]"), 404, "version 7 is not found");
    served.refused(&json_request("/v2/models/add/versions/new/infer", "[]"), 404, "versions are numbers");
}

#[test]
fn sequences_and_shared_memory_are_refused_by_name() {
    let served = Served::start();
    let body = changed(|body| body["parameters"] = json!({ "sequence_id": 5 }));
    served.refused(&json_request(ADD, &body), 501, "sequences");
    let body = changed(|body| body["inputs"][0]["parameters"] = json!({ "shared_memory_region": "r" }));
    served.refused(&json_request(ADD, &body), 501, "shared memory");
}

#[test]
fn a_wrong_header_length_is_refused_and_the_server_lives() {
    let served = Served::start();
    let tensors: [(&str, &[f32]); 2] = [("x", &[1.0, 2.0]), ("y", &[3.0, 4.0])];
    for wrong in ["99999999999", "99999999999999999999999", "-1", "abc", "", "0x10", "1.0"] {
        served.refused(
            &binary_request(ADD, &tensors, true, Some(wrong)),
            400,
            "Inference-Header-Content-Length",
        );
    }
    served.refused(&binary_request(ADD, &tensors, true, Some("5")), 400, "JSON");
}

#[test]
fn binary_sizes_that_disagree_with_the_body_are_refused() {
    let served = Served::start();
    let cases = [
        (json!(9), 9, "takes 8 bytes"),
        (json!(u64::MAX), 8, "takes 8 bytes"),
        (json!(-8), 8, "not negative"),
        (json!(8), 7, "7 bytes left"),
        (json!(8), 9, "1 bytes of the body belong to no input"),
    ];
    for (size, tensor_bytes, word) in cases {
        let x = json!({ "name": "x", "shape": [2], "datatype": "FP32", "parameters": { "binary_data_size": size } });
        let json = json!({ "inputs": [x] }).to_string();
        let mut request = head(ADD, json.len() + tensor_bytes, Some(&json.len().to_string()));
        request.extend_from_slice(json.as_bytes());
        request.resize(request.len() + tensor_bytes, 0);
        served.refused(&request, 400, word);
    }
}

#[test]
fn a_body_above_the_limit_is_refused_whether_announced_or_not() {
    let served = Served::start();
    assert_eq!(served.send(&head(ADD, fake::MOST_BODY + 1, None)).status, 413);
    let mut chunked =
        format!("POST {ADD} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 1 << 16], b"\r\n".to_vec()].concat();
    // One chunk above the limit and no more: what a closing server has not read could hide its answer.
    chunked.extend(chunk.repeat(fake::MOST_BODY / (1 << 16) + 1));
    assert_eq!(served.send(&chunked).status, 413);
    served.is_well();
}

#[test]
fn compressed_bodies_are_refused_by_name() {
    let served = Served::start();
    let request =
        format!("POST {ADD} HTTP/1.1\r\nHost: t\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{{}}");
    served.refused(request.as_bytes(), 400, "gzip");
}

#[test]
fn refusals_under_load_say_when_to_come_back() {
    let served = Served::start();
    let answer =
        served.refused(&json_request("/v2/models/full/infer", &add_body().to_string()), 429, "queue");
    assert_eq!(answer.header("retry-after").as_deref(), Some("1"));
}
