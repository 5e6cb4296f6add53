//! A partition: some cores, a worker on each, and the queue that they share.
//!
//! ```text
//!   open ─▶ [queue, workers] ─ reopen ─▶ [queue, workers]        launches go to the new ones from then on;
//!                  └─ ends what it had, and goes                 memory of the old ones is given back as each ends
//! ```

use super::queue::{Queue, Sharing};
use super::running::Running;
use super::workers::{self, Outbox};
use crate::PartitionInfo;
use core_affinity::CoreId;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

/// See the module's text.
pub(super) struct Partition {
    pub(super) info: PartitionInfo,
    cores: Vec<Option<CoreId>>,
    sharing: Sharing,
    outbox: Outbox,
    staff: RwLock<Staff>,
    /// Workers that were replaced, and may still end what they had.
    retired: Mutex<Vec<JoinHandle<()>>>,
}

/// A queue, and those who work it off.
struct Staff {
    queue: Arc<Queue>,
    workers: Vec<JoinHandle<()>>,
}

impl Staff {
    /// Starts a worker on each of the cores. Errors when a thread cannot be started; those that were begun end.
    fn start(
        name: &str,
        cores: &[Option<CoreId>],
        sharing: Sharing,
        outbox: &Outbox,
    ) -> std::io::Result<Staff> {
        let mut staff = Staff { queue: Arc::new(Queue::new(sharing)), workers: Vec::new() };
        for (worker, core) in cores.iter().enumerate() {
            let thread = format!("cpu-{name}-{worker}");
            match workers::start(thread, *core, staff.queue.clone(), outbox.clone()) {
                Ok(worker) => staff.workers.push(worker),
                Err(error) => {
                    staff.queue.close();
                    return Err(error);
                }
            }
        }
        Ok(staff)
    }
}

impl Partition {
    /// Starts workers on these cores. Errors when a thread cannot be started.
    pub(super) fn open(
        info: PartitionInfo,
        cores: Vec<Option<CoreId>>,
        sharing: Sharing,
        outbox: &Outbox,
    ) -> std::io::Result<Partition> {
        let staff = Staff::start(&info.id.0.to_string(), &cores, sharing, outbox)?;
        let (staff, outbox) = (RwLock::new(staff), outbox.clone());
        Ok(Partition { info, cores, sharing, outbox, staff, retired: Mutex::default() })
    }

    /// Hands a launch to the workers.
    pub(super) fn push(&self, launch: Running) {
        self.staff.read().unwrap_or_else(PoisonError::into_inner).queue.push(launch);
    }

    /// Other workers from now on. What was pushed before is ended by the old ones. Errors when a thread cannot be started; then the old ones go on.
    pub(super) fn reopen(&self) -> std::io::Result<()> {
        let staff = Staff::start(&self.info.id.0.to_string(), &self.cores, self.sharing, &self.outbox)?;
        let before =
            std::mem::replace(&mut *self.staff.write().unwrap_or_else(PoisonError::into_inner), staff);
        before.queue.close();
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|worker| !worker.is_finished());
        retired.extend(before.workers);
        Ok(())
    }

    /// Lets the workers end once what was pushed is done.
    pub(super) fn close(&self) {
        self.staff.read().unwrap_or_else(PoisonError::into_inner).queue.close();
    }

    /// Waits for them.
    pub(super) fn join(&mut self) {
        let staff = self.staff.get_mut().unwrap_or_else(PoisonError::into_inner);
        let retired = self.retired.get_mut().unwrap_or_else(PoisonError::into_inner);
        for worker in staff.workers.drain(..).chain(retired.drain(..)) {
            // A worker catches the panics of kernels; one that died otherwise has nothing left to say.
            let _ = worker.join();
        }
    }
}
