//! `tessera bench`: measurements in process, see `tessera_bench`. The paper's products are in `products`.

use crate::flags::{arg, count, json_flag, number, policies, policy_flag, publish, seed, seed_flag, text};
use crate::zoo::{size_flags, sizes};
use crate::{beside, figures, launches, open_loop, processes, products, reality};
use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::process::ExitCode;
use std::time::Duration;
use tessera_bench::tenants::{self, Options, residency};
use tessera_bench::zoo;
use tessera_core::{Policy, Precision};

pub(crate) fn command() -> Command {
    Command::new("bench")
        .about("Measure the engine in process, without HTTP")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(tenants_command())
        .subcommand(
            Command::new("residency")
                .about("Hundreds of tenants on one device: latencies while more are loaded, and what memory comes back")
                .args(load_flags())
                .arg(json_flag()),
        )
        .subcommand(launches::command())
        .subcommand(beside::command())
        .subcommands(open_loop::commands())
        .subcommands(reality::commands())
        .subcommands(processes::commands())
        .subcommands(products::commands())
        .subcommands(figures::commands())
}

pub(crate) fn run(given: &ArgMatches) -> Result<ExitCode> {
    match given.subcommand() {
        Some(("tenants", given)) => run_tenants(given),
        Some(("residency", given)) => run_residency(given),
        Some(("launches", given)) => launches::run(given),
        Some(("beside", given)) => beside::run(given),
        Some(("goodput", given)) => open_loop::goodput(given),
        Some(("mixed", given)) => open_loop::mixed(given),
        Some(("costs", given)) => reality::costs(given),
        Some(("reality", given)) => reality::reality(given),
        Some(("isolation", given)) => open_loop::isolation(given),
        Some(("processes", given)) => processes::run(given),
        Some(("worker", given)) => processes::work(given),
        Some((name, given)) => figures::run(name, given).unwrap_or_else(|| products::run(name, given)),
        None => unreachable!("clap requires one of the subcommands above"),
    }
}

fn tenants_command() -> Command {
    Command::new("tenants")
        .about("Whole models: many tenants with weights of their own, one request after another from each, under every policy")
        .arg(
            policy_flag().help("space-time, space, time, exclusive (all requests for one tenant, in batches), or all; may be given several times"),
        )
        .arg(number("rounds", "3").help("How often each policy runs; the order of policies turns round every time"))
        .arg(
            Arg::new("steps")
                .long("steps")
                .action(ArgAction::SetTrue)
                .help("Measure every step of a launch too, beside its floor, where the device can"),
        )
        .args(load_flags())
        .arg(json_flag())
}

/// What is loaded and how it is asked: the same for every bench of whole models.
pub(crate) fn load_flags() -> Vec<Arg> {
    let model = arg("model", "ARCH").required(true);
    let flags = [
        model.help("An architecture of `tessera zoo`"),
        number("tenants", "32").help("How many tenants"),
        text("device", "DEVICE", "auto").help("Where to run, as `tessera serve --device`"),
        text("precision", "PRECISION", "fp32").help("fp32, tf32, bf16 or fp16, where the device has it"),
        number("items", "1").help("Items that a request brings"),
        number("seconds", "3").help("How long each run is"),
        number("in-flight", "3").help("Requests that each tenant has on their way at a time"),
        tune_flag(),
        seed_flag("Decides weights and inputs"),
    ];
    flags.into_iter().chain(size_flags()).collect()
}

/// For benches of a card: how long it may time kernels for.
pub(crate) fn tune_flag() -> Arg {
    text("tune-ms", "MS|off", "1000").value_parser(read_tuning).help(
        "Longest that a card times kernels for beforehand, to take the fastest of those that give the same bits, as a server does; off chooses by rule",
    )
}

/// What [`tune_flag`] says.
pub(crate) fn tuning(given: &ArgMatches) -> Option<Duration> {
    given.get_one::<Option<Duration>>("tune-ms").copied().flatten()
}

fn read_tuning(word: &str) -> Result<Option<Duration>, String> {
    let read = |word: &str| word.parse().map(|ms: u32| Some(Duration::from_millis(ms.into())));
    if word == "off" { Ok(None) } else { read(word).map_err(|_| "milliseconds, or off".to_owned()) }
}

/// What [`load_flags`] say, to be measured under these policies.
pub(crate) fn options(given: &ArgMatches, policies: Vec<Policy>) -> Result<Options> {
    let word = |name: &str| given.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    Ok(Options {
        model: zoo::find(word("model"))?.model(&sizes(given))?,
        tenants: count(given, "tenants") as usize,
        policies,
        device: word("device").to_owned(),
        precision: word("precision").parse::<Precision>().map_err(anyhow::Error::msg)?,
        items: count(given, "items"),
        length: Duration::from_secs(count(given, "seconds").into()),
        rounds: 1,
        in_flight: count(given, "in-flight") as usize,
        steps: false,
        tune: tuning(given),
        seed: seed(given),
    })
}

fn run_tenants(given: &ArgMatches) -> Result<ExitCode> {
    let policies = policies(given)?;
    let options = Options {
        rounds: count(given, "rounds") as usize,
        steps: given.get_flag("steps"),
        ..options(given, policies)?
    };
    let report = tenants::run(&options, &mut |line| eprintln!("{line}"))?;
    publish(given, &report, serde_json::to_string_pretty(&report)?)?;
    Ok(ExitCode::SUCCESS)
}

fn run_residency(given: &ArgMatches) -> Result<ExitCode> {
    let options = options(given, vec![Policy::SpaceTime])?;
    let report = residency::run(&options, &mut |line| eprintln!("{line}"))?;
    publish(given, &report, serde_json::to_string_pretty(&report)?)?;
    Ok(ExitCode::SUCCESS)
}
