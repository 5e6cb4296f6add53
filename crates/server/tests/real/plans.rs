//! Plans that cannot be made: whoever asks for one hears why at once, and the device is not asked by every request.

use crate::client;
use crate::events::of_kind;
use crate::fixture;
use crate::served::{Served, settings};
use crate::tensors::assert_right;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tessera_core::{PartitionId, ProgramId};
use tessera_device::around::Around;
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::{Device, DeviceError, Room};
use tessera_planner::{Plan, SlotLayout};

const WHY: &str = "the compiler refuses on purpose, in a test";

/// What a test does to a [`Refusing`], and what it was asked.
#[derive(Debug, Default)]
struct Compiler {
    refuses: AtomicBool,
    asked: AtomicUsize,
}

/// A CPU device that compiles nothing for a while.
#[derive(Debug)]
struct Refusing {
    inner: CpuDevice,
    compiler: Arc<Compiler>,
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
        self.compiler.asked.fetch_add(1, Ordering::SeqCst);
        if self.compiler.refuses.load(Ordering::SeqCst) {
            return Err(DeviceError::Failed { device: self.inner.info().name, why: WHY.to_owned() });
        }
        self.inner.compile(plan, layout, room, partition)
    }
}

#[test]
fn what_cannot_be_compiled_is_refused_at_once_told_of_once_and_tried_again_after_a_while() {
    let folder = tempfile::tempdir().unwrap();
    // Its sentences may have any length, so its plans are made by requests.
    fixture::place(folder.path(), &["bert_tiny-0"]);
    let compiler = Arc::<Compiler>::default();
    compiler.refuses.store(true, Ordering::SeqCst);
    let given = compiler.clone();
    let served = Served::on(
        settings(folder.path()),
        vec![Box::new(move |wake| {
            let options = CpuOptions { cores: Cores::All, partitions: None, memory_limit: None };
            Ok(Arc::new(Refusing { inner: CpuDevice::open(&options, wake)?, compiler: given }))
        })],
    );
    served.wait_ready();
    let question = fixture::case("bert_tiny-0").sets.remove(0);
    let before = compiler.asked.load(Ordering::SeqCst);
    let asked = || compiler.asked.load(Ordering::SeqCst) - before;
    let started = std::time::Instant::now();
    let refused: Vec<_> = (0..20).map(|_| served.ask("bert_tiny-0", &question.inputs)).collect();
    let (tries, took) = (asked(), started.elapsed());
    for answer in refused {
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert_eq!(answer.status, 503, "{error}");
        assert!(error.contains(WHY) && error.contains("; it is tried again in "), "{error}");
    }
    // The waits are a second, two, four: of a machine so slow that they passed meanwhile more tries are due.
    assert!(tries as u64 <= 1 + took.as_secs(), "{tries} tries in {took:?}");
    let told = of_kind(&served, "no_plan");
    assert_eq!((told.len(), &told[0]["numbers"]["failures"]), (1, &json!(1)), "{told:?}");
    let text = told[0]["text"].as_str().unwrap();
    assert!(text.contains(WHY) && text.contains("it is tried again"), "{text}");
    assert_eq!(served.sample("tessera_events_total{kind=\"no_plan\"}"), 1.0);

    compiler.refuses.store(false, Ordering::SeqCst);
    client::eventually("it is tried again", || served.ask("bert_tiny-0", &question.inputs).status == 200);
    assert_right("bert_tiny-0", &served.answer("bert_tiny-0", &question.inputs), &question.answer);
}
