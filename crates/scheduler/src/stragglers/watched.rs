//! One tenant that is watched, and what its samples make of its standing.

use super::lately::Lately;
use super::presence::Accusation;
use super::window::Window;
use super::{Standing, StragglerSettings};
use crate::event::Happened;
use std::time::Duration;
use tessera_core::{Moment, TenantId};

/// Fewest samples that a tenant is judged by.
pub(super) const LEAST: usize = 8;

/// Samples that decide a trial, by their median.
pub(super) const TRIAL: usize = 5;

/// Samples that make a tenant suspect, by their median.
const SUSPECT: usize = 3;

/// Part of the bound that a tenant on probation must stay within.
pub(super) const HEALTHY: f64 = 0.75;

/// An eviction within so many times the last time apart after the return counts as the same trouble.
pub(super) const SOON: u32 = 8;

/// Where it stands, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    Sharing { since: Moment, high_since: Option<Moment> },
    Apart { since: Moment, until: Moment },
    Trial { launches: u32 },
    Heard { since: Moment, last: Moment, shared_since: Moment, on_trial: bool },
}

/// What is known of it.
#[derive(Debug)]
pub(super) struct Watched {
    /// What its lanes took over what its neighbours' did.
    pub(super) ratios: Window,
    pub(super) state: State,
    pub(super) accusation: Accusation,
    /// Its launches of late.
    pub(super) lately: Lately,
    /// How long it was apart last, zero if it never was.
    pub(super) away: Duration,
    /// What it was evicted for.
    pub(super) slower_by: f64,
}

/// What a sample made of a tenant's standing.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Change {
    Evicted { ratio: f64 },
    Returned { ratio: f64 },
    Acquitted { ratio: f64 },
}

impl Watched {
    pub(super) fn new(now: Moment) -> Watched {
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

    pub(super) fn standing(&self) -> Standing {
        match self.state {
            State::Sharing { .. } => Standing::Sharing,
            State::Apart { .. } => Standing::Apart,
            State::Trial { .. } => Standing::OnProbation,
            State::Heard { .. } => Standing::Heard,
        }
    }

    /// See [`super::Stragglers::slower_by`].
    pub(super) fn slower_by(&self) -> Option<f64> {
        match self.state {
            State::Apart { .. } => Some(self.slower_by),
            State::Heard { .. } => Some(1.0),
            State::Sharing { .. } | State::Trial { .. } => None,
        }
    }

    /// Takes one more ratio in.
    pub(super) fn sample(&mut self, settings: StragglerSettings, now: Moment, ratio: f64) -> Option<Change> {
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

    /// See [`super::Stragglers::came`].
    pub(super) fn came(
        &mut self,
        settings: StragglerSettings,
        now: Moment,
        tenant: TenantId,
    ) -> Option<Happened> {
        let State::Apart { since, until } = self.state else { return None };
        if now < until {
            return None;
        }
        let bound = settings.bound;
        // Of a few launches that it had alone one or two may tell little.
        let alone = self.ratios.median_of_last(TRIAL).filter(|_| self.ratios.len() >= SUSPECT);
        if let Some(ratio) = alone.filter(|ratio| *ratio > bound) {
            self.evict(settings, now, ratio);
            return Some(Happened::Evicted { tenant, ratio, bound });
        }
        self.state = State::Trial { launches: 0 };
        self.slower_by = alone.unwrap_or(1.0);
        self.accusation.clear();
        self.ratios.clear();
        Some(Happened::Probation { tenant, away: now.since(since) })
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
    pub(super) fn is_suspect(&self, settings: StragglerSettings) -> bool {
        match self.state {
            State::Apart { .. } | State::Trial { .. } | State::Heard { .. } => true,
            State::Sharing { .. } => {
                let lately = self.ratios.median_of_last(SUSPECT).unwrap_or_default();
                self.ratios.len() >= SUSPECT && lately > settings.bound
            }
        }
    }
}
