//! A device that says no for a while: to programs, for want of memory, and to launches.

use crate::fixture::{self, case};
use crate::served::{Served, settings};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use tessera_core::{Bytes, PartitionId, ProgramId};
use tessera_device::around::Around;
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::{Device, DeviceError, Room};
use tessera_planner::{Plan, SlotLayout};
use tessera_server::devices::Open;

/// What a test has the device refuse.
#[derive(Default)]
struct Refused {
    /// Programs for the last of its partitions.
    programs: AtomicBool,
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
            let (what, device) = ("an arena".to_owned(), self.inner.info().name);
            return Err(DeviceError::OutOfMemory { what, need: Bytes(1), free: Bytes(0), device });
        }
        let program = self.inner.compile(plan, layout, room, partition)?;
        self.refused.alive.fetch_add(1, Ordering::SeqCst);
        Ok(program)
    }

    fn discard(&self, program: ProgramId) {
        self.refused.alive.fetch_sub(1, Ordering::SeqCst);
        self.inner.discard(program);
    }
}

#[test]
fn a_plan_that_had_no_memory_is_made_once_there_is_some_and_leaves_nothing_behind_until_then() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &["lstm-0"]);
    let question = case("lstm-0").sets.remove(0);
    let refused = Arc::<Refused>::default();
    let served = Served::on(settings(folder.path()), vec![refused.device()]);
    served.wait_ready();
    // A length is planned when a request first brings it.
    assert_eq!(refused.alive.load(Ordering::SeqCst), 0);
    refused.programs.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let answer = served.ask("lstm-0", &question.inputs);
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.json()["error"].as_str().unwrap().contains("an arena needs"), "{answer:?}");
        assert_eq!(refused.alive.load(Ordering::SeqCst), 0, "what the other partitions got is given back");
    }
    refused.programs.store(false, Ordering::SeqCst);
    assert_eq!(served.ask("lstm-0", &question.inputs).status, 200);
    assert!(refused.alive.load(Ordering::SeqCst) > 1);
}
