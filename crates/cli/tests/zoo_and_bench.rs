//! `tessera zoo` and `tessera bench`, as they are typed.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

use std::process::{Command, Output, Stdio};

fn tessera(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tessera")).args(line.split(' ')).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_zoo_writes_as_many_tenants_as_asked_for_and_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("models");
    let line = format!("zoo resnet18 --tenants 2 --width 0.1 --image-size 32 --out {}", out.display());
    let output = tessera(&line);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for tenant in ["resnet-18-0.onnx", "resnet-18-1.onnx"] {
        assert!(out.join(tenant).is_file());
        assert!(text(&output.stdout).contains(tenant), "{}", text(&output.stdout));
    }
}

#[test]
fn the_zoo_writes_every_tenant_also_when_nobody_reads_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let line = ["zoo", "lstm", "--tenants", "3", "--width", "0.05", "--out"];
    let mut zoo = Command::new(env!("CARGO_BIN_EXE_tessera"));
    let mut zoo = zoo.args(line).arg(folder.path()).stdout(Stdio::piped()).spawn().unwrap();
    drop(zoo.stdout.take());
    assert!(zoo.wait().unwrap().success());
    assert!(folder.path().join("lstm-2.onnx").is_file());
}

#[test]
fn the_demo_ends_well_when_nobody_reads_it() {
    let line = ["demo", "--tenants", "4", "--seconds", "1", "--rate", "4"];
    let mut demo = Command::new(env!("CARGO_BIN_EXE_tessera"));
    let mut demo = demo.args(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(demo.stdout.take());
    let ended = demo.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn a_load_on_a_server_that_is_not_there_is_told_how_to_have_one() {
    // Port 1 is of a service that nobody runs.
    let alone = tessera("load-test --url 127.0.0.1:1");
    let said = String::from_utf8_lossy(&alone.stderr);
    assert!(
        alone.status.code() == Some(2) && said.contains("`tessera serve`") && said.contains("--url"),
        "{said}"
    );
}

#[test]
fn the_zoo_refuses_by_name_and_says_what_there_is() {
    let unknown = tessera("zoo resnet-19 --out nowhere");
    assert!(!unknown.status.success());
    assert!(text(&unknown.stderr).contains("`resnet-19` is not in the zoo; choose one of"));
}

#[test]
fn the_bench_of_tenants_prints_a_table_or_json() {
    let line = "bench tenants --model lstm --width 0.05 --tokens 3 --tenants 2 --device cpu --seconds 1 --rounds 1 \
                --policy space-time,exclusive";
    let table = tessera(line);
    assert!(table.status.success(), "{}", text(&table.stderr));
    assert!(text(&table.stdout).lines().any(|line| line.starts_with("exclusive ")));
    let json = tessera(&format!("{line} --json -"));
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let names: Vec<&str> =
        report["policies"].as_array().unwrap().iter().map(|row| row["policy"].as_str().unwrap()).collect();
    assert_eq!(names, ["space-time", "exclusive"]);
    assert!(report["policies"][0]["inferences_per_s"]["median"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_bench_refuses_what_it_does_not_know_before_it_loads_anything() {
    let output = tessera("bench tenants --model lstm --policy fastest");
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("`fastest` is not a policy"), "{}", text(&output.stderr));
}

#[test]
fn bench_processes_adds_up_what_every_process_did() {
    let line = "bench processes --how time-slicing --model lstm --width 0.05 --tokens 3 --tenants 2 --device cpu --seconds 1 \
                --json -";
    let ran = tessera(line);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let rows: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let figure = |name: &str| rows[0][name].as_f64().unwrap();
    assert_eq!((rows[0]["how"].as_str(), rows[0]["processes"].as_u64()), (Some("time-slicing"), Some(2)));
    assert!(figure("least_per_s") > 0.0 && figure("least_per_s") <= figure("most_per_s"), "{rows}");
    assert!(figure("inferences_per_s") >= figure("most_per_s"), "{rows}");
}

#[test]
fn a_worker_that_cannot_load_its_tenant_ends_the_bench_with_its_own_words() {
    let ran =
        tessera("bench processes --how time-slicing --model lstm --tenants 2 --device cuda:99 --seconds 1");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(2), "{said}");
    assert!(said.contains("cuda:99") && said.contains("ended before it was ready"), "{said}");
}

#[test]
fn a_load_test_prints_the_words_of_perf_analyzer_or_json_and_says_what_it_cannot_do() {
    let line = "load-test --in-process lstm,mlp --width 0.05 --tenants 3 --device cpu --seconds 1 --warmup-seconds 0";
    let table = tessera(&format!("{line} --concurrency 1:2 --popularity zipf"));
    assert!(table.status.success(), "{}", text(&table.stderr));
    let said = text(&table.stdout);
    assert!(
        said.contains("infer/sec") && said.contains("concurrency 2") && said.contains("lstm-1"),
        "{said}"
    );
    let json = tessera(&format!(
        "{line} --request-rate 50 --distribution gamma:2 --diurnal 0.5 --slo-ms 5000 --json -"
    ));
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let row = &report["rows"][0];
    assert_eq!(row["level"]["request_rate"], 50.0);
    assert!(row["goodput"].as_f64().unwrap() > 0.0 && row["tenants"].as_array().unwrap().len() == 3);
    for (flags, why) in [
        ("--concurrency 1 --request-rate 5", "three loads"),
        ("--request-rate 0", "a number from 0.001"),
        ("--slo-ms nobody=5", "no tenant `nobody`"),
        ("--diurnal 2 --request-rate 5", "a swing from 0 to 1"),
    ] {
        let refused = tessera(&format!("{line} {flags}"));
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(&refused.stderr).contains(why), "{}", text(&refused.stderr));
    }
}

#[test]
fn simulate_plays_a_trace_or_what_is_drawn_and_needs_one_of_them() {
    let drawn = tessera(
        "simulate --request-rate 16000 --tenants 50 --seconds 1 --slo-ms 25 --policy space-time,time --json -",
    );
    let report: serde_json::Value = serde_json::from_slice(&drawn.stdout).unwrap();
    let row = |index: usize| &report["policies"][index]["row"];
    assert!(
        row(0)["in_slo"].as_f64().unwrap() > 0.99 && row(1)["in_slo"].as_f64().unwrap() < 0.99,
        "{report}"
    );
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.csv");
    std::fs::write(&trace, "0,a\n0.001,b\n0.5,a\n").unwrap();
    let played =
        tessera(&format!("simulate {} --model resnet-50,bert-base --policy space-time", trace.display()));
    let said = text(&played.stdout);
    assert!(
        said.contains("trace") && said.contains("2 tenants") && said.contains("bert-base: only 16 lanes"),
        "{said}"
    );
    let neither = tessera("simulate");
    assert_eq!(neither.status.code(), Some(2));
    assert!(text(&neither.stderr).contains("name a TRACE"), "{}", text(&neither.stderr));
}

#[test]
fn the_bench_of_goodput_finds_every_policys_rate_and_draws_it() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("goodput.svg");
    let line = format!(
        "bench goodput --model resnet-50 --device simulated --seconds 1 --lowest-rate 1000 --json - --svg {}",
        svg.display()
    );
    let ran = tessera(&line);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let rate = |policy: &str| {
        let found = report["policies"].as_array().unwrap().iter().find(|found| found["policy"] == policy);
        found.unwrap()["rate"].as_f64().unwrap()
    };
    assert!(rate("space-time") > 2.0 * rate("time"), "{report}");
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.starts_with("<svg ") && drawn.contains("space-time ("), "{drawn}");

    let real = tessera(
        "bench goodput --model mlp --width 0.1 --tenants 3 --device cpu --slo-ms 2000 --seconds 1 --lowest-rate 100000 --policy time",
    );
    assert!(real.status.success(), "{}", text(&real.stderr));
    assert!(text(&real.stdout).lines().any(|line| line.starts_with("time ")), "{}", text(&real.stdout));
}

#[test]
fn the_bench_of_isolation_shows_the_others_beside_one_that_is_loud_and_then_slow() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("isolation.svg");
    let line = format!(
        "bench isolation --model resnet-50 --device simulated --tenants 100 --rate 4000 --seconds 2 --json - --svg {}",
        svg.display()
    );
    let ran = tessera(&line);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let policies = report["policies"].as_array().unwrap();
    assert_eq!(policies.len(), 4);
    let ours = policies.iter().find(|under| under["policy"] == "space-time").unwrap();
    let seen = |act: &str| ours["acts"].as_array().unwrap().iter().find(|seen| seen["act"] == act).unwrap();
    assert!(seen("loud")["others_in_time"].as_f64().unwrap() > 0.99, "{ours}");
    assert!(seen("well again")["moved"].as_f64().unwrap() < 0.05, "{ours}");
    assert!(ours["out_after_s"].as_f64().unwrap() < 1.0, "{ours}");
    assert!(std::fs::read_to_string(&svg).unwrap().starts_with("<svg "));

    let real = tessera(
        "bench isolation --model mlp --width 0.1 --tenants 4 --device cpu --slo-ms 2000 --seconds 1 --rate 200 --policy space-time",
    );
    assert!(real.status.success(), "{}", text(&real.stderr));
    assert!(text(&real.stdout).contains("slow, from then on"), "{}", text(&real.stdout));
}

#[test]
fn the_bench_of_mixed_classes_shows_each_under_every_policy() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("mixed.svg");
    let line = format!(
        "bench mixed --device simulated --seconds 1 --lowest-rate 1000 --json - --svg {}",
        svg.display()
    );
    let ran = tessera(&line);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let ways = report["ways"].as_array().unwrap();
    let named: Vec<&str> = ways.iter().map(|found| found["way"].as_str().unwrap()).collect();
    assert_eq!(named.len(), 5, "{named:?}");
    let rate = |way: &str| ways.iter().find(|found| found["way"] == way).unwrap()["rate"].as_f64().unwrap();
    assert!(rate("space-time") > rate("time"), "{report}");
    let classes = ways[0]["tried"][0]["classes"].as_array().unwrap();
    let names: Vec<&str> = classes.iter().map(|class| class["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["resnet-50", "mobilenet-v2", "bert-base", "lstm"]);
    assert!(std::fs::read_to_string(&svg).unwrap().starts_with("<svg "));

    let real = tessera(
        "bench mixed --class mlp:2000,lstm:2000 --width 0.1 --tokens 4 --tenants 4 --device cpu --seconds 1 --lowest-rate 100000 --policy space-time",
    );
    assert!(real.status.success(), "{}", text(&real.stderr));
    let said = text(&real.stdout);
    assert!(
        said.lines().any(|line| line.starts_with("space-time, whole") && line.contains("lstm")),
        "{said}"
    );
}
