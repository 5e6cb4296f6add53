//! Classes of a card that go behind the others, on as many multiprocessors as these bear: what was lost decides, and changes keep their distance.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod common;

use common::{count, offer, us};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;
use tessera_core::{Moment, OwnerId, PartitionId, PlanKey, Policy, RequestId, TenantId};
use tessera_scheduler::sim::{Outcome, Simulation};
use tessera_scheduler::{Config, CostTable, Happened, Layout, Offer, Partition, Size, Terms};

/// Milliseconds per launch as the class says, a fifth more for each lane beyond the first, and as much longer as the share is smaller. Class 1 is short, so that what others have of the
/// units as it begins they have to its end: all of them cost it `harm` times what it takes.
#[derive(Clone, Copy, Debug)]
struct Card {
    harm: f64,
}

impl CostTable for Card {
    fn cost(&self, plan: &PlanKey, size: Size) -> Option<Duration> {
        let lanes = 1.0 + 0.2 * f64::from(size.lanes - 1);
        Some(Duration::from_millis(plan.class.0[0].into()).mul_f64(lanes))
    }

    fn among(&self, plan: &PlanKey, size: Size, share: f64, others: f64) -> Option<Duration> {
        let harm = if plan.class.0[0] == 1 { self.harm * others } else { 0.0 };
        Some(self.on_share(plan, size, share)?.mul_f64(1.0 + harm))
    }
}

const STREAMS: u64 = 2;
const ALL: u32 = 128;

/// Streams over all multiprocessors, and the same with so many kept for who can wait, a layout each.
fn card(behind: &[u32]) -> Vec<Layout> {
    let streams: Layout = (0..STREAMS).map(|id| Partition::new(PartitionId(id), count(ALL))).collect();
    let mut layouts = vec![streams.clone()];
    for (number, units) in (0..).zip(behind) {
        let aside = Partition { aside: true, ..Partition::new(PartitionId(STREAMS + number), count(*units)) };
        layouts.push(streams.iter().copied().chain([aside]).collect());
    }
    layouts
}

fn simulation(behind: &[u32], harm: f64, dwell: Duration) -> Simulation<Card> {
    let config = Config {
        layouts: card(behind),
        overlap: true,
        max_lanes: count(4),
        max_items: count(8),
        dwell,
        ..Config::new(Policy::SpaceTime, Vec::new())
    };
    let mut simulation = Simulation::new(config, Card { harm });
    (0..100).for_each(|tenant| simulation.tenant(TenantId(tenant), Terms::best_effort(OwnerId(tenant))));
    simulation
}

/// Quick requests, class 1, 3 ms apart and due within so many, and long ones, of classes 20 and 22 in turn, so far apart, up to a moment.
fn ask(
    simulation: &mut Simulation<Card>,
    seconds: std::ops::Range<u64>,
    allowed_us: u64,
    long_every_us: u64,
) {
    let long = |at: u64| at % long_every_us < 1000;
    for at in (1_000_000 * seconds.start..1_000_000 * seconds.end).step_by(1000) {
        if (at / 1000).is_multiple_of(3) {
            let due = Some(us(at + allowed_us));
            simulation.offer(us(at), &Offer { deadline: due, ..offer(2 * at, at / 1000 % 7, 1) });
        }
        if long(at) {
            let due = Some(us(at + 1_000_000));
            let class = if (at / long_every_us).is_multiple_of(2) { 20 } else { 22 };
            simulation
                .offer(us(at), &Offer { deadline: due, ..offer(2 * at + 1, 50 + at / 1000 % 3, class) });
        }
    }
}

/// The part in time of the quick and of the long ones that came from one moment to another.
fn in_time(simulation: &Simulation<Card>, from_s: u64, to_s: u64) -> [f64; 2] {
    [0, 1].map(|class| {
        let all = simulation.outcomes.range(RequestId(2_000_000 * from_s)..RequestId(2_000_000 * to_s));
        let of = all.filter(|(request, _)| request.0 % 2 == class);
        let kept = of.clone().filter(|(_, outcome)| matches!(outcome, Outcome::Answered { .. })).count();
        kept as f64 / of.count().max(1) as f64
    })
}

fn aside(simulation: &Simulation<Card>) -> Option<u32> {
    simulation.scheduler.layout().last().filter(|last| last.aside).map(|last| last.units.get())
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_class_that_can_wait_goes_behind_one_that_is_late_beside_it_on_as_many_units_as_that_bears() {
    // Beside it on all units a quick one takes 4 of the 3.5 ms that it has; on half of them 2.5.
    let run = |behind: &[u32]| {
        let mut simulation = simulation(behind, 3.0, SECOND);
        ask(&mut simulation, 0..20, 3_500, 50_000);
        simulation.run_out();
        simulation
    };
    let (streams, mut cut) = (run(&[]), run(&[16, 32, 64]));
    let ([quick_before, long_before], [quick, long]) = (in_time(&streams, 5, 20), in_time(&cut, 5, 20));
    assert!(quick_before < 0.8, "{quick_before} of the quick ones beside the long ones");
    assert!(quick > 0.97 && long > 0.97 * long_before, "{quick} {long}, before {long_before}");
    assert_eq!(aside(&cut), Some(64));
    cut.scheduler.set_policy(Policy::SpaceTime, true);
    assert_eq!(aside(&cut), Some(64), "nothing is new about the policy");
    let long_launches = cut.history.iter().filter(|(at, launch)| {
        launch.plan != offer(0, 0, 1).plan && (us(5_000_000)..us(20_000_000)).contains(at)
    });
    let places: BTreeSet<PartitionId> = long_launches.map(|(_, launch)| launch.partition).collect();
    assert_eq!(places, BTreeSet::from([PartitionId(4)]), "the long ones keep to it");
}

#[test]
fn classes_that_are_in_time_beside_each_other_stay_on_streams() {
    let mut simulation = simulation(&[16, 32, 64], 3.0, SECOND);
    for start in 0..20 {
        ask(&mut simulation, start..start + 1, 20_000, 50_000);
        assert_eq!(aside(&simulation), None);
    }
}

#[test]
fn a_class_that_is_late_by_itself_sends_nobody_behind_for_long() {
    // No neighbour harms it: it is asked for four times as often as can be done in time.
    let mut simulation = simulation(&[16, 32, 64], 0.0, SECOND);
    let mut behind = 0;
    for start in 0..30 {
        for number in 0..8 {
            let at = 1_000_000 * start + 100 * number;
            simulation.offer(us(at), &offer(1_000_000_000 + at, 90, 20));
        }
        for at in (1_000_000 * start + 1000..1_000_000 * (start + 1)).step_by(125) {
            let due = Some(us(at + 1_500));
            simulation.offer(us(at), &Offer { deadline: due, ..offer(2 * at, at / 125 % 7, 1) });
        }
        behind += u32::from(aside(&simulation).is_some());
    }
    assert!(behind <= 2, "{behind} of 30 seconds");
}

#[test]
fn everybody_is_on_streams_again_when_the_quick_class_has_gone() {
    let mut simulation = simulation(&[16, 32, 64], 3.0, SECOND);
    ask(&mut simulation, 0..10, 3_500, 50_000);
    assert!(aside(&simulation).is_some());
    for at in (10_000_000..30_000_000).step_by(50_000) {
        simulation.offer(us(at), &offer(2 * at + 1, 50, 20));
    }
    assert_eq!(aside(&simulation), None);
}

#[test]
fn everybody_is_on_streams_again_when_the_long_class_has_become_quiet() {
    let mut simulation = simulation(&[16, 32, 64], 3.0, SECOND);
    ask(&mut simulation, 0..10, 3_500, 50_000);
    assert!(aside(&simulation).is_some());
    // Now one long one in five seconds, not twenty a second.
    let seconds = (10..25).take_while(|start| {
        ask(&mut simulation, *start..start + 1, 3_500, 5_000_000);
        aside(&simulation).is_some()
    });
    assert!(seconds.count() < 15);
}

#[test]
fn what_streams_lost_is_not_tried_again_because_all_is_well_without_them() {
    let mut simulation = simulation(&[16, 32, 64], 3.0, Duration::from_millis(200));
    ask(&mut simulation, 0..60, 3_500, 50_000);
    let (events, _) = simulation.scheduler.take_events(us(60_000_000));
    let moves = events.iter().filter(|event| matches!(event.what, Happened::Rearranged { .. })).count();
    // 300 looks: there at once, and one look back after 120 dwells.
    assert!((1..=4).contains(&moves), "{moves} changes");
    let [quick, long] = in_time(&simulation, 2, 60);
    assert!(quick > 0.95 && long > 0.95, "{quick} {long}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes: changes are a dwell apart, sizes are the device's, every request has one outcome, and what is promised is kept as costs are exact where nobody harms anybody.
    #[test]
    fn sizes_change_no_faster_than_a_dwell_and_break_no_promise(
        phases in prop::collection::vec((500u64..6_000, 5_000u64..400_000, 1u64..4), 1..4),
        harm in prop::sample::select(vec![0.0, 1.0, 3.0]),
        dwell_ms in 20u64..500,
        given: bool,
    ) {
        let dwell = Duration::from_millis(dwell_ms);
        let mut simulation = simulation(&[16, 32, 64], harm, dwell);
        let exact = given && harm == 0.0;
        if exact {
            let config = Config {
                layouts: card(&[16, 32, 64]),
                overlap: true,
                max_lanes: count(4),
                max_items: count(8),
                dwell,
                gain: 0.0001,
                given_costs: Some(std::sync::Arc::new(Card { harm })),
                ..Config::new(Policy::SpaceTime, Vec::new())
            };
            simulation = Simulation::new(config, Card { harm });
            (0..100).for_each(|tenant| simulation.tenant(TenantId(tenant), Terms::best_effort(OwnerId(tenant))));
        }
        let mut from = 0;
        for (allowed, every, seconds) in &phases {
            ask(&mut simulation, from..from + seconds, *allowed, *every);
            from += seconds;
        }
        simulation.run_out();
        let (events, _) = simulation.scheduler.take_events(Moment::at(Duration::from_secs(from + 60)));
        let mut last: Option<Moment> = None;
        for event in &events {
            let Happened::Rearranged { to, .. } = &event.what else { continue };
            prop_assert!(last.is_none_or(|last| event.at.since(last) >= dwell));
            last = Some(event.at);
            prop_assert!(to[..STREAMS as usize] == [count(ALL); STREAMS as usize], "{to:?}");
            prop_assert!(to[STREAMS as usize..].iter().all(|units| [16, 32, 64].contains(&units.get())), "{to:?}");
        }
        for request in simulation.admitted.keys() {
            prop_assert!(simulation.outcomes.contains_key(request));
        }
        if exact {
            for (request, admitted) in simulation.admitted.iter().filter(|(_, admitted)| admitted.promised) {
                let kept = matches!(simulation.outcomes[request], Outcome::Answered { at, .. } if Some(at) <= admitted.deadline);
                prop_assert!(kept, "{request}: {:?}", simulation.outcomes[request]);
            }
        }
    }
}
