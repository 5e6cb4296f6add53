//! The workers of one partition: threads on its cores, a queue of launches in order.
//!
//! ```text
//!   launch ─▶ runs: (lane, some items) (lane, some items) …      a worker takes the next run, runs every step for it
//! ```
//! Lanes are spread over cores first, then the items of a lane, then the steps of a run. A worker that finds no run left in the first
//! launch begins the second one, so no core waits for another inside a launch; one that finds none at all helps with the heavy steps of
//! others ([`Crew`]). A kernel that panics fails its own launch and nothing else.
//!
//! Every run is timed as a whole, so that a lane that takes longer than its neighbours is seen; the steps of every [`SAMPLED`]th launch are timed, too.

use super::crew::{Crew, Hands, WORTH};
use super::fence::Lent;
use super::program::{Program, Workspace};
use super::slab::{Ledger, Weights};
use super::steps::Scratch;
use crate::{Finished, Lane, RequestError, Wake};
use bytes::Bytes;
use std::collections::VecDeque;
use std::hint::spin_loop;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tessera_core::LaunchId;

/// Most items of one lane that a worker runs at once: enough to use a panel of weights well while it is in the cache, few
/// enough that activations stay there too. It changes no bit of any answer.
const RUN_ITEMS: usize = 8;

/// One launch in so many has its steps timed. A look at the clock takes some 30 ns, a step of the smallest model that we serve some 200 ns: an
/// estimate, by which timing every launch could cost a tenth, and timing these costs less than a thousandth.
pub(crate) const SAMPLED: u64 = 128;

/// A launch that was submitted.
#[derive(Debug)]
pub(crate) struct Running {
    id: LaunchId,
    pub(crate) program: Arc<Program>,
    /// Emptied when the launch is over, so that its leases end before anyone hears of it.
    lanes: RwLock<Vec<(Lane, Arc<Weights>)>>,
    /// Lane and items of each run.
    runs: Vec<(usize, Range<usize>)>,
    next: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    left: usize,
    started: Option<Instant>,
    /// Per lane: per output, all items' bytes.
    outputs: Vec<Vec<Vec<u8>>>,
    /// What workers did for each lane so far.
    lanes: Vec<Duration>,
    /// The same by step, where this launch is one of those whose steps are timed.
    steps: Option<Vec<Vec<Duration>>>,
    /// Lane, item, reason.
    failures: Vec<(usize, usize, RequestError)>,
    /// A kernel panicked: nobody's answer can be trusted.
    lost: Option<String>,
}

impl Running {
    /// A launch that nobody has begun. `sampled` says whether its steps are timed.
    pub(crate) fn new(
        id: LaunchId,
        program: Arc<Program>,
        lanes: Vec<(Lane, Arc<Weights>)>,
        sampled: bool,
    ) -> Running {
        let mut runs = Vec::new();
        let mut outputs = Vec::with_capacity(lanes.len());
        for (number, (lane, _)) in lanes.iter().enumerate() {
            let items: usize = lane.requests.iter().map(|request| request.items as usize).sum();
            runs.extend(
                (0..items).step_by(RUN_ITEMS).map(|first| (number, first..(first + RUN_ITEMS).min(items))),
            );
            let ports = program.plan.outputs.iter();
            outputs.push(ports.map(|port| vec![0; items * port.bytes_per_item()]).collect());
        }
        let left = runs.len();
        let state = State {
            left,
            started: None,
            outputs,
            lanes: vec![Duration::ZERO; lanes.len()],
            steps: sampled.then(|| vec![vec![Duration::ZERO; program.plan.steps.len()]; lanes.len()]),
            failures: Vec::new(),
            lost: None,
        };
        Running {
            id,
            program,
            lanes: RwLock::new(lanes),
            runs,
            next: AtomicUsize::new(0),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs every run here and now, answers nobody, and tells what each step of each took.
    pub(crate) fn each_step(&self, workspace: &mut Workspace, mut took: impl FnMut(usize, Duration)) {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        for (lane_number, items) in &self.runs {
            let (lane, weights) = &lanes[*lane_number];
            let inputs = self.inputs(lane, items);
            self.program.run(workspace, weights, items.len(), &inputs, Crew::ALONE, stopwatch(&mut took));
        }
    }

    /// Runs one run, heavy steps with `crew`, and says whether it was the last to finish.
    fn run(&self, number: usize, workspace: &mut Workspace, crew: Crew<'_>) -> bool {
        let (lane_number, items) = &self.runs[number];
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        let (lane, weights) = &lanes[*lane_number];
        let begun = Instant::now();
        let mut steps = {
            let mut state = self.state();
            state.started.get_or_insert(begun);
            state.steps.is_some().then(|| vec![Duration::ZERO; self.program.plan.steps.len()])
        };
        let inputs = self.inputs(lane, items);
        let output = catch_unwind(AssertUnwindSafe(|| match &mut steps {
            None => self.program.run(workspace, weights, items.len(), &inputs, crew, |_| {}),
            Some(steps) => {
                let watch = stopwatch(|step, took| steps[step] += took);
                self.program.run(workspace, weights, items.len(), &inputs, crew, watch)
            }
        }));
        let took = begun.elapsed();
        drop(lanes);
        let mut state = self.state();
        state.lanes[*lane_number] += took;
        if let (Some(all), Some(steps)) = (&mut state.steps, steps) {
            all[*lane_number].iter_mut().zip(steps).for_each(|(all, step)| *all += step);
        }
        match output {
            Ok(output) => {
                for ((port, from), to) in self
                    .program
                    .plan
                    .outputs
                    .iter()
                    .zip(&output.outputs)
                    .zip(&mut state.outputs[*lane_number])
                {
                    let start = items.start * port.bytes_per_item();
                    to[start..start + from.len()].copy_from_slice(from);
                }
                let failures = output.failures.into_iter();
                state
                    .failures
                    .extend(failures.map(|(item, error)| (*lane_number, items.start + item, error)));
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                state.lost = Some(text.unwrap_or_else(|| "a kernel panicked".to_owned()));
            }
        }
        state.left -= 1;
        state.left == 0
    }

    /// The bytes of some items of a lane, per input: requests lie one after the other in it.
    fn inputs(&self, lane: &Lane, items: &Range<usize>) -> Vec<Vec<u8>> {
        let ports = self.program.plan.inputs.iter().enumerate();
        let gathered = ports.map(|(input, port)| {
            let per_item = port.bytes_per_item();
            let mut bytes = Vec::with_capacity(items.len() * per_item);
            let mut first = 0;
            for request in &lane.requests {
                let end = first + request.items as usize;
                let (from, to) = (items.start.max(first), items.end.min(end));
                if from < to {
                    bytes.extend_from_slice(
                        &request.inputs[input][(from - first) * per_item..(to - first) * per_item],
                    );
                }
                first = end;
            }
            bytes
        });
        gathered.collect()
    }

    /// The launch's answers, once every run is over.
    fn finish(&self) -> Finished {
        let mut state = self.state();
        let took = state.started.map(|started| started.elapsed()).unwrap_or_default();
        let outputs = std::mem::take(&mut state.outputs);
        let (lane_times, steps) = (std::mem::take(&mut state.lanes), state.steps.take());
        let lanes = std::mem::take(&mut *self.lanes.write().unwrap_or_else(PoisonError::into_inner));
        let mut answers = Vec::with_capacity(lanes.len());
        for ((number, (lane, _)), outputs) in lanes.iter().enumerate().zip(outputs) {
            let outputs: Vec<Bytes> = outputs.into_iter().map(Bytes::from).collect();
            let mut first = 0;
            let lane_answers = lane.requests.iter().map(|request| {
                let items = first..first + request.items as usize;
                first = items.end;
                if let Some(why) = &state.lost {
                    return Err(RequestError::DeviceFailed(why.clone()));
                }
                let failed =
                    state.failures.iter().filter(|(lane, item, _)| *lane == number && items.contains(item));
                match failed.min_by_key(|(_, item, _)| *item) {
                    Some((_, _, error)) => Err(error.clone()),
                    None => Ok(self.cut(&outputs, &items)),
                }
            });
            answers.push(lane_answers.collect());
        }
        Finished { id: self.id, answers, took, lanes: lane_times, steps }
    }

    fn cut(&self, outputs: &[Bytes], items: &Range<usize>) -> Vec<Bytes> {
        let ports = self.program.plan.outputs.iter().zip(outputs);
        ports
            .map(|(port, bytes)| {
                bytes.slice(items.start * port.bytes_per_item()..items.end * port.bytes_per_item())
            })
            .collect()
    }
}

/// Tells how long each step took, when it is called as [`Program::run`] calls its watch.
fn stopwatch(mut took: impl FnMut(usize, Duration)) -> impl FnMut(Option<usize>) {
    let mut last = Instant::now();
    move |step| {
        let now = Instant::now();
        if let Some(step) = step {
            took(step, now - last);
        }
        last = now;
    }
}

/// The queue that a partition's workers share.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Workers that found nothing to do.
    idle: AtomicUsize,
    /// Grows with all that is pushed or lent: for workers that look before they sleep.
    news: AtomicUsize,
    sharing: Sharing,
}

#[derive(Debug, Default)]
struct Waiting {
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
enum Next {
    /// This run of a launch.
    Run(Arc<Running>, usize),
    /// Its part of a step of somebody else's run.
    Help(Arc<Lent<Scratch>>),
}

impl Waiting {
    /// The next run, of the first launch that has one left; where there is none, a step to help with.
    fn next(&mut self) -> Option<Next> {
        while let Some(launch) = self.launches.front() {
            let number = launch.next.fetch_add(1, Ordering::Relaxed);
            if number < launch.runs.len() {
                return Some(Next::Run(launch.clone(), number));
            }
            self.launches.pop_front();
        }
        self.lent.last().cloned().map(Next::Help)
    }
}

impl Queue {
    pub(crate) fn new(sharing: Sharing) -> Queue {
        Queue {
            waiting: Mutex::default(),
            changed: Condvar::new(),
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

    /// Adds a launch behind those that wait.
    pub(crate) fn push(&self, launch: Running) {
        self.change(|waiting| waiting.launches.push_back(Arc::new(launch)));
    }

    /// Lets the workers finish what is queued and end.
    pub(crate) fn close(&self) {
        self.change(|waiting| waiting.closed = true);
    }

    /// What to do next, `None` when nothing ever will be. Who has just helped looks for a while before it sleeps: the next step of that run
    /// follows soon.
    fn take(&self, has_helped: bool) -> Option<Next> {
        let mut looks_until = has_helped.then(|| Instant::now() + LOOKS);
        let mut waiting = self.lock();
        loop {
            if let Some(next) = waiting.next() {
                return Some(next);
            }
            if waiting.closed {
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
        let mut workspace = Workspace::default();
        let mut accounted = 0;
        let mut has_helped = false;
        while let Some(next) = queue.take(has_helped) {
            let (launch, number) = match next {
                Next::Run(launch, number) => (launch, number),
                Next::Help(lent) => {
                    lent.help(&mut workspace.scratch);
                    // There is nothing left in it to help with.
                    queue.withdraw(&lent);
                    has_helped = true;
                    continue;
                }
            };
            has_helped = false;
            let last = launch.run(number, &mut workspace, Crew::with(&*queue));
            let bytes = workspace.arena.bytes();
            outbox.ledger.arenas.fetch_add((bytes - accounted) as u64, Ordering::AcqRel);
            accounted = bytes;
            if last {
                let finished = launch.finish();
                outbox.finished.lock().unwrap_or_else(PoisonError::into_inner).push(finished);
                (outbox.wake)();
            }
        }
        outbox.ledger.arenas.fetch_sub(accounted as u64, Ordering::AcqRel);
    })
}
