//! `tessera demo`: see `tessera_bench::demo`.

use crate::print::{print_to_a_reader, read_or_not};
use anyhow::Result;
use clap::{Arg, ArgMatches, Command, value_parser};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;
use tessera_bench::demo::{self, Options};

pub(crate) fn command() -> Command {
    let number = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("N").value_parser(value_parser!(u64)).help(help)
    };
    let among = |name, allowed: RangeInclusive<u64>, help| {
        number(name, help).value_parser(value_parser!(u64).range(allowed))
    };
    Command::new("demo")
        .about(
            "Many tenants of several classes, real requests, and what sharing launches gains; ends by itself",
        )
        .arg(among("tenants", 4..=1000, "How many tenants, over four kinds of model").default_value("32"))
        .arg(among("seconds", 1..=3600, "How long each policy is under load").default_value("12"))
        .arg(among(
            "rate",
            1..=100_000,
            "Requests per second, all tenants together, before one of them bursts [default: 80 % of what this machine answers]",
        ))
        .arg(number("seed", "Decides weights, arrivals and inputs").default_value("1"))
}

pub(crate) fn run(given: &ArgMatches) -> Result<ExitCode> {
    let number = |name: &str| given.get_one::<u64>(name).copied().unwrap_or_default();
    let options = Options {
        tenants: number("tenants") as usize,
        length: Duration::from_secs(number("seconds")),
        rate: given.get_one::<u64>("rate").map(|&rate| rate as f64),
        seed: number("seed"),
    };
    let runtime = tessera_server::runtime::of_all_cores()?;
    read_or_not(runtime.block_on(demo::run(&options, print_to_a_reader)))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_that_would_show_nothing_is_refused_with_what_can_be() {
        for wrong in ["--tenants=3", "--tenants=1001", "--seconds=0", "--rate=0", "--rate=1000000"] {
            let given = command().try_get_matches_from(["demo", wrong]);
            assert!(given.is_err_and(|error| error.to_string().contains("is not in")), "{wrong}");
        }
        assert!(command().try_get_matches_from(["demo", "--tenants=4", "--rate=1"]).is_ok());
    }
}
