//! Mixed: tenants of several architectures on one device, each class with its SLO.
//!
//! **The claim.** None of the paper's: its tenants share one architecture, "addressing both model heterogeneity and queuing latency is a key focus of future
//! work" (§2). Ours: classes cannot share launches, but promises by deadline, and partitions where one class's launches are longer than another can
//! wait for, keep all of them in time at rates where the paper's baselines lose the class with the tightest SLO. ResNet-50, MobileNetV2, BERT-base and
//! an LSTM, open loop, arrivals by Poisson, as Clockwork (OSDI '20) mixes models.
//!
//! **The expected shape.** Under `exclusive` and `time` the quick class fails first, at a low rate: it waits for whole turns of the slow ones. `space`
//! runs them side by side and slows all. `space-time` falls for all classes at about one rate, since each loses only what the device cannot do. Cut into partitions
//! as the scheduler sees fit it is no worse than as one, and better where one launch of the slowest class takes longer than the tightest SLO allows, or where
//! launches of one class leave a part of the device idle, as small ones do on a card, that streams for other classes use. On a device that yields one partition does
//! better than one that does not where launches of a slow class are longer than a quick one can wait for: they stand back between their steps. On a card that may keep classes
//! to some of its multiprocessors it does so where that saves a class that is late beside them, and does as well as without where none is.
//!
//! **What would refute it.** A baseline with a higher rate than `space-time` for all classes; a lower rate with interruptions than without by more than the rates' own coarseness; or `space-time` with layouts below itself on one partition by
//! more than the rates' own coarseness (5 %).

use super::goodput::{WANTED, highest};
use super::plot::Plot;
use crate::load::{Row, TenantRow};
use anyhow::{Result, ensure};
use serde::Serialize;
use std::fmt;
use tessera_core::Policy;

/// A policy, on the device as it divides itself or on one partition of everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    /// Who runs when.
    pub policy: Policy,
    /// Whether the device is in one partition whatever it offers.
    pub whole: bool,
    /// Whether classes that can wait may be kept to some multiprocessors of a card, behind the others.
    pub behind: bool,
    /// Whether its launches stand back for urgent ones, on a device that yields.
    pub interrupts: bool,
}

impl Way {
    /// The ways to be compared: every policy, and ours on one partition too.
    pub fn all(policies: &[Policy]) -> Vec<Way> {
        let ways =
            policies.iter().map(|&policy| Way { policy, whole: false, behind: false, interrupts: true });
        let ours = policies.contains(&Policy::SpaceTime).then_some(Way {
            policy: Policy::SpaceTime,
            whole: true,
            behind: false,
            interrupts: true,
        });
        ways.chain(ours).collect()
    }

    /// Ours on one partition where a launch runs to its end whatever comes: beside the last of [`Way::all`], what interruptions gain.
    pub fn uninterrupted(policies: &[Policy]) -> Option<Way> {
        let ours = policies.contains(&Policy::SpaceTime);
        ours.then_some(Way { policy: Policy::SpaceTime, whole: true, behind: false, interrupts: false })
    }

    /// Ours where classes that can wait may be kept to some multiprocessors of a card: beside the first of [`Way::all`], what that gains.
    pub fn behind(policies: &[Policy]) -> Option<Way> {
        let ours = policies.contains(&Policy::SpaceTime);
        ours.then_some(Way { policy: Policy::SpaceTime, whole: false, behind: true, interrupts: true })
    }

    fn name(self) -> String {
        let suffix = if self.whole { ", whole" } else { "" };
        let behind = if self.behind { ", behind" } else { "" };
        let yields = if self.interrupts { "" } else { ", uninterrupted" };
        format!("{}{suffix}{behind}{yields}", self.policy.name())
    }
}

/// The figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// `mixed`.
    pub bench: &'static str,
    /// What was measured, in words.
    pub about: String,
    /// A way each.
    pub ways: Vec<Found>,
}

/// One way of running them.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Found {
    /// The policy, and `whole` where the device was kept in one partition.
    pub way: String,
    /// The highest rate that kept 99 % of every class in time, in requests per second of all classes together; zero when even the lowest did not.
    pub rate: f64,
    /// Every rate that was tried, in the order of trying.
    pub tried: Vec<Tried>,
}

/// One rate.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Tried {
    /// Requests per second, as asked.
    pub rate: f64,
    /// The part in time of the class that fared worst.
    pub in_time: f64,
    /// Requests in time per second, of all classes.
    pub goodput: f64,
    /// By class.
    pub classes: Vec<Class>,
}

/// One class at one rate.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Class {
    /// Its architecture.
    pub name: String,
    /// What counts as in time, in milliseconds.
    pub slo_ms: f64,
    /// The part that was answered in time.
    pub in_time: f64,
    /// Requests in time per second.
    pub goodput: f64,
    /// Of answered requests, in milliseconds.
    pub p99_ms: f64,
}

impl Class {
    fn of(row: &TenantRow) -> Class {
        Class {
            name: row.name.clone(),
            slo_ms: row.slo_ms.unwrap_or(f64::INFINITY),
            in_time: row.in_time as f64 / row.sent.max(1) as f64,
            goodput: row.goodput,
            p99_ms: row.latency_ms.p99,
        }
    }
}

impl Tried {
    fn of(rate: f64, row: &Row) -> Tried {
        let classes: Vec<Class> = row.tenants.iter().map(Class::of).collect();
        let in_time = classes.iter().map(|class| class.in_time).fold(1.0, f64::min);
        Tried { rate, in_time, goodput: row.goodput, classes }
    }
}

/// Finds every way's rate, from `lowest` up. `measure` runs a way at a rate; its row is by class.
pub fn run(
    about: String,
    ways: &[Way],
    lowest: f64,
    measure: &mut dyn FnMut(Way, f64) -> Result<Row>,
) -> Result<Report> {
    ensure!(lowest > 0.0 && lowest.is_finite(), "the lowest rate is above zero");
    let mut found = Vec::with_capacity(ways.len());
    for &way in ways {
        let mut tried = Vec::new();
        let rate = highest(lowest, &mut |rate| {
            let one = Tried::of(rate, &measure(way, rate)?);
            let in_time = one.in_time;
            tried.push(one);
            Ok(in_time >= WANTED)
        })?;
        found.push(Found { way: way.name(), rate, tried });
    }
    Ok(Report { bench: "mixed", about, ways: found })
}

impl Found {
    /// The highest rate that was good; the lowest that was tried where none was.
    fn shown(&self) -> Option<&Tried> {
        let good = self.tried.iter().find(|tried| tried.rate == self.rate);
        good.or_else(|| self.tried.iter().min_by(|one, two| one.rate.total_cmp(&two.rate)))
    }
}

impl Report {
    /// In time of the class that fared worst against rate, a line for each way.
    pub fn plot(&self) -> Plot {
        let line = |found: &Found| {
            let points = found.tried.iter().map(|tried| (tried.rate, 100.0 * tried.in_time)).collect();
            (format!("{} ({:.0}/s)", found.way, found.rate), points)
        };
        Plot {
            title: format!("In time, the class that fares worst: {}", self.about),
            x: "requests per second, all classes".to_owned(),
            y: "in time, %".to_owned(),
            mark: Some((100.0 * WANTED, "99 %".to_owned())),
            lines: self.ways.iter().map(line).collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "mixed: {}; the highest rate with {:.0} % of every class in time",
            self.about,
            100.0 * WANTED
        )?;
        writeln!(
            f,
            "{:<33} {:>11} {:>10}   at that rate, by class: in time, p99",
            "policy", "requests/s", "ours/this"
        )?;
        let ours = self.ways.iter().find(|found| found.way == Policy::SpaceTime.name());
        for found in &self.ways {
            let over = ours
                .filter(|_| found.rate > 0.0)
                .map_or("–".to_owned(), |ours| format!("{:.2}x", ours.rate / found.rate));
            write!(f, "{:<33} {:>11.0} {over:>10}  ", found.way, found.rate)?;
            let Some(shown) = found.shown() else { continue };
            if found.rate == 0.0 {
                write!(f, " (at {:.0}/s)", shown.rate)?;
            }
            for Class { name, slo_ms, in_time, p99_ms, .. } in &shown.classes {
                write!(f, "  {name} {:.1} %, {p99_ms:.1} of {slo_ms:.0} ms", 100.0 * in_time)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Level, Tally, Tenant, Times};
    use std::time::Duration;

    /// A row in which the second class has so many of ten requests in time.
    fn row(kept: u64) -> Row {
        let times = Times { warmup: Duration::ZERO, length: Duration::from_secs(1), grace: Duration::ZERO };
        let class = |name: &str| Tenant { name: name.into(), slo: Some(Duration::from_millis(10)) };
        let mut row = Tally::new(vec![class("quick"), class("slow")], times, 1).row(Level::RequestRate(1.0));
        for (class, kept) in row.tenants.iter_mut().zip([10, kept]) {
            (class.sent, class.in_time) = (10, kept);
        }
        row
    }

    #[test]
    fn a_rate_is_good_when_every_class_is_in_time() {
        let ways = Way::all(&[Policy::SpaceTime, Policy::Time]);
        let limit = |way: Way| if way.policy == Policy::Time { 50.0 } else { 200.0 };
        let measure = &mut |way, rate| Ok(row(if rate <= limit(way) { 10 } else { 9 }));
        let report = run("two classes".into(), &ways, 10.0, measure).unwrap();
        let names: Vec<&str> = report.ways.iter().map(|found| found.way.as_str()).collect();
        assert_eq!(names, ["space-time", "time", "space-time, whole"]);
        let rates: Vec<f64> = report.ways.iter().map(|found| found.rate).collect();
        assert!((190.0..=200.0).contains(&rates[0]) && (47.0..=50.0).contains(&rates[1]), "{rates:?}");
        let last = report.ways[0].tried.iter().find(|tried| tried.rate > 200.0).unwrap();
        assert_eq!((last.in_time, last.classes[0].in_time), (0.9, 1.0), "the worst class counts");
        let text = report.to_string();
        assert!(
            text.lines().any(|line| line.starts_with("time ") && line.contains("slow 100.0 %")),
            "{text}"
        );
        assert!(report.plot().to_string().contains("space-time, whole ("));
        let uninterrupted = Way::uninterrupted(&[Policy::SpaceTime]).unwrap();
        assert_eq!(uninterrupted.name(), "space-time, whole, uninterrupted");
        assert_eq!(Way::uninterrupted(&[Policy::Time]), None);
        assert_eq!(Way::behind(&[Policy::SpaceTime]).unwrap().name(), "space-time, behind");
    }
}
