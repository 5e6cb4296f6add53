//! Plans that are measured when they are loaded.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod common;

use common::{count, ms, offer, plan, us};
use std::time::Duration;
use tessera_core::{Bytes, Moment, OwnerId, PartitionId, Policy, TenantId};
use tessera_scheduler::{
    Config, Decision, Measure, Offer, Over, PlanWork, Profile, Refusal, Scheduler, Size, Terms,
};

/// A scheduler that has heard of plan 1 and of tenant 0, who wants its answers in 5 ms.
fn scheduler(policy: Policy) -> Scheduler {
    let mut scheduler = Scheduler::new(Config {
        max_lanes: count(12),
        max_items: count(16),
        ..Config::new(policy, vec![PartitionId(0)])
    });
    let work = PlanWork { flops_per_item: 1_000_000, bytes_per_item: Bytes(1000), weight_bytes: Bytes(1000) };
    scheduler.plan_known(&plan(1), work);
    let terms = Terms { slo: Some(Duration::from_millis(5)), ..Terms::best_effort(OwnerId(0)) };
    scheduler.tenant_added(ms(0), TenantId(0), terms);
    scheduler
}

/// Runs a profile on a device where launches take as long as `took` says by lanes and how many there were before. Answers the lanes of each launch, and when
/// it was over.
fn profile(
    scheduler: &mut Scheduler,
    limit: Duration,
    took: impl Fn(u32, usize) -> Duration,
) -> (Vec<u32>, Moment) {
    let mut profile = Profile::new(plan(1), count(12), Moment::START + limit);
    let (mut now, mut launches) = (Moment::START, Vec::new());
    loop {
        match scheduler.measure(now, &mut profile) {
            Measure::Launch { id, lanes, .. } => {
                let took = took(lanes.get(), launches.len());
                now = now + took;
                scheduler.measured(now, id, over(took, took), &mut profile);
                launches.push(lanes.get());
            }
            Measure::Busy => panic!("nobody else asks"),
            Measure::Done => return (launches, now),
        }
    }
}

fn over(took: Duration, computed: Duration) -> Over<'static> {
    Over { took, computed, ..Over::default() }
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn every_size_is_measured_and_its_cold_launch_does_not_count() {
    let mut scheduler = scheduler(Policy::SpaceTime);
    let took = |lanes, before| millis(u64::from(lanes)) * if before % 4 == 0 { 7 } else { 1 };
    let (launches, _) = profile(&mut scheduler, millis(1000), took);
    assert_eq!(launches, [1, 1, 1, 1, 2, 2, 2, 2, 8, 8, 8, 8, 12, 12, 12, 12]);
    for lanes in [1, 2, 8, 12] {
        let predicted = scheduler.predicted(&plan(1), Size { lanes, items: lanes }).unwrap();
        assert!(predicted.abs_diff(millis(u64::from(lanes))) < Duration::from_micros(1), "{predicted:?}");
    }
}

#[test]
fn the_limit_is_kept_and_what_was_measured_by_then_counts() {
    let mut scheduler = scheduler(Policy::SpaceTime);
    let (launches, over) = profile(&mut scheduler, millis(25), |lanes, _| millis(2 * u64::from(lanes)));
    assert_eq!(launches, [1, 1, 1, 1, 2, 2, 2, 2], "a launch of eight might take 16 ms");
    assert!(over <= ms(25), "{over:?}");
    let mut slow = self::scheduler(Policy::SpaceTime);
    let (launches, _) = profile(&mut slow, millis(25), |_, _| millis(31));
    assert_eq!(launches, [1], "what the first takes nobody knows");
    let verdict = slow.verdict(TenantId(0), &plan(1)).unwrap();
    assert!(!verdict.can_be_met() && verdict.to_string().starts_with("alone p99 31.00ms: cannot meet 5ms"));
}

#[test]
fn the_first_request_is_let_in_or_refused_by_what_was_measured() {
    let mut scheduler = scheduler(Policy::SpaceTime);
    let ask = |request, due| Offer { deadline: Some(ms(due)), ..offer(request, 0, 1) };
    assert!(scheduler.offer(ms(0), &ask(0, 1)).is_ok(), "a plan that was never measured refuses nobody");
    scheduler.cancel(ms(0), tessera_core::RequestId(0));
    let (_, now) = profile(&mut scheduler, millis(200), |lanes, _| millis(2 + u64::from(lanes)));
    let since = now.since(Moment::START).as_millis() as u64;
    let refused = scheduler.offer(now, &ask(1, since + 2)).unwrap_err();
    // What was measured, and an eighth that so little may not have shown.
    let Refusal::TooLate { predicted, .. } = refused else { panic!("{refused}") };
    assert!(predicted > millis(3) && predicted < millis(3).mul_f64(1.125), "{predicted:?}");
    assert!(scheduler.offer(now, &ask(2, since + 4)).unwrap().promised);
    assert_eq!(scheduler.prediction_error().launches, 0, "nothing was predicted wrongly by measuring");
}

#[test]
fn nothing_is_measured_while_others_wait_or_run_and_what_ran_beside_them_does_not_count() {
    let mut scheduler = scheduler(Policy::SpaceTime);
    let mut measured = Profile::new(plan(1), count(12), ms(1000));
    scheduler.offer(ms(0), &offer(0, 0, 1)).unwrap();
    assert_eq!(scheduler.measure(ms(0), &mut measured), Measure::Busy, "one waits");
    let Decision::Launch(launch) = scheduler.decide(ms(0)) else { panic!("it waits alone") };
    assert_eq!(scheduler.measure(ms(0), &mut measured), Measure::Busy, "one runs");
    scheduler.finished(ms(1), launch.id, millis(1), Duration::ZERO);
    let Measure::Launch { id, .. } = scheduler.measure(ms(1), &mut measured) else { panic!("it is idle") };
    scheduler.offer(ms(2), &offer(1, 0, 1)).unwrap();
    assert!(!matches!(scheduler.decide(ms(2)), Decision::Launch(_)), "the partition is taken");
    let before = scheduler.predicted(&plan(1), Size { lanes: 1, items: 1 });
    scheduler.measured(ms(90), id, over(millis(89), Duration::ZERO), &mut measured);
    let Decision::Launch(_) = scheduler.decide(ms(90)) else { panic!("it waited for one launch only") };
    assert_eq!(scheduler.predicted(&plan(1), Size { lanes: 1, items: 1 }), before);
}

#[test]
fn a_busy_device_ends_a_profile_when_its_time_is_over() {
    let mut scheduler = scheduler(Policy::SpaceTime);
    let mut measured = Profile::new(plan(1), count(12), ms(10));
    scheduler.offer(ms(0), &offer(0, 0, 1)).unwrap();
    assert_eq!(scheduler.measure(us(9_999), &mut measured), Measure::Busy);
    assert_eq!(scheduler.measure(us(10_001), &mut measured), Measure::Done);
    assert!(!scheduler.is_measured(&plan(1)));
}

#[test]
fn launches_of_one_tenant_are_measured_with_one_lane_and_a_plan_that_went_not_at_all() {
    let mut scheduler = scheduler(Policy::Time);
    let (launches, _) = profile(&mut scheduler, millis(1000), |_, _| millis(1));
    assert_eq!(launches, [1; 4]);
    scheduler.plan_dropped(&plan(1));
    let (launches, _) = profile(&mut scheduler, millis(1000), |_, _| millis(1));
    assert_eq!(launches, [0u32; 0]);
}
