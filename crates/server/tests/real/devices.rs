//! Several devices: tenants spread over them, requests sent where they are done first, and a device that is lost while others go on.

use crate::client;
use crate::fixture;
use crate::served::{Served, settings};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tessera_core::{ClassId, PartitionId, Precision, ProgramId};
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::{
    Device, DeviceError, DeviceInfo, Finished, Launch, MemoryUse, PartitionInfo, Room, Slot, Wake,
};
use tessera_planner::{PackTarget, Packed, Plan, SlotLayout};
use tessera_server::devices::Open;
use tessera_server::placement::Replicas;
use tessera_server::settings::DeviceWord;

const LOST: &str = "lost on purpose, in a test";

/// What a test does to a [`Breakable`].
#[derive(Default)]
struct Switch {
    held: AtomicBool,
    broken: AtomicBool,
    wake: OnceLock<Wake>,
}

impl Switch {
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

impl Device for Breakable {
    fn info(&self) -> DeviceInfo {
        self.inner.info()
    }

    fn pack_target(&self, precision: Precision) -> Result<PackTarget, DeviceError> {
        self.inner.pack_target(precision)
    }

    fn upload(&self, class: ClassId, layout: &Arc<SlotLayout>, packed: Packed) -> Result<Slot, DeviceError> {
        self.inner.upload(class, layout, packed)
    }

    fn compile(
        &self,
        plan: &Arc<Plan>,
        layout: &Arc<SlotLayout>,
        room: Room,
        partition: PartitionId,
    ) -> Result<ProgramId, DeviceError> {
        self.inner.compile(plan, layout, room, partition)
    }

    fn discard(&self, program: ProgramId) {
        self.inner.discard(program);
    }

    /// One launch at a time, so that a second request waits while the first is held.
    fn partitions(&self) -> Vec<PartitionInfo> {
        self.inner.partitions().into_iter().map(|partition| PartitionInfo { ahead: 1, ..partition }).collect()
    }

    fn layouts(&self) -> Vec<Vec<PartitionId>> {
        self.inner.layouts()
    }

    fn submit(&self, launch: Launch) -> Result<(), DeviceError> {
        self.inner.submit(launch)
    }

    fn poll(&self) -> Vec<Finished> {
        if self.switch.held.load(Ordering::SeqCst) { Vec::new() } else { self.inner.poll() }
    }

    fn memory(&self) -> MemoryUse {
        self.inner.memory()
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
}
