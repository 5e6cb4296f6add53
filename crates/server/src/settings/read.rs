//! From words to values. Each reader's error says what is allowed; the caller adds key, value and source.

use crate::placement::Replicas;
use crate::quotas::Limit;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tessera_core::{Bytes, Policy, Precision};
use tessera_device::StepTiming;
use tessera_device::cpu::Cores;

/// Where to run, as the user said it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceWord {
    /// The best there is.
    Auto,
    /// The CPU: these cores, or every core when there are none named.
    Cpu(Vec<u32>),
    /// An NVIDIA card, by number.
    Cuda(usize),
}

impl fmt::Display for DeviceWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceWord::Auto => f.write_str("auto"),
            DeviceWord::Cpu(cores) if cores.is_empty() => Cores::All.fmt(f),
            DeviceWord::Cpu(cores) => Cores::These(cores.iter().map(|&core| core as usize).collect()).fmt(f),
            DeviceWord::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

type Read<T> = Result<T, String>;

/// The one word of a setting that does not repeat.
fn one(words: &[String]) -> Read<&str> {
    match words {
        [word] => Ok(word.trim()),
        _ => Err("one value".into()),
    }
}

fn number<T: FromStr>(words: &[String], allowed: &str) -> Read<T> {
    one(words)?.parse().map_err(|_| allowed.into())
}

pub(super) fn folder(words: &[String]) -> Read<PathBuf> {
    match words {
        [word] if !word.is_empty() => Ok(PathBuf::from(word)),
        _ => Err("one folder".into()),
    }
}

pub(super) fn devices(words: &[String]) -> Read<Vec<DeviceWord>> {
    if words.is_empty() {
        return Err("at least one of auto, cpu, cpu:0-3, cuda:0".into());
    }
    words.iter().map(|word| device(word.trim())).collect()
}

fn device(word: &str) -> Read<DeviceWord> {
    let allowed =
        || "auto, cpu, cores of the CPU as cpu:0-3 or cpu:0+2, or an NVIDIA card as cuda:0".to_string();
    let cores = match word.split_once(':') {
        None if word == "auto" => return Ok(DeviceWord::Auto),
        None if word == "cpu" => return Ok(DeviceWord::Cpu(Vec::new())),
        None if word == "cuda" => return Ok(DeviceWord::Cuda(0)),
        Some(("cuda", ordinal)) => return ordinal.parse().map(DeviceWord::Cuda).map_err(|_| allowed()),
        Some(("cpu", cores)) => cores,
        _ => return Err(allowed()),
    };
    // More cores than this is a slip of the keyboard, and would be a slip of memory.
    const MOST: u32 = 4096;
    let mut all = Vec::new();
    for part in cores.split('+') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<u32>(), last.parse::<u32>()) {
            (Ok(first), Ok(last)) if first <= last && last < MOST => all.extend(first..=last),
            _ => return Err(allowed()),
        }
    }
    all.sort_unstable();
    all.dedup();
    Ok(DeviceWord::Cpu(all))
}

/// A precision, or none for the device's own.
pub(super) fn precision(words: &[String]) -> Read<Option<Precision>> {
    match one(words)? {
        "auto" => Ok(None),
        word => word.parse().map(Some).map_err(|_| "auto, fp32, tf32, bf16 or fp16".into()),
    }
}

/// A count, or none for what suits the device.
pub(super) fn count_or_auto(words: &[String]) -> Read<Option<NonZeroU32>> {
    match one(words)? {
        "auto" => Ok(None),
        _ => number(words, "auto, or a whole number from 1 to 4294967295").map(Some),
    }
}

/// A count, or none for `off`.
pub(super) fn count_or_off(words: &[String]) -> Read<Option<NonZeroU32>> {
    match one(words)? {
        "off" => Ok(None),
        _ => number(words, "off, or a whole number from 1 to 4294967295").map(Some),
    }
}

/// Counts, or none for `off`.
pub(super) fn counts_or_off(words: &[String]) -> Read<Vec<NonZeroU32>> {
    match words {
        [word] if word.trim() == "off" => Ok(Vec::new()),
        _ => {
            let each = words.chunks(1).map(|word| number(word, "off, or whole numbers from 1 to 4294967295"));
            each.collect()
        }
    }
}

pub(super) fn replicas(words: &[String]) -> Read<Replicas> {
    one(words)?.parse()
}

/// A quota: a number, or off.
pub(super) fn limit<T>(words: &[String]) -> Read<Limit<T>>
where
    Limit<T>: FromStr<Err = String>,
{
    one(words)?.parse()
}

/// Bytes, or none for no limit of ours.
pub(super) fn bytes_or_auto(words: &[String]) -> Read<Option<Bytes>> {
    match one(words)? {
        "auto" => Ok(None),
        _ => bytes(words).map(Some).map_err(|allowed| format!("auto, or {allowed}")),
    }
}

pub(super) fn policy(words: &[String]) -> Read<Policy> {
    number(words, "space-time, space, time or exclusive")
}

pub(super) fn switch(words: &[String]) -> Read<bool> {
    match one(words)? {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err("on or off".into()),
    }
}

/// A ratio above one, or infinity for `off`.
pub(super) fn ratio_or_off(words: &[String]) -> Read<f64> {
    let word = one(words)?;
    let read = if word == "off" { Some(f64::INFINITY) } else { word.parse().ok() };
    read.filter(|ratio| *ratio > 1.0 && (ratio.is_finite() || word == "off"))
        .ok_or_else(|| "a ratio above 1, such as 3, or off".into())
}

pub(super) fn address(words: &[String]) -> Read<IpAddr> {
    number(words, "an IP address, such as 127.0.0.1, 0.0.0.0 or ::")
}

pub(super) fn port(words: &[String]) -> Read<u16> {
    number(words, "a port from 0 to 65535")
}

pub(super) fn count(words: &[String]) -> Read<NonZeroU32> {
    number(words, "a whole number from 1 to 4294967295")
}

pub(super) fn bytes(words: &[String]) -> Read<Bytes> {
    let word = one(words)?;
    let (digits, shift) = [("KiB", 10), ("MiB", 20), ("GiB", 30)]
        .into_iter()
        .find_map(|(unit, shift)| word.strip_suffix(unit).map(|digits| (digits.trim_end(), shift)))
        .unwrap_or((word, 0));
    let read = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(1 << shift));
    read.filter(|&count| count > 0).map(Bytes).ok_or_else(|| "bytes, such as 67108864, 64MiB or 2GiB".into())
}

/// Ten years: longer is a slip, and later arithmetic on moments stays far from its ends.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

fn length(words: &[String], unit: fn(u64) -> Duration, allowed: &str) -> Read<Duration> {
    let read = one(words)?.parse().ok().map(unit);
    read.filter(|length| *length <= LONGEST).ok_or_else(|| allowed.into())
}

pub(super) fn seconds(words: &[String]) -> Read<Duration> {
    length(words, Duration::from_secs, "a whole number of seconds")
}

pub(super) fn some_seconds(words: &[String]) -> Read<Duration> {
    let allowed = "a whole number of seconds, at least 1";
    length(words, Duration::from_secs, allowed)
        .and_then(|read| if read.is_zero() { Err(allowed.into()) } else { Ok(read) })
}

pub(super) fn millis(words: &[String]) -> Read<Duration> {
    let read = length(words, Duration::from_millis, "a whole number of milliseconds, at least 1")?;
    if read.is_zero() { Err("a whole number of milliseconds, at least 1".into()) } else { Ok(read) }
}

pub(super) fn millis_or_off(words: &[String]) -> Read<Option<Duration>> {
    match one(words)? {
        "off" => Ok(None),
        _ => millis(words).map(Some).map_err(|allowed| format!("off, or {allowed}")),
    }
}

pub(super) fn step_timing(words: &[String]) -> Read<StepTiming> {
    match one(words)? {
        "auto" => Ok(StepTiming::Auto),
        "off" => Ok(StepTiming::Off),
        _ => number(words, "auto, off, or a whole number from 1 to 4294967295").map(StepTiming::OneIn),
    }
}

pub(super) fn micros(words: &[String]) -> Read<Duration> {
    length(words, Duration::from_micros, "a whole number of microseconds")
}

pub(super) fn cache(words: &[String]) -> Read<Option<PathBuf>> {
    Ok(match one(words)? {
        "" => return Err("a folder, auto or off".into()),
        "off" => None,
        "auto" => user_cache(),
        folder => Some(PathBuf::from(folder)),
    })
}

/// `tessera` under the user's cache folder; nothing where there is no such folder (a bare container).
fn user_cache() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|at| at.join("tessera"))
}

pub(super) fn log_format(words: &[String]) -> Read<LogFormat> {
    match one(words)? {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("text or json".into()),
    }
}

pub(super) fn level(words: &[String]) -> Read<tracing::Level> {
    number(words, "error, warn, info, debug or trace")
}
