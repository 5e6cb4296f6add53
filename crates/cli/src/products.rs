//! `tessera bench table1` and `figure7`: the paper's matrix products on a card, see `tessera_bench::figures`.

use crate::bench::{tune_flag, tuning};
use crate::flags::{arg, json_flag, list, publish, text, words};
use anyhow::{Context, Result, anyhow, ensure};
use clap::{ArgMatches, Command, value_parser};
use std::process::ExitCode;
use tessera_bench::figures::products::{MOST_TENANTS, Options, PRECISIONS, SHAPES, Shape, TENANTS, shape};
use tessera_bench::figures::{figure7, table1};

/// The commands of this file.
pub(crate) fn commands() -> [Command; 2] {
    let shapes = SHAPES.map(|shape| shape.name).join(",");
    [
        command("table1", &shapes).about(
            "The paper's Table 1: the same matrix product of many tenants, one after another, side by side, by cuBLAS, and merged",
        ),
        command("figure7", figure7::SHAPE)
            .about("The paper's Figure 7: throughput of a matrix product by number of tenants"),
    ]
}

/// Runs one of them.
pub(crate) fn run(name: &str, given: &ArgMatches) -> Result<ExitCode> {
    let options = options(given)?;
    let progress = &mut |line: &str| eprintln!("{line}");
    let complaints = match name {
        "table1" => {
            let report = table1::run(&options, progress)?;
            publish(given, &report, serde_json::to_string_pretty(&report)?)?;
            report.sheet.complaints()
        }
        _ => {
            let report = figure7::run(&options, progress)?;
            publish(given, &report, serde_json::to_string_pretty(&report)?)?;
            report.sheet.complaints()
        }
    };
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn command(name: &'static str, shapes: &str) -> Command {
    let list = |name: &'static str, value: &'static str, default: String| {
        list(arg(name, value).default_value(clap::builder::OsStr::from(default)))
    };
    let tenants = TENANTS.map(|tenants| tenants.to_string()).join(",");
    let precisions = PRECISIONS.map(|precision| precision.name()).join(",");
    Command::new(name)
        .arg(list("shape", "SHAPE", shapes.to_owned()).help("rnn_gemv, conv2_2, square256"))
        .arg(list("precision", "PRECISION", precisions).help("fp32, tf32, bf16, fp16"))
        .arg(
            list("tenants", "N", tenants)
                .value_parser(value_parser!(u64).range(1..=MOST_TENANTS as u64))
                .help("How many tenants"),
        )
        .arg(
            text("rounds", "N", "9")
                .value_parser(value_parser!(u64).range(1..=1000))
                .help("How often the best ways are timed; their order turns round every time"),
        )
        .arg(text("device", "DEVICE", "cuda:0").help("Which card"))
        .arg(tune_flag())
        .arg(json_flag())
}

fn options(given: &ArgMatches) -> Result<Options> {
    let device = given.get_one::<String>("device").map(String::as_str).unwrap_or_default();
    let ordinal = match device.strip_prefix("cuda") {
        Some("") => Some(0),
        Some(rest) => rest.strip_prefix(':').and_then(|ordinal| ordinal.parse().ok()),
        None => None,
    };
    let count = |count: &u64| usize::try_from(*count).context("a count is too large");
    let options = Options {
        shapes: words(given, "shape").map(shape).collect::<Result<Vec<Shape>>>()?,
        precisions: words(given, "precision")
            .map(|word| word.parse().map_err(|error: String| anyhow!(error)))
            .collect::<Result<_>>()?,
        tenants: given.get_many("tenants").into_iter().flatten().map(count).collect::<Result<_>>()?,
        rounds: given.get_one("rounds").map(count).transpose()?.unwrap_or(1),
        tune: tuning(given),
        ordinal: ordinal.ok_or_else(|| anyhow!("`{device}` is not a card; name one as cuda:0"))?,
    };
    ensure!(!options.tenants.is_empty(), "name a number of tenants");
    Ok(options)
}
