//! What costs are taken to be, from nothing known to much.

use super::places::BESIDE;
use super::*;
use tessera_core::{Bytes, ClassId, PlanKey, Precision};

const PLAN: PlanIx = PlanIx(0);
const WHOLE: NonZeroU32 = NonZeroU32::new(4).expect("four units");
const WORK: PlanWork =
    PlanWork { flops_per_item: 40_000_000, bytes_per_item: Bytes(0), weight_bytes: Bytes(10_000_000) };

fn kin() -> Kin {
    Kin::of(&PlanKey { class: ClassId([1; 16]), dims: [].into(), precision: Precision::Fp32 })
}

fn size(lanes: u32, items: u32) -> Size {
    Size { lanes, items }
}

fn costs() -> Costs {
    Costs::new(CostSettings::default(), size(32, 128), WHOLE)
}

fn took(micros: u64) -> Measured {
    let took = Duration::from_micros(micros);
    Measured {
        at: Moment::START,
        units: WHOLE,
        company: Company::Alone,
        others: WHOLE,
        took,
        predicted: None,
        first: true,
    }
}

#[test]
fn a_plan_of_unknown_work_has_no_cost_until_it_is_measured() {
    let mut costs = costs();
    assert_eq!(costs.predict(PLAN, size(1, 1), WHOLE), None);
    costs.learn(PLAN, size(1, 1), took(500));
    assert_eq!(costs.predict(PLAN, size(1, 1), WHOLE), Some(Duration::from_micros(500)));
}

#[test]
fn before_any_launch_the_cost_is_the_roofline_at_guessed_rates() {
    let mut costs = costs();
    costs.plan_known(PLAN, kin(), WORK);
    // 20 µs + 4 × 1 ms of arithmetic + 2 × 1 ms of weights.
    assert_eq!(costs.predict(PLAN, size(2, 4), WHOLE), Some(Duration::from_micros(6020)));
}

#[test]
fn the_slowest_of_the_last_launches_counts_and_is_forgotten_after_a_window() {
    let mut costs = Costs::new(CostSettings { window: 4, ..CostSettings::default() }, size(32, 128), WHOLE);
    costs.learn(PLAN, size(1, 1), took(9000));
    for _ in 0..3 {
        costs.learn(PLAN, size(1, 1), took(500));
    }
    assert_eq!(costs.predict(PLAN, size(1, 1), WHOLE), Some(Duration::from_micros(9000)));
    costs.learn(PLAN, size(1, 1), took(500));
    assert_eq!(costs.predict(PLAN, size(1, 1), WHOLE), Some(Duration::from_micros(500)));
}

#[test]
fn a_size_never_run_borrows_the_ratio_of_the_nearest() {
    let mut costs = costs();
    costs.plan_known(PLAN, kin(), WORK);
    let guessed = costs.predict(PLAN, size(1, 1), WHOLE).expect("an estimate");
    costs.learn(PLAN, size(1, 1), Measured { took: guessed * 3, ..took(0) });
    let now = costs.predict(PLAN, size(8, 8), WHOLE).expect("measured").as_secs_f64();
    let ratio = now / shape(CostSettings::default(), Some(WORK), size(8, 8));
    assert!((ratio / surface::GUESSED - 3.0).abs() < 1e-6, "{ratio}");
}

#[test]
fn a_rare_slow_launch_misleads_no_prediction_and_counts_for_what_may_be_kept() {
    let mut costs = costs();
    (0..30).for_each(|_| costs.learn(PLAN, size(1, 1), took(500)));
    costs.learn(PLAN, size(1, 1), took(9000));
    assert_eq!(costs.predict(PLAN, size(1, 1), WHOLE), Some(Duration::from_micros(500)));
    assert_eq!(costs.alone(PLAN), Some(Duration::from_micros(9000)));
    (0..3).for_each(|_| costs.learn(PLAN, size(1, 1), took(9000)));
    assert_eq!(costs.predict(PLAN, size(1, 1), WHOLE), Some(Duration::from_micros(9000)));
}

#[test]
fn beside_others_of_other_units_a_launch_is_taken_to_be_alone_until_it_was_seen_there() {
    let mut costs = costs();
    let few = NonZeroU32::MIN;
    costs.learn(PLAN, size(1, 1), took(100));
    costs.learn(PLAN, size(1, 1), Measured { company: Company::Beside, ..took(400) });
    let predicted = |costs: &Costs| costs.predict(PLAN, size(1, 1), WHOLE).expect("measured").as_micros();
    assert_eq!(predicted(&costs), 400);
    costs.leave_to_others(few);
    assert_eq!(predicted(&costs), 100);
    costs.learn(PLAN, size(1, 1), Measured { company: Company::Beside, others: few, ..took(150) });
    assert_eq!(predicted(&costs), 150);
    costs.leave_to_others(WHOLE);
    assert_eq!(predicted(&costs), 400, "what is known of others elsewhere stays");
}

#[test]
fn a_small_launch_beside_others_takes_no_less_than_alone_where_only_a_large_one_was_seen() {
    let mut costs = costs();
    costs.plan_known(PLAN, kin(), WORK);
    costs.learn(PLAN, size(1, 1), took(300));
    costs.learn(PLAN, size(1, 100), Measured { company: Company::Beside, ..took(1500) });
    let predicted = |items| costs.predict_in(Company::Beside, PLAN, size(1, items), WHOLE);
    assert_eq!(predicted(1), Some(Duration::from_micros(300)));
    assert!(predicted(100) > Some(Duration::from_micros(1400)));
}

#[test]
fn launches_beside_others_are_known_apart_and_planned_for_while_they_are_seen() {
    let mut costs = costs();
    let beside = |micros| Measured { company: Company::Beside, ..took(micros) };
    let predict = |costs: &Costs, company| costs.predict_in(company, PLAN, size(1, 1), WHOLE);
    let us = |micros| Some(Duration::from_micros(micros));
    costs.learn(PLAN, size(1, 1), took(300));
    assert_eq!(predict(&costs, Company::Beside), us(300), "as alone, until it is known");
    costs.learn(PLAN, size(1, 1), beside(900));
    assert_eq!([Company::Alone, Company::Beside].map(|company| predict(&costs, company)), [us(300), us(900)]);
    assert_eq!(costs.predict(PLAN, size(1, 1), WHOLE), us(900));
    (0..BESIDE).for_each(|_| costs.learn(PLAN, size(1, 1), took(300)));
    assert_eq!(costs.predict(PLAN, size(1, 1), WHOLE), us(300));
    assert_eq!(predict(&costs, Company::Beside), us(900));
}

#[test]
fn no_line_leads_across_a_power_of_two_of_items() {
    let mut costs = costs();
    // ResNet-50 in bf16 on an H200, 12 lanes.
    for (items, micros) in [(12, 638), (16, 725), (17, 863), (24, 1027)] {
        costs.learn(PLAN, size(12, items), took(micros));
    }
    for (items, measured) in [(14, 678.0), (16, 725.0), (18, 892.0), (20, 949.0)] {
        let predicted = costs.predict(PLAN, size(12, items), WHOLE).expect("measured").as_secs_f64() * 1e6;
        assert!(
            (predicted / measured - 1.0).abs() < 0.02,
            "{items} items: {predicted} µs, {measured} measured"
        );
    }
}

#[test]
fn the_prediction_error_is_measured_over_predicted() {
    let mut costs = costs();
    for micros in [100, 100, 150] {
        let predicted = Some(Duration::from_micros(100));
        costs.learn(PLAN, size(1, 1), Measured { predicted, ..took(micros) });
    }
    let error = costs.prediction_error();
    assert_eq!((error.launches, error.slower), (3, 1));
    assert!(error.median < 1e-9 && (error.p99 - 0.5).abs() < 1e-9);
}

#[test]
fn a_smaller_partition_takes_as_much_longer_until_it_is_measured() {
    let mut costs = costs();
    let half = NonZeroU32::new(2).expect("two units");
    costs.learn(PLAN, size(1, 1), took(400));
    assert_eq!(costs.predict(PLAN, size(1, 1), half), Some(Duration::from_micros(800)));
    costs.learn(PLAN, size(1, 1), Measured { units: half, ..took(500) });
    assert_eq!(costs.predict(PLAN, size(1, 1), half), Some(Duration::from_micros(500)));
    assert_eq!(costs.predict(PLAN, size(1, 1), WHOLE), Some(Duration::from_micros(400)));
    assert_eq!(costs.predict(PLAN, size(1, 1), NonZeroU32::MIN), Some(Duration::from_micros(1000)));
}
