//! Where settings come from, and what is said when one of them is wrong.

use super::table::{self, Setting, Settings, TABLE};
use std::collections::BTreeMap;
use std::path::Path;
use thiserror::Error;

/// Why settings cannot be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// A value that its reader refuses.
    #[error("`{key}` is `{value}` in {source_name}; allowed is {allowed}")]
    Value {
        /// The setting.
        key: &'static str,
        /// What it was given.
        value: String,
        /// Who gave it.
        source_name: String,
        /// What it takes.
        allowed: String,
    },
    /// Nobody gave it, and it has no default.
    #[error("`{key}` is not set; give `--{}` or `TESSERA_{}`, or write it in the file of `--config`",
            key.replace('_', "-"), key.to_uppercase())]
    Missing {
        /// The setting.
        key: &'static str,
    },
    /// A key in the file that no row has.
    #[error("`{key}` in {source_name} is not a setting; {}", meant(*nearest))]
    Unknown {
        /// The key as written.
        key: String,
        /// The file.
        source_name: String,
        /// The key that is like it, where there is one.
        nearest: Option<&'static str>,
    },
    /// The file is not TOML.
    #[error("{source_name} is not TOML: {why}")]
    Syntax {
        /// The file.
        source_name: String,
        /// The line, and the parser's words.
        why: String,
    },
}

/// Words for one setting, and who said them.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) words: Vec<String>,
    pub(super) source: String,
}

impl Given {
    pub(super) fn default_of(word: &str) -> Given {
        Given { words: vec![word.into()], source: "the defaults".into() }
    }
}

/// Sources heard so far. Add them from the weakest to the strongest: file, environment, flags.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    given: BTreeMap<&'static str, Given>,
}

impl Sources {
    /// Nothing but the defaults.
    pub fn new() -> Sources {
        Sources::default()
    }

    /// Adds the text of a TOML file. Errors with [`SettingsError::Syntax`], or with [`SettingsError::Unknown`] for
    /// a key that is not in the table: a slip in a file must not pass for a default.
    pub fn file(&mut self, path: &Path, text: &str) -> Result<&mut Sources, SettingsError> {
        let source_name = path.display().to_string();
        let table: toml::Table = text.parse().map_err(|why: toml::de::Error| SettingsError::Syntax {
            source_name: source_name.clone(),
            why: in_one_line(text, &why),
        })?;
        for (key, value) in table {
            let Some(row) = TABLE.iter().find(|row| row.key == key) else {
                return Err(SettingsError::Unknown { nearest: nearest(&key), key, source_name });
            };
            let words = match value {
                toml::Value::Array(values) if row.repeats => values.iter().map(word).collect(),
                value => vec![word(&value)],
            };
            self.given.insert(row.key, Given { words, source: source_name.clone() });
        }
        Ok(self)
    }

    /// Adds the variables that have a row. Others that begin with `TESSERA_` are let pass: Kubernetes makes some
    /// for every service (`TESSERA_SERVICE_HOST` and its like).
    pub fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) -> &mut Sources {
        for (name, value) in variables.into_iter().filter(|(name, _)| name.starts_with("TESSERA_")) {
            if let Some(row) = TABLE.iter().find(|row| row.variable() == name) {
                let words =
                    if row.repeats { value.split(',').map(String::from).collect() } else { vec![value] };
                self.given.insert(row.key, Given { words, source: format!("the environment ({name})") });
            }
        }
        self
    }

    /// Adds a flag with the values it was given. `key` is the row's key; one that no row has is a slip of the
    /// caller, which made its flags from [`TABLE`].
    pub fn flag(&mut self, key: &str, values: impl IntoIterator<Item = String>) -> &mut Sources {
        let row = TABLE.iter().find(|row| row.key == key).expect("flags are made from the table");
        let given =
            Given { words: values.into_iter().collect(), source: format!("the flag --{}", row.flag()) };
        self.given.insert(row.key, given);
        self
    }

    /// Reads every setting. Errors name key, value, source and what is allowed.
    pub fn resolve(&self) -> Result<Settings, SettingsError> {
        table::read_all(&|key| self.given.get(key).cloned())
    }
}

/// A TOML value as it would be written on the command line.
fn word(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(yes) => yes.to_string(),
        // No reader takes these; the error shows what was written in their place.
        toml::Value::Datetime(moment) => moment.to_string(),
        toml::Value::Array(_) => "a list".into(),
        toml::Value::Table(_) => "a table".into(),
    }
}

/// What is wrong with a TOML file, and in which of its lines: for a log and for JSON, where a drawing of several lines cannot be
/// read.
pub(crate) fn in_one_line(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| 1 + text[..span.start].matches('\n').count());
    line.map(|line| format!("line {line}: ")).unwrap_or_default() + error.message()
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "`tessera serve --help` lists them, none in a table".to_owned(),
        |nearest| format!("did you mean `{nearest}`?"),
    )
}

/// The key that takes the fewest letters to change into `key`, where they are few: of words that have nothing in common
/// the nearest tells nothing.
fn nearest(key: &str) -> Option<&'static str> {
    let apart = |row: &Setting| letters_apart(key, row.key);
    let row = TABLE.iter().min_by_key(|row| apart(row))?;
    (3 * apart(row) <= row.key.len() + 2).then_some(row.key)
}

/// Levenshtein's distance, one row at a time.
fn letters_apart(a: &str, b: &str) -> usize {
    // A key of a megabyte should cost nothing: beyond some letters the distance tells nothing.
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let change = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::DeviceWord;
    use super::*;
    use tessera_core::{Bytes, Policy};

    fn sources(text: &str) -> Result<Sources, SettingsError> {
        let mut sources = Sources::new();
        sources.flag("model_repository", ["models".into()]).file(Path::new("tessera.toml"), text)?;
        Ok(sources)
    }

    fn variable(name: &str, value: &str) -> [(String, String); 1] {
        [(name.into(), value.into())]
    }

    #[test]
    fn every_default_passes_its_own_reader() {
        let settings = Settings::for_repository("models");
        assert_eq!((settings.http_port, settings.metrics_port), (8000, 8002));
        assert!(settings.host.is_loopback());
        assert_eq!(settings.max_body, Bytes::mib(64));
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
        let mut all = sources("http_port = 1\nmetrics_port = 1\nmax_lanes = 1").unwrap();
        all.environment(variable("TESSERA_HTTP_PORT", "2"));
        all.environment(variable("TESSERA_METRICS_PORT", "2"));
        all.flag("http_port", ["3".into()]);
        let settings = all.resolve().unwrap();
        let numbers =
            (settings.http_port, settings.metrics_port, settings.max_lanes.get(), settings.max_items.get());
        assert_eq!(numbers, (3, 2, 1, 128));
    }

    #[test]
    fn a_wrong_value_is_told_with_key_value_source_and_what_is_allowed() {
        let error = sources("http_port = 70000").unwrap().resolve().unwrap_err().to_string();
        assert_eq!(error, "`http_port` is `70000` in tessera.toml; allowed is a port from 0 to 65535");
        let mut all = sources("").unwrap();
        let error = all.environment(variable("TESSERA_POLICY", "fast")).resolve().unwrap_err().to_string();
        assert!(error.contains("TESSERA_POLICY") && error.contains("space-time"), "{error}");
        let error =
            all.flag("max_lanes", ["0".into()]).flag("policy", ["time".into()]).resolve().unwrap_err();
        assert!(error.to_string().contains("the flag --max-lanes"), "{error}");
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let error = sources("htp_prot = 1").unwrap_err().to_string();
        assert!(error.contains("`htp_prot`") && error.contains("`http_port`"), "{error}");
        let error = sources("[server]\nhttp_port = 1").unwrap_err().to_string();
        assert!(error.contains("`server`") && error.contains("--help") && !error.contains("mean"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_toml_is_told_with_its_line() {
        let error = sources("http_port = 1\n= 2").unwrap_err().to_string();
        assert!(
            error.contains("tessera.toml is not TOML: line 2: ") && error.lines().count() == 1,
            "{error}"
        );
    }

    #[test]
    fn what_must_be_given_is_asked_for_with_its_flag() {
        let error = Sources::new().resolve().unwrap_err().to_string();
        assert!(
            error.contains("--model-repository") && error.contains("TESSERA_MODEL_REPOSITORY"),
            "{error}"
        );
    }

    #[test]
    fn variables_of_others_that_look_like_ours_are_let_pass() {
        let mut all = sources("").unwrap();
        assert!(all.environment(variable("TESSERA_SERVICE_HOST", "10.0.0.1")).resolve().is_ok());
    }

    #[test]
    fn devices_repeat_in_every_source() {
        let two = vec![DeviceWord::Cpu(vec![0, 1, 2]), DeviceWord::Cpu(vec![5, 7])];
        let in_file = sources("device = [\"cpu:0-2\", \"cpu:5+7\"]").unwrap().resolve().unwrap();
        assert_eq!(in_file.devices, two);
        let mut all = sources("").unwrap();
        assert_eq!(
            all.environment(variable("TESSERA_DEVICE", "cpu:0-2,cpu:5+7")).resolve().unwrap().devices,
            two
        );
        assert_eq!(all.flag("device", ["cpu".into()]).resolve().unwrap().devices, [DeviceWord::Cpu(vec![])]);
        for wrong in ["gpu", "cpu:", "cpu:3-1", "cpu:0-4294967295", "cpu:x"] {
            assert!(all.flag("device", [wrong.into()]).resolve().is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_have_the_toml_types_one_would_expect() {
        let text = "tenant_batching = false\npolicy = \"time\"\nmax_body_bytes = \"1 KiB\"\nqueue_bytes = 5";
        let settings = sources(text).unwrap().resolve().unwrap();
        assert_eq!((settings.tenant_batching, settings.policy), (false, Policy::Time));
        assert_eq!((settings.max_body, settings.queue_bytes), (Bytes(1024), Bytes(5)));
        assert!(sources("http_port = [1, 2]").unwrap().resolve().is_err());
        assert!(sources("queue_bytes = \"99999999999GiB\"").unwrap().resolve().is_err());
        assert!(sources("idle_timeout_s = 0").unwrap().resolve().is_err(), "nobody could say anything");
    }
}
