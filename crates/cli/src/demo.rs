//! `tessera demo`: see `tessera_bench::demo`.

use anyhow::Result;
use clap::{Arg, ArgMatches, Command, value_parser};
use std::process::ExitCode;
use std::time::Duration;
use tessera_bench::demo::{self, Options};

pub(crate) fn command() -> Command {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .default_value(default)
            .value_parser(value_parser!(u64))
            .help(help)
    };
    Command::new("demo")
        .about(
            "Many tenants of several classes, real requests, and what sharing launches gains; ends by itself",
        )
        .arg(number("tenants", "32", "How many tenants, over four kinds of model"))
        .arg(number("seconds", "12", "How long each policy is under load"))
        .arg(number("rate", "600", "Requests per second, all tenants together, before one of them bursts"))
        .arg(number("seed", "1", "Decides weights, arrivals and inputs"))
}

pub(crate) fn run(given: &ArgMatches) -> Result<ExitCode> {
    let number = |name: &str| given.get_one::<u64>(name).copied().unwrap_or_default();
    let options = Options {
        tenants: number("tenants").clamp(4, 1000) as usize,
        length: Duration::from_secs(number("seconds").clamp(1, 3600)),
        rate: number("rate").clamp(1, 100_000) as f64,
        seed: number("seed"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(demo::run(&options))?;
    Ok(ExitCode::SUCCESS)
}
