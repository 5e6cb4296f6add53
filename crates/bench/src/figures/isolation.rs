//! Isolation: what one tenant does to the others, when it asks for ten times its part and when it becomes slow.
//!
//! **The claim** (paper, §2 and §4: space-only multiplexing leaves tenants to each other, up to 25 % between the fastest and the slowest; the scheduler it sketches
//! monitors "inference latencies per-kernel" and evicts "degraded workers" from the merged launches). Tenants of one architecture, equally popular, in an open
//! loop. The first of them makes trouble; the figure is about the others.
//!
//! ```text
//!   before │ loud: 10× its part │ after │ slow: its lanes 5× as long, first second │ slow, from then on │ well again
//! ```
//! It is slowed from outside: a launch that carries it is held for four times what its lane took, and so is the partition.
//!
//! **The expected shape.** Loud: under `space-time` its own requests are what is refused or waits, as owners have equal parts; under the others, which promise
//! nothing, queues grow for all. Slow: every policy shows it in the first second. `space-time` takes it out of the shared launches within that second, and what
//! is left is what its own launches take of the device; the others go on as in the first second. Well again, all are as before. A card tells one time for all lanes of
//! a launch, so it is found by who was aboard; the simulator's table of a card tells no more.
//!
//! **What would refute it.** Under `space-time`, the others' p99 more than 5 % above that before while one is loud, from the second second of its being slow
//! on, or after. On a device of one partition the second is expected as soon as the slow one's launches take more than a hundredth of the time, since nobody can be
//! stopped in the middle: the figure says what they take.

use super::plot::Plot;
use crate::load::{Row, TenantRow};
use anyhow::{Result, ensure};
use serde::Serialize;
use std::fmt;
use std::time::Duration;
use tessera_core::Policy;

/// How many times its part the loud one asks for.
pub const LOUD: f64 = 10.0;

/// How many times longer the slow one's lanes take.
pub const SLOW: f64 = 5.0;

/// How much the others' p99 may move.
const MOVED: f64 = 0.05;

/// A part of the run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Act {
    /// What goes on.
    pub name: &'static str,
    /// For how long.
    pub length: Duration,
    /// What is not counted at its beginning.
    pub warmup: Duration,
    /// How many times its part the first tenant asks for.
    pub louder: f64,
    /// How many times longer its lanes take.
    pub slower: f64,
}

/// The acts of a run, each so long, but for the slow one's first second.
pub fn acts(length: Duration) -> Vec<Act> {
    let act = |name, louder, slower| Act { name, length, warmup: Duration::ZERO, louder, slower };
    vec![
        Act { warmup: length / 5, ..act("before", 1.0, 1.0) },
        act("loud", LOUD, 1.0),
        act("after", 1.0, 1.0),
        Act { length: Duration::from_secs(1), ..act("slow, first second", 1.0, SLOW) },
        act("slow, from then on", 1.0, SLOW),
        // It is apart for seconds yet.
        Act { warmup: Duration::from_secs(5), ..act("well again", 1.0, 1.0) },
    ]
}

/// The figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// `isolation`.
    pub bench: &'static str,
    /// What was measured, in words.
    pub about: String,
    /// A policy each.
    pub policies: Vec<Under>,
}

/// One policy.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Under {
    /// Which.
    pub policy: &'static str,
    /// What was seen in each act.
    pub acts: Vec<Seen>,
    /// How long after it became slow the first tenant was out of the launches that it shared, in seconds; `None` where it stayed.
    pub out_after_s: Option<f64>,
}

/// What became of acts.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Played {
    /// A row each, of two groups: the first tenant and the others.
    pub rows: Vec<Row>,
    /// From when the first tenant became slow to its eviction from the launches that it shared.
    pub out_after: Option<Duration>,
}

/// One act.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Seen {
    /// Which.
    pub act: &'static str,
    /// Of the others' answers, in milliseconds.
    pub others_p99_ms: f64,
    /// The same over that of the first act, less one.
    pub moved: f64,
    /// The part of the others' requests that was in time.
    pub others_in_time: f64,
    /// Of the first tenant's answers, in milliseconds.
    pub its_p99_ms: f64,
    /// The part of its requests that was in time.
    pub its_in_time: f64,
}

/// Plays acts under a policy.
pub type Measure<'a> = dyn FnMut(Policy, &[Act]) -> Result<Played> + 'a;

/// Runs every policy. `measure` plays the acts one after the other.
pub fn run(about: String, policies: &[Policy], acts: &[Act], measure: &mut Measure<'_>) -> Result<Report> {
    let mut all = Vec::with_capacity(policies.len());
    for &policy in policies {
        let Played { rows, out_after } = measure(policy, acts)?;
        ensure!(rows.len() == acts.len(), "every act has its row");
        let mut seen: Vec<Seen> = Vec::with_capacity(acts.len());
        for (act, row) in acts.iter().zip(&rows) {
            let [first, others] = row.tenants.as_slice() else {
                anyhow::bail!("{} has {} groups, not two", act.name, row.tenants.len())
            };
            let p99 = others.latency_ms.p99;
            let before = seen.first().map_or(p99, |before| before.others_p99_ms);
            seen.push(Seen {
                act: act.name,
                others_p99_ms: p99,
                moved: p99 / before.max(1e-9) - 1.0,
                others_in_time: part(others),
                its_p99_ms: first.latency_ms.p99,
                its_in_time: part(first),
            });
        }
        let out_after_s = out_after.map(|after| after.as_secs_f64());
        all.push(Under { policy: policy.name(), acts: seen, out_after_s });
    }
    Ok(Report { bench: "isolation", about, policies: all })
}

fn part(row: &TenantRow) -> f64 {
    row.in_time as f64 / row.sent.max(1) as f64
}

impl Under {
    /// The others' p99 before any trouble and when all is well again, in milliseconds, where the first is no measure for what
    /// comes between: it is more than twice the last.
    pub fn restless(&self) -> Option<(f64, f64)> {
        let (first, last) = (self.acts.first()?.others_p99_ms, self.acts.last()?.others_p99_ms);
        (first > 2.0 * last).then_some((first, last))
    }

    /// Acts of trouble in which the others' p99 moved further than it may.
    fn refuted(&self) -> Vec<&'static str> {
        let settled = self.acts.iter().filter(|seen| !seen.act.contains("first second"));
        settled.filter(|seen| seen.moved > MOVED).map(|seen| seen.act).collect()
    }
}

impl Report {
    /// The others' p99 by act, a line for each policy.
    pub fn plot(&self) -> Plot {
        let line = |under: &Under| {
            let points = under.acts.iter().enumerate();
            let points = points.map(|(number, seen)| ((number + 1) as f64, seen.others_p99_ms)).collect();
            (under.policy.to_owned(), points)
        };
        let names: Vec<String> = self.policies.first().map_or(Vec::new(), |under| {
            let numbered = under.acts.iter().enumerate();
            numbered.map(|(number, seen)| format!("{} {}", number + 1, seen.act)).collect()
        });
        Plot {
            title: format!("p99 of the others: {}", self.about),
            x: names.join(" · "),
            y: "milliseconds".to_owned(),
            mark: None,
            lines: self.policies.iter().map(line).collect(),
        }
    }

    /// Whether space-time kept what is claimed, and where it did not; `None` where it did not run.
    pub fn kept(&self) -> Option<Vec<&'static str>> {
        let ours = self.policies.iter().find(|under| under.policy == Policy::SpaceTime.name())?;
        Some(ours.refuted())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "isolation: {}; the others, beside one that is {LOUD}x as loud, then {SLOW}x as slow",
            self.about
        )?;
        writeln!(
            f,
            "{:<11} {:<20} {:>10} {:>8} {:>9} {:>10} {:>9}",
            "policy", "act", "others p99", "moved", "in time", "its p99", "in time"
        )?;
        for Under { policy, acts, out_after_s } in &self.policies {
            for seen in acts {
                writeln!(
                    f,
                    "{policy:<11} {:<20} {:>7.2} ms {:>+6.1} % {:>7.2} % {:>7.2} ms {:>7.2} %",
                    seen.act,
                    seen.others_p99_ms,
                    100.0 * seen.moved,
                    100.0 * seen.others_in_time,
                    seen.its_p99_ms,
                    100.0 * seen.its_in_time
                )?;
            }
            if let Some(after) = out_after_s {
                writeln!(
                    f,
                    "{policy}: the slow one left the shared launches {after:.2} s after it became slow"
                )?;
            }
        }
        match self.kept() {
            Some(moved) if moved.is_empty() => {
                writeln!(f, "space-time: within {:.0} % of before throughout", 100.0 * MOVED)
            }
            Some(moved) => writeln!(f, "space-time: refuted in: {}", moved.join("; ")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::made::{Figure, Verdict};
    use crate::load::{Ended, Level, Sample, Tally, Tenant, Times};

    /// Two answers of the others and one of the first, which take so long.
    fn row(others_ms: u64) -> Row {
        let tenants = vec![Tenant { name: "tenant".to_owned(), slo: Some(Duration::from_millis(20)) }; 3];
        let times = Times { warmup: Duration::ZERO, length: Duration::from_secs(1), grace: Duration::ZERO };
        let mut tally = Tally::new(tenants, times, 1).first_beside_others();
        for (tenant, latency) in [(0, 100), (1, others_ms), (2, others_ms)] {
            let (due, lag) = (Duration::ZERO, Duration::ZERO);
            let latency = Duration::from_millis(latency);
            tally.count(&Sample { tenant, due, lag, latency, ended: Ended::Answered });
        }
        tally.row(Level::RequestRate(3.0))
    }

    #[test]
    fn the_others_are_counted_apart_from_the_one_that_makes_trouble_and_judged_against_before() {
        let acts = acts(Duration::from_secs(3));
        let took = [10, 10, 10, 50, 12, 10];
        let out_after = Some(Duration::from_millis(250));
        let rows = |_: Policy, _: &[Act]| Ok(Played { rows: took.map(row).to_vec(), out_after });
        let report = run("three tenants".to_owned(), &[Policy::SpaceTime], &acts, &mut { rows }).unwrap();
        assert_eq!(report.kept().unwrap(), ["slow, from then on"], "the first second is not held against it");
        let seen = &report.policies[0].acts[4];
        assert!((seen.moved - 0.2).abs() < 0.02 && seen.others_in_time == 1.0 && seen.its_in_time == 0.0);
        let text = report.to_string();
        assert!(text.contains("refuted in: slow, from then on"), "{text}");
        assert!(text.contains("left the shared launches 0.25 s after"), "{text}");
        assert!(report.plot().to_string().starts_with("<svg "));
    }

    #[test]
    fn a_calm_that_was_none_decides_nothing() {
        let acts = acts(Duration::from_secs(3));
        let verdict_of = |took: [u64; 6]| {
            let rows = |_: Policy, _: &[Act]| Ok(Played { rows: took.map(row).to_vec(), out_after: None });
            run(String::new(), &[Policy::SpaceTime], &acts, &mut { rows }).unwrap().verdict()
        };
        assert!(matches!(verdict_of([10, 10, 10, 50, 10, 10]), Verdict::Reproduced(_)));
        assert!(matches!(verdict_of([10, 10, 10, 50, 20, 10]), Verdict::NotReproduced(_)));
        let restless = verdict_of([76, 4, 4, 4, 4, 4]);
        assert!(matches!(&restless, Verdict::Undecided(why) if why.contains("76.0 ms")), "{restless:?}");
    }
}
