//! What a model repository asks to be served: a folder read into a list, nothing loaded.
//!
//! ```text
//!   DIR/TENANT.onnx                      version 1
//!   DIR/TENANT/model.onnx                version 1
//!   DIR/TENANT/VERSION/model.onnx        any number of versions; the greatest is served when a request names none
//!   DIR/TENANT/tenant.toml               terms of the tenant; with `base`, VERSION/model.safetensors (or model.safetensors) are its weights
//! ```
//! Reading is a pure function of the folder: the registry compares two readings to see who came, changed and went. An
//! entry that makes no sense is a problem of that tenant alone.

use crate::placement::Replicas;
use crate::quotas::{Limit, Said, Speed};
use crate::settings::in_one_line;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tessera_planner::source::{self, Stamp};

/// Everything a repository holds, by tenant name.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Catalog {
    /// Tenants that can be loaded.
    pub tenants: BTreeMap<String, Listing>,
    /// Names that cannot, and why.
    pub problems: BTreeMap<String, String>,
}

/// One tenant of a repository.
#[derive(Clone, PartialEq, Debug)]
pub struct Listing {
    /// What `tenant.toml` says, or the defaults.
    pub terms: TenantFile,
    /// Its versions.
    pub versions: BTreeMap<u64, Source>,
}

/// Where one version's model is. Equal while the path leads to the same file, written as it was; one rewritten in place within the clock's grain and with the same
/// length is not noticed.
#[derive(Clone, Debug)]
pub struct Source {
    /// `model.onnx`, or `model.safetensors` of a tenant with a base.
    pub path: PathBuf,
    /// Of the file that the path leads to.
    pub stamp: Stamp,
}

impl PartialEq for Source {
    fn eq(&self, other: &Source) -> bool {
        self.path == other.path && self.stamp.is_of_same(&other.stamp)
    }
}

/// `tenant.toml`.
#[derive(Clone, PartialEq, Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct TenantFile {
    /// Answer within this many milliseconds of arrival. Left out: best effort.
    pub slo_ms: Option<f64>,
    /// The percentile of requests that must make it, 0 to 100; 99 when left out.
    pub slo_percentile: Option<f64>,
    /// Weight of its owner in device time; 1 when left out.
    pub share: Option<f64>,
    /// `fp32`, `tf32`, `bf16` or `fp16`; the device's default when left out.
    pub precision: Option<String>,
    /// The tenant whose architecture this one's weights are for.
    pub base: Option<String>,
    /// On how many devices it is, a number or `"all"`; the setting of that name when left out.
    pub replicas: Option<Replicas>,
    /// Who pays; the tenant's own name when left out.
    pub owner: Option<String>,
    /// What its owner may send a second, all its tenants together: a number, `"500 items"` or `"off"`. The least of what the owner's tenants say counts; the
    /// setting of that name where none says anything.
    pub owner_rate: Option<Limit<Speed>>,
    /// How much of that may come at one moment, in the same way; what a second brings when left out.
    pub owner_burst: Option<NonZeroU32>,
    /// How many requests its owner may have in the server at once, a number or `"off"`, in the same way.
    pub owner_concurrency: Option<Limit<NonZeroU32>>,
}

impl TenantFile {
    /// The SLO as a length of time.
    pub fn slo(&self) -> Option<Duration> {
        self.slo_ms.map(|ms| Duration::from_secs_f64(ms / 1e3))
    }

    /// What it says of its owner's quota.
    pub fn quota(&self) -> Said {
        Said { rate: self.owner_rate, burst: self.owner_burst, concurrency: self.owner_concurrency }
    }

    /// From the text of a `tenant.toml`. Errors say which key is wrong, and what it takes.
    pub fn parse(text: &str) -> Result<TenantFile, String> {
        let file: TenantFile = toml::from_str(text).map_err(|error| in_one_line(text, &error))?;
        let day_ms = 86_400_000.0;
        if file.slo_ms.is_some_and(|ms| !(ms > 0.0 && ms <= day_ms)) {
            return Err("`slo_ms` must be more than 0 and at most a day (86400000)".to_owned());
        }
        if file.slo_percentile.is_some_and(|p| !(p > 0.0 && p <= 100.0)) {
            return Err("`slo_percentile` must be more than 0 and at most 100".to_owned());
        }
        if file.share.is_some_and(|share| !(0.001..=1000.0).contains(&share)) {
            return Err("`share` must be between 0.001 and 1000".to_owned());
        }
        if let Some(word) = &file.precision {
            word.parse::<tessera_core::Precision>()?;
        }
        Ok(file)
    }
}

/// Reads a repository. Errors only when the folder itself cannot be read; what is wrong inside it is in the catalog.
pub fn read(folder: &Path) -> io::Result<Catalog> {
    let mut catalog = Catalog::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(file_name) = file_name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let (name, listing) = if entry.path().is_dir() {
            (file_name, read_tenant(&entry))
        } else if let Some(name) = file_name.strip_suffix(".onnx") {
            (name, single(&entry.path()))
        } else {
            continue; // a README, a script: not ours
        };
        if listing.is_err() && is_gone(&entry.path()) {
            continue;
        }
        let listing = check_name(name).and(listing);
        let twice = catalog.tenants.remove(name).is_some() || catalog.problems.contains_key(name);
        match listing {
            _ if twice => {
                let why =
                    format!("`{name}.onnx` and the folder `{name}` both claim this name; remove one of them");
                catalog.problems.insert(name.to_owned(), why);
            }
            Ok(listing) => drop(catalog.tenants.insert(name.to_owned(), listing)),
            Err(why) => drop(catalog.problems.insert(name.to_owned(), why)),
        }
    }
    Ok(catalog)
}

/// A name is a path segment of a URL, a label of a metric and a word in a log, so it is kept plain.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+@".contains(c);
    if name.is_empty() || name.len() > 128 || !name.chars().all(plain) {
        return Err("a tenant's name has 1 to 128 letters, digits and . _ - + @; rename the file or folder"
            .to_owned());
    }
    Ok(())
}

/// Whether an entry was taken away since the folder was listed. A link that leads nowhere is still there.
fn is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn single(model: &Path) -> Result<Listing, String> {
    Ok(Listing { terms: TenantFile::default(), versions: BTreeMap::from([(1, source(model)?)]) })
}

fn source(path: &Path) -> Result<Source, String> {
    let stamp = source::stamp(path).map_err(|error| error.to_string())?;
    Ok(Source { path: path.to_owned(), stamp })
}

fn read_tenant(folder: &DirEntry) -> Result<Listing, String> {
    let folder = folder.path();
    let terms = match fs::read_to_string(folder.join("tenant.toml")) {
        Ok(text) => TenantFile::parse(&text).map_err(|why| format!("tenant.toml: {why}"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => TenantFile::default(),
        Err(error) => return Err(format!("tenant.toml: {error}")),
    };
    let file = if terms.base.is_some() { "model.safetensors" } else { "model.onnx" };
    let mut versions = BTreeMap::new();
    if folder.join(file).exists() {
        versions.insert(1, source(&folder.join(file))?);
    }
    let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for entry in entries {
        let entry = entry.map_err(|error| format!("{}: {error}", folder.display()))?;
        let Some(version) = entry.file_name().to_str().and_then(version_number) else { continue };
        let model = entry.path().join(file);
        if model.exists() && versions.insert(version, source(&model)?).is_some() {
            return Err(format!(
                "version {version} is there twice; keep either `{file}` or the folder `{version}`"
            ));
        }
    }
    if versions.is_empty() {
        let hint = if terms.base.is_some() {
            "a tenant with a `base` has its weights in model.safetensors or VERSION/model.safetensors"
        } else {
            "put the model at model.onnx or VERSION/model.onnx, VERSION being a number from 1 on"
        };
        return Err(format!("no model in this folder; {hint}"));
    }
    Ok(Listing { terms, versions })
}

/// Versions are positive integers without leading zeros, so that every one has a single name.
fn version_number(name: &str) -> Option<u64> {
    let digits = !name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| name.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn all_three_layouts_are_read() {
        let folder = repository(&[
            ("a.onnx", "x"),
            ("b/model.onnx", "x"),
            ("c/2/model.onnx", "x"),
            ("c/10/model.onnx", "x"),
        ]);
        let catalog = read(folder.path()).unwrap();
        assert_eq!(catalog.problems, BTreeMap::new());
        let versions: Vec<Vec<u64>> =
            catalog.tenants.values().map(|listing| listing.versions.keys().copied().collect()).collect();
        assert_eq!(versions, [vec![1], vec![1], vec![2, 10]]);
    }

    #[test]
    fn a_tenant_of_weights_only_needs_no_model_of_its_own() {
        let folder = repository(&[
            ("tuned/tenant.toml", "base = \"fresh\"\nslo_ms = 25.0\nowner = \"acme\"\nreplicas = \"all\""),
            ("tuned/3/model.safetensors", "x"),
        ]);
        let catalog = read(folder.path()).unwrap();
        let tuned = &catalog.tenants["tuned"];
        assert_eq!(tuned.terms.base.as_deref(), Some("fresh"));
        assert_eq!(tuned.terms.slo(), Some(Duration::from_millis(25)));
        assert_eq!(tuned.terms.replicas, Some(Replicas::All));
        assert!(tuned.versions[&3].path.ends_with("3/model.safetensors"));
    }

    #[test]
    fn what_is_wrong_with_one_tenant_is_its_problem_alone() {
        let folder = repository(&[
            ("good.onnx", "x"),
            ("twice.onnx", "x"),
            ("twice/model.onnx", "x"),
            ("empty/README", "x"),
            ("typo/model.onnx", "x"),
            ("typo/tenant.toml", "share = 2\nslo = 3"),
            ("unclosed/model.onnx", "x"),
            ("unclosed/tenant.toml", "owner = \"acme"),
            ("late/model.onnx", "x"),
            ("nowhere/model.onnx", "x"),
            ("nowhere/tenant.toml", "replicas = 0"),
            ("late/tenant.toml", "slo_ms = -1.0"),
            ("sp ace.onnx", "x"),
            (".hidden/model.onnx", "x"),
        ]);
        let catalog = read(folder.path()).unwrap();
        assert_eq!(catalog.tenants.keys().collect::<Vec<_>>(), ["good"]);
        let problem = |name: &str| catalog.problems[name].as_str();
        assert!(problem("twice").contains("both claim this name"));
        assert!(problem("empty").contains("no model in this folder"));
        assert!(
            problem("typo").starts_with("tenant.toml: line 2: unknown field `slo`, "),
            "{}",
            problem("typo")
        );
        assert_eq!(problem("unclosed").lines().count(), 1, "{}", problem("unclosed"));
        assert!(problem("late").contains("slo_ms"));
        assert!(problem("nowhere").contains("`replicas` must be a whole number"), "{}", problem("nowhere"));
        assert!(problem("sp ace").contains("rename"));
        assert!(!catalog.problems.contains_key(".hidden"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_nowhere_is_a_problem_and_an_entry_that_was_taken_away_is_none() {
        let folder = repository(&[]);
        let link = folder.path().join("a.onnx");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(read(folder.path()).unwrap().problems["a"].contains("No such file"));
        assert!(!is_gone(&link));
        fs::remove_file(&link).unwrap();
        assert!(is_gone(&link));
    }

    #[test]
    fn a_rewritten_file_has_another_stamp() {
        let folder = repository(&[("a.onnx", "x")]);
        let before = read(folder.path()).unwrap();
        fs::write(folder.path().join("a.onnx"), "longer").unwrap();
        assert_ne!(before, read(folder.path()).unwrap());
    }
}
