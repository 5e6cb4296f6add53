//! Log lines on standard error, as text or as JSON.
//!
//! One event is one line, whatever is in it: names come from callers, and a tenant called
//! `x\n2026-01-01 INFO all is well` must not write a line of its own. JSON escapes by itself; text passes
//! `OneLine`, which is why it has no colours.

mod json;

use crate::settings::LogFormat;
use json::Json;
use std::io::{self, Write};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};

/// The field of an event that holds its numbers by name, displayed as JSON: in a line of JSON they are an object.
pub(crate) const NUMBERS: &str = "numbers";

/// Sends this process's events to standard error. A second call in one process (tests do that) changes nothing.
pub fn init(format: LogFormat, level: Level) {
    if tracing::subscriber::set_global_default(subscriber(format, level, io::stderr)).is_err() {
        tracing::debug!("logging was already set up");
    }
}

fn subscriber<W: Write + 'static>(
    format: LogFormat,
    level: Level,
    writer: impl Fn() -> W + Send + Sync + 'static,
) -> Box<dyn Subscriber + Send + Sync> {
    let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::from_level(level)).with_ansi(false);
    match format {
        LogFormat::Text => Box::new(lines.with_writer(move || OneLine(writer())).finish()),
        LogFormat::Json => Box::new(lines.event_format(Json).with_writer(writer).finish()),
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
    use crate::events::{Events, News};
    use serde_json::{Map, Value, json};
    use std::sync::{Arc, Mutex};

    /// What is written to it, for whoever looks later.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The line that tells of a refusal.
    fn line(format: LogFormat) -> String {
        let written = Written::default();
        let writer = written.clone();
        tracing::subscriber::with_default(subscriber(format, Level::INFO, move || writer.clone()), || {
            let numbers = Map::from_iter([("requests".into(), json!(7)), ("ahead_ms".into(), json!(2.5))]);
            let text = "7 were \"late\"".to_owned();
            Events::default().tell(News { kind: "refused", device: None, who: None, text, numbers });
        });
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn numbers_of_an_event_are_numbers_in_a_line_of_json() {
        let told: Value = serde_json::from_str(&line(LogFormat::Json)).unwrap();
        let fields = json!({
            "message": "7 were \"late\"", "seq": 1, "kind": "refused", "numbers": { "requests": 7, "ahead_ms": 2.5 },
        });
        assert_eq!((&told["level"], &told["fields"]), (&json!("WARN"), &fields), "{told}");
        assert_eq!(told["target"], "tessera_server::events");
        assert_eq!(told["timestamp"].as_str().unwrap().len(), "2026-11-26T03:15:00.000000Z".len(), "{told}");
    }

    #[test]
    fn numbers_of_an_event_can_be_read_in_a_line_of_text() {
        let line = line(LogFormat::Text);
        assert!(
            line.contains("7 were \"late\"") && line.contains(r#"numbers={"ahead_ms":2.5,"requests":7}"#),
            "{line}"
        );
    }

    #[test]
    fn a_name_with_a_line_break_does_not_write_a_line_of_its_own() {
        let mut written = Vec::new();
        let event = "INFO loaded x\nINFO all is well \u{1b}[31m über\n";
        OneLine(&mut written).write_all(event.as_bytes()).unwrap();
        let text = String::from_utf8(written).unwrap();
        assert_eq!(text, "INFO loaded x\\nINFO all is well \\u{1b}[31m über\n");
    }
}
