//! Berths: where the bytes of one launch lie on their way in and out, on the host and on the card.
//!
//! ```text
//!   berth   host_in, device_in  [inputs]        host_out, device_out  [signal │ outputs │ errors │ when kernels began]
//! ```
//! A partition has a few, so that launches overlap; all hold the largest launch of any of its programs. The signal is on the host alone.

use super::{Outbox, Refused, Running};
use crate::cuda::abi::{Ends, Signal};
use crate::cuda::fence::{Context, CudaError, Event, Memory, Pinned};
use crate::cuda::frame::error_bytes;
use crate::cuda::program::{OUTPUTS, stage_offsets};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use tessera_planner::plan::Port;

/// Launches that may be under way at once: one copies in, one computes, one copies out, and one is being staged.
pub(crate) const UNDER_WAY: usize = 4;

/// Inputs, or outputs, of at most so many bytes are read, or written, by kernels where they are staged on the host: a copy of their own and the events
/// that order it would cost the host more than the bus takes. So many are also staged sooner than a sleeping thread wakes to do it. With 256 KB, 32 and 64 lanes of an mlp
/// (100 and 200 KB) computed for 36.5 and 61.9 µs in place of 34.3 and 56.5 (H200, 2026-11-27).
const DIRECT: usize = 64 << 10;

/// What every launch begins with.
const UNTOLD: Signal = Signal { began: 0, ended: 0, copied: 0 };

/// Staged bytes of one launch, and the events that order its copies and its kernels.
#[derive(Debug)]
pub(crate) struct Berth {
    pub(crate) host_in: Pinned,
    pub(crate) device_in: Memory,
    pub(super) host_out: Pinned,
    pub(super) device_out: Memory,
    pub(super) arrived: Event,
    pub(super) computed: Event,
}

impl Berth {
    fn new(context: &Arc<Context>, bytes_in: usize, bytes_out: usize) -> Result<Berth, CudaError> {
        Ok(Berth {
            host_in: Pinned::new(context, bytes_in)?,
            device_in: Memory::new(context, bytes_in)?,
            host_out: Pinned::new(context, bytes_out)?,
            device_out: Memory::new(context, bytes_out)?,
            arrived: Event::ordering(context)?,
            computed: Event::ordering(context)?,
        })
    }

    /// Whether a launch is staged and begun sooner than somebody else could begin to.
    pub(super) fn is_small(running: &Running) -> bool {
        let (plan, items) = (&running.program.plan, running.items());
        let direct = |ports: &[Port]| stage_offsets(ports, items, 0).1 <= DIRECT;
        direct(&plan.inputs) && direct(&plan.outputs)
    }

    /// Says where a launch's inputs and outputs are to lie in it, and what it tells. It was made for the largest launch of any program, so they fit. Nothing has
    /// been told yet.
    pub(crate) fn lay_out(&mut self, running: &Running, sampled: bool) -> Staged {
        let (program, items) = (&running.program, running.items());
        let (inputs, bytes_in) = stage_offsets(&program.plan.inputs, items, 0);
        let (outputs, errors) = stage_offsets(&program.plan.outputs, items, OUTPUTS);
        let (direct_in, direct_out) = (bytes_in <= DIRECT, errors - OUTPUTS <= DIRECT);
        let of_inputs = if direct_in { self.host_in.address() } else { self.device_in.address() };
        let of_outputs = if direct_out { self.host_out.address() } else { self.device_out.address() };
        let addresses = inputs.iter().map(|&at| of_inputs + at as u64);
        let ports = addresses.chain(outputs.iter().map(|&at| of_outputs + at as u64)).collect();
        let after_errors = errors + error_bytes(items);
        let began = sampled.then_some(after_errors);
        let bytes_out = after_errors + began.map_or(0, |_| program.told_bytes(items));
        let ends = Ends {
            signal: self.host_out.address(),
            errors: of_outputs + errors as u64,
            began: began.map_or(0, |at| of_outputs + at as u64),
        };
        self.host_out.bytes_mut()[..size_of::<Signal>()].copy_from_slice(bytemuck::bytes_of(&UNTOLD));
        Staged { inputs, direct_in, direct_out, outputs, errors, began, bytes_out, ports, ends }
    }

    fn holds(&self, bytes_in: usize, bytes_out: usize) -> bool {
        self.host_in.len() >= bytes_in && self.host_out.len() >= bytes_out
    }
}

/// The berths of a partition that no launch has now.
#[derive(Debug)]
pub(super) struct Berths {
    context: Arc<Context>,
    /// Held by who makes some.
    growing: Mutex<()>,
    idle: Mutex<Idle>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Idle {
    berths: VecDeque<Berth>,
    /// Berths that launches have.
    lent: usize,
    /// What every berth should hold: the largest launch of any program.
    bytes_in: usize,
    bytes_out: usize,
}

impl Berths {
    pub(super) fn new(context: &Arc<Context>) -> Berths {
        Berths {
            context: context.clone(),
            growing: Mutex::default(),
            idle: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    /// Makes a full set of larger berths when those there are too small. The small ones go as they come back. One at a time: of two sets, one made for larger
    /// inputs and one for larger outputs, neither would hold both.
    pub(super) fn reserve(&self, bytes_in: usize, bytes_out: usize, outbox: &Outbox) -> Result<(), Refused> {
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes_in, bytes_out) = {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.bytes_in >= bytes_in && idle.bytes_out >= bytes_out {
                return Ok(());
            }
            (bytes_in.max(idle.bytes_in), bytes_out.max(idle.bytes_out))
        };
        outbox.room_for("staging of inputs and outputs", UNDER_WAY * (bytes_in + bytes_out))?;
        let made: Result<Vec<Berth>, CudaError> =
            (0..UNDER_WAY).map(|_| Berth::new(&self.context, bytes_in, bytes_out)).collect();
        let made = made?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        (idle.bytes_in, idle.bytes_out) = (bytes_in.max(idle.bytes_in), bytes_out.max(idle.bytes_out));
        idle.berths.extend(made);
        idle.retire();
        self.returned.notify_all();
        Ok(())
    }

    /// An idle berth; waits for one. Never are more lent than launches may be under way, while larger ones are made beside them too.
    pub(super) fn take(&self) -> Berth {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(berth) = idle.lend() {
                return berth;
            }
            idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// An idle berth, if there is one.
    pub(super) fn try_take(&self) -> Option<Berth> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).lend()
    }

    pub(super) fn give_back(&self, berth: Berth) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let awaited = idle.lent == UNDER_WAY;
        idle.lent -= 1;
        if idle.bytes_out == 0 {
            return; // the last program went while this berth was out
        }
        idle.berths.push_back(berth);
        idle.retire();
        // Of those that hold enough there are as many as may be lent, so nobody waits unless all are. Waking nobody is a call of the system, too.
        if awaited {
            self.returned.notify_one();
        }
    }

    /// There are no programs any more, and no launch waits.
    pub(super) fn clear(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        *idle = Idle { lent: idle.lent, ..Idle::default() };
    }
}

impl Idle {
    fn lend(&mut self) -> Option<Berth> {
        if self.lent == UNDER_WAY {
            return None;
        }
        let berth = self.berths.pop_front()?;
        self.lent += 1;
        Some(berth)
    }

    /// Lets go of idle berths that became too small.
    fn retire(&mut self) {
        let (bytes_in, bytes_out) = (self.bytes_in, self.bytes_out);
        self.berths.retain(|berth| berth.holds(bytes_in, bytes_out));
    }
}

/// What of a berth a launch takes.
#[derive(Debug)]
pub(crate) struct Staged {
    /// Where each input begins.
    pub(crate) inputs: Vec<usize>,
    /// Whether kernels read the inputs, and write the outputs, on the host: see [`DIRECT`].
    pub(super) direct_in: bool,
    pub(super) direct_out: bool,
    /// Where each output begins, and the errors after them.
    pub(super) outputs: Vec<usize>,
    pub(super) errors: usize,
    /// Where it is told when kernels began, of a sampled launch.
    pub(super) began: Option<usize>,
    pub(super) bytes_out: usize,
    /// What its table says: where inputs and outputs lie, and where to tell what.
    pub(crate) ports: Vec<u64>,
    pub(crate) ends: Ends,
}
