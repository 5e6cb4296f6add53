//! The report as one page of HTML that needs nothing else: its style is in it, pictures are inline, and there is no script.
//!
//! Colours follow the reader's light or dark; on a phone the columns go below each other; in print each figure begins a page.

use super::all::{Entry, Outcome, Report};
use super::plot::Escaped;
use std::fmt::{self, Display};

const STYLE: &str = include_str!("page.css");

/// The page. Its `Display` is the HTML.
pub(super) struct Page<'a>(pub(super) &'a Report);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Page(report) = self;
        writeln!(f, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
        writeln!(f, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
        writeln!(
            f,
            "<title>Tessera: the paper's evaluation</title>\n<style>\n{STYLE}</style>\n</head>\n<body>"
        )?;
        writeln!(f, "<h1>Tessera: the paper's evaluation, repeated</h1>")?;
        writeln!(
            f,
            "<p>What “Dynamic Space-Time Scheduling for GPU Inference” (Jain et al.) measured, what was measured here, and whether the one bears out the other.</p>"
        )?;
        write_machine(f, report)?;
        if report.quick || report.machine.debug {
            let why = if report.quick { "a quick run of tiny networks" } else { "a build for debugging" };
            writeln!(
                f,
                "<p class=\"note\">This is {why}: it shows that every bench works, and its numbers mean nothing.</p>"
            )?;
        }
        write_summary(f, report)?;
        report.entries.iter().try_for_each(|entry| write_entry(f, entry))?;
        writeln!(f, "</body>\n</html>")
    }
}

fn write_machine(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let machine = &report.machine;
    let source = machine.commit.as_deref().unwrap_or("commit not known");
    let mut rows = vec![
        ("When", format!("{} UTC", machine.when)),
        ("Processor", format!("{}, {} threads", machine.processor, machine.threads)),
    ];
    rows.extend(machine.cards.iter().map(|card| ("Card", card.clone())));
    rows.push(("Device", report.device.clone()));
    rows.push(("Tessera", format!("{}, {source}", machine.version)));
    writeln!(f, "<dl>")?;
    for (what, value) in rows {
        writeln!(f, "<dt>{what}</dt><dd>{}</dd>", Escaped(&value))?;
    }
    writeln!(f, "<dt>Command</dt><dd><code>{}</code></dd>\n</dl>", Escaped(&report.command))
}

fn write_summary(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    writeln!(f, "<table>\n<thead><tr><th>Bench</th><th>Verdict</th><th>Here</th></tr></thead>\n<tbody>")?;
    for entry in &report.entries {
        writeln!(
            f,
            "<tr><td><a href=\"#{name}\">{name}</a></td><td>{}</td><td>{}</td></tr>",
            Word(&entry.outcome),
            Escaped(entry.outcome.because()),
            name = entry.name,
        )?;
    }
    writeln!(f, "</tbody>\n</table>")
}

fn write_entry(f: &mut fmt::Formatter<'_>, entry: &Entry) -> fmt::Result {
    let Entry { name, claim, command, took_s, outcome } = entry;
    writeln!(f, "<section id=\"{name}\">\n<h2>{}</h2>", Escaped(claim.title))?;
    writeln!(f, "<div class=\"pair\">\n<div><h3>Claim</h3><p>{}</p>", Escaped(claim.says))?;
    writeln!(f, "<p class=\"small\">{}</p>", Escaped(claim.source))?;
    writeln!(f, "<p class=\"small\">Refuted by: {}.</p></div>", Escaped(claim.refuted))?;
    writeln!(
        f,
        "<div><h3>Here</h3><p>{}</p><p>{}</p></div>\n</div>",
        Word(outcome),
        Escaped(outcome.because())
    )?;
    if let Outcome::Made(made) = outcome {
        for picture in &made.pictures {
            writeln!(f, "<figure>\n{picture}</figure>")?;
        }
        writeln!(f, "<pre>{}</pre>", Escaped(made.rows.trim_end()))?;
    }
    writeln!(f, "<p class=\"small\"><code>{}</code>, {took_s:.0} s</p>\n</section>", Escaped(command))
}

/// What came of a bench, in its colour.
struct Word<'a>(&'a Outcome);

impl Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.0.word();
        let class = word.split(' ').next().unwrap_or_default();
        write!(f, "<span class=\"word {class}\">{word}</span>")
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::Machine;
    use super::super::made::{Claim, Made, Verdict};
    use super::*;

    #[test]
    fn a_page_stands_by_itself_and_holds_what_came_of_every_bench() {
        let claim = Claim { title: "A < B", source: "s", says: "more & more", refuted: "less" };
        let made = Made {
            name: "one",
            claim,
            verdict: Verdict::of(false, "3 < 4".into()),
            figures: serde_json::Value::Null,
            rows: "a  b\n1  <2>\n".into(),
            pictures: vec!["<svg></svg>\n".into()],
        };
        let entry = |name, outcome| Entry { name, claim, command: "tessera".into(), took_s: 1.0, outcome };
        let entries = vec![
            entry("one", Outcome::Made(made)),
            entry("two", Outcome::Skipped("no card".into())),
            entry("three", Outcome::Failed("it broke".into())),
        ];
        let (machine, command) = (Machine::now(), "tessera bench all".to_owned());
        let report = Report { machine, command, device: "cpu".into(), quick: true, entries };
        let page = Page(&report).to_string();
        for part in [
            "A &lt; B",
            "more &amp; more",
            "<svg></svg>",
            "1  &lt;2&gt;",
            "not reproduced on this hardware",
            "no card",
            "it broke",
            "numbers mean nothing",
            "prefers-color-scheme: dark",
            "@media print",
        ] {
            assert!(page.contains(part), "{part}");
        }
        for from_elsewhere in ["http", "<script", "<link", "@import", "url("] {
            assert!(!page.contains(from_elsewhere), "{from_elsewhere}");
        }
    }
}
