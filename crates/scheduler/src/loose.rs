//! The fair order of waiting requests: who is next when owners count before urgency.
//!
//! ```text
//!   by owner, least virtual time first        ─▶ that owner's most urgent request      (who leads a launch)
//!   by plan: owners, least virtual time first ─▶ the same within the plan              (who fills it)
//! ```
//! What stands here are the heads of flows (`flows`): those behind them follow when a launch takes more than the head. An owner's heads of one plan are on a *shelf*,
//! the first of them ready to be seated: a launch is filled with a few requests of each of many owners, and mostly reads no more of an owner than that.
//!
//! A request is *urgent* from the moment its patience ends, or from its latest start where it has a deadline; a
//! tenant's later request of the same plan is never more urgent than its earlier (`flows`), so their order is kept.

use crate::fairness::{Owners, Standing, VirtualTime};
use crate::flows::{FlowIx, Flows, Head, Moved, OneByOne, Row, Stood};
use crate::heap::Ranked;
use crate::ordered::Ordered;
use crate::plans::PlanIx;
use crate::read_ahead::ReadAhead;
use crate::slab::Slab;
use crate::waiting::{Candidate, Rank, Ticket};
use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::num::NonZeroU32;
use tessera_core::{IdMap, OwnerId};

/// Of so many owners at most what they launch next is read at once.
const AT_ONCE: usize = 16;

/// Whose request it is and what it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose {
    pub(crate) owner: OwnerId,
    pub(crate) plan: PlanIx,
}

/// Names a shelf while there is anything on it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct ShelfIx(u32);

/// One owner's heads of one plan: a line of the cache.
#[derive(Debug)]
#[repr(C, align(64))]
struct Shelf {
    first: Candidate,
    heads: Ordered<Ranked<Rank, FlowIx>>,
}

#[derive(Debug, Default)]
pub(crate) struct Loose {
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
    shelf: ShelfIx,
}

impl OfOwner {
    fn find(&self, plan: PlanIx) -> Result<usize, usize> {
        self.shelves.binary_search_by_key(&plan, |shelf| shelf.plan)
    }
}

/// A shelf as its plan lists it.
#[derive(Clone, Copy, Debug)]
struct Listed {
    shelf: ShelfIx,
    /// The owner's.
    weight: u64,
}

impl Loose {
    /// The head of a flow of a plan was one request, and is another, which the flow knows. Returns where that is kept.
    pub(crate) fn head_moved(
        &mut self,
        plan: PlanIx,
        moved: Moved<Head>,
        flows: &Flows,
        owners: &Owners,
    ) -> Option<ShelfIx> {
        let Moved { flow, from, to } = moved;
        if let (Some(Stood { owner, shelf, rank }), Some(to)) = (from, &to)
            && owner == to.owner
        {
            let kept = self.shelves.get_mut(shelf.0).expect("a head is on a shelf");
            kept.heads.replace(Ranked { rank, name: flow }, Ranked { rank: to.rank, name: flow });
            kept.show_first(flows);
            return Some(shelf);
        }
        if let Some(Stood { owner, shelf, rank }) = from {
            let head = Ranked { rank, name: flow };
            self.remove(Whose { owner, plan }, shelf, head, flows, owners.virtual_time(owner));
        }
        let to = to?;
        let head = Ranked { rank: to.rank, name: flow };
        Some(self.insert(Whose { owner: to.owner, plan }, head, flows, owners.standing(to.owner)))
    }

    fn insert(
        &mut self,
        whose: Whose,
        head: Ranked<Rank, FlowIx>,
        flows: &Flows,
        Standing { v, weight }: Standing,
    ) -> ShelfIx {
        let Whose { owner, plan } = whose;
        let of_owner = self.of_owner.entry(owner).or_default();
        if of_owner.shelves.is_empty() {
            self.owners.insert((v, owner));
        }
        match of_owner.find(plan) {
            Ok(at) => {
                let shelf = of_owner.shelves[at].shelf;
                let kept = self.shelves.get_mut(shelf.0).expect("a listed shelf is kept");
                kept.heads.insert(head);
                kept.show_first(flows);
                shelf
            }
            Err(at) => {
                let first = flows.head(head.name).expect("a flow with a head is there");
                let mut heads = Ordered::default();
                heads.insert(head);
                let shelf = ShelfIx(self.shelves.insert(Shelf { first, heads }));
                of_owner.shelves.insert(at, OfPlan { plan, shelf });
                self.plans.entry(plan).or_default().insert((v, owner), Listed { shelf, weight });
                shelf
            }
        }
    }

    fn remove(
        &mut self,
        whose: Whose,
        shelf: ShelfIx,
        head: Ranked<Rank, FlowIx>,
        flows: &Flows,
        v: VirtualTime,
    ) {
        let kept = self.shelves.get_mut(shelf.0).expect("a head is on a shelf");
        kept.heads.remove(head);
        if kept.show_first(flows) {
            return;
        }
        self.shelves.remove(shelf.0);
        let Whose { owner, plan } = whose;
        let owners = self.plans.get_mut(&plan).expect("a shelf's plan is listed");
        owners.remove(&(v, owner));
        if owners.is_empty() {
            self.plans.remove(&plan);
        }
        let of_owner = self.of_owner.get_mut(&owner).expect("a shelf is with its owner");
        of_owner.shelves.retain(|of_plan| of_plan.plan != plan);
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
            let owners = self.plans.get_mut(plan).expect("a shelf's plan is listed");
            owners.get_mut(&(v, owner)).expect("a shelf is listed").weight = weight;
        }
    }

    /// The next request by fairness: the most urgent of the owner that has had least. A look at every plan that it has requests of.
    pub(crate) fn next(&self) -> Option<Ticket> {
        let &(_, owner) = self.owners.first()?;
        let shelves = self.of_owner.get(&owner)?.shelves.iter();
        let shelves = shelves.filter_map(|of_plan| self.shelves.get(of_plan.shelf.0));
        let first = shelves.min_by_key(|shelf| shelf.heads.first().map(|first| first.rank))?;
        Some(first.first.rider.ticket)
    }

    /// The next request by fairness of the plans that `of` names; a look at every plan.
    pub(crate) fn next_of(&self, of: impl Fn(PlanIx) -> bool) -> Option<Ticket> {
        let firsts = self.plans.iter().filter(|(plan, _)| of(**plan));
        let firsts = firsts.filter_map(|(plan, owners)| Some((owners.first_key_value()?, *plan)));
        let ((_, listed), _) = firsts.min_by_key(|((owner, _), plan)| (**owner, *plan))?;
        self.shelves.get(listed.shelf.0).map(|shelf| shelf.first.rider.ticket)
    }

    /// A plan's requests by fairness. Each one taken moves its owner, of some weight, on by what `step` says that so many items cost.
    pub(crate) fn of_plan<'a>(
        &'a self,
        plan: PlanIx,
        row: Row<'a>,
        mut step: impl FnMut(u64, NonZeroU32) -> VirtualTime + 'a,
    ) -> impl Iterator<Item = Candidate> + 'a {
        let fresh = self.plans.get(&plan).into_iter().flatten();
        let mut fresh = ReadAhead::new(fresh.filter_map(|(&(v, owner), &listed)| {
            let first = self.shelves.get(listed.shelf.0)?.first;
            Some(Turn { v, owner, listed, first })
        }));
        // Owners that were asked before, by their place in `taken`. No two are equal, so the place decides nothing.
        let mut again: BinaryHeap<Reverse<(VirtualTime, OwnerId, u32)>> = BinaryHeap::with_capacity(AT_ONCE);
        let mut taken: Vec<Taken> = Vec::with_capacity(AT_ONCE);
        let mut rests: Vec<OneByOne<'a>> = Vec::new();
        std::iter::from_fn(move || {
            loop {
                let asked = again.peek().map(|Reverse((v, owner, _))| (*v, *owner));
                let is_first = |turn: &Turn| asked.is_none_or(|asked| (turn.v, turn.owner) < asked);
                if let Some(Turn { v, owner, listed, first }) = fresh.next_if(is_first) {
                    let next = v + step(listed.weight, first.rider.items);
                    again.push(Reverse((next, owner, taken.len() as u32)));
                    taken.push(Taken { listed, first: first.rider.ticket, rest: None });
                    return Some(first);
                }
                let mut back = again.peek_mut()?;
                let at = back.0.2 as usize;
                if taken[at].rest.is_none() {
                    self.read_on(&mut taken[at..], &mut rests, row);
                }
                let Taken { listed, rest, .. } = taken[at];
                match rest.and_then(|rest| rests[rest as usize].next()) {
                    Some(next) => {
                        back.0.0 += step(listed.weight, next.rider.items);
                        return Some(next);
                    }
                    None => drop(PeekMut::pop(back)),
                }
            }
        })
    }

    /// What the first of these owners would launch next, and some behind it, whose turns likely come soon: each lies somewhere else in memory, and reads that
    /// wait for nothing but memory wait together.
    fn read_on<'a>(&'a self, taken: &mut [Taken], rests: &mut Vec<OneByOne<'a>>, row: Row<'a>) {
        rests.reserve(taken.len().min(AT_ONCE));
        for Taken { listed, first, rest } in taken.iter_mut().take(AT_ONCE) {
            if let (None, Some(shelf)) = (*rest, self.shelves.get(listed.shelf.0)) {
                *rest = Some(rests.len() as u32);
                rests.push(row.behind_first(&shelf.heads, *first));
            }
        }
    }
}

/// An owner whose first request of the plan was taken, as its shelf shows it.
#[derive(Clone, Copy)]
struct Taken {
    listed: Listed,
    first: Ticket,
    /// Which of those that were read the others are, once they were asked for.
    rest: Option<u32>,
}

/// An owner whose turn may come, and what it would have launched.
#[derive(Clone, Copy, Debug)]
struct Turn {
    v: VirtualTime,
    owner: OwnerId,
    listed: Listed,
    first: Candidate,
}

impl Shelf {
    /// What stands first is shown as the first; says whether there is any.
    fn show_first(&mut self, flows: &Flows) -> bool {
        let Some(first) = self.heads.first() else { return false };
        // A flow that is over and still stands here is about to be taken out.
        if let Some(first) = flows.head(first.name) {
            self.first = first;
        }
        true
    }
}

type Plans = IdMap<PlanIx, BTreeMap<(VirtualTime, OwnerId), Listed>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forming::Rider;
    use crate::slab::Slab;
    use crate::waiting::Waiting;
    use tessera_core::{Moment, TenantId};

    const PLAN: PlanIx = PlanIx(0);

    fn whose(owner: u64) -> Whose {
        Whose { owner: OwnerId(owner), plan: PLAN }
    }

    fn at(v: VirtualTime) -> Standing {
        Standing { v, weight: 1 }
    }

    /// Requests of a tenant each, so that all of them are heads.
    #[derive(Default)]
    struct Bench {
        loose: Loose,
        requests: Slab<Waiting>,
        flows: Flows,
    }

    impl Bench {
        fn comes(&mut self, owner: u64, urgency: u64, v: VirtualTime) -> Ticket {
            let place = self.requests.next();
            let number = u64::from(place);
            let mut waiting = Waiting {
                urgency: Moment(urgency),
                number,
                ..Waiting::one(Rider::one(number, TenantId(number)), OwnerId(owner))
            };
            let moved = self.flows.insert(&mut waiting, |_| unreachable!("it is alone in its flow"));
            self.requests.insert(waiting);
            let moved = moved.expect("it is the head");
            let head = Ranked { rank: waiting.rank(), name: moved.flow };
            let shelf = self.loose.insert(whose(owner), head, &self.flows, at(v));
            self.flows.shelved(moved.flow, shelf);
            Ticket(place)
        }
    }

    #[test]
    fn the_owner_that_had_least_is_next_whoever_came_first() {
        let mut bench = Bench::default();
        let one = bench.comes(1, 1, 50);
        let two = bench.comes(2, 9, 40);
        assert_eq!(bench.loose.next(), Some(two));
        bench.loose.moved(OwnerId(2), 40, 60);
        assert_eq!(bench.loose.next(), Some(one));
    }

    #[test]
    fn a_launch_is_filled_from_the_owners_in_turn() {
        let mut bench = Bench::default();
        (0..4).for_each(|request| _ = bench.comes(1, request, 0));
        bench.comes(2, 5, 0);
        bench.comes(3, 6, 15);
        let row = Row { requests: &bench.requests, flows: &bench.flows };
        let order = bench.loose.of_plan(PLAN, row, |_, _| 10).map(|next| next.rider.ticket.0);
        assert_eq!(order.collect::<Vec<_>>(), [0, 4, 1, 5, 2, 3]);
    }

    #[test]
    fn what_is_removed_leaves_nothing_behind() {
        let mut bench = Bench::default();
        let only = bench.comes(1, 1, 7);
        let rank = |ticket: Ticket| bench.requests.get(ticket.0).expect("it waits").rank();
        let moved =
            bench.flows.remove((TenantId(0), PLAN), [only].into_iter(), rank).expect("it was the head");
        let Stood { shelf, rank, .. } = moved.from.expect("it was there");
        let head = Ranked { rank, name: moved.flow };
        bench.loose.remove(whose(1), shelf, head, &bench.flows, 7);
        let Loose { owners, plans, shelves, of_owner, .. } = &bench.loose;
        assert!(owners.is_empty() && plans.is_empty() && shelves.is_empty() && of_owner.is_empty());
    }
}
