//! A request and its answer, in each of their forms.

use crate::client::{binary_request, head, json_request};
use crate::fake::Served;
use crate::{ADD, add_body, changed};
use serde_json::{Value, json};

#[test]
fn a_request_in_json_is_answered_in_json() {
    let served = Served::start();
    let answer = served.post(ADD, &add_body().to_string());
    let expected = json!({ "model_name": "add", "model_version": "1", "id": "7", "outputs": [
        { "name": "z", "datatype": "FP32", "shape": [1, 4], "data": [1.5, 2.25, 3.0, 3.0] },
    ] });
    assert_eq!((answer.status, answer.json()), (200, expected));
}

#[test]
fn the_datatype_may_come_after_the_data() {
    let served = Served::start();
    let input = |name: &str| format!(r#"{{"data":[1,2,3,4],"datatype":"FP32","shape":[4],"name":"{name}"}}"#);
    let answer = served.post(ADD, &format!(r#"{{"inputs":[{},{}]}}"#, input("x"), input("y")));
    assert_eq!(answer.json()["outputs"][0]["data"], json!([2.0, 4.0, 6.0, 8.0]));
}

#[test]
fn binary_tensors_travel_both_ways() {
    let served = Served::start();
    let answer =
        served.send(&binary_request(ADD, &[("x", &[1.0, 2.0]), ("y", &[3.0, f32::NAN])], true, None));
    assert_eq!(answer.status, 200, "{answer:?}");
    let at: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    let json: Value = serde_json::from_slice(&answer.body[..at]).unwrap();
    assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], 8);
    assert!(json["outputs"][0].get("data").is_none());
    assert_eq!(answer.body[at..at + 4], 4.0f32.to_le_bytes());
    assert!(f32::from_le_bytes(answer.body[at + 4..].try_into().unwrap()).is_nan());
}

#[test]
fn an_output_chooses_its_form_against_the_default_of_the_request() {
    let served = Served::start();
    let body = changed(|body| {
        body["parameters"] = json!({ "binary_data_output": true });
        body["outputs"] = json!([{ "name": "z", "parameters": { "binary_data": false } }]);
    });
    assert_eq!(served.post(ADD, &body).json()["outputs"][0]["data"][0], 1.5);
}

#[test]
fn a_bare_tensor_is_the_one_input_of_its_model() {
    let served = Served::start();
    let tensor: Vec<u8> = (0u8..8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
    let request = [head("/v2/models/echo/infer", tensor.len(), Some("0")), tensor.clone()].concat();
    let answer = served.send(&request);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.ends_with(&tensor));
    served.refused(&head("/v2/models/echo/infer", 0, Some("0")), 400, "multiple of 16");
    served.refused(&head(ADD, 0, Some("0")), 400, "one input");
}

#[test]
fn nan_in_a_json_answer_is_an_error_that_names_the_way_out() {
    let served = Served::start();
    let request = binary_request(ADD, &[("x", &[f32::NAN]), ("y", &[0.0])], false, None);
    served.refused(&request, 400, "binary_data_output");
}

#[test]
fn names_are_decoded_and_versions_are_numbers() {
    let served = Served::start();
    assert_eq!(served.get("/v2/models/a%2Fb%20%C3%BC").json()["name"], "a/b ü");
    for version in ["x", "-1", "+1", "1.0"] {
        assert_eq!(served.get(&format!("/v2/models/add/versions/{version}")).status, 404, "{version}");
    }
    let body = add_body().to_string();
    served.refused(&json_request("/v2/models/add/versions/9/infer", &body), 404, "version 9");
    served.refused(
        &json_request("/v2/models/nobody/infer", &body),
        404,
        "Request for unknown model: `nobody` is not found; POST /v2/repository/index lists",
    );
    assert_eq!(served.get("/v2/models/%ff/ready").status, 400);
}

#[test]
fn many_tiny_chunks_are_one_body() {
    let served = Served::start();
    let mut request =
        format!("POST {ADD} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for byte in add_body().to_string().bytes() {
        request.extend_from_slice(&[b'1', b'\r', b'\n', byte, b'\r', b'\n']);
    }
    request.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(served.send(&request).status, 200);
}

#[test]
fn a_large_body_is_read_aside_and_answered_alike() {
    let served = Served::start();
    let many = vec![0.125f32; 100_000];
    let input = |name: &str| json!({ "name": name, "shape": [100_000], "datatype": "FP32", "data": many });
    let answer = served.post(ADD, &json!({ "inputs": [input("x"), input("y")] }).to_string());
    let data = answer.json()["outputs"][0]["data"].as_array().unwrap().clone();
    assert!(data.len() == 100_000 && data.iter().all(|value| value == 0.25));
}
