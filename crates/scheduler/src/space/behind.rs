//! Which classes go behind the others on a card, and on how many multiprocessors.
//!
//! ```text
//!   beside   a ▪▪ ▪▪  ▪▪  ▪▪         b ████ ████ ████         each on streams over all units: b's blocks are where a's should be
//!   behind   a ▪▪▪▪▪▪▪▪▪▪▪▪▪▪        b ██████ ██████          a has all units, before b; b has a few of them, of a ladder of sizes
//!
//!   lost of a   beside 20 % ──▶ expected with b on half of the units 10 %, on a quarter 5 %
//!               what was seen of such an arrangement counts instead, for a while                so nothing is tried twice in a row
//! ```
//! Streams share all units, so there is no idle part to be had by cutting: side by side is best while everybody is in time. A class that cannot wait is late where long
//! launches of another hold the units that it needs, and how much that costs it nobody can compute from what each takes alone. So here what counts is measured: the part of each
//! class's requests that lost its slack (`demand`), as classes are arranged now. What a class loses beyond what it would lose alone is taken to come of the
//! others, of each in proportion to the work that it brings and the units that it has for it; what those behind would lose on a few units is predicted from what they take there, as on
//! cores (`score`). Parts of classes are added up, so each counts the same, however often it is asked for: the few long requests would be the first to be given up.
//!
//! **Hysteresis.** Changes are a dwell apart, which begins anew when what ran before is over, and need a gain ([`GAIN`]); back to streams less is enough. What was seen of an arrangement is
//! remembered for [`MEMORY`] dwells after it was left, twice as long each time it is left again, up to [`LONGEST`]: what did not help is not tried again
//! soon, and streams that were bad are not tried again because all is well without them. It is remembered beside what the others brought then, and less is expected when they bring
//! less, so that streams are in force again soon after a loud class has become quiet. With other classes everything is new.

use super::choice::{BACK, Choice, Judged};
use super::demand::Wanted;
use super::score::outlook;
use super::{Cut, Space};
use crate::plans::PlanIx;
use crate::scheduler::Scheduler;
use std::collections::BTreeMap;
use std::time::Duration;
use tessera_core::{IdMap, Moment};

/// How much of `Config::gain` an arrangement must promise, of one class's requests: as measured, less than of all requests by prediction. A class that keeps 99 of 100 may
/// stay as it is.
const GAIN: f64 = 1.0 / 3.0;

/// For how many dwells it is remembered what an arrangement lost that was left once.
const MEMORY: u32 = 120;

/// And at most, however often it was.
const LONGEST: u32 = 32 * MEMORY;

/// A layout, and who is behind in it, in order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Arrangement {
    layout: usize,
    behind: Vec<PlanIx>,
}

/// What was seen of arrangements. See the module's text.
#[derive(Debug, Default)]
pub(super) struct Behind {
    seen: BTreeMap<Arrangement, Seen>,
    /// Whom it was seen of, in order.
    classes: Vec<PlanIx>,
}

/// What classes lost in an arrangement.
#[derive(Debug)]
struct Seen {
    lost: IdMap<PlanIx, Lost>,
    until: Moment,
    /// How many dwells that is.
    memory: u32,
}

/// What a class lost.
#[derive(Clone, Copy, Debug)]
struct Lost {
    part: f64,
    /// What the others were to it then.
    exposure: f64,
}

impl Behind {
    /// These are the classes now, in order.
    fn meet(&mut self, classes: Vec<PlanIx>) {
        if classes != self.classes {
            self.seen.clear();
            self.classes = classes;
        }
    }

    fn note(&mut self, at: &Arrangement, lost: Vec<(PlanIx, Lost)>, now: Moment, dwell: Duration) {
        let new = || Seen { lost: IdMap::default(), until: now, memory: MEMORY };
        let seen = self.seen.entry(at.clone()).or_insert_with(new);
        seen.until = now + dwell * seen.memory;
        seen.lost.extend(lost);
    }

    fn left(&mut self, at: &Arrangement) {
        if let Some(seen) = self.seen.get_mut(at) {
            seen.memory = (2 * seen.memory).min(LONGEST);
        }
    }

    fn lost(&self, now: Moment, at: &Arrangement, plan: PlanIx) -> Option<Lost> {
        self.seen.get(at).filter(|seen| now < seen.until)?.lost.get(&plan).copied()
    }
}

/// The classes in order of patience, and all that arrangements are judged by.
struct Look<'a> {
    space: &'a Space,
    now: Moment,
    classes: &'a [Judged],
    /// As they are arranged now.
    at: &'a Arrangement,
}

impl Look<'_> {
    /// The part that would be in time on the whole device with nobody else there.
    fn alone(&self, judged: &Judged) -> f64 {
        outlook(&[&judged.class], self.space.lines.of(0).start).in_time / judged.class.per_second.max(1e-9)
    }

    /// What the others are to a class: the work of each, times the units that it has.
    fn exposure(&self, at: &Arrangement, of: &Judged) -> f64 {
        let lines = &self.space.lines;
        let others = self.classes.iter().filter(|judged| judged.plan != of.plan);
        let weight = |judged: &Judged| {
            let behind = at.behind.binary_search(&judged.plan).is_ok();
            let units = if behind { lines.others(at.layout) } else { lines.most_units() };
            judged.class.per_second * judged.class.costs[0][0] * f64::from(units.get())
        };
        others.map(weight).sum()
    }

    /// What classes lose as they are arranged now, of those of whom that is known.
    fn lose(&self) -> Vec<(PlanIx, Lost)> {
        let lost = |judged: &Judged| {
            let lost = Lost { part: judged.lost?, exposure: self.exposure(self.at, judged) };
            Some((judged.plan, lost))
        };
        self.classes.iter().filter_map(lost).collect()
    }

    /// The part of a class that an arrangement would keep in time, but for what is not served.
    fn kept(&self, at: &Arrangement, judged: &Judged) -> f64 {
        let seen = |at| self.space.behind.lost(self.now, at, judged.plan);
        let Some(Lost { part, exposure }) = seen(at).or_else(|| seen(self.at)) else { return 1.0 };
        let own = (1.0 - self.alone(judged)).min(part);
        let lost = own + (part - own) * self.exposure(at, judged) / exposure.max(f64::MIN_POSITIVE);
        (1.0 - lost).clamp(0.0, 1.0)
    }

    /// Every class on streams.
    fn beside(&self) -> Choice {
        let at = Arrangement { layout: 0, behind: Vec::new() };
        // Of best effort nothing is lost, however late it is.
        let kept = |judged: &Judged| match judged.patience {
            None => self.alone(judged),
            Some(_) => self.kept(&at, judged),
        };
        let score = self.classes.iter().map(kept).sum();
        Choice { layout: 0, cut: None, homes: IdMap::default(), score, before: score, load: 0.0 }
    }

    /// These before those, under a layout; `None` where somebody would be missing.
    fn parted(&self, layout: usize, (before, behind): (&[&Judged], &[&Judged])) -> Option<Choice> {
        let aside = self.space.lines.aside(layout)?;
        let (last, first) = (before.last()?, behind.first()?);
        let at = arrangement(layout, behind.iter().map(|judged| judged.plan));
        let classes: Vec<_> = behind.iter().map(|judged| &judged.class).collect();
        let there = outlook(&classes, aside);
        let wanted: f64 = classes.iter().map(|class| class.per_second).sum();
        let served = there.in_time / wanted.max(1e-9);
        let kept = before.iter().map(|judged| self.kept(&at, judged));
        let score = kept.chain(behind.iter().map(|judged| self.kept(&at, judged).min(served))).sum();
        let patience = |judged: &Judged| judged.patience.unwrap_or(Duration::MAX);
        let cut = Cut {
            patience: patience(last).saturating_add(patience(first)) / 2,
            urgent: None,
            patient: aside,
            bears: [before[0].patience, first.patience],
        };
        let homes = before.iter().map(|judged| (judged.plan, None));
        let homes = homes.chain(behind.iter().map(|judged| (judged.plan, Some(aside)))).collect();
        Some(Choice { layout, cut: Some(cut), homes, score, before: score, load: there.load })
    }

    /// Every way of parting those who have deadlines from those who can wait longer, on every size.
    fn ways(&self) -> impl Iterator<Item = Choice> {
        let parted = move |at: usize| {
            let (before, behind) = self.classes.split_at(at);
            let (before, behind): (Vec<_>, Vec<_>) = (before.iter().collect(), behind.iter().collect());
            (1..self.space.lines.layouts()).filter_map(move |layout| self.parted(layout, (&before, &behind)))
        };
        let urgent = self.classes.iter().take_while(|judged| judged.patience.is_some()).count();
        (1..self.classes.len().min(urgent + 1)).flat_map(parted)
    }

    /// How it is now.
    fn as_it_is(&self) -> Option<Choice> {
        let is_behind = |judged: &&Judged| self.at.behind.binary_search(&judged.plan).is_ok();
        let (behind, before): (Vec<_>, Vec<_>) = self.classes.iter().partition(is_behind);
        self.parted(self.at.layout, (&before, &behind))
    }

    /// A layout to change to, if one is worth it.
    fn choice(&self, gain: f64) -> Option<Choice> {
        let beside = self.beside();
        let best = self.ways().reduce(|best, way| if way.worth() > best.worth() { way } else { best });
        if self.at.layout == 0 {
            let best = best?;
            return (best.score >= beside.score + gain).then_some(Choice { before: beside.score, ..best });
        }
        let (Some(best), Some(now)) = (best, self.as_it_is()) else { return Some(beside) };
        if beside.score >= best.score.max(now.score) - gain * BACK {
            return Some(Choice { before: now.score, ..beside });
        }
        (best.score >= now.score + gain).then_some(Choice { before: now.score, ..best })
    }
}

fn arrangement(layout: usize, behind: impl Iterator<Item = PlanIx>) -> Arrangement {
    let mut behind: Vec<PlanIx> = behind.collect();
    behind.sort_unstable();
    Arrangement { layout, behind }
}

impl Scheduler {
    /// A layout to change to on a device whose partitions share their units, if one is worth it.
    pub(super) fn better_behind(&mut self, now: Moment, wanted: &[Wanted]) -> Option<Choice> {
        // Who is apart is aside already.
        let shared: Vec<Wanted> = wanted.iter().filter(|wanted| !wanted.plan.is_own()).copied().collect();
        let classes = self.judged(&shared);
        let is_behind = |plan: &PlanIx| self.space.is_cut() && self.space.home(*plan).is_some();
        let behind = classes.iter().map(|judged| judged.plan).filter(is_behind);
        let at = arrangement(self.space.in_force, behind);
        let mut plans: Vec<PlanIx> = classes.iter().map(|judged| judged.plan).collect();
        plans.sort_unstable();
        self.space.behind.meet(plans);
        let lost = Look { space: &self.space, now, classes: &classes, at: &at }.lose();
        self.space.behind.note(&at, lost, now, self.config.dwell);
        let look = Look { space: &self.space, now, classes: &classes, at: &at };
        let choice = look.choice(self.config.gain * GAIN)?;
        self.space.behind.left(&at);
        let of_one = 1.0 / classes.len().max(1) as f64;
        Some(Choice { score: choice.score * of_one, before: choice.before * of_one, ..choice })
    }
}
