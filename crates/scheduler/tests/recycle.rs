//! Partitions that turn slow, in virtual time.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod common;

use common::{Exact, Noisy, count, offer};
use proptest::prelude::*;
use std::time::Duration;
use tessera_core::{Moment, OwnerId, PartitionId, Policy, TenantId};
use tessera_scheduler::sim::{Outcome, Simulation};
use tessera_scheduler::{Config, CostTable, Happened, RecycleSettings, Terms};

const TENANTS: u64 = 6;

/// Two or more partitions of one size, each of which the device can open anew.
fn config(partitions: u64) -> Config {
    Config {
        max_lanes: count(4),
        tenant_batching: false,
        recycling: RecycleSettings { reopens: true, ..RecycleSettings::default() },
        ..Config::new(Policy::SpaceTime, (0..partitions).map(PartitionId).collect())
    }
}

/// A device, and requests that come to it.
struct Load<C> {
    simulation: Simulation<C>,
    tenants: u64,
    requests: u64,
    random: u64,
}

impl<C: CostTable> Load<C> {
    fn new(config: Config, costs: C, tenants: u64, seed: u64) -> Load<C> {
        let mut simulation = Simulation::new(config, costs);
        (0..tenants)
            .for_each(|tenant| simulation.tenant(TenantId(tenant), Terms::best_effort(OwnerId(tenant))));
        Load { simulation, tenants, requests: 0, random: seed | 1 }
    }

    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 11
    }

    /// Requests for so long, on average one each `gap`, of tenants and two plans at random.
    fn come(&mut self, length: Duration, gap: Duration) {
        let mut at = self.simulation.now();
        let end = at + length;
        while at < end {
            let (tenant, class) = (self.draw() % self.tenants, 1 + (self.draw() % 2) as u8);
            self.simulation.offer(at, &offer(self.requests, tenant, class));
            self.requests += 1;
            at = at + gap.mul_f64((self.draw() % 2000) as f64 / 1000.0);
        }
    }

    /// Launches of every size, many of each, on an idle device.
    fn warm_up(&mut self) {
        for round in 0..240 {
            let at = self.simulation.now() + 60 * MS;
            for _ in 0..=round % 8 {
                let tenant = self.requests % self.tenants;
                self.simulation.offer(at, &offer(self.requests, tenant, 1 + (round % 2) as u8));
                self.requests += 1;
            }
        }
        self.simulation.advance(self.simulation.now() + 60 * MS);
    }

    /// What was told of partitions and the device so far.
    fn told(&mut self) -> Vec<Happened> {
        let (events, _) = self.simulation.scheduler.take_events(self.simulation.now());
        let of_partitions = |what: &Happened| matches!(what.kind(), "recycled" | "device_slow");
        events.into_iter().map(|event| event.what).filter(of_partitions).collect()
    }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_slow_partition_is_drained_and_opened_anew_and_the_others_serve_meanwhile() {
    let mut load = Load::new(config(2), Exact, TENANTS, 7);
    load.warm_up();
    load.come(2000 * MS, 2 * MS);
    assert_eq!(load.told(), []);
    load.simulation.slow_partition(PartitionId(1), 6.0);
    let since = load.simulation.now();
    load.come(6000 * MS, 2 * MS);
    let [(at, partition)] = load.simulation.reopened[..] else { panic!("{:?}", load.simulation.reopened) };
    assert_eq!(partition, PartitionId(1));
    assert!(at.since(since) < 4000 * MS, "{:?}", at.since(since));
    let told = load.told();
    let [Happened::Recycled { partition: PartitionId(1), ratio, bound, drained }] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(*ratio > 4.0 && *ratio < 8.0 && *bound == 3.0 && *drained < 100 * MS, "{told:?}");
    let text = told[0].to_string();
    assert!(text.contains("opened anew") && text.contains("more than 3.00"), "{text}");
    load.simulation.run_out();
    let answered = |outcome: &Outcome| matches!(outcome, Outcome::Answered { .. });
    assert!(load.simulation.outcomes.values().all(answered), "nobody lost anything");
    assert_eq!(load.simulation.outcomes.len() as u64, load.requests);
}

#[test]
fn one_that_is_slow_from_the_start_is_found_by_what_the_others_take() {
    let mut load = Load::new(config(3), Exact, TENANTS, 3);
    load.simulation.slow_partition(PartitionId(0), 8.0);
    load.come(6000 * MS, MS);
    assert_eq!(load.simulation.reopened.iter().map(|(_, id)| id.0).collect::<Vec<_>>(), [0]);
}

#[test]
fn where_opening_anew_does_not_help_it_is_tried_less_and_less_often() {
    let config = config(2);
    let recycling = RecycleSettings { again: 3000 * MS, ..config.recycling };
    let mut load = Load::new(Config { recycling, ..config }, Exact, TENANTS, 5);
    load.warm_up();
    load.come(1000 * MS, 2 * MS);
    for _ in 0..400 {
        load.simulation.slow_partition(PartitionId(1), 6.0);
        load.come(100 * MS, 2 * MS);
    }
    let times: Vec<Moment> = load.simulation.reopened.iter().map(|(at, _)| *at).collect();
    let pauses: Vec<Duration> = times.windows(2).map(|two| two[1].since(two[0])).collect();
    assert!((3..=5).contains(&times.len()), "{times:?}");
    assert!(pauses.windows(2).all(|two| two[1] > two[0].mul_f64(1.4)), "{pauses:?}");
}

#[test]
fn a_device_that_is_slow_everywhere_or_cannot_open_anew_is_told_and_left_as_it_is() {
    let cannot = Config { recycling: RecycleSettings::default(), ..config(2) };
    for (config, slow, named) in
        [(config(2), vec![0, 1], false), (config(1), vec![0], false), (cannot, vec![1], true)]
    {
        let mut load = Load::new(config, Exact, TENANTS, 11);
        load.warm_up();
        load.come(2000 * MS, 8 * MS);
        slow.iter().for_each(|id| load.simulation.slow_partition(PartitionId(*id), 6.0));
        load.come(20_000 * MS, 8 * MS);
        assert_eq!(load.simulation.reopened, []);
        let told = load.told();
        let [Happened::DeviceSlow { partition, ratio, .. }] = &told[..] else { panic!("{told:?}") };
        assert!(partition.is_some() == named && *ratio > 4.0, "{told:?}");
    }
}

#[test]
fn one_tenant_alone_or_a_slow_tenant_among_others_is_no_fault_of_a_partition() {
    let mut alone = Load::new(config(2), Exact, 1, 13);
    alone.come(2000 * MS, 3 * MS);
    alone.simulation.slow_partition(PartitionId(0), 6.0);
    alone.come(6000 * MS, 3 * MS);
    assert_eq!((alone.told(), alone.simulation.reopened.len()), (vec![], 0));
    let mut among = Load::new(config(2), Exact, TENANTS, 17);
    among.warm_up();
    among.come(2000 * MS, 4 * MS);
    among.simulation.slow(TenantId(0), 20.0);
    among.come(10_000 * MS, 4 * MS);
    assert_eq!((among.told(), among.simulation.reopened.len()), (vec![], 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Whatever comes: a partition that turns slow is opened anew within a bound, and one that is healthy never.
    #[test]
    fn a_partition_slow_from_some_moment_on_is_recycled_within_a_bound_and_healthy_ones_never(
        seed in any::<u64>(), partitions in 2u64..=4, slow in 0u64..4, factor in 5.0f64..20.0,
        gap_us in 1000u64..5000, from_ms in 500u64..3000,
    ) {
        let slow = PartitionId(slow % partitions);
        let mut load = Load::new(config(partitions), Noisy::default(), TENANTS, seed);
        load.warm_up();
        let gap = Duration::from_micros(gap_us);
        load.come(Duration::from_millis(from_ms), gap);
        prop_assert_eq!(&load.simulation.reopened, &[]);
        load.simulation.slow_partition(slow, factor);
        let since = load.simulation.now();
        load.come(8000 * MS, gap);
        let reopened = load.simulation.reopened.clone();
        prop_assert!(reopened.iter().all(|(_, id)| *id == slow), "{:?}", reopened);
        // It may hardly be used while the others suffice; then nobody is harmed by it.
        let after = load.simulation.history.iter().filter(|(at, launch)| *at >= since && launch.partition == slow);
        let until = reopened.first().map_or(load.simulation.now(), |(at, _)| *at);
        let used = after.filter(|(at, _)| *at <= until).count();
        match reopened.first() {
            Some((at, _)) => prop_assert!(at.since(since) <= 6000 * MS || used < 80, "{:?}", at.since(since)),
            None => prop_assert!(used < 80, "{used} launches were slow, and nothing was done"),
        }
    }

    /// Nor is anything done to a partition for a slow tenant's sake.
    #[test]
    fn a_slow_tenant_costs_no_partition_its_place(
        seed in any::<u64>(), partitions in 1u64..=4, factor in 4.0f64..30.0, gap_us in 1500u64..5000,
    ) {
        let mut load = Load::new(config(partitions), Noisy::default(), TENANTS, seed);
        load.warm_up();
        load.come(1000 * MS, Duration::from_micros(gap_us));
        load.simulation.slow(TenantId(seed % TENANTS), factor);
        load.come(10_000 * MS, Duration::from_micros(gap_us));
        prop_assert_eq!((load.told(), load.simulation.reopened.len()), (vec![], 0));
    }
}
