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

mod asking;
mod points;

use super::costs::{Costed, Costs, Curve, Engine, Named, Sheet};
use super::recorder::{Log, Recorder};
use super::slow::PIECE;
use crate::load::{self, Guest, InProcess};
use crate::zoo::Model;
use anyhow::{Context, Result, ensure};
use asking::Asker;
use points::{Points, Seen};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tessera_core::{Policy, Precision};
use tessera_device::{Device, PartitionInfo, Wake};
use tessera_server::server::StartError;

/// What is shorter is taken for this: curves of times stay above zero.
const LEAST_MS: f64 = 1e-3;

/// Programs are made for so many lanes and items, as the server's are by default: which kernels they have may follow from it. Of one tenant as many items are measured: a
/// burst may bring them.
const LANES: u32 = 32;
const ITEMS: u32 = 128;

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
    let runtime = tessera_server::runtime::of_all_cores()?;
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
    let mut asker = Asker {
        runtime: &runtime,
        target: &target,
        log: &log,
        options,
        partition,
        programs: Vec::new(),
        most,
    };
    asker.programs = (0..models).map(|model| asker.program(model)).collect::<Result<_>>()?;
    let (points, seen) = asker.points()?;
    house.close(target);
    let models = options.models.iter().zip(points);
    let costed = models.map(|(model, points)| costed(model, points, precision, options.most, heard));
    let model = costed.collect::<Result<Vec<Costed>>>()?;
    let source = format!("tessera bench costs, under the engine, {} ms a point", options.length.as_millis());
    let engine = seen.engine(&model, ahead, lead);
    Costs::of(Sheet { device: name, source, lane_times: log.tells_lanes(), engine: Some(engine), model })
}

/// The curves through a model's points.
fn costed(
    model: &Model,
    points: Points,
    precision: Precision,
    most: NonZeroU32,
    heard: &mut dyn FnMut(&str),
) -> Result<Costed> {
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
    if largest < f64::from(most.get()) {
        heard(&format!(
            "{name}: launches of more lanes were too few to tell; they are taken to lie on a line"
        ));
    }
    Ok(costed)
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
    use super::points::FEWEST;
    use super::*;
    use crate::zoo::{self, Sizes};
    use tessera_scheduler::{CostTable, Size};

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
