//! `tessera bench beside`: see `tessera_bench::beside`.

use crate::flags::{arg, count, json_flag, list, number, publish, seed, seed_flag, text};
use crate::zoo::{size_flags, sizes};
use anyhow::{Context, Result};
use clap::{ArgMatches, Command, value_parser};
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;
use tessera_bench::beside::{self, Options};
use tessera_bench::zoo;

pub(crate) fn command() -> Command {
    Command::new("beside")
        .about("What launches of one model cost those of another that run beside them: on streams of a card, or kept to some of its multiprocessors")
        .arg(text("model", "ARCH", "resnet-50").help("Whose launches are told of, one at a time"))
        .arg(number("lanes", "1").help("Lanes of each"))
        .arg(text("neighbour", "ARCH", "resnet-50").help("Whose launches run beside them without a pause"))
        .arg(number("neighbour-lanes", "32").help("Lanes of each of those"))
        .arg(
            list(arg("aside", "N"))
                .value_parser(value_parser!(u32).range(1..))
                .help("To how many multiprocessors the neighbour is kept, as `tessera serve --apart-multiprocessors`, a row each; as many as there are puts it behind only"),
        )
        .arg(text("device", "DEVICE", "auto").help("Where to run, as `tessera serve --device`"))
        .arg(text("precision", "PRECISION", "fp32").help("fp32, tf32, bf16 or fp16, where the device has it"))
        .arg(number("seconds", "2").help("How long each row is measured: alone, and beside each other"))
        .arg(seed_flag("Decides weights and inputs"))
        .args(size_flags())
        .arg(json_flag())
}

pub(crate) fn run(given: &ArgMatches) -> Result<ExitCode> {
    let word = |name: &str| given.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let lanes = |name: &str| NonZeroU32::new(count(given, name)).context("a launch has a lane");
    let model = |name: &str| -> Result<zoo::Model> {
        let found = zoo::find(word(name))?;
        Ok(found.model(&sizes(given).taken_by(found.takes))?)
    };
    let aside = given.get_many::<u32>("aside").into_iter().flatten();
    let options = Options {
        model: model("model")?,
        lanes: lanes("lanes")?,
        neighbour: model("neighbour")?,
        neighbour_lanes: lanes("neighbour-lanes")?,
        device: word("device").to_owned(),
        precision: word("precision").parse().map_err(anyhow::Error::msg)?,
        aside: aside.filter_map(|&aside| NonZeroU32::new(aside)).collect(),
        length: Duration::from_secs(count(given, "seconds").into()),
        seed: seed(given),
    };
    let report = beside::run(&options, &mut |line| eprintln!("{line}"))?;
    publish(given, &report, serde_json::to_string_pretty(&report)?)?;
    Ok(ExitCode::SUCCESS)
}
