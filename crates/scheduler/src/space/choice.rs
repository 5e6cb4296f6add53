//! Choosing a layout: every cut of the classes in every layout, judged by what it would answer in time.

use super::demand::Wanted;
use super::score::{Class, Outlook, outlook};
use super::{Cut, Space};
use crate::cost::Size;
use crate::plans::PlanIx;
use crate::scheduler::Scheduler;
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::IdMap;

/// Most classes that a layout is judged by.
pub(super) const MOST_CLASSES: usize = 16;

/// What part of the gain that a layout must promise is too little to keep it.
pub(super) const BACK: f64 = 0.25;

/// What a layout's fullest partition counts against it: nearly nothing, so that of two that answer as many in time the one with more to spare is taken.
const LOAD_COUNTS: f64 = 0.01;

/// A layout, and who is where in it.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) layout: usize,
    pub(super) cut: Option<Cut>,
    pub(super) homes: IdMap<PlanIx, Option<usize>>,
    /// The part of all requests that it would answer in time.
    pub(super) score: f64,
    /// And that the layout in force does.
    pub(super) before: f64,
    /// Of its fullest partition.
    pub(super) load: f64,
}

impl Choice {
    pub(super) fn worth(&self) -> f64 {
        self.score - LOAD_COUNTS * self.load
    }
}

/// A class and how long it can wait for others; best effort waits for any.
pub(super) struct Judged {
    pub(super) plan: PlanIx,
    pub(super) class: Class,
    pub(super) patience: Option<Duration>,
    /// What part of it was lost lately, as [`Wanted::lost`].
    pub(super) lost: Option<f64>,
}

/// What several partitions would do together: the part of what is asked that is in time, and the load of the fullest.
fn together(outlooks: &[Outlook], asked: f64) -> (f64, f64) {
    let in_time: f64 = outlooks.iter().map(|outlook| outlook.in_time).sum();
    let load = outlooks.iter().map(|outlook| outlook.load).fold(0.0, f64::max);
    (in_time / asked.max(1e-9), load)
}

fn on(line: usize, classes: &[Judged]) -> Outlook {
    outlook(&classes.iter().map(|judged| &judged.class).collect::<Vec<_>>(), line)
}

impl Scheduler {
    /// A layout to change to, if one is worth it.
    pub(super) fn better(&self, wanted: &[Wanted]) -> Option<Choice> {
        let classes = self.judged(wanted);
        let asked: f64 = classes.iter().map(|judged| judged.class.per_second).sum();
        let space = &self.space;
        let whole = {
            let (score, load) = together(&[on(space.lines.of(0).start, &classes)], asked);
            Choice { layout: 0, cut: None, homes: IdMap::default(), score, before: score, load }
        };
        let now = if space.in_force == 0 { whole.score } else { space.score(&classes, asked) };
        if space.in_force != 0 && whole.score >= now - self.config.gain * BACK {
            return Some(Choice { before: now, ..whole });
        }
        let cuts = (1..space.lines.layouts()).flat_map(|layout| space.cuts(layout, &classes, asked));
        let best = cuts.reduce(|best, other| if other.worth() > best.worth() { other } else { best })?;
        (best.score >= now + self.config.gain).then_some(Choice { before: now, ..best })
    }

    /// What is wanted most, in order of patience.
    pub(super) fn judged(&self, wanted: &[Wanted]) -> Vec<Judged> {
        let lines = &self.space.lines;
        let most = self.limits();
        let size = |wanted: &Wanted, octave: u32| {
            let lanes = 1 << octave;
            let items = (f64::from(lanes) * wanted.items).round() as u32;
            Size { lanes, items: items.clamp(lanes, most.max_items.max(lanes)) }
        };
        let costs = |wanted: &Wanted, units: NonZeroU32| -> Vec<f64> {
            // What those who share units take from each other is measured as what they lose (`behind`), so each counts as if it were alone.
            let cost = |octave| self.plans.cost_alone(units, wanted.plan, size(wanted, octave)).as_secs_f64();
            (0..=most.max_lanes.ilog2()).map(cost).collect()
        };
        let judged = |wanted: &Wanted| {
            let costs: Vec<_> = (0..lines.count()).map(|line| costs(wanted, lines.units(line))).collect();
            let allowed = wanted.allowed.map(|allowed| allowed.as_secs_f64());
            let alone = Duration::from_secs_f64(costs[0][0]);
            let patience = wanted.allowed.map(|allowed| allowed.saturating_sub(alone));
            // A segment is what a core does, so one that was not measured on a partition is as long as on all cores.
            let (yields, size) = (self.config.interrupts, size(wanted, 0));
            let segment = |units| self.plans.segment_on(units, wanted.plan, size).filter(|_| yields);
            let segment = |line| segment(lines.units(line)).or_else(|| segment(lines.most_units()));
            let segments = (0..lines.count()).map(segment).map(|segment| Some(segment?.as_secs_f64()));
            let segments = segments.collect();
            let class = Class { per_second: wanted.per_second, allowed, costs, segments };
            Judged { plan: wanted.plan, class, patience, lost: wanted.lost }
        };
        let mut all: Vec<Judged> = wanted.iter().map(judged).collect();
        let load = |judged: &Judged| judged.class.per_second * judged.class.costs[0][0];
        all.sort_by(|one, two| load(two).total_cmp(&load(one)));
        all.truncate(MOST_CLASSES);
        all.sort_by_key(|judged| (judged.patience.unwrap_or(Duration::MAX), judged.plan));
        all
    }
}

impl Space {
    /// What the layout in force does with the homes there are.
    fn score(&self, classes: &[Judged], asked: f64) -> f64 {
        let on = |line| {
            let here = classes.iter().filter(|judged| self.home(judged.plan) == Some(line));
            outlook(&here.map(|judged| &judged.class).collect::<Vec<_>>(), line)
        };
        together(&self.promising().map(on).collect::<Vec<_>>(), asked).0
    }

    /// Every way of parting the classes between the two partitions of a layout; none where it has another number.
    fn cuts(&self, layout: usize, classes: &[Judged], asked: f64) -> impl Iterator<Item = Choice> {
        let lines = self.lines.of(layout);
        let (first, two) = (lines.start, lines.len() == 2);
        let ways = (1..classes.len()).flat_map(move |at| [(at, first, first + 1), (at, first + 1, first)]);
        ways.filter(move |_| two).map(move |(at, urgent, patient)| {
            let (before, behind) = classes.split_at(at);
            let (score, load) = together(&[on(urgent, before), on(patient, behind)], asked);
            let last = before.last().and_then(|judged| judged.patience).unwrap_or(Duration::MAX);
            let next = behind[0].patience.unwrap_or(Duration::MAX);
            let bears = [before[0].patience, behind[0].patience];
            let patience = last.saturating_add(next) / 2;
            let cut = Cut { patience, urgent: Some(urgent), patient, bears };
            let homes = before.iter().map(|judged| (judged.plan, Some(urgent)));
            let homes = homes.chain(behind.iter().map(|judged| (judged.plan, Some(patient)))).collect();
            Choice { layout, cut: Some(cut), homes, score, before: score, load }
        })
    }
}
