//! Log lines on standard error, as text or as JSON.
//!
//! One event is one line, whatever is in it: names come from callers, and a tenant called
//! `x\n2026-01-01 INFO all is well` must not write a line of its own. JSON escapes by itself; text passes
//! `OneLine`, which is why it has no colours.

use crate::settings::LogFormat;
use std::io::{self, Write};
use tracing::Level;
use tracing::level_filters::LevelFilter;

/// Sends this process's events to standard error. A second call in one process (tests do that) changes nothing.
pub fn init(format: LogFormat, level: Level) {
    let subscriber =
        tracing_subscriber::fmt().with_max_level(LevelFilter::from_level(level)).with_ansi(false);
    let done = match format {
        LogFormat::Text => {
            tracing::subscriber::set_global_default(subscriber.with_writer(|| OneLine(io::stderr())).finish())
        }
        LogFormat::Json => {
            tracing::subscriber::set_global_default(subscriber.json().with_writer(io::stderr).finish())
        }
    };
    if done.is_err() {
        tracing::debug!("logging was already set up");
    }
}

/// Passes each event on with control characters escaped, but for the end of its line.
#[derive(Debug)]
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        // The formatter hands over whole events, each in one call.
        let (line, end) = match event.strip_suffix(b"\n") {
            Some(line) => (line, "\n"),
            None => (event, ""),
        };
        let mut escaped = String::with_capacity(event.len());
        for letter in String::from_utf8_lossy(line).chars() {
            match letter {
                control if control.is_control() => escaped.extend(control.escape_default()),
                letter => escaped.push(letter),
            }
        }
        escaped.push_str(end);
        self.0.write_all(escaped.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_line_break_does_not_write_a_line_of_its_own() {
        let mut written = Vec::new();
        let event = "INFO loaded x\nINFO all is well \u{1b}[31m über\n";
        OneLine(&mut written).write_all(event.as_bytes()).unwrap();
        let text = String::from_utf8(written).unwrap();
        assert_eq!(text, "INFO loaded x\\nINFO all is well \\u{1b}[31m über\n");
    }
}
