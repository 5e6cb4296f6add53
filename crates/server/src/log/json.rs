//! One object a line: when, how grave, what with which values, and where in the code.
//!
//! ```text
//!   {"timestamp":"2026-11-26T03:15:00.000000Z","level":"INFO","fields":{"message":"loaded","seq":7,"numbers":{"took_ms":12}},"target":"tessera_server::events"}
//! ```
//! A form of our own, since a field of `tracing` is a scalar: the numbers of an event would be a string with JSON in it, for each reader to take apart.

use super::NUMBERS;
use crate::events::rfc3339;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fmt;
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Json;

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'a str,
    fields: Map<String, Value>,
    target: &'a str,
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let of = event.metadata();
        let object = Line {
            timestamp: rfc3339(SystemTime::now()),
            level: of.level().as_str(),
            fields: fields.0,
            target: of.target(),
        };
        writeln!(line, "{}", serde_json::to_string(&object).map_err(|_| fmt::Error)?)
    }
}

/// An event's fields, each as the JSON that it is nearest to.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, json!(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, json!(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        let object = (field.name() == NUMBERS).then(|| serde_json::from_str(&text).ok()).flatten();
        self.put(field, object.unwrap_or_else(|| json!(text)));
    }
}
