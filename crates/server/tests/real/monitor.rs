//! What is seen of launches, steps and devices, over HTTP and in the metrics.

use crate::client;
use crate::fixture;
use crate::served::{Served, settings};
use serde_json::{Value, json};
use tessera_device::StepTiming;

#[test]
fn every_step_of_a_models_launches_is_told_with_its_share_and_what_was_predicted() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &["mlp-0", "mlp-1"]);
    let served = Served::start(folder.path());
    let inputs = fixture::case("mlp-0").sets.remove(0).inputs;
    // Enough that the steps of several launches are timed. A class has one page, whoever of it was asked.
    (0..300).for_each(|_| assert_eq!(served.ask("mlp-0", &inputs).status, 200));
    let page = served.get("/v2/models/mlp-1/versions/1/steps").json();
    assert_eq!((&page["name"], &page["version"]), (&json!("mlp-1"), &json!("1")));
    let plan = &page["plans"][0];
    assert_eq!((&plan["device"], &plan["precision"]), (&json!("cpu"), &json!("fp32")));
    assert!(plan["launches"].as_u64() >= Some(300) && plan["sampled"].as_u64() >= Some(2), "{page}");
    for of in ["ms", "over_predicted"] {
        let [p50, p99] = ["p50", "p99"].map(|quantile| plan[of][quantile].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99, "{page}");
    }
    let steps = plan["steps"].as_array().unwrap();
    let shares: f64 = steps.iter().map(|step| step["share_percent"].as_f64().unwrap()).sum();
    assert!((shares - 100.0).abs() < 0.1, "{page}");
    assert_eq!((&steps[0]["kind"], &steps[0]["step"]), (&json!("gemm"), &json!(0)));
    assert!(steps.iter().all(|step| step["over_predicted"]["count"].as_u64() >= Some(1)), "{page}");
    client::eventually("the peak of this machine was measured", || {
        let page = served.get("/v2/models/mlp-0/steps").json();
        page["plans"][0]["steps"][0]["of_peak_percent"].as_f64() > Some(0.0)
    });
    assert_eq!(served.get("/v2/models/nobody/steps").status, 404);

    let class = plan["class"].as_str().unwrap();
    let of_class = format!("{{device=\"cpu\",class=\"{class}\",precision=\"fp32\"");
    for quantile in ["0.5", "0.95", "0.99"] {
        for series in ["tessera_class_launch_seconds", "tessera_class_over_predicted_ratio"] {
            let sample = served.sample(&format!("{series}{of_class},quantile=\"{quantile}\"}}"));
            assert!(sample > 0.0, "{series} {quantile}");
        }
    }
    let shares = served.sample(&format!("tessera_class_step_share_ratio{of_class},step="));
    assert!((shares - 1.0).abs() < 0.01, "the longest steps of two are all of them: {shares}");
}

#[test]
fn how_far_a_device_is_used_is_told_as_time_operations_and_bytes() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &["resnet26_narrow-0"]);
    let served = Served::start(folder.path());
    let used = || served.get("/v2").json()["devices"][0]["use"].clone();
    let part = |of: &Value| of.as_f64().is_some_and(|of| of > 0.0 && of <= 1.0);
    let inputs = fixture::case("resnet26_narrow-0").sets.remove(0).inputs;
    client::eventually("the device did something, and its peak was measured", || {
        assert_eq!(served.ask("resnet26_narrow-0", &inputs).status, 200);
        let used = used();
        part(&used["busy"]) && part(&used["flops"]) && part(&used["bytes"])
    });
    for of in ["busy", "flop", "bytes"] {
        let sample = served.sample(&format!("tessera_device_use_ratio{{device=\"cpu\",of=\"{of}\"}}"));
        assert!(sample > 0.0 && sample <= 1.0, "{of}: {sample}");
    }
    assert!(served.sample("tessera_device_busy_seconds_total{device=\"cpu\"}") > 0.0);
    assert!(used()["flops"].as_f64() < used()["busy"].as_f64(), "busy is not used: {}", used());
}

#[test]
fn launches_that_are_not_watched_answer_and_leave_no_trace_but_how_far_the_device_is_used() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &["mlp-0"]);
    let mut unwatched = settings(folder.path());
    unwatched.monitor = StepTiming::Off;
    let served = Served::with(unwatched);
    served.wait_ready();
    let inputs = fixture::case("mlp-0").sets.remove(0).inputs;
    (0..3).for_each(|_| assert_eq!(served.ask("mlp-0", &inputs).status, 200));
    let page = served.get("/v2/models/mlp-0/steps").json();
    let plan = &page["plans"][0];
    assert_eq!((&plan["launches"], &plan["sampled"]), (&json!(0), &json!(0)), "{page}");
    assert!(served.sample("tessera_device_busy_seconds_total{device=\"cpu\"}") > 0.0);
}
