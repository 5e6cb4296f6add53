//! The table.

use super::read::{self, DeviceWord, LogFormat};
use super::source::{Given, SettingsError};
use crate::placement::Replicas;
use crate::quotas::{Limit, Said, Speed};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;
use tessera_core::{Bytes, Policy, Precision};
use tessera_device::StepTiming;

/// One row: everything about a setting but its type.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// As written in `tessera.toml`.
    pub key: &'static str,
    /// What stands for its value in help: `DIR`, `PORT`, `MS`.
    pub value: &'static str,
    /// Its default as it would be written; `None` when it must be given.
    pub default: Option<&'static str>,
    /// Whether it may be given several times (a list in TOML, commas in the environment).
    pub repeats: bool,
    /// One or two sentences for `--help`.
    pub help: &'static str,
}

impl Setting {
    /// The flag without its dashes: `http-port`.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// The environment variable: `TESSERA_HTTP_PORT`.
    pub fn variable(&self) -> String {
        format!("TESSERA_{}", self.key.to_uppercase())
    }
}

macro_rules! default_of {
    (required) => {
        None
    };
    ($default:literal) => {
        Some($default)
    };
}

macro_rules! settings {
    ($($field:ident: $type:ty = $key:literal, $value:literal, $read:expr, $default:tt, $repeats:literal, $help:literal;)*) => {
        /// Every setting, read and checked. `Duration` and `Bytes` fields carry their unit in the type; their keys
        /// carry it in the name.
        #[derive(Clone, PartialEq, Debug)]
        pub struct Settings { $(#[doc = $help] pub $field: $type,)* }

        /// Every row, in the order of `--help`.
        pub static TABLE: &[Setting] = &[$(Setting {
            key: $key, value: $value, default: default_of!($default), repeats: $repeats, help: $help,
        },)*];

        pub(super) fn read_all(given: &dyn Fn(&'static str) -> Option<Given>) -> Result<Settings, SettingsError> {
            let default = |key| TABLE.iter().find(|row| row.key == key).and_then(|row| row.default);
            Ok(Settings { $($field: {
                let given = given($key).or_else(|| default($key).map(Given::default_of));
                let given = given.ok_or(SettingsError::Missing { key: $key })?;
                let read: fn(&[String]) -> Result<$type, String> = $read;
                read(&given.words).map_err(|allowed| SettingsError::Value {
                    key: $key, value: given.words.join(","), source_name: given.source, allowed,
                })?
            },)* })
        }
    };
}

settings! {
    model_repository: PathBuf = "model_repository", "DIR", read::folder, required, false,
        "Folder of models: DIR/TENANT.onnx, DIR/TENANT/model.onnx or DIR/TENANT/VERSION/model.onnx. It is watched.";
    devices: Vec<DeviceWord> = "device", "DEVICE", read::devices, "auto", true,
        "Where to run: auto (an NVIDIA card where there is one, else the CPU), cpu, cpu:0-3 for some cores, or cuda:0. May be given several times: tenants are spread over all of them; core sets must not overlap.";
    precision: Option<Precision> = "precision", "PRECISION", read::precision, "auto", false,
        "In which precision tenants compute whose tenant.toml names none: fp32, tf32, bf16 or fp16; auto is fp32 on a CPU and tf32 on a card.";
    partitions: Option<NonZeroU32> = "partitions", "N", read::count_or_auto, "auto", false,
        "In how many partitions each device runs launches side by side, a fixed number; auto is one, under space-time on a CPU two while that keeps more deadlines, and on a card up to four streams, as many as architectures are asked for; under space on a card 16 streams.";
    memory_limit: Option<Bytes> = "memory_limit_bytes", "BYTES", read::bytes_or_auto, "auto", false,
        "Most bytes that weights and arenas may take on each device; auto is all there are.";
    replicas: Replicas = "replicas", "N|all", read::replicas, "1", false,
        "On how many of the devices a tenant's weights are kept and its requests answered, unless its tenant.toml says otherwise.";
    policy: Policy = "policy", "POLICY", read::policy, "space-time", false,
        "Who runs when: space-time (tenants share launches), space, time or exclusive.";
    tenant_batching: bool = "tenant_batching", "on|off", read::switch, "on", false,
        "Whether requests of one tenant may share its place in a launch.";
    host: IpAddr = "host", "ADDRESS", read::address, "127.0.0.1", false,
        "Address to listen on. Only this machine can reach the default; 0.0.0.0 is every IPv4 interface.";
    http_port: u16 = "http_port", "PORT", read::port, "8000", false,
        "Port of the Open Inference Protocol over HTTP; 0 takes any free one and prints it.";
    metrics_port: u16 = "metrics_port", "PORT", read::port, "8002", false,
        "Port of /metrics; 0 takes any free one and prints it.";
    max_connections: NonZeroU32 = "max_connections", "N", read::count, "4096", false,
        "Most connections open at once; more wait to be accepted.";
    max_body: Bytes = "max_body_bytes", "BYTES", read::bytes, "64MiB", false,
        "Largest request body. KiB, MiB and GiB are understood.";
    idle_timeout: Duration = "idle_timeout_s", "S", read::some_seconds, "75", false,
        "A connection that sends no request head, or nothing more of a body, or reads nothing of its answer, for this long is closed.";
    shutdown_grace: Duration = "shutdown_grace_s", "S", read::seconds, "30", false,
        "How long requests in flight may take after SIGTERM before their connections are cut.";
    poll_interval: Duration = "poll_interval_ms", "MS", read::millis, "500", false,
        "How often the repository is looked at for tenants that came, changed or went.";
    loader_threads: NonZeroU32 = "loader_threads", "N", read::count, "2", false,
        "How many models load at once, beside serving.";
    max_lanes: NonZeroU32 = "max_lanes", "N", read::count, "32", false,
        "Most tenants in one launch.";
    max_items: NonZeroU32 = "max_items", "N", read::count, "128", false,
        "Most items in one launch; a larger batch goes in several.";
    max_item_memory: Bytes = "max_item_memory_bytes", "BYTES", read::bytes, "1GiB", false,
        "Most working memory that one item of a request may take; longer texts or larger images that need more are refused.";
    queue_requests: NonZeroU32 = "queue_requests", "N", read::count, "1024", false,
        "Most requests one tenant may have waiting; more are refused with 429.";
    queue_bytes: Bytes = "queue_bytes", "BYTES", read::bytes, "256MiB", false,
        "Most bytes of one tenant's waiting requests; more are refused with 429.";
    slo_margin: Duration = "slo_margin_us", "US", read::micros, "0", false,
        "How much earlier than it is due an answer is planned to be ready: for its way back to the client, and for what predictions of launch times leave out.";
    owner_rate: Limit<Speed> = "owner_rate", "N[ items]|off", read::limit, "off", false,
        "Most requests, or items, a second of an owner, over all its tenants and devices, unless their tenant.toml files say otherwise; more are refused with 429.";
    owner_burst: Option<NonZeroU32> = "owner_burst", "N", read::count_or_auto, "auto", false,
        "How many of these an owner may send at once; auto is what its rate brings in a second.";
    owner_concurrency: Limit<NonZeroU32> = "owner_concurrency", "N|off", read::limit, "off", false,
        "Most requests of an owner in the server at once, unless its tenant.toml files say otherwise; more are refused with 429.";
    max_wait: Duration = "max_wait_us", "US", read::micros, "0", false,
        "Longest time a request waits on an idle device for company to share its launch with.";
    interrupt: bool = "interrupt", "on|off", read::switch, "on", false,
        "Whether a launch on a CPU may be interrupted between its steps by a request that would be late behind it, where its own deadlines allow that; under space-time only.";
    straggler_bound: f64 = "straggler_bound", "RATIO|off", read::ratio_or_off, "3", false,
        "How many times as long as its neighbours in a launch a tenant may take; one that is slower for long runs by itself until it is well again.";
    apart_multiprocessors: Option<NonZeroU32> = "apart_multiprocessors", "N|off", read::count_or_off, "off", false,
        "How many multiprocessors of a card are for tenants that run by themselves for being slow, under space-time: a partition with its own memory, whose launches come after the others' where both wait. Off, they run on all multiprocessors like others.";
    behind_multiprocessors: Vec<NonZeroU32> = "behind_multiprocessors", "N|off", read::counts_or_off, "off", true,
        "To how many multiprocessors of a card architectures that can wait may be limited while others are late beside them, under space-time; several numbers are sizes to choose among, and take the memory of one partition together. Off, architectures run side by side on all multiprocessors.";
    monitor: StepTiming = "monitor", "N|auto|off", read::step_timing, "auto", false,
        "Launches are watched for /v2/models/NAME/steps, and one in so many is timed step by step; auto is 128 on a CPU and 64 on a card. Off watches none.";
    pack_cache: Option<PathBuf> = "pack_cache", "DIR|off", read::cache, "auto", false,
        "Folder of packed weights, for quick restarts; auto is tessera under XDG_CACHE_HOME or ~/.cache, and off where neither is known.";
    kernel_cache: Option<PathBuf> = "kernel_cache", "DIR|off", read::cache, "auto", false,
        "Folder of kernels compiled for a card, for quick restarts; auto is as for the pack cache.";
    pack_cache_budget: Bytes = "pack_cache_bytes", "BYTES", read::bytes, "10GiB", false,
        "Most bytes kept in the pack cache; the least recently used go first.";
    profile: Option<Duration> = "profile_ms", "MS|off", read::millis_or_off, "200", false,
        "Longest that launches of an architecture are measured for when its first tenant is loaded, while nobody else is served; off, or on a busy device, its cost is a guess until requests have run.";
    tune: Option<Duration> = "tune_ms", "MS|off", read::millis_or_off, "1000", false,
        "Longest that a card times kernels for when an architecture is loaded, while nobody is served, to take the fastest of those that give the same bits. Compiling them takes several times as long, once: what is found is kept with the compiled kernels. off chooses by rule.";
    max_plans: NonZeroU32 = "max_plans", "N", read::count, "256", false,
        "Most plans kept for one architecture, one for each length seen; the least recently used go first.";
    log_format: LogFormat = "log_format", "text|json", read::log_format, "text", false,
        "How log lines look on standard error.";
    log_level: tracing::Level = "log_level", "LEVEL", read::level, "info", false,
        "error, warn, info, debug or trace.";
}

impl Settings {
    /// What they say of the quotas of owners.
    pub fn quota(&self) -> Said {
        Said {
            rate: Some(self.owner_rate),
            burst: self.owner_burst,
            concurrency: Some(self.owner_concurrency),
        }
    }

    /// The defaults, for tests and for servers inside another program.
    pub fn for_repository(folder: impl Into<PathBuf>) -> Settings {
        let folder = folder.into();
        let given = |key| (key == "model_repository").then(|| Given::default_of(&folder.to_string_lossy()));
        let mut settings = read_all(&given).expect("every default passes its own reader");
        settings.model_repository = folder;
        settings
    }
}
