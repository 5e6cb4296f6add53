//! Owners' quotas: refused with 429 and a time to come again, counted once for the whole server, given back on every way out.

use crate::events::of_kind;
use crate::fixture;
use crate::served::{Served, binary, infer, place_blocker, settings};
use crate::{client, served};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use tessera_server::placement::Replicas;
use tessera_server::settings::DeviceWord;

fn place(folder: &Path, tenant: &str, toml: &str) {
    std::fs::create_dir_all(folder.join(tenant)).unwrap();
    fixture::case("mlp-0").place(&folder.join(tenant).join("model.onnx"));
    std::fs::write(folder.join(tenant).join("tenant.toml"), toml).unwrap();
}

fn question(tenant: &str) -> Vec<u8> {
    binary(tenant, &fixture::case("mlp-0").sets.remove(0).inputs)
}

#[test]
fn an_owner_gets_its_rate_over_all_its_tenants_and_devices_and_others_are_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    // So slow that no more come in while the test runs.
    for tenant in ["a", "b"] {
        place(folder.path(), tenant, "owner = \"acme\"\nowner_rate = 0.002\nowner_burst = 3");
    }
    place(folder.path(), "c", "");
    let mut two = settings(folder.path());
    two.devices = vec![DeviceWord::Cpu(vec![0]), DeviceWord::Cpu(vec![1])];
    two.replicas = Replicas::All;
    let served = Served::with(two);
    served.wait_ready();
    let statuses: Vec<u16> =
        ["a", "b", "a", "b", "a"].map(|tenant| served.send(&question(tenant)).status).to_vec();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let refused = served.send(&question("b"));
    let error = refused.json()["error"].as_str().unwrap().to_owned();
    for word in ["`b` of `acme`", "0.002 requests a second", "3 at once", "try again in", "`owner_rate`"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    let retry: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((400..=500).contains(&retry), "one comes in 500 s: {retry}");
    assert!((0..9).all(|_| served.send(&question("c")).status == 200), "another owner has no quota");
    assert_eq!(served.sample("tessera_requests_total{tenant=\"b\",outcome=\"over_quota\"}"), 2.0);
    let told = of_kind(&served, "refused").remove(0);
    assert_eq!((&told["owner"], &told["numbers"]["reason"]), (&json!("acme"), &json!("over_rate")));
    assert_eq!((&told["numbers"]["per_s"], &told["numbers"]["burst"]), (&json!(0.002), &json!(3)));
}

#[test]
fn a_place_is_given_back_by_who_is_answered_expires_hangs_up_or_loses_its_tenant() {
    let folder = tempfile::tempdir().unwrap();
    place_blocker(folder.path());
    for tenant in ["a", "b"] {
        place(folder.path(), tenant, "owner = \"acme\"\nowner_concurrency = 1");
    }
    let served = Served::start(folder.path());
    let statuses = served.while_busy(|busy| {
        // One that hangs up while it waits.
        let mut socket = client::connect(served.http);
        socket.write_all(&question("a")).unwrap();
        client::eventually("it waits, or it is too late", || served.queued() == 1.0 || !busy());
        let beside = served.send(&question("b")).status;
        drop(socket);
        client::eventually("it is called off, or it is too late", || served.queued() == 0.0 || !busy());
        // One whose time runs out.
        let limited = served::limited(&question("a"), 1000);
        let expired = served.send(&limited).status;
        // One whose tenant goes.
        let gone = std::thread::scope(|scope| {
            let waits = scope.spawn(|| served.send(&question("b")).status);
            client::eventually("it waits, or it is too late", || served.queued() == 1.0 || !busy());
            std::fs::rename(folder.path().join("b"), folder.path().join(".b")).unwrap();
            let gone = waits.join().unwrap();
            std::fs::rename(folder.path().join(".b"), folder.path().join("b")).unwrap();
            gone
        });
        let found = [beside, expired, gone];
        client::eventually("it is back", || served.get("/v2/models/b/ready").status == 200);
        busy().then_some(found)
    });
    assert_eq!(statuses, [429, 504, 503], "one at once; expired; unloaded");
    assert_eq!(served.send(&question("a")).status, 200);
    assert_eq!(served.send(&question("b")).status, 200);
    assert_eq!(
        served.sample("tessera_requests_total{tenant=\"a\",outcome=\"hung_up\"}"),
        1.0,
        "{}",
        infer("a")
    );
}

#[test]
fn a_quota_that_makes_no_sense_is_a_problem_of_its_tenant() {
    let folder = tempfile::tempdir().unwrap();
    place(folder.path(), "a", "owner_rate = \"5 apples\"");
    let served = Served::start(folder.path());
    let answer = served.get("/v2/models/a");
    assert!(String::from_utf8_lossy(&answer.body).contains("500 items"), "{answer:?}");
}
