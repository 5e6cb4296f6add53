//! Figure 1: the latency of one inference, of networks from 2012 to 2017.
//!
//! **The claim** (paper, Figure 1 and §1; V100 and an unnamed CPU). Networks grow, and with them latency: most miss 300 ms on a CPU, SENet-184 takes 4.1 s there; on a card all keep it, coming nearer
//! to it from year to year.
//!
//! **The expected shape.** Latency on cores follows operations, and VGG-16, which computes as much as the last, is out of turn. On a card a network of many small
//! layers takes longer than its operations say. Processors of today are several times as fast as the paper's.
//!
//! **What would refute it.** No more than half of the networks above 300 ms on the cores; any above 300 ms on a card; the last network not the slowest.
//!
//! The paper's SENet-184 is nowhere published; SENet-154 (Hu et al., 2018) is the large one that is. One request of one image at a time, on a device that does nothing
//! else, copies included; between a card and the cores, answers must agree.

use super::ask::Ask;
use super::made::{Claim, Figure, Verdict, drawn};
use super::plot::{Plot, lines};
use crate::spread::Spread;
use crate::yard::Yard;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;
use std::fmt;
use tessera_core::Precision;
use tessera_device::Room;

/// The objective, in milliseconds.
const SLO_MS: f64 = 300.0;

/// The networks, and the year in which each was first published.
const NETWORKS: [(&str, u32); 5] =
    [("alexnet", 2012), ("vgg-16", 2014), ("resnet-152", 2015), ("densenet-161", 2016), ("senet-154", 2017)];

/// Answers of two devices differ by at most this part of the largest number in them: sums in another order, through hundreds of layers; where one of them holds
/// halves, each layer is rounded, too.
fn apart_at_most(precisions: [Precision; 2]) -> f32 {
    let halves = |precision| matches!(precision, Precision::Bf16 | Precision::Fp16);
    if precisions.into_iter().any(halves) { 5e-2 } else { 1e-2 }
}

/// The figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// How numbers were held.
    pub precision: &'static str,
    /// What was measured on, in words.
    pub devices: Vec<String>,
    /// By year.
    pub networks: Vec<NetworkRow>,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

/// One network.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct NetworkRow {
    /// The architecture.
    pub model: &'static str,
    /// When it was first published.
    pub year: u32,
    /// Learnt numbers.
    pub parameters: u64,
    /// Operations of one inference, in units of 10⁹.
    pub gflop: f64,
    /// The median of each round by device, in milliseconds; in the order of devices.
    pub latency_ms: Vec<(String, Spread)>,
}

/// Measures the figure on the device, and after a card on the machine's cores.
pub fn run(ask: &Ask, heard: &mut dyn FnMut(&str)) -> Result<Report> {
    let mut report =
        Report { precision: ask.precision.name(), devices: vec![], networks: vec![], left_out: vec![] };
    for (number, (name, year)) in NETWORKS.into_iter().enumerate() {
        if ask.budget.is_over() {
            report.left_out.push(format!("{name}: the time was over"));
            continue;
        }
        let ask = Ask { budget: ask.budget.part(1.0 / (NETWORKS.len() - number) as f64), ..ask.clone() };
        let row = network(&ask, name, year, &mut report.devices).with_context(|| name.to_owned())?;
        heard(&row.to_string());
        report.networks.push(row);
    }
    Ok(report)
}

fn network(ask: &Ask, name: &str, year: u32, described: &mut Vec<String>) -> Result<NetworkRow> {
    let model = ask.model(name)?;
    let devices = ask.devices();
    let (mut latency_ms, mut gflop, mut first) = (Vec::new(), 0.0, None::<Vec<f32>>);
    for (device, precision) in &devices {
        let yard = Yard::open(device, &model, *precision, 1, ask.seed).with_context(|| device.clone())?;
        let info = yard.device.info();
        let what = format!("{} ({}, {precision})", info.name, info.description);
        if !described.contains(&what) {
            described.push(what);
        }
        gflop = yard.stock.plan.flops_per_item() as f64 / 1e9;
        let program = yard.compile(Room { lanes: 1, items: 1 })?;
        // The same image on every device.
        let item = yard.item(&mut StdRng::seed_from_u64(ask.seed))?;
        let lane = yard.lane(0, &[item]);
        let answer = numbers(&yard.launch(program, vec![lane.clone()])?.answers[0][0]);
        let first = first.get_or_insert_with(|| answer.clone());
        agree(first, &answer, apart_at_most([devices[0].1, *precision]))
            .with_context(|| format!("{} and {device}", devices[0].0))?;
        let length = ask.run_length(0.5, devices.len() * ask.rounds);
        latency_ms.push((info.name, yard.latency_ms(program, &lane, length, ask.rounds)?));
        yard.device.discard(program);
    }
    Ok(NetworkRow { model: model.architecture.name, year, parameters: model.parameters(), gflop, latency_ms })
}

fn numbers(answer: &[Bytes]) -> Vec<f32> {
    answer.iter().flat_map(|output| tessera_device::conformance::floats(output)).collect()
}

fn agree(one: &[f32], other: &[f32], at_most: f32) -> Result<()> {
    ensure!(one.iter().chain(other).all(|number| number.is_finite()), "an answer with NaN or infinity");
    let largest = one.iter().fold(0.0f32, |most, number| most.max(number.abs()));
    let apart = one.iter().zip(other).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
    ensure!(
        one.len() == other.len() && apart <= at_most * largest,
        "answers are {apart} apart, where the largest number is {largest}"
    );
    Ok(())
}

impl Report {
    fn on(&self, is_card: bool) -> Vec<(&NetworkRow, f64)> {
        let latency = |row: &NetworkRow| {
            let found = row.latency_ms.iter().find(|(device, _)| device.starts_with("cuda") == is_card);
            found.map(|(_, ms)| ms.median)
        };
        self.networks.iter().filter_map(|row| Some((row, latency(row)?))).collect()
    }
}

impl Figure for Report {
    const CLAIM: Claim = Claim {
        title: "Figure 1: latency of one inference, networks from 2012 to 2017",
        source: "paper, Figure 1 and §1; V100 and an unnamed CPU",
        says: "networks grow more complex from year to year; most miss 300 ms on a CPU (SENet-184 takes 4.1 s), and on a card latencies come near to it from below",
        refuted: "at most half of the networks above 300 ms on the cores, one above it on a card, or the last not the slowest on the cores",
    };

    fn verdict(&self) -> Verdict {
        let (cores, card) = (self.on(false), self.on(true));
        let slowest = |of: &[(&NetworkRow, f64)]| {
            of.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(row, ms)| (row.model, *ms))
        };
        let Some((last, (slow, ms))) = cores.last().zip(slowest(&cores)) else {
            return Verdict::Undecided("the cores were not measured".to_owned());
        };
        let late = |of: &[(&NetworkRow, f64)]| of.iter().filter(|(_, ms)| *ms > SLO_MS).count();
        let on_card = slowest(&card).map_or("no card".to_owned(), |(slow, ms)| {
            format!("on the card {} of {}, the slowest {slow} in {ms:.1} ms", late(&card), card.len())
        });
        let because = format!(
            "Above 300 ms: on the cores {} of {}, the slowest {slow} in {ms:.0} ms (paper: most, 4.1 s); {on_card}.",
            late(&cores),
            cores.len()
        );
        if cores.len() < NETWORKS.len() {
            return Verdict::Undecided(format!("{because} Some were not measured."));
        }
        Verdict::of(2 * late(&cores) > cores.len() && late(&card) == 0 && slow == last.0.model, because)
    }

    fn pictures(&self) -> Vec<String> {
        let plot = |axis: &str, x: &dyn Fn(&NetworkRow) -> f64| {
            let points = self.networks.iter().flat_map(|row| {
                row.latency_ms.iter().map(move |(device, ms)| (&**device, (x(row), ms.median)))
            });
            Plot {
                title: format!("One inference, by {axis}"),
                x: axis.to_owned(),
                y: "ms".to_owned(),
                mark: Some((SLO_MS, "300 ms".to_owned())),
                lines: lines(points),
            }
        };
        drawn([
            plot("years after 2010", &|row| f64::from(row.year) - 2010.0),
            plot("GFLOP", &|row| row.gflop),
            plot("million parameters", &|row| row.parameters as f64 / 1e6),
        ])
    }
}

impl fmt::Display for NetworkRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NetworkRow { model, year, parameters, gflop, latency_ms } = self;
        write!(f, "{model:<14} {year:>5} {:>10.1} {gflop:>8.2}", *parameters as f64 / 1e6)?;
        latency_ms.iter().try_for_each(|(device, ms)| {
            let (ms, late) = (format!("{ms:.1}"), if ms.median > SLO_MS { "late" } else { "" });
            write!(f, "  {device:<7} {ms:>24} ms {late:<4}")
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "figure 1: one image at a time, on {}", self.devices.join(" and "))?;
        writeln!(f, "{:<14} {:>5} {:>10} {:>8}", "network", "year", "parameters", "GFLOP")?;
        writeln!(f, "{:<14} {:>5} {:>10} {:>8}", "", "", "millions", "")?;
        self.networks.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        self.left_out.iter().try_for_each(|why| writeln!(f, "left out: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cores: [f64; 5], card: [f64; 5]) -> Report {
        let spread = |ms: f64| Spread::of(vec![ms]).unwrap();
        let row = |number: usize| NetworkRow {
            model: NETWORKS[number].0,
            year: NETWORKS[number].1,
            parameters: 1,
            gflop: 1.0,
            latency_ms: vec![("cuda:0".into(), spread(card[number])), ("cpu".into(), spread(cores[number]))],
        };
        Report { precision: "fp32", devices: vec![], networks: (0..5).map(row).collect(), left_out: vec![] }
    }

    #[test]
    fn the_claim_needs_most_of_them_late_on_cores_and_none_on_a_card() {
        let (slow, quick) = ([100.0, 400.0, 500.0, 600.0, 900.0], [1.0, 2.0, 9.0, 12.0, 15.0]);
        assert!(matches!(report(slow, quick).verdict(), Verdict::Reproduced(_)));
        assert!(matches!(report(quick, quick).verdict(), Verdict::NotReproduced(_)), "today's cores");
        assert!(matches!(report(slow, slow).verdict(), Verdict::NotReproduced(_)));
        assert_eq!(report(slow, quick).pictures().len(), 3);
    }

    #[test]
    fn answers_that_differ_are_no_figure() {
        assert!(agree(&[1.0, 2.0], &[1.001, 2.0], 1e-2).is_ok());
        assert!(agree(&[1.0, 2.0], &[1.1, 2.0], 1e-2).is_err());
        assert!(agree(&[f32::NAN], &[f32::NAN], 1e-2).is_err());
    }

    #[test]
    fn a_card_in_halves_may_differ_by_more_from_cores_in_floats() {
        let (halves, floats) = (Precision::Bf16, Precision::Fp32);
        assert_eq!(apart_at_most([halves, floats]), apart_at_most([halves, halves]));
        assert!(apart_at_most([floats, floats]) < apart_at_most([halves, floats]));
    }
}
