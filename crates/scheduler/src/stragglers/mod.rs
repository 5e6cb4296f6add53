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
//! - **Apart**: once the median was above [`StragglerSettings::bound`] for [`StragglerSettings::after`], over at least [`LEAST`] samples, the tenant is apart. It is
//!   served from then on by a plan of its own, number and all (`plans`): launches carry one plan, so it never shares, and costs belong to plans, so admission
//!   proves its promises from what it takes itself, and nobody else's from that. Its owner is charged what its launches take.
//!   Where the device has a partition aside it runs there, as nobody else does; else where there are several it has the last, unless a cut gives its plan another home
//!   (`space`). On one partition it has turns like anybody else, and what comes while it runs waits for it: it is no longer
//!   *in* the others' launches, but still before some of them.
//! - **On probation**: its time apart over, it shares again on trial, unless the launches that it had alone still are slow beside others' lanes.
//!   [`TRIAL`] samples decide. They must lie below [`HEALTHY`] of the bound: who is evicted at the bound and let in just below it would come and go.
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
mod window;

pub(crate) use compare::LaneTime;

use crate::event::Happened;
use crate::plans::PlanIx;
use compare::Recent;
use lately::Lately;
use presence::Accusation;
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::{IdMap, Moment, TenantId};
pub(crate) use usual::{Kind, Usual};
pub(crate) use window::Window;

/// Fewest samples that a tenant is judged by.
const LEAST: usize = 8;

/// Samples that decide a trial, by their median.
const TRIAL: usize = 5;

/// Samples that make a tenant suspect, by their median.
const SUSPECT: usize = 3;

/// Part of the bound that a tenant on probation must stay within.
const HEALTHY: f64 = 0.75;

/// An eviction within so many times the last time apart after the return counts as the same trouble.
const SOON: u32 = 8;

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

#[derive(Clone, Copy, Debug)]
enum State {
    Sharing { since: Moment, high_since: Option<Moment> },
    Apart { since: Moment, until: Moment },
    Trial { launches: u32 },
    Heard { since: Moment, last: Moment, shared_since: Moment, on_trial: bool },
}

#[derive(Debug)]
struct Watched {
    ratios: Window,
    state: State,
    accusation: Accusation,
    /// Its launches of late.
    lately: Lately,
    /// How long it was apart last, zero if it never was.
    away: Duration,
    /// What it was evicted for.
    slower_by: f64,
}

/// What a sample made of a tenant's standing.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Change {
    Evicted { ratio: f64 },
    Returned { ratio: f64 },
    Acquitted { ratio: f64 },
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
        let watched = self.tenants.get_mut(&tenant)?;
        let State::Apart { since, until } = watched.state else { return None };
        if now < until {
            return None;
        }
        let bound = settings.bound;
        // Of a few launches that it had alone one or two may tell little.
        let alone = watched.ratios.median_of_last(TRIAL).filter(|_| watched.ratios.len() >= SUSPECT);
        if let Some(ratio) = alone.filter(|ratio| *ratio > bound) {
            watched.evict(settings, now, ratio);
            return Some(Happened::Evicted { tenant, ratio, bound });
        }
        watched.state = State::Trial { launches: 0 };
        watched.slower_by = alone.unwrap_or(1.0);
        watched.accusation.clear();
        watched.ratios.clear();
        Some(Happened::Probation { tenant, away: now.since(since) })
    }

    /// How many times what its neighbours take a tenant is taken to need that runs by itself, apart or to be heard; `None` of one that shares.
    pub(crate) fn slower_by(&self, tenant: TenantId) -> Option<f64> {
        let watched = self.tenants.get(&tenant)?;
        match watched.state {
            State::Apart { .. } => Some(watched.slower_by),
            State::Heard { .. } => Some(1.0),
            State::Sharing { .. } | State::Trial { .. } => None,
        }
    }

    pub(crate) fn pace(&self, tenant: TenantId) -> Pace {
        let watched = self.tenants.get(&tenant);
        let standing = watched.map_or(Standing::Sharing, |watched| match watched.state {
            State::Sharing { .. } => Standing::Sharing,
            State::Apart { .. } => Standing::Apart,
            State::Trial { .. } => Standing::OnProbation,
            State::Heard { .. } => Standing::Heard,
        });
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

impl Watched {
    fn new(now: Moment) -> Watched {
        let state = State::Sharing { since: now, high_since: None };
        Watched {
            ratios: Window::default(),
            state,
            accusation: Accusation::default(),
            lately: Lately::default(),
            away: Duration::ZERO,
            slower_by: 1.0,
        }
    }

    fn sample(&mut self, settings: StragglerSettings, now: Moment, ratio: f64) -> Option<Change> {
        self.ratios.push(ratio);
        let ratio = self.ratios.median()?;
        match &mut self.state {
            State::Apart { .. } => None,
            State::Sharing { high_since, .. } => {
                if self.ratios.len() < LEAST || ratio <= settings.bound {
                    *high_since = None;
                    return None;
                }
                let since = *high_since.get_or_insert(now);
                if now.since(since) < settings.after {
                    return None;
                }
                self.evict(settings, now, ratio);
                Some(Change::Evicted { ratio })
            }
            State::Heard { since, on_trial, .. } => {
                let (since, on_trial) = (*since, *on_trial);
                if self.ratios.len() < SUSPECT {
                    return None;
                }
                if ratio <= settings.bound {
                    self.acquit(settings, now);
                    return Some(if on_trial {
                        Change::Returned { ratio }
                    } else {
                        Change::Acquitted { ratio }
                    });
                }
                if self.ratios.len() < TRIAL || now.since(since) < settings.after {
                    return None;
                }
                self.evict(settings, now, ratio);
                Some(Change::Evicted { ratio })
            }
            State::Trial { .. } if self.ratios.len() < TRIAL => None,
            State::Trial { .. } if ratio <= settings.bound * HEALTHY => {
                self.state = State::Sharing { since: now, high_since: None };
                Some(Change::Returned { ratio })
            }
            State::Trial { .. } => {
                self.evict(settings, now, ratio);
                Some(Change::Evicted { ratio })
            }
        }
    }

    fn evict(&mut self, settings: StragglerSettings, now: Moment, ratio: f64) {
        self.slower_by = ratio;
        let again = match self.state {
            State::Sharing { since, .. } => now.since(since) < self.away * SOON,
            State::Heard { shared_since, on_trial, .. } => {
                on_trial || now.since(shared_since) < self.away * SOON
            }
            State::Apart { .. } | State::Trial { .. } => true,
        };
        self.away = if again { 2 * self.away } else { settings.away };
        self.away = self.away.clamp(settings.away, settings.most_away.max(settings.away));
        // It keeps its place in time if it only stays: how long it was away is counted from when it left.
        let since = match self.state {
            State::Apart { since, .. } => since,
            State::Sharing { .. } | State::Trial { .. } | State::Heard { .. } => now,
        };
        self.state = State::Apart { since, until: now + self.away };
        self.ratios.clear();
        self.accusation.clear();
    }

    /// Whether costs should not learn from what it took: it has been slow lately, or is on trial for that.
    fn is_suspect(&self, settings: StragglerSettings) -> bool {
        match self.state {
            State::Apart { .. } | State::Trial { .. } | State::Heard { .. } => true,
            State::Sharing { .. } => {
                let lately = self.ratios.median_of_last(SUSPECT).unwrap_or_default();
                self.ratios.len() >= SUSPECT && lately > settings.bound
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAN: (PlanIx, NonZeroU32) = (PlanIx(0), NonZeroU32::MIN);
    const SLOW: TenantId = TenantId(0);

    /// A launch of four tenants every ten milliseconds, the first of whom takes so many times what the others take.
    struct Launches {
        stragglers: Stragglers,
        now: Moment,
    }

    impl Launches {
        fn new() -> Launches {
            Launches { stragglers: Stragglers::default(), now: Moment::START }
        }

        fn run(&mut self, factors: [f64; 4]) -> Vec<Happened> {
            self.now = self.now + Duration::from_millis(10);
            let settings = StragglerSettings::default();
            let mut told: Vec<Happened> =
                self.stragglers.came(settings, self.now, SLOW).into_iter().collect();
            let lane = |tenant: usize| LaneTime {
                tenant: TenantId(tenant as u64),
                items: 1,
                took: Duration::from_micros(100).mul_f64(factors[tenant]),
            };
            let together = !self.stragglers.is_apart(SLOW);
            if !together {
                told.extend(self.judge(&[lane(0)], false).changes);
            }
            let lanes: Vec<LaneTime> = (usize::from(!together)..4).map(lane).collect();
            told.extend(self.judge(&lanes, true).changes);
            told
        }

        fn judge(&mut self, lanes: &[LaneTime], shared: bool) -> Judged {
            self.stragglers.judge(StragglerSettings::default(), self.now, PLAN, lanes, shared)
        }

        fn for_seconds(&mut self, seconds: u32, factor: f64) -> Vec<(Moment, Happened)> {
            let launches = (0..100 * seconds).flat_map(|_| {
                let told = self.run([factor, 1.0, 1.0, 1.0]);
                let now = self.now;
                told.into_iter().map(move |what| (now, what))
            });
            launches.collect()
        }
    }

    #[test]
    fn who_is_slow_is_out_within_a_second_and_returns_when_well() {
        let mut launches = Launches::new();
        assert_eq!(launches.for_seconds(2, 1.0), []);
        let slow_since = launches.now;
        let told = launches.for_seconds(1, 5.0);
        let [(evicted, Happened::Evicted { ratio, .. })] = told[..] else { panic!("{told:?}") };
        assert!(evicted.since(slow_since) <= Duration::from_millis(500) && (ratio - 5.0).abs() < 0.01);
        let told = launches.for_seconds(4, 1.0);
        let kinds: Vec<&str> = told.iter().map(|(_, what)| what.kind()).collect();
        assert_eq!(kinds, ["probation", "returned"]);
        assert_eq!(launches.stragglers.pace(SLOW).standing, Standing::Sharing);
    }

    #[test]
    fn who_stays_slow_stays_away_for_longer_each_time() {
        let mut launches = Launches::new();
        let told = launches.for_seconds(70, 5.0);
        let evicted: Vec<Moment> = told
            .iter()
            .map(|(at, what)| {
                assert_eq!(what.kind(), "evicted");
                *at
            })
            .collect();
        let apart: Vec<u128> =
            evicted.windows(2).map(|pair| pair[1].since(pair[0]).as_millis() / 1000).collect();
        assert_eq!(apart, [2, 4, 8, 16, 32]);
    }

    #[test]
    fn costs_learn_a_launch_without_the_part_of_a_slow_lane() {
        let mut launches = Launches::new();
        let lane = |tenant, micros| LaneTime {
            tenant: TenantId(tenant),
            items: 1,
            took: Duration::from_micros(micros),
        };
        let lanes = [lane(0, 500), lane(1, 100), lane(2, 100), lane(3, 100)];
        let ordinary: Vec<f64> = (0..4).map(|_| launches.judge(&lanes, true).ordinary).collect();
        assert_eq!(ordinary, [1.0, 1.0, 0.5, 0.5], "of 800 microseconds 400 are too many");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        /// Noise of any size in up to a fifth of the lanes, and a third either way in all of them, brings nobody down.
        #[test]
        fn noise_evicts_nobody(seed in any::<u64>(), wild in 0.0f64..0.2, size in 1.0f64..50.0) {
            let mut launches = Launches::new();
            let mut state = seed | 1;
            let mut random = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 11) as f64 / (1u64 << 53) as f64
            };
            for _ in 0..2000 {
                let factors = std::array::from_fn(|_| {
                    let spread = 0.67 + 0.66 * random();
                    if random() < wild { spread * size } else { spread }
                });
                prop_assert_eq!(launches.run(factors), vec![]);
            }
        }
    }
}
