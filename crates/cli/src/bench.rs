//! `tessera bench`: measurements in process, see `tessera_bench`. The paper's products are in `products`.

use crate::products;
use crate::zoo::{size_flags, sizes};
use anyhow::{Context, Result};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tessera_bench::tenants::{self, Options};
use tessera_bench::zoo;
use tessera_core::{Policy, Precision};

pub(crate) fn command() -> Command {
    Command::new("bench")
        .about("Measure the engine in process, without HTTP")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(tenants_command())
        .subcommands(products::commands())
}

pub(crate) fn run(given: &ArgMatches) -> Result<ExitCode> {
    match given.subcommand() {
        Some(("tenants", given)) => run_tenants(given),
        Some((name, given)) => products::run(name, given),
        None => unreachable!("clap requires one of the subcommands above"),
    }
}

fn tenants_command() -> Command {
    let text = |name: &'static str, value: &'static str, default: &'static str| {
        Arg::new(name).long(name).value_name(value).default_value(default)
    };
    let count = |name: &'static str, default: &'static str| {
        text(name, "N", default).value_parser(value_parser!(u32).range(1..=1_000_000))
    };
    Command::new("tenants")
        .about("Whole models: many tenants with weights of their own, one request after another from each, under every policy")
        .arg(Arg::new("model").long("model").value_name("ARCH").required(true).help("An architecture of `tessera zoo`"))
        .arg(count("tenants", "32").help("How many tenants"))
        .arg(
            text("policy", "POLICY", "all")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .help("space-time, space, time, exclusive (all requests for one tenant, in batches), or all; may be given several times"),
        )
        .arg(text("device", "DEVICE", "auto").help("Where to run, as `tessera serve --device`"))
        .arg(text("precision", "PRECISION", "fp32").help("fp32, tf32, bf16 or fp16, where the device has it"))
        .arg(count("items", "1").help("Items that a request brings"))
        .arg(count("seconds", "3").help("How long each policy runs in each round"))
        .arg(count("rounds", "3").help("How often each policy runs; the order of policies turns round every time"))
        .arg(count("in-flight", "3").help("Requests that each tenant has on their way at a time"))
        .arg(
            Arg::new("steps")
                .long("steps")
                .action(ArgAction::SetTrue)
                .help("Measure every step of a launch too, beside its floor, where the device can"),
        )
        .arg(text("seed", "N", "1").value_parser(value_parser!(u64)).help("Decides weights and inputs"))
        .args(size_flags())
        .arg(json_flag())
}

/// Where figures go for machines.
pub(crate) fn json_flag() -> Arg {
    Arg::new("json")
        .long("json")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Write the figures there too; - writes them to standard output, in place of the table")
}

fn run_tenants(given: &ArgMatches) -> Result<ExitCode> {
    let word = |name: &str| given.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let number = |name: &str| given.get_one::<u32>(name).copied().unwrap_or(1);
    let options = Options {
        model: zoo::find(word("model"))?.model(&sizes(given))?,
        tenants: number("tenants") as usize,
        policies: policies(given.get_many::<String>("policy").into_iter().flatten())?,
        device: word("device").to_owned(),
        precision: word("precision").parse::<Precision>().map_err(anyhow::Error::msg)?,
        items: number("items"),
        length: Duration::from_secs(number("seconds").into()),
        rounds: number("rounds") as usize,
        in_flight: number("in-flight") as usize,
        steps: given.get_flag("steps"),
        seed: given.get_one::<u64>("seed").copied().unwrap_or_default(),
    };
    let report = tenants::run(&options, &mut |line| eprintln!("{line}"))?;
    publish(given, &report, serde_json::to_string_pretty(&report)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a report where [`json_flag`] says: the table for people, the figures for machines.
pub(crate) fn publish(given: &ArgMatches, table: &dyn Display, mut figures: String) -> Result<()> {
    figures.push('\n');
    match given.get_one::<PathBuf>("json") {
        Some(path) if path.as_os_str() == "-" => print!("{figures}"),
        Some(path) => {
            std::fs::write(path, figures).with_context(|| format!("cannot write {}", path.display()))?;
            print!("{table}");
        }
        None => print!("{table}"),
    }
    Ok(())
}

/// Each once, in the order in which they were named.
fn policies<'a>(words: impl Iterator<Item = &'a String>) -> Result<Vec<Policy>> {
    let mut policies = Vec::new();
    for word in words {
        let named = match word.as_str() {
            "all" => Policy::ALL.to_vec(),
            word => vec![word.parse().map_err(anyhow::Error::msg)?],
        };
        policies.extend(named.into_iter().filter(|policy| !policies.contains(policy)).collect::<Vec<_>>());
    }
    Ok(policies)
}
