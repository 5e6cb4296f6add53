//! How much an owner may ask for: so many requests or items a second, and so many requests at once.
//!
//! ```text
//!   enter(now, owner, items) ─▶ at once < concurrency? ─▶ level ≥ cost? ─▶ Pass, given back by `leave` on every way out
//!                                                    level: ▁▂▄▆█ grows by `rate`, up to `burst`
//! ```
//! A token bucket in whole numbers: the level is kept in units so small that a nanosecond at the smallest rate is at least one of them, so nothing is rounded and between any two
//! moments no more than `rate · time + burst` is let in, exactly. What is refused costs nothing: an owner that knocks at ten times its rate gets its rate.
//!
//! A quota is an owner's, and an owner may have tenants on several devices. So quotas are counted once for all of them, before a request goes to any: this is a rule beside
//! [`crate::Scheduler`], which has one device, and whoever has several schedulers keeps one of these.

use crate::event::{Event, Events};
use crate::offer::Refusal;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::{IdMap, Moment, OwnerId, TenantId};

/// What is counted by a rate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Counted {
    /// Each request is one.
    #[default]
    Requests,
    /// Each request is as many as it has items.
    Items,
}

impl Counted {
    /// In words: `requests`, `items`.
    pub fn name(self) -> &'static str {
        match self {
            Counted::Requests => "requests",
            Counted::Items => "items",
        }
    }
}

/// So many a second, and so many at once after a rest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rate {
    /// What.
    pub counted: Counted,
    /// Thousandths of it a second: 1500 are three in two seconds.
    pub milli_per_s: NonZeroU32,
    /// The most that is let in at one moment.
    pub burst: NonZeroU32,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rate { counted, milli_per_s, burst } = self;
        write!(f, "{} {} a second, {burst} at once", f64::from(milli_per_s.get()) / 1e3, counted.name())
    }
}

/// What an owner may ask for; what is `None` is not limited.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Quota {
    /// Of what comes.
    pub rate: Option<Rate>,
    /// Requests let in and not left, of all the owner's tenants together.
    pub concurrency: Option<NonZeroU32>,
}

/// A request at the door.
#[derive(Clone, Copy, Debug)]
pub struct Knock {
    /// Whose.
    pub tenant: TenantId,
    /// Who pays for it.
    pub owner: OwnerId,
    /// Items it carries.
    pub items: NonZeroU32,
}

/// One of what is counted, in the level's units: a thousandth of it a second makes one unit a nanosecond.
const ONE: u128 = 1_000_000_000_000;

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    level: u128,
    /// When the level was that.
    at: Moment,
}

impl Bucket {
    fn full(rate: Rate, at: Moment) -> Bucket {
        Bucket { rate, level: ONE * u128::from(rate.burst.get()), at }
    }

    fn most(&self) -> u128 {
        ONE * u128::from(self.rate.burst.get())
    }

    fn fill(&mut self, now: Moment) {
        // Time that is not later fills nothing: two threads may have read the clock in another order than they come here.
        let gained = now.since(self.at).as_nanos() * u128::from(self.rate.milli_per_s.get());
        self.level = (self.level + gained).min(self.most());
        self.at = self.at.max(now);
    }

    /// Takes so many, or says how long until there are. `None` is never: it is more than a burst.
    fn take(&mut self, now: Moment, count: u32) -> Result<(), Option<Duration>> {
        self.fill(now);
        let cost = ONE * u128::from(count);
        if cost > self.most() {
            return Err(None);
        }
        let Some(left) = self.level.checked_sub(cost) else {
            let nanos = (cost - self.level).div_ceil(u128::from(self.rate.milli_per_s.get()));
            return Err(Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))));
        };
        self.level = left;
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Owner {
    quota: Quota,
    bucket: Option<Bucket>,
    /// Requests that came in and have not left.
    inside: u32,
}

/// What every owner may ask for, and has.
#[derive(Debug, Default)]
pub struct Quotas {
    owners: IdMap<OwnerId, Owner>,
    events: Events,
}

impl Quotas {
    /// From now on an owner may ask for so much. What it has inside stays there and counts. A rate that changed begins with a full burst, one that did not goes on.
    pub fn set(&mut self, now: Moment, owner: OwnerId, quota: Quota) {
        let entry = self.owners.entry(owner).or_default();
        if entry.quota.rate != quota.rate {
            entry.bucket = quota.rate.map(|rate| Bucket::full(rate, now));
        }
        entry.quota = quota;
    }

    /// Lets a request in, or says which quota is used up and when to come again. Every request let in must `leave`.
    pub fn enter(&mut self, now: Moment, knock: Knock) -> Result<(), Refusal> {
        let entered = self.owners.entry(knock.owner).or_default().enter(now, knock);
        if let Err(refusal) = &entered {
            self.events.refused(now, knock.tenant, knock.owner, refusal.clone());
        }
        entered
    }

    /// A request that was let in is over: answered, failed, expired, called off, or its tenant is gone.
    pub fn leave(&mut self, owner: OwnerId) {
        if let Some(entry) = self.owners.get_mut(&owner) {
            entry.inside = entry.inside.saturating_sub(1);
        }
    }

    /// Forgets an owner of whom nothing needs to be remembered: nobody is inside, and it could have a whole burst now, so that coming back gains it nothing. Says
    /// whether it is forgotten.
    pub fn forget(&mut self, now: Moment, owner: OwnerId) -> bool {
        let rested = self.owners.get_mut(&owner).is_none_or(|entry| entry.is_rested(now));
        if rested {
            self.owners.remove(&owner);
        }
        rested
    }

    /// Requests of an owner that are inside.
    pub fn inside(&self, owner: OwnerId) -> u32 {
        self.owners.get(&owner).map_or(0, |entry| entry.inside)
    }

    /// What was refused, gathered by tenant and reason as in [`crate::Scheduler::take_events`], and how many events were not told.
    pub fn take_events(&mut self, now: Moment) -> (Vec<Event>, u64) {
        self.events.take(now)
    }
}

impl Owner {
    fn is_rested(&mut self, now: Moment) -> bool {
        let is_full = |bucket: &mut Bucket| {
            bucket.fill(now);
            bucket.level == bucket.most()
        };
        self.inside == 0 && self.bucket.as_mut().is_none_or(is_full)
    }

    fn enter(&mut self, now: Moment, knock: Knock) -> Result<(), Refusal> {
        // First what costs nothing to find out: a request that finds no place must not use up the rate.
        if let Some(limit) = self.quota.concurrency.filter(|limit| self.inside >= limit.get()) {
            return Err(Refusal::OverConcurrency { owner: knock.owner, inside: self.inside, limit });
        }
        if let Some(bucket) = &mut self.bucket {
            let asks = match bucket.rate.counted {
                Counted::Requests => NonZeroU32::MIN,
                Counted::Items => knock.items,
            };
            bucket.take(now, asks.get()).map_err(|retry| Refusal::OverRate {
                owner: knock.owner,
                rate: bucket.rate,
                asks,
                retry,
            })?;
        }
        self.inside += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWNER: OwnerId = OwnerId(3);

    fn count(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    fn at(ms: u64) -> Moment {
        Moment::at(Duration::from_millis(ms))
    }

    fn knock(items: u32) -> Knock {
        Knock { tenant: TenantId(1), owner: OWNER, items: count(items) }
    }

    fn quotas(rate: Option<(Counted, u32, u32)>, concurrency: Option<u32>) -> Quotas {
        let rate = rate.map(|(counted, milli, burst)| Rate {
            counted,
            milli_per_s: count(milli),
            burst: count(burst),
        });
        let mut quotas = Quotas::default();
        quotas.set(Moment::START, OWNER, Quota { rate, concurrency: concurrency.map(count) });
        quotas
    }

    fn retry(refused: Result<(), Refusal>) -> Option<Duration> {
        match refused.unwrap_err() {
            Refusal::OverRate { retry, .. } => retry,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn an_owner_without_a_quota_is_never_refused() {
        let mut quotas = Quotas::default();
        assert!((0..10_000).all(|_| quotas.enter(at(0), knock(99)).is_ok()));
    }

    #[test]
    fn a_refusal_says_to_the_nanosecond_when_to_come_again() {
        let mut quotas = quotas(Some((Counted::Requests, 3000, 2)), None);
        assert!(
            (0..2).all(|_| quotas.enter(at(0), knock(50)).is_ok()),
            "a burst of two, whatever their items"
        );
        let wait = retry(quotas.enter(at(0), knock(1))).unwrap();
        assert_eq!(wait, Duration::from_nanos(333_333_334));
        let then = Moment(wait.as_nanos() as u64);
        assert!(quotas.enter(Moment(then.0 - 1), knock(1)).is_err());
        assert!(quotas.enter(then, knock(1)).is_ok());
    }

    #[test]
    fn items_are_counted_where_the_rate_is_one_of_items_and_more_than_a_burst_never_fits() {
        let mut quotas = quotas(Some((Counted::Items, 10_000, 8)), None);
        assert!(quotas.enter(at(0), knock(8)).is_ok());
        assert_eq!(retry(quotas.enter(at(0), knock(4))), Some(Duration::from_millis(400)));
        assert_eq!(retry(quotas.enter(at(9000), knock(9))), None);
        assert!(quotas.enter(at(9000), knock(8)).is_ok(), "what never fits took nothing");
    }

    #[test]
    fn a_place_is_free_again_when_somebody_left() {
        let mut quotas = quotas(None, Some(2));
        assert!((0..2).all(|_| quotas.enter(at(0), knock(1)).is_ok()));
        let full = Refusal::OverConcurrency { owner: OWNER, inside: 2, limit: count(2) };
        assert_eq!(quotas.enter(at(0), knock(1)), Err(full));
        quotas.leave(OWNER);
        assert!(quotas.enter(at(0), knock(1)).is_ok());
    }

    #[test]
    fn a_quota_set_again_unchanged_gives_no_second_burst() {
        let mut quotas = quotas(Some((Counted::Requests, 1, 1)), None);
        quotas.enter(at(0), knock(1)).unwrap();
        let same = Rate { counted: Counted::Requests, milli_per_s: count(1), burst: count(1) };
        quotas.set(at(1), OWNER, Quota { rate: Some(same), concurrency: Some(count(7)) });
        assert!(quotas.enter(at(1), knock(1)).is_err());
    }

    #[test]
    fn an_owner_is_forgotten_once_that_would_bring_it_no_new_burst() {
        let mut quotas = quotas(Some((Counted::Requests, 1000, 2)), None);
        (0..2).for_each(|_| quotas.enter(at(0), knock(1)).unwrap());
        assert!(!quotas.forget(at(9000), OWNER), "two are inside");
        (0..2).for_each(|_| quotas.leave(OWNER));
        quotas.enter(at(9000), knock(1)).unwrap();
        quotas.leave(OWNER);
        assert!(!quotas.forget(at(9999), OWNER), "a millisecond more makes the burst whole");
        assert!(quotas.forget(at(10_000), OWNER));
        assert!(quotas.forget(at(10_000), OwnerId(77)), "nobody is remembered who never came");
        assert!(quotas.owners.is_empty());
    }

    #[test]
    fn refusals_are_events_and_many_are_one() {
        let mut quotas = quotas(None, Some(1));
        (0..100).for_each(|_| _ = quotas.enter(at(0), knock(1)));
        assert_eq!(quotas.take_events(at(0)).0.len(), 1);
        assert_eq!(quotas.take_events(at(1000)).0.len(), 1);
    }

    proptest! {
        /// Between any two moments no more is let in than the rate makes meanwhile and one burst; the number inside is what came in less what
        /// left, and never above the bound; who comes when it was told to is let in.
        #[test]
        fn no_more_is_let_in_than_agreed(
            milli in 1u32..5_000_000,
            burst in 1u32..20,
            limit in 1u32..6,
            of_items in any::<bool>(),
            steps in prop::collection::vec((0u64..50_000_000, 1u32..8, any::<bool>()), 1..200),
        ) {
            let counted = if of_items { Counted::Items } else { Counted::Requests };
            let mut quotas = quotas(Some((counted, milli, burst)), Some(limit));
            let (mut now, mut inside, mut taken) = (Moment::START, 0u32, Vec::new());
            for (pause, items, leaves) in steps {
                now = now + Duration::from_nanos(pause);
                if leaves && inside > 0 {
                    quotas.leave(OWNER);
                    inside -= 1;
                }
                match quotas.enter(now, knock(items)) {
                    Ok(()) => {
                        inside += 1;
                        taken.push((now, if of_items { items } else { 1 }));
                    }
                    Err(Refusal::OverRate { retry: Some(retry), .. }) => {
                        now = now + retry;
                        prop_assert!(quotas.enter(now, knock(items)).is_ok(), "it came when it was told to");
                        inside += 1;
                        taken.push((now, if of_items { items } else { 1 }));
                    }
                    Err(Refusal::OverRate { retry: None, .. }) => prop_assert!(of_items && items > burst),
                    Err(Refusal::OverConcurrency { .. }) => prop_assert_eq!(inside, limit),
                    Err(other) => prop_assert!(false, "{}", other),
                }
                prop_assert!(inside <= limit && quotas.inside(OWNER) == inside);
            }
            for (index, (from, _)) in taken.iter().enumerate() {
                let mut sum = 0u128;
                for (to, count) in &taken[index..] {
                    sum += u128::from(*count) * ONE;
                    let made = u128::from(to.0 - from.0) * u128::from(milli);
                    prop_assert!(sum <= made + u128::from(burst) * ONE);
                }
            }
        }
    }
}
