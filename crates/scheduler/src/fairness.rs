//! Device time between owners, in proportion to their shares.
//!
//!   owner A (share 1)  v ─────────▶ 40      the owner with work and the smallest v is served next;
//!   owner B (share 2)  v ─────▶ 25          time on the device moves v on by time ÷ share
//!
//! Every owner has a *virtual time*: device time received over its share. Launches are charged to the owners in
//! them (`bills`) by items, as predicted when they start and corrected when they end.
//!
//! Bound: between two moments at which both owners had work waiting all the while and were chosen by virtual
//! time, the device time over share of any two differs by at most the longest launch over the smaller share
//! (start-time fair queueing, Goyal et al. 1996). Who returns from idleness starts at the least virtual time of
//! those at work: time not used is not saved up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tessera_core::{IdMap, Moment, OwnerId, TenantId};

/// Nanoseconds of device time over share, in millionths: 128 bits never run out.
pub(crate) type VirtualTime = u128;

/// Where an owner stands between others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) v: VirtualTime,
    /// By how much less than another's time its own counts.
    pub(crate) weight: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Owners {
    owners: IdMap<OwnerId, Owner>,
    /// Owners with work queued or in flight.
    at_work: BTreeSet<(VirtualTime, OwnerId)>,
    /// The same by virtual time with what is planned for them.
    planned: BTreeSet<(VirtualTime, OwnerId)>,
    /// Owners that were refused for want of time, and until when they count as at work for it.
    wanting: BTreeSet<(Moment, OwnerId)>,
    /// The least virtual time of those at work, kept while nobody is. Never falls.
    floor: VirtualTime,
}

#[derive(Debug, Default)]
struct Owner {
    v: VirtualTime,
    /// Shares in thousandths.
    shares: BTreeMap<TenantId, u64>,
    /// The largest of the shares.
    weight: u64,
    /// Requests queued or in flight, and one while it is wanting.
    work: u64,
    wants_until: Option<Moment>,
    served: Duration,
    /// Device time planned for it and not yet charged.
    committed: Duration,
}

impl Owner {
    /// Virtual time when everything planned for it is done.
    fn planned(&self) -> VirtualTime {
        self.v + distance(self.weight, self.committed)
    }
}

/// How far time on the device moves an owner of this weight on.
pub(crate) fn distance(weight: u64, time: Duration) -> VirtualTime {
    let (time, weight) = (time.as_nanos(), weight.max(1));
    // For hours it fits into 64 bits, whose division is many times quicker.
    let millionths = u64::try_from(time).ok().and_then(|time| time.checked_mul(1_000_000));
    millionths
        .map_or_else(|| time * 1_000_000 / u128::from(weight), |millionths| u128::from(millionths / weight))
}

impl Owners {
    pub(crate) fn tenant_added(&mut self, owner: OwnerId, tenant: TenantId, share: f64) {
        let share = if share.is_nan() { 1.0 } else { share.clamp(0.001, 1000.0) };
        let entry = self.owners.entry(owner).or_default();
        entry.shares.insert(tenant, (share * 1000.0).round() as u64);
        self.weigh(owner);
    }

    pub(crate) fn tenant_removed(&mut self, owner: OwnerId, tenant: TenantId) {
        if let Some(entry) = self.owners.get_mut(&owner) {
            entry.shares.remove(&tenant);
            self.weigh(owner);
            self.drop_if_gone(owner);
        }
    }

    fn weigh(&mut self, owner: OwnerId) {
        let at_work = self.unlist(owner);
        let entry = self.get(owner);
        let before = entry.weight;
        // What is in flight of an owner without tenants is still charged, at its last weight.
        entry.weight = entry.shares.values().copied().max().unwrap_or(before);
        if at_work {
            self.list(owner);
        }
    }

    /// An owner with neither tenants nor work is forgotten.
    fn drop_if_gone(&mut self, owner: OwnerId) {
        let gone = self.owners.get(&owner).is_some_and(|entry| entry.shares.is_empty() && entry.work == 0);
        if gone {
            self.owners.remove(&owner);
        }
    }

    pub(crate) fn work_came(&mut self, owner: OwnerId) {
        let floor = self.floor;
        let entry = self.get(owner);
        entry.work += 1;
        if entry.work == 1 {
            entry.v = entry.v.max(floor);
            self.list(owner);
        }
    }

    /// So many of its requests are over.
    pub(crate) fn work_left(&mut self, owner: OwnerId, requests: u64) {
        let entry = self.get(owner);
        entry.work -= requests;
        if entry.work == 0 {
            let v = entry.v;
            self.unlist(owner);
            self.raise_floor(v);
            self.drop_if_gone(owner);
        }
    }

    /// An owner found no time for a request. Until then it counts as at work: who is refused everything would otherwise not be seen to have had less
    /// than others.
    pub(crate) fn wants(&mut self, owner: OwnerId, until: Moment) {
        match self.get(owner).wants_until {
            Some(before) => _ = self.wanting.remove(&(before, owner)),
            None => self.work_came(owner),
        }
        let until = self.get(owner).wants_until.map_or(until, |before| before.max(until));
        self.get(owner).wants_until = Some(until);
        self.wanting.insert((until, owner));
    }

    /// Time passed: whoever wanted until now does not any more.
    pub(crate) fn advance(&mut self, now: Moment) {
        while let Some(&(until, owner)) = self.wanting.first().filter(|(until, _)| *until <= now) {
            self.wanting.remove(&(until, owner));
            self.get(owner).wants_until = None;
            self.work_left(owner, 1);
        }
    }

    fn list(&mut self, owner: OwnerId) {
        let entry = self.get(owner);
        let (v, planned) = (entry.v, entry.planned());
        self.at_work.insert((v, owner));
        self.planned.insert((planned, owner));
    }

    /// Says whether it was at work.
    fn unlist(&mut self, owner: OwnerId) -> bool {
        let entry = self.get(owner);
        let (v, planned) = (entry.v, entry.planned());
        self.planned.remove(&(planned, owner));
        self.at_work.remove(&(v, owner))
    }

    fn raise_floor(&mut self, last: VirtualTime) {
        self.floor = self.floor.max(self.at_work.first().map_or(last, |&(v, _)| v));
    }

    pub(crate) fn virtual_time(&self, owner: OwnerId) -> VirtualTime {
        self.owners.get(&owner).map_or(0, |entry| entry.v)
    }

    /// Where an owner stands between others.
    pub(crate) fn standing(&self, owner: OwnerId) -> Standing {
        let entry = self.owners.get(&owner);
        entry.map_or(Standing { v: 0, weight: 1 }, |entry| Standing { v: entry.v, weight: entry.weight })
    }

    /// Moves an owner at work on by `gain`, or back by `loss`: a prediction is charged first and corrected later.
    pub(crate) fn charge(&mut self, owner: OwnerId, gain: Duration, loss: Duration) -> VirtualTime {
        let weight = self.standing(owner).weight;
        let (gain_v, loss_v) = (distance(weight, gain), distance(weight, loss));
        let at_work = self.unlist(owner);
        let entry = self.get(owner);
        entry.v = (entry.v + gain_v).saturating_sub(loss_v);
        entry.served = (entry.served + gain).saturating_sub(loss);
        let after = entry.v;
        if at_work {
            self.list(owner);
            self.raise_floor(after);
        }
        after
    }

    /// Device time that is planned for an owner counts against it from now on; `settle` ends that.
    pub(crate) fn commit(&mut self, owner: OwnerId, time: Duration) {
        self.plan(owner, |committed| committed + time);
    }

    /// What was committed is charged now, or will not be used.
    pub(crate) fn settle(&mut self, owner: OwnerId, time: Duration) {
        self.plan(owner, |committed| committed.saturating_sub(time));
    }

    fn plan(&mut self, owner: OwnerId, change: impl FnOnce(Duration) -> Duration) {
        let at_work = self.unlist(owner);
        let entry = self.get(owner);
        entry.committed = change(entry.committed);
        if at_work {
            self.list(owner);
        }
    }

    /// How much more device time than the owner at work that has least an owner has, had and planned; in its own time. Zero where it is the only one
    /// with tenants.
    pub(crate) fn ahead(&self, owner: OwnerId) -> Duration {
        let Some(entry) = self.owners.get(&owner).filter(|_| self.owners.len() > 1) else {
            return Duration::ZERO;
        };
        let least = self.planned.first().map_or(self.floor, |&(planned, _)| planned);
        let ahead = entry.planned().saturating_sub(least) * u128::from(entry.weight.max(1)) / 1_000_000;
        Duration::from_nanos(u64::try_from(ahead).unwrap_or(u64::MAX))
    }

    /// Device time charged so far.
    pub(crate) fn served(&self, owner: OwnerId) -> Duration {
        self.owners.get(&owner).map_or(Duration::ZERO, |entry| entry.served)
    }

    fn get(&mut self, owner: OwnerId) -> &mut Owner {
        self.owners.get_mut(&owner).expect("an owner with tenants or work is kept")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: OwnerId = OwnerId(1);
    const B: OwnerId = OwnerId(2);
    const MS: Duration = Duration::from_millis(1);

    fn two_owners() -> Owners {
        let mut owners = Owners::default();
        owners.tenant_added(A, TenantId(1), 1.0);
        owners.tenant_added(B, TenantId(2), 4.0);
        owners
    }

    #[test]
    fn the_same_time_moves_a_larger_share_less() {
        let mut owners = two_owners();
        owners.work_came(A);
        owners.work_came(B);
        assert_eq!(owners.charge(A, MS, Duration::ZERO), 4 * owners.charge(B, MS, Duration::ZERO));
    }

    #[test]
    fn time_not_used_is_not_saved_up() {
        let mut owners = two_owners();
        owners.work_came(A);
        owners.charge(A, 100 * MS, Duration::ZERO);
        owners.work_came(B);
        assert_eq!(owners.virtual_time(B), owners.virtual_time(A));
    }

    #[test]
    fn an_owner_without_tenants_is_kept_until_its_work_is_done() {
        let mut owners = two_owners();
        owners.work_came(A);
        owners.tenant_removed(A, TenantId(1));
        owners.charge(A, MS, Duration::ZERO);
        assert_eq!(owners.served(A), MS);
        owners.work_left(A, 1);
        assert_eq!(owners.served(A), Duration::ZERO);
    }
}
