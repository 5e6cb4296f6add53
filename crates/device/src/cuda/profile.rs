//! What each step of a launch takes: for benches.
//!
//! The launch's kernels are captured once more, with an event behind every step. Steps then follow each other instead of overlapping, so their sum is
//! a little more than a launch takes; caches are as warm as in a launch.

use super::Refused;
use super::fence::{CudaError, Event, Graph};
use super::partition::{Place, Running};
use super::program::NoKernel;
use super::staging::Route;
use crate::StepTime;
use rayon::ThreadPool;
use std::num::NonZeroUsize;
use std::time::Duration;

/// Runs a launch `rounds` times and takes the median of each step.
pub(super) fn profile(
    running: &Running,
    rounds: NonZeroUsize,
    place: Place<'_>,
    stagers: &ThreadPool,
) -> Result<Vec<StepTime>, Refused> {
    let program = &running.program;
    let lowered = program
        .lower(program.capacity(running.items()))
        .map_err(|NoKernel { step, why }| Refused::NoKernel(NoKernel { step, why }))?;
    let (partition, stream) = (place.partition, place.stream()?);
    let events: Result<Vec<Event>, CudaError> =
        (0..=lowered.steps.len()).map(|_| Event::timed(&partition.context)).collect();
    let events = events?;
    let graph = Graph::capture(&stream, || {
        lowered.inputs.iter().try_for_each(|call| program.launch(call, &stream))?;
        events[0].record_in_graph(&stream)?;
        for (calls, event) in lowered.steps.iter().zip(&events[1..]) {
            calls.iter().try_for_each(|call| program.launch(call, &stream))?;
            event.record_in_graph(&stream)?;
        }
        Ok(())
    })?;
    partition.with_berth(|berth| {
        let staged = berth.lay_out(running, false);
        for chunk in Route::new(&running.lanes, &staged.inputs, |_| None).chunks {
            chunk.stage(stagers, berth.host_in.bytes_mut());
            stream.copy_in(&berth.host_in, &berth.device_in, chunk.range)?;
        }
        let mut table = vec![0; program.table.bytes];
        program.table.write(&running.rows, &staged.ports, &staged.ends, &mut table);
        stream.upload(&table, program.table_address())?;
        let mut took: Vec<Vec<Duration>> = vec![Vec::with_capacity(rounds.get()); lowered.steps.len()];
        for _ in 0..rounds.get() {
            graph.launch(&stream)?;
            stream.synchronize()?;
            for (took, pair) in took.iter_mut().zip(events.windows(2)) {
                took.push(pair[0].until(&pair[1])?);
            }
        }
        let median = |(step, mut took): (usize, Vec<Duration>)| {
            took.sort_unstable();
            StepTime { step, took: took[took.len() / 2] }
        };
        Ok(took.into_iter().enumerate().map(median).collect())
    })
}
