//! Orders against what sorting would make of those that wait, whatever comes, leaves or is launched.

use super::*;
use crate::fairness::distance;
use crate::forming::Rider;
use crate::promises::BookingId;
use proptest::prelude::*;
use std::time::Duration;

const TENANTS: u64 = 5;
const PLANS: u32 = 3;

/// What may happen to those that wait; numbers choose among them.
#[derive(Clone, Copy, Debug)]
enum Step {
    Comes {
        tenant: u64,
        plan: u32,
        urgency: u64,
        due: Option<u64>,
        booked: bool,
    },
    Leaves(usize),
    /// So many of a plan, in order or owners in turn; a lane for each tenant, or for each request.
    Launched {
        plan: u32,
        requests: usize,
        in_turn: bool,
        alone: bool,
    },
    ChangesPlan(usize, u32),
    Loosened(usize, u64),
    Charged {
        owner: u64,
        nanos: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (at, plan) = (0usize..1000, 0..PLANS);
    let comes = (0..TENANTS, plan.clone(), 0u64..30, prop::option::of(0u64..40), prop::bool::weighted(0.2));
    prop_oneof![
        6 => comes.prop_map(|(tenant, plan, urgency, due, booked)| Step::Comes { tenant, plan, urgency, due, booked }),
        1 => at.clone().prop_map(Step::Leaves),
        2 => (plan.clone(), 1usize..6, any::<bool>(), any::<bool>())
            .prop_map(|(plan, requests, in_turn, alone)| Step::Launched { plan, requests, in_turn, alone }),
        1 => (at.clone(), plan).prop_map(|(at, plan)| Step::ChangesPlan(at, plan)),
        1 => (at, 0u64..30).prop_map(|(at, urgency)| Step::Loosened(at, urgency)),
        1 => (0..3u64, 1u64..50).prop_map(|(owner, nanos)| Step::Charged { owner, nanos }),
    ]
}

/// Queues, and who is known to wait in them.
#[derive(Default)]
struct Bench {
    queues: Queues,
    owners: Owners,
    waiting: Vec<Ticket>,
    came: u64,
}

impl Bench {
    fn new() -> Bench {
        let mut bench = Bench::default();
        for tenant in 0..TENANTS {
            bench.owners.tenant_added(OwnerId(tenant % 3), TenantId(tenant), 1.0 + tenant as f64);
        }
        bench
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let chosen = |at: usize| (!self.waiting.is_empty()).then(|| self.waiting[at % self.waiting.len()]);
        match step {
            Step::Comes { tenant, plan, urgency, due, booked } => {
                let ticket = self.queues.next_ticket();
                let owner = OwnerId(tenant % 3);
                self.owners.work_came(owner);
                let booked = booked.then(|| BookingId::of(1));
                let waiting = Waiting {
                    due: due.map(Moment).into(),
                    urgency: Moment(urgency),
                    plan: PlanIx(plan),
                    bytes: Bytes(1 + urgency),
                    booked,
                    ..Waiting::one(Rider { ticket, ..Rider::one(self.came, TenantId(tenant)) }, owner)
                };
                self.came += 1;
                self.queues.insert(waiting, &self.owners);
                self.waiting.push(ticket);
            }
            Step::Leaves(at) => {
                let Some(ticket) = chosen(at) else { return Ok(()) };
                self.queues.remove(ticket, &self.owners).expect("it waits");
                self.waiting.retain(|other| *other != ticket);
            }
            Step::Launched { plan, requests, in_turn, alone } => {
                let plan = PlanIx(plan);
                let mut taken: Vec<Candidate> = if in_turn {
                    self.queues.of_plan_in_turn(plan, step_of).take(requests).collect()
                } else {
                    self.queues.of_plan(plan).take(requests).collect()
                };
                if !alone {
                    taken.sort_by_key(|next| next.rider.tenant);
                }
                for next in &taken {
                    self.queues.launched(next.rider.ticket);
                    self.waiting.retain(|other| *other != next.rider.ticket);
                }
                // Bounds are exact from the moment at which a launch is handed over.
                self.counts()?;
                self.queues.tidy(&self.owners);
                for next in taken {
                    self.queues.ended(next.rider.ticket).expect("it ran");
                }
            }
            Step::ChangesPlan(at, plan) => {
                let Some(ticket) = chosen(at) else { return Ok(()) };
                self.queues.change_plan(ticket, PlanIx(plan), &self.owners);
            }
            Step::Loosened(at, urgency) => {
                let Some(ticket) = chosen(at) else { return Ok(()) };
                self.queues.loosen(ticket, Moment(urgency), &self.owners);
            }
            Step::Charged { owner, nanos } => {
                let owner = OwnerId(owner);
                let before = self.owners.virtual_time(owner);
                let after = self.owners.charge(owner, Duration::from_nanos(nanos), Duration::ZERO);
                self.queues.owner_moved(owner, before, after);
            }
        }
        Ok(())
    }

    fn all(&self) -> Vec<Waiting> {
        self.waiting.iter().map(|ticket| *self.queues.get(*ticket).expect("it waits")).collect()
    }

    fn counts(&self) -> Result<(), TestCaseError> {
        let all = self.all();
        prop_assert_eq!(self.queues.len(), all.len());
        for tenant in (0..TENANTS).map(TenantId) {
            let depth = self.queues.depth(tenant);
            let of = || all.iter().filter(|waiting| waiting.rider.tenant == tenant);
            prop_assert_eq!(depth.requests as usize, of().count());
            prop_assert_eq!(depth.bytes, Bytes(of().map(|waiting| waiting.bytes.0).sum()));
        }
        Ok(())
    }

    /// Every order is what sorting would make of those that wait.
    fn orders(&self) -> Result<(), TestCaseError> {
        let mut all = self.all();
        all.sort_by_key(|waiting| waiting.number);
        let due = all.iter().filter_map(|waiting| waiting.due.moment()).min();
        prop_assert_eq!(self.queues.first_due(), due);
        for tenant in (0..TENANTS).map(TenantId) {
            let of = all.iter().filter(|waiting| waiting.rider.tenant == tenant);
            prop_assert!(
                self.queues
                    .of_tenant(tenant)
                    .map(|waiting| waiting.number)
                    .eq(of.map(|waiting| waiting.number))
            );
        }
        let mut tenants: Vec<TenantId> = all.iter().map(|waiting| waiting.rider.tenant).collect();
        tenants.sort_unstable();
        tenants.dedup();
        prop_assert_eq!(self.queues.tenants_after(None).collect::<Vec<_>>(), tenants);
        let mut loose: Vec<Waiting> = all.into_iter().filter(|waiting| waiting.booked.is_none()).collect();
        loose.sort_by_key(Waiting::rank);
        let first = loose.first().map(|waiting| waiting.number);
        prop_assert_eq!(self.queues.most_urgent().map(|waiting| waiting.number), first);
        for plan in (0..PLANS).map(PlanIx) {
            let of: Vec<Waiting> = loose.iter().filter(|waiting| waiting.plan == plan).copied().collect();
            let in_order = self.queues.of_plan(plan).map(|next| next.rider.ticket);
            prop_assert!(in_order.eq(of.iter().map(|waiting| waiting.rider.ticket)));
            let in_turn = self.queues.of_plan_in_turn(plan, step_of);
            prop_assert!(in_turn.map(|next| next.rider.ticket).eq(self.in_turn(of)));
            let items = self.queues.backlog().find(|(other, _)| *other == plan).map_or(0, |(_, items)| items);
            prop_assert_eq!(items as usize, loose.iter().filter(|waiting| waiting.plan == plan).count());
        }
        Ok(())
    }

    /// Those of a plan, in order: always the first of the owner that has had least.
    fn in_turn(&self, mut of: Vec<Waiting>) -> Vec<Ticket> {
        let mut had: BTreeMap<OwnerId, VirtualTime> = BTreeMap::new();
        of.iter().for_each(|waiting| _ = had.insert(waiting.owner, self.owners.virtual_time(waiting.owner)));
        let mut turns = Vec::new();
        while let Some(next) = of.iter().map(|waiting| (had[&waiting.owner], waiting.owner)).min() {
            let at = of.iter().position(|waiting| waiting.owner == next.1).expect("it has one");
            let taken = of.remove(at);
            let weight = self.owners.standing(taken.owner).weight;
            *had.get_mut(&taken.owner).expect("it is at work") += step_of(weight, taken.rider.items);
            turns.push(taken.rider.ticket);
        }
        turns
    }
}

fn step_of(weight: u64, items: NonZeroU32) -> VirtualTime {
    distance(weight, Duration::from_nanos(7) * items.get())
}

#[test]
fn orders_are_as_large_as_there_are_tenants_that_wait_however_much_they_want() {
    let mut bench = Bench::new();
    for request in 0..200 {
        let step =
            Step::Comes { tenant: request % TENANTS, plan: 0, urgency: request, due: None, booked: false };
        bench.step(step).expect("it comes");
    }
    let heads = |bench: &Bench| bench.queues.by_plan[&PlanIx(0)].heads.iter().count() as u64;
    assert_eq!(heads(&bench), TENANTS);
    bench
        .step(Step::Launched { plan: 0, requests: 100, in_turn: false, alone: false })
        .expect("it is launched");
    assert_eq!((heads(&bench), bench.queues.len()), (TENANTS, 100));
}

proptest! {
    /// Whatever comes, leaves, is launched, changes its plan or loses its promise: orders of heads show all that wait, in order.
    #[test]
    fn orders_of_heads_are_orders_of_all(steps in prop::collection::vec(step(), 1..120)) {
        let mut bench = Bench::new();
        for step in steps {
            bench.step(step)?;
            bench.counts()?;
            bench.orders()?;
        }
    }
}
