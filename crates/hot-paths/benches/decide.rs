//! The scheduler with 10,000 tenants and 100,000 queued requests: one decision, with the launch's end and the requests that take its place.
//!
//! The bar for a decision alone is 20 µs and 0.2 µs a lane at the 99th percentile, printed first; criterion's mean follows, of the whole turn.

use criterion::{Criterion, criterion_group, criterion_main};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};
use tessera_core::{
    Bytes, ClassId, Moment, OwnerId, PartitionId, PlanKey, Policy, Precision, RequestId, TenantId,
};
use tessera_scheduler::{Config, Decision, LaunchPlan, Offer, Scheduler, Terms};

const TENANTS: u64 = 10_000;
const QUEUED: u64 = 100_000;
const CLASSES: u64 = 20;
const OWNERS: u64 = 500;
const LANES: NonZeroU32 = NonZeroU32::new(32).expect("it is not zero");

/// A scheduler under load, and the clock of its world.
struct World {
    scheduler: Scheduler,
    now: Duration,
    requests: u64,
}

impl World {
    fn new() -> World {
        let defaults = Config::new(Policy::SpaceTime, vec![PartitionId(0)]);
        let mut scheduler = Scheduler::new(Config { max_lanes: LANES, ..defaults });
        for tenant in 0..TENANTS {
            let terms = Terms::best_effort(OwnerId(tenant % OWNERS));
            // Half of them have an objective, all of them far enough to be let in.
            let slo = (tenant.is_multiple_of(2)).then_some(Duration::from_secs(3600 + tenant % 977));
            scheduler.tenant_added(Moment::at(Duration::ZERO), TenantId(tenant), Terms { slo, ..terms });
        }
        let mut world = World { scheduler, now: Duration::ZERO, requests: 0 };
        while world.scheduler.queued() < QUEUED as usize {
            world.offer();
        }
        world
    }

    fn offer(&mut self) {
        let number = self.requests;
        self.requests += 1;
        // A stride that is prime to the number of tenants visits all of them in an irregular order.
        let tenant = number.wrapping_mul(7919) % TENANTS;
        let mut class = [0; 16];
        class[0] = (tenant % CLASSES) as u8;
        let deadline = (tenant.is_multiple_of(2))
            .then(|| Moment::at(self.now + Duration::from_secs(3600 + tenant % 977)));
        let offer = Offer {
            request: RequestId(number),
            tenant: TenantId(tenant),
            plan: PlanKey { class: ClassId(class), dims: [].into(), precision: Precision::Fp32 },
            items: NonZeroU32::MIN,
            bytes: Bytes(1),
            deadline,
            batchable: true,
        };
        self.scheduler.offer(Moment::at(self.now), &offer).expect("queues have room");
    }

    /// One decision, and how long it took; the launch ends at once in the world's time.
    fn decide(&mut self) -> (Duration, LaunchPlan) {
        loop {
            let start = Instant::now();
            let decision = self.scheduler.decide(Moment::at(self.now));
            let took = start.elapsed();
            match decision {
                Decision::Launch(launch) => return (took, launch),
                Decision::SleepUntil(_) | Decision::Idle => self.now += Duration::from_millis(1),
            }
        }
    }

    fn turn(&mut self) -> (Duration, usize) {
        let (took, launch) = self.decide();
        self.now += Duration::from_millis(1);
        let millisecond = Duration::from_millis(1);
        self.scheduler.finished(Moment::at(self.now), launch.id, millisecond, millisecond);
        (0..launch.requests().count()).for_each(|_| self.offer());
        (took, launch.lanes.len())
    }
}

fn decide(criterion: &mut Criterion) {
    let mut world = World::new();
    let mut turns: Vec<(Duration, usize)> = (0..20_000).map(|_| world.turn()).collect();
    turns.sort_unstable();
    let [median, late, last] = [10_000, 19_800, 19_999].map(|rank| turns[rank]);
    let allowed = Duration::from_micros(20) + late.1 as u32 * Duration::from_nanos(200);
    println!(
        "decide of {TENANTS} tenants, {QUEUED} queued: median {:?}, 99th percentile {:?} for {} lanes (bar {allowed:?}), worst {:?}",
        median.0, late.0, late.1, last.0
    );
    criterion.bench_function("decide/turn", |bencher| bencher.iter(|| world.turn()));
}

criterion_group!(benches, decide);
criterion_main!(benches);
