//! What a report was made on, as the system tells it; what it does not tell is left out.

use serde::Serialize;
use std::process::Command;
use std::time::SystemTime;
use tessera_server::events::rfc3339;

/// Where and when, and of which source.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Machine {
    /// When it began: UTC, as `2026-11-26 03:15`.
    pub when: String,
    /// The processor.
    pub processor: String,
    /// Threads that it runs at once.
    pub threads: usize,
    /// Its cards with their drivers, as the driver tells them.
    pub cards: Vec<String>,
    /// The version of Tessera.
    pub version: &'static str,
    /// The commit of the folder this ran in; `None` where it is none of git's.
    pub commit: Option<String>,
    /// Whether this is a build for debugging, whose times mean little.
    pub debug: bool,
}

impl Machine {
    /// As it is now.
    pub fn now() -> Machine {
        let cards =
            said("nvidia-smi", &["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]);
        Machine {
            when: to_the_minute(&rfc3339(SystemTime::now())),
            processor: processor(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            cards: cards.map(|cards| cards.lines().map(str::to_owned).collect()).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION"),
            commit: said("git", &["describe", "--always", "--dirty", "--abbrev=10"]),
            debug: cfg!(debug_assertions),
        }
    }
}

fn processor() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = told.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(
        || format!("{} ({})", std::env::consts::ARCH, std::env::consts::OS),
        |(_, name)| name.to_owned(),
    )
}

/// What a program says, where there is one.
pub(super) fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// A moment as RFC 3339 writes it, for people: `2026-11-26 03:15`.
fn to_the_minute(moment: &str) -> String {
    let (date, time) = moment.split_once('T').unwrap_or((moment, ""));
    format!("{date} {}", time.get(..5).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn moments_are_told_to_the_minute() {
        let at = |seconds| to_the_minute(&rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)));
        assert_eq!((at(0), at(951_827_640)), ("1970-01-01 00:00".to_owned(), "2000-02-29 12:34".to_owned()));
    }

    #[test]
    fn a_machine_has_a_processor_and_a_program_that_is_not_there_says_nothing() {
        let machine = Machine::now();
        assert!(!machine.processor.is_empty() && machine.threads > 0);
        assert_eq!(said("no-such-program-of-tessera", &[]), None);
    }
}
