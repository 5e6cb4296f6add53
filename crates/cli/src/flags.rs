//! Flags that several commands have, each spelled once, and what was given for them.

use crate::print::print;
use anyhow::{Context, Result};
use clap::{Arg, ArgAction, ArgMatches, value_parser};
use std::fmt::Display;
use std::fs::OpenOptions;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;
use tessera_core::Policy;

/// A flag with a value.
pub(crate) fn arg(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value)
}

/// The same with a default.
pub(crate) fn text(name: &'static str, value: &'static str, default: &'static str) -> Arg {
    arg(name, value).default_value(default)
}

/// A whole number above zero.
pub(crate) fn number(name: &'static str, default: &'static str) -> Arg {
    text(name, "N", default).value_parser(value_parser!(u32).range(1..=10_000_000))
}

/// Words that are separated by commas, or given one after the other.
pub(crate) fn list(arg: Arg) -> Arg {
    arg.action(ArgAction::Append).value_delimiter(',')
}

/// Under which policies.
pub(crate) fn policy_flag() -> Arg {
    list(text("policy", "POLICY", "all"))
        .help("space-time, space, time, exclusive, or all; may be given several times")
}

/// What is drawn at random, in words.
pub(crate) fn seed_flag(decides: &'static str) -> Arg {
    text("seed", "N", "1").value_parser(value_parser!(u64)).help(decides)
}

/// Where figures go for machines.
pub(crate) fn json_flag() -> Arg {
    file_flag("json")
        .help("Write the figures there too; - writes them to standard output, in place of the table")
}

/// A file to write when all is measured. One that cannot be written is refused before anything is.
pub(crate) fn file_flag(name: &'static str) -> Arg {
    arg(name, "FILE").value_parser(writable)
}

/// A path that a file can be written to, or `-`. The error is a sentence.
fn writable(word: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(word);
    let is_there = path.exists();
    // Opening a pipe would wait for its reader, and to a device anything can be written.
    if word == "-" || (is_there && !path.is_file() && !path.is_dir()) {
        return Ok(path);
    }
    let opened = OpenOptions::new().append(true).create(true).open(&path);
    opened.map_err(|why| format!("it cannot be written: {why}"))?;
    if !is_there {
        let _ = std::fs::remove_file(&path); // an empty file is no harm
    }
    Ok(path)
}

/// Writes a report where [`json_flag`] says: the table for people, the figures for machines.
pub(crate) fn publish(given: &ArgMatches, table: &dyn Display, mut figures: String) -> Result<()> {
    figures.push('\n');
    match given.get_one::<PathBuf>("json") {
        Some(path) if path.as_os_str() == "-" => print(&figures),
        Some(path) => {
            std::fs::write(path, figures).with_context(|| format!("cannot write {}", path.display()))?;
            print(table)
        }
        None => print(table),
    }
}

/// What [`policy_flag`] says: each once, in the order in which they were named.
pub(crate) fn policies(given: &ArgMatches) -> Result<Vec<Policy>> {
    let mut policies = Vec::new();
    for word in words(given, "policy") {
        let named = match word {
            "all" => Policy::ALL.to_vec(),
            word => vec![word.parse().map_err(anyhow::Error::msg)?],
        };
        policies.extend(named.into_iter().filter(|policy| !policies.contains(policy)).collect::<Vec<_>>());
    }
    Ok(policies)
}

/// Every word that was given for a flag.
pub(crate) fn words<'a>(given: &'a ArgMatches, name: &str) -> impl Iterator<Item = &'a str> {
    given.get_many::<String>(name).into_iter().flatten().map(String::as_str)
}

/// What a flag with a default says.
pub(crate) fn parsed<T: std::str::FromStr<Err = String>>(given: &ArgMatches, name: &str) -> Result<T> {
    given.get_one::<String>(name).map_or("", String::as_str).parse().map_err(anyhow::Error::msg)
}

/// What a [`number`] is.
pub(crate) fn count(given: &ArgMatches, name: &str) -> u32 {
    given.get_one::<u32>(name).copied().unwrap_or(1)
}

/// The same, for who wants it so.
pub(crate) fn nonzero(given: &ArgMatches, name: &str) -> Result<NonZeroU32> {
    NonZeroU32::new(count(given, name)).with_context(|| format!("--{name} is at least 1"))
}

/// What [`seed_flag`] says.
pub(crate) fn seed(given: &ArgMatches) -> u64 {
    given.get_one::<u64>("seed").copied().unwrap_or_default()
}

/// What counts as in time, from milliseconds.
pub(crate) fn slo(ms: f64) -> Result<Duration> {
    let slo = Duration::try_from_secs_f64(ms / 1e3).ok().filter(|slo| !slo.is_zero());
    slo.with_context(|| format!("an SLO of {ms} ms: give milliseconds above zero"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_is_refused_before_anything_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let word = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let given = |word: &str| {
            let command = clap::Command::new("test").arg(json_flag());
            command
                .try_get_matches_from(["test", "--json", word])
                .map(drop)
                .map_err(|error| error.to_string())
        };
        std::fs::write(word("kept.json"), "kept").unwrap();
        for fine in ["-", &word("new.json"), &word("kept.json")] {
            assert_eq!(given(fine), Ok(()), "{fine}");
        }
        assert!(!folder.path().join("new.json").exists());
        assert_eq!(std::fs::read_to_string(word("kept.json")).unwrap(), "kept");
        for wrong in [word(""), word("nowhere/new.json")] {
            let refused = given(&wrong).unwrap_err();
            assert!(refused.contains("it cannot be written: "), "{refused}");
        }
    }
}
