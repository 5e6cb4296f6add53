//! A device that writes down what its launches took, and passes everything on.
//!
//! ```text
//!   engine ─ submit ─▶ [who, items, when] ─▶ device ─▶ [when it was heard of, how long it computed] ─ poll ─▶ engine
//! ```
//! So costs are measured where they are paid: under the server's engine, with everything beside it that takes cores from a CPU device.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tessera_core::{IdMap, LaunchId, ProgramId, SlotId};
use tessera_device::around::Around;
use tessera_device::{Device, DeviceError, Finished, Launch};
use tessera_scheduler::Size;

/// A launch that was.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    pub(crate) program: ProgramId,
    pub(crate) size: Size,
    /// When it was handed over.
    pub(crate) submitted: Instant,
    /// When its end was heard of.
    pub(crate) heard: Instant,
    /// Time on the device.
    pub(crate) took: Duration,
    /// Whose weights each lane read, and for how many requests.
    pub(crate) lanes: Vec<(SlotId, u32)>,
}

/// A launch that runs.
#[derive(Debug)]
struct Handed {
    program: ProgramId,
    size: Size,
    submitted: Instant,
    lanes: Vec<(SlotId, u32)>,
}

/// What was written down.
#[derive(Debug, Default)]
pub(crate) struct Log {
    running: Mutex<IdMap<LaunchId, Handed>>,
    ran: Mutex<Vec<Ran>>,
    by_lane: AtomicBool,
}

impl Log {
    /// Whether the device told what lanes took.
    pub(crate) fn tells_lanes(&self) -> bool {
        self.by_lane.load(Ordering::Relaxed)
    }

    /// The launches that have ended since it was last asked, in the order in which they did.
    pub(crate) fn take(&self) -> Vec<Ran> {
        std::mem::take(&mut lock(&self.ran))
    }

    /// What has ended is nobody's business.
    pub(crate) fn forget(&self) {
        lock(&self.ran).clear();
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Recorder {
    device: Arc<dyn Device>,
    log: Arc<Log>,
}

impl Recorder {
    pub(crate) fn of(device: Arc<dyn Device>, log: Arc<Log>) -> Recorder {
        Recorder { device, log }
    }
}

/// What another thread left half done when it panicked is only a measurement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Around for Recorder {
    fn inner(&self) -> &dyn Device {
        &*self.device
    }

    fn submit(&self, launch: Launch) -> Result<(), DeviceError> {
        let items =
            |lane: &tessera_device::Lane| lane.requests.iter().map(|request| request.items).sum::<u32>();
        let size = Size { lanes: launch.lanes.len() as u32, items: launch.lanes.iter().map(items).sum() };
        let lanes = launch.lanes.iter().map(|lane| (lane.slot.id(), lane.requests.len() as u32)).collect();
        let id = launch.id;
        // Written down before: its end may be heard of before the call is over.
        let handed = Handed { program: launch.program, size, submitted: Instant::now(), lanes };
        lock(&self.log.running).insert(id, handed);
        self.device.submit(launch).inspect_err(|_| {
            lock(&self.log.running).remove(&id);
        })
    }

    fn poll(&self) -> Vec<Finished> {
        let finished = self.device.poll();
        let heard = Instant::now();
        for Finished { id, took, lanes, .. } in &finished {
            if !lanes.is_empty() {
                self.log.by_lane.store(true, Ordering::Relaxed);
            }
            let handed = lock(&self.log.running).remove(id);
            if let Some(Handed { program, size, submitted, lanes }) = handed {
                lock(&self.log.ran).push(Ran { program, size, submitted, heard, took: *took, lanes });
            }
        }
        finished
    }
}
