//! `tessera inspect`: what a model is made of, and whether two share a class. See `tessera_planner::inspect`.

use crate::TROUBLE;
use crate::print::print;
use anyhow::{Context, Result};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tessera_device::cpu::PACK_TARGET;
use tessera_planner::class::{self, Model, WeightsError};
use tessera_planner::inspect::{Comparison, NotPlanned, Planned, Report, compare, inspect, misfit, planned};

const AFTER_HELP: &str = "\
Weights are packed, and plans are made, as for the CPU device in fp32.

Exit status: 0 when the model was read (with two: when they are one class), 1 when two are not one class, 2 when \
a file cannot be read or the model cannot be planned.";

pub(crate) fn command() -> Command {
    let file = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).value_name(value).value_parser(value_parser!(PathBuf)).help(help)
    };
    Command::new("inspect")
        .about(
            "Show what a model is made of and how it is planned; with two, the first difference that keeps them apart",
        )
        .arg(file("model", "MODEL.onnx", "The model").required(true))
        .arg(file(
            "other",
            "OTHER",
            "A second model to compare; or weights as .safetensors: whether they fit the first as its base",
        ))
        .arg(
            Arg::new("dim")
                .long("dim")
                .value_name("NAME=N")
                .action(ArgAction::Append)
                .value_parser(dim)
                .conflicts_with("other")
                .help("Value of a free dimension that the plan depends on, a sequence's length say; may be repeated"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("One JSON document with the same content; sizes in bytes"),
        )
        .after_help(AFTER_HELP)
}

/// `sequence=128`.
fn dim(word: &str) -> Result<(String, u64), String> {
    let read = word.rsplit_once('=').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    read.filter(|(name, value)| !name.is_empty() && *value > 0)
        .ok_or_else(|| "a name and a number of at least 1 are wanted, as in sequence=128".to_owned())
}

pub(crate) fn run(given: &ArgMatches) -> Result<ExitCode> {
    let path = |name: &str| given.get_one::<PathBuf>(name).map(PathBuf::as_path);
    let json = given.get_flag("json");
    let first = path("model").context("clap requires a model")?;
    let model = load(first)?;
    match path("other") {
        None => {
            let dims: Vec<(String, u64)> = given.get_many("dim").unwrap_or_default().cloned().collect();
            one(first, &model, &dims, json)
        }
        Some(second) => two(&model, second, json),
    }
}

fn one(path: &Path, model: &Model, dims: &[(String, u64)], json: bool) -> Result<ExitCode> {
    let report = inspect(model, PACK_TARGET).with_context(|| path.display().to_string())?;
    let planned = planned(model, PACK_TARGET, dims);
    print(&if json { document(&report, &planned) } else { text(&report, &planned) })?;
    match planned {
        Ok(_) | Err(NotPlanned::Missing { .. }) => Ok(ExitCode::SUCCESS),
        Err(why) => {
            eprintln!("tessera inspect: {}: {why}", path.display());
            Ok(ExitCode::from(TROUBLE))
        }
    }
}

fn text(report: &Report, planned: &Result<Planned, NotPlanned>) -> String {
    match planned {
        Ok(planned) => format!("{report}{planned}"),
        Err(why @ NotPlanned::Missing { .. }) => format!("{report}plan        {why}\n"),
        // What went wrong is told on the other stream.
        Err(_) => report.to_string(),
    }
}

fn document(report: &Report, planned: &Result<Planned, NotPlanned>) -> String {
    let mut document = report.to_json();
    let missing = match planned {
        Err(NotPlanned::Missing { missing }) => missing.as_slice(),
        _ => &[],
    };
    document["missing_dims"] = missing.into();
    document["plan"] = planned.as_ref().ok().map(Planned::to_json).into();
    format!("{document:#}\n")
}

fn two(model: &Model, second: &Path, json: bool) -> Result<ExitCode> {
    let comparison = comparison(model, second)?;
    print(&if json { format!("{:#}\n", comparison.to_json()) } else { comparison.to_string() })?;
    Ok(if comparison.one_class() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn comparison(model: &Model, second: &Path) -> Result<Comparison> {
    if second.extension().is_none_or(|extension| extension != "safetensors") {
        return Ok(compare(model, &load(second)?, PACK_TARGET)?);
    }
    match class::load_over_base(model, second) {
        Ok(tenant) => Ok(compare(model, &tenant, PACK_TARGET)?),
        Err(why @ WeightsError::Mismatch { .. }) => Ok(misfit(model, &why, PACK_TARGET)?),
        Err(why) => Err(why).with_context(|| second.display().to_string()),
    }
}

fn load(path: &Path) -> Result<Model> {
    class::load(path).with_context(|| path.display().to_string())
}
