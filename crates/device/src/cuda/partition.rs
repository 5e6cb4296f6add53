//! A partition: streams, an arena, and the two threads that carry through what whoever asks does not.
//!
//! ```text
//!   submit ─▶ feeder: stage inputs ─▶ copy in ─┐    ┌─▶ copy out ─▶ reaper: answers ─▶ wake
//!             (pinned berth, staging.rs)       └▶ graph ┘
//!             launch n+2                launch n+1  launch n      launch n−1
//!
//!   few bytes: submit ─▶ graph ─▶ poll            begun and ended by whoever asks; kernels read and write the berth on the host
//! ```
//! Of few bytes, a launch is one call of the driver, made by whoever submits it (`begin.rs`): its first kernel fetches its table and its last one tells that it is over
//! (`frame.rs`), which whoever polls sees in the berth (`hear.rs`), and of others the reaper. Three streams and a few berths (staged bytes of one launch, on the host and on the card) let the copies of one launch overlap the kernels of
//! another. Launches of one partition compute one after the other, in one arena; the arena grows without moving as programs are compiled. The kernels of a
//! partition run on its share of the multiprocessors; copies are nobody's.
//!
//! ```text
//!   sizes     [ ████ ]      a stream each, and programs whose graphs were captured there: what is launched says in which size
//!             [ ██ ]        one arena, one set of berths, two threads: the stream of another size waits for what was begun in the one before
//! ```
//! A partition may have several sizes, each a [`PartitionId`] of its own. Only one is used at a time by whoever keeps to one layout, so a size costs its programs' tables and graphs
//! and no memory to compute in; and whoever does not finds launches of two sizes one after the other.

mod begin;
mod berth;
mod end;
mod guard;
mod hear;
mod watch;

pub(crate) use self::berth::UNDER_WAY;
pub(crate) use self::watch::Waits;

use self::begin::{Entrance, Reaping, Starter, entrance};
use self::berth::{Berth, Berths, Staged};
use self::end::{Clocks, Ender, Streams};
use self::hear::{Near, Reaper};
use super::fence::{Context, CudaError, Event, Function, Memory, Share, Stream};
use super::landing::Landing;
use super::program::Program;
use super::table::LaneRow;
use super::{Outbox, Refused};
use crate::{Lane, PartitionInfo};
use rayon::ThreadPool;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tessera_core::{LaunchId, PartitionId};

/// Launches that keep the card computing: one that computes, one that is copied in meanwhile, and one that is staged for it.
const AHEAD: u32 = 3;
/// Staging and copying 32 images of 224 pixels takes about so long (20 MB).
const LEAD: Duration = Duration::from_micros(1000);

/// A share of the card, of which it may have several sizes.
#[derive(Debug)]
pub(crate) struct Partition {
    sizes: Vec<Size>,
    pub(crate) context: Arc<Context>,
    arena: Arc<Mutex<Arena>>,
    berths: Arc<Berths>,
    pub(crate) landing: Arc<Landing>,
    outbox: Outbox,
    entrance: Option<Entrance>,
    threads: Vec<JoinHandle<()>>,
    /// Goes after the threads have ended: they see to it that the card is done with what is here.
    near: Mutex<Near>,
    /// The last kernel of every launch: the only one that may still be ending when its launch is heard to be over, so no program takes it along.
    end: OnceLock<Arc<Function>>,
}

/// A size of a partition.
#[derive(Debug)]
struct Size {
    info: PartitionInfo,
    share: Share,
}

/// A partition in one of its sizes: what a program is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) partition: &'a Partition,
    /// The number of the size.
    pub(crate) size: usize,
}

impl Place<'_> {
    fn share(&self) -> &Share {
        &self.partition.sizes[self.size].share
    }

    /// How many multiprocessors it has.
    pub(crate) fn multiprocessors(&self) -> u32 {
        self.share().multiprocessors()
    }

    /// A stream beside the partition's own, on its multiprocessors: what is captured there runs there.
    pub(crate) fn stream(&self) -> Result<Stream, CudaError> {
        Stream::of(self.share())
    }
}

/// Where the programs of a partition compute, one after the other.
#[derive(Debug)]
struct Arena {
    memory: Memory,
    /// That may be launched, or still are.
    programs: usize,
}

/// A program's place in a partition. With the last of them the partition's memory is given back.
#[derive(Debug)]
pub(crate) struct Stay {
    arena: Arc<Mutex<Arena>>,
    berths: Arc<Berths>,
    /// Of the arena.
    pub(crate) address: u64,
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut arena = self.arena.lock().unwrap_or_else(PoisonError::into_inner);
        arena.programs -= 1;
        if arena.programs == 0 {
            arena.memory.clear();
            self.berths.clear();
        }
    }
}

/// A launch that was let in.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) id: LaunchId,
    /// How many were let in before.
    pub(crate) number: u64,
    pub(crate) program: Arc<Program>,
    /// The size of the partition that the program was made for.
    pub(crate) size: usize,
    /// With the slots' leases, held until the launch is over.
    pub(crate) lanes: Vec<Lane>,
    pub(crate) rows: Vec<LaneRow>,
}

impl Running {
    pub(crate) fn items(&self) -> u32 {
        self.rows.iter().map(|row| row.items).sum()
    }

    fn requests(&self) -> usize {
        self.lanes.iter().map(|lane| lane.requests.len()).sum()
    }
}

/// One launch of so many of a partition is sampled, where nothing else is asked for: its kernels tell when they began. That costs one small copy.
pub(super) const SAMPLED: u32 = 64;

/// A launch that the card works on.
#[derive(Debug)]
struct InFlight {
    running: Running,
    berth: Berth,
    staged: Staged,
}

impl Partition {
    /// Makes streams and starts threads. Its sizes are numbered from `first` on; `aside` is [`PartitionInfo::aside`].
    pub(crate) fn open(
        (first, shares, aside): (PartitionId, &[Share], bool),
        context: &Arc<Context>,
        outbox: &Outbox,
        landing: &Arc<Landing>,
        stagers: &Arc<ThreadPool>,
    ) -> Result<Partition, Refused> {
        let arena = Memory::reserve(context, context.total_bytes as usize)?;
        let berths = Arc::new(Berths::new(context));
        let (feed, fed) = channel();
        let (reap, reaped) = channel();
        let compute: Vec<Stream> = shares.iter().map(Stream::of).collect::<Result<_, _>>()?;
        let (compute, copy_out) = (Arc::new(compute), Arc::new(Stream::new(context)?));
        let starter = Starter {
            copy_in: Stream::new(context)?,
            compute: compute.clone(),
            size: 0,
            turned: Event::ordering(context)?,
            copy_out: copy_out.clone(),
            berths: berths.clone(),
            landing: landing.clone(),
            stagers: stagers.clone(),
            outbox: outbox.clone(),
            begun: 0,
        };
        let reaping = Reaping { reaper: reap, has: Arc::default() };
        let has = reaping.has.clone();
        let (entrance, feeder) = entrance(starter, feed, reaping);
        let ender = || Ender {
            streams: Streams { compute: compute.clone(), copy_out: copy_out.clone() },
            berths: berths.clone(),
            stagers: stagers.clone(),
            outbox: outbox.clone(),
            clocks: Clocks::default(),
        };
        let reaper = Reaper { ender: ender(), has };
        let near = Mutex::new(Near::new(ender()));
        let spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
            let spawned = std::thread::Builder::new().name(name).spawn(run);
            spawned.map_err(|error| Refused::Thread(error.to_string()))
        };
        let threads = vec![
            spawn(format!("cuda-feed-{}", first.0), Box::new(move || feeder.run(&fed)))?,
            spawn(format!("cuda-reap-{}", first.0), Box::new(move || reaper.run(&reaped)))?,
        ];
        let size = |(id, share): (u64, &Share)| {
            let (id, units) = (PartitionId(id), share.multiprocessors() as usize);
            Size { info: PartitionInfo { id, units, ahead: AHEAD, lead: LEAD, aside }, share: share.clone() }
        };
        Ok(Partition {
            sizes: (first.0..).zip(shares).map(size).collect(),
            context: context.clone(),
            arena: Arc::new(Mutex::new(Arena { memory: arena, programs: 0 })),
            berths,
            landing: landing.clone(),
            outbox: outbox.clone(),
            entrance: Some(entrance),
            threads,
            near,
            end: OnceLock::new(),
        })
    }

    /// What is told of its sizes.
    pub(crate) fn infos(&self) -> impl Iterator<Item = &PartitionInfo> {
        self.sizes.iter().map(|size| &size.info)
    }

    /// The size of this name.
    pub(crate) fn place(&self, id: PartitionId) -> Option<Place<'_>> {
        let size = self.sizes.iter().position(|size| size.info.id == id)?;
        Some(Place { partition: self, size })
    }

    /// A place for a program that needs so many bytes of arena.
    pub(crate) fn reserve_arena(&self, bytes: u64) -> Result<Stay, Refused> {
        let bytes = usize::try_from(bytes).map_err(|_| Refused::TooLarge(bytes))?;
        let mut arena = self.arena.lock().unwrap_or_else(PoisonError::into_inner);
        self.outbox.room_for("an arena", arena.memory.growth_to(bytes))?;
        arena.memory.grow_to(bytes)?;
        arena.programs += 1;
        let address = arena.memory.address();
        Ok(Stay { arena: self.arena.clone(), berths: self.berths.clone(), address })
    }

    /// Keeps the last kernel of launches for as long as there may be any.
    pub(crate) fn keep(&self, end: &Arc<Function>) {
        self.end.get_or_init(|| end.clone());
    }

    /// Lends an idle berth; waits for one.
    pub(crate) fn with_berth<T>(&self, work: impl FnOnce(&mut Berth) -> T) -> T {
        let mut berth = self.berths.take();
        let done = work(&mut berth);
        self.berths.give_back(berth);
        done
    }

    /// Makes berths for launches that bring and take so many bytes, before the first of them comes.
    pub(crate) fn reserve_berths(&self, bytes_in: usize, bytes_out: usize) -> Result<(), Refused> {
        self.berths.reserve(bytes_in, bytes_out, &self.outbox)
    }

    /// Hands a launch over.
    pub(crate) fn push(&self, running: Running) {
        let entrance = self.entrance.as_ref().expect("it is open until the partition is dropped");
        if let Some(flight) = entrance.push(running) {
            self.near().push(flight);
        }
    }

    /// Ends launches that are over and that no thread hears of.
    pub(crate) fn look(&self) {
        self.near().look();
    }

    /// See [`crate::Device::due`].
    pub(crate) fn due(&self) -> Option<Duration> {
        self.near().due()
    }

    fn near(&self) -> MutexGuard<'_, Near> {
        self.near.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Partition {
    /// Finishes what was submitted.
    fn drop(&mut self) {
        drop(self.entrance.take());
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}
