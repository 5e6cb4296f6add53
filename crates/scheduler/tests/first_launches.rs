//! Promises where most plans have hardly run: texts of many lengths, each a plan of its own.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod common;

use common::{count, offer, us};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tessera_core::{Bytes, ClassId, OwnerId, PartitionId, PlanKey, Policy, Precision, TenantId};
use tessera_scheduler::sim::{Outcome, Simulation};
use tessera_scheduler::{Config, CostTable, Offer, PlanWork, Size, Terms};

/// Lengths of the texts of each class, in tokens; so many plans of a class.
const LENGTHS: [u64; 17] = [8, 12, 16, 20, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256];

/// A plan: a class, for texts of one length.
fn text(class: u8, tokens: u64) -> PlanKey {
    PlanKey { class: ClassId([class; 16]), dims: [tokens].into(), precision: Precision::Fp32 }
}

/// What the planner says of it: a twentieth of a GFLOP for each token of the first class, three times as much of the second.
fn work(class: u8, tokens: u64) -> PlanWork {
    PlanWork {
        flops_per_item: u64::from(2 * class - 1) * 50_000_000 * tokens,
        bytes_per_item: Bytes(4000 * tokens),
        weight_bytes: Bytes(20_000_000),
    }
}

/// A device that is quicker than guessed by a factor that grows with what a launch has to do, a tenth more or less each time.
#[derive(Debug)]
struct Texts(AtomicU64);

impl CostTable for Texts {
    fn cost(&self, plan: &PlanKey, size: Size) -> Option<Duration> {
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        let spread = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1u64 << 24) as f64;
        let flops = work(plan.class.0[0], plan.dims[0]).flops(size);
        // A tenth of a millisecond for each lane's weights, and arithmetic that is half as quick on the shortest texts as on the longest.
        let rate = 2e12 * (0.5 + 0.5 * (plan.dims[0] as f64 / 256.0));
        let seconds = 2e-4 + 1e-4 * f64::from(size.lanes) + flops / rate;
        Some(Duration::from_secs_f64(seconds * (0.9 + 0.2 * spread)))
    }
}

/// Promises, and how many of them were late.
#[derive(Clone, Copy, Default, Debug)]
struct Kept {
    promised: u32,
    late: u32,
}

impl Kept {
    fn percent_late(self) -> f64 {
        100.0 * f64::from(self.late) / f64::from(self.promised)
    }
}

/// Requests of a load. In the first quarter most plans run for the first time, the third at most.
const REQUESTS: u64 = 3000;

/// Adds what came of a load of texts of two classes, requests so many microseconds apart in the mean, in which all plans were announced and none had run: of the first
/// quarter and of the rest.
fn load(seed: u64, apart: u64, [first, rest]: &mut [Kept; 2]) {
    let config = Config {
        max_lanes: count(4),
        max_items: count(8),
        ..Config::new(Policy::SpaceTime, vec![PartitionId(0)])
    };
    let mut simulation = Simulation::new(config, Texts(AtomicU64::new(seed)));
    for tenant in 0..8 {
        let slo = Some(Duration::from_millis(15 + 10 * (tenant % 3)));
        simulation.tenant(TenantId(tenant), Terms { slo, ..Terms::best_effort(OwnerId(tenant)) });
    }
    for tokens in LENGTHS {
        for class in [1, 2] {
            simulation.scheduler.plan_known(&text(class, tokens), work(class, tokens));
        }
    }
    let mut random = seed | 1;
    let mut draw = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) % below
    };
    let mut now = 0;
    for number in 0..REQUESTS {
        now += draw(2 * apart);
        let plan = text(1 + draw(2) as u8, LENGTHS[draw(LENGTHS.len() as u64) as usize]);
        simulation.offer(us(now), &Offer { plan, ..offer(number, draw(8), 1) });
    }
    simulation.run_out();
    for (request, admitted) in simulation.admitted.iter().filter(|(_, admitted)| admitted.promised) {
        let part = if request.0 < REQUESTS / 4 { &mut *first } else { &mut *rest };
        let outcome = &simulation.outcomes[request];
        let in_time =
            matches!(outcome, Outcome::Answered { at, .. } if Some(at) <= admitted.deadline.as_ref());
        part.promised += 1;
        part.late += u32::from(!in_time);
    }
}

/// Of 34 plans that never ran, promised from the first request on, at twice what the device can do, at what it can, and at ease.
#[test]
fn while_most_plans_run_for_the_first_time_hardly_a_promise_is_late() {
    for apart in [300, 600, 1500] {
        let mut kept = [Kept::default(); 2];
        (1..=40).for_each(|seed| load(7919 * seed, apart, &mut kept));
        let [first, rest] = kept;
        println!(
            "{apart} µs apart: {:.3} % of {first:?}, {:.3} % of {rest:?}",
            first.percent_late(),
            rest.percent_late()
        );
        assert!(first.promised > 1500 && first.percent_late() <= 0.1, "{apart} µs apart: {first:?}");
        assert!(rest.promised > 5000 && rest.percent_late() <= 0.1, "{apart} µs apart: {rest:?}");
    }
}
