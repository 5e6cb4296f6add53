//! The runtime that a server, and whoever asks one, waits in.

use crate::server::StartError;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::thread;
use tokio::runtime::{Builder, Runtime};

/// A runtime with so many workers, made by `builder`. An error where the system refuses it threads: tokio would panic.
pub fn build(workers: usize, builder: &mut Builder) -> Result<Runtime, StartError> {
    // One more makes plans.
    try_threads(workers + 1)?;
    Ok(builder.worker_threads(workers).enable_all().build()?)
}

/// As [`build`], with a worker for each core.
pub fn of_all_cores() -> Result<Runtime, StartError> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    build(cores, &mut Builder::new_multi_thread())
}

/// Whether the system gives so many threads at once. They do nothing, and end.
fn try_threads(count: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    let pass = || drop(gate.lock().unwrap_or_else(PoisonError::into_inner));
    thread::scope(|scope| {
        let _closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
        (0..count).try_for_each(|_| thread::Builder::new().spawn_scoped(scope, pass).map(drop))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_given_together_and_the_runtime_has_as_many() {
        try_threads(50).unwrap();
        let runtime = build(3, &mut Builder::new_multi_thread()).unwrap();
        assert_eq!(runtime.metrics().num_workers(), 3);
    }
}
