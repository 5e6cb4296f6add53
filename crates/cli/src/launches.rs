//! `tessera bench launches`: see `tessera_bench::launches`.

use crate::flags::{count, json_flag, list, number, publish, seed, seed_flag, text};
use crate::zoo::{size_flags, sizes};
use anyhow::{Context, Result};
use clap::{ArgMatches, Command, value_parser};
use std::num::{NonZeroU32, NonZeroU64};
use std::process::ExitCode;
use tessera_bench::launches::{self, Options};
use tessera_bench::zoo;

pub(crate) fn command() -> Command {
    Command::new("launches")
        .about("What a launch costs the host: submit, poll and the device's threads, by lanes of the launch")
        .arg(
            text("model", "ARCH", "mlp")
                .help("An architecture of `tessera zoo`; its inputs are copied with every launch"),
        )
        .arg(
            list(text("tenants", "N", "1,8,32,120"))
                .value_parser(value_parser!(u32).range(1..=4096))
                .help("Lanes of a launch, a row each"),
        )
        .arg(text("device", "DEVICE", "auto").help("Where to run, as `tessera serve --device`"))
        .arg(text("precision", "PRECISION", "fp32").help("fp32, tf32, bf16 or fp16, where the device has it"))
        .arg(number("launches", "2000").help("How many launches each row is of"))
        .arg(seed_flag("Decides weights and inputs"))
        .args(size_flags())
        .arg(json_flag())
}

pub(crate) fn run(given: &ArgMatches) -> Result<ExitCode> {
    let word = |name: &str| given.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let tenants = given.get_many::<u32>("tenants").into_iter().flatten();
    let launches = count(given, "launches");
    let options = Options {
        model: zoo::find(word("model"))?.model(&sizes(given))?,
        tenants: tenants.filter_map(|&tenants| NonZeroU32::new(tenants)).collect(),
        device: word("device").to_owned(),
        precision: word("precision").parse().map_err(anyhow::Error::msg)?,
        launches: NonZeroU64::new(launches.into()).context("a row has a launch")?,
        seed: seed(given),
    };
    let report = launches::run(&options, &mut |line| eprintln!("{line}"))?;
    publish(given, &report, serde_json::to_string_pretty(&report)?)?;
    Ok(ExitCode::SUCCESS)
}
