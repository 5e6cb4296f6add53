//! Launches that go between the segments of another, so that a promise can be given which no line could keep.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod common;

use common::{Exact, Segments, count, ms, offer, plan, us};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tessera_core::{OwnerId, PartitionId, Policy, RequestId, TenantId};
use tessera_scheduler::sim::{Outcome, Simulation};
use tessera_scheduler::{
    Cancelled, Config, CostTable, Decision, Offer, Over, Refusal, Scheduler, Size, Terms,
};

/// A class whose launches take 44 ms, and one of 1.1.
const LONG: u8 = 40;
const SHORT: u8 = 1;

/// Tenants that ask for long launches, and one that asks for short ones.
const SLOW: u64 = 0;
const QUICK: u64 = 1;
const OTHER: u64 = 2;

/// Launches of eleven segments, those of the long class of 4 ms.
fn config() -> Config {
    Config {
        given_costs: Some(Arc::new(Segments(11))),
        ..Config::new(Policy::SpaceTime, vec![PartitionId(0)])
    }
}

fn scheduler(config: Config) -> Scheduler {
    let mut scheduler = Scheduler::new(config);
    for tenant in [SLOW, QUICK, OTHER] {
        scheduler.tenant_added(ms(0), TenantId(tenant), Terms::best_effort(OwnerId(tenant)));
    }
    scheduler
}

/// Offers a request that is due after so many milliseconds, if it is.
fn ask(
    scheduler: &mut Scheduler,
    at: u64,
    (request, tenant, class): (u64, u64, u8),
    allowed: Option<u64>,
) -> Result<bool, Refusal> {
    let deadline = allowed.map(|allowed| ms(at + allowed));
    let admitted = scheduler.offer(ms(at), &Offer { deadline, ..offer(request, tenant, class) });
    admitted.map(|admitted| admitted.promised)
}

fn launched(scheduler: &mut Scheduler, at: u64) -> tessera_scheduler::LaunchPlan {
    match scheduler.decide(ms(at)) {
        Decision::Launch(launch) => launch,
        other => panic!("{other:?} where a launch was expected"),
    }
}

/// A scheduler whose device runs a long launch of best effort.
fn busy(config: Config) -> Scheduler {
    let mut scheduler = scheduler(config);
    assert_eq!(ask(&mut scheduler, 0, (0, SLOW, LONG), None), Ok(false));
    assert!(!launched(&mut scheduler, 0).urgent, "nothing runs that it could interrupt");
    scheduler
}

#[test]
fn what_would_be_late_behind_a_long_launch_goes_between_its_segments() {
    let mut scheduler = busy(config());
    assert_eq!(ask(&mut scheduler, 1, (1, QUICK, SHORT), Some(6)), Ok(true));
    let launch = launched(&mut scheduler, 1);
    assert!(launch.urgent);
    assert_eq!(launch.requests().collect::<Vec<_>>(), [RequestId(1)]);
    assert!(!matches!(scheduler.decide(ms(1)), Decision::Launch(_)));
}

#[test]
fn it_is_refused_where_even_the_end_of_a_segment_would_be_too_late() {
    let mut scheduler = busy(config());
    let refused = ask(&mut scheduler, 1, (1, QUICK, SHORT), Some(5));
    assert!(
        matches!(refused, Err(Refusal::TooLate { .. })),
        "4 ms of a segment and 1.1 of its own: {refused:?}"
    );
}

#[test]
fn what_can_wait_for_its_turn_interrupts_nobody() {
    let mut scheduler = busy(config());
    assert_eq!(ask(&mut scheduler, 1, (1, QUICK, SHORT), Some(50)), Ok(true));
    assert!(!matches!(scheduler.decide(ms(1)), Decision::Launch(_)));
}

#[test]
fn nothing_is_interrupted_where_that_is_turned_off_or_the_device_does_not_yield() {
    let exact: Arc<dyn CostTable> = Arc::new(common::Exact);
    for config in [Config { interrupts: false, ..config() }, Config { given_costs: Some(exact), ..config() }]
    {
        let mut scheduler = busy(config);
        let refused = ask(&mut scheduler, 1, (1, QUICK, SHORT), Some(6));
        assert!(matches!(refused, Err(Refusal::TooLate { .. })), "{refused:?}");
    }
}

#[test]
fn the_baselines_interrupt_nobody() {
    for policy in [Policy::Time, Policy::Exclusive, Policy::Space] {
        let mut scheduler = busy(Config { policy, ..config() });
        _ = ask(&mut scheduler, 1, (1, QUICK, SHORT), Some(6));
        if let Decision::Launch(launch) = scheduler.decide(ms(1)) {
            assert!(!launch.urgent, "{policy}");
        }
    }
}

#[test]
fn best_effort_never_interrupts() {
    let mut scheduler = busy(config());
    assert_eq!(ask(&mut scheduler, 1, (1, QUICK, SHORT), None), Ok(false));
    assert!(!matches!(scheduler.decide(ms(1)), Decision::Launch(_)));
}

#[test]
fn a_promise_that_runs_is_interrupted_only_as_far_as_it_can_bear() {
    for (due, bears) in [(49, false), (50, true)] {
        let mut scheduler = scheduler(config());
        assert_eq!(ask(&mut scheduler, 0, (0, SLOW, LONG), Some(due)), Ok(true));
        launched(&mut scheduler, 0);
        let asked = ask(&mut scheduler, 0, (1, QUICK, SHORT), Some(6));
        assert_eq!(
            asked.is_ok(),
            bears,
            "44 ms, 4 of a segment and 1.1 of the urgent one, due after {due}: {asked:?}"
        );
    }
}

#[test]
fn a_promise_behind_what_runs_is_not_made_late_either() {
    for (due, bears) in [(50, false), (51, true)] {
        let mut scheduler = busy(config());
        assert_eq!(ask(&mut scheduler, 0, (1, OTHER, SHORT), Some(due)), Ok(true));
        let asked = ask(&mut scheduler, 0, (2, QUICK, SHORT), Some(6));
        assert_eq!(asked.is_ok(), bears, "45.1 ms and 5.1 of an interruption, due after {due}: {asked:?}");
    }
}

#[test]
fn room_that_an_interruption_takes_is_promised_to_nobody_else() {
    let mut scheduler = busy(config());
    assert_eq!(ask(&mut scheduler, 0, (1, QUICK, SHORT), Some(6)), Ok(true));
    // Before the urgent one is handed over, and afterwards.
    for request in [2, 3] {
        let asked = ask(&mut scheduler, 0, (request, OTHER, LONG), Some(93));
        assert!(
            matches!(asked, Err(Refusal::TooLate { .. })),
            "44 ms, 5.1 of the interruption and 44 of its own: {asked:?}"
        );
        _ = scheduler.decide(ms(0));
    }
    assert_eq!(ask(&mut scheduler, 0, (4, OTHER, LONG), Some(94)), Ok(true));
}

#[test]
fn requests_that_come_together_share_an_urgent_launch() {
    let mut scheduler = busy(config());
    assert_eq!(ask(&mut scheduler, 1, (1, QUICK, SHORT), Some(8)), Ok(true));
    assert_eq!(ask(&mut scheduler, 1, (2, OTHER, SHORT), Some(8)), Ok(true));
    assert_eq!(launched(&mut scheduler, 1).lanes.len(), 2);
}

#[test]
fn one_that_is_cancelled_before_it_is_handed_over_leaves_its_room() {
    let mut scheduler = busy(config());
    assert_eq!(ask(&mut scheduler, 0, (1, QUICK, SHORT), Some(6)), Ok(true));
    assert_eq!(scheduler.cancel(ms(0), RequestId(1)), Cancelled::Queued);
    assert!(!matches!(scheduler.decide(ms(0)), Decision::Launch(_)));
    assert_eq!(ask(&mut scheduler, 0, (2, OTHER, LONG), Some(88)), Ok(true), "behind 44 ms");
}

#[test]
fn a_later_request_of_a_tenant_does_not_go_before_its_earlier_one() {
    let mut scheduler = busy(config());
    assert_eq!(ask(&mut scheduler, 0, (1, QUICK, SHORT), Some(60)), Ok(true));
    assert!(ask(&mut scheduler, 0, (2, QUICK, SHORT), Some(6)).is_err(), "the first waits for its turn");
    assert!(ask(&mut scheduler, 0, (3, OTHER, SHORT), Some(6)).is_ok(), "another tenant's may");
}

#[test]
fn one_whose_way_became_free_meanwhile_is_a_launch_like_any_other() {
    let mut scheduler = busy(config());
    assert_eq!(ask(&mut scheduler, 1, (1, QUICK, SHORT), Some(6)), Ok(true));
    let took = Duration::from_millis(2);
    scheduler.finished(ms(2), tessera_core::LaunchId(0), took, took);
    assert!(!launched(&mut scheduler, 2).urgent);
}

#[test]
fn an_urgent_launch_that_outlasts_what_it_interrupted_still_counts() {
    for (allowed, bears) in [(5, false), (6, true)] {
        let mut scheduler = busy(config());
        assert_eq!(ask(&mut scheduler, 1, (1, QUICK, SHORT), Some(6)), Ok(true));
        assert!(launched(&mut scheduler, 1).urgent);
        let took = Duration::from_millis(2);
        scheduler.finished(ms(2), tessera_core::LaunchId(0), took, took);
        let asked = ask(&mut scheduler, 2, (2, OTHER, SHORT), Some(allowed));
        assert_eq!(asked.is_ok(), bears, "4.1 ms of the urgent one are left, and 1.1 of its own: {asked:?}");
    }
}

#[test]
fn neither_costs_learn_what_went_between() {
    let mut scheduler = scheduler(Config { given_costs: None, ..config() });
    let over = |took: u64, computed: u64| Over {
        took: Duration::from_millis(took),
        computed: Duration::from_millis(computed),
        longest_segment: Some(Duration::from_millis(2)),
        ..Over::default()
    };
    for (request, (tenant, class, took)) in (0..).zip([(SLOW, LONG, 40), (QUICK, SHORT, 1)]) {
        assert_eq!(ask(&mut scheduler, 100 * request, (request, tenant, class), None), Ok(false));
        let launch = launched(&mut scheduler, 100 * request);
        scheduler.finished_by_lane(ms(100 * request + took), launch.id, over(took, took));
    }
    assert_eq!(ask(&mut scheduler, 200, (2, SLOW, LONG), None), Ok(false));
    let long = launched(&mut scheduler, 200);
    assert_eq!(ask(&mut scheduler, 210, (3, QUICK, SHORT), Some(5)), Ok(true));
    let urgent = launched(&mut scheduler, 210);
    assert!(urgent.urgent);
    // It waited for 2 ms.
    let timed = scheduler.finished_by_lane(ms(213), urgent.id, over(3, 1)).unwrap();
    assert_eq!(timed.took, Duration::from_millis(1));
    let timed = scheduler.finished_by_lane(ms(241), long.id, over(41, 41)).unwrap();
    assert_eq!((timed.took, timed.stood_back), (Duration::from_millis(40), Duration::from_millis(1)));
    let one = Size { lanes: 1, items: 1 };
    assert_eq!(scheduler.predicted(&plan(SHORT), one), Some(Duration::from_millis(1)));
    assert_eq!(scheduler.predicted(&plan(LONG), one), Some(Duration::from_millis(40)));
}

/// A load of long and short requests: tenant, class, items, microseconds after the one before, milliseconds to its deadline.
fn load() -> impl Strategy<Value = Vec<(u64, u8, u32, u64, Option<u64>)>> {
    let long = (0u64..3, 10u8..40, 1u32..4, 0u64..20_000, prop::option::weighted(0.7, 30u64..300));
    let short = (2u64..6, 1u8..4, 1u32..3, 0u64..4000, prop::option::weighted(0.95, 2u64..30));
    prop::collection::vec(prop_oneof![1 => long, 4 => short], 1..200)
}

struct Played {
    simulation: Simulation<Segments>,
    interruptions: usize,
}

/// Plays a load with costs that the scheduler is given.
fn play(config: Config, segments: u32, load: &[(u64, u8, u32, u64, Option<u64>)]) -> Played {
    let given: Arc<dyn CostTable> = Arc::new(Segments(segments));
    play_with(Config { given_costs: Some(given), ..config }, segments, load)
}

fn play_with(config: Config, segments: u32, load: &[(u64, u8, u32, u64, Option<u64>)]) -> Played {
    let mut simulation = Simulation::new(config, Segments(segments));
    (0..6).for_each(|tenant| simulation.tenant(TenantId(tenant), Terms::best_effort(OwnerId(tenant % 4))));
    let mut now = 0;
    for (number, (tenant, class, items, after, allowed)) in load.iter().enumerate() {
        now += after;
        let deadline = allowed.map(|allowed| us(now + 1000 * allowed));
        let items = count(*items);
        simulation.offer(us(now), &Offer { deadline, items, ..offer(number as u64, *tenant, *class) });
    }
    simulation.run_out();
    let interruptions = simulation.history.iter().filter(|(_, launch)| launch.urgent).count();
    Played { simulation, interruptions }
}

fn on(partitions: u64, ahead: u32) -> Config {
    Config {
        max_lanes: count(4),
        max_items: count(12),
        ahead: count(ahead),
        ..Config::new(Policy::SpaceTime, (0..partitions).map(PartitionId).collect())
    }
}

/// Interruptions on a device of so many partitions in loads like those of the properties, of which there must be some for them to mean anything.
#[test]
fn the_loads_below_interrupt_often() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let interruptions: usize = (0..40)
        .map(|_| {
            let load = proptest::strategy::ValueTree::current(&load().new_tree(&mut runner).unwrap());
            play(on(1, 1), 16, &load).interruptions
        })
        .sum();
    assert!(interruptions > 200, "{interruptions}");
}

/// When a launch was over, and what it costs by itself.
fn over_and_cost(
    simulation: &Simulation<Segments>,
    launch: &tessera_scheduler::LaunchPlan,
) -> (tessera_core::Moment, Duration) {
    let request = launch.requests().next().unwrap();
    let Outcome::Answered { at, .. } = simulation.outcomes[&request] else { panic!("not answered") };
    let size = Size { lanes: launch.lanes.len() as u32, items: launch.items() };
    (at, Exact.cost(&launch.plan, size).unwrap())
}

/// Where costs and segments are learnt, an urgent launch still waits for no more than the longest segment of what it interrupts, and for urgent ones before it; and once most
/// sizes were seen, in the last three quarters of a load, hardly a promise is broken.
#[test]
fn with_learnt_segments_an_urgent_launch_waits_for_one_of_them_at_most() {
    const SEGMENTS: u32 = 16;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    // Of two long classes and two short ones: of more, most would hardly be learnt.
    let few = |mut load: Vec<(u64, u8, u32, u64, Option<u64>)>| {
        for (_, class, ..) in &mut load {
            *class = if *class < 10 { 1 + *class % 2 } else { 20 + *class / 25 * 20 };
        }
        load
    };
    let long_load = prop::collection::vec(load(), 8).prop_map(move |parts| few(parts.concat()));
    let (mut interruptions, mut promised, mut late) = (0, 0.0, 0.0);
    for _ in 0..40 {
        let load = proptest::strategy::ValueTree::current(&long_load.new_tree(&mut runner).unwrap());
        let Played { simulation, .. } = play_with(on(1, 1), SEGMENTS, &load);
        let launches = simulation.history.iter().map(|(handed, launch)| {
            let (over, cost) = over_and_cost(&simulation, launch);
            (*handed, over, cost, launch)
        });
        let (urgent, ordinary): (Vec<_>, Vec<_>) = launches.partition(|(.., launch)| launch.urgent);
        for (handed, over, cost, launch) in &urgent {
            let runs = |from: tessera_core::Moment, to: tessera_core::Moment| from <= *handed && to > *handed;
            let interrupted = ordinary.iter().filter(|(from, to, ..)| runs(*from, *to));
            let segment = interrupted.map(|(.., cost, _)| *cost / SEGMENTS).max().unwrap_or_default();
            let before =
                urgent.iter().filter(|(from, to, _, other)| other.id < launch.id && runs(*from, *to));
            let bound = segment + before.map(|(.., cost, _)| *cost).sum::<Duration>() + *cost;
            let took = over.since(*handed);
            assert!(took <= bound + Duration::from_nanos(100), "{took:?} of {bound:?}: {launch:?}");
        }
        interruptions += urgent.len();
        let learnt = |request: &RequestId| request.0 as usize > load.len() / 4;
        let promises =
            simulation.admitted.iter().filter(|(request, admitted)| admitted.promised && learnt(request));
        for (request, admitted) in promises {
            let kept = matches!(simulation.outcomes[request], Outcome::Answered { at, .. } if Some(at) <= admitted.deadline);
            promised += 1.0;
            late += f64::from(u8::from(!kept));
        }
    }
    assert!(interruptions > 200, "{interruptions}");
    println!("{interruptions} interruptions; {late} of {promised} promises late");
    assert!(promised > 5000.0 && late <= 0.001 * promised, "{late} of {promised} promises late");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// With exact costs and segments no promise is broken: of those that interrupt, those that are interrupted, and those behind them.
    #[test]
    fn no_promise_is_broken_by_an_interruption(
        load in load(), segments in 1u32..40, partitions in 1u64..3, ahead in 1u32..3,
    ) {
        let Played { simulation, .. } = play(on(partitions, ahead), segments, &load);
        for (request, admitted) in simulation.admitted.iter().filter(|(_, admitted)| admitted.promised) {
            let due = admitted.deadline.unwrap();
            match simulation.outcomes[request] {
                Outcome::Answered { at, .. } => prop_assert!(at <= due, "{request} at {at}, due {due}"),
                ref other => prop_assert!(false, "{request}: {other:?}"),
            }
        }
    }

    /// Whatever interrupts it, a launch takes no more than twice its cost; every request ends once, and a tenant's promised requests of one plan are launched in
    /// their order.
    #[test]
    fn the_interrupted_do_not_starve_and_tenants_keep_their_order(load in load(), segments in 1u32..40) {
        let Played { simulation, .. } = play(on(1, 1), segments, &load);
        prop_assert_eq!(simulation.outcomes.len(), load.len());
        let mut last = BTreeMap::new();
        let mut free = us(0);
        for (begun, launch) in &simulation.history {
            for request in launch.requests() {
                let (tenant, class, ..) = load[request.0 as usize];
                if simulation.admitted[&request].promised {
                    let before = last.insert((tenant, class), request);
                    prop_assert!(before.is_none_or(|before| before < request), "{before:?} before {request}");
                }
            }
            if launch.urgent {
                continue;
            }
            let request = launch.requests().next().unwrap();
            let Outcome::Answered { at, .. } = simulation.outcomes[&request] else { panic!("not answered") };
            let size = Size { lanes: launch.lanes.len() as u32, items: launch.items() };
            let cost = Segments(segments).cost(&launch.plan, size).unwrap();
            prop_assert!(at.since((*begun).max(free)) <= 2 * cost, "{:?} of {cost:?}", at.since(*begun));
            free = at;
        }
    }
}
