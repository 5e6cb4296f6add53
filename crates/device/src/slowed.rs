//! A device on which chosen tenants, or a partition, are slow: for tests and benches of isolation.
//!
//! ```text
//!   submit ─▶ inner device ─▶ finished ─▶ held for (factor − 1) × the slow lanes' time ─▶ poll
//!                                         what the partition finished meanwhile is held behind it
//! ```
//! The server sees what it would see of a device whose partition is busy for longer: launches end later, one after the other, and tell longer lanes. What is
//! computed is the inner device's. A slow partition is well once it was opened anew. No device has a switch for this, so none pays for it.

use crate::around::Around;
use crate::{Device, DeviceError, Finished, Launch, Slot, Wake};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tessera_core::{ClassId, LaunchId, PartitionId, ProgramId, SlotId};
use tessera_planner::{Packed, Plan, SlotLayout};

/// Where a tenant's weights are: its class, its slot, and which use of it.
pub type Place = (ClassId, SlotId, u64);

/// See the module's text.
pub struct Slowed {
    inner: Arc<dyn Device>,
    held: Arc<Held>,
}

#[derive(Default)]
struct Held {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How many times longer the lanes of a place take.
    slow: HashMap<Place, f64>,
    /// How many times longer all launches of a partition take.
    slow_partitions: HashMap<PartitionId, f64>,
    uploaded: Vec<Place>,
    programs: HashMap<ProgramId, (ClassId, PartitionId)>,
    /// Where each launch is, and the places of its lanes.
    launches: HashMap<LaunchId, (PartitionId, Vec<Place>)>,
    /// Until when each partition computes.
    busy: HashMap<PartitionId, Instant>,
    /// What is over, and from when on that may be heard.
    waiting: Vec<(Instant, Finished)>,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slowed {
    /// Around a device that is opened by `open`. Errors are those of `open`, and that a thread cannot be started.
    pub fn open<E: From<DeviceError>>(
        wake: Wake,
        open: impl FnOnce(Wake) -> Result<Arc<dyn Device>, E>,
    ) -> Result<Arc<Slowed>, E> {
        let inner = open(wake.clone())?;
        Ok(Slowed::around(inner, wake)?)
    }

    /// Around a device that was opened with this wake. Errors when a thread cannot be started.
    pub fn around(inner: Arc<dyn Device>, wake: Wake) -> Result<Arc<Slowed>, DeviceError> {
        let held = Arc::new(Held::default());
        let weak = Arc::downgrade(&held);
        let clock = std::thread::Builder::new().name("slowed".to_owned()).spawn(move || ring(&weak, &wake));
        clock.map_err(|error| DeviceError::Failed {
            device: inner.info().name,
            why: format!("a thread cannot be started: {error}"),
        })?;
        Ok(Arc::new(Slowed { inner, held }))
    }

    /// From now on a tenant's lanes take so many times what they do; one is as they are.
    pub fn slow(&self, place: Place, factor: f64) {
        self.held.lock().slow.insert(place, factor);
    }

    /// From now on all launches of a partition take so many times what they do, until it is opened anew.
    pub fn slow_partition(&self, partition: PartitionId, factor: f64) {
        self.held.lock().slow_partitions.insert(partition, factor);
    }

    /// Where weights were put so far, in order.
    pub fn uploaded(&self) -> Vec<Place> {
        self.held.lock().uploaded.clone()
    }
}

/// Rings when something held is over, for as long as the device lives.
fn ring(held: &Weak<Held>, wake: &Wake) {
    while let Some(held) = held.upgrade() {
        let state = held.lock();
        let next = state.waiting.iter().map(|(due, _)| *due).min();
        let now = Instant::now();
        // A look now and then, so that the thread ends with its device.
        let pause = next.map_or(Duration::from_millis(100), |due| due.saturating_duration_since(now));
        if next.is_some() && pause.is_zero() {
            drop(state);
            wake();
            // Until the engine has come for it.
            std::thread::sleep(Duration::from_micros(50));
            continue;
        }
        drop(held.changed.wait_timeout(state, pause.min(Duration::from_millis(100))));
    }
}

impl State {
    /// When a launch that the inner device finished now is to be heard of, as if its slow lanes had taken as long as they should.
    fn hold(&mut self, now: Instant, mut finished: Finished) {
        let Some((partition, places)) = self.launches.remove(&finished.id) else {
            return self.waiting.push((now, finished));
        };
        let mut extra = Duration::ZERO;
        for (number, place) in places.iter().enumerate() {
            let tenant = self.slow.get(place).copied().unwrap_or(1.0).max(1.0);
            let factor = tenant * self.slow_partitions.get(&partition).copied().unwrap_or(1.0).max(1.0);
            let lane = finished.lanes.get_mut(number);
            let took = lane.as_ref().map_or(finished.took / places.len().max(1) as u32, |lane| **lane);
            let longer = took.mul_f64(factor - 1.0);
            extra += longer;
            if let Some(lane) = lane {
                *lane += longer;
            }
        }
        let before = self.busy.get(&partition).copied().filter(|busy| *busy > now);
        let due = before.map_or(now, |busy| busy + finished.took) + extra;
        self.busy.insert(partition, due);
        finished.took += extra;
        // Nothing goes before what is held back.
        finished.longest_segment = None;
        self.waiting.push((due, finished));
    }
}

impl fmt::Debug for Slowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Around for Slowed {
    fn inner(&self) -> &dyn Device {
        &*self.inner
    }

    fn upload(&self, class: ClassId, layout: &Arc<SlotLayout>, packed: Packed) -> Result<Slot, DeviceError> {
        let slot = self.inner.upload(class, layout, packed)?;
        self.held.lock().uploaded.push((class, slot.id(), slot.generation()));
        Ok(slot)
    }

    fn compiled(&self, program: ProgramId, plan: &Plan, partition: PartitionId) {
        self.held.lock().programs.insert(program, (plan.key.class, partition));
    }

    fn discard(&self, program: ProgramId) {
        self.held.lock().programs.remove(&program);
        self.inner.discard(program);
    }

    fn reopen(&self, partition: PartitionId) -> Result<(), DeviceError> {
        self.inner.reopen(partition)?;
        self.held.lock().slow_partitions.remove(&partition);
        Ok(())
    }

    fn submit(&self, launch: Launch) -> Result<(), DeviceError> {
        let id = launch.id;
        {
            let mut state = self.held.lock();
            if let Some((class, partition)) = state.programs.get(&launch.program).copied() {
                let place = |lane: &crate::Lane| (class, lane.slot.id(), lane.slot.generation());
                state.launches.insert(id, (partition, launch.lanes.iter().map(place).collect()));
            }
        }
        self.inner.submit(launch).inspect_err(|_| _ = self.held.lock().launches.remove(&id))
    }

    fn poll(&self) -> Vec<Finished> {
        let mut state = self.held.lock();
        let now = Instant::now();
        for finished in self.inner.poll() {
            state.hold(now, finished);
        }
        let (mut over, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.waiting).into_iter().partition(|(due, _)| *due <= now);
        state.waiting = waiting;
        drop(state);
        self.held.changed.notify_one();
        over.sort_by_key(|(due, _)| *due);
        over.into_iter().map(|(_, finished)| finished).collect()
    }
}
