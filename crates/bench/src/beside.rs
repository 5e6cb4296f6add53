//! `tessera bench beside`: what launches of one model cost those of another that run beside them, by where they run.
//!
//! ```text
//!   alone      model ▪ ▪ ▪ ▪ ▪
//!   streams    model ▪  ▪  ▪        neighbour ████ ████ ████     both over all multiprocessors, and none before the other
//!   behind     model ▪ ▪ ▪ ▪        neighbour ██████ ██████      both over all of them, and the model's blocks first where both wait
//!   aside N    model ▪ ▪ ▪ ▪ ▪      neighbour ████████████       the neighbour on N of them, and behind
//! ```
//! One launch of the model at a time, again and again, as tenants with tight deadlines send them; of the neighbour as many as keep its partition computing.
//! Every answer must have the bits that the first had, wherever it was computed.
//!
//! **The claim.** A neighbour that is kept aside (`apart_multiprocessors`) costs the model less of the device's time than one on a stream does, and about its part of
//! the multiprocessors. **Refuted**, if the model's launches take as long on the device beside it as on streams; then tenants that are apart may as well run there.
//! The time from handing a launch over to its answers has the host's in it, which moves more from run to run than neighbours of one lane move it.

use crate::latency::Latencies;
use crate::yard::Stock;
use crate::{load, zoo};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tessera_core::{LaunchId, Precision, ProgramId};
use tessera_device::conformance::{self, bell};
use tessera_device::{Device, Finished, Lane, Launch, PartitionInfo, RequestError, Room};
use tessera_server::devices;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose launches are told of.
    pub model: zoo::Model,
    /// Lanes of each, with one item each.
    pub lanes: NonZeroU32,
    /// Whose launches run beside them.
    pub neighbour: zoo::Model,
    /// Lanes of each of those.
    pub neighbour_lanes: NonZeroU32,
    /// Where, in the words of `tessera serve --device`.
    pub device: String,
    /// How numbers are held.
    pub precision: Precision,
    /// To how many multiprocessors the neighbour is kept, a row each; as many as there are, or more, for `behind`.
    pub aside: Vec<NonZeroU32>,
    /// How long each row is measured.
    pub length: Duration,
    /// Decides weights and inputs.
    pub seed: u64,
}

/// What comes first is not counted: so great a part of a row.
const SETTLING: u32 = 5;

/// What was measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// `beside`.
    pub bench: &'static str,
    /// The model, and its lanes.
    pub model: String,
    /// The neighbour, and its lanes.
    pub neighbour: String,
    /// How numbers were held.
    pub precision: &'static str,
    /// What the device is.
    pub device: String,
    /// By where the neighbour runs.
    pub rows: Vec<Row>,
}

/// The two, in one way of running them.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// `streams`, `behind` or `aside`.
    pub way: &'static str,
    /// Units of the neighbour's partition: cores, or multiprocessors.
    pub neighbour_units: usize,
    /// The model's launches, with nobody beside them.
    pub alone: Pace,
    /// And beside the neighbour's.
    pub beside: Pace,
    /// The neighbour's launches, with nobody beside them.
    pub neighbour_alone: Pace,
    /// And beside the model's.
    pub neighbour: Pace,
}

/// Launches of one model.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Pace {
    /// From handing one over to its answers, the median.
    pub p50_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// On the device, the median.
    pub device_ms: f64,
    /// A second.
    pub per_second: f64,
}

/// Measures. `heard` is told what goes on, a line at a time.
pub fn run(options: &Options, heard: &mut dyn FnMut(&str)) -> Result<Report> {
    let mut rows = Vec::new();
    let mut answers = Answers::default();
    let mut about = String::new();
    for aside in std::iter::once(None).chain(options.aside.iter().copied().map(Some)) {
        let yard = Yard::open(options, aside)?;
        about = yard.device.info().description;
        let row = yard.row(options, &mut answers)?;
        heard(&format!("{}: p99 {:.2} ms", row.name(), row.beside.p99_ms));
        rows.push(row);
    }
    let named = |model: &zoo::Model, lanes| format!("{} x {lanes}", model.architecture.name);
    Ok(Report {
        bench: "beside",
        model: named(&options.model, options.lanes),
        neighbour: named(&options.neighbour, options.neighbour_lanes),
        precision: options.precision.name(),
        device: about,
        rows,
    })
}

/// Who a launch is of, and so where what is known of it stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Whose {
    Model,
    Neighbour,
}

/// Per lane and request.
type Answered = Vec<Vec<Result<Vec<Bytes>, RequestError>>>;

/// The first answers of each, which all others must equal.
type Answers = HashMap<Whose, Answered>;

/// Whose launches run where.
struct Seat {
    whose: Whose,
    partition: PartitionInfo,
    program: ProgramId,
    lanes: Vec<Lane>,
    /// Under way at once.
    ahead: u32,
}

/// A device with the two on it.
struct Yard {
    device: Arc<dyn Device>,
    woken: Receiver<()>,
    model: Seat,
    neighbour: Seat,
}

impl Yard {
    fn open(options: &Options, aside: Option<NonZeroU32>) -> Result<Yard> {
        let (wake, woken) = bell();
        let word = aside.map_or_else(|| "off".to_owned(), |aside| aside.to_string());
        let settings = load::settings([
            ("device", options.device.clone()),
            ("partitions", if aside.is_some() { "1" } else { "2" }.to_owned()),
            ("apart_multiprocessors", word),
        ])?;
        let device = devices::open(&settings, wake)?;
        let partitions = device.partitions();
        let [first, last] = &partitions[..] else {
            let name = device.info().name;
            anyhow::bail!("{name} has no second partition of that kind; name a card, or leave out --aside")
        };
        let seat = |whose, model: &zoo::Model, lanes: NonZeroU32, partition: &PartitionInfo| {
            let lanes = lanes.get();
            let stock = Stock::load(&*device, model, options.precision, lanes as usize, options.seed)?;
            let program = stock.compile(&*device, Room { lanes, items: lanes }, partition.id)?;
            let mut random = StdRng::seed_from_u64(options.seed);
            let lane = |tenant| Ok(stock.lane(tenant as usize, &[stock.item(&mut random)?]));
            let lanes = (0..lanes).map(lane).collect::<Result<_>>()?;
            let ahead = if whose == Whose::Model { 1 } else { partition.ahead };
            anyhow::Ok(Seat { whose, partition: partition.clone(), program, lanes, ahead })
        };
        let model = seat(Whose::Model, &options.model, options.lanes, first)?;
        let neighbour = seat(Whose::Neighbour, &options.neighbour, options.neighbour_lanes, last)?;
        Ok(Yard { device, woken, model, neighbour })
    }

    fn row(&self, options: &Options, answers: &mut Answers) -> Result<Row> {
        let Yard { model, neighbour, .. } = self;
        let mut measured = |seats: &[&Seat]| self.measure(seats, options.length, answers);
        let only = |paces: Vec<Pace>| paces.into_iter().next().context("somebody was measured");
        let alone = only(measured(&[model])?)?;
        let neighbour_alone = only(measured(&[neighbour])?)?;
        let both = measured(&[model, neighbour])?;
        let way = match &neighbour.partition {
            PartitionInfo { aside: false, .. } => "streams",
            aside if aside.units == model.partition.units => "behind",
            _ => "aside",
        };
        let neighbour_units = neighbour.partition.units;
        Ok(Row { way, neighbour_units, alone, beside: both[0], neighbour_alone, neighbour: both[1] })
    }

    /// Launches of these, beside each other, for so long.
    fn measure(&self, seats: &[&Seat], length: Duration, answers: &mut Answers) -> Result<Vec<Pace>> {
        let start = Instant::now();
        let (counted, end) = (start + length / SETTLING, start + length);
        let mut seen: Vec<Seen> = seats.iter().map(|_| Seen::default()).collect();
        let mut under_way: HashMap<LaunchId, (usize, Instant)> = HashMap::new();
        let mut launches = 0;
        loop {
            for (which, seat) in seats.iter().enumerate() {
                while seen[which].under_way < seat.ahead && Instant::now() < end {
                    let id = LaunchId(launches);
                    launches += 1;
                    under_way.insert(id, (which, Instant::now()));
                    seen[which].under_way += 1;
                    let lanes = seat.lanes.clone();
                    self.device.submit(Launch { id, program: seat.program, lanes, urgent: false })?;
                }
            }
            if under_way.is_empty() {
                break;
            }
            conformance::wait(&*self.device, &self.woken).map_err(anyhow::Error::msg)?;
            for finished in self.device.poll() {
                let Finished { id, answers: answered, took, .. } = finished;
                let (which, handed) = under_way.remove(&id).context("the device ends what was begun")?;
                let now = Instant::now();
                seen[which].under_way -= 1;
                if (counted..end).contains(&now) {
                    seen[which].whole.record(now - handed);
                    seen[which].device.record(took);
                }
                let whose = seats[which].whose;
                let first = answers.entry(whose).or_insert_with(|| answered.clone());
                ensure!(*first == answered, "the {whose:?} answers otherwise than before");
            }
        }
        let length = end - counted;
        seen.iter().map(|seen| seen.pace(length)).collect()
    }
}

/// Launches so far.
#[derive(Default)]
struct Seen {
    under_way: u32,
    whole: Latencies,
    device: Latencies,
}

impl Seen {
    fn pace(&self, length: Duration) -> Result<Pace> {
        ensure!(self.whole.count() > 0, "no launch ended in time; measure for longer");
        let ms = |of: &Latencies, percent| of.percentile(percent).as_secs_f64() * 1e3;
        Ok(Pace {
            p50_ms: ms(&self.whole, 50.0),
            p99_ms: ms(&self.whole, 99.0),
            device_ms: ms(&self.device, 50.0),
            per_second: self.whole.count() as f64 / length.as_secs_f64(),
        })
    }
}

impl Row {
    fn name(&self) -> String {
        match self.way {
            "aside" => format!("aside {}", self.neighbour_units),
            way => way.to_owned(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { model, neighbour, precision, device, rows, .. } = self;
        writeln!(f, "{model} beside {neighbour}, {precision}, on {device}\n")?;
        let heads = ["p50 ms", "p99 ms", "device ms", "per second"];
        writeln!(f, "{:<10} {:<16} {}", "", "", heads.map(|head| format!("{head:>11}")).concat())?;
        for row in rows {
            let of = [
                ("alone", row.alone),
                ("beside", row.beside),
                ("neighbour alone", row.neighbour_alone),
                ("neighbour", row.neighbour),
            ];
            for (number, (what, pace)) in of.into_iter().enumerate() {
                let name = if number == 0 { row.name() } else { String::new() };
                let Pace { p50_ms, p99_ms, device_ms, per_second } = pace;
                let ms = [p50_ms, p99_ms, device_ms].map(|ms| format!("{ms:>11.3}")).concat();
                writeln!(f, "{name:<10} {what:<16} {ms}{per_second:>11.0}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(aside: &[u32]) -> Options {
        let model = || zoo::find("mlp").unwrap().model(&zoo::Sizes::default()).unwrap();
        Options {
            model: model(),
            lanes: NonZeroU32::MIN,
            neighbour: model(),
            neighbour_lanes: NonZeroU32::new(4).unwrap(),
            device: "cpu".to_owned(),
            precision: Precision::Fp32,
            aside: aside.iter().map(|&units| NonZeroU32::new(units).unwrap()).collect(),
            length: Duration::from_millis(200),
            seed: 1,
        }
    }

    #[test]
    fn two_partitions_of_a_cpu_are_told_of_alone_and_beside_each_other() {
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            eprintln!("skipped: two partitions need two cores");
            return;
        }
        let report = run(&options(&[]), &mut |_| ()).unwrap();
        let [row] = &report.rows[..] else { panic!("{report}") };
        assert_eq!(row.way, "streams");
        for pace in [row.alone, row.beside, row.neighbour_alone, row.neighbour] {
            assert!(pace.p99_ms >= pace.p50_ms && pace.p50_ms >= pace.device_ms, "{report}");
            assert!(pace.per_second > 0.0 && pace.device_ms > 0.0, "{report}");
        }
    }

    #[test]
    fn a_device_without_a_partition_aside_says_what_to_name() {
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            eprintln!("skipped: two partitions need two cores");
            return;
        }
        let error = run(&options(&[16]), &mut |_| ()).unwrap_err().to_string();
        assert!(error.contains("name a card"), "{error}");
    }
}
