//! `tessera bench goodput`: open loops of many tenants under every policy, see `tessera_bench::figures`.

use crate::bench::{json_flag, policies, publish};
use crate::load_test::{count, parsed, seed, words};
use crate::zoo::{size_flags, sizes};
use anyhow::{Context, Result};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tessera_bench::figures::goodput;
use tessera_bench::figures::place::{Place, Setting};
use tessera_bench::load::Tenant;
use tessera_bench::zoo;
use tessera_core::Policy;

pub(crate) fn command() -> Command {
    let arg = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    let number = |name: &'static str, default: &'static str| {
        arg(name, "N").default_value(default).value_parser(value_parser!(u32).range(1..=10_000_000))
    };
    Command::new("goodput")
        .about("The highest rate at which 99 % of an open loop's requests are in time, by bisection, under every policy")
        .arg(arg("model", "ARCH").required(true).action(ArgAction::Append).value_delimiter(',').help(
            "Architectures of `tessera zoo`; tenants have them in turn",
        ))
        .args(size_flags())
        .args([
            number("tenants", "100").help("How many tenants"),
            arg("slo-ms", "MS").default_value("25").value_parser(value_parser!(f64)).help("What counts as in time"),
            arg("popularity", "WORD").default_value("zipf").help("Of tenants: uniform, zipf, or zipf:S"),
            arg("distribution", "WORD").default_value("poisson").help("Of gaps: poisson, constant, or gamma:CV"),
            arg("device", "DEVICE").default_value("auto").help(
                "Where to run, as `tessera serve --device`, or simulated, with an H100's measured costs",
            ),
            arg("precision", "PRECISION").default_value("auto").help("fp32, tf32, bf16 or fp16, where the device has it"),
            arg("policy", "POLICY").default_value("all").action(ArgAction::Append).value_delimiter(',').help(
                "space-time, space, time, exclusive, or all; may be given several times",
            ),
            number("seconds", "5").help("How long each rate is measured"),
            number("lowest-rate", "50").help("Requests per second to begin with"),
            arg("seed", "N").default_value("1").value_parser(value_parser!(u64)).help("Decides weights, inputs and arrivals"),
            arg("svg", "FILE").value_parser(value_parser!(PathBuf)).help("Draw the figure there"),
            json_flag(),
        ])
}

pub(crate) fn run(given: &ArgMatches) -> Result<ExitCode> {
    let sizes = sizes(given);
    let models = words(given, "model").map(|name| Ok(Arc::new(zoo::find(name)?.model(&sizes)?)));
    let models: Vec<Arc<zoo::Model>> = models.collect::<Result<_>>()?;
    let slo_ms = given.get_one::<f64>("slo-ms").copied().unwrap_or_default();
    let slo = Duration::try_from_secs_f64(slo_ms / 1e3).ok().filter(|slo| !slo.is_zero());
    let slo = Some(slo.with_context(|| format!("--slo-ms {slo_ms}: milliseconds above zero"))?);
    let tenant = |number: usize| Tenant { name: format!("tenant-{number}"), slo };
    let word = |name: &str| given.get_one::<String>(name).cloned().unwrap_or_default();
    let names: Vec<&str> = models.iter().map(|model| model.architecture.name).collect();
    let tenants = count(given, "tenants") as usize;
    let what = format!("{tenants} tenants of {}", names.join(", "));
    let setting = Setting {
        tenants: (0..tenants).map(tenant).collect(),
        popularity: parsed(given, "popularity")?,
        gaps: parsed(given, "distribution")?,
        length: Duration::from_secs(count(given, "seconds").into()),
        device: word("device"),
        precision: word("precision"),
        seed: seed(given),
        models,
    };
    // `space` last: its device is divided as no other's, and weights are loaded anew for it.
    let mut policies = policies(given.get_many::<String>("policy").into_iter().flatten())?;
    policies.sort_by_key(|policy| *policy == Policy::Space);
    let mut place = Place::new(setting)?;
    let heard = &mut |line: &str| eprintln!("{line}");
    let first = *policies.first().context("name at least one policy")?;
    let about = format!("{what}, {} popularity, {}", word("popularity"), place.about(first, heard)?);
    let lowest = f64::from(count(given, "lowest-rate"));
    let report =
        goodput::run(about, slo_ms, &policies, lowest, &mut |policy, rate| place.row(policy, rate, heard))?;
    place.close();
    if let Some(path) = given.get_one::<PathBuf>("svg") {
        std::fs::write(path, report.plot().to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    publish(given, &report, serde_json::to_string_pretty(&report)?)?;
    Ok(ExitCode::SUCCESS)
}
