//! What a report was made on, as the system tells it; what it does not tell is left out.

use serde::Serialize;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

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
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let cards =
            said("nvidia-smi", &["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]);
        Machine {
            when: moment(seconds),
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

/// A moment of the Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
fn moment(unix_seconds: u64) -> String {
    let (days, seconds) = (unix_seconds / 86_400 + 719_468, unix_seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}", seconds / 3600, seconds % 3600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_as_the_calendar_has_them() {
        assert_eq!(moment(0), "1970-01-01 00:00");
        assert_eq!(moment(951_827_640), "2000-02-29 12:34");
        assert_eq!(moment(1_798_761_599), "2026-12-31 23:59");
    }

    #[test]
    fn a_machine_has_a_processor_and_a_program_that_is_not_there_says_nothing() {
        let machine = Machine::now();
        assert!(!machine.processor.is_empty() && machine.threads > 0);
        assert_eq!(said("no-such-program-of-tessera", &[]), None);
    }
}
