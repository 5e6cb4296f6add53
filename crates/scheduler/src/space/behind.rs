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
//! cores (`score`). Each class counts the same, however often it is asked for: the few long requests would be the first to be given up.
//!
//! **Hysteresis.** Changes are a dwell apart and need the gain that every change of layout needs; back to streams less is enough. What was seen of an arrangement is
//! remembered for [`MEMORY`] dwells after it was left, twice as long each time it is left again, up to [`LONGEST`]: what did not help is not tried again
//! soon, and streams that were bad are not tried again because all is well without them. With other classes everything is new.

use super::choice::{BACK, Choice, Judged};
use super::demand::Wanted;
use super::score::outlook;
use super::{Cut, Space};
use crate::plans::PlanIx;
use crate::scheduler::Scheduler;
use std::collections::BTreeMap;
use std::time::Duration;
use tessera_core::{IdMap, Moment};

/// For how many dwells it is remembered what an arrangement lost that was left once.
const MEMORY: u32 = 30;

/// And at most, however often it was.
const LONGEST: u32 = 64 * MEMORY;

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
    lost: IdMap<PlanIx, f64>,
    until: Moment,
    /// How many dwells that is.
    memory: u32,
}

impl Behind {
    fn note(&mut self, now: Moment, at: Arrangement, classes: &[Judged], dwell: Duration) {
        let mut plans: Vec<PlanIx> = classes.iter().map(|judged| judged.plan).collect();
        plans.sort_unstable();
        if plans != self.classes {
            self.seen.clear();
            self.classes = plans;
        }
        let new = || Seen { lost: IdMap::default(), until: now, memory: MEMORY };
        let seen = self.seen.entry(at).or_insert_with(new);
        seen.until = now + dwell * seen.memory;
        seen.lost.extend(classes.iter().filter_map(|judged| Some((judged.plan, judged.lost?))));
    }

    fn left(&mut self, at: &Arrangement) {
        if let Some(seen) = self.seen.get_mut(at) {
            seen.memory = (2 * seen.memory).min(LONGEST);
        }
    }

    fn lost(&self, now: Moment, at: &Arrangement, plan: PlanIx) -> Option<f64> {
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

    /// The part of a class that an arrangement would keep in time, but for what is not served.
    fn kept(&self, at: &Arrangement, judged: &Judged) -> f64 {
        let seen = |at| self.space.behind.lost(self.now, at, judged.plan);
        let lost = seen(at).unwrap_or_else(|| {
            let lost = judged.lost.or_else(|| seen(self.at)).unwrap_or(0.0);
            let own = (1.0 - self.alone(judged)).min(lost);
            let exposure = self.exposure(at, judged) / self.exposure(self.at, judged).max(f64::MIN_POSITIVE);
            own + (lost - own) * exposure
        });
        (1.0 - lost).clamp(0.0, 1.0)
    }

    /// Of all classes, each of which counts the same.
    fn mean(&self, kept: impl Iterator<Item = f64>) -> f64 {
        kept.sum::<f64>() / self.classes.len().max(1) as f64
    }

    /// Every class on streams.
    fn beside(&self) -> Choice {
        let at = Arrangement { layout: 0, behind: Vec::new() };
        // Of best effort nothing is lost, however late it is.
        let kept = |judged: &Judged| match judged.patience {
            None => self.alone(judged),
            Some(_) => self.kept(&at, judged),
        };
        let score = self.mean(self.classes.iter().map(kept));
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
        let score = self.mean(kept.chain(behind.iter().map(|judged| self.kept(&at, judged).min(served))));
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
        self.space.behind.note(now, at.clone(), &classes, self.config.dwell);
        let look = Look { space: &self.space, now, classes: &classes, at: &at };
        let choice = look.choice(self.config.gain)?;
        self.space.behind.left(&at);
        Some(choice)
    }
}
