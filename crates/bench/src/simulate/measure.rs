//! What launches take on a device, measured under the server's engine at load.
//!
//! ```text
//!   one request after another        ─▶ the way in, round the device, and out again
//!   two groups of k tenants in turn  ─▶ launches of k lanes, one computing while the next waits      (`lanes`, and the gap between launches)
//!   two groups of one tenant's n     ─▶ launches of one lane and n items                             (`items`)
//! ```
//! Launches are written down where they run (`recorder`), by the size that they really had. A point is the median of its launches; how much single
//! ones differ from their point is kept as a list of ratios, and drawn from in the simulator. Nothing is fitted to what a simulation should say.

use super::costs::{Costed, Costs, Curve, Engine, Named, Sheet};
use super::recorder::{Log, Ran, Recorder};
use crate::load::{self, Ended, Guest, InProcess, Target};
use crate::zoo::Model;
use anyhow::{Context, Result, ensure};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tessera_core::{Policy, Precision};
use tessera_device::{Device, Wake};
use tessera_scheduler::Size;
use tessera_server::server::StartError;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Requests sent one after another, of each model.
const ALONE: usize = 100;

/// A point of fewer launches is left out.
const FEWEST: usize = 5;

/// How often a point is tried that had too few.
const TRIES: usize = 8;

/// Ratios that are kept.
const RATIOS: usize = 64;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose launches.
    pub models: Vec<Arc<Model>>,
    /// Most tenants in one launch, which are loaded of each model; and most items.
    pub most: NonZeroU32,
    /// In the words of `tessera serve --device`: one device.
    pub device: String,
    /// In the words of `tessera serve --precision`.
    pub precision: String,
    /// How long each point is measured.
    pub length: Duration,
    /// Decides weights and inputs.
    pub seed: u64,
}

/// Measures a table of costs. `heard` is told what goes on.
pub fn measure(options: &Options, heard: &mut dyn FnMut(&str)) -> Result<Costs> {
    let models = options.models.len();
    ensure!(models > 0, "name at least one model");
    let most = options.most.get() as usize;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let settings = load::settings([
        ("device", options.device.clone()),
        ("policy", Policy::SpaceTime.to_string()),
        ("precision", options.precision.clone()),
        ("partitions", "1".to_owned()),
        ("max_lanes", options.most.to_string()),
        ("max_items", options.most.to_string()),
    ])?;
    // Tenants have the models in turn, and no SLO: nobody is refused.
    let guests: Vec<Guest> = (0..models * most)
        .map(|number| Guest { model: options.models[number % models].clone(), slo: None })
        .collect();
    let log = Arc::new(Log::default());
    let record = |device: Arc<dyn Device>, _: Wake| -> Result<Arc<dyn Device>, StartError> {
        Ok(Arc::new(Recorder::of(device, log.clone())))
    };
    let of = (NonZeroU32::MIN, options.seed);
    let (target, house) = InProcess::open_on(&runtime, &settings, &guests, of, &record, heard)?;
    let (name, partition, precision) = house.first().context("a device was opened")?;
    let yard = Yard { runtime: &runtime, target: &target, log: &log, length: options.length };
    let mut seen = Seen::default();
    let mut sheet = Sheet {
        device: name,
        source: format!("tessera bench costs, under the engine, {} ms a point", options.length.as_millis()),
        lane_times: false,
        engine: None,
        model: Vec::with_capacity(models),
    };
    for (number, model) in options.models.iter().enumerate() {
        let tenants: Vec<usize> = (0..most).map(|nth| number + nth * models).collect();
        let costed = yard.model(model.architecture.name, precision, &tenants, &mut seen)?;
        heard(&format!(
            "{}: one lane {:.3} ms, {} lanes {:.3} ms",
            costed.name,
            costed.lanes.first(),
            options.most,
            costed.lanes.last()
        ));
        sheet.model.push(costed);
    }
    house.close(target);
    sheet.lane_times = log.tells_lanes();
    sheet.engine = Some(seen.engine(partition.ahead, partition.lead));
    Costs::of(sheet)
}

/// Where it is measured.
struct Yard<'a> {
    runtime: &'a Runtime,
    target: &'a Arc<InProcess>,
    log: &'a Log,
    length: Duration,
}

/// What was seen beside the points.
#[derive(Default)]
struct Seen {
    way_in: Vec<Duration>,
    turnaround: Vec<Duration>,
    way_out: Vec<Duration>,
    gaps: Vec<Duration>,
    ratios: Vec<f64>,
}

impl Yard<'_> {
    fn model(&self, name: &str, precision: Precision, tenants: &[usize], seen: &mut Seen) -> Result<Costed> {
        self.runtime.block_on(self.groups(&tenants[..1], self.length / 2))?;
        self.log.take();
        let alone = self.alone(tenants[0], seen)?;
        // One lane of one item begins both curves. On a busy machine the engine may never launch two that come together one by one: then as it was alone.
        let first = self.point(&tenants[..1], Size { lanes: 1, items: 1 }, seen)?.unwrap_or((1.0, alone));
        let (mut lanes, mut items) = (vec![first], vec![first]);
        for count in counts(tenants.len()).into_iter().filter(|count| *count > 1) {
            lanes.extend(self.point(
                &tenants[..count],
                Size { lanes: count as u32, items: count as u32 },
                seen,
            )?);
            let one = vec![tenants[0]; count];
            items.extend(self.point(&one, Size { lanes: 1, items: count as u32 }, seen)?);
        }
        Ok(Costed {
            name: name.to_owned(),
            precision: Named(precision),
            lanes: Curve::rising(lanes).with_context(|| format!("{name}, by lanes"))?,
            items: Curve::rising(items).with_context(|| format!("{name}, by items"))?,
            beside: None,
            estimated: None,
        })
    }

    /// One request after another: what its way takes beside the device's time. Answers that time, in milliseconds.
    fn alone(&self, tenant: usize, seen: &mut Seen) -> Result<f64> {
        let mut asked = Vec::with_capacity(ALONE);
        for number in 0..ALONE {
            let start = Instant::now();
            let ended = self.runtime.block_on(self.target.ask(tenant, number as u64));
            ensure!(ended == Ended::Answered, "a request alone ended otherwise: {ended:?}");
            asked.push((start, Instant::now()));
        }
        let ran = self.log.take();
        ensure!(ran.len() == asked.len(), "{} launches of {} requests alone", ran.len(), asked.len());
        let typical = median(ran.iter().map(|ran| ran.took.as_secs_f64() * 1e3).collect());
        for ((start, end), Ran { submitted, heard, took, .. }) in asked.into_iter().zip(ran) {
            seen.way_in.push(submitted - start);
            seen.turnaround.push((heard - submitted).saturating_sub(took));
            seen.way_out.push(end - heard);
        }
        Ok(typical)
    }

    /// The point of a size, in milliseconds; none where the engine did not make such launches.
    fn point(&self, tenants: &[usize], size: Size, seen: &mut Seen) -> Result<Option<(f64, f64)>> {
        let mut ran = Vec::new();
        let mut of_size: Vec<f64> = Vec::new();
        // Where both groups come together, as on a busy machine, launches are larger than was meant: then it takes longer.
        for _ in 0..TRIES {
            self.runtime.block_on(self.groups(tenants, self.length))?;
            let more = self.log.take();
            of_size
                .extend(more.iter().filter(|ran| ran.size == size).map(|ran| ran.took.as_secs_f64() * 1e3));
            ran.extend(more);
            if of_size.len() >= FEWEST {
                break;
            }
        }
        if of_size.len() < FEWEST {
            return Ok(None);
        }
        let typical = median(of_size.clone());
        seen.ratios.extend(of_size.iter().map(|ms| ms / typical));
        for two in ran.windows(2) {
            // The second was there before the first was over: between them the device had something to do. Their median is not moved by the few
            // that were first of a group.
            let period = two[1].heard - two[0].heard;
            seen.gaps.push(period.saturating_sub(two[1].took));
        }
        Ok(Some((f64::from(size.items), typical)))
    }

    /// Two groups of requests for these tenants, each sent again when all of it is answered.
    async fn groups(&self, tenants: &[usize], length: Duration) -> Result<()> {
        let until = Instant::now() + length;
        let mut groups = JoinSet::new();
        for _ in 0..2 {
            let (target, tenants) = (self.target.clone(), tenants.to_vec());
            groups.spawn(async move {
                for round in 0u64.. {
                    let asked = tenants.iter().map(|&tenant| {
                        let target = target.clone();
                        tokio::spawn(async move { target.ask(tenant, round).await })
                    });
                    for answer in asked.collect::<Vec<_>>() {
                        let ended = answer.await?;
                        ensure!(ended == Ended::Answered, "a request ended otherwise: {ended:?}");
                    }
                    if Instant::now() >= until {
                        break;
                    }
                }
                Ok(())
            });
        }
        while let Some(group) = groups.join_next().await {
            group??;
        }
        Ok(())
    }
}

/// 1, 2, 4, … and the most itself.
fn counts(most: usize) -> Vec<usize> {
    let mut counts: Vec<usize> =
        std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|count| *count < most).collect();
    counts.push(most);
    counts
}

impl Seen {
    fn engine(self, ahead: u32, lead: Duration) -> Engine {
        let ms = |times: Vec<Duration>| median(times.iter().map(|time| time.as_secs_f64() * 1e3).collect());
        let mut ratios = self.ratios;
        ratios.sort_by(f64::total_cmp);
        let rank = |nth: usize| ratios[((2 * nth + 1) * ratios.len() / (2 * RATIOS)).min(ratios.len() - 1)];
        Engine {
            way_in_ms: ms(self.way_in),
            turnaround_ms: ms(self.turnaround),
            way_out_ms: ms(self.way_out),
            gap_ms: ms(self.gaps),
            ahead,
            lead_ms: lead.as_secs_f64() * 1e3,
            ratios: (0..RATIOS).map(rank).collect(),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::{self, Sizes};
    use tessera_scheduler::CostTable;

    #[test]
    fn counts_are_doubled_up_to_the_most_and_end_with_it() {
        assert_eq!(counts(1), [1]);
        assert_eq!(counts(6), [1, 2, 4, 6]);
        assert_eq!(counts(8), [1, 2, 4, 8]);
    }

    #[test]
    fn a_cpu_is_measured_and_its_table_can_be_read_and_simulated() {
        let model = zoo::find("mlp").unwrap().model(&Sizes::default()).unwrap();
        let options = Options {
            models: vec![Arc::new(model)],
            most: NonZeroU32::new(2).unwrap(),
            device: "cpu:0".to_owned(),
            precision: "fp32".to_owned(),
            length: Duration::from_millis(50),
            seed: 1,
        };
        let costs = measure(&options, &mut |_| ()).unwrap();
        let read = Costs::parse(&costs.to_string()).unwrap();
        let plan = read.plan("mlp").unwrap();
        let at = |lanes, items| read.cost(&plan, Size { lanes, items }).unwrap();
        assert!(at(1, 1) > Duration::ZERO && at(1, 1) <= at(2, 2), "{costs}");
        let engine = read.engine().unwrap();
        assert!(
            engine.way_in_ms > 0.0 && engine.way_out_ms > 0.0 && engine.ratios.len() == RATIOS,
            "{costs}"
        );
        assert!(engine.ratios.is_sorted() && engine.ratios[RATIOS / 2] < 2.0, "{costs}");
    }
}
