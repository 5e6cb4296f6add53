//! `tessera bench all` and its figures, as they are typed: the smallest form of each, and what it leaves behind.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

use std::path::Path;
use std::process::{Command, Output};

fn tessera(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tessera")).args(line.split(' ')).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Panics unless every element that is opened is closed, in turn.
fn assert_is_well_formed(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap_or_else(|| panic!("`<{tag}` has no end"));
        assert!(!tag.is_empty() && tag.matches('"').count() % 2 == 0, "<{tag}>");
        match tag.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed), "in {svg}"),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().unwrap()),
        }
    }
    assert!(open.is_empty(), "{open:?} are open at the end");
}

fn read(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

#[test]
fn every_bench_leaves_its_figures_rows_and_picture_and_all_are_in_one_page() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report");
    let ran = tessera(&format!("bench all --quick --device cpu --minutes 1 --out {}", out.display()));
    let said = text(&ran.stdout);
    assert!(ran.status.success(), "{said}\n{}", text(&ran.stderr));
    let report: serde_json::Value = serde_json::from_str(&read(&out, "report.json")).unwrap();
    let page = read(&out, "report.html");
    let entries = report["entries"].as_array().unwrap();
    assert!(entries.len() >= 10, "{report}");
    for entry in entries {
        let name = entry["name"].as_str().unwrap();
        assert!(said.contains(name) && page.contains(&format!("<section id=\"{name}\">")), "{name}");
        if entry["outcome"]["outcome"] == "skipped" {
            // A machine without a card measures no products.
            assert!(["table1", "figure7"].contains(&name), "{entry}");
            continue;
        }
        let figures: serde_json::Value = serde_json::from_str(&read(&out, &format!("{name}.json"))).unwrap();
        assert!(figures["verdict"]["because"].as_str().is_some_and(|why| !why.is_empty()), "{figures}");
        assert!(read(&out, &format!("{name}.txt")).contains("Claim ("));
        if name == "monitoring" {
            // A few numbers of nearly one size: a picture would say less.
            continue;
        }
        let svg = read(&out, &format!("{name}.svg"));
        assert_is_well_formed(&svg);
        assert!(page.contains(&svg), "the page has {name}'s picture");
    }
    assert!(page.contains("its numbers mean nothing") && !page.contains("<script"));
}

#[test]
fn a_figure_alone_prints_rows_and_what_they_say_of_the_claim() {
    let folder = tempfile::tempdir().unwrap();
    let ran = tessera(&format!("bench figure2 --quick --device cpu --out {}", folder.path().display()));
    let said = text(&ran.stdout);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    assert!(said.contains("within 100 ms") && said.contains("\nHere: "), "{said}");
    assert!(folder.path().join("figure2.json").is_file());
}

#[test]
fn the_report_refuses_what_it_does_not_know() {
    for (flags, why) in [("--only figure6", "no bench `figure6`"), ("--minutes 0", "more than none")] {
        let refused = tessera(&format!("bench all --out nowhere {flags}"));
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(&refused.stderr).contains(why), "{}", text(&refused.stderr));
    }
}
