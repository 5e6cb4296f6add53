//! How launches are ended: their answers leave the berth, which the next launch may have, and whoever asks hears of them.
//!
//! Behind the end of an mlp's launch, µs for 1, 8 and 32 lanes (H200, 2026-11-27): answers 0.5, 3.3 and 8; leases and inputs let go of 0.4, 1.5 and 4; the berth 0.3;
//! waking who asks 1.8. Answers cut from one copy of all of them, in place of a copy each, were made a tenth sooner on a CPU: not worth what a slow reader would keep.

use super::berth::{Berths, Staged};
use super::guard::guarded;
use super::watch::{CardClock, Signalled, Watch};
use super::{InFlight, Outbox};
use crate::cuda::abi::ItemError;
use crate::cuda::fence::{CudaError, Stream};
use crate::cuda::staging::WORTH_SHARING;
use crate::{Finished, LaneRequest, RequestError};
use bytes::Bytes;
use rayon::ThreadPool;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// All it takes to end a launch.
#[derive(Debug)]
pub(super) struct Ender {
    pub(super) streams: Streams,
    pub(super) berths: Arc<Berths>,
    /// Who stages inputs also helps with many outputs.
    pub(super) stagers: Arc<ThreadPool>,
    pub(super) outbox: Outbox,
    pub(super) clocks: Clocks,
}

/// Where ends are told.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    /// By size.
    pub(super) compute: Arc<Vec<Stream>>,
    pub(super) copy_out: Arc<Stream>,
}

impl Streams {
    fn signal<'a>(&'a self, flight: &'a InFlight) -> Signalled<'a> {
        let InFlight { running, berth, staged } = flight;
        let copied = !staged.direct_out;
        let stream = if copied { &*self.copy_out } else { &self.compute[running.size] };
        Signalled { signal: &berth.host_out, copied, stream, waits: running.program.waits(running.items()) }
    }
}

/// An end is heard of later by a copy where there is one: with one clock, launches without would be slept through by as much.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    direct: CardClock,
    copied: CardClock,
}

impl Clocks {
    fn of(&mut self, flight: &InFlight) -> &mut CardClock {
        if flight.staged.direct_out { &mut self.direct } else { &mut self.copied }
    }
}

impl Ender {
    pub(super) fn is_over(&self, flight: &InFlight) -> bool {
        self.streams.signal(flight).is_given()
    }

    /// See [`Watch::nap`].
    pub(super) fn nap(
        &mut self,
        flight: &InFlight,
        watch: &mut Watch,
    ) -> Result<Option<Duration>, CudaError> {
        guarded(|| watch.nap(&self.streams.signal(flight), self.clocks.of(flight)))
    }

    /// Ends a launch that is over: the next poll tells of it.
    pub(super) fn end(&mut self, flight: InFlight) {
        match guarded(|| Ok(self.outcome(&flight))) {
            Ok(finished) => {
                let InFlight { running, berth, .. } = flight;
                let number = running.number;
                // The slots' leases end before anybody hears of the answers, so that whoever waits for them finds the memory free.
                drop(running);
                self.berths.give_back(berth);
                self.outbox.put(number, finished);
            }
            Err(error) => self.lose(flight, &error),
        }
    }

    /// The card is lost, and this launch with it.
    pub(super) fn lose(&self, flight: InFlight, error: &CudaError) {
        self.outbox.lose(error);
        // The feeder may wait for one.
        self.berths.give_back(flight.berth);
        self.outbox.finish_lost(flight.running, &error.to_string());
    }

    /// What came of a launch that is over.
    fn outcome(&mut self, flight: &InFlight) -> Finished {
        let took = self.streams.signal(flight).took(self.clocks.of(flight));
        let answers = answers(flight, &self.stagers);
        // Lanes run merged: all of them have one row, and none a time of its own.
        let steps = step_times(flight).map(|steps| vec![steps]);
        let id = flight.running.id;
        Finished { id, answers, took, lanes: Vec::new(), longest_segment: None, steps }
    }
}

/// What each step added to a sampled launch.
fn step_times(flight: &InFlight) -> Option<Vec<Duration>> {
    let InFlight { running, berth, staged } = flight;
    let told = &berth.host_out.bytes()[staged.began?..staged.bytes_out];
    Some(running.program.step_times(running.items(), told))
}

/// A request's outputs, or why it failed.
type Answer = Result<Vec<Bytes>, RequestError>;

/// Every request's answer, by lane. Many bytes are copied by several threads, so that they are heard of sooner; the system, which finds room for them, takes more of all
/// threads together: 16 answers of 400 KB one thread copies in 547 µs, the stagers in about 60 and 838 of their time (H200, 2026-11-26).
fn answers(flight: &InFlight, stagers: &ThreadPool) -> Vec<Vec<Answer>> {
    let lanes = &flight.running.lanes;
    let mut first = 0;
    let mut items_of = |request: &LaneRequest| {
        let items = first..first + request.items as usize;
        first = items.end;
        items
    };
    if flight.staged.bytes_out < WORTH_SHARING {
        let mut answer = |request: &LaneRequest| answer(flight, items_of(request));
        return lanes.iter().map(|lane| lane.requests.iter().map(&mut answer).collect()).collect();
    }
    let places: Vec<Vec<Range<usize>>> =
        lanes.iter().map(|lane| lane.requests.iter().map(&mut items_of).collect()).collect();
    let lane = |places: Vec<Range<usize>>| {
        places.into_par_iter().map(|items| answer(flight, items)).collect::<Vec<Answer>>()
    };
    stagers.install(|| places.into_par_iter().map(lane).collect())
}

/// The answer of the request that brought these of the launch's items.
fn answer(flight: &InFlight, items: Range<usize>) -> Answer {
    let InFlight { running, berth, staged: Staged { outputs, errors, .. } } = flight;
    let (program, bytes) = (&running.program, berth.host_out.bytes());
    if program.can_fail {
        let size = size_of::<ItemError>();
        let reports = bytes[errors + items.start * size..errors + items.end * size].chunks_exact(size);
        let mut failures =
            reports.filter_map(|report| program.failure(&bytemuck::pod_read_unaligned(report)));
        if let Some(failure) = failures.next() {
            return Err(failure);
        }
    }
    let ports = program.plan.outputs.iter().zip(outputs);
    let output = ports.map(|(port, offset)| {
        let size = port.bytes_per_item();
        Bytes::copy_from_slice(&bytes[offset + items.start * size..offset + items.end * size])
    });
    Ok(output.collect())
}
