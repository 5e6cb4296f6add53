//! `tessera bench all`: every bench of the table, one after the other, within a time; one page for people.
//!
//! ```text
//!   BENCHES ─ each its part of the time that is left ─▶ Made ─▶ DIR/NAME.{json,txt,svg}
//!                      └ skipped, failed: by name, with why ─┴─▶ DIR/report.html, report.json    written anew after each
//! ```
//! What one leaves of its time goes to those after it. One that fails ends nothing but itself.

use super::ask::{Ask, Budget};
use super::machine::Machine;
use super::made::{Claim, Made};
use super::page;
use super::table::{BENCHES, Bench};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Everything that was measured, and what was not.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// As it was typed.
    pub command: String,
    /// In the words of `tessera serve --device`.
    pub device: String,
    /// Whether sizes were so small that no number means anything.
    pub quick: bool,
    /// In the order of the table.
    pub entries: Vec<Entry>,
}

/// One bench.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Entry {
    /// As on the command line.
    pub name: &'static str,
    /// What it is about.
    pub claim: Claim,
    /// How it is run alone.
    pub command: String,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a bench.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "outcome", content = "what", rename_all = "kebab-case")]
#[allow(clippy::large_enum_variant)] // a dozen of them
pub enum Outcome {
    /// A figure.
    Made(Made),
    /// It cannot be measured here; why.
    Skipped(String),
    /// It was begun; what went wrong.
    Failed(String),
}

/// Runs those of the table that `wanted` accepts. `command` is how all of this was typed; `folder` is made where it is not there.
pub fn run(
    ask: &Ask,
    command: &str,
    folder: &Path,
    wanted: &dyn Fn(&Bench) -> bool,
    heard: &mut dyn FnMut(&str),
) -> Result<Report> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (machine, device) = (Machine::now(), ask.device.clone());
    let mut report =
        Report { machine, command: command.to_owned(), device, quick: ask.quick, entries: Vec::new() };
    let benches: Vec<&Bench> = BENCHES.iter().filter(|bench| wanted(bench)).collect();
    for (number, bench) in benches.iter().enumerate() {
        let weights: u32 = benches[number..].iter().map(|bench| bench.weight).sum();
        let budget = ask.budget.part(f64::from(bench.weight) / f64::from(weights.max(1)));
        let entry = entry(bench, &Ask { budget, ..ask.clone() }, heard);
        if let Outcome::Made(made) = &entry.outcome {
            made.write(folder)?;
        }
        heard(&entry.to_string());
        report.entries.push(entry);
        report.write(folder)?;
    }
    Ok(report)
}

fn entry(bench: &Bench, ask: &Ask, heard: &mut dyn FnMut(&str)) -> Entry {
    let started = Instant::now();
    let outcome = match (bench.cannot)(ask) {
        Some(why) => Outcome::Skipped(why),
        None if out_of_time(&ask.budget) => Outcome::Skipped("the time was over".to_owned()),
        None => {
            heard(&format!(
                "\n{}: {}; {:.0} s",
                bench.name,
                bench.claim.title,
                ask.budget.left().as_secs_f64()
            ));
            match (bench.run)(ask, heard) {
                Ok(made) => Outcome::Made(made),
                Err(why) => Outcome::Failed(format!("{why:#}")),
            }
        }
    };
    let quick = if ask.quick { " --quick" } else { "" };
    Entry {
        name: bench.name,
        claim: bench.claim,
        command: format!(
            "tessera bench all --only {} --device {} --precision {}{quick} --out DIR",
            bench.name, ask.device, ask.precision
        ),
        took_s: started.elapsed().as_secs_f64(),
        outcome,
    }
}

/// Nothing is worth beginning in less.
fn out_of_time(budget: &Budget) -> bool {
    budget.left() < Duration::from_millis(100)
}

impl Report {
    fn write(&self, folder: &Path) -> Result<()> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        for (name, text) in [("report.json", json), ("report.html", page::Page(self).to_string())] {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Those that went wrong.
    pub fn failures(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| matches!(entry.outcome, Outcome::Failed(_)))
    }
}

impl Outcome {
    /// For people, in a word or two.
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Made(made) => made.verdict.name(),
            Outcome::Skipped(_) => "skipped",
            Outcome::Failed(_) => "failed",
        }
    }

    /// Why.
    pub fn because(&self) -> &str {
        match self {
            Outcome::Made(made) => made.verdict.because(),
            Outcome::Skipped(why) | Outcome::Failed(why) => why,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<10} {:>6.1} s  {}: {}",
            self.name,
            self.took_s,
            self.outcome.word(),
            self.outcome.because()
        )
    }
}

impl fmt::Display for Report {
    /// A line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries.iter().try_for_each(|entry| writeln!(f, "{entry}"))
    }
}
