//! What a decision costs while very many wait.
//!
//! **Claim**: with 10,000 tenants and 100,000 requests queued, `decide` takes at most 20 µs and 0.2 µs for every lane of a launch at the 99th percentile, and grows no
//! faster than the logarithm of how many are queued. That holds for the call that launches, and for the one after it (`then`), which takes what was launched
//! out of the orders (`Queues::tidy`) and finds nothing to do: it runs beside the launch, but who comes meanwhile waits for it. **Refuted** by a row over its limit, or by a median
//! that from 1,000 queued to 100,000 grows by more than log 100,000 / log 1,000 = 1.67 for each request that is launched.
//!
//! Growth is judged by the request because the rows do not launch the same: of 1,000 that wait in ten classes a launch of 64 lanes finds 70 requests or fewer, of 100,000 as
//! many as it may carry, 128. The growth of the whole call, which has both in it, is printed beside it and not judged.
//!
//! Requests have deadlines, or none and waited beyond their patience, so that owners come in turn, or half of each. Owners either keep to one class each or
//! have tenants of every class. A call during which the core went to another process is not counted.
//!
//!   cargo bench -p tessera-scheduler --bench decide [-- WORDS of the loads to run]

#![allow(clippy::disallowed_methods)] // a bench has a clock

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tessera_core::{
    Bytes, ClassId, LaunchId, Moment, OwnerId, PartitionId, PlanKey, Policy, Precision, RequestId, TenantId,
};
use tessera_scheduler::{Config, CostTable, Decision, Offer, Scheduler, Size, Terms};

const TENANTS: u64 = 10_000;
const OWNERS: u64 = 500;
const CLASSES: u64 = 10;
const LAUNCHES: usize = 5_000;
const QUEUED: [usize; 3] = [1_000, 10_000, 100_000];
const LANES: [u32; 3] = [8, 32, 64];

/// 100 µs a launch and 2 µs an item.
#[derive(Debug)]
struct Flat;

impl CostTable for Flat {
    fn cost(&self, _: &PlanKey, size: Size) -> Option<Duration> {
        Some(Duration::from_nanos(100_000 + 2_000 * u64::from(size.items)))
    }
}

/// Which requests have deadlines, and whose tenants are of which class.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    promised: fn(u64) -> bool,
    class: fn(u64) -> u64,
}

const LOADS: [Load; 4] = [
    Load { name: "promised", promised: |_| true, class: |tenant| tenant % CLASSES },
    Load { name: "best effort", promised: |_| false, class: |tenant| tenant % CLASSES },
    Load { name: "mixed", promised: |tenant| tenant % 20 < 10, class: |tenant| tenant % CLASSES },
    Load { name: "owners everywhere", promised: |_| false, class: |tenant| tenant / OWNERS % CLASSES },
];

struct Bench {
    scheduler: Scheduler,
    now: Moment,
    requests: u64,
    random: u64,
    load: Load,
}

/// Times of one row.
#[derive(Default)]
struct Times {
    decides: Vec<Duration>,
    /// The same, less what is allowed for their lanes.
    beyond_lanes: Vec<Duration>,
    then: Vec<Duration>,
    then_beyond_lanes: Vec<Duration>,
    offers: Vec<Duration>,
    lanes: usize,
    items: usize,
}

/// The worst of all rows.
#[derive(Default)]
struct Worst {
    /// The 99th percentile, less what is allowed for lanes.
    beyond_lanes: f64,
    growth: f64,
    /// For each request that is launched.
    growth_each: f64,
}

impl Bench {
    fn new(load: Load, lanes: u32) -> Bench {
        let count = |n: u32| NonZeroU32::new(n).expect("not zero");
        let config = Config {
            queue_requests: count(1_000_000),
            max_lanes: count(lanes),
            max_items: count(2 * lanes),
            given_costs: Some(Arc::new(Flat)),
            // Enough for everything to be let in: what is measured is a full house.
            reserve: 0.0,
            ..Config::new(Policy::SpaceTime, vec![PartitionId(0)])
        };
        let mut scheduler = Scheduler::new(config);
        for tenant in 0..TENANTS {
            scheduler.tenant_added(
                Moment::START,
                TenantId(tenant),
                Terms::best_effort(OwnerId(tenant % OWNERS)),
            );
        }
        Bench { scheduler, now: Moment::START, requests: 0, random: 1, load }
    }

    fn offer(&mut self) -> Duration {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let tenant = (self.random >> 33) % TENANTS;
        let allowed = Duration::from_secs(60 + (self.random >> 50) % 600);
        let offer = Offer {
            request: RequestId(self.requests),
            tenant: TenantId(tenant),
            plan: PlanKey {
                class: ClassId([(self.load.class)(tenant) as u8; 16]),
                dims: [].into(),
                precision: Precision::Fp32,
            },
            items: NonZeroU32::MIN,
            bytes: Bytes(1),
            deadline: (self.load.promised)(tenant).then_some(self.now + allowed),
            batchable: true,
        };
        self.requests += 1;
        let start = Instant::now();
        self.scheduler.offer(self.now, &offer).expect("there is room for everybody");
        start.elapsed()
    }

    /// Launches, and refills what left.
    fn measure(&mut self, queued: usize) -> Times {
        let mut times = Times::default();
        while self.scheduler.queued() < queued {
            times.offers.push(self.offer());
        }
        for launch in 0..LAUNCHES {
            let before = switches();
            let start = Instant::now();
            let decision = self.scheduler.decide(self.now);
            let took = start.elapsed();
            let Decision::Launch(launched) = decision else { panic!("{decision:?} with requests waiting") };
            let start = Instant::now();
            let then = self.scheduler.decide(self.now);
            let after = start.elapsed();
            assert!(!matches!(then, Decision::Launch(_)), "the only partition is busy");
            // Where many share the machine, another process may have had the core meanwhile.
            if switches() == before && launch > LAUNCHES / 10 {
                let lanes = launched.lanes.len();
                let allowed = Duration::from_nanos(200) * lanes as u32;
                times.beyond_lanes.push(took.saturating_sub(allowed));
                times.then_beyond_lanes.push(after.saturating_sub(allowed));
                times.decides.push(took);
                times.then.push(after);
                times.lanes += lanes;
                times.items += launched.lanes.iter().map(|lane| lane.items as usize).sum::<usize>();
            }
            let ran = launched.predicted.unwrap_or_default();
            self.now = self.now + ran;
            let id: LaunchId = launched.id;
            self.scheduler.finished(self.now, id, ran, ran);
            while self.scheduler.queued() < queued {
                times.offers.push(self.offer());
            }
        }
        times
    }
}

/// How often the core was taken from this thread, where the system says so.
fn switches() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// In microseconds.
fn quantile(values: &mut [Duration], q: f64) -> f64 {
    values.sort_unstable();
    values[((values.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e6
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    println!("{TENANTS} tenants, {OWNERS} owners, {CLASSES} classes, {LAUNCHES} launches a row; µs");
    println!(
        "{:<18} {:>7} {:>6} {:>6} {:>6} {:>7} {:>7} {:>7} {:>12} {:>9} {:>9} {:>12} {:>9} {:>9}",
        "load",
        "queued",
        "lanes",
        "mean",
        "items",
        "p50",
        "p99",
        "p99.9",
        "p99 - lanes",
        "then p50",
        "then p99",
        "then - lanes",
        "offer p50",
        "offer p99"
    );
    let (mut decide, mut then) = (Worst::default(), Worst::default());
    for load in
        LOADS.iter().filter(|load| words.is_empty() || words.iter().any(|word| load.name.contains(word)))
    {
        for lanes in LANES {
            let mut first: Option<[f64; 2]> = None;
            let mut items_of_first = None;
            for queued in QUEUED {
                let mut times = Bench::new(*load, lanes).measure(queued);
                let p50 = [quantile(&mut times.decides, 0.5), quantile(&mut times.then, 0.5)];
                let items = times.items as f64 / times.decides.len() as f64;
                let beyond =
                    [&mut times.beyond_lanes, &mut times.then_beyond_lanes].map(|of| quantile(of, 0.99));
                println!(
                    "{:<18} {queued:>7} {lanes:>6} {:>6.1} {items:>6.1} {:>7.1} {:>7.1} {:>7.1} {:>12.1} {:>9.1} {:>9.1} {:>12.1} {:>9.1} {:>9.1}",
                    load.name,
                    times.lanes as f64 / times.decides.len() as f64,
                    p50[0],
                    quantile(&mut times.decides, 0.99),
                    quantile(&mut times.decides, 0.999),
                    beyond[0],
                    p50[1],
                    quantile(&mut times.then, 0.99),
                    beyond[1],
                    quantile(&mut times.offers, 0.5),
                    quantile(&mut times.offers, 0.99),
                );
                let (before, fewer) = (*first.get_or_insert(p50), *items_of_first.get_or_insert(items));
                for (at, worst) in [&mut decide, &mut then].into_iter().enumerate() {
                    worst.beyond_lanes = worst.beyond_lanes.max(beyond[at]);
                    worst.growth = worst.growth.max(p50[at] / before[at]);
                    worst.growth_each = worst.growth_each.max(p50[at] / items / (before[at] / fewer));
                }
            }
        }
    }
    let allowed = (QUEUED[2] as f64).ln() / (QUEUED[0] as f64).ln();
    let verdict = |kept: bool| if kept { "kept" } else { "NOT kept" };
    for (name, Worst { beyond_lanes, growth, growth_each }) in [("decide", decide), ("then", then)] {
        println!(
            "{name}: p99 less 0.2 a lane, the worst row: {beyond_lanes:.1} of 20 allowed: {}",
            verdict(beyond_lanes <= 20.0)
        );
        println!(
            "{name}: growth of the median for each request from {} to {} queued, the worst: {growth_each:.2} (of the whole {growth:.2}), log n grows by {allowed:.2}: {}",
            QUEUED[0],
            QUEUED[2],
            verdict(growth_each <= allowed)
        );
    }
}
