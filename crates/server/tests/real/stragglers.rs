//! A tenant that is slow, on the real server: out of the launches it shared, and back when it is well.

use crate::client;
use crate::events::of_kind;
use crate::fixture;
use crate::served::{Served, settings};
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tessera_core::{PartitionId, ProgramId, SlotId};
use tessera_device::around::Around;
use tessera_device::cpu::CpuDevice;
use tessera_device::slowed::Slowed;
use tessera_device::{Device, DeviceError, Finished, Launch, PartitionInfo};
use tessera_planner::Plan;

const TENANTS: [&str; 4] = ["mlp-0", "mlp-1", "mlp-2", "mlp-3"];
const SLOW: &str = "mlp-3";

#[test]
fn a_slow_tenant_runs_by_itself_until_it_is_well_and_answers_as_ever() {
    comes_and_goes(None, Arc::new);
}

#[test]
fn a_slow_tenant_and_nobody_else_runs_on_the_partition_that_is_aside() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        eprintln!("skipped: two partitions need two cores");
        return;
    }
    let seen: Arc<Mutex<Vec<SlotId>>> = Arc::default();
    let keeping = seen.clone();
    let slow = comes_and_goes(NonZeroUsize::new(2), move |inner| {
        Arc::new(WithOneAside { inner, programs: Mutex::default(), seen: keeping })
    });
    let seen = seen.lock().unwrap();
    assert!(!seen.is_empty() && seen.iter().all(|slot| *slot == slow), "{seen:?} and not only {slow}");
}

/// Tells one time for all lanes of a launch, as a card does.
#[derive(Debug)]
struct Merged(Arc<Slowed>);

impl Around for Merged {
    fn inner(&self) -> &dyn Device {
        &*self.0
    }

    fn poll(&self) -> Vec<Finished> {
        let merged = |launch| Finished { lanes: Vec::new(), steps: None, ..launch };
        self.inner().poll().into_iter().map(merged).collect()
    }
}

#[test]
fn where_lanes_have_no_times_who_is_suspected_is_heard_before_it_is_out_and_that_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &TENANTS[..3]);
    let (served, slowed) =
        Served::slowed(settings(folder.path()), None, |cpu| Arc::new(cpu), |device| Arc::new(Merged(device)));
    fixture::place(folder.path(), &[SLOW]);
    client::eventually("the slow one is loaded", || {
        served.get(&format!("/v2/models/{SLOW}/ready")).status == 200
    });
    let place = *slowed.uploaded().last().unwrap();
    let of_slow = |kind: &str| of_kind(&served, kind).into_iter().find(|event| event["tenant"] == SLOW);
    served.while_asked(&TENANTS, Duration::from_millis(2), || {
        std::thread::sleep(Duration::from_millis(500));
        slowed.slow(place, 200.0);
        client::eventually("it is out", || of_slow("evicted").is_some());
    });
    let (heard, out) = (of_slow("heard").unwrap(), of_slow("evicted").unwrap());
    assert!(heard["seq"].as_u64() < out["seq"].as_u64(), "{heard} before {out}");
    assert!(heard["text"].as_str().unwrap().starts_with("runs alone for a few launches, "), "{heard}");
    let numbers = &heard["numbers"];
    assert!(numbers["longer"].as_f64() > Some(1.0) && numbers["lanes"].as_u64() >= Some(1), "{heard}");
    assert!(numbers["witness"].is_boolean(), "{heard}");
    assert!(served.sample("tessera_events_total{kind=\"heard\"}") >= 1.0);
}

/// A CPU device in two partitions, of which the second is aside, as a card's may be.
#[derive(Debug)]
struct WithOneAside {
    inner: CpuDevice,
    /// That were compiled for it.
    programs: Mutex<HashSet<ProgramId>>,
    /// Whose weights its launches read.
    seen: Arc<Mutex<Vec<SlotId>>>,
}

impl WithOneAside {
    fn aside(&self) -> PartitionId {
        self.inner.partitions().last().unwrap().id
    }
}

impl Around for WithOneAside {
    fn inner(&self) -> &dyn Device {
        &self.inner
    }

    fn partitions(&self) -> Vec<PartitionInfo> {
        let told = |share: PartitionInfo| PartitionInfo { aside: share.id == self.aside(), ..share };
        self.inner.partitions().into_iter().map(told).collect()
    }

    fn overlap(&self) -> bool {
        true
    }

    fn compiled(&self, program: ProgramId, _: &Plan, partition: PartitionId) {
        if partition == self.aside() {
            self.programs.lock().unwrap().insert(program);
        }
    }

    fn submit(&self, launch: Launch) -> Result<(), DeviceError> {
        if self.programs.lock().unwrap().contains(&launch.program) {
            self.seen.lock().unwrap().extend(launch.lanes.iter().map(|lane| lane.slot.id()));
        }
        self.inner.submit(launch)
    }
}

/// A tenant becomes slow, is out, becomes well and is back, on a CPU device of so many partitions, inside what `outer` puts around it. Says where its weights
/// are.
fn comes_and_goes<D: Device + 'static>(
    partitions: Option<NonZeroUsize>,
    outer: impl FnOnce(CpuDevice) -> Arc<D> + Send + 'static,
) -> SlotId {
    let folder = tempfile::tempdir().unwrap();
    fixture::place(folder.path(), &TENANTS[..3]);
    let (served, slowed) =
        Served::slowed(settings(folder.path()), partitions, |cpu| outer(cpu), |device| device);
    // It comes last, so that its weights are the last to be uploaded.
    fixture::place(folder.path(), &[SLOW]);
    client::eventually("the slow one is loaded", || {
        served.get(&format!("/v2/models/{SLOW}/ready")).status == 200
    });
    let place = *slowed.uploaded().last().unwrap();
    let apart = |tenant: &str| served.sample(&format!("tessera_tenant_apart{{tenant=\"{tenant}\",")) > 0.0;
    served.while_asked(&TENANTS, Duration::from_millis(2), || {
        // Loading and the first launches aside, everybody shares.
        std::thread::sleep(Duration::from_millis(500));
        let before = TENANTS.map(apart);
        slowed.slow(place, 20.0);
        let since = Instant::now();
        let until = |wanted: bool| {
            let end = Instant::now() + Duration::from_secs(60);
            while apart(SLOW) != wanted && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
            apart(SLOW) == wanted
        };
        let (out, out_after) = (until(true), since.elapsed());
        let others = TENANTS.map(apart);
        slowed.slow(place, 1.0);
        let (back, back_after) = (until(false), since.elapsed());
        println!("out after {out_after:?} as metrics tell by the second, back after {back_after:?}");
        // How far the device is used: what was done, over what could be.
        for kind in ["flop", "bytes"] {
            for series in ["tessera_device_work_total", "tessera_device_peak"] {
                let labels = format!("{series}{{device=\"cpu\",kind=\"{kind}\"}}");
                assert!(served.sample(&labels) > 0.0, "{labels}");
            }
        }
        assert_eq!(before, [false; 4], "nobody was slow");
        assert!(out, "it never left");
        assert_eq!(others[..3], [false; 3], "and only it");
        assert!(back, "it never came back");
    });
    let (_, slot, _) = place;
    slot
}
