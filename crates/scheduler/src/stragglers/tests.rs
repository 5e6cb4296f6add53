use super::*;
use proptest::prelude::*;

const PLAN: (PlanIx, NonZeroU32) = (PlanIx(0), NonZeroU32::MIN);
const SLOW: TenantId = TenantId(0);

/// A launch of four tenants every ten milliseconds, the first of whom takes so many times what the others take.
struct Launches {
    stragglers: Stragglers,
    now: Moment,
}

impl Launches {
    fn new() -> Launches {
        Launches { stragglers: Stragglers::default(), now: Moment::START }
    }

    fn run(&mut self, factors: [f64; 4]) -> Vec<Happened> {
        self.now = self.now + Duration::from_millis(10);
        let settings = StragglerSettings::default();
        let mut told: Vec<Happened> = self.stragglers.came(settings, self.now, SLOW).into_iter().collect();
        let lane = |tenant: usize| LaneTime {
            tenant: TenantId(tenant as u64),
            items: 1,
            took: Duration::from_micros(100).mul_f64(factors[tenant]),
        };
        let together = !self.stragglers.is_apart(SLOW);
        if !together {
            told.extend(self.judge(&[lane(0)], false).changes);
        }
        let lanes: Vec<LaneTime> = (usize::from(!together)..4).map(lane).collect();
        told.extend(self.judge(&lanes, true).changes);
        told
    }

    fn judge(&mut self, lanes: &[LaneTime], shared: bool) -> Judged {
        self.stragglers.judge(StragglerSettings::default(), self.now, PLAN, lanes, shared)
    }

    fn for_seconds(&mut self, seconds: u32, factor: f64) -> Vec<(Moment, Happened)> {
        let launches = (0..100 * seconds).flat_map(|_| {
            let told = self.run([factor, 1.0, 1.0, 1.0]);
            let now = self.now;
            told.into_iter().map(move |what| (now, what))
        });
        launches.collect()
    }
}

#[test]
fn who_is_slow_is_out_within_a_second_and_returns_when_well() {
    let mut launches = Launches::new();
    assert_eq!(launches.for_seconds(2, 1.0), []);
    let slow_since = launches.now;
    let told = launches.for_seconds(1, 5.0);
    let [(evicted, Happened::Evicted { ratio, .. })] = told[..] else { panic!("{told:?}") };
    assert!(evicted.since(slow_since) <= Duration::from_millis(500) && (ratio - 5.0).abs() < 0.01);
    let told = launches.for_seconds(4, 1.0);
    let kinds: Vec<&str> = told.iter().map(|(_, what)| what.kind()).collect();
    assert_eq!(kinds, ["probation", "returned"]);
    assert_eq!(launches.stragglers.pace(SLOW).standing, Standing::Sharing);
}

#[test]
fn who_stays_slow_stays_away_for_longer_each_time() {
    let mut launches = Launches::new();
    let told = launches.for_seconds(70, 5.0);
    let evicted: Vec<Moment> = told
        .iter()
        .map(|(at, what)| {
            assert_eq!(what.kind(), "evicted");
            *at
        })
        .collect();
    let apart: Vec<u128> = evicted.windows(2).map(|pair| pair[1].since(pair[0]).as_millis() / 1000).collect();
    assert_eq!(apart, [2, 4, 8, 16, 32]);
}

#[test]
fn costs_learn_a_launch_without_the_part_of_a_slow_lane() {
    let mut launches = Launches::new();
    let lane =
        |tenant, micros| LaneTime { tenant: TenantId(tenant), items: 1, took: Duration::from_micros(micros) };
    let lanes = [lane(0, 500), lane(1, 100), lane(2, 100), lane(3, 100)];
    let ordinary: Vec<f64> = (0..4).map(|_| launches.judge(&lanes, true).ordinary).collect();
    assert_eq!(ordinary, [1.0, 1.0, 0.5, 0.5], "of 800 microseconds 400 are too many");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Noise of any size in up to a fifth of the lanes, and a third either way in all of them, brings nobody down.
    #[test]
    fn noise_evicts_nobody(seed in any::<u64>(), wild in 0.0f64..0.2, size in 1.0f64..50.0) {
        let mut launches = Launches::new();
        let mut state = seed | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        for _ in 0..2000 {
            let factors = std::array::from_fn(|_| {
                let spread = 0.67 + 0.66 * random();
                if random() < wild { spread * size } else { spread }
            });
            prop_assert_eq!(launches.run(factors), vec![]);
        }
    }
}
