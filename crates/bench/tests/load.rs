//! The load generator against the real server, over HTTP and in process.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;
use tessera_bench::arrivals::{Gaps, Pattern, Popularity, Rate};
use tessera_bench::load::{Guest, Http, InProcess, Inputs, Level, Source, Tenant, Times};
use tessera_bench::load_test::{self, Options, Pace};
use tessera_bench::zoo::tiny::Tiny;
use tessera_bench::zoo::{self, Sizes};
use tessera_server::Settings;
use tessera_server::server::Server;

const TIMES: Times = Times {
    warmup: Duration::from_millis(200),
    length: Duration::from_secs(1),
    grace: Duration::from_secs(60),
};

fn tenants(names: &[&str]) -> Vec<Tenant> {
    let slo = Some(Duration::from_secs(20));
    names.iter().map(|name| Tenant { name: (*name).to_owned(), slo }).collect()
}

fn options(names: &[&str], pace: Pace) -> Options {
    Options { tenants: tenants(names), pace, times: TIMES, items: 1, seed: 1 }
}

fn open(rate: f64, tenants: usize) -> Pace {
    let pattern = Pattern {
        gaps: Gaps::Poisson,
        rate: Rate::Steady(rate),
        popularity: Popularity::Zipf(1.0),
        tenants,
        seed: 4,
    };
    Pace::Open(vec![(rate, pattern)])
}

fn inputs() -> Inputs {
    Inputs { source: Source::Random, shapes: BTreeMap::new(), batch: 1, ids_below: 100, seed: 1 }
}

/// A server of a click predictor, `mlp`, and a sentence encoder, `encoder`; it ends with the runtime.
async fn serve(folder: &std::path::Path) -> SocketAddr {
    for arch in [Tiny::Mlp, Tiny::Encoder] {
        std::fs::write(folder.join(format!("{}.onnx", arch.name())), arch.onnx(1)).unwrap();
    }
    let mut settings = Settings::for_repository(folder);
    (settings.http_port, settings.metrics_port, settings.pack_cache) = (0, 0, None);
    let server = Server::start(settings).await.unwrap();
    let address = server.http_address();
    tokio::spawn(server.run(std::future::pending(), std::future::pending()));
    let mut connection = tessera_bench::client::Connection::open(address).await.unwrap();
    while connection.get("/v2/health/ready").await.unwrap().status != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    address
}

async fn connect(address: SocketAddr, names: &[&str], inputs: &Inputs) -> anyhow::Result<Arc<Http>> {
    let connections = NonZeroUsize::new(32).unwrap();
    Ok(Arc::new(Http::connect(address, &tenants(names), inputs, connections, true).await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_asked_what_its_metadata_says_and_every_request_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let address = serve(folder.path()).await;
    assert_eq!(Http::listed(address).await.unwrap(), ["encoder", "mlp"], "nobody need name them");
    let names = ["mlp", "encoder"];
    let target = connect(address, &names, &inputs()).await.unwrap();
    let report =
        load_test::run((&target, "a test"), &options(&names, open(100.0, 2)), &mut |_| {}).await.unwrap();
    let row = &report.rows[0];
    assert_eq!(row.level, Level::RequestRate(100.0));
    // A machine that is busy with other tests answers late; it answers.
    assert_eq!((row.failed, row.refused, row.unanswered), (0, 0, 0), "{row:?}");
    assert!((60..140).contains(&row.sent) && row.answered == row.sent, "{row:?}");
    assert!(row.latency_ms.p50 > 0.0 && row.latency_ms.p50 <= row.latency_ms.p99);
    assert!(row.tenants[0].sent > row.tenants[1].sent, "the first is the most popular");
    assert_eq!(row.tenants.iter().map(|tenant| tenant.sent).sum::<u64>(), row.sent);
    let text = report.to_string();
    assert!(text.contains("request rate 100") && text.contains("encoder"), "{text}");

    let closed = Pace::Closed { clients: vec![1, 4], popularity: Popularity::Uniform };
    let report = load_test::run((&target, "a test"), &options(&names, closed), &mut |_| {}).await.unwrap();
    assert_eq!(report.rows.len(), 2);
    assert!(report.rows.iter().all(|row| row.failed == 0 && row.throughput > 0.0), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_answers_with_an_error_is_a_failure_with_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let address = serve(folder.path()).await;
    let error = connect(address, &["nobody"], &inputs()).await.unwrap_err();
    assert!(format!("{error:#}").contains("model `nobody`: 404"), "{error:#}");
    // The encoder knows 500 words.
    let target = connect(address, &["encoder"], &Inputs { ids_below: 1 << 40, ..inputs() }).await.unwrap();
    let report = load_test::run((&target, "a test"), &options(&["encoder"], open(50.0, 1)), &mut |_| {})
        .await
        .unwrap();
    let row = &report.rows[0];
    assert!(row.failed > 0 && row.failed == row.sent, "{row:?}");
    assert!(row.first_failure.as_ref().unwrap().starts_with("400"), "{row:?}");
    assert!(report.to_string().contains("the first: 400"), "{report}");
}

#[test]
fn an_engine_in_this_process_takes_the_same_load_with_slos_of_its_own() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let sizes = Sizes { width: 0.05, tokens: Some(3), ..Sizes::default() };
    let model = Arc::new(zoo::find("lstm").unwrap().model(&sizes).unwrap());
    let guest = |slo| Guest { model: model.clone(), slo };
    // Nothing is answered within a nanosecond: what is late by prediction is refused, the rest expires or is late.
    let guests = [guest(None), guest(Some(Duration::from_nanos(1)))];
    let settings = load_test::settings([("device", "cpu".to_owned())]).unwrap();
    let items = (NonZeroU32::MIN, 1);
    let (target, house) = InProcess::open(&runtime, &settings, &guests, items, &mut |_| {}).unwrap();
    let mut options = options(&["free", "hopeless"], open(200.0, 2));
    (options.tenants[0].slo, options.tenants[1].slo) = (None, guests[1].slo);
    let report = runtime.block_on(load_test::run((&target, "a test"), &options, &mut |_| {})).unwrap();
    house.close(target);
    let [free, hopeless] = report.rows[0].tenants.as_slice() else { panic!("two tenants") };
    assert!(free.sent > 0 && free.answered == free.sent, "{free:?}");
    assert_eq!((hopeless.in_time, hopeless.failed, hopeless.unanswered), (0, 0, 0), "{hopeless:?}");
    assert!(hopeless.refused + hopeless.expired > 0, "{hopeless:?}");
    assert_eq!(report.rows[0].in_slo, Some(0.0));
}
