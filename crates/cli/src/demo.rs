//! `tessera demo`: see `tessera_bench::demo`.

use anyhow::Result;
use clap::{Arg, ArgMatches, Command, value_parser};
use std::process::ExitCode;
use std::time::Duration;
use tessera_bench::demo::{self, Options};

pub(crate) fn command() -> Command {
    let number = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("N").value_parser(value_parser!(u64)).help(help)
    };
    Command::new("demo")
        .about(
            "Many tenants of several classes, real requests, and what sharing launches gains; ends by itself",
        )
        .arg(number("tenants", "How many tenants, over four kinds of model").default_value("32"))
        .arg(number("seconds", "How long each policy is under load").default_value("12"))
        .arg(number(
            "rate",
            "Requests per second, all tenants together, before one of them bursts [default: 80 % of what this machine answers]",
        ))
        .arg(number("seed", "Decides weights, arrivals and inputs").default_value("1"))
}

pub(crate) fn run(given: &ArgMatches) -> Result<ExitCode> {
    let number = |name: &str| given.get_one::<u64>(name).copied().unwrap_or_default();
    let options = Options {
        tenants: number("tenants").clamp(4, 1000) as usize,
        length: Duration::from_secs(number("seconds").clamp(1, 3600)),
        rate: given.get_one::<u64>("rate").map(|&rate| rate.clamp(1, 100_000) as f64),
        seed: number("seed"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(demo::run(&options))?;
    Ok(ExitCode::SUCCESS)
}
