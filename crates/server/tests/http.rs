//! The wire, over real sockets, with a few lines of arithmetic behind it.
//!
//! `add` gives x + y, element by element; `echo` gives x; `slow` answers when it is told to, `full` never. The
//! client is written by hand on a blocking socket, because most of what it says no decent client would.

// What fails to be as it should, in a test or its helpers, is best told where it was.
#![allow(clippy::unwrap_used)]

mod client;
mod fake;

use client::{Answer, binary_request, head, json_request};
use fake::Served;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tessera_server::Settings;
use tessera_server::events::News;

const ADD: &str = "/v2/models/add/infer";

fn add_body() -> Value {
    json!({ "id": "7", "inputs": [
        { "name": "x", "shape": [1, 4], "datatype": "FP32", "data": [[1, 2, 3, 4]] },
        { "name": "y", "shape": [1, 4], "datatype": "FP32", "data": [0.5, 0.25, 0, -1] },
    ] })
}

/// `add_body` with one change.
fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut body = add_body();
    change(&mut body);
    body.to_string()
}

#[test]
fn health_and_metadata_say_what_two_kinds_of_clients_read() {
    let served = Served::start();
    for path in ["/v2", "/v2/"] {
        let server = served.get(path);
        assert_eq!((server.status, &server.json()["name"]), (200, &json!("tessera")));
        let device = json!({ "name": "fake:0", "description": "some arithmetic", "running": true, "tenants": 6,
                "use": { "busy": 0.0, "flops": null, "bytes": null, "busy_seconds": 0.0 } });
        assert_eq!(server.json()["devices"], json!([device]));
    }
    assert_eq!(served.get("/v2/health/live").json(), json!({ "live": true }));
    assert_eq!(served.get("/v2/health/ready").json(), json!({ "live": true, "ready": true }));
    assert_eq!(served.get("/v2/models/add/ready").json(), json!({ "name": "add", "ready": true }));
    assert_eq!(served.get("/v2/models/loading/ready").status, 503);
    let described = served.get("/v2/models/add/versions/1").json();
    assert_eq!(described["platform"], "onnx_onnxv1");
    assert_eq!(described["versions"], json!(["1"]));
    assert_eq!(described["inputs"][0], json!({ "name": "x", "datatype": "FP32", "shape": [-1, 4] }));
    let configured = served.get("/v2/models/add/config").json();
    assert_eq!((&configured["name"], &configured["max_batch_size"]), (&json!("add"), &json!(0)));
    assert_eq!(configured["input"][1], json!({ "name": "y", "data_type": "TYPE_FP32", "dims": [-1, 4] }));
    assert_eq!(configured["output"][0]["name"], "z");
    assert_eq!(served.get("/v2/models/add/versions/1/config").json(), configured);
    assert_eq!(served.get("/v2/models/nobody/config").status, 404);
}

#[test]
fn the_repository_index_lists_states_and_reasons() {
    let served = Served::start();
    let index = "/v2/repository/index";
    let all = served.post(index, "");
    assert_eq!((all.status, all.json().as_array().unwrap().len()), (200, 6));
    let loading = json!({ "name": "loading", "version": "1", "state": "UNAVAILABLE", "reason": "too large" });
    assert_eq!(all.json()[4], loading);
    let ready = served.post(index, r#"{"ready": true}"#).json();
    assert!(
        ready.as_array().unwrap().iter().all(|listed| listed["state"] == "READY" && listed["reason"] == "")
    );
    assert_eq!(ready.as_array().unwrap().len(), 5);
    assert_eq!(served.post(index, r#"{"ready": false}"#).json(), all.json());
    served.refused(&json_request(index, r#"{"ready": 1}"#), 400, "`ready`");
    served.refused(&json_request(index, "what?"), 400, "`ready`");
    served.refused(&json_request(index, "[true]"), 400, "`ready`");
}

#[test]
fn events_are_read_from_where_the_reader_was_and_waited_for() {
    let served = Served::start();
    let news = |text: &str| {
        let (text, numbers) = (text.to_owned(), Default::default());
        served.fake.events.tell(News { kind: "loaded", device: None, who: None, text, numbers });
    };
    assert_eq!(served.get("/v2/events").json(), json!({ "events": [], "next": 0, "lost": 0 }));
    ["a", "b", "c"].into_iter().for_each(news);
    let page = served.get("/v2/events?after=1&limit=1").json();
    assert_eq!((&page["events"][0]["seq"], &page["events"][0]["text"]), (&json!(2), &json!("b")));
    assert_eq!((page["events"].as_array().unwrap().len(), &page["next"]), (1, &json!(2)));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| served.get("/v2/events?after=3&wait=60"));
        std::thread::sleep(Duration::from_millis(20));
        news("d");
        assert_eq!(reader.join().unwrap().json()["events"][0]["text"], "d");
    });
}

#[test]
fn a_query_for_events_that_makes_no_sense_is_refused() {
    let served = Served::start();
    for (query, word) in
        [("after=x", "'after'"), ("limit=0", "'limit'"), ("wait=999", "'wait'"), ("seq=1", "'seq'")]
    {
        let request = format!("GET /v2/events?{query} HTTP/1.1\r\nHost: t\r\n\r\n");
        served.refused(request.as_bytes(), 400, word);
    }
}

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
        "Request for unknown model: 'nobody'",
    );
    assert_eq!(served.get("/v2/models/%ff/ready").status, 400);
}

#[test]
fn a_body_that_stops_coming_is_refused_and_its_connection_closed() {
    let mut settings = Settings::for_repository("unused");
    settings.idle_timeout = Duration::from_millis(300);
    let served = Served::with(settings);
    let request = json_request(ADD, &add_body().to_string());
    let mut socket = served.connect();
    socket.write_all(&request[..request.len() - 5]).unwrap();
    let answer = Answer::read(&mut socket);
    assert_eq!(answer.status, 408);
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("300ms") && error.contains("idle_timeout_s"), "{error}");
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0, "closed");
    served.is_well();
}

#[test]
fn a_client_that_never_reads_its_answer_is_let_go() {
    let mut settings = Settings::for_repository("unused");
    settings.idle_timeout = Duration::from_millis(300);
    let served = Served::with(settings);
    // As text it is three times as long, and more than sockets keep for each other.
    let many: Vec<f32> = (0..900_000).map(|number| 1.0 / (number as f32 + 0.7)).collect();
    let request = binary_request("/v2/models/echo/infer", &[("x", &many)], false, None);
    let mut socket = served.connect();
    socket.write_all(&request).unwrap();
    served.eventually(|| served.metrics_page().contains(r#"{tenant="echo",outcome="answered"} 1"#));
    served.eventually(|| served.metrics_page().contains("tessera_http_connections 0"));
    served.is_well();
}

#[test]
fn wrong_paths_and_verbs_are_told_in_json() {
    let served = Served::start();
    let missing = served.get("/v2/nothing");
    assert_eq!(missing.status, 404);
    let told = missing.json()["error"].as_str().unwrap().to_owned();
    assert!(told.contains("'/v2/nothing'") && told.contains("/v2/models/NAME"), "{told}");
    let wrong_verb = served.get(ADD);
    assert_eq!(wrong_verb.status, 405);
    let told = wrong_verb.json()["error"].as_str().unwrap().to_owned();
    assert!(told.starts_with("GET ") && told.contains("POST is for inference"), "{told}");
    // Triton's clients may ask for this.
    let unload = json_request("/v2/repository/models/add/unload", "{}");
    served.refused(&unload, 404, "by their files in the model repository");
}

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
        served.refused(&json_request("/v2/models/nobody/infer", &body), 404, "'nobody' is not found");
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

#[test]
fn compressed_bodies_are_refused_by_name() {
    let served = Served::start();
    let request =
        format!("POST {ADD} HTTP/1.1\r\nHost: t\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{{}}");
    served.refused(request.as_bytes(), 400, "gzip");
}

#[test]
fn nonsense_on_the_socket_disturbs_nobody() {
    let served = Served::start();
    for nonsense in [&b"\0\xff\x16\x03\x01 hello\r\n\r\n"[..], b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n"] {
        let mut socket = served.connect();
        socket.write_all(nonsense).unwrap();
        let _ = socket.read(&mut [0; 512]);
    }
    let endless = [b"GET /v2 HTTP/1.1\r\n".to_vec(), b"a: b\r\n".repeat(100_000)].concat();
    let _ = served.connect().write_all(&endless);
    served.is_well();
}

#[test]
fn refusals_under_load_say_when_to_come_back() {
    let served = Served::start();
    let answer =
        served.refused(&json_request("/v2/models/full/infer", &add_body().to_string()), 429, "queue");
    assert_eq!(answer.header("retry-after").as_deref(), Some("1"));
}

#[test]
fn timeouts_reach_the_backend_and_parameters_that_are_not_kept_disturb_nothing() {
    let served = Served::start();
    let body = changed(|body| body["parameters"] = json!({ "timeout": 1500, "priority": 2, "mine": "x" }));
    assert_eq!(served.post(ADD, &body).status, 200);
    let seen = served.fake.last();
    assert_eq!(seen.timeout, Some(Duration::from_micros(1500)));
}

#[test]
fn the_shortest_timeout_counts_whether_a_header_or_the_body_says_it() {
    let served = Served::start();
    for (headers, parameter, expected) in [
        (&["700"][..], None, Some(700)),
        (&["700"], Some(1500), Some(700)),
        (&["1500"], Some(700), Some(700)),
        (&["1500", "700"], None, Some(700)),
        (&["0"], Some(700), Some(700)),
        (&["700"], Some(0), Some(700)),
        (&["0"], None, None),
        (&[], None, None),
    ] {
        println!("headers {headers:?}, parameter {parameter:?}");
        let body = match parameter {
            Some(micros) => changed(|body| body["parameters"] = json!({ "timeout": micros })),
            None => add_body().to_string(),
        };
        let answer = served.send(&with_timeouts(&json_request(ADD, &body), headers));
        assert_eq!(answer.status, 200);
        assert_eq!(served.fake.last().timeout, expected.map(Duration::from_micros));
    }
}

#[test]
fn a_body_without_json_has_the_timeout_of_its_header() {
    let served = Served::start();
    let request = [head("/v2/models/echo/infer", 16, Some("0")), vec![0; 16]].concat();
    assert_eq!(served.send(&with_timeouts(&request, &["700"])).status, 200);
    assert_eq!(served.fake.last().timeout, Some(Duration::from_micros(700)));
}

#[test]
fn a_timeout_header_that_is_no_number_is_refused() {
    let served = Served::start();
    let request = json_request(ADD, &add_body().to_string());
    for wrong in ["soon", "-1", "+1", "1.5", "", "99999999999999999999999", "\u{e9}"] {
        served.refused(&with_timeouts(&request, &[wrong]), 400, "Inference-Timeout-Us");
        served.refused(&with_timeouts(&request, &["700", wrong]), 400, "Inference-Timeout-Us");
    }
    served.is_well();
}

/// The request with a header for each of the timeouts.
fn with_timeouts(request: &[u8], timeouts: &[&str]) -> Vec<u8> {
    let end = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let headers: String = timeouts.iter().map(|word| format!("\r\nInference-Timeout-Us: {word}")).collect();
    [&request[..end], headers.as_bytes(), &request[end..]].concat()
}

/// The connection of a request that the model has, and that nobody has answered yet.
fn one_in_flight(served: &Served) -> TcpStream {
    let mut busy = served.connect();
    busy.write_all(&json_request("/v2/models/slow/infer", &add_body().to_string())).unwrap();
    served.eventually(|| served.fake.waiting() == 1);
    busy
}

#[test]
fn a_client_that_hangs_up_cancels_its_request() {
    let served = Served::start();
    let socket = one_in_flight(&served);
    drop(socket);
    served.eventually(|| served.fake.waiting() == 0);
    let counted = r#"tessera_requests_total{tenant="slow",outcome="hung_up"} 1"#;
    served.eventually(|| served.metrics_page().contains(counted));
    // Who closes its own side alone.
    let mut socket = one_in_flight(&served);
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    served.eventually(|| served.fake.waiting() == 0);
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0, "there is no answer");
    // In the middle of a body, and in the middle of a head.
    for part in [head(ADD, 1000, None), b"POST /v2/mod".to_vec()] {
        served.connect().write_all(&part).unwrap();
    }
    served.is_well();
    served.eventually(|| served.metrics_page().contains("tessera_http_connections 0"));
}

#[test]
fn requests_in_flight_are_answered_after_the_signal_to_stop() {
    let served = Served::start();
    let mut idle = served.connect();
    idle.write_all(b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut idle).status, 200);
    let mut busy = one_in_flight(&served);
    served.stop();
    // Who was idle is let go, nobody new is let in, and the busy one still waits.
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0);
    served.eventually(|| TcpStream::connect(served.address).is_err());
    assert_eq!(served.fake.waiting(), 1);
    served.fake.release();
    assert_eq!(Answer::read(&mut busy).status, 200);
    assert_eq!(served.ended(), 0);
}

#[test]
fn the_grace_of_a_shutdown_has_an_end() {
    let served = Served::start();
    let mut busy = one_in_flight(&served);
    let asked = Instant::now();
    served.stop();
    assert_eq!(served.ended(), 1);
    assert!(asked.elapsed() >= fake::GRACE);
    assert_eq!(busy.read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn who_is_in_a_hurry_does_not_wait_for_the_end_of_the_grace() {
    let served = Served::start();
    let mut busy = one_in_flight(&served);
    let asked = Instant::now();
    served.stop();
    served.hurry();
    assert_eq!(served.ended(), 1);
    assert!(asked.elapsed() < fake::GRACE);
    assert_eq!(busy.read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn statistics_are_those_of_one_model_or_of_all() {
    let served = Served::start();
    let names = |path: &str| -> Vec<String> {
        let shown = served.get(path).json();
        let all = shown["model_stats"].as_array().unwrap().iter();
        all.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("/v2/models/add/stats"), ["add"]);
    assert_eq!(names("/v2/models/stats"), fake::NAMES);
}

#[test]
fn metrics_count_what_was_answered_and_refused() {
    let served = Served::start();
    served.post(ADD, &add_body().to_string());
    served.post(ADD, "{");
    served.post("/v2/models/nobody/infer", &add_body().to_string());
    let page = served.metrics_page();
    for line in [
        r#"tessera_requests_total{tenant="add",outcome="answered"} 1"#,
        r#"tessera_requests_total{tenant="add",outcome="invalid"} 1"#,
        r#"tessera_requests_total{tenant="",outcome="not_found"} 1"#,
        r#"tessera_request_duration_seconds_count{tenant="add"} 1"#,
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    assert!(!page.contains("nobody"));
}
