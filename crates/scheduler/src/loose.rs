//! The fair order of waiting requests: who is next when owners count before urgency.
//!
//!   by owner, least virtual time first        ─▶ that owner's most urgent request      (who leads a launch)
//!   by plan: owners, least virtual time first ─▶ the same within the plan              (who fills it)
//!
//! A request is *urgent* from the moment its patience ends, or from its latest start where it has a deadline; a
//! tenant's later request of the same plan is never more urgent than its earlier (`flows`), so their order is kept.

use crate::fairness::{Standing, VirtualTime};
use crate::plans::PlanIx;
use crate::queues::{Key, Ticket};
use crate::shelf::{Keys, Shelf};
use crate::slab::Slab;
use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::num::NonZeroU32;
use tessera_core::{IdMap, OwnerId};

/// Whose request it is and what it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose {
    pub(crate) owner: OwnerId,
    pub(crate) plan: PlanIx,
}

#[derive(Debug, Default)]
pub(crate) struct Loose {
    /// One owner's requests of one plan.
    shelves: Slab<Shelf>,
    of_owner: IdMap<OwnerId, OfOwner>,
    owners: BTreeSet<(VirtualTime, OwnerId)>,
    /// Whose requests there are of a plan.
    plans: Plans,
}

#[derive(Debug, Default)]
struct OfOwner {
    /// In order of plans; mostly one, or few.
    shelves: Vec<OfPlan>,
}

/// An owner's shelf of one plan.
#[derive(Clone, Copy, Debug)]
struct OfPlan {
    plan: PlanIx,
    place: u32,
    first: Key,
}

impl OfOwner {
    fn find(&self, plan: PlanIx) -> Result<usize, usize> {
        self.shelves.binary_search_by_key(&plan, |shelf| shelf.plan)
    }
}

/// A shelf as its plan lists it: what must be known to take the first request off it.
#[derive(Clone, Copy, Debug)]
struct Listed {
    place: u32,
    /// The owner's.
    weight: u64,
    first: Key,
}

impl Loose {
    pub(crate) fn insert(&mut self, whose: Whose, key: Key, Standing { v, weight }: Standing) {
        let Whose { owner, plan } = whose;
        let of_owner = self.of_owner.entry(owner).or_default();
        if of_owner.shelves.is_empty() {
            self.owners.insert((v, owner));
        }
        match of_owner.find(plan) {
            Ok(at) => {
                let OfPlan { place, first, .. } = &mut of_owner.shelves[at];
                let requests = self.shelves.get_mut(*place).expect("a listed shelf is kept");
                requests.insert(key);
                if key < *first {
                    *first = key;
                    listed(&mut self.plans, plan, (v, owner)).first = key;
                }
            }
            Err(at) => {
                let mut requests = Shelf::default();
                requests.insert(key);
                let place = self.shelves.insert(requests);
                of_owner.shelves.insert(at, OfPlan { plan, place, first: key });
                let shelf = Listed { place, weight, first: key };
                self.plans.entry(plan).or_default().insert((v, owner), shelf);
            }
        }
    }

    pub(crate) fn remove(&mut self, whose: Whose, key: Key, v: VirtualTime) {
        let Whose { owner, plan } = whose;
        let of_owner = self.of_owner.get_mut(&owner).expect("a loose request is with its owner");
        let at = of_owner.find(plan).expect("a loose request is on a shelf");
        let place = of_owner.shelves[at].place;
        let requests = self.shelves.get_mut(place).expect("a listed shelf is kept");
        requests.remove(key);
        match requests.first() {
            Some(first) if first > key => {
                of_owner.shelves[at].first = first;
                listed(&mut self.plans, plan, (v, owner)).first = first;
            }
            Some(_) => {}
            None => {
                self.shelves.remove(place);
                of_owner.shelves.remove(at);
                let owners = self.plans.get_mut(&plan).expect("a shelf's plan is listed");
                owners.remove(&(v, owner));
                if owners.is_empty() {
                    self.plans.remove(&plan);
                }
            }
        }
        if of_owner.shelves.is_empty() {
            self.of_owner.remove(&owner);
            self.owners.remove(&(v, owner));
        }
    }

    /// The owner's virtual time moved.
    pub(crate) fn moved(&mut self, owner: OwnerId, from: VirtualTime, to: VirtualTime) {
        let Some(of_owner) = self.of_owner.get(&owner) else { return };
        if from == to {
            return;
        }
        self.owners.remove(&(from, owner));
        self.owners.insert((to, owner));
        for OfPlan { plan, .. } in &of_owner.shelves {
            let owners = self.plans.get_mut(plan).expect("a shelf's plan is listed");
            let shelf = owners.remove(&(from, owner)).expect("a shelf is listed");
            owners.insert((to, owner), shelf);
        }
    }

    /// The owner's weight may have changed.
    pub(crate) fn weighed(&mut self, owner: OwnerId, Standing { v, weight }: Standing) {
        let Some(of_owner) = self.of_owner.get(&owner) else { return };
        for OfPlan { plan, .. } in &of_owner.shelves {
            listed(&mut self.plans, *plan, (v, owner)).weight = weight;
        }
    }

    /// The next request by fairness: the most urgent of the owner that has had least. A look at every plan that it has requests of.
    pub(crate) fn next(&self) -> Option<Ticket> {
        let &(_, owner) = self.owners.first()?;
        self.of_owner.get(&owner)?.shelves.iter().map(|shelf| shelf.first).min().map(|key| key.rider.ticket)
    }

    /// The next request by fairness of the plans that `of` names; a look at every plan.
    pub(crate) fn next_of(&self, of: impl Fn(PlanIx) -> bool) -> Option<Ticket> {
        let firsts = self.plans.iter().filter(|(plan, _)| of(**plan));
        let firsts = firsts.filter_map(|(plan, owners)| Some((owners.first_key_value()?, *plan)));
        let ((_, shelf), _) = firsts.min_by_key(|((owner, _), plan)| (**owner, *plan))?;
        Some(shelf.first.rider.ticket)
    }

    /// A plan's requests by fairness. Each one taken moves its owner, of some weight, on by what `step` says that so many items cost.
    pub(crate) fn of_plan<'a>(
        &'a self,
        plan: PlanIx,
        mut step: impl FnMut(u64, NonZeroU32) -> VirtualTime + 'a,
    ) -> impl Iterator<Item = Key> + 'a {
        let mut fresh = self.plans.get(&plan).into_iter().flatten().peekable();
        // Owners that were asked before, by their place in `taken`. No two are equal, so the place decides nothing.
        let mut again: BinaryHeap<Reverse<(VirtualTime, OwnerId, u32)>> = BinaryHeap::new();
        let mut taken: Vec<(Listed, Option<u32>)> = Vec::new();
        let mut rests: Vec<Keys<'a>> = Vec::new();
        std::iter::from_fn(move || {
            loop {
                let asked = again.peek().map(|Reverse((v, owner, _))| (*v, *owner));
                if let Some(((v, owner), shelf)) =
                    fresh.next_if(|((v, owner), _)| asked.is_none_or(|asked| (*v, *owner) < asked))
                {
                    let next = v + step(shelf.weight, shelf.first.rider.items);
                    again.push(Reverse((next, *owner, taken.len() as u32)));
                    taken.push((*shelf, None));
                    return Some(shelf.first);
                }
                let mut back = again.peek_mut()?;
                let (shelf, rest) = &mut taken[back.0.2 as usize];
                let rest = match rest {
                    Some(rest) => rest,
                    // The first was taken as the plan lists it.
                    None => {
                        let mut all = self.shelves.get(shelf.place)?.iter();
                        all.next();
                        rests.push(all);
                        rest.insert(rests.len() as u32 - 1)
                    }
                };
                match rests[*rest as usize].next() {
                    Some(key) => {
                        back.0.0 += step(shelf.weight, key.rider.items);
                        return Some(key);
                    }
                    None => drop(PeekMut::pop(back)),
                }
            }
        })
    }
}

type Plans = IdMap<PlanIx, BTreeMap<(VirtualTime, OwnerId), Listed>>;

/// The shelf of an owner as its plan lists it.
fn listed(plans: &mut Plans, plan: PlanIx, owner: (VirtualTime, OwnerId)) -> &mut Listed {
    let owners = plans.get_mut(&plan).expect("a shelf's plan is listed");
    owners.get_mut(&owner).expect("a shelf is listed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forming::Rider;
    use tessera_core::{Moment, TenantId};

    const PLAN: PlanIx = PlanIx(0);

    fn whose(owner: u64) -> Whose {
        Whose { owner: OwnerId(owner), plan: PLAN }
    }

    fn key(urgency: u64, number: u64) -> Key {
        Key { urgency: Moment(urgency), number, rider: Rider::one(number, TenantId(number)), due: None }
    }

    fn at(v: VirtualTime) -> Standing {
        Standing { v, weight: 1 }
    }

    #[test]
    fn the_owner_that_had_least_is_next_whoever_came_first() {
        let mut loose = Loose::default();
        loose.insert(whose(1), key(1, 1), at(50));
        loose.insert(whose(2), key(9, 2), at(40));
        assert_eq!(loose.next(), Some(Ticket(2)));
        loose.moved(OwnerId(2), 40, 60);
        assert_eq!(loose.next(), Some(Ticket(1)));
    }

    #[test]
    fn a_launch_is_filled_from_the_owners_in_turn() {
        let mut loose = Loose::default();
        for request in 1..=4 {
            loose.insert(whose(1), key(request, request), at(0));
        }
        loose.insert(whose(2), key(5, 5), at(0));
        loose.insert(whose(3), key(6, 6), at(15));
        let order: Vec<u32> = loose.of_plan(PLAN, |_, _| 10).map(|key| key.rider.ticket.0).collect();
        assert_eq!(order, [1, 5, 2, 6, 3, 4]);
    }

    #[test]
    fn what_is_removed_leaves_nothing_behind() {
        let mut loose = Loose::default();
        loose.insert(whose(1), key(1, 1), at(7));
        loose.remove(whose(1), key(1, 1), 7);
        assert!(loose.owners.is_empty() && loose.plans.is_empty());
        assert!(loose.shelves.is_empty() && loose.of_owner.is_empty());
    }
}
