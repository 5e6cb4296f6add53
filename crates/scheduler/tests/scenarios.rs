//! What the scheduler does, in virtual time.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod common;

use common::{ms, offer, plan};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tessera_core::{Moment, OwnerId, PartitionId, PlanKey, Policy, RequestId, TenantId};
use tessera_scheduler::sim::{Around, Outcome, Simulation, Slowness};
use tessera_scheduler::{Config, CostTable, Decision, Offer, Refusal, Scheduler, Size, Terms};

/// A launch takes a millisecond, and a tenth more for every item: sharing pays, as on a GPU.
#[derive(Clone, Debug)]
struct Affine;

impl CostTable for Affine {
    fn cost(&self, _: &PlanKey, size: Size) -> Option<Duration> {
        Some(Duration::from_micros(1000 + 100 * u64::from(size.items)))
    }
}

fn config(policy: Policy) -> Config {
    Config { given_costs: Some(Arc::new(Affine)), ..Config::new(policy, vec![PartitionId(0)]) }
}

fn with_tenants(config: Config, tenants: u64) -> Simulation<Affine> {
    let mut simulation = Simulation::new(config, Affine);
    (0..tenants).for_each(|tenant| simulation.tenant(TenantId(tenant), Terms::best_effort(OwnerId(tenant))));
    simulation
}

#[test]
fn another_policy_counts_from_the_next_decision_on_for_what_waits_already() {
    let mut scheduler = Scheduler::new(config(Policy::Time));
    for tenant in 0..4 {
        scheduler.tenant_added(ms(0), TenantId(tenant), Terms::best_effort(OwnerId(tenant)));
        scheduler.offer(ms(0), &offer(tenant, tenant, 1)).unwrap();
    }
    let Decision::Launch(first) = scheduler.decide(ms(0)) else { panic!("requests wait") };
    assert_eq!(first.lanes.len(), 1);
    scheduler.set_policy(Policy::SpaceTime, true);
    scheduler.finished(ms(1), first.id, Duration::from_millis(1), Duration::ZERO);
    let Decision::Launch(second) = scheduler.decide(ms(1)) else { panic!("requests wait") };
    assert_eq!(second.lanes.len(), 3);
}

#[test]
fn a_launch_that_did_not_run_makes_room_and_is_not_learnt() {
    let mut scheduler = Scheduler::new(Config { given_costs: None, ..config(Policy::SpaceTime) });
    let slo = Some(Duration::from_secs(1));
    scheduler.tenant_added(ms(0), TenantId(0), Terms { slo, ..Terms::best_effort(OwnerId(0)) });
    let next = |request: u64, at: u64, scheduler: &mut Scheduler| {
        scheduler.offer(ms(at), &offer(request, 0, 1)).unwrap();
        let Decision::Launch(launch) = scheduler.decide(ms(at)) else { panic!("the device is idle") };
        launch.id
    };
    let first = next(0, 0, &mut scheduler);
    scheduler.not_run(ms(5), first);
    assert_eq!(scheduler.in_flight(), 0);
    assert_eq!((scheduler.is_measured(&plan(1)), scheduler.served(OwnerId(0))), (false, Duration::ZERO));
    let (second, took) = (next(1, 10, &mut scheduler), Duration::from_millis(2));
    scheduler.finished(ms(12), second, took, took);
    assert!(scheduler.is_measured(&plan(1)));
}

#[test]
fn limits_beyond_all_memory_take_memory_for_what_waits_alone() {
    let config =
        Config { max_lanes: NonZeroU32::MAX, max_items: NonZeroU32::MAX, ..config(Policy::SpaceTime) };
    let mut scheduler = Scheduler::new(config);
    for tenant in 0..3 {
        scheduler.tenant_added(ms(0), TenantId(tenant), Terms::best_effort(OwnerId(tenant)));
        scheduler.offer(ms(0), &offer(tenant, tenant, 1)).unwrap();
    }
    let Decision::Launch(launch) = scheduler.decide(ms(0)) else { panic!("requests wait") };
    assert_eq!(launch.lanes.len(), 3);
}

#[test]
fn a_request_joins_its_tenants_lane_beside_one_that_must_stand_alone() {
    let limits = Config { max_lanes: NonZeroU32::new(2).unwrap(), ..config(Policy::SpaceTime) };
    let mut simulation = with_tenants(limits, 2);
    simulation.offer(ms(0), &offer(0, 0, 1)); // runs, so that the others wait together
    for (request, batchable) in [(1, true), (2, false), (3, true)] {
        simulation.offer(ms(0), &Offer { batchable, ..offer(request, 1, 1) });
    }
    let (_, history) = simulation.finish();
    let lanes = history[1].1.lanes.iter();
    let lanes: Vec<Vec<u64>> =
        lanes.map(|lane| lane.requests.iter().map(|(request, _)| request.0).collect()).collect();
    assert_eq!(lanes, [vec![1, 3], vec![2]]);
}

#[test]
fn a_lane_takes_its_tenants_next_request_however_many_others_wait_before_it() {
    for patience in [Duration::from_secs(60), Duration::ZERO] {
        let limits = Config {
            max_lanes: NonZeroU32::new(2).unwrap(),
            max_items: NonZeroU32::new(5).unwrap(),
            patience,
            ..config(Policy::SpaceTime)
        };
        let mut simulation = with_tenants(limits, 500);
        simulation.offer(ms(0), &offer(0, 0, 1)); // runs, so that the others wait together
        (1..500).for_each(|tenant| simulation.offer(ms(0), &offer(tenant, tenant, 1)));
        for (request, tenant) in [(501, 1), (502, 2), (503, 2), (504, 1)] {
            simulation.offer(ms(0), &offer(request, tenant, 1));
        }
        let (_, history) = simulation.finish();
        let lanes = history[1].1.lanes.iter();
        let lanes: Vec<Vec<u64>> =
            lanes.map(|lane| lane.requests.iter().map(|(request, _)| request.0).collect()).collect();
        assert_eq!(lanes, [vec![1, 501, 504], vec![2, 502]], "patience {patience:?}");
    }
}

/// A device on which a launch takes so little that it is over before the next request, however slow.
#[derive(Debug)]
struct Quick;

impl Quick {
    const MS: f64 = 0.001;
}

impl CostTable for Quick {
    fn cost(&self, _: &PlanKey, _: Size) -> Option<Duration> {
        Some(Duration::from_micros(1))
    }
}

/// How many times `cost_ms` each request of one tenant takes that comes at one of these moments, in ms.
fn took_of<C: CostTable>(mut simulation: Simulation<C>, moments: &[u64], cost_ms: f64) -> Vec<f64> {
    simulation.tenant(TenantId(0), Terms::best_effort(OwnerId(0)));
    (0..).zip(moments).for_each(|(request, at)| simulation.offer(ms(*at), &offer(request, 0, 1)));
    let (outcomes, _) = simulation.finish();
    let took = outcomes.values().zip(moments).map(|(outcome, at)| match outcome {
        Outcome::Answered { at: over, .. } => (over.since(ms(*at)).as_secs_f64() * 1e3 / cost_ms).round(),
        other => panic!("{other:?}"),
    });
    took.collect()
}

#[test]
fn launches_differ_from_their_costs_as_those_that_followed_each_other_did() {
    let ran = (0..100).map(|number| (ms(number), 1.0 + number as f64)).collect();
    let slowness = Slowness::Pieces { ran, length: Duration::from_millis(5) };
    let around = Around { slowness, ..Around::default() };
    // No launch takes longer than until the next request: ratios are up to 100.
    let simulation = Simulation::new(config(Policy::SpaceTime), Quick).with(around, 1);
    let took = took_of(simulation, &(0..1000).collect::<Vec<u64>>(), Quick::MS);
    for piece in took.chunks(5) {
        assert!(piece.windows(2).all(|two| (two[1] - two[0] - 1.0).abs() < 1e-6), "{piece:?}");
    }
    let firsts: std::collections::BTreeSet<u64> = took.iter().step_by(5).map(|took| *took as u64).collect();
    assert!(firsts.len() > 10, "pieces begin anywhere: {firsts:?}");
}

#[test]
fn launches_are_as_slow_as_those_of_a_run_were_at_that_moment() {
    let as_ran = [(ms(10), 2.0), (ms(20), 3.0)].into();
    let around = Around { slowness: Slowness::AsRan(as_ran), ..Around::default() };
    let simulation = Simulation::new(config(Policy::SpaceTime), Affine).with(around, 1);
    let took = took_of(simulation, &[5, 15, 25], 1.1);
    assert_eq!(took, [2.0, 2.0, 3.0], "before the first, as slow as that");
}

#[test]
fn a_host_that_stands_still_hears_of_nothing_and_decides_nothing_until_it_goes_on() {
    let still = [(ms(10), Duration::from_millis(4)), (ms(20), Duration::from_millis(3))].into();
    let around = Around { still, ..Around::default() };
    let mut simulation = Simulation::new(config(Policy::SpaceTime), Affine).with(around, 1);
    simulation.tenant(TenantId(0), Terms::best_effort(OwnerId(0)));
    // One that ends meanwhile, one that comes meanwhile, and one that comes as it goes on.
    let came = [9_500, 11_000, 23_000];
    let us = |at| Moment::at(Duration::from_micros(at));
    (0..).zip(came).for_each(|(request, at)| simulation.offer(us(at), &offer(request, 0, 1)));
    let (outcomes, history) = simulation.finish();
    let answered = outcomes.values().map(|outcome| match outcome {
        Outcome::Answered { at, .. } => *at,
        other => panic!("{other:?}"),
    });
    assert_eq!(answered.collect::<Vec<Moment>>(), [us(14_000), us(15_100), us(24_100)]);
    let began: Vec<Moment> = history.iter().map(|(at, _)| *at).collect();
    assert_eq!(began, [us(9_500), us(14_000), us(23_000)]);
}

#[test]
fn requests_of_many_tenants_that_wait_together_leave_in_one_launch() {
    let mut simulation = with_tenants(config(Policy::SpaceTime), 9);
    (0..9).for_each(|tenant| simulation.offer(ms(0), &offer(tenant, tenant, 1)));
    let (_, history) = simulation.finish();
    let lanes: Vec<usize> = history.iter().map(|(_, launch)| launch.lanes.len()).collect();
    assert_eq!(lanes, [1, 8], "the first leaves an idle device alone; the others share the next launch");
}

#[test]
fn every_policy_launches_as_its_table_says() {
    for policy in [Policy::Time, Policy::Exclusive, Policy::Space] {
        for tenant_batching in [true, false] {
            let mut simulation = with_tenants(Config { tenant_batching, ..config(policy) }, 3);
            for round in 0..4 {
                (0..3).for_each(|tenant| simulation.offer(ms(0), &offer(10 * round + tenant, tenant, 1)));
            }
            let (outcomes, history) = simulation.finish();
            assert_eq!(outcomes.len(), 12);
            assert!(history.iter().all(|(_, launch)| launch.lanes.len() == 1), "{policy}");
            let largest = history.iter().map(|(_, launch)| launch.items()).max().unwrap();
            assert_eq!(largest > 1, tenant_batching, "{policy}");
            let order: Vec<u64> = history.iter().map(|(_, launch)| launch.lanes[0].tenant.0).collect();
            match (policy, tenant_batching) {
                (Policy::Time, false) => assert_eq!(order, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]),
                (Policy::Exclusive, false) => assert_eq!(order, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]),
                (Policy::Space, _) => {
                    assert_eq!(history[2].0, ms(0), "three tenants run side by side at once");
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_late_request_is_refused_before_it_is_queued() {
    let mut simulation = with_tenants(config(Policy::SpaceTime), 2);
    let hurried = Offer { deadline: Some(Moment(500_000)), ..offer(1, 0, 1) };
    simulation.offer(ms(0), &hurried);
    let (outcomes, history) = simulation.finish();
    assert!(matches!(outcomes[&RequestId(1)], Outcome::Refused(Refusal::TooLate { .. })), "{outcomes:?}");
    assert!(history.is_empty());
}

#[test]
fn a_best_effort_request_is_never_refused_for_lateness_and_does_not_starve() {
    let mut simulation = Simulation::new(config(Policy::SpaceTime), Affine);
    simulation.tenant(TenantId(0), Terms::best_effort(OwnerId(0)));
    let promised = Terms { slo: Some(Duration::from_millis(20)), ..Terms::best_effort(OwnerId(1)) };
    simulation.tenant(TenantId(1), promised);
    simulation.offer(ms(0), &offer(9999, 1, 2));
    simulation.offer(ms(0), &offer(10_000, 0, 1));
    // A stream of another class that keeps the device busy all the while.
    (0..400).for_each(|request| simulation.offer(ms(request), &offer(request, 1, 2)));
    let (outcomes, _) = simulation.finish();
    let Outcome::Answered { at, .. } = outcomes[&RequestId(10_000)] else { panic!("{outcomes:?}") };
    assert!(at <= ms(110), "its patience is 100 ms and a launch at most 10 ms, but it was answered at {at}");
}

#[test]
fn what_expires_is_dropped_by_time_and_not_by_the_next_launch() {
    // No given costs: a plan never measured is let in whatever its deadline.
    let mut scheduler = Scheduler::new(Config::new(Policy::SpaceTime, vec![PartitionId(0)]));
    scheduler.tenant_added(ms(0), TenantId(0), Terms::best_effort(OwnerId(0)));
    scheduler.offer(ms(0), &offer(1, 0, 1)).unwrap();
    assert!(matches!(scheduler.decide(ms(0)), Decision::Launch(_)));
    scheduler.offer(ms(1), &Offer { deadline: Some(ms(5)), ..offer(2, 0, 1) }).unwrap();
    assert_eq!(scheduler.decide(ms(1)), Decision::SleepUntil(ms(5)));
    assert_eq!(scheduler.expire(ms(4)), []);
    assert_eq!(scheduler.expire(ms(5)), [RequestId(2)]);
    assert_eq!(scheduler.decide(ms(5)), Decision::Idle);
}

#[test]
fn an_slo_that_cannot_be_met_is_known_once_the_plan_was_measured() {
    let mut scheduler = Scheduler::new(Config::new(Policy::SpaceTime, vec![PartitionId(0)]));
    for (tenant, slo) in [(0, 25), (1, 40)] {
        let terms = Terms { slo: Some(Duration::from_millis(slo)), ..Terms::best_effort(OwnerId(tenant)) };
        scheduler.tenant_added(ms(0), TenantId(tenant), terms);
    }
    assert_eq!(scheduler.verdict(TenantId(0), &plan(1)), None, "nothing was measured");
    scheduler.offer(ms(0), &offer(1, 0, 1)).unwrap();
    let Decision::Launch(launch) = scheduler.decide(ms(0)) else { panic!("an idle device") };
    scheduler.finished(ms(31), launch.id, Duration::from_millis(31), Duration::ZERO);
    let verdict = |tenant| scheduler.verdict(TenantId(tenant), &plan(1)).expect("it was measured");
    assert!(!verdict(0).can_be_met() && verdict(1).can_be_met());
    assert!(
        verdict(0).to_string().starts_with("alone p99 31.00ms: cannot meet 25ms for 99 %"),
        "{}",
        verdict(0)
    );
}

#[test]
fn a_plan_that_was_slow_once_is_measured_again() {
    let mut scheduler = Scheduler::new(Config::new(Policy::SpaceTime, vec![PartitionId(0)]));
    let terms = Terms { slo: Some(Duration::from_millis(10)), ..Terms::best_effort(OwnerId(0)) };
    scheduler.tenant_added(ms(0), TenantId(0), terms);
    scheduler.offer(ms(0), &offer(1, 0, 1)).expect("a plan never measured is let in");
    let Decision::Launch(launch) = scheduler.decide(ms(0)) else { panic!("an idle device") };
    scheduler.finished(ms(500), launch.id, Duration::from_millis(500), Duration::ZERO);
    assert!(matches!(scheduler.offer(ms(501), &offer(2, 0, 1)), Err(Refusal::TooLate { .. })));
    scheduler.offer(ms(1600), &offer(3, 0, 1)).expect("after a second one is let in to measure");
}

#[test]
fn under_overload_owners_get_device_time_by_their_shares() {
    let mut simulation = Simulation::new(
        Config { max_lanes: NonZeroU32::MIN, tenant_batching: false, ..config(Policy::SpaceTime) },
        Affine,
    );
    for (tenant, share) in [(0, 1.0), (1, 3.0)] {
        simulation.tenant(TenantId(tenant), Terms { share, ..Terms::best_effort(OwnerId(tenant)) });
    }
    for request in 0..240 {
        simulation.offer(ms(0), &offer(2 * request, 0, 1));
        simulation.offer(ms(0), &offer(2 * request + 1, 1, 1));
    }
    let (_, history) = simulation.finish();
    // While both have work waiting. At first slack decides; fairness then makes up for what it gave.
    let contested = history.iter().filter(|(at, _)| *at < ms(300));
    let (mut small, mut large) = (0, 0);
    contested.for_each(|(_, launch)| if launch.lanes[0].tenant.0 == 0 { small += 1 } else { large += 1 });
    let ratio = f64::from(large) / f64::from(small);
    assert!((2.5..3.5).contains(&ratio), "{large} launches to {small}");
}

#[test]
fn an_overload_does_not_make_launches_small() {
    let mut simulation = with_tenants(config(Policy::SpaceTime), 32);
    // Twelve requests a millisecond, where launches of eight items do 4.4 of them, of thirty-two 7.6, and of as many as can be 8.6.
    for request in 0..6000 {
        let at = Moment::at(Duration::from_micros(request * 1000 / 12));
        let deadline = Some(at + Duration::from_millis(25));
        simulation.offer(at, &Offer { deadline, ..offer(request, request % 32, 1) });
    }
    let (outcomes, history) = simulation.finish();
    let late = |outcome: &Outcome| matches!(outcome, Outcome::Expired(_));
    assert_eq!(outcomes.values().filter(|outcome| late(outcome)).count(), 0, "promises are kept");
    let settled: Vec<u32> = history
        .iter()
        .filter(|(at, _)| (ms(100)..ms(500)).contains(at))
        .map(|(_, launch)| launch.items())
        .collect();
    let rate = f64::from(settled.iter().sum::<u32>()) / 400.0;
    assert!(rate > 7.0, "{rate} requests a millisecond in {} launches", settled.len());
}

#[test]
fn queue_bounds_are_exact_and_a_cancelled_request_makes_room() {
    let bound = NonZeroU32::new(3).unwrap();
    let mut scheduler = Scheduler::new(Config { queue_requests: bound, ..config(Policy::SpaceTime) });
    scheduler.tenant_added(ms(0), TenantId(0), Terms::best_effort(OwnerId(0)));
    for request in 0..3 {
        scheduler.offer(ms(0), &offer(request, 0, 1)).unwrap();
    }
    assert!(matches!(scheduler.offer(ms(0), &offer(3, 0, 1)), Err(Refusal::QueueFull { queued: 3, .. })));
    scheduler.cancel(ms(0), RequestId(1));
    scheduler.offer(ms(0), &offer(4, 0, 1)).unwrap();
    assert_eq!(scheduler.queued(), 3);
}
