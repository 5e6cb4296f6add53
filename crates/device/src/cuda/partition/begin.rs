//! How launches are begun, in the order in which they were handed over.
//!
//! ```text
//!   submit ─┬─ few bytes, nothing ahead ───▶ begun at once ──┬─▶ few requests: whoever polls
//!           └─ else ─▶ feeder: waits for a berth ─▶ begun there ─┴─▶ reaper
//! ```
//! A launch of few bytes is begun by whoever submits it: to copy them and to launch a graph takes less than to wake a thread that does it. Of an mlp, µs of a core for
//! each launch of one lane (H200, 2026-11-26): 2.2 to hand it over, 5.6 in the feeder and 8.0 in the reaper; so 4.4, none and 7.6. Of 8 lanes (25 KB) 2.7 to hand it
//! over and 9.1 in the feeder; so 6.2 and none; of 16 (50 KB) 3.1 and 11.3, and 6.9; but one in a hundred of those takes 12 to 17 where handing it over took 5 to 8
//! (H200, 2026-11-27). What takes long, or has to wait, is the feeder's.

use super::berth::{Berth, Berths, Staged};
use super::guard::guarded;
use super::{InFlight, Outbox, Running};
use crate::cuda::abi::Signal;
use crate::cuda::fence::{CudaError, Event, Stream};
use crate::cuda::landing::{Landing, Lying};
use crate::cuda::program::OUTPUTS;
use crate::cuda::staging::Route;
use rayon::ThreadPool;
use std::mem::offset_of;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

/// A launch of at most so many requests is heard of by whoever polls, who also cuts their answers; of more, that takes an engine's thread longer than it is worth. Of an mlp, µs of a
/// core for each launch of 1 and 4 lanes, all threads together: 17.2 to 18.6 and 22.5 to 23.7 with the reaper, so 10.4 to 10.8 and 11.7 to 12.8; of 8 and 16 lanes 29 to 30 and 44 to 45, and would be 13 to
/// 15 and 18. But a server of 16 tenants, whose engine's thread is the busiest, answered 125,000 and 154,000 requests a second without this limit, and 179,000 and 188,000 with it (H200, 2026-11-27).
const FEW: usize = 4;

/// Where launches come in.
#[derive(Debug)]
pub(super) struct Entrance {
    starter: Arc<Mutex<Starter>>,
    feeder: Sender<Running>,
    reaper: Reaping,
    /// Launches that the feeder was handed and has not begun.
    ahead: Arc<AtomicUsize>,
    berths: Arc<Berths>,
    outbox: Outbox,
}

/// The thread that begins what whoever submits does not.
pub(super) struct Feeder {
    starter: Arc<Mutex<Starter>>,
    reaper: Reaping,
    ahead: Arc<AtomicUsize>,
    berths: Arc<Berths>,
    outbox: Outbox,
}

/// All it takes to begin a launch.
#[derive(Debug)]
pub(super) struct Starter {
    pub(super) copy_in: Stream,
    /// By size.
    pub(super) compute: Arc<Vec<Stream>>,
    /// Of the launch before.
    pub(super) size: usize,
    /// Where the launches in another size end.
    pub(super) turned: Event,
    pub(super) copy_out: Arc<Stream>,
    pub(super) berths: Arc<Berths>,
    pub(super) landing: Arc<Landing>,
    pub(super) stagers: Arc<ThreadPool>,
    pub(super) outbox: Outbox,
    /// Launches so far.
    pub(super) begun: u64,
}

/// An entrance, and the feeder behind it, which is told through `feeder` and tells the reaper.
pub(super) fn entrance(starter: Starter, feeder: Sender<Running>, reaper: Reaping) -> (Entrance, Feeder) {
    let (berths, outbox) = (starter.berths.clone(), starter.outbox.clone());
    let (starter, ahead) = (Arc::new(Mutex::new(starter)), Arc::new(AtomicUsize::new(0)));
    let behind = Feeder {
        starter: starter.clone(),
        reaper: reaper.clone(),
        ahead: ahead.clone(),
        berths: berths.clone(),
        outbox: outbox.clone(),
    };
    (Entrance { starter, feeder, reaper, ahead, berths, outbox }, behind)
}

/// The way to the reaper.
#[derive(Clone, Debug)]
pub(super) struct Reaping {
    pub(super) reaper: Sender<InFlight>,
    /// Launches that it has.
    pub(super) has: Arc<AtomicUsize>,
}

impl Reaping {
    fn hand(&self, flight: InFlight, outbox: &Outbox) {
        self.has.fetch_add(1, Ordering::Relaxed);
        if let Err(unsent) = self.reaper.send(flight) {
            outbox.finish_lost(unsent.0.running, "its thread has ended");
        }
    }

    fn is_idle(&self) -> bool {
        self.has.load(Ordering::Relaxed) == 0
    }
}

impl Entrance {
    /// Takes a launch in: begins it and hands it back, or has the feeder begin it, the reaper hear of it, or both. Waits for nothing.
    pub(super) fn push(&self, running: Running) -> Option<InFlight> {
        if let Some(why) = self.outbox.lost() {
            self.outbox.finish_lost(running, &why);
            return None;
        }
        // Nobody but this thread adds to what is ahead.
        if self.ahead.load(Ordering::Acquire) == 0
            && Berth::is_small(&running)
            && let Some(berth) = self.berths.try_take()
        {
            let flight = begin(&self.starter, running, berth)?;
            // What the reaper has may take long, and this begins behind it.
            if flight.running.requests() <= FEW && self.reaper.is_idle() {
                return Some(flight);
            }
            self.reaper.hand(flight, &self.outbox);
            return None;
        }
        self.ahead.fetch_add(1, Ordering::Relaxed);
        if let Err(unsent) = self.feeder.send(running) {
            self.outbox.finish_lost(unsent.0, "its thread has ended");
        }
        None
    }
}

impl Feeder {
    pub(super) fn run(self, fed: &Receiver<Running>) {
        for running in fed {
            match self.outbox.lost() {
                Some(why) => self.outbox.finish_lost(running, &why),
                None => {
                    if let Some(flight) = begin(&self.starter, running, self.berths.take()) {
                        self.reaper.hand(flight, &self.outbox);
                    }
                }
            }
            // What this thread did comes before what the next one does who finds nothing ahead.
            self.ahead.fetch_sub(1, Ordering::Release);
        }
        let starter = self.starter.lock().unwrap_or_else(PoisonError::into_inner);
        // A launch is heard to be over a moment before its last kernel has left. The error, if there is one, was told by the launch that met it.
        starter.compute.iter().for_each(|stream| drop(stream.synchronize()));
    }
}

fn begin(starter: &Mutex<Starter>, running: Running, berth: Berth) -> Option<InFlight> {
    starter.lock().unwrap_or_else(PoisonError::into_inner).begin(running, berth)
}

impl Starter {
    /// Begins a launch. Of one that cannot be begun everybody hears.
    fn begin(&mut self, running: Running, mut berth: Berth) -> Option<InFlight> {
        let sampled = self.outbox.timing.includes(self.begun);
        self.begun += 1;
        match guarded(|| self.start(&running, &mut berth, sampled)) {
            Ok(staged) => Some(InFlight { running, berth, staged }),
            Err(error) => {
                self.outbox.lose(&error);
                // What was started may still write to it, and whoever else wants one is to hear of the loss, not to wait.
                self.berths.give_back(berth);
                self.outbox.finish_lost(running, &error.to_string());
                None
            }
        }
    }

    /// Has everything in a size begin after what was begun in another: they compute in one arena.
    fn turn_to(&mut self, size: usize) -> Result<(), CudaError> {
        if size != self.size {
            self.turned.record(&self.compute[self.size])?;
            self.compute[size].wait(&self.turned)?;
            self.size = size;
        }
        Ok(())
    }

    /// Stages and enqueues one launch. Errors are the card's, and final.
    fn start(&mut self, running: &Running, berth: &mut Berth, sampled: bool) -> Result<Staged, CudaError> {
        self.turn_to(running.size)?;
        let (program, compute) = (&running.program, &self.compute[running.size]);
        let staged = berth.lay_out(running, sampled);
        if staged.direct_in {
            let route = Route::new(&running.lanes, &staged.inputs, |_| None);
            route.chunks.iter().for_each(|chunk| chunk.stage(&self.stagers, berth.host_in.bytes_mut()));
        } else {
            let stretches = self.landing.stretches();
            let lying = |input: &[u8]| Lying::of(input, &stretches);
            let route = Route::new(&running.lanes, &staged.inputs, lying);
            for (at, Lying { stretch, range }) in &route.pieces {
                self.copy_in.copy_pieces(&stretches[*stretch], range.clone(), &berth.device_in, *at)?;
            }
            for chunk in &route.chunks {
                chunk.stage(&self.stagers, berth.host_in.bytes_mut());
                self.copy_in.copy_in(&berth.host_in, &berth.device_in, chunk.range.clone())?;
            }
            berth.arrived.record(&self.copy_in)?;
            compute.wait(&berth.arrived)?;
        }
        program.announce(&running.rows, &staged.ports, &staged.ends);
        program.graph(running.items()).launch(compute)?;
        if !staged.direct_out {
            berth.computed.record(compute)?;
            self.copy_out.wait(&berth.computed)?;
            self.copy_out.copy_out(&berth.device_out, &mut berth.host_out, OUTPUTS..staged.bytes_out)?;
            self.copy_out.tell(&berth.host_out, offset_of!(Signal, copied), 1)?;
        }
        Ok(staged)
    }
}
