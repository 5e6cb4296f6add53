//! Arrivals that were recorded: a file of `seconds,tenant` lines.
//!
//! ```text
//!   # what begins so is skipped, and so are empty lines and a first line that names the columns
//!   0.000,shop-17
//!   0.013,shop-4
//! ```

use super::Arrival;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Recorded arrivals.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trace {
    /// Names, in the order of their first arrivals; an arrival's tenant is a number in this list.
    pub tenants: Vec<String>,
    /// In order.
    pub arrivals: Vec<Arrival>,
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// A line that is none of a trace.
    #[error("line {line} of the trace, `{text}`: {wrong}; a line is `seconds,tenant`, in the order of time")]
    Line {
        /// From one.
        line: usize,
        /// As it stands there.
        text: String,
        /// What is wrong with it.
        wrong: &'static str,
    },
    /// No arrival at all.
    #[error("the trace has no arrivals; a line is `seconds,tenant`")]
    Empty,
}

impl Trace {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Trace, TraceError> {
        let text = std::fs::read_to_string(path);
        Trace::parse(&text.map_err(|why| TraceError::File { path: path.to_owned(), why })?)
    }

    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Trace, TraceError> {
        let mut trace = Trace::default();
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut last = Duration::ZERO;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            let names_columns = trace.arrivals.is_empty() && line == "seconds,tenant";
            if line.is_empty() || line.starts_with('#') || names_columns {
                continue;
            }
            let wrong = |wrong| TraceError::Line { line: index + 1, text: line.to_owned(), wrong };
            let (seconds, tenant) = line.split_once(',').ok_or_else(|| wrong("there is no comma"))?;
            let seconds: f64 = seconds.trim().parse().map_err(|_| wrong("the time is not a number"))?;
            let at = Duration::try_from_secs_f64(seconds).map_err(|_| wrong("there is no such time"))?;
            if at < last {
                return Err(wrong("it is earlier than the line before"));
            }
            last = at;
            let name = tenant.trim();
            if name.is_empty() {
                return Err(wrong("no tenant is named"));
            }
            let tenant = *numbers.entry(name).or_insert_with(|| {
                trace.tenants.push(name.to_owned());
                trace.tenants.len() - 1
            });
            trace.arrivals.push(Arrival { at, tenant });
        }
        if trace.arrivals.is_empty() { Err(TraceError::Empty) } else { Ok(trace) }
    }

    /// Time to just after the last arrival.
    pub fn length(&self) -> Duration {
        self.arrivals.last().map_or(Duration::ZERO, |last| last.at + Duration::from_nanos(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_names_its_tenants_in_the_order_of_their_first_requests() {
        let trace = Trace::parse("# recorded\nseconds,tenant\n0.5,b\n\n0.5, a\n1,b\n").unwrap();
        assert_eq!(trace.tenants, ["b", "a"]);
        let tenants: Vec<usize> = trace.arrivals.iter().map(|arrival| arrival.tenant).collect();
        assert_eq!(tenants, [0, 1, 0]);
        assert!(trace.length() > Duration::from_secs(1));
    }

    #[test]
    fn a_line_that_cannot_be_is_named_with_what_is_wrong() {
        for (text, wrong) in [
            ("1;a", "no comma"),
            ("soon,a", "not a number"),
            ("1,a\nseconds,tenant", "not a number"),
            ("-1,a", "no such time"),
            ("2,a\n1,a", "line 2 of the trace, `1,a`: it is earlier"),
            ("1,", "no tenant"),
            ("# nothing", "no arrivals"),
        ] {
            let error = Trace::parse(text).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
