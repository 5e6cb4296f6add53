//! A device that says no for a while: to programs, for want of memory, to launches, or only when it should answer them.

use crate::client::eventually;
use crate::events::of_kind;
use crate::fixture::{self, case};
use crate::served::{Served, settings};
use serde_json::{Value, json};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Instant;
use tessera_core::{Bytes, PartitionId, ProgramId};
use tessera_device::around::Around;
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::{Device, DeviceError, Finished, Launch, RequestError, Room};
use tessera_planner::{Plan, SlotLayout, Tensor};
use tessera_server::devices::Open;

const ON_PURPOSE: &str = "refused on purpose, in a test";

/// What a test has the device refuse.
#[derive(Default)]
struct Refused {
    /// Programs for the last of its partitions.
    programs: AtomicBool,
    /// Launches.
    launches: AtomicBool,
    /// Their answers.
    answers: AtomicBool,
    /// How often it was asked for those.
    tried: AtomicU64,
    /// How many programs it has.
    alive: AtomicI64,
}

impl Refused {
    /// A CPU device of two partitions.
    fn device(self: &Arc<Refused>) -> Open<'static> {
        let refused = self.clone();
        Box::new(move |wake| {
            let options =
                CpuOptions { cores: Cores::All, partitions: NonZeroUsize::new(2), memory_limit: None };
            Ok(Arc::new(Refusing { inner: CpuDevice::open(&options, wake)?, refused }))
        })
    }
}

struct Refusing {
    inner: CpuDevice,
    refused: Arc<Refused>,
}

impl std::fmt::Debug for Refusing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl Around for Refusing {
    fn inner(&self) -> &dyn Device {
        &self.inner
    }

    fn compile(
        &self,
        plan: &Arc<Plan>,
        layout: &Arc<SlotLayout>,
        room: Room,
        partition: PartitionId,
    ) -> Result<ProgramId, DeviceError> {
        let last = self.inner.partitions().last().unwrap().id;
        if partition == last && self.refused.programs.load(Ordering::SeqCst) {
            self.refused.tried.fetch_add(1, Ordering::SeqCst);
            let (what, device) = ("an arena".to_owned(), self.inner.info().name);
            return Err(DeviceError::OutOfMemory { what, need: Bytes(1), free: Bytes(0), device });
        }
        let program = self.inner.compile(plan, layout, room, partition)?;
        self.refused.alive.fetch_add(1, Ordering::SeqCst);
        Ok(program)
    }

    fn submit(&self, launch: Launch) -> Result<(), DeviceError> {
        if self.refused.launches.load(Ordering::SeqCst) {
            let (device, why) = (self.inner.info().name, ON_PURPOSE.to_owned());
            return Err(DeviceError::Failed { device, why });
        }
        self.inner.submit(launch)
    }

    fn poll(&self) -> Vec<Finished> {
        let mut finished = self.inner.poll();
        if self.refused.answers.load(Ordering::SeqCst) {
            for answer in finished.iter_mut().flat_map(|launch| launch.answers.iter_mut().flatten()) {
                *answer = Err(RequestError::DeviceFailed(ON_PURPOSE.to_owned()));
            }
        }
        finished
    }

    fn discard(&self, program: ProgramId) {
        self.refused.alive.fetch_sub(1, Ordering::SeqCst);
        self.inner.discard(program);
    }
}

#[test]
fn a_plan_that_had_no_memory_is_refused_at_once_told_of_once_and_made_when_there_is_some() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &["lstm-0"]);
    let question = case("lstm-0").sets.remove(0);
    let refused = Arc::<Refused>::default();
    let served = Served::on(settings(folder.path()), vec![refused.device()]);
    served.wait_ready();
    // A length is planned when a request first brings it.
    assert_eq!(refused.alive.load(Ordering::SeqCst), 0);
    refused.programs.store(true, Ordering::SeqCst);
    let since = Instant::now();
    for _ in 0..20 {
        let answer = served.ask("lstm-0", &question.inputs);
        assert_eq!(answer.status, 503, "{answer:?}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains("an arena needs") && error.contains("; it is tried again in "), "{error}");
        assert_eq!(refused.alive.load(Ordering::SeqCst), 0, "what the other partitions got is given back");
    }
    // It waits a second, two, four: on a machine so slow that they passed meanwhile more tries are due.
    let (tried, took) = (refused.tried.load(Ordering::SeqCst), since.elapsed());
    assert!(tried <= 1 + took.as_secs(), "{tried} tries in {took:?}");
    let told = of_kind(&served, "no_plan");
    assert_eq!((told.len(), &told[0]["numbers"]["failures"]), (1, &json!(1)), "{told:?}");
    let text = told[0]["text"].as_str().unwrap();
    assert!(text.contains("an arena needs") && text.contains("it is tried again in"), "{text}");
    assert_eq!(served.sample("tessera_events_total{kind=\"no_plan\"}"), 1.0);
    refused.programs.store(false, Ordering::SeqCst);
    eventually("it is made", || served.ask("lstm-0", &question.inputs).status == 200);
    assert!(refused.alive.load(Ordering::SeqCst) > 1);
}

/// What became of a tenant's requests.
fn stats(served: &Served, tenant: &str) -> Value {
    served.get(&format!("/v2/models/{tenant}/stats")).json()["model_stats"][0].clone()
}

/// Deadlines kept, lanes that ran, and requests whose time was noted.
fn counted(served: &Served, tenant: &str) -> [Value; 3] {
    let stats = stats(served, tenant);
    [&stats["slo"]["in_time"], &stats["execution_count"], &stats["recent_ms"]["compute"]["count"]]
        .map(Value::clone)
}

#[test]
fn what_never_ran_and_what_failed_keeps_no_deadline_and_says_nothing_of_what_launches_take() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place_as(folder.path(), "bert_tiny-0", "slo_ms = 60000.0");
    let question = case("bert_tiny-0").sets.remove(0);
    let refused = Arc::<Refused>::default();
    let served = Served::on(settings(folder.path()), vec![refused.device()]);
    served.wait_ready();
    let launches = || served.sample("tessera_launch_duration_seconds_count");
    for (switch, lanes) in [(&refused.launches, 0), (&refused.answers, 1)] {
        switch.store(true, Ordering::SeqCst);
        let answer = served.ask("bert_tiny-0", &question.inputs);
        switch.store(false, Ordering::SeqCst);
        assert_eq!(answer.status, 500, "{answer:?}");
        assert!(answer.json()["error"].as_str().unwrap().contains(ON_PURPOSE), "{answer:?}");
        assert_eq!(counted(&served, "bert_tiny-0"), [json!(0), json!(lanes), json!(0)]);
        assert_eq!(launches(), 0.0, "no launch was over that ran");
    }
    let stats = stats(&served, "bert_tiny-0");
    assert_eq!(stats["slo"]["verdicts"], json!([]), "and none was learnt from");

    // A launch that ran, and whose only request was wrong.
    let mut wrong = question.inputs.clone();
    let at = wrong.iter().position(|(name, _)| name == "input_ids").unwrap();
    let mut tokens = wrong[at].1.elements::<i64>().unwrap();
    tokens[0] = 1_000_000;
    wrong[at].1 = Tensor::from_elements(wrong[at].1.dims(), &tokens);
    assert_eq!(served.ask("bert_tiny-0", &wrong).status, 400);
    assert_eq!(counted(&served, "bert_tiny-0")[0], json!(0), "an error is no deadline kept");
    // The least and the largest of two errors: one of them is another than the first alone.
    let told = "tessera_prediction_error_ratio{device=\"cpu\",";
    let now = || -> Vec<String> {
        served.metrics_page().lines().filter(|line| line.starts_with(told)).map(str::to_owned).collect()
    };
    let before = now();
    assert_eq!(served.ask("bert_tiny-0", &question.inputs).status, 200);
    assert_eq!(counted(&served, "bert_tiny-0")[0], json!(1));
    // The engine has nothing to do any more, and tells all the same.
    eventually("what was learnt last is told", || !now().is_empty() && now() != before);
}
