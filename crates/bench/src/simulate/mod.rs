//! `tessera simulate`: the server's scheduler in virtual time, on a device that takes as long as was measured.
//!
//! ```text
//!   arrivals or a trace ─▶ scheduler ◀─ virtual time ─▶ a table of costs        the rows are those of `tessera load-test`
//! ```
//! The scheduler is the server's own and learns costs as it does there, from what launches take. What lies around launches, the engine
//! and the way to the device, and how much one launch differs from the next of its size, is simulated where the table says so (`measure`); the
//! wire is not. How far a simulation is from a real run is measured by `tessera bench reality`, which also simulates with launches as slow as those of the run (`replay`).

mod costs;
mod measure;
mod recorder;
mod replay;
mod slow;
mod turns;

pub use costs::Costs;
pub use measure::{Options as Measuring, measure};
pub(crate) use recorder::{Log, Recorder};
pub use replay::AsRan;
pub(crate) use replay::{Launched, Launches};

use crate::arrivals::{Arrival, Pattern};
use crate::figures::isolation::{Act, Played};
use crate::load::{Ended, Header, Level, Row, Sample, Tally, Tenant, Times};
use anyhow::{Result, ensure};
use serde::Serialize;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tessera_core::{Bytes, IdMap, Moment, OwnerId, PartitionId, PlanKey, Policy, RequestId, TenantId};
use tessera_scheduler::sim::{Around, Outcome, Simulation, Slowness};
use tessera_scheduler::{Config, Happened, Offer, Terms};

/// Launches side by side under `space`: the streams that the server gives a card.
const SPACE_STREAMS: NonZeroU32 = NonZeroU32::new(16).expect("16 is not zero");

/// Decides how launches differ; arrivals have a seed of their own.
const SEED: u64 = 1;

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Options {
    /// What launches take.
    pub costs: Costs,
    /// Who is served, each with its plan.
    pub tenants: Vec<(Tenant, PlanKey)>,
    /// What rows are of, where not of single tenants: groups, to which tenants belong in turn.
    pub groups: Vec<Tenant>,
    /// Under which policies, one after the other, with the same arrivals.
    pub policies: Vec<Policy>,
    /// When requests come.
    pub load: Load,
    /// How long they come before those that are counted.
    pub warmup: Duration,
    /// Most tenants in one launch.
    pub max_lanes: NonZeroU32,
    /// Most items in one launch.
    pub max_items: NonZeroU32,
    /// What of a run is replayed.
    pub as_ran: AsRan,
}

/// When requests come.
#[derive(Clone, Debug)]
pub enum Load {
    /// As drawn, for so long, at a mean rate that is shown.
    Drawn {
        /// What is drawn from.
        pattern: Pattern,
        /// Requests per second, as asked for.
        rate: f64,
        /// Until when.
        length: Duration,
    },
    /// As recorded.
    Trace(Arc<[Arrival]>, Duration),
}

impl Load {
    fn length(&self) -> Duration {
        match self {
            Load::Drawn { length, .. } | Load::Trace(_, length) => *length,
        }
    }

    fn arrivals(&self, end: Duration) -> Box<dyn Iterator<Item = Arrival> + '_> {
        match self {
            Load::Drawn { pattern, .. } => {
                Box::new(pattern.arrivals().take_while(move |arrival| arrival.at < end))
            }
            Load::Trace(arrivals, _) => Box::new(arrivals.iter().copied()),
        }
    }
}

/// What came of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// `simulate`.
    pub bench: &'static str,
    /// Whose costs.
    pub device: String,
    /// What of the costs was not measured.
    pub estimated: Vec<String>,
    /// How many tenants.
    pub tenants: usize,
    /// Virtual time.
    pub simulated_s: f64,
    /// A policy each.
    pub policies: Vec<PolicyRow>,
}

/// One policy.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PolicyRow {
    /// Which.
    pub policy: &'static str,
    /// What its callers saw.
    pub row: Row,
    /// Launches in all.
    pub launches: u64,
    /// Tenants in one, on average.
    pub lanes_per_launch: f64,
    /// Items in one, on average.
    pub items_per_launch: f64,
    /// Real time that the simulation took.
    pub took_s: f64,
}

/// Simulates every policy. `heard` is told of each.
pub fn run(options: &Options, heard: &mut dyn FnMut(&str)) -> Result<Report> {
    ensure!(!options.tenants.is_empty(), "there is nobody to serve");
    ensure!(!options.policies.is_empty(), "name at least one policy");
    let mut policies = Vec::with_capacity(options.policies.len());
    for &policy in &options.policies {
        let done = under(options, policy);
        let per_second = done.row.sent as f64 / done.took_s;
        heard(&format!(
            "{policy}: {} requests in {:.1} s, {per_second:.0} a second",
            done.row.sent, done.took_s
        ));
        policies.push(done);
    }
    let mut estimated: Vec<String> =
        options.tenants.iter().filter_map(|(_, plan)| options.costs.estimated(plan)).collect();
    estimated.sort();
    estimated.dedup();
    Ok(Report {
        bench: "simulate",
        device: options.costs.device(),
        estimated,
        tenants: options.tenants.len(),
        simulated_s: options.load.length().as_secs_f64(),
        policies,
    })
}

/// One policy: every arrival offered, every outcome taken out as soon as it is known, so that memory holds what waits and no more.
fn under(options: &Options, policy: Policy) -> PolicyRow {
    let started = Instant::now();
    let mut simulation = set_up(options, policy);
    let length = options.load.length();
    let times = Times { warmup: options.warmup, length, grace: Duration::ZERO };
    let tally = Tally::new(tenants(options), times, 1);
    let tally = if options.groups.is_empty() { tally } else { tally.by_group(&options.groups) };
    let mut heard = Heard::new(tally, Duration::ZERO, options);
    play(options, &mut simulation, &mut heard, 0, options.load.arrivals(times.end()));
    let level = match &options.load {
        Load::Drawn { rate, .. } => Level::RequestRate(*rate),
        Load::Trace(..) => Level::Trace,
    };
    PolicyRow {
        policy: policy.name(),
        row: heard.tally.row(level),
        launches: heard.launches,
        lanes_per_launch: heard.lanes as f64 / heard.launches.max(1) as f64,
        items_per_launch: heard.items as f64 / heard.launches.max(1) as f64,
        took_s: started.elapsed().as_secs_f64(),
    }
}

fn ms(ms: f64) -> Duration {
    Duration::from_secs_f64(ms / 1e3)
}

/// What lies around launches, where the costs say it.
fn time(options: &Options, of: fn(&costs::Engine) -> f64) -> Duration {
    options.costs.engine().map_or(Duration::ZERO, |engine| ms(of(engine)))
}

/// Plays acts one after the other under a policy, each until all of its requests have ended. A row has two groups, the first tenant and the others. Recorded
/// arrivals have no acts, and no rows.
pub fn acts(options: &Options, policy: Policy, acts: &[Act]) -> Played {
    let Load::Drawn { pattern, rate, .. } = &options.load else { return Played::default() };
    let mut simulation = set_up(options, policy);
    let (mut begin, mut asked) = (Duration::ZERO, 0);
    let mut played = Played { rows: Vec::with_capacity(acts.len()), out_after: None };
    let mut slow_since = None;
    for act in acts {
        if act.slower > 1.0 && slow_since.is_none() {
            slow_since = Some(begin);
        }
        simulation.slow(TenantId(0), act.slower);
        let times = Times { warmup: act.warmup, length: act.length, grace: Duration::ZERO };
        let tally = Tally::new(tenants(options), times, 1).first_beside_others();
        let mut heard = Heard::new(tally, begin, options);
        let arrivals = pattern.arrivals_with_first(act.louder);
        let arrivals = arrivals.take_while(|arrival| arrival.at < times.end());
        let arrivals = arrivals.map(|arrival| Arrival { at: begin + arrival.at, ..arrival });
        let (ended, count) = play(options, &mut simulation, &mut heard, asked, arrivals);
        begin = ended.max(begin + times.end());
        asked += count;
        if let (Some(since), Some(at), None) = (slow_since, heard.evicted, played.out_after) {
            played.out_after = Some(at.since(Moment::at(since)));
        }
        played.rows.push(heard.tally.row(Level::RequestRate(*rate)));
    }
    played
}

fn tenants(options: &Options) -> Vec<Tenant> {
    options.tenants.iter().map(|(tenant, _)| tenant.clone()).collect()
}

/// The tenants and the device, with nothing asked yet.
fn set_up(options: &Options, policy: Policy) -> Simulation<Costs> {
    let engine = options.costs.engine();
    let around = Around {
        leave: time(options, |engine| engine.leave_ms),
        gap: time(options, |engine| engine.gap_ms),
        slowness: match &options.as_ran {
            AsRan { slowness, .. } if !slowness.is_empty() => Slowness::AsRan(slowness.clone()),
            _ => engine.map(costs::Engine::slowness).unwrap_or_default(),
        },
        still: options.as_ran.still.clone(),
    };
    let config = Config {
        ahead: engine.and_then(|engine| NonZeroU32::new(engine.ahead)).unwrap_or(NonZeroU32::MIN),
        lead: time(options, |engine| engine.lead_ms),
        max_lanes: options.max_lanes,
        max_items: options.max_items,
        max_concurrent: SPACE_STREAMS,
        ..Config::new(policy, vec![PartitionId(0)])
    };
    let simulation = Simulation::new(config, options.costs.clone()).with(around, SEED);
    let mut simulation = if options.costs.tells_lanes() { simulation } else { simulation.without_lanes() };
    for (number, (tenant, _)) in options.tenants.iter().enumerate() {
        let number = number as u64;
        let terms = Terms { slo: tenant.slo, ..Terms::best_effort(OwnerId(number)) };
        simulation.tenant(TenantId(number), terms);
    }
    simulation
}

/// Offers all arrivals, with requests numbered from `first` on, and lets all of them end. Returns when the last one did, and how many there were.
fn play(
    options: &Options,
    simulation: &mut Simulation<Costs>,
    heard: &mut Heard,
    first: u64,
    arrivals: impl Iterator<Item = Arrival>,
) -> (Duration, u64) {
    let way_in = time(options, |engine| engine.way_in_ms);
    let mut request = RequestId(first);
    for Arrival { at, tenant } in arrivals {
        heard.waiting.insert(request, (tenant, at));
        let offer = Offer {
            request,
            tenant: TenantId(tenant as u64),
            plan: options.tenants[tenant].1.clone(),
            items: NonZeroU32::MIN,
            bytes: Bytes(0),
            deadline: None,
            batchable: true,
        };
        simulation.offer(Moment::at(at + way_in), &offer);
        heard.take(simulation);
        request = RequestId(request.0 + 1);
    }
    simulation.run_out();
    heard.take(simulation);
    (simulation.now().since(Moment::START), request.0 - first)
}

/// What came out of a simulation so far.
struct Heard {
    tally: Tally,
    /// From word of a launch's end to its answers.
    way_out: Duration,
    /// Where the tally's time begins.
    begin: Duration,
    waiting: IdMap<RequestId, (usize, Duration)>,
    launches: u64,
    lanes: u64,
    items: u64,
    /// When the first tenant was taken out of the launches that it shared, first.
    evicted: Option<Moment>,
}

impl Heard {
    fn new(tally: Tally, begin: Duration, options: &Options) -> Heard {
        let way_out = time(options, |engine| engine.way_out_ms);
        Heard {
            tally,
            way_out,
            begin,
            waiting: IdMap::default(),
            launches: 0,
            lanes: 0,
            items: 0,
            evicted: None,
        }
    }

    fn take(&mut self, simulation: &mut Simulation<Costs>) {
        simulation.admitted.clear();
        let now = simulation.now();
        for event in simulation.scheduler.take_events(now).0 {
            if matches!(event.what, Happened::Evicted { tenant: TenantId(0), .. }) {
                self.evicted = self.evicted.or(Some(event.at));
            }
        }
        for (_, launch) in simulation.history.drain(..) {
            self.launches += 1;
            self.lanes += launch.lanes.len() as u64;
            self.items += u64::from(launch.items());
        }
        for (request, outcome) in std::mem::take(&mut simulation.outcomes) {
            let Some((tenant, due)) = self.waiting.remove(&request) else { continue };
            let (ended, at) = match outcome {
                Outcome::Answered { at, .. } => (Ended::Answered, at + self.way_out),
                Outcome::Refused(_) => (Ended::Refused, Moment::at(due)),
                Outcome::Expired(at) => (Ended::Expired, at),
                Outcome::Cancelled(at) => (Ended::Unanswered, at),
            };
            let latency = at.since(Moment::at(due));
            let due = due.saturating_sub(self.begin);
            self.tally.count(&Sample { tenant, due, lag: Duration::ZERO, latency, ended });
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "simulated: {} tenants, {:.0} s, on {}", self.tenants, self.simulated_s, self.device)?;
        self.estimated
            .iter()
            .try_for_each(|estimated| writeln!(f, "estimated, not measured: {estimated}"))?;
        writeln!(f, "\n{:<11} {Header} {:>13}", "policy", "lanes/launch")?;
        for PolicyRow { policy, row, lanes_per_launch, .. } in &self.policies {
            writeln!(f, "{policy:<11} {row} {lanes_per_launch:>13.2}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::{Gaps, Popularity, Rate};

    fn options(rate: f64, policies: Vec<Policy>) -> Options {
        let costs = Costs::read("h100").unwrap();
        let plan = costs.plan("resnet-50").unwrap();
        let tenant = |number: usize| {
            let slo = Some(Duration::from_millis(25));
            (Tenant { name: number.to_string(), slo }, plan.clone())
        };
        let pattern = Pattern {
            gaps: Gaps::Poisson,
            rate: Rate::Steady(rate),
            popularity: Popularity::Zipf(1.0),
            tenants: 100,
            seed: 1,
        };
        Options {
            tenants: (0..100).map(tenant).collect(),
            groups: vec![],
            costs,
            policies,
            load: Load::Drawn { pattern, rate, length: Duration::from_secs(2) },
            warmup: Duration::ZERO,
            max_lanes: NonZeroU32::new(32).unwrap(),
            max_items: NonZeroU32::new(128).unwrap(),
            as_ran: AsRan::default(),
        }
    }

    #[test]
    fn sharing_launches_keeps_deadlines_at_a_rate_that_turns_cannot() {
        let report = run(&options(16_000.0, vec![Policy::SpaceTime, Policy::Time]), &mut |_| {}).unwrap();
        let [shared, turns] = report.policies.as_slice() else { panic!("two policies") };
        assert_eq!(shared.row.sent, turns.row.sent, "the same arrivals");
        assert!(shared.row.in_slo.unwrap() > 0.99, "{report}");
        assert!(shared.lanes_per_launch > 2.0 && turns.lanes_per_launch == 1.0, "{report}");
        assert!(turns.row.in_slo.unwrap() < 0.9, "{report}");
        for PolicyRow { row, .. } in &report.policies {
            assert_eq!(row.sent, row.answered + row.refused + row.expired, "{row:?}");
        }
    }

    #[test]
    fn one_request_at_a_time_takes_what_was_measured() {
        let report = run(&options(1.0, vec![Policy::SpaceTime]), &mut |_| {}).unwrap();
        let row = &report.policies[0].row;
        assert!((row.latency_ms.p50 / 0.3474 - 1.0).abs() < 0.006, "{row:?}");
    }

    #[test]
    fn a_trace_is_played_as_it_is() {
        let at = |ms| Arrival { at: Duration::from_millis(ms), tenant: 0 };
        let trace = Load::Trace([at(0), at(0), at(500)].into(), Duration::from_secs(1));
        let report =
            run(&Options { load: trace, ..options(1.0, vec![Policy::Exclusive]) }, &mut |_| {}).unwrap();
        let row = &report.policies[0].row;
        assert_eq!((row.sent, row.answered, row.level), (3, 3, Level::Trace));
    }
}
