//! What whoever runs the server hears: over HTTP, in order, with names and reasons.

use crate::fixture;
use crate::served::{Served, binary, settings};
use crate::{client, served};
use serde_json::{Value, json};
use std::num::NonZeroU32;
use std::time::Duration;

/// All events, checked to be numbered without gaps.
pub(crate) fn events(served: &Served) -> Vec<Value> {
    let page = served.get("/v2/events?limit=1000").json();
    let events = page["events"].as_array().unwrap().clone();
    assert!(events.iter().zip(1u64..).all(|(event, seq)| event["seq"] == seq), "{page}");
    events
}

pub(crate) fn of_kind(served: &Served, kind: &str) -> Vec<Value> {
    events(served).into_iter().filter(|event| event["kind"] == kind).collect()
}

#[test]
fn tenants_that_come_fail_and_go_are_told_of() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &["mlp-0"]);
    std::fs::write(folder.path().join("broken.onnx"), "no model").unwrap();
    let served = Served::start(folder.path());
    let loaded = of_kind(&served, "loaded").remove(0);
    assert_eq!(
        (&loaded["tenant"], &loaded["version"], &loaded["owner"]),
        (&json!("mlp-0"), &json!(1), &json!("mlp-0"))
    );
    assert!(loaded["numbers"]["devices"][0].as_str().unwrap().starts_with("cpu"), "{loaded}");
    assert!(loaded["time"].as_str().unwrap().ends_with('Z'), "{loaded}");
    let failed = of_kind(&served, "load_failed").remove(0);
    assert_eq!(failed["tenant"], "broken");
    std::fs::remove_file(folder.path().join("mlp-0.onnx")).unwrap();
    client::eventually("it is told of", || !of_kind(&served, "unloaded").is_empty());
    assert_eq!(served.sample("tessera_events_total{kind=\"unloaded\"}"), 1.0);
    let index = served.send(&client::json_request("/v2/repository/index", "")).json();
    assert_eq!((&index[0]["name"], &index[0]["state"]), (&json!("broken"), &json!("UNAVAILABLE")));
    assert!(index[0]["reason"].as_str().is_some_and(|why| !why.is_empty()), "{index}");
}

#[test]
fn a_failure_that_repeats_itself_is_told_once_until_the_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.onnx");
    std::fs::write(&broken, "").unwrap();
    let served = Served::start(folder.path());
    // It is tried again after a second.
    std::thread::sleep(Duration::from_millis(1500));
    let failed = of_kind(&served, "load_failed");
    assert_eq!(failed.len(), 1, "{failed:?}");
    std::fs::write(&broken, "no model").unwrap();
    client::eventually("the other failure is told", || of_kind(&served, "load_failed").len() == 2);
}

#[test]
fn weights_whose_base_is_not_there_are_told_of_once() {
    let folder = tempfile::tempdir().unwrap();
    let tuned = folder.path().join("tuned");
    std::fs::create_dir(&tuned).unwrap();
    std::fs::write(tuned.join("tenant.toml"), "base = \"nobody\"\nowner = \"acme\"").unwrap();
    std::fs::write(tuned.join("model.safetensors"), "").unwrap();
    let served = Served::start(folder.path());
    client::eventually("it is told", || !of_kind(&served, "load_failed").is_empty());
    std::thread::sleep(settings(folder.path()).poll_interval * 5);
    let told = of_kind(&served, "load_failed");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["tenant"], &told[0]["owner"]), (&json!("tuned"), &json!("acme")));
    let text = told[0]["text"].as_str().unwrap();
    assert!(text.contains("its base `nobody` is not in the repository"), "{text}");
}

#[test]
fn a_tenants_terms_that_make_no_sense_are_told_of_once_with_who_pays_for_what_is_served() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place_as(folder.path(), "mlp-0", "owner = \"acme\"");
    let served = Served::start(folder.path());
    std::fs::write(folder.path().join("mlp-0/tenant.toml"), "slo = 3").unwrap();
    client::eventually("it is told", || !of_kind(&served, "load_failed").is_empty());
    std::thread::sleep(settings(folder.path()).poll_interval * 5);
    let told = of_kind(&served, "load_failed");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["tenant"], &told[0]["owner"]), (&json!("mlp-0"), &json!("acme")));
    assert!(told[0].get("version").is_none(), "it is about all of them: {}", told[0]);
    let text = told[0]["text"].as_str().unwrap();
    assert!(text.contains("tenant.toml") && text.contains("unknown field `slo`"), "{text}");
}

#[test]
fn an_overload_is_one_event_with_its_reason_and_not_one_for_each_request() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &["mlp-0"]);
    served::place_blocker(folder.path());
    let mut one = settings(folder.path());
    one.queue_requests = NonZeroU32::MIN;
    let served = Served::with(one);
    served.wait_ready();
    let request = binary("mlp-0", &fixture::case("mlp-0").sets.remove(0).inputs);
    let refused = served.while_busy(|busy| {
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| served.send(&request));
            client::eventually("it waits, or it is too late", || served.queued() == 1.0 || !busy());
            let refused = (0..20).filter(|_| served.send(&request).status == 429).count();
            let enough = busy() && refused == 20;
            waits.join().unwrap();
            enough.then_some(refused)
        })
    });
    client::eventually("all are told of", || {
        let told: u64 = of_kind(&served, "refused")
            .iter()
            .filter_map(|event| event["numbers"]["requests"].as_u64())
            .sum();
        told >= refused as u64
    });
    let told = of_kind(&served, "refused");
    assert!(told.len() < refused, "they are gathered: {told:?}");
    assert_eq!((&told[0]["tenant"], &told[0]["numbers"]["reason"]), (&json!("mlp-0"), &json!("queue_full")));
    assert_eq!((&told[0]["numbers"]["queued"], &told[0]["numbers"]["limit"]), (&json!(1), &json!(1)));
    assert!(told[0]["text"].as_str().unwrap().contains("`queue_requests`"), "{}", told[0]);
}
