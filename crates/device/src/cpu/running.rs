//! A launch on the cores: cut into runs, each of some items of one lane, and put together again.
//!
//! ```text
//!   lanes ─▶ runs: (lane, some items) (lane, some items) …  ─▶ outputs per lane ─ the last run is over ─▶ answers per request
//! ```
//! Every run is timed as a whole, so that a lane that takes longer than its neighbours is seen; the steps of one launch in [`SAMPLED`] are timed, too, or as is asked for.

use super::arena::Arena;
use super::crew::Crew;
use super::program::{Attendant, Desk, Program};
use super::slab::Weights;
use super::steps::Scratch;
use crate::{Finished, Lane, RequestError};
use bytes::Bytes;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tessera_core::LaunchId;
use tessera_planner::plan::Port;

/// Most items of one lane that a worker runs at once: enough to use a panel of weights well while it is in the cache, few
/// enough that activations stay there too. It changes no bit of any answer.
const RUN_ITEMS: usize = 8;

/// One launch in so many has its steps timed, where nothing else is asked for. A look at the clock takes some 30 ns, a step of the smallest model that we serve some 200 ns: an
/// estimate, by which timing every launch could cost a tenth, and timing these costs less than a thousandth.
pub(crate) const SAMPLED: u32 = 128;

/// A launch that was submitted.
#[derive(Debug)]
pub(crate) struct Running {
    id: LaunchId,
    /// Whether it goes before those that are not.
    pub(crate) urgent: bool,
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
    /// Per lane: per output, all items' bytes; nothing yet of a lane with one run that is not over.
    outputs: Vec<Vec<Vec<u8>>>,
    /// What workers did for each lane so far.
    lanes: Vec<Duration>,
    /// The longest segment of any run.
    longest: Duration,
    /// What workers did by step, where this launch is one of those whose steps are timed.
    steps: Option<Vec<Vec<Duration>>>,
    /// Lane, item, reason.
    failures: Vec<(usize, usize, RequestError)>,
    /// A kernel panicked: nobody's answer can be trusted.
    lost: Option<String>,
}

impl Running {
    /// A launch that nobody has begun. `sampled` says whether its steps are timed.
    pub(crate) fn new(
        (id, urgent): (LaunchId, bool),
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
            let room = |port: &Port| vec![0; items * port.bytes_per_item()];
            // What a lane's only run makes is the lane's answer as it is.
            let parts = items > RUN_ITEMS;
            outputs.push(if parts { program.plan.outputs.iter().map(room).collect() } else { Vec::new() });
        }
        let left = runs.len();
        let state = State {
            left,
            started: None,
            outputs,
            lanes: vec![Duration::ZERO; lanes.len()],
            longest: Duration::ZERO,
            steps: sampled.then(|| vec![vec![Duration::ZERO; program.plan.steps.len()]; lanes.len()]),
            failures: Vec::new(),
            lost: None,
        };
        Running {
            id,
            urgent,
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

    /// A run that nobody has taken yet.
    pub(crate) fn take_run(&self) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.runs.len()).then_some(number)
    }

    /// Runs every run here and now, answers nobody, and tells what each step of each took.
    pub(crate) fn each_step(
        &self,
        arena: &mut Arena,
        scratch: &mut Scratch,
        took: impl FnMut(usize, Duration),
    ) {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        let mut attendant = EachStep { last: Instant::now(), took };
        for (lane_number, items) in &self.runs {
            let (lane, weights) = &lanes[*lane_number];
            let inputs = |input| self.pieces(lane, items, input);
            let desk = Desk { arena, scratch };
            self.program.run(desk, weights, items.len(), inputs, Crew::ALONE, &mut attendant);
        }
    }

    /// Runs one run, heavy steps with `crew`, and says whether it was the last to finish. Between segments `stand_aside` does what is more urgent.
    pub(super) fn run(
        &self,
        number: usize,
        desk: Desk<'_>,
        crew: Crew<'_>,
        stand_aside: impl FnMut(&mut Scratch) -> Duration,
    ) -> bool {
        let (lane_number, items) = &self.runs[number];
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        let (lane, weights) = &lanes[*lane_number];
        let begun = Instant::now();
        let steps = {
            let mut state = self.state();
            state.started.get_or_insert(begun);
            state.steps.is_some().then(|| vec![Duration::ZERO; self.program.plan.steps.len()])
        };
        let inputs = |input| self.pieces(lane, items, input);
        let mut timed = Timed::new(begun, steps, stand_aside);
        let output = catch_unwind(AssertUnwindSafe(|| {
            self.program.run(desk, weights, items.len(), inputs, crew, &mut timed)
        }));
        let RunTime { took, longest, steps } = timed.over();
        drop(lanes);
        let mut state = self.state();
        state.lanes[*lane_number] += took;
        state.longest = state.longest.max(longest);
        if let (Some(all), Some(steps)) = (&mut state.steps, steps) {
            all[*lane_number].iter_mut().zip(steps).for_each(|(all, step)| *all += step);
        }
        match output {
            Ok(output) => {
                let all = &mut state.outputs[*lane_number];
                if all.is_empty() {
                    *all = output.outputs;
                } else {
                    let ports = self.program.plan.outputs.iter();
                    for ((port, from), to) in ports.zip(&output.outputs).zip(all) {
                        let start = items.start * port.bytes_per_item();
                        to[start..start + from.len()].copy_from_slice(from);
                    }
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

    /// The bytes of some items of a lane at one input, request by request.
    fn pieces<'l>(
        &self,
        lane: &'l Lane,
        items: &Range<usize>,
        input: usize,
    ) -> impl Iterator<Item = &'l [u8]> {
        let per_item = self.program.plan.inputs[input].bytes_per_item();
        let (start, end) = (items.start, items.end);
        let mut next = 0;
        lane.requests.iter().filter_map(move |request| {
            let first = next;
            next += request.items as usize;
            let (from, to) = (start.max(first), end.min(next));
            (from < to).then(|| &request.inputs[input][(from - first) * per_item..(to - first) * per_item])
        })
    }

    /// The launch's answers, once every run is over.
    pub(super) fn finish(&self) -> Finished {
        let mut state = self.state();
        let took = state.started.map(|started| started.elapsed()).unwrap_or_default();
        let outputs = std::mem::take(&mut state.outputs);
        let longest_segment = Some(state.longest);
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
        Finished { id: self.id, answers, took, lanes: lane_times, longest_segment, steps }
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

/// Tells how long each step took.
struct EachStep<T> {
    last: Instant,
    took: T,
}

impl<T: FnMut(usize, Duration)> Attendant for EachStep<T> {
    fn done(&mut self, step: Option<usize>) {
        let now = Instant::now();
        if let Some(step) = step {
            (self.took)(step, now - self.last);
        }
        self.last = now;
    }

    fn between_segments(&mut self, _: &mut Scratch) {}
}

/// What a run took, time that it stood aside apart.
struct RunTime {
    took: Duration,
    /// The longest between two places at which it would have stood aside.
    longest: Duration,
    steps: Option<Vec<Duration>>,
}

/// Times a run and its segments, and its steps where it is told to.
struct Timed<S> {
    segment: Instant,
    run: RunTime,
    last: Instant,
    stand_aside: S,
}

impl<S: FnMut(&mut Scratch) -> Duration> Timed<S> {
    fn new(begun: Instant, steps: Option<Vec<Duration>>, stand_aside: S) -> Timed<S> {
        let run = RunTime { took: Duration::ZERO, longest: Duration::ZERO, steps };
        Timed { segment: begun, run, last: begun, stand_aside }
    }

    fn segment_is_over(&mut self, now: Instant) {
        let took = now - self.segment;
        self.run.took += took;
        self.run.longest = self.run.longest.max(took);
    }

    fn over(mut self) -> RunTime {
        self.segment_is_over(Instant::now());
        self.run
    }
}

impl<S: FnMut(&mut Scratch) -> Duration> Attendant for Timed<S> {
    fn done(&mut self, step: Option<usize>) {
        let Some(steps) = &mut self.run.steps else { return };
        let now = Instant::now();
        if let Some(step) = step {
            steps[step] += now - self.last;
        }
        self.last = now;
    }

    fn between_segments(&mut self, scratch: &mut Scratch) {
        let now = Instant::now();
        self.segment_is_over(now);
        let away = (self.stand_aside)(scratch);
        self.segment = now + away;
        self.last += away;
    }
}
