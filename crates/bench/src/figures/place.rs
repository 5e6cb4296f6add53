//! Where a figure's load runs: an engine in this process, or the simulator. The load is the same, and so is the row.

mod opened;

use super::foresight::{self, Foresight};
use super::isolation::{Act, Played};
use super::still::{Still, Watch};
use crate::arrivals::{Gaps, Pattern, Popularity, Rate};
use crate::load::{self, Level, Progress, Row, Sample, Tally, Tenant, Times};
use crate::simulate::{self, AsRan, Costs, Launches, Load};
use crate::zoo::Model;
use anyhow::{Context, Result, ensure};
use opened::{Opened, open};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tessera_core::{PlanKey, Policy, SlotId};
use tokio::runtime::Runtime;

/// How long the last answers of an overload are waited for.
const GRACE: Duration = Duration::from_secs(10);

/// Before the clock starts, a fifth of the time to settle: costs are learnt in it, and queues find their length.
const SETTLING: u32 = 5;

/// Requests on their way for each tenant in a closed loop: one computes, one waits, one is answered.
const IN_FLIGHT: usize = 3;

/// What is loaded, and how it is asked.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Who is served; their models are those of `tenants` in turn.
    pub models: Vec<Arc<Model>>,
    /// Names and SLOs.
    pub tenants: Vec<Tenant>,
    /// What rows are of, where not of single tenants: groups, to which tenants belong in turn.
    pub groups: Vec<Tenant>,
    /// How requests are divided among them.
    pub popularity: Popularity,
    /// How irregular they come.
    pub gaps: Gaps,
    /// How long one rate is measured.
    pub length: Duration,
    /// In the words of `tessera serve --device`, several separated by spaces; or `simulated`.
    pub device: String,
    /// In the words of `tessera serve --precision`.
    pub precision: String,
    /// In the words of `tessera serve --partitions`; simulated devices have one.
    pub partitions: String,
    /// In the words of `behind_multiprocessors`, with spaces between; simulated devices have none.
    pub behind: String,
    /// Whether launches stand back for urgent ones, where the device yields; simulated devices do not.
    pub interrupts: bool,
    /// Decides weights, inputs and arrivals.
    pub seed: u64,
    /// What is put around the device.
    pub around: Wrapped,
}

impl Setting {
    fn pattern(&self, rate: f64) -> Pattern {
        Pattern {
            gaps: self.gaps,
            rate: Rate::Steady(rate),
            popularity: self.popularity,
            tenants: self.tenants.len(),
            seed: self.seed,
        }
    }
}

/// What may be put around a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrapped {
    /// Nothing.
    Bare,
    /// What can make the first tenant slow.
    Slowable,
    /// What writes launches down.
    Recorded,
}

/// A place that is set up.
#[derive(Debug)]
pub struct Place {
    setting: Setting,
    ground: Ground,
    /// What is known of the last row.
    written: Written,
    /// What of a run the simulator is to replay.
    as_ran: AsRan,
}

/// What was written down of a row: on a device that records. In the simulator it is known how large launches were.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// The launches.
    pub(crate) launches: Launches,
    /// What was sent, from the begin of the warm-up on.
    pub(crate) samples: Vec<Sample>,
    /// When the host stood still.
    pub(crate) still: Still,
    /// How long the warm-up was.
    pub(crate) warmup: Duration,
}

#[derive(Debug)]
enum Ground {
    Simulated(Costs, Vec<PlanKey>),
    Real(Runtime, Vec<Opened>),
}

impl Place {
    /// Checks what can be checked before anything is loaded.
    pub fn new(setting: Setting) -> Result<Place> {
        ensure!(!setting.tenants.is_empty() && !setting.models.is_empty(), "there is nobody to serve");
        if setting.device == "simulated" {
            return Place::simulated(setting, Costs::read("h100")?);
        }
        let runtime = tessera_server::runtime::of_all_cores()?;
        Ok(Place::on(setting, Ground::Real(runtime, Vec::new())))
    }

    /// In the simulator, with these costs, whatever device the setting names.
    pub fn simulated(setting: Setting, costs: Costs) -> Result<Place> {
        let plan = |model: &Arc<Model>| costs.plan(model.architecture.name);
        let plans = setting.models.iter().map(plan).collect::<Result<_>>()?;
        Ok(Place::on(setting, Ground::Simulated(costs, plans)))
    }

    fn on(setting: Setting, ground: Ground) -> Place {
        Place { setting, ground, written: Written::default(), as_ran: AsRan::default() }
    }

    /// From now on requests come like this, at moments that the seed decides.
    pub fn ask(&mut self, gaps: Gaps, popularity: Popularity, seed: u64) {
        let Setting { gaps: of, popularity: among, seed: from, .. } = &mut self.setting;
        (*of, *among, *from) = (gaps, popularity, seed);
    }

    /// From now on simulated launches are as slow as those of a run were then, and the host stands still as it did; after an empty one, as costs say, and never.
    pub(crate) fn replay(&mut self, as_ran: AsRan) {
        self.as_ran = as_ran;
    }

    /// What is loaded, and how it is asked.
    pub fn setting(&self) -> &Setting {
        &self.setting
    }

    /// Where, in words. Opens the device if it is not.
    pub fn about(&mut self, policy: Policy, heard: &mut dyn FnMut(&str)) -> Result<String> {
        let Place { setting, ground, .. } = self;
        match ground {
            Ground::Simulated(costs, _) => Ok(format!("simulated with costs of {}", costs.device())),
            Ground::Real(runtime, opened) => {
                Ok(open(setting, runtime, opened, policy, heard)?.house.device())
            }
        }
    }

    /// From now on the device is divided like this.
    pub fn divide(&mut self, partitions: &str) {
        partitions.clone_into(&mut self.setting.partitions);
    }

    /// From now on classes that can wait may be kept to so many multiprocessors of a card, behind the others.
    pub fn keep_behind(&mut self, multiprocessors: &str) {
        multiprocessors.clone_into(&mut self.setting.behind);
    }

    /// From now on launches stand back for urgent ones, or not.
    pub fn interrupt(&mut self, interrupts: bool) {
        self.setting.interrupts = interrupts;
    }

    /// Plays acts one after the other under a policy, at a rate that the first tenant may exceed. Rows have two groups, the first tenant and the others.
    pub fn acts(
        &mut self,
        policy: Policy,
        rate: f64,
        acts: &[Act],
        heard: &mut dyn FnMut(&str),
    ) -> Result<Played> {
        let Place { setting, ground, .. } = self;
        let pattern = setting.pattern(rate);
        match ground {
            Ground::Simulated(costs, plans) => {
                let played = simulate::acts(&options(setting, costs, plans, policy, rate), policy, acts);
                acts.iter().zip(&played.rows).for_each(|(act, row)| heard(&acted(policy, act, row)));
                Ok(played)
            }
            Ground::Real(runtime, opened) => {
                let Opened { target, slowed, house, .. } = open(setting, runtime, opened, policy, heard)?;
                let slowed = slowed.as_ref().context("the place was not set up for slow tenants")?;
                let first = *slowed.uploaded().first().context("somebody was loaded")?;
                target.play(policy);
                let mut rows = Vec::with_capacity(acts.len());
                let mut slow_since = None;
                for act in acts {
                    if act.slower > 1.0 {
                        slow_since = slow_since.or(Some(SystemTime::now()));
                    }
                    slowed.slow(first, act.slower);
                    let times = Times { warmup: act.warmup, length: act.length, grace: GRACE };
                    let tally = Tally::new(setting.tenants.clone(), times, 1).first_beside_others();
                    let arrivals = pattern.arrivals_with_first(act.louder);
                    let progress = Arc::default();
                    let played = load::open(target, arrivals, times, tally, &progress);
                    let row = runtime.block_on(played)?.row(Level::RequestRate(rate));
                    heard(&acted(policy, act, &row));
                    if let Some(why) = &row.first_failure {
                        anyhow::bail!("{} requests failed under {policy}; the first: {why}", row.failed);
                    }
                    rows.push(row);
                }
                let out = slow_since.and_then(|since| runtime.block_on(house.evicted_since(since)));
                Ok(Played { rows, out_after: out })
            }
        }
    }

    /// What a policy answers in a closed loop, in requests per second: where to look for rates that it keeps up with. `None` in the simulator, which is quick.
    pub fn capacity(&mut self, policy: Policy, heard: &mut dyn FnMut(&str)) -> Result<Option<f64>> {
        let Place { setting, ground, .. } = self;
        let Ground::Real(runtime, opened) = ground else { return Ok(None) };
        let target = open(setting, runtime, opened, policy, heard)?.target.clone();
        target.play(policy);
        let times = Times { warmup: setting.length / SETTLING, length: setting.length / 2, grace: GRACE };
        let (clients, tally) =
            (IN_FLIGHT * setting.tenants.len(), Tally::new(setting.tenants.clone(), times, 1));
        let drawn = (setting.popularity, setting.seed);
        let progress = Arc::default();
        let run = load::closed(&target, clients, drawn, times, tally, &progress);
        let row = runtime.block_on(run).row(Level::Concurrency(clients));
        heard(&format!("{policy}, {}: {:.0} a second", row.level, row.throughput));
        Ok(Some(row.throughput))
    }

    /// Runs one policy at a rate.
    pub fn row(&mut self, policy: Policy, rate: f64, heard: &mut dyn FnMut(&str)) -> Result<Row> {
        Ok(self.begun_and_row(policy, rate, heard)?.1)
    }

    /// The same, and when its load began.
    fn begun_and_row(
        &mut self,
        policy: Policy,
        rate: f64,
        heard: &mut dyn FnMut(&str),
    ) -> Result<(Instant, Row)> {
        let Place { setting, ground, written, as_ran } = self;
        let pattern = setting.pattern(rate);
        match ground {
            Ground::Simulated(costs, plans) => {
                let as_ran = as_ran.clone();
                let options = simulate::Options { as_ran, ..options(setting, costs, plans, policy, rate) };
                let done = simulate::run(&options, &mut |_| {})?;
                let done = done.policies.into_iter().next().context("one policy was simulated")?;
                let launches = Launches { items: done.items_per_launch, ran: Vec::new() };
                *written = Written { launches, ..Written::default() };
                let row = done.row;
                heard(&told(policy, &row));
                Ok((Instant::now(), row))
            }
            Ground::Real(runtime, opened) => {
                let Opened { target, house, record, .. } = open(setting, runtime, opened, policy, heard)?;
                target.play(policy);
                let times = Times { warmup: setting.length / SETTLING, length: setting.length, grace: GRACE };
                let tally = Tally::new(setting.tenants.clone(), times, 1);
                let groups = &setting.groups;
                let tally = if groups.is_empty() { tally } else { tally.by_group(groups) };
                let tally = if record.is_some() { tally.keeping() } else { tally };
                let progress: Arc<Progress> = Arc::default();
                record.iter().for_each(|record| record.log.forget());
                let (begun, on_the_clock) = (Instant::now(), SystemTime::now());
                let watch = record.as_ref().map(|_| Watch::begin()).transpose()?;
                let run = load::open(target, pattern.arrivals(), times, tally, &progress);
                let tally = runtime.block_on(run)?;
                let row = tally.row(Level::RequestRate(rate));
                heard(&told(policy, &row));
                if let (Some(record), Some(watch), Some(began)) = (record, watch, progress.began.get()) {
                    let launches = Launches::of(record.log.take(), &record.programs, *began);
                    let (samples, still) = (tally.into_samples(), watch.end(*began));
                    *written = Written { launches, samples, still, warmup: times.warmup };
                }
                for (after, text) in runtime.block_on(house.told_since("rearranged", on_the_clock)) {
                    heard(&format!("  after {:.1} s: {text}", after.as_secs_f64()));
                }
                if let Some(why) = &row.first_failure {
                    anyhow::bail!("{} requests failed under {policy}; the first: {why}", row.failed);
                }
                Ok((begun, row))
            }
        }
    }

    /// The same, and how far launches were from what was predicted of them: nobody in the simulator, which draws both from one table.
    pub fn measured(
        &mut self,
        policy: Policy,
        rate: f64,
        heard: &mut dyn FnMut(&str),
    ) -> Result<(Row, Option<Foresight>)> {
        let (begun, row) = self.begun_and_row(policy, rate, heard)?;
        let Place { setting, ground, .. } = self;
        let Ground::Real(runtime, opened) = ground else { return Ok((row, None)) };
        let target = open(setting, runtime, opened, policy, heard)?.target.clone();
        let told = runtime.block_on(async {
            let whole = target.predictions(begun, foresight::SHOWN).await?;
            let settled = target.predictions(begun + setting.length / SETTLING, 0).await?;
            Some(Foresight::of(&whole, &settled))
        });
        Ok((row, told))
    }

    /// What was written down of the last row.
    pub(crate) fn written(&self) -> &Written {
        &self.written
    }

    /// By tenant, the number of its model and where its weights lie: where launches are written down.
    pub(crate) fn seats(&self) -> &[(usize, SlotId)] {
        let Ground::Real(_, opened) = &self.ground else { return &[] };
        opened.iter().find_map(|opened| opened.record.as_ref()).map_or(&[], |record| &record.seats)
    }

    /// Ends what was opened.
    pub fn close(self) {
        if let Ground::Real(_, opened) = self.ground {
            opened.into_iter().for_each(|opened| opened.house.close(opened.target));
        }
    }
}

/// What is simulated at a rate.
fn options(
    setting: &Setting,
    costs: &Costs,
    plans: &[PlanKey],
    policy: Policy,
    rate: f64,
) -> simulate::Options {
    simulate::Options {
        costs: costs.clone(),
        tenants: setting.tenants.iter().cloned().zip(plans.iter().cloned().cycle()).collect(),
        groups: setting.groups.clone(),
        policies: vec![policy],
        load: Load::Drawn { pattern: setting.pattern(rate), rate, length: setting.length },
        warmup: setting.length / SETTLING,
        max_lanes: NonZeroU32::new(32).unwrap_or(NonZeroU32::MIN),
        max_items: NonZeroU32::new(128).unwrap_or(NonZeroU32::MIN),
        as_ran: AsRan::default(),
    }
}

fn acted(policy: Policy, act: &Act, row: &Row) -> String {
    let others = row.tenants.last().map_or(0.0, |others| others.latency_ms.p99);
    format!("{policy}, {}: p99 of the others {others:.2} ms", act.name)
}

fn told(policy: Policy, row: &Row) -> String {
    let in_slo = 100.0 * row.in_slo.unwrap_or(1.0);
    format!("{policy}, {}: {in_slo:.1} % in time, p99 {:.2} ms", row.level, row.latency_ms.p99)
}
