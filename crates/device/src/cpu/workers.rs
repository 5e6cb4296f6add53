//! The workers of one partition: threads on its cores, a queue of launches in order.
//!
//! ```text
//!   launch ─▶ runs: (lane, some items) (lane, some items) …      a worker takes the next run, runs every step for it
//!
//!   run       [segment][segment]            [segment]            between segments it stands aside for what is urgent,
//!   urgent run                  [          ]                     which it runs in an arena that it keeps for that
//! ```
//! Lanes are spread over cores first, then the items of a lane, then the steps of a run. A worker that finds no run left in the first
//! launch begins the second one, so no core waits for another inside a launch; one that finds none at all helps with the heavy steps of
//! others ([`Crew`]). A kernel that panics fails its own launch and nothing else. In which order things are done is said in `queue`.

use super::arena::Arena;
use super::crew::{Crew, Hands};
use super::fence::Lent;
use super::program::Desk;
use super::queue::{From, Next, Queue};
use super::running::Running;
use super::slab::Ledger;
use super::steps::Scratch;
use crate::{Finished, Wake};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What workers share with their device.
#[derive(Clone)]
pub(crate) struct Outbox {
    pub(crate) finished: Arc<Mutex<Vec<Finished>>>,
    pub(crate) wake: Wake,
    pub(crate) ledger: Arc<Ledger>,
}

/// Starts a worker, on `core` where the platform lets threads choose.
pub(crate) fn start(
    name: String,
    core: Option<core_affinity::CoreId>,
    queue: Arc<Queue>,
    outbox: Outbox,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(move || {
        if let Some(core) = core {
            // Not everywhere possible, and only a matter of speed.
            core_affinity::set_for_current(core);
        }
        Worker { shared: Shared { queue, outbox }, arena: Arena::default(), aside: Arena::default() }.work();
    })
}

/// One thread.
struct Worker {
    shared: Shared,
    arena: Arena,
    /// For urgent launches: what one interrupts stays in the other.
    aside: Arena,
}

/// What a worker has in common with others.
struct Shared {
    queue: Arc<Queue>,
    outbox: Outbox,
}

impl Worker {
    /// Until the queue is closed.
    fn work(&mut self) {
        let Worker { shared, arena, aside } = self;
        let mut scratch = Scratch::default();
        let mut from = From::Run;
        while let Some(next) = shared.queue.take(from) {
            from = match next {
                Next::Help(lent) => {
                    shared.help(&lent, &mut scratch);
                    From::Help
                }
                Next::Run(launch, number) if launch.urgent => {
                    shared.run(&launch, number, Desk { arena: aside, scratch: &mut scratch }, |_| {
                        Duration::ZERO
                    });
                    From::Run
                }
                Next::Run(launch, number) => {
                    let desk = Desk { arena, scratch: &mut scratch };
                    shared.run(&launch, number, desk, |scratch| shared.stand_aside(aside, scratch));
                    From::Run
                }
            };
        }
        let held = arena.bytes() + aside.bytes();
        shared.outbox.ledger.arenas.fetch_sub(held as u64, Ordering::AcqRel);
    }
}

impl Shared {
    fn help(&self, lent: &Arc<Lent<Scratch>>, scratch: &mut Scratch) {
        lent.help(scratch);
        // There is nothing left in it to help with.
        self.queue.withdraw(lent);
    }

    /// Lets what is urgent go first, and says how long that took.
    fn stand_aside(&self, aside: &mut Arena, scratch: &mut Scratch) -> Duration {
        if !self.queue.is_urgent() {
            return Duration::ZERO;
        }
        let begun = Instant::now();
        while let Some(next) = self.queue.take(From::Segment) {
            match next {
                Next::Help(lent) => self.help(&lent, scratch),
                Next::Run(launch, number) => {
                    self.run(&launch, number, Desk { arena: aside, scratch }, |_| Duration::ZERO);
                }
            }
        }
        begun.elapsed()
    }

    /// Runs one run, and answers if it was the launch's last.
    fn run(
        &self,
        launch: &Running,
        number: usize,
        Desk { arena, scratch }: Desk<'_>,
        stand_aside: impl FnMut(&mut Scratch) -> Duration,
    ) {
        let before = arena.bytes();
        let desk = Desk { arena: &mut *arena, scratch };
        let last = launch.run(number, desk, Crew::with(&*self.queue), stand_aside);
        let grown = arena.bytes() - before;
        self.outbox.ledger.arenas.fetch_add(grown as u64, Ordering::AcqRel);
        if last {
            if launch.urgent {
                self.queue.urgent_is_over();
            }
            let finished = launch.finish();
            self.outbox.finished.lock().unwrap_or_else(PoisonError::into_inner).push(finished);
            (self.outbox.wake)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{Cores, CpuDevice, CpuOptions};
    use crate::network::Network;
    use crate::{Device, Lane, Launch, Room};
    use tessera_core::{LaunchId, PartitionId, ProgramId};

    /// What a launch answers on this thread. At every boundary `between` is called, with the working memory that the launch has, and each call is counted.
    fn answers(
        device: &CpuDevice,
        (program, lane): (ProgramId, &Lane),
        mut between: impl FnMut(&mut Scratch),
    ) -> (Finished, usize) {
        let launch = Launch { id: LaunchId(0), program, lanes: vec![lane.clone()], urgent: false };
        let running = device.running(launch, false).unwrap().0;
        let (mut arena, mut scratch, mut boundaries) = (Arena::default(), Scratch::default(), 0);
        while let Some(run) = running.take_run() {
            let desk = Desk { arena: &mut arena, scratch: &mut scratch };
            running.run(run, desk, Crew::ALONE, |scratch| {
                boundaries += 1;
                between(scratch);
                Duration::ZERO
            });
        }
        (running.finish(), boundaries)
    }

    #[test]
    fn a_launch_that_is_interrupted_at_every_boundary_has_the_bits_of_one_that_is_not() {
        let options = CpuOptions { cores: Cores::These(vec![0]), partitions: None, memory_limit: None };
        let device = CpuDevice::open(&options, Arc::new(|| {})).unwrap();
        let networks = ["mobilenet_v2_035-0", "mobilenet_v2_035-1", "mlp-0"];
        let networks = networks.map(|name| Network::load(&device, name));
        let programs = networks.each_ref().map(|network| {
            let room = Room { lanes: 1, items: 10 };
            device.compile(&network.plan, &network.layout, room, PartitionId(0)).unwrap()
        });
        // The second run of the first has but one item.
        let lanes =
            [9, 2, 3].map(|items| networks[if items == 9 { 0 } else { items as usize - 1 }].lane(items, 7));
        let alone: Vec<_> =
            (0..3).map(|of| answers(&device, (programs[of], &lanes[of]), |_| {}).0.answers).collect();
        for urgent in [1, 2] {
            let mut aside = Arena::default();
            let (interrupted, boundaries) = answers(&device, (programs[0], &lanes[0]), |scratch| {
                let lanes = vec![lanes[urgent].clone()];
                let launch = Launch { id: LaunchId(1), program: programs[urgent], lanes, urgent: true };
                let running = device.running(launch, false).unwrap().0;
                let run = running.take_run().expect("a launch has a run");
                let desk = Desk { arena: &mut aside, scratch };
                assert!(running.run(run, desk, Crew::ALONE, |_| Duration::ZERO), "it has no other");
                assert_eq!(running.finish().answers, alone[urgent], "the one that interrupts");
            });
            assert_eq!(boundaries, 2 * (networks[0].plan.steps.len() - 1), "of two runs");
            assert_eq!(interrupted.answers, alone[0], "the one that is interrupted");
        }
    }
}
