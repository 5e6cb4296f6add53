//! Layouts that change while requests come: what is promised is kept, partitions that overlap never run at once (`Simulation` checks it at every
//! launch), changes keep their distance, and classes that are in each other's way are parted.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod common;

use common::{Exact, Noisy, count, ms, offer, us};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tessera_core::{Bytes, Moment, OwnerId, PartitionId, PlanKey, Policy, RequestId, TenantId};
use tessera_scheduler::sim::{Outcome, Simulation};
use tessera_scheduler::{
    Config, CostTable, Happened, Layout, Offer, Partition, PlanWork, Refusal, Size, Standing,
    StragglerSettings, Terms,
};

/// As [`Exact`], but what uses one core is as fast on one as on four: one lane a core.
#[derive(Clone, Debug)]
struct LaneACore;

impl CostTable for LaneACore {
    fn cost(&self, plan: &PlanKey, size: Size) -> Option<Duration> {
        self.on_share(plan, size, 1.0)
    }

    fn on_share(&self, plan: &PlanKey, size: Size, share: f64) -> Option<Duration> {
        let rounds = (f64::from(size.lanes) / (4.0 * share)).ceil();
        Some(Duration::from_millis(u64::from(plan.class.0[0])).mul_f64(rounds))
    }
}

/// Four cores, whole, in three and one, and in halves.
fn four_cores() -> Vec<Layout> {
    let partition = |id, units| Partition::new(PartitionId(id), count(units));
    vec![
        vec![partition(0, 4)],
        vec![partition(1, 3), partition(2, 1)],
        vec![partition(3, 2), partition(4, 2)],
    ]
}

fn config<C: CostTable + Clone + 'static>(costs: &C, layouts: Vec<Layout>) -> Config {
    Config {
        layouts,
        max_lanes: count(4),
        max_items: count(8),
        given_costs: Some(Arc::new(costs.clone())),
        ..Config::new(Policy::SpaceTime, vec![PartitionId(0)])
    }
}

/// A part of a load: so many requests of a class, so far apart, due so soon.
#[derive(Clone, Debug)]
struct Phase {
    class: u8,
    requests: u64,
    every_us: u64,
    allowed_ms: Option<u64>,
    tenants: u64,
}

fn phase() -> impl Strategy<Value = Phase> {
    let allowed = prop::option::weighted(0.8, 3u64..120);
    (1u8..30, 5u64..60, 200u64..6000, allowed, 1u64..4).prop_map(
        |(class, requests, every_us, allowed_ms, tenants)| Phase {
            class,
            requests,
            every_us,
            allowed_ms,
            tenants,
        },
    )
}

/// Every phase's requests beside those of the others, each phase begun a little after the one before.
fn merged(phases: &[Phase]) -> Vec<(u64, Offer)> {
    let mut all = Vec::new();
    for (number, phase) in (0..).zip(phases) {
        for request in 0..phase.requests {
            let at = 10_000 * number + request * phase.every_us;
            let due = phase.allowed_ms.map(|allowed| us(at + 1000 * allowed));
            let tenant = 10 * number + request % phase.tenants;
            all.push((at, Offer { deadline: due, ..offer(1000 * number + request, tenant, phase.class) }));
        }
    }
    all.sort_by_key(|(at, offer)| (*at, offer.request));
    all
}

fn with_tenants<C: CostTable>(config: Config, costs: C) -> Simulation<C> {
    let mut simulation = Simulation::new(config, costs);
    (0..100).for_each(|tenant| simulation.tenant(TenantId(tenant), Terms::best_effort(OwnerId(tenant % 7))));
    simulation
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Layouts that change as often as they like break no promise, lose no request and keep every tenant's order.
    #[test]
    fn no_promise_is_broken_by_changes_of_layout(
        phases in prop::collection::vec(phase(), 2..6),
        dwell in 5u64..60,
        ahead in 1u32..3,
        lead in 0u64..1000,
        max_wait in 0u64..3000,
        lane_a_core: bool,
    ) {
        let dwell = Duration::from_millis(dwell);
        let shape = |limits: Config| Config {
            dwell,
            gain: 0.0001,
            ahead: count(ahead),
            lead: Duration::from_micros(lead),
            max_wait: Duration::from_micros(max_wait),
            patience: Duration::from_millis(10),
            ..limits
        };
        let asks = merged(&phases);
        if lane_a_core {
            let simulation = with_tenants(shape(config(&LaneACore, four_cores())), LaneACore);
            keeps_its_promises(simulation, &asks, dwell)?;
        } else {
            let simulation = with_tenants(shape(config(&Exact, four_cores())), Exact);
            keeps_its_promises(simulation, &asks, dwell)?;
        }
    }
}

fn keeps_its_promises<C: CostTable>(
    mut simulation: Simulation<C>,
    asks: &[(u64, Offer)],
    dwell: Duration,
) -> Result<(), TestCaseError> {
    let mut changes = vec![];
    let mut layout = simulation.scheduler.layout().to_vec();
    for (at, offer) in asks {
        simulation.offer(us(*at), offer);
        if simulation.scheduler.layout() != layout {
            layout = simulation.scheduler.layout().to_vec();
            changes.push(*at);
        }
    }
    simulation.run_out();
    // Seen at the next arrival: three changes are two dwells apart whenever they are seen, less the time until the first was.
    for three in changes.windows(3) {
        prop_assert!(Duration::from_micros(three[2] - three[0]) >= dwell, "{changes:?}");
    }
    prop_assert_eq!(simulation.outcomes.len(), asks.len());
    for (request, admitted) in &simulation.admitted {
        let Some(due) = admitted.deadline else { continue };
        prop_assert!(admitted.promised, "a plan whose cost is known is promised or refused");
        match simulation.outcomes[request] {
            Outcome::Answered { at, .. } => prop_assert!(at <= due, "{request} at {at}, due {due}"),
            ref other => prop_assert!(false, "{request}: {other:?}"),
        }
    }
    let of: BTreeMap<RequestId, &Offer> = asks.iter().map(|(_, offer)| (offer.request, offer)).collect();
    let mut last = BTreeMap::new();
    for (_, launch) in &simulation.history {
        for lane in &launch.lanes {
            for (request, _) in &lane.requests {
                let flow = (lane.tenant, of[request].plan.clone(), of[request].deadline.is_some());
                let before = last.insert(flow, *request);
                prop_assert!(before.is_none_or(|before| before < *request), "{before:?} before {request}");
            }
        }
    }
    Ok(())
}

/// Ten seconds of a light class that cannot wait and a heavy one that can. The part in time of each, and how the device was cut at the end.
fn light_and_heavy(layouts: Vec<Layout>) -> (f64, f64, Vec<u32>) {
    let mut simulation = with_tenants(Config { gain: 0.03, ..config(&Exact, layouts) }, Exact);
    let mut asks = Vec::new();
    for number in 0..2000 {
        // A launch of one takes 1.1 ms on the whole device and 4.4 ms on a quarter of it.
        asks.push((
            5000 * number,
            Offer { deadline: Some(us(5000 * number + 15_000)), ..offer(number, number % 4, 1) },
        ));
    }
    for number in 0..50u64 {
        let at = 200_000 * number + 1700 * (number % 13);
        asks.push((
            at,
            Offer { deadline: Some(us(at + 400_000)), ..offer(10_000 + number, 50 + number % 2, 60) },
        ));
    }
    asks.sort_by_key(|(at, _)| *at);
    asks.iter().for_each(|(at, offer)| simulation.offer(us(*at), offer));
    let cut = simulation.scheduler.layout().iter().map(|partition| partition.units.get()).collect();
    simulation.run_out();
    let part = |from: u64, to: u64| {
        let all = simulation.outcomes.range(RequestId(from)..RequestId(to));
        let (mut kept, mut asked) = (0.0, 0.0);
        for (_, outcome) in all {
            asked += 1.0;
            kept += f64::from(u8::from(matches!(outcome, Outcome::Answered { .. })));
        }
        kept / asked
    };
    (part(0, 10_000), part(10_000, 20_000), cut)
}

#[test]
fn a_class_that_cannot_wait_gets_a_partition_beside_long_launches() {
    let (light_before, heavy_before, whole) = light_and_heavy(vec![four_cores()[0].clone()]);
    let (light, heavy, cut) = light_and_heavy(four_cores());
    assert_eq!(whole, [4]);
    assert!(light_before < 0.80, "{light_before}: blocked by 66 ms five times a second");
    assert!(light > 0.95 && heavy >= heavy_before && heavy > 0.95, "{light} {heavy}, before {heavy_before}");
    assert_eq!(cut.len(), 2, "{cut:?}");
}

#[test]
fn one_class_keeps_the_whole_device_however_hard_it_is_asked() {
    let mut simulation = with_tenants(config(&Exact, four_cores()), Exact);
    for number in 0..20_000 {
        let due = Some(us(200 * number + 10_000));
        simulation.offer(us(200 * number), &Offer { deadline: due, ..offer(number, number % 10, 2) });
        assert_eq!(simulation.scheduler.layout().len(), 1);
    }
    let refused = simulation
        .outcomes
        .values()
        .filter(|outcome| matches!(outcome, Outcome::Refused(Refusal::TooLate { .. })));
    assert!(refused.count() > 0, "it was asked for more than it could");
}

#[test]
fn classes_that_are_not_in_each_others_way_share_the_whole_device() {
    let mut simulation = with_tenants(config(&Exact, four_cores()), Exact);
    for number in 0..3000 {
        let due = Some(us(2000 * number + 50_000));
        simulation.offer(
            us(2000 * number),
            &Offer { deadline: due, ..offer(number, number % 10, 1 + (number % 3) as u8) },
        );
        assert_eq!(simulation.scheduler.layout().len(), 1);
    }
}

#[test]
fn the_whole_device_is_in_force_again_when_the_heavy_class_has_gone() {
    let mut simulation = with_tenants(config(&Exact, four_cores()), Exact);
    let mut parted = false;
    for number in 0..6000 {
        let at = 2000 * number;
        simulation.offer(us(at), &Offer { deadline: Some(us(at + 15_000)), ..offer(number, number % 4, 1) });
        if at < 4_000_000 && number % 100 == 0 {
            simulation.offer(
                us(at),
                &Offer { deadline: Some(us(at + 400_000)), ..offer(100_000 + number, 50, 60) },
            );
        }
        parted |= simulation.scheduler.layout().len() == 2;
    }
    assert!(parted);
    assert_eq!(simulation.scheduler.layout().len(), 1);
    let (events, _) = simulation.scheduler.take_events(us(12_000_000));
    let cuts = events.into_iter().filter_map(|event| match event.what {
        Happened::Rearranged { from, to, before, predicted } => Some((from, to, before, predicted)),
        _ => None,
    });
    let cuts: Vec<_> = cuts.collect();
    let [(whole, two, before, after), (again_two, again_whole, ..)] = cuts.as_slice() else {
        panic!("there and back, {cuts:?}")
    };
    assert_eq!((whole, two), (again_whole, again_two));
    assert_eq!(whole, &[count(4)]);
    assert!(after > before, "with the reason: {cuts:?}");
}

/// Every launch of what only reads takes as long as one that only computes: 20 ms.
#[derive(Clone, Debug)]
struct Twenty;

impl CostTable for Twenty {
    fn cost(&self, _: &PlanKey, _: Size) -> Option<Duration> {
        Some(Duration::from_millis(20))
    }

    fn on_share(&self, plan: &PlanKey, size: Size, _: f64) -> Option<Duration> {
        self.cost(plan, size)
    }
}

/// Two partitions; a promised launch that computes runs on one, for 20 of the 25 ms that it may take. When best effort of this work starts beside it.
fn best_effort_beside_a_promised_launch(work: PlanWork) -> Option<Moment> {
    let two = vec![Partition::new(PartitionId(0), count(1)), Partition::new(PartitionId(1), count(1))];
    let mut simulation =
        with_tenants(Config { patience: Duration::from_millis(15), ..config(&Twenty, vec![two]) }, Twenty);
    let computes = PlanWork { flops_per_item: 1_000_000_000, ..PlanWork::default() };
    simulation.scheduler.plan_known(&offer(0, 0, 1).plan, computes);
    simulation.scheduler.plan_known(&offer(0, 0, 2).plan, work);
    simulation.offer(us(0), &Offer { deadline: Some(us(25_000)), ..offer(0, 0, 1) });
    simulation.offer(us(1000), &offer(1, 1, 2));
    simulation.run_out();
    let started = simulation.history.iter().find(|(_, launch)| launch.plan == offer(0, 0, 2).plan);
    started.map(|(at, _)| *at)
}

#[test]
fn best_effort_goes_beside_a_promised_launch_of_the_opposite_profile_and_waits_for_one_of_the_same() {
    let reads = PlanWork { bytes_per_item: Bytes(1_000_000_000), ..PlanWork::default() };
    assert_eq!(best_effort_beside_a_promised_launch(reads), Some(us(1000)));
    let computes = PlanWork { flops_per_item: 1_000_000_000, ..PlanWork::default() };
    let started = best_effort_beside_a_promised_launch(computes).unwrap();
    // Its patience of 15 ms ends before what runs beside it does.
    assert!(started > us(16_000) && started < us(16_100), "{started:?}");
}

#[test]
fn best_effort_does_not_wait_for_a_promised_launch_that_is_aside() {
    let aside = Partition { aside: true, ..Partition::new(PartitionId(1), count(1)) };
    let layout = vec![Partition::new(PartitionId(0), count(1)), aside];
    let stragglers = StragglerSettings { after: Duration::ZERO, ..StragglerSettings::default() };
    let patience = Duration::from_millis(15);
    let limits = Config { patience, stragglers, reserve: 0.0, ..config(&Twenty, vec![layout]) };
    let mut simulation = with_tenants(limits, Twenty);
    let computes = PlanWork { flops_per_item: 1_000_000_000, ..PlanWork::default() };
    simulation.scheduler.plan_known(&offer(0, 0, 1).plan, computes);
    let slow = TenantId(0);
    simulation.slow(slow, 5.0);
    let mut at = 0;
    while simulation.scheduler.pace(slow).standing != Standing::Apart {
        (0..4).for_each(|tenant| simulation.offer(us(at), &offer(at + tenant, tenant, 1)));
        simulation.run_out();
        at += 500_000;
        assert!(at < 20_000_000, "it is never evicted");
    }
    // Taken to need 300 ms: hardly anything is left beside it.
    simulation.offer(us(at), &Offer { deadline: Some(us(at + 310_000)), ..offer(at, 0, 1) });
    simulation.offer(us(at + 1000), &offer(at + 1, 1, 1));
    simulation.run_out();
    let launches = simulation.history.iter().rev().map(|(at, launch)| (*at, launch.partition));
    let expected = [(us(at + 1000), PartitionId(0)), (us(at), PartitionId(1))];
    assert_eq!(launches.take(2).collect::<Vec<_>>(), expected);
}

/// Two partitions, one for each of two classes: 4 ms that is wanted within 10, and 40 ms that is wanted in the end.
fn parted() -> Simulation<Exact> {
    let partition = |id, units| Partition::new(PartitionId(id), count(units));
    let layouts = vec![vec![partition(0, 2)], vec![partition(1, 1), partition(2, 1)]];
    let mut simulation = with_tenants(config(&Exact, layouts), Exact);
    for number in 0..400u64 {
        let at = 5000 * number;
        simulation.offer(us(at), &Offer { deadline: Some(us(at + 10_000)), ..offer(number, 0, 2) });
        if number % 20 == 0 {
            simulation.offer(us(at), &offer(10_000 + number, 1, 20));
        }
    }
    assert_eq!(simulation.scheduler.layout().len(), 2);
    simulation
}

#[test]
fn a_long_launch_does_not_visit_the_partition_of_a_class_that_cannot_wait_for_it() {
    let mut simulation = parted();
    let mut at = 3_000_000;
    // Ten of the long ones at once, and nobody else: half of the device stays free for who may come.
    (0..10).for_each(|number| simulation.offer(us(at), &offer(20_000 + number, 2 + number, 20)));
    let late_before =
        simulation.outcomes.values().filter(|outcome| matches!(outcome, Outcome::Refused(_))).count();
    for number in 0..20 {
        at += 7000;
        let due = Some(us(at + 10_000));
        simulation.offer(us(at), &Offer { deadline: due, ..offer(30_000 + number, 0, 2) });
    }
    simulation.run_out();
    let late = simulation.outcomes.values().filter(|outcome| matches!(outcome, Outcome::Refused(_))).count();
    assert_eq!(late, late_before, "nobody of the urgent met a long launch");
    let lines = |class: u8| -> BTreeSet<PartitionId> {
        let of = simulation
            .history
            .iter()
            .filter(|(at, launch)| *at >= us(3_000_000) && launch.plan == offer(0, 0, class).plan);
        of.map(|(_, launch)| launch.partition).collect()
    };
    assert_eq!(lines(20).len(), 1, "the long ones keep to their own");
}

/// Light and heavy requests in turn, as in [`light_and_heavy`], through a change of layouts; `drop` says at which request both plans are dropped.
fn with_plans_dropped(costs: Option<Arc<dyn CostTable>>, drop: impl Fn(u64) -> bool) -> Simulation<Exact> {
    let limits = Config { given_costs: costs, ..config(&Exact, four_cores()) };
    let mut simulation = with_tenants(limits, Exact);
    for number in 0..1200 {
        let at = 5000 * number;
        let due = Some(us(at + 15_000));
        simulation.offer(us(at), &Offer { deadline: due, ..offer(number, number % 4, 1) });
        if number % 40 == 0 {
            let due = Some(us(at + 400_000));
            simulation.offer(us(at), &Offer { deadline: due, ..offer(100_000 + number, 50, 60) });
        }
        if drop(number) {
            simulation.run_out();
            simulation.scheduler.plan_dropped(&offer(0, 0, 1).plan);
            simulation.scheduler.plan_dropped(&offer(0, 0, 60).plan);
        }
    }
    simulation.run_out();
    simulation
}

#[test]
fn plans_that_were_asked_for_and_dropped_are_not_judged_any_more() {
    // Once in a dwell, on either side of it, and after the device was parted.
    for every in [37, 150, 390] {
        for costs in [None, Some(Arc::new(Exact) as Arc<dyn CostTable>)] {
            let simulation = with_plans_dropped(costs, |number| number % every == every - 1);
            assert_eq!(simulation.outcomes.len(), 1230);
        }
    }
}

#[test]
fn a_plan_that_is_dropped_and_not_asked_for_again_leaves_the_device_whole() {
    let mut simulation = parted();
    simulation.run_out();
    simulation.scheduler.plan_dropped(&offer(0, 0, 20).plan);
    for number in 0..400 {
        let at = 4_000_000 + 5000 * number;
        simulation.offer(us(at), &Offer { deadline: Some(us(at + 10_000)), ..offer(50_000 + number, 0, 2) });
    }
    assert_eq!(simulation.scheduler.layout().len(), 1);
}

/// Half a minute of a light class, and a heavy one that comes and goes; costs are learnt. Promises, those that were not kept, and in how many ways the device was
/// cut.
fn learning(layouts: Vec<Layout>) -> (u32, u32, usize) {
    let mut simulation =
        with_tenants(Config { given_costs: None, ..config(&Exact, layouts) }, Noisy::default());
    let mut seen = BTreeSet::new();
    let mut request = 0;
    for step in 0..6000u64 {
        let at = 5000 * step;
        let mut ask = |allowed: u64, tenant, class| {
            request += 1;
            simulation
                .offer(us(at), &Offer { deadline: Some(us(at + allowed)), ..offer(request, tenant, class) });
        };
        ask(15_000, step % 4, 1);
        if step % 40 == 0 && (step / 1000) % 2 == 0 {
            ask(500_000, 50 + step % 2, 60);
        }
        seen.insert(simulation.scheduler.layout().len());
    }
    simulation.run_out();
    let promised = simulation.admitted.iter().filter(|(_, admitted)| admitted.promised);
    let (mut all, mut late) = (0, 0);
    for (request, admitted) in promised {
        all += 1;
        let kept = matches!(simulation.outcomes[request], Outcome::Answered { at, .. } if Some(at) <= admitted.deadline);
        late += u32::from(!kept);
    }
    (all, late, seen.len())
}

#[test]
fn with_learnt_costs_changes_of_layout_break_no_more_promises_than_learning_does() {
    let (promised, late, ways) = learning(four_cores());
    let (promised_whole, late_whole, one) = learning(vec![four_cores()[0].clone()]);
    assert_eq!((ways, one), (2, 1), "it was parted and put together again");
    assert!(promised > promised_whole, "{promised} {promised_whole}");
    assert!(late <= late_whole + promised / 1000, "{late} of {promised}, {late_whole} of {promised_whole}");
}

/// Every class asks for eight requests a millisecond, from tenants of its own, on a card of four streams. Which partitions its launches ran on after the first
/// tenth of a second.
fn streams_used(classes: u8) -> BTreeSet<PartitionId> {
    let streams: Vec<PartitionId> = (0..4).map(PartitionId).collect();
    let config = Config {
        given_costs: Some(Arc::new(Exact)),
        overlap: true,
        dwell: Duration::from_millis(50),
        ..Config::new(Policy::SpaceTime, streams)
    };
    let mut simulation = Simulation::new(config, Exact);
    let tenants = u64::from(classes) * 8;
    for tenant in 0..tenants {
        simulation.tenant(TenantId(tenant), Terms::best_effort(OwnerId(tenant)));
    }
    for at in 0..300 {
        for tenant in 0..tenants {
            let class = u8::try_from(tenant / 8).unwrap() + 1;
            simulation.offer(ms(at), &offer(at * tenants + tenant, tenant, class));
        }
    }
    let (_, history) = simulation.finish();
    history.iter().filter(|(at, _)| *at >= ms(100)).map(|(_, launch)| launch.partition).collect()
}

#[test]
fn as_many_streams_are_in_use_as_there_are_classes() {
    let used: Vec<usize> = [1, 2, 4].into_iter().map(|classes| streams_used(classes).len()).collect();
    assert_eq!(used, [1, 2, 4]);
}
