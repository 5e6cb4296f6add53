//! Several devices: tenants spread over them, requests sent where they are done first, a device that is lost while others go on, and one that has no kernel
//! for a step.

use crate::client;
use crate::events::of_kind;
use crate::fixture;
use crate::served::{Served, settings};
use crate::tensors::assert_right;
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tessera_core::Precision;
use tessera_device::around::Around;
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::{Device, DeviceError, DeviceInfo, Finished, Launch, PartitionInfo, Room, Wake};
use tessera_planner::{PackTarget, Plan, SlotLayout};
use tessera_server::Settings;
use tessera_server::devices::Open;
use tessera_server::placement::Replicas;
use tessera_server::server::{Server, StartError};
use tessera_server::settings::DeviceWord;

const LOST: &str = "lost on purpose, in a test";

/// A device that is more than a CPU.
const CARD: &str = "card:0";
const LACKING: &str = "left out on purpose, in a test";

/// What a test does to a [`Breakable`].
#[derive(Default)]
struct Switch {
    held: AtomicBool,
    broken: AtomicBool,
    wake: OnceLock<Wake>,
    /// Whether it says that it is a card, which takes tenants of any precision.
    card: bool,
    /// The kind of step that it has no kernel for.
    lacks: Option<&'static str>,
}

impl Switch {
    /// Of a card with no kernel for a kind of step.
    fn lacking(step: &'static str) -> Arc<Switch> {
        Arc::new(Switch { card: true, lacks: Some(step), ..Switch::default() })
    }

    /// From now on no launch is over.
    fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    /// The device is lost.
    fn lose(&self) {
        self.broken.store(true, Ordering::SeqCst);
        self.wake.get().unwrap()();
    }

    /// One core of the CPU that this can be done to.
    fn device(self: &Arc<Switch>, core: usize) -> Open<'static> {
        let switch = self.clone();
        Box::new(move |wake| {
            let _ = switch.wake.set(wake.clone());
            let cores = Cores::These(vec![core]);
            let options = CpuOptions { cores, partitions: None, memory_limit: None };
            Ok(Arc::new(Breakable { inner: CpuDevice::open(&options, wake)?, switch }))
        })
    }
}

/// A CPU device whose launches can be held, and that can be lost.
struct Breakable {
    inner: CpuDevice,
    switch: Arc<Switch>,
}

impl std::fmt::Debug for Breakable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl Around for Breakable {
    fn inner(&self) -> &dyn Device {
        &self.inner
    }

    fn info(&self) -> DeviceInfo {
        let name = if self.switch.card { CARD.to_owned() } else { self.inner.info().name };
        DeviceInfo { name, ..self.inner.info() }
    }

    fn pack_target(&self, precision: Precision) -> Result<PackTarget, DeviceError> {
        // In truth all is computed in fp32, here too.
        self.inner.pack_target(if self.switch.card { Precision::Fp32 } else { precision })
    }

    fn check(&self, plan: &Plan, layout: &SlotLayout, room: Room) -> Result<(), DeviceError> {
        let lacking = plan.steps.iter().find(|step| Some(step.kind.name()) == self.switch.lacks);
        lacking.map_or_else(
            || self.inner.check(plan, layout, room),
            |step| {
                let (device, step, why) = (CARD.to_owned(), step.name.clone(), LACKING.to_owned());
                Err(DeviceError::NoKernel { device, step, why })
            },
        )
    }

    /// One launch at a time, so that a second request waits while the first is held.
    fn partitions(&self) -> Vec<PartitionInfo> {
        self.inner.partitions().into_iter().map(|partition| PartitionInfo { ahead: 1, ..partition }).collect()
    }

    fn poll(&self) -> Vec<Finished> {
        if self.switch.held.load(Ordering::SeqCst) { Vec::new() } else { self.inner.poll() }
    }

    fn failure(&self) -> Option<String> {
        self.switch.broken.load(Ordering::SeqCst).then(|| LOST.to_owned())
    }
}

fn launches(served: &Served, device: &str) -> f64 {
    served.sample(&format!("tessera_launches_total{{policy=\"space-time\",device=\"{device}\"}}"))
}

#[test]
fn tenants_on_two_devices_answer_with_the_same_bits_and_both_devices_work() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &["mlp-0"]);
    let question = fixture::case("mlp-0").sets.remove(0);
    let alone = Served::start(folder.path()).answer("mlp-0", &question.inputs);
    let mut two = settings(folder.path());
    two.devices = vec![DeviceWord::Cpu(vec![0]), DeviceWord::Cpu(vec![1])];
    two.replicas = Replicas::All;
    let served = Served::with(two);
    served.wait_ready();
    client::eventually("both devices have worked", || {
        std::thread::scope(|scope| {
            let asks: Vec<_> =
                (0..8).map(|_| scope.spawn(|| served.answer("mlp-0", &question.inputs))).collect();
            asks.into_iter().for_each(|ask| assert!(ask.join().unwrap() == alone));
        });
        launches(&served, "cpu:0") > 0.0 && launches(&served, "cpu:1") > 0.0
    });
}

#[test]
fn tenants_are_spread_over_the_devices_one_copy_each() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &["mlp-0", "mlp-1"]);
    let mut two = settings(folder.path());
    two.devices = vec![DeviceWord::Cpu(vec![0]), DeviceWord::Cpu(vec![1])];
    let served = Served::with(two);
    served.wait_ready();
    let devices = served.get("/v2").json()["devices"].clone();
    let tenants: Vec<_> =
        devices.as_array().unwrap().iter().map(|device| device["tenants"].clone()).collect();
    assert_eq!(tenants, [json!(1), json!(1)], "{devices}");
}

#[test]
fn more_replicas_than_devices_are_refused_at_the_start_and_told_of_where_one_tenant_asks() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place_as(folder.path(), "mlp-0", "replicas = 2");
    let one = Settings { devices: vec![DeviceWord::Cpu(vec![0])], ..settings(folder.path()) };
    let served = Served::with(one.clone());
    served.wait_ready();
    answers_rightly(&served, "mlp-0");
    let told = of_kind(&served, "few_devices").remove(0);
    assert_eq!(
        (&told["tenant"], &told["numbers"]),
        (&json!("mlp-0"), &json!({ "replicas": 2, "devices": 1 })),
        "{told}"
    );

    let replicas = "3".parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let refused = runtime.block_on(Server::start(Settings { replicas, ..one })).unwrap_err().to_string();
    assert!(refused.contains("`replicas` is 3") && refused.contains("`all`"), "{refused}");
}

#[test]
fn a_lost_device_leaves_its_tenants_to_the_others() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &["mlp-0"]);
    let question = fixture::case("mlp-0").sets.remove(0);
    let (first, second) = (Arc::<Switch>::default(), Arc::<Switch>::default());
    let served = Served::on(settings(folder.path()), vec![first.device(0), second.device(1)]);
    served.wait_ready();
    let before = served.answer("mlp-0", &question.inputs);
    let launched = launches(&served, "cpu:0");
    assert!(launched > 0.0 && launches(&served, "cpu:1") == 0.0, "the only copy is on the first");

    first.hold();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| served.ask("mlp-0", &question.inputs));
        client::eventually("one request runs", || launches(&served, "cpu:0") > launched);
        let waiting = scope.spawn(|| served.answer("mlp-0", &question.inputs));
        client::eventually("one request waits", || served.queued() == 1.0);
        first.lose();
        let running = running.join().unwrap();
        assert_eq!(running.status, 500);
        assert!(String::from_utf8_lossy(&running.body).contains(LOST), "the reason is told");
        assert!(waiting.join().unwrap() == before, "what waited is answered elsewhere, with the same bits");
    });
    assert!(served.answer("mlp-0", &question.inputs) == before);
    assert!(launches(&served, "cpu:1") >= 2.0);
    assert_eq!(served.get("/v2/health/ready").status, 200);
    assert_eq!(served.get("/v2/models/mlp-0/ready").status, 200);
    let devices = served.get("/v2").json()["devices"].clone();
    assert_eq!((&devices[0]["running"], &devices[1]["running"]), (&json!(false), &json!(true)), "{devices}");
    client::eventually("the metrics tell", || served.sample("tessera_device_up{device=\"cpu:0\"}") == 0.0);
    let busy = || served.sample("tessera_device_busy_seconds_total{device=\"cpu:0\"}");
    let before = busy();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(busy(), before, "it is not busy for ever with what was lost on it");
}

#[test]
fn a_server_that_cannot_be_started_leaves_no_engine_behind() {
    let folder = tempfile::tempdir().unwrap();
    let opened: Arc<OnceLock<Weak<CpuDevice>>> = Arc::default();
    let seen = opened.clone();
    let first: Open<'_> = Box::new(move |wake| {
        let options = CpuOptions { cores: Cores::These(vec![0]), partitions: None, memory_limit: None };
        let device = Arc::new(CpuDevice::open(&options, wake)?);
        seen.get_or_init(|| Arc::downgrade(&device));
        Ok(device)
    });
    let second: Open<'_> = Box::new(|_| Err(StartError::Overlap("refused on purpose, in a test".to_owned())));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let started = runtime.block_on(Server::start_on(settings(folder.path()), vec![first, second]));
    assert!(matches!(started, Err(StartError::Overlap(_))));
    client::eventually("the first device is closed", || opened.get().unwrap().strong_count() == 0);
}

#[test]
fn tenants_of_a_lost_card_are_served_by_the_cpu_in_its_own_precision_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &["mlp-0"]);
    fixture::place_as(folder.path(), "mlp-1", "precision = \"bf16\"");
    let card = Arc::new(Switch { card: true, ..Switch::default() });
    let cpu = Arc::<Switch>::default();
    let served = Served::on(settings(folder.path()), vec![card.device(0), cpu.device(1)]);
    served.wait_ready();
    let placed = |tenant: &str| served.get(&format!("/v2/models/{tenant}")).json()["devices"].clone();
    assert_eq!(placed("mlp-1"), json!([{ "name": CARD, "precision": "bf16" }]));
    card.lose();
    for name in ["mlp-0", "mlp-1"] {
        client::eventually("it is served elsewhere", || {
            let question = fixture::case(name).sets.remove(0);
            served.ask(name, &question.inputs).status == 200 && placed(name)[0]["name"] == "cpu:1"
        });
        answers_rightly(&served, name);
    }
    let instead = placed("mlp-1");
    let because = "card:0 was lost, and no device that is left has bf16";
    assert_eq!(instead, json!([{ "name": "cpu:1", "precision": "fp32", "because": because }]));
    let told = of_kind(&served, "other_precision").remove(0);
    assert_eq!((&told["tenant"], &told["device"]), (&json!("mlp-1"), &json!(CARD)), "{told}");
    assert_eq!(
        told["numbers"],
        json!({ "instead": "cpu:1", "precision": "fp32", "wanted": "bf16" }),
        "{told}"
    );
    for health in ["live", "ready"] {
        assert_eq!(served.get(&format!("/v2/health/{health}")).status, 200, "{health}");
    }
    assert_eq!(of_kind(&served, "device_lost").len(), 1);
    assert_eq!(of_kind(&served, "tenants_moved").len(), 1);
}

/// Whether a tenant answers as its fixture does.
fn answers_rightly(served: &Served, name: &str) {
    let question = fixture::case(name).sets.remove(0);
    assert_right(name, &served.answer(name, &question.inputs), &question.answer);
}

#[test]
fn a_class_with_a_step_that_has_no_kernel_is_served_by_the_cpu_which_says_so() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &["mlp-0"]);
    // The card would hold its numbers in bf16, which the CPU does not have.
    fixture::place_as(folder.path(), "lstm-0", "precision = \"bf16\"");
    let card = Switch::lacking("lstm");
    let settings = Settings { devices: vec![DeviceWord::Auto], ..settings(folder.path()) };
    let served = Served::on(settings, vec![card.device(0)]);
    served.wait_ready();
    for name in ["mlp-0", "lstm-0"] {
        answers_rightly(&served, name);
    }
    let devices = |tenant: &str| served.get(&format!("/v2/models/{tenant}")).json()["devices"].clone();
    assert_eq!(devices("mlp-0"), json!([{ "name": CARD, "precision": "fp32" }]));
    let instead = devices("lstm-0");
    assert_eq!((&instead[0]["name"], &instead[0]["precision"]), (&json!("cpu"), &json!("fp32")), "{instead}");
    let because = instead[0]["because"].as_str().unwrap();
    assert!(
        because.starts_with("card:0 has no kernel for step `") && because.ends_with(LACKING),
        "{because}"
    );
    let told = of_kind(&served, "no_kernel").remove(0);
    assert_eq!((&told["tenant"], &told["device"]), (&json!("lstm-0"), &json!(CARD)), "{told}");
    assert_eq!((&told["numbers"]["instead"], &told["numbers"]["precision"]), (&json!("cpu"), &json!("fp32")));
    assert!(told["text"].as_str().unwrap().starts_with(because), "{told}");
    let all = served.get("/v2").json()["devices"].clone();
    let tenants = |index: usize| (all[index]["name"].clone(), all[index]["tenants"].clone());
    assert_eq!((tenants(0), tenants(1)), ((json!(CARD), json!(1)), (json!("cpu"), json!(1))), "{all}");
}

#[test]
fn a_class_with_a_step_that_has_no_kernel_goes_to_a_cpu_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place_as(folder.path(), "lstm-0", "precision = \"bf16\"");
    let (card, cpu) = (Switch::lacking("lstm"), Arc::<Switch>::default());
    let served = Served::on(settings(folder.path()), vec![card.device(0), cpu.device(1)]);
    served.wait_ready();
    answers_rightly(&served, "lstm-0");
    let all = served.get("/v2").json()["devices"].clone();
    let tenants: Vec<_> = all.as_array().unwrap().iter().map(|device| device["tenants"].clone()).collect();
    assert_eq!(tenants, [json!(0), json!(1)], "nothing is opened beside them: {all}");
}

/// A CPU device that wakes nobody: who looks hears of what is over.
#[derive(Debug)]
struct Quiet {
    inner: CpuDevice,
    under_way: AtomicUsize,
}

impl Around for Quiet {
    fn inner(&self) -> &dyn Device {
        &self.inner
    }

    fn submit(&self, launch: Launch) -> Result<(), DeviceError> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        self.inner.submit(launch)
    }

    fn due(&self) -> Option<Duration> {
        (self.under_way.load(Ordering::SeqCst) > 0).then_some(Duration::from_micros(100))
    }

    fn poll(&self) -> Vec<Finished> {
        let over = self.inner.poll();
        self.under_way.fetch_sub(over.len(), Ordering::SeqCst);
        over
    }
}

#[test]
fn launches_that_nobody_is_woken_for_are_looked_for_when_they_are_due() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &["mlp-0"]);
    let open: Open<'static> = Box::new(|_| {
        let options = CpuOptions { cores: Cores::All, partitions: None, memory_limit: None };
        let inner = CpuDevice::open(&options, Arc::new(|| ()))?;
        Ok(Arc::new(Quiet { inner, under_way: AtomicUsize::new(0) }))
    });
    let served = Served::on(settings(folder.path()), vec![open]);
    served.wait_ready();
    (0..20).for_each(|_| answers_rightly(&served, "mlp-0"));
}
