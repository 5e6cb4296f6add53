//! OPERATING.md against the binary: whoever copies a flag, a key or a metric from it finds it.

use crate::client::{eventually, get, send};
use crate::models::SLOW;
use crate::process::Tessera;
use std::collections::BTreeSet;
use std::fs;
use tessera_server::settings::TABLE;

const PAGE: &str = include_str!("../../../../OPERATING.md");

/// The words of the page that begin so.
fn words(start: &str) -> BTreeSet<&'static str> {
    let words = PAGE.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    let names_one =
        |word: &&str| word.strip_prefix(start).is_some_and(|rest| rest.starts_with(char::is_alphanumeric));
    words.filter(names_one).collect()
}

#[test]
fn flags_and_variables_of_the_page_are_settings() {
    let flags: BTreeSet<String> = TABLE.iter().map(|setting| format!("--{}", setting.flag())).collect();
    let named = words("--");
    assert!(named.len() > 10, "{named:?}");
    for flag in named {
        assert!(flag == "--config" || flag == "--help" || flags.contains(flag), "{flag} is no setting");
    }
    let variables: BTreeSet<String> = TABLE.iter().map(|setting| setting.variable()).collect();
    for variable in words("TESSERA_") {
        assert!(variable == "TESSERA_NVRTC" || variables.contains(variable), "{variable} is no setting");
    }
}

#[test]
fn metrics_of_the_page_are_served() {
    let repository = tempfile::tempdir().unwrap();
    let tenant = repository.path().join("slow");
    fs::create_dir(&tenant).unwrap();
    fs::write(tenant.join("model.onnx"), SLOW.onnx(1)).unwrap();
    fs::write(tenant.join("tenant.toml"), "slo_ms = 60000").unwrap();
    let tessera = Tessera::serve(repository.path(), &[]);
    let body = SLOW.request(1, 0, 7);
    let head = format!(
        "POST /v2/models/slow/infer HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\nInference-Header-Content-Length: {}\r\n\r\n",
        body.bytes.len(),
        body.json_bytes
    );
    assert_eq!(send(tessera.http, &[head.as_bytes(), &body.bytes].concat()).status, 200);
    let named = words("tessera_");
    assert!(named.len() > 10, "{named:?}");
    for metric in named {
        eventually(metric, || {
            let page = String::from_utf8(get(tessera.metrics, "/metrics").body).unwrap();
            page.lines().any(|line| line.starts_with(metric))
        });
    }
}
