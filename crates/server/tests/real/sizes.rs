//! Classes of a device that parts may be kept from: who is late beside long launches is before them from then on, with the answers it always had.

use crate::events::of_kind;
use crate::fixture;
use crate::served::{Served, binary, limited, settings};
use crate::tensors::{outputs, repeated};
use serde_json::json;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tessera_core::{ClassId, PartitionId, ProgramId};
use tessera_device::around::Around;
use tessera_device::cpu::CpuDevice;
use tessera_device::{Device, DeviceError, Launch, PartitionInfo};
use tessera_planner::Plan;

const QUICK: &str = "mlp-0";
/// Forty items of it take many times what the quick one has.
const SLOW: &str = "mobilenet_v2_035-0";
/// What the quick one has.
const LITTLE_US: u64 = 20_000;
/// How much longer than a slow answer takes it is until the next is asked for.
const PAUSE: u32 = 4;

/// A CPU device in two partitions that is told to share its units as a card's streams do, and to have the second, of a quarter of them, in a layout of its own.
#[derive(Debug)]
struct WithSizes {
    inner: CpuDevice,
    /// That were compiled for the second, and of which class.
    behind: Mutex<Vec<(ProgramId, ClassId)>>,
    /// Classes whose launches ran there.
    seen: Arc<Mutex<HashSet<ClassId>>>,
}

impl WithSizes {
    fn ids(&self) -> [PartitionId; 2] {
        let all: Vec<PartitionId> = self.inner.partitions().iter().map(|share| share.id).collect();
        all.try_into().unwrap()
    }
}

impl Around for WithSizes {
    fn inner(&self) -> &dyn Device {
        &self.inner
    }

    fn partitions(&self) -> Vec<PartitionInfo> {
        let [_, behind] = self.ids();
        let told = |share: PartitionInfo| {
            let aside = share.id == behind;
            PartitionInfo { aside, units: if aside { 1 } else { 4 }, ..share }
        };
        self.inner.partitions().into_iter().map(told).collect()
    }

    fn layouts(&self) -> Vec<Vec<PartitionId>> {
        let [stream, behind] = self.ids();
        vec![vec![stream], vec![stream, behind]]
    }

    fn overlap(&self) -> bool {
        true
    }

    fn compiled(&self, program: ProgramId, plan: &Plan, partition: PartitionId) {
        if partition == self.ids()[1] {
            self.behind.lock().unwrap().push((program, plan.key.class));
        }
    }

    fn submit(&self, launch: Launch) -> Result<(), DeviceError> {
        let behind = self.behind.lock().unwrap();
        self.seen
            .lock()
            .unwrap()
            .extend(behind.iter().filter(|(program, _)| *program == launch.program).map(|(_, class)| *class));
        self.inner.submit(launch)
    }
}

#[test]
fn a_class_that_can_wait_is_put_behind_one_that_is_late_beside_it_and_both_answer_as_ever() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        eprintln!("skipped: two partitions need two cores");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &[QUICK, SLOW]);
    let seen: Arc<Mutex<HashSet<ClassId>>> = Arc::default();
    let keeping = seen.clone();
    let inside = move |inner| -> Arc<dyn Device> {
        Arc::new(WithSizes { inner, behind: Mutex::default(), seen: keeping })
    };
    let settings = tessera_server::Settings { interrupt: false, ..settings(folder.path()) };
    let (served, _) = Served::slowed(settings, NonZeroUsize::new(2), inside, |device| device);
    let inputs = |name| fixture::case(name).sets.remove(0).inputs;
    let many = repeated(&inputs(SLOW), 40);
    let (quick, slow) = (served.answer(QUICK, &inputs(QUICK)), served.answer(SLOW, &many));
    let hurried = limited(&binary(QUICK, &inputs(QUICK)), LITTLE_US);
    let (over, begun) = (AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                assert_eq!(served.answer(SLOW, &many), slow);
                std::thread::sleep(asked.elapsed() * PAUSE);
            }
        });
        while seen.lock().unwrap().is_empty() && begun.elapsed() < Duration::from_secs(60) {
            for _ in 0..20 {
                let answer = served.send(&hurried);
                assert!(answer.status != 200 || outputs(&answer) == quick);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    println!("behind after {:?}", begun.elapsed());
    let told = of_kind(&served, "rearranged");
    assert_eq!(seen.lock().unwrap().len(), 1, "one class ran behind: {told:?}");
    assert_eq!(
        (&told[0]["numbers"]["from"], &told[0]["numbers"]["to"]),
        (&json!([4]), &json!([4, 1])),
        "{told:?}"
    );
    assert_eq!(served.answer(QUICK, &inputs(QUICK)), quick);
}
