//! Which layout of the device is in force, and which classes belong on which of its partitions.
//!
//! ```text
//!   every dwell:  demand, costs ─▶ score of every layout and cut ─▶ clearly better? ─▶ change
//!
//!   patience  ──|─────|──|───────────────|────▶      classes in order of how long they can wait for others; a cut parts the urgent
//!               urgent      ▲cut   patient           from the patient, and each side has a partition of its own, its *home*
//!
//!   change    [whole: running][promised …]┐drained
//!             new promises of a, b        └▶ [¾: a a a a]
//!                                            [¼: b b b  ]
//! ```
//! One line for everything is best while nobody waits too long: launches are shared by most and the whole device works for each. Where long launches
//! of one class meet tight deadlines of another, the tight ones are refused while a long one runs, where it cannot be stopped or does not bear it. Then it may be better to
//! part them. `score` says what part of all requests would be in time under each layout, from costs and arrivals as measured.
//!
//! **When.** Looks are `Config::dwell` apart, and so are changes. A layout is left for one with `Config::gain` more of all requests in time; for the
//! first, the whole device, it is left when less than a quarter of that gain would be lost. With one class, one layout, or nothing that comes too late, the first is in force.
//!
//! **No promise is broken.** A change moves every planned launch to its new line if all of them are in time there, with the new lines free when what
//! runs is over; that is the test that each promise passed when it was given (`Promises::move_all`). Where they are not, they stay, and run out on the old
//! lines. Either way new promises are made on the new lines, which are free when the old ones are drained: at the latest end of what runs and is promised on
//! them, a moment that only comes nearer, since no launch without a promise starts there any more and nobody waits for company. A change is
//! done within the longest time that was allowed to anything promised before. With exact costs no promise is broken, by induction as in `promises`.
//!
//! **Partitions that overlap never run at once**: until the old lines are drained nothing is launched on the new ones.
//!
//! **Homes.** In a layout of two partitions a plan is booked at home. A partition with nothing of its own to do takes what is elsewhere, but never
//! a longer launch than its own classes can wait for (`beside`). Layouts that no cut was chosen for have no homes: everything may be everywhere, but who is
//! apart (`stragglers`) only on the last.
//!
//! **Aside.** Where the device has a partition for it, who is apart runs there and nobody else does who does not belong there: on few units, and behind the others. Who is
//! only heard does not, as what it takes is compared with what others take.
//!
//! **Streams.** Where every partition has the whole device, there is nothing to cut; how many of them are open follows the classes (`streams`). Such a device may have
//! layouts that differ in the partition aside: then classes that can wait may be put there, behind those that cannot, on as many units as these bear (`behind`).
//!
//! Costs: a look at at most [`choice::MOST_CLASSES`] classes, by the load they are, takes tens of microseconds; a change O(n log n) for n planned launches.

mod behind;
mod beside;
mod choice;
mod demand;
mod score;
mod streams;

use crate::cost::Size;
use crate::event::Happened;
use crate::layout::{Lines, Partition};
use crate::plans::PlanIx;
use crate::promises::Open;
use crate::scheduler::Scheduler;
use crate::timeline::{Nanos, length};
use crate::waiting::Waiting;
use behind::Behind;
use choice::Choice;
use demand::Demand;
use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;
use streams::Streams;
use tessera_core::{IdMap, Moment, Policy};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Space {
    lines: Lines,
    in_force: usize,
    /// The layout before, until its lines are drained.
    leaving: Option<usize>,
    /// Where plans belong; none is anywhere that is for everybody, as is where no plan has a home.
    homes: IdMap<PlanIx, Option<usize>>,
    /// For plans that have no home yet.
    cut: Option<Cut>,
    demand: Demand,
    next_look: Moment,
    /// Where partitions have the whole device each.
    streams: Option<Streams>,
    behind: Behind,
}

/// Where the urgent are parted from the patient.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Cut {
    /// How long a class of the urgent can wait for others at most.
    patience: Duration,
    /// The line of the urgent; none where they have all that are for everybody.
    urgent: Option<usize>,
    patient: usize,
    /// How long the most urgent class can wait: of the urgent ones, and of the patient.
    bears: [Option<Duration>; 2],
}

impl Cut {
    /// How long the classes of a line can wait.
    fn bears(&self, line: usize) -> Option<Duration> {
        self.bears[usize::from(line == self.patient)]
    }
}

impl Space {
    pub(crate) fn new(lines: Lines, dwell: Duration, overlap: bool) -> Space {
        Space {
            lines,
            in_force: 0,
            leaving: None,
            homes: IdMap::default(),
            cut: None,
            demand: Demand::default(),
            next_look: Moment::START + dwell,
            streams: overlap.then(Streams::default),
            behind: Behind::default(),
        }
    }

    /// The lines that run launches now.
    pub(crate) fn running(&self) -> Range<usize> {
        self.lines.of(self.leaving.unwrap_or(self.in_force))
    }

    /// The lines of the layout in force, on which promises are made.
    pub(crate) fn promising(&self) -> Range<usize> {
        self.lines.of(self.in_force)
    }

    pub(crate) fn in_force(&self) -> &[Partition] {
        self.lines.partitions(self.in_force)
    }

    /// Whether what runs is what was begun before a change of layouts.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    pub(crate) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// The lines that run launches now, but for one that is aside.
    pub(crate) fn open_to_all(&self) -> Range<usize> {
        self.lines.open_to_all(self.leaving.unwrap_or(self.in_force))
    }

    /// The line that is aside now.
    pub(crate) fn aside(&self) -> Option<usize> {
        self.lines.aside(self.leaving.unwrap_or(self.in_force))
    }

    /// The line that a plan belongs on; `None` where it may be anywhere.
    pub(crate) fn home(&self, plan: PlanIx) -> Option<usize> {
        if let Some(home) = self.homes.get(&plan).copied().or(self.cut.map(|cut| Some(cut.patient))) {
            return home;
        }
        // Who runs alone has the last partition where there are several, so that its launches, which nobody can shorten, leave the others free.
        let lines = self.lines.open_to_all(self.in_force);
        (plan.is_own() && lines.len() > 1).then(|| lines.end - 1)
    }

    /// Whether a plan belongs on a line, there alone or as anywhere that is for everybody.
    fn belongs(&self, plan: PlanIx, line: usize) -> bool {
        self.home(plan).map_or_else(|| !self.lines.is_aside(line), |home| home == line)
    }

    /// Whether some plans belong on one line and others on another, beside those that are one tenant's own.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// Whether only what belongs on a line, and what was promised on it before, runs there.
    pub(crate) fn is_closed(&self, line: usize) -> bool {
        let lines = self.lines.open_to_all(self.in_force);
        let open = self.streams.as_ref().map_or(lines.len(), Streams::classes).min(lines.len());
        self.promising().contains(&line) && line >= lines.start + open
    }

    /// What part of the device's time a plan's launches take: see [`Lines::weight`].
    pub(crate) fn weight(&self, plan: PlanIx) -> f64 {
        self.home(plan).map_or(1.0, |line| self.lines.weight(line))
    }

    /// Units of the partition that a plan's launches have by rights.
    pub(crate) fn units(&self, plan: PlanIx) -> NonZeroU32 {
        let line = self.home(plan).unwrap_or(self.promising().start);
        self.lines.units(line)
    }
}

impl Scheduler {
    /// From now on a plan of a tenant that is apart belongs aside, where the device has such a partition.
    pub(crate) fn put_aside(&mut self, plan: PlanIx) {
        let Space { lines, in_force, homes, .. } = &mut self.space;
        let Some(aside) = lines.aside(*in_force).filter(|aside| homes.get(&plan) != Some(&Some(*aside)))
        else {
            return;
        };
        // Plans of tenants that came back have gone meanwhile.
        homes.retain(|plan, _| self.plans.is_known(*plan));
        homes.insert(plan, Some(aside));
        // Nobody is refused for a cost that is only guessed.
        self.plans.costs.moved(plan, lines.units(aside));
    }

    /// From now on a tenant's own plan runs beside the others', as one that is heard does: on as many units, or it could not be compared.
    pub(crate) fn take_back(&mut self, plan: PlanIx) {
        let aside = self.space.lines.aside(self.space.in_force);
        if aside.is_some() && self.space.homes.get(&plan) == Some(&aside) {
            self.space.homes.remove(&plan);
        }
    }

    /// Units of a line's partition.
    pub(crate) fn units(&self, line: usize) -> NonZeroU32 {
        self.space.lines.units(line)
    }

    /// Takes note of what is asked for, and gives a plan that is new a home.
    pub(crate) fn note_demand(
        &mut self,
        now: Moment,
        plan: PlanIx,
        items: NonZeroU32,
        allowed: Option<Duration>,
    ) {
        // What belongs aside leaves the streams to the others.
        let counts = !plan.is_own() && self.space.home(plan).is_none();
        if let Some(streams) = self.space.streams.as_mut().filter(|_| counts) {
            let units = self.space.lines.most_units();
            let alone = self.plans.cost_on(units, plan, Size::one_lane(items));
            streams.note(now, plan, alone, self.config.dwell);
        }
        if self.space.lines.layouts() == 1 || self.config.policy != Policy::SpaceTime {
            return;
        }
        let alone = self.wherever(plan, items);
        // What is late wherever it runs says nothing about where to run it.
        self.space.demand.note(plan, items.get(), allowed.filter(|allowed| *allowed >= alone));
        if let Some(cut) = self.space.cut {
            let is_urgent = allowed.is_some_and(|allowed| allowed.saturating_sub(alone) <= cut.patience);
            let home = if is_urgent { cut.urgent } else { Some(cut.patient) };
            self.space.homes.entry(plan).or_insert(home);
        }
    }

    /// Takes note that a request has lost its slack: it was refused for being too late, has expired, or is answered late.
    pub(crate) fn note_lost(&mut self, plan: PlanIx, items: NonZeroU32, allowed: Duration) {
        if self.space.lines.layouts() == 1 || self.config.policy != Policy::SpaceTime {
            return;
        }
        // Those that are late wherever they run were not counted as wanted in time.
        if allowed >= self.wherever(plan, items) {
            self.space.demand.lost(plan);
        }
    }

    /// What a request takes at least, whichever layout is in force.
    fn wherever(&self, plan: PlanIx, items: NonZeroU32) -> Duration {
        self.plans.cost_alone(self.space.lines.most_units(), plan, Size::one_lane(items))
    }

    /// The same of one that was let in.
    pub(crate) fn note_late(&mut self, waiting: &Waiting) {
        if let Some(due) = waiting.due.moment() {
            self.note_lost(waiting.plan, waiting.rider.items, due.since(waiting.arrived));
        }
    }

    /// Where a request of a plan may be booked.
    pub(crate) fn open(&self, now: Moment, plan: PlanIx) -> Open {
        let (mut lines, home) = (self.space.promising(), self.space.home(plan));
        if home.is_none() {
            lines.end -= lines.clone().filter(|line| self.space.is_closed(*line)).count();
        }
        let drained = self.space.is_leaving().then(|| self.drained(now));
        let over = |line| now + self.work_before(now, line) + self.health.pause(line);
        let free = |line| drained.unwrap_or(over(line));
        Open { free: lines.clone().map(free).collect(), lines, home, most: Nanos::MAX }
    }

    /// When all that runs and is promised on the lines that run now is over.
    fn drained(&self, now: Moment) -> Moment {
        let over = |line| now + self.work_before(now, line) + length(self.promises.planned(line));
        self.space.running().map(over).max().unwrap_or(now)
    }

    /// Looks at the layouts if it is time to, and begins to run on the one in force as soon as the one before is drained.
    pub(crate) fn mind_space(&mut self, now: Moment) {
        if self.space.lines.layouts() == 1 {
            return;
        }
        if now >= self.space.next_look && self.config.policy == Policy::SpaceTime {
            self.look(now);
        }
        let is_over = |line| self.load(line) == 0 && self.promises.front(line).is_none();
        if self.space.is_leaving() && self.space.running().all(is_over) {
            self.space.leaving = None;
            if self.config.overlap {
                // What counts from here on is what is lost as they are arranged now (`behind`).
                self.space.demand.begin(now);
                self.space.next_look = now + self.config.dwell;
            }
        }
    }

    fn look(&mut self, now: Moment) {
        self.space.next_look = now + self.config.dwell;
        // Plans go in several ways: dropped, or a tenant's own once it shares again. What is judged here is what is left of them.
        let plans = &self.plans;
        self.space.demand.keep(|plan| plans.is_known(plan));
        self.space.homes.retain(|plan, _| plans.is_known(*plan));
        let wanted = self.space.demand.close(now);
        if self.space.is_leaving() {
            return;
        }
        let choice =
            if self.config.overlap { self.better_behind(now, &wanted) } else { self.better(&wanted) };
        if let Some(choice) = choice {
            self.change(now, choice);
        }
    }

    /// Under a policy that keeps to the first layout. Nothing is promised any more.
    pub(crate) fn first_layout(&mut self) {
        let space = &mut self.space;
        space.homes.clear();
        space.cut = None;
        if space.in_force != 0 {
            // What runs is on the one that runs now, whichever was to be next.
            space.leaving = space.leaving.or(Some(space.in_force)).filter(|layout| *layout != 0);
            space.in_force = 0;
            self.plans.costs.leave_to_others(space.lines.others(0));
        }
    }

    fn change(&mut self, now: Moment, choice: Choice) {
        let Choice { layout, cut, homes, score, before, .. } = choice;
        let first = self.space.lines.of(layout).start;
        let same = layout == self.space.in_force;
        let running = self.space.running();
        let over = running.map(|line| now + self.work_before(now, line)).max().unwrap_or(now);
        let patient = cut.map_or(first, |cut: Cut| cut.patient);
        let (before_all, all) = (self.space.lines.open_to_all(self.space.in_force), self.space.lines.count());
        let open = self.space.lines.open_to_all(layout);
        let overlap = self.config.overlap;
        // What stays on a stream keeps it.
        let same_stream = |was: usize| {
            let place = (was % all).saturating_sub(before_all.start);
            if overlap && place < open.len() { open.start + place } else { open.start }
        };
        let line = |plan, was: usize| match homes.get(&plan) {
            Some(Some(home)) => *home,
            None if cut.is_some() => patient,
            Some(None) | None => same_stream(was),
        };
        let free: Vec<Moment> = (0..self.running.len())
            .map(|line| if same { now + self.work_before(now, line) } else { over })
            .collect();
        let (plans, lines) = (&self.plans, &self.space.lines);
        let cost = |plan, size, line| plans.cost_on(lines.units(line), plan, size);
        // Where not all of them would be in time, those on the old lines run out there; in the same layout they just stay.
        self.promises.move_all(line, |line| free[line], cost);
        // Where a plan never ran on so many units its cost is a guess, for which nobody is refused.
        for (plan, home) in homes.iter().filter(|_| overlap) {
            home.iter().for_each(|home| self.plans.costs.moved(*plan, self.space.lines.units(*home)));
        }
        let space = &mut self.space;
        (space.cut, space.homes) = (cut, homes);
        if !same {
            let units =
                |layout| space.lines.partitions(layout).iter().map(|partition| partition.units).collect();
            let (from, to) = (units(space.in_force), units(layout));
            (space.in_force, space.leaving) = (layout, Some(space.in_force));
            self.plans.costs.leave_to_others(space.lines.others(layout));
            self.events.tell(now, Happened::Rearranged { from, to, before, predicted: score });
        } else if overlap {
            space.demand.begin(now);
        }
    }
}
