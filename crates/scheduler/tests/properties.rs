//! What holds for whatever comes: promises, order, answers, bounds, shares. Every failure prints its seed and shrinks.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod common;

use common::{Exact, Noisy, Segments, count, offer, plan, us};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tessera_core::{OwnerId, PartitionId, PlanKey, Policy, RequestId, TenantId};
use tessera_scheduler::sim::{Outcome, Simulation};
use tessera_scheduler::{Config, CostTable, Offer, Refusal, Size, Terms};

/// One request of a random load.
#[derive(Clone, Copy, Debug)]
struct Ask {
    tenant: u64,
    class: u8,
    items: u32,
    /// Microseconds after the one before.
    after: u64,
    /// Milliseconds to its deadline.
    allowed: Option<u64>,
    batchable: bool,
    /// Microseconds until its sender gives up.
    gives_up: Option<u64>,
}

fn ask(tenants: u64) -> impl Strategy<Value = Ask> {
    let allowed = prop::option::weighted(0.7, 2u64..60);
    let gives_up = prop::option::weighted(0.1, 0u64..20_000);
    (0..tenants, 1u8..4, 1u32..4, 0u64..3000, allowed, any::<bool>(), gives_up).prop_map(
        |(tenant, class, items, after, allowed, batchable, gives_up)| Ask {
            tenant,
            class,
            items,
            after,
            allowed,
            batchable,
            gives_up,
        },
    )
}

#[derive(Clone, Debug)]
struct Shape {
    policy: Policy,
    tenant_batching: bool,
    max_lanes: u32,
    partitions: u64,
    ahead: u32,
    lead: u64,
    max_wait: u64,
    /// Segments of a launch; none where the device does not yield.
    segments: Option<u32>,
}

fn shape(policies: &'static [Policy]) -> impl Strategy<Value = Shape> {
    let policy = prop::sample::select(policies);
    let segments = prop::option::of(1u32..20);
    (policy, any::<bool>(), 1u32..5, 1u64..4, 1u32..3, 0u64..1000, 0u64..3000, segments).prop_map(
        |(policy, tenant_batching, max_lanes, partitions, ahead, lead, max_wait, segments)| Shape {
            policy,
            tenant_batching,
            max_lanes,
            partitions,
            ahead,
            lead,
            max_wait,
            segments,
        },
    )
}

/// What the device of a shape takes.
fn costs(shape: &Shape) -> Arc<dyn CostTable> {
    match shape.segments {
        Some(segments) => Arc::new(Segments(segments)),
        None => Arc::new(Exact),
    }
}

fn config(shape: &Shape) -> Config {
    Config {
        tenant_batching: shape.tenant_batching,
        max_lanes: count(shape.max_lanes),
        max_items: count(6),
        ahead: count(shape.ahead),
        lead: Duration::from_micros(shape.lead),
        max_wait: Duration::from_micros(shape.max_wait),
        patience: Duration::from_millis(10),
        given_costs: Some(costs(shape)),
        ..Config::new(shape.policy, (0..shape.partitions).map(PartitionId).collect())
    }
}

/// Offers it all, with cancels between, and runs it out.
fn run<C: CostTable>(config: Config, costs: C, asks: &[Ask]) -> Simulation<C> {
    let mut simulation = Simulation::new(config, costs);
    for tenant in 0..5 {
        simulation.tenant(TenantId(tenant), Terms::best_effort(OwnerId(tenant % 3)));
    }
    let (mut now, mut cancels) = (0, BTreeSet::new());
    for (number, ask) in asks.iter().enumerate() {
        now += ask.after;
        let due_cancels: Vec<(u64, u64)> = cancels.range(..=(now, u64::MAX)).copied().collect();
        for (at, request) in due_cancels {
            simulation.cancel(us(at), RequestId(request));
            cancels.remove(&(at, request));
        }
        let offer = Offer {
            items: count(ask.items),
            deadline: ask.allowed.map(|allowed| us(now + 1000 * allowed)),
            batchable: ask.batchable,
            ..offer(number as u64, ask.tenant, ask.class)
        };
        simulation.offer(us(now), &offer);
        cancels.extend(ask.gives_up.map(|after| (now + after, number as u64)));
    }
    simulation.run_out();
    simulation
}

/// Failures are printed with what they shrank to, which then becomes a named test: no file of seeds.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

static SPACE_TIME: [Policy; 1] = [Policy::SpaceTime];

proptest! {
    #![proptest_config(cases(400))]

    /// With exact costs no promise is broken: whatever comes, is cancelled, rides along or waits for company, on any number of partitions.
    #[test]
    fn with_exact_costs_no_admitted_request_is_late(
        shape in shape(&SPACE_TIME),
        asks in prop::collection::vec(ask(5), 1..150),
    ) {
        let simulation = run(config(&shape), costs(&shape), &asks);
        for (request, admitted) in &simulation.admitted {
            let Some(due) = admitted.deadline else { continue };
            prop_assert!(admitted.promised, "a plan whose cost is known is promised or refused");
            match simulation.outcomes[request] {
                Outcome::Answered { at, .. } => prop_assert!(at <= due, "{request} at {at}, due {due}"),
                Outcome::Cancelled(_) => {}
                ref other => prop_assert!(false, "{request}: {other:?}"),
            }
        }
    }

    /// Every request has exactly one outcome, launches keep their limits and carry one plan, and a tenant's requests of one plan keep their order
    /// from launch to launch, the promised among themselves and the loose among themselves.
    #[test]
    fn every_request_has_exactly_one_outcome_and_tenants_keep_their_order(
        shape in shape(&Policy::ALL),
        asks in prop::collection::vec(ask(6), 1..120), // the sixth tenant is unknown
    ) {
        let simulation = run(config(&shape), costs(&shape), &asks);
        prop_assert_eq!(simulation.outcomes.len(), asks.len());
        let mut launched = BTreeSet::new();
        let mut last: BTreeMap<(u64, u8, bool), u64> = BTreeMap::new();
        for (_, launch) in &simulation.history {
            prop_assert!(launch.lanes.len() as u32 <= shape.max_lanes && launch.items() <= 6);
            prop_assert!(shape.policy == Policy::SpaceTime || launch.lanes.len() == 1);
            let before = last.clone();
            for lane in &launch.lanes {
                prop_assert!(shape.tenant_batching || lane.requests.len() == 1);
                for (request, _) in &lane.requests {
                    let ask = asks[request.0 as usize];
                    prop_assert!(launched.insert(*request), "launched twice");
                    prop_assert_eq!((TenantId(ask.tenant), plan(ask.class)), (lane.tenant, launch.plan.clone()));
                    let flow = (ask.tenant, ask.class, simulation.admitted[request].promised);
                    let earlier = before.get(&flow);
                    prop_assert!(earlier.is_none_or(|&earlier| earlier < request.0), "order within a tenant");
                    let latest = last.entry(flow).or_default();
                    *latest = request.0.max(*latest);
                }
            }
        }
        let answered = simulation.outcomes.values().filter(|outcome| matches!(outcome, Outcome::Answered { .. }));
        prop_assert_eq!(answered.count(), launched.len());
    }

    /// A tenant never has more waiting than its bounds, and is refused for them only when it has as much.
    #[test]
    fn queue_bounds_are_exact(
        policy in prop::sample::select(Policy::ALL.to_vec()),
        requests in 1u32..6,
        asks in prop::collection::vec(ask(3), 1..80),
    ) {
        let limits = Config {
            queue_requests: count(requests),
            given_costs: Some(Arc::new(Exact)),
            ..Config::new(policy, vec![PartitionId(0)])
        };
        let mut simulation = Simulation::new(limits, Exact);
        (0..3).for_each(|tenant| simulation.tenant(TenantId(tenant), Terms::best_effort(OwnerId(tenant))));
        let mut now = 0;
        for (number, ask) in asks.iter().enumerate() {
            now += ask.after;
            simulation.advance(us(now));
            let before = simulation.scheduler.queued_of(TenantId(ask.tenant));
            prop_assert!(before <= requests);
            simulation.offer(us(now), &Offer { batchable: ask.batchable, ..offer(number as u64, ask.tenant, ask.class) });
            let full = matches!(simulation.outcomes.get(&RequestId(number as u64)), Some(Outcome::Refused(Refusal::QueueFull { .. })));
            prop_assert_eq!(full, before == requests);
        }
    }
}

proptest! {
    #![proptest_config(cases(24))]

    /// Owners that always want more than they get have device time in the proportion agreed, within a twentieth, whether they ask with deadlines or
    /// without, and whoever asks more often.
    #[test]
    fn under_saturation_owners_get_what_was_agreed(
        shares in prop::collection::vec(1u32..5, 2..5),
        hurry in prop::collection::vec(1u64..6, 4),
        deadlines: bool,
        batching: bool,
    ) {
        let limits = Config { tenant_batching: batching, max_lanes: count(if batching { 4 } else { 1 }), ..config(&Shape {
            policy: Policy::SpaceTime, tenant_batching: batching, max_lanes: 1, partitions: 1, ahead: 1, lead: 0, max_wait: 0, segments: None,
        }) };
        let mut simulation = Simulation::new(limits, Exact);
        for (owner, share) in shares.iter().enumerate() {
            let slo = deadlines.then_some(Duration::from_millis(50));
            let terms = Terms { share: f64::from(*share), slo, ..Terms::best_effort(OwnerId(owner as u64)) };
            simulation.tenant(TenantId(owner as u64), terms);
        }
        // The least that takes 1.6 ms for six of a lane, 3.75 in a millisecond; who asks for five wants a third more than the whole device does for it,
        // and has at most four fifths of that by its share.
        let mut next: BTreeSet<(u64, u64)> = (0..shares.len() as u64).map(|owner| (0, owner)).collect();
        let mut served = Vec::new();
        let mut number = 0;
        while let Some((at, owner)) = next.pop_first().filter(|(at, _)| *at < 4_000_000) {
            // Every owner has a class of its own, so that nobody rides in another's launches.
            simulation.offer(us(at), &offer(number, owner, 1 + owner as u8));
            number += 1;
            next.insert((at + 200 / hurry[owner as usize], owner));
            if served.is_empty() && at > 500_000 {
                served = (0..shares.len() as u64).map(|owner| simulation.scheduler.served(OwnerId(owner))).collect();
            }
        }
        let gained = |owner: usize| {
            simulation.scheduler.served(OwnerId(owner as u64)).saturating_sub(served[owner]).as_secs_f64()
        };
        let all: f64 = (0..shares.len()).map(gained).sum();
        let agreed: f64 = shares.iter().copied().map(f64::from).sum();
        for (owner, share) in shares.iter().enumerate() {
            let (got, due) = (gained(owner) / all, f64::from(*share) / agreed);
            prop_assert!((got / due - 1.0).abs() <= 0.05, "owner {owner} of {shares:?} got {got:.3} of {due:.3}");
        }
    }

    /// Best effort starts within its patience, what was promised before, and the longest launch, however full the device is promised and whoever interrupts.
    #[test]
    fn best_effort_does_not_starve_behind_promises(
        class in 1u8..4,
        rate in 200u64..1500,
        allowed in 10u64..40,
        segments in prop::option::of(1u32..20),
    ) {
        let shape = Shape {
            policy: Policy::SpaceTime, tenant_batching: true, max_lanes: 4, partitions: 1, ahead: 1, lead: 0, max_wait: 0, segments,
        };
        let limits = config(&shape);
        let patience = limits.patience;
        let mut simulation = Simulation::new(limits, costs(&shape));
        simulation.tenant(TenantId(0), Terms::best_effort(OwnerId(0)));
        let slo = Some(Duration::from_millis(allowed));
        simulation.tenant(TenantId(1), Terms { slo, ..Terms::best_effort(OwnerId(1)) });
        for (number, at) in (1..).zip((0..400_000).step_by(rate as usize)) {
            simulation.offer(us(at), &offer(number, 1, 2));
            if at / 50_000 != (at + rate) / 50_000 {
                simulation.offer(us(at), &offer(1_000_000 + at, 0, class));
            }
        }
        simulation.run_out();
        for (at, request) in simulation.admitted.keys().filter_map(|id| id.0.checked_sub(1_000_000).map(|at| (at, *id))) {
            let Outcome::Answered { at: answered, .. } = simulation.outcomes[&request] else { panic!("not answered") };
            let longest = Exact.cost(&plan(3), Size { lanes: 4, items: 6 }).unwrap();
            // What runs before it and itself; on a device that yields each takes up to twice its cost.
            let bound = patience + Duration::from_millis(allowed) + longest * if segments.is_some() { 4 } else { 2 };
            prop_assert!(answered.since(us(at)) <= bound, "{:?} of {bound:?}", answered.since(us(at)));
        }
    }
}

/// What came of loads with learnt costs: promises and how many were broken, by load.
#[derive(Default)]
struct Kept(Vec<(f64, f64)>);

impl Kept {
    /// By how many standard errors the part broken lies below `bound`; less than zero where it lies above. Requests of one launch are late together, so it is loads
    /// that are independent of each other, not requests.
    fn standard_errors_below(&self, bound: f64) -> f64 {
        let loads = self.0.len() as f64;
        let spare: Vec<f64> = self.0.iter().map(|(promised, late)| promised * bound - late).collect();
        let mean = spare.iter().sum::<f64>() / loads;
        let variance = spare.iter().map(|spare| (spare - mean).powi(2)).sum::<f64>() / (loads - 1.0);
        mean / (variance / loads).sqrt()
    }

    fn promised(&self) -> f64 {
        self.0.iter().map(|(promised, _)| promised).sum()
    }

    fn late(&self) -> f64 {
        self.0.iter().map(|(_, late)| late).sum()
    }
}

/// Eight tenants that ask for two classes, 6000 times, `every` so many microseconds, of a device whose launches take a tenth more or less than they should.
/// `given` is what the scheduler is told of costs; else it learns them. Promises, and those that were broken.
fn noisy_load(seed: u64, every: u64, given: Option<Arc<dyn CostTable>>) -> (f64, f64) {
    let limits = Config {
        given_costs: given,
        ..config(&Shape {
            policy: Policy::SpaceTime,
            tenant_batching: true,
            max_lanes: 4,
            partitions: 1,
            ahead: 1,
            lead: 0,
            max_wait: 0,
            segments: None,
        })
    };
    let mut simulation = Simulation::new(limits, Noisy(AtomicU64::new(seed)));
    for tenant in 0..8 {
        let slo = Some(Duration::from_millis(15 + 10 * (tenant % 3)));
        simulation.tenant(TenantId(tenant), Terms { slo, ..Terms::best_effort(OwnerId(tenant)) });
    }
    for number in 0..6000u64 {
        let mixed = mix(number ^ mix(seed));
        simulation
            .offer(us(number * every), &offer(number, (mixed >> 33) % 8, 1 + ((mixed >> 45) % 2) as u8));
    }
    simulation.run_out();
    let promised = simulation.admitted.iter().filter(|(_, admitted)| admitted.promised);
    let is_late = |(request, admitted): (&RequestId, &tessera_scheduler::Admitted)| !matches!(simulation.outcomes[request], Outcome::Answered { at, .. } if Some(at) <= admitted.deadline);
    let late = promised.clone().filter(|promise| is_late(*promise)).count();
    (promised.count() as f64, late as f64)
}

/// splitmix64 (Steele et al., 2014).
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Loads of one heaviness, requests so many microseconds apart: forty that are the same in every run. `TESSERA_RANDOM_LOADS=n` tries n others instead, which are new
/// in every run, and prints the seed that `TESSERA_SEED` repeats them with.
fn noisy_loads(apart: std::ops::Range<u64>, given: Option<&Arc<dyn CostTable>>) -> Kept {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let (loads, first) = match number("TESSERA_RANDOM_LOADS") {
        None => (40, 0),
        Some(loads) => {
            let now = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
            let seed = number("TESSERA_SEED").unwrap_or_else(now);
            println!("TESSERA_SEED={seed}");
            (loads.max(2), mix(seed))
        }
    };
    let load = |load: u64| {
        let seed = mix(first.wrapping_add(load));
        noisy_load(seed, apart.start + seed % (apart.end - apart.start), given.cloned())
    };
    Kept((0..loads).map(load).collect())
}

/// Requests 300 to 500 µs apart are up to twice what the device can do: nothing is idle that could make up for a launch that took long.
const TOO_MUCH: std::ops::Range<u64> = 300..500;

/// What it can do, nearly or easily.
const ENOUGH: std::ops::Range<u64> = 500..2500;

/// Most promises that may be broken while costs are learnt and vary by a tenth.
const BROKEN: f64 = 0.001;

/// With costs that have to be learnt, and vary by a tenth, less than one promise in a thousand is broken: beyond 2.33 standard errors, which chance alone exceeds once in
/// a hundred times. One load's few thousand promises cannot tell: one in a thousand are three, and one launch that is late carries up to six.
#[test]
fn with_learnt_costs_hardly_a_promise_is_broken() {
    for apart in [TOO_MUCH, ENOUGH] {
        let kept = noisy_loads(apart.clone(), None);
        let (late, promised, below) = (kept.late(), kept.promised(), kept.standard_errors_below(BROKEN));
        println!("{apart:?} µs apart: {late} of {promised} late, {below:.1} standard errors below");
        assert!(promised > 1000.0 * kept.0.len() as f64, "{promised} promises");
        assert!(
            below > 2.33,
            "{apart:?} µs apart: {late} of {promised} late, {below:.1} standard errors below"
        );
    }
}

/// Costs as they are, told so many times too low or too high.
#[derive(Debug)]
struct Told(f64);

impl CostTable for Told {
    fn cost(&self, plan: &PlanKey, size: Size) -> Option<Duration> {
        Exact.cost(plan, size).map(|cost| cost.mul_f64(self.0))
    }
}

/// The bound above can be missed: a scheduler that takes launches for a fifth shorter than the longest are breaks it, clearly, and so does one that counts on the
/// average; one that counts on the longest breaks no promise at all.
#[test]
fn predictions_that_are_too_low_break_more_promises_than_learnt_ones_may() {
    let told = |times| noisy_loads(TOO_MUCH, Some(&(Arc::new(Told(times)) as Arc<dyn CostTable>)));
    for too_low in [0.8 * 1.1, 1.0] {
        let kept = told(too_low);
        let (late, promised, below) = (kept.late(), kept.promised(), kept.standard_errors_below(BROKEN));
        println!("told {too_low}: {late} of {promised} late, {below:.1} standard errors below");
        assert!(below < -2.33, "told {too_low}: {late} of {promised} late, {below:.1} standard errors below");
    }
    assert_eq!(told(1.1).late(), 0.0);
}
