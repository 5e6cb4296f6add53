//! What every bench hands over, whichever it is: the claim, what was found beside it, rows, figures for machines and a picture.
//!
//! ```text
//!   Figure ─made─▶ Made ─write─▶ DIR/NAME.json, NAME.txt, NAME.svg        as soon as it is done
//!                    └─────────▶ the report
//! ```

use super::plot::Plot;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt::Display;
use std::path::Path;

/// What somebody says, and what would show that it is not so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Claim {
    /// For people: `Figure 2: …`.
    pub title: &'static str,
    /// Whose words they are, and where.
    pub source: &'static str,
    /// What is claimed, with its numbers.
    pub says: &'static str,
    /// What would refute it.
    pub refuted: &'static str,
}

/// Whether a claim holds here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "verdict", content = "because", rename_all = "kebab-case")]
pub enum Verdict {
    /// It does; the numbers that say so.
    Reproduced(String),
    /// It does not, on this hardware; the numbers that say so.
    NotReproduced(String),
    /// What was measured does not say.
    Undecided(String),
}

impl Verdict {
    /// Reproduced where `holds`, with the numbers that say so either way.
    pub fn of(holds: bool, because: String) -> Verdict {
        if holds { Verdict::Reproduced(because) } else { Verdict::NotReproduced(because) }
    }

    /// For people.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Reproduced(_) => "reproduced",
            Verdict::NotReproduced(_) => "not reproduced on this hardware",
            Verdict::Undecided(_) => "undecided",
        }
    }

    /// The numbers.
    pub fn because(&self) -> &str {
        match self {
            Verdict::Reproduced(why) | Verdict::NotReproduced(why) | Verdict::Undecided(why) => why,
        }
    }
}

/// What was measured. Its `Display` is the rows.
pub trait Figure: Serialize + Display {
    /// What it is about.
    const CLAIM: Claim;

    /// What it says of the claim.
    fn verdict(&self) -> Verdict;

    /// Pictures, as SVG.
    fn pictures(&self) -> Vec<String>;

    /// All of it, to be kept.
    fn made(&self, name: &'static str) -> Result<Made> {
        let figures = serde_json::to_value(self).with_context(|| format!("{name} as JSON"))?;
        Ok(Made {
            name,
            claim: Self::CLAIM,
            verdict: self.verdict(),
            pictures: self.pictures(),
            rows: self.to_string(),
            figures,
        })
    }
}

/// A figure that is done.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Made {
    /// As on the command line.
    pub name: &'static str,
    /// What it is about.
    pub claim: Claim,
    /// What it says of the claim.
    pub verdict: Verdict,
    /// The figures of the bench, in its own shape.
    pub figures: serde_json::Value,
    /// For people.
    #[serde(skip)]
    pub rows: String,
    /// As SVG.
    #[serde(skip)]
    pub pictures: Vec<String>,
}

impl Made {
    /// Writes `NAME.json`, `NAME.txt` and `NAME.svg` (`NAME-2.svg` and so on where there are more) into a folder that is there.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let put = |name: String, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        put(format!("{}.json", self.name), &json)?;
        put(format!("{}.txt", self.name), &self.to_string())?;
        for (number, picture) in self.pictures.iter().enumerate() {
            let suffix = if number == 0 { String::new() } else { format!("-{}", number + 1) };
            put(format!("{}{suffix}.svg", self.name), picture)?;
        }
        Ok(())
    }
}

impl Display for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Made { claim, verdict, rows, .. } = self;
        writeln!(f, "{}\n", rows.trim_end())?;
        writeln!(f, "Claim ({}): {}", claim.source, claim.says)?;
        writeln!(f, "Here: {}. {}", verdict.name(), verdict.because())
    }
}

/// The pictures of plots.
pub(super) fn drawn(plots: impl IntoIterator<Item = Plot>) -> Vec<String> {
    plots.into_iter().map(|plot| plot.to_string()).collect()
}
