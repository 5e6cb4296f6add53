//! Goodput: the highest rate at which 99 of 100 requests are answered in time, by policy.
//!
//! **The claim** (paper, §4 and §5: a scheduler that merges tenants' kernels "can meet SLOs" at loads where the others cannot; measured as Clockwork,
//! OSDI '20, and AlpaServe, OSDI '23, do). Tenants of one architecture, popularity by Zipf's law, requests in an open loop, one SLO for all.
//!
//! **The expected shape.** At low rates every policy is in time. Each bends down at its own rate: tenants in turn where single requests fill the
//! device's time, side by side somewhat later, and shared launches last. `exclusive` batches each tenant alone: with many tenants it is little better than
//! turns, as most have one request waiting.
//!
//! **How.** All that are compared run in turns, forwards and backwards, so that a drift of the machine meets all alike: first each at four fifths of what it answers when
//! always as many requests are on their way (a closed loop, which knows no SLO), and half as much again until it is too slow; then nearer and nearer to what it had
//! in time then; then, some rounds long, everybody at the rates that were found for anybody; and last each at 80 % of its own rate, where all should be well: nearly every tenant with 99 % in time, and launches as long as they were predicted to be.
//!
//! **What would refute it.** Another policy whose rate at 99 % is half of space-time's or more, on a device that one request leaves
//! idle. On a CPU, which one request keeps busy, no large difference is expected, and the figure says so.

mod search;

pub(super) use search::highest;

use super::foresight::Foresight;
use super::plot::Plot;
use crate::load::Row;
use anyhow::{Result, ensure};
use search::Search;
use serde::Serialize;
use std::fmt;
use tessera_core::Policy;

/// The part of requests that must be in time.
pub const WANTED: f64 = 0.99;

/// Of the rate that was found: a load that leaves some room.
pub const EASE: f64 = 0.8;

/// The figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// `goodput`.
    pub bench: &'static str,
    /// What was measured, in words.
    pub about: String,
    /// What counts as in time, in milliseconds.
    pub slo_ms: f64,
    /// All that were compared.
    pub policies: Vec<Found>,
    /// All of them at the same rates, in rounds after the search.
    pub compared: Vec<Compared>,
    /// Each at [`EASE`] of its own rate, but for those that have none.
    pub eased: Vec<Eased>,
}

/// A policy, where it ran in more than one place with the place's name.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Found {
    /// Which.
    pub policy: String,
    /// The highest rate that kept [`WANTED`] in time, in requests per second; zero when even the lowest did not.
    pub rate: f64,
    /// Every rate that was tried, in the order of trying.
    pub tried: Vec<Tried>,
}

/// One rate.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Tried {
    /// Requests per second, as asked.
    pub rate: f64,
    /// The part that was answered in time.
    pub in_time: f64,
    /// Requests in time per second.
    pub goodput: f64,
    /// Of answered requests, in milliseconds.
    pub p99_ms: f64,
}

/// Everybody at one rate, means of all rounds.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Compared {
    /// Requests per second, as asked.
    pub rate: f64,
    /// In the order of [`Report::policies`].
    pub policies: Vec<Tried>,
}

/// One of them at a load that leaves some room.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Eased {
    /// Which.
    pub policy: String,
    /// All tenants together.
    #[serde(flatten)]
    pub all: Tried,
    /// Of the tenants that were asked, the part that had [`WANTED`] of their own requests in time.
    pub tenants: f64,
    /// How far launches were from what was predicted of them; `null` where nothing is predicted.
    pub predicted: Option<Foresight>,
}

impl Eased {
    fn of(policy: &str, rate: f64, (row, predicted): &Measured) -> Eased {
        let asked = row.tenants.iter().filter(|tenant| tenant.sent > 0);
        let well = asked.clone().filter(|tenant| tenant.part() >= WANTED).count();
        Eased {
            policy: policy.to_owned(),
            all: Tried::of(rate, row),
            tenants: well as f64 / asked.count().max(1) as f64,
            predicted: predicted.clone(),
        }
    }
}

impl Tried {
    fn of(rate: f64, row: &Row) -> Tried {
        Tried { rate, in_time: row.in_slo.unwrap_or(0.0), goodput: row.goodput, p99_ms: row.latency_ms.p99 }
    }

    fn mean(tried: &[Tried]) -> Option<Tried> {
        let mean = |of: fn(&Tried) -> f64| tried.iter().map(of).sum::<f64>() / tried.len() as f64;
        Some(Tried {
            rate: tried.first()?.rate,
            in_time: mean(|tried| tried.in_time),
            goodput: mean(|tried| tried.goodput),
            p99_ms: mean(|tried| tried.p99_ms),
        })
    }
}

/// A run, and how far its launches were from what was predicted of them, where that is known.
pub type Measured = (Row, Option<Foresight>);

/// Runs one of those that are compared, by number, at a rate.
pub type Measure<'a> = &'a mut dyn FnMut(usize, f64) -> Result<Measured>;

/// One of those that are compared.
#[derive(Clone, PartialEq, Debug)]
pub struct Way {
    /// A policy, where it runs in more than one place with the place's name.
    pub name: String,
    /// What it answers in a closed loop, in requests per second; its search begins near that. `None` begins at the lowest rate.
    pub capacity: Option<f64>,
}

/// Finds everybody's rate, from `lowest` up, runs all at the rates that were found so many rounds, and each at ease. The tenants have an SLO.
pub fn run(
    about: String,
    slo_ms: f64,
    ways: Vec<Way>,
    (lowest, rounds): (f64, usize),
    measure: Measure<'_>,
) -> Result<Report> {
    ensure!(lowest > 0.0 && lowest.is_finite(), "the lowest rate is above zero");
    let mut searches: Vec<Search> = ways.iter().map(|way| Search::near(way.capacity, lowest)).collect();
    let names: Vec<String> = ways.into_iter().map(|way| way.name).collect();
    let mut tried: Vec<Vec<Tried>> = vec![Vec::new(); names.len()];
    let mut turns = Turns::of(names.len());
    while searches.iter().any(Search::goes_on) {
        for who in turns.next() {
            let Some(rate) = searches[who].next()? else { continue };
            let one = Tried::of(rate, &measure(who, rate)?.0);
            searches[who].hear(rate, one.in_time >= WANTED, Some(one.goodput));
            tried[who].push(one);
        }
    }
    let mut rates: Vec<f64> = searches.iter().map(Search::good).filter(|rate| *rate > 0.0).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let mut compared: Vec<Vec<Vec<Tried>>> = vec![vec![Vec::new(); names.len()]; rates.len()];
    for _ in 0..rounds {
        for (rate, at_rate) in rates.iter().zip(&mut compared) {
            for who in turns.next() {
                at_rate[who].push(Tried::of(*rate, &measure(who, *rate)?.0));
            }
        }
    }
    let mut eased = Vec::with_capacity(names.len());
    for (who, (name, search)) in
        names.iter().zip(&searches).enumerate().filter(|(_, (_, search))| search.good() > 0.0)
    {
        let rate = EASE * search.good();
        eased.push(Eased::of(name, rate, &measure(who, rate)?));
    }
    let compared = rates.iter().zip(&compared).map(|(rate, at_rate)| {
        let policies = at_rate.iter().filter_map(|rounds| Tried::mean(rounds)).collect();
        Compared { rate: *rate, policies }
    });
    let compared = compared.filter(|compared| !compared.policies.is_empty()).collect();
    let found = names.into_iter().zip(searches).zip(tried);
    let found = found.map(|((policy, search), tried)| Found { policy, rate: search.good(), tried }).collect();
    Ok(Report { bench: "goodput", about, slo_ms, policies: found, compared, eased })
}

/// Whose turn it is: all, forwards and backwards.
struct Turns {
    order: Vec<usize>,
}

impl Turns {
    fn of(many: usize) -> Turns {
        Turns { order: (0..many).rev().collect() }
    }

    fn next(&mut self) -> Vec<usize> {
        self.order.reverse();
        self.order.clone()
    }
}

impl Report {
    /// In time against rate, a line for each.
    pub fn plot(&self) -> Plot {
        let line = |found: &Found| {
            let points = found.tried.iter().map(|tried| (tried.rate, 100.0 * tried.in_time)).collect();
            (format!("{} ({:.0}/s)", found.policy, found.rate), points)
        };
        Plot {
            title: format!("Requests in time, SLO {} ms: {}", self.slo_ms, self.about),
            x: "requests per second".to_owned(),
            y: "in time, %".to_owned(),
            mark: Some((100.0 * WANTED, "99 %".to_owned())),
            lines: self.policies.iter().map(line).collect(),
        }
    }

    fn widest(&self) -> usize {
        self.policies.iter().map(|found| found.policy.chars().count()).max().unwrap_or_default().max(6)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.widest();
        writeln!(
            f,
            "goodput: {}; the highest rate with {:.0} % in {} ms",
            self.about,
            100.0 * WANTED,
            self.slo_ms
        )?;
        writeln!(f, "{:<width$} {:>12} {:>12} {:>10}", "policy", "requests/s", "ours/this", "p99 ms")?;
        let ours = self.policies.iter().find(|found| found.policy == Policy::SpaceTime.name());
        for Found { policy, rate, tried } in &self.policies {
            let over = ours
                .filter(|_| *rate > 0.0)
                .map_or("–".to_owned(), |ours| format!("{:.2}x", ours.rate / rate));
            let p99 = tried.iter().find(|tried| tried.rate == *rate);
            let p99 = p99.map_or("–".to_owned(), |tried| format!("{:.2}", tried.p99_ms));
            writeln!(f, "{policy:<width$} {rate:>12.0} {over:>12} {p99:>10}")?;
        }
        if !self.eased.is_empty() {
            writeln!(
                f,
                "\nat {:.0} % of its rate; predicted: by how much launches were off once all had settled, the median and the 99th percentile, and that with settling",
                100.0 * EASE
            )?;
            writeln!(
                f,
                "{:<width$} {:>12} {:>10} {:>10} {:>20} {:>20}",
                "policy", "requests/s", "in time", "p99 ms", "tenants at 99 %", "predicted"
            )?;
        }
        for Eased { policy, all, tenants, predicted } in &self.eased {
            let (in_time, tenants) =
                (format!("{:.2} %", 100.0 * all.in_time), format!("{:.1} %", 100.0 * tenants));
            let off = predicted.as_ref().map_or(
                "–".to_owned(),
                |Foresight { median, p99, p99_with_settling, .. }| {
                    format!("{:.1}, {:.1}, {:.1} %", 100.0 * median, 100.0 * p99, 100.0 * p99_with_settling)
                },
            );
            writeln!(
                f,
                "{policy:<width$} {:>12.0} {in_time:>10} {:>10.2} {tenants:>20} {off:>20}",
                all.rate, all.p99_ms
            )?;
        }
        let furthest =
            |eased: &Eased| Some((eased.policy.clone(), eased.predicted.as_ref()?.furthest.first()?.clone()));
        for (policy, far_off) in self.eased.iter().filter_map(furthest) {
            writeln!(f, "furthest off, {policy}: {far_off}")?;
        }
        if self.compared.is_empty() {
            return Ok(());
        }
        write!(f, "\nin time, % (p99 ms), all at the same rates\n{:<width$}", "policy")?;
        self.compared
            .iter()
            .try_for_each(|compared| write!(f, " {:>16}", format!("{:.0}/s", compared.rate)))?;
        writeln!(f)?;
        for (number, found) in self.policies.iter().enumerate() {
            write!(f, "{:<width$}", found.policy)?;
            for tried in self.compared.iter().filter_map(|compared| compared.policies.get(number)) {
                let cell = format!("{:.1} ({:.2})", 100.0 * tried.in_time, tried.p99_ms);
                write!(f, " {cell:>16}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::foresight::FarOff;

    /// A place that answers so many requests a second in time, and no more.
    fn row(rate: f64, most: f64) -> Row {
        use crate::load::{Ended, Level, Sample, Tally, Tenant, Times};
        use std::time::Duration;
        let second = Duration::from_secs(1);
        let tenant = Tenant { name: "t".into(), slo: Some(second) };
        let times = Times { warmup: Duration::ZERO, length: second, grace: second };
        let mut tally = Tally::new(vec![tenant], times, 1);
        for number in 0..rate as u64 {
            let ended = if (number as f64) < most { Ended::Answered } else { Ended::Refused };
            let due = second / rate as u32 * number as u32;
            tally.count(&Sample { tenant: 0, due, lag: Duration::ZERO, latency: Duration::ZERO, ended });
        }
        tally.row(Level::RequestRate(rate))
    }

    fn foresight() -> Foresight {
        let far_off = FarOff {
            after_s: 0.1,
            plan: None,
            lanes: 2,
            items: 3,
            units: 132,
            beside: false,
            first: true,
            known_by: 4,
            predicted_ms: 0.5,
            took_ms: 0.95,
        };
        Foresight { launches: 9, median: 0.03, p99: 0.12, p99_with_settling: 0.9, furthest: vec![far_off] }
    }

    #[test]
    fn everybody_is_tried_in_turns_at_doubled_rates_and_then_at_all_that_were_found() {
        let mut asked = Vec::new();
        let ways = ["quick", "slow"].map(|name| Way { name: name.to_owned(), capacity: None }).to_vec();
        let report = run(String::new(), 1000.0, ways, (100.0, 2), &mut |who, rate| {
            asked.push((who, rate));
            let off = foresight();
            Ok((row(rate, [1000.0, 300.0][who]), (who == 0).then_some(off)))
        });
        let report = report.unwrap();
        assert_eq!(asked[..4], [(0, 100.0), (1, 100.0), (1, 200.0), (0, 200.0)]);
        let rates: Vec<f64> = report.policies.iter().map(|found| found.rate).collect();
        assert!((950.0..=1010.0).contains(&rates[0]) && (285.0..=303.0).contains(&rates[1]), "{rates:?}");
        let [low, high] = report.compared.as_slice() else { panic!("{report}") };
        assert_eq!((low.rate, high.rate), (rates[1], rates[0]));
        assert!(low.policies.iter().all(|tried| tried.in_time >= WANTED), "{report}");
        assert!(high.policies[1].in_time < 0.5, "{report}");
        let found = |pair: &(usize, f64)| *pair == (0, rates[1]) || *pair == (1, rates[1]);
        let (at_ease, asked) = asked.split_last_chunk::<2>().map(|(before, last)| (*last, before)).unwrap();
        assert_eq!(at_ease, [(0, EASE * rates[0]), (1, EASE * rates[1])], "each at its own");
        let [quick, slow] = report.eased.as_slice() else { panic!("{report}") };
        assert_eq!((quick.tenants, slow.tenants), (1.0, 1.0), "{report}");
        assert_eq!((quick.predicted.as_ref(), slow.predicted.as_ref()), (Some(&foresight()), None));
        let furthest = "furthest off, quick: 0.950 ms, 0.500 predicted by 4: 2 lanes of 3 items, on an idle partition, 0.100 s after the begin";
        assert!(report.to_string().contains(furthest), "{report}");
        assert!(report.to_string().contains("3.0, 12.0, 90.0 %"), "{report}");
        assert!(asked[asked.len() - 8..].iter().filter(|pair| found(pair)).count() == 4, "{asked:?}");
    }
}
