//! `tessera bench launches`: see `tessera_bench::launches`.

use crate::bench::{count, json_flag, publish, text};
use crate::zoo::{size_flags, sizes};
use anyhow::{Context, Result};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::num::{NonZeroU32, NonZeroU64};
use std::process::ExitCode;
use tessera_bench::launches::{self, Options};
use tessera_bench::zoo;

pub(crate) fn command() -> Command {
    Command::new("launches")
        .about("What a launch costs the host: submit, poll and the device's threads, by lanes of the launch")
        .arg(
            Arg::new("model")
                .long("model")
                .value_name("ARCH")
                .default_value("mlp")
                .help("An architecture of `tessera zoo`; its inputs are copied with every launch"),
        )
        .arg(
            text("tenants", "N", "1,8,32,120")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .value_parser(value_parser!(u32).range(1..=4096))
                .help("Lanes of a launch, a row each"),
        )
        .arg(text("device", "DEVICE", "auto").help("Where to run, as `tessera serve --device`"))
        .arg(text("precision", "PRECISION", "fp32").help("fp32, tf32, bf16 or fp16, where the device has it"))
        .arg(count("launches", "2000").help("How many launches each row is of"))
        .arg(text("seed", "N", "1").value_parser(value_parser!(u64)).help("Decides weights and inputs"))
        .args(size_flags())
        .arg(json_flag())
}

pub(crate) fn run(given: &ArgMatches) -> Result<ExitCode> {
    let word = |name: &str| given.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let tenants = given.get_many::<u32>("tenants").into_iter().flatten();
    let launches = given.get_one::<u32>("launches").copied().unwrap_or(1);
    let options = Options {
        model: zoo::find(word("model"))?.model(&sizes(given))?,
        tenants: tenants.filter_map(|&tenants| NonZeroU32::new(tenants)).collect(),
        device: word("device").to_owned(),
        precision: word("precision").parse().map_err(anyhow::Error::msg)?,
        launches: NonZeroU64::new(launches.into()).context("a row has a launch")?,
        seed: given.get_one::<u64>("seed").copied().unwrap_or_default(),
    };
    let report = launches::run(&options, &mut |line| eprintln!("{line}"))?;
    publish(given, &report, serde_json::to_string_pretty(&report)?)?;
    Ok(ExitCode::SUCCESS)
}
