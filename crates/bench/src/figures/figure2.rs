//! Figure 2: latency and share of the peak against the batch size.
//!
//! **The claim** (paper, Figure 2 and §1; V100, fp32). Latency objectives keep batches small, and small batches leave the card idle: the largest batch of
//! ResNet-50 within the objective is 26, and reaches on average 28 % of the peak; small batches are below 15 %.
//!
//! **The expected shape.** Latency is flat while a batch leaves part of the device idle, then grows in proportion. The share of the peak rises as long as latency
//! is flat, and bends where the device is full. On two cores one image fills the device: latency grows from the first, and the share hardly moves.
//!
//! **What would refute it.** A share of the peak with one item of half of that with the largest batch, or more: then batches, and so sharing, gain nothing. On a
//! card also a largest batch within the objective that reaches more than half of the peak.
//!
//! One launch at a time on a device that does nothing else, from handing it over to its answer, copies included; items of a batch answer to the bit as they do alone,
//! or nothing is reported. The share is of what the device can do in this precision: for a card a data sheet's or measured figure, for cores what one shows at that moment, times their number.

use super::ask::Ask;
use super::made::{Claim, Figure, Verdict, drawn};
use super::plot::Plot;
use crate::spread::Spread;
use crate::tenants::Peak;
use crate::yard::Yard;
use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;
use std::fmt;
use tessera_device::Room;

/// Latency objectives, in milliseconds.
const SLOS: [f64; 3] = [25.0, 50.0, 100.0];
/// No batch is larger.
const MOST: u32 = 512;
/// Batches are found to this part of themselves.
const CLOSE: f64 = 0.05;

/// The figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// The architecture.
    pub model: &'static str,
    /// How numbers were held.
    pub precision: &'static str,
    /// A device each.
    pub devices: Vec<Curve>,
}

/// One device.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Curve {
    /// As on the command line.
    pub device: String,
    /// What it is.
    pub description: String,
    /// What it can do, in units of 10¹² operations per second; `null` where nobody knows.
    pub peak_tflops: Option<f64>,
    /// By batch size.
    pub points: Vec<Point>,
    /// For each objective.
    pub within: Vec<Within>,
    /// Why larger batches are not there.
    pub ended: String,
}

/// One size of batch.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Point {
    /// Items.
    pub batch: u32,
    /// The median launch of each round, in milliseconds.
    pub latency_ms: Spread,
    /// Operations per second, in units of 10¹².
    pub tflops: f64,
    /// Of the peak.
    pub share: Option<f64>,
}

/// The largest batch that keeps an objective.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Within {
    /// The objective.
    pub slo_ms: f64,
    /// `null` where one item takes longer.
    pub batch: Option<u32>,
    /// Of the peak, with that batch.
    pub share: Option<f64>,
    /// The mean share of all measured batches up to it: what the paper averages.
    pub mean_share: Option<f64>,
}

/// Measures the figure on the device, and after a card on the machine's cores.
pub fn run(ask: &Ask, heard: &mut dyn FnMut(&str)) -> Result<Report> {
    let model = ask.model("resnet-50")?;
    let devices = ask.devices();
    let parts = devices.len();
    let mut curves = Vec::with_capacity(parts);
    for (number, (device, precision)) in devices.into_iter().enumerate() {
        let ask =
            Ask { device, precision, budget: ask.budget.part(1.0 / (parts - number) as f64), ..ask.clone() };
        curves.push(curve(&ask, heard).with_context(|| ask.device.clone())?);
    }
    Ok(Report { model: model.architecture.name, precision: ask.precision.name(), devices: curves })
}

/// What one device is asked with.
struct Bench<'a> {
    ask: &'a Ask,
    yard: Yard,
    peak: Option<Peak>,
    random: StdRng,
}

fn curve(ask: &Ask, heard: &mut dyn FnMut(&str)) -> Result<Curve> {
    let yard = Yard::open(&ask.device, &ask.model("resnet-50")?, ask.precision, 1, ask.seed)?;
    let info = yard.device.info();
    let peak = yard.device.peak(ask.precision).map(Peak::measured);
    let mut bench = Bench { ask, yard, peak, random: StdRng::seed_from_u64(ask.seed) };
    let mut points: Vec<Point> = Vec::new();
    let mut ended = format!("{MOST} is the most that is tried");
    let mut batch = 1;
    let most = ask.or_quick(MOST, 4);
    while batch <= most {
        if ask.budget.is_over() && !points.is_empty() {
            "the time was over".clone_into(&mut ended);
            break;
        }
        let point = match bench.point(batch) {
            Ok(point) => point,
            Err(why) if !points.is_empty() => {
                ended = format!("a batch of {batch}: {why:#}");
                break;
            }
            Err(why) => return Err(why),
        };
        heard(&format!("{}, batch {batch}: {:.2} ms", ask.device, point.latency_ms));
        let late = point.latency_ms.median > SLOS[SLOS.len() - 1];
        points.push(point);
        if late {
            "larger ones are later than every objective".clone_into(&mut ended);
            break;
        }
        batch *= 2;
    }
    for slo in SLOS {
        bench.close_in(&mut points, slo)?;
    }
    let within = SLOS.map(|slo| Within::of(slo, &points)).to_vec();
    Ok(Curve {
        device: info.name,
        description: format!("{}, {}", info.description, ask.precision),
        peak_tflops: bench.peak.map(|peak| peak.tflops),
        points,
        within,
        ended,
    })
}

impl Bench<'_> {
    fn point(&mut self, batch: u32) -> Result<Point> {
        let Bench { ask, yard, random, .. } = self;
        let program = yard.compile(Room { lanes: 1, items: batch })?;
        let items = (0..batch).map(|_| yard.item(random)).collect::<Result<Vec<_>>>()?;
        let lane = yard.lane(0, &items);
        let together = yard.launch(program, vec![lane.clone()])?.answers;
        let answers = yard.items_of(&together[0][0], items.len())?;
        // The first and the last: what lies wrong in a batch lies wrong at its ends.
        for place in [0, items.len() - 1] {
            let alone = yard.launch(program, vec![yard.lane(0, &items[place..=place])])?.answers;
            ensure!(
                alone[0][0] == answers[place],
                "item {place} of {batch} answers in other bits than alone"
            );
        }
        let length = ask.run_length(0.3, 16 * ask.rounds);
        let latency_ms = yard.latency_ms(program, &lane, length, ask.rounds)?;
        yard.device.discard(program);
        let flops = (yard.stock.plan.flops_per_item() * u64::from(batch)) as f64;
        let tflops = flops / latency_ms.median / 1e9;
        let share = self.peak.map(|peak| tflops / peak.tflops);
        Ok(Point { batch, latency_ms, tflops, share })
    }

    /// Halves between the last batch in time and the first that is late.
    fn close_in(&mut self, points: &mut Vec<Point>, slo_ms: f64) -> Result<()> {
        while !self.ask.budget.is_over() {
            let Some((good, bad)) = around(points, slo_ms) else { return Ok(()) };
            let between = good.midpoint(bad);
            if between == good || f64::from(bad) <= f64::from(good) * (1.0 + CLOSE) {
                return Ok(());
            }
            let point = self.point(between)?;
            let at = points.partition_point(|other| other.batch < between);
            points.insert(at, point);
        }
        Ok(())
    }
}

/// The last batch in time, and the first that is late.
fn around(points: &[Point], slo_ms: f64) -> Option<(u32, u32)> {
    let late = points.iter().position(|point| point.latency_ms.median > slo_ms)?;
    let good = late.checked_sub(1)?;
    Some((points[good].batch, points[late].batch))
}

impl Within {
    fn of(slo_ms: f64, points: &[Point]) -> Within {
        let kept: Vec<&Point> = points.iter().take_while(|point| point.latency_ms.median <= slo_ms).collect();
        let shares: Vec<f64> = kept.iter().filter_map(|point| point.share).collect();
        let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
        Within {
            slo_ms,
            batch: kept.last().map(|point| point.batch),
            share: kept.last().and_then(|point| point.share),
            mean_share: (!shares.is_empty()).then_some(mean),
        }
    }
}

impl Curve {
    fn is_card(&self) -> bool {
        self.device.starts_with("cuda")
    }

    /// The share of the peak with one item, and the largest.
    fn shares(&self) -> Option<(f64, f64)> {
        let shares = self.points.iter().filter_map(|point| point.share);
        Some((self.points.first()?.share?, shares.fold(0.0, f64::max)))
    }
}

impl Figure for Report {
    const CLAIM: Claim = Claim {
        title: "Figure 2: latency and share of the peak by batch size, ResNet-50",
        source: "paper, Figure 2 and §1; V100, fp32",
        says: "to keep a latency objective batches must be small, and small batches leave the card idle: the largest within it is 26, at 28 % of the peak on average; small \
               batches are under 15 %",
        refuted: "one item reaching half the share of the peak that the largest batch reaches; on a card, a largest batch in time at more than half of the peak",
    };

    fn verdict(&self) -> Verdict {
        // The claim is about cards; without one the cores stand for the device.
        let curve = self.devices.iter().find(|curve| curve.is_card()).or(self.devices.first());
        let Some((curve, (one, most))) = curve.and_then(|curve| Some((curve, curve.shares()?))) else {
            return Verdict::Undecided("what the device can do at most is not known".to_owned());
        };
        let in_time =
            curve.within.iter().rev().find_map(|within| Some((within, within.batch?, within.share?)));
        let within = in_time.map_or("no batch is within 100 ms".to_owned(), |(within, batch, share)| {
            format!(
                "the largest batch within {} ms is {batch}, at {:.0} % of the peak",
                within.slo_ms,
                100.0 * share
            )
        });
        let because = format!(
            "On {} one item reaches {:.0} % of the peak and the best batch {:.0} %; {within}.",
            curve.device,
            100.0 * one,
            100.0 * most
        );
        let idle = in_time.is_none_or(|(_, _, share)| !curve.is_card() || share <= 0.5);
        Verdict::of(one < 0.5 * most && idle, because)
    }

    fn pictures(&self) -> Vec<String> {
        let line = |what: &dyn Fn(&Point) -> Option<f64>| -> Vec<(String, Vec<(f64, f64)>)> {
            let of = |curve: &Curve| {
                let points =
                    curve.points.iter().filter_map(|point| Some((f64::from(point.batch), what(point)?)));
                (curve.device.clone(), points.collect())
            };
            self.devices.iter().map(of).collect()
        };
        let about = self.model;
        let latency = Plot {
            title: format!("Latency by batch size, {about}"),
            x: "items of a batch".to_owned(),
            y: "ms".to_owned(),
            mark: Some((100.0, "100 ms".to_owned())),
            lines: line(&|point| Some(point.latency_ms.median)),
        };
        let share = Plot {
            title: format!("Share of the peak by batch size, {about}"),
            x: "items of a batch".to_owned(),
            y: "% of the peak".to_owned(),
            mark: Some((28.0, "the paper's 28 %".to_owned())),
            lines: line(&|point| Some(100.0 * point.share?)),
        };
        drawn([latency, share])
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "figure 2: {}, one launch at a time", self.model)?;
        for Curve { device, description, peak_tflops, points, within, ended } in &self.devices {
            let peak = peak_tflops.map_or("not known".to_owned(), |peak| format!("{peak:.3} TFLOP/s"));
            writeln!(
                f,
                "\n{device} ({description}); peak {peak}\n{:>6} {:>24} {:>10} {:>8}",
                "batch", "ms", "TFLOP/s", "of peak"
            )?;
            for Point { batch, latency_ms, tflops, share } in points {
                let latency = format!("{latency_ms:.2}");
                writeln!(f, "{batch:>6} {latency:>24} {tflops:>10.3} {:>8}", percent(*share))?;
            }
            writeln!(f, "larger batches: {ended}")?;
            for Within { slo_ms, batch, share, mean_share } in within {
                match batch {
                    Some(batch) => writeln!(
                        f,
                        "within {slo_ms:>3} ms: {batch} items, {} of the peak; {} on average up to there",
                        percent(*share),
                        percent(*mean_share)
                    )?,
                    None => writeln!(f, "within {slo_ms:>3} ms: not even one item")?,
                }
            }
        }
        Ok(())
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or("–".to_owned(), |share| format!("{:.1} %", 100.0 * share))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(batch: u32, ms: f64, share: f64) -> Point {
        Point { batch, latency_ms: Spread::of(vec![ms]).unwrap(), tflops: share, share: Some(share) }
    }

    fn report(device: &str, points: Vec<Point>) -> Report {
        let within = SLOS.map(|slo| Within::of(slo, &points)).to_vec();
        let curve = Curve {
            device: device.into(),
            description: "a device".into(),
            peak_tflops: Some(1.0),
            points,
            within,
            ended: "enough".into(),
        };
        Report { model: "resnet-50", precision: "fp32", devices: vec![curve] }
    }

    #[test]
    fn the_largest_batch_in_time_is_the_last_before_the_first_that_is_late() {
        let points = [point(1, 20.0, 0.1), point(2, 24.0, 0.2), point(4, 60.0, 0.3), point(8, 110.0, 0.4)];
        let within = Within::of(25.0, &points);
        assert_eq!((within.batch, within.share), (Some(2), Some(0.2)));
        assert!((within.mean_share.unwrap() - 0.15).abs() < 1e-9);
        assert_eq!(Within::of(10.0, &points).batch, None);
        assert_eq!(around(&points, 100.0), Some((4, 8)));
        assert_eq!((around(&points, 10.0), around(&points, 200.0)), (None, None));
    }

    #[test]
    fn the_claim_holds_where_one_item_leaves_the_device_idle_and_no_batch_in_time_fills_it() {
        let holds = |device, points| matches!(report(device, points).verdict(), Verdict::Reproduced(_));
        assert!(holds("cuda:0", vec![point(1, 2.0, 0.05), point(26, 90.0, 0.3)]));
        assert!(!holds("cuda:0", vec![point(1, 2.0, 0.05), point(26, 90.0, 0.8)]), "a full card in time");
        assert!(!holds("cpu", vec![point(1, 2.0, 0.5), point(26, 90.0, 0.6)]), "one item fills the cores");
    }

    #[test]
    fn the_cores_are_measured_and_the_picture_is_drawn() {
        let report = run(&super::super::ask::quick("cpu"), &mut |_| ()).unwrap();
        let curve = &report.devices[0];
        assert!(
            curve.points.len() >= 3 && curve.points.iter().all(|point| point.share.unwrap() > 0.0),
            "{report}"
        );
        assert!(report.pictures().iter().all(|svg| svg.starts_with("<svg ")));
        assert!(report.to_string().contains("within  25 ms: "), "{report}");
    }
}
