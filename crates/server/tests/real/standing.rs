//! Whether what was agreed is kept, and can be: in the statistics, the metrics, and as an event.

use crate::client;
use crate::events::of_kind;
use crate::fixture;
use crate::served::{Served, binary, limited, settings};
use serde_json::json;

fn place(folder: &std::path::Path, tenant: &str, toml: &str) {
    std::fs::create_dir_all(folder.join(tenant)).unwrap();
    fixture::case("mlp-0").place(&folder.join(tenant).join("model.onnx"));
    std::fs::write(folder.join(tenant).join("tenant.toml"), toml).unwrap();
}

#[test]
fn an_slo_that_cannot_be_met_is_told_and_what_was_kept_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    place(folder.path(), "hopeless", "slo_ms = 0.0001\nslo_percentile = 95.0");
    place(folder.path(), "easy", "slo_ms = 60000.0");
    let served = Served::start(folder.path());
    let inputs = fixture::case("mlp-0").sets.remove(0).inputs;
    assert!((0..3).all(|_| served.ask("easy", &inputs).status == 200));
    // Asked for within a minute by the request itself, so that it is let in, and its tenant's SLO judged.
    assert_eq!(served.send(&limited(&binary("hopeless", &inputs), 60_000_000)).status, 200);

    client::eventually("both are judged", || {
        of_kind(&served, "cannot_meet").len() == 1 && of_kind(&served, "can_meet").len() == 1
    });
    let told = of_kind(&served, "cannot_meet").remove(0);
    let text = told["text"].as_str().unwrap();
    assert!(text.starts_with("alone p99 ") && text.contains("cannot meet 100ns for 95 %"), "{text}");
    assert_eq!((&told["tenant"], &told["numbers"]["slo_percentile"]), (&json!("hopeless"), &json!(95.0)));
    assert!(told["numbers"]["alone_ms"].as_f64().unwrap() > 0.0001, "{told}");

    let easy = served.get("/v2/models/easy/stats").json()["model_stats"][0].clone();
    assert_eq!((&easy["name"], &easy["version"]), (&json!("easy"), &json!("1")));
    // Three requests of three items each.
    assert_eq!(
        (&easy["inference_count"], &easy["inference_stats"]["success"]["count"]),
        (&json!(9), &json!(3)),
    );
    assert_eq!(
        (&easy["slo"]["in_time"], &easy["slo"]["text"]),
        (&json!(3), &json!("99 % asked, 100.0000 % kept of those let in, 0 refused"))
    );
    for (of, ever) in [("queue", "queue"), ("compute", "compute_infer"), ("total", "success")] {
        let recent = &easy["recent_ms"][of];
        let [p50, p95, p99] = ["p50", "p95", "p99"].map(|quantile| recent[quantile].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p95 && p95 <= p99, "{easy}");
        assert_eq!((&recent["count"], &easy["inference_stats"][ever]["count"]), (&json!(3), &json!(3)));
    }
    assert_eq!(easy["slo"]["verdicts"][0]["can_be_met"], true);
    let hopeless = served.get("/v2/models/hopeless/versions/1/stats").json()["model_stats"][0].clone();
    assert_eq!(
        (&hopeless["slo"]["percentile"], &hopeless["slo"]["verdicts"][0]["can_be_met"]),
        (&json!(95.0), &json!(false))
    );
    assert_eq!(served.get("/v2/models/nobody/stats").status, 404);

    assert_eq!(served.sample("tessera_deadlines_total{tenant=\"easy\",outcome=\"in_time\"}"), 3.0);
    assert_eq!(served.sample("tessera_slo_can_be_met{tenant=\"hopeless\"}"), 0.0);
    assert_eq!(served.sample("tessera_slo_can_be_met{tenant=\"easy\"}"), 1.0);
}

#[test]
fn whether_an_slo_can_be_met_is_told_at_load_and_measuring_it_counts_as_nobodys_traffic() {
    let folder = tempfile::tempdir().unwrap();
    place(folder.path(), "hopeless", "slo_ms = 0.0001");
    let served = Served::start(folder.path());
    client::eventually("it is judged", || of_kind(&served, "cannot_meet").len() == 1);
    let stats = served.get("/v2/models/hopeless/stats").json()["model_stats"][0].clone();
    assert_eq!(stats["slo"]["verdicts"][0]["can_be_met"], false, "{stats}");
    assert_eq!((&stats["execution_count"], &stats["slo"]["kept"]), (&json!(0), &json!(true)));
    for series in [
        "tessera_launches_total",
        "tessera_prediction_error_ratio",
        "tessera_launch_duration_seconds_count",
        "tessera_device_work_total",
    ] {
        assert_eq!(served.sample(series), 0.0, "{series}");
    }
    let page = served.get("/v2/models/hopeless/steps").json();
    assert_eq!(page["plans"][0]["launches"], 0, "{page}");

    let unmeasured = tempfile::tempdir().unwrap();
    place(unmeasured.path(), "hopeless", "slo_ms = 0.0001");
    let mut without = settings(unmeasured.path());
    without.profile = None;
    let served = Served::with(without);
    served.wait_ready();
    let stats = served.get("/v2/models/hopeless/stats").json()["model_stats"][0].clone();
    assert_eq!(stats["slo"]["verdicts"], json!([]), "nothing is known before its first request");
}

#[test]
fn a_request_refused_for_lateness_hears_the_predicted_time_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    place(folder.path(), "a", "");
    let served = Served::start(folder.path());
    let inputs = fixture::case("mlp-0").sets.remove(0).inputs;
    // Its plan was measured when it was loaded, before any request. A probe may be let in once in a second; then the next is refused.
    let late = limited(&binary("a", &inputs), 1);
    let refused = (0..100)
        .map(|_| served.send(&late))
        .find(|answer| String::from_utf8_lossy(&answer.body).contains("would answer in about"));
    let refused = refused.expect("one in a hundred is no probe");
    let error = refused.json()["error"].as_str().unwrap().to_owned();
    assert_eq!(refused.status, 504);
    assert!(error.contains("would answer in about") && error.contains("allowed"), "{error}");
    client::eventually("it counts", || {
        served.sample("tessera_deadlines_total{tenant=\"a\",outcome=\"refused\"}") > 0.0
    });
    let told = of_kind(&served, "refused").remove(0);
    assert_eq!(told["numbers"]["reason"], "too_late", "{told}");
}
