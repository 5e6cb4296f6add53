//! What the server tells of itself: health, metadata, its repository, events, statistics, metrics; and of paths that lead nowhere.

use crate::client::json_request;
use crate::fake::{self, Served};
use crate::{ADD, add_body};
use serde_json::json;
use std::time::Duration;
use tessera_server::events::News;

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
    let not_ready = served.get("/v2/models/loading/ready");
    let why =
        json!({ "name": "loading", "ready": false, "error": "model `loading` is not ready: too large" });
    assert_eq!((not_ready.status, not_ready.json()), (503, why));
    assert_eq!(served.get("/v2/models/nobody/ready").status, 404);
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
        [("after=x", "`after`"), ("limit=0", "`limit`"), ("wait=999", "`wait`"), ("seq=1", "`seq`")]
    {
        let request = format!("GET /v2/events?{query} HTTP/1.1\r\nHost: t\r\n\r\n");
        served.refused(request.as_bytes(), 400, word);
    }
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

#[test]
fn what_triton_has_and_we_do_not_is_refused_with_what_to_do_instead() {
    let served = Served::start();
    for (path, instead) in [
        ("/v2/repository/models/add/unload", "by their files in the model repository"),
        ("/v2/systemsharedmemory/region/a/register", "in the request's body"),
        ("/v2/cudasharedmemory/status", "in the request's body"),
        ("/v2/trace/setting", "/v2/models/NAME/steps"),
        ("/v2/models/add/trace/setting", "/v2/models/NAME/steps"),
        ("/v2/logging", "`log_level`"),
        ("/v2/models/add/generate_stream", "/v2/models/NAME/infer"),
    ] {
        served.refused(&json_request(path, "{}"), 404, instead);
    }
}

#[test]
fn wrong_paths_and_verbs_are_told_in_json() {
    let served = Served::start();
    let missing = served.get("/v2/nothing");
    assert_eq!(missing.status, 404);
    let told = missing.json()["error"].as_str().unwrap().to_owned();
    assert!(told.contains("`/v2/nothing`") && told.contains("/v2/models/NAME"), "{told}");
    let wrong_verb = served.get(ADD);
    assert_eq!(wrong_verb.status, 405);
    let told = wrong_verb.json()["error"].as_str().unwrap().to_owned();
    assert!(told.starts_with("GET ") && told.contains("POST is for inference"), "{told}");
}
