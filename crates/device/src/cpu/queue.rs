//! What a partition's workers have to do: a queue of launches in order, one of urgent ones before it, and steps that somebody shares.
//!
//! ```text
//!   urgent    ○ ○            a worker takes the next run of the first urgent launch; where all of those are taken,
//!   launches  ● ● ●          but not over, it helps with steps and takes no other run: the cores are theirs till the end;
//!   lent      ▢ ▢            then runs of the other launches, and where there is none, steps to help with
//! ```
//! So it goes when a worker has ended a run, and when one comes to the end of a segment within a run, where it stands aside for what is urgent and then goes on. Cores
//! that nothing is left to do for wait until the urgent launch is over: its steps may be shared by then, and its time is what it takes with all cores.

use super::crew::{Hands, WORTH};
use super::fence::Lent;
use super::running::Running;
use super::steps::Scratch;
use std::collections::VecDeque;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The queue that a partition's workers share.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Urgent launches that are not over: read at the end of every segment, without the lock.
    urgent: AtomicUsize,
    /// Workers that found nothing to do.
    idle: AtomicUsize,
    /// Grows with all that is pushed or lent: for workers that look before they sleep.
    news: AtomicUsize,
    sharing: Sharing,
}

#[derive(Debug, Default)]
struct Waiting {
    urgent: VecDeque<Arc<Running>>,
    launches: VecDeque<Arc<Running>>,
    /// Steps that somebody shares.
    lent: Vec<Arc<Lent<Scratch>>>,
    asleep: usize,
    closed: bool,
}

/// When steps are shared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sharing {
    /// Multiply-adds of the smallest step.
    pub(crate) worth: usize,
    /// Helpers for whom a step is cut, even if they have not come yet.
    pub(crate) least: usize,
}

impl Sharing {
    /// Where it saves time.
    pub(crate) const WORTHWHILE: Sharing = Sharing { worth: WORTH, least: 0 };
}

/// What a worker does next.
pub(crate) enum Next {
    /// This run of a launch.
    Run(Arc<Running>, usize),
    /// Its part of a step of somebody else's run.
    Help(Arc<Lent<Scratch>>),
}

impl Waiting {
    /// The next urgent run; where none of those is under way either, the next run of the first launch that has one left; where there is none, a step to help
    /// with.
    fn next(&mut self, urgent: bool) -> Option<Next> {
        let run = next_run(&mut self.urgent);
        let run = if urgent { run } else { run.or_else(|| next_run(&mut self.launches)) };
        run.or_else(|| self.lent.last().cloned().map(Next::Help))
    }
}

/// The next run of the first launch that has one left.
fn next_run(launches: &mut VecDeque<Arc<Running>>) -> Option<Next> {
    while let Some(launch) = launches.front() {
        if let Some(number) = launch.take_run() {
            return Some(Next::Run(launch.clone(), number));
        }
        launches.pop_front();
    }
    None
}

/// Where a worker asks what to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum From {
    /// Between two runs.
    Run,
    /// Between two runs, after helping with a step: the next step of that run follows soon.
    Help,
    /// Within a run, between two segments: only what is urgent goes before what it is at.
    Segment,
}

impl Queue {
    pub(crate) fn new(sharing: Sharing) -> Queue {
        Queue {
            waiting: Mutex::default(),
            changed: Condvar::new(),
            urgent: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            news: AtomicUsize::new(0),
            sharing,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what waits, and tells those who look or sleep.
    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.lock();
        change(&mut waiting);
        self.news.fetch_add(1, Ordering::Release);
        let asleep = waiting.asleep;
        drop(waiting);
        if asleep > 0 {
            self.changed.notify_all();
        }
    }

    /// Adds a launch behind those that wait, an urgent one behind those that are urgent.
    pub(crate) fn push(&self, launch: Running) {
        self.change(|waiting| {
            if launch.urgent {
                self.urgent.fetch_add(1, Ordering::Release);
                waiting.urgent.push_back(Arc::new(launch));
            } else {
                waiting.launches.push_back(Arc::new(launch));
            }
        });
    }

    /// An urgent launch is over: those who stand aside may go on.
    pub(crate) fn urgent_is_over(&self) {
        self.change(|_| _ = self.urgent.fetch_sub(1, Ordering::Release));
    }

    /// Whether an urgent launch waits or runs.
    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Acquire) > 0
    }

    /// Lets the workers finish what is queued and end.
    pub(crate) fn close(&self) {
        self.change(|waiting| waiting.closed = true);
    }

    /// What to do next; `None` when nothing ever will be or, within a run, when nothing is urgent. Who has just helped, or stands aside, looks for a while before
    /// it sleeps.
    pub(crate) fn take(&self, from: From) -> Option<Next> {
        let mut looks_until = (from != From::Run).then(|| Instant::now() + LOOKS);
        let mut waiting = self.lock();
        loop {
            let urgent = self.is_urgent();
            if from == From::Segment && !urgent {
                return None;
            }
            if let Some(next) = waiting.next(urgent) {
                return Some(next);
            }
            if waiting.closed && !urgent {
                return None;
            }
            self.idle.fetch_add(1, Ordering::Relaxed);
            if let Some(until) = looks_until {
                let seen = self.news.load(Ordering::Acquire);
                drop(waiting);
                while self.news.load(Ordering::Acquire) == seen && looks_until.is_some() {
                    (0..16).for_each(|_| spin_loop());
                    // The one that is helped, or whoever asks for answers, may be waiting for this very core.
                    thread::yield_now();
                    looks_until = looks_until.filter(|_| Instant::now() < until);
                }
                waiting = self.lock();
            } else {
                waiting.asleep += 1;
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                waiting.asleep -= 1;
            }
            self.idle.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// How long a worker that has helped looks for news before it sleeps: longer than the others take to end their part of a step, and than most
/// steps that nobody shares. To be woken takes fifty microseconds.
const LOOKS: Duration = Duration::from_micros(300);

impl Hands for Queue {
    fn free_for(&self, multiply_adds: usize) -> usize {
        match multiply_adds >= self.sharing.worth {
            true => self.idle.load(Ordering::Relaxed).max(self.sharing.least),
            false => 0,
        }
    }

    fn offer(&self, lent: &Arc<Lent<Scratch>>) {
        self.change(|waiting| waiting.lent.push(lent.clone()));
    }

    fn withdraw(&self, lent: &Arc<Lent<Scratch>>) {
        self.lock().lent.retain(|other| !Arc::ptr_eq(other, lent));
    }
}
