//! What launches take on a device, measured under the server's engine.
//!
//! ```text
//!   at random moments, k requests at once   ─▶ the way in, round an idle device with k items, and out again        (`turnaround`)
//!   groups of k tenants, again and again     ─▶ launches of k lanes, one computing while the next ones wait         (`lanes`, and the `gap` between launches)
//!   groups of one tenant's n                 ─▶ launches of one lane and n items                                    (`items`)
//! ```
//! As it will be at load: each group is of another model than the last, and of other tenants, so that no launch finds its weights in a cache where the one before
//! left them; and a device that was idle has gone to sleep, as have the threads on the way to it: what a launch there takes longer than at load is part of the turnaround.
//! The host does more between launches of more requests, so the gap is measured by items; and as many groups are on their way as the device is handed launches at once
//! (`turns`), so that it is not the way of a group that came too late for its turn.
//!
//! Launches are written down where they run (`recorder`), by the size that they really had. A point is the median of its launches; how much single
//! ones differ from their point is kept as a list of ratios and moments (`slow`), and taken from in the simulator in pieces, as what slows a host slows all launches of a
//! while. The rare slow ones are in it as often as they were. Nothing is fitted to what a simulation should say.

use super::costs::{Costed, Costs, Curve, Engine, Named, Sheet};
use super::recorder::{Log, Ran, Recorder};
use super::slow::{PIECE, Slow};
use super::turns;
use crate::arrivals::{Gaps, Rate, Stream};
use crate::load::{self, Ended, Guest, InProcess, Target};
use crate::zoo::Model;
use anyhow::{Context, Result, ensure};
use std::future::poll_fn;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tessera_core::{Policy, ProgramId};
use tessera_device::{Device, PartitionInfo, Wake};
use tessera_scheduler::Size;
use tessera_server::server::StartError;
use tokio::runtime::Runtime;

/// How often a model's requests are sent to an idle device, one by one and several at once.
const ALONE: usize = 100;
const TOGETHER: usize = 20;

/// A device that is idle has been for so many times what its last launch took, on average: loads of a third and less leave it so.
const IDLE: u32 = 2;

/// What is shorter is taken for this: curves of times stay above zero.
const LEAST_MS: f64 = 1e-3;

/// Programs are made for so many lanes and items, as the server's are by default: which kernels they have may follow from it. Of one tenant as many items are measured: a
/// burst may bring them.
const LANES: u32 = 32;
const ITEMS: u32 = 128;

/// A point of fewer launches is left out.
const FEWEST: usize = 5;

/// How often a point is tried that had too few.
const TRIES: usize = 8;

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
    /// Decides weights, inputs and moments.
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
        ("max_lanes", options.most.get().max(LANES).to_string()),
        ("max_items", options.most.get().max(ITEMS).to_string()),
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
    let PartitionInfo { ahead, lead, .. } = partition;
    let mut yard = Yard {
        runtime: &runtime,
        target: &target,
        log: &log,
        options,
        partition,
        programs: Vec::new(),
        most,
    };
    yard.programs = (0..models).map(|model| yard.program(model)).collect::<Result<_>>()?;
    let (points, seen) = yard.points()?;
    house.close(target);
    let lane_times = log.tells_lanes();
    let costed = |(model, points): (&Arc<Model>, Points)| -> Result<Costed> {
        let name = model.architecture.name;
        let largest = points.lanes.last().map_or(0.0, |(count, _)| *count);
        let lanes = Curve::rising(points.lanes).with_context(|| format!("{name}, by lanes"))?;
        let beside_work = |(count, ms): (f64, f64)| (count, (ms - lanes.at(count)).max(LEAST_MS));
        let turnaround = points.turnaround.into_iter().map(beside_work).collect();
        let costed = Costed {
            name: name.to_owned(),
            precision: Named(precision),
            lanes,
            items: Curve::rising(points.items).with_context(|| format!("{name}, by items"))?,
            beside: None,
            turnaround: Some(Curve::rising(turnaround).with_context(|| format!("{name}, turnaround"))?),
            gap: (!points.gap.is_empty()).then(|| Curve::rising(points.gap)).transpose()?,
            estimated: None,
        };
        let (one, all) = (costed.lanes.first(), costed.lanes.last());
        heard(&format!("{name}: one lane {one:.3} ms, {largest} lanes {all:.3} ms"));
        if largest < most as f64 {
            heard(&format!(
                "{name}: launches of more lanes were too few to tell; they are taken to lie on a line"
            ));
        }
        Ok(costed)
    };
    let model = options.models.iter().zip(points).map(costed).collect::<Result<Vec<Costed>>>()?;
    let source = format!("tessera bench costs, under the engine, {} ms a point", options.length.as_millis());
    let engine = seen.engine(&model, ahead, lead);
    Costs::of(Sheet { device: name, source, lane_times, engine: Some(engine), model })
}

/// What was measured of a model: `[count, ms]` each.
#[derive(Default)]
struct Points {
    lanes: Vec<(f64, f64)>,
    items: Vec<(f64, f64)>,
    /// Of whole launches on an idle device, from their submission to word of their end.
    turnaround: Vec<(f64, f64)>,
    gap: Vec<(f64, f64)>,
}

/// A launch's time on the device, and what lay between it and the one before, in milliseconds.
#[derive(Clone, Copy)]
struct Point {
    took: f64,
    gap: Option<f64>,
}

/// A launch on an idle device, in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Idle {
    /// On the device.
    took: f64,
    /// From its submission to word of its end.
    whole: f64,
}

impl Idle {
    /// The typical one.
    fn of<'a>(ran: impl Iterator<Item = &'a Ran> + Clone) -> Idle {
        let took = median(ran.clone().map(|ran| ms(ran.took)).collect());
        Idle { took, whole: median(ran.map(|ran| ms(ran.heard - ran.submitted)).collect()) }
    }
}

/// What launches of a model take on an idle device, by count.
type ByCount = Vec<(usize, Idle)>;

/// Of the largest launch that is no larger than this.
fn up_to(idle: &ByCount, count: usize) -> Option<Idle> {
    idle.iter().rev().find(|(of, _)| *of <= count).map(|(_, idle)| *idle)
}

/// What was seen beside the points.
#[derive(Default)]
struct Seen {
    way_in: Vec<Duration>,
    way_out: Vec<Duration>,
    gaps: Vec<f64>,
    slow: Slow,
}

/// Requests that go together.
#[derive(Clone, Copy)]
enum Together {
    /// Of so many tenants.
    Lanes(usize),
    /// So many of one tenant.
    Items(usize),
}

impl Together {
    fn size(self) -> Size {
        match self {
            Together::Lanes(count) => Size { lanes: count as u32, items: count as u32 },
            Together::Items(count) => Size { lanes: 1, items: count as u32 },
        }
    }
}

/// Where it is measured.
struct Yard<'a> {
    runtime: &'a Runtime,
    target: &'a Arc<InProcess>,
    log: &'a Log,
    options: &'a Options,
    partition: PartitionInfo,
    /// What launches of each model run.
    programs: Vec<ProgramId>,
    /// Tenants of a model.
    most: usize,
}

impl Yard<'_> {
    /// The tenants of a model whose turn it is.
    fn tenants(&self, model: usize, turn: usize, together: Together) -> Vec<usize> {
        let models = self.options.models.len();
        let tenant = |nth: usize| model + (nth % self.most) * models;
        match together {
            Together::Lanes(count) => (0..count).map(|nth| tenant(turn * count + nth)).collect(),
            Together::Items(count) => vec![tenant(turn); count],
        }
    }

    /// What launches of a model run.
    fn program(&self, model: usize) -> Result<ProgramId> {
        self.runtime.block_on(ask(self.target, &self.tenants(model, 0, Together::Items(1)), 0))?;
        Ok(self.log.take().last().context("an answered request was launched")?.program)
    }

    fn points(&self) -> Result<(Vec<Points>, Seen)> {
        let mut seen = Seen::default();
        let mut points: Vec<Points> = self.programs.iter().map(|_| Points::default()).collect();
        self.groups(
            Together::Lanes(1),
            turns::at_once(&self.partition, Duration::ZERO),
            self.options.length / 2,
        )?;
        self.log.take();
        let mut idle: Vec<ByCount> = Vec::with_capacity(points.len());
        for (model, points) in points.iter_mut().enumerate() {
            let mut here = vec![(1, self.alone(model, &mut seen)?)];
            for count in counts(self.most).into_iter().filter(|count| *count > 1) {
                here.extend(self.all_at_once(model, count)?.map(|idle| (count, idle)));
            }
            points.turnaround.extend(here.iter().map(|(count, idle)| (*count as f64, idle.whole)));
            idle.push(here);
        }
        for count in counts(self.most) {
            let lanes = self.point(Together::Lanes(count), &idle, &mut seen)?;
            // One lane of one item begins both curves.
            let items = match count {
                1 => lanes.clone(),
                _ => self.point(Together::Items(count), &idle, &mut seen)?,
            };
            for (number, points) in points.iter_mut().enumerate() {
                // On a busy machine the engine may never launch two groups that come together one by one: then as on an idle device.
                let alone = idle[number].iter().find(|(of, _)| *of == count);
                let alone = alone.map(|(_, Idle { took, .. })| Point { took: *took, gap: None });
                let at = |ms: f64| (count as f64, ms);
                let (lanes, items) =
                    (lanes[number].or(alone), items[number].or(alone.filter(|_| count == 1)));
                points.lanes.extend(lanes.map(|point| at(point.took)));
                points.items.extend(items.map(|point| at(point.took)));
                points.gap.extend(lanes.and_then(|point| point.gap).map(|gap| at(gap.max(LEAST_MS))));
            }
        }
        for count in counts(ITEMS as usize).into_iter().filter(|count| *count > self.most) {
            // Larger ones are on a line with the last, where launches are so long that a point of them would take for ever, or are not made.
            let short = |points: &Points| points.items.last().is_some_and(|(_, took)| self.fits(*took));
            if !points.iter().all(short) {
                break;
            }
            let items = self.point(Together::Items(count), &idle, &mut seen)?;
            if items.iter().any(Option::is_none) {
                break;
            }
            for (points, item) in points.iter_mut().zip(items) {
                points.items.extend(item.map(|point| (count as f64, point.took)));
            }
        }
        Ok((points, seen))
    }

    /// Whether a point of launches twice as long as this, in milliseconds, is measured within its time.
    fn fits(&self, took: f64) -> bool {
        2.0 * took * FEWEST as f64 <= ms(self.options.length)
    }

    /// Requests to an idle device, one by one: what the way takes.
    fn alone(&self, model: usize, seen: &mut Seen) -> Result<Idle> {
        let rounds = self.rounds(model, Together::Lanes(1), ALONE)?;
        for (due, end, ran) in &rounds {
            ensure!(ran.len() == 1, "{} launches of one request alone", ran.len());
            for Ran { submitted, heard, .. } in ran {
                seen.way_in.push(*submitted - *due);
                seen.way_out.push(*end - *heard);
            }
        }
        Ok(Idle::of(rounds.iter().flat_map(|(.., ran)| ran)))
    }

    /// So many tenants' requests to an idle device, all at once; none where the engine did not launch them together.
    fn all_at_once(&self, model: usize, count: usize) -> Result<Option<Idle>> {
        let rounds = self.rounds(model, Together::Lanes(count), TOGETHER)?;
        // What was launched behind another one waited for it.
        let firsts = rounds.iter().filter_map(|(.., ran)| ran.first());
        let whole = firsts.filter(|ran| ran.size == Together::Lanes(count).size());
        Ok((whole.clone().count() >= FEWEST).then(|| Idle::of(whole)))
    }

    /// Requests at random moments, when everything before is answered: when each round was due and was over, and its launches.
    fn rounds(
        &self,
        model: usize,
        together: Together,
        rounds: usize,
    ) -> Result<Vec<(Instant, Instant, Vec<Ran>)>> {
        let mut gaps = Stream::new(Gaps::Poisson, Rate::Steady(1.0), self.options.seed);
        let mut last = gaps.next().unwrap_or_default();
        let mut done = Vec::with_capacity(rounds);
        let mut took = Duration::ZERO;
        for round in 0..rounds {
            let next = gaps.next().unwrap_or(last);
            let due = Instant::now() + (IDLE * took).mul_f64((next - last).as_secs_f64());
            last = next;
            // As the load generator does it: a thread that sleeps, and a task for each round.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (target, tenants) = (self.target.clone(), self.tenants(model, round, together));
            let asked = self.runtime.spawn(async move {
                ask(&target, &tenants, round as u64).await?;
                anyhow::Ok(Instant::now())
            });
            let end = self.runtime.block_on(asked)??;
            took = end - due;
            done.push((due, end, self.log.take()));
        }
        Ok(done)
    }

    /// The point of each model; none where the engine did not make such launches.
    fn point(&self, together: Together, idle: &[ByCount], seen: &mut Seen) -> Result<Vec<Option<Point>>> {
        let Size { items, .. } = together.size();
        let alone: Vec<Idle> = idle.iter().filter_map(|idle| up_to(idle, items as usize)).collect();
        let longest = alone.iter().map(|idle| idle.took).fold(0.0, f64::max);
        let groups = turns::at_once(&self.partition, Duration::from_secs_f64(longest / 1e3));
        let mut of_size: Vec<Vec<f64>> = vec![Vec::new(); self.programs.len()];
        let mut gaps: Vec<Vec<f64>> = vec![Vec::new(); self.programs.len()];
        let mut meant: Vec<(usize, Instant, f64)> = Vec::new();
        // Where both groups come together, as on a busy machine, launches are larger than was meant: then it takes longer.
        for _ in 0..TRIES {
            self.groups(together, groups, self.options.length * self.programs.len() as u32)?;
            let ran = self.log.take();
            let model_of = |ran: &Ran| self.programs.iter().position(|other| *other == ran.program);
            let as_meant = |ran: &Ran| ran.size == together.size();
            for here in ran.iter().filter(|ran| as_meant(ran)) {
                let (took, model) = (&here.took, model_of(here));
                meant.extend(model.map(|model| (model, here.submitted, ms(*took))));
                model.into_iter().for_each(|model| of_size[model].push(ms(*took)));
            }
            for two in ran.windows(2) {
                // Two groups that follow each other as was meant: the second waited while the first was computed. Where both came together in a larger launch nobody did,
                // and what lies between is the way out and in again.
                let Some(model) = model_of(&two[1]).filter(|_| two.iter().all(as_meant)) else { continue };
                if self.was_there(two, alone[model]) {
                    gaps[model].push(ms((two[1].heard - two[0].heard).saturating_sub(two[1].took)));
                }
            }
            if of_size.iter().all(|times| times.len() >= FEWEST) {
                break;
            }
        }
        seen.gaps.extend(gaps.iter().flatten());
        let enough = |times: Vec<f64>| (times.len() >= FEWEST).then(|| median(times));
        let points = of_size.into_iter().zip(gaps);
        let points = points.map(|(times, gaps)| Some(Point { took: enough(times)?, gap: enough(gaps) }));
        let points: Vec<Option<Point>> = points.collect();
        let ratio = |(model, at, ms): (usize, Instant, f64)| Some((at, ms / points[model]?.took));
        seen.slow.add(meant.into_iter().filter_map(ratio));
        Ok(points)
    }

    /// Whether the second of two launches was on the device when the first of them ended: where copies run beside kernels, its way may be over by then.
    fn was_there(&self, two: &[Ran], idle: Idle) -> bool {
        let way = Duration::from_secs_f64((idle.whole - idle.took).max(0.0) / 1e3);
        self.partition.lead.is_zero() || two[1].submitted + way <= two[0].heard
    }

    /// So many groups of requests in turns, for so long.
    fn groups(&self, together: Together, groups: u32, length: Duration) -> Result<()> {
        let (models, mut turn) = (self.options.models.len(), 0);
        let next = || {
            let tenants = self.tenants(turn % models, turn / models, together);
            let (target, round) = (self.target.clone(), turn as u64);
            turn += 1;
            async move { ask(&target, &tenants, round).await }
        };
        self.runtime.block_on(turns::take(groups, Instant::now() + length, next))
    }
}

/// Asks for these tenants at once, until all of it is answered. What many bring is taken first to where the device fetches it, by a task each, as of those who ask
/// apart: else the first of them are launched while the inputs of the last are still copied.
async fn ask(target: &Arc<InProcess>, tenants: &[usize], number: u64) -> Result<()> {
    let mut waiting: Vec<Pin<Box<dyn Future<Output = Ended> + Send + '_>>> =
        Vec::with_capacity(tenants.len());
    if let [alone] = *tenants {
        waiting.push(Box::pin(target.ask(alone, number)));
    } else {
        let adopt = |&tenant: &usize| {
            let target = target.clone();
            tokio::spawn(async move { (tenant, target.adopted(tenant, number)) })
        };
        for adopted in tenants.iter().map(adopt).collect::<Vec<_>>() {
            let (tenant, inputs) = adopted.await?;
            waiting.push(Box::pin(target.ask_with(tenant, inputs)));
        }
    }
    let mut otherwise = None;
    poll_fn(|context| {
        waiting.retain_mut(|request| match request.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(Ended::Answered) => false,
            Poll::Ready(ended) => {
                otherwise.get_or_insert(ended);
                false
            }
        });
        if waiting.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    ensure!(otherwise.is_none(), "a request ended otherwise: {otherwise:?}");
    Ok(())
}

/// 1, 2, 4, …, and the most itself; and one more than each. A device that computes 4 items for 3 takes a step there, and is on a line from 3 to 4.
fn counts(most: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|count| *count < most);
    let mut counts: Vec<usize> =
        doubled.flat_map(|count| [count, count + 1]).filter(|count| *count < most).collect();
    counts.push(most);
    counts.dedup();
    counts
}

impl Seen {
    fn engine(self, models: &[Costed], ahead: u32, lead: Duration) -> Engine {
        let least = models.iter().filter_map(|model| Some(model.turnaround.as_ref()?.first()));
        let (ratios_at_ms, ratios) = self.slow.kept();
        let typical = |times: Vec<Duration>| median(times.into_iter().map(ms).collect());
        Engine {
            way_in_ms: typical(self.way_in),
            // Where between the two the time on the device lies is not seen from outside.
            leave_ms: least.fold(f64::INFINITY, f64::min) / 2.0,
            way_out_ms: typical(self.way_out),
            gap_ms: median(self.gaps),
            ahead,
            lead_ms: ms(lead),
            ratios,
            ratios_at_ms,
            piece_ms: ms(PIECE),
        }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
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
    fn counts_are_doubled_with_what_follows_each_up_to_the_most_and_end_with_it() {
        assert_eq!(counts(1), [1]);
        assert_eq!(counts(2), [1, 2]);
        assert_eq!(counts(6), [1, 2, 3, 4, 5, 6]);
        assert_eq!(counts(12), [1, 2, 3, 4, 5, 8, 9, 12]);
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
            engine.way_in_ms > 0.0
                && engine.way_out_ms > 0.0
                && engine.ratios.len() >= FEWEST
                && engine.ratios.len() == engine.ratios_at_ms.len(),
            "{costs}"
        );
        assert!(median(engine.ratios.clone()) < 2.0, "{costs}");
    }
}
