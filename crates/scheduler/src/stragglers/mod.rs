//! Tenants that slow others down leave the launches that they share, and come back when they are well.
//!
//! ```text
//!               ratio high, often enough and long enough            its time is over, and its own launches are not slow
//!   ┌─ sharing ────────────────────────────────────▶ apart ────────────────────────────────────▶ on probation ─┐
//!   │                                                  ▲            still high: twice as long            │      │
//!   │                                                  └────────────────────────────────────────────────┘      │
//!   └──────────────────────────────────────────────────────────────────────── not high any more ◀───────────────┘
//! ```
//! A launch lasts as long as its slowest lane, so one tenant whose lanes take long (weights full of denormal numbers, a slot in slow memory) makes all
//! of its neighbours late. Every launch tells what its lanes took, `compare` relates each to its neighbours, and the running median of a tenant's last ratios
//! (`window`) is what it is judged by: fewer than half of the samples can be noise of any size without moving it.
//!
//! - **Apart**: once the median was above [`StragglerSettings::bound`] for [`StragglerSettings::after`], over at least [`watched::LEAST`] samples, the tenant is apart. It is
//!   served from then on by a plan of its own, number and all (`plans`): launches carry one plan, so it never shares, and costs belong to plans, so admission
//!   proves its promises from what it takes itself, and nobody else's from that. Its owner is charged what its launches take.
//!   Where the device has a partition aside it runs there, as nobody else does; else where there are several it has the last, unless a cut gives its plan another home
//!   (`space`). On one partition it has turns like anybody else, and what comes while it runs waits for it: it is no longer
//!   *in* the others' launches, but still before some of them.
//! - **On probation**: its time apart over, it shares again on trial, unless the launches that it had alone still are slow beside others' lanes.
//!   [`watched::TRIAL`] samples decide. They must lie below [`watched::HEALTHY`] of the bound: who is evicted at the bound and let in just below it would come and go.
//! - **Back-off**: every eviction that follows soon after the one before doubles the time apart, up to [`StragglerSettings::most_away`].
//!
//! **Where lanes have no times of their own**, as on a card, tenants are accused by the launches that they were in, and run alone for a few launches to be heard (`presence`).
//! The bound is the same, and so is what follows.
//!
//! A tenant that shares with nobody has no neighbours and is never judged: what it costs is its plan's own cost, and harms nobody's prediction.
//! Under policies other than `space-time` no launch is shared, and nobody is evicted.
//!
//! **Costs are not poisoned** before the eviction either: of a launch with a lane of somebody who has been slow lately, costs learn what it would have taken with that
//! lane as quick as its neighbours, or, where lanes are not told, what its size usually takes. At most two launches are learnt from as they were, since one slow lane is no straggler.
//!
//! **What is large is no straggler.** A request may bring no more items than a launch carries (`Refusal::TooManyItems`), its lane is compared with lanes of as many
//! items, and what it adds to a launch is predicted, so that it rides only where everything promised bears it.
//!
//! Source: the paper names degraded workers evicted from the shared launches; in bounds, samples and time to return this is an outlier ejection as load balancers have it
//! (Envoy's; Dean and Barroso, The Tail at Scale, 2013, call it latency-induced probation).

mod apart;
mod compare;
mod lately;
mod presence;
mod usual;
mod watched;
mod window;

pub(crate) use compare::LaneTime;

use crate::event::Happened;
use crate::plans::PlanIx;
use compare::Recent;
use lately::Lately;
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::{IdMap, Moment, TenantId};
pub(crate) use usual::{Kind, Usual};
use watched::{Change, State, Watched};
pub(crate) use window::Window;

/// When a tenant is too slow to share, and for how long.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StragglerSettings {
    /// How many times what its neighbours take a tenant's lanes may take; infinity, and nobody is ever evicted.
    pub bound: f64,
    /// For how long it must be above before it is evicted.
    pub after: Duration,
    /// How long it is apart the first time.
    pub away: Duration,
    /// How long at most, however often it was evicted.
    pub most_away: Duration,
}

impl Default for StragglerSettings {
    /// Three times, since a tenant that comes seldom finds its weights out of the caches, which alone can cost a factor of two; a quarter of a second, so that one
    /// in use is out within a second; two seconds apart at first, a minute at most.
    fn default() -> StragglerSettings {
        StragglerSettings {
            bound: 3.0,
            after: Duration::from_millis(250),
            away: Duration::from_secs(2),
            most_away: Duration::from_secs(60),
        }
    }
}

impl StragglerSettings {
    /// Whether anybody can be too slow to share.
    pub(crate) fn evicts(&self) -> bool {
        self.bound.is_finite()
    }
}

/// Where a tenant stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It shares launches.
    Sharing,
    /// It runs by itself.
    Apart,
    /// It shares launches on trial.
    OnProbation,
    /// It runs alone for a few launches, to tell whether it is what slows those that it shares.
    Heard,
}

/// How a tenant's lanes compare with those of its neighbours.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pace {
    /// Where that has brought it.
    pub standing: Standing,
    /// What its lanes take over what its neighbours' do, the median of the last few; `None` of one that had no neighbours yet.
    pub ratio: Option<f64>,
}

/// The tenants that are watched. See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Stragglers {
    tenants: IdMap<TenantId, Watched>,
    recent: Recent,
    usual: Usual,
    /// Launches of late that told one time.
    lately: Lately,
    /// Who runs alone to be heard.
    heard: Vec<TenantId>,
}

/// What a launch's lanes say.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// Whose standing changed, and why.
    pub(crate) changes: Vec<Happened>,
    /// The part of the launch's work that its neighbours' pace explains: less than one where somebody known to be slow took part.
    pub(crate) ordinary: f64,
}

impl Stragglers {
    /// Takes a launch of a plan in, on a partition of so many units. `shared` says whether its lanes may be those of several tenants.
    pub(crate) fn judge(
        &mut self,
        settings: StragglerSettings,
        now: Moment,
        (plan, units): (PlanIx, NonZeroU32),
        lanes: &[LaneTime],
        shared: bool,
    ) -> Judged {
        // Those who are heard are each other's measure.
        let is_heard = |lane: &LaneTime| self.heard.contains(&lane.tenant);
        let representative = shared || lanes.iter().all(is_heard);
        let ratios = self.recent.ratios((plan, units), lanes, representative);
        let (mut work, mut excess) = (0.0, 0.0);
        let mut changes = Vec::new();
        for (lane, ratio) in lanes.iter().zip(ratios) {
            let took = lane.took.as_secs_f64();
            work += took;
            let tenant = lane.tenant;
            let watched = self.tenants.entry(tenant).or_insert_with(|| Watched::new(now));
            if let State::Heard { last, .. } = &mut watched.state {
                *last = now;
            }
            let Some(ratio) = ratio else { continue };
            let was_heard = matches!(watched.state, State::Heard { .. });
            let change = watched.sample(settings, now, ratio);
            if ratio > settings.bound && watched.is_suspect(settings) {
                excess += took * (1.0 - 1.0 / ratio);
            }
            let bound = settings.bound;
            let evicted = matches!(change, Some(Change::Evicted { .. }));
            if was_heard && change.is_some() {
                self.heard_out(plan, tenant, !evicted);
            }
            changes.extend(change.map(|change| match change {
                Change::Evicted { ratio } => Happened::Evicted { tenant, ratio, bound },
                Change::Returned { ratio } => Happened::Returned { tenant, ratio, bound },
                Change::Acquitted { ratio } => Happened::Acquitted { tenant, ratio: Some(ratio), bound },
            }));
        }
        Judged { changes, ordinary: if work > 0.0 { 1.0 - excess / work } else { 1.0 } }
    }

    /// Whether the tenant runs by itself.
    pub(crate) fn is_apart(&self, tenant: TenantId) -> bool {
        self.tenants.get(&tenant).is_some_and(|watched| matches!(watched.state, State::Apart { .. }))
    }

    /// The tenant asks to be served: if its time apart is over, it is tried again, or stays away for longer. Says what was decided.
    pub(crate) fn came(
        &mut self,
        settings: StragglerSettings,
        now: Moment,
        tenant: TenantId,
    ) -> Option<Happened> {
        self.tenants.get_mut(&tenant)?.came(settings, now, tenant)
    }

    /// How many times what its neighbours take a tenant is taken to need that runs by itself, apart or to be heard; `None` of one that shares.
    pub(crate) fn slower_by(&self, tenant: TenantId) -> Option<f64> {
        self.tenants.get(&tenant)?.slower_by()
    }

    pub(crate) fn pace(&self, tenant: TenantId) -> Pace {
        let watched = self.tenants.get(&tenant);
        let standing = watched.map_or(Standing::Sharing, Watched::standing);
        Pace { standing, ratio: watched.and_then(|watched| watched.ratios.median()) }
    }

    pub(crate) fn forget(&mut self, tenant: TenantId) {
        self.tenants.remove(&tenant);
        self.heard.retain(|other| *other != tenant);
    }

    pub(crate) fn forget_plan(&mut self, plan: PlanIx) {
        self.recent.forget(plan);
        self.usual.forget(plan);
    }

    /// Everybody shares again, and nobody was ever slow. Says who ran by itself.
    pub(crate) fn pardon(&mut self) -> Vec<TenantId> {
        let is_apart = |(tenant, watched): (&TenantId, &Watched)| {
            matches!(watched.state, State::Apart { .. } | State::Heard { .. }).then_some(*tenant)
        };
        let mut apart: Vec<TenantId> = self.tenants.iter().filter_map(is_apart).collect();
        apart.sort_unstable();
        self.tenants.clear();
        self.heard.clear();
        apart
    }
}

#[cfg(test)]
mod tests;
