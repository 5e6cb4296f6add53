//! The fair order of waiting requests: who is next when owners count before urgency.
//!
//!   by owner, least virtual time first        ─▶ that owner's most urgent request      (who leads a launch)
//!   by plan: owners, least virtual time first ─▶ the same within the plan              (who fills it)
//!
//! A request is *urgent* from the moment its patience ends, or from its latest start where it has a deadline; a
//! tenant's later request of the same plan is never more urgent than its earlier, so their order is kept.

use crate::fairness::VirtualTime;
use crate::plans::PlanIx;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use tessera_core::{IdMap, Moment, OwnerId, RequestId, TenantId};

/// Where a loose request stands: urgency, then arrival.
type Key = (Moment, u64, RequestId);

/// Whose request it is and what it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose {
    pub(crate) owner: OwnerId,
    pub(crate) tenant: TenantId,
    pub(crate) plan: PlanIx,
}

#[derive(Debug, Default)]
pub(crate) struct Loose {
    shelves: BTreeMap<(OwnerId, PlanIx), BTreeSet<Key>>,
    /// Every request of an owner, whatever it runs.
    of_owner: IdMap<OwnerId, BTreeSet<Key>>,
    owners: BTreeSet<(VirtualTime, OwnerId)>,
    plans: BTreeMap<PlanIx, BTreeSet<(VirtualTime, OwnerId)>>,
    /// How many loose requests a tenant has of a plan, and how urgent the last is.
    flows: IdMap<(TenantId, PlanIx), (u32, Moment)>,
}

impl Loose {
    /// Puts a request in; returns the urgency it got, to be passed to `remove`.
    pub(crate) fn insert(&mut self, whose: Whose, (urgency, seq, request): Key, v: VirtualTime) -> Moment {
        let flow = self.flows.entry((whose.tenant, whose.plan)).or_insert((0, urgency));
        *flow = (flow.0 + 1, flow.1.max(urgency));
        let key = (flow.1, seq, request);
        self.shelves.entry((whose.owner, whose.plan)).or_default().insert(key);
        self.of_owner.entry(whose.owner).or_default().insert(key);
        self.owners.insert((v, whose.owner));
        self.plans.entry(whose.plan).or_default().insert((v, whose.owner));
        key.0
    }

    pub(crate) fn remove(&mut self, whose: Whose, key: Key, v: VirtualTime) {
        let flow = self.flows.get_mut(&(whose.tenant, whose.plan)).expect("a loose request is in a flow");
        flow.0 -= 1;
        if flow.0 == 0 {
            self.flows.remove(&(whose.tenant, whose.plan));
        }
        let all = self.of_owner.get_mut(&whose.owner).expect("a loose request is with its owner");
        all.remove(&key);
        if all.is_empty() {
            self.of_owner.remove(&whose.owner);
            self.owners.remove(&(v, whose.owner));
        }
        let shelf = self.shelves.get_mut(&(whose.owner, whose.plan)).expect("a loose request is on a shelf");
        shelf.remove(&key);
        if !shelf.is_empty() {
            return;
        }
        self.shelves.remove(&(whose.owner, whose.plan));
        let plan = self.plans.get_mut(&whose.plan).expect("a shelf's plan is listed");
        plan.remove(&(v, whose.owner));
        if plan.is_empty() {
            self.plans.remove(&whose.plan);
        }
    }

    /// The owner's virtual time moved.
    pub(crate) fn moved(&mut self, owner: OwnerId, from: VirtualTime, to: VirtualTime) {
        if self.owners.remove(&(from, owner)) {
            self.owners.insert((to, owner));
            let listed: Vec<PlanIx> = self.plans_of(owner).collect();
            for plan in listed {
                let owners = self.plans.get_mut(&plan).expect("a shelf's plan is listed");
                owners.remove(&(from, owner));
                owners.insert((to, owner));
            }
        }
    }

    /// The next request by fairness: the most urgent of the owner that has had least.
    pub(crate) fn next(&self) -> Option<RequestId> {
        let &(_, owner) = self.owners.first()?;
        self.of_owner.get(&owner)?.first().map(|key| key.2)
    }

    /// The next request by fairness of the plans that `of` names; a look at every plan.
    pub(crate) fn next_of(&self, of: impl Fn(PlanIx) -> bool) -> Option<RequestId> {
        let firsts = self.plans.iter().filter(|(plan, _)| of(**plan));
        let next = firsts.filter_map(|(plan, owners)| Some((owners.first()?, *plan))).min()?;
        self.shelves.get(&(next.0.1, next.1))?.first().map(|key| key.2)
    }

    /// A plan's requests by fairness. Each one taken moves its owner on by what `step` says it costs.
    pub(crate) fn of_plan<'a>(
        &'a self,
        plan: PlanIx,
        step: impl Fn(OwnerId, RequestId) -> VirtualTime + 'a,
    ) -> impl Iterator<Item = RequestId> + 'a {
        let mut fresh = self.plans.get(&plan).into_iter().flatten().copied().peekable();
        let mut again: BinaryHeap<Reverse<(VirtualTime, OwnerId)>> = BinaryHeap::new();
        let mut shelves: BTreeMap<OwnerId, std::collections::btree_set::Iter<'a, Key>> = BTreeMap::new();
        std::iter::from_fn(move || {
            loop {
                let back = again.peek().map(|Reverse(entry)| *entry);
                let (v, owner) = match (fresh.peek().copied(), back) {
                    (Some(first), Some(second)) if second < first => again.pop()?.0,
                    (Some(_), _) => fresh.next()?,
                    (None, Some(_)) => again.pop()?.0,
                    (None, None) => return None,
                };
                let shelf = shelves.entry(owner).or_insert_with(|| self.shelves[&(owner, plan)].iter());
                if let Some(&(_, _, request)) = shelf.next() {
                    again.push(Reverse((v + step(owner, request), owner)));
                    return Some(request);
                }
            }
        })
    }

    fn plans_of(&self, owner: OwnerId) -> impl Iterator<Item = PlanIx> {
        let shelves = self.shelves.range((owner, PlanIx(0))..=(owner, PlanIx(u32::MAX)));
        shelves.map(|((_, plan), _)| *plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: PlanIx = PlanIx(0);

    fn whose(owner: u64) -> Whose {
        Whose { owner: OwnerId(owner), tenant: TenantId(owner), plan: PLAN }
    }

    fn key(urgency: u64, request: u64) -> Key {
        (Moment(urgency), request, RequestId(request))
    }

    #[test]
    fn the_owner_that_had_least_is_next_whoever_came_first() {
        let mut loose = Loose::default();
        loose.insert(whose(1), key(1, 1), 50);
        loose.insert(whose(2), key(9, 2), 40);
        assert_eq!(loose.next(), Some(RequestId(2)));
        loose.moved(OwnerId(2), 40, 60);
        assert_eq!(loose.next(), Some(RequestId(1)));
    }

    #[test]
    fn a_launch_is_filled_from_the_owners_in_turn() {
        let mut loose = Loose::default();
        for request in 1..=4 {
            loose.insert(whose(1), key(request, request), 0);
        }
        loose.insert(whose(2), key(5, 5), 0);
        loose.insert(whose(3), key(6, 6), 15);
        let order: Vec<u64> = loose.of_plan(PLAN, |_, _| 10).map(|request| request.0).collect();
        assert_eq!(order, [1, 5, 2, 6, 3, 4]);
    }

    #[test]
    fn a_later_request_of_a_tenant_is_never_more_urgent_than_its_earlier() {
        let mut loose = Loose::default();
        loose.insert(whose(1), key(100, 1), 0);
        let urgency = loose.insert(whose(1), key(5, 2), 0);
        assert_eq!(urgency, Moment(100));
        assert_eq!(loose.next(), Some(RequestId(1)));
    }

    #[test]
    fn what_is_removed_leaves_nothing_behind() {
        let mut loose = Loose::default();
        let urgency = loose.insert(whose(1), key(1, 1), 7);
        loose.remove(whose(1), (urgency, 1, RequestId(1)), 7);
        assert!(loose.owners.is_empty() && loose.plans.is_empty() && loose.flows.is_empty());
        assert!(loose.shelves.is_empty() && loose.of_owner.is_empty());
    }
}
