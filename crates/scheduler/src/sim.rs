//! Virtual time: a scheduler driven by seeded arrivals against a device that takes exactly as long as a cost function says.
//!
//! ```text
//!   arrivals ─▶ offer ─▶ decide ─▶ [partition: busy until …] ─▶ finished ─▶ Outcome per request
//! ```
//! Where costs tell segments, an urgent launch has the partition from the end of a segment on. What it interrupts does nothing from the moment when the urgent
//! one is there until it is over, as if a core that has come to the end of its segment always waited for another.
//!
//! Nothing waits: a day of traffic takes as long as its decisions. Scenario tests run on it, and the `simulate` command.

mod slowness;

pub use slowness::Slowness;

use self::slowness::Piece;
use crate::{
    Admitted, Cancelled, Config, CostTable, Decision, LanePlan, LaunchPlan, Layout, Offer, Over, Refusal,
    Scheduler, Size, Terms,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tessera_core::{LaunchId, Moment, PartitionId, Policy, RequestId, TenantId};

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Answered at this moment, in a launch of so many lanes.
    Answered {
        /// When.
        at: Moment,
        /// Lanes of its launch.
        lanes: u32,
    },
    /// Not let in.
    Refused(Refusal),
    /// Its deadline passed while it waited.
    Expired(Moment),
    /// It was called off while it waited.
    Cancelled(Moment),
}

/// What lies around launches, beside the device's time and the way there ([`CostTable::hand_over`]). Nothing, by default.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Around {
    /// From a launch's end to word of it.
    pub leave: Duration,
    /// Between two launches of a partition while more wait, where costs do not say it ([`CostTable::gap`]).
    pub gap: Duration,
    /// How much longer than their costs launches take.
    pub slowness: Slowness,
    /// When the host stood still, and for how long, in order and apart: what comes, ends or is due meanwhile is looked at when it goes on. The device computes what it has.
    pub still: Arc<[(Moment, Duration)]>,
}

/// A launch that runs.
#[derive(Debug)]
struct Started {
    launch: LaunchPlan,
    /// From its hand-over to its begin on an idle device; of an urgent one, with the segment that it waited for.
    enter: Duration,
    begin: Moment,
    /// From its begin to its end, urgent ones between them included.
    took: Duration,
    /// Until when it stands back.
    stands_back: Moment,
    /// How long it did, and will.
    stood_back: Duration,
    segment: Option<Duration>,
    lanes: Vec<Duration>,
}

impl Started {
    fn end(&self) -> Moment {
        self.begin + self.took
    }

    /// How long an urgent launch that is there at `at` waits for the end of a segment.
    fn wait(&self, at: Moment) -> Duration {
        let Some(segment) = self.segment.filter(|segment| !segment.is_zero()) else { return Duration::ZERO };
        if at < self.begin.max(self.stands_back) {
            return Duration::ZERO;
        }
        let done = at.since(self.begin).saturating_sub(self.stood_back).as_nanos() % segment.as_nanos();
        let left = segment - Duration::from_nanos(u64::try_from(done).unwrap_or(u64::MAX));
        left.min(self.end().since(at))
    }
}

/// A scheduler, a device of exact speed, and the time between them.
#[derive(Debug)]
pub struct Simulation<C> {
    /// The scheduler under test.
    pub scheduler: Scheduler,
    costs: C,
    now: Moment,
    running: BTreeSet<(Moment, LaunchId)>,
    /// When each partition is through with what it was given.
    busy: BTreeMap<PartitionId, Moment>,
    /// When each partition is through with what was urgent.
    busy_urgently: BTreeMap<PartitionId, Moment>,
    wake: Option<Moment>,
    around: Around,
    /// What is drawn with.
    random: u64,
    piece: Option<Piece>,
    side_by_side: bool,
    overlap: bool,
    layouts: Vec<Layout>,
    launches: BTreeMap<LaunchId, Started>,
    slow: BTreeMap<TenantId, f64>,
    slow_partitions: BTreeMap<PartitionId, f64>,
    tells_lanes: bool,
    /// What became of every request so far.
    pub outcomes: BTreeMap<RequestId, Outcome>,
    /// What was said to those that were let in.
    pub admitted: BTreeMap<RequestId, Admitted>,
    /// Partitions that were opened anew, and when.
    pub reopened: Vec<(Moment, PartitionId)>,
    /// Every launch in the order of its start.
    pub history: Vec<(Moment, LaunchPlan)>,
}

impl<C: CostTable> Simulation<C> {
    /// Time starts at zero. `costs` must know every plan that is offered.
    pub fn new(config: Config, costs: C) -> Simulation<C> {
        Simulation {
            costs,
            now: Moment::START,
            running: BTreeSet::new(),
            busy: BTreeMap::new(),
            busy_urgently: BTreeMap::new(),
            wake: None,
            around: Around::default(),
            random: 1,
            piece: None,
            side_by_side: config.policy == Policy::Space,
            overlap: config.overlap,
            layouts: config.layouts.clone(),
            scheduler: Scheduler::new(config),
            launches: BTreeMap::new(),
            slow: BTreeMap::new(),
            slow_partitions: BTreeMap::new(),
            reopened: Vec::new(),
            tells_lanes: true,
            outcomes: BTreeMap::new(),
            admitted: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    /// The same, with what lies around launches on a real device; `seed` decides what is drawn.
    pub fn with(self, around: Around, seed: u64) -> Simulation<C> {
        Simulation { around, random: seed, ..self }
    }

    /// The same on a device that tells what launches take, but not their lanes: a card, which computes all lanes at once.
    pub fn without_lanes(self) -> Simulation<C> {
        Simulation { tells_lanes: false, ..self }
    }

    /// Adds a tenant now.
    pub fn tenant(&mut self, tenant: TenantId, terms: Terms) {
        self.scheduler.tenant_added(self.now, tenant, terms);
    }

    /// What time it is.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// From now on a tenant's lanes take so many times what costs say, and their launches as much longer.
    pub fn slow(&mut self, tenant: TenantId, factor: f64) {
        self.slow.insert(tenant, factor);
    }

    /// From now on launches on a partition take so many times what costs say, until it is opened anew.
    pub fn slow_partition(&mut self, partition: PartitionId, factor: f64) {
        self.slow_partitions.insert(partition, factor);
    }

    /// Offers a request at a moment that is not before the last one.
    pub fn offer(&mut self, at: Moment, offer: &Offer) {
        self.advance(self.awake(at));
        let request = offer.request;
        match self.scheduler.offer(self.now, offer) {
            Ok(admitted) => _ = self.admitted.insert(request, admitted),
            Err(refusal) => _ = self.outcomes.insert(request, Outcome::Refused(refusal)),
        }
        self.look();
    }

    /// Calls a request off at a moment that is not before the last one. One that runs is answered all the same.
    pub fn cancel(&mut self, at: Moment, request: RequestId) {
        self.advance(self.awake(at));
        if self.scheduler.cancel(self.now, request) == Cancelled::Queued {
            self.outcomes.insert(request, Outcome::Cancelled(self.now));
        }
        self.look();
    }

    /// Runs until nothing waits and nothing runs, and says what became of every request.
    pub fn finish(mut self) -> (BTreeMap<RequestId, Outcome>, Vec<(Moment, LaunchPlan)>) {
        self.run_out();
        (self.outcomes, self.history)
    }

    /// Runs until nothing waits and nothing runs.
    pub fn run_out(&mut self) {
        while let Some(next) = self.next_event() {
            self.advance(next);
        }
    }

    /// When something happens by itself next: a launch ends, or the scheduler asked to be called.
    fn next_event(&self) -> Option<Moment> {
        let finish = self.running.first().map(|(at, _)| *at);
        [finish, self.wake].into_iter().flatten().min().map(|at| self.awake(at))
    }

    /// When the host looks at what happens at a moment.
    fn awake(&self, at: Moment) -> Moment {
        let still = &self.around.still;
        let before = still.partition_point(|(from, _)| *from <= at).checked_sub(1);
        before.map_or(at, |before| at.max(still[before].0 + still[before].1))
    }

    /// Lets time pass until a moment, with everything that happens on the way.
    pub fn advance(&mut self, to: Moment) {
        while let Some(at) = self.next_event().filter(|at| *at <= to) {
            self.now = self.now.max(at);
            while let Some(&(at, id)) = self.running.first().filter(|(at, _)| *at <= self.now) {
                self.running.remove(&(at, id));
                self.finished(self.now, id);
            }
            self.look();
        }
        self.now = self.now.max(to);
        self.look();
    }

    fn finished(&mut self, at: Moment, id: LaunchId) {
        let Started { launch, enter, took, lanes, segment, .. } =
            self.launches.remove(&id).expect("a running launch is known");
        for request in launch.requests() {
            self.outcomes.insert(request, Outcome::Answered { at, lanes: launch.lanes.len() as u32 });
        }
        let since = enter + took + self.around.leave;
        let told = if self.tells_lanes { lanes.as_slice() } else { &[] };
        let over = Over { took: since, computed: took, lanes: told, longest_segment: segment };
        self.scheduler.finished_by_lane(self.now, id, over);
    }

    /// What an engine does whenever something happened.
    fn look(&mut self) {
        for request in self.scheduler.expire(self.now) {
            self.outcomes.insert(request, Outcome::Expired(self.now));
        }
        while let Some(partition) = self.scheduler.to_reopen(self.now) {
            self.slow_partitions.remove(&partition);
            self.reopened.push((self.now, partition));
            self.scheduler.reopened(self.now, partition, true);
        }
        self.wake = loop {
            match self.scheduler.decide(self.now) {
                Decision::Launch(launch) => self.start(launch),
                Decision::SleepUntil(at) => break Some(at.max(self.now + Duration::from_nanos(1))),
                Decision::Idle => break None,
            }
        };
    }

    /// A partition's part of the largest, once it is sure that no other layout's launches run.
    fn share(&self, partition: PartitionId) -> f64 {
        let has = |layout: &Layout, id| layout.iter().any(|other| other.id == id);
        let all = |layout: &&Layout| {
            self.launches.values().all(|started| has(layout, started.launch.partition))
                && has(layout, partition)
        };
        let layout = self.layouts.iter().find(all);
        assert!(layout.is_some(), "{partition} runs while partitions of another layout do");
        self.part(partition)
    }

    /// A partition's part of the largest.
    fn part(&self, partition: PartitionId) -> f64 {
        let all = || self.layouts.iter().flatten();
        let mine = all().find(|other| other.id == partition).map_or(1, |mine| mine.units.get());
        f64::from(mine) / f64::from(all().map(|other| other.units.get()).max().unwrap_or(1))
    }

    /// What the launches of other partitions that run now have of the units that all share.
    fn others(&self, partition: PartitionId) -> f64 {
        let running = self.launches.values().map(|started| started.launch.partition);
        let others: BTreeSet<PartitionId> = running.filter(|other| *other != partition).collect();
        others.into_iter().map(|other| self.part(other)).sum()
    }

    /// How much longer than its cost the next launch takes.
    fn ratio(&mut self) -> f64 {
        let (now, random) = (self.now, &mut self.random);
        self.around.slowness.at(now, &mut self.piece, || drawn(random))
    }

    fn start(&mut self, launch: LaunchPlan) {
        let size = Size { lanes: launch.lanes.len() as u32, items: launch.items() };
        let share = self.share(launch.partition);
        let took = if self.side_by_side {
            self.costs.beside(&launch.plan, size, self.running.len() as u32)
        } else if self.overlap {
            self.costs.among(&launch.plan, size, share, self.others(launch.partition))
        } else {
            self.costs.on_share(&launch.plan, size, share)
        };
        let slow = self.slow_partitions.get(&launch.partition).copied().unwrap_or(1.0);
        let took = took.unwrap_or(Duration::from_millis(1)).mul_f64(slow * self.ratio());
        let lane = |lane: &LanePlan| {
            let slow = self.slow.get(&lane.tenant).copied().unwrap_or(1.0);
            took.mul_f64(slow * f64::from(lane.items) / f64::from(size.items.max(1)))
        };
        let lanes: Vec<Duration> = launch.lanes.iter().map(lane).collect();
        let took = if self.slow.is_empty() { took } else { lanes.iter().sum() };
        // A partition computes one launch after the other; `space` runs side by side what it makes.
        let leave = self.around.leave;
        let gap = self.costs.gap(&launch.plan, size).unwrap_or(self.around.gap);
        let mut enter = self.costs.hand_over(&launch.plan, size);
        let begin = if launch.urgent {
            let begin = self.interrupt(launch.partition, self.now + enter, took);
            enter = begin.since(self.now);
            begin
        } else {
            let free = self.busy.get(&launch.partition).filter(|_| !self.side_by_side);
            let begin = (self.now + enter).max(free.map_or(Moment::START, |free| *free + gap));
            self.busy.insert(launch.partition, begin + took);
            begin
        };
        let segment = self.costs.segment(&launch.plan, size, share);
        self.running.insert((begin + took + leave, launch.id));
        self.history.push((self.now, launch.clone()));
        let started = Started {
            launch,
            enter,
            begin,
            took,
            stands_back: Moment::START,
            stood_back: Duration::ZERO,
            segment,
            lanes,
        };
        self.launches.insert(started.launch.id, started);
    }

    /// Lets an urgent launch in that is on a partition at `at` and takes so long: when it begins. Everything on the partition moves back.
    fn interrupt(&mut self, partition: PartitionId, at: Moment, took: Duration) -> Moment {
        let urgent = self.busy_urgently.get(&partition).copied().unwrap_or(Moment::START);
        let leave = self.around.leave;
        let delayed = self.launches.values_mut().filter(|started| {
            started.launch.partition == partition && !started.launch.urgent && started.end() > at
        });
        let mut delayed: Vec<&mut Started> = delayed.collect();
        delayed.sort_by_key(|started| started.begin);
        let wait = delayed.first().map_or(Duration::ZERO, |first| first.wait(at));
        let begin = urgent.max(at + wait);
        let lost = (begin + took).since(urgent.max(at));
        for (place, started) in delayed.into_iter().enumerate() {
            self.running.remove(&(started.end() + leave, started.launch.id));
            if place == 0 && started.begin <= at {
                started.took += lost;
                started.stood_back += lost;
                started.stands_back = begin + took;
            } else {
                started.begin = started.begin + lost;
            }
            self.running.insert((started.end() + leave, started.launch.id));
        }
        let busy = self.busy.entry(partition).or_insert(Moment::START);
        *busy = (begin + took).max(if *busy > at { *busy + lost } else { *busy });
        self.busy_urgently.insert(partition, begin + took);
        begin
    }
}

/// Marsaglia's xorshift, then the high bits of a product: enough to choose one of some thousand.
fn drawn(random: &mut u64) -> usize {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    (random.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}
