//! `tessera bench tenants`: what it reports, and what it refuses to report.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod common;

use common::Cpu;
use common::double::{Answers, Double};
use std::time::Duration;
use tessera_bench::tenants::{Options, Report, run, run_on};
use tessera_bench::zoo::{self, Sizes};
use tessera_core::{Policy, Precision};

fn options(name: &str, tenants: usize) -> Options {
    let sizes = Sizes { width: 0.125, tokens: (name == "lstm").then_some(4), ..Sizes::default() };
    Options {
        model: zoo::find(name).unwrap().model(&sizes).unwrap(),
        tenants,
        policies: Policy::ALL.to_vec(),
        device: "cpu".to_owned(),
        precision: Precision::Fp32,
        items: 1,
        length: Duration::from_millis(100),
        rounds: 2,
        in_flight: 2,
        steps: false,
        tune: None,
        seed: 1,
    }
}

fn on_double(options: &Options, answers: Answers) -> anyhow::Result<Report> {
    let target = Cpu::open().target();
    run_on(options, &|_, wake| Ok(Double::open(answers, target, wake)), &mut |_| {})
}

#[test]
fn every_policy_is_measured_on_the_cpu_for_people_and_for_machines() {
    let mut heard = Vec::new();
    let report = run(&options("lstm", 3), &mut |line| heard.push(line.to_owned())).unwrap();
    assert!(heard.iter().any(|line| line.starts_with("round 2 of 2, space-time")), "{heard:?}");
    let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!((json["model"].as_str(), json["tenants"].as_u64()), (Some("lstm"), Some(3)));
    let text = report.to_string();
    for (index, policy) in Policy::ALL.iter().enumerate() {
        let row = &json["policies"][index];
        assert_eq!(row["policy"], policy.name());
        let rate = |figure: &str| row["inferences_per_s"][figure].as_f64().unwrap();
        assert!(0.0 < rate("min") && rate("min") <= rate("median") && rate("median") <= rate("max"));
        assert_eq!(row["inferences_per_s"]["rounds"].as_array().unwrap().len(), 2);
        assert!(row["device_us_per_launch"].as_f64().unwrap() > 0.0);
        assert!(text.lines().any(|line| line.starts_with(policy.name())), "{text}");
    }
    let lanes = |index: usize| report.policies[index].lanes_per_launch;
    assert!(lanes(0) > 1.0, "space-time shares launches: {text}");
    assert_eq!((lanes(1), lanes(2), lanes(3)), (1.0, 1.0, 1.0), "{text}");
    let items = |index: usize| report.policies[index].items_per_launch;
    assert_eq!((items(1), items(2)), (1.0, 1.0), "requests of one tenant do not share a lane: {text}");
    assert!(items(3) > 1.0, "exclusive batches: {text}");
    assert_eq!(report.policies[0].over_first.rounds, [1.0, 1.0]);
}

#[test]
fn requests_of_several_items_count_as_many_inferences() {
    let one = Options { policies: vec![Policy::Time], ..options("mlp", 2) };
    let report = run(&Options { items: 3, ..one }, &mut |_| {}).unwrap();
    assert_eq!(report.policies[0].items_per_launch, 3.0);
    let rate = &report.policies[0].inferences_per_s;
    let launches = report.policies[0].launches as f64;
    let inferences: f64 = rate.rounds.iter().map(|rate| rate * 0.1).sum();
    assert!(inferences <= 3.0 * launches + 1e-6, "{inferences} in {launches} launches");
    assert!(inferences > 1.5 * launches, "{inferences} in {launches} launches");
}

#[test]
fn an_answer_that_neighbours_move_is_no_result() {
    let error = on_double(&options("mlp", 3), Answers::ByWeightsAndLanes).unwrap_err();
    assert!(format!("{error:#}").contains("in other bits than alone"), "{error:#}");
    // Where nobody shares a launch there is nothing to notice.
    let alone = Options { policies: vec![Policy::Time, Policy::Space], ..options("mlp", 3) };
    on_double(&alone, Answers::ByWeightsAndLanes).unwrap();
}

#[test]
fn tenants_that_answer_alike_are_no_result() {
    let error = on_double(&options("mlp", 3), Answers::Alike).unwrap_err();
    assert!(format!("{error:#}").contains("exactly as another tenant does"), "{error:#}");
}

#[test]
fn steps_are_timed_for_all_tenants_where_the_device_can() {
    let with_steps = |tenants| Options {
        steps: true,
        policies: vec![Policy::SpaceTime],
        rounds: 1,
        ..options("mlp", tenants)
    };
    let report = on_double(&with_steps(3), Answers::ByWeights).unwrap();
    let steps = report.steps.as_ref().unwrap();
    assert_eq!(steps.len(), 3, "one product a layer: {steps:?}");
    // The double takes a microsecond a lane for each, and no floor is known for it.
    assert!(steps.iter().all(|step| step.us == 3.0 && step.floor_us.is_none()), "{steps:?}");
    let flops: f64 = steps.iter().map(|step| step.tflops * step.us * 1e6).sum();
    assert_eq!(flops.round() as u64, 3 * report.flops_per_inference);
    // 784 numbers in and 64 out, weights and biases of that layer, four bytes each, for three tenants in 3 µs.
    let first = steps.iter().find(|step| step.name.starts_with("hidden_1")).unwrap();
    assert_eq!(first.gbytes_per_s, f64::from(3 * 4 * (784 * 64 + 64 + 784 + 64)) / 3e3);
    assert!(report.to_string().contains("hidden_1/Gemm"), "{report}");

    // A CPU measures itself as well.
    let report = run(&with_steps(2), &mut |_| {}).unwrap();
    let steps = report.steps.unwrap();
    assert_eq!(steps.len(), 3, "{steps:?}");
    assert!(steps.iter().all(|step| step.us > 0.0 && step.floor_us > Some(0.0)), "{steps:?}");
}

#[test]
fn the_loop_around_the_device_is_no_bottleneck() {
    let many = Options { length: Duration::from_secs(1), ..options("mlp", 32) };
    let report = on_double(&many, Answers::ByWeights).unwrap();
    eprintln!("{report}");
    // A graphics card answers some 30,000 a second. An idle core of 2026 does 190,000; the margin is for tests beside this one.
    let rate = report.policies[0].inferences_per_s.max;
    assert!(rate > 10_000.0, "{rate} requests per second through an engine whose device costs nothing");
}
