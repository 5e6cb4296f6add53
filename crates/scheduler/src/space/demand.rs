//! What is asked of the device, plan by plan: how often, how much at once, how soon.
//!
//! ```text
//!   offer ─▶ note(plan, items, allowed)        close(now), every dwell ─▶ [Wanted] at rates that follow half way each time
//! ```
//! Requests count whether they were let in or not: what is refused is wanted, too. So it is known beside what is wanted how much of it was *lost*: refused for being too late,
//! expired, or answered late, of what could have been in time on the device by itself.

use crate::plans::PlanIx;
use std::time::Duration;
use tessera_core::{IdMap, Moment};

/// Requests per second below which a plan is not wanted any more.
const HARDLY_EVER: f64 = 0.01;

/// Of fewer requests in a window it is not said what part was lost.
const FEW: u32 = 20;

/// How a plan was asked for lately.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Wanted {
    pub(crate) plan: PlanIx,
    /// Requests.
    pub(crate) per_second: f64,
    /// Items that a request brings.
    pub(crate) items: f64,
    /// From arrival to deadline, on average of those that have one; `None` when none has.
    pub(crate) allowed: Option<Duration>,
    /// The part of those with a deadline that was lost lately; `None` of too few to say.
    pub(crate) lost: Option<f64>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    plans: IdMap<PlanIx, Asked>,
    since: Moment,
}

#[derive(Debug, Default)]
struct Asked {
    requests: u32,
    items: u64,
    deadlines: u32,
    allowed: Duration,
    lost: u32,
    /// As told when the last window was closed.
    before: Option<Wanted>,
}

impl Demand {
    pub(crate) fn note(&mut self, plan: PlanIx, items: u32, allowed: Option<Duration>) {
        let asked = self.plans.entry(plan).or_default();
        asked.requests += 1;
        asked.items += u64::from(items);
        if let Some(allowed) = allowed {
            asked.deadlines += 1;
            asked.allowed += allowed;
        }
    }

    /// One of those that were noted with a deadline has lost its slack.
    pub(crate) fn lost(&mut self, plan: PlanIx) {
        if let Some(asked) = self.plans.get_mut(&plan) {
            asked.lost += 1;
        }
    }

    /// From now on requests are served otherwise: what was lost until now says nothing, and a window begins.
    pub(crate) fn begin(&mut self, now: Moment) {
        self.since = now;
        for asked in self.plans.values_mut() {
            let before = asked.before.map(|before| Wanted { lost: None, ..before });
            *asked = Asked { before, ..Asked::default() };
        }
    }

    /// Plans that are not known any more are not wanted.
    pub(crate) fn keep(&mut self, is_known: impl Fn(PlanIx) -> bool) {
        self.plans.retain(|plan, _| is_known(*plan));
    }

    /// Ends a window and begins the next. In order of plans.
    pub(crate) fn close(&mut self, now: Moment) -> Vec<Wanted> {
        let seconds = now.since(self.since).as_secs_f64().max(1e-9);
        self.since = now;
        let mut wanted: Vec<Wanted> = Vec::with_capacity(self.plans.len());
        self.plans.retain(|plan, asked| {
            let told = asked.close(*plan, seconds);
            let kept = told.per_second >= HARDLY_EVER;
            if kept {
                wanted.push(told);
                *asked = Asked { before: Some(told), ..Asked::default() };
            }
            kept
        });
        wanted.sort_unstable_by_key(|wanted| wanted.plan);
        wanted
    }
}

impl Asked {
    fn close(&self, plan: PlanIx, seconds: f64) -> Wanted {
        let rate = f64::from(self.requests) / seconds;
        let items = (self.requests > 0).then(|| self.items as f64 / f64::from(self.requests));
        let allowed = self.allowed.checked_div(self.deadlines);
        // What was asked for in the window before may have been lost in this one.
        let lost =
            (self.deadlines >= FEW).then(|| (f64::from(self.lost) / f64::from(self.deadlines)).min(1.0));
        let Some(before) = self.before else {
            return Wanted { plan, per_second: rate, items: items.unwrap_or(1.0), allowed, lost };
        };
        let between = |before: f64, now: f64| (before + now) / 2.0;
        Wanted {
            plan,
            per_second: between(before.per_second, rate),
            items: items.map_or(before.items, |items| between(before.items, items)),
            allowed: match (before.allowed, allowed) {
                (Some(before), Some(now)) => Some((before + now) / 2),
                (before, now) => now.or(before),
            },
            lost: match (before.lost, lost) {
                (Some(before), Some(now)) => Some(between(before, now)),
                (before, now) => now.or(before),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    #[test]
    fn rates_follow_half_way_and_what_nobody_asks_for_is_forgotten() {
        let mut demand = Demand::default();
        for number in 0..10 {
            let allowed = (number < 5).then_some(Duration::from_millis(20));
            demand.note(PlanIx(3), 2, allowed);
        }
        let first = demand.close(at(1));
        let ms = Duration::from_millis;
        let wanted =
            Wanted { plan: PlanIx(3), per_second: 10.0, items: 2.0, allowed: Some(ms(20)), lost: None };
        assert_eq!(first, [wanted]);
        let second = demand.close(at(2));
        assert_eq!(second[0], Wanted { per_second: 5.0, ..first[0] });
        let windows = (3..20).take_while(|second| !demand.close(at(*second)).is_empty());
        assert_eq!(windows.count(), 8, "5 a second halves to less than one in a hundred seconds");
    }

    #[test]
    fn what_was_lost_follows_half_way_begins_anew_and_is_not_told_of_a_few_requests() {
        let mut demand = Demand::default();
        let told = |demand: &mut Demand, now, asked: u32, lost: u32| {
            (0..asked).for_each(|_| demand.note(PlanIx(3), 1, Some(Duration::from_millis(20))));
            (0..lost).for_each(|_| demand.lost(PlanIx(3)));
            demand.close(at(now))[0].lost
        };
        assert_eq!(told(&mut demand, 1, 19, 19), None);
        assert_eq!(told(&mut demand, 2, 40, 10), Some(0.25));
        assert_eq!(told(&mut demand, 3, 40, 0), Some(0.125));
        assert_eq!(told(&mut demand, 4, 3, 3), Some(0.125));
        demand.begin(at(5));
        assert_eq!(told(&mut demand, 6, 40, 0), Some(0.0));
    }
}
