//! Who slows launches that tell one time for all of their lanes.
//!
//! ```text
//!   launch of a b c d   +13 % ─▶ each aboard is accused a little     a launch as usual clears those aboard a little
//!   a, b, c, d accused enough ─▶ heard: the next launches of each are its own      a ▪ 1.0   b ▪▪▪▪▪ 5.0   c ▪ 1.1   d ▪ 0.9
//!                                                        acquitted: shares again ◀─┘     └─▶ convicted: apart
//! ```
//! A card computes all lanes of a launch at once and tells what they took together. That a launch took longer than its size usually does (`usual`) is evidence
//! against everybody aboard, and only that; so presence accuses, and nobody is convicted but by launches of its own.
//!
//! - **Compared like with like.** What is usual beside others on the same units is known apart: beside those who are heard on another stream, launches take half as much longer,
//!   and nobody aboard is to blame.
//! - **Not for what all suffer.** Of what a launch took over the usual, only what launches of late without a tenant did not suffer is held against it (`lately`). A card
//!   lowers its clock under load by a tenth: who was aboard of all launches may then be heard, everybody else is not.
//! - **Accused.** Each tenant carries the logarithm of how much better its launches so far are explained by being [`LONGER`] with it aboard than by being as usual, never
//!   less than zero: a sequential test for a change (Page 1954; its bound is Wald's, 1945). In launches of differing company that of the slow one grows, and its neighbours' is
//!   taken down by their launches without it. One launch moves it by a third of the bound at most, so that a hiccup accuses nobody.
//! - **Heard.** Of the launch that brings somebody over the bound, the most accused run alone for a few launches, with neighbours as witnesses where they are few. While the slow
//!   one is among them, the launches of the others are as usual, and clear them: where the same tenants always ride together, no more than an eighth of them are away at
//!   once and all have been heard after eight such rounds.
//! - **Convicted or acquitted** by the bound of `stragglers`: what its launches took alone over what others' took alone since the hearing began. Where the whole device became slow, all
//!   are accused, none is slower than the others, and what is usual is learnt anew. Who was acquitted is not accused again for a while, twice as long each time.
//!
//! A launch costs a look at each of its lanes.

use super::usual::{Kind, Unlike};
use super::watched::{SOON, State, Watched};
use super::{Happened, StragglerSettings, Stragglers};
use crate::cost::Size;
use crate::plans::PlanIx;
use std::time::Duration;
use tessera_core::{Moment, TenantId};

/// How much longer, as a logarithm, launches with a slow tenant are taken to be: a tenth. Those half as much longer speak neither for nor against it, and harm nobody much.
const LONGER: f64 = 0.095;

/// Who is accused by so much is heard: by chance one in a million times (the logarithm of that).
const ACCUSED: f64 = 14.0;

/// The most that one launch accuses or clears.
const MOST_AT_ONCE: f64 = ACCUSED / 3.0;

/// From here on, after two launches at least, what launches with the tenant take is neither learnt as usual nor as a cost.
const SUSPECT: f64 = 2.0 * ACCUSED / 3.0;

/// Fewest that are heard at once, so that there are others to compare with; of large launches an eighth of the lanes.
const HEARD_AT_ONCE: usize = 4;
const HEARD_PART: usize = 8;

/// Launches on probation that must not accuse a tenant for it to return.
const TRIAL_LAUNCHES: u32 = 10;

/// A hearing ends without a verdict when its tenant asks for nothing for so long, or when nothing compares with it for so long.
const QUIET: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(4);

/// What accuses a tenant, and when it may be accused.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Accusation {
    weight: f64,
    /// Not before this.
    excused: Moment,
    /// For how long it was excused last.
    excuse: Duration,
}

impl Accusation {
    fn takes(&mut self, unlike: Unlike, now: Moment) {
        if now < self.excused {
            return;
        }
        let evidence = LONGER / (unlike.spread * unlike.spread) * (unlike.log_ratio - LONGER / 2.0);
        self.weight = (self.weight + evidence.clamp(-MOST_AT_ONCE, MOST_AT_ONCE)).max(0.0);
    }

    /// Nothing is held against it for a while, which is longer when it was excused shortly before.
    pub(super) fn dismiss(&mut self, settings: StragglerSettings, now: Moment) {
        let again = self.excuse > Duration::ZERO && now.since(self.excused) < self.excuse * SOON;
        let excuse = if again { 2 * self.excuse } else { settings.away };
        self.excuse = excuse.min(settings.most_away.max(settings.away));
        self.excused = now + self.excuse;
        self.weight = 0.0;
    }

    /// What happened before does not count any more.
    pub(super) fn clear(&mut self) {
        (self.weight, self.excused) = (0.0, Moment::START);
    }

    fn is_suspect(&self) -> bool {
        self.weight >= SUSPECT
    }
}

/// What a launch that told one time says.
#[derive(Debug, Default)]
pub(crate) struct Blamed {
    /// Whose standing changed, and why.
    pub(crate) changes: Vec<Happened>,
    /// The part of the launch's time that is usual, where somebody aboard is suspect; one otherwise.
    pub(crate) ordinary: f64,
}

impl Stragglers {
    /// Takes in what a launch of a shared plan took, with these tenants aboard, each once.
    pub(crate) fn blame(
        &mut self,
        settings: StragglerSettings,
        now: Moment,
        kind: Kind,
        (size, took): (Size, Duration),
        aboard: &[TenantId],
    ) -> Blamed {
        let mut blamed = Blamed { ordinary: 1.0, ..Blamed::default() };
        self.dismiss_silent(settings, now, &mut blamed.changes);
        let Some(unlike) = self.usual.compare(kind, size, took) else {
            self.usual.learn(kind, size, took);
            return blamed;
        };
        self.lately.one_more(unlike.log_ratio);
        let (mut suspects, mut accused) = (false, false);
        for &tenant in aboard {
            let watched = self.tenants.entry(tenant).or_insert_with(|| Watched::new(now));
            let without = self.lately.without(&mut watched.lately, unlike.log_ratio);
            let log_ratio = unlike.log_ratio - without.max(0.0);
            watched.accusation.takes(Unlike { log_ratio, ..unlike }, now);
            suspects |= watched.accusation.is_suspect();
            match &mut watched.state {
                State::Sharing { .. } => accused |= watched.accusation.weight >= ACCUSED,
                State::Trial { launches } if size.lanes > 1 => {
                    *launches += 1;
                    suspects = true;
                    accused |= watched.accusation.weight >= ACCUSED;
                    if *launches >= TRIAL_LAUNCHES && !watched.accusation.is_suspect() {
                        watched.state = State::Sharing { since: now, high_since: None };
                        let (ratio, bound) = (watched.slower_by, settings.bound);
                        blamed.changes.push(Happened::Returned { tenant, ratio, bound });
                    }
                }
                State::Trial { .. } => suspects = true,
                // In a launch that was made before.
                State::Heard { .. } | State::Apart { .. } => suspects = true,
            }
        }
        if suspects && unlike.log_ratio > LONGER / 2.0 {
            blamed.ordinary = (-unlike.log_ratio).exp();
        } else {
            self.usual.learn(kind, size, took);
        }
        if accused {
            let (lanes, longer) = (size.lanes, unlike.log_ratio.exp());
            let called = self.hear(now, kind.plan, aboard).into_iter();
            let told = |(tenant, witness)| Happened::Heard { tenant, witness, lanes, longer };
            blamed.changes.extend(called.map(told));
        }
        blamed
    }

    /// Who of a launch is to be heard now: the most accused, and others as witnesses, as far as there is room. Says of each whether it is a witness.
    fn hear(&mut self, now: Moment, plan: PlanIx, aboard: &[TenantId]) -> Vec<(TenantId, bool)> {
        let room = (aboard.len() / HEARD_PART).max(HEARD_AT_ONCE).saturating_sub(self.heard.len());
        let weight = |tenant: &TenantId| self.tenants.get(tenant).map_or(0.0, |of| of.accusation.weight);
        let shares = |tenant: &TenantId| {
            let state = self.tenants.get(tenant).map(|of| of.state);
            matches!(state, Some(State::Sharing { .. } | State::Trial { .. }))
        };
        let mut called: Vec<TenantId> = aboard.iter().copied().filter(shares).collect();
        called.sort_by(|one, other| weight(other).total_cmp(&weight(one)).then(one.cmp(other)));
        called.truncate(room);
        // Witnesses only come with somebody who is accused.
        if called.first().is_none_or(|most| weight(most) < ACCUSED) {
            return Vec::new();
        }
        if self.heard.is_empty() {
            // What others took before the trouble began says nothing of now.
            self.recent.forget(plan);
        }
        self.heard.extend(&called);
        let mut told = Vec::with_capacity(called.len());
        for tenant in called {
            if let Some(watched) = self.tenants.get_mut(&tenant) {
                told.push((tenant, watched.accusation.weight < ACCUSED));
                watched.call(now);
            }
        }
        told
    }

    /// Ends the hearings of those who ask for nothing, or with whom nobody compares.
    fn dismiss_silent(&mut self, settings: StragglerSettings, now: Moment, changes: &mut Vec<Happened>) {
        let tenants = &mut self.tenants;
        self.heard.retain(|tenant| {
            let Some(watched) = tenants.get_mut(tenant) else { return false };
            let State::Heard { since, last, .. } = watched.state else { return false };
            if now.since(last) < QUIET && now.since(since) < LONGEST {
                return true;
            }
            watched.acquit(settings, now);
            changes.push(Happened::Acquitted { tenant: *tenant, ratio: None, bound: settings.bound });
            false
        });
    }

    /// A hearing ended with a verdict. What is usual may have changed where nobody was to blame.
    pub(super) fn heard_out(&mut self, plan: PlanIx, tenant: TenantId, acquitted: bool) {
        self.heard.retain(|other| *other != tenant);
        if acquitted {
            self.usual.doubt(plan);
        }
    }
}

impl Watched {
    /// From now on its launches are its own, and tell of it alone.
    fn call(&mut self, now: Moment) {
        let (shared_since, on_trial) = match self.state {
            State::Sharing { since, .. } => (since, false),
            _ => (now, true),
        };
        self.state = State::Heard { since: now, last: now, shared_since, on_trial };
        self.ratios.clear();
    }

    /// It shares as before, and is not accused again soon.
    pub(super) fn acquit(&mut self, settings: StragglerSettings, now: Moment) {
        let since = match self.state {
            State::Heard { shared_since, .. } => shared_since,
            _ => now,
        };
        self.state = State::Sharing { since, high_since: None };
        self.accusation.dismiss(settings, now);
        self.ratios.clear();
    }
}
