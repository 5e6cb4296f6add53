//! `tessera bench goodput`, `isolation` and `mixed`: open loops of many tenants under every policy, see `tessera_bench::figures`.

use crate::flags::{
    arg, count, file_flag, json_flag, list, number, parsed, policies, policy_flag, publish, seed, seed_flag,
    slo, text, words,
};
use crate::zoo::{size_flags, sizes};
use anyhow::{Context, Result};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tessera_bench::figures::place::{Place, Setting, Wrapped};
use tessera_bench::figures::plot::Plot;
use tessera_bench::figures::{goodput, isolation, mixed, reality};
use tessera_bench::load::Tenant;
use tessera_bench::simulate;
use tessera_bench::zoo::{self, Sizes};
use tessera_core::Policy;

/// Classes with SLOs as a service might have them: a look at an image, an image on a phone, a text, a series.
const CLASSES: &str = "resnet-50:50,mobilenet-v2:25,bert-base:100,lstm:10";

pub(crate) fn commands() -> [Command; 3] {
    let goodput = Command::new("goodput")
        .about("The highest rate at which 99 % of an open loop's requests are in time, by bisection, under every policy")
        .arg(list(arg("model", "ARCH").required(true)).help(
            "Architectures of `tessera zoo`; tenants have them in turn",
        ))
        .arg(text("slo-ms", "MS", "25").value_parser(value_parser!(f64)).help("What counts as in time"))
        .args([
            arg("versus", "DEVICES").action(ArgAction::Append).help(
                "Other devices to do the same on in the same rounds, under the first policy alone; several that serve together are separated by spaces, as \"cpu:0 cpu:1\"",
            ),
            Arg::new("simulate").long("simulate").action(ArgAction::SetTrue).help(
                "Measure what launches take, and put what the simulator says beside each policy but `space`",
            ),
            text("rounds", "N", "1").value_parser(value_parser!(u32).range(0..=1000)).help(
                "How often all run at the rates that were found for each",
            ),
        ])
        .args(flags("100"))
        .mut_arg("seconds", |seconds| seconds.default_value("3"));
    let mixed = Command::new("mixed")
        .about("Tenants of several architectures, each class with its SLO: the highest rate at which 99 % of every class are in time, under every policy")
        .arg(list(text("class", "ARCH:MS", CLASSES)).help(
            "Architectures of `tessera zoo`, each with what counts as in time; tenants have them in turn",
        ))
        .arg(Arg::new("uninterrupted").long("uninterrupted").action(ArgAction::SetTrue).help(
            "The same once more on one partition where no launch stands back for an urgent one: what interruptions gain",
        ))
        .arg(list(arg("behind", "N")).value_parser(value_parser!(u32).range(1..)).help(
            "The same once more where classes that can wait may be kept to so many multiprocessors of a card, as `tessera serve --behind-multiprocessors`",
        ))
        .args(flags("32"));
    let isolation = Command::new("isolation")
        .about("What one tenant that asks for ten times its part, and then becomes five times slower, does to the others, under every policy")
        .arg(arg("model", "ARCH").required(true).help("An architecture of `tessera zoo`"))
        .arg(text("slo-ms", "MS", "25").value_parser(value_parser!(f64)).help("What counts as in time"))
        .arg(text("rate", "N", "500").value_parser(value_parser!(u32).range(1..)).help("Requests per second of all tenants, before one gets loud"))
        .args(flags("24").into_iter().filter(|flag| flag.get_id() != "lowest-rate"))
        .mut_arg("popularity", |popularity| popularity.default_value("uniform"));
    [goodput, mixed, isolation]
}

/// What both ask for, but for who is served.
fn flags(tenants: &'static str) -> Vec<Arg> {
    let flags = [
        number("tenants", tenants).help("How many tenants"),
        text("popularity", "WORD", "zipf").help("Of tenants: uniform, zipf, or zipf:S"),
        text("distribution", "WORD", "poisson").help("Of gaps: poisson, constant, or gamma:CV"),
        text("device", "DEVICE", "auto")
            .action(ArgAction::Append)
            .help("Where to run, as `tessera serve --device`, or simulated, with an H100's measured costs; several serve together, each with every tenant"),
        text("precision", "PRECISION", "auto").help("fp32, tf32, bf16 or fp16, where the device has it"),
        text("partitions", "N", "auto").help("As `tessera serve --partitions`"),
        policy_flag(),
        number("seconds", "5").help("How long each rate is measured"),
        number("lowest-rate", "50").help("The fewest requests per second that are tried"),
        seed_flag("Decides weights, inputs and arrivals"),
        file_flag("svg").help("Draw the figure there"),
        json_flag(),
    ];
    flags.into_iter().chain(size_flags()).collect()
}

/// A class of tenants: what it is, and what counts as in time.
struct Served {
    model: Arc<zoo::Model>,
    slo: Duration,
}

impl Served {
    fn new(name: &str, sizes: &Sizes, slo_ms: f64) -> Result<Served> {
        Ok(Served { model: Arc::new(zoo::find(name)?.model(sizes)?), slo: slo(slo_ms)? })
    }

    fn name(&self) -> &'static str {
        self.model.architecture.name
    }
}

pub(crate) fn goodput(given: &ArgMatches) -> Result<ExitCode> {
    let slo_ms = given.get_one::<f64>("slo-ms").copied().unwrap_or_default();
    let sizes = sizes(given);
    let served =
        words(given, "model").map(|name| Served::new(name, &sizes, slo_ms)).collect::<Result<_>>()?;
    let heard = &mut |line: &str| eprintln!("{line}");
    let (place, policies, about) = set(given, served, Vec::new(), Wrapped::Bare, heard)?;
    let mut ways: Vec<(usize, Policy)> = policies.iter().map(|&policy| (0, policy)).collect();
    let mut names: Vec<String> = policies.iter().map(Policy::to_string).collect();
    let mut places = vec![place];
    for devices in given.get_many::<String>("versus").into_iter().flatten() {
        let place = Place::new(Setting { device: devices.clone(), ..places[0].setting().clone() })?;
        ways.push((places.len(), policies[0]));
        names.push(format!("{} on {}", policies[0], devices.replace(' ', " and ")));
        places.push(place);
    }
    if given.get_flag("simulate") {
        let setting = places[0].setting().clone();
        let costs = simulate::measure(&reality::measuring(&setting), heard)?;
        let simulated = policies.iter().filter(|policy| **policy != Policy::Space);
        ways.extend(simulated.clone().map(|&policy| (places.len(), policy)));
        names.extend(simulated.map(|policy| format!("{policy}, simulated")));
        places.push(Place::simulated(setting, costs)?);
    }
    let from = (f64::from(count(given, "lowest-rate")), count(given, "rounds") as usize);
    let capacities = ways.iter().map(|&(place, policy)| places[place].capacity(policy, heard));
    let capacities = capacities.collect::<Result<Vec<_>>>()?;
    let named = names.into_iter().zip(capacities).map(|(name, capacity)| goodput::Way { name, capacity });
    let report = goodput::run(about, slo_ms, named.collect(), from, &mut |way, rate| {
        let (place, policy) = ways[way];
        places[place].measured(policy, rate, heard)
    })?;
    places.into_iter().for_each(Place::close);
    show(given, &report, serde_json::to_string_pretty(&report)?, &report.plot())
}

pub(crate) fn mixed(given: &ArgMatches) -> Result<ExitCode> {
    let class = |word: &str| {
        let (name, slo) = word.split_once(':').with_context(|| format!("`{word}` is not ARCH:MS"))?;
        let slo = slo.parse().with_context(|| format!("`{slo}` in `{word}` is no number of milliseconds"))?;
        Served::new(name, &sizes(given).taken_by(zoo::find(name)?.takes), slo)
    };
    let served: Vec<Served> = words(given, "class").map(class).collect::<Result<_>>()?;
    let group = |served: &Served| Tenant { name: served.name().to_owned(), slo: Some(served.slo) };
    let groups = served.iter().map(group).collect();
    let heard = &mut |line: &str| eprintln!("{line}");
    let (mut place, policies, about) = set(given, served, groups, Wrapped::Bare, heard)?;
    let lowest = f64::from(count(given, "lowest-rate"));
    let mut ways = mixed::Way::all(&policies);
    if given.get_flag("uninterrupted") {
        ways.extend(mixed::Way::uninterrupted(&policies));
    }
    let behind: Vec<String> =
        given.get_many::<u32>("behind").into_iter().flatten().map(u32::to_string).collect();
    if !behind.is_empty() {
        ways.extend(mixed::Way::behind(&policies));
    }
    let divided = place.setting().partitions.clone();
    let report = mixed::run(about, &ways, lowest, &mut |way, rate| {
        place.divide(if way.whole { "1" } else { &divided });
        place.keep_behind(&if way.behind { behind.join(" ") } else { "off".to_owned() });
        place.interrupt(way.interrupts);
        place.row(way.policy, rate, heard)
    })?;
    place.close();
    show(given, &report, serde_json::to_string_pretty(&report)?, &report.plot())
}

pub(crate) fn isolation(given: &ArgMatches) -> Result<ExitCode> {
    let slo_ms = given.get_one::<f64>("slo-ms").copied().unwrap_or_default();
    let sizes = sizes(given);
    let served =
        words(given, "model").map(|name| Served::new(name, &sizes, slo_ms)).collect::<Result<_>>()?;
    let heard = &mut |line: &str| eprintln!("{line}");
    let (mut place, policies, about) = set(given, served, Vec::new(), Wrapped::Slowable, heard)?;
    let (rate, length) =
        (f64::from(count(given, "rate")), Duration::from_secs(count(given, "seconds").into()));
    let about = format!("{about}, {rate:.0} requests/s, SLO {slo_ms} ms");
    let report = isolation::run(about, &policies, &isolation::acts(length), &mut |policy, acts| {
        place.acts(policy, rate, acts, heard)
    })?;
    place.close();
    show(given, &report, serde_json::to_string_pretty(&report)?, &report.plot())
}

/// The place, the policies in the order in which they run, and all of it in words.
fn set(
    given: &ArgMatches,
    served: Vec<Served>,
    groups: Vec<Tenant>,
    around: Wrapped,
    heard: &mut dyn FnMut(&str),
) -> Result<(Place, Vec<Policy>, String)> {
    let word = |name: &str| given.get_one::<String>(name).cloned().unwrap_or_default();
    let tenants = count(given, "tenants") as usize;
    let tenant = |number: usize| {
        let slo = served.get(number % served.len()).map(|served| served.slo);
        Tenant { name: format!("tenant-{number}"), slo }
    };
    let names: Vec<&str> = served.iter().map(Served::name).collect();
    let what = format!("{tenants} tenants of {}", names.join(", "));
    let setting = Setting {
        tenants: (0..tenants).map(tenant).collect(),
        groups,
        popularity: parsed(given, "popularity")?,
        gaps: parsed(given, "distribution")?,
        length: Duration::from_secs(count(given, "seconds").into()),
        device: words(given, "device").collect::<Vec<_>>().join(" "),
        precision: word("precision"),
        partitions: word("partitions"),
        behind: "off".to_owned(),
        interrupts: true,
        seed: seed(given),
        around,
        models: served.into_iter().map(|served| served.model).collect(),
    };
    let policies = policies(given)?;
    let mut place = Place::new(setting)?;
    let first = *policies.first().context("name at least one policy")?;
    let about = format!("{what}, {} popularity, {}", word("popularity"), place.about(first, heard)?);
    Ok((place, policies, about))
}

/// Draws and writes a figure where its flags say.
fn show(given: &ArgMatches, report: &dyn Display, figures: String, plot: &Plot) -> Result<ExitCode> {
    if let Some(path) = given.get_one::<PathBuf>("svg") {
        std::fs::write(path, plot.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    publish(given, report, figures)?;
    Ok(ExitCode::SUCCESS)
}
