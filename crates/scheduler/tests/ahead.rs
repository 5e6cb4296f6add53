//! Launches that are handed over before their turn, so that their copies overlap the kernels of the one before.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod common;

use common::{ms, offer, us};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tessera_core::{OwnerId, PartitionId, PlanKey, Policy, TenantId};
use tessera_scheduler::{Config, CostTable, Decision, LaunchPlan, Offer, Refusal, Scheduler, Size, Terms};

/// Every launch takes ten milliseconds.
#[derive(Debug)]
struct Ten;

impl CostTable for Ten {
    fn cost(&self, _: &PlanKey, _: Size) -> Option<Duration> {
        Some(Duration::from_millis(10))
    }
}

/// Room for two launches of up to two lanes, to be handed over a millisecond before their turn.
fn scheduler() -> Scheduler {
    under(Policy::SpaceTime)
}

fn under(policy: Policy) -> Scheduler {
    let two = NonZeroU32::new(2).unwrap();
    let mut scheduler = Scheduler::new(Config {
        given_costs: Some(Arc::new(Ten)),
        max_lanes: two,
        ahead: two,
        lead: Duration::from_millis(1),
        ..Config::new(policy, vec![PartitionId(0)])
    });
    for tenant in 0..8 {
        scheduler.tenant_added(ms(0), TenantId(tenant), Terms::best_effort(OwnerId(tenant)));
    }
    scheduler
}

fn ask(scheduler: &mut Scheduler, now: u64, tenant: u64) {
    let offer = offer(now * 100 + tenant, tenant, 1);
    scheduler.offer(ms(now), &offer).unwrap();
}

fn launched(decision: Decision) -> LaunchPlan {
    let Decision::Launch(launch) = decision else { panic!("{decision:?} where a launch was expected") };
    launch
}

#[test]
fn a_full_launch_is_handed_over_while_another_computes_and_a_third_is_not() {
    let mut scheduler = scheduler();
    (0..6).for_each(|tenant| ask(&mut scheduler, 0, tenant));
    assert_eq!(launched(scheduler.decide(ms(0))).lanes.len(), 2);
    assert_eq!(launched(scheduler.decide(ms(0))).lanes.len(), 2);
    assert!(!matches!(scheduler.decide(ms(0)), Decision::Launch(_)), "a partition holds two");
}

#[test]
fn one_that_others_may_join_waits_until_shortly_before_its_turn() {
    let mut scheduler = scheduler();
    ask(&mut scheduler, 0, 0);
    let first = launched(scheduler.decide(ms(0)));
    ask(&mut scheduler, 1, 1);
    let Decision::SleepUntil(until) = scheduler.decide(ms(1)) else { panic!("it is early") };
    assert_eq!(until, ms(9), "a millisecond before the first is over");
    ask(&mut scheduler, 5, 2);
    assert_eq!(launched(scheduler.decide(ms(5))).lanes.len(), 2, "company made it full");
    scheduler.finished(ms(10), first.id, Duration::from_millis(10), Duration::ZERO);
    ask(&mut scheduler, 11, 3);
    assert_eq!(
        scheduler.decide(ms(11)),
        Decision::SleepUntil(ms(19)),
        "the second began when the first ended"
    );
    assert_eq!(launched(scheduler.decide(ms(19))).lanes.len(), 1, "alone, as nobody came");
}

#[test]
fn a_batch_of_one_tenant_goes_ahead_full_or_shortly_before_its_turn() {
    let mut scheduler = under(Policy::Exclusive);
    ask(&mut scheduler, 0, 0);
    assert_eq!(launched(scheduler.decide(ms(0))).items(), 1);
    for number in 1..64 {
        let now = us(100 * number);
        scheduler.offer(now, &offer(number, 0, 1)).unwrap();
        assert_eq!(scheduler.decide(now), Decision::SleepUntil(ms(9)), "the batch is not full");
    }
    scheduler.offer(us(6400), &offer(64, 0, 1)).unwrap();
    assert_eq!(launched(scheduler.decide(us(6400))).items(), 64, "a full one does not wait");

    let mut scheduler = under(Policy::Exclusive);
    ask(&mut scheduler, 0, 0);
    launched(scheduler.decide(ms(0)));
    (1..4).for_each(|now| ask(&mut scheduler, now, 0));
    assert_eq!(launched(scheduler.decide(ms(9))).items(), 3, "as many as came until its turn was near");
}

#[test]
fn the_time_behind_others_is_not_a_launchs_own_cost() {
    let mut scheduler = scheduler();
    (0..4).for_each(|tenant| ask(&mut scheduler, 0, tenant));
    let (first, second) = (launched(scheduler.decide(ms(0))), launched(scheduler.decide(ms(0))));
    scheduler.finished(ms(10), first.id, Duration::from_millis(10), Duration::ZERO);
    scheduler.finished(ms(21), second.id, Duration::from_millis(21), Duration::ZERO);
    // Two requests shared each launch, and each pays its part: of 10 ms, and of the 11 ms that the second computed.
    let served = |owner| scheduler.served(OwnerId(owner)).as_micros();
    let all: u128 = (0..4).map(served).sum();
    assert_eq!(all, 21_000);
}

#[test]
fn a_launch_that_is_heard_of_together_with_the_one_before_still_costs_what_it_computed() {
    let mut scheduler = scheduler();
    (0..4).for_each(|tenant| ask(&mut scheduler, 0, tenant));
    let (first, second) = (launched(scheduler.decide(ms(0))), launched(scheduler.decide(ms(0))));
    let ten = Duration::from_millis(10);
    scheduler.finished(ms(20), first.id, 2 * ten, ten);
    scheduler.finished(ms(20), second.id, 2 * ten, ten);
    let served: u128 = (0..4).map(|owner| scheduler.served(OwnerId(owner)).as_millis()).sum();
    assert_eq!(served, 30, "20 ms until the first was heard of, and 10 ms for the second");
}

/// Costs are to be learnt, on a device that copies beside its kernels.
fn learning() -> Scheduler {
    let two = NonZeroU32::new(2).unwrap();
    let mut scheduler = Scheduler::new(Config {
        max_lanes: two,
        ahead: two,
        lead: Duration::from_millis(1),
        ..Config::new(Policy::SpaceTime, vec![PartitionId(0)])
    });
    for tenant in 0..8 {
        scheduler.tenant_added(ms(0), TenantId(tenant), Terms::best_effort(OwnerId(tenant)));
    }
    scheduler
}

#[test]
fn what_lies_around_a_launch_is_learnt_apart_from_its_cost() {
    let mut scheduler = learning();
    let one = Size { lanes: 1, items: 1 };
    for round in 0..4 {
        let now = 100 * round;
        ask(&mut scheduler, now, 0);
        let launch = launched(scheduler.decide(ms(now)));
        // Two milliseconds of copies and wake-ups around one of computing.
        let (took, computed) = (Duration::from_millis(3), Duration::from_millis(1));
        scheduler.finished(ms(now + 3), launch.id, took, computed);
    }
    assert_eq!(scheduler.predicted(&offer(0, 0, 1).plan, one), Some(Duration::from_millis(1)));

    // Who waits for an idle device waits for the way too, and four launches may not have shown the slowest: that is a twentieth of the millisecond.
    let allowed = |micros| Offer {
        deadline: Some(ms(500) + Duration::from_micros(micros)),
        ..offer(9000 + micros, 1, 1)
    };
    assert!(matches!(scheduler.offer(ms(500), &allowed(2900)), Err(Refusal::TooLate { .. })));
    assert!(scheduler.offer(ms(500), &allowed(3050)).unwrap().promised);

    // The next is handed over so early that its own way is hidden behind what runs: twice what the way is taken for.
    launched(scheduler.decide(ms(500)));
    ask(&mut scheduler, 501, 2);
    assert!(matches!(scheduler.decide(ms(501)), Decision::Launch(_)), "two milliseconds before its turn");
}

#[test]
fn time_between_launches_that_follow_each_other_is_part_of_their_cost() {
    let mut scheduler = learning();
    let one = Duration::from_millis(1);
    for round in 0..60 {
        let now = 100 * round;
        (0..4).for_each(|tenant| ask(&mut scheduler, now, tenant));
        let (first, second) = (launched(scheduler.decide(ms(now))), launched(scheduler.decide(ms(now))));
        // Behind another launch each takes half a millisecond more than it computes.
        scheduler.finished(ms(now + 1), first.id, one, one);
        scheduler.finished(us(1000 * now + 2500), second.id, one * 5 / 2, one);
    }
    let two = Size { lanes: 2, items: 2 };
    let predicted = scheduler.predicted(&offer(0, 0, 1).plan, two).unwrap();
    assert!(predicted.abs_diff(one * 3 / 2) < one / 20, "{predicted:?}");
    let error = scheduler.prediction_error();
    assert!(error.median < 0.05, "what lies between is no error: {error:?}");
}
