//! `tessera load-test`: see `tessera_bench::load`.

use crate::flags::{
    arg, count, json_flag, list, nonzero, number, parsed, publish, seed, seed_flag, text, words,
};
use crate::zoo::{size_flags, sizes};
use anyhow::{Context, Result, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tessera_bench::arrivals::{Gaps, Pattern, Popularity, Rate, Trace};
use tessera_bench::load::{Guest, Http, InProcess, Inputs, Source, Tenant, Times};
use tessera_bench::load_test::{self, Options, Pace};
use tessera_bench::zoo;
use tokio::runtime::Runtime;

pub(crate) fn command() -> Command {
    let target = [
        arg("url", "URL").help("A server of the Open Inference Protocol, as http://HOST:PORT [default: http://127.0.0.1:8000]"),
        list(arg("model", "NAME")).help(
            "Models of the server, each a tenant, the most popular first; may be given several times [default: those that it lists]",
        ),
        list(arg("in-process", "ARCH")).conflicts_with_all(["url", "model"]).help(
            "No server: an engine in this process, with tenants of these architectures of `tessera zoo` in turn",
        ),
    ];
    // Of an engine in this process.
    let engine = [
        number("tenants", "8").help("With --in-process: how many tenants, each with weights of its own"),
        text("device", "DEVICE", "auto").help("With --in-process: where to run, as `tessera serve --device`"),
        text("policy", "POLICY", "space-time").help("With --in-process: who runs when"),
        text("precision", "PRECISION", "auto").help("With --in-process: how numbers are held"),
    ];
    let engine = engine.into_iter().chain(size_flags());
    // clap does not ask for what is required where something that conflicts with it is given.
    let engine = engine.map(|flag| flag.requires("in-process").conflicts_with_all(["url", "model"]));
    let server = [
        Arg::new("send-timeout").long("send-timeout").action(ArgAction::SetTrue).help(
            "Send each tenant's SLO with its requests (`timeout`), for a server that refuses and drops by deadline",
        ),
        text("input-data", "random|zero|FILE", "random").help(
            r#"What requests bring: made from the models' metadata, or a file {"data": [{"INPUT": [1, 2]}]}"#,
        ),
        arg("shape", "NAME:D,D").action(ArgAction::Append).help(
            "Dimensions of an input without the batch, where its metadata leaves them open; may be given several times",
        ),
        number("ids-below", "100").help("Random integers are below this"),
        number("connections", "512").help("Most connections at once; a request that finds all busy waits, and that counts"),
    ];
    let server = server.map(|flag| flag.conflicts_with("in-process"));
    Command::new("load-test")
        .about("A load of many tenants, open or closed loop, over HTTP or in process: throughput, latency, and goodput by tenant")
        .args(target)
        .args(engine)
        .args(pattern_flags())
        .args(pace_flags())
        .args(server)
        .args([
            number("batch-size", "1").short('b').help("Items of a request"),
            number("seconds", "10").help("How long each level is measured"),
            text("warmup-seconds", "N", "1").value_parser(value_parser!(u32).range(0..=86_400)).help(
                "How long each level runs before that",
            ),
            number("grace-seconds", "10").help("How long the last answers are waited for; what has none then is unanswered"),
            json_flag(),
        ])
}

/// Flags of a closed loop and of a trace.
fn pace_flags() -> [Arg; 2] {
    [
        arg("concurrency", "N[:END:STEP]").help("Closed loop: requests on their way, always [default: 1]"),
        arg("trace", "FILE").value_parser(value_parser!(PathBuf)).help(
            "Open loop: requests when a file of `seconds,tenant` lines says; its tenants are the models of their names, or in process those of their order",
        ),
    ]
}

/// Flags of requests that are drawn, and of what counts as in time.
pub(crate) fn pattern_flags() -> [Arg; 6] {
    [
        arg("request-rate", "RATE[:END:STEP]").help(
            "Open loop: requests per second of all tenants together, whether or not earlier ones are answered",
        ),
        text("distribution", "WORD", "poisson").help(
            "Of gaps between a tenant's requests: poisson, constant, or gamma:CV, bursts with that coefficient of variation",
        ),
        text("popularity", "WORD", "uniform").help(
            "Of tenants: uniform, zipf, or zipf:S, the n-th tenant in proportion to 1/n^S",
        ),
        arg("diurnal", "SWING[:SECONDS]").help(
            "The rate is a wave around what --request-rate says, of this swing from 0 to 1 and period [period: the whole run]",
        ),
        list(arg("slo-ms", "MS|NAME=MS")).help(
            "What counts as in time, for all tenants or one; may be given several times. In process and simulated it is the tenants' SLO",
        ),
        seed_flag("Decides arrivals, tenants and inputs"),
    ]
}

/// What [`pattern_flags`] say of arrivals for so many tenants: a rate and its pattern for each level.
pub(crate) fn patterns(given: &ArgMatches, tenants: usize, period: Duration) -> Result<Vec<(f64, Pattern)>> {
    let popularity: Popularity = parsed(given, "popularity")?;
    let gaps: Gaps = parsed(given, "distribution")?;
    let seed = seed(given);
    let level =
        |mean: f64| Ok((mean, Pattern { gaps, rate: wave(given, mean, period)?, popularity, tenants, seed }));
    let allowed = Allowed { least: 1e-3, most: 1e7, whole: false };
    range(given, "request-rate", allowed)?.into_iter().map(level).collect()
}

pub(crate) fn run(given: &ArgMatches) -> Result<ExitCode> {
    let runtime = tessera_server::runtime::of_all_cores()?;
    let seconds = |name: &str| Duration::from_secs(count(given, name).into());
    let times = Times {
        warmup: seconds("warmup-seconds"),
        length: seconds("seconds"),
        grace: seconds("grace-seconds"),
    };
    let trace = given.get_one::<PathBuf>("trace").map(|path| Trace::read(path)).transpose()?;
    let report = if given.contains_id("in-process") {
        in_process(given, &runtime, times, trace.as_ref())?
    } else {
        over_http(given, &runtime, times, trace.as_ref())?
    };
    publish(given, &report, serde_json::to_string_pretty(&report)?)?;
    let bad = report.rows.iter().any(|row| row.failed + row.unanswered > 0);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn over_http(
    given: &ArgMatches,
    runtime: &Runtime,
    times: Times,
    trace: Option<&Trace>,
) -> Result<load_test::Report> {
    let url = given.get_one::<String>("url").map_or("http://127.0.0.1:8000", String::as_str);
    let address = runtime.block_on(Http::resolve(url))?;
    let named: Vec<String> = words(given, "model").map(str::to_owned).collect();
    let names = match trace {
        Some(trace) => trace.tenants.clone(),
        None if named.is_empty() => runtime.block_on(Http::listed(address))?,
        None => named,
    };
    let tenants = tenants(given, names)?;
    let connections = NonZeroUsize::try_from(nonzero(given, "connections")?)?;
    let (inputs, send_timeout) = (inputs(given)?, given.get_flag("send-timeout"));
    let options = options(given, tenants, times, trace)?;
    let target = Http::connect(address, &options.tenants, &inputs, connections, send_timeout);
    let target = Arc::new(runtime.block_on(target)?);
    runtime.block_on(load_test::run((&target, url), &options, &mut |line| eprintln!("{line}")))
}

fn in_process(
    given: &ArgMatches,
    runtime: &Runtime,
    times: Times,
    trace: Option<&Trace>,
) -> Result<load_test::Report> {
    let sizes = sizes(given);
    let models = words(given, "in-process").map(|name| Ok(Arc::new(zoo::find(name)?.model(&sizes)?)));
    let models: Vec<Arc<zoo::Model>> = models.collect::<Result<_>>()?;
    let count = trace.map_or(count(given, "tenants") as usize, |trace| trace.tenants.len());
    let name = |number: usize| {
        format!("{}-{}", models[number % models.len()].architecture.name, number / models.len())
    };
    let tenants = tenants(given, (0..count).map(name).collect())?;
    let guest = |(number, tenant): (usize, &Tenant)| Guest {
        model: models[number % models.len()].clone(),
        slo: tenant.slo,
    };
    let options = options(given, tenants, times, trace)?;
    let guests: Vec<Guest> = options.tenants.iter().enumerate().map(guest).collect();
    let word = |name: &str| given.get_one::<String>(name).cloned().unwrap_or_default();
    let settings = load_test::settings([
        ("device", word("device")),
        ("policy", word("policy")),
        ("precision", word("precision")),
    ])?;
    let items = (nonzero(given, "batch-size")?, seed(given));
    let heard = &mut |line: &str| eprintln!("{line}");
    let (target, house) = InProcess::open(runtime, &settings, &guests, items, heard)?;
    let place = format!("in process under {} on {}", settings.policy, house.device());
    let report = runtime.block_on(load_test::run((&target, &place), &options, heard));
    house.close(target);
    report
}

/// What the flags say of the load.
fn options(given: &ArgMatches, tenants: Vec<Tenant>, times: Times, trace: Option<&Trace>) -> Result<Options> {
    let popularity: Popularity = parsed(given, "popularity")?;
    let rates = patterns(given, tenants.len(), times.end())?;
    let clients = range(given, "concurrency", Allowed { least: 1.0, most: 1e7, whole: true })?;
    let pace = match (trace, rates.is_empty(), clients.is_empty()) {
        (Some(trace), true, true) => Pace::Trace(trace.arrivals.clone().into()),
        (None, false, true) => Pace::Open(rates),
        (None, true, empty) => {
            let clients = if empty { vec![1.0] } else { clients };
            Pace::Closed {
                clients: clients.into_iter().map(|clients| clients as usize).collect(),
                popularity,
            }
        }
        _ => bail!("--request-rate, --concurrency and --trace are three loads; choose one"),
    };
    // A trace is as long as it is.
    let times = match trace {
        Some(trace) => Times { warmup: Duration::ZERO, length: trace.length(), ..times },
        None => times,
    };
    Ok(Options { tenants, pace, times, items: count(given, "batch-size"), seed: seed(given) })
}

/// The rate over time: steady, or a wave.
fn wave(given: &ArgMatches, mean: f64, whole: Duration) -> Result<Rate> {
    let Some(word) = given.get_one::<String>("diurnal") else { return Ok(Rate::Steady(mean)) };
    let (swing, period) =
        word.split_once(':').map_or((word.as_str(), None), |(swing, period)| (swing, Some(period)));
    let swing = swing.parse().ok().filter(|swing| (0.0..=1.0).contains(swing));
    let period = match period {
        None => Some(whole),
        Some(word) => word.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
    };
    let wave = swing.zip(period.filter(|period| !period.is_zero()));
    let (swing, period) = wave.with_context(|| {
        format!("--diurnal {word}: a swing from 0 to 1, then a period in seconds, as 0.8:60")
    })?;
    Ok(Rate::Diurnal { mean, swing, period })
}

/// What the levels of a load may be.
#[derive(Clone, Copy)]
struct Allowed {
    least: f64,
    most: f64,
    whole: bool,
}

impl Allowed {
    fn is(self, level: f64) -> bool {
        (self.least..=self.most).contains(&level) && !(self.whole && level.fract() != 0.0)
    }
}

/// More levels than this are a mistake that would take hours.
const MOST_LEVELS: usize = 1000;

/// `N`, or `START:END:STEP`; nothing where the flag is not given.
fn range(given: &ArgMatches, name: &str, allowed: Allowed) -> Result<Vec<f64>> {
    given.get_one::<String>(name).map_or(Ok(Vec::new()), |word| levels(word, name, allowed))
}

fn levels(word: &str, name: &str, allowed: Allowed) -> Result<Vec<f64>> {
    let numbers: Option<Vec<f64>> = word.split(':').map(|part| part.parse().ok()).collect();
    let levels = numbers.and_then(|numbers| match numbers[..] {
        [one] => Some(vec![one]),
        [start, end] => Some(steps(start, end, 1.0)),
        [start, end, step] if step > 0.0 => Some(steps(start, end, step)),
        _ => None,
    });
    let fits = |levels: &Vec<f64>| {
        (1..=MOST_LEVELS).contains(&levels.len()) && levels.iter().all(|level| allowed.is(*level))
    };
    levels.filter(fits).with_context(|| {
        let Allowed { least, most, whole } = allowed;
        let number = if whole { "a whole number" } else { "a number" };
        format!(
            "--{name} {word}: {number} from {least} to {most}, or START:END:STEP of at most {MOST_LEVELS} such"
        )
    })
}

fn steps(start: f64, end: f64, step: f64) -> Vec<f64> {
    (0..=MOST_LEVELS as u32)
        .map(|number| start + f64::from(number) * step)
        .take_while(|level| *level <= end + 1e-9)
        .collect()
}

pub(crate) fn tenants(given: &ArgMatches, names: Vec<String>) -> Result<Vec<Tenant>> {
    let (mut all, mut one) = (None, HashMap::new());
    for word in words(given, "slo-ms") {
        let (name, ms) = word.split_once('=').map_or((None, word), |(name, ms)| (Some(name), ms));
        let slo = ms
            .parse()
            .ok()
            .filter(|ms| *ms > 0.0)
            .and_then(|ms: f64| Duration::try_from_secs_f64(ms / 1e3).ok());
        let slo = slo.with_context(|| format!("--slo-ms {word}: milliseconds above zero, or NAME=MS"))?;
        match name {
            None => all = Some(slo),
            Some(name) => {
                ensure!(
                    names.iter().any(|known| known == name),
                    "--slo-ms {word}: there is no tenant `{name}`"
                );
                one.insert(name, slo);
            }
        }
    }
    Ok(names.into_iter().map(|name| Tenant { slo: one.get(name.as_str()).copied().or(all), name }).collect())
}

fn inputs(given: &ArgMatches) -> Result<Inputs> {
    let source = match given.get_one::<String>("input-data").map_or("random", String::as_str) {
        "random" => Source::Random,
        "zero" => Source::Zero,
        path => Source::read(path.as_ref())?,
    };
    let shape = |word: &str| {
        let parts = word.rsplit_once(':').and_then(|(name, dims)| {
            let dims: Option<Vec<u64>> = dims.split(',').map(|dim| dim.parse().ok()).collect();
            Some((name.to_owned(), dims?))
        });
        parts.with_context(|| format!("--shape {word}: an input's name and its dimensions, as ids:128"))
    };
    Ok(Inputs {
        source,
        shapes: words(given, "shape").map(shape).collect::<Result<BTreeMap<_, _>>>()?,
        batch: count(given, "batch-size"),
        ids_below: count(given, "ids-below").into(),
        seed: seed(given),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

    use super::*;

    const RATE: Allowed = Allowed { least: 1e-3, most: 1e7, whole: false };
    const CLIENTS: Allowed = Allowed { least: 1.0, most: 1e7, whole: true };

    #[test]
    fn a_range_is_every_step_from_start_to_end() {
        assert_eq!(levels("2.5", "request-rate", RATE).unwrap(), [2.5]);
        assert_eq!(levels("1:3", "concurrency", CLIENTS).unwrap(), [1.0, 2.0, 3.0]);
        assert_eq!(levels("10:35:10", "request-rate", RATE).unwrap(), [10.0, 20.0, 30.0]);
    }

    #[test]
    fn levels_that_cannot_be_are_refused_with_what_can() {
        for (word, allowed, words) in [
            ("0", RATE, "from 0.001 to 10000000"),
            ("1e9", RATE, "from 0.001 to 10000000"),
            ("5:1:1", RATE, "START:END:STEP"),
            ("1:2000:1", RATE, "at most 1000"),
            ("0.5", CLIENTS, "a whole number from 1"),
            ("1:2:0.5", CLIENTS, "a whole number from 1"),
        ] {
            let error = levels(word, "flag", allowed).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn flags_that_would_change_nothing_are_refused() {
        let parsed = |flags: &[&str]| command().try_get_matches_from([&["load-test"], flags].concat());
        for flag in ["--tenants=3", "--device=cpu", "--policy=time", "--precision=fp32", "--width=0.5"] {
            for server in ["--url=http://127.0.0.1:8000", "--model=resnet"] {
                assert!(parsed(&[server, flag]).is_err(), "{server} {flag}");
            }
            assert!(parsed(&[flag]).unwrap_err().to_string().contains("--in-process"), "{flag}");
            assert!(parsed(&["--in-process=mlp", flag]).is_ok(), "{flag}");
        }
        for flag in ["--send-timeout", "--input-data=zero", "--shape=x:3", "--ids-below=9", "--connections=4"]
        {
            assert!(parsed(&["--in-process=mlp", flag]).is_err(), "{flag}");
            assert!(parsed(&[flag]).is_ok(), "{flag}");
        }
    }
}
